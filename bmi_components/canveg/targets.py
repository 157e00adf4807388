"""The fluxes that a canopy model is judged by, and the conditions under which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.tower import TowerForcing

__all__ = ["CONDITIONS", "TARGETS", "Target", "conditions"]

DAYLIGHT = 10.0
"""Shortwave radiation above which it is day, W m-2."""


class Target(NamedTuple):
    """A flux that is judged: its symbol, name and units, for tables and figures."""

    symbol: str
    name: str
    units: str


TARGETS: Mapping[str, Target] = {
    "latent_heat": Target("LE", "latent heat", "W m⁻²"),
    "sensible_heat": Target("H", "sensible heat", "W m⁻²"),
    "net_radiation": Target("Rn", "net radiation", "W m⁻²"),
    "soil_heat": Target("G", "soil heat", "W m⁻²"),
    "net_ecosystem_exchange": Target("NEE", "net ecosystem exchange", "µmol m⁻² s⁻¹"),
}
"""By the field of `Fluxes` and `TowerFluxes`."""

CONDITIONS = ("all", "day", "night", "dry soil", "wet soil")


def conditions(forcing: TowerForcing) -> dict[str, NDArray[np.bool_]]:
    """Return the steps of each condition, bool ``[time]``.

    Day is where shortwave radiation exceeds 10 W m-2. Dry and wet are the drier and the wetter half of the period, so
    that they mean something at every tower.
    """
    day = forcing.forcing.shortwave > DAYLIGHT
    moisture = forcing.forcing.soil_moisture
    dry = moisture <= np.median(moisture)
    return dict(zip(CONDITIONS, (np.ones_like(day), day, ~day, dry, ~dry), strict=True))
