"""Leaves stepped through time: conductance follows from the inputs of the step alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.ball_berry.model import Form, Leaves, conductance, leaf_conductance
from bmi_components.ball_berry.settings import BallBerrySettings
from bmi_components.differentiable import Differentiable
from bmi_components.jax_devices import jax_device
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import Variable, variable

__all__ = ["INPUTS", "PARAMETERS", "BallBerryStepper"]

Array = NDArray[np.float64]

INPUTS: Mapping[Form, tuple[str, ...]] = {
    "ball_berry": ("net_assimilation", "leaf_carbon_dioxide", "leaf_relative_humidity"),
    "hybrid": ("net_assimilation", "leaf_carbon_dioxide", "leaf_relative_humidity", "soil_water_content"),
    "medlyn": ("net_assimilation", "leaf_carbon_dioxide", "leaf_vapour_pressure_deficit"),
}
"""What each form reads, in the order of `leaf_conductance`."""

PARAMETERS = {
    "conductance_slope": Variable(
        "conductance_slope", "1", "m", "Slope against assimilation (ball_berry, hybrid)", (0.0, 1000.0)
    ),
    "conductance_intercept": Variable(
        "conductance_intercept", "mol m-2 s-1", "g0", "Conductance without assimilation", (0.0, 10.0)
    ),
    "medlyn_slope": Variable(
        "medlyn_slope", "kPa0.5", "g1", "Slope against assimilation (medlyn)", (0.0, 100.0)
    ),
}


@partial(jax.jit, static_argnames="form")
def _of_vector(form: Form, leaves: Leaves, forcings: Any) -> Any:
    """Compute the conductance from the inputs end to end."""
    return conductance(form, leaves, forcings.reshape(-1, leaves.conductance_slope.size), jnp)


class BallBerryStepper(ArrayStepper):
    """Leaves of one form; they remember nothing.

    Parameters
    ----------
    form
        Of the conductance.
    leaves
        Parameters, ``[leaf]`` but for the network.
    settings
        Number of leaves, time step, precision, device.
    identity
        Of the bundle that the parameters come from; empty without one.
    """

    def __init__(self, form: Form, leaves: Leaves, settings: BallBerrySettings, identity: str) -> None:
        self._form, self._leaves = form, leaves
        self.size, self.time_step = settings.leaves, settings.time_step
        # On the host, one leaf is through NumPy before a compiled program is even called.
        self.backend = "numpy" if settings.device == "cpu" else "jax"
        self.device = settings.device
        self.dtype = "float64" if self.backend == "numpy" else "float32"
        self.identity = f"ball_berry {form} {identity}"
        self.inputs = tuple(variable(symbol) for symbol in INPUTS[form])
        self.outputs = (variable("stomatal_conductance"),)
        self.parameters = PARAMETERS
        self.state = {}
        self.values = {name: np.asarray(getattr(leaves, name)) for name in PARAMETERS}
        self._place()

    def _place(self) -> None:
        """Put the parameters where the leaves are computed."""
        dtype = np.float32 if self.backend == "jax" else np.float64
        leaves = jax.tree.map(
            lambda leaf: np.asarray(leaf, dtype), self._leaves._replace(**dict[str, Any](self.values))
        )
        if self.backend == "jax":
            leaves = jax.device_put(leaves, jax_device(self.device))
        self._computed: Leaves = leaves

    def set_parameter(self, name: str, values: Array) -> None:
        """Set one parameter per leaf."""
        super().set_parameter(name, values)
        self._place()

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Compute the conductance of all leaves."""
        if self.backend == "jax":
            return _of_vector(self._form, self._computed, forcings)
        outputs[:] = conductance(self._form, self._computed, forcings.reshape(-1, self.size), np)
        return outputs

    def initial_outputs(self, outputs: Array) -> None:
        """Before anything is known of assimilation, the conductance without it."""
        outputs[:] = self.values["conductance_intercept"]

    def differentiable(self) -> Differentiable:
        """Return the conductance as a function of inputs and parameters."""
        names = [variable.name for variable in self.inputs]
        form, leaves, output = self._form, self._computed, self.outputs[0].name

        def simulate(
            varied: Mapping[str, Any], state: Any, inputs: Mapping[str, Any], time: float
        ) -> tuple[Any, dict[str, Any]]:
            given = jnp.stack([inputs[name] for name in names])
            return state, {output: leaf_conductance(form, leaves._replace(**varied), given)}

        return Differentiable(
            "jax",
            simulate,
            {},
            dict.fromkeys(PARAMETERS, (self.size,)),
            {name: row.valid_range for name, row in PARAMETERS.items() if row.valid_range is not None},
            self.device,
            self.dtype,
        )
