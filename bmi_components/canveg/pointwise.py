"""Functions of each point by itself, whose derivatives are kept as numbers."""

from __future__ import annotations

from collections.abc import Callable
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

        def of_varying(*varying: Any) -> Out:
            whole = list(values)
            for index, value in zip(vary, varying, strict=True):
                whole[index] = value
            return function(*jax.tree.unflatten(tree, whole))

        start, along = [values[index] for index in vary], [slopes[index] for index in vary]
        if any(index >= points for index in vary):
            return jax.jvp(of_varying, start, along)
        outputs, push = jax.linearize(of_varying, *start)
        units = [
            jnp.zeros((len(vary), *value.shape), value.dtype).at[index].set(1.0)
            for index, value in enumerate(start)
        ]
        # each held by itself: what nobody asks for is then not computed
        table = jax.tree.map(settled, jax.vmap(push)(*units))

        shape = jnp.broadcast_shapes(*(value.shape for value in start))
        along = [_spread(slope, shape) for slope in along]

        def change(row: Any) -> Any:
            return sum(row[index] * slope for index, slope in enumerate(along))

        return outputs, jax.tree.map(change, table)

    evaluate.defjvp(derive, symbolic_zeros=True)
    return evaluate(inputs, given)


def _spread(values: Any, shape: tuple[int, ...]) -> Any:
    """Return the values in a shape, repeated along axes of length one."""
    # pulled back, a broadcast becomes a sum that XLA gives to a library; joined copies become a part of the loops
    for axis, (has, wanted) in enumerate(zip(values.shape, shape, strict=True)):
        if has != wanted:
            values = jnp.concatenate([values] * wanted, axis=axis)
    return values
