"""Modules of somebody else's, for realizations in which one feeds another: BMI, but none of this package."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import bmipy
import numpy as np
from numpy.typing import NDArray

TEMPERATURE = "land_surface_air__temperature"
EVAPORATION = "water_potential_evaporation_flux"
WETNESS = "soil_wetness"


class PotentialEvaporation(bmipy.Bmi):
    """Oudin without the sun: 0.2 mm d-1 per degree above -5 degC, given in m s-1; less where the soil was dry."""

    looks_back = False

    def initialize(self, config_file: str) -> None:
        self.time = 0.0
        self.values = {EVAPORATION: np.zeros(1), TEMPERATURE: np.zeros(1), WETNESS: np.ones(1)}

    def update(self) -> None:
        warm = max(0.0, float(self.values[TEMPERATURE][0]) + 5.0)
        wet = float(self.values[WETNESS][0]) if self.looks_back else 1.0
        self.values[EVAPORATION][0] = 0.2e-3 / 86_400.0 * warm * wet
        self.time += 3600.0

    def update_until(self, time: float) -> None:
        raise AssertionError("NextGen calls update where the step is an hour")

    def finalize(self) -> None: ...

    def get_component_name(self) -> str:
        return "potential evaporation"

    def get_input_item_count(self) -> int:
        return len(self.get_input_var_names())

    def get_output_item_count(self) -> int:
        return 1

    def get_input_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return (TEMPERATURE, WETNESS) if self.looks_back else (TEMPERATURE,)

    def get_output_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return (EVAPORATION,)

    def get_var_units(self, name: str) -> str:
        return {EVAPORATION: "m s-1", TEMPERATURE: "degC", WETNESS: "1"}[name]

    def get_var_type(self, name: str) -> str:
        return str(self.values[name].dtype)

    def get_var_itemsize(self, name: str) -> int:
        return self.values[name].itemsize

    def get_var_nbytes(self, name: str) -> int:
        return self.values[name].nbytes

    def get_current_time(self) -> float:
        return self.time

    def get_start_time(self) -> float:
        return 0.0

    def get_end_time(self) -> float:
        return 1e9

    def get_time_units(self) -> str:
        return "s"

    def get_time_step(self) -> float:
        return 3600.0

    def get_value_ptr(self, name: str) -> NDArray[Any]:
        return self.values[name]

    def get_value(self, name: str, dest: NDArray[Any]) -> NDArray[Any]:
        dest[:] = self.values[name]
        return dest

    def get_value_at_indices(self, name: str, dest: NDArray[Any], inds: NDArray[Any]) -> NDArray[Any]:
        dest[:] = self.values[name][inds]
        return dest

    def set_value(self, name: str, src: NDArray[Any]) -> None:
        self.values[name][:] = src


def _refuse(*_: Any) -> Any:
    raise NotImplementedError


# NextGen asks for none of the rest.
for _name in PotentialEvaporation.__abstractmethods__:
    setattr(PotentialEvaporation, _name, _refuse)
PotentialEvaporation.__abstractmethods__ = frozenset()


class DryingEvaporation(PotentialEvaporation):
    """The same, knowing how wet the soil was an hour ago."""

    looks_back = True


class Fraction(DryingEvaporation):
    """Says how wet the soil is, from the evaporation of the same hour; what it says is a number of no units."""

    def update(self) -> None:
        super().update()
        self.values[EVAPORATION][0] = 1.0 / (1.0 + 1e9 * float(self.values[WETNESS][0]))

    def get_var_units(self, name: str) -> str:
        return {EVAPORATION: "1", TEMPERATURE: "degC", WETNESS: "m s-1"}[name]


class Fragile(Fraction):
    """Kills its process once."""

    looks_back = False

    def initialize(self, config_file: str) -> None:
        super().initialize(config_file)
        fuse = Path("fuse")
        if fuse.exists():
            fuse.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class Integers(PotentialEvaporation):
    """A type that aborts ngen."""

    def get_var_type(self, name: str) -> str:
        return "int16" if name == EVAPORATION else "float64"
