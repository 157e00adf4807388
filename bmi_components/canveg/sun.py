"""Where the sun stands (Walraven 1978)."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

__all__ = ["ROUNDED_PI", "circle", "sine_of_elevation"]

Array = Any

ROUNDED_PI = 3.14159
"""What the published model takes for pi in angles."""


def circle(rounded: bool) -> float:
    """Return pi, or the published model's."""
    return ROUNDED_PI if rounded else math.pi


def sine_of_elevation(
    latitude: Array, longitude: Array, time_zone: Array, day_of_year: Array, hour: Array, *, rounded: bool
) -> Array:
    """Return the sine of the sun's elevation, at least 0.01 away from 0.

    Parameters
    ----------
    latitude, longitude
        degrees.
    time_zone
        h ahead of UTC.
    day_of_year, hour
        Local standard time; 1 to 366, 0 to 24.
    rounded
        Whether pi has six digits, as published.
    """
    pi = circle(rounded)
    north = latitude * pi / 180.0
    declination = -23.45 * pi / 180.0 * jnp.cos(2.0 * pi * (day_of_year + 10.0) / 365.0)
    f = pi * (279.5 + 0.9856 * day_of_year) / 180.0
    equation_of_time = (
        -104.7 * jnp.sin(f)
        + 596.2 * jnp.sin(2.0 * f)
        + 4.3 * jnp.sin(3.0 * f)
        - 12.7 * jnp.sin(4.0 * f)
        - 429.3 * jnp.cos(f)
        - 2.0 * jnp.cos(2.0 * f)
        + 19.3 * jnp.cos(3.0 * f)
    ) / 3600.0
    noon = 12.0 - (longitude - 15.0 * time_zone) * 4.0 / 60.0 - equation_of_time
    hour_angle = pi * (hour - noon) / 12.0
    sine = jnp.sin(north) * jnp.sin(declination) + jnp.cos(north) * jnp.cos(declination) * jnp.cos(hour_angle)
    away = jnp.where(sine < 0.0, -0.01, 0.01)
    return jnp.where(jnp.abs(sine) <= 0.01, away, sine)
