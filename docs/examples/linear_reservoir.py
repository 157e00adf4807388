"""A linear reservoir, dS/dt = P - S/k, as a BMI component."""

from typing import Annotated, Any

import numpy as np
from msgspec import Meta

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.stepper import ArrayStepper, WaterBalance
from bmi_components.variables import Variable, variable

DAY = 86_400.0


def reservoir_step(storage: Any, rain: Any, residence_time: Any) -> tuple[Any, Any]:
    """One day, exactly: storage (mm), rain (mm d-1), residence time (d) -> new storage (mm), runoff (mm d-1)."""
    equilibrium = rain * residence_time
    new = equilibrium + (storage - equilibrium) * np.exp(-1.0 / residence_time)
    return new, storage + rain - new


class LinearReservoirSettings(Settings, kw_only=True, frozen=True):
    """Keys of the configuration file."""

    residence_time: Annotated[
        list[float], Meta(min_length=1, description="Residence time of each catchment, d.")
    ]


class ReservoirStepper(ArrayStepper):
    """The reservoirs of all catchments, and the water that came and went (mm)."""

    identity = "linear reservoir"
    time_step = DAY
    inputs = (variable("precipitation"),)
    outputs = (variable("runoff_depth"), variable("runoff_rate"), variable("lower_zone_storage"))

    def __init__(self, residence_time: list[float]) -> None:
        self.size = len(residence_time)
        self.parameters = {
            "residence_time": Variable("residence_time", "d", "k", "Residence", (0.01, np.inf))
        }
        self.values = {"residence_time": np.array(residence_time)}
        self.state = {name: np.zeros(self.size) for name in ("storage", "rained", "drained")}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one day; runoff depth is given as a rate (m s-1), which the component makes metres per update."""
        old = self.state
        new, runoff = reservoir_step(old["storage"], forcings, self.values["residence_time"])
        self.state = {"storage": new, "rained": old["rained"] + forcings, "drained": old["drained"] + runoff}
        outputs[:] = np.concatenate([runoff / 1000.0 / DAY, runoff, new])
        return outputs

    def initial_outputs(self, outputs: Any) -> None:
        """No runoff yet, and the storage as it is."""
        outputs[:] = np.concatenate([np.zeros(2 * self.size), self.state["storage"]])

    def water_balance(self) -> WaterBalance:
        """Mean over the catchments, m."""
        stored, rained, drained = (float(depth.mean()) / 1000.0 for depth in self.state.values())
        return WaterBalance(mass_in=rained, mass_out=drained, mass_stored=stored, mass_leaked=0.0)


class LinearReservoir(Component):
    """What NextGen, pymt and everybody else calls."""

    name = "Linear reservoir"
    settings_type = LinearReservoirSettings

    def open(self, settings: LinearReservoirSettings) -> ReservoirStepper:
        """Return the model bound to its catchments."""
        return ReservoirStepper(settings.residence_time)
