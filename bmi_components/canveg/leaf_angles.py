"""How leaves are inclined, what shadow they cast, and how much of the sky shines through a layer of them."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.sun import circle

__all__ = ["diffuse_transmission", "inclination_density", "projection", "sky_projection"]

Array = Any

CLASSES = 50
"""Classes of inclination, and zones of the sky."""


def _inclinations(pi: float) -> NDArray[np.float64]:
    """Return the middles of the classes, rad from the horizontal."""
    return np.linspace(pi / (2 * CLASSES), pi / 2.0, CLASSES) - pi / (4 * CLASSES)


def inclination_density(leaf_angles: str, *, rounded: bool) -> NDArray[np.float64]:
    """Return the density of inclinations at the classes, rad-1 (de Wit 1965; Wang et al. 2007).

    The published model's planophile is what everybody else calls erectophile, and the other way round; here the names
    are everybody else's.
    """
    pi = circle(rounded)
    x = _inclinations(pi)
    if leaf_angles == "planophile":
        return 2.0 * (1.0 + np.cos(2.0 * x)) / pi
    if leaf_angles == "erectophile":
        return 2.0 * (1.0 - np.cos(2.0 * x)) / pi
    if leaf_angles == "plagiophile":
        return 2.0 * (1.0 - np.cos(4.0 * x)) / pi
    if leaf_angles == "extremophile":
        return 2.0 * (1.0 + np.cos(4.0 * x)) / pi
    if leaf_angles == "uniform":
        return np.full(CLASSES, 2.0 / pi)
    return np.sin(x)


def projection(cosine: Array, sine: Array, leaf_angles: str, *, rounded: bool, xp: Any = jnp) -> Array:
    """Return the area of shadow per area of leaf in a direction, 1.

    Parameters
    ----------
    cosine, sine
        Of the direction's angle from the zenith, any shape; the sine positive.
    leaf_angles
        Distribution of inclinations.
    rounded
        Whether pi has six digits.
    xp
        NumPy or JAX's.
    """
    pi = circle(rounded)
    x = _inclinations(pi)
    density = inclination_density(leaf_angles, rounded=rounded)
    cosines, sines = cosine[..., None] * np.cos(x), sine[..., None] * np.sin(x)
    ratio = cosines / sines
    inside = xp.abs(ratio) < 1.0
    bounded = xp.where(inside, ratio, 0.0)
    # cos(theta) cos(x) tan(psi), written so that nothing is infinite when psi is a right angle
    tangent = xp.where(inside, sines * xp.sqrt(1.0 - bounded * bounded), 0.0)
    psi = xp.where(inside, xp.arccos(bounded), xp.where(ratio > 0.0, 0.0, math.pi))
    shadow = (cosines * (1.0 - 2.0 / pi * psi) + 2.0 / pi * tangent) * density
    width = x[1] - x[0]
    total = width * (xp.sum(shadow, axis=-1) - 0.5 * (shadow[..., 0] + shadow[..., -1]))
    return xp.where(total < 0.0, 0.5, total)


def sky_projection(leaf_angles: str, *, rounded: bool) -> NDArray[np.float64]:
    """Return the shadow's area from each zone of the sky, 1, ``[zone]``."""
    x = _inclinations(circle(rounded))
    result: NDArray[np.float64] = projection(np.cos(x), np.sin(x), leaf_angles, rounded=rounded, xp=np)
    return result


def diffuse_transmission(leaf_area: Array, leaf_angles: str, *, rounded: bool) -> Array:
    """Return how much of a uniform sky's light passes a layer untouched, 1.

    Parameters
    ----------
    leaf_area
        Of the layer times clumping, m2 m-2.
    leaf_angles
        Distribution of inclinations.
    rounded
        Whether pi has six digits and the zones' weights do not quite sum to one, as published.
    """
    pi = circle(rounded)
    x = _inclinations(pi)
    weights = 2.0 * (pi / (2 * CLASSES)) * np.cos(x) * np.sin(x)
    if not rounded:
        weights = weights / weights.sum()
    depth = sky_projection(leaf_angles, rounded=rounded) / np.cos(x)
    return jnp.sum(jnp.exp(-leaf_area[..., None] * depth) * weights, axis=-1)
