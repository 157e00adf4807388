"""The Lorenz systems of 1963 and 1996: tendencies for NumPy and JAX, Runge-Kutta steps, trajectories by seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError

__all__ = ["SYSTEMS", "System", "runge_kutta_4", "system", "trajectory"]

Tendency = Callable[[Any, Any], Any]
"""``tendency(state, xp)``: time derivative of ``state`` [..., component] with the array module ``xp``."""


@dataclass(frozen=True)
class System:
    """A chaotic system in its own dimensionless units.

    Attributes
    ----------
    name
        "lorenz63" or "lorenz96".
    components
        Names of the state's components, in order.
    time_step
        Length of a step of a trajectory, in the system's units of time.
    tendency
        ``tendency(state, xp)`` with ``state`` [..., component]; ``xp`` is ``numpy`` or ``jax.numpy``.
    start
        State from which trajectories spin up, ``[component]``.
    """

    name: str
    components: tuple[str, ...]
    time_step: float
    tendency: Tendency
    start: tuple[float, ...]


def lorenz63(
    state: Any, xp: Any = np, sigma: float = 10.0, rho: float = 28.0, beta: float = 8.0 / 3.0
) -> Any:
    """Time derivative of the convection model of Lorenz (1963, eqs. 25-27); ``state`` is [..., (x, y, z)]."""
    x, y, z = state[..., 0], state[..., 1], state[..., 2]
    return xp.stack((sigma * (y - x), x * (rho - z) - y, x * y - beta * z), axis=-1)


def lorenz96(state: Any, xp: Any = np, forcing: float = 8.0) -> Any:
    """Time derivative of the latitude circle of Lorenz (1996, eq. 1); ``state`` is [..., site], periodic."""
    ahead, behind, two_behind = xp.roll(state, -1, -1), xp.roll(state, 1, -1), xp.roll(state, 2, -1)
    return (ahead - two_behind) * behind - state + forcing


_SITES = 40
SYSTEMS = {
    "lorenz63": System("lorenz63", ("x", "y", "z"), 0.01, lorenz63, (8.0, 0.0, 30.0)),
    "lorenz96": System(
        "lorenz96",
        tuple(f"x{site}" for site in range(1, _SITES + 1)),
        0.05,
        lorenz96,
        (8.01, *(8.0,) * (_SITES - 1)),
    ),
}
"""The systems by name, with the steps and starts of Fablet's experiments."""


def system(name: str) -> System:
    """Return a system by its name.

    Raises
    ------
    ConfigurationError
        If there is no such system.
    """
    if name not in SYSTEMS:
        raise ConfigurationError(f"system: {name!r} is unknown; choose one of {', '.join(SYSTEMS)}")
    return SYSTEMS[name]


def runge_kutta_4(tendency: Tendency, state: Any, step: float, xp: Any = np) -> Any:
    """Advance ``state`` [..., component] by one ``step`` of the classical fourth-order Runge-Kutta method."""
    k1 = tendency(state, xp)
    k2 = tendency(state + 0.5 * step * k1, xp)
    k3 = tendency(state + 0.5 * step * k2, xp)
    k4 = tendency(state + step * k3, xp)
    return state + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def trajectory(
    of: System,
    steps: int,
    *,
    spin_up: float = 5.0,
    members: int | None = None,
    seed: int = 0,
    spread: float = 1.0,
) -> NDArray[np.float64]:
    """Integrate a system in float64 after a spin-up.

    Parameters
    ----------
    of
        The system.
    steps
        Number of states, one every ``of.time_step``; the first is the one right after the spin-up.
    spin_up
        Time that is integrated before, in the system's units.
    members
        Number of trajectories; None: one, from ``of.start`` itself.
    seed, spread
        With ``members``: their starts differ from ``of.start`` by normal noise of this standard deviation.

    Returns
    -------
    ndarray
        ``[time, component]``, or ``[time, member, component]`` with ``members``.
    """
    state = np.array(of.start)
    if members is not None:
        state = state + spread * np.random.default_rng(seed).standard_normal((members, state.size))
    for _ in range(round(spin_up / of.time_step)):
        state = runge_kutta_4(of.tendency, state, of.time_step)
    states = np.empty((steps, *state.shape))
    for index in range(steps):
        states[index] = state
        state = runge_kutta_4(of.tendency, state, of.time_step)
    return states
