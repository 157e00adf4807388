"""Which window of which gauge is learnt from next: random draws that a checkpoint can continue exactly."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError

__all__ = ["Batch", "WindowSampler", "iterations_per_epoch", "split_gauges"]


class Batch(NamedTuple):
    """Windows to learn from: the position of each gauge and of the first day of its warm-up, ``[window]`` each."""

    gauges: NDArray[np.int64]
    starts: NDArray[np.int64]


class WindowSampler:
    """Draws (gauge, start) windows of ``warm_up + scored`` days, uniformly and with replacement.

    Only windows are drawn whose scored days all lie within the period and hold at least ``minimum_observed``
    observations; the warm-up may reach back before the period as far as there are data, because it only reads
    forcing.

    Parameters
    ----------
    target
        Observed streamflow ``[time, catchment]``, NaN where missing.
    gauges
        Positions of the gauges that may be drawn.
    period
        Positions on the time axis that may be scored.
    warm_up, scored
        Lengths of the two parts of a window, days.
    batch
        Windows per draw.
    seed
        Of the draws.
    minimum_observed
        Observations that a window must hold among its scored days.

    Raises
    ------
    ConfigurationError
        If no window fits.
    """

    def __init__(
        self,
        target: NDArray[np.float32],
        gauges: NDArray[np.int64],
        period: slice,
        *,
        warm_up: int,
        scored: int,
        batch: int,
        seed: int,
        minimum_observed: int = 30,
    ) -> None:
        self.batch = batch
        first_scored = np.arange(max(period.start, warm_up), period.stop - scored + 1)
        if first_scored.size == 0:
            raise ConfigurationError(
                f"windows of {warm_up} + {scored} days do not fit into a period of {period.stop - period.start} days"
            )
        observed = np.isfinite(target[:, gauges])
        counts = np.concatenate(
            (np.zeros((1, gauges.size), np.int32), np.cumsum(observed, axis=0, dtype=np.int32))
        )
        enough = counts[first_scored + scored] - counts[first_scored] >= min(minimum_observed, scored)
        start, column = np.nonzero(enough)
        if start.size == 0:
            raise ConfigurationError(
                f"no window of the period holds {minimum_observed} days of observed streamflow"
            )
        self._starts = (first_scored[start] - warm_up).astype(np.int32)
        self._gauges = gauges[column].astype(np.int32)
        self._random = np.random.Generator(np.random.PCG64(seed))

    @property
    def windows(self) -> int:
        """Number of different windows that can be drawn."""
        return int(self._starts.size)

    def draw(self) -> Batch:
        """Draw the next batch."""
        chosen = self._random.integers(0, self._starts.size, self.batch)
        return Batch(self._gauges[chosen].astype(np.int64), self._starts[chosen].astype(np.int64))

    def state(self) -> dict[str, Any]:
        """Return the random state as plain numbers and text; `set_state` of it repeats the draws that follow."""
        return dict(self._random.bit_generator.state)

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `state` returned."""
        self._random.bit_generator.state = state


def iterations_per_epoch(
    gauges: int, days: int, *, batch: int, scored: int, warm_up: int, coverage: float = 0.99
) -> int:
    """Draws after which a given day of a given gauge was scored with probability ``coverage``.

    ``ceil(ln(1 - coverage) / ln(1 - batch * scored / gauges / (days - warm_up)))``, the length that the δHBV papers
    call an epoch (Feng et al. 2022). ``days`` is the length of the training period with its warm-up.
    """
    share = batch * scored / gauges / (days - warm_up)
    return 1 if share >= 1.0 else math.ceil(math.log(1.0 - coverage) / math.log(1.0 - share))


def split_gauges(
    size: int, *, seed: int, fraction: float | None = None, folds: int | None = None, fold: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split gauges at random into those that are trained on and those that are held out.

    Parameters
    ----------
    size
        Number of gauges.
    seed
        Of the shuffle.
    fraction
        Share that is held out (rounded to whole gauges), or
    folds, fold
        Hold out part ``fold`` of ``folds`` equal parts; the parts of one seed together hold out every gauge once.

    Returns
    -------
    trained, held_out
        Positions, each sorted.
    """
    order = np.random.Generator(np.random.PCG64(seed)).permutation(size)
    if folds is not None:
        held_out = np.array_split(order, folds)[fold]
    else:
        held_out = order[: round(size * (fraction or 0.0))]
    return np.setdiff1d(np.arange(size), held_out), np.sort(held_out)
