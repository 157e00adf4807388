"""How much a source of heat, vapour or CO2 in one layer raises the concentration in every other: the dispersion matrix.

Air carries what leaves emit in eddies that last for a while. Near its source a scalar therefore spreads with the
eddies' own speed, and only far from it by the gradient, so that concentration cannot be had from a diffusivity alone
(Raupach 1989). Here the random flight of Thomson (1987) is solved for its mean without drawing any numbers.
"""

from __future__ import annotations

import functools
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bmi_components.errors import BundleError, ConfigurationError

__all__ = [
    "concentration_profile",
    "dispersion_matrix",
    "read_dispersion_matrix",
    "time_scale",
    "velocity_deviation",
]

Array = Any

_GROUND_DEVIATION = 0.25  # of vertical velocity at the ground, over friction velocity (Brunet 2020)
_DEVIATION_ABOVE = 1.25  # above the canopy, neutral (Kaimal and Finnigan 1994)
_CANOPY_TIME = 0.25  # Lagrangian time scale in the canopy, h / u*
_MOMENT_PAIRS = (
    20  # Hermite moments in pairs; 10 to 40 change the matrix by 0.3 % at the source, 0.02 % elsewhere
)
_CANOPY_CELLS = 200


def velocity_deviation(height: npt.ArrayLike) -> Array:
    """Return the standard deviation of vertical velocity over friction velocity, at heights over canopy height.

    It rises evenly from the ground to the canopy's top, and is constant above.
    """
    below = np.minimum(np.asarray(height, float), 1.0)
    return _GROUND_DEVIATION + (_DEVIATION_ABOVE - _GROUND_DEVIATION) * below


def time_scale(height: npt.ArrayLike) -> Array:
    """Return the Lagrangian time scale in canopy heights over friction velocity, at heights over canopy height.

    It is constant in the canopy; above, such that ``velocity_deviation**2 * time_scale`` is the diffusivity of the
    surface layer, 0.4 (z - 0.6 h) u*. The longer of both holds, so that it has no step.
    """
    return np.maximum(_CANOPY_TIME, 0.4 * (np.asarray(height, float) - 0.6) / _DEVIATION_ABOVE**2)


@functools.lru_cache(maxsize=64)
def dispersion_matrix(
    layers: int = 50, atmosphere_layers: int = 50, *, measurement_height_ratio: float = 2.0
) -> Array:
    """Return the dispersion matrix of a canopy for a friction velocity of 1 m s-1 in neutral air.

    It is the same for all canopies, since all lengths are parts of the canopy's height and all times follow from it
    and from friction velocity. Divide by friction velocity for any other.

    Parameters
    ----------
    layers
        Equal layers of the canopy; each emits evenly over its depth.
    atmosphere_layers
        Equal layers from the canopy's top to the height of measurement.
    measurement_height_ratio
        Height of measurement over canopy height, above 1. The published matrices end at 2 whatever the tower's height.

    Returns
    -------
    Array
        s m-1, ``[layers + atmosphere_layers, layers]``, read-only: by how much the mean concentration in a layer
        (row, lowest first) exceeds that at the height of measurement, for a source of 1 m-2 s-1 in a layer (column).
        The last row stands for the height of measurement itself and is zero.

    Raises
    ------
    ConfigurationError
        When there are no layers, or the height of measurement is not above the canopy.

    References
    ----------
    Thomson (1987), J. Fluid Mech. 180, 529-556; Raupach (1989), Q. J. R. Meteorol. Soc. 115, 609-632.
    """
    check_layers(layers, atmosphere_layers)
    if not (math.isfinite(measurement_height_ratio) and measurement_height_ratio > 1.0):
        raise ConfigurationError(
            f"measurement_height_ratio is {measurement_height_ratio}; the height of measurement must be above the "
            "canopy, so that it over canopy height is more than 1."
        )
    cells = -(-_CANOPY_CELLS // layers)
    bounds = np.linspace(1.0, measurement_height_ratio, atmosphere_layers + 1)
    # what a source leaves uneven evens out with height, so that cells may grow
    parts = [
        math.ceil((high - low) / max(1.0 / _CANOPY_CELLS, 0.05 * (low - 1.0)))
        for low, high in itertools.pairwise(bounds)
    ]
    above = [
        np.linspace(low, high, part + 1)[1:]
        for low, high, part in zip(bounds, bounds[1:], parts, strict=False)
    ]
    edges = np.concatenate([np.linspace(0.0, 1.0, layers * cells + 1), *above])
    source = np.zeros((len(edges) - 1, layers))
    source[: layers * cells] = layers * np.repeat(np.eye(layers), cells, axis=0)
    concentration = concentration_profile(edges, source)
    first = np.cumsum([0] + [cells] * layers + parts)[:-1]
    matrix = np.add.reduceat(concentration, first, axis=0) / np.array([cells] * layers + parts)[:, None]
    matrix[-1] = 0.0
    matrix.setflags(write=False)
    return matrix


def concentration_profile(edges: Array, source: Array) -> Array:
    """Return the mean concentration of the stationary random flight over a ground that nothing passes.

    Above the last edge air goes on in the same way, and the concentration there is zero.

    The density of matter over height z and velocity w = sigma v is written as a Gaussian in v times ``g(z, v)``;
    Thomson's model is then ``sigma v dg/dz + sigma' dg/dv = (d2g/dv2 - v dg/dv) / T + source``, which an even
    mixture (constant g) solves by itself. With g expanded in normalised Hermite polynomials of v, moment n is driven
    by moments n - 1 and n + 1; moment 0 is the concentration, and moment 1 times sigma the flux. Even moments live in
    cells, odd ones on the edges between them, so that matter is conserved to rounding.

    Parameters
    ----------
    edges
        Of the cells, over canopy height, ``[cell + 1]``, rising.
    source
        Per unit of height in each cell, ``[cell, source]``.

    Returns
    -------
    Array
        ``[cell, source]``, for lengths in canopy heights and velocities in friction velocities.
    """
    centres, depth = 0.5 * (edges[1:] + edges[:-1]), np.diff(edges)
    sigma_edge, sigma = velocity_deviation(edges), velocity_deviation(centres)
    time_edge, time = time_scale(edges), time_scale(centres)
    pair = np.arange(_MOMENT_PAIRS)
    root_odd, root_even = np.diag(np.sqrt(2.0 * pair + 1.0)), np.diag(np.sqrt(2.0 * pair[1:]), 1)
    odd = (2.0 * pair + 1.0)[:, None]
    # odd = even_below @ lower - even_above @ upper at an edge, by the even moments' gradient
    distance = np.concatenate([[np.inf], np.diff(centres), [0.5 * depth[-1]]])
    rate = time_edge / distance

    def gradient(edge: int, deviation: float) -> Array:
        return rate[edge] / odd * (root_odd * sigma_edge[edge] + root_even * deviation)

    def divergence(cell: int, edge: int) -> Array:
        return (root_odd * sigma_edge[edge] + root_even.T * sigma[cell]) / depth[cell]

    count, columns = source.shape
    onward = np.zeros((count, _MOMENT_PAIRS, _MOMENT_PAIRS))
    even = np.zeros((count, _MOMENT_PAIRS, columns))
    for cell in range(count):  # block elimination from the ground up
        own = np.diag(2.0 * pair / time[cell])
        right = np.zeros((_MOMENT_PAIRS, columns))
        right[0] = source[cell]
        if cell > 0:
            down = divergence(cell, cell)
            coupling = down @ gradient(cell, float(sigma[cell - 1]))
            own += down @ gradient(cell, float(sigma[cell])) - coupling @ onward[cell - 1]
            right += coupling @ even[cell - 1]
        up, towards = divergence(cell, cell + 1), gradient(cell + 1, float(sigma[cell]))
        if cell + 1 == count:
            even[cell] = np.linalg.solve(own + up @ towards, right)
        else:
            above = up @ gradient(cell + 1, float(sigma[cell + 1]))
            solved = np.linalg.solve(own + up @ towards, np.hstack([above, right]))
            onward[cell], even[cell] = solved[:, :_MOMENT_PAIRS], solved[:, _MOMENT_PAIRS:]
    for cell in range(count - 2, -1, -1):
        even[cell] += onward[cell] @ even[cell + 1]
    return even[:, 0]


def read_dispersion_matrix(path: str | Path, layers: int, atmosphere_layers: int) -> Array:
    """Return a published dispersion matrix, s m-1, ``[layers + atmosphere_layers, layers]``.

    Parameters
    ----------
    path
        Comma-separated numbers, one line per receiving layer from the ground up, one column per layer of the canopy;
        compressed if the name ends in ``.gz``.
    layers, atmosphere_layers
        Of the canopy and of the air above it.

    Raises
    ------
    BundleError
        When the file is absent, holds something that is not a number, or has another shape.
    """
    check_layers(layers, atmosphere_layers)
    path = Path(path)
    try:
        matrix = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64)
    except FileNotFoundError as error:
        raise BundleError(f"no dispersion matrix at {path}.") from error
    except (OSError, EOFError, ValueError) as error:
        raise BundleError(
            f"dispersion matrix {path} is not a table of comma-separated numbers: {error}"
        ) from error
    wanted = (layers + atmosphere_layers, layers)
    if matrix.shape != wanted:
        raise BundleError(
            f"dispersion matrix {path} has {matrix.shape[0]} rows and {matrix.shape[1]} columns; {layers} layers of "
            f"canopy and {atmosphere_layers} of atmosphere need {wanted[0]} rows and {wanted[1]} columns."
        )
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        raise BundleError(f"dispersion matrix {path} is not finite in row {row + 1}, column {column + 1}.")
    return matrix


def check_layers(layers: int, atmosphere_layers: int) -> None:
    """Raise `ConfigurationError` unless canopy and atmosphere have a layer at least."""
    if layers < 1 or atmosphere_layers < 1:
        raise ConfigurationError(
            f"a dispersion matrix was asked for with {layers} layers of canopy and {atmosphere_layers} of atmosphere; "
            "there must be at least one of each."
        )
