"""Visible light and near infrared in the canopy: beams, scattering, and what sunlit and shaded leaves absorb."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.layers import Stack, propagate

__all__ = ["Band", "Beam", "make_beam", "transfer"]

Array = Any


class Beam(NamedTuple):
    """How direct light passes the canopy.

    Attributes
    ----------
    level
        Share that reaches each level, the ground first, ``[..., layer + 1]``.
    intercepted
        Share that each layer stops, ``[..., layer]``.
    sunlit
        Fraction of each layer's leaves in the sun, ``[..., layer]``.
    per_leaf
        Area of shadow on the ground per area of sunlit leaf; 0 at night, ``[...]``.
    """

    level: Array
    intercepted: Array
    sunlit: Array
    per_leaf: Array


class Band(NamedTuple):
    """Light of one band in the canopy, in the unit of what came in.

    Attributes
    ----------
    down, up, beam
        At the levels, the ground first, ``[..., layer + 1]``.
    sunlit, shaded
        Absorbed per area of leaf, ``[..., layer]``.
    """

    down: Array
    up: Array
    beam: Array
    sunlit: Array
    shaded: Array


def make_beam(
    leaf_area: Array, clumping: Array, projection: Array, sine: Array, layers: int, *, by_level: bool
) -> Beam:
    """Return what the leaves do to direct light.

    Parameters
    ----------
    leaf_area
        Of a layer, m2 m-2.
    clumping
        1 for leaves at random.
    projection
        Shadow per leaf in the sun's direction.
    sine
        Of the sun's elevation.
    layers
        How many.
    by_level
        Whether the sunlit fraction is that at the bottom of a layer (published) rather than its mean.
    """
    day = sine > 0.0
    per_leaf = jnp.where(day, projection / jnp.where(day, sine, 1.0), 0.0)
    depth = per_leaf * leaf_area * clumping
    level = jnp.where(day[..., None], jnp.exp(-depth[..., None] * np.arange(layers, -1, -1)), 0.0)
    intercepted = jnp.where(day[..., None], level[..., 1:] * (-jnp.expm1(-depth))[..., None], 0.0)
    if by_level:
        sunlit = jnp.minimum(jnp.asarray(clumping)[..., None] * level[..., :-1], 1.0)
    else:
        leaves = jnp.where(day, per_leaf * leaf_area, 1.0)
        sunlit = jnp.minimum(intercepted / leaves[..., None], 1.0)
    return Beam(level, intercepted, sunlit, per_leaf)


def transfer(
    direct: Array,
    diffuse: Array,
    beam: Beam,
    stack: Stack,
    exposure: Array,
    leaf: tuple[Array, Array],
    soil_reflectance: Array,
    swept: Array | None = None,
) -> Band:
    """Return the light of one band, or of several along a leading axis.

    Parameters
    ----------
    direct, diffuse
        What comes in.
    beam
        How direct light passes.
    stack
        How diffuse light passes; in one sweep it returns nothing.
    exposure
        What a leaf takes of the diffuse light of its layer, per area of leaf (1 in the published model).
    leaf
        Reflectance and transmittance of a leaf.
    soil_reflectance
        Of the soil.
    swept
        None to solve. To sweep once (published): the share of diffuse light that a layer returns. After Norman (1979),
        upward light moves a layer per sweep.
    """
    reflectance, transmittance = leaf
    absorptance = (1.0 - reflectance - transmittance)[..., None]
    incoming = direct + diffuse
    if swept is not None:
        direct = incoming * (direct / jnp.maximum(incoming, 0.01))
        diffuse = incoming - direct
    stopped = direct[..., None] * beam.intercepted
    source_down = stopped * jnp.asarray(transmittance)[..., None]
    source_up = stopped * jnp.asarray(reflectance)[..., None]
    at_level = direct[..., None] * beam.level
    if swept is not None:
        # one sweep downwards that meets no upward light is the solution of layers that reflect nothing
        down = propagate(stack, source_down, 0.0 * source_up, diffuse, 0.0, 0.0 * diffuse).down
        bottom = ((down[..., 0] + at_level[..., 0]) * soil_reflectance)[..., None]
        up = jnp.concatenate([bottom, down[..., 1:] * swept[..., None] + source_up], axis=-1)
        seen = down[..., :-1] + up[..., :-1]
    else:
        down, up = propagate(
            stack, source_down, source_up, diffuse, soil_reflectance, soil_reflectance * at_level[..., 0]
        )
        seen = (down[..., 1:] + up[..., :-1]) * exposure[..., None]
    shaded = absorptance * seen
    sunlit = shaded + absorptance * (direct * beam.per_leaf)[..., None]
    return Band(down, up, at_level, sunlit, shaded)
