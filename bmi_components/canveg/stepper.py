"""CanVeg bound to sites and stepped: inputs in, one compiled program, fluxes and profiles out."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.differentiable import differentiable
from bmi_components.canveg.inputs import local_time
from bmi_components.canveg.mixing import make_mixing
from bmi_components.canveg.names import AIR, CANOPY, PROFILES, SCALARS
from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import TABLE
from bmi_components.canveg.program import (
    MEMORY,
    Constants,
    Memory,
    Plan,
    compiled,
    initial_memory,
    pack,
)
from bmi_components.differentiable import Differentiable
from bmi_components.errors import ForcingError
from bmi_components.jax_devices import jax_device
from bmi_components.jax_precision import jax_precision
from bmi_components.stepper import Stepper, check_state
from bmi_components.variables import Variable

__all__ = ["CanVegStepper", "Setup"]

Array = NDArray[Any]

EPOCH = datetime.datetime(1970, 1, 1)


class Setup(NamedTuple):
    """How a model is run.

    Attributes
    ----------
    options
        Of the model.
    inputs
        Published inputs.
    slow
        Symbols of the slow quantities that are constants or monthly, in the order of `Constants.monthly`.
    profiles
        Whether profiles by layer are published.
    ids
        Of the sites.
    start
        Date and time of time 0 on the run's clock.
    offsets
        By which each site's standard time is ahead of that clock, s.
    dtype, device
        Of the arithmetic.
    """

    options: Options
    inputs: tuple[Variable, ...]
    slow: tuple[str, ...]
    profiles: bool
    ids: tuple[str, ...]
    start: datetime.datetime
    offsets: tuple[int, ...]
    dtype: Any
    device: str


class CanVegStepper(Stepper):
    """The canopy model at some sites.

    Its state is that of the canopy (`State`), and the sensible heat of the latest step, from which the next step's
    stability follows where friction velocity is not measured. On "cpu" values are NumPy's, on any other
    device (also "cpu:0") JAX's.

    Parameters
    ----------
    setup
        Of the run.
    constants
        Site, parameters and monthly values; of several sites one value each.
    dispersion
        ``[row, layer]``, or ``[site, row, layer]``.
    identity
        Of the trained model, if it is one.
    """

    def __init__(self, setup: Setup, constants: Constants, dispersion: Array, identity: str) -> None:
        options = setup.options
        self.size = len(setup.ids)
        self.time_step = options.time_step
        self.inputs = setup.inputs
        self.outputs = (*SCALARS, *PROFILES) if setup.profiles else SCALARS
        levels = options.layers + options.atmosphere_layers
        self.extra_grids = (
            {CANOPY: options.layers * self.size, AIR: levels * self.size} if setup.profiles else {}
        )
        self.device, self.dtype = setup.device, setup.dtype
        self.backend = "numpy" if setup.device == "cpu" else "jax"
        self.parameters = _settable(options)
        self.identity = f"canveg {_digest(options)} {identity}"
        self.coordinates = _coordinates(constants, self.size)
        self._ids, self._constants = setup.ids, constants
        self._start = (setup.start.replace(tzinfo=None) - EPOCH).total_seconds()
        # many sites share few time zones
        self._zones = sorted(set(setup.offsets))
        self._zone = np.array([self._zones.index(offset) for offset in setup.offsets])
        leaves, structure = jax.tree.flatten(constants)
        matrix = dispersion.astype(setup.dtype)
        self._plan = Plan(
            options,
            tuple(v.symbol for v in setup.inputs),
            setup.slow,
            setup.profiles,
            self.size,
            setup.dtype,
            setup.device,
            tuple(np.shape(leaf) for leaf in leaves),
            structure,
            matrix.shape,
        )
        self._program = compiled(self._plan)
        with jax_precision(self.dtype):
            self._mixing = _shared(matrix.tobytes(), matrix.shape, setup.dtype, setup.device)
            self._packed = self._upload(pack(constants, setup.dtype))
            self._memory: Memory = tuple(self._upload(part) for part in initial_memory(self._plan))

    def _upload(self, values: Array) -> Any:
        return jax.device_put(values.astype(self.dtype), jax_device(self.device))

    # ---------------------------------------------------------------- stepping

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Solve the canopy's balances for one step."""
        moment = self._moment(time)
        on_host = self.backend == "numpy"
        if on_host:
            forcings = forcings.astype(self.dtype)
        with jax_precision(self.dtype):
            memory, result = self._program(self._packed, self._mixing, self._memory, forcings, moment)
        values = np.asarray(result)
        if not np.isfinite(values).all():
            self._refuse(np.asarray(forcings), values)
        self._memory = memory
        if not on_host:
            return result
        outputs[:] = values
        return outputs

    def _moment(self, time: float) -> Array:
        """Return the day of the year of all sites, then their hour, at the end of the step that begins at a time."""
        found = local_time(self._start + time + self.time_step, self._zones)
        moment: Array = np.array(found, self.dtype)[self._zone].T.reshape(-1)
        return moment

    def _refuse(self, forcings: Array, values: Array) -> None:
        """Say at which site there is no solution, and with what."""
        site, start = 0, 0
        for v in self.outputs:
            size = self._elements(v)
            wrong = np.flatnonzero(~np.isfinite(values[start : start + size]))
            start += size
            if wrong.size:
                site = int(wrong[0]) % self.size
                break
        given = ", ".join(
            f"{v.symbol} {value:g} {v.units}"
            for v, value in zip(self.inputs, forcings.reshape(-1, self.size)[:, site], strict=True)
        )
        raise ForcingError(
            f"CanVeg: the canopy of {self._ids[site]} has no finite solution with {given}; are these values, and "
            "its state, possible?"
        )

    def _elements(self, v: Variable) -> int:
        return self.extra_grids.get(v.grid, self.size)

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        """Nothing flows before the first step."""
        outputs[:] = 0.0

    def differentiable(self) -> Differentiable:
        """Return the canopies as a function of their parameters; of the physical ones, not the networks' weights."""
        return differentiable(
            self._plan,
            self._constants,
            self._mixing,
            self._memory,
            self._moment,
            self.inputs,
            self.outputs,
            [self._elements(v) for v in self.outputs],
            self.parameters,
        )

    # ---------------------------------------------------------------- state

    def read_state(self) -> dict[str, Array]:
        """Copy the state to the host."""
        return {name: np.array(values) for name, values in zip(MEMORY, self._memory, strict=True)}

    def write_state(self, state: Mapping[str, Array]) -> None:
        """Replace the state by one of the same shapes and precision."""
        check_state(self.read_state(), state)
        with jax_precision(self.dtype):
            self._memory = tuple(self._upload(np.array(state[name])) for name in MEMORY)

    def checkpoint(self) -> Memory:
        """Remember the state, which no step changes in place."""
        return self._memory

    def rollback(self, checkpoint: Memory) -> None:
        """Return to a state."""
        self._memory = checkpoint

    # ---------------------------------------------------------------- parameters

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """Value of one parameter per site, shape ``[site]``."""
        values = np.broadcast_to(getattr(self._constants.parameters, name), self.size)
        return np.array(values, dtype=np.float64)

    def set_parameter(self, name: str, values: NDArray[np.float64]) -> None:
        """Set one parameter per site, shape ``[site]``."""
        shape = np.shape(getattr(self._constants.parameters, name))
        changed: dict[str, Any] = {name: values.reshape(shape)}
        parameters = self._constants.parameters._replace(**changed)
        self._constants = self._constants._replace(parameters=parameters)
        with jax_precision(self.dtype):
            self._packed = self._upload(pack(self._constants, self.dtype))


@lru_cache(maxsize=64)
def _shared(values: bytes, shape: tuple[int, ...], dtype: str, device: str) -> tuple[Array, ...]:
    """Return a dispersion matrix with its modes on a device, one for all instances that need the same."""
    mixing = make_mixing(np.frombuffer(values, dtype).reshape(shape))
    return tuple(jax.device_put(part, jax_device(device)) for part in mixing)


def _settable(options: Options) -> dict[str, Variable]:
    """Return the parameters that can be set by name; published models lie outside the bounds that training keeps."""
    bounded = options.mode == "corrected"
    return {
        row.name: Variable(
            row.name,
            row.units,
            row.name,
            row.meaning,
            (row.lower, row.upper) if bounded and row.lower is not None and row.upper is not None else None,
        )
        for row in TABLE
    }


def _digest(options: Options) -> str:
    return hashlib.sha256(msgspec.json.encode(options)).hexdigest()[:16]


def _coordinates(constants: Constants, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Longitude and latitude, each ``[site]``."""
    longitude, latitude = (
        np.array(np.broadcast_to(value, size), dtype=np.float64)
        for value in (constants.site.longitude, constants.site.latitude)
    )
    return longitude, latitude
