"""Lorenz63: the convection model of Lorenz (1963) as a small forecast component that takes analyses in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.differentiable import Differentiable
from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet import names
from bmi_components.fourdvarnet.lorenz import SYSTEMS, lorenz63, runge_kutta_4
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import Variable

__all__ = ["Lorenz63", "Lorenz63Settings"]

Array = NDArray[np.float64]

SYSTEM = SYSTEMS["lorenz63"]
PARAMETERS = {
    "sigma": (10.0, "Prandtl number"),
    "rho": (28.0, "Rayleigh number over its critical value"),
    "beta": (8.0 / 3.0, "geometric factor of the convection cells"),
}


class Lorenz63Settings(Settings, kw_only=True, frozen=True):
    """Configuration of a Lorenz63 component."""

    state: Annotated[
        tuple[tuple[float, float, float], ...],
        Meta(min_length=1, description="Where each trajectory starts: x, y, z."),
    ] = (SYSTEM.start,)  # type: ignore[assignment]
    time_step: Annotated[
        float,
        Meta(gt=0.0, description="Length of a step; the model's unit of time is published as a second."),
    ] = SYSTEM.time_step


class Lorenz63Stepper(ArrayStepper):
    """Trajectories of the model by the classical Runge-Kutta method of fourth order.

    Parameters
    ----------
    starts
        State of each trajectory, x, y, z.
    time_step
        Of the method, in the model's units of time.
    """

    def __init__(self, starts: Sequence[Sequence[float]], time_step: float) -> None:
        self.inputs = tuple(names.analysed(component) for component in SYSTEM.components)
        self.outputs = tuple(names.state(component) for component in SYSTEM.components)
        self.time_step, self.size = time_step, len(starts)
        self.identity = f"lorenz63 {time_step!r}"
        self.state = {"state": np.array(starts, np.float64)}
        self.parameters = {
            name: Variable(name, "1", name, meaning) for name, (_, meaning) in PARAMETERS.items()
        }
        self.values = {name: np.full(self.size, value) for name, (value, _) in PARAMETERS.items()}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance from the analysis, where there is one, or from the model's own state."""
        given = forcings.reshape(3, self.size).T
        start = np.where(np.isnan(given), self.state["state"], given)

        parameters: list[Any] = [self.values[name] for name in PARAMETERS]

        def tendency(state: Any, xp: Any) -> Any:
            return lorenz63(state, xp, *parameters)

        self.state = {"state": runge_kutta_4(tendency, start, self.time_step)}
        self.initial_outputs(outputs)
        return outputs

    def initial_outputs(self, outputs: Array) -> None:
        """Give the state as it is."""
        outputs[:] = self.state["state"].T.reshape(-1)

    def differentiable(self) -> Differentiable:
        """Return the trajectories as a function of sigma, rho and beta, in JAX."""
        from bmi_components.fourdvarnet.forecast_series import differentiable

        inputs, outputs = [v.name for v in self.inputs], [v.name for v in self.outputs]
        return differentiable(self.state["state"], dict(self.values), inputs, outputs, self.time_step)


class Lorenz63(Component):
    """The model of Lorenz (1963), one trajectory or many, as a BMI component.

    Its inputs are analyses of the state, NaN where there is none: a step starts from them.
    """

    name = "Lorenz63"
    METADATA = "../pymt/Lorenz63"
    settings_type = Lorenz63Settings

    def open(self, settings: Lorenz63Settings) -> Lorenz63Stepper:
        """Return the trajectories at their starts."""
        if not np.isfinite(settings.state).all():
            raise ConfigurationError(f"state: {settings.state} holds values that are not finite numbers")
        return Lorenz63Stepper(settings.state, settings.time_step)
