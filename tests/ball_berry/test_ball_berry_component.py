"""The BallBerry component gives the conductance of its form, and its configuration is refused where it is wrong."""

import importlib
import json

import jax
import numpy as np
import pytest
from ball_berry_bundles import canopy_parameters, leaf_configuration
from jaxcanveg_folders import leaves as published_leaves
from jaxcanveg_folders import published_folder

from bmi_components import BallBerry
from bmi_components.ball_berry.conductance import hybrid_slope, medlyn_slope, stomatal_conductance
from bmi_components.ball_berry.stepper import INPUTS
from bmi_components.errors import BundleError, ConfigurationError, ForcingError
from bmi_components.variables import variable

OUTPUT = variable("stomatal_conductance").name
STATE = {
    "net_assimilation": [14.0, -2.0],
    "leaf_carbon_dioxide": [350.0, 410.0],
    "leaf_relative_humidity": [0.62, 0.9],
    "soil_water_content": [0.21, 0.34],
    "leaf_vapour_pressure_deficit": [1.7, 0.2],
}


def opened(text, folder):
    path = folder / "config.yaml" if isinstance(text, str) else text
    if isinstance(text, str):
        path.write_text(text)
    component = BallBerry()
    component.initialize(str(path))
    return component


def conductance(component, form):
    for symbol in INPUTS[form]:
        component.set_value(variable(symbol).name, np.array(STATE[symbol]))
    component.update()
    return component.get_value_ptr(OUTPUT).copy()


def test_ball_berry_by_hand(tmp_path):
    component = opened("leaves: 2\nconductance_slope: [9.0, 5.0]\nconductance_intercept: 0.01\n", tmp_path)
    np.testing.assert_allclose(component.get_value_ptr(OUTPUT), 0.01)
    expected = [0.01 + 9.0 * 0.62 * 14.0 / 350.0, 0.01]
    np.testing.assert_allclose(conductance(component, "ball_berry"), expected, rtol=1e-14)


def test_medlyn_is_its_law(tmp_path):
    component = opened("conductance: medlyn\nleaves: 2\nmedlyn_slope: 3.0\n", tmp_path)
    slope = medlyn_slope(np.array(STATE["leaf_vapour_pressure_deficit"]), 3.0, np)
    expected = stomatal_conductance(np.array([14.0, -2.0]), np.array([350.0, 410.0]), slope, 0.05, np)
    np.testing.assert_allclose(conductance(component, "medlyn"), expected, rtol=1e-14)


def test_a_trained_canopy_gives_form_parameters_and_network(tmp_path):
    component = opened(leaf_configuration(tmp_path, "leaves: 2\n"), tmp_path)
    parameters = canopy_parameters()
    slope = hybrid_slope(
        np.array(STATE["soil_water_content"]),
        1.0 / np.array(STATE["leaf_relative_humidity"]),
        parameters.conductance_slope,
        parameters.humidity_network,
        parameters.scaling.soil_moisture_mean,
        parameters.scaling.soil_moisture_std,
    )
    expected = stomatal_conductance(
        np.array(STATE["net_assimilation"]),
        np.array(STATE["leaf_carbon_dioxide"]),
        slope,
        parameters.conductance_intercept,
    )
    np.testing.assert_allclose(conductance(component, "hybrid"), expected, rtol=1e-6)


def test_a_value_of_the_configuration_goes_before_the_models(tmp_path):
    component = opened(
        leaf_configuration(tmp_path, "leaves: 2\nconductance_intercept: [0.1, 0.3]\n"), tmp_path
    )
    assert conductance(component, "hybrid")[1] == 0.3


def test_a_published_folder_serves_as_model(tmp_path):
    published_folder(tmp_path / "published", published_leaves(bprime=np.float64(0.07)))
    component = opened("model: published\nleaves: 2\n", tmp_path)
    assert conductance(component, "hybrid")[1] == 0.07


def test_on_a_device_the_same_numbers_in_single_precision(tmp_path):
    on_host = conductance(opened(leaf_configuration(tmp_path, "leaves: 2\n"), tmp_path), "hybrid")
    compiled = opened(leaf_configuration(tmp_path, "leaves: 2\ndevice: cpu:0\n"), tmp_path)
    for symbol in INPUTS["hybrid"]:
        compiled.set_value(variable(symbol).name, np.array(STATE[symbol]))
    compiled.update()
    found = compiled.get_tensor(OUTPUT)
    assert isinstance(found, jax.Array)
    np.testing.assert_allclose(found, on_host, rtol=1e-5)


@pytest.mark.parametrize("form", ["ball_berry", "hybrid", "medlyn"])
def test_the_differentiable_series_is_what_update_gives(form, tmp_path):
    path = leaf_configuration(tmp_path, f"leaves: 2\nconductance: {form}\n")
    component = opened(path, tmp_path)
    expected = conductance(component, form)
    settings = component.read_settings(path)
    series = component.open(settings).differentiable()
    given = {variable(symbol).name: np.array([STATE[symbol]] * 3) for symbol in INPUTS[form]}
    slopes = {"conductance_slope": np.array([9.5, 9.5])}

    def total(slopes):
        _, outputs = series.simulate(slopes, series.state, given, 0.0)
        return outputs[OUTPUT].sum(), outputs[OUTPUT]

    (_, found), gradient = jax.value_and_grad(total, has_aux=True)(slopes)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found, [expected] * 3, rtol=1e-5)
    # linear in the slope where the leaf takes up CO2, and none of it where it gives off CO2
    share = 3.0 * (expected[0] - 0.02) / 9.5 if form != "medlyn" else 0.0
    np.testing.assert_allclose(gradient["conductance_slope"], [share, 0.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conductance: hybrid\n", "conductance hybrid needs a trained network, but model is not given"),
        ("leaves: 3\nconductance_slope: [8.0, 9.0]\n", "has 2 values; one, or one for each of 3 leaves"),
        (
            "conductance_intercept: -0.1\n",
            r"conductance_intercept is \[?-0.1\]?; it must be between 0 and 10",
        ),
        ("medlyn_slope: .nan\n", "medlyn_slope is nan; it must be between 0 and 100"),
        ("device: cpu:0\ndtype: float64\n", "dtype is float64; on cpu:0 the leaves are of float32"),
        ("conductance: jarvis\n", "conductance"),
    ],
)
def test_a_wrong_configuration_is_named(text, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        opened(text, tmp_path)


def test_a_model_without_a_trained_network_is_no_hybrid(tmp_path):
    path = leaf_configuration(tmp_path, "conductance: hybrid\n", conductance="ball_berry")
    with pytest.raises(ConfigurationError, match="canopy has none; name a model of the form hybrid"):
        opened(path, tmp_path)


def test_a_model_of_another_kind_is_refused(tmp_path):
    published_folder(tmp_path / "published")
    description = json.loads((tmp_path / "published" / "configs.json").read_text())
    (tmp_path / "published" / "configs.json").write_text(
        json.dumps(description | {"model configurations": {}})
    )
    with pytest.raises(BundleError, match=r"configs.json"):
        opened("model: published\n", tmp_path)


def test_air_without_co2_is_impossible(tmp_path):
    component = opened("leaves: 1\n", tmp_path)
    for symbol, value in (
        ("net_assimilation", 9.0),
        ("leaf_relative_humidity", 0.5),
        ("leaf_carbon_dioxide", 0.0),
    ):
        component.set_value(variable(symbol).name, np.array([value]))
    with pytest.raises(ForcingError, match=r"0 umol mol-1 at catchment 0; it must be between 1 and 1e\+06"):
        component.update()


def test_the_class_needs_no_framework():
    assert importlib.import_module("bmi_components.ball_berry.component").BallBerry is BallBerry
