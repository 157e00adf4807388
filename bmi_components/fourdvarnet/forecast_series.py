"""Lorenz63 over a series of steps in JAX, as a function of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from bmi_components.differentiable import Differentiable
from bmi_components.fourdvarnet.lorenz import lorenz63, runge_kutta_4

__all__ = ["differentiable"]


@partial(jax.jit, static_argnames="time_step")
def _series(
    parameters: Sequence[Any], start: Array, analyses: Array, time_step: float
) -> tuple[Array, Array]:
    """Return the last state ``[trajectory, 3]`` and all, ``[step, trajectory, 3]``; NaN in ``analyses``: none."""

    def tendency(state: Any, xp: Any) -> Any:
        return lorenz63(state, xp, *parameters)

    def step(state: Array, given: Array) -> tuple[Array, Array]:
        state = runge_kutta_4(tendency, jnp.where(jnp.isnan(given), state, given), time_step, jnp)
        return state, state

    last, states = jax.lax.scan(step, start, analyses)
    return last, states


def differentiable(
    state: np.ndarray[Any, Any],
    parameters: Mapping[str, np.ndarray[Any, Any]],
    inputs: Sequence[str],
    outputs: Sequence[str],
    time_step: float,
) -> Differentiable:
    """Return the trajectories at ``state`` [trajectory, 3], with these parameters, inputs and outputs (x, y, z)."""

    def simulate(
        varied: Mapping[str, Array], state: Array, given: Mapping[str, Array], time: float
    ) -> tuple[Array, dict[str, Array]]:
        analyses = jnp.stack([given[name] for name in inputs], axis=-1)
        values = [varied.get(name, value) for name, value in parameters.items()]
        last, states = _series(values, state, analyses, time_step)
        return last, {name: states[..., i] for i, name in enumerate(outputs)}

    shapes = {name: value.shape for name, value in parameters.items()}
    return Differentiable("jax", simulate, state.copy(), shapes)
