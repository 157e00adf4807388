"""A linear reservoir as a BMI component: the complete example of docs/add_your_own_model.md."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.errors import StateError
from bmi_components.stepper import Stepper, WaterBalance
from bmi_components.variables import Variable, variable

DAY = 86_400.0


def reservoir_step(storage: Any, precipitation: Any, residence_time: Any) -> tuple[Any, Any]:
    """One day of dS/dt = P - S/k, exactly: storage (mm), P (mm d-1), k (d) -> new storage (mm), Q (mm d-1)."""
    equilibrium = precipitation * residence_time
    new = equilibrium + (storage - equilibrium) * np.exp(-1.0 / residence_time)
    return new, storage + precipitation - new


class LinearReservoirSettings(Settings, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Keys of the configuration file."""

    residence_time: Annotated[
        list[float], Meta(min_length=1, description="Residence time of each catchment, d.")
    ]


class ReservoirStepper(Stepper):
    """Remembers the storage of every catchment and the water that came and went."""

    inputs = (variable("precipitation"),)
    outputs = (variable("runoff_depth"), variable("runoff_rate"), variable("lower_zone_storage"))
    time_step = DAY
    identity = "linear reservoir"

    def __init__(self, residence_time: list[float]) -> None:
        self.size = len(residence_time)
        self.residence_time = np.array(residence_time)
        self.parameters: Mapping[str, Variable] = {
            "residence_time": Variable("residence_time", "d", "k", "Residence time", (0.01, math.inf))
        }
        self.storage, self.rained, self.drained = np.zeros((3, self.size))

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one day; outputs are runoff depth (as m s-1), runoff (mm d-1) and storage (mm)."""
        self.storage, runoff = reservoir_step(self.storage, forcings, self.residence_time)
        self.rained, self.drained = self.rained + forcings, self.drained + runoff
        outputs[:] = np.concatenate([runoff / 1000.0 / DAY, runoff, self.storage])
        return outputs

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        """Storage as it is, no runoff."""
        outputs[:] = np.concatenate([np.zeros(2 * self.size), self.storage])

    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy of the state."""
        return {"storage": self.storage.copy(), "rained": self.rained.copy(), "drained": self.drained.copy()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state."""
        own = self.read_state()
        if state.keys() != own.keys() or any(state[name].shape != own[name].shape for name in own):
            raise StateError(
                f"a linear reservoir's state is {', '.join(own)}, each of {self.size} catchments"
            )
        self.storage, self.rained, self.drained = (np.array(state[name]) for name in own)

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """The residence time, d."""
        return self.residence_time

    def set_parameter(self, name: str, values: NDArray[np.float64]) -> None:
        """Change the residence time, d."""
        self.residence_time = values

    def water_balance(self) -> WaterBalance:
        """Mean over the catchments (of equal area), m."""
        rained, drained, stored = (
            float(mm.mean()) / 1000.0 for mm in (self.rained, self.drained, self.storage)
        )
        return WaterBalance(mass_in=rained, mass_out=drained, mass_stored=stored, mass_leaked=0.0)


class LinearReservoir(Component):
    """dS/dt = P - S/k."""

    name = "Linear reservoir"
    settings_type = LinearReservoirSettings

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        """Bind the model to its catchments."""
        return ReservoirStepper(settings.residence_time)
