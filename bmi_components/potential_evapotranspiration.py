"""PotentialEvapotranspiration: what the air could take up, hour by hour, for components that are fed with it."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.catchments import Catchment, Site, read_catchments
from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.evaporation import oudin
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import variable

__all__ = ["PotentialEvapotranspiration", "PotentialEvapotranspirationSettings"]

Array = NDArray[np.float64]

HOUR = 3600.0
INPUTS = {
    "oudin": ("temperature",),
    "penman_monteith": (
        *("temperature", "specific_humidity", "pressure", "shortwave", "longwave"),
        *("wind_x", "wind_y"),
    ),
}
"""Symbols of what each method reads, in the order of its function."""


class PotentialEvapotranspirationSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a PotentialEvapotranspiration component."""

    method: Annotated[
        Literal["oudin", "penman_monteith"],
        Meta(
            description="oudin: from temperature, latitude and date; penman_monteith: the reference crop of FAO-56, "
            "from NextGen's weather."
        ),
    ] = "oudin"
    catchments: Annotated[
        tuple[Catchment, ...], Meta(description="The catchments: id, and latitude for oudin.")
    ] = ()
    catchments_file: Annotated[
        Path | None, Meta(description="CSV table instead: columns id, latitude; others are passed over.")
    ] = None


class PotentialEvapotranspirationStepper(ArrayStepper):
    """The equation of `method` for all catchments; it remembers nothing.

    Oudin's equation is linear in temperature above -5 degC, so the mean of a day's hours is its daily value there.
    """

    time_step = HOUR

    def __init__(self, method: str, latitude: Array, start: datetime.datetime | None) -> None:
        self.method, self.latitude, self.size = method, latitude, latitude.size
        self.start = None if start is None else np.datetime64(start.replace(tzinfo=None), "s")
        self.identity = f"potential evapotranspiration {method}"
        self.inputs = tuple(variable(symbol) for symbol in INPUTS[method])
        self.outputs = (variable("potential_evapotranspiration"),)
        self.state = {}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Compute the hour, mm d-1."""
        weather = forcings.reshape(len(self.inputs), self.size)
        if self.start is not None and self.method == "oudin":
            date = self.start + np.timedelta64(int(time), "s")
            outputs[:] = oudin(weather, self.latitude, np.array([date]))[0]
        else:
            outputs[:] = _penman_monteith(weather)
        return outputs

    def initial_outputs(self, outputs: Array) -> None:
        """Nothing has evaporated yet."""
        outputs[:] = 0.0


def _penman_monteith(weather: Array) -> Array:
    """Return reference evapotranspiration of an hour, mm d-1, ``[catchment]``; weather in the order of `INPUTS`."""
    import torch

    from bmi_components.forcing import pet

    result = pet.penman_monteith_hourly(*torch.from_numpy(np.ascontiguousarray(weather))) * 24.0
    return np.asarray(result.numpy(), dtype=np.float64)


class PotentialEvapotranspiration(Component):
    """Potential evapotranspiration of Oudin or of FAO-56 Penman-Monteith, by the hour, as a BMI component.

    It feeds models that take potential evapotranspiration as given, where nothing else supplies it: the shipped
    streamflow LSTM in NextGen, for one.
    """

    name = "PotentialEvapotranspiration"
    METADATA = "pymt/PotentialEvapotranspiration"
    settings_type = PotentialEvapotranspirationSettings

    def open(self, settings: PotentialEvapotranspirationSettings) -> PotentialEvapotranspirationStepper:
        """Return the equation bound to its catchments."""
        catchments = read_catchments(settings.catchments, settings.catchments_file)
        latitude = Site.of(catchments).latitude
        if settings.method == "oudin":
            if settings.start_time is None:
                raise ConfigurationError("start_time is missing: Oudin's equation needs the date")
            wrong = np.flatnonzero(~(np.abs(latitude) <= 90.0))
            if wrong.size:
                name = catchments[int(wrong[0])].id
                raise ConfigurationError(
                    f"catchment {name}: the latitude is missing or no latitude; Oudin's equation needs degrees north"
                )
        return PotentialEvapotranspirationStepper(settings.method, latitude, settings.start_time)
