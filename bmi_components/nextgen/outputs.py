"""What a run leaves behind: ngen's csv files per catchment and nexus, and one netCDF file of all catchments."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.nextgen.hydrofabric import Divide
from bmi_components.nextgen.realization import Realization
from bmi_components.output import Column, RunFile
from bmi_components.variables import Variable

__all__ = ["FLOW", "netcdf_names", "write_csv_files", "write_netcdf"]

Array = NDArray[np.float64]

FLOW = "catchment_flow"
"""The netCDF variable of what a catchment gives to its nexus, m3 s-1."""
BLOCK_VALUES = 20_000_000
"""Values that are held in memory at a time."""
_RESERVED = {"time", "time_bounds", "catchment", FLOW}


def netcdf_names(headers: Sequence[str]) -> list[str]:
    """Return names for netCDF variables: the columns' headers, made unique and free of slashes."""
    names: list[str] = []
    for header in headers:
        name = header.strip().replace("/", "_") or "column"
        while name in names or name in _RESERVED:
            name += "_"
        names.append(name)
    return names


def write_csv_files(
    parts: Sequence[Path], root: Path, work: Path, realization: Realization, fabric: Mapping[str, Divide]
) -> int:
    """Write ngen's csv files from the parts' results, aside first and into place when all are written.

    Returns
    -------
    int
        Number of nexuses.
    """
    aside = work / "csv"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    output = realization.output
    form = f"%.{output.precision}g"
    flows: dict[str, Array] = {}
    stamps: list[str] = []
    whole = None
    if output.catchment and output.per_formulation:
        whole = open(aside / "cat_output.csv", "w", encoding="utf-8", newline="\n")  # noqa: SIM115
    with ExitStack() as stack:
        if whole is not None:
            stack.enter_context(whole)
        for index, part in enumerate(parts):
            with netCDF4.Dataset(part) as file:
                names = _data_names(file)
                stamps = stamps or _stamps(file)
                names = [name for name in names if name != FLOW]
                headers = json.loads(file.csv_headers)
                catchments = [str(name) for name in file["catchment"][:]]
                if output.nexus and fabric and np.isfinite(np.ma.filled(file[FLOW][0], np.nan)).any():
                    _add_flows(file, catchments, fabric, flows)
                if output.catchment and whole is None:
                    for name, columns in _by_catchment(file, names, catchments):
                        _write_rows(aside / f"{name}.csv", _header(headers), stamps, columns, form)
                elif output.catchment and whole is not None:
                    if index == 0:
                        whole.write("catchment_id," + _header(headers) + "\n")
                    _write_together(whole, file, names, catchments, stamps, form)
    for nexus, flow in flows.items():
        with open(aside / f"{nexus}_output.csv", "w", encoding="utf-8", newline="\n") as out:
            out.writelines(
                f"{step}, {stamp}, {value:.6g}\n"
                for step, (stamp, value) in enumerate(zip(stamps, flow.tolist(), strict=True))
            )
    for file_path in sorted(aside.iterdir()):
        os.replace(file_path, root / file_path.name)
    return len(flows)


def _header(headers: Sequence[str]) -> str:
    return ",".join(["Time Step", "Time", *headers])


def _data_names(file: netCDF4.Dataset) -> list[str]:
    return [name for name, data in file.variables.items() if data.dimensions == ("time", "catchment")]


def _stamps(file: netCDF4.Dataset) -> list[str]:
    """Return the times as ngen writes them."""
    unit, _, since = str(file["time"].units).partition(" since ")
    seconds = np.asarray(file["time"][:], dtype=np.int64) * {"seconds": 1, "days": 86_400}[unit]
    times = np.datetime64(since.replace(" ", "T"), "s") + seconds.astype("timedelta64[s]")
    return [str(time).replace("T", " ") for time in times]


def _add_flows(
    file: netCDF4.Dataset, catchments: Sequence[str], fabric: Mapping[str, Divide], flows: dict[str, Array]
) -> None:
    """Add the catchments' flow to their nexuses."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(catchments):
        nexus = fabric[name].nexus
        if nexus is not None:
            members[nexus].append(index)
    total = file[FLOW].shape[0]
    rows = max(1, BLOCK_VALUES // len(catchments))
    for start in range(0, total, rows):
        block = np.ma.filled(file[FLOW][start : start + rows], np.nan)
        for nexus, indices in members.items():
            flow = flows.setdefault(nexus, np.zeros(total))
            for index in indices:  # in ngen's order of addition
                flow[start : start + rows] += block[:, index]


def _by_catchment(
    file: netCDF4.Dataset, names: Sequence[str], catchments: Sequence[str]
) -> Iterator[tuple[str, Array]]:
    """Give each catchment's columns, ``[column, time]``, reading many catchments at a time."""
    steps = file["time"].shape[0]
    size = max(1, BLOCK_VALUES // max(1, steps * len(names)))
    for start in range(0, len(catchments), size):
        block = np.stack([np.ma.filled(file[name][:, start : start + size], np.nan) for name in names])
        for offset, name in enumerate(catchments[start : start + size]):
            yield name, block[:, :, offset]


def _write_rows(path: Path, header: str, stamps: Sequence[str], columns: Array, form: str) -> None:
    line = "%d,%s" + f",{form}" * columns.shape[0] + "\n"
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        out.write(header + "\n")
        out.writelines(
            line % (step, stamp, *row)
            for step, (stamp, row) in enumerate(zip(stamps, columns.T.tolist(), strict=True))
        )


def _write_together(
    out: Any,
    file: netCDF4.Dataset,
    names: Sequence[str],
    catchments: Sequence[str],
    stamps: Sequence[str],
    form: str,
) -> None:
    """Write the catchments of a formulation into one file, step by step, as ngen groups them."""
    line = "%s,%d,%s" + f",{form}" * len(names) + "\n"
    rows = max(1, BLOCK_VALUES // max(1, len(catchments) * len(names)))
    for start in range(0, len(stamps), rows):
        block = np.stack([np.ma.filled(file[name][start : start + rows], np.nan) for name in names], axis=2)
        for offset, at_step in enumerate(block.tolist()):
            step = start + offset
            out.writelines(
                line % (name, step, stamps[step], *values)
                for name, values in zip(catchments, at_step, strict=True)
            )


def write_netcdf(
    parts: Sequence[Path],
    path: Path,
    catchments: Sequence[str],
    fabric: Mapping[str, Divide],
    attributes: Mapping[str, str],
) -> None:
    """Join the parts into one netCDF file; NaN where a formulation lacks a column."""
    with ExitStack() as stack:
        files = [stack.enter_context(netCDF4.Dataset(part)) for part in parts]
        position = {name: index for index, name in enumerate(catchments)}
        places = [np.array([position[str(name)] for name in file["catchment"][:]]) for file in files]
        columns: dict[str, Column] = {}
        for file in files:
            for name in _data_names(file):
                data = file[name]
                source = getattr(data, "csdms_name", name)
                when = str(getattr(data, "cell_methods", "time: end")).removeprefix("time: ")
                variable = Variable(source, data.units, name, data.long_name)
                columns.setdefault(name, Column(variable, when))  # type: ignore[arg-type]
        stamps = np.array([s.replace(" ", "T") for s in _stamps(files[0])], dtype="datetime64[s]")
        with RunFile(
            path,
            time=stamps,
            time_step=3600,
            catchments=catchments,
            columns=list(columns.values()),
            attributes=attributes,
            per_catchment=_per_catchment(catchments, fabric),
            precision="float64",
        ) as target:
            rows = max(1, BLOCK_VALUES // (len(catchments) * len(columns)))
            for start in range(0, stamps.size, rows):
                count = min(rows, stamps.size - start)
                values = {name: np.full((count, len(catchments)), np.nan) for name in columns}
                for file, indices in zip(files, places, strict=True):
                    for name in _data_names(file):
                        block = file[name][start : start + count]
                        values[name][:, indices] = np.ma.filled(block, np.nan)
                target.write(start, values)
            target.complete()


def _per_catchment(
    catchments: Sequence[str], fabric: Mapping[str, Divide]
) -> dict[str, tuple[Array, str, str]]:
    found = {}
    for key, units, meaning in (
        ("latitude", "degrees_north", "latitude"),
        ("longitude", "degrees_east", "longitude"),
        ("area_km2", "km2", "catchment area"),
    ):
        values = [getattr(fabric.get(name), key, None) for name in catchments]
        if all(value is not None for value in values):
            found[key] = (np.array(values, dtype=np.float64), units, meaning)
    return found
