"""How sunlight divides into direct and scattered, visible and near infrared, and what the sky radiates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from bmi_components.canveg.weather import PHOTONS_PER_JOULE, STEFAN_BOLTZMANN, Weather

__all__ = ["Sunlight", "divide", "sky_longwave"]

Array = Any


class Sunlight(NamedTuple):
    """Light that reaches the canopy.

    Attributes
    ----------
    par_beam, par_diffuse
        umol m-2 s-1.
    nir_beam, nir_diffuse
        W m-2.
    clearness
        Measured over cloudless shortwave, 0.22 to 0.89.
    """

    par_beam: Array
    par_diffuse: Array
    nir_beam: Array
    nir_diffuse: Array
    clearness: Array


def _power(base: Array, exponent: float) -> Array:
    """Raise what is positive to a power, with a finite derivative at zero."""
    positive = base > 0.0
    return jnp.where(positive, jnp.where(positive, base, 1.0) ** exponent, 0.0)


def divide(weather: Weather, sine: Array, *, visible_quirk: bool, lost_at_dusk: bool) -> Sunlight:
    """Divide measured shortwave after Weiss and Norman (1985).

    Parameters
    ----------
    weather
        With shortwave and PAR.
    sine
        Of the sun's elevation.
    visible_quirk
        Whether scattered near infrared is computed from direct visible light, as published.
    lost_at_dusk
        Whether there is no light in a step at whose end the sun is down, as published; without it, it is scattered.
    """
    day = sine > 0.0
    up = jnp.where(day, sine, 1.0)
    visible, near = 1360.8 * 0.383, 1360.8 * 0.517
    path = jnp.maximum(weather.pressure / (101.3 * up), 0.0)
    water = 1360.8 * 0.077 * _power(2.0 * path, 0.3)
    direct_visible = visible * jnp.exp(-0.185 * path) * up
    scattered_visible = 0.4 * (visible * up - direct_visible)
    direct_near = (near * jnp.exp(-0.06 * path) - water) * up
    seen = direct_visible if visible_quirk else direct_near
    scattered_near = 0.6 * (near - seen / up - water) * up
    if not visible_quirk:
        scattered_near = jnp.maximum(scattered_near, 0.0)
        direct_near = jnp.maximum(direct_near, 0.0)
    total_visible = jnp.maximum(direct_visible + scattered_visible, 0.1)
    total_near = jnp.maximum(direct_near + scattered_near, 0.1)
    clearness = jnp.clip(jnp.where(day, weather.shortwave / (total_visible + total_near), 1.0), 0.22, 0.89)
    par_share = direct_visible / total_visible * (1.0 - _power((0.9 - clearness) / 0.70, 0.67))
    near_share = direct_near / total_near * (1.0 - _power((0.9 - clearness) / 0.68, 0.67))
    par, nir = weather.par, weather.shortwave - weather.par / PHOTONS_PER_JOULE
    if lost_at_dusk:
        par, nir = jnp.where(day, par, 0.0), jnp.where(day, nir, 0.0)
    par_beam = jnp.where(day, jnp.clip(par_share, 0.0, 1.0) * par, 0.0)
    nir_beam = jnp.where(day, jnp.clip(near_share, 0.0, 1.0) * nir, 0.0)
    return Sunlight(par_beam, par - par_beam, nir_beam, nir - nir_beam, clearness)


def sky_longwave(weather: Weather, clearness: Array) -> Array:
    """Return incoming longwave radiation, W m-2: measured, or after Idso and Jackson (1969) for a sky with clouds."""
    temperature = weather.air_temperature
    departure = 273.16 - temperature
    emissivity = 1.0 - 0.261 * jnp.exp(-0.000777 * departure * departure)
    estimate = STEFAN_BOLTZMANN * temperature**4 * (emissivity * clearness + 1.0 - clearness)
    measured = jnp.isfinite(weather.longwave)
    return jnp.where(measured, jnp.where(measured, weather.longwave, 0.0), estimate)
