"""Convolutions along one axis as matrix products, which a CPU does faster than XLA's own convolutions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = ["average_pool", "convolve", "initial_kernel", "shifted", "upsample"]


def shifted(x: Array, width: int, *, centre: bool = True) -> Array:
    """Lay the neighbours of each position side by side, zeros beyond the ends.

    Parameters
    ----------
    x
        ``[position, channel]``.
    width
        Odd number of neighbours, the position itself included.
    centre
        Whether the position itself is one of them.

    Returns
    -------
    Array
        ``[position, neighbour * channel]``.
    """
    half = width // 2
    padded = jnp.pad(x, ((half, half), (0, 0)))
    taps = [padded[tap : tap + x.shape[0]] for tap in range(width) if centre or tap != half]
    return jnp.concatenate(taps, axis=-1) if len(taps) > 1 else taps[0]


def convolve(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Convolve ``x`` [position, channel] with ``kernel`` [tap, channel, feature], zeros beyond the ends.

    An even number of taps leaves out the centre: the output at a position knows nothing of the input at it.
    """
    taps, channels, features = kernel.shape
    centre = taps % 2 == 1
    columns = shifted(x, taps if centre else taps + 1, centre=centre)
    product = columns @ kernel.reshape(taps * channels, features)
    return product if bias is None else product + bias


def average_pool(x: Array, scale: int) -> Array:
    """Mean of each ``scale`` successive positions of ``x`` [position, channel]."""
    return x if scale == 1 else x.reshape(x.shape[0] // scale, scale, x.shape[1]).mean(axis=1)


def upsample(x: Array, scale: int) -> Array:
    """Interpolate ``x`` [position, channel] linearly to ``scale`` times as many positions, ends on ends."""
    if scale == 1:
        return x
    coarse = x.shape[0]
    position = np.linspace(0.0, coarse - 1.0, coarse * scale)
    weights = np.maximum(0.0, 1.0 - np.abs(position[:, None] - np.arange(coarse)))
    return jnp.asarray(weights, x.dtype) @ x


def initial_kernel(key: Array, taps: int, channels: int, features: int, dtype: jnp.dtype) -> Array:
    """Draw a kernel ``[tap, channel, feature]`` uniformly within +-1/sqrt(taps * channels), as PyTorch does."""
    bound = 1.0 / math.sqrt(taps * channels)
    return jax.random.uniform(key, (taps, channels, features), dtype, -bound, bound)
