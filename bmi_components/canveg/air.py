"""Air in and above the canopy: what leaves and soil give off, carried by turbulence (a dispersion matrix)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from bmi_components.canveg.weather import AIR_HEAT_CAPACITY, GRAVITY, VON_KARMAN, Weather

__all__ = ["buoyancy_factor", "buoyancy_factor_published", "profile", "profiles", "stability"]

Array = Any

_MOST_UNSTABLE, _MOST_STABLE = -3.0, 0.25


def buoyancy_factor_published(stability: Array) -> Array:
    """Return the factor of the dispersion matrix off neutral air; it jumps by 2.7 % at neutral."""
    unstable = stability < 0.0
    held = jnp.where(unstable, stability, -1.0)
    return jnp.where(unstable, 0.973 * -0.7182 / (held - 0.7182), 1.0 - 0.31 * stability)


def buoyancy_factor(stability: Array) -> Array:
    """Return the published factor with its two branches joined smoothly within about 0.05 of neutral."""
    share = 0.5 * (1.0 - jnp.tanh(stability / 0.05))
    unstable = 0.973 * 0.7182 / (0.7182 - jnp.minimum(stability, 0.5))
    return share * unstable + (1.0 - share) * (1.0 - 0.31 * stability)


def stability(sensible_heat: Array, weather: Weather, measurement_height: Array, *, clipped: bool) -> Array:
    """Return the measurement height over the Obukhov length, from -3 to 0.25.

    Parameters
    ----------
    sensible_heat
        W m-2, upward.
    weather
        Density, temperature, friction velocity.
    measurement_height
        m.
    clipped
        Whether the range has sharp ends, as published, or smooth ones.
    """
    value = -(VON_KARMAN * GRAVITY * sensible_heat * measurement_height) / (
        weather.density * AIR_HEAT_CAPACITY * weather.air_temperature * weather.friction_velocity**3
    )
    if clipped:
        return jnp.clip(value, _MOST_UNSTABLE, _MOST_STABLE)
    return jnp.where(
        value < 0.0,
        _MOST_UNSTABLE * jnp.tanh(jnp.minimum(value, 0.0) / _MOST_UNSTABLE),
        _MOST_STABLE * jnp.tanh(jnp.maximum(value, 0.0) / _MOST_STABLE),
    )


def profile(reference: Array, sources: Array, departures: Array) -> Array:
    """Return a quantity in every layer of the air, ``[..., row]``.

    Parameters
    ----------
    reference
        Its value at the top, ``[...]``.
    sources
        Of each layer per ground area over friction velocity, ``[..., layer]``; the soil's with the lowest, or last.
    departures
        What a source makes of each row more than of the topmost, s m-1 at a friction velocity of 1 m s-1: the
        dispersion matrix less its last row, ``[layer, row]``.
    """
    return reference[..., None] + sources @ departures


def profiles(weather: Weather, sources: Sequence[Array], departures: Array) -> tuple[Array, Array, Array]:
    """Return temperature, vapour pressure and CO2 of the air, ``[..., row]`` each; see `profile`.

    Parameters
    ----------
    weather
        At the top.
    sources
        Of the three, each as of `profile`.
    departures
        As of `profile`.
    """
    top = jnp.stack([weather.air_temperature, weather.vapour_pressure, weather.co2])
    temperature, vapour_pressure, co2 = profile(top, jnp.stack(sources), departures)
    return temperature, vapour_pressure, co2
