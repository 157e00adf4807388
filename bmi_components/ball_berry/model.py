"""Leaves of one form of stomatal conductance: parameters as a pytree, and the conductance as a pure function."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.ball_berry.conductance import (
    ball_berry_slope,
    hybrid_slope,
    medlyn_slope,
    stomatal_conductance,
)
from bmi_components.ball_berry.network import Network

__all__ = ["LOWEST_HUMIDITY", "Form", "Leaves", "conductance", "leaf_conductance"]

Array = Any

Form = Literal["ball_berry", "hybrid", "medlyn"]

LOWEST_HUMIDITY = 0.01
"""The hybrid form, which divides by relative humidity, sees nothing drier."""


class Leaves(NamedTuple):
    """Parameters of leaves; scalars or ``[leaf]`` but for the network.

    Attributes
    ----------
    conductance_slope
        Of the forms ball_berry and hybrid, 1.
    conductance_intercept
        Conductance without assimilation, mol m-2 s-1.
    medlyn_slope
        g1 of the form medlyn, kPa0.5.
    humidity_network
        Of the form hybrid; None elsewhere.
    soil_moisture_mean, soil_moisture_std
        What the network's first input is scaled with, m3 m-3.
    """

    conductance_slope: Array
    conductance_intercept: Array
    medlyn_slope: Array
    humidity_network: Network | None = None
    soil_moisture_mean: Array = 0.0
    soil_moisture_std: Array = 1.0


@partial(jax.jit, static_argnames="form")
def leaf_conductance(form: Form, leaves: Leaves, inputs: Array) -> Array:
    """Return the stomatal conductance of leaves to water vapour, compiled and differentiable: see `conductance`."""
    return conductance(form, leaves, inputs, jnp)


def conductance(form: Form, leaves: Leaves, inputs: Array, xp: Any) -> Array:
    """Return the stomatal conductance of leaves to water vapour.

    Parameters
    ----------
    form
        How the slope of conductance against assimilation over CO2 comes about.
    leaves
        Parameters.
    inputs
        ``[input, leaf]`` (or ``[input, ...]``): net assimilation, umol m-2 s-1; CO2 at the leaf's surface, umol mol-1;
        then relative humidity there, 1 (ball_berry: more than 1 counts as 1); relative humidity, 1, and soil
        moisture, m3 m-3 (hybrid); or vapour pressure deficit there, kPa (medlyn).
    xp
        Module that computes: ``jax.numpy``, or ``numpy`` for ``[input, leaf]``.

    Returns
    -------
    Array
        ``[leaf]``, mol m-2 s-1.
    """
    assimilation, co2, *state = inputs
    if form == "medlyn":
        slope = medlyn_slope(state[0], leaves.medlyn_slope, xp)
    elif form == "ball_berry":
        slope = ball_berry_slope(xp.minimum(state[0], 1.0), leaves.conductance_slope)
    else:
        assert leaves.humidity_network is not None, "the hybrid form has a network"
        humidity, soil_moisture = state
        slope = hybrid_slope(
            soil_moisture,
            1.0 / xp.maximum(humidity, LOWEST_HUMIDITY),
            leaves.conductance_slope,
            leaves.humidity_network,
            leaves.soil_moisture_mean,
            leaves.soil_moisture_std,
            xp,
        )
    return stomatal_conductance(assimilation, co2, slope, leaves.conductance_intercept, xp)
