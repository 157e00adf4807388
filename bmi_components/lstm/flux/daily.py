"""From half-hours to days: daylight means, counts, u* filter, short gaps, seasons (the data path of DLFM, by name)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, ForcingError
from bmi_components.forcing.flux_tower import FluxTable

__all__ = [
    "DAY_OF_YEAR",
    "DEFAULT_INPUTS",
    "DailyRules",
    "DailyTable",
    "Reduction",
    "daily_table",
    "day_of_year",
    "rolling_statistics",
    "season_years",
]

Array = NDArray[np.float64]
Days = NDArray[np.datetime64]

HALF_HOUR = 1_800
DAY = 86_400

DEFAULT_INPUTS = (("D_SNOW",), ("P", "P_F"), ("PPFD_IN",), ("NETRAD",))
"""What DLFM feeds where nothing is asked for; of each group the first name that the file has, if any."""

TARGETS = ("NEE_PI", "NEE_PI_F", "NEE_VUT_REF", "NEE_CUT_REF", "NEE", "FC")
"""Where the net ecosystem exchange stands if nothing is said; the first that the file has."""

PHOTON_FLUX = ("PPFD_IN", "PPFD_IN_F")
SHORTWAVE = ("SW_IN", "SW_IN_F", "SW_IN_F_MDS")
FRICTION_VELOCITY = ("USTAR",)
SNOW_DEPTH = ("D_SNOW", "D_SNOW_F")

DAY_OF_YEAR = "DOY"
DOY_MIDDLE, DOY_SCALE = 183.0, 105.66


class DailyRules(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How half-hourly (or hourly) data become days; the defaults are those of DLFM.

    Data that are daily already need only ``interpolate``, ``season``, ``day_of_year`` and ``statistics_days``.
    """

    daylight: Annotated[
        Literal["auto", "ppfd", "shortwave", "none"],
        Meta(
            description="What tells day from night: photon flux (PPFD_IN) or shortwave radiation (SW_IN); auto: the "
            "first of the two that there is; none: all hours count."
        ),
    ] = "auto"
    daylight_ppfd: Annotated[
        float, Meta(description="It is day while the photon flux is larger, umol m-2 s-1.")
    ] = 4.0
    daylight_shortwave: Annotated[
        float, Meta(description="It is day while the shortwave radiation is larger, W m-2.")
    ] = 2.0
    least_valid: Annotated[
        int, Meta(ge=1, description="Valid half-hours a day needs of each input and of the target.")
    ] = 9
    peak_hours: Annotated[
        tuple[int, int] | None,
        Meta(
            description="First and last hour of which the target is averaged, [9, 11] in DLFM; without it all daylight."
        ),
    ] = None
    least_valid_peak: Annotated[
        int, Meta(ge=1, description="Valid half-hours of the target that a day needs within peak_hours.")
    ] = 3
    ustar: Annotated[
        Literal["na", "drop", "none"],
        Meta(
            description="Weak turbulence: na drops the target of days whose mean u* is not above ustar_threshold; "
            "drop leaves such half-hours out altogether (DLFM without sequences); none keeps all."
        ),
    ] = "na"
    ustar_threshold: Annotated[float, Meta(description="Friction velocity, m s-1.")] = 0.2
    largest_quality_flag: Annotated[
        int | None,
        Meta(
            description="Target values whose <target>_QC is larger are gaps: 0 keeps what was measured, 1 good fills "
            "too (half-hourly FLUXNET data); without it all are kept."
        ),
    ] = None
    interpolate: Annotated[
        int,
        Meta(
            ge=0, description="Longest gap, days, whose inputs are filled linearly; the target stays missing."
        ),
    ] = 1
    season: Annotated[
        Literal["summer", "winter"] | None,
        Meta(description="Keep only days of this season, snow-free or with snow; without it all."),
    ] = None
    snow_threshold: Annotated[
        float, Meta(ge=0, description="Snow lies while its depth is larger, in the units of D_SNOW (cm).")
    ] = 0.0
    day_of_year: Annotated[
        bool, Meta(description="Append the input DOY = (day of the year - 183) / 105.66.")
    ] = False
    statistics_days: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="Append each input's variance and mean over so many days, nights included (DLFM: the sequence "
            "length)."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.peak_hours is not None and not 0 <= self.peak_hours[0] <= self.peak_hours[1] <= 23:
            raise ValueError(f"peak_hours {list(self.peak_hours)} must be hours of a day, the first first")


@dataclass(frozen=True)
class DailyTable:
    """One tower, day by day, without gaps in the dates.

    Attributes
    ----------
    site
        The tower.
    date
        ``datetime64[D]``, ``[day]``, consecutive.
    inputs
        ``[day, input]`` in physical units; a day has all of its inputs or only NaN.
    target
        ``[day]``; NaN where it was not observed well enough.
    counts
        Valid intervals of the input that has the fewest, ``[day]``; 0 on days that were filled.
    filled
        Days whose inputs were interpolated, ``[day]``.
    season
        "summer" or "winter", ``[day]``.
    season_year
        Year that begins the day after the last spring snow, ``[day]``.
    input_names, input_units, target_name, target_units
        Names as they were asked for, and units.
    rules
        The rules as they were applied: ``daylight`` says which column told day from night.
    notes
        What was skipped, in sentences.
    """

    site: str
    date: Days
    inputs: Array
    target: Array
    counts: NDArray[np.int64]
    filled: NDArray[np.bool_]
    season: NDArray[np.str_]
    season_year: NDArray[np.int64]
    input_names: tuple[str, ...]
    input_units: tuple[str, ...]
    target_name: str
    target_units: str
    rules: DailyRules
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reduction:
    """The part of the rules that turns the intervals of one day into its means; nothing in it looks at other days.

    Attributes
    ----------
    light
        Radiation (photon flux or shortwave) above which it is day; None: all hours count.
    least_valid
        Valid intervals that a mean needs.
    still
        Friction velocity at or below which an interval does not count; None: all count.
    """

    light: float | None
    least_valid: int
    still: float | None = None

    @classmethod
    def of(cls, rules: DailyRules, step: int) -> Reduction:
        """Return the part of ``rules`` within a day for intervals of ``step`` seconds; "auto" counts all hours."""
        light = {"ppfd": rules.daylight_ppfd, "shortwave": rules.daylight_shortwave}.get(rules.daylight)
        still = rules.ustar_threshold if rules.ustar == "drop" else None
        return cls(light, scaled(rules.least_valid, step), still)

    def counted(self, light: Array | None, friction_velocity: Array | None) -> NDArray[np.bool_] | None:
        """Which intervals count; None: all. A missing light reading counts as night, a missing u* as turbulent."""
        keep: NDArray[np.bool_] | None = None
        if self.light is not None and light is not None:
            with np.errstate(invalid="ignore"):
                keep = light > self.light
        if self.still is not None and friction_velocity is not None:
            with np.errstate(invalid="ignore"):
                moving = ~(friction_velocity <= self.still)
            keep = moving if keep is None else keep & moving
        return keep

    def means(
        self, values: Array, counted: NDArray[np.bool_] | None, least_valid: int | None = None
    ) -> tuple[Array, NDArray[np.int64]]:
        """Mean over the second axis of ``values [day, interval, ...]`` and the number of values in it.

        ``counted`` is ``[day, interval]`` or of the shape of ``values``; the mean is NaN below ``least_valid`` values.
        """
        valid = np.isfinite(values)
        if counted is not None:
            valid &= counted.reshape(counted.shape + (1,) * (values.ndim - counted.ndim))
        counts = valid.sum(axis=1)
        sums = np.where(valid, values, 0.0).sum(axis=1)
        enough = counts >= (self.least_valid if least_valid is None else least_valid)
        return np.where(enough, sums / np.maximum(counts, 1), np.nan), counts


def daily_table(
    table: FluxTable,
    rules: DailyRules | None = None,
    inputs: Sequence[str] | None = None,
    target: str | None = None,
) -> DailyTable:
    """Aggregate a tower's data to days by the rules.

    Parameters
    ----------
    table
        Half-hourly, hourly or daily data.
    rules
        How; without them DLFM's.
    inputs
        Columns to feed the model, in this order; a name may leave out its position where it has only one. Without
        them those of DLFM that there are: snow depth, precipitation, photon flux, net radiation.
    target
        Column to predict; without it the first net ecosystem exchange in `TARGETS`.

    Raises
    ------
    UnknownNameError
        If the table lacks a column that was asked for.
    ConfigurationError
        If it has no target, none of the default inputs, or not the column that the daylight rule needs.
    ForcingError
        If no day has all inputs; the message says how many days each has.
    """
    rules = rules or DailyRules()
    notes: list[str] = []
    target_column = table.find(target) if target is not None else table.first_of(TARGETS)
    if target_column is None:
        raise ConfigurationError(
            f"{table.source}: there is no net ecosystem exchange ({', '.join(TARGETS)}); name the target column"
        )
    names, units, values = _chosen_inputs(table, inputs, rules)
    days = _Days(table)
    means, counts, target_means, rules = _reduced(
        table, days, np.stack([days.fold(one) for one in values], axis=2), target_column, rules, notes
    )
    complete = np.isfinite(means).all(axis=1)
    if not complete.any():
        having = ", ".join(
            f"{name} {count}" for name, count in zip(names, np.isfinite(means).sum(axis=0), strict=True)
        )
        raise ForcingError(
            f"{table.source}: not one day of {table.site} has all inputs (days that have each: {having})"
        )
    means[~complete] = np.nan
    target_means[~complete] = np.nan
    least = np.where(complete, counts.min(axis=1), 0)
    filled = _fill(means, rules.interpolate)
    season, season_year = season_years(days.dates, _snow_lies(table, days, rules, notes))
    if rules.season is not None:
        other = season != rules.season
        means[other], target_means = np.nan, np.where(other, np.nan, target_means)
        filled &= ~other
        if not np.isfinite(means).all(axis=1).any():
            raise ForcingError(f"{table.source}: no day of {rules.season} at {table.site} has all inputs")
    if rules.day_of_year:
        doy = np.where(np.isfinite(means).all(axis=1), day_of_year(days.dates), np.nan)
        means = np.concatenate([means, doy[:, np.newaxis]], axis=1)
        names.append(DAY_OF_YEAR)
        units.append("1")
    return DailyTable(
        site=table.site,
        date=days.dates,
        inputs=means,
        target=target_means,
        counts=least,
        filled=filled,
        season=season,
        season_year=season_year,
        input_names=tuple(names),
        input_units=tuple(units),
        target_name=target or target_column,
        target_units=table.units[target_column],
        rules=rules,
        notes=tuple(notes),
    )


def _chosen_inputs(
    table: FluxTable, inputs: Sequence[str] | None, rules: DailyRules
) -> tuple[list[str], list[str], list[Array]]:
    """Return names, units and values ``[time]`` of the inputs, rolling statistics included."""
    if inputs is None:
        inputs = [name for group in DEFAULT_INPUTS if (name := table.first_of(group)) is not None]
    if not inputs:
        raise ConfigurationError(f"{table.source}: none of DLFM's inputs is there; say which columns to use")
    columns = [table.find(name) for name in inputs]
    names, units = list(inputs), [table.units[column] for column in columns]
    values = [table.columns[column] for column in columns]
    if rules.statistics_days is not None:
        for name, unit, one in zip(tuple(names), tuple(units), tuple(values), strict=True):
            mean, variance = rolling_statistics(one, rules.statistics_days, DAY // table.step)
            values += [variance, mean]
            names += [f"{name}_rolling_var", f"{name}_rolling_avg"]
            units += ["1" if unit == "1" else f"({unit})2", unit]
    return names, units, values


def _reduced(
    table: FluxTable, days: _Days, values: Array, target: str, rules: DailyRules, notes: list[str]
) -> tuple[Array, NDArray[np.int64], Array, DailyRules]:
    """Return means and counts ``[day, input]``, the target's means ``[day]``, and the rules as they were applied."""
    observed = days.fold(_trusted_target(table, target, rules, notes))
    if table.daily:
        if rules.ustar != "none" or rules.peak_hours is not None or rules.largest_quality_flag is not None:
            notes.append(f"{table.source}: the data are daily; rules for half-hours do not apply")
        rules = msgspec.structs.replace(
            rules, daylight="none", ustar="none", peak_hours=None, largest_quality_flag=None
        )
        return values[:, 0], np.isfinite(values[:, 0]).astype(np.int64), observed[:, 0], rules
    daylight, light = _light_of(table, rules, notes)
    friction = table.first_of(FRICTION_VELOCITY)
    if rules.ustar != "none" and friction is None:
        notes.append(f"{table.source}: there is no friction velocity (USTAR); the u* filter is skipped")
    rules = msgspec.structs.replace(rules, daylight=daylight, ustar=rules.ustar if friction else "none")
    reduction = Reduction.of(rules, table.step)
    moving = days.fold(table.columns[friction]) if friction else None
    counted = reduction.counted(days.fold(table.columns[light]) if light else None, moving)
    means, counts = reduction.means(values, counted)
    target_means = _target_means(observed, counted, rules, table.step, reduction)
    if rules.ustar == "na" and moving is not None:
        mean_friction, _ = reduction.means(moving, counted, least_valid=1)
        target_means = np.where(mean_friction <= rules.ustar_threshold, np.nan, target_means)
    return means, counts, target_means, rules


def _light_of(
    table: FluxTable, rules: DailyRules, notes: list[str]
) -> tuple[Literal["ppfd", "shortwave", "none"], str | None]:
    """Return by which rule this table's days are told from nights, and the column that does it."""
    choices: tuple[tuple[Literal["ppfd", "shortwave"], tuple[str, ...]], ...] = (
        ("ppfd", PHOTON_FLUX),
        ("shortwave", SHORTWAVE),
    )
    for choice, names in choices:
        if rules.daylight in (choice, "auto"):
            if (column := table.first_of(names)) is not None:
                return choice, column
            if rules.daylight == choice:
                raise ConfigurationError(
                    f"{table.source}: daylight: {choice} needs the column {names[0]}; daylight: none counts all hours"
                )
    if rules.daylight == "auto":
        notes.append(f"{table.source}: neither PPFD_IN nor SW_IN tells day from night; all hours count")
    return "none", None


def scaled(half_hours: int, step: int) -> int:
    """Return the number of intervals of ``step`` seconds that last as long as so many half-hours, rounded up."""
    return -(-half_hours * HALF_HOUR // step)


def day_of_year(dates: Days) -> Array:
    """Day of the year (1 January is 1) scaled as DLFM does: (day - 183) / 105.66."""
    day = (dates - dates.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) + 1
    return np.asarray((day - DOY_MIDDLE) / DOY_SCALE, dtype=np.float64)


def rolling_statistics(values: Array, days: int, per_day: int) -> tuple[Array, Array]:
    """Mean and variance (ddof 1) over the last ``days`` up to and with each interval, missing values left out.

    NaN where less than 5/48 of the window is there (DLFM: 5 half-hours a day). ``values`` are ``[interval, ...]``.
    """
    width = days * per_day
    least = max(2, -(-5 * days * per_day // 48))
    valid = np.isfinite(values)
    # Sums of departures from the mean: differences of running sums of the values themselves would lose digits.
    centre = np.where(valid, values, 0.0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    departures = np.where(valid, values - centre, 0.0)
    count, first, second = (
        _window_sums(part, width) for part in (valid.astype(np.float64), departures, departures**2)
    )
    number = np.where(count >= least, count, np.nan)
    variance = np.maximum(second - first**2 / number, 0.0) / (number - 1)
    return centre + first / number, variance


def season_years(dates: Days, snow: NDArray[np.bool_]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Label each day by season and by season year.

    Summer of a year lasts from the day after its last day with snow in January..June to the day before its first in
    July..December; the season year changes to ``y`` where the summer of ``y`` begins. A year without spring snow
    (a snow-free site, or a record that begins later) begins on 1 January, and one without autumn snow has summer to
    31 December: without any snow season years are calendar years, all of them summer.

    Parameters
    ----------
    dates
        ``datetime64[D]``, ``[day]``.
    snow
        Whether snow lay, ``[day]``; False where nobody knows.

    Returns
    -------
    season, season_year
        ``[day]`` each.
    """
    year = dates.astype("datetime64[Y]").astype(np.int64) + 1970
    first_day = dates.astype("datetime64[Y]").astype("datetime64[D]")
    day = (dates - first_day).astype(np.int64)
    spring = dates.astype("datetime64[M]").astype(np.int64) % 12 < 6
    years, position = np.unique(year, return_inverse=True)
    last_spring = np.full(years.size, -1)
    first_autumn = np.full(years.size, 366)
    np.maximum.at(last_spring, position[snow & spring], day[snow & spring])
    np.minimum.at(first_autumn, position[snow & ~spring], day[snow & ~spring])
    begun = day > last_spring[position]
    summer = begun & (day < first_autumn[position])
    return np.where(summer, "summer", "winter"), np.where(begun, year, year - 1)


def _window_sums(values: Array, width: int) -> Array:
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, axis=0)])
    ends = np.arange(1, len(values) + 1)
    return np.asarray(total[ends] - total[np.maximum(ends - width, 0)])


class _Days:
    """The days that a table touches, and its columns folded into ``[day, interval]``, padded with NaN."""

    def __init__(self, table: FluxTable) -> None:
        self.first = table.time[0].astype("datetime64[D]")
        self.per_day = DAY // table.step
        self.offset = int((table.time[0] - self.first).astype(np.int64)) // table.step
        self.count = -(-(self.offset + table.time.size) // self.per_day)
        self.dates: Days = np.arange(self.first, self.first + np.timedelta64(self.count, "D"))

    def fold(self, values: Array) -> Array:
        padded = np.full(self.count * self.per_day, np.nan)
        padded[self.offset : self.offset + values.size] = values
        return padded.reshape(self.count, self.per_day)


def _trusted_target(table: FluxTable, column: str, rules: DailyRules, notes: list[str]) -> Array:
    """Return the target with values of poor quality missing."""
    values = table.columns[column]
    if rules.largest_quality_flag is None or table.daily:
        return values
    flag = table.columns.get(f"{column}_QC")
    if flag is None:
        notes.append(f"{table.source}: there is no {column}_QC; largest_quality_flag is skipped")
        return values
    return np.where(flag <= rules.largest_quality_flag, values, np.nan)


def _target_means(
    observed: Array,
    counted: NDArray[np.bool_] | None,
    rules: DailyRules,
    step: int,
    reduction: Reduction,
) -> Array:
    if rules.peak_hours is None:
        return reduction.means(observed, counted)[0]
    hour = np.arange(observed.shape[1]) * step // 3600
    peak = np.broadcast_to((hour >= rules.peak_hours[0]) & (hour <= rules.peak_hours[1]), observed.shape)
    return reduction.means(
        observed, peak if counted is None else counted & peak, scaled(rules.least_valid_peak, step)
    )[0]


def _fill(inputs: Array, longest: int) -> NDArray[np.bool_]:
    """Fill gaps of at most ``longest`` days between two complete ones linearly, in place; return which days were."""
    complete = np.flatnonzero(np.isfinite(inputs).all(axis=1))
    filled = np.zeros(inputs.shape[0], dtype=np.bool_)
    lengths = np.diff(complete) - 1
    for position in np.flatnonzero((lengths >= 1) & (lengths <= longest)):
        before, after = complete[position], complete[position + 1]
        weight = np.arange(1, after - before)[:, np.newaxis] / (after - before)
        inputs[before + 1 : after] = inputs[before] + weight * (inputs[after] - inputs[before])
        filled[before + 1 : after] = True
    return filled


def _snow_lies(table: FluxTable, days: _Days, rules: DailyRules, notes: list[str]) -> NDArray[np.bool_]:
    """Whether the mean snow depth of a day is above the threshold; False where it was not measured."""
    column = table.first_of(SNOW_DEPTH)
    if column is None:
        notes.append(f"{table.source}: there is no snow depth (D_SNOW); season years are calendar years")
        return np.zeros(days.count, dtype=np.bool_)
    depth, _ = Reduction(light=None, least_valid=1).means(days.fold(table.columns[column]), None)
    return depth > rules.snow_threshold
