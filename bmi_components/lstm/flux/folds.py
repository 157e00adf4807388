"""Which windows are held out together, for evaluation and cross-validation: years of three kinds, or months."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.recipe import Folds, Grouping, Split
from bmi_components.lstm.flux.windows import Fold, Windows, split_years, year_folds

__all__ = ["group_labels", "group_name", "make_folds", "split_evaluation"]


def group_labels(windows: Windows, by: Grouping) -> NDArray[np.int64]:
    """Return the year of each prediction day ``[window]``; for "month" year * 100 + month."""
    if by == "season":
        return windows.season_year
    if by == "calendar":
        return windows.calendar_year
    months = windows.date.astype("datetime64[M]").astype(np.int64)
    if by == "july":
        return (months + 6) // 12 + 1969
    return (months // 12 + 1970) * 100 + months % 12 + 1


def group_name(label: int, by: Grouping) -> str:
    """Return how a year or month is written: 2019, 2019/20 or 2019-07."""
    if by == "july":
        return f"{label}/{(label + 1) % 100:02d}"
    return f"{label // 100}-{label % 100:02d}" if by == "month" else str(label)


def split_evaluation(windows: Windows, split: Split) -> tuple[Windows, Windows]:
    """Return training and evaluation windows; see `Split` and `split_years` for the rules and errors."""
    training, evaluation = split_years(_labelled(windows, split.by), split.years, "calendar")
    return _unlabelled(training), _unlabelled(evaluation)


def make_folds(windows: Windows, folds: Folds) -> list[Fold]:
    """Return the folds, the last year first; see `Folds` and `year_folds` for the rules.

    Raises
    ------
    ConfigurationError
        If no year can be held out.
    """
    try:
        made = year_folds(_labelled(windows, folds.by), folds.count, "calendar", folds.least)
    except ConfigurationError as error:
        what = "month" if folds.by == "month" else f"{folds.by} year"
        raise ConfigurationError(
            str(error).replace("calendar year", what) + "; see folds.by and folds.least"
        ) from None
    return [Fold(fold.year, _unlabelled(fold.training), _unlabelled(fold.validation)) for fold in made]


def _labelled(windows: Windows, by: Grouping) -> Windows:
    """Put the grouping in the place of the calendar year, where the rules for years look."""
    return replace(windows, calendar_year=group_labels(windows, by))


def _unlabelled(windows: Windows) -> Windows:
    return replace(windows, calendar_year=windows.date.astype("datetime64[Y]").astype(np.int64) + 1970)
