"""Sums and largest values along rows: folded first, so that loops over them compute several numbers at once."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from bmi_components.canveg.settled import settled

__all__ = ["row_max", "row_products", "row_sums"]

Array = Any

FOLDS, FEW = 8, 8
"""Parts that a row is folded into (of only four, what is folded spills from the cache); numbers not folded."""


def row_max(values: Array) -> Array:
    """Return the largest value of each row (the last axis), or NaN if one is."""
    while values.shape[-1] > FEW:
        half = -(-values.shape[-1] // 2)  # of an odd number the middle one counts twice
        values = jnp.maximum(values[..., :half], values[..., -half:])
    return jnp.max(values, axis=-1)


def row_sums(*rows: Array) -> tuple[Array, ...]:
    """Return the sums along the last axis of arrays of one shape."""
    if rows[0].shape[-1] == 1:
        return tuple(row[..., 0] for row in rows)
    # one product with a vector takes less time, and much less to compile, than a sum for each
    joined = settled(jnp.stack(rows))
    return tuple(joined @ jnp.ones(joined.shape[-1], joined.dtype))


def row_products(*pairs: tuple[Array, Array]) -> tuple[Array, ...]:
    """Return the scalar product of each row of the two arrays of each pair; all of one shape."""
    length = pairs[0][0].shape[-1]
    width = length // FOLDS

    def folded(product: Array) -> Array:
        total = sum(product[..., fold * width : (fold + 1) * width] for fold in range(FOLDS))
        over = product[..., FOLDS * width :]
        return total.at[..., : over.shape[-1]].add(over) if over.shape[-1] else total

    if width < FOLDS:
        return tuple(jnp.sum(first * second, axis=-1) for first, second in pairs)
    return row_sums(*(folded(first * second) for first, second in pairs))
