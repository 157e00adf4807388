"""Realizations, hydrofabrics and forcing for tests, small, and NextGen's sample."""

from __future__ import annotations

import json
import shutil
import sqlite3
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.forcing.nextgen import NAMES

CATCHMENTS = ("cat-27", "cat-52", "cat-67")
WEATHER = "cats-27_52_67-2015_12_01-2015_12_30.nc"
RAIN = "atmosphere_water__liquid_equivalent_precipitation_rate"
DEPTH = "land_surface_water__runoff_depth"
NAMES_MAP = {name.standard_name: name.columns[0] for name in NAMES if name.columns[0] != "APCP_surface"}
"""CSDMS name to column, of the eight variables of AORC."""


def copy_weather(shared_data: Path, target: Path) -> Path:
    """Copy NextGen's sample forcing, with the unit of precip_rate that it lacks."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(shared_data / "nextgen" / "forcing" / WEATHER, target)
    target.chmod(0o644)
    with netCDF4.Dataset(target, "a") as file:
        file["precip_rate"].units = "m s-1"
    return target


def write_weather(
    path: Path, catchments: Sequence[str], hours: int, seed: int = 0, start: str = "2020-01-01 00:00:00"
) -> Path:
    """Write random, possible weather of some catchments as NextGen's netCDF."""
    random = np.random.default_rng(seed)
    shape = (len(catchments), hours)
    data = {
        "precip_rate": ("mm s-1", random.gamma(0.2, 2e-3, shape)),
        "TMP_2maboveground": ("K", 275.0 + 8.0 * random.standard_normal(shape)),
        "SPFH_2maboveground": ("kg kg-1", random.uniform(1e-3, 4e-3, shape)),
        "PRES_surface": ("Pa", random.uniform(9.5e4, 1.01e5, shape)),
        "DSWRF_surface": ("W m-2", random.uniform(0.0, 500.0, shape)),
        "DLWRF_surface": ("W m-2", random.uniform(200.0, 350.0, shape)),
        "UGRD_10maboveground": ("m s-1", random.normal(0.0, 3.0, shape)),
        "VGRD_10maboveground": ("m s-1", random.normal(0.0, 3.0, shape)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("catchment-id", len(catchments))
        file.createDimension("time", hours)
        file.createVariable("ids", str, ("catchment-id",))[:] = np.array(catchments, dtype=object)
        time = file.createVariable("Time", "f8", ("catchment-id", "time"))
        time.units = f"s since {start}"
        time[:] = np.arange(hours) * 3600.0
        for name, (units, values) in data.items():
            variable = file.createVariable(name, "f8", ("catchment-id", "time"))
            variable.units = units
            variable[:] = values
    return path


def square(longitude: float, latitude: float, size: float = 0.02) -> list[list[float]]:
    """Return a square ring around a point."""
    half = size / 2
    corners = ((-half, -half), (half, -half), (half, half), (-half, half), (-half, -half))
    return [[longitude + x, latitude + y] for x, y in corners]


def write_geojson(
    path: Path, catchments: Sequence[str], nexus: str | None = None, areas: Sequence[float] = ()
) -> Path:
    """Write a hydrofabric of squares; each drains to its own nexus, or all to one."""
    features = [
        {
            "type": "Feature",
            "id": name,
            "properties": {
                "areasqkm": areas[index] if areas else 10.0 + index,
                "toid": nexus or name.replace("cat", "nex"),
            },
            "geometry": {"type": "Polygon", "coordinates": [square(-80.0 - index, 40.0 + index)]},
        }
        for index, name in enumerate(catchments)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write_geopackage(
    path: Path,
    rows: Mapping[str, tuple[float, str, Sequence[tuple[float, float]]]],
    attributes: Mapping[str, Mapping[str, float]] | None = None,
    system: int = 5070,
) -> Path:
    """Write the layers of a hydrofabric that are read: area, outlet and ring of each catchment; attributes."""
    base = sqlite3.connect(path)
    base.execute("CREATE TABLE divides (fid INTEGER, divide_id TEXT, toid TEXT, areasqkm REAL, geom BLOB)")
    for index, (name, (area, nexus, ring)) in enumerate(rows.items()):
        flat = [value for point in ring for value in point]
        polygon = struct.pack(f"<BIII{len(flat)}d", 1, 3, 1, len(ring), *flat)
        shape = struct.pack("<BII", 1, 6, 1) + polygon
        blob = b"GP" + struct.pack("<BBi", 0, 1, system) + shape
        base.execute("INSERT INTO divides VALUES (?, ?, ?, ?, ?)", (index, name, nexus, area, blob))
    if attributes is not None:
        columns = list(next(iter(attributes.values())))
        listed = ", ".join(f'"{column}" REAL' for column in columns)
        base.execute(f'CREATE TABLE "divide-attributes" (divide_id TEXT, {listed})')
        for name, values in attributes.items():
            marks = ", ".join("?" * (len(columns) + 1))
            row = (name, *(values[column] for column in columns))
            base.execute(f'INSERT INTO "divide-attributes" VALUES ({marks})', row)
    base.commit()
    base.close()
    return path


def module(kind: str, init_config: str, names: Mapping[str, str], **extra: Any) -> dict[str, Any]:
    """Return one Python module of a realization."""
    return {
        "name": "bmi_python",
        "params": {
            "python_type": kind,
            "model_type_name": kind.rpartition(".")[2],
            "init_config": init_config,
            "main_output_variable": DEPTH,
            "allow_exceed_end_time": True,
            "variables_names_map": dict(names),
            **extra,
        },
    }


def realization(
    path: Path,
    formulation: Mapping[str, Any],
    forcing: Mapping[str, Any] | str,
    start: str,
    end: str,
    **extra: Any,
) -> Path:
    """Write a realization; forcing is NextGen's netCDF where it is a path alone."""
    provider = {"path": forcing, "provider": "NetCDF"} if isinstance(forcing, str) else dict(forcing)
    content = {
        "global": {"formulations": [formulation], "forcing": provider},
        "time": {"start_time": start, "end_time": end, "output_interval": 3600},
        "output_root": "./outputs",
        **extra,
    }
    path.write_text(json.dumps(content, indent=1))
    return path


def read_rows(path: Path) -> tuple[list[str], NDArray[np.float64]]:
    """Read a csv file of a catchment: header, and ``[step, column]`` without step and time."""
    lines = path.read_text().splitlines()
    return lines[0].split(","), np.array([[float(v) for v in line.split(",")[2:]] for line in lines[1:]])
