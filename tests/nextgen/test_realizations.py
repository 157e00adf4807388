"""The realizations in ngen_realizations/: NextGen can connect, step and check them as they stand."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from deltamg_folders import folder_mts
from hbv_bundles import write_bundle
from nextgen_runs import write_nextgen_runs
from numpy.typing import NDArray

from bmi_components.forcing.nextgen import NAMES
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.testing import NgenAdapter
from bmi_components.units import convertible
from bmi_components.variables import Variable

FOLDER = Path(__file__).resolve().parents[2] / "ngen_realizations"
HBV = sorted(FOLDER.glob("dhbv_*.json"))
STATES = sorted(FOLDER.glob("lstm_*_states.json"))
LSTM = sorted(set(FOLDER.glob("lstm_*.json")) - set(STATES))
REALIZATIONS = [*HBV, *LSTM]
CATCHMENTS = ("cat-27", "cat-52", "cat-67")
WEATHER = "cats-27_52_67-2015_12_01-2015_12_30.nc"
TWO_WET_DAYS = range(21 * 24, 23 * 24)
"""Hours of 22 and 23 December 2015: more than 90 mm."""
RUNOFF_DEPTH = "land_surface_water__runoff_depth"
STREAMFLOW = "channel_exit_water_x-section__volume_flow_rate"
SPREAD = "land_surface_water__standard_deviation_of_runoff_volume_flux"
# NextGen's own label of precip_rate, whatever a file holds; the other units are in the table.
UNITS = {name: entry.units or "mm s-1" for entry in NAMES for name in (*entry.columns, entry.standard_name)}


def module_of(realization: Path) -> dict[str, Any]:
    """Return the parameters of the one Python module, also of one inside bmi_multi."""
    (formulation,) = json.loads(realization.read_text())["global"]["formulations"]
    if formulation["name"] == "bmi_multi":
        assert len(formulation["params"]["modules"]) == 1
        (formulation,) = formulation["params"]["modules"]
    assert formulation["name"] == "bmi_python"
    parameters: dict[str, Any] = formulation["params"]
    return parameters


@pytest.fixture
def models(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOAA's LSTM, and untrained models under the names of the other published ones, where they are looked up."""
    write_bundle(tmp_path / "dhbv_2", "2.0")
    folder_mts(tmp_path / "dhbv_2_mts")
    published = shared_data / "checkpoints"
    ensemble = yaml.safe_load((FOLDER / "config/cat_config/lstm_ensemble/cat-27.yml").read_text())
    write_nextgen_runs(published / "noaa_lstm_aorc_hourly", tmp_path / "lstm", ensemble["train_cfg_file"])
    places = (tmp_path, tmp_path / "lstm", published)
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", os.pathsep.join(map(str, places)))
    monkeypatch.chdir(FOLDER)


def opened(module: dict[str, Any], catchment: str) -> NgenAdapter:
    """Open the component as NextGen does from a realization."""
    path, _, name = module["python_type"].rpartition(".")
    return NgenAdapter(
        getattr(importlib.import_module(path), name),
        module["init_config"].replace("{{id}}", catchment),
        model_params=module.get("model_params"),
        mass_balance=name == "DeltaHBV",
        allow_exceed_end_time=module["allow_exceed_end_time"],
        cache_input_metadata=module.get("cache_input_variable_metadata", False),
    )


def weather(shared_data: Path, inputs: list[Variable]) -> dict[str, NDArray[np.float64]]:
    """Return NextGen's sample weather by symbol, ``[hour, catchment]``."""
    path = shared_data / "nextgen" / "forcing" / WEATHER
    source = ForcingSource(kind="nextgen", path=path, units={"precip_rate": "m s-1"})
    return dict(read_forcing(source, inputs).values)


def test_every_realization_is_tested() -> None:
    elsewhere = {"canveg.json", "flux_lstm.json"}  # by the tests of their components
    run = [FOLDER / "evapotranspiration_and_lstm.json", *STATES]  # as wholes, by test_nextgen_run.py
    there = {path.name for path in FOLDER.glob("*.json")}
    assert there - elsewhere == {path.name for path in (*HBV, *LSTM, *run)}
    assert (len(HBV), len(LSTM), len(STATES)) == (3, 2, 2)


@pytest.mark.parametrize("realization", REALIZATIONS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("models")
def test_every_input_is_forcing_that_nextgen_has_in_units_that_convert(realization: Path) -> None:
    module = module_of(realization)
    for catchment in CATCHMENTS:
        component = opened(module, catchment).model
        inputs = component.get_input_var_names()
        names = module.get("variables_names_map", {name: name for name in inputs})
        assert set(inputs) <= set(names)
        for name in inputs:
            assert convertible(UNITS[names[name]], component.get_var_units(name)), name
        published = component.get_output_var_names()
        assert module["main_output_variable"] in published
        assert set(module.get("output_variables", ())) <= set(published)
        assert len(module.get("output_variables", ())) == len(module.get("output_header_fields", ()))


@pytest.mark.parametrize("realization", HBV, ids=lambda path: path.stem)
@pytest.mark.usefixtures("models")
def test_two_days_of_nextgens_sample_weather_keep_their_water(realization: Path, shared_data: Path) -> None:
    module = module_of(realization)
    tolerance = module.get("mass_balance", {}).get("tolerance", 1e-6)
    adapters = [opened(module, catchment) for catchment in CATCHMENTS]
    inputs = [adapters[0].model.variables[name] for name in adapters[0].model.get_input_var_names()]
    values = weather(shared_data, inputs)
    for column, adapter in enumerate(adapters):
        given, rain = 0.0, 0.0
        for hour in TWO_WET_DAYS:
            outputs = adapter.step({v.name: values[v.symbol][hour, column] for v in inputs})
            assert np.isfinite(list(outputs.values())).all()
            assert outputs[module["main_output_variable"]] >= 0.0
            mass = adapter.mass
            unaccounted = (
                mass["ngen::mass_in"]
                - mass["ngen::mass_out"]
                - mass["ngen::mass_stored"]
                - mass["ngen::mass_leaked"]
            )
            assert abs(unaccounted) <= tolerance
            given += outputs[RUNOFF_DEPTH]
            rain += values["precipitation"][hour, column] * 3600.0 / 1000.0
        assert rain > 0.09
        assert mass["ngen::mass_in"] == pytest.approx(rain, abs=1e-5)
        assert 0.0 < given <= mass["ngen::mass_out"] + tolerance
        adapter.finalize()


@pytest.mark.parametrize("realization", LSTM, ids=lambda path: path.stem)
@pytest.mark.usefixtures("models")
def test_two_wet_days_raise_the_runoff_of_an_lstm(realization: Path, shared_data: Path) -> None:
    module = module_of(realization)
    for column, catchment in enumerate(CATCHMENTS):
        adapter = opened(module, catchment)
        config = yaml.safe_load(Path(module["init_config"].replace("{{id}}", catchment)).read_text())
        inputs = [adapter.model.variables[name] for name in adapter.model.get_input_var_names()]
        values = weather(shared_data, inputs)
        depths = []
        for hour in range(TWO_WET_DAYS.stop):
            outputs = adapter.step({v.name: values[v.symbol][hour, column] for v in inputs})
            assert np.isfinite(list(outputs.values())).all()
            depth = outputs[module["main_output_variable"]]
            assert depth >= 0.0
            assert outputs[STREAMFLOW] == pytest.approx(depth * config["area_sqkm"] * 1e6 / 3600.0)
            assert ("ensemble" in realization.stem) == (outputs.get(SPREAD, 0.0) > 0.0)
            depths.append(depth)
        adapter.finalize()
        if "ensemble" not in realization.stem:  # five of the six are untrained
            before, after = np.mean(depths[72 : TWO_WET_DAYS.start]), np.mean(depths[TWO_WET_DAYS.start :])
            assert after > 5.0 * before


@pytest.mark.parametrize(
    ("theirs", "ours", "component"),
    [
        ("dhbv2-daily.json", "dhbv_drop_in.json", "DeltaHBV"),
        ("lstm-py.json", "lstm_drop_in.json", "StreamflowLSTM"),
    ],
)
def test_a_drop_in_differs_from_nextgen_in_a_boxs_in_one_line(
    theirs: str, ours: str, component: str, shared_data: Path
) -> None:
    published = module_of(shared_data / "nextgen" / "realizations" / theirs)
    module = module_of(FOLDER / ours)
    different = {key for key in published.keys() | module.keys() if published.get(key) != module.get(key)}
    assert different == {"python_type"}
    assert module["python_type"] == f"bmi_components.{component}"
