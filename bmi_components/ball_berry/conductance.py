"""Three forms of stomatal conductance as one law, linear in assimilation over CO2: g = intercept + slope A / c.

Functions take ``xp``, the module that computes: ``jax.numpy``, or ``numpy`` where few leaves are stepped on the host.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from bmi_components.ball_berry.network import Network

__all__ = [
    "DEFICIT_FLOOR",
    "VAPOUR_OVER_CO2",
    "ball_berry_slope",
    "hybrid_humidity",
    "hybrid_slope",
    "medlyn_slope",
    "smooth_deficit",
    "stomatal_conductance",
]

Array = Any

VAPOUR_OVER_CO2 = 1.6
"""Diffusivity of water vapour over that of CO2 in air, as the models round it."""

DEFICIT_FLOOR = 0.05
"""The Medlyn form sees no vapour pressure deficit below this, kPa (as in CLM5)."""


def ball_berry_slope(relative_humidity: Array, conductance_slope: Array) -> Array:
    """Return the law's slope by relative humidity (Ball, Woodrow and Berry 1987).

    Parameters
    ----------
    relative_humidity
        At the leaf, 1; any shape.
    conductance_slope
        m (or a1) of Ball-Berry, 1.

    Returns
    -------
    Array
        Slope of stomatal conductance to water vapour against assimilation over CO2, 1.
    """
    return conductance_slope * relative_humidity


def hybrid_humidity(
    soil_moisture: Array,
    saturation_ratio: Array,
    network: Network,
    soil_moisture_mean: Array,
    soil_moisture_std: Array,
    xp: Any = jnp,
) -> Array:
    """Return what stands for relative humidity in the hybrid form (Jiang et al. 2025): a network's output in (0, 1).

    Parameters
    ----------
    soil_moisture
        m3 m-3.
    saturation_ratio
        Saturation vapour pressure at the leaf's temperature over the vapour pressure of the air, 1: the inverse of
        relative humidity, not scaled.
    network
        Of two inputs.
    soil_moisture_mean, soil_moisture_std
        Of the training period, m3 m-3.
    xp
        ``jax.numpy``, or ``numpy`` for one-dimensional inputs.
    """
    apply = network if xp is jnp else network.on_host
    logit = apply((soil_moisture - soil_moisture_mean) / soil_moisture_std, saturation_ratio)
    # a sigmoid by tanh, which needs no exponential and cannot overflow
    return 0.5 + 0.5 * xp.tanh(0.5 * logit)


def hybrid_slope(
    soil_moisture: Array,
    saturation_ratio: Array,
    conductance_slope: Array,
    network: Network,
    soil_moisture_mean: Array,
    soil_moisture_std: Array,
    xp: Any = jnp,
) -> Array:
    """Return the law's slope by a network of soil moisture and humidity (Jiang et al. 2025).

    Parameters are those of `hybrid_humidity` and `ball_berry_slope`.
    """
    humidity = hybrid_humidity(
        soil_moisture, saturation_ratio, network, soil_moisture_mean, soil_moisture_std, xp
    )
    return conductance_slope * humidity


def smooth_deficit(vapour_pressure_deficit: Array, xp: Any = jnp) -> Array:
    """Return a vapour pressure deficit in kPa, kept above `DEFICIT_FLOOR` without a kink (1 kPa grows by 0.0007)."""
    above = vapour_pressure_deficit - DEFICIT_FLOOR
    return DEFICIT_FLOOR + 0.5 * (above + xp.sqrt(above * above + DEFICIT_FLOOR**2))


def medlyn_slope(vapour_pressure_deficit: Array, optimal_slope: Array, xp: Any = jnp) -> Array:
    """Return the law's slope by vapour pressure deficit (Medlyn et al. 2011, equation 11).

    Parameters
    ----------
    vapour_pressure_deficit
        Of the air against the leaf, kPa; smoothly kept above `DEFICIT_FLOOR`, so that the gradient is finite.
    optimal_slope
        g1, kPa0.5.

    Returns
    -------
    Array
        Slope of stomatal conductance to water vapour against assimilation over CO2, 1.
    """
    return VAPOUR_OVER_CO2 * (1.0 + optimal_slope / xp.sqrt(smooth_deficit(vapour_pressure_deficit, xp)))


def stomatal_conductance(
    assimilation: Array, co2: Array, slope: Array, intercept: Array, xp: Any = jnp
) -> Array:
    """Return the stomatal conductance to water vapour by the linear law.

    Parameters
    ----------
    assimilation
        Net, umol m-2 s-1; a leaf that gives off CO2 has the intercept.
    co2
        At the leaf's surface, umol mol-1.
    slope
        By one of the forms, 1.
    intercept
        Conductance without assimilation, mol m-2 s-1.

    Returns
    -------
    Array
        mol m-2 s-1.
    """
    return intercept + slope * xp.maximum(assimilation, 0.0) / co2
