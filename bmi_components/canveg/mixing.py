"""How the air of a canopy mixes: its dispersion matrix, and the modes in which sources and air answer each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Mixing", "make_mixing"]

Array = Any


class Mixing(NamedTuple):
    """A dispersion matrix, made ready for use; of several sites all with a leading axis ``[site]``.

    Attributes
    ----------
    departures
        What a source in a layer makes of each row of the air more than of the topmost, s m-1 at a friction velocity of
        1 m s-1: the matrix less its last row, ``[layer, row]``.
    strengths, modes
        Eigenvalues ``[mode]`` and eigenvectors ``[layer, mode]`` of its symmetric part within the canopy.
    to_modes
        What a source in a layer makes of each mode, ``[layer, mode]``.
    """

    departures: Array
    strengths: Array
    modes: Array
    to_modes: Array


def make_mixing(matrix: Array) -> Mixing:
    """Make a dispersion matrix ready, once: its modes cost as much as a step of the canopy.

    Parameters
    ----------
    matrix
        ``[row, layer]`` or ``[site, row, layer]``, s m-1 at a friction velocity of 1 m s-1.
    """
    matrix = np.asarray(matrix)
    departures = np.swapaxes(matrix - matrix[..., -1:, :], -1, -2)
    within = departures[..., : matrix.shape[-1]].astype(np.float64)
    strengths, modes = np.linalg.eigh(0.5 * (within + np.swapaxes(within, -1, -2)))
    return Mixing(
        np.ascontiguousarray(departures),
        *(part.astype(matrix.dtype) for part in (strengths, modes, within @ modes)),
    )
