"""Least squares for few parameters: damped Gauss-Newton steps (Levenberg and Marquardt), derivatives by differences.

A canopy has some twenty parameters, with a network some ninety. A step of this kind needs as many simulations and
saves hundreds of steps along the gradient; and a simulation is compiled in a fraction of the time that its gradient is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Step", "gauss_newton_step"]

Vector = NDArray[np.float64]

INCREMENT = 0.02
"""Of a free number, for differences: far above what the simulation's tolerance shows, far below what bends it."""

LARGEST_CHANGE = 1.0
"""Of a free number in one step."""

TRIALS = 4
"""Dampings that are tried in one step."""

FLOOR = 1e-4
"""Part of the damping that does not follow the curvature, for weights on which nothing depends yet."""


class Step(NamedTuple):
    """What a step came to.

    Attributes
    ----------
    free
        Where it led; unchanged if no damping made the loss smaller.
    damping
        For the next step.
    loss
        At the start of the step; not finite if the simulation was not, there or nearby.
    """

    free: Vector
    damping: float
    loss: float


def gauss_newton_step(
    residuals: Callable[[Vector], Vector], free: Vector, origin: Vector, pull: Vector, damping: float
) -> Step:
    """Make one step that makes the sum of squared residuals and of ``pull * (free - origin)**2`` smaller.

    Parameters
    ----------
    residuals
        Of free numbers ``[parameter]``, ``[residual]``.
    free, origin, pull
        ``[parameter]``.
    damping
        Relative to the curvature.
    """

    def loss(found: Vector, x: Vector) -> float:
        return float(found @ found + np.sum(pull * (x - origin) ** 2))

    start = residuals(free)
    value = loss(start, free)
    columns = []
    for index in range(free.size):
        moved = free.copy()
        moved[index] += INCREMENT
        columns.append((residuals(moved) - start) / INCREMENT)
    jacobian = np.stack(columns, axis=1)
    if not (np.isfinite(value) and np.isfinite(jacobian).all()):
        return Step(free, damping, np.nan)
    curvature = jacobian.T @ jacobian + np.diag(pull)
    slope = jacobian.T @ start + pull * (free - origin)
    for _ in range(TRIALS):
        damped = curvature + np.diag(damping * (np.diag(curvature) + FLOOR))
        change = np.clip(np.linalg.solve(damped, -slope), -LARGEST_CHANGE, LARGEST_CHANGE)
        trial = free + change
        reached = loss(residuals(trial), trial)
        if reached < value:
            return Step(trial, max(damping / 3.0, 1e-3), value)
        damping *= 5.0
    return Step(free, min(damping, 1e3), value)
