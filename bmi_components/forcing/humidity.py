"""Humidity of the air in the measures that forcing and models use, for arrays and tensors of any framework."""

from __future__ import annotations

from typing import Any

__all__ = ["vapour_pressure"]

MOLAR_MASS_RATIO = 0.622
"""Of water vapour and dry air."""


def vapour_pressure(specific_humidity: Any, pressure: Any) -> Any:
    """Return the partial pressure of water vapour, kPa (Wallace and Hobbs 2006, section 3.5).

    Parameters
    ----------
    specific_humidity
        Water vapour per moist air, kg kg-1.
    pressure
        Of the air, Pa.
    """
    return specific_humidity * (pressure / 1000.0) / (MOLAR_MASS_RATIO + 0.378 * specific_humidity)
