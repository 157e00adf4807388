"""How good predictions are: R2, mean squared error and its root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Scores", "score"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of one set of predictions.

    Attributes
    ----------
    r2
        Coefficient of determination: 1 - mean squared error / variance of the observations; NaN if they do not vary.
    mse
        Mean squared error, in the target's units squared.
    """

    r2: float
    mse: float

    @property
    def rmse(self) -> float:
        """Root of the mean squared error, in the target's units."""
        return float(np.sqrt(self.mse))


def score(predicted: Array, observed: Array) -> Scores:
    """Compare predictions with observations ``[window]``."""
    mse = float(np.mean((predicted - observed) ** 2))
    variance = float(np.var(observed))
    return Scores(1.0 - mse / variance if variance > 0.0 else float("nan"), mse)
