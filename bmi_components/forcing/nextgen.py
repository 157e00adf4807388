"""NextGen's forcing files: the AORC names, their CSDMS names and units, csv per catchment and netCDF for all.

ngen documents a unit for every name below, and files that declare none are read in it, with one exception:
``precip_rate``. ngen calls it mm s-1, but files in circulation, ngen's own sample among them, hold m s-1. A factor
of 1000 is not for a reader to guess: without declared units (in the csv header, as a netCDF attribute, or under
``units:``) precipitation is taken from ``APCP_surface``, the hour's depth, and where both are present they must agree.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ForcingError
from bmi_components.forcing.series import Times
from bmi_components.forcing.table import Table, csv_header, open_netcdf, read_csv, stack_csv

__all__ = ["DOCUMENTED_UNITS", "NAMES", "Name", "csv_table", "is_nextgen", "netcdf_table"]


@dataclass(frozen=True, slots=True)
class Name:
    """One forcing quantity: names in files, CSDMS name, our symbol, ngen's unit (None: not to be relied on)."""

    columns: tuple[str, ...]
    standard_name: str
    symbol: str
    units: str | None


NAMES: tuple[Name, ...] = (
    Name(
        ("precip_rate", "RAINRATE"),
        "atmosphere_water__liquid_equivalent_precipitation_rate",
        "precipitation",
        None,
    ),
    Name(("APCP_surface",), "atmosphere_water__rainfall_volume_flux", "precipitation", "kg m-2"),
    Name(("TMP_2maboveground", "T2D"), "land_surface_air__temperature", "temperature", "K"),
    Name(
        ("SPFH_2maboveground", "Q2D"),
        "atmosphere_air_water~vapor__relative_saturation",
        "specific_humidity",
        "kg kg-1",
    ),
    Name(("PRES_surface", "PSFC"), "land_surface_air__pressure", "pressure", "Pa"),
    Name(
        ("DSWRF_surface", "SWDOWN"),
        "land_surface_radiation~incoming~shortwave__energy_flux",
        "shortwave",
        "W m-2",
    ),
    Name(
        ("DLWRF_surface", "LWDOWN"),
        "land_surface_radiation~incoming~longwave__energy_flux",
        "longwave",
        "W m-2",
    ),
    Name(("UGRD_10maboveground", "U2D"), "land_surface_wind__x_component_of_velocity", "wind_x", "m s-1"),
    Name(("VGRD_10maboveground", "V2D"), "land_surface_wind__y_component_of_velocity", "wind_y", "m s-1"),
)
"""The names of NextGen's forcing in the order of preference."""

DOCUMENTED_UNITS = {
    column: name.units
    for name in NAMES
    for column in (*name.columns, name.standard_name)
    if name.units is not None
}
"""ngen's units by column, for files that declare none."""

_IDENTIFIER = re.compile(r"(?:cat|wb|nex)-\d+")
_NANOSECONDS = {
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1),
    **dict.fromkeys(("us", "microsecond", "microseconds"), 1_000),
    **dict.fromkeys(("ms", "millisecond", "milliseconds"), 1_000_000),
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1_000_000_000),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60_000_000_000),
    **dict.fromkeys(("h", "hour", "hours"), 3_600_000_000_000),
}


def is_nextgen(path: Path) -> bool:
    """Tell NextGen's forcing by what is inside: csv (the first file of a folder) by its columns, netCDF by its layout.

    Raises
    ------
    ForcingError
        If a netCDF file is absent or damaged.
    """
    file = next(iter(sorted(path.glob("*.csv"))), path) if path.is_dir() else path
    if file.suffix.lower() in (".csv", ""):
        header = set(csv_header(file))
        return "catchment" not in header and any(header & set(name.columns) for name in NAMES)
    with open_netcdf(file) as dataset:
        return {"ids", "Time"} <= set(dataset.variables)


def csv_table(path: Path, catchments: Sequence[str] | None = None) -> Table:
    """Read NextGen's csv files, one per catchment, from a folder or from a single file.

    A file belongs to the catchment whose identifier (``cat-27``) its name holds as a whole.

    Raises
    ------
    ForcingError
        If no file is there, or two are for the same catchment.
    """
    paths = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    files = {}
    for file in paths:
        found = _IDENTIFIER.search(file.name)
        name = found.group() if found else file.stem
        if catchments is not None and name not in catchments:
            continue
        if name in files:
            raise ForcingError(f"{path}: there is more than one csv file for {name}, {file.name} among them")
        files[name] = file
    if not files:
        wanted = f" for {', '.join(catchments[:5])}" if catchments else ""
        raise ForcingError(f"{path}: there is no csv file{wanted} in it")
    return stack_csv({name: read_csv(file) for name, file in files.items()}, str(path))


@contextmanager
def netcdf_table(path: Path) -> Iterator[Table]:
    """Open NextGen's netCDF forcing: ``ids(catchment-id)``, ``Time(catchment-id, time)``, data alike.

    Raises
    ------
    ForcingError
        If it is damaged, is not of that layout, or catchments differ in their times.
    """
    with open_netcdf(path) as dataset:
        for needed in ("ids", "Time"):
            if needed not in dataset.variables:
                raise ForcingError(
                    f"{path}: there is no variable {needed!r}, so it is not NextGen forcing; "
                    "for other netCDF files say kind: netcdf"
                )
        identifiers = dataset["ids"][:]
        if identifiers.ndim == 2:
            identifiers = netCDF4.chartostring(identifiers)
        time = _times(dataset["Time"], path)

        def read(column: str, rows: slice, columns: Sequence[int]) -> NDArray[np.float64]:
            values = np.ma.filled(dataset[column][:, rows].astype(np.float64), np.nan)
            return np.ascontiguousarray(values[list(columns)].T)

        yield Table(
            source=str(path),
            time=time,
            catchments=tuple(str(name) for name in identifiers),
            units={
                name: getattr(data, "units", None)
                for name, data in dataset.variables.items()
                if name not in ("ids", "Time") and data.ndim == 2
            },
            read=read,
        )


def _times(variable: netCDF4.Variable[Any], path: Path) -> Times:
    """Read ``Time(catchment-id, time)``: an integer count of a unit since an epoch, the same for each catchment."""
    counts = np.asarray(np.ma.filled(np.ma.asarray(variable[:]).astype(np.float64), np.nan))
    if np.isnan(counts).any():
        raise ForcingError(f"{path}: a time is missing in the variable Time")
    if (counts != counts[0]).any():
        raise ForcingError(f"{path}: the catchments have different times; they must share one time axis")
    unit, _, since = str(getattr(variable, "units", "s")).partition(" since ")
    if unit.strip() not in _NANOSECONDS:
        raise ForcingError(f"{path}: the units of Time, {unit!r}, are none of {', '.join(_NANOSECONDS)}")
    epoch = _epoch(since.strip() or str(getattr(variable, "epoch_start", "")).strip() or "1970-01-01", path)
    seconds = np.rint(counts[0] * (_NANOSECONDS[unit.strip()] * 1e-9)).astype(np.int64)
    return np.asarray(np.datetime64(epoch, "s") + seconds.astype("timedelta64[s]"))


def _epoch(text: str, path: Path) -> datetime.datetime:
    for form in (
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%d",
        "%Y-%m-%dT%H:%M:%S",
        "%m/%d/%y %H:%M:%S",
        "%m/%d/%Y %H:%M:%S",
    ):
        try:
            return datetime.datetime.strptime(text, form)
        except ValueError:
            continue
    raise ForcingError(f"{path}: the start of time {text!r} is not a date such as 2015-12-01 00:00:00")
