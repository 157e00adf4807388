"""FluxLSTM where others call it: the command line, NextGen's realization, pymt's metadata; real towers end to end."""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path

import msgspec
import netCDF4
import numpy as np
import pytest
from flux_bundles import flux_bundle, flux_configuration
from synthetic_towers import synthetic_tower

import bmi_components
from bmi_components import FluxLSTM
from bmi_components.cli import main
from bmi_components.config import load
from bmi_components.errors import ConfigurationError, ForcingError
from bmi_components.forcing.flux_tower import read_flux_table
from bmi_components.forcing.nextgen import NAMES
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.lstm.flux.columns import input_variables
from bmi_components.lstm.flux.daily import DailyRules, daily_table
from bmi_components.lstm.flux.models import load_model
from bmi_components.lstm.flux.settings import FluxLSTMSettings
from bmi_components.lstm.flux.windows import windows
from bmi_components.testing import NgenAdapter
from bmi_components.trained_model import NamedUnits
from bmi_components.units import convertible
from bmi_components.variables import variable

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, which is not ours
    from model_metadata.model_setup import FileSystemLoader
    from model_metadata.modelmetadata import ModelMetadata

REPOSITORY = Path(__file__).resolve().parents[2]
EXCHANGE = variable("net_ecosystem_exchange").name
TOWER = {
    "P_F": ("mm (1800 s)-1", 0.03, 0.1),
    "PPFD_IN": ("umol m-2 s-1", 700.0, 300.0),
    "NETRAD": ("W m-2", 200.0, 90.0),
    "TA_F": ("degC", 15.0, 8.0),
    "SWC_F_MDS": ("m3 m-3", 0.2, 0.1),
    "DOY": ("1", 0.0, 1.0),
}


@pytest.mark.parametrize("site", ["US-Bi1", "US-Me2", "US-Whs"])
def test_a_run_over_a_real_towers_half_hours_is_the_data_paths(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, site: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shared_data / "fluxtower" / site
    table = read_flux_table(sorted(folder.glob("*.csv.gz")))
    first = table.time[0] if site != "US-Whs" else np.datetime64("2014-06-30T00:00:00")
    bundle = {"days": 14, "inputs": TOWER, "target": ("NEE_VUT_REF", "umol m-2 s-1")}
    start = str(first).replace("T", " ")
    run = f"run:\n  component: FluxLSTM\n  start: {start}\n  forcing: {{kind: flux_tower, path: {folder}}}\n"
    last = "2019-04-30" if site == "US-Bi1" else str(table.time[-1].astype("datetime64[D]"))
    path = flux_configuration(
        tmp_path, f"start_time: {start}\ninputs: half_hourly\n{run}  end: {last} 23:00\n", (site,), **bundle
    )
    assert main(["run", str(path), "--quiet", "--no-plot"]) == 0
    with netCDF4.Dataset(tmp_path / "output" / "flux" / "flux.nc") as results:
        exchange = np.ma.filled(results["net_ecosystem_exchange"][:, 0].astype(float), np.nan)
    names = list(TOWER)[:-1]
    daily = daily_table(table, DailyRules(day_of_year=True), names)
    found = windows(daily, 14)
    predicted = load_model(flux_bundle(**bundle)).predict(found.inputs)
    # the step that completes the prediction day; the record's own last day lacks its last half-hour
    rows = ((found.date + 1).astype("datetime64[s]") - first).astype("timedelta64[s]").astype(int) // 1800 - 1
    known = (found.date - 13 > first.astype("datetime64[D]")) & (rows < exchange.size)
    assert known.sum() > 100
    np.testing.assert_allclose(exchange[rows[known]], predicted[known], rtol=1e-5, atol=1e-5)


def test_the_sample_configuration_runs_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if not (REPOSITORY / "models" / "flux_lstm").is_dir():
        flux_bundle(days=31, inputs=TOWER, target=("NEE_VUT_REF", "umol m-2 s-1")).save(
            tmp_path / "flux_lstm"
        )
        monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(tmp_path))
    config = REPOSITORY / "configs" / "flux_sample.yaml"
    assert main(["run", str(config), "--quiet", "--end", "1998-09-30"]) == 0
    assert "net_ecosystem_exchange (umol m-2 s-1)" in capsys.readouterr().out
    with netCDF4.Dataset(tmp_path / "output" / "flux_sample" / "flux_sample.nc") as results:
        exchange = np.ma.filled(results["net_ecosystem_exchange"][:], np.nan)
        days = results["valid_days"][:]
    assert (tmp_path / "output" / "flux_sample" / "flux_sample.png").stat().st_size > 10_000
    full = np.asarray(days == days.max())
    assert np.isfinite(exchange[full]).all()
    assert not np.isfinite(exchange[~full]).any()
    assert full.mean() > 0.5


def test_a_record_before_the_start_fills_the_window(tmp_path: Path) -> None:
    table = synthetic_tower(days=60)
    lines = ["TIMESTAMP_START," + ",".join(table.columns)]
    lines += [
        f"{moment}," + ",".join(repr(float(values[i])) for values in table.columns.values())
        for i, moment in enumerate(table.time)
    ]
    (tmp_path / "XX-Syn.csv").write_text("\n".join(lines))
    cut = 40 * 48 + 20
    start = str(table.time[cut]).replace("T", " ")
    record = "warm_up: {kind: flux_tower, path: XX-Syn.csv}\n"
    extra = "inputs: half_hourly\n"
    warm, cold = FluxLSTM(), FluxLSTM()
    warm.initialize(str(flux_configuration(tmp_path, f"start_time: {start}\n{extra}{record}")))
    cold.initialize(str(flux_configuration(tmp_path, f"start_time: 2010-01-01\n{extra}")))
    source = ForcingSource(kind="flux_tower", path=tmp_path / "XX-Syn.csv")
    inputs = [warm.variables[name] for name in warm.get_input_var_names()]
    weather = read_forcing(source, inputs)
    for row in range(table.time.size):
        for component in (cold, warm) if row >= cut else (cold,):
            for v in inputs:
                component.set_value(v.name, weather.values[v.symbol][row])
            component.update()
        if row == cut - 1:
            for name in cold.get_output_var_names():
                np.testing.assert_array_equal(warm.get_value_ptr(name), cold.get_value_ptr(name))
        if row >= cut:
            np.testing.assert_array_equal(warm.get_value_ptr(EXCHANGE), cold.get_value_ptr(EXCHANGE))
    assert np.isfinite(warm.get_value_ptr(EXCHANGE)).all()
    path = flux_configuration(tmp_path, f"start_time: 2012-01-01\n{extra}{record}")
    with pytest.raises(ConfigurationError, match="must reach up to start_time"):
        FluxLSTM().initialize(str(path))


def test_several_towers_read_their_own_files(tmp_path: Path) -> None:
    for site, number in (("US-Aaa", 1), ("US-Bbb", 2)):
        (tmp_path / site).mkdir()
        rows = [f"2010-01-0{day},{10 * number + day},{day}" for day in range(number, number + 2)]
        content = "\n".join([f"TIMESTAMP_START,TA_1_1_{number} (degC),X", *rows])
        (tmp_path / site / "measured.csv").write_text(content)
    source = ForcingSource(kind="flux_tower", path=tmp_path / "{catchment}")
    warmth, own = input_variables([NamedUnits("TA", "K"), NamedUnits("X", "1")])
    weather = read_forcing(source, [warmth, own])
    assert weather.catchments == ("US-Aaa", "US-Bbb")
    np.testing.assert_array_equal(weather.values["temperature"], [[11, np.nan], [12, 22], [np.nan, 23]])
    np.testing.assert_array_equal(weather.values["X"], [[1, np.nan], [2, 2], [np.nan, 3]])
    with pytest.raises(ForcingError, match="no file or folder for US-Ccc"):
        read_forcing(msgspec.structs.replace(source, catchments=["US-Ccc"]), [warmth])
    with pytest.raises(ForcingError, match="no column for net_radiation"):
        read_forcing(source, input_variables([NamedUnits("NETRAD", "W m-2")]))


# NextGen ----------------------------------------------------------------------------------------------------


def test_nextgen_steps_the_realization_as_it_stands(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = REPOSITORY / "ngen_realizations"
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(REPOSITORY / "models"))
    monkeypatch.chdir(folder)
    (formulation,) = json.loads((folder / "flux_lstm.json").read_text())["global"]["formulations"]
    module = formulation["params"]
    package, _, name = module["python_type"].rpartition(".")
    component = getattr(importlib.import_module(package), name)
    units = {column: n.units or "mm s-1" for n in NAMES for column in n.columns}
    source = ForcingSource(
        kind="nextgen",
        path=shared_data / "nextgen" / "forcing" / "cats-27_52_67-2015_12_01-2015_12_30.nc",
        units={"precip_rate": "m s-1"},
    )
    for position, catchment in enumerate(("cat-27", "cat-52", "cat-67")):
        adapter = NgenAdapter(
            component,
            module["init_config"].replace("{{id}}", catchment),
            allow_exceed_end_time=module["allow_exceed_end_time"],
            cache_input_metadata=module["cache_input_variable_metadata"],
        )
        inputs = [adapter.model.variables[one] for one in adapter.model.get_input_var_names()]
        for v in inputs:
            assert convertible(units[module["variables_names_map"][v.name]], v.units)
        assert set(module["output_variables"]) <= set(adapter.output_names)
        assert len(module["output_variables"]) == len(module["output_header_fields"])
        weather = read_forcing(source, inputs)
        exchange = []
        for hour in range(24 * 93):  # the month of the sample three times over
            outputs = adapter.step({v.name: weather.values[v.symbol][hour % 720, position] for v in inputs})
            exchange.append(outputs[module["main_output_variable"]])
        # Local midnight is 6 UTC. The hours before it are enough for a day, so the window of 90 is full 89 days later.
        full = 6 + 24 * 89 - 1
        assert np.isnan(exchange[:full]).all()
        assert np.isfinite(exchange[full:]).all()
        assert len(set(exchange[full : full + 24])) == 1
        assert exchange[full + 24] != exchange[full + 23]
        assert np.abs(exchange[full:]).max() < 3.0


# pymt -------------------------------------------------------------------------------------------------------

FOLDER = Path(bmi_components.__file__).parent / "pymt" / "FluxLSTM"


def test_the_metadata_pass_pymts_checks_and_set_up_a_run(tmp_path: Path) -> None:
    found = ModelMetadata(str(FOLDER))
    assert found.api["class"] == "FluxLSTM"
    assert found.info["version"] == bmi_components.__version__
    assert Path(importlib.import_module(found.api["package"]).__file__ or "").is_file()
    defaults = {name: p["value"]["default"] for name, p in found.parameters.items()}
    assert set(defaults) <= {*FluxLSTMSettings.__struct_fields__, "tower"}
    FileSystemLoader(str(FOLDER)).stage_all(str(tmp_path), **(defaults | {"model": "/models/some"}))
    settings = load(tmp_path / "config.yaml", FluxLSTMSettings)
    assert settings.model == Path("/models/some")
    assert settings.missing_day == "nan"
    assert (Path(FluxLSTM.METADATA), FluxLSTM.name) == (Path("../../pymt/FluxLSTM"), "FluxLSTM")


def test_inputs_of_the_bundle_decide_what_is_published(tmp_path: Path) -> None:
    component = FluxLSTM()
    daily = {"daylight": "shortwave", "ustar": "drop"}
    component.initialize(
        str(flux_configuration(tmp_path, "start_time: 2010-01-01\ninputs: half_hourly\n", daily=daily))
    )
    symbols = [component.variables[name].symbol for name in component.get_input_var_names()]
    assert symbols == [
        *("snow_depth", "precipitation", "photosynthetic_photon_flux", "net_radiation"),
        *("shortwave", "friction_velocity"),
    ]
