"""Variables that a component answers for but never publishes: parameters, NextGen's mass balance and saved states."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.buffers import numbers
from bmi_components.errors import ConfigurationError, StateError, UnknownNameError, ValueShapeError
from bmi_components.snapshot import Snapshot
from bmi_components.stepper import Stepper, WaterBalance
from bmi_components.variables import Variable

if TYPE_CHECKING:
    from bmi_components.run import Run

__all__ = ["HiddenVariable", "MassBalance", "Parameter", "StateExchange"]


class HiddenVariable(abc.ABC):
    """One name outside the published lists, with the metadata that a framework asks for before it uses it."""

    units: str = "1"
    dtype: str = "float64"
    on_grid = False

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return np.dtype(self.dtype).itemsize

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Bytes of all elements."""

    @abc.abstractmethod
    def read(self) -> NDArray[Any]:
        """Return the value now, 1-D; the array stays valid after the call."""

    @abc.abstractmethod
    def write(self, values: Any) -> None:
        """Set the value."""


class Parameter(HiddenVariable):
    """A parameter or static attribute of the model, one value per catchment."""

    on_grid = True

    def __init__(self, stepper: Stepper, key: str) -> None:
        self._stepper = stepper
        self._key = key
        self._variable: Variable = stepper.parameters[key]
        self._values: NDArray[np.float64] | None = None
        self.units = self._variable.units

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return 8 * self._stepper.size

    def read(self) -> NDArray[Any]:
        """Return the value per catchment, read-only: a parameter changes by ``set_value`` alone."""
        if self._values is None:
            self._values = np.empty(self._stepper.size)
        self._values.flags.writeable = True
        self._values[:] = self._stepper.get_parameter(self._key)
        self._values.flags.writeable = False
        return self._values

    def write(self, values: Any) -> None:
        """Set it, one value per catchment or one for all, from the next step on.

        Raises
        ------
        ValueShapeError
            If the length is neither 1 nor the number of catchments.
        ConfigurationError
            If a value is not finite or outside the valid range.
        """
        what = f"the parameter {self._key!r}"
        given = numbers(values, what, self.units).astype(np.float64)
        size = self._stepper.size
        if given.size not in (1, size):
            raise ValueShapeError(f"{what} takes 1 or {size} values, not {given.size}")
        low, high = self._variable.valid_range or (-np.inf, np.inf)
        wrong = ~(np.isfinite(given) & (given >= low) & (given <= high))
        if wrong.any():
            where = int(np.flatnonzero(wrong)[0])
            within = f"between {low:g} and {high:g} {self.units}" if self._variable.valid_range else "finite"
            raise ConfigurationError(f"{what} is {given[where]:g} at catchment {where}; it must be {within}")
        self._stepper.set_parameter(self._key, np.ascontiguousarray(np.broadcast_to(given, size)).copy())


class MassBalance:
    """NextGen's ``ngen::mass_*`` variables: one live float64 element each, metres since the start.

    Live costs: the model is asked after every update, but only once somebody has asked for a first time.
    """

    NAMES = ("ngen::mass_in", "ngen::mass_out", "ngen::mass_stored", "ngen::mass_leaked")

    def __init__(self, balance: Callable[[], WaterBalance | None]) -> None:
        self._balance = balance
        self._values = np.zeros(4)
        self.terms: Mapping[str, HiddenVariable] = {
            name: _MassTerm(name, self._values[index : index + 1]) for index, name in enumerate(self.NAMES)
        }
        self.refresh()

    def refresh(self) -> None:
        """Take the model's balance over into the live elements."""
        balance = self._balance()
        if balance is not None:
            self._values[:] = (balance.mass_in, balance.mass_out, balance.mass_stored, balance.mass_leaked)


class _MassTerm(HiddenVariable):
    units = "m"

    def __init__(self, name: str, value: NDArray[np.float64]) -> None:
        self._name = name
        self._value = value

    @property
    def nbytes(self) -> int:
        return 8

    def read(self) -> NDArray[Any]:
        return self._value

    def write(self, values: Any) -> None:
        raise UnknownNameError(f"{self._name} follows from the model and cannot be set")


class StateExchange:
    """Saving and restoring through BMI variables, in both forms that NextGen's developers have proposed.

    ``ngen::serialization_create``, ``_size``, ``_state``, ``_free`` (pull request 957) and the same four without the
    prefix, with ``reset_time`` (pull request 979). A restored state carries everything but the time: NextGen
    indexes its forcing by the component's clock, which starts anew in a new run.
    """

    NAMES = (
        "ngen::serialization_create",
        "ngen::serialization_size",
        "ngen::serialization_state",
        "ngen::serialization_free",
        "serialization_create",
        "serialization_size",
        "serialization_state",
        "serialization_free",
        "reset_time",
    )

    def __init__(self, run: Run, component: str) -> None:
        self._run = run
        self._component = component
        self.state: NDArray[np.uint8] = np.empty(0, dtype=np.uint8)
        self.expected: int | None = None
        self.variables: dict[str, HiddenVariable] = {"reset_time": _Trigger(run.clock.reset, "1")}
        for prefix, size_type, trigger_units, state_units in (
            ("ngen::", "int64", "ngen::trigger", "ngen::opaque"),
            ("", "uint64", "1", "1"),
        ):
            size = _StateSize(self, size_type)
            create = _Trigger(self.create, trigger_units, size if not prefix else None)
            self.variables |= {
                f"{prefix}serialization_create": create,
                f"{prefix}serialization_size": size,
                f"{prefix}serialization_state": _StateBytes(self, state_units),
                f"{prefix}serialization_free": _Trigger(self.free, trigger_units),
            }

    def create(self) -> None:
        """Take a snapshot and keep it until ``free``."""
        self.state = np.frombuffer(self._run.snapshot(self._component).to_bytes(), dtype=np.uint8).copy()
        self.expected = None

    def free(self) -> None:
        """Forget the snapshot."""
        self.state = np.empty(0, dtype=np.uint8)
        self.expected = None

    @property
    def size(self) -> int:
        """Bytes of the snapshot that is kept, or that is announced to come."""
        return self.state.size if self.expected is None else self.expected

    def restore(self, data: NDArray[np.uint8]) -> None:
        """Continue from a snapshot's bytes.

        Raises
        ------
        StateError
            If they are not as many as announced, damaged, or another component's; nothing has changed then.
        """
        announced, self.expected = self.expected, None
        if announced is not None and data.size != announced:
            raise StateError(f"the saved state has {data.size} bytes, but {announced} were announced")
        source = "the state to restore"
        self._run.restore(Snapshot.from_bytes(data.tobytes(), source), self._component, source)


class _Trigger(HiddenVariable):
    """Setting it to anything does something."""

    dtype = "int32"

    def __init__(self, action: Callable[[], None], units: str, answer: HiddenVariable | None = None) -> None:
        self._action = action
        self._answer = answer
        self.units = units

    @property
    def nbytes(self) -> int:
        return 4

    def read(self) -> NDArray[Any]:
        if self._answer is None:
            return np.zeros(1, dtype=np.int32)
        # An older form of the unprefixed protocol reads "create" instead of setting it, and expects the size.
        self._action()
        return self._answer.read()

    def write(self, values: Any) -> None:
        self._action()


class _StateSize(HiddenVariable):
    units = "bytes"

    def __init__(self, exchange: StateExchange, dtype: str) -> None:
        self._exchange = exchange
        self._value = np.zeros(1, dtype=dtype)
        self.dtype = dtype

    @property
    def nbytes(self) -> int:
        return 8

    def read(self) -> NDArray[Any]:
        self._value[0] = self._exchange.size
        return self._value

    def write(self, values: Any) -> None:
        announced = numbers(values, "the size of a saved state", "bytes")
        if announced.size != 1 or announced[0] < 0:
            raise ValueShapeError("the size of a saved state is one number of bytes, zero or more")
        self._exchange.expected = int(announced[0])


class _StateBytes(HiddenVariable):
    dtype = "uint8"

    def __init__(self, exchange: StateExchange, units: str) -> None:
        self._exchange = exchange
        self.units = units

    @property
    def nbytes(self) -> int:
        return self._exchange.size

    def read(self) -> NDArray[Any]:
        return self._exchange.state

    def write(self, values: Any) -> None:
        data = np.asarray(values)
        if data.dtype.kind not in "iu" or data.itemsize != 1:
            raise ValueShapeError(f"a saved state is given as bytes (uint8), not as {data.dtype}")
        self._exchange.restore(np.ascontiguousarray(data).view(np.uint8).reshape(-1))
