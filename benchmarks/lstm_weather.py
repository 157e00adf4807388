"""What both sides of the LSTM benchmark are fed: names, plausible weather, NextGen's file, the golden run.

Only NumPy and PyYAML are imported here, since the peer's environment runs this file too.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

DEPTH = "land_surface_water__runoff_depth"
NAMES = {
    "APCP_surface": "atmosphere_water__liquid_equivalent_precipitation_rate",
    "TMP_2maboveground": "land_surface_air__temperature",
    "DLWRF_surface": "land_surface_radiation~incoming~longwave__energy_flux",
    "DSWRF_surface": "land_surface_radiation~incoming~shortwave__energy_flux",
    "PRES_surface": "land_surface_air__pressure",
    "SPFH_2maboveground": "atmosphere_air_water~vapor__relative_saturation",
    "UGRD_10maboveground": "land_surface_wind__x_component_of_velocity",
    "VGRD_10maboveground": "land_surface_wind__y_component_of_velocity",
}
"""Published name of each forcing; a model with two inputs has the first two."""
STATISTICS = {
    "APCP_surface": (0.2, 0.8),
    "TMP_2maboveground": (284.0, 12.0),
    "DLWRF_surface": (300.0, 60.0),
    "DSWRF_surface": (180.0, 250.0),
    "PRES_surface": (95_000.0, 4_000.0),
    "SPFH_2maboveground": (0.007, 0.004),
    "UGRD_10maboveground": (1.0, 3.0),
    "VGRD_10maboveground": (0.5, 3.0),
}
"""Mean and standard deviation of each forcing, in NextGen's units."""
ATTRIBUTES = {"elev_mean": 316.713505221, "slope_mean": 5.07506774}
AREA = 10.09406319443798


def weather(forcings: Sequence[str], steps: int) -> list[list[NDArray[np.float64]]]:
    """Return one array of one value per forcing and step, as a framework hands them over."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(steps):
        values = []
        for name in forcings:
            mean, std = STATISTICS[name]
            value = random.gamma(0.1, 2.0) if name == "APCP_surface" else random.normal(mean, std)
            values.append(np.array([max(value, 0.0) if "GRD" not in name else value]))
        rows.append(values)
    return rows


def nextgen_file(path: Path, runs: Sequence[str], number: int = 0, area: float = AREA) -> str:
    """Write NextGen's configuration of a catchment and return its path; ``number`` makes catchments differ."""
    settings: Mapping[str, Any] = {
        "area_sqkm": area,
        "basin_id": f"cat-{number}",
        "basin_name": f"cat-{number}",
        "elev_mean": ATTRIBUTES["elev_mean"] + number,
        "initial_state": "zero",
        "lat": 46.5,
        "lon": -69.3,
        "slope_mean": ATTRIBUTES["slope_mean"] + 0.001 * number,
        "time_step": "1 hour",
        "train_cfg_file": [f"{run}/config.yml" for run in runs],
        "verbose": 0,
    }
    path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return str(path)


def data_folder() -> Path:
    """Return where the shared data may be: BMI_COMPONENTS_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("BMI_COMPONENTS_DATA", beside))


def golden_run() -> Mapping[str, NDArray[Any]] | None:
    """Return NOAA's recorded run of a catchment over 720 h, if it is there."""
    path = data_folder() / "golden" / "lstm" / "noaa_cat67_2in.npz"
    return np.load(path) if path.exists() else None


def golden_difference(component: Any) -> float | None:
    """Step a component of the recorded catchment through the run; return the largest difference, m per hour."""
    golden = golden_run()
    if golden is None:
        return None
    difference, depth = 0.0, np.zeros(1)
    forcings = list(NAMES)[:2]
    for hour, expected in enumerate(golden["runoff_depth_m"]):
        for name in forcings:
            component.set_value(NAMES[name], golden[f"forcing_{name}"][hour : hour + 1])
        component.update()
        component.get_value(DEPTH, depth)
        difference = max(difference, abs(float(depth[0] - expected)))
    return difference


def stepped(component: Any, forcings: Sequence[str], size: int = 1) -> Any:
    """Return the call that is measured: every input set, one update, the runoff read."""
    rows = [[value.repeat(size) for value in row] for row in weather(forcings, 100)]
    names, depth, position = [NAMES[name] for name in forcings], np.zeros(size), 0

    def call() -> dict[str, Any]:
        nonlocal position
        for name, value in zip(names, rows[position], strict=True):
            component.set_value(name, value)
        component.update()
        component.get_value(DEPTH, depth)
        position = (position + 1) % len(rows)
        return {}

    return call


def series(component: Any, forcings: Sequence[str], steps: int) -> list[float]:
    """Return the runoff of the first steps, m, to see whether sides compute the same."""
    depth, runoff = np.zeros(1), []
    for row in weather(forcings, steps):
        for name, value in zip(forcings, row, strict=True):
            component.set_value(NAMES[name], value)
        component.update()
        component.get_value(DEPTH, depth)
        runoff.append(float(depth[0]))
    return runoff
