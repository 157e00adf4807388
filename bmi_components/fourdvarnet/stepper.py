"""Assimilation stepped through time: observations enter a window that moves on, and each step has its analysis."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet import names
from bmi_components.fourdvarnet.model import FourDVarNet
from bmi_components.fourdvarnet.settings import FourDVarNetSettings
from bmi_components.stepper import ArrayStepper

__all__ = ["FourDVarNetStepper"]

Array = NDArray[Any]


class FourDVarNetStepper(ArrayStepper):
    """A trained solver at some sites, and the window that it works on.

    The state is the window of ``observations [time, site, component]`` (NaN: none), the same for each perturbed member
    (``perturbed [time, member, site, component]``), the previous ``analysis [time, member, site, component]`` with the
    unperturbed one first, and the number of ``steps``.

    Parameters
    ----------
    model
        Shared by all instances of the process.
    identity
        Of its bundle.
    settings
        Number of sites, start, lag, ensemble.

    Raises
    ------
    ConfigurationError
        If the lag reaches beyond the window.
    """

    def __init__(self, model: FourDVarNet, identity: str, settings: FourDVarNetSettings) -> None:
        self._model, self._settings = model, settings
        self.size = settings.sites
        self.time_step = model.time_step
        self.identity = f"fourdvarnet {identity} {settings.start} {settings.lag}"
        components, window = model.components, model.hyperparameters.window
        if settings.lag >= window:
            raise ConfigurationError(f"lag is {settings.lag}; the model's window has {window} steps")
        self._members = 0 if settings.ensemble is None else settings.ensemble.members
        observed = [names.observed(c.name, c.units) for c in components]
        forecast = [names.state(c.name, c.units) for c in components] if settings.background else []
        self.inputs = (*observed, *forecast)
        roles = [names.analysed, names.lagged, names.innovation]
        if self._members:
            roles.append(names.spread)
        self.outputs = (
            *(role(c.name, c.units) for role in roles for c in components),
            names.COST,
            names.NUMBER_OF_OBSERVATIONS,
            *(names.trajectory(c.name, c.units) for c in components),
        )
        self.extra_grids = {names.WINDOW: window * self.size}
        shape = (self.size, len(components))
        self.state = {
            "observations": np.full((window, *shape), np.nan, np.float32),
            "perturbed": np.full((window, self._members, *shape), np.nan, np.float32),
            "analysis": np.full((window, 1 + self._members, *shape), np.nan, np.float32),
            "steps": np.zeros(1, np.int64),
            "latest": self._nothing(),
        }

    def _nothing(self) -> Array:
        """Return the outputs before there is an analysis."""
        sizes = [self.extra_grids.get(v.grid, self.size) for v in self.outputs]
        parts = [np.full(size, np.nan) for size in sizes]
        parts[self.outputs.index(names.NUMBER_OF_OBSERVATIONS)][:] = 0.0
        return np.concatenate(parts)

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Take in the observations of a step, and analyse the window that ends with it."""
        count = len(self._model.components)
        rows = forcings.reshape(-1, self.size)
        observation = rows[:count].T.astype(np.float32)
        background = rows[count:].T.astype(np.float32) if self._settings.background else None
        forecast = self.state["analysis"][-1, 0]
        if background is not None:
            forecast = np.where(np.isfinite(background), background, forecast)
        self._remember(observation)
        windows = _windows(self._seen())
        found = self._model.solve(windows)
        trajectory, reached = np.array(found.trajectory), np.array(found.cost)
        if self._settings.start == "warm":
            moved = self._moved_on(background, trajectory)
            kept = self._model.solve(windows, moved, 0)
            better = np.array(kept.cost) < reached
            trajectory = np.where(better[:, None, None], moved, trajectory)
            reached = np.where(better, kept.cost, reached)
        analysis = self._unstacked(trajectory)
        known = np.isfinite(self.state["observations"]).any(
            axis=(0, 2)
        )  # a site never observed has no analysis
        analysis[:, :, ~known] = np.nan
        self.state["analysis"] = analysis
        self.state["steps"] = self.state["steps"] + 1
        cost = np.where(known, reached.reshape(1 + self._members, self.size)[0], np.nan)
        self._publish(observation - forecast, cost)
        outputs[:] = self.state["latest"]
        return outputs

    def _seen(self) -> Array:
        """Return all observations, ``[time, member, site, component]``, the unperturbed ones first."""
        return np.concatenate([self.state["observations"][:, None], self.state["perturbed"]], axis=1)

    def _unstacked(self, windows: Any) -> Array:
        """Turn windows ``[member * site, time, component]`` into ``[time, member, site, component]``."""
        values = np.array(windows)
        shape = (1 + self._members, self.size, *values.shape[1:])
        return np.ascontiguousarray(values.reshape(shape).transpose(2, 0, 1, 3))

    def _remember(self, observation: Array) -> None:
        """Move the windows on by a step."""
        state = self.state
        state["observations"] = np.concatenate([state["observations"][1:], observation[None]])
        latest = observation[None, None].repeat(self._members, axis=1)
        ensemble = self._settings.ensemble
        if ensemble is not None:
            noise = np.random.default_rng([ensemble.seed, int(state["steps"][0])])
            latest = latest + ensemble.noise * noise.standard_normal(latest.shape).astype(np.float32)
        state["perturbed"] = np.concatenate([state["perturbed"][1:], latest])

    def _moved_on(self, background: Array | None, otherwise: Array) -> Array:
        """Return the previous analysis, moved on by a step, as windows; ``otherwise`` where there is none."""
        before = self.state["analysis"]
        moved = np.concatenate([before[1:], before[-1:]])
        if background is not None:
            moved[-1] = np.where(np.isfinite(background), background, moved[-1])
        windows = _windows(moved)
        return np.where(np.isfinite(windows), windows, otherwise)

    def _publish(self, innovation: Array, cost: Array) -> None:
        """Put the outputs end to end."""
        analysis, lag = self.state["analysis"], self._settings.lag
        roles = [analysis[-1, 0], analysis[-1 - lag, 0], innovation]
        if self._members:
            roles.append(analysis[-1, 1:].std(axis=0, ddof=1))
        number = np.isfinite(self.state["observations"]).sum(axis=(0, 2))
        parts = [*(role.T.reshape(-1) for role in roles), cost, number]
        parts += [analysis[:, 0].transpose(2, 0, 1).reshape(-1)]
        self.state["latest"] = np.concatenate(parts).astype(np.float64)

    def initial_outputs(self, outputs: Array) -> None:
        """Nothing is known before the first step."""
        outputs[:] = self.state["latest"]


def _windows(values: Array) -> Array:
    """Turn ``[time, member, site, component]`` into windows ``[member * site, time, component]``."""
    return values.transpose(1, 2, 0, 3).reshape(-1, len(values), values.shape[-1])
