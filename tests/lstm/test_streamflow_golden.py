"""The component gives the numbers of NOAA's LSTM and of neuralhydrology's own evaluation, from their run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from nextgen_runs import write_nextgen_runs
from numpy.typing import NDArray

from bmi_components import StreamflowLSTM
from bmi_components.errors import BundleError
from bmi_components.testing import NgenAdapter
from bmi_components.variables import CATALOGUE

Array = NDArray[np.float64]

PRECIPITATION = CATALOGUE["precipitation"].name
TEMPERATURE = CATALOGUE["temperature"].name
RATE = CATALOGUE["runoff_rate"].name
DEPTH = CATALOGUE["runoff_depth"].name
DAY = CATALOGUE["daily_runoff_rate"].name
SPREAD = CATALOGUE["runoff_spread"].name
SYMBOLS = {
    "APCP_surface": "precipitation",
    "TMP_2maboveground": "temperature",
    "SPFH_2maboveground": "specific_humidity",
    "DLWRF_surface": "longwave",
    "DSWRF_surface": "shortwave",
    "PRES_surface": "pressure",
    "UGRD_10maboveground": "wind_x",
    "VGRD_10maboveground": "wind_y",
    "prcp(mm/day)": "precipitation",
    "tmax(C)": "maximum_temperature",
    "tmin(C)": "minimum_temperature",
    "srad(W/m2)": "shortwave",
    "vp(Pa)": "vapour_pressure",
}


@pytest.fixture
def golden(shared_data: Path) -> Path:
    return shared_data / "golden" / "lstm"


@pytest.fixture
def trained(shared_data: Path) -> Path:
    return shared_data / "checkpoints" / "noaa_lstm_aorc_hourly"


def noaa_forcing(golden: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Forcing of cat-67 by published name, and everything else in the file."""
    with np.load(golden / "noaa_cat67_2in.npz") as file:
        data = {name: file[name] for name in file.files}
    forcing = {
        CATALOGUE[symbol].name: data[f"forcing_{name}"]
        for name, symbol in SYMBOLS.items()
        if f"forcing_{name}" in data
    }
    return forcing, data


def nextgen_configuration(data: dict[str, Any], folder: Path, run: Path) -> Path:
    """NOAA's own configuration of cat-67, pointing at its run folder."""
    content = yaml.safe_load(str(data["config"]))
    content["train_cfg_file"] = str(run / "config.yml")
    path = folder / "cat-67.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_noaas_run_of_cat_67(golden: Path, trained: Path, tmp_path: Path) -> None:
    forcing, data = noaa_forcing(golden)
    adapter = NgenAdapter(StreamflowLSTM, nextgen_configuration(data, tmp_path, trained))
    inputs = adapter.model.get_input_var_names()
    assert inputs == (PRECIPITATION, TEMPERATURE)
    assert [adapter.model.get_var_units(name) for name in inputs] == ["mm h-1", "K"]
    found = []
    for hour in range(720):
        outputs = adapter.step({name: float(forcing[name][hour]) for name in inputs})
        found.append([outputs[DEPTH], outputs[RATE]])
    depth, rate = np.array(found).T
    np.testing.assert_allclose(depth, data["runoff_depth_m"], rtol=0, atol=1e-8)
    assert adapter.model.get_var_units(RATE) == "m3 s-1"
    np.testing.assert_allclose(rate, data["runoff_volume_m3s"], rtol=0, atol=1e-8 * 10.1e6 / 3600)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", ["cudalstm", "cudalstm_emb", "ealstm", "gru", "arlstm"])
def test_windows_are_neuralhydrologys_evaluation(kind: str, dtype: str, golden: Path, tmp_path: Path) -> None:
    # Both compute in single precision, where three units in the last place are 3.6e-7 of the value; neuralhydrology's
    # EA-LSTM is 1.24e-6 (at 1.8 mm d-1) off what exact arithmetic gives.
    absolute, relative = (1.5e-6 if kind == "ealstm" else 1e-6), (0.0 if dtype == "float64" else 3.6e-7)
    with np.load(golden / f"nh_{kind}.npz") as file:
        data = {name: file[name] for name in file.files}
    attributes = {str(n): float(v) for n, v in zip(data["static_names"], data["statics"], strict=True)}
    path = tmp_path / "streamflow.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "models": [str(golden / "nh_run_dirs" / kind)],
                "state_mode": "window",
                "negative_runoff": "keep",
                "dtype": dtype,
                "catchments": [{"id": "01022500", "attributes": attributes}],
            }
        )
    )
    component = StreamflowLSTM()
    component.initialize(str(path))
    # Vapour pressure is in Pa in the data and in kPa at the boundary.
    factor = {"vapour_pressure": 1e-3}
    given = {
        CATALOGUE[symbol].name: data["inputs"][:, i] * factor.get(symbol, 1.0)
        for i, symbol in enumerate(SYMBOLS[str(name)] for name in data["cols"])
    }
    observed = CATALOGUE["observed_runoff_rate"].name
    if observed in component.get_input_var_names():
        given[observed] = np.concatenate([[np.nan], data["qobs"][:-1]])
    assert set(given) == set(component.get_input_var_names())
    first = int(np.flatnonzero(data["df_dates"] == data["dates"][0])[0])
    simulated = []
    begin = first - 80  # more than a window of 60 days before the first that counts
    days = 150 if kind == "arlstm" else len(data["sim"])
    for t in range(begin, first + days):
        for name, values in given.items():
            component.set_value(name, values[t : t + 1])
        component.update()
        simulated.append(component.get_value_ptr(RATE)[0])
    np.testing.assert_allclose(simulated[80:], data["sim"][:days], rtol=relative, atol=absolute)


@pytest.mark.parametrize("kind", ["mtslstm", "mtslstm_perfreq", "smtslstm"])
def test_two_timescales_are_neuralhydrologys_evaluation(kind: str, golden: Path, tmp_path: Path) -> None:
    with np.load(golden / f"nh_{kind}.npz") as file:
        data = {name: file[name] for name in file.files}
    attributes = {str(n): float(v) for n, v in zip(data["static_names"], data["statics"], strict=True)}
    path = tmp_path / "streamflow.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "models": [str(golden / "nh_run_dirs" / kind)],
                "run_folder": {"units": {"runoff": "mm h-1"}},
                "state_mode": "window",
                "negative_runoff": "keep",
                "inputs": "nextgen",
                "catchments": [{"id": "cat-27", "attributes": attributes}],
            }
        )
    )
    component = StreamflowLSTM()
    component.initialize(str(path))
    given = {CATALOGUE[SYMBOLS[str(n)]].name: data["hourly_inputs"][:, i] for i, n in enumerate(data["cols"])}
    hourly, daily = [], []
    for t in range(720):
        for name in component.get_input_var_names():
            component.set_value(name, given[name][t : t + 1])
        component.update()
        hourly.append(component.get_value_ptr(RATE)[0] / 24.0)
        daily.append(component.get_value_ptr(DAY)[0] / 24.0)
    first = int((data["dates"][0] - np.datetime64("2015-12-01")) / np.timedelta64(1, "D"))
    days = slice(first, first + len(data["dates"]))
    hours = np.reshape(hourly, (30, 24))[days]
    np.testing.assert_allclose(hours, data["sim_hourly"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        np.reshape(daily, (30, 24))[days, -1], data["sim_daily"][:, 0], rtol=0, atol=1e-6
    )


@pytest.fixture
def ensemble(shared_data: Path, trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """NextGen In A Box's configuration as it is, and a folder with six run folders of the names that it gives."""
    sample = shared_data / "nextgen" / "configs" / "lstm_cat-1555522.yml"
    runs = tmp_path / "runs"
    write_nextgen_runs(trained, runs, yaml.safe_load(sample.read_text())["train_cfg_file"])
    return sample, runs


def test_nextgens_ensemble_is_taken_as_it_is(
    ensemble: tuple[Path, Path], golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample, runs = ensemble
    forcing, _ = noaa_forcing(golden)
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(runs))
    adapter = NgenAdapter(StreamflowLSTM, sample)
    assert len(adapter.model.get_input_var_names()) == 8
    content = yaml.safe_load(sample.read_text())
    singles = []
    for number, file in enumerate(content["train_cfg_file"]):
        path = tmp_path / f"{number}.yml"
        path.write_text(yaml.safe_dump(content | {"train_cfg_file": file}))
        singles.append(NgenAdapter(StreamflowLSTM, path))
    for hour in range(48):
        outputs, *others = (
            component.step({n: float(forcing[n][hour]) for n in component.model.get_input_var_names()})
            for component in (adapter, *singles)
        )
        alone = np.array([other[DEPTH] for other in others])
        assert outputs[DEPTH] == pytest.approx(alone.mean(), rel=1e-5)
        assert outputs[SPREAD] == pytest.approx(alone.std() * 24_000.0, rel=1e-4, abs=1e-4)


def test_an_option_says_where_the_run_folders_are(ensemble: tuple[Path, Path], tmp_path: Path) -> None:
    sample, runs = ensemble
    with pytest.raises(BundleError, match="nh_AORC_hourly_25yr_1210_112435_7"):
        StreamflowLSTM().initialize(str(sample))
    path = tmp_path / "cat.yml"
    path.write_text(sample.read_text() + f"model_path: {runs}\n")
    component = StreamflowLSTM()
    component.initialize(str(path))
    assert len(component.get_input_var_names()) == 8
