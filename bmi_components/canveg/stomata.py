"""Which form of stomatal conductance the canopy's leaves have."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from bmi_components.ball_berry.conductance import ball_berry_slope, hybrid_slope, medlyn_slope
from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import Parameters

__all__ = ["conductance_slope", "steepest_slope"]

Array = Any


def conductance_slope(
    options: Options, parameters: Parameters, vapour_pressure: Array, saturation: Array, soil_moisture: Array
) -> Array:
    """Return the slope of conductance against assimilation over CO2, 1.

    Parameters
    ----------
    options, parameters
        The form and its parameters.
    vapour_pressure, saturation
        Of the air, and of the leaf at its temperature, Pa.
    soil_moisture
        m3 m-3.
    """
    p = parameters
    if options.conductance == "hybrid":
        return hybrid_slope(
            soil_moisture,
            saturation / vapour_pressure,
            p.conductance_slope,
            p.humidity_network,
            p.scaling.soil_moisture_mean,
            p.scaling.soil_moisture_std,
        )
    if options.conductance == "medlyn":
        return medlyn_slope((saturation - vapour_pressure) / 1000.0, p.medlyn_slope)
    return ball_berry_slope(vapour_pressure / saturation, p.conductance_slope)


def steepest_slope(options: Options, parameters: Parameters) -> Array:
    """Return the slope that conductance keeps to in air above saturation."""
    return jnp.inf if options.conductance == "medlyn" else parameters.conductance_slope
