"""Configurations of CanVeg for tests: few layers, one site or two, a day of weather."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmi_components import CanVeg

SITES = """sites:
  - {id: meadow, latitude: 38.1, longitude: -121.5, utc_offset: -8, canopy_height: 0.8, measurement_height: 5.0}
"""
SECOND = "  - {id: wood, latitude: 44.4, longitude: -121.6, canopy_height: 12.0, measurement_height: 34.0}\n"
SLOW = "leaf_area_index: 2.5\nsoil_water_content: 0.2\nsoil_temperature: 14.0\n"
START = "start_time: 2019-07-01 16:00:00\n"


def configuration(
    folder: Path,
    extra: str = "",
    *,
    sites: int = 1,
    slow: str = SLOW,
    start: str = START,
    mode: str = "reference",
) -> Path:
    """Write a configuration with three layers."""
    path = folder / f"canveg_{len(list(folder.glob('canveg_*')))}.yaml"
    options = f"options: {{mode: {mode}, layers: 3, atmosphere_layers: 4}}\n"
    path.write_text(options + SITES + SECOND * (sites - 1) + slow + start + extra)
    return path


def opened(path: Path) -> CanVeg:
    component = CanVeg()
    component.initialize(str(path))
    return component


def weather(component: CanVeg, steps: int, seed: int = 0) -> list[dict[str, NDArray[np.float64]]]:
    """Return a morning's inputs that grow warmer and lighter, by name, different at each site."""
    random = np.random.default_rng(seed)
    ranges = {
        "temperature": (285.0, 298.0),
        "vapour_pressure": (0.9, 1.1),
        "pressure": (9.9e4, 1.01e5),
        "shortwave": (20.0, 800.0),
        "wind_speed": (1.0, 4.0),
        "friction_velocity": (0.2, 0.5),
        "longwave": (300.0, 340.0),
        "leaf_area_index": (2.0, 3.0),
        "soil_water_content": (0.15, 0.25),
        "soil_temperature": (13.0, 15.0),
        "canopy_height": (0.7, 0.9),
        "carbon_dioxide": (400.0, 420.0),
    }
    inputs = [component.variables[name] for name in component.get_input_var_names()]
    rows = []
    for step in range(steps):
        row = {}
        for v in inputs:
            low, high = ranges[v.symbol]
            size = component.get_value_ptr(v.name).size
            row[v.name] = low + (high - low) * (0.8 * step / steps + 0.2 * random.random(size))
        rows.append(row)
    return rows


def run(
    component: CanVeg, rows: list[dict[str, NDArray[np.float64]]]
) -> list[dict[str, NDArray[np.float64]]]:
    """Step through rows and copy all outputs after each."""
    results = []
    for row in rows:
        for name, values in row.items():
            component.set_value(name, values)
        component.update()
        results.append(
            {name: component.get_value_ptr(name).copy() for name in component.get_output_var_names()}
        )
    return results
