"""Conversion of units by UDUNITS-2 (through cf-units, which loads on first use)."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

from bmi_components.errors import UnitsError

__all__ = ["Conversion", "converter", "convertible"]

_Value = TypeVar("_Value", bound=Any)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A linear change of units: ``new = old * scale + offset``; call it on numbers, arrays or tensors."""

    scale: float
    offset: float

    def __call__(self, values: _Value) -> _Value:
        """Convert values; nothing is touched where the units are the same."""
        if self.scale == 1.0 and self.offset == 0.0:
            return values
        if self.offset == 0.0:
            return values * self.scale  # type: ignore[no-any-return]
        return values * self.scale + self.offset  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=256)
def converter(source: str, target: str) -> Conversion:
    """Return the conversion from ``source`` to ``target`` units.

    Raises
    ------
    UnitsError
        If either cannot be parsed, or they measure different things.
    """
    if source == target:
        _parse(source)
        return Conversion(1.0, 0.0)
    source_unit, target_unit = _parse(source), _parse(target)
    if not source_unit.is_convertible(target_unit):
        raise UnitsError(f"units {source!r} do not convert to {target!r}: they measure different things")
    zero, one = (float(source_unit.convert(value, target_unit)) for value in (0.0, 1.0))
    if zero == 0.0:
        return Conversion(one, 0.0)
    # UDUNITS gives the two ends of a unit step; far from zero their difference loses digits, so use a long lever.
    lever = float(source_unit.convert(2.0**20, target_unit))
    return Conversion(_tidy((lever - zero) / 2.0**20), zero)


def convertible(source: str, target: str) -> bool:
    """Whether both are units, and measure the same thing."""
    try:
        converter(source, target)
    except UnitsError:
        return False
    return True


def _tidy(scale: float) -> float:
    """Undo the last-digit noise of a scale taken as a difference: degC to K is 1, not 1.0000000000000002."""
    ratio = float(Fraction(scale).limit_denominator(10_000))
    return ratio if abs(ratio - scale) <= 1e-13 * abs(scale) else scale


def _parse(units: str) -> Any:
    import cf_units

    hint = {"C": "degC", "F": "degF", "-": "1", "none": "1", "": "1", "hrs": "h", "cms": "m3 s-1"}.get(units)
    advice = f"; write {hint!r}" if hint else ""
    try:
        parsed = cf_units.Unit(units)
    except ValueError:
        raise UnitsError(f"units {units!r} are not UDUNITS-2 units{advice}") from None
    if hint is not None or parsed.is_unknown() or parsed.is_no_unit():
        raise UnitsError(f"units {units!r} do not mean in UDUNITS-2 what they seem to{advice}")
    return parsed
