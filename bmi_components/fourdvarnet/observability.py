"""How well a window of observations can determine a state at all, whatever method looks for it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from bmi_components.fourdvarnet.lorenz import System, runge_kutta_4

__all__ = ["smallest_errors"]


def smallest_errors(
    system: System,
    states: NDArray[np.float64],
    length: int,
    observed: tuple[str, ...],
    noise_std: float,
) -> NDArray[np.float64]:
    """Cramér-Rao bound of a window's first state: no unbiased estimate from the observations alone has smaller errors.

    With M_t the derivative of the state at step t with respect to the first, and H the observed components, the
    information about the first state is the sum over the window of (H M_t)^T (H M_t) / noise_std^2; the bound is the
    square root of the diagonal of its inverse.

    Parameters
    ----------
    system
        The true model, taken to be perfect.
    states
        First states, ``[state, component]``.
    length
        Steps of the window, the first state's included, all observed.
    observed
        Names of the observed components.
    noise_std
        Standard deviation of the observations' errors.

    Returns
    -------
    ndarray
        Standard deviation of the error of each component, ``[state, component]``; infinite where the window says
        nothing about it.
    """
    seen = np.array([system.components.index(name) for name in observed])

    def run(state: Array) -> Array:
        def advance(now: Array, _: None) -> tuple[Array, Array]:
            return runge_kutta_4(system.tendency, now, system.time_step, jnp), now[seen]

        values: Array = jax.lax.scan(advance, state, length=length)[1]
        return values

    sensitivity = jax.jit(jax.vmap(jax.jacfwd(run)))(jnp.asarray(states, jnp.float32))
    size = len(system.components)
    rows = np.asarray(sensitivity, np.float64).reshape(len(states), -1, size) / noise_std
    bound = np.full(states.shape, np.inf)
    for place, row in enumerate(rows):
        information = row.T @ row
        if np.linalg.cond(information) < 1e13:
            bound[place] = np.sqrt(np.diag(np.linalg.inv(information)))
    return bound
