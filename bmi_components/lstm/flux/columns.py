"""Columns of tower files as published variables: Standard Names, catalogue units, conversion to the model's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bmi_components.forcing.flux_conventions import own_name, symbol_of
from bmi_components.trained_model import NamedUnits
from bmi_components.units import converter, convertible
from bmi_components.variables import CATALOGUE, Variable

__all__ = ["CARBON", "Conversions", "column_variable", "input_variables"]

CARBON = 12.011e-6 * 86_400.0
"""Grams of carbon per day in 1 umol s-1."""


@dataclass(frozen=True)
class Conversions:
    """Linear conversions of several quantities at once, ``values * scale + offset``, ``[quantity, 1]`` each."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def between(cls, sources: Sequence[str], targets: Sequence[str]) -> Conversions:
        """Return the conversions from units to units, pair by pair.

        Raises
        ------
        UnitsError
            If a pair does not convert.
        """
        pairs = [converter(source, target) for source, target in zip(sources, targets, strict=True)]
        return cls(np.array([[pair.scale] for pair in pairs]), np.array([[pair.offset] for pair in pairs]))

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert ``[quantity, tower]``."""
        return values * self.scale + self.offset


def column_variable(column: NamedUnits) -> Variable:
    """Return the published variable of a column: the catalogue's, or one named after the column in its own units."""
    symbol = symbol_of(column.name)
    if symbol is not None:
        known = CATALOGUE[symbol]
        if convertible(column.units, known.units):
            return known
    return _own_variable(column)


def input_variables(columns: Sequence[NamedUnits]) -> tuple[Variable, ...]:
    """Return the published variables of the inputs; a missing value is data.

    Columns that measure the same quantity at different positions keep their own names. Ranges are wider than those of
    the quantities: instruments err, and a model that was trained with their errors shall not stop at them.
    """
    found = [column_variable(column) for column in columns]
    names = [variable.name for variable in found]
    return tuple(
        replace(
            variable if names.count(variable.name) == 1 else _own_variable(column),
            nan_is_data=True,
            valid_range=_widened(variable.valid_range),
        )
        for variable, column in zip(found, columns, strict=True)
    )


def _widened(valid_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return a range that is a tenth of its width longer at both ends."""
    if valid_range is None:
        return None
    low, high = valid_range
    margin = 0.1 * (high - low) if math.isfinite(high - low) else 0.0
    return low - margin, high + margin


def _own_variable(column: NamedUnits) -> Variable:
    return Variable(
        own_name(column.name), column.units, column.name, f"Column {column.name} of the tower's files"
    )
