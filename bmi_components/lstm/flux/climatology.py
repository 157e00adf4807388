"""What a flux model must beat: the target expected from the day of the year alone, tower by tower."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.windows import Windows

__all__ = ["CLIMATOLOGIES", "harmonics", "smoothed_mean"]

Array = NDArray[np.float64]

_YEAR = 365.25


def smoothed_mean(training: Windows, wanted: Windows, spread: float = 10.0) -> Array:
    """Mean of the training target around each day of the year, weighted by a Gaussian around the year's circle.

    Parameters
    ----------
    training, wanted
        Windows whose target is known, and whose target is wanted; each tower is predicted from itself.
    spread
        Standard deviation of the Gaussian, days.

    Returns
    -------
    ndarray
        ``[window]`` of ``wanted``.

    Raises
    ------
    ConfigurationError
        If a tower has no training windows.
    """

    def predict(days: Array, target: Array, wanted_days: Array) -> Array:
        apart = np.abs(wanted_days[:, None] - days)
        squared = (np.minimum(apart, _YEAR - apart) / spread) ** 2
        # relative to the nearest day, so that some weight is left far from all of them
        weights = np.exp(-0.5 * (squared - squared.min(axis=1, keepdims=True)))
        return np.asarray(weights @ target / weights.sum(axis=1))

    return _by_tower(training, wanted, predict)


def harmonics(training: Windows, wanted: Windows, order: int = 2) -> Array:
    """Mean and the first harmonics of the year, fitted to the training target by least squares.

    Parameters, result and errors are those of `smoothed_mean`; ``order`` is the number of harmonics.
    """

    def terms(days: Array) -> Array:
        angles = 2 * np.pi * np.arange(1, order + 1) * days[:, None] / _YEAR
        return np.concatenate((np.ones((days.size, 1)), np.sin(angles), np.cos(angles)), axis=1)

    def predict(days: Array, target: Array, wanted_days: Array) -> Array:
        return np.asarray(terms(wanted_days) @ np.linalg.lstsq(terms(days), target, rcond=None)[0])

    return _by_tower(training, wanted, predict)


CLIMATOLOGIES = {"climatology (smoothed mean)": smoothed_mean, "climatology (two harmonics)": harmonics}
"""By the name that a table shows."""


def _by_tower(training: Windows, wanted: Windows, predict: Callable[[Array, Array, Array], Array]) -> Array:
    result = np.empty(len(wanted))
    for site in np.unique(wanted.site):
        known, here = training.site == site, wanted.site == site
        if not known.any():
            raise ConfigurationError(f"{site}: there are no training windows to take a climatology from")
        result[here] = predict(
            _days(training.select(known)), training.target[known], _days(wanted.select(here))
        )
    return result


def _days(windows: Windows) -> Array:
    """Days since the year began, ``[window]``."""
    days: Array = (windows.date - windows.date.astype("datetime64[Y]")).astype(np.float64)
    return days
