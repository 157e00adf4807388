"""How the air of a canopy mixes: its dispersion matrix, and the modes in which sources and air answer each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

__all__ = ["Mixing", "make_mixing"]

Array = Any


class Mixing(NamedTuple):
    """A dispersion matrix, made ready for the corrected mode.

    Attributes
    ----------
    matrix
        ``[row, layer]``, s m-1 at a friction velocity of 1 m s-1; or ``[site, row, layer]``, and so the others.
    strengths, modes
        Eigenvalues ``[layer]`` and eigenvectors ``[layer, mode]`` of its symmetric part within the canopy, seen from
        the top.
    """

    matrix: Array
    strengths: Array
    modes: Array


def make_mixing(matrix: Array) -> Mixing:
    """Return a dispersion matrix with its modes: once per matrix, for they cost as much as a step of the canopy."""
    matrix = np.asarray(matrix)
    layers = matrix.shape[-1]
    within = (matrix - matrix[..., -1:, :])[..., :layers, :].astype(np.float64)
    strengths, modes = np.linalg.eigh(0.5 * (within + np.swapaxes(within, -1, -2)))
    return Mixing(matrix, strengths.astype(matrix.dtype), modes.astype(matrix.dtype))
