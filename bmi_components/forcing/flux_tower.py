"""Readers of flux tower files (AmeriFlux BASE, FLUXNET, plain csv): one table on a gapless time axis."""

from __future__ import annotations

import gzip
import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError
from bmi_components.forcing.flux_conventions import CANVEG_UNITS, columns_named, units_of
from bmi_components.forcing.table import split_units

__all__ = ["FluxKind", "FluxTable", "read_flux_table"]

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]
FluxKind = Literal["auto", "base", "fluxnet", "canveg", "csv"]

GAP = -9999.0
DAY = 86_400

_GAPS = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
_SITE = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}-[A-Za-z0-9]{3})(?![A-Za-z0-9])")
_COARSE = re.compile(r"_(WW|MM|YY)_")
_TIME_NAMES = ("TIMESTAMP_START", "TIMESTAMP_END", "TIMESTAMP", "time", "date", "datetime")
_CANVEG_COLUMNS = {"eair", "veg_ht", "LE_MODIS", "Rsoil"}


@dataclass(frozen=True)
class FluxTable:
    """What a tower measured, interval by interval.

    Attributes
    ----------
    site
        Identifier such as "US-Me2"; the file's name where it holds none.
    time
        ``datetime64[s]``, ``[time]``: the START of each interval, local standard time, without gaps.
    step
        Length of an interval, seconds.
    columns
        ``{name: float64 [time]}``, names as in the file (or as renamed); NaN where nothing was measured.
    units
        ``{name: units}``.
    source
        The files, for messages.
    """

    site: str
    time: Times
    step: int
    columns: Mapping[str, Array]
    units: Mapping[str, str]
    source: str = "the flux table"

    @property
    def daily(self) -> bool:
        """Whether an interval is a day."""
        return self.step == DAY

    def first_of(self, names: Sequence[str]) -> str | None:
        """Return the column of the first of these names that the table has, at its first position; None if none."""
        return next((found[0] for name in names if (found := columns_named(name, self.columns))), None)

    def find(self, name: str) -> str:
        """Return the column for a name, which may leave out the only position: ``TA`` for ``TA_1_1_1``.

        Raises
        ------
        UnknownNameError
            If there is none, or several positions to choose from.
        """
        found = columns_named(name, self.columns)
        if not found:
            raise UnknownNameError(
                f"{self.source}: there is no column {name!r}; there are {', '.join(self.columns)}"
            )
        if len(found) > 1:
            raise UnknownNameError(f"{self.source}: which {name}? There are {', '.join(found)}")
        return found[0]


def read_flux_table(
    path: str | Path | Sequence[str | Path],
    *,
    kind: FluxKind = "auto",
    columns: Mapping[str, str] | None = None,
    units: Mapping[str, str] | None = None,
    site: str | None = None,
) -> FluxTable:
    """Read one tower's data from a file, or from several that are joined by column and in time.

    Parameters
    ----------
    path
        csv file, also ``.gz`` or ``.zip`` (as AmeriFlux and FLUXNET deliver it), or a list of them.
    kind
        "base" (AmeriFlux BASE: comment lines, then TIMESTAMP_START and names <BASE>_<H>_<V>_<R>), "fluxnet"
        (FLUXNET2015 and ONEFlux FULLSET or SUBSET, half-hourly, hourly or daily), "canveg" (the towers distributed
        with JAX-CanVeg) or "csv"; "auto" tells by the header. They differ in units: those of a "csv" stand in its
        header, ``TA (degC)``, or in ``units``, and follow the AmeriFlux conventions where neither says any.
    columns
        ``{our name: name in the file}`` where a file calls a column differently, its time stamps included.
        Time stamps are TIMESTAMP_START or TIMESTAMP_END (or time, meaning the start), as YYYYMMDD[HHMM] or ISO 8601.
    units
        ``{our name: units}`` where the file declares none or wrong ones.
    site
        Identifier; without it the one in the file's name.

    Raises
    ------
    ForcingError
        If a file cannot be read, holds no or unclear times, contradicts itself or another file, or is coarser than
        a day.
    ConfigurationError
        If ``columns`` or ``units`` name a column that no file has.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(one) for one in path]
    if not paths:
        raise ConfigurationError("there is no flux tower file to read: the list of paths is empty")
    parts = [_read_file(one, columns or {}) for one in paths]
    source = paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"
    found = {name for part in parts for name in (*part.renamed, *part.columns)}
    for setting, names in (("columns", columns or {}), ("units", units or {})):
        for name in names:
            if name not in found:
                raise ConfigurationError(
                    f"{source}: {setting} names {name!r}, which no file has; there are {', '.join(sorted(found))}"
                )
    step = parts[0].step
    for part in parts:
        if part.step != step:
            raise ForcingError(
                f"{part.path}: its intervals are {part.step} s long, those of {parts[0].path.name} {step} s"
            )
    time, joined = _join(parts)
    declared = {name: unit for part in parts for name, unit in part.units.items()}
    return FluxTable(
        site=site or next((part.site for part in parts if part.site), paths[0].name.split(".")[0]),
        time=time,
        step=step,
        columns=joined,
        units={
            name: (units or {}).get(name) or declared.get(name) or _conventional(name, step, kind, parts)
            for name in joined
        },
        source=source,
    )


@dataclass(frozen=True)
class _Part:
    """One file: sorted times (starts of intervals) and columns, still with gaps in the time axis."""

    path: Path
    site: str | None
    time: Times
    step: int
    columns: Mapping[str, Array]
    units: Mapping[str, str]
    renamed: frozenset[str]


def _read_file(path: Path, renames: Mapping[str, str]) -> _Part:
    text, inner_name = _open_text(path)
    if _COARSE.search(inner_name):
        raise ForcingError(
            f"{path}: {inner_name} is weekly, monthly or yearly; half-hourly, hourly or daily data are needed"
        )
    lines = [line for line in text.replace('"', "").splitlines() if line.strip()]
    comments = list(takewhile(lambda line: line.startswith("#"), lines))
    if len(comments) == len(lines):
        raise ForcingError(f"{path} is empty; a header row and one row per interval are needed")
    header = [split_units(cell.strip()) for cell in lines[len(comments)].split(",")]
    ours = {theirs: name for name, theirs in renames.items()}
    names = [ours.get(name, name) for name, _ in header]
    for name in names:
        if names.count(name) > 1:
            raise ForcingError(f"{path}: the column {name!r} occurs more than once")
    cells = _read_cells(lines[len(comments) + 1 :], names, path)
    start, step = _intervals(cells, path)
    numbers = {name: cells[name] for name in names if name in cells and name not in _TIME_NAMES}
    order = np.argsort(start, kind="stable")
    time, columns = _without_repeats(
        start[order], {name: values[order] for name, values in numbers.items()}, path
    )
    label = next(
        (found for name in (inner_name, *comments, path.name) if (found := _SITE.search(name))), None
    )
    return _Part(
        path=path,
        site=label[1] if label else None,
        time=time,
        step=step,
        columns=columns,
        units={name: unit for name, (_, unit) in zip(names, header, strict=True) if unit is not None},
        renamed=frozenset(name for name in renames if name in names),
    )


def _read_cells(rows: Sequence[str], names: Sequence[str], path: Path) -> dict[str, NDArray[Any]]:
    """Return columns by name: numbers with NaN for gaps, time stamps also as text; other text is left out."""
    if not rows:
        raise ForcingError(f"{path} holds no rows")
    for number, row in enumerate(rows, start=1):
        if row.count(",") != len(names) - 1:
            raise ForcingError(
                f"{path}: row {number} has {row.count(',') + 1} cells, the header {len(names)}; is the file complete?"
            )
    numeric = [i for i, cell in enumerate(rows[0].split(",")) if _number(cell) is not None]
    columns: dict[str, NDArray[Any]] = {}
    try:
        table = np.loadtxt(
            map(_without_empty_cells, rows),
            delimiter=",",
            usecols=numeric,
            ndmin=2,
            comments=None,
            dtype=np.float64,
        )
        columns = {names[i]: np.ascontiguousarray(values) for i, values in zip(numeric, table.T, strict=True)}
    except ValueError:
        pass  # words among the numbers: those columns go cell by cell
    for i, name in enumerate(names):
        if name not in columns:
            cells = [row.split(",")[i].strip() for row in rows]
            values = np.array(cells) if name in _TIME_NAMES else _numbers(cells, name, path)
            if values is not None:
                columns[name] = values
    for name, values in columns.items():
        if name not in _TIME_NAMES:
            values[(values == GAP) | np.isinf(values)] = np.nan
    return columns


def _without_empty_cells(row: str) -> str:
    if ",," in row or row[0] == "," or row[-1] == ",":
        return ",".join(cell or "nan" for cell in row.split(","))
    return row


def _number(cell: str) -> float | None:
    """Return the number in a cell, NaN for a gap, None for any other text."""
    text = cell.strip()
    try:
        return math.nan if text.lower() in _GAPS else float(text)
    except ValueError:
        return None


def _numbers(cells: Sequence[str], name: str, path: Path) -> Array | None:
    """Return a column as numbers, NaN for gaps; None for a column of text."""
    values = [_number(cell) for cell in cells]
    if None not in values:
        return np.array(values, dtype=np.float64)
    if not any(value is not None and not math.isnan(value) for value in values):
        return None
    row = values.index(None)
    raise ForcingError(f"{path}: row {row + 1}: {cells[row]!r} in column {name!r} is not a number")


def _open_text(path: Path) -> tuple[str, str]:
    """Return the text of a plain, gzipped or zipped csv file, and the name of the file in it."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ForcingError(f"there is no flux tower file {path}") from None
    except OSError as error:
        raise ForcingError(f"{path} cannot be read ({error.strerror})") from None
    name = path.name
    try:
        if data[:2] == b"\x1f\x8b":
            data, name = gzip.decompress(data), path.name.removesuffix(".gz")
        elif data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                name = _member(archive.namelist(), path)
                data = archive.read(name)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise ForcingError(f"{path} is damaged or not a csv file ({error})") from None
    return text, Path(name).name


def _member(names: Sequence[str], path: Path) -> str:
    """Choose the file of an archive: the only csv, or the finest of a FLUXNET archive."""
    tables = [name for name in names if name.lower().endswith(".csv")]
    for wanted in (r"_BASE_H[HR]_", r"_(FULLSET|SUBSET)_H[HR]_", r"_(FULLSET|SUBSET)_DD_"):
        found = [name for name in tables if re.search(wanted, name)]
        if len(found) == 1:
            return found[0]
    if len(tables) != 1:
        raise ForcingError(f"{path}: which file of it? It holds {', '.join(names) or 'nothing'}; unpack it")
    return tables[0]


def _intervals(cells: Mapping[str, NDArray[Any]], path: Path) -> tuple[Times, int]:
    """Return the start of every row's interval and the length of an interval, seconds."""
    stamps = {name: _times(cells[name], name, path) for name in _TIME_NAMES if name in cells}
    if not stamps:
        raise ForcingError(
            f"{path}: there is no column of time stamps ({', '.join(_TIME_NAMES)}); name it with 'columns', "
            "for example {TIMESTAMP_START: when}"
        )
    name, time = next(iter(stamps.items()))
    if "TIMESTAMP_START" in stamps and "TIMESTAMP_END" in stamps:
        lengths = (stamps["TIMESTAMP_END"] - stamps["TIMESTAMP_START"]).astype(np.int64)
    else:
        lengths = np.diff(np.unique(time)).astype(np.int64)
        if lengths.size == 0:
            raise ForcingError(f"{path}: one time alone does not tell how long an interval is")
    values, counts = np.unique(lengths, return_counts=True)
    step = int(values[np.argmax(counts)])
    if step <= 0 or DAY % step:
        raise ForcingError(
            f"{path}: its intervals are {step} s long; half-hourly, hourly or daily data are needed"
        )
    start = time - np.timedelta64(step, "s") if name == "TIMESTAMP_END" else time
    off = start.astype(np.int64) % step != 0
    if off.any():
        raise ForcingError(
            f"{path}: {name} {time[np.argmax(off)]} (row {np.argmax(off) + 1}) is not a whole number of intervals "
            f"of {step} s after midnight"
        )
    return start, step


def _times(cells: NDArray[Any], name: str, path: Path) -> Times:
    """Understand time stamps: numbers YYYYMMDD[HH[MM]] or ISO 8601."""
    try:
        if cells.dtype.kind == "f":
            if not np.isfinite(cells).all():
                raise ValueError("a time is missing")
            return _from_digits(cells.astype(np.int64))
        texts = np.char.rstrip(cells, "Z")
        if np.char.isdigit(texts).all():
            return _from_digits(texts.astype(np.int64))
        stamps = texts.astype("datetime64[s]")
        if np.isnat(stamps).any():
            raise ValueError("a time is missing")
    except ValueError as error:
        raise ForcingError(
            f"{path}: times in {name} are neither YYYYMMDDHHMM nor ISO 8601 ({error})"
        ) from None
    return stamps


def _from_digits(stamps: NDArray[np.int64]) -> Times:
    digits = {len(str(abs(value))) for value in (stamps.min(), stamps.max())}
    if digits - {8, 10, 12} or len(digits) != 1:
        raise ValueError(f"for example {stamps[0]}")
    stamps = stamps * 10 ** (12 - digits.pop())
    date, clock = stamps // 10_000, stamps % 10_000
    year, month, day = date // 10_000, date // 100 % 100, date % 100
    hour, minute = clock // 100, clock % 100
    wrong = (month < 1) | (month > 12) | (day < 1) | (hour > 24) | (minute > 59)
    months = ((year - 1970) * 12 + month - 1).astype("datetime64[M]")
    wrong |= day > ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(np.int64)
    if wrong.any():
        raise ValueError(f"for example {stamps[np.argmax(wrong)]}")
    seconds = ((day - 1) * DAY + hour * 3600 + minute * 60).astype("timedelta64[s]")
    return np.asarray(months.astype("datetime64[s]") + seconds)


def _without_repeats(
    time: Times, columns: Mapping[str, Array], path: Path
) -> tuple[Times, Mapping[str, Array]]:
    """Drop rows that are in the (sorted) file twice."""
    repeated = np.flatnonzero(time[1:] == time[:-1]) + 1
    for name, values in columns.items():
        first, second = values[repeated - 1], values[repeated]
        differ = ~((first == second) | (np.isnan(first) & np.isnan(second)))
        if differ.any():
            raise ForcingError(
                f"{path}: {time[repeated[np.argmax(differ)]]} occurs twice with different {name}; "
                "times must be local standard time without summer time"
            )
    return np.delete(time, repeated), {name: np.delete(values, repeated) for name, values in columns.items()}


def _join(parts: Sequence[_Part]) -> tuple[Times, dict[str, Array]]:
    """Put files side by side and after one another on one time axis."""
    step = parts[0].step
    first = min(part.time[0] for part in parts)
    last = max(part.time[-1] for part in parts)
    time = np.arange(first, last + np.timedelta64(step, "s"), np.timedelta64(step, "s"))
    joined: dict[str, Array] = {}
    for part in parts:
        rows = (part.time - first).astype(np.int64) // step
        for name, values in part.columns.items():
            column = joined.setdefault(name, np.full(time.size, np.nan))
            known = column[rows]
            differ = (known != values) & ~np.isnan(known) & ~np.isnan(values)
            if differ.any():
                raise ForcingError(
                    f"{part.path}: {name} at {part.time[np.argmax(differ)]} is not what another file says"
                )
            column[rows] = np.where(np.isnan(values), known, values)
    return time, joined


def _conventional(name: str, step: int, kind: FluxKind, parts: Sequence[_Part]) -> str:
    if kind == "canveg" or (kind == "auto" and any(_CANVEG_COLUMNS & set(part.columns) for part in parts)):
        special = CANVEG_UNITS.get(name) or CANVEG_UNITS.get(name.split("_")[0])
        if special is not None:
            return special
    return units_of(name, step)
