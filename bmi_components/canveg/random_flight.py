"""The published dispersion matrix without its noise: the mean of the random flight that JAX-CanVeg draws at random.

`dispersion.dispersion_matrix` is what a new model should use. This is for whoever reproduces published work and has no
file of a matrix: the same flight, step for step, with all that is particular to it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from bmi_components.canveg.dispersion import check_layers
from bmi_components.canveg.flight_moments import mean_times
from bmi_components.canveg.published_turbulence import DEVIATION_SLOPE, TIME_STEP, deviation, time_scale
from bmi_components.errors import ConfigurationError

__all__ = ["published_dispersion_matrix"]

Array = Any

_FEWEST_LAYERS = 50
_FEWEST_HEIGHTS = 250  # in the canopy; 400 change no element by more than 0.2 % of the mean
_STEPS = 80  # twenty steps less or more change nothing above 0.01 %
_SLOW_PATTERNS = 8
_HIGHEST = 3.0  # domain, over canopy height; higher up, spread within a step is too small for the grid
_MOST_THICK_LAYERS = 10  # beyond, a step of the flight is too long for `flight_moments`
_FLIGHT_TIME = 1000.0  # s


@functools.lru_cache(maxsize=8)
def published_dispersion_matrix(
    layers: int = 50, atmosphere_layers: int = 50, *, canopy_height: float | None = None
) -> Array:
    """Return what published matrices would be, had they been made with very many particles.

    Particular to them, and kept: a layer emits at its upper edge; layers above the canopy are as thick as those in it,
    so that the domain ends at ``(1 + atmosphere_layers / layers)`` canopy heights; what passes its top is lost; the
    deviation of vertical velocity has a step at the canopy's top (1.1875 to 1.25) that no drift makes up for, so that
    an even mixture does not stay even; the last layer is subtracted; flights end after 1000 s, which is felt in high
    domains over tall canopies only.

    Parameters
    ----------
    layers, atmosphere_layers
        Of the canopy and of the air above it.
    canopy_height
        m, which tells how far a flight of 1000 s leads. Without it flights end when they leave. In domains up to 3
        canopy heights, where they have all left before, it is not used.

    Returns
    -------
    Array
        s m-1 for a friction velocity of 1 m s-1 in neutral air, ``[layers + atmosphere_layers, layers]``, read-only.

    Raises
    ------
    ConfigurationError
        When there are no layers, the canopy's height is not a positive number, or the domain ends above 3 canopy
        heights and layers are more than 10.
    """
    check_layers(layers, atmosphere_layers)
    if canopy_height is not None and not (math.isfinite(canopy_height) and canopy_height > 0.0):
        raise ConfigurationError(f"canopy_height is {canopy_height}; it must be a number of metres above 0.")
    boxes = layers + atmosphere_layers
    if boxes > _HIGHEST * layers:
        if layers > _MOST_THICK_LAYERS:
            raise ConfigurationError(
                f"{layers} layers of canopy and {atmosphere_layers} of atmosphere end at {boxes / layers:g} canopy "
                f"heights in the published way, which can be worked out up to {_HIGHEST:g}, or with up to "
                f"{_MOST_THICK_LAYERS} layers of canopy: read the published file, or use dispersion_matrix."
            )
        concentration = mean_times(layers, boxes, _FLIGHT_TIME / canopy_height if canopy_height else math.inf)
    else:
        # a thick layer is a stack of thin ones, of which the highest emits
        parts = -(-_FEWEST_LAYERS // layers)
        fine = _fly(layers * parts, boxes * parts)[:, parts - 1 :: parts]
        concentration = fine.reshape(boxes, parts, layers).mean(axis=1)
    matrix = concentration - concentration[-1]
    matrix.setflags(write=False)
    return matrix


def _fly(layers: int, boxes: int) -> Array:
    """Return mean time in each box of a particle released from each layer, over box height, ``[box, layer]``.

    Velocities are multiples of the one that passes from a height of the grid to the next within a time step: a step
    moves every state to another exactly, and nothing is smeared.

    Parameters
    ----------
    layers
        Of the canopy: boxes per canopy height.
    boxes
        From the ground to the top, beyond which particles are lost.
    """
    points = -(-_FEWEST_HEIGHTS // layers)  # per box
    spacing = 1.0 / (layers * points)
    unit = spacing / TIME_STEP
    fastest = int(np.ceil(6.3 / unit))
    shift = np.arange(-fastest, fastest + 1)
    velocity = shift * unit
    heights = (np.arange(boxes * points) + 0.5) * spacing
    kick = _kick(heights, velocity)

    destination = np.arange(len(heights))[:, None] + shift
    reflected = destination < 0
    destination = np.where(reflected, -destination - 1, destination)
    column = np.arange(len(velocity))
    index = destination * len(velocity) + np.where(reflected, column[::-1], column)
    inside = destination < len(heights)
    origin, index = np.flatnonzero(inside), index[inside]

    def step(density: Array) -> Array:
        kicked = np.matmul(kick, density).reshape(len(heights) * len(velocity), -1)
        moved = np.zeros_like(kicked)
        moved[index] = kicked[origin]
        return moved.reshape(density.shape)

    def in_boxes(density: Array) -> Array:
        return density.sum(axis=1).reshape(boxes, points, -1).sum(axis=1)

    density = np.zeros((len(heights), len(velocity), layers))
    steps = np.zeros((boxes, layers))
    for layer in range(layers):
        edge = (layer + 1) * points
        start = np.exp(-0.5 * (velocity / deviation(np.array((layer + 1) / layers))) ** 2)
        density[edge - 1 : edge + 1, :, layer] = 0.5 * start / start.sum()
        steps[layer + 1, layer] = 1.0  # a particle on the edge counts above it
    for _ in range(_STEPS):
        density = step(density)
        steps += in_boxes(density)
    # what is left are a few patterns that fade slowly: all that is to come of them is a geometric series of matrices
    left = density.reshape(-1, layers)
    pattern = np.linalg.svd(left, full_matrices=False)[0][:, :_SLOW_PATTERNS]
    shape = (*density.shape[:2], pattern.shape[1])
    fading = pattern.T @ step(np.ascontiguousarray(pattern).reshape(shape)).reshape(pattern.shape)
    to_come = np.linalg.solve(np.eye(len(fading)) - fading, fading @ (pattern.T @ left))
    steps += in_boxes((pattern @ to_come).reshape(density.shape))
    return steps * TIME_STEP * layers


def _kick(heights: Array, velocity: Array) -> Array:
    """Return shares of particles at each height that pass from a velocity to another, ``[height, new, old]``."""
    sigma, scale = deviation(heights)[:, None], time_scale(heights)[:, None]
    drift = np.where(heights < 1.0, DEVIATION_SLOPE * (0.25 + DEVIATION_SLOPE * heights), 0.0)[:, None]
    mean = velocity * (1.0 - TIME_STEP / scale) + drift * (1.0 + (velocity / sigma) ** 2) * TIME_STEP
    spread = sigma * np.sqrt(2.0 * TIME_STEP / scale)
    share = np.exp(-0.5 * ((velocity[:, None] - mean[:, None, :]) / spread[:, None]) ** 2)
    # beyond the last velocity there is nobody to speak of, and no share of nobody either
    return share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
