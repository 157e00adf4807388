"""neuralhydrology run folders become trained models, or an error says what is wrong with them."""

import argparse
import contextlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from neuralhydrology_folders import (
    ATTRIBUTES,
    LSTM_SHAPES,
    STATISTICS,
    cases,
    random_weights,
    small_run,
    write_reference,
)

from bmi_components.cli import import_
from bmi_components.errors import BundleError
from bmi_components.importers import import_neuralhydrology, load_model
from bmi_components.importers.neuralhydrology_units import AORC, DATASETS, SYMBOL_OF_NAME, UNITS_OF_TEXT
from bmi_components.importers.restricted_pickle import read_pickled_statistics
from bmi_components.lstm.networks import make_network
from bmi_components.trained_model import NamedUnits, TrainedModel, forget_shared_models
from bmi_components.units import convertible
from bmi_components.variables import CATALOGUE

HERE = Path(__file__).parent


def edit(folder, **changes):
    file = folder / "config.yml"
    configuration = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in configuration.items() if v is not None}))


def edit_scaler(folder, change):
    file = folder / "train_data" / "train_data_scaler.yml"
    scaler = json.loads(file.read_text())
    change(scaler)
    file.write_text(json.dumps(scaler))


def refuse(folder, message, **options):
    with pytest.raises(BundleError, match=message) as caught:
        import_neuralhydrology(folder, **options)
    assert str(folder) in str(caught.value)


# What is found ----------------------------------------------------------------------------------------------------


def test_a_run_with_its_units_statistics_and_order(tmp_path):
    model = import_neuralhydrology(small_run(tmp_path / "run"))
    assert model.kind == "neuralhydrology"
    assert model.inputs == (NamedUnits("prcp(mm/day)", "mm d-1"), NamedUnits("tmax(C)", "degC"))
    assert model.attributes == (NamedUnits("elev_mean", "m"), NamedUnits("slope_mean", "m km-1"))
    assert model.outputs == (NamedUnits("QObs(mm/d)", "mm d-1"),)
    assert model.time_step == 86400.0
    assert model.hyperparameters["sequence_length"] == 30
    assert model.hyperparameters["quantities"] == {
        "prcp(mm/day)": "precipitation",
        "tmax(C)": "maximum_temperature",
    }
    expected = {n: {"mean": m, "std": s} for n, (m, s) in (STATISTICS | ATTRIBUTES).items()}
    assert {name: dict(entry) for name, entry in model.normalisation.items()} == expected
    assert model.provenance["targets_left_out"] == []


def test_the_highest_epoch_that_is_there_counts_whatever_the_configuration_says(tmp_path):
    folder = small_run(tmp_path / "run", epoch=2, epochs=30)
    torch.save(random_weights(LSTM_SHAPES, seed=9), folder / "model_epoch010.pt")
    torch.save({}, folder / "optimizer_state_epoch011.pt")
    assert import_neuralhydrology(folder).provenance["epoch"] == 10
    second = import_neuralhydrology(folder, epoch=2)
    assert second.provenance["epoch"] == 2
    assert second.identity != import_neuralhydrology(folder).identity
    refuse(folder, "weights of epoch 30 are not here, those of epochs 2, 10 are", epoch=30)


def test_noaas_model_is_in_kelvin_and_hours(shared_data):
    model = import_neuralhydrology(shared_data / "checkpoints" / "noaa_lstm_aorc_hourly")
    assert model.inputs == (NamedUnits("APCP_surface", "mm h-1"), NamedUnits("TMP_2maboveground", "K"))
    assert model.outputs[0].units == "mm h-1"
    assert model.time_step == 3600.0
    assert model.hyperparameters["sequence_length"] == 999


@pytest.mark.parametrize("case", cases())
def test_every_architecture_survives_saving(tmp_path, case):
    write_reference(tmp_path / "run", case)
    model = import_neuralhydrology(tmp_path / "run")
    model.save(tmp_path / "bundle")
    bundle = TrainedModel.load(tmp_path / "bundle", kind="neuralhydrology")
    assert bundle.identity == model.identity
    assert make_network(bundle).forcing_names == make_network(model).forcing_names


def test_a_run_is_read_once_for_ten_thousand_components(tmp_path):
    folder = small_run(tmp_path / "run")
    model = load_model(folder, kind="neuralhydrology")
    assert load_model(folder / "config.yml") is model
    assert import_neuralhydrology(os.path.relpath(folder)) is model
    other = import_neuralhydrology(folder, units={"tmax(C)": "K"})
    assert other is not model
    assert import_neuralhydrology(folder, units={"tmax(C)": "K"}) is other
    assert load_model(folder) is model
    forget_shared_models()
    assert load_model(folder) is not model
    with pytest.raises(BundleError, match="'hbv' is needed here"):
        load_model(folder, kind="hbv")


def test_a_folder_that_was_moved_and_says_where_it_was(tmp_path):
    folder = small_run(tmp_path / "run", run_dir="/nowhere/x", train_dir="/nowhere/x/train_data")
    first = import_neuralhydrology(folder).identity
    shutil.move(folder, tmp_path / "elsewhere")
    assert import_neuralhydrology(tmp_path / "elsewhere").identity == first


def test_attributes_that_change_and_basins_by_number_follow_the_static_ones(tmp_path):
    shapes = LSTM_SHAPES | {"lstm.weight_ih_l0": (16, 2 + 2 + 1 + 2)}
    folder = small_run(
        tmp_path / "run",
        random_weights(shapes),
        {"lai": (2.0, 1.0)},
        evolving_attributes=["lai"],
        use_basin_id_encoding=True,
    )
    numbers = folder / "train_data" / "id_to_int.yml"
    numbers.write_text("'02064000': 1\n'01022500': 0\n")
    model = import_neuralhydrology(folder)
    names = [quantity.name for quantity in model.attributes]
    assert names == ["elev_mean", "slope_mean", "lai", "basin_01022500", "basin_02064000"]
    assert model.normalisation["basin_02064000"] == {"mean": 0.0, "std": 1.0}
    assert model.provenance["attributes_of_unknown_units"] == ["lai", "basin_01022500", "basin_02064000"]
    numbers.write_text("'02064000': 1\n'01022500': 7\n")
    with pytest.raises(BundleError, match="not numbered from 0 on"):
        import_neuralhydrology(folder)
    numbers.unlink()
    with pytest.raises(BundleError, match=r"id_to_int.yml: there is no such"):
        import_neuralhydrology(folder)


def test_the_old_spellings_of_a_configuration(tmp_path):
    folder = small_run(
        tmp_path / "run",
        static_attributes=None,
        camels_attributes=["slope_mean", "elev_mean"],
        target_variables=None,
        target_variable="QObs(mm/d)",
    )
    today = small_run(tmp_path / "today")
    assert import_neuralhydrology(folder).identity == import_neuralhydrology(today).identity


def test_an_embedding_as_it_was_configured_until_0_9(tmp_path):
    shapes = {
        "embedding_net.statics_embedding.net.0.weight": (3, 2),
        "embedding_net.statics_embedding.net.0.bias": (3,),
        "embedding_net.statics_embedding.net.3.weight": (2, 3),
        "embedding_net.statics_embedding.net.3.bias": (2,),
    }
    folder = small_run(
        tmp_path / "run",
        random_weights(LSTM_SHAPES | shapes),
        statics_embedding=True,
        embedding_hiddens=[3, 2],
        embedding_activation="sigmoid",
    )
    assert import_neuralhydrology(folder).hyperparameters["branch"]["attribute_layers"] == [
        "sigmoid",
        "linear",
    ]


def test_numbers_as_yaml_12_writes_them(tmp_path):
    folder = small_run(tmp_path / "run")
    scaler = folder / "train_data" / "train_data_scaler.yml"
    scaler.write_text(scaler.read_text().replace("500.0", "5e2"))
    assert import_neuralhydrology(folder).normalisation["elev_mean"]["std"] == 500.0


# Units ------------------------------------------------------------------------------------------------------------


def test_a_name_that_nobody_knows_needs_units(tmp_path):
    folder = small_run(tmp_path / "run", statistics={"rain": (2.0, 3.0)}, dynamic_inputs=["rain", "tmax(C)"])
    refuse(folder, r'the input \'rain\' nor the data set \'camels_us\'.*--units "rain=..."')
    model = import_neuralhydrology(folder, units={"rain": "kg m-2 h-1"})
    assert model.inputs[0] == NamedUnits("rain", "kg m-2 h-1")
    assert "rain" not in model.hyperparameters["quantities"]
    model = import_neuralhydrology(folder, units={"rain": "mm h-1"}, quantities={"rain": "precipitation"})
    assert model.hyperparameters["quantities"]["rain"] == "precipitation"
    refuse(folder, "has no 'wetness'", units={"rain": "mm h-1"}, quantities={"rain": "wetness"})
    refuse(folder, "are no units of precipitation", units={"rain": "K"}, quantities={"rain": "precipitation"})


def test_training_data_that_contradict_the_table(tmp_path):
    folder = small_run(
        tmp_path / "run",
        statistics={"APCP_surface": (0.1, 0.5), "TMP_2maboveground": (11.0, 9.0)},
        dynamic_inputs=["APCP_surface", "TMP_2maboveground"],
    )
    refuse(folder, r"'TMP_2maboveground' should be in 'K', but the training data's mean is 11")
    model = import_neuralhydrology(folder, units={"TMP_2maboveground": "degC"})
    assert model.inputs[1].units == "degC"
    assert model.hyperparameters["quantities"]["TMP_2maboveground"] == "temperature"


def test_a_temperature_is_in_celsius_or_kelvin_as_its_data_set_says(tmp_path):
    names = ["total_precipitation", "temperature"]
    folder = small_run(
        tmp_path / "run",
        statistics={"total_precipitation": (0.1, 0.5), "temperature": (11.0, 11.2)},
        dynamic_inputs=names,
        dataset="hourly_camels_us",
        target_variables=["QObs(mm/d)"],
    )
    model = import_neuralhydrology(folder)
    assert [quantity.units for quantity in model.inputs] == ["mm h-1", "degC"]
    assert model.time_step == 3600.0  # though the target is per day
    edit(folder, dataset="generic")
    refuse(folder, "neither the name of the input 'total_precipitation' nor the data set 'generic'")


def test_columns_of_several_products_and_copies(tmp_path):
    names = ["prcp(mm/day)_daymet", "prcp(mm/day)_nldas_extended"]
    folder = small_run(
        tmp_path / "run",
        statistics=dict.fromkeys(names, (3.0, 6.0)),
        forcings=["daymet", "nldas_extended"],
        dynamic_inputs=names,
    )
    model = import_neuralhydrology(folder)
    assert [quantity.name for quantity in model.inputs] == names
    assert set(model.hyperparameters["quantities"].values()) == {"precipitation"}


def test_a_feature_that_was_not_centred_proves_nothing(tmp_path):
    folder = small_run(
        tmp_path / "run",
        statistics={"APCP_surface": (0.1, 0.5), "TMP_2maboveground": (0.0, 1.0)},
        dynamic_inputs=["APCP_surface", "TMP_2maboveground"],
        custom_normalization={"TMP_2maboveground": {"centering": None, "scaling": None}},
    )
    assert import_neuralhydrology(folder).inputs[1].units == "K"


@pytest.mark.parametrize(
    ("changes", "options", "seconds"),
    [
        ({"use_frequencies": ["1h"]}, {}, 3600.0),
        ({"use_frequencies": ["1D"], "dataset": "hourly_camels_us"}, {}, 86400.0),
        ({"use_frequencies": ["3H"]}, {}, 10800.0),
        ({"dataset": "generic"}, {}, 86400.0),
        ({"dataset": "generic"}, {"time_step": 3600.0}, 3600.0),
    ],
)
def test_the_length_of_a_step(tmp_path, changes, options, seconds):
    assert import_neuralhydrology(small_run(tmp_path / "run", **changes), **options).time_step == seconds


def test_a_step_or_a_target_that_nobody_knows(tmp_path):
    folder = small_run(
        tmp_path / "run",
        dataset="generic",
        target_variables=["runoff", "QObs(mm/d)"],
        statistics={"runoff": (0.2, 0.3)},
        weights=random_weights(LSTM_SHAPES | {"head.net.0.weight": (2, 4), "head.net.0.bias": (2,)}),
    )
    refuse(folder, r"the target 'runoff' nor the data set 'generic'.*--units \"runoff=mm h-1\"")
    refuse(folder, "give time_step=3600", units={"runoff": "m s-1"})
    refuse(folder, r"is in 'm'; runoff \(mm d-1\) or streamflow", units={"runoff": "m"})
    refuse(folder, "'flow' is no target of this run; its targets are runoff, QObs", target="flow")
    model = import_neuralhydrology(folder, units={"runoff": "m3 s-1"}, time_step=3600.0)
    assert model.outputs == (NamedUnits("runoff", "m3 s-1"),)
    assert model.provenance["targets_left_out"] == ["QObs(mm/d)"]
    second = import_neuralhydrology(folder, target="QObs(mm/d)")
    assert second.outputs == (NamedUnits("QObs(mm/d)", "mm d-1"),)
    assert not np.array_equal(second.weights["readout.0.weights"], model.weights["readout.0.weights"])


def test_every_column_of_the_tables_is_in_units_of_its_variable():
    for table in (AORC, *DATASETS.values()):
        for name, column in table.items():
            assert convertible(column.units, column.units), name
            if column.symbol is not None:
                assert convertible(column.units, CATALOGUE[column.symbol].units), name
    assert all(convertible(units, units) for units in UNITS_OF_TEXT.values())
    assert set(SYMBOL_OF_NAME.values()) <= set(CATALOGUE)


# What is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "model", ["transformer", "mamba", "xlstm", "odelstm", "multihead_forecast_lstm", "handoff_forecast_lstm"]
)
def test_what_cannot_be_stepped_says_so_by_name(tmp_path, model):
    refuse(small_run(tmp_path / "run", model=model), f"a {model} cannot be run step by step: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "template"}, "'model' is 'template'; known are arlstm, cudalstm"),
        ({"model": None}, "'model' must be the name of an architecture"),
        ({"head": "quantile"}, "the head 'quantile' is not known"),
        ({"head": None}, "'head' must be the name of a head"),
        ({"seq_length": "long"}, "'seq_length' must be a whole number above 0"),
        ({"dynamic_inputs": None}, "dynamic_inputs names no input"),
        ({"dynamic_inputs": [3]}, "must be a list of names"),
        ({"dynamic_inputs": ["prcp(mm/day)", "prcp(mm/day)_shift1"]}, "the lagged input"),
        ({"dynamic_inputs": ["prcp(mm/day)", "prcp(mm/day)_copy1"]}, "enters the network twice"),
        ({"target_variables": None}, "target_variables names no target"),
        ({"use_frequencies": ["1D", "1h", "3h"]}, "names 1D, 1h, 3h; at most two"),
        ({"use_frequencies": ["1D", "1h"]}, "a cudalstm with the frequencies 1D, 1h is not possible"),
        ({"use_frequencies": ["monthly"]}, "a frequency like 1D or 1h"),
        ({"model": "mtslstm"}, "a mtslstm with the frequencies of the data is not possible"),
        ({"forecast_inputs": ["prcp(mm/day)"]}, "'forecast_inputs' cannot be run step by step"),
        ({"nan_handling_method": "masked_mean"}, "'nan_handling_method' cannot be run step by step"),
        ({"model": "hybrid_model", "conceptual_model": "hbv"}, "conceptual model 'hbv' is not known"),
        ({"model": "mclstm", "mass_inputs": []}, "one mass input and one target"),
        ({"model": "arlstm"}, "the one target, lagged, is needed"),
        ({"statics_embedding": {"type": "cnn", "hiddens": [2]}}, "is of type 'cnn'"),
    ],
)
def test_a_configuration_that_is_not_possible(tmp_path, changes, message):
    refuse(small_run(tmp_path / "run", **changes), message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("lstm.bias_hh_l0"), "the checkpoint lacks lstm.bias_hh_l0"),
        (lambda w: w.update(more=torch.zeros(2)), "holds more, which a cudalstm with this configuration"),
        (lambda w: w.update({"lstm.weight_ih_l0": torch.zeros(16, 5)}), r"w_ih' has shape \(16, 5\)"),
        (lambda w: w.update({"lstm.weight_hh_l0": torch.zeros(16, 4, 1)}), "w_hh' has shape"),
        (lambda w: w.update({"lstm.bias_ih_l0": torch.full((16,), torch.nan)}), "not finite"),
        (lambda w: w.update({"head.net.0.bias": torch.zeros(3)}), r"head has shapes \(1, 4\) and \(3,\)"),
        (
            lambda w: w.update({"head.net.0.weight": torch.zeros(3, 4), "head.net.0.bias": torch.zeros(3)}),
            "the head has 3 outputs, which 1 targets do not share",
        ),
        (lambda w: w.pop("head.net.0.weight"), "the checkpoint's head has 0 layers"),
    ],
)
def test_tensors_that_the_configuration_does_not_explain(tmp_path, change, message):
    weights = random_weights(LSTM_SHAPES)
    change(weights)
    with pytest.raises(BundleError, match=message):
        import_neuralhydrology(small_run(tmp_path / "run", weights))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("attribute_means"), "the mean of 'elev_mean' is missing"),
        (lambda s: s["attribute_stds"].update(slope_mean=0.0), "the std of 'slope_mean' is 0.0"),
        (lambda s: s["attribute_means"].update(slope_mean="a"), "'slope_mean' must be a number"),
        (lambda s: s["xarray_feature_scale"]["data_vars"].pop("tmax(C)"), "std of 'tmax.* is missing"),
        (lambda s: s["xarray_feature_center"].update(data_vars=[1]), "no mapping of names to numbers"),
        (lambda s: s["xarray_feature_center"]["data_vars"]["tmax(C)"].pop("data"), "must be a number"),
    ],
)
def test_statistics_that_are_not_there(tmp_path, change, message):
    folder = small_run(tmp_path / "run")
    edit_scaler(folder, change)
    refuse(folder, message)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(BundleError, match="there is no such folder"):
        import_neuralhydrology(tmp_path / "nothing")
    folder = small_run(tmp_path / "run")
    (folder / "train_data" / "train_data_scaler.yml").unlink()
    refuse(folder, "train_data_scaler.yml is absent")
    (folder / "model_epoch002.pt").unlink()
    refuse(folder, "no weights are here")
    (folder / "config.yml").unlink()
    refuse(folder, "config.yml is absent")


def test_a_checkpoint_that_holds_code_is_not_opened(tmp_path):
    folder = small_run(tmp_path / "run")
    harm = tmp_path / "harm"
    torch.save({"lstm.weight_ih_l0": Exploit(harm)}, folder / "model_epoch002.pt")
    refuse(folder, "holds pickled code")
    assert not harm.exists()


def test_windows_of_two_timescales_that_do_not_fit(tmp_path):
    write_reference(tmp_path / "run", "mtslstm_embedded")
    for seq_length, message in (
        ({"1D": 5, "1h": 50}, "seq_length of 1h is 50; whole steps of 1D are needed"),
        ({"1D": 1, "1h": 48}, "at most 1 of them"),
        ({"1D": 5}, "'seq_length' has no entry for the frequency '1h'"),
    ):
        edit(tmp_path / "run", seq_length=seq_length)
        refuse(tmp_path / "run", message)
    edit(tmp_path / "run", seq_length={"1D": 5, "1h": 48}, transfer_mtslstm_states={"h": "cubic"})
    refuse(tmp_path / "run", "transfer_mtslstm_states has 'cubic' for h")


# Pickled statistics -------------------------------------------------------------------------------------------------


class Exploit:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def pickled(protocol=4, **more):
    """Return a scaler as neuralhydrology pickled it until 1.0, with the pandas and xarray at hand."""
    series = {n: xr.DataArray(np.float32(m)) for n, (m, _) in STATISTICS.items()}
    scales = {n: xr.DataArray(np.float32(s)) for n, (_, s) in STATISTICS.items()}
    content = {
        "xarray_means": xr.Dataset(series),
        "xarray_stds": xr.Dataset(scales),
        "camels_attr_means": pd.Series({n: m for n, (m, _) in ATTRIBUTES.items()}),
        "camels_attr_stds": pd.Series({n: s for n, (_, s) in ATTRIBUTES.items()}),
        **more,
    }
    return pickle.dumps(content, protocol=protocol)


def with_pickle(folder, content):
    (folder / "train_data" / "train_data_scaler.yml").unlink()
    (folder / "train_data" / "train_data_scaler.p").write_bytes(content)
    return folder


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickled_statistics_equal_those_in_yaml(tmp_path, protocol):
    expected = import_neuralhydrology(small_run(tmp_path / "yaml"))
    folder = with_pickle(small_run(tmp_path / "run"), pickled(protocol))
    assert import_neuralhydrology(folder).identity == expected.identity


def test_a_pickle_of_pandas_15_and_xarray_2022():
    """Made with pandas 1.5.3, xarray 2022.3.0 and numpy 1.23.5 from invented numbers."""
    statistics = read_pickled_statistics(HERE / "scaler_of_pandas_1_5.p")
    assert statistics["camels_attr_means"] == pytest.approx({"elev_mean": 2155 / 3, "slope_mean": 137 / 3})
    assert statistics["camels_attr_stds"] == pytest.approx({"elev_mean": 17.559423, "slope_mean": 26.006409})
    assert statistics["xarray_means"] == pytest.approx(
        {"prcp(mm/day)": 5.5, "tmax(C)": 8.0, "QObs(mm/d)": 1.1}
    )
    assert set(statistics["xarray_stds"]) == set(statistics["xarray_means"])


@pytest.mark.parametrize(
    "series",
    [
        pd.Series([1.5, 2.5], index=pd.Index(["a", "b"], dtype=object)),
        pd.Series([1.5, 2.5], index=["a", "b"], dtype=object),
        pd.Series(np.array([1.5, 2.5], np.float32), index=["a", "b"]),
        pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0]}).mean(),
        pd.DataFrame({"a": [1.5], "b": [2.5]}).iloc[0],
        {"a": 1.5, "b": np.float64(2.5)},
        xr.Dataset({"a": 1.5, "b": ((), np.array(2.5, ">f4"))}),
    ],
)
def test_layouts_of_pickled_tables(tmp_path, series):
    file = tmp_path / "s.p"
    file.write_bytes(pickle.dumps({"means": series}))
    assert read_pickled_statistics(file) == {"means": {"a": 1.5, "b": 2.5}}


def evil(path):
    """Return pickles that would do harm, by what they call."""
    shell = f"touch {path}"
    return {
        "os.system": b"cos\nsystem\n(V" + shell.encode() + b"\ntR.",
        "builtins.eval": b"cbuiltins\neval\n(V__import__('os').system('" + shell.encode() + b"')\ntR.",
        "__builtin__.exec": b"c__builtin__\nexec\n(Vimport os; os.system('" + shell.encode() + b"')\ntR.",
        "numpy.f2py": b"cnumpy.f2py.diagnose\nos.system\n(V" + shell.encode() + b"\ntR.",
        "pandas": b"cpandas.io.common\nos.system\n(V" + shell.encode() + b"\ntR.",
        "xarray attribute": b"cxarray\nbackends.api.os.system\n(V" + shell.encode() + b"\ntR.",
        "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nV__class__\ntR.",
        "subprocess": pickle.dumps({"xarray_means": subprocess.Popen}),
        "touch": pickle.dumps({"xarray_means": Exploit(path)}),
        "in a series": pickled(camels_attr_means=Exploit(path)),
    }


@pytest.mark.parametrize("attempt", list(evil(Path("x"))))
def test_a_malicious_pickle_does_nothing(tmp_path, attempt):
    harm = tmp_path / "harm"
    folder = with_pickle(small_run(tmp_path / "run"), evil(harm)[attempt])
    refuse(folder, "train_data_scaler.p: ")
    assert not harm.exists()


def test_the_attempts_are_real_ones(tmp_path):
    """Python's own reader falls for them."""
    for name in ("os.system", "builtins.eval", "touch"):
        harm = tmp_path / name
        pickle.Unpickler(io.BytesIO(evil(harm)[name])).load()
        assert harm.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the pickle is damaged"),
        (pickle.dumps([1, 2]), "no mapping of statistics"),
        (pickle.dumps({"xarray_means": [1.0]}), "a list is where a Series or a Dataset should be"),
        (pickle.dumps({"xarray_means": {"a": "b"}}), "a variable is not a single number"),
        (pickle.dumps({"x": pd.Series([1.0])}), "no names and numbers that belong together"),
        (pickle.dumps({"x": xr.Dataset({"a": ("t", [1.0, 2.0])})}), "not a single number"),
        (pickle.dumps({"x": pd.Series(pd.to_datetime(["2000-01-01"]), index=["a"])}), "of type"),
        (b"\x80\x04K\x01Q.", "refers to something outside"),
    ],
)
def test_a_pickle_of_something_else(tmp_path, content, message):
    refuse(with_pickle(small_run(tmp_path / "run"), content), message)


def test_a_pickle_that_is_far_too_large(tmp_path):
    file = tmp_path / "s.p"
    with file.open("wb") as sparse:
        sparse.truncate(64 * 2**20)
    with pytest.raises(BundleError, match="too large"):
        read_pickled_statistics(file)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_pickle_is_an_error_or_gives_numbers(tmp_path_factory, data):
    content = bytearray(pickled())
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    file = tmp_path_factory.mktemp("damaged") / "s.p"
    file.write_bytes(content)
    with contextlib.suppress(BundleError):
        for table in read_pickled_statistics(file).values():
            assert all(isinstance(value, float) for value in table.values())


# Command line -------------------------------------------------------------------------------------------------------


def command(*arguments):
    parser = argparse.ArgumentParser()
    import_.add_parser(parser.add_subparsers())
    chosen = parser.parse_args(["import", "neuralhydrology", *map(str, arguments)])
    return chosen.func(chosen)


def test_from_the_command_line(tmp_path, capsys):
    folder = small_run(
        tmp_path / "run",
        statistics={"rain": (2.0, 3.0)},
        dynamic_inputs=["rain", "tmax(C)"],
        use_frequencies=["1h"],
    )
    options = ["--units", "rain=mm h-1", "--units", "tmax(C)=K", "--quantity", "rain=precipitation"]
    assert command(folder, tmp_path / "bundle", *options, "--epoch", "2", "--licence", "CC0") == 0
    assert "rain [mm h-1], tmax(C) [K]" in capsys.readouterr().out
    bundle = TrainedModel.load(tmp_path / "bundle")
    assert bundle.licence == "CC0"
    assert bundle.hyperparameters["quantities"] == {
        "rain": "precipitation",
        "tmax(C)": "maximum_temperature",
    }
    with pytest.raises(SystemExit):
        command(folder, tmp_path / "other", "--units", "rain")
    assert re.search(r"'rain' is not of the form NAME=VALUE", capsys.readouterr().err)
