"""What drives δHBV: precipitation, temperature and potential evapotranspiration, given or made from weather."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.errors import ConfigurationError
from bmi_components.forcing import pet
from bmi_components.hbv.settings import Evapotranspiration
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.stepper import Aggregation
from bmi_components.variables import Variable, variable

__all__ = ["Driver", "make_driver"]

Vector = NDArray[np.float64]

Rows = Any
"""``[row, catchment]``: a NumPy array on the host, a tensor on a device."""

SECONDS_PER_DAY = 86400.0
AORC = (
    *("precipitation", "temperature", "specific_humidity", "longwave", "shortwave"),
    *("pressure", "wind_x", "wind_y"),
)
"""The eight inputs of NextGen, by symbol."""


@dataclass(frozen=True)
class Driver:
    """How published inputs become precipitation [mm d-1], temperature [degC] and potential evapotranspiration [mm d-1].

    ``prepare(inputs, seconds)`` turns the inputs in force over so many seconds into rows that are aggregated over the
    step by ``aggregations``; ``forcing(rows, time)`` turns these into the three forcings of the step that starts at
    ``time``. None: nothing to do. Both take and return ``[row, catchment]``.
    """

    inputs: tuple[Variable, ...]
    aggregations: tuple[Aggregation, ...]
    prepare: Callable[[Rows, float], Rows] | None = None
    forcing: Callable[[Rows, float], Rows] | None = None


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


def _means_and_extremes(
    precipitation: Tensor,
    temperature: Tensor,
    humidity: Tensor,
    longwave: Tensor,
    shortwave: Tensor,
    pressure: Tensor,
    wind_x: Tensor,
    wind_y: Tensor,
) -> tuple[Tensor, ...]:
    """The rows whose daily means (temperature: mean, minimum, maximum) the daily Penman-Monteith equation takes."""
    wind = torch.sqrt(wind_x * wind_x + wind_y * wind_y)
    temperatures = (temperature, temperature, temperature)
    return precipitation * SECONDS_PER_DAY, *temperatures, humidity, pressure, shortwave, longwave, wind


def _daily_penman_monteith(
    mean: Tensor,
    low: Tensor,
    high: Tensor,
    humidity: Tensor,
    pressure: Tensor,
    shortwave: Tensor,
    longwave: Tensor,
    wind: Tensor,
) -> tuple[Tensor, ...]:
    return (pet.penman_monteith_daily(mean, low, high, humidity, pressure, shortwave, longwave, wind),)


def _oudin(temperature: Tensor, latitude: Tensor, day: Tensor) -> tuple[Tensor, ...]:
    return (pet.oudin(temperature, latitude, day),)


def _hargreaves(mean: Tensor, low: Tensor, high: Tensor, latitude: Tensor, day: Tensor) -> tuple[Tensor, ...]:
    return (pet.hargreaves(mean, low, high, latitude, day),)


def _given(precipitation: Tensor, temperature: Tensor, evaporation: Tensor) -> tuple[Tensor, ...]:
    """From mm h-1 to mm d-1."""
    return precipitation * 24.0, temperature, evaporation * 24.0


def _extremes(precipitation: Tensor, temperature: Tensor) -> tuple[Tensor, ...]:
    """Precipitation, and temperature three times: for its mean, minimum and maximum over the day."""
    return precipitation, temperature, temperature, temperature


def _aorc_extremes(precipitation: Tensor, temperature: Tensor) -> tuple[Tensor, ...]:
    return precipitation * SECONDS_PER_DAY, temperature, temperature, temperature


def _aorc_means(precipitation: Tensor, temperature: Tensor) -> tuple[Tensor, ...]:
    return precipitation * SECONDS_PER_DAY, temperature


def _applied(
    function: Callable[..., Sequence[Tensor]], arguments: int, results: int, on_host: bool
) -> Callable[[Rows], Rows]:
    """Return a torch function as a function of rows: machine code on the host, torch on a device."""
    if not on_host:
        return lambda rows: torch.stack(tuple(function(*rows[:arguments])))
    compiled = compiled_elementwise(function, arguments, results, "float64")

    def run(rows: Rows) -> Rows:
        return compiled(rows[:arguments], np.empty((results, rows.shape[1])))

    return run


def make_driver(
    method: Evapotranspiration,
    nextgen: bool,
    time_step: float,
    latitude: Vector,
    start_time: datetime.datetime | None,
    device: str | None = None,
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
    device
        Where the rows are tensors; None: NumPy arrays on the host.

    Raises
    ------
    ConfigurationError
        If the method needs a latitude or a date that is not there, or does not fit the inputs or the time step.
    """
    daily = time_step == SECONDS_PER_DAY
    aorc = nextgen or method.startswith("penman_monteith")
    on_host = device is None
    if aorc:
        inputs = tuple(variable(s, "mm s-1" if s == "precipitation" else None) for s in AORC)
    else:
        names = (
            "precipitation",
            "temperature",
            *(["potential_evapotranspiration"] if method == "given" else []),
        )
        inputs = tuple(variable(s, None if daily or s == "temperature" else "mm h-1") for s in names)

    if method == "given":
        if nextgen:
            raise ConfigurationError(
                "NextGen gives no potential evapotranspiration: choose penman_monteith (or hargreaves, by the day)"
            )
        prepare = None if daily else _applied(_given, 3, 3, on_host)
        return Driver(inputs, ("mean",) * 3, None if prepare is None else lambda rows, seconds: prepare(rows))

    if method == "penman_monteith":
        weather = _applied(_hourly_weather, 8, 3, on_host)
        return Driver(inputs, ("mean",) * 3, lambda rows, _: weather(rows))

    if not daily:
        raise ConfigurationError(
            f"{method} gives daily potential evapotranspiration; an hourly model needs penman_monteith or given"
        )
    aggregations: tuple[Aggregation, ...]
    if method == "penman_monteith_daily":
        aggregations = ("mean", "mean", "min", "max", *("mean",) * 5)
        split, equation = (
            _applied(_means_and_extremes, 8, 9, on_host),
            _applied(_daily_penman_monteith, 8, 1, on_host),
        )

        def combined(rows: Rows, time: float) -> Rows:
            joined = np.concatenate if on_host else torch.cat
            return joined([rows[:2], equation(rows[1:])])

        return Driver(inputs, aggregations, lambda rows, _: split(rows), combined)

    if not np.isfinite(latitude).all():
        raise ConfigurationError(
            f"potential evapotranspiration by {method} needs the latitude of every catchment"
        )
    if start_time is None:
        raise ConfigurationError(
            f"potential evapotranspiration by {method} needs start_time, the date of time 0"
        )
    if method == "oudin":
        aggregations, function = ("mean", "mean"), _applied(_oudin, 3, 1, on_host)
        rows_of = _applied(_aorc_means, 2, 2, on_host) if aorc else None
    else:
        aggregations, function = ("mean", "mean", "min", "max"), _applied(_hargreaves, 5, 1, on_host)
        rows_of = _applied(_aorc_extremes if aorc else _extremes, 2, 4, on_host)
    sun = np.stack([latitude, latitude])

    def with_evaporation(rows: Rows, time: float) -> Rows:
        sun[1] = float((start_time + datetime.timedelta(seconds=time)).timetuple().tm_yday)
        if device is None:
            evaporation = function(np.concatenate([rows[1:], sun]))
            return np.concatenate([rows[:2], evaporation])
        evaporation = function(torch.cat([rows[1:], torch.from_numpy(sun).to(rows)]))
        return torch.cat([rows[:2], evaporation])

    return Driver(
        inputs, aggregations, None if rows_of is None else lambda rows, _: rows_of(rows), with_evaporation
    )
