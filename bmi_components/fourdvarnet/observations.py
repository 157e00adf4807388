"""What is seen of a true state: which components, when, and with how much noise; everything else is NaN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError

__all__ = ["PROTOCOLS", "ObservationProtocol", "cut_windows", "observation_mask", "observe"]

Array = NDArray[np.float64]


class ObservationProtocol(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How windows are observed.

    Attributes
    ----------
    components
        Names of the observed components; null: all of them.
    every
        Steps from one observation to the next.
    phase
        "fixed": the first observation of a window is at its first step; "random": at any of its first ``every``
        steps, so that a model learns to take windows as they come when time goes on step by step.
    missing
        Share of the observations, each for itself, that is missing at random on top of that.
    noise_variance
        Variance of the observations' error, in the components' units squared.
    blank_ends
        Steps without observations at each end of a window.
    blank_past
        Whether nothing is observed before a step that is drawn anew for each window, as when a running assimilation
        has only begun.
    """

    components: tuple[str, ...] | None = None
    every: Annotated[int, Meta(ge=1)] = 8
    phase: Literal["fixed", "random"] = "fixed"
    missing: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    noise_variance: Annotated[float, Meta(ge=0.0)] = 2.0
    blank_ends: Annotated[int, Meta(ge=0)] = 10
    blank_past: bool = False


PROTOCOLS = {
    "fablet": ObservationProtocol(),
    "x_only": ObservationProtocol(components=("x",)),
    "x_and_y": ObservationProtocol(components=("x", "y"), every=1, blank_ends=0),
    "random_75": ObservationProtocol(every=1, missing=0.75, blank_ends=0),
    "random_95": ObservationProtocol(every=1, missing=0.95, blank_ends=0),
    "vardax": ObservationProtocol(every=5, noise_variance=0.25, blank_ends=0),
}
"""Protocols of published experiments with Lorenz-63: Fablet's (all components every 8 steps, noise variance 2, 10 blank
steps at both ends), the same with x alone (as in 4dvarnet-starter), x and y at every step, random masks, vardax's."""


def cut_windows(
    states: Array, length: int, count: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Cut windows from a trajectory at random.

    Parameters
    ----------
    states
        ``[time, component]``.
    length
        Steps of a window.
    count
        Number of windows.
    generator
        Where the randomness comes from.

    Returns
    -------
    ndarray
        ``[window, time, component]``.

    Raises
    ------
    ConfigurationError
        If the trajectory is shorter than a window.
    """
    if len(states) < length:
        raise ConfigurationError(f"a trajectory of {len(states)} steps holds no window of {length} steps")
    starts = generator.integers(0, len(states) - length + 1, count)
    windows: Array = states[starts[:, None] + np.arange(length)]
    return windows


def observation_mask(
    protocol: ObservationProtocol,
    names: Sequence[str],
    windows: int,
    length: int,
    generator: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return where windows are observed, ``[window, time, component]``.

    Raises
    ------
    ConfigurationError
        If the protocol names a component that there is not.
    """
    unknown = [name for name in protocol.components or () if name not in names]
    if unknown:
        raise ConfigurationError(
            f"observations.components: {unknown[0]!r} is no component; there are {', '.join(names)}"
        )
    first = np.zeros((windows, 1), dtype=np.int64)
    if protocol.phase == "random":
        first = generator.integers(0, protocol.every, (windows, 1))
    time = np.arange(length)
    seen = (time - first) % protocol.every == 0
    seen &= (time >= protocol.blank_ends) & (time < length - protocol.blank_ends)
    if protocol.blank_past:
        seen &= time >= generator.integers(0, length, (windows, 1))
    observed = np.array([protocol.components is None or name in protocol.components for name in names])
    mask: NDArray[np.bool_] = seen[:, :, None] & observed
    if protocol.missing > 0.0:
        mask &= generator.random(mask.shape) >= protocol.missing
    return mask


def observe(
    truth: Array,
    protocols: ObservationProtocol | Sequence[ObservationProtocol],
    names: Sequence[str],
    generator: np.random.Generator,
) -> Array:
    """Observe true states: noise where the protocol looks, NaN everywhere else.

    Parameters
    ----------
    truth
        ``[window, time, component]``.
    protocols
        How; with several, the windows take turns.
    names
        Names of the components.
    generator
        Where the randomness comes from.

    Returns
    -------
    ndarray
        ``[window, time, component]``.

    Raises
    ------
    ConfigurationError
        If a protocol names a component that there is not.
    """
    turns = (protocols,) if isinstance(protocols, ObservationProtocol) else tuple(protocols)
    observations = np.full_like(truth, np.nan)
    for turn, protocol in enumerate(turns):
        part = truth[turn :: len(turns)]
        mask = observation_mask(protocol, names, part.shape[0], part.shape[1], generator)
        noise = np.sqrt(protocol.noise_variance) * generator.standard_normal(part.shape)
        observations[turn :: len(turns)] = np.where(mask, part + noise, np.nan)
    return observations
