"""Components that each break one promise, to prove that the kit notices."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from linear_reservoir import LinearReservoir, LinearReservoirSettings, ReservoirStepper

from bmi_components.stepper import Stepper


class WrongUnits(LinearReservoir):
    """Units that no library understands."""

    def get_var_units(self, name: str) -> str:
        return "fraction of a bucket"


class ValueIsReturnedNotFilled(LinearReservoir):
    """The commonest fault of Python components: NextGen would read zeros without a word."""

    def get_value_at_indices(self, name: str, dest: Any, inds: Any) -> Any:
        return self.get_value_ptr(name)[inds]


class PointerIsACopy(LinearReservoir):
    """A pointer that does not live."""

    def get_value_ptr(self, name: str) -> Any:
        return super().get_value_ptr(name).copy()


class ClockStandsStill(LinearReservoir):
    """NextGen would feed the first row of the forcing for ever."""

    def get_current_time(self) -> float:
        return 0.0


class SharedStorage(LinearReservoir):
    """All instances of the process fill one reservoir."""

    shared: ClassVar[dict[int, ReservoirStepper]] = {}

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        return self.shared.setdefault(0, ReservoirStepper(settings.residence_time))


class ForgetfulStepper(ReservoirStepper):
    """Saves no storage."""

    def write_state(self, state: Any) -> None:
        super().write_state({**state, "storage": np.zeros(self.size)})


class ForgetsItsStorage(LinearReservoir):
    """A restart that is not one."""

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        return ForgetfulStepper(settings.residence_time)


class AcceptsMissingForcing(LinearReservoir):
    """Turns a missing value into no rain."""

    def update(self) -> None:
        for name in self.get_input_var_names():
            values = self.get_value_ptr(name)
            values[~np.isfinite(values)] = 0.0
        super().update()


class SilentStepper(ReservoirStepper):
    """Does not know its runoff, and does not say that this may be so (Variable.nan_is_data)."""

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        super().step(forcings, time, outputs)
        outputs[self.size] = np.nan
        return outputs


class OutputIsMissing(LinearReservoir):
    """NaN where callers expect a number."""

    def open(self, settings: LinearReservoirSettings) -> Stepper:
        return SilentStepper(settings.residence_time)
