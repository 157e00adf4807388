"""A canopy model goes into a bundle and comes back the same; what does not fit together is refused."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmi_components.canveg.bundle import INPUTS, KIND, LATER, OUTPUTS, pack, unpack
from bmi_components.canveg.fluxes import Fluxes
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.options import Options, Quirks, Site
from bmi_components.canveg.parameters import default_parameters
from bmi_components.errors import BundleError
from bmi_components.trained_model import TrainedModel

OPTIONS = Options(layers=3, atmosphere_layers=4, conductance="hybrid", quirks=Quirks(co2_by_mass=True))
SITE = Site(38.0, -121.5, -8.0, np.array([0.8, 18.0]), np.array([5.0, 34.0]))
DISPERSION = np.random.default_rng(0).uniform(0.0, 9.0, (7, 3))
PROVENANCE = {"data": "none"}


def packed(**changes):
    parameters = default_parameters({"kball": 9.5}, seed=3)._replace(clumping=jnp.array([0.7, 0.9]))
    parts = {"options": OPTIONS, "site": SITE, "parameters": parameters, "dispersion": DISPERSION}
    return pack(**(parts | changes), provenance=PROVENANCE, licence="CC0"), parameters


def without(model, name):
    return replace(model, weights={n: w for n, w in model.weights.items() if n != name})


def test_a_bundle_on_disk_gives_back_every_number(tmp_path):
    model, parameters = packed()
    model.save(tmp_path / "canopy")
    options, site, found, dispersion = unpack(TrainedModel.load(tmp_path / "canopy", KIND))
    assert options == OPTIONS
    assert (site.latitude, site.soil_depth) == (38.0, 0.15)
    np.testing.assert_array_equal(site.canopy_height, [0.8, 18.0])
    np.testing.assert_array_equal(dispersion, DISPERSION)
    assert jax.tree.structure(found) == jax.tree.structure(parameters)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_inputs_and_outputs_are_those_of_the_model():
    assert tuple(quantity.name for quantity in INPUTS) == Forcing._fields
    assert {quantity.name for quantity in OUTPUTS} <= set(Fluxes._fields)


def test_the_bundle_has_the_time_step_of_the_options():
    assert packed(options=Options(layers=3, atmosphere_layers=4, time_step=3600.0))[0].time_step == 3600.0


@pytest.mark.parametrize("name", LATER)
def test_an_older_bundle_without_a_later_parameter_is_what_it_was(name):
    older = without(packed()[0], name)
    found = getattr(unpack(older)[2], name)
    assert found == LATER[name]
    assert found.dtype == older.weights["dispersion"].dtype


def test_a_dispersion_matrix_of_other_layers_is_refused():
    with pytest.raises(BundleError, match=r"dispersion matrix is \[7, 2\]; \[7, 3\] is needed for 3 layers"):
        packed(dispersion=DISPERSION[:, :2])


def test_a_parameter_that_is_not_a_number_is_refused():
    with pytest.raises(BundleError, match="leaf_length holds values that are not finite"):
        packed(parameters=default_parameters()._replace(leaf_length=jnp.nan))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kball", "no parameter kball"),
        ("humidity_network.biases.1", r"humidity_network.biases.1 is missing"),
        (
            "humidity_network.weights.2",
            "no parameter humidity_network.biases.2|lead from 2 inputs to 1 output",
        ),
        ("scaling.soil_moisture_std", r"scaling.soil_moisture_std is missing"),
        ("dispersion", "dispersion is missing"),
    ],
)
def test_weights_that_are_no_canopy_model_are_named(name, message):
    model, _ = packed()
    changed = (
        replace(model, weights={**model.weights, name: np.zeros(1)})
        if name not in model.weights
        else without(model, name)
    )
    with pytest.raises(BundleError, match=message):
        unpack(changed)


def test_a_network_of_the_wrong_width_is_refused():
    model, _ = packed()
    weights = {**model.weights, "respiration_network.weights.0": np.zeros((6, 3))}
    with pytest.raises(BundleError, match=r"layer 0 of respiration_network is \[6, 3\]"):
        unpack(replace(model, weights=weights))


@pytest.mark.parametrize(
    "hyperparameters",
    [
        {},
        {"options": {"layers": 0}, "site": {}},
        {"options": {"mode": "published"}, "site": {}},
        {"options": {}, "site": {"latitude": 1.0}},
        {"options": {}, "site": {"latitude": "north"}},
    ],
)
def test_hyperparameters_that_are_no_canopy_model_are_refused(hyperparameters):
    with pytest.raises(BundleError, match="do not describe a canopy model"):
        unpack(replace(packed()[0], hyperparameters=hyperparameters))


def test_another_kind_is_refused():
    with pytest.raises(BundleError, match="kind 'hbv'; 'canveg' is needed"):
        unpack(replace(packed()[0], kind="hbv"))
