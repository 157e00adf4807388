"""The solver: a variational cost per window, brought down by learned or by plain gradient steps.

Everything here works on one window ``[time, component]`` of standardised values, so that an analysis cannot depend on
the windows it is batched with; batches are made by ``jax.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
from jax import Array, lax
from msgspec import Meta

from bmi_components.fourdvarnet.modulation import (
    Memory,
    ModulationSettings,
    initial_memory,
    modulate,
)
from bmi_components.fourdvarnet.priors import Prior

__all__ = ["Solution", "SolverSettings", "interpolate", "solve", "solve_by_descent", "variational_cost"]

Differentiation = Literal["unrolled", "checkpointed", "one_step"]


class SolverSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the cost is brought down.

    Attributes
    ----------
    iterations
        Number of iterations K that the solver is trained with.
    update
        With g the gradient, u the ConvLSTM's update and k from 0: "fablet", X - u / K (Fablet et al. 2021), or
        "starter", X - u / (k + 1) - gradient_rate (k + 1) / K g (4dvarnet-starter).
    gradient_rate
        Of the plain gradient in "starter".
    observation_cost
        What the squared misfit to the observations is divided by: "window", the number of values of the window, so
        that each observation weighs the same, or "observed", the number of observations (4dvarnet-starter).
    observation_weight, prior_weight
        Weights of the two costs; training starts from them and changes them.
    start
        "linear": observations interpolated linearly, the nearest one before the first and after the last, the
        climatological mean where a component has none; "zeros": observations, the mean elsewhere.
    """

    iterations: Annotated[int, Meta(ge=0)] = 10
    update: Literal["fablet", "starter"] = "fablet"
    gradient_rate: Annotated[float, Meta(ge=0.0)] = 0.2
    observation_cost: Literal["window", "observed"] = "window"
    observation_weight: Annotated[float, Meta(gt=0.0)] = 1.0
    prior_weight: Annotated[float, Meta(gt=0.0)] = 1.0
    start: Literal["linear", "zeros"] = "linear"


class Solution(NamedTuple):
    """What a solver finds for one window, standardised.

    Attributes
    ----------
    trajectory
        The last iterate, ``[time, component]``.
    cost
        Its variational cost.
    iterates
        After each iteration, ``[iteration, time, component]``; None unless asked for.
    costs
        Cost before each iteration, ``[iteration]``.
    """

    trajectory: Array
    cost: Array
    iterates: Array | None
    costs: Array


class _Carry(NamedTuple):
    x: Array
    memory: Memory
    scale: Array


def initial_weights(settings: SolverSettings, dtype: jnp.dtype) -> dict[str, Array]:
    """Return the learnt numbers whose squares weigh the costs, so that they stay positive."""
    return {
        "observation": jnp.sqrt(jnp.asarray(settings.observation_weight, dtype)),
        "prior": jnp.sqrt(jnp.asarray(settings.prior_weight, dtype)),
    }


def variational_cost(
    prior: Prior,
    parameters: dict[str, Any],
    x: Array,
    observations: Array,
    observation_cost: str = "window",
    axis: str | None = None,
) -> Array:
    """Weak-constraint cost of a window (Fablet et al. 2021, eq. 3): misfit to observations and to the prior.

    Parameters
    ----------
    prior, parameters
        The prior, and ``{"prior": ..., "weights": ...}``.
    x
        Trajectory, ``[time, component]``.
    observations
        Of the same shape, NaN where there is none.
    observation_cost
        See `SolverSettings`.
    axis
        Name of a ``vmap`` axis whose windows share one cost, as a mean over the whole batch; only to compare with
        codes that do so. The result is this window's part of it.
    """
    mask = jnp.isfinite(observations)
    misfit = jnp.sum(jnp.where(mask, x - jnp.where(mask, observations, 0.0), 0.0) ** 2)
    seen = jnp.sum(mask, dtype=x.dtype)
    count: Array | float = float(x.size)
    prior_cost = prior.cost(parameters["prior"], x)
    if axis is not None:
        windows = lax.psum(1, axis)  # type: ignore[no-untyped-call]
        seen = lax.psum(seen, axis)  # type: ignore[no-untyped-call]
        count = count * windows
        prior_cost = prior_cost / windows
    if observation_cost == "observed":
        count = jnp.maximum(seen, 1.0)
    weights = parameters["weights"]
    total: Array = weights["observation"] ** 2 * misfit / count + weights["prior"] ** 2 * prior_cost
    return total


def interpolate(observations: Array) -> Array:
    """Interpolate each component linearly between observations, constant beyond the first and the last.

    Parameters
    ----------
    observations
        ``[time, component]``, NaN where there is none.

    Returns
    -------
    Array
        ``[time, component]``; zero where a component has no observation at all.
    """
    length = observations.shape[0]
    time = jnp.arange(length)[:, None]
    mask = jnp.isfinite(observations)
    before = lax.cummax(jnp.where(mask, time, -1), axis=0)
    after = lax.cummin(jnp.where(mask, time, length), axis=0, reverse=True)
    values = jnp.where(mask, observations, 0.0)
    left = jnp.where(before < 0, jnp.minimum(after, length - 1), before)
    right = jnp.where(after >= length, left, after)
    gap = jnp.maximum(right - left, 1)
    share = jnp.clip((time - left) / gap, 0.0, 1.0).astype(observations.dtype)
    first = jnp.take_along_axis(values, left, axis=0)
    return first + share * (jnp.take_along_axis(values, right, axis=0) - first)


def first_guess(settings: SolverSettings, observations: Array) -> Array:
    """Start of the iterations, ``[time, component]``; see `SolverSettings`."""
    if settings.start == "linear":
        return interpolate(observations)
    return jnp.nan_to_num(observations, nan=0.0)


def solve(
    prior: Prior,
    modulation: ModulationSettings,
    settings: SolverSettings,
    parameters: dict[str, Any],
    observations: Array,
    start: Array,
    *,
    iterations: int | None = None,
    differentiation: Differentiation = "unrolled",
    keep_iterates: bool = False,
    axis: str | None = None,
) -> Solution:
    """Bring the cost of one window down by learned steps.

    Parameters
    ----------
    prior, modulation, settings
        What the model is.
    parameters
        ``{"prior": ..., "modulation": ..., "weights": ...}``.
    observations
        ``[time, component]``, NaN where there is none.
    start
        ``[time, component]``.
    iterations
        How many; None: as many as trained with. The rule of the update keeps the K that it is trained with. With 0
        the solution is ``start``.
    differentiation
        How a derivative of the solution goes through the iterations: "unrolled", through all; "checkpointed", the same
        in less memory, each iteration being computed again; "one_step", through the last alone (Bolte et al. 2023).
    keep_iterates
        Whether to return all iterates.
    axis
        See `variational_cost`; the gradients' norm is then shared as well.
    """
    count = settings.iterations if iterations is None else iterations

    def cost(x: Array, weights: dict[str, Any]) -> Array:
        return variational_cost(prior, weights, x, observations, settings.observation_cost, axis)

    def advance(
        weights: dict[str, Any], carry: _Carry, k: Array
    ) -> tuple[_Carry, tuple[Array, Array | None]]:
        value, gradient = jax.value_and_grad(cost)(carry.x, weights)
        square = jnp.mean(gradient**2)
        if axis is not None:
            square = lax.pmean(square, axis)  # type: ignore[no-untyped-call]
        # a gradient of zero stays zero; the inner `where` keeps the square root's derivative finite there
        first = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
        scale = jnp.where(k == 0, first, carry.scale)
        update, memory = modulate(modulation, weights["modulation"], gradient / scale, carry.memory)
        if settings.update == "fablet":
            change = update / max(settings.iterations, 1)
        else:
            rise = settings.gradient_rate * (k + 1) / max(settings.iterations, 1)
            change = update / (k + 1) + rise.astype(gradient.dtype) * gradient
        x = carry.x - change
        return _Carry(x, memory, scale), (value, x if keep_iterates else None)

    def run(weights: dict[str, Any], carry: _Carry, first: int, last: int) -> tuple[_Carry, Any]:
        step: Callable[..., Any] = advance
        if differentiation == "checkpointed":
            step = jax.checkpoint(advance)
        return lax.scan(lambda state, k: step(weights, state, k), carry, jnp.arange(first, last))

    carry = _Carry(start, initial_memory(modulation, start), jnp.ones((), start.dtype))
    if differentiation == "one_step" and count > 1:
        frozen = lax.stop_gradient(parameters)
        carry, (costs, iterates) = run(frozen, lax.stop_gradient(carry), 0, count - 1)
        carry, last = run(parameters, lax.stop_gradient(carry), count - 1, count)
        costs, iterates = jax.tree.map(lambda *parts: jnp.concatenate(parts), (costs, iterates), last)
    else:
        carry, (costs, iterates) = run(parameters, carry, 0, count)
    return Solution(carry.x, cost(carry.x, parameters), iterates, costs)


def solve_by_descent(
    prior: Prior,
    settings: SolverSettings,
    parameters: dict[str, Any],
    observations: Array,
    start: Array,
    *,
    iterations: int,
    rate: float,
) -> Solution:
    """Bring the cost of one window down by plain gradient steps of a fixed length, to compare with `solve`.

    Parameters
    ----------
    prior, settings, parameters, observations, start, iterations
        As in `solve`.
    rate
        Step length per value of the window: X - rate * size(X) * g, so that it does not depend on the window's length.
    """

    def cost(x: Array) -> Array:
        return variational_cost(prior, parameters, x, observations, settings.observation_cost)

    def advance(x: Array, _: None) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(cost)(x)
        return x - rate * x.size * gradient, value

    x, costs = lax.scan(advance, start, length=iterations)
    return Solution(x, cost(x), None, costs)
