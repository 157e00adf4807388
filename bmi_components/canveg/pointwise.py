"""Functions of each point by itself, whose derivatives are kept as numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from bmi_components.canveg.settled import settled

__all__ = ["pointwise"]

In = TypeVar("In")
Given = TypeVar("Given")
Out = TypeVar("Out")


def pointwise(function: Callable[[In, Given], Out], inputs: In, given: Given) -> Out:
    """Return ``function(inputs, given)``, where outputs depend on the inputs at their own point only.

    Where only the inputs vary, derivatives are one number for each output, input and point. Whoever asks for them many
    times in one place, as the iteration for an implicit derivative does, then reads a few numbers instead of all that
    the function computed on its way.

    Parameters
    ----------
    function
        Of two pytrees; differentiable both ways.
    inputs
        Arrays that broadcast against each other to the shape of each output.
    given
        What else the function needs; derivatives by it are those of the function as written.
    """

    @jax.custom_jvp
    def evaluate(inputs: In, given: Given) -> Out:
        return function(inputs, given)

    def derive(primals: tuple[In, Given], tangents: tuple[Any, Any]) -> tuple[Out, Any]:
        values, tree = jax.tree.flatten(primals)
        slopes: list[Any] = tree.flatten_up_to(tangents)  # type: ignore[attr-defined]
        vary = [index for index, slope in enumerate(slopes) if not isinstance(slope, SymbolicZero)]
        points = len(jax.tree.leaves(primals[0]))

        def of_varying(indices: Sequence[int], *varying: Any) -> Out:
            whole = list(values)
            for index, value in zip(indices, varying, strict=True):
                whole[index] = value
            return function(*jax.tree.unflatten(tree, whole))

        start, along = [values[index] for index in vary], [slopes[index] for index in vary]
        if any(index >= points for index in vary):
            return jax.jvp(partial(of_varying, vary), start, along)
        # one input at a time: most reach a part of the outputs only, and what is computed on the way is shared
        columns = [
            jax.jvp(partial(of_varying, [index]), (value,), (jnp.ones_like(value),))[1]
            for index, value in zip(vary, start, strict=True)
        ]
        # each held by itself: what nobody asks for is then not computed
        table = jax.tree.map(lambda *row: [settled(x) for x in row], *columns)

        shape = jnp.broadcast_shapes(*(value.shape for value in start))
        along = [_spread(slope, shape) for slope in along]

        def change(row: Any) -> Any:
            return sum(row[index] * slope for index, slope in enumerate(along))

        return function(*primals), jax.tree.map(change, table, is_leaf=lambda x: type(x) is list)

    evaluate.defjvp(derive, symbolic_zeros=True)
    return evaluate(inputs, given)


def _spread(values: Any, shape: tuple[int, ...]) -> Any:
    """Return the values in a shape, repeated along axes of length one."""
    # pulled back, a broadcast becomes a sum that XLA gives to a library; joined copies become a part of the loops
    for axis, (has, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        if has != wanted:
            values = jnp.concatenate([values] * wanted, axis=axis)
    return values
