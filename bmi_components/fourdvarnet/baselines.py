"""What a learned assimilation is measured against: interpolation, and two methods that know the true model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.lorenz import System, runge_kutta_4
from bmi_components.fourdvarnet.solver import interpolate

__all__ = ["ensemble_kalman_smoother", "linear_interpolation", "strong_constraint_4dvar"]

Values = NDArray[np.float64]


def linear_interpolation(observations: Values, mean: Values) -> Values:
    """Interpolate each component in time, constant beyond the ends, its mean where it has no observation at all.

    Parameters
    ----------
    observations
        ``[window, time, component]``, NaN where there is none.
    mean
        Climatological mean, ``[component]``.

    Returns
    -------
    ndarray
        ``[window, time, component]``.
    """
    anomalies = jnp.asarray(observations - mean, jnp.float32)
    return np.asarray(jax.jit(jax.vmap(interpolate))(anomalies), np.float64) + mean


def strong_constraint_4dvar(
    system: System,
    observations: Values,
    climatology: Values,
    *,
    starts: int = 24,
    iterations: int = 60,
    seed: int = 0,
) -> Values:
    """Find the trajectory of the true model that fits each window's observations best (Le Dimet & Talagrand 1986).

    Levenberg-Marquardt in the state at the window's beginning, from several starts: half of them close to the first
    observations, half drawn from the climatology, as the cost has many minima. There is no background term.

    Parameters
    ----------
    system
        The true model.
    observations
        ``[window, time, component]``, NaN where there is none; all with the same error variance.
    climatology
        States of the system, ``[state, component]``.
    starts
        Number of starts of each window.
    iterations
        Of Levenberg-Marquardt, at most.
    seed
        Of the starts.

    Returns
    -------
    ndarray
        ``[window, time, component]``.

    Raises
    ------
    ConfigurationError
        If optimistix is not installed.
    """
    try:
        import optimistix
    except ImportError as error:
        raise ConfigurationError("4DVar needs optimistix; install bmi_components[assimilation]") from error
    windows, length, components = observations.shape
    generator = np.random.default_rng(seed)
    candidates = climatology[generator.integers(0, len(climatology), (windows, starts))]
    near = starts - starts // 2
    guess = linear_interpolation(observations, climatology.mean(axis=0))[:, None, 0]
    spread = climatology.std(axis=0)
    seen = np.any(np.isfinite(observations), axis=1, keepdims=True)
    close = guess + 0.3 * spread * generator.standard_normal((windows, near, components))
    candidates[:, :near] = np.where(seen, close, candidates[:, :near])

    def run(state: Array) -> Array:
        def advance(now: Array, _: None) -> tuple[Array, Array]:
            return runge_kutta_4(system.tendency, now, system.time_step, jnp), now

        states: Array = jax.lax.scan(advance, state, length=length)[1]
        return states

    def residuals(state: Array, seen: Array) -> Array:
        mask = jnp.isfinite(seen)
        return jnp.where(mask, run(state) - jnp.where(mask, seen, 0.0), 0.0)

    def fit(state: Array, seen: Array) -> tuple[Array, Array]:
        solver: Any = optimistix.LevenbergMarquardt(rtol=1e-5, atol=1e-5)
        found = optimistix.least_squares(
            residuals, solver, state, seen, {"jac": "fwd"}, max_steps=iterations, throw=False
        ).value
        return found, jnp.sum(residuals(found, seen) ** 2)

    @jax.jit
    def best(states: Array, seen: Array) -> Array:
        found, costs = jax.vmap(fit, in_axes=(0, None))(states, seen)
        return run(found[jnp.argmin(jnp.where(jnp.isfinite(costs), costs, jnp.inf))])

    arrays = jnp.asarray(candidates, jnp.float32), jnp.asarray(observations, jnp.float32)
    return np.asarray(jax.lax.map(lambda window: best(*window), arrays, batch_size=8), np.float64)


def ensemble_kalman_smoother(
    system: System,
    observations: Values,
    climatology: Values,
    noise_variance: float,
    *,
    members: int = 100,
    inflation: float = 1.01,
    seed: int = 0,
) -> Values:
    """Run an ensemble Kalman smoother with the true model (Evensen & van Leeuwen 2000), observations perturbed.

    Each batch of observations corrects the ensemble at the present and at all times of the window before, by the
    ensemble's own covariances.

    Parameters
    ----------
    system
        The true model.
    observations
        ``[window, time, component]``, NaN where there is none.
    climatology
        States from which the first ensemble is drawn, ``[state, component]``.
    noise_variance
        Of the observations.
    members
        Size of the ensemble.
    inflation
        Factor by which the present ensemble is spread about its mean before it meets observations.
    seed
        Of the ensemble and the perturbations.

    Returns
    -------
    ndarray
        Mean of the smoothed ensemble, ``[window, time, component]``.
    """
    windows, length, components = observations.shape
    generator = np.random.default_rng(seed)
    # [window, member, time * component]: the past is part of what is corrected
    past = np.zeros((windows, members, length, components))
    past[:, :, 0] = climatology[generator.integers(0, len(climatology), (windows, members))]
    for time in range(length):
        if time:
            past[:, :, time] = runge_kutta_4(system.tendency, past[:, :, time - 1], system.time_step)
        met = np.isfinite(observations[:, time]).any(axis=1)
        present = past[met, :, time]
        centre = present.mean(axis=1, keepdims=True)
        past[met, :, time] = centre + inflation * (present - centre)
        # observations of one time have independent errors, so they can be taken one after the other
        for component in np.flatnonzero(np.isfinite(observations[:, time]).any(axis=0)):
            value = observations[:, time, component]
            seen = np.isfinite(value)
            ensemble = past[seen, :, : time + 1].reshape(int(seen.sum()), members, -1)
            deviation = ensemble - ensemble.mean(axis=1, keepdims=True)
            own = deviation[:, :, -components + component]
            covariance = (own[:, None] @ deviation)[:, 0] / (members - 1)
            gain = covariance / (covariance[:, None, -components + component] + noise_variance)
            noise = np.sqrt(noise_variance) * generator.standard_normal(own.shape)
            noise -= noise.mean(axis=1, keepdims=True)
            innovation = value[seen, None] + noise - ensemble[:, :, -components + component]
            ensemble = ensemble + gain[:, None] * innovation[:, :, None]
            past[seen, :, : time + 1] = ensemble.reshape(-1, members, time + 1, components)
    smoothed: Values = past.mean(axis=1)
    return smoothed
