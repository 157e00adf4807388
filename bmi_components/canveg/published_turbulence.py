"""The turbulence that published dispersion matrices were flown in; heights over canopy height, times in h / u*."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["DEVIATION_SLOPE", "TIME_STEP", "deviation", "time_scale"]

Array = Any

TIME_STEP = 0.025
"""A tenth of the time scale in the canopy, h / u*."""

DEVIATION_SLOPE = 0.9375
"""Of the deviation of vertical velocity with height in the canopy, which drift is worked out from."""


def deviation(height: Array) -> Array:
    """Return the published deviation of vertical velocity over friction velocity; it has a step at the canopy's top."""
    return np.where(height < 1.0, 0.25 + DEVIATION_SLOPE * height, 1.25)


def time_scale(height: Array) -> Array:
    """Return the published time scale, h / u*."""
    return np.where(height < 1.5, 0.25, 0.4 * (height - 0.6) / 1.56)
