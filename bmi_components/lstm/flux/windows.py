"""Windows of days and what was observed on their last day; and how years split them into training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import floor, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, ForcingError
from bmi_components.lstm.flux.daily import DailyTable

__all__ = ["Fold", "Windows", "Year", "concatenate", "smallest_fold", "split_years", "windows", "year_folds"]

Year = Literal["season", "calendar"]


@dataclass(frozen=True)
class Windows:
    """Sequences of days that end on a day whose target was observed.

    Attributes
    ----------
    inputs
        float32 ``[window, day, input]`` in physical units, not normalised; the last day is the prediction day.
    target
        float64 ``[window]``.
    date
        ``datetime64[D]``, ``[window]``: the prediction day.
    season_year, calendar_year
        Years of the prediction day, ``[window]``.
    site
        Tower, ``[window]``.
    input_names, input_units, target_name, target_units
        Names and units.
    """

    inputs: NDArray[np.float32]
    target: NDArray[np.float64]
    date: NDArray[np.datetime64]
    season_year: NDArray[np.int64]
    calendar_year: NDArray[np.int64]
    site: NDArray[np.str_]
    input_names: tuple[str, ...]
    input_units: tuple[str, ...]
    target_name: str
    target_units: str

    def __len__(self) -> int:
        return int(self.target.size)

    @property
    def length(self) -> int:
        """Days in a window."""
        return int(self.inputs.shape[1])

    def years(self, year: Year) -> NDArray[np.int64]:
        """Return the season years or the calendar years of the prediction days, ``[window]``."""
        return self.season_year if year == "season" else self.calendar_year

    def select(self, mask: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Windows:
        """Return the windows where ``mask`` is True (or at these positions), in their order."""
        return replace(self, **{name: getattr(self, name)[mask] for name in _PER_WINDOW})

    def flat(self) -> NDArray[np.float32]:
        """Return the inputs as ``[window, day * input]``, day after day, for models without a time axis."""
        return self.inputs.reshape(len(self), -1)


_PER_WINDOW = tuple(field.name for field in fields(Windows))[:6]


@dataclass(frozen=True)
class Fold:
    """One year held out: train on the others, validate on it."""

    year: int
    training: Windows
    validation: Windows


def windows(daily: DailyTable, length: int | None = None, *, match_length: int | None = None) -> Windows:
    """Return every window of consecutive days with all inputs and an observed target on the last day.

    Parameters
    ----------
    daily
        One tower.
    length
        Days in a window, the prediction day included; 1 or None: that day alone.
    match_length
        Predict only days that have a window of so many days, so that models of different lengths predict the same.

    Raises
    ------
    ConfigurationError
        If a length is less than 1, or ``match_length`` less than ``length``.
    ForcingError
        If there is no such window; the message says how long the longest stretch of days is.
    """
    length = 1 if length is None else length
    needed = length if match_length is None else match_length
    if length < 1 or needed < length:
        raise ConfigurationError(
            f"a window of {length} days matched to {needed} days: the first must be at least 1, the second at least it"
        )
    complete = np.asarray(np.isfinite(daily.inputs).all(axis=1))
    stretch = _stretch(complete)
    last = np.flatnonzero((stretch >= needed) & np.isfinite(daily.target))
    if last.size == 0:
        raise ForcingError(
            f"{daily.site}: there is no window of {needed} days with all inputs and {daily.target_name} on the last; "
            f"the longest stretch of days with all inputs is {int(stretch.max(initial=0))}, and "
            f"{int(np.isfinite(daily.target).sum())} days have the target"
        )
    rows = last[:, np.newaxis] + np.arange(1 - length, 1)
    date = daily.date[last]
    return Windows(
        inputs=daily.inputs.astype(np.float32)[rows],
        target=daily.target[last],
        date=date,
        season_year=daily.season_year[last],
        calendar_year=date.astype("datetime64[Y]").astype(np.int64) + 1970,
        site=np.full(last.size, daily.site),
        input_names=daily.input_names,
        input_units=daily.input_units,
        target_name=daily.target_name,
        target_units=daily.target_units,
    )


def concatenate(parts: Sequence[Windows]) -> Windows:
    """Put the windows of several towers together.

    Raises
    ------
    ConfigurationError
        If there is none, or they differ in inputs, units or length.
    """
    if not parts:
        raise ConfigurationError("there are no windows to put together")
    first = parts[0]
    for part in parts[1:]:
        for name in ("input_names", "input_units", "target_units", "length"):
            if getattr(part, name) != getattr(first, name):
                raise ConfigurationError(
                    f"the windows of {part.site[0]} and {first.site[0]} differ in {name.replace('_', ' ')}: "
                    f"{getattr(part, name)} and {getattr(first, name)}"
                )
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_WINDOW
    }
    return replace(first, **joined)


def split_years(all_windows: Windows, eval_years: int = 3, year: Year = "season") -> tuple[Windows, Windows]:
    """Return training and evaluation windows: of each tower the last ``eval_years`` years are for evaluation.

    A tower with no more than ``eval_years`` years trains on its first year alone, one with a single year on the first
    80 % of its windows. Windows that begin in one part and end in the other belong to the part of their last day.

    Raises
    ------
    ConfigurationError
        If ``eval_years`` is less than 1, or a part would be empty.
    """
    if eval_years < 1:
        raise ConfigurationError(f"{eval_years} years of evaluation: at least 1 is needed")
    evaluation = np.zeros(len(all_windows), dtype=np.bool_)
    years = all_windows.years(year)
    for site in np.unique(all_windows.site):
        here = np.flatnonzero(all_windows.site == site)
        listed = np.unique(years[here])
        if listed.size == 1:
            in_order = here[np.argsort(all_windows.date[here], kind="stable")]
            evaluation[in_order[floor(0.8 * here.size) :]] = True
        else:
            kept = max(1, listed.size - eval_years)
            evaluation[here] = years[here] >= listed[kept]
    if evaluation.all() or not evaluation.any():
        raise ConfigurationError(
            f"{len(all_windows)} windows are too few to split into training and evaluation"
        )
    return all_windows.select(~evaluation), all_windows.select(evaluation)


def smallest_fold(length: int) -> int:
    """Windows that a year needs to be a fold: 200 - floor(sqrt(80 length)), fewer for longer windows (DLFM)."""
    return 200 - floor(sqrt(80 * length))


def year_folds(
    training: Windows, count: int | None = None, year: Year = "season", least: int | None = None
) -> list[Fold]:
    """Return folds that hold out one year each, the last first.

    Parameters
    ----------
    training
        Windows to divide; towers that share a year are held out together.
    count
        Number of folds; without it as many as there are. Fewer come back if fewer years are large enough.
    year
        Which year to hold out.
    least
        Windows below which a year is passed over; without it `smallest_fold`.

    Raises
    ------
    ConfigurationError
        If no year is large enough, or there is only one.
    """
    years = training.years(year)
    listed, sizes = np.unique(years, return_counts=True)
    least = smallest_fold(training.length) if least is None else least
    chosen = [int(one) for one, size in zip(listed[::-1], sizes[::-1], strict=True) if size >= least]
    if not chosen or listed.size == 1:
        found = ", ".join(f"{one}: {size}" for one, size in zip(listed, sizes, strict=True))
        raise ConfigurationError(
            f"no {year} year can be held out: one needs {least} windows of {training.length} days beside another "
            f"year to train on; there are {found or 'none'}"
        )
    return [Fold(one, training.select(years != one), training.select(years == one)) for one in chosen[:count]]


def _stretch(complete: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number of complete days in a row up to and with each day."""
    position = np.arange(1, complete.size + 1)
    last_gap = np.maximum.accumulate(np.where(complete, 0, position))
    return position - last_gap
