"""What a model offers to the component that steps it: the one interface between science and BMI."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bmi_components.differentiable import Differentiable
from bmi_components.errors import StateError
from bmi_components.variables import Variable

__all__ = ["Aggregation", "ArrayStepper", "Stepper", "WaterBalance", "check_state"]

Aggregation = Literal["mean", "min", "max", "last"]
"""How a forcing that is given several times within one model step becomes the step's value."""


@dataclass(frozen=True, slots=True)
class WaterBalance:
    """Cumulative water since the start in metres, area-weighted over the catchments (ngen's mass protocol).

    ``mass_in = mass_out + mass_stored + mass_leaked``; ``mass_in`` includes the initial storage.
    """

    mass_in: float
    mass_out: float
    mass_stored: float
    mass_leaked: float


class Stepper(abc.ABC):
    """A model bound to ``size`` catchments (sites, windows) on one device, with the state that it advances.

    Values travel as flat vectors: the variables of ``inputs`` (``forcings``, ``outputs``) laid end to end, each
    with as many elements as its grid has (``size`` unless ``Variable.grid`` says otherwise). On the host they are
    float64 NumPy vectors; a device stepper (``backend`` "torch" or "jax") takes and returns tensors on ``device``.
    """

    inputs: tuple[Variable, ...]
    outputs: tuple[Variable, ...]
    time_step: float
    """Length of one model step, s."""
    size: int
    """Number of catchments (sites, windows)."""
    backend: Literal["numpy", "torch", "jax"] = "numpy"
    device: str = "cpu"
    parameters: Mapping[str, Variable] = {}
    """Parameters and static attributes that can be set by name and are never published."""
    extra_grids: Mapping[str, int] = {}
    """Sizes of grids other than "catchment" that ``Variable.grid`` names (canopy layers, window days)."""
    aggregations: tuple[Aggregation, ...] | None = None
    """One per forcing of ``prepare``; None: the forcings are the inputs, each averaged over the step."""
    dtype: Literal["float32", "float64"] = "float64"
    """Data type of the tensors that a device stepper is given (host steppers always get float64 vectors)."""
    identity: str = ""
    """Which model this is (kind, sizes, hash of its weights): a saved state fits only the same identity."""
    coordinates: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """Longitude and latitude (or x and y) of the catchments, each ``[size]``, where they are known."""

    def prepare(self, inputs: Any, time: float, seconds: float) -> Any:
        """Turn inputs valid over ``[time, time + seconds)`` into the model's forcings at that moment.

        Called once per BMI update, also for a part of a step; what it returns is aggregated over the step by
        ``aggregations`` and given to ``step``. Example: hourly Penman-Monteith for a daily model. Must not change
        the state. The default returns the inputs.

        Raises
        ------
        ForcingError
            If a value is physically impossible; nothing has changed then.
        """
        return inputs

    @abc.abstractmethod
    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance the state by one ``time_step`` from ``time`` (s since start) and return the outputs.

        A host stepper writes into ``outputs`` (float64 vector) and returns it; a device stepper ignores it and
        returns a tensor. An output whose ``Variable.per_update`` is true is given as a rate (its units per second):
        the component turns it into the amount over the update.
        """

    @abc.abstractmethod
    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        """Write what the outputs are at the current state before any step (stores as they are, fluxes zero)."""

    @abc.abstractmethod
    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy the whole state to the host, by name; ``write_state`` of it continues bit for bit."""

    @abc.abstractmethod
    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state.

        Raises
        ------
        StateError
            If a name is missing or unknown, or a shape or data type differs; the state is untouched then.
        """

    def checkpoint(self) -> Any:
        """Remember the state for ``rollback``; override where that is cheaper than copying it to the host."""
        return self.read_state()

    def rollback(self, checkpoint: Any) -> None:
        """Return to the state that ``checkpoint`` remembered, bit for bit."""
        self.write_state(checkpoint)

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """Value of one parameter or attribute per catchment, shape ``[size]``."""
        raise KeyError(name)

    def set_parameter(self, name: str, values: NDArray[np.float64]) -> None:
        """Set one parameter or attribute per catchment, shape ``[size]``; takes effect from the next step."""
        raise KeyError(name)

    def water_balance(self) -> WaterBalance | None:
        """Cumulative water balance since the start, or None where the model does not conserve water."""
        return None

    def differentiable(self) -> Differentiable | None:
        """Return the model as it stands as a function to differentiate, or None where it is not one."""
        return None


def check_state(expected: Mapping[str, NDArray[Any]], state: Mapping[str, NDArray[Any]]) -> None:
    """Check that a state has the names, shapes and types of another.

    Raises
    ------
    StateError
        Naming the first difference.
    """
    for name in sorted(set(expected) ^ set(state)):
        word = "lacks" if name in expected else "has an unknown"
        raise StateError(f"the saved state {word} {name!r}; it belongs to another model")
    for name, array in expected.items():
        found = state[name]
        if found.shape != array.shape or found.dtype != array.dtype:
            raise StateError(
                f"the saved state's {name!r} is {found.dtype} {found.shape}; {array.dtype} {array.shape} is needed"
            )


class ArrayStepper(Stepper):
    """A stepper whose state and parameters are NumPy arrays by name: enough for a model that runs on the host.

    Attributes
    ----------
    state
        Everything that the model remembers; ``step`` may replace the arrays or change them in place.
    values
        The parameters that ``parameters`` declares, each ``[size]``.
    """

    state: dict[str, NDArray[Any]]
    values: Mapping[str, NDArray[np.float64]] = {}

    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy the state."""
        return {name: array.copy() for name, array in self.state.items()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state by one with the same names, shapes and data types."""
        check_state(self.state, state)
        self.state = {name: np.array(state[name]) for name in self.state}

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """Value of one parameter per catchment, shape ``[size]``."""
        return self.values[name]

    def set_parameter(self, name: str, values: NDArray[np.float64]) -> None:
        """Set one parameter per catchment, shape ``[size]``."""
        self.values = {**self.values, name: values}
