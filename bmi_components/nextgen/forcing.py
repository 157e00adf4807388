"""The forcing of a realization as ngen sees it: names of two kinds, units declared or by ngen's table, by the hour."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ForcingError, UnitsError
from bmi_components.forcing.nextgen import NAMES, netcdf_table
from bmi_components.forcing.series import catchment_columns, regular_step
from bmi_components.forcing.table import Table, read_csv, stack_csv
from bmi_components.nextgen.realization import NETCDF, STEP, ForcingParams
from bmi_components.units import convertible

__all__ = ["FrameworkForcing", "csv_of", "open_forcing", "precipitation_units"]

Array = NDArray[np.float64]

NGEN_PRECIPITATION = "mm s^-1"
"""What ngen takes precip_rate for where the file does not say."""


@dataclass(frozen=True)
class FrameworkForcing:
    """The forcing of some catchments over the steps of a realization.

    Attributes
    ----------
    table
        The file or files.
    first
        The row of the realization's first step.
    steps
        Rows from there that the realization takes.
    columns
        Where the catchments are in the table.
    catchments
        Their identifiers.
    """

    table: Table
    first: int
    steps: int
    columns: tuple[int, ...]
    catchments: tuple[str, ...]

    @property
    def period(self) -> tuple[np.datetime64, np.datetime64]:
        """First and last step's start."""
        return self.table.time[self.first], self.table.time[self.first + self.steps - 1]

    def column(self, name: str) -> str | None:
        """Return the column that ngen takes for a name, AORC's or CSDMS's; None if there is none."""
        if name in self.table.units:
            return name
        for known in NAMES:
            names = (*known.columns, known.standard_name)
            if name in names:
                return next((other for other in names if other in self.table.units), None)
        return None

    def units(self, column: str) -> str:
        """Return the units that ngen takes a column to be in: declared, or of its table, or none at all."""
        declared = self.table.units[column]
        if declared:
            return declared
        for known in NAMES:
            if column in (*known.columns, known.standard_name):
                return known.units or NGEN_PRECIPITATION
        return "1"

    def read(self, column: str, start: int, stop: int) -> Array:
        """Read steps ``start`` to ``stop`` of the realization, ``[step, catchment]``, in the file's units.

        Raises
        ------
        ForcingError
            If a value is missing.
        """
        rows = slice(self.first + start, self.first + stop)
        values = self.table.read(column, rows, self.columns)
        missing = ~np.isfinite(values)
        if missing.any():
            time, catchment = np.argwhere(missing)[0]
            raise ForcingError(
                f"{self.table.source}: {column} is missing (NaN) at {self.table.time[self.first + start + time]} in "
                f"{self.catchments[catchment]}; fill the gap"
            )
        return values


@contextmanager
def open_forcing(
    params: ForcingParams,
    catchments: Sequence[str],
    start: np.datetime64 | None = None,
    last: np.datetime64 | None = None,
) -> Iterator[FrameworkForcing]:
    """Open the forcing of some catchments and check that it covers a period by the hour.

    Parameters
    ----------
    params
        What the realization says.
    catchments
        Identifiers.
    start, last
        First and last step's start; without them those of the forcing.

    Raises
    ------
    ForcingError
        If a file, a catchment or a time is not there.
    """
    path = Path(params.path)
    if not path.exists():
        raise ForcingError(
            f"{params.place}.path: there is no {path} from here ({Path.cwd()}); ngen too looks from the folder in "
            "which it is started"
        )
    if params.provider == NETCDF:
        with netcdf_table(path) as table:
            yield _bind(table, catchments, start, last)
        return
    files = {name: read_csv(csv_of(path, params, name)) for name in catchments}
    yield _bind(stack_csv(files, str(path)), catchments, start, last)


def csv_of(path: Path, params: ForcingParams, catchment: str) -> Path:
    """Return the file of a catchment: the first whose whole name the pattern matches, as ngen does."""
    if path.is_file():
        return path
    if params.file_pattern is None:
        raise ForcingError(
            f"{params.place}: {path} is a folder, and file_pattern is missing; write one such as "
            '".*{{id}}[^0-9].*csv"'
        )
    pattern = re.compile(params.file_pattern.replace("{{id}}", catchment))
    found = [file for file in sorted(path.iterdir()) if pattern.fullmatch(file.name)]
    if not found:
        raise ForcingError(
            f"{path}: no file's name matches {pattern.pattern!r}, the file_pattern for {catchment}"
        )
    exact = [file for file in found if re.search(rf"{re.escape(catchment)}(?!\d)", file.name)]
    if len(found) > 1:
        raise ForcingError(
            f"{params.place}.file_pattern: {found[0].name} and {found[1].name} both match for {catchment}, and ngen "
            'takes whichever it finds first; write ".*{{id}}[^0-9].*csv"'
        )
    if not exact:
        raise ForcingError(f"{params.place}.file_pattern: {found[0].name} is not a file of {catchment}")
    return found[0]


def _bind(
    table: Table, catchments: Sequence[str], start: np.datetime64 | None, last: np.datetime64 | None
) -> FrameworkForcing:
    step = regular_step(table.time, table.source)
    if step != STEP:
        raise ForcingError(
            f"{table.source}: its steps are of {step} s; ngen resamples wrongly, so forcing must be hourly"
        )
    start = table.time[0] if start is None else start
    last = table.time[-1] if last is None else last
    hour = np.timedelta64(STEP, "s")
    first, end = int((start - table.time[0]) / hour), int((last - table.time[0]) / hour)
    if first < 0 or end >= table.time.size or table.time[first] != start:
        raise ForcingError(
            f"{table.source}: it covers {_text(table.time[0])} to {_text(table.time[-1])}; the realization takes "
            f"{_text(start)} to {_text(last)}: set time.start_time and time.end_time to hours that are covered"
        )
    columns = catchment_columns(table.catchments, catchments, table.source)
    return FrameworkForcing(table, first, end - first + 1, tuple(columns), tuple(catchments))


def precipitation_units(forcing: FrameworkForcing, column: str, rows: int = 24 * 31) -> str | None:
    """Return the units in which undeclared precipitation rates add up to the depths beside them, if any do.

    ngen takes undeclared ``precip_rate`` for mm s-1, but files in circulation, ngen's own sample among them, hold
    m s-1: a thousandth of the rain. ``APCP_surface``, the hour's depth, tells which.

    Raises
    ------
    UnitsError
        If the rates add up to the depths in none of the units that are in use.
    """
    depths = "APCP_surface"
    if depths not in forcing.table.units or column == depths:
        return None
    if not convertible(forcing.units(depths), "kg m-2"):
        return None
    stop = min(rows, forcing.steps)
    depth = float(forcing.read(depths, 0, stop).sum())
    rate = float(forcing.read(column, 0, stop).sum()) * STEP
    if depth <= 0.0:
        return None
    for units, factor in (("mm s-1", 1.0), ("m s-1", 1000.0), ("mm h-1", 1.0 / STEP)):
        if 0.5 < rate * factor / depth < 2.0:
            return units
    raise UnitsError(
        f"{forcing.table.source}: {column} declares no units, and in none of mm s-1, m s-1, mm h-1 does it add up to "
        f"{depths} ({depth:g} mm); declare its units"
    )


def _text(time: np.datetime64) -> str:
    return str(time).replace("T", " ")
