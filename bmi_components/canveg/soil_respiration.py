"""What the soil breathes out: by temperature and moisture, by a fit to an alfalfa field, or by a network."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.thermodynamics import FREEZING

__all__ = ["respiration_of_alfalfa", "respiration_of_network", "respiration_q10"]

Array = Any


def respiration_q10(temperature: Array, soil_moisture: Array, parameters: Parameters) -> Array:
    """Return soil respiration, umol m-2 s-1, of soil temperature (K) and moisture: base Q10^((T-10)/10) theta^c."""
    p = parameters
    wet = soil_moisture > 0.0
    moisture = jnp.where(wet, jnp.where(wet, soil_moisture, 1.0) ** p.respiration_moisture_exponent, 0.0)
    warmth = p.respiration_q10 ** ((temperature - FREEZING - 10.0) / 10.0)
    return p.respiration_base * warmth * moisture


def respiration_of_alfalfa(
    gross: Array, dark: Array, temperature: Array, soil_moisture: Array, canopy_height: Array
) -> Array:
    """Return soil respiration, umol m-2 s-1, by the alternating conditional expectations fitted to an alfalfa field.

    Parameters
    ----------
    gross, dark
        Assimilation and respiration of the canopy's leaves, umol m-2 s-1.
    temperature
        Of the soil, K.
    soil_moisture
        m3 m-3.
    canopy_height
        m.
    """
    terms = (
        (gross, -1.51316616076344, 1.38034307225825, 2.1447525561691),
        (temperature, 0.673139978230031, 3.73823712105636, 19.9136298988773),
        (soil_moisture, -59.2947930385706, 59.9066980644239, 0.000987230986585085),
        (canopy_height, -3.3329485762496, 1.36701108005293, 0.0569682453563841),
    )
    phi = sum(first + second * x / (third + x) for x, first, second, third in terms)
    return 4.846927939437475 + 2.22166756601498 * phi - 0.0281417120818586 * phi * phi - dark


def respiration_of_network(temperature: Array, soil_moisture: Array, parameters: Parameters) -> Array:
    """Return soil respiration, umol m-2 s-1, by a network of soil temperature (K) and moisture (m3 m-3)."""
    s = parameters.scaling
    warmth = (temperature - FREEZING - s.air_temperature_minimum) / (
        s.air_temperature_maximum - s.air_temperature_minimum
    )
    wetness = (soil_moisture - s.soil_moisture_minimum) / (s.soil_moisture_maximum - s.soil_moisture_minimum)
    share = jnp.tanh(parameters.respiration_network(warmth, wetness))
    return share * (s.soil_respiration_maximum - s.soil_respiration_minimum) + s.soil_respiration_minimum
