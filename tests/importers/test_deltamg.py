"""A δMG model folder, in old and new spellings, becomes a bundle that computes the same; damage is one clear error."""

import argparse
import contextlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from deltamg_folders import (
    ATTRIBUTES_MTS,
    CAMELS,
    FOLDERS,
    REFERENCE,
    folder_11p,
    folder_20,
    folder_mts,
    seeded,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.cli import import_
from bmi_components.errors import BundleError
from bmi_components.hbv.networks import (
    LstmMlpNetwork,
    LstmNetwork,
    Mlp,
    MultiTimescaleNetwork,
    TimescaleBranch,
)
from bmi_components.importers import import_deltamg, load_model
from bmi_components.trained_model import TrainedModel, forget_shared_models


@pytest.fixture(autouse=True)
def _nothing_shared():
    forget_shared_models()
    yield
    forget_shared_models()


def change_configuration(folder, change):
    file = folder / "config.yaml"
    content = yaml.safe_load(file.read_text())
    change(content)
    file.write_text(yaml.safe_dump(content))


def change_statistics(folder, change):
    file = folder / "normalization_statistics.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def load_into(network, model):
    network.load_state_dict({name: torch.tensor(array) for name, array in model.weights.items()})
    return network.eval()


# What comes out ---------------------------------------------------------------------------------------------


@torch.no_grad()
def test_11p_gives_the_golden_output(shared_data, tmp_path):
    with np.load(shared_data / "golden" / "hbv" / "nn_lstm_f32.npz") as golden:
        values = {name: torch.from_numpy(golden[name]) for name in golden}
    weights = {name.removeprefix("sd_"): values[name] for name in values if name.startswith("sd_")}
    model = import_deltamg(folder_11p(tmp_path / "m", weights, hidden=24))
    raw, _ = load_into(LstmNetwork(38, 24, 58), model)(values["x"])
    torch.testing.assert_close(raw, values["y_raw"], rtol=0, atol=1e-6)
    assert model.hyperparameters == {
        "physics": "1.1p",
        "components": 4,
        "dynamic_parameters": ["BETA", "K0", "BETAET"],
        "hidden": 24,
        "dropout": 0.5,
        "routing": True,
        "log_transformed": [],
        "elevation_attribute": "meanelevation",
        "area_attribute": "uparea",
        "network": "lstm",
        "static_parameters_from": "last_step",
    }
    assert model.time_step == 86400.0
    assert [quantity.name for quantity in model.attributes] == CAMELS
    assert model.provenance["epoch"] == 100


@torch.no_grad()
def test_20_in_the_old_layout_gives_the_golden_output(shared_data, tmp_path):
    with np.load(shared_data / "golden" / "hbv" / "nn_lstmmlp_f32.npz") as golden:
        values = {name: torch.from_numpy(golden[name]) for name in golden}
    weights = {name.removeprefix("sd_"): values[name] for name in values if name.startswith("sd_")}
    model = import_deltamg(folder_20(tmp_path / "m", weights))
    network = load_into(LstmMlpNetwork(31, 16, 12, 28, 32, 54), model)
    dynamic, static, _ = network(values["x"], values["z"])
    torch.testing.assert_close(dynamic, values["dy01"], rtol=0, atol=1e-6)
    torch.testing.assert_close(static, values["static01"], rtol=0, atol=1e-6)
    assert model.hyperparameters["physics"] == "2.0"
    assert model.hyperparameters["network"] == "lstm_mlp"
    assert (model.hyperparameters["mlp_hidden"], model.hyperparameters["mlp_layers"]) == (32, 6)
    assert model.hyperparameters["log_transformed"] == ["precipitation"]


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "physics"), [("Hbv_2_hourly", "2.0-hourly"), ("Hbv_2_1_hourly", "2.1-hourly")]
)
def test_multi_timescale_gives_the_reference_output(tmp_path, name, physics):
    model = import_deltamg(folder_mts(tmp_path / "m", name))
    network = load_into(
        MultiTimescaleNetwork(
            TimescaleBranch(7, 5, 3, 4, 8, 13), TimescaleBranch(7, 6, 3, 4, 9, 16), Mlp(3, 10, 3, layers=2)
        ),
        model,
    )
    with np.load(REFERENCE) as arrays:
        values = {key: torch.from_numpy(arrays[key]) for key in arrays}
    inputs = ("daily", "daily_attributes", "hourly", "hourly_attributes", "pair_attributes")
    result = network(*(values[key] for key in inputs))._asdict()
    for key in ("daily_dynamic", "daily_static", "hourly_dynamic", "hourly_static", "routing"):
        torch.testing.assert_close(result[key], values[key], rtol=0, atol=1e-6)
    assert model.hyperparameters["physics"] == physics
    assert model.hyperparameters["daily"]["physics"] == "2.0"
    assert (model.hyperparameters["window"], model.hyperparameters["daily"]["window"]) == (336, 351)
    assert model.time_step == 3600.0
    assert [a.name for a in model.attributes] == [*ATTRIBUTES_MTS, "lengthkm", "uparea"]


def test_statistics_come_in_our_names_and_units(tmp_path):
    folder = folder_11p(tmp_path / "m")
    model = import_deltamg(folder)
    statistics = json.loads((folder / "normalization_statistics.json").read_text())
    for ours, theirs in {"precipitation": "prcp", "temperature": "tmean", "p_mean": "p_mean"}.items():
        assert model.normalisation[ours] == {"mean": statistics[theirs][2], "std": statistics[theirs][3]}
    assert {a.name: a.units for a in model.attributes}["p_mean"] == "mm d-1"
    assert model.provenance["attributes_of_unknown_units"][0] == "attribute_0"


def test_hourly_statistics_are_per_day_as_the_inputs_are(tmp_path):
    model = import_deltamg(folder_mts(tmp_path / "m"))
    wanted = {
        "precipitation": (0.5 * 24, (2.0 + 1e-6) * 24),
        "temperature": (1.5, 3.0 + 1e-6),
        "potential_evapotranspiration": (2.5 * 24, (4.0 + 1e-6) * 24),
        "daily/precipitation": (0.5, 2.0 + 1e-6),
        "catchsize": (3.5, 5.0 + 1e-6),
        "routing/lengthkm": (2.5, 4.0 + 1e-6),
    }
    for name, (mean, std) in wanted.items():
        assert model.normalisation[name] == pytest.approx({"mean": mean, "std": std})


@torch.no_grad()
def test_forcings_in_another_order_come_into_ours(tmp_path):
    plain = import_deltamg(folder_11p(tmp_path / "a"))
    weights = seeded(LstmNetwork(38, 8, 58))
    order = [2, 0, 1, *range(3, 38)]
    weights["linear_in.weight"] = weights["linear_in.weight"][:, order]
    turned = import_deltamg(folder_11p(tmp_path / "b", weights, forcings=["pet", "prcp", "tmean"]))
    for name in plain.weights:
        np.testing.assert_array_equal(plain.weights[name], turned.weights[name])


def test_hbv_10_with_and_without_a_dynamic_evaporation_exponent(tmp_path):
    for dynamic, parameters in ((["parBETA", "parBETAET"], 13), (["parBETA"], 12)):
        folder = folder_11p(tmp_path / f"{parameters}", seeded(LstmNetwork(38, 8, parameters * 4 + 2)))
        change_configuration(
            folder,
            lambda c, d=dynamic: c["model"]["phy"].update(name=["Hbv"], dynamic_params={"Hbv": d}),
        )
        (folder / "hbv_1_1p_ep100.pt").rename(folder / "dHbv_Ep50.pt")
        model = import_deltamg(folder)
        assert model.hyperparameters["physics"] == "1.0"
        assert model.hyperparameters["dynamic_parameters"] == [name.removeprefix("par") for name in dynamic]


def test_old_names_of_parameters(tmp_path):
    folder = folder_11p(tmp_path / "m")
    change_configuration(folder, lambda c: c["model"]["phy"].update(dynamic_params={"HBV": ["parCx"]}))
    assert import_deltamg(folder).hyperparameters["dynamic_parameters"] == ["C"]


def test_without_routing_the_last_channels_go(tmp_path):
    folder = folder_11p(tmp_path / "m")
    change_configuration(folder, lambda c: c["model"]["phy"].update(routing=False))
    model = import_deltamg(folder)
    assert model.weights["linear_out.bias"].shape == (56,)
    assert model.hyperparameters["routing"] is False


@pytest.mark.parametrize("name", ["dHbv_1_1p_Ep100.pt", "hbv_1_1p_ep100.pt", "dhbv_1_1p_ep100.pt"])
def test_file_names_old_and_new(tmp_path, name):
    folder = folder_11p(tmp_path / "m")
    if name != "hbv_1_1p_ep100.pt":
        (folder / "hbv_1_1p_ep100.pt").rename(folder / name)
    assert import_deltamg(folder).provenance["checkpoint"] == name


def test_the_last_epoch_is_taken_unless_a_file_is_named(tmp_path):
    folder = folder_11p(tmp_path / "m")
    weights = seeded(LstmNetwork(38, 8, 58))
    torch.save({f"nn_model.{k}": v * 2 for k, v in weights.items()}, folder / "hbv_1_1p_ep95.pt")
    torch.save({"epoch": 200}, folder / "trainer_state_ep200.pt")
    assert import_deltamg(folder).provenance["epoch"] == 100
    earlier = import_deltamg(folder / "hbv_1_1p_ep95.pt")
    assert earlier.provenance["epoch"] == 95
    np.testing.assert_array_equal(earlier.weights["linear_out.bias"], 2 * weights["linear_out.bias"].numpy())


def test_published_configuration_of_nextgen_in_a_box_style_paths(tmp_path):
    folder = folder_20(tmp_path / "m")
    model = load_model(folder, kind="hbv")
    assert load_model(os.path.relpath(folder), kind="hbv") is model
    with pytest.raises(BundleError, match="'flux_lstm' is needed here"):
        load_model(folder, kind="flux_lstm")


@pytest.mark.parametrize("variant", FOLDERS)
def test_an_imported_model_survives_saving(tmp_path, variant, capsys):
    folder = FOLDERS[variant](tmp_path / "m")
    parser = argparse.ArgumentParser()
    import_.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(
        ["import", "deltamg", str(folder), str(tmp_path / "bundle"), "--licence", "CC-BY-NC-4.0"]
    )
    assert arguments.func(arguments) == 0
    assert "checkpoint: " in capsys.readouterr().out
    bundle = TrainedModel.load(tmp_path / "bundle", kind="hbv")
    assert bundle.identity == import_deltamg(folder).identity
    assert bundle.licence == "CC-BY-NC-4.0"


# What is refused --------------------------------------------------------------------------------------------


def refuse(folder, message):
    with pytest.raises(BundleError, match=message) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", ["config.yaml", "normalization_statistics.json"])
def test_an_absent_file(tmp_path, name):
    folder = folder_11p(tmp_path / "m")
    (folder / name).unlink()
    refuse(folder, f"{name} is absent")


def test_no_checkpoint(tmp_path):
    folder = folder_11p(tmp_path / "m")
    (folder / "hbv_1_1p_ep100.pt").rename(folder / "model.pt")
    refuse(folder, "no checkpoint is here; one named like")


def test_two_checkpoints_of_the_last_epoch(tmp_path):
    folder = folder_11p(tmp_path / "m")
    shutil.copy(folder / "hbv_1_1p_ep100.pt", folder / "dHbv_1_1p_Ep100.pt")
    refuse(folder, "several checkpoints are of epoch 100")


def test_the_checkpoint_of_another_physics(tmp_path):
    folder = folder_11p(tmp_path / "m")
    (folder / "hbv_1_1p_ep100.pt").rename(folder / "dhbv_2_ep100.pt")
    refuse(folder, "by its name this is HBV 2.0, but config.yaml describes HBV 1.1p")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model"), "the section 'model' is missing"),
        (lambda c: c["model"].pop("nn"), "the section 'nn' is missing"),
        (lambda c: c["model"]["phy"].update(name=["Prms"]), "'name' is .'Prms'.; one HBV is needed"),
        (lambda c: c["model"]["phy"].update(nmul=5), r"linear_out.* must be"),
        (lambda c: c["model"]["phy"].update(nmul="four"), "'nmul' must be a whole number"),
        (lambda c: c["model"]["phy"].update(dynamic_params={"Hbv_1_1p": ["parRT"]}), "names 'RT', which"),
        (
            lambda c: c["model"]["phy"].update(dynamic_params={"Hbv": ["parBETA"], "Prms": ["alpha"]}),
            "one list for HBV 1.1p",
        ),
        (lambda c: c["model"]["nn"].update(hidden_size=9), r"linear_in.* must be \(9, 38\)"),
        (lambda c: c["model"]["nn"].pop("hidden_size"), "'hidden_size' must be a whole number"),
        (lambda c: c["model"]["nn"].update(dropout=1.5), r"'dropout' must be within \[0, 1\)"),
        (lambda c: c["model"]["nn"]["attributes"].pop(), r"linear_in.weight has shape \(8, 38\)"),
        (lambda c: c["model"]["nn"].update(attributes="all"), "'attributes' must be a list of names"),
        (lambda c: c["model"]["nn"].update(forcings=["prcp", "tmean", "srad"]), "precipitation, mean temp"),
        (lambda c: c["model"].update(use_log_norm=["p_mean"]), "use_log_norm names p_mean"),
    ],
)
def test_a_configuration_that_does_not_fit(tmp_path, change, message):
    folder = folder_11p(tmp_path / "m")
    change_configuration(folder, change)
    refuse(folder, message)


def test_a_20_without_the_attribute_that_its_physics_needs(tmp_path):
    folder = folder_20(tmp_path / "m")
    change_configuration(
        folder,
        lambda c: c["dpl_model"]["nn_model"]["attributes"].__setitem__(27, "area"),
    )
    refuse(folder, "attributes lacks 'uparea', which HBV 2.0 needs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("prcp"), "the statistics of 'prcp' are missing"),
        (lambda s: s.pop("aridity"), "the statistics of 'aridity' are missing"),
        (lambda s: s.update(pet=[1.0, 2.0]), r"'pet' must be \[p10, p90, mean, std\]"),
        (lambda s: s.update(pet=[0.0, 1.0, None, 1.0]), "'pet' must be"),
        (lambda s: s.update(pet=[0.0, 1.0, float("nan"), 1.0]), "'pet' must be"),
        (lambda s: s.update(pet=[0.0, 1.0, 1.0, 0.0]), "a std above 0|a finite std above 0"),
    ],
)
def test_statistics_that_do_not_fit(tmp_path, change, message):
    folder = folder_11p(tmp_path / "m")
    change_statistics(folder, change)
    with pytest.raises(BundleError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["std"].pop("dyn_input"), "std of 'dyn_input' is missing"),
        (lambda s: s["mean"]["static_input"].pop(), "has 3 values; the configuration names 4"),
        (lambda s: s.pop("mean"), "mean of 'dyn_input' is missing"),
    ],
)
def test_statistics_of_a_multi_timescale_model_that_do_not_fit(tmp_path, change, message):
    folder = folder_mts(tmp_path / "m")
    change_statistics(folder, change)
    refuse(folder, message)


def test_tensors_that_do_not_belong_to_the_network(tmp_path):
    weights = seeded(LstmNetwork(38, 8, 58))
    cases = {
        "lacks lstm.w_hh": {k: v for k, v in weights.items() if k != "lstm.w_hh"},
        "holds extra, which": weights | {"extra": torch.zeros(1)},
        "not finite": weights | {"lstm.b_ih": torch.full((32,), torch.nan)},
        "not floating-point": weights | {"lstm.b_ih": torch.zeros(32, dtype=torch.int64)},
    }
    for number, (message, changed) in enumerate(cases.items()):
        folder = folder_11p(tmp_path / str(number), changed)
        with pytest.raises(BundleError, match=message):
            load_model(folder)


class Exploit:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("pickled", ["whole model", "exploit"])
def test_pickled_code_is_not_run(tmp_path, pickled):
    folder = folder_11p(tmp_path / "m")
    harm = tmp_path / "harm"
    content = LstmNetwork(38, 8, 58) if pickled == "whole model" else {"nn_model.x": Exploit(harm)}
    torch.save(content, folder / "hbv_1_1p_ep100.pt")
    refuse(folder, "holds pickled code, not only weights, and is not opened")
    assert not harm.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a checkpoint", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    folder = folder_11p(tmp_path / "m")
    (folder / "hbv_1_1p_ep100.pt").write_bytes(content)
    refuse(folder, "checkpoint")


def test_an_html_error_page_instead_of_the_statistics(tmp_path):
    folder = folder_11p(tmp_path / "m")
    (folder / "normalization_statistics.json").write_text("<html>404</html>")
    refuse(folder, "not valid JSON")


def assert_same_science(a, b):
    assert a.hyperparameters == b.hyperparameters
    assert a.normalisation == b.normalisation
    assert set(a.weights) == set(b.weights)
    for name in a.weights:
        np.testing.assert_array_equal(a.weights[name], b.weights[name])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_checkpoint_is_an_error_or_harmless(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged") / "m"
    folder_11p(folder, hidden=2, components=1)
    whole = import_deltamg(folder)
    file = folder / "hbv_1_1p_ep100.pt"
    content = bytearray(file.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with contextlib.suppress(BundleError):
        assert_same_science(import_deltamg(folder), whole)  # alignment bytes and dates are free
