"""The published random flight in a high domain: its mean by moments of velocity, where layers are thick.

Far above a canopy velocity is remembered for hundreds of time steps, which a grid of states cannot hold. What steps do
to the mean is nevertheless known exactly: see `mean_times`.
"""

from __future__ import annotations

import cmath
import itertools
import math
from typing import Any

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss

from bmi_components.canveg.published_turbulence import DEVIATION_SLOPE, TIME_STEP, deviation, time_scale

__all__ = ["mean_times"]

Array = Any

_MOMENTS = 20  # 40 change the matrix of one layer by 0.2 % on average
_FINEST = 0.01  # cells, over canopy height
_GROWTH = 0.02  # of cells with height above the canopy
_CONTOUR = 10  # points of the inverse Laplace transform; 14 change no element by more than 1e-6


def mean_times(layers: int, boxes: int, flight_time: float = math.inf) -> Array:
    """Return the mean time in each box of a particle released from each layer, over box height, ``[box, layer]``.

    A step of the flight is a kick of velocity and a shift by it. Summed over all steps, the density n of particles
    over height and velocity obeys ``(shift^-1 - kick) n = shift^-1 start``. Seen half a shift earlier, and to second
    order in how far a particle moves within a step, that is ``w dn/dz + (2 / dt) (1 - kick) / (1 + kick) n = source``
    with the kick as it is, however much of its velocity a particle loses in one. With n a Gaussian of the variance at
    which kicks leave it alone, times Hermite polynomials of w, a kick multiplies moment m by ``(1 - dt / T)^m``; in
    the canopy drift adds to it.

    Parameters
    ----------
    layers
        Of the canopy, each releasing at its upper edge. They must be thicker than a particle moves in a step, 0.03.
    boxes
        From the ground to the top, as thick as layers; what passes the top is lost.
    flight_time
        After which flights end, canopy heights over friction velocity.

    Returns
    -------
    Array
        For times in canopy heights over friction velocity.
    """
    edges, per_box = _cells(layers, boxes)
    source = np.zeros((len(edges) - 1, layers))
    for layer in range(layers):
        above = int(per_box[: layer + 1].sum())
        source[above - 1, layer], source[above, layer] = 0.5 / np.diff(edges[above - 1 : above + 2])

    def in_boxes(rate: complex) -> Array:
        inside = _concentration(edges, source, rate) * np.diff(edges)[:, None]
        return layers * np.add.reduceat(inside, np.cumsum([0, *per_box[:-1]]), axis=0)

    times = in_boxes(0.0) if math.isinf(flight_time) else _until(in_boxes, flight_time)
    # the flight counts where each step begins, and a start on an edge as above it
    for layer in range(layers):
        times[layer : layer + 2, layer] += layers * TIME_STEP * np.array([-0.25, 0.75])
    return times


def _cells(layers: int, boxes: int) -> tuple[Array, Array]:
    """Return the edges of cells, which meet those of boxes and steps of the turbulence, and their number per box."""
    marks = np.arange(boxes + 1) / layers
    edges, per_box = [0.0], []
    for low, high in itertools.pairwise(marks):
        before = len(edges)
        stops = [low, *(step for step in (1.0, 1.5) if low < step < high), high]
        for start, end in itertools.pairwise(stops):
            parts = math.ceil((end - start) / max(_FINEST, _GROWTH * (start - 1.0)) - 1e-9)
            edges += list(np.linspace(start, end, parts + 1)[1:])
        per_box.append(len(edges) - before)
    return np.array(edges), np.array(per_box)


def _concentration(edges: Array, source: Array, rate: complex) -> Array:
    """Return the Laplace transform over time of the concentration in cells, ``[cell, source]``.

    Equations of all cells are solved upwards with what the ground says of the moments above it, by orthogonal
    elimination: nothing grows.
    """
    moment, half = np.arange(_MOMENTS), _MOMENTS // 2
    root = np.sqrt(moment)
    times_velocity = np.diag(root[1:], 1) + np.diag(root[1:], -1)
    wider = np.diag(np.sqrt(np.arange(1.0, _MOMENTS + 2)), 1)
    squared = np.linalg.matrix_power(wider + wider.T, 2)[:_MOMENTS, :_MOMENTS]
    lower = np.diag(root[1:], -1)
    lower_squared = root[:, None] * np.vstack([np.zeros(_MOMENTS), squared[:-1]])
    node, weight = hermegauss(_MOMENTS + 2)
    weight = weight / weight.sum()

    columns = source.shape[1]
    # what is known at an edge, so far of that on the ground, which reflects: odd moments vanish
    known = np.eye(_MOMENTS, dtype=np.result_type(type(rate), float))[1::2]
    known = np.hstack([known, np.zeros((half, columns))])
    relations, spread_below = [], math.nan
    for cell, (low, high) in enumerate(itertools.pairwise(edges)):
        depth, height = high - low, 0.5 * (low + high)
        # of the turbulence in the cell, just within its edges
        bottom, top, middle = (float(_spread(z)) for z in (low + 1e-6 * depth, high - 1e-6 * depth, height))
        share = TIME_STEP / float(time_scale(height))
        kept = (1.0 - share) ** moment * np.exp(-rate * TIME_STEP)  # of each moment in a kick
        within = np.diag((1.0 - kept) / (1.0 + kept)) / TIME_STEP  # half, at each edge
        within = within + 0.5 * (top - bottom) / depth * lower_squared
        if height < 1.0:
            sigma = float(deviation(height))
            # what drift adds to the kick before its own noise: sigma sigma' (1 + w^2 / sigma^2) dt
            push = DEVIATION_SLOPE * (sigma / middle * lower + middle / sigma * lower_squared)
            pushed = (kept / (1.0 - share))[:, None] * push
            within = within - 2.0 * pushed / ((1.0 + kept)[:, None] * (1.0 + kept))
        upper, under = times_velocity * top / depth + within, within - times_velocity * bottom / depth
        if not math.isclose(spread_below, bottom, rel_tol=1e-4) and cell:  # the turbulence has a step
            polynomials = _polynomials(node), _polynomials(node * spread_below / bottom)
            under = under @ (polynomials[1] * weight @ polynomials[0].T)
        spread_below = top
        right = np.zeros((_MOMENTS, columns))
        right[0] = source[cell]
        rotation = np.linalg.qr(np.vstack([known[:, :_MOMENTS], under]), mode="complete")
        beyond = np.vstack(
            [np.hstack([np.zeros((half, _MOMENTS)), known[:, _MOMENTS:]]), np.hstack([upper, right])]
        )
        turned = rotation[0].conj().T @ beyond
        relations.append(np.linalg.solve(rotation[1][:_MOMENTS], turned[:_MOMENTS]))
        known = turned[_MOMENTS:]
    at_top = np.vstack([known, np.hstack([_nothing_comes_down(), np.zeros((half, columns))])])
    state = np.linalg.solve(at_top[:, :_MOMENTS], at_top[:, _MOMENTS:])
    concentration = [state[0]]
    for relation in reversed(relations):
        state = relation[:, _MOMENTS:] - relation[:, :_MOMENTS] @ state
        concentration.append(state[0])
    found = np.array(concentration[::-1])
    return 0.5 * (found[1:] + found[:-1])


def _spread(height: Array) -> Array:
    """Return the deviation that steps of finite length keep up: somewhat more than is asked of them."""
    return deviation(height) / np.sqrt(1.0 - 0.5 * TIME_STEP / time_scale(height))


def _nothing_comes_down() -> Array:
    """Return the conditions on moments at a top through which nothing returns (Marshak's): half as many as moments."""
    node, weight = leggauss(200)
    velocity = 6.0 * (node - 1.0)
    polynomials = _polynomials(velocity)
    falling = 6.0 * weight * np.exp(-0.5 * velocity**2) / math.sqrt(2.0 * math.pi)
    conditions: Array = (polynomials * falling @ polynomials.T)[1::2]
    return conditions


def _polynomials(velocity: Array) -> Array:
    """Return normalised Hermite polynomials, ``[moment, velocity]``."""
    found = [np.ones_like(velocity), velocity]
    for order in range(1, _MOMENTS - 1):
        found.append((velocity * found[-1] - math.sqrt(order) * found[-2]) / math.sqrt(order + 1.0))
    return np.array(found)


def _until(transform: Any, end: float) -> Array:
    """Return the integral from 0 to a time of what has this Laplace transform (Abate and Valko 2004)."""
    radius = 2.0 * _CONTOUR / (5.0 * end)
    total = 0.5 * math.exp(radius * end) * transform(complex(radius)) / radius
    for point in range(1, _CONTOUR):
        angle = point * math.pi / _CONTOUR
        cotangent = 1.0 / math.tan(angle)
        rate = radius * angle * complex(cotangent, 1.0)
        turn = complex(1.0, angle + (angle * cotangent - 1.0) * cotangent)
        total = total + cmath.exp(rate * end) * turn * transform(rate) / rate
    result: Array = (radius / _CONTOUR * total).real
    return result
