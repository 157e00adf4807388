"""NextGen steps the canopy by hours from its eight variables, and lets other modules give it soil moisture."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canveg_configurations import SLOW, configuration
from numpy.typing import NDArray

from bmi_components import CanVeg
from bmi_components.canveg.program import compiled
from bmi_components.forcing.nextgen import NAMES
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.testing import NgenAdapter
from bmi_components.units import convertible

FOLDER = Path(__file__).resolve().parents[2] / "ngen_realizations"
CATCHMENTS = ("cat-27", "cat-52", "cat-67")
WEATHER = "cats-27_52_67-2015_12_01-2015_12_30.nc"
DEPTH = "land_surface_water__evapotranspiration_depth"
RATE = "land_surface_water__evapotranspiration_volume_flux"
RADIATION = "land_surface_radiation~net~total__energy_flux"
HEAT = (
    "land_surface__upward_latent_heat_energy_flux",
    "land_surface__upward_sensible_heat_energy_flux",
    "soil__downward_heat_energy_flux",
)
CONVERGED = "land_surface_energy-balance__converged_flag"
HOURS = 48


@pytest.fixture(autouse=True, scope="module")
def kept_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep programs in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "programs"))
        yield


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Parameters of the shipped realization's one module."""
    monkeypatch.chdir(FOLDER)
    (formulation,) = json.loads((FOLDER / "canveg.json").read_text())["global"]["formulations"]
    parameters: dict[str, Any] = formulation["params"]
    return parameters


def adapter(module: dict[str, Any], catchment: str) -> NgenAdapter:
    path, _, name = module["python_type"].rpartition(".")
    return NgenAdapter(
        getattr(importlib.import_module(path), name),
        module["init_config"].replace("{{id}}", catchment),
        allow_exceed_end_time=module["allow_exceed_end_time"],
        cache_input_metadata=module["cache_input_variable_metadata"],
    )


def weather(shared_data: Path, component: CanVeg) -> dict[str, NDArray[np.float64]]:
    """Return NextGen's sample weather by name, ``[hour, catchment]``."""
    inputs = [component.variables[name] for name in component.get_input_var_names()]
    path = shared_data / "nextgen" / "forcing" / WEATHER
    found = read_forcing(ForcingSource(kind="nextgen", path=path, units={"precip_rate": "m s-1"}), inputs)
    return {v.name: found.values[v.symbol] for v in inputs}


def test_the_realization_names_forcing_and_outputs_that_there_are(module: dict[str, Any]) -> None:
    component = CanVeg()
    component.initialize(module["init_config"].replace("{{id}}", "cat-27"))
    units = {
        name: entry.units or "mm s-1" for entry in NAMES for name in (*entry.columns, entry.standard_name)
    }
    names = module["variables_names_map"]
    assert set(component.get_input_var_names()) == set(names)
    assert len(names) == 8
    for name, source in names.items():
        assert convertible(units[source], component.get_var_units(name)), name
    published = component.get_output_var_names()
    assert {module["main_output_variable"], *module["output_variables"]} <= set(published)
    assert len(module["output_variables"]) == len(module["output_header_fields"])
    assert component.get_var_units(module["main_output_variable"]) == "m"
    assert component.get_time_step() == 3600.0


def test_two_days_of_nextgens_sample_weather(module: dict[str, Any], shared_data: Path) -> None:
    adapters = [adapter(module, catchment) for catchment in CATCHMENTS]
    programs = compiled.cache_info().currsize
    values = weather(shared_data, adapters[0].model)
    for column, one in enumerate(adapters):
        results = []
        for hour in range(HOURS):
            outputs = one.step({name: series[hour, column] for name, series in values.items()})
            assert np.isfinite(list(outputs.values())).all()
            assert outputs[DEPTH] == pytest.approx(outputs[RATE] * 3.6, rel=1e-5, abs=1e-12)
            balance = outputs[RADIATION] - sum(outputs[heat] for heat in HEAT)
            assert outputs[CONVERGED] == 1.0
            assert abs(balance) < 0.05
            results.append(outputs)
        light = values["land_surface_radiation~incoming~shortwave__energy_flux"][:HOURS, column]
        uptake = np.array(
            [r["land_vegetation_carbon-dioxide__gross_primary_production_mole_flux"] for r in results]
        )
        assert (np.abs(uptake[light <= 0.0]) < 1e-3).all()
        assert uptake[light > 100.0].max() > 1.0
        assert -1e-4 < sum(r[DEPTH] for r in results) < 0.02  # m in two days of December
        one.finalize()
    assert compiled.cache_info().currsize == programs  # three catchments, one program


def test_an_hour_is_two_half_hours_with_soil_moisture_from_another_module(tmp_path: Path) -> None:
    slow = SLOW.replace("soil_water_content: 0.2", "soil_water_content: input")
    path = configuration(tmp_path, "inputs: nextgen\n", slow=slow)
    hourly, halves = (NgenAdapter(CanVeg, path, allow_exceed_end_time=True) for _ in range(2))
    forcing = dict.fromkeys(hourly.model.get_input_var_names(), 0.0) | {
        "land_surface_air__temperature": 293.15,
        "land_surface_air__pressure": 1e5,
        "atmosphere_air_water~vapor__relative_saturation": 0.008,
        "land_surface_radiation~incoming~shortwave__energy_flux": 400.0,
        "land_surface_radiation~incoming~longwave__energy_flux": 340.0,
        "land_surface_wind__x_component_of_velocity": 3.0,
        "land_surface_soil_water__volume_fraction": 0.2,
    }
    assert len(forcing) == 9
    whole = hourly.step(forcing)
    parts = []
    for _ in range(2):
        for name, value in forcing.items():
            halves.model.set_value(name, np.array([value]))
        halves.model.update()
        parts.append(halves.model.get_value_ptr(DEPTH)[0])
    assert whole[DEPTH] == pytest.approx(sum(parts), rel=1e-9)
    assert whole[RATE] == pytest.approx(parts[1] / 1.8, rel=1e-6)
    assert whole[DEPTH] > 1e-5
