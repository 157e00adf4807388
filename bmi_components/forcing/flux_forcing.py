"""Flux tower files as forcing: the towers side by side on one time axis, columns found by what they measure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ForcingError
from bmi_components.forcing.flux_conventions import columns_measuring, own_name, symbol_of
from bmi_components.forcing.flux_tower import FluxTable, read_flux_table
from bmi_components.forcing.table import Table
from bmi_components.units import converter, convertible

__all__ = ["flux_tower_table", "tower_files"]

Array = NDArray[np.float64]


def tower_files(path: Path) -> list[Path]:
    """Return the files of one tower: the file itself, or all tables in a folder.

    Raises
    ------
    ForcingError
        If a folder holds none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(f for f in path.iterdir() if f.name.lower().endswith((".csv", ".csv.gz", ".zip")))
    if not files:
        raise ForcingError(f"{path} holds no flux tower files (.csv, .csv.gz or .zip)")
    return files


def flux_tower_table(towers: Mapping[str, Sequence[Path]] | Sequence[Path], source: str) -> Table:
    """Read towers' files; gaps and times that a tower does not cover are NaN.

    A column is offered under its own name, as `own_name` says it, and by the symbol of what it measures (gap-filled
    before measured) where one column of every tower does.

    Parameters
    ----------
    towers
        Files by identifier; or the files of one tower, whose identifier is in them.
    source
        What errors call it.

    Raises
    ------
    ForcingError
        If a file cannot be read, or the towers' intervals differ in length.
    """
    if isinstance(towers, Mapping):
        tables = [read_flux_table(files, site=site) for site, files in towers.items()]
    else:
        tables = [read_flux_table(towers)]
    step = tables[0].step
    for table in tables:
        if table.step != step:
            raise ForcingError(
                f"{table.source}: its intervals are {table.step} s long, those of {tables[0].source} {step} s"
            )
    first, last = min(t.time[0] for t in tables), max(t.time[-1] for t in tables)
    time = np.arange(first, last + np.timedelta64(step, "s"), np.timedelta64(step, "s"))
    offsets = [int((table.time[0] - first).astype(np.int64)) // step for table in tables]
    columns = _columns(tables)

    def read(name: str, rows: slice, towers: Sequence[int]) -> Array:
        values = np.full((time.size, len(towers)), np.nan)
        for position, tower in enumerate(towers):
            column = columns[name][tower]
            convert = converter(tables[tower].units[column], tables[0].units[columns[name][0]])
            begin = offsets[tower]
            values[begin : begin + tables[tower].time.size, position] = convert(tables[tower].columns[column])
        return values[rows]

    units = {name: tables[0].units[found[0]] for name, found in columns.items()}
    return Table(source, time, tuple(table.site for table in tables), units, read)


def _columns(tables: Sequence[FluxTable]) -> dict[str, list[str]]:
    """Return what can be asked for, and which column it is in each tower's table."""
    shared = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    columns = {name: [name] * len(tables) for name in shared}
    columns |= {own_name(name): [name] * len(tables) for name in shared}
    for symbol in {symbol_of(name) for name in tables[0].columns} - {None}:
        assert symbol is not None
        candidates = [columns_measuring(symbol, table.columns) for table in tables]
        if all(len(found) == 1 for found in candidates):
            columns[symbol] = [found[0] for found in candidates]
    # units that do not convert into each other are not the same quantity
    return {
        name: found
        for name, found in columns.items()
        if all(
            convertible(table.units[column], tables[0].units[found[0]])
            for table, column in zip(tables, found, strict=True)
        )
    }
