"""What every forcing format becomes first: named columns with declared units on one time axis, read on demand."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.config import parse_time
from bmi_components.errors import ForcingError
from bmi_components.forcing.series import Times

__all__ = ["CsvFile", "Table", "csv_header", "open_netcdf", "read_csv", "split_units", "stack_csv"]

Array = NDArray[np.float64]

_HEADER = re.compile(r"\s*(?P<name>.*?)\s*(?:\((?P<round>[^()]*)\)|\[(?P<square>[^\[\]]*)\])?\s*")
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})


@dataclass(frozen=True)
class Table:
    """Columns of a file (or of a folder of files) that share a time axis and a list of catchments.

    Attributes
    ----------
    source
        The file or folder, for messages.
    time
        ``datetime64[s]``, shape ``[time]``, as the file has it: not checked yet.
    catchments
        Identifiers in the file's order.
    units
        Units that the file declares by column; None where it declares none.
    read
        ``read(column, rows, catchments) -> float64 [time, catchment]``; NaN where a value is missing.
    """

    source: str
    time: Times
    catchments: tuple[str, ...]
    units: Mapping[str, str | None]
    read: Callable[[str, slice, Sequence[int]], Array]


@dataclass(frozen=True)
class CsvFile:
    """One csv file: time stamps, text columns that were asked for, numeric columns and the units in its header."""

    path: Path
    time: Times
    units: Mapping[str, str | None]
    numbers: Mapping[str, Array]
    labels: NDArray[np.str_] | None


def split_units(header: str) -> tuple[str, str | None]:
    """Split a column header, ``name (unit)`` or ``name [unit]``, into name and unit; None if there is no unit."""
    found = _HEADER.fullmatch(header)
    if found is None or not found["name"]:
        return header.strip(), None
    units = found["round"] if found["round"] is not None else found["square"]
    return found["name"], units.strip() if units is not None else None


def read_csv(path: Path, time_column: str | None = None, label_column: str | None = None) -> CsvFile:
    """Read a csv file with a header row; lines that start with ``#`` before it are comments.

    Parameters
    ----------
    path
        The file; separated by commas, semicolons or tabs, decimal points.
    time_column
        Column of the time stamps; without it the first of time, date and datetime, in any capitals.
    label_column
        Column of text (the catchment) to read beside the numbers.

    Raises
    ------
    ForcingError
        If the file cannot be read, a column is missing, or a cell is neither number nor gap.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [line for line in file if not line.startswith("#")]
    except FileNotFoundError:
        raise ForcingError(f"there is no forcing file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ForcingError(f"{path} cannot be read as text ({error})") from None
    if not lines:
        raise ForcingError(f"{path} is empty; a header row and one row per time are needed")
    delimiter = max(",;\t", key=lines[0].count)
    rows = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    names_and_units = [split_units(cell) for cell in rows[0]]
    names = [name for name, _ in names_and_units]
    for name in names:
        if names.count(name) > 1:
            raise ForcingError(f"{path}: the column {name!r} occurs more than once")
    time_index = _time_index(names, time_column, path)
    label_index = _column_index(names, label_column, path) if label_column is not None else None
    body = rows[1:]
    for number, row in enumerate(body, start=2):
        if len(row) != len(names):
            raise ForcingError(
                f"{path}: row {number} has {len(row)} cells, the header {len(names)}; is the file complete?"
            )
    numeric = [i for i in range(len(names)) if i not in (time_index, label_index)]
    return CsvFile(
        path=path,
        time=_times([row[time_index] for row in body], path),
        units={names[i]: names_and_units[i][1] for i in numeric},
        numbers={names[i]: _numbers([row[i] for row in body], names[i], path) for i in numeric},
        labels=None if label_index is None else np.array([row[label_index].strip() for row in body]),
    )


def csv_header(path: Path) -> list[str]:
    """Return the names in the header row of a csv file; none if it is absent (reading it will say so)."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        header = next((line for line in file if not line.startswith("#")), "")
    return [split_units(cell)[0] for cell in header.strip().split(max(",;\t", key=header.count))]


def stack_csv(files: Mapping[str, CsvFile], source: str) -> Table:
    """Join one csv file per catchment into a table.

    Raises
    ------
    ForcingError
        If the files do not share their time axis, their columns or their units.
    """
    first_id, first = next(iter(files.items()))
    for other in files.values():
        if other.time.shape != first.time.shape or (other.time != first.time).any():
            raise ForcingError(
                f"{other.path}: its times are not those of {first.path.name} (catchment {first_id})"
            )
        for column, units in first.units.items():
            if column not in other.numbers:
                raise ForcingError(
                    f"{other.path}: the column {column!r} of {first.path.name} is missing in it"
                )
            if other.units[column] != units:
                raise ForcingError(
                    f"{other.path}: column {column!r} has the units {other.units[column]!r}, "
                    f"but {units!r} in {first.path.name}"
                )
    members = list(files.values())

    def read(column: str, rows: slice, catchments: Sequence[int]) -> Array:
        return np.stack([members[i].numbers[column][rows] for i in catchments], axis=1)

    return Table(source, first.time, tuple(files), first.units, read)


@contextmanager
def open_netcdf(path: Path) -> Iterator[netCDF4.Dataset]:
    """Open a netCDF file for reading.

    Raises
    ------
    ForcingError
        If it is absent, is not netCDF, or is damaged.
    """
    if not path.is_file():
        raise ForcingError(f"there is no forcing file {path}")
    try:
        dataset = netCDF4.Dataset(path)
    except (OSError, RuntimeError) as error:
        raise ForcingError(f"{path} is not a whole netCDF file ({error})") from None
    with dataset:
        try:
            yield dataset
        except RuntimeError as error:  # how the netCDF library reports chunks that are cut off
            raise ForcingError(f"{path} is damaged: {error}") from None


def _time_index(names: Sequence[str], wanted: str | None, path: Path) -> int:
    if wanted is not None:
        return _column_index(names, wanted, path)
    for candidate in ("time", "date", "datetime"):
        for index, name in enumerate(names):
            if name.lower() == candidate:
                return index
    raise ForcingError(
        f"{path}: there is no column time, date or datetime; name it with 'time:' (columns: {', '.join(names)})"
    )


def _column_index(names: Sequence[str], wanted: str, path: Path) -> int:
    if wanted not in names:
        raise ForcingError(f"{path}: there is no column {wanted!r}; there are {', '.join(names)}")
    return names.index(wanted)


def _times(cells: Sequence[str], path: Path) -> Times:
    try:
        return np.array([cell.strip().removesuffix("Z") for cell in cells], dtype="datetime64[s]")
    except ValueError:
        pass  # not plain ISO 8601 throughout: go cell by cell, which also knows other forms
    moments = []
    for row, cell in enumerate(cells, start=2):
        try:
            moments.append(parse_time(cell))
        except ValueError as error:
            raise ForcingError(f"{path}: row {row}: {error}") from None
    return np.array(moments, dtype="datetime64[s]")


def _numbers(cells: Sequence[str], column: str, path: Path) -> Array:
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        pass  # gaps: go cell by cell
    values = np.empty(len(cells))
    for index, cell in enumerate(cells):
        text = cell.strip()
        try:
            values[index] = np.nan if text.lower() in _MISSING else float(text)
        except ValueError:
            raise ForcingError(
                f"{path}: row {index + 2}: {text!r} in column {column!r} is not a number"
            ) from None
    return values
