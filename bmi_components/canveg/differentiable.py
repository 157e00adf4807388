"""The component as a pure function of its parameters over a series of steps, for gradients through a coupling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.program import Constants, Memory, Plan, advance
from bmi_components.canveg.settled import compiler_options
from bmi_components.differentiable import Differentiable
from bmi_components.jax_devices import jax_device
from bmi_components.variables import Variable

__all__ = ["differentiable"]

Array = Any


def differentiable(
    plan: Plan,
    constants: Constants,
    mixing: tuple[Array, ...],
    memory: Memory,
    moment: Callable[[float], NDArray[Any]],
    inputs: Sequence[Variable],
    outputs: Sequence[Variable],
    sizes: Sequence[int],
    parameters: Mapping[str, Variable],
) -> Differentiable:
    """Return the canopies as they stand, as a function of their parameters.

    Parameters
    ----------
    plan, constants, mixing, memory
        See `program`.
    moment
        Returns the day and hour, as `program.Program` takes them, of the step that begins at a time, s.
    inputs, outputs
        Of the component.
    sizes
        Of the outputs.
    parameters
        Those that can be set.
    """
    step = plan.options.time_step
    ends = np.cumsum(sizes)[:-1].tolist()

    def simulate(
        varied: Mapping[str, Array], memory: Memory, given: Mapping[str, Array], time: float
    ) -> tuple[Memory, dict[str, Array]]:
        rows = jnp.concatenate([given[v.name] for v in inputs], axis=1)
        moments = np.stack([moment(time + index * step) for index in range(len(rows))])
        changed: dict[str, Any] = dict(varied)
        held = constants._replace(parameters=constants.parameters._replace(**changed))
        flat = [jnp.asarray(leaf, plan.dtype).reshape(-1) for leaf in jax.tree.leaves(held)]
        last, found = _series(plan, jnp.concatenate(flat), mixing, memory, rows, moments)
        parts = zip(outputs, jnp.split(found, ends, axis=1), strict=True)
        return last, {v.name: part * step if v.per_update else part for v, part in parts}

    shapes = {name: np.shape(getattr(constants.parameters, name)) for name in parameters}
    bounds = {name: v.valid_range for name, v in parameters.items() if v.valid_range is not None}
    kind: Any = plan.dtype
    return Differentiable("jax", simulate, memory, shapes, bounds, plan.device, kind)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _series(plan: Plan, *arguments: Any) -> Any:
    """Do what `_run` does, compiled; the rule below lets its derivatives be compiled with options too."""
    return _programs(*_size(plan)).run(plan, *arguments)


def _series_forward(plan: Plan, *arguments: Any) -> Any:
    return _programs(*_size(plan)).forward(plan, *arguments)


def _series_backward(plan: Plan, pull_back: Any, sensitivity: Any) -> Any:
    return _programs(*_size(plan)).backward(pull_back, sensitivity)


_series.defvjp(_series_forward, _series_backward)


class _Programs(NamedTuple):
    """`_run`; the same with its function that carries sensitivities back; and that function's call."""

    run: Any
    forward: Any
    backward: Any


@cache
def _programs(platform: str, leaves: int) -> _Programs:
    options: Any = compiler_options(platform, leaves)

    def forward(plan: Plan, *arguments: Any) -> Any:
        return jax.vjp(partial(_run, plan), *arguments)

    def backward(pull_back: Any, sensitivity: Any) -> Any:
        return pull_back(sensitivity)

    return _Programs(
        jax.jit(_run, static_argnums=0, compiler_options=options),
        jax.jit(forward, static_argnums=0, compiler_options=options),
        jax.jit(backward, compiler_options=options),
    )


def _size(plan: Plan) -> tuple[str, int]:
    """Return where a plan runs, and how many leaves it has."""
    return str(jax_device(plan.device).platform), plan.sites * plan.options.layers


def _run(
    plan: Plan, constants: Array, mixing: tuple[Array, ...], memory: Memory, inputs: Array, moments: Array
) -> tuple[Memory, Array]:
    """Step through inputs and times, ``[step, element]``; return the last memory and all outputs."""

    def step(memory: Memory, given: tuple[Array, Array]) -> tuple[Memory, Array]:
        return advance(plan, constants, mixing, memory, *given)

    found: tuple[Memory, Array] = jax.lax.scan(step, memory, (inputs, moments))
    return found
