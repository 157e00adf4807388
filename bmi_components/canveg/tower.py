"""What flux towers measured, as the canopy model reads it: gapless forcing, fluxes with their gaps, blocks of days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.forcing import Forcing
from bmi_components.errors import ConfigurationError, ForcingError, UnitsError
from bmi_components.forcing.flux_screening import without_straight_lines
from bmi_components.forcing.flux_tower import FluxTable, read_flux_table
from bmi_components.units import converter

__all__ = [
    "MEASURED",
    "TowerFluxes",
    "TowerForcing",
    "common_period",
    "read_fluxes",
    "read_forcing",
    "split_blocks",
]

Array = NDArray[np.float64]
Times = NDArray[np.datetime64]
Mask = NDArray[np.bool_]

DAY = 86_400

_FORCING_COLUMNS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "air_temperature": (("ta",), "degC"),
    "shortwave": (("rg", "sw_in"), "W m-2"),
    "vapour_pressure": (("eair",), "kPa"),
    "wind_speed": (("ws",), "m s-1"),
    "co2": (("co2",), "umol mol-1"),
    "pressure": (("pa",), "kPa"),
    "friction_velocity": (("ustar",), "m s-1"),
    "soil_temperature": (("ts",), "degC"),
    "soil_moisture": (("swc",), "m3 m-3"),
    "leaf_area_index": (("lai",), "m2 m-2"),
    "canopy_height": (("veg_ht",), "m"),
    "longwave": (("lw_in",), "W m-2"),
}
"""Beginnings of the names of columns, in lower case, and the units in which the model reads them."""

_OPTIONAL = {"canopy_height", "longwave"}
"""Forcing that only some forms of the model read; NaN where a file has none."""

_FLUX_COLUMNS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "latent_heat": (("LE", "LE_F_MDS"), "W m-2"),
    "sensible_heat": (("H", "H_F_MDS"), "W m-2"),
    "soil_heat": (("G", "G_F_MDS", "G_5cm"), "W m-2"),
    "net_radiation": (("NETRAD",), "W m-2"),
    "net_ecosystem_exchange": (("FCO2", "FC", "NEE", "NEE_CUT_REF", "NEE_VUT_REF"), "umol m-2 s-1"),
    "gross_primary_production": (("GPP",), "umol m-2 s-1"),
    "soil_respiration": (("Rsoil",), "umol m-2 s-1"),
}
"""Names of the columns, in any case, and the model's units."""

MEASURED = tuple(_FLUX_COLUMNS)
"""Fluxes that a tower can measure, by their names in `Fluxes`."""

STRAIGHT_HOURS = 3.0
"""Length from which a straight line in a flux is a gap that somebody filled: no measured flux of ours runs so long."""


@dataclass(frozen=True)
class TowerForcing:
    """Forcing of one tower.

    Attributes
    ----------
    site
        Identifier such as "US-Bi1".
    time
        Start of each step, local standard time, without gaps, ``datetime64[s]``, ``[time]``.
    step
        s.
    forcing
        float64 ``[time]``.
    """

    site: str
    time: Times
    step: int
    forcing: Forcing

    def __len__(self) -> int:
        return int(self.time.size)

    def select(self, steps: slice) -> TowerForcing:
        """Return some consecutive steps."""
        return replace(self, time=self.time[steps], forcing=Forcing(*(one[steps] for one in self.forcing)))


@dataclass(frozen=True)
class TowerFluxes:
    """Fluxes that one tower measured, NaN where it did not.

    Attributes
    ----------
    site, time, step
        As in `TowerForcing`.
    latent_heat, sensible_heat
        Upward, W m-2, ``[time]``.
    soil_heat, net_radiation
        Downward, W m-2.
    net_ecosystem_exchange
        Positive to the air, umol m-2 s-1 of CO2.
    gross_primary_production, soil_respiration
        umol m-2 s-1 of CO2.
    """

    site: str
    time: Times
    step: int
    latent_heat: Array
    sensible_heat: Array
    soil_heat: Array
    net_radiation: Array
    net_ecosystem_exchange: Array
    gross_primary_production: Array
    soil_respiration: Array

    def __len__(self) -> int:
        return int(self.time.size)

    def select(self, steps: slice) -> TowerFluxes:
        """Return some consecutive steps."""
        return self._map(lambda values: values[steps], self.time[steps])

    def where(self, mask: Mask) -> TowerFluxes:
        """Return the fluxes of the steps in the mask, and gaps elsewhere: what a loss or a score should not see."""
        return self._map(lambda values: np.where(mask, values, np.nan), self.time)

    def _map(self, change: Any, time: Times) -> TowerFluxes:
        return replace(self, time=time, **{name: change(getattr(self, name)) for name in MEASURED})


def read_forcing(
    path: str | Path | Sequence[str | Path], *, columns: Mapping[str, str] | None = None
) -> TowerForcing:
    """Read the forcing of a tower.

    Columns are found by the beginning of their name in any case, as the published files have them: ta, rg or sw_in,
    eair (kPa), ws, co2, pa (kPa), ustar, ts (at the bottom of the soil column), swc (m3 m-3), lai; and, where there are
    some, veg_ht and lw_in. Day of year and hour follow from the time stamps. Units in the header, ``TA (K)``, and those
    of AmeriFlux and FLUXNET are converted.

    Parameters
    ----------
    path
        csv file, or ``.gz`` or ``.zip`` of one, or several that follow one another.
    columns
        ``{field of Forcing: column}`` where names do not tell.

    Raises
    ------
    ForcingError
        If a file cannot be read, a needed column is absent, several columns compete, a value is missing, or the file's
        day of year or hour are not those of its time stamps.
    ConfigurationError
        If ``columns`` names a field or a column that there is not.
    """
    table = read_flux_table(path)
    chosen = _chosen(columns, _FORCING_COLUMNS, table)
    values: dict[str, Array] = {}
    for field, (prefixes, units) in _FORCING_COLUMNS.items():
        column = chosen.get(field) or _by_prefix(table, field, prefixes, needed=field not in _OPTIONAL)
        values[field] = _in_units(table, column, units)
        gaps = np.isnan(values[field])
        if column is not None and gaps.any() and field not in _OPTIONAL:
            raise ForcingError(
                f"{table.source}: {column} is missing in {gaps.sum()} of {gaps.size} steps, first at "
                f"{table.time[np.argmax(gaps)]}; the canopy model needs forcing without gaps"
            )
    if (moist := values["soil_moisture"].max()) > 1.0:
        raise ForcingError(
            f"{table.source}: soil moisture reaches {moist:g}; a fraction of the volume is needed, "
            "or 'SWC (percent)' in the header"
        )
    day, hour = _clock(table.time, table.step)
    for name, ours in (("doy", day), ("hour", hour)):
        theirs = _by_prefix(table, name, (name,), needed=False)
        if theirs is not None and (wrong := np.abs(table.columns[theirs] - ours) > 0.01).any():
            row = int(np.argmax(wrong))
            raise ForcingError(
                f"{table.source}: {theirs} is {table.columns[theirs][row]:g} for the step that starts at "
                f"{table.time[row]}, but its end has {ours[row]:g}"
            )
    return TowerForcing(table.site, table.time, table.step, Forcing(day_of_year=day, hour=hour, **values))


def read_fluxes(
    path: str | Path | Sequence[str | Path],
    *,
    columns: Mapping[str, str] | None = None,
    straight_hours: float | None = STRAIGHT_HOURS,
    interpolate_gaps: bool = False,
) -> TowerFluxes:
    """Read the fluxes that a tower measured; what it did not measure is NaN.

    Where a column has a flag beside it (``LE_F_MDS_QC``), only values with flag 0 are measured. The files distributed
    with the published model have none: their columns are FLUXNET's gap-filled ones (marginal distribution sampling),
    in which filled values cannot be told from measured ones, but for gaps that were bridged by a straight line.

    Parameters
    ----------
    path
        As for `read_forcing`.
    columns
        ``{flux: column}`` where names do not tell, such as ``{"net_ecosystem_exchange": "NEE_CUT_REF"}``.
    straight_hours
        Length from which a straight line is a gap; None: keep such lines.
    interpolate_gaps
        Bridge gaps by straight lines and keep those that are there, as the published training and scores do; only for
        repeating these.

    Raises
    ------
    ForcingError
        If a file cannot be read, holds none of the fluxes, or several columns compete.
    ConfigurationError
        If ``columns`` names a flux or a column that there is not.
    """
    table = read_flux_table(path)
    chosen = _chosen(columns, _FLUX_COLUMNS, table)
    found = {
        field: chosen.get(field) or _by_name(table, field, names)
        for field, (names, _) in _FLUX_COLUMNS.items()
    }
    known = [column for column in found.values() if column is not None]
    if not known:
        raise ForcingError(
            f"{table.source}: there is no flux in it; its columns are {', '.join(table.columns)}"
        )
    if straight_hours is not None and not interpolate_gaps:
        table = without_straight_lines(table, known, straight_hours)
    values = {
        field: _measured(table, column, _in_units(table, column, _FLUX_COLUMNS[field][1]))
        for field, column in found.items()
    }
    if interpolate_gaps:
        values = {field: _bridged(one) for field, one in values.items()}
    return TowerFluxes(table.site, table.time, table.step, **values)


def common_period(forcing: TowerForcing, fluxes: TowerFluxes) -> tuple[TowerForcing, TowerFluxes]:
    """Return both for the steps that both have.

    Raises
    ------
    ForcingError
        If their steps differ or there is no common one.
    """
    if forcing.step != fluxes.step:
        raise ForcingError(
            f"{forcing.site}: forcing has steps of {forcing.step} s, fluxes of {fluxes.step} s"
        )
    first, last = max(forcing.time[0], fluxes.time[0]), min(forcing.time[-1], fluxes.time[-1])
    if first > last:
        raise ForcingError(
            f"{forcing.site}: forcing ({forcing.time[0]} to {forcing.time[-1]}) and fluxes ({fluxes.time[0]} to "
            f"{fluxes.time[-1]}) have no time in common"
        )
    a, b = (
        slice(*np.searchsorted(one.time, (first, last + np.timedelta64(1, "s")))) for one in (forcing, fluxes)
    )
    return forcing.select(a), fluxes.select(b)


def split_blocks(time: Times, days: Mapping[str, float], *, gap: float = 1.0) -> dict[str, Mask]:
    """Split a record into parts that take turns, for towers of which there is only one year.

    Blocks of days follow one another in the order of ``days``, over and over, each with a gap behind it that belongs to
    no part: weather lasts longer than a step, and neighbours would tell on each other. Every part sees all seasons. The
    model should run over the whole record and be scored on the steps of a part, see `TowerFluxes.where`.

    Parameters
    ----------
    time
        Start of each step, ``[time]``.
    days
        ``{part: length of its blocks}``, such as ``{"train": 10, "validation": 3, "test": 5}``.
    gap
        Days between blocks.

    Returns
    -------
    dict
        ``{part: bool [time]}``.

    Raises
    ------
    ConfigurationError
        If a length is not positive, or the record is too short for every part to get a block.
    """
    if not days or min(days.values()) <= 0.0 or gap < 0.0:
        raise ConfigurationError(
            f"blocks of {dict(days)} days with gaps of {gap:g}: lengths above 0 are needed"
        )
    since = (time - time[0].astype("datetime64[D]")) / np.timedelta64(DAY, "s")
    cycle = sum(days.values()) + gap * len(days)
    position = since % cycle
    masks, start = {}, 0.0
    for part, length in days.items():
        masks[part] = (position >= start) & (position < start + length)
        if not masks[part].any():
            raise ConfigurationError(
                f"{since[-1]:.0f} days are too short for a block of {part!r} in cycles of {cycle:g}"
            )
        start += length + gap
    return masks


def _clock(time: Times, step: int) -> tuple[Array, Array]:
    """Return day of year and hour of the end of each step; midnight belongs to the new day."""
    end = time + np.timedelta64(step, "s")
    day = end.astype("datetime64[D]")
    day_of_year = (day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64) + 1.0
    return day_of_year, (end - day).astype("timedelta64[s]").astype(np.float64) / 3600.0


def _chosen(columns: Mapping[str, str] | None, known: Mapping[str, Any], table: FluxTable) -> dict[str, str]:
    for field, column in (columns or {}).items():
        if field not in known:
            raise ConfigurationError(f"columns: there is no {field!r}; there are {', '.join(known)}")
        if column not in table.columns:
            raise ConfigurationError(
                f"columns: {table.source} has no {column!r}; it has {', '.join(table.columns)}"
            )
    return dict(columns or {})


def _by_prefix(table: FluxTable, field: str, prefixes: tuple[str, ...], *, needed: bool) -> str | None:
    """Return the column whose name begins so, a whole word rather than a part of one; flags do not count."""
    values = [name for name in table.columns if "QC" not in name.upper().split("_")]
    words = [n for n in values if any(n.lower() == p or n.lower().startswith(f"{p}_") for p in prefixes)]
    found = words or [name for name in values if name.lower().startswith(prefixes)]
    if needed and not found:
        raise ForcingError(
            f"{table.source}: no column for {field}, whose name would begin with {' or '.join(prefixes)}; "
            f"there are {', '.join(table.columns)}"
        )
    return _only(found, field, table)


def _by_name(table: FluxTable, field: str, names: tuple[str, ...]) -> str | None:
    wanted = {name.lower() for name in names}
    return _only([name for name in table.columns if name.lower() in wanted], field, table)


def _only(found: Sequence[str], field: str, table: FluxTable) -> str | None:
    if len(found) > 1:
        raise ForcingError(
            f"{table.source}: {' and '.join(found)} compete for {field}; choose with columns={{{field!r}: ...}}"
        )
    return found[0] if found else None


def _in_units(table: FluxTable, column: str | None, units: str) -> Array:
    if column is None:
        return np.full(table.time.size, np.nan)
    declared = table.units[column]
    values = table.columns[column]
    if declared == "1":  # nothing declared and not in the conventions: the published files' units
        return values.copy()
    try:
        return np.asarray(converter(declared, units)(values), np.float64)
    except UnitsError as error:
        raise ForcingError(f"{table.source}: {column}: {error}") from error


def _measured(table: FluxTable, column: str | None, values: Array) -> Array:
    flags = table.columns.get(f"{column}_QC")
    return values if flags is None else np.where(flags == 0.0, values, np.nan)


def _bridged(values: Array) -> Array:
    """Return values with straight lines across gaps and the last value held at the end; a gap at the start stays."""
    known = np.flatnonzero(np.isfinite(values))
    if known.size == 0:
        return values
    steps = np.arange(values.size)
    return np.where(steps < known[0], np.nan, np.interp(steps, known, values[known]))
