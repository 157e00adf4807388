"""Weather above the canopy in the units of its physics, within the limits that the physics holds for."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.thermodynamics import FREEZING

__all__ = [
    "AIR_HEAT_CAPACITY",
    "AIR_MOLAR_MASS",
    "GRAVITY",
    "STEFAN_BOLTZMANN",
    "VON_KARMAN",
    "Weather",
    "prepare",
]

Array = Any

AIR_MOLAR_MASS = 28.97
"""g mol-1."""

AIR_HEAT_CAPACITY = 1005.0
"""J kg-1 K-1."""

STEFAN_BOLTZMANN = 5.670367e-8
"""W m-2 K-4."""

GRAVITY = 9.8
"""m s-2."""

VON_KARMAN = 0.4

PHOTONS_PER_JOULE = 4.6
"""umol J-1 of photosynthetically active radiation."""


class Weather(NamedTuple):
    """Weather at the measurement height; every field has the shape of the forcing's.

    Attributes
    ----------
    air_temperature
        K.
    vapour_pressure
        Pa.
    wind_speed, friction_velocity
        m s-1, at least 0.75 and 0.1.
    shortwave
        W m-2, at least 0.
    par
        Photosynthetically active half of it, umol m-2 s-1.
    pressure
        kPa.
    co2
        umol mol-1.
    density
        kg m-3, of the whole column of air.
    molar_density
        mol m-3.
    soil_temperature
        K.
    soil_moisture
        m3 m-3.
    leaf_area_index
        m2 m-2.
    canopy_height
        m, as the forcing has it.
    longwave
        W m-2, NaN where it is to be estimated.
    """

    air_temperature: Array
    vapour_pressure: Array
    wind_speed: Array
    friction_velocity: Array
    shortwave: Array
    par: Array
    pressure: Array
    co2: Array
    density: Array
    molar_density: Array
    soil_temperature: Array
    soil_moisture: Array
    leaf_area_index: Array
    canopy_height: Array
    longwave: Array


def prepare(forcing: Forcing) -> Weather:
    """Return the weather of a forcing, clipped as Jiang et al. (2025) clip it."""
    temperature = forcing.air_temperature + FREEZING
    shortwave = jnp.maximum(forcing.shortwave, 0.0)
    density = forcing.pressure * AIR_MOLAR_MASS / (8.314 * temperature)
    return Weather(
        air_temperature=temperature,
        vapour_pressure=1000.0 * forcing.vapour_pressure,
        wind_speed=jnp.maximum(forcing.wind_speed, 0.75),
        friction_velocity=jnp.maximum(forcing.friction_velocity, 0.1),
        shortwave=shortwave,
        par=PHOTONS_PER_JOULE * shortwave / 2.0,
        pressure=forcing.pressure,
        co2=forcing.co2,
        density=density,
        molar_density=1000.0 * density / AIR_MOLAR_MASS,
        soil_temperature=forcing.soil_temperature + FREEZING,
        soil_moisture=forcing.soil_moisture,
        leaf_area_index=forcing.leaf_area_index,
        canopy_height=forcing.canopy_height,
        longwave=forcing.longwave,
    )
