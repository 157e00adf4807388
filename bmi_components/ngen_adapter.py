"""A test double of NextGen's Python adapter: the calls it makes on a component, in its order, with its types."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import bmipy
import numpy as np
from numpy.typing import NDArray

__all__ = ["ContractError", "NgenAdapter"]

_MASS_NAMES = ("ngen::mass_in", "ngen::mass_out", "ngen::mass_stored", "ngen::mass_leaked")
_INPUT_TYPES = {
    ("float64", 8): np.float64,
    ("float", 8): np.float64,
    ("float32", 4): np.float32,
    ("float", 4): np.float32,
    ("int", 8): np.int64,
    ("int", 4): np.int32,
}
_OUTPUT_TYPES = {
    ("float64", 8): np.float64,
    ("float", 8): np.float64,
    ("float32", 4): np.float32,
    ("int", 8): np.int64,
}


class ContractError(AssertionError):
    """A promise of the component contract that is broken: one sentence each."""


class NgenAdapter:
    """Drives one component as ngen (main, August 2026) does, and refuses what would abort or corrupt ngen.

    Parameters
    ----------
    component
        The class; it is constructed without arguments.
    config_file
        Passed to ``initialize`` as text.
    model_params
        Numbers or lists of numbers, set by name after ``initialize``.
    mass_balance
        Whether the realization asks for the mass-balance protocol.
    time_step
        Seconds between calls. ngen itself knows only 3600.
    allow_exceed_end_time
        As in a realization.
    cache_input_metadata
        As ``cache_input_variable_metadata`` in a realization.
    """

    def __init__(
        self,
        component: type[bmipy.Bmi],
        config_file: str | Path,
        *,
        model_params: Mapping[str, float | list[float]] | None = None,
        mass_balance: bool = False,
        time_step: float = 3600.0,
        allow_exceed_end_time: bool = False,
        cache_input_metadata: bool = False,
    ) -> None:
        self.model: Any = component()
        self.model.initialize(str(config_file))
        units = self.model.get_time_units()
        if units != "s":
            raise ContractError(f"get_time_units says {units!r}; NextGen components count seconds")
        for name, value in (model_params or {}).items():
            self._set(name, np.atleast_1d(np.asarray(value)))
        self.start_time = float(self.model.get_start_time())
        if int(self.model.get_output_item_count()) != len(list(self.model.get_output_var_names())):
            raise ContractError("get_output_item_count differs from the length of get_output_var_names")
        self.output_names = [str(name) for name in self.model.get_output_var_names()]
        self._with_mass_balance = mass_balance
        self.mass: dict[str, float] = {}
        if mass_balance:
            self._read_mass(check_units=True)
        for name in self.output_names:
            self.model.get_var_units(name)
        self._time_step = time_step
        self._exceeding = allow_exceed_end_time
        self._caching = cache_input_metadata
        self._cached: set[str] = set()

    def step(self, forcing: Mapping[str, float | NDArray[Any]]) -> dict[str, float]:
        """Set every input, advance by one framework step, and read the first element of every output."""
        model = self.model
        now = float(model.get_current_time())
        if not self._exceeding:
            if float(model.get_end_time()) < float(model.get_current_time()) + self._time_step:
                raise ContractError(f"the run of the component ends before {now + self._time_step} s")
            now = float(model.get_current_time())
        names = list(model.get_input_var_names()) if model.get_input_item_count() else []
        if int(model.get_input_item_count()) != len(names):
            raise ContractError("get_input_item_count differs from the length of get_input_var_names")
        for name in names:
            if not self._caching or name not in self._cached:
                model.get_var_itemsize(name)
                model.get_var_units(name)
                model.get_var_type(name)
                model.get_var_nbytes(name)
                self._cached.add(name)
            self._set(name, np.atleast_1d(np.asarray(forcing[name])))
        if self._time_step == float(model.get_time_step()):
            model.update()
        else:
            model.update_until(now + self._time_step)
        after = float(model.get_current_time())
        if after != now + self._time_step:
            raise ContractError(
                f"after a step of {self._time_step} s from {now} s get_current_time says {after} s: NextGen reads the "
                "wrong rows of the forcing"
            )
        outputs = {name: self._get(name) for name in self.output_names}
        if self._with_mass_balance:
            self._read_mass()
        return outputs

    def array(self, name: str) -> NDArray[Any]:
        """Read a whole variable as NextGen does for array inputs of other modules."""
        values = self.model.get_value_ptr(name)
        if np.ndim(values) != 1:
            raise ContractError(f"get_value_ptr({name!r}) has {np.ndim(values)} dimensions; NextGen needs 1")
        count = int(self.model.get_var_nbytes(name)) // int(self.model.get_var_itemsize(name))
        if len(values) != count:
            raise ContractError(
                f"get_value_ptr({name!r}) has {len(values)} elements, its metadata say {count}"
            )
        return np.asarray(values)

    def finalize(self) -> None:
        """End the run."""
        self.model.finalize()

    def _set(self, name: str, values: NDArray[Any]) -> None:
        model = self.model
        itemsize = int(model.get_var_itemsize(name))
        kind = str(model.get_var_type(name))
        count = int(model.get_var_nbytes(name)) // int(model.get_var_itemsize(name))
        dtype = _INPUT_TYPES.get((kind, itemsize))
        if dtype is None:
            raise ContractError(f"NextGen cannot set {name!r}: type {kind!r} of {itemsize} bytes")
        source = np.empty(count, dtype=dtype)  # fresh, contiguous, writeable, also for one element
        source[:] = values
        if model.set_value(name, source) is not None:
            raise ContractError(f"set_value({name!r}) returns something")

    def _get(self, name: str) -> float:
        model = self.model
        model.get_output_item_count()
        if name not in model.get_output_var_names():
            raise ContractError(f"{name!r} has vanished from get_output_var_names")
        kind = str(model.get_var_type(name))
        model.get_var_type(name)
        itemsize = int(model.get_var_itemsize(name))
        model.get_var_itemsize(name)
        model.get_input_item_count()
        model.get_input_var_names()
        model.get_var_type(name)
        dtype = _OUTPUT_TYPES.get((kind, itemsize))
        if dtype is None:
            raise ContractError(f"NextGen cannot read the output {name!r}: type {kind!r} of {itemsize} bytes")
        dest = np.full(1, -8.0e250 if dtype is np.float64 else -7, dtype=dtype)
        untouched = dest[0]
        model.get_value_at_indices(name, dest, np.zeros(1, dtype=np.int32))  # what it returns is ignored
        if dest[0] == untouched:
            raise ContractError(f"get_value_at_indices({name!r}) does not write into dest")
        model.get_var_units(name)
        return float(dest[0])

    def _read_mass(self, *, check_units: bool = False) -> None:
        units = set()
        for name in _MASS_NAMES:
            if (int(self.model.get_var_itemsize(name)), str(self.model.get_var_type(name))) != (8, "float64"):
                raise ContractError(f"{name} must be one float64")
            value = self.model.get_value_ptr(name)
            if not isinstance(value, np.ndarray) or value.dtype != np.float64 or value.shape != (1,):
                raise ContractError(f"{name} must be an array of one float64")
            self.mass[name] = float(value[0])
            if check_units:
                units.add(str(self.model.get_var_units(name)))
        if len(units) > 1:
            raise ContractError(f"the mass-balance variables must have one unit, not {sorted(units)}")
