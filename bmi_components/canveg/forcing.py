"""What the canopy sees of the weather: one value per step (and site) of each quantity."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Forcing"]

Array = Any


class Forcing(NamedTuple):
    """Weather above a canopy and the state of its soil and leaves, each ``[time]`` or ``[time, site]``.

    Attributes
    ----------
    day_of_year
        1 to 366, of the end of the step (the row that ends at midnight has the new day).
    hour
        Local standard time of the end of the step, 0 to under 24.
    air_temperature
        degC.
    shortwave
        Incoming, W m-2.
    vapour_pressure
        kPa.
    wind_speed
        m s-1.
    co2
        umol mol-1.
    pressure
        kPa.
    friction_velocity
        m s-1.
    soil_temperature
        At the bottom of the soil column, degC.
    soil_moisture
        m3 m-3.
    leaf_area_index
        m2 m-2.
    canopy_height
        m; only the alfalfa fit of soil respiration reads it.
    longwave
        Incoming, W m-2; NaN: estimated from air temperature and clearness of the sky.
    """

    day_of_year: Array
    hour: Array
    air_temperature: Array
    shortwave: Array
    vapour_pressure: Array
    wind_speed: Array
    co2: Array
    pressure: Array
    friction_velocity: Array
    soil_temperature: Array
    soil_moisture: Array
    leaf_area_index: Array
    canopy_height: Array
    longwave: Array
