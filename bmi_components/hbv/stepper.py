"""δHBV bound to catchments and stepped: compiled and in place on the CPU, by torch on other devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.errors import StateError
from bmi_components.hbv.driver import Driver
from bmi_components.hbv.model import Catchments, DeltaHBV, HBVState
from bmi_components.hbv.networks import LstmNetwork
from bmi_components.hbv.parameters import Parameter
from bmi_components.hbv.physics import FORCINGS
from bmi_components.hbv.series import series_kernel
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.publishing import publish, total
from bmi_components.kernels.routing import route_step
from bmi_components.lstm.cells import LstmState
from bmi_components.lstm.stepping import LstmStepping, PackedLstm
from bmi_components.stepper import Aggregation, Stepper, WaterBalance
from bmi_components.trained_model import TrainedModel
from bmi_components.variables import Variable

__all__ = ["Driver", "HBVStepper", "OutputVariable", "Site", "shared_model"]

METRES_PER_MILLIMETRE = 1e-3


@dataclass(frozen=True)
class OutputVariable:
    """A published output: which of the model's outputs it is, and the factor to its units, ``[catchment]`` or one."""

    variable: Variable
    source: str
    factor: float | NDArray[np.float64] = 1.0


@dataclass(frozen=True)
class Site:
    """What a component knows about its catchments, each ``[catchment]``: degrees and km2, NaN where unknown."""

    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    area: NDArray[np.float64]


def _scaled_sigmoid(
    lower: torch.Tensor, width: torch.Tensor, raw: torch.Tensor
) -> tuple[torch.Tensor]:
    return (lower + torch.sigmoid(raw) * width,)


class SharedHBV:
    """What all components of one trained model share: the torch model, packed weights and compiled kernels."""

    def __init__(self, bundle: TrainedModel, dtype: str, device: str) -> None:
        self.model = DeltaHBV.from_bundle(bundle).to(device=device, dtype=getattr(torch, dtype))
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        self.names = self.model.output_names
        physics, hp = self.model.physics, self.model.hyperparameters
        self.kernel = series_kernel(physics.name, physics.dynamic, self.names[2:], hp.components, dtype)
        self.route, self.total, self.publish = route_step(dtype), total(dtype), publish(dtype)
        self.scale = compiled_elementwise(_scaled_sigmoid, 3, 1, dtype)
        self.packed = self._pack()

    def _pack(self) -> PackedLstm:
        model = self.model
        layer = model._layer
        array: Callable[[torch.Tensor], NDArray[Any]] = lambda t: t.detach().cpu().numpy()  # noqa: E731
        out, bias = array(layer.linear_out.weight), array(layer.linear_out.bias)
        if isinstance(model.network, LstmNetwork):
            rows = array(model.dynamic_channels)
            out, bias = out[rows], bias[rows]
        return PackedLstm(
            embedding=(array(layer.linear_in.weight), array(layer.linear_in.bias)),
            w_ih=array(layer.lstm.w_ih),
            w_hh=array(layer.lstm.w_hh),
            bias=array(layer.lstm.b_ih) + array(layer.lstm.b_hh),
            output=(out, bias),
            forcing_mean=array(model.forcing_mean),
            forcing_std=array(model.forcing_std),
        )


@cache
def shared_model(bundle: TrainedModel, dtype: str, device: str) -> SharedHBV:
    """Return the shared part of a trained model, made once per process, float type and device."""
    return SharedHBV(bundle, dtype, device)


class HBVStepper(Stepper):
    """δHBV on the CPU, advanced in place by compiled kernels.

    Parameters
    ----------
    shared : SharedHBV
        From `shared_model`.
    attributes : array
        Attributes in the order of the model, physical units, ``[catchment, attribute]``.
    site : Site
        Latitude and area.
    driver : Driver
        From inputs to forcing.
    outputs : sequence of OutputVariable
        What is published.
    warm_up : array, optional
        Record of forcing before the start, ``[time, catchment, 3]``: fixes the static parameters of 1.x and fills the
        stores.
    keep_warm_up_state : bool
        Whether the stores and the network start as the record leaves them, or empty.
    """

    def __init__(
        self,
        shared: SharedHBV,
        attributes: NDArray[np.float64],
        site: Site,
        driver: Driver,
        outputs: Sequence[OutputVariable],
        warm_up: NDArray[np.float64] | None = None,
        keep_warm_up_state: bool = True,
    ) -> None:
        model, dtype = shared.model, shared.packed.dtype
        self.shared, self.driver, self._site = shared, driver, site
        self.inputs = driver.inputs
        self.aggregations = driver.aggregations
        self.outputs = tuple(o.variable for o in outputs)
        self.time_step = model.physics.time_step
        self.size = n = attributes.shape[0]
        self._attributes = attributes.copy()
        self._record = warm_up
        self._overridden: dict[str, NDArray[np.float64]] = {}
        m = model.hyperparameters.components
        self._forcing = np.zeros((len(FORCINGS), n), dtype)
        # The model's outputs, and precipitation in the last row.
        self._values = np.zeros((len(shared.names) + 1, n), dtype)
        self._cumulative = np.zeros((len(shared.names) + 1, n))
        self._scaling = np.zeros((3, len(model.dynamic_bounds), n, m), dtype)
        self._stores = np.zeros((len(model.physics.stores), n, m), dtype)
        length = model.physics.routing_length if model.hyperparameters.routing else 1
        self._under_way = np.zeros((length - 1, len(model.physics.runoff), n), dtype)
        self._rows = np.array([shared.names.index(o.source) for o in outputs])
        self._factors = np.stack([np.broadcast_to(np.asarray(o.factor, float), (n,)) for o in outputs])
        self._lstm: LstmStepping
        self._bind()
        state = self._initial_state(keep_warm_up_state)
        self._load(state)
        self._initial_storage = self._storage()

    # Binding to catchments ------------------------------------------------------------------------------------------

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, self.shared.packed.dtype))

    def _warm(self) -> tuple[Catchments, HBVState | None]:
        model = self.shared.model
        attributes = self._tensor(self._attributes)
        with torch.no_grad():
            if self._record is not None:
                return model.warm_up(self._tensor(self._record), attributes)
            return model.bind(attributes, None), None

    def _bind(self) -> None:
        """Compute everything that follows from attributes, record and overridden parameters."""
        shared, model, n = self.shared, self.shared.model, self.size
        catchments, self._warm_state = self._warm()
        self._static = catchments.static.contiguous().numpy().copy()
        self._hydrograph = catchments.hydrograph.contiguous().numpy().copy()
        self._constants = catchments.site.contiguous().numpy().copy()
        for i, p in enumerate(model.dynamic_bounds):
            self._scaling[0, i], self._scaling[1, i] = p.lower, p.upper - p.lower
        for symbol, values in self._overridden.items():
            self._override(symbol, values)
        memory = getattr(self, "_lstm", None)
        bias = shared.packed.bind(catchments.features.numpy().astype(np.float64))
        self._lstm = LstmStepping(shared.packed, bias)
        if memory is not None:
            self._lstm.h[:], self._lstm.c[:] = memory.h, memory.c
        self._prepare_calls(n)

    def _override(self, symbol: str, values: NDArray[np.float64]) -> None:
        """Hold a parameter at one value per catchment for all components; a dynamic one stops varying."""
        model = self.shared.model
        for i, p in enumerate(model.static_bounds):
            if p.symbol == symbol:
                self._static[i] = values[:, None]
        for i, p in enumerate(model.dynamic_bounds):
            if p.symbol == symbol:
                self._scaling[0, i], self._scaling[1, i] = values[:, None], 0.0

    def _prepare_calls(self, n: int) -> None:
        """Fix the arguments of the compiled calls: no array changes its place from here on."""
        shared, model = self.shared, self.shared.model
        address: Callable[[NDArray[Any]], int] = lambda a: a.ctypes.data  # noqa: E731
        parts = len(model.physics.runoff)
        # The network and the physics see the same forcing, unless the network wants logarithms.
        self._logarithmic = [i for i, log in enumerate(model.log_transformed) if log]
        if not self._logarithmic:
            self._forcing = self._lstm.forcing
        self._flat_forcing = self._forcing.reshape(-1)
        self._dynamic = self._scaling[2]
        count = self._dynamic.size
        item = self._scaling.itemsize
        self._scale_call = (count, address(self._scaling), address(self._scaling) + 2 * count * item)
        flows = self._values[2:-1]
        self._physics_call = (
            *(1, n, address(self._stores), address(self._static), address(self._dynamic)),
            *(address(self._forcing), address(self._constants), address(flows)),
        )
        length = self._hydrograph.shape[0]
        self._route_call = (
            *(length, parts, n, address(self._hydrograph), address(flows)),
            *(address(self._under_way), address(flows)),
        )
        item = self._values.itemsize
        unrouted = address(self._values) + n * item
        self._runoff_call = (parts, n, address(flows), unrouted)
        self._streamflow_call = (parts, n, address(flows), address(self._values))
        self._values_call = (
            *(len(self._values), len(self._rows), n, address(self._values), address(self._cumulative)),
            *(address(self._rows), address(self._factors)),
        )
        self._published: NDArray[np.float64] | None = None
        self._publish_call: tuple[int, ...] = ()
        self._raw = self._lstm.raw.reshape(len(model.dynamic_bounds), -1, n).transpose(0, 2, 1)

    def _initial_state(self, warm: bool) -> HBVState:
        if warm and self._warm_state is not None:
            return self._warm_state
        return self.shared.model.initial_state(self.size)

    def _load(self, state: HBVState) -> None:
        hidden = self.shared.packed.hidden
        self._stores[:] = state.stores.numpy()
        self._under_way[:] = state.under_way.numpy()
        self._lstm.h[:hidden] = state.h.numpy().T
        self._lstm.c[:hidden] = state.c.numpy().T

    # Stepping -------------------------------------------------------------------------------------------------------

    def prepare(self, inputs: Any, time: float, seconds: float) -> Any:
        """Turn the inputs in force into the rows that are aggregated over the step."""
        return inputs if self.driver.prepare is None else self.driver.prepare(inputs, time, seconds)

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one step: network, parameters, physics, routing, each in place."""
        shared, lstm = self.shared, self._lstm
        rows = forcings if self.driver.forcing is None else self.driver.forcing(forcings, time)
        self._flat_forcing[:] = rows
        if lstm.forcing is not self._forcing:
            lstm.forcing[:] = self._forcing
            for i in self._logarithmic:
                lstm.forcing[i] = np.log10(np.sqrt(lstm.forcing[i]) + 0.1)
        self._values[-1] = self._forcing[0]
        lstm.advance()
        self._dynamic[:] = self._raw
        shared.scale.run(*self._scale_call)
        shared.kernel.simulate(*self._physics_call)
        shared.total(*self._runoff_call)
        shared.route(*self._route_call)
        shared.total(*self._streamflow_call)
        if outputs is not self._published:
            # The component gives the same vector every time; its address is worth keeping.
            self._published = outputs
            self._publish_call = (*self._values_call, outputs.ctypes.data)
        shared.publish(*self._publish_call)
        return outputs

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        """Write the stores as they are, and no fluxes."""
        model = self.shared.model
        values = np.zeros_like(self._values)
        for i, name in enumerate(model.physics.stores):
            values[self.shared.names.index(name)] = self._stores[i].mean(-1)
        outputs.reshape(self._factors.shape)[:] = values[self._rows] * self._factors

    # Water ----------------------------------------------------------------------------------------------------------

    def _storage(self) -> NDArray[np.float64]:
        """Water in stores and under way, mm, ``[catchment]``."""
        dt = self.shared.model.physics.dt
        stores = self._stores.mean(-1, dtype=np.float64).sum(0)
        return np.asarray(stores + self._under_way.sum((0, 1), dtype=np.float64) * dt)

    def _weights(self) -> NDArray[np.float64]:
        area = self._site.area
        known = np.isfinite(area).all()
        return area / area.sum() if known else np.full(self.size, 1.0 / self.size)

    def balance(self) -> NDArray[np.float64]:
        """Cumulative precipitation and initial storage, outflow, storage, and net loss, mm, ``[4, catchment]``.

        The loss is what the lateral exchange of 2.x took away less what the floors of the stores made up.
        """
        dt, names = self.shared.model.physics.dt, self.shared.names
        sums = dict(zip((*names, "precipitation"), self._cumulative * dt, strict=True))
        leaked = -sums["made_up"] - sums.get("lateral_exchange", 0.0)
        out = sums["streamflow"] + sums["evapotranspiration"]
        taken = sums["precipitation"] + self._initial_storage
        return np.stack([taken, out, self._storage(), leaked])

    def water_balance(self) -> WaterBalance:
        """Area-weighted `balance` in metres."""
        return WaterBalance(*(float(v) * METRES_PER_MILLIMETRE for v in self.balance() @ self._weights()))

    # State and parameters -------------------------------------------------------------------------------------------

    def _state_arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "stores": self._stores,
            "under_way": self._under_way,
            "network_hidden": self._lstm.h,
            "network_cell": self._lstm.c,
            "static_parameters": self._static,
            "hydrograph": self._hydrograph,
            "dynamic_scaling": self._scaling[:2],
            "cumulative": self._cumulative,
            "initial_storage": self._initial_storage,
        }

    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy stores, water under way, the network's memory, the parameters in force and the cumulative balance."""
        return {name: array.copy() for name, array in self._state_arrays().items()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state; see the base class."""
        arrays = self._state_arrays()
        check_state(arrays, state)
        for name, array in arrays.items():
            array[...] = state[name]

    @property
    def parameters(self) -> Mapping[str, Variable]:  # type: ignore[override]
        """Physical parameters by published name (parBETA) and attributes, settable by name."""
        return parameter_variables(self.shared.model)

    def get_parameter(self, name: str) -> NDArray[np.float64]:
        """Return the mean over the components, or an attribute; a dynamic parameter as of the latest step."""
        model = self.shared.model
        if name in model.attribute_names:
            return self._attributes[:, model.attribute_names.index(name)].copy()
        for i, p in enumerate(model.static_bounds):
            if p.published_name == name:
                return self._static[i].mean(-1, dtype=np.float64)
        for i, p in enumerate(model.dynamic_bounds):
            if p.published_name == name:
                return self._dynamic[i].mean(-1, dtype=np.float64)
        raise KeyError(name)

    def set_parameter(self, name: str, values: NDArray[np.float64]) -> None:
        """Hold a physical parameter at a value, or change an attribute and all that the network makes of it."""
        model = self.shared.model
        if name in model.attribute_names:
            self._attributes[:, model.attribute_names.index(name)] = values
            self._bind()
            return
        symbol = name.removeprefix("par")
        self._overridden[symbol] = values.copy()
        self._override(symbol, values)


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


@cache
def parameter_variables(model: DeltaHBV) -> dict[str, Variable]:
    """Return the model's physical parameters and attributes as variables that can be set by name."""

    def variable(p: Parameter) -> Variable:
        name = p.published_name
        return Variable(name, p.units, name, p.meaning, valid_range=(p.lower, p.upper))

    physical = {p.published_name: variable(p) for p in model.physics.bounds()}
    attributes = {
        name: Variable(name, "1", name, "static attribute of the catchment") for name in model.attribute_names
    }
    return {**attributes, **physical}
