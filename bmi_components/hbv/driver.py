"""What drives δHBV: precipitation, temperature and potential evapotranspiration, given or made from weather."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.errors import ConfigurationError
from bmi_components.forcing import pet
from bmi_components.hbv.stepper import Driver
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.stepper import Aggregation
from bmi_components.variables import variable

__all__ = ["Evapotranspiration", "make_driver"]

Evapotranspiration = Literal["given", "penman_monteith", "hargreaves", "oudin"]
Vector = NDArray[np.float64]

SECONDS_PER_DAY = 86400.0
AORC = (
    *("precipitation", "temperature", "specific_humidity", "longwave", "shortwave"),
    *("pressure", "wind_x", "wind_y"),
)
"""The eight inputs of NextGen, by symbol."""


def _hourly_weather(
    precipitation: Tensor,
    temperature: Tensor,
    humidity: Tensor,
    longwave: Tensor,
    shortwave: Tensor,
    pressure: Tensor,
    wind_x: Tensor,
    wind_y: Tensor,
) -> tuple[Tensor, ...]:
    """From AORC weather to mm d-1, degC and, by the hourly Penman-Monteith equation, mm d-1."""
    evaporation = pet.penman_monteith_hourly(
        temperature, humidity, pressure, shortwave, longwave, wind_x, wind_y
    )
    return precipitation * SECONDS_PER_DAY, temperature, evaporation * 24.0


def _daily_weather(
    precipitation: Tensor,
    temperature: Tensor,
    humidity: Tensor,
    longwave: Tensor,
    shortwave: Tensor,
    pressure: Tensor,
    wind_x: Tensor,
    wind_y: Tensor,
) -> tuple[Tensor, ...]:
    """The same from daily means, by the daily Penman-Monteith equation without a diurnal range."""
    wind = torch.sqrt(wind_x * wind_x + wind_y * wind_y)
    evaporation = pet.penman_monteith_daily(
        temperature, temperature, temperature, humidity, pressure, shortwave, longwave, wind
    )
    return precipitation * SECONDS_PER_DAY, temperature, evaporation


def _oudin(temperature: Tensor, latitude: Tensor, day: Tensor) -> tuple[Tensor, ...]:
    return (pet.oudin(temperature, latitude, day),)


def _hargreaves(mean: Tensor, low: Tensor, high: Tensor, latitude: Tensor, day: Tensor) -> tuple[Tensor, ...]:
    return (pet.hargreaves(mean, low, high, latitude, day),)


def make_driver(
    method: Evapotranspiration,
    nextgen: bool,
    time_step: float,
    latitude: Vector,
    start_time: datetime.datetime | None,
) -> Driver:
    """Choose inputs and how they become the model's forcing.

    Parameters
    ----------
    method
        Where potential evapotranspiration comes from.
    nextgen
        Whether to publish the eight AORC inputs of NextGen (precipitation in mm s-1), needed or not.
    time_step
        Of the model, s.
    latitude
        Degrees north, ``[catchment]``; NaN where unknown.
    start_time
        Date of time 0, for methods that follow the sun.

    Raises
    ------
    ConfigurationError
        If the method needs a latitude or a date that is not there, or does not fit the time step.
    """
    n = latitude.size
    if method in ("hargreaves", "oudin"):
        if not np.isfinite(latitude).all():
            raise ConfigurationError(f"potential evapotranspiration by {method} needs the latitude of every catchment")
        if start_time is None:
            raise ConfigurationError(f"potential evapotranspiration by {method} needs start_time, the date of time 0")
        if time_step != SECONDS_PER_DAY:
            raise ConfigurationError(
                f"{method} gives daily potential evapotranspiration; an hourly model needs penman_monteith or given"
            )
    daily = time_step == SECONDS_PER_DAY
    if nextgen or method == "penman_monteith":
        inputs = tuple(variable(s, "mm s-1" if s == "precipitation" else None) for s in AORC)
        per_day = SECONDS_PER_DAY
    else:
        names = ("precipitation", "temperature", *(["potential_evapotranspiration"] if method == "given" else []))
        units = None if daily else "mm h-1"
        inputs = tuple(variable(s, None if s == "temperature" else units) for s in names)
        per_day = 1.0 if daily else 24.0

    if method == "given":
        if nextgen:
            raise ConfigurationError(
                "NextGen gives no potential evapotranspiration; choose penman_monteith or hargreaves"
            )
        if daily:
            return Driver(inputs, ("mean",) * 3)
        factors = np.repeat([per_day, 1.0, per_day], n)
        return Driver(inputs, ("mean",) * 3, lambda values, time, seconds: values * factors)

    if method == "penman_monteith":
        hourly_weather = compiled_elementwise(_hourly_weather, 8, 3, "float64")
        daily_weather = compiled_elementwise(_daily_weather, 8, 3, "float64") if daily else hourly_weather
        rows = np.empty((3, n))

        def weather(values: Vector, time: float, seconds: float) -> Vector:
            equation = daily_weather if seconds >= SECONDS_PER_DAY else hourly_weather
            return equation(values.reshape(8, n), rows).reshape(-1)

        return Driver(inputs, ("mean",) * 3, weather)

    assert start_time is not None
    day_of_year = _calendar(start_time)
    aggregations: tuple[Aggregation, ...]
    if method == "oudin":
        function, aggregations = compiled_elementwise(_oudin, 3, 1, "float64"), ("mean", "mean")
    else:
        function = compiled_elementwise(_hargreaves, 5, 1, "float64")
        aggregations = ("mean", "mean", "min", "max")
    count = len(aggregations)
    arguments, forcing = np.empty((count + 1, n)), np.empty((3, n))
    arguments[-2] = latitude

    def split(values: Vector, time: float, seconds: float) -> Vector:
        rows = np.empty((count, n))
        rows[0] = values[:n] * per_day
        rows[1:] = values[n : 2 * n]
        return rows.reshape(-1)

    def complete(values: Vector, time: float) -> Vector:
        table = values.reshape(count, n)
        forcing[:2] = table[:2]
        arguments[: count - 1] = table[1:]
        arguments[-1] = day_of_year(time)
        function(arguments, forcing[2:])
        return forcing.reshape(-1)

    return Driver(inputs, aggregations, split, complete)


def _calendar(start: datetime.datetime) -> Callable[[float], float]:
    """Return a function from seconds since the start to the day of the year, 1 on 1 January."""

    def day_of_year(time: float) -> float:
        return float((start + datetime.timedelta(seconds=time)).timetuple().tm_yday)

    return day_of_year
