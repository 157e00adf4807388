"""Fixed points of a map, many side by side: found by Anderson's mixing, differentiated implicitly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Search", "fixed_point"]

Array = Any
Map = Callable[[Array], Array]

DEPTH = 4
"""Earlier iterations that Anderson's mixing looks back on."""


class Search(NamedTuple):
    """Where an iteration stands.

    Attributes
    ----------
    x
        ``[..., unknown]``.
    residual
        Largest absolute change of the last iteration, ``[...]``.
    count
        Iterations made.
    """

    x: Array
    residual: Array
    count: Array


def fixed_point(function: Map, start: Array, tolerance: float, most: int) -> Array:
    """Return ``x`` with ``x = function(x)``; differentiable, forwards and backwards, by whatever the function closes over.

    Derivatives come from the implicit function theorem, by a linear iteration of the same kind as the search: their
    memory does not grow with the iterations, and they are those of the converged solution.

    Parameters
    ----------
    function
        Maps ``[..., unknown]`` to itself; unknowns are scaled so that an absolute tolerance makes sense for each.
    start
        First guess.
    tolerance
        Of the largest change in an iteration.
    most
        Iterations after which the search ends anyway.
    """
    fixed = jax.lax.stop_gradient(start)

    def solve(residual: Map, x: Array) -> Array:
        return _search(lambda y: y - residual(y), x, tolerance, most).x

    def tangent_solve(linear: Map, target: Array) -> Array:
        def invert(operator: Map, wanted: Array) -> Array:
            return _search(lambda y: y - (operator(y) - wanted), wanted, 1e-10, most, relative=True).x

        return jax.lax.custom_linear_solve(linear, target, invert, invert)

    return jax.lax.custom_root(lambda y: y - function(y), fixed, solve, tangent_solve)


def _search(
    function: Map, start: Array, tolerance: float, most: int, *, relative: bool = False
) -> Search:
    """Iterate until no unknown changes by more than the tolerance (relative to the largest of a member, if asked)."""

    def done(x: Array, change: Array) -> Array:
        largest = jnp.max(jnp.abs(change), axis=-1)
        return largest / (jnp.max(jnp.abs(x), axis=-1) + 1e-30) if relative else largest

    class _Memory(NamedTuple):
        search: Search
        value: Array
        changes: Array
        steps: Array

    def proceed(memory: _Memory) -> Array:
        return (memory.search.count < most) & jnp.any(memory.search.residual > tolerance)

    def iterate(memory: _Memory) -> _Memory:
        x, change = memory.search.x, memory.value
        count = memory.search.count
        mixed = _mix(change, memory.changes, memory.steps)
        following = x + mixed
        settled = (memory.search.residual <= tolerance)[..., None]
        following = jnp.where(settled, x, following)
        value = function(following) - following
        slot = count % DEPTH
        changes = memory.changes.at[slot].set(value - change)
        steps = memory.steps.at[slot].set(following - x)
        return _Memory(Search(following, done(following, value), count + 1), value, changes, steps)

    value = function(start) - start
    none = jnp.zeros((DEPTH, *start.shape), start.dtype)
    begin = _Memory(Search(start, done(start, value), jnp.asarray(0)), value, none, none)
    return jax.lax.while_loop(proceed, iterate, begin).search


def _mix(change: Array, changes: Array, steps: Array) -> Array:
    """Return the step that Anderson's mixing takes: the change, less what earlier steps explain of it (least squares)."""
    gram = jnp.sum(changes[:, None] * changes[None], axis=-1)
    right = jnp.sum(changes * change, axis=-1)
    matrix = [[gram[i, j] for j in range(DEPTH)] for i in range(DEPTH)]
    scale = sum(matrix[i][i] for i in range(DEPTH)) * 1e-12 + 1e-30
    vector = [right[i] for i in range(DEPTH)]
    for i in range(DEPTH):
        matrix[i][i] = matrix[i][i] + scale
    # elimination, written out: the matrices are small, and there are as many as sites and steps
    for i in range(DEPTH):
        for j in range(i + 1, DEPTH):
            factor = matrix[j][i] / matrix[i][i]
            for k in range(i, DEPTH):
                matrix[j][k] = matrix[j][k] - factor * matrix[i][k]
            vector[j] = vector[j] - factor * vector[i]
    weights: list[Array] = [vector[0]] * DEPTH
    for i in reversed(range(DEPTH)):
        total = vector[i]
        for k in range(i + 1, DEPTH):
            total = total - matrix[i][k] * weights[k]
        weights[i] = total / matrix[i][i]
    return change - sum(weights[i][..., None] * (changes[i] + steps[i]) for i in range(DEPTH))
