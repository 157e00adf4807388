"""The published dispersion matrix without its noise: the mean of the random flight that JAX-CanVeg draws at random.

`dispersion.dispersion_matrix` is what a new model should use. This is for whoever reproduces published work and has no
file of a matrix: the same flight, step for step, with all that is particular to it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bmi_components.canveg.dispersion import check_layers, concentration_profile
from bmi_components.errors import ConfigurationError

__all__ = ["published_dispersion_matrix"]

Array = Any

_TIME_STEP = 0.025  # a tenth of the time scale in the canopy, h / u*
_FEWEST_LAYERS = 50
_FEWEST_HEIGHTS = 250  # in the canopy; 400 change no element by more than 0.2 % of the mean
_STEPS = 80  # twenty steps less or more change nothing above 0.01 %
_SLOW_PATTERNS = 8
_HIGHEST = 3.0  # of heights on the grid, over canopy height
_FAR = 10.0  # a domain's top beyond which what happens there is not felt at _HIGHEST


@functools.lru_cache(maxsize=8)
def published_dispersion_matrix(layers: int = 50, atmosphere_layers: int = 50) -> Array:
    """Return what published matrices would be, had they been made with very many particles.

    Particular to them, and kept: a layer emits at its upper edge; layers above the canopy are as thick as those in it,
    so that the domain ends at ``(1 + atmosphere_layers / layers)`` canopy heights; what passes its top is lost; the
    deviation of vertical velocity has a step at the canopy's top (1.1875 to 1.25) that no drift makes up for, so that
    an even mixture does not stay even; the last layer is subtracted. Only the limit of 1000 s on flying time is not
    kept: it is felt where the domain is higher than about 70 m (of the published ones in US-Me2's with one layer).

    Parameters
    ----------
    layers, atmosphere_layers
        Of the canopy and of the air above it.

    Returns
    -------
    Array
        s m-1 for a friction velocity of 1 m s-1 in neutral air, ``[layers + atmosphere_layers, layers]``, read-only.

    Raises
    ------
    ConfigurationError
        When there are no layers, or the domain ends between 3 and 10 canopy heights.
    """
    check_layers(layers, atmosphere_layers)
    top = 1.0 + atmosphere_layers / layers
    if _HIGHEST < top < _FAR:
        raise ConfigurationError(
            f"{layers} layers of canopy and {atmosphere_layers} of atmosphere end at {top:g} canopy heights in the "
            f"published way; that must be at most {_HIGHEST:g} or at least {_FAR:g}. Use dispersion_matrix."
        )
    tall = top > _HIGHEST
    boxes = 2 * layers if tall else layers + atmosphere_layers
    # a thick layer is a stack of thin ones, of which the highest emits
    parts = -(-_FEWEST_LAYERS // layers)
    fine, mixed = _fly(layers * parts, boxes * parts, negative_above=tall)
    concentration = fine[:, parts - 1 :: parts].reshape(boxes, parts, layers).mean(axis=1)
    if tall:
        beyond = _far_above(layers, layers + atmosphere_layers - boxes)
        mixed = mixed.reshape(boxes, parts).mean(axis=1)
        concentration = np.concatenate(
            [concentration + beyond[0] * mixed[:, None], np.repeat(beyond[1:, None], layers, axis=1)]
        )
    matrix = concentration - concentration[-1]
    matrix.setflags(write=False)
    return matrix


def _far_above(layers: int, boxes: int) -> Array:
    """Return concentration at two canopy heights, and mean concentration in each of the boxes above, ``[1 + box]``.

    So far from sources only the flux counts, and that is the same for all of them.
    """
    cells = 50 // layers + 1
    edges = np.arange((2 * layers + boxes) * cells + 1) / (layers * cells)
    source = np.zeros((len(edges) - 1, 1))
    source[: layers * cells] = 1.0
    profile = concentration_profile(edges, source, absorbing=True)[:, 0]
    start = 2 * layers * cells
    at_start = 0.5 * (profile[start - 1] + profile[start])
    return np.concatenate([[at_start], profile[start:].reshape(boxes, cells).mean(axis=1)])


def _deviation(height: Array) -> Array:
    """Return the published deviation of vertical velocity over friction velocity."""
    return np.where(height < 1.0, 0.25 + 0.9375 * height, 1.25)


def _time_scale(height: Array) -> Array:
    """Return the published time scale, h / u*."""
    return np.where(height < 1.5, 0.25, 0.4 * (height - 0.6) / 1.56)


def _fly(layers: int, boxes: int, *, negative_above: bool) -> tuple[Array, Array]:
    """Return mean times in each box of particles released from each layer, over box height, and an even mixture.

    Velocities are multiples of the one that passes from a height of the grid to the next within a time step: a step
    moves every state to another exactly, and nothing is smeared.

    Parameters
    ----------
    layers
        Of the canopy: boxes per canopy height.
    boxes
        From the ground to the top.
    negative_above
        Whether what passes the top comes back with its sign changed, which makes the concentration there zero as if
        turbulence went on above; otherwise it is lost.

    Returns
    -------
    tuple of Array
        Times, ``[box, layer]``, and what becomes of an even mixture that is held at 1 at the top, ``[box]``: all ones,
        if time steps were short and the deviation had no step.
    """
    points = -(-_FEWEST_HEIGHTS // layers)  # per box
    spacing = 1.0 / (layers * points)
    unit = spacing / _TIME_STEP
    fastest = int(np.ceil(6.3 / unit))
    shift = np.arange(-fastest, fastest + 1)
    velocity = shift * unit
    heights = (np.arange(boxes * points) + 0.5) * spacing
    kick = _kick(heights, velocity)

    destination = np.arange(len(heights))[:, None] + shift
    turned = np.where(destination < 0, -destination - 1, destination)
    over = turned >= len(heights)
    sign = np.ones(destination.shape)
    if negative_above:
        turned = np.where(over, 2 * len(heights) - 1 - turned, turned)
        sign[over] = -1.0
    else:
        turned, sign[over] = np.where(over, 0, turned), 0.0
    column = np.arange(len(velocity))
    mirrored = (destination < 0) | over
    index = turned * len(velocity) + np.where(mirrored, column[::-1], column)
    kept = sign.ravel() != 0.0
    index, origin, sign = index.ravel()[kept], np.flatnonzero(kept), sign.ravel()[kept, None]

    def step(density: Array, sign: Array = sign) -> Array:
        kicked = np.matmul(kick, density).reshape(len(heights) * len(velocity), -1)
        moved = np.zeros_like(kicked)
        moved[index] = sign * kicked[origin]
        return moved.reshape(density.shape)

    def in_boxes(density: Array) -> Array:
        return density.sum(axis=1).reshape(boxes, points, -1).sum(axis=1)

    density = np.zeros((len(heights), len(velocity), layers + 1))
    steps = np.zeros((boxes, layers + 1))
    for layer in range(layers):
        edge = (layer + 1) * points
        start = np.exp(-0.5 * (velocity / _deviation(np.array((layer + 1) / layers))) ** 2)
        density[edge - 1 : edge + 1, :, layer] = 0.5 * start / start.sum()
        steps[layer + 1, layer] = 1.0  # a particle on the edge counts above it
    # the last column starts from what one step makes of an even mixture
    even = np.exp(-0.5 * (velocity / _deviation(heights)[:, None]) ** 2)
    even = (even / even.sum(axis=1, keepdims=True))[..., None]
    density[..., layers:] = step(even, np.abs(sign)) - even
    steps[:, layers:] = in_boxes(density[..., layers:])
    for _ in range(_STEPS):
        density = step(density)
        steps += in_boxes(density)
    # what is left are a few patterns that fade slowly: all that is to come of them is a geometric series of matrices
    left = density.reshape(-1, layers + 1)
    pattern = np.linalg.svd(left, full_matrices=False)[0][:, :_SLOW_PATTERNS]
    shape = (*density.shape[:2], pattern.shape[1])
    fading = pattern.T @ step(np.ascontiguousarray(pattern).reshape(shape)).reshape(pattern.shape)
    to_come = np.linalg.solve(np.eye(len(fading)) - fading, fading @ (pattern.T @ left))
    steps += in_boxes((pattern @ to_come).reshape(density.shape))
    return steps[:, :layers] * _TIME_STEP * layers, 1.0 + steps[:, layers] / points


def _kick(heights: Array, velocity: Array) -> Array:
    """Return shares of particles at each height that pass from a velocity to another, ``[height, new, old]``."""
    deviation, scale = _deviation(heights)[:, None], _time_scale(heights)[:, None]
    drift = np.where(heights < 1.0, 0.9375 * (0.25 + 0.9375 * heights), 0.0)[:, None]
    mean = velocity * (1.0 - _TIME_STEP / scale) + drift * (1.0 + (velocity / deviation) ** 2) * _TIME_STEP
    spread = deviation * np.sqrt(2.0 * _TIME_STEP / scale)
    share = np.exp(-0.5 * ((velocity[:, None] - mean[:, None, :]) / spread[:, None]) ** 2)
    # beyond the last velocity there is nobody to speak of, and no share of nobody either
    return share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
