"""Runoff as callers want it: a depth per update, a rate, and streamflow at the outlet."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.variables import CATALOGUE, Variable, variable

__all__ = ["OutputVariable", "runoff_outputs"]

Vector = NDArray[np.float64]
SECONDS_PER_DAY = 86_400.0


@dataclass(frozen=True)
class OutputVariable:
    """A published output: which of the model's outputs it is, and the factor to its units, ``[catchment]`` or one."""

    variable: Variable
    source: str
    factor: float | Vector = 1.0


def runoff_outputs(source: str, units: str, area: Vector) -> list[OutputVariable]:
    """Return runoff depth and rate, and streamflow where every area is known, of a model's output in mm d-1.

    Parameters
    ----------
    source
        Name of the model's output.
    units
        Of the published rate: "mm d-1", "m h-1" or, as NextGen's LSTM has it, "m3 s-1".
    area
        Of the catchments, km2, ``[catchment]``; NaN where unknown.

    Raises
    ------
    ConfigurationError
        If the rate is to be a volume and an area is not known.
    """
    volume = 1e3 * area / SECONDS_PER_DAY
    has_areas = bool(np.isfinite(area).all())
    if units == "m3 s-1" and not has_areas:
        raise ConfigurationError("a runoff rate in m3 s-1 needs the area of every catchment: give area_km2")
    rates: dict[str, float | Vector] = {"mm d-1": 1.0, "m h-1": 1e-3 / 24.0, "m3 s-1": volume}
    outputs = [
        # An amount per update is given as a rate, m s-1: the component knows how long the update was.
        OutputVariable(variable("runoff_depth"), source, 1e-3 / SECONDS_PER_DAY),
        OutputVariable(CATALOGUE["runoff_rate"].with_units(units), source, rates[units]),
    ]
    if has_areas:
        outputs.append(OutputVariable(variable("streamflow"), source, volume))
    return outputs
