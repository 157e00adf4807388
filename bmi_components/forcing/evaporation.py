"""Potential evapotranspiration for forcing that lacks it: temperature, latitude and the date suffice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.series import DAY, Forcing, Times
from bmi_components.variables import Variable, variable

__all__ = ["Method", "add_potential_evapotranspiration", "latitudes_of", "oudin"]

Method = Literal["oudin"]
"""Methods that need daily mean temperature only."""


def oudin(
    temperature: NDArray[np.float64], latitude: NDArray[np.float64], time: Times
) -> NDArray[np.float64]:
    """Return Oudin's potential evapotranspiration (``pet.oudin``) on NumPy arrays.

    Parameters
    ----------
    temperature
        Daily mean air temperature, degC, ``[time, catchment]``.
    latitude
        Degrees north, ``[catchment]``.
    time
        Days, ``[time]``.

    Returns
    -------
    NDArray
        mm d-1, ``[time, catchment]``.
    """
    import torch

    from bmi_components.forcing import pet

    result = pet.oudin(
        torch.from_numpy(temperature),
        torch.from_numpy(latitude),
        torch.from_numpy(day_of_year(time).astype(np.float64)[:, np.newaxis]),
    )
    return np.asarray(result.numpy(), dtype=np.float64)


def day_of_year(time: Times) -> NDArray[np.int64]:
    """Return the day of the year, 1 on 1 January."""
    days = time.astype("datetime64[D]")
    ordinal: NDArray[np.int64] = (days - days.astype("datetime64[Y]").astype("datetime64[D]")).astype(
        np.int64
    )
    return ordinal + 1


def add_potential_evapotranspiration(
    forcing: Forcing, target: Variable, latitude: Mapping[str, float] | float
) -> Forcing:
    """Return the forcing with Oudin's potential evapotranspiration of its days.

    The hours of a day all get the rate that the day's mean temperature gives.

    Parameters
    ----------
    forcing
        Holds "temperature" in units that convert to degC, in steps of a day or a fraction of it.
    target
        The variable to add, whose units the values get.
    latitude
        Degrees north: one for all, or by catchment.

    Raises
    ------
    ConfigurationError
        If a catchment has no latitude, or the latitude is not on the globe.
    ForcingError
        If the forcing's steps do not add up to whole days.
    """
    from bmi_components.units import converter

    degrees = latitudes_of(forcing.catchments, latitude)
    source = next(v for v in forcing.variables if v.symbol == "temperature")
    daily = forcing.aggregate(DAY) if forcing.time_step < DAY else forcing
    temperature = converter(source.units, "degC")(daily.values["temperature"])
    values = converter(variable("potential_evapotranspiration").units, target.units)(
        oudin(temperature, degrees, daily.time)
    )
    return forcing.with_values(target, np.repeat(values, forcing.time.size // daily.time.size, axis=0))


def latitudes_of(catchments: tuple[str, ...], latitude: Mapping[str, float] | float) -> NDArray[np.float64]:
    """Return the latitude of each catchment, degrees north.

    Raises
    ------
    ConfigurationError
        If one is missing or beyond a pole.
    """
    if isinstance(latitude, Mapping):
        absent = [name for name in catchments if name not in latitude]
        if absent:
            raise ConfigurationError(
                f"there is no latitude for catchment {absent[0]!r}; add it under 'latitude'"
            )
        degrees = np.array([latitude[name] for name in catchments], dtype=np.float64)
    else:
        degrees = np.full(len(catchments), float(latitude))
    if not (np.abs(degrees) <= 90.0).all():
        raise ConfigurationError("a latitude lies outside of -90 to 90 degrees")
    return degrees
