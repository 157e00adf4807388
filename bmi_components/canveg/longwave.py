"""Longwave radiation between sky, leaves and soil."""

from __future__ import annotations

from typing import Any

from bmi_components.canveg.layers import Diffuse, Stack, propagate
from bmi_components.canveg.weather import STEFAN_BOLTZMANN

__all__ = ["exchange"]

Array = Any


def exchange(
    stack: Stack,
    emission: Array,
    sky: Array,
    soil_emissivity: Array,
    soil_temperature: Array,
) -> Diffuse:
    """Return longwave radiation at the levels, W m-2.

    Parameters
    ----------
    stack
        The layers, whose leaves scatter what they do not absorb, half of it to either side (`surroundings`).
    emission
        Of each layer, to either side, W m-2, ``[..., layer]``.
    sky
        Incoming, W m-2.
    soil_emissivity, soil_temperature
        1, K.
    """
    return propagate(
        stack,
        emission,
        emission,
        sky,
        1.0 - soil_emissivity,
        soil_emissivity * STEFAN_BOLTZMANN * soil_temperature**4,
    )
