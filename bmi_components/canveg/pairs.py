"""Two unknowns that answer each other, many such pairs side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Pairs"]

Array = Any


class Pairs(NamedTuple):
    """Matrices of two rows, arrays of one shape: how ``first`` and ``second`` come from the one and from the other."""

    first_of_first: Array
    first_of_second: Array
    second_of_first: Array
    second_of_second: Array

    def inverse(self) -> Pairs:
        """Return the inverse matrices."""
        a, b, c, d = self
        scale = 1.0 / (a * d - b * c)
        return Pairs(d * scale, -b * scale, -c * scale, a * scale)

    def of(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Return the products with pairs."""
        a, b, c, d = self
        return a * first + b * second, c * first + d * second
