"""Daily basin data for training and evaluation: Caravan / CAMELS folders and netCDF files of the same layout."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, ForcingError

__all__ = [
    "CAMELS_ATTRIBUTES",
    "CARAVAN_FORCING",
    "BasinDataset",
    "FormatColumns",
    "Period",
    "attribute_units",
    "read_caravan",
]

Period = tuple[date | str, date | str]
"""First and last day, both included; as dates or as texts such as "1981-10-01"."""

CAMELS_ATTRIBUTES = (
    *("p_mean", "pet_mean", "p_seasonality", "frac_snow", "aridity"),
    *("high_prec_freq", "high_prec_dur", "low_prec_freq", "low_prec_dur"),
    *("elev_mean", "slope_mean", "area_gages2"),
    *("frac_forest", "lai_max", "lai_diff", "gvf_max", "gvf_diff"),
    *("soil_depth_pelletier", "soil_depth_statsgo", "soil_porosity", "soil_conductivity"),
    *("max_water_content", "sand_frac", "silt_frac", "clay_frac"),
    *("carbonate_rocks_frac", "geol_permeability"),
)
"""The 27 numeric CAMELS attributes (climate, topography, vegetation, soil, geology) that regional LSTMs are fed.

Kratzert et al. (2019), HESS 23, 5089-5110, table 1.
"""

_ATTRIBUTE_UNITS = {
    **dict.fromkeys(("p_mean", "pet_mean"), "mm d-1"),
    **dict.fromkeys(("high_prec_freq", "low_prec_freq"), "d year-1"),
    **dict.fromkeys(("high_prec_dur", "low_prec_dur"), "d"),
    **dict.fromkeys(
        ("sand_frac", "silt_frac", "clay_frac", "water_frac", "organic_frac", "other_frac"), "percent"
    ),
    **dict.fromkeys(
        (
            *("soil_depth_pelletier", "soil_depth_statsgo", "max_water_content"),
            *("root_depth_50", "root_depth_99", "elev_mean"),
        ),
        "m",
    ),
    "slope_mean": "m km-1",
    "area_gages2": "km2",
    "area_geospa_fabric": "km2",
    "soil_conductivity": "cm h-1",
    "geol_permeability": "lg(re 1 m2)",
}
"""Units of the CAMELS attributes that have any (Addor et al. 2017, tables 2 to 7)."""

CARAVAN_FORCING = ("precipitation", "temperature", "potential_evapotranspiration")
"""Forcings of this package's daily models, in the units mm d-1, degC, mm d-1."""

_NAMES_IN_FILES = {
    "precipitation": ("precipitation", "total_precipitation_sum", "prcp", "P"),
    "temperature": ("temperature", "air_temperature", "temperature_2m_mean", "tmean", "T"),
    "potential_evapotranspiration": ("potential_evapotranspiration", "pet", "PET"),
    "streamflow": ("streamflow", "QObs", "q"),
}
"""Names that netCDF files in circulation use for our variables; the first that a file has is taken."""

_UNITS = {
    "precipitation": ("mm d-1", "mm/d", "mm day-1", "mm/day"),
    "potential_evapotranspiration": ("mm d-1", "mm/d", "mm day-1", "mm/day"),
    "streamflow": ("mm d-1", "mm/d", "mm day-1", "mm/day"),
    "temperature": ("degC", "degree_Celsius", "degrees_Celsius", "celsius", "Celsius", "°C"),
}

_MISSPELT = {"geol_porosity": "geol_porostiy"}
"""Attribute names whose spelling in the published CAMELS tables differs from the intended one."""


@dataclass(frozen=True, slots=True)
class FormatColumns:
    """Columns of an attribute table that say which gauge a row is, where it lies and how large its basin is."""

    gauge: str = "gauge_id"
    latitude: str = "gauge_lat"
    longitude: str = "gauge_lon"
    area: str = "area_gages2"


@dataclass(frozen=True)
class BasinDataset:
    """Forcing, streamflow and attributes of a set of gauged catchments on one daily time axis.

    Attributes
    ----------
    gauge_ids
        One name per catchment.
    time
        Days, ``datetime64[D]``, without gaps, shape ``[time]``.
    forcing
        Shape ``[time, catchment, variable]`` in the order of ``forcing_names``: mm d-1 and degC; no gaps.
    target
        Observed streamflow, mm d-1, shape ``[time, catchment]``; NaN where it was not observed.
    attributes
        Shape ``[catchment, attribute]`` in the order of ``attribute_names``, in the table's units.
    latitude, longitude
        Degrees north and east, shape ``[catchment]``.
    area
        Catchment area, km2, shape ``[catchment]``.
    source, licence
        Where the data come from and what they may be used for; copied into trained models.
    """

    gauge_ids: tuple[str, ...]
    time: NDArray[np.datetime64]
    forcing: NDArray[np.float32]
    forcing_names: tuple[str, ...]
    target: NDArray[np.float32]
    attributes: NDArray[np.float32]
    attribute_names: tuple[str, ...]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    area: NDArray[np.float64]
    source: str = ""
    licence: str = ""

    @property
    def size(self) -> int:
        """Number of catchments."""
        return len(self.gauge_ids)

    def days(self, period: Period) -> slice:
        """Positions on the time axis of a period given by its first and last day, both included.

        Raises
        ------
        ConfigurationError
            If the period ends before it starts or is not wholly within the data.
        """
        first, last = (np.datetime64(day, "D") for day in period)
        if last < first:
            raise ConfigurationError(f"the period {period[0]}..{period[1]} ends before it starts")
        if first < self.time[0] or last > self.time[-1]:
            raise ConfigurationError(
                f"the period {period[0]}..{period[1]} is not within the data, "
                f"which hold {self.time[0]}..{self.time[-1]}"
            )
        start = int((first - self.time[0]).astype(int))
        return slice(start, start + int((last - first).astype(int)) + 1)

    def positions(self, gauge_ids: Iterable[str]) -> NDArray[np.int64]:
        """Positions of gauges in this data set, in the order asked for.

        Raises
        ------
        ConfigurationError
            If a gauge is not in the data.
        """
        where = {gauge: position for position, gauge in enumerate(self.gauge_ids)}
        wanted = list(gauge_ids)
        absent = [gauge for gauge in wanted if gauge not in where]
        if absent:
            raise ConfigurationError(
                f"gauge {absent[0]!r} is not in the data ({len(absent)} of {len(wanted)} are not; "
                f"the data hold {self.size} gauges such as {self.gauge_ids[0]!r})"
            )
        return np.array([where[gauge] for gauge in wanted], dtype=np.int64)

    def select(self, positions: Sequence[int] | NDArray[np.int64]) -> BasinDataset:
        """Return the same data for some of the catchments, by position."""
        chosen = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            gauge_ids=tuple(self.gauge_ids[position] for position in chosen),
            forcing=self.forcing[:, chosen],
            target=self.target[:, chosen],
            attributes=self.attributes[chosen],
            latitude=self.latitude[chosen],
            longitude=self.longitude[chosen],
            area=self.area[chosen],
        )


def read_caravan(
    path: str | Path,
    forcing_names: Sequence[str] = CARAVAN_FORCING,
    attribute_names: Sequence[str] = CAMELS_ATTRIBUTES,
    columns: FormatColumns | None = None,
) -> BasinDataset:
    """Read a folder with ``timeseries.nc`` and ``attributes.csv``, or one netCDF file with its table beside it.

    The netCDF file has the dimensions ``gauge_id`` and ``time``, a text variable ``gauge_id``, a daily ``time``
    with CF units, and the forcings and ``streamflow`` as ``[gauge_id, time]`` in mm d-1 and degC (with CF packing
    if wished). The table has one row per gauge; more rows than gauges are fine.

    Parameters
    ----------
    path
        Folder, or netCDF file beside which ``attributes.csv`` lies.
    forcing_names
        Forcings to read, in the order in which the model takes them.
    attribute_names
        Columns of the table to read, in the order in which the model takes them. A column of text becomes the
        position of its value among the column's sorted distinct values (0, 1, ...).
    columns
        Names of the table's descriptive columns.

    Raises
    ------
    ConfigurationError
        If a file, variable, column or gauge is absent, or a unit or the time axis is not what it has to be.
    ForcingError
        If a forcing is missing, NaN or infinite anywhere.
    """
    path = Path(path)
    series, table = (
        (path / "timeseries.nc", path / "attributes.csv")
        if path.is_dir()
        else (path, path.parent / "attributes.csv")
    )
    for file in (series, table):
        if not file.is_file():
            raise ConfigurationError(f"basin data: the file {file} does not exist")
    with _open(series) as data:
        gauge_ids = tuple(str(gauge) for gauge in _variable(data, "gauge_id", series)[:])
        time = _read_days(data, series)
        shape = (len(gauge_ids), time.size)
        forcing = np.stack([_read_series(data, name, shape, series) for name in forcing_names], axis=-1)
        target = np.ascontiguousarray(_read_series(data, "streamflow", shape, series).T)
        source = str(getattr(data, "title", "") or series.name)
        references = str(getattr(data, "references", ""))
        licence = str(getattr(data, "license", ""))
    bad = np.argwhere(~np.isfinite(forcing))
    if bad.size:
        gauge, day, variable = bad[0]
        raise ForcingError(
            f"{series}: {forcing_names[variable]} of gauge {gauge_ids[gauge]} is missing or not finite on {time[day]}"
        )
    target[~np.isfinite(target)] = np.nan
    names = columns or FormatColumns()
    rows = _read_table(table, names.gauge)
    absent = [gauge for gauge in gauge_ids if gauge not in rows]
    if absent:
        raise ConfigurationError(f"{table}: no row for gauge {absent[0]!r}, which {series.name} holds")
    ordered = [rows[gauge] for gauge in gauge_ids]
    attributes = [_column(ordered, name, table) for name in attribute_names]
    return BasinDataset(
        gauge_ids=gauge_ids,
        time=time,
        forcing=np.ascontiguousarray(forcing.transpose(1, 0, 2)),
        forcing_names=tuple(forcing_names),
        target=target,
        attributes=(
            np.stack(attributes, axis=-1).astype(np.float32)
            if attributes
            else np.zeros((len(gauge_ids), 0), np.float32)
        ),
        attribute_names=tuple(attribute_names),
        latitude=_column(ordered, names.latitude, table),
        longitude=_column(ordered, names.longitude, table),
        area=_column(ordered, names.area, table),
        source=f"{source}. {references}" if references else source,
        licence=licence,
    )


def attribute_units(name: str) -> str:
    """Return the units of a CAMELS attribute; "1" for dimensionless ones and for attributes that CAMELS lacks."""
    return _ATTRIBUTE_UNITS.get(name, "1")


def _open(path: Path) -> netCDF4.Dataset:
    try:
        return netCDF4.Dataset(path)
    except OSError as error:
        raise ConfigurationError(f"basin data: {path} is not a readable netCDF file") from error


def _variable(data: netCDF4.Dataset, name: str, path: Path) -> Any:
    """Find a variable by our name or by one of the names that files in circulation use for it."""
    for candidate in _NAMES_IN_FILES.get(name, (name,)):
        if candidate in data.variables:
            return data.variables[candidate]
    raise ConfigurationError(f"{path}: no variable {name!r}; the file has {', '.join(data.variables)}")


def _read_days(data: netCDF4.Dataset, path: Path) -> NDArray[np.datetime64]:
    """Read the time axis as days and insist that it has neither gaps nor repeats."""
    variable = _variable(data, "time", path)
    try:
        dates = netCDF4.num2date(variable[:], variable.units, getattr(variable, "calendar", "standard"))
    except (AttributeError, ValueError) as error:
        raise ConfigurationError(f"{path}: time needs CF units such as 'days since 1981-01-01'") from error
    time = np.array(
        [date.strftime("%Y-%m-%d") for date in np.ravel(np.asarray(dates))], dtype="datetime64[D]"
    )
    if time.size < 2 or not (np.diff(time) == np.timedelta64(1, "D")).all():
        raise ConfigurationError(f"{path}: time must be consecutive days without gaps")
    return time


def _read_series(data: netCDF4.Dataset, name: str, shape: tuple[int, int], path: Path) -> NDArray[np.float32]:
    """Read one variable as ``[catchment, time]`` with NaN where it is missing."""
    variable = _variable(data, name, path)
    units = str(getattr(variable, "units", ""))
    if name in _UNITS and units not in _UNITS[name]:
        raise ConfigurationError(
            f"{path}: {variable.name} is in {units or 'no units'!r}, but {_UNITS[name][0]!r} is needed"
        )
    if variable.shape != shape:
        raise ConfigurationError(
            f"{path}: {variable.name} has shape {variable.shape}, but [gauge_id, time] is {shape}"
        )
    values: NDArray[np.float32] = np.ma.filled(variable[:].astype(np.float32), np.nan)
    return values


def _read_table(path: Path, key: str) -> dict[str, dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if key not in (reader.fieldnames or ()):
            raise ConfigurationError(f"{path}: no column {key!r} that names the gauges")
        return {row[key].strip(): row for row in reader}


def _column(rows: Sequence[dict[str, str]], name: str, path: Path) -> NDArray[np.float64]:
    """One column as numbers; a column of text as the positions of its values among the sorted distinct ones."""
    key = name if name in rows[0] else _MISSPELT.get(name, name)
    if key not in rows[0]:
        raise ConfigurationError(f"{path}: no attribute {name!r}; the table has {', '.join(rows[0])}")
    texts = [row[key].strip() for row in rows]
    try:
        return np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        kinds = sorted(set(texts))
        return np.array([kinds.index(text) for text in texts], dtype=np.float64)
