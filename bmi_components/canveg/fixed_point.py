"""Fixed points of a map, many side by side: found by Anderson's mixing, differentiated implicitly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.pairs import Pairs
from bmi_components.canveg.rows import row_max, row_products
from bmi_components.canveg.settled import settled

__all__ = ["fixed_point"]

Array = Any
Map = Callable[[Array], Array]
Look = Callable[[Array], tuple[Array, Any]]

RIDGE = 1e-8
"""Share of itself that is added to the diagonal of the mixing's equations."""

TOLERANCE_OF_DERIVATIVES = 1e-7
"""Of the linear iteration, relative; a day's derivatives by parameters were then within 3e-6 of the converged ones."""


MOST_MIXED = 0.5
"""Largest share of an earlier step in the mixing. Steps of time hang together by the soil: what one of them does while
it is on its way reaches all later ones, whose own history then asks for wild steps."""


class _Memory(NamedTuple):
    """Where a search stands.

    Attributes
    ----------
    x
        ``[..., unknown]``.
    residual
        Largest change that the map makes of the latest ``x`` it was asked about, ``[...]``.
    count
        Times that the map was asked.
    change, step
        What the map changed, and what was stepped instead, the last time.
    changes, steps
        How both differed from the time before, in the two latest times, ``[2, ..., unknown]``, in turns (more made the
        last digits slower).
    found
        What else the map said the last time.
    """

    x: Array
    residual: Array
    count: Array
    change: Array
    step: Array
    changes: Array
    steps: Array
    found: Any


def fixed_point(function: Look, start: Array, tolerance: float, most: int) -> tuple[Array, Any]:
    """Return how much ``x`` still changes where ``x = better(x)``, and what the function finds there.

    What is found is differentiable, both ways, by whatever the function closes over. Derivatives come from the implicit
    function theorem, by a linear iteration of the same kind as the search: their memory does not grow with the
    iterations, and they are those of the converged solution.

    Parameters
    ----------
    function
        Takes ``x``, ``[..., unknown]``, to a better one, and tells what it finds at ``x`` (any pytree). Unknowns are
        scaled so that an absolute tolerance makes sense for each.
    start
        First guess.
    tolerance
        Of the largest change in an iteration; in single precision a hundred times as much.
    most
        Iterations after which the search ends anyway.
    """
    start = jax.lax.stop_gradient(start)
    tolerance = (100.0 if start.dtype == jnp.float32 else 1.0) * tolerance
    nothing: Any = None

    # what is found is of a shape to be known before the loop; to trace for it alone takes a seventh more time
    def noted(x: Array) -> tuple[Array, Any]:
        nonlocal nothing
        better, found = function(x)
        nothing = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
        return better, found

    explicit, closed = jax.closure_convert(noted, start)

    def search(start: Array, closed: Sequence[Array]) -> _Memory:
        def look(x: Array) -> tuple[Array, Any]:
            better, found = explicit(x, *closed)
            return better - x, found

        return _search(look, start, tolerance, most, relative=False, nothing=nothing)

    @jax.custom_jvp
    def solution(start: Array, *closed: Any) -> tuple[Array, Any]:
        # what is found on the way belongs to the solution: the function is not asked once more
        memory = search(start, closed)
        return memory.residual, memory.found

    @solution.defjvp
    def derive(given: Any, changes: Any) -> tuple[Any, Any]:
        start, *closed = given
        memory = search(start, closed)
        x = memory.x
        (_, found), (directly, found_directly) = jax.jvp(partial(explicit, x), closed, list(changes[1:]))
        _, push = jax.linearize(lambda x: explicit(x, *closed), x)

        def invert(operator: Map, wanted: Array) -> Array:
            return _search(
                lambda y: (wanted - operator(y), ()), wanted, TOLERANCE_OF_DERIVATIVES, most, relative=True
            ).x

        moved = jax.lax.custom_linear_solve(lambda y: y - push(y)[0], directly, invert, invert)
        found_changes = jax.tree.map(jnp.add, found_directly, push(moved)[1])
        return (memory.residual, found), (jnp.zeros_like(memory.residual), found_changes)

    residual, found = solution(start, *closed)
    return residual, found


def _search(
    look: Look, start: Array, tolerance: float, most: int, *, relative: bool, nothing: Any = ()
) -> _Memory:
    """Step until no unknown changes by more than the tolerance (relative to the largest of a member, if asked)."""

    def largest(x: Array, change: Array) -> Array:
        worst = row_max(jnp.abs(change))
        return worst / (row_max(jnp.abs(x)) + 1e-30) if relative else worst

    def proceed(memory: _Memory) -> Array:
        return (memory.count < most) & jnp.any(memory.residual > tolerance)

    def iterate(memory: _Memory) -> _Memory:
        x, count = memory.x, memory.count
        change, found = look(x)

        def remember(latest: Array, earlier: Array) -> Array:
            latest = jnp.where(count > 0, latest, 0.0)
            return jax.lax.dynamic_update_index_in_dim(earlier, latest, count % 2, 0)

        changes = remember(change - memory.change, memory.changes)
        steps = remember(memory.step, memory.steps)
        change, changes, steps = settled((change, changes, steps))
        residual = largest(x, change)
        # what has arrived stays, and does not disturb its memory
        step = settled(jnp.where((residual <= tolerance)[..., None], 0.0, _mix(change, changes, steps)))
        return _Memory(x + step, residual, count + 1, change, step, changes, steps, found)

    still = jnp.zeros_like(start)
    none = jnp.stack([still, still])
    residual = jnp.full(start.shape[:-1], jnp.inf, start.dtype)
    begin = _Memory(start, residual, jnp.asarray(0), still, still, none, none, nothing)
    end: _Memory = jax.lax.while_loop(proceed, iterate, begin)
    return end


def _mix(change: Array, changes: Array, steps: Array) -> Array:
    """Return the step of Anderson's mixing: the change, less what earlier steps explain of it (least squares)."""
    new, old = changes
    a, b, c, first, second = row_products((new, new), (new, old), (old, old), (new, change), (old, change))
    # near convergence the earlier steps are alike, and equations of nothing but rounding must not take over
    floor = RIDGE * (a + c) + float(np.finfo(change.dtype).tiny) ** 0.5
    a, c = a + floor, c + floor
    weights = settled(
        tuple(
            jnp.clip(weight, -MOST_MIXED, MOST_MIXED)[..., None]
            for weight in Pairs(a, b, b, c).inverse().of(first, second)
        )
    )
    return change - sum(
        weight * (earlier + step) for weight, earlier, step in zip(weights, changes, steps, strict=True)
    )
