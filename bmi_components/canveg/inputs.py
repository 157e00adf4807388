"""From what towers, NextGen or other components give to the weather that the canopy model takes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.thermodynamics import FREEZING
from bmi_components.canveg.weather import AIR_HEAT_CAPACITY, AIR_MOLAR_MASS, GRAVITY, VON_KARMAN
from bmi_components.forcing.humidity import vapour_pressure
from bmi_components.variables import Variable, variable

__all__ = [
    "CLEARANCE",
    "SLOW",
    "friction_velocity",
    "local_time",
    "make_forcing",
    "momentum_correction",
    "monthly_value",
    "published_inputs",
]

Array = Any

SLOW = ("leaf_area_index", "canopy_height", "carbon_dioxide", "soil_water_content", "soil_temperature")
"""Quantities, by symbol, that a configuration gives as a constant or by month, or leaves to an input."""

CLEARANCE = 10.0
"""Height above the canopy, m, at which weather holds that no tower measured (as in Noah-MP, Niu et al. 2011)."""

_AORC = ("specific_humidity", "pressure", "shortwave", "longwave", "wind_x", "wind_y")
_TOWER = ("vapour_pressure", "pressure", "shortwave", "wind_speed")


def published_inputs(
    nextgen: bool, longwave: bool, friction: bool, slow: Sequence[str]
) -> tuple[Variable, ...]:
    """Return the inputs that a configuration needs.

    Parameters
    ----------
    nextgen
        Whether NextGen's eight variables are given (precipitation among them, which a canopy without interception has
        no use for), or else a tower's.
    longwave, friction
        Whether a tower gives incoming longwave radiation and friction velocity.
    slow
        Those of `SLOW` that are inputs.
    """
    symbols = ["temperature", *(_AORC if nextgen else _TOWER)]
    if nextgen:
        symbols.insert(0, "precipitation")
    elif longwave:
        symbols.append("longwave")
    if friction:
        symbols.append("friction_velocity")
    units = {"precipitation": "mm s-1", "temperature": "K"}
    return tuple(variable(symbol, units.get(symbol)) for symbol in (*symbols, *slow))


def local_time(seconds: float, utc_offsets: Sequence[int]) -> list[tuple[float, float]]:
    """Return the day of the year (1 on 1 January) and the hour, 0 to under 24, at each offset.

    Parameters
    ----------
    seconds
        Since the beginning of 1970 on the clock of the run.
    utc_offsets
        By which local standard time is ahead of that clock, s.
    """
    found = []
    for offset in utc_offsets:
        day, rest = divmod(round(seconds) + offset, 86_400)
        date = datetime.date.fromordinal(719_163 + day)
        found.append((float(date.timetuple().tm_yday), rest / 3600.0))
    return found


def monthly_value(monthly: Array, day_of_year: Array) -> Array:
    """Return the value of a day between values for the middles of the months, by straight lines.

    Parameters
    ----------
    monthly
        January to December, ``[month, ...]``.
    day_of_year
        1 to 366, ``[...]``; months of equal length are near enough.
    """
    position = (day_of_year - 15.5) / 30.4375
    before = jnp.floor(position)
    share = position - before
    index = jnp.mod(before, 12.0).astype(int)[None]
    first = jnp.take_along_axis(monthly, index, axis=0)[0]
    second = jnp.take_along_axis(monthly, jnp.mod(index + 1, 12), axis=0)[0]
    return first + share * (second - first)


def momentum_correction(stability: Array) -> Array:
    """Return the integrated stability correction of the wind profile, 1 (Paulson 1970; Dyer 1974).

    Parameters
    ----------
    stability
        Height above the displacement over the Obukhov length, 1; negative where the air is warmed from below.
    """
    x = jnp.sqrt(jnp.sqrt(1.0 - 16.0 * jnp.minimum(stability, 0.0)))
    unstable = (
        2.0 * jnp.log(0.5 * (1.0 + x)) + jnp.log(0.5 * (1.0 + x * x)) - 2.0 * jnp.arctan(x) + 0.5 * np.pi
    )
    return unstable - 5.0 * jnp.maximum(stability, 0.0)


def friction_velocity(
    wind_speed: Array,
    air_temperature: Array,
    pressure: Array,
    sensible_heat: Array,
    canopy_height: Array,
    measurement_height: Array,
    iterations: int = 8,
) -> Array:
    """Return friction velocity, m s-1, from the logarithmic wind profile with stability (Monin and Obukhov 1954).

    Displacement is 0.6 and roughness 0.1 of the canopy's height, as in the model. Stability stays within -3 and 0.25,
    the model's own limits, wind above 0.75 and friction velocity above 0.1 m s-1: in calm, cold nights the profile has
    no solution.

    Parameters
    ----------
    wind_speed
        At the measurement height, m s-1.
    air_temperature
        degC.
    pressure
        kPa.
    sensible_heat
        Upward, W m-2: that of the step before.
    canopy_height, measurement_height
        m.
    iterations
        Of stability and friction velocity, from neutral air.
    """
    height = measurement_height - 0.6 * canopy_height
    roughness = 0.1 * canopy_height
    kelvin = air_temperature + FREEZING
    density = pressure * AIR_MOLAR_MASS / (8.314 * kelvin)
    profile = jnp.log(height / roughness)
    wind = VON_KARMAN * jnp.maximum(wind_speed, 0.75)
    buoyancy = VON_KARMAN * GRAVITY * height * sensible_heat / (density * AIR_HEAT_CAPACITY * kelvin)
    velocity = jnp.maximum(wind / profile, 0.1)
    for _ in range(iterations):
        stability = jnp.clip(-buoyancy / velocity**3, -3.0, 0.25)
        lower = stability * roughness / height
        correction = momentum_correction(stability) - momentum_correction(lower)
        velocity = jnp.maximum(wind / jnp.maximum(profile - correction, 0.1 * profile), 0.1)
    return velocity


def make_forcing(
    given: Mapping[str, Array],
    monthly: Mapping[str, Array],
    time: tuple[Array, Array],
    measurement_height: Array,
    sensible_heat: Array,
) -> tuple[Forcing, Array]:
    """Return the model's forcing and the measurement height, m.

    Parameters
    ----------
    given
        Inputs by symbol, in the units of `published_inputs`, ``[site]``.
    monthly
        Those of `SLOW` that are not given, ``[month, site]``.
    time
        Day of the year and local standard hour of the step's end, each ``[site]``.
    measurement_height
        m; NaN: `CLEARANCE` above the canopy.
    sensible_heat
        Of the step before, W m-2.
    """
    slow = dict(given) | {symbol: monthly_value(values, time[0]) for symbol, values in monthly.items()}
    temperature, pressure = given["temperature"] - FREEZING, given["pressure"] / 1000.0
    if "vapour_pressure" in given:
        vapour, wind = given["vapour_pressure"], given["wind_speed"]
    else:
        vapour = vapour_pressure(given["specific_humidity"], given["pressure"])
        wind = jnp.hypot(given["wind_x"], given["wind_y"])
    canopy = slow["canopy_height"]
    height = jnp.where(jnp.isnan(measurement_height), canopy + CLEARANCE, measurement_height)
    if "friction_velocity" in given:
        friction = given["friction_velocity"]
    else:
        friction = friction_velocity(wind, temperature, pressure, sensible_heat, canopy, height)
    forcing = Forcing(
        day_of_year=time[0],
        hour=time[1],
        air_temperature=temperature,
        shortwave=given["shortwave"],
        vapour_pressure=vapour,
        wind_speed=wind,
        co2=slow["carbon_dioxide"],
        pressure=pressure,
        friction_velocity=friction,
        soil_temperature=slow["soil_temperature"],
        soil_moisture=slow["soil_water_content"],
        leaf_area_index=slow["leaf_area_index"],
        canopy_height=canopy,
        longwave=given.get("longwave", jnp.full_like(temperature, jnp.nan)),
    )
    return forcing, height


def monthly_table(values: Sequence[float | Sequence[float]]) -> NDArray[np.float64]:
    """Return ``[month, site]`` of one constant or twelve monthly values per site."""
    return np.stack([np.broadcast_to(np.asarray(value, dtype=np.float64), 12) for value in values], axis=1)
