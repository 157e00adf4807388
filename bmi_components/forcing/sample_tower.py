"""What a flux tower would measure in the sample weather: radiation, humidity, soil and snow from simple formulas.

For trying out models of fluxes, not for science. From the hourly sample weather follow:

* photon flux: 2.06 umol J-1 of shortwave radiation (45 % of it photosynthetically active, 4.57 umol J-1; McCree 1972);
* net radiation: albedo 0.18, emissivity 0.97, the surface as warm as the air;
* wind speed and friction velocity: a logarithmic profile from 10 m over a roughness of 0.5 m;
* vapour pressure, its deficit and relative humidity from specific humidity and pressure;
* snow: degree days (3 mm K-1 d-1), 300 kg m-3; soil temperature: the air's, smoothed over ten days;
* soil water: a bucket between 0.08 and 0.40 m3 m-3 of 0.5 m that dries by 3 % of its content a day;
* leaf area: between 1 and 4, by the soil's warmth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from bmi_components.forcing.humidity import vapour_pressure
from bmi_components.forcing.series import HOUR, Forcing
from bmi_components.variables import variable

__all__ = ["with_tower_variables"]

Array = NDArray[np.float64]

PHOTONS_PER_JOULE = 0.45 * 4.57
ALBEDO, EMISSIVITY, STEFAN_BOLTZMANN = 0.18, 0.97, 5.670374e-8
DRAG = 0.4 / math.log(10.0 / 0.5)
SOIL_DEPTH, DRIEST, WETTEST, DRYING = 500.0, 0.08, 0.40, 0.03
"""mm, m3 m-3, m3 m-3, d-1."""
MELT = 3.0
"""mm K-1 d-1."""


def with_tower_variables(weather: Forcing) -> Forcing:
    """Return hourly sample weather with what a tower measures besides, in the catalogue's units."""
    values = weather.values
    kelvin, pressure, humidity = values["temperature"], values["pressure"], values["specific_humidity"]
    celsius = kelvin - 273.15
    wind = np.hypot(values["wind_x"], values["wind_y"])
    vapour = vapour_pressure(humidity, pressure)
    saturation = 0.6108 * np.exp(17.27 * celsius / (celsius + 237.3))  # FAO-56 eq. 11
    soil_warmth = _smoothed(celsius, days=10.0)
    snow, water = _snow_and_soil_water(values["precipitation"] * HOUR, celsius)
    emitted = STEFAN_BOLTZMANN * kelvin**4
    added = {
        "photosynthetic_photon_flux": PHOTONS_PER_JOULE * values["shortwave"],
        "net_radiation": (1.0 - ALBEDO) * values["shortwave"] + EMISSIVITY * (values["longwave"] - emitted),
        "wind_speed": wind,
        "friction_velocity": DRAG * wind,
        "vapour_pressure": vapour,
        "vapour_pressure_deficit": np.maximum(saturation - vapour, 0.0),
        "relative_humidity": np.minimum(100.0 * vapour / saturation, 100.0),
        "carbon_dioxide": np.full_like(kelvin, 410.0),
        "snow_depth": snow / 300.0,
        "soil_temperature": soil_warmth,
        "soil_water_content": water,
        "leaf_area_index": 1.0 + 3.0 * np.clip(soil_warmth / 18.0, 0.0, 1.0),
    }
    for symbol, series in added.items():
        weather = weather.with_values(variable(symbol), series)
    return weather


def _smoothed(values: Array, days: float) -> Array:
    """Return an exponential mean over so many days, ``[hour, catchment]``."""
    share = 1.0 / (24.0 * days)
    smoothed = np.empty_like(values)
    state = values[: 24 * 30].mean(axis=0)
    for hour, now in enumerate(values):
        state = state + share * (now - state)
        smoothed[hour] = state
    return smoothed


def _snow_and_soil_water(precipitation: Array, celsius: Array) -> tuple[Array, Array]:
    """Return snow water, mm, and soil water content, m3 m-3, of precipitation in mm per hour."""
    snow, water = np.zeros(celsius.shape[1]), np.full(celsius.shape[1], 0.25 * SOIL_DEPTH)
    series = np.empty_like(celsius), np.empty_like(celsius)
    for hour, (fall, warmth) in enumerate(zip(precipitation, celsius, strict=True)):
        melt = np.minimum(snow, MELT / 24.0 * np.maximum(warmth, 0.0))
        snow = snow + np.where(warmth <= 0.0, fall, 0.0) - melt
        gain = np.where(warmth > 0.0, fall, 0.0) + melt
        water = np.clip(
            water + gain - DRYING / 24.0 * (water - DRIEST * SOIL_DEPTH), 0.0, WETTEST * SOIL_DEPTH
        )
        series[0][hour], series[1][hour] = snow, water / SOIL_DEPTH
    return series
