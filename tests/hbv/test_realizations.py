"""The realizations in ngen_realizations/: NextGen can connect, step and check them as they stand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltamg_folders import folder_mts
from hbv_bundles import write_bundle

from bmi_components.forcing.nextgen import NAMES
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.testing import NgenAdapter
from bmi_components.units import convertible

FOLDER = Path(__file__).resolve().parents[2] / "ngen_realizations"
REALIZATIONS = sorted(FOLDER.glob("dhbv_*.json"))
CATCHMENTS = ("cat-27", "cat-52", "cat-67")
WEATHER = "cats-27_52_67-2015_12_01-2015_12_30.nc"
FIRST_HOUR = 21 * 24
"""Of the two wettest days, 22 and 23 December 2015: more than 90 mm."""
RUNOFF_DEPTH = "land_surface_water__runoff_depth"
# NextGen's own label of precip_rate, whatever a file holds; the other units are in the table.
UNITS = {column: name.units or "mm s-1" for name in NAMES for column in name.columns}


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
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Untrained models under the names of the published ones, where the configurations find them."""
    write_bundle(tmp_path / "dhbv_2", "2.0")
    folder_mts(tmp_path / "dhbv_2_mts")
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(tmp_path))
    monkeypatch.chdir(FOLDER)
    return tmp_path


def opened(module: dict[str, Any], catchment: str) -> NgenAdapter:
    """Open the component as NextGen does from a realization."""
    path, _, name = module["python_type"].rpartition(".")
    return NgenAdapter(
        getattr(importlib.import_module(path), name),
        module["init_config"].replace("{{id}}", catchment),
        model_params=module.get("model_params"),
        mass_balance=True,
        allow_exceed_end_time=module["allow_exceed_end_time"],
        cache_input_metadata=module.get("cache_input_variable_metadata", False),
    )


def test_there_are_realizations() -> None:
    assert len(REALIZATIONS) == 3


@pytest.mark.parametrize("realization", REALIZATIONS, ids=lambda path: path.stem)
def test_every_input_is_forcing_that_nextgen_has_in_units_that_convert(
    realization: Path, models: Path
) -> None:
    module = module_of(realization)
    for catchment in CATCHMENTS:
        component = opened(module, catchment).model
        inputs = component.get_input_var_names()
        names = module["variables_names_map"]
        assert set(inputs) <= set(names)
        for name in inputs:
            assert convertible(UNITS[names[name]], component.get_var_units(name)), name
        published = component.get_output_var_names()
        assert module["main_output_variable"] in published
        assert set(module.get("output_variables", ())) <= set(published)
        assert len(module.get("output_variables", ())) == len(module.get("output_header_fields", ()))


@pytest.mark.parametrize("realization", REALIZATIONS, ids=lambda path: path.stem)
def test_two_days_of_nextgens_sample_weather_keep_their_water(
    realization: Path, models: Path, shared_data: Path
) -> None:
    module = module_of(realization)
    tolerance = module.get("mass_balance", {}).get("tolerance", 1e-6)
    source = ForcingSource(
        kind="nextgen", path=shared_data / "nextgen" / "forcing" / WEATHER, units={"precip_rate": "m s-1"}
    )
    adapters = [opened(module, catchment) for catchment in CATCHMENTS]
    inputs = [adapters[0].model.variables[name] for name in adapters[0].model.get_input_var_names()]
    weather = read_forcing(source, inputs)
    for column, adapter in enumerate(adapters):
        given, rain = 0.0, 0.0
        for hour in range(FIRST_HOUR, FIRST_HOUR + 48):
            forcing = {v.name: weather.values[v.symbol][hour, column] for v in inputs}
            outputs = adapter.step(forcing)
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
            rain += weather.values["precipitation"][hour, column] * 3600.0 / 1000.0
        assert rain > 0.09
        assert mass["ngen::mass_in"] == pytest.approx(rain, abs=1e-5)
        assert 0.0 < given <= mass["ngen::mass_out"] + tolerance
        adapter.finalize()


def test_the_drop_in_differs_from_nextgen_in_a_boxs_in_one_line(shared_data: Path) -> None:
    theirs = module_of(shared_data / "nextgen" / "realizations" / "dhbv2-daily.json")
    ours = module_of(FOLDER / "dhbv_drop_in.json")
    assert {key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key)} == {"python_type"}
    assert ours["python_type"] == "bmi_components.DeltaHBV"
