"""Potential evaporation by the hour after Priestley and Taylor (1972): a JAX component to couple and differentiate."""

from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from msgspec import Meta

from bmi_components import Component
from bmi_components.config import Settings
from bmi_components.differentiable import Differentiable
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import Variable, variable

HOUR = 3_600.0
LATENT_HEAT = 2.45e6  # of evaporation, J kg-1
PSYCHROMETRIC = 0.066  # kPa K-1
MEMORY = 48 * HOUR  # in which the ground gives its heat back


def canopy_hour(heat: Any, radiation: Any, temperature: Any, alpha: Any, xp: Any = np) -> tuple[Any, Any]:
    """One hour: heat in the ground (J m-2), net radiation (W m-2), air (degC) -> new heat, evaporation (mm h-1).

    ``alpha delta / (delta + gamma) (Rn - G) / lambda``, where the ground takes up a tenth of the radiation.
    """
    saturation = 0.6108 * xp.exp(17.27 * temperature / (temperature + 237.3))  # Allen et al. (1998), eq. 11
    slope = 4098.0 * saturation / (temperature + 237.3) ** 2  # eq. 13, kPa K-1
    ground = 0.1 * radiation - heat / MEMORY
    energy = alpha * slope / (slope + PSYCHROMETRIC) * (radiation - ground)
    return heat + ground * HOUR, xp.maximum(energy, 0.0) / LATENT_HEAT * HOUR


class CanopySettings(Settings, kw_only=True, frozen=True):
    """Keys of the configuration file."""

    alpha: Annotated[
        list[float], Meta(min_length=1, description="Priestley-Taylor factor of each catchment.")
    ]


class CanopyStepper(ArrayStepper):
    """The canopies of all catchments, stepped with NumPy."""

    identity = "evaporating canopy"
    time_step = HOUR
    inputs = (variable("net_radiation"), variable("temperature"))
    outputs = (variable("potential_evapotranspiration", "mm h-1"),)

    def __init__(self, alpha: list[float]) -> None:
        self.size = len(alpha)
        self.parameters = {"alpha": Variable("alpha", "1", "alpha", "Priestley-Taylor factor", (0.0, 3.0))}
        self.values = {"alpha": np.array(alpha)}
        self.state = {"heat": np.zeros(self.size)}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one hour."""
        radiation, temperature = forcings.reshape(2, self.size)
        self.state["heat"], outputs[:] = canopy_hour(
            self.state["heat"], radiation, temperature, self.values["alpha"]
        )
        return outputs

    def initial_outputs(self, outputs: Any) -> None:
        """Nothing has evaporated yet."""
        outputs[:] = 0.0

    def differentiable(self) -> Differentiable:
        """Return the same over a series, in JAX: all that a coupling needs for gradients."""
        radiation, temperature = (v.name for v in self.inputs)
        alpha, evaporation = self.values["alpha"], self.outputs[0].name

        def simulate(
            parameters: Mapping[str, Any], state: Any, inputs: Mapping[str, Any], time: float
        ) -> tuple[Any, dict[str, Any]]:
            given = parameters.get("alpha", alpha)
            state, series = canopy_series(state, inputs[radiation], inputs[temperature], given)
            return state, {evaporation: series}

        return Differentiable(
            "jax", simulate, self.state["heat"], {"alpha": (self.size,)}, {"alpha": (0.0, 3.0)}
        )


@jax.jit
def canopy_series(heat: Any, radiation: Any, temperature: Any, alpha: Any) -> tuple[Any, Any]:
    """Run over ``[hour, catchment]``; return the heat at the end and the evaporation, mm h-1."""

    def hour(heat: Any, weather: Any) -> tuple[Any, Any]:
        return canopy_hour(heat, *weather, alpha, jnp)

    last, evaporation = jax.lax.scan(hour, heat, (radiation, temperature))
    return last, evaporation


class EvaporatingCanopy(Component):
    """What gets coupled."""

    name = "Evaporating canopy"
    settings_type = CanopySettings

    def open(self, settings: CanopySettings) -> CanopyStepper:
        """Return the canopies, their ground cold."""
        return CanopyStepper(settings.alpha)
