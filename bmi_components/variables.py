"""The variables at the BMI boundary: CSDMS Standard Names, UDUNITS-2 units and plain meanings, in one table."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Variable"]


@dataclass(frozen=True, slots=True)
class Variable:
    """One quantity as a caller sees it.

    ``symbol`` is the short name in the models' own code, ``units`` a UDUNITS-2 string ("1" if dimensionless),
    ``valid_range`` the physically possible values in ``units`` (None: any finite number), ``grid`` the grid that
    carries it, ``nan_is_data`` whether a missing value is information rather than a mistake.
    """

    name: str
    units: str
    symbol: str
    description: str
    valid_range: tuple[float, float] | None = None
    grid: str = "catchment"
    nan_is_data: bool = False

    def with_units(self, units: str, valid_range: tuple[float, float] | None = None) -> Variable:
        """Return the same quantity in other units; ``valid_range`` is that of the new units."""
        return replace(self, units=units, valid_range=valid_range)
