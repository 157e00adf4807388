"""A published JAX-CanVeg model becomes a bundle number for number; nothing in its files is ever executed."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxcanveg_folders import CONFIGURATION, HEADER, eqx, leaves, published_folder

from bmi_components.canveg.bundle import KIND, unpack
from bmi_components.canveg.parameters import TABLE
from bmi_components.cli import main
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.importers import import_jaxcanveg, load_model
from bmi_components.importers.jaxcanveg import LEAVES, read_published_configuration
from bmi_components.trained_model import TrainedModel

PUBLISHED = [
    ("US-Bi1", "Hybrid-1L-0.5"),
    ("US-Bi1", "Hybrid-ML-0.5"),
    ("US-Bi1", "PB-ML-0.5"),
    ("US-Whs", "Hybrid-ML-0.5"),
    ("US-Whs", "PB-ML-0.5"),
]


def changed(**values):
    configuration = copy.deepcopy(CONFIGURATION)
    for key, value in values.items():
        configuration["model configurations"][key.replace("_", " ")] = value
    return configuration


@pytest.mark.parametrize(("site", "case"), PUBLISHED)
def test_published_models_hold_the_numbers_that_the_reference_computed_with(shared_data, site, case):
    model = import_jaxcanveg(shared_data / "checkpoints" / "jax_canveg" / site / case)
    options, place, parameters, dispersion = unpack(model)
    golden = np.load(shared_data / "golden" / "canveg" / f"{site}_{case}_params.npz")
    assert parameters.dark_respiration_25 == 0.004657 * golden["para.vcopt"]  # nothing read its own number
    for row in TABLE:
        if row.published_name not in ("", "rd25"):
            assert getattr(parameters, row.name) == golden[f"para.{row.published_name}"], row.name
    for ours, theirs in (("humidity_network", "LeafRHDL"), ("respiration_network", "RsoilDL")):
        network = getattr(parameters, ours)
        for layer in range(3):
            np.testing.assert_array_equal(network.weights[layer], golden[f"para.{theirs}.{layer}.weight"])
            np.testing.assert_array_equal(network.biases[layer], golden[f"para.{theirs}.{layer}.bias"])
    scaling = parameters.scaling
    assert scaling.soil_moisture_mean == golden["para.var_mean.soilmoisture"]
    assert scaling.soil_moisture_std == golden["para.var_std.soilmoisture"]
    assert scaling.soil_moisture_maximum == golden["para.var_max.soilmoisture"]
    assert scaling.air_temperature_minimum == golden["para.var_min.T_air"]
    np.testing.assert_array_equal(dispersion, golden["dij"])
    assert options.mode == "reference"
    assert options.layers == golden["setup.n_can_layers"]
    assert options.conductance == ("hybrid" if "Hybrid" in case else "ball_berry")
    assert place.latitude == golden["setup.lat_deg"]
    assert place.time_zone == golden["setup.time_zone"]
    assert place.canopy_height == pytest.approx(golden["para.zht1"][-1])
    assert place.measurement_height == pytest.approx(golden["para.zht2"][-1])
    assert parameters.deactivation_enthalpy == 99_999.0  # clipped in the published training
    assert model.provenance["published_scores"]["LE-test"]["rmse"] > 0.0


@pytest.mark.parametrize(
    ("number", "density"), [(0, "erectophile"), (2, "planophile"), (1, "spherical"), (4, "extremophile")]
)
def test_leaf_angles_get_their_true_names(tmp_path, number, density):
    folder = published_folder(
        tmp_path / "model", leaves(leafangle=np.array([number])), changed(leaf_angle_type=number)
    )
    assert unpack(import_jaxcanveg(folder))[0].leaf_angles == density


def test_the_command_writes_a_bundle_that_loads(tmp_path, capsys):
    folder = published_folder(tmp_path / "model")
    assert main(["import", "jaxcanveg", str(folder), str(tmp_path / "bundle"), "--licence", "BSD"]) == 0
    assert "JAX-CanVeg folder" in capsys.readouterr().out
    model = TrainedModel.load(tmp_path / "bundle", KIND)
    assert model.identity == load_model(folder, KIND).identity
    assert model.licence == "BSD"
    assert model.provenance["epoch"] == 7
    assert model.provenance["published_scores"] == {"LE-test": {"rmse": 43.1, "nse": 0.84}}


def test_the_eqx_file_can_be_named(tmp_path):
    folder = published_folder(tmp_path / "model")
    (folder / "other.eqx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"US-Any_model.eqx, other.eqx; name the one to use"):
        import_jaxcanveg(folder)
    assert load_model(folder / "US-Any_model.eqx").kind == KIND


def test_the_range_of_respiration_that_was_never_observed_is_needed_by_its_network_only(tmp_path):
    parameters = unpack(import_jaxcanveg(published_folder(tmp_path / "q10")))[2]
    assert parameters.scaling.soil_respiration_maximum == 10.0
    network = published_folder(
        tmp_path / "network", leaves(soilresp=np.array([2])), changed(soil_respiration_module=2)
    )
    with pytest.raises(BundleError, match="no range of soil respiration"):
        import_jaxcanveg(network)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sigma": np.float64(5.67e-8)}, "sigma is 5.67e-08; the canopy model computes with 5.670367e-08"),
        ({"stomata": np.array([2])}, r"stomata is .*2.*; it must be one of 0 \(hypostomatous\), 1"),
        ({"n_can_layers": np.array([3])}, "layers is 3 here, but 2 in configs.json"),
        ({"niter": np.array([0])}, "iterations|>= 1"),
        ({"kball": np.float64(np.nan)}, "conductance_slope holds values that are not finite"),
        ({"kball": np.zeros(3)}, r"kball has shape \[3\]; one number"),
        ({"LeafRHDL.0.weight": np.zeros((6, 5))}, "layer 0 of humidity_network"),
        ({"dij": np.zeros((4, 2))}, r"dispersion matrix is \[4, 2\]"),
        ({"kball": np.array("none")}, "does not hold plain numbers"),
        ({"kball": np.array({"run": "me"}, dtype=object)}, "does not hold plain numbers"),
        ({"more": np.float64(1.0)}, "there are 154 arrays; a canopy model has 153"),
    ],
)
def test_arrays_that_are_no_canopy_model_are_refused(tmp_path, arrays, message):
    with pytest.raises(BundleError, match=message):
        import_jaxcanveg(published_folder(tmp_path / "model", leaves(**arrays)))


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([1], "must be a JSON object"),
        ({}, "first line: 'veg_ht' must be a number, not None"),
        (HEADER | {"veg_ht": 1.5}, "canopy_height is 1.5 here, but 0.8"),
        (HEADER | {"n_hr_per_day": 0}, "time_step|> 0"),
    ],
)
def test_a_first_line_that_says_something_else_is_refused(tmp_path, header, message):
    with pytest.raises(BundleError, match=message):
        import_jaxcanveg(published_folder(tmp_path / "model", header=header))


def test_an_absent_folder_or_file_is_named(tmp_path):
    with pytest.raises(BundleError, match="no such folder"):
        import_jaxcanveg(tmp_path / "model")
    folder = published_folder(tmp_path / "model")
    (folder / "configs.json").unlink()
    with pytest.raises(BundleError, match=r"configs.json: .*absent"):
        import_jaxcanveg(folder)
    (folder / "US-Any_model.eqx").unlink()
    with pytest.raises(BundleError, match=r"one .eqx file is needed, not none"):
        import_jaxcanveg(folder)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_damaged_checkpoint_is_one_clear_error_or_still_a_model(tmp_path_factory, data):
    content = bytearray(eqx(leaves()))
    for _ in range(data.draw(st.integers(0, 4), label="bytes")):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans(), label="cut"):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    folder = published_folder(tmp_path_factory.mktemp("damaged") / "model")
    (folder / "US-Any_model.eqx").write_bytes(bytes(content))
    message = "US-Any_model.eqx"
    try:
        assert import_jaxcanveg(folder).kind == KIND
    except BundleError as error:
        message = str(error)
    assert "US-Any_model.eqx" in message


# configs.json -----------------------------------------------------------------------------------------------


def test_a_published_configuration_is_read(tmp_path):
    (tmp_path / "configs.json").write_text(json.dumps(CONFIGURATION))
    options, site, content = read_published_configuration(tmp_path / "configs.json")
    assert (options.stomata, options.layers, options.atmosphere_layers) == ("amphistomatous", 2, 3)
    assert (options.mode, options.time_step) == ("reference", 1800.0)
    assert (site.time_zone, site.measurement_height) == (-8.0, 5.0)
    assert content["learning configurations"] == {"number of epochs": 7}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latitude": None}, "'latitude' must be a number, not None"),
        ({"stomata_type": 7}, r"'stomata type' is 7; it must be one of 0 \(hypostomatous\)"),
        ({"leaf_angle_type": True}, "'leaf angle type' is True"),
        ({"number_of_canopy_layers": 1.5}, "layers"),
        ({"number_of_canopy_layers": 0}, "layers"),
        ({"canopy_height": float("inf")}, "'canopy height' must be a number, not inf"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, values, message):
    (tmp_path / "configs.json").write_text(json.dumps(changed(**values)))
    with pytest.raises(ConfigurationError, match=message) as raised:
        read_published_configuration(tmp_path / "configs.json")
    assert "configs.json" in str(raised.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model configurations": 1}', "[" * 100_000])
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text):
    (tmp_path / "configs.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"not a readable JSON|section 'model configurations'"):
        read_published_configuration(tmp_path / "configs.json")
    with pytest.raises(ConfigurationError, match="no such configuration file"):
        read_published_configuration(tmp_path / "absent.json")


def test_the_names_of_the_arrays_are_unique():
    assert len(LEAVES) == len(set(LEAVES)) == 153
