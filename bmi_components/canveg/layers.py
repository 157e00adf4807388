"""Diffuse radiation in a stack of equal layers that transmit, reflect and emit, with sources in each: solved directly.

In an endless stack a wave that goes down shrinks by a factor ``decay`` per layer and is accompanied by one that goes
up, ``reflectance`` times as large. Sources send out such waves in both directions; two more, from the top and from the
ground, meet the boundary conditions. No sweeps, no iteration, no systems of equations.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.settled import settled

__all__ = ["Diffuse", "Stack", "make_stack", "propagate"]

Array = Any


class Stack(NamedTuple):
    """Optical properties of a stack of equal layers, each ``[...]`` or ``[..., level]``.

    Attributes
    ----------
    forward, backward
        Share of diffuse radiation that a layer lets through, and that it returns.
    reflectance
        Of an endless stack.
    decay
        Of a wave that goes down an endless stack, by level from the top: 1, decay, decay squared, ...
    growth
        One over it.
    """

    forward: Array
    backward: Array
    reflectance: Array
    decay: Array
    growth: Array


class Diffuse(NamedTuple):
    """Diffuse fluxes at the levels, the ground's first, the canopy top's last: ``[..., layer + 1]``."""

    down: Array
    up: Array


def make_stack(forward: Array, backward: Array, layers: int) -> Stack:
    """Return the properties of ``layers`` equal layers.

    Parameters
    ----------
    forward, backward
        ``[...]``, each positive, their sum at most 1.
    layers
        How many.
    """
    c = 1.0 + backward * backward - forward * forward
    root = jnp.sqrt(jnp.maximum(c * c - 4.0 * backward * backward, 1e-30))
    reflectance = 2.0 * backward / (c + root)
    # what 1e-30 of reaches the ground is darkness: the scaled sums stay within the numbers of single precision
    per_layer = jnp.maximum(forward / (1.0 - backward * reflectance), math.exp(-69.0 / layers))
    exponent = jnp.log(settled(per_layer))[..., None] * np.arange(layers + 1)
    decay = settled(jnp.exp(exponent))
    return settled(Stack(forward, backward, reflectance, decay, 1.0 / decay))


def propagate(
    stack: Stack,
    source_down: Array,
    source_up: Array,
    top: Array,
    ground_reflectance: Array,
    ground_source: Array,
) -> Diffuse:
    """Return diffuse fluxes at all levels.

    Parameters
    ----------
    stack
        The layers.
    source_down, source_up
        What each layer sends down and up of its own, ``[..., layer]``, the lowest first.
    top
        Diffuse radiation that comes down on the canopy, ``[...]``.
    ground_reflectance
        Share of what comes down on the ground that goes up again.
    ground_source
        What goes up from the ground otherwise.
    """
    count = source_down.shape[-1]
    b, f, r = (
        stack.backward[..., None],
        stack.forward[..., None],
        stack.reflectance[..., None],
    )
    through, crossed = 1.0 - b * r, f * r
    determinant = through * through - crossed * crossed
    # from here on index n runs from the top: level n lies under n layers
    send_down = ((through * source_down + crossed * source_up) / determinant)[..., ::-1]
    send_up = (through * source_up + crossed * source_down) / determinant
    # all terms are positive, so that scaled sums lose no digits; a constant matrix sums faster than a scan
    before = np.triu(np.ones((count, count + 1)), 1)
    scaled = settled((send_down * stack.growth[..., 1:], send_up * stack.decay[..., -2::-1]))
    down_to, up_to = jnp.stack(scaled) @ before
    from_above, from_below = stack.decay * down_to, stack.growth * up_to[..., ::-1]
    last, r0 = stack.decay[..., -1], stack.reflectance
    # a wave from the top and one from the ground meet what the sky and the ground ask for
    wanted_top = top - r0 * from_below[..., 0]
    wanted_ground = ground_source + (ground_reflectance - r0) * from_above[..., -1]
    lift = ground_reflectance - r0
    hold = 1.0 - ground_reflectance * r0
    ground_wave = (wanted_ground + lift * last * wanted_top) / (hold + lift * last * r0 * last)
    top_wave = wanted_top - r0 * last * ground_wave
    top_wave, ground_wave, from_above, from_below = settled((top_wave, ground_wave, from_above, from_below))
    going_down = from_above + top_wave[..., None] * stack.decay
    going_up = from_below + ground_wave[..., None] * stack.decay[..., ::-1]
    down = going_down + r * going_up
    up = r * going_down + going_up
    return Diffuse(down[..., ::-1], up[..., ::-1])
