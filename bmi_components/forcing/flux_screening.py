"""Gaps that somebody has filled with straight lines, found and opened again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from bmi_components.forcing.flux_tower import FluxTable

__all__ = ["without_straight_lines"]

_STRAIGHT = 1e-4
"""Largest change of slope on a straight line, in standard deviations of the column."""


def without_straight_lines(table: FluxTable, columns: Sequence[str], hours: float = 18.0) -> FluxTable:
    """Return the table with gaps where a column runs along a straight line for a long time.

    What varies with the sun or the weather does not do that: the line is an interpolation across a gap. The ends of the
    line, which may have been measured, are kept. Not for columns that rest naturally, such as precipitation, snow depth
    or leaf area.

    Parameters
    ----------
    table
        Half-hourly or hourly data.
    columns
        Columns to screen, in a spelling that `FluxTable.find` understands.
    hours
        Length from which a line is a fill; longer than a night, in which radiation rests at zero.

    Raises
    ------
    UnknownNameError
        If the table lacks a column.
    """
    least = int(np.ceil(hours * 3600 / table.step))
    found = [table.find(name) for name in columns]
    opened = {name: _opened(table.columns[name], least) for name in found}
    return replace(table, columns={**table.columns, **opened})


def _opened(values: NDArray[np.float64], least: int) -> NDArray[np.float64]:
    """Return a copy with NaN inside every straight run of at least ``least`` values."""
    if not np.isfinite(values).any():
        return values
    with np.errstate(invalid="ignore"):
        bends = ~(np.abs(np.diff(values, 2)) <= _STRAIGHT * np.nanstd(values))
    inner = np.concatenate(([False], ~bends, [False]))  # both neighbours lie on the same line
    edges = np.flatnonzero(np.diff(inner.astype(np.int8)))
    result = values.copy()
    for first, last in edges.reshape(-1, 2):  # inner[first + 1 : last + 1] is one run
        if last - first >= least:
            result[first + 1 : last + 1] = np.nan
    return result
