"""Water vapour and latent heat: saturation pressure, its derivatives, and the heat of vaporisation."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

__all__ = [
    "FREEZING",
    "latent_heat_of_vaporisation",
    "log_temperature",
    "saturation_slope",
    "saturation_vapour_pressure",
]

Array = Any

FREEZING = 273.15
"""0 degC, K."""

_LOG_FREEZING = math.log(FREEZING)


def log_temperature(temperature: Array) -> Array:
    """Return ln(T / 273.15 K) of a temperature in K; exact to rounding from 170 K to 440 K.

    The series of the inverse hyperbolic tangent: on a processor several times faster than the general logarithm.
    """
    u = (temperature - FREEZING) / (temperature + FREEZING)
    s = u * u
    series = 1.0 / 19.0
    for power in (17, 15, 13, 11, 9, 7, 5, 3):
        series = 1.0 / power + s * series
    return 2.0 * u * (1.0 + s * series)


def saturation_vapour_pressure(temperature: Array, log: Array | None = None) -> Array:
    """Return the saturation vapour pressure over water, Pa, at a temperature in K; ``log``: its `log_temperature`."""
    log = log_temperature(temperature) if log is None else log
    return 100.0 * jnp.exp(54.8781919 - 6790.4985 / temperature - 5.02808 * (log + _LOG_FREEZING))


def saturation_slope(temperature: Array, saturation: Array) -> Array:
    """Return the derivative of the saturation vapour pressure, Pa K-1, of the temperature in K and that pressure."""
    return saturation * (6790.4985 / temperature - 5.02808) / temperature


def latent_heat_of_vaporisation(temperature: Array, *, frozen_quirk: bool) -> Array:
    """Return the heat taken by evaporation, or below freezing by sublimation, J kg-1, at a temperature in K.

    ``frozen_quirk`` adds 333 J kg-1 below 273 K; without it 333,000 J kg-1 come in smoothly over two degrees.
    """
    liquid = 3149000.0 - 2370.0 * temperature
    if frozen_quirk:
        return liquid + jnp.where(temperature < 273.0, 333.0, 0.0)
    share = jnp.clip(0.5 * (FREEZING + 1.0 - temperature), 0.0, 1.0)
    return liquid + 333000.0 * share * share * (3.0 - 2.0 * share)
