"""δHBV bound to catchments and stepped: compiled and in place on the CPU, by torch on other devices."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.catchments import Site
from bmi_components.differentiable import Differentiable
from bmi_components.hbv.driver import Driver
from bmi_components.hbv.model import Catchments, DeltaHBV, HBVState
from bmi_components.hbv.multiscale import MultiTimescaleHBV, steppable_model
from bmi_components.hbv.parameters import Parameter
from bmi_components.hbv.physics import FORCINGS, INITIAL_STORE
from bmi_components.hbv.series import series_kernel
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.program import Call, Program
from bmi_components.kernels.publishing import accumulate, add_total, copied, publish, total
from bmi_components.kernels.routing import route_step
from bmi_components.lstm.stepping import DenseLayer, PackedRecurrent, RecurrentStepping
from bmi_components.runoff import OutputVariable
from bmi_components.stepper import Stepper, WaterBalance, check_state
from bmi_components.trained_model import TrainedModel
from bmi_components.variables import Variable

__all__ = [
    "DeviceHBVStepper",
    "HBVStepper",
    "HostHBVStepper",
    "SharedHBV",
    "shared_model",
]

METRES_PER_MILLIMETRE = 1e-3
Vector = NDArray[np.float64]


def _scaled_sigmoid(lower: Tensor, width: Tensor, raw: Tensor) -> tuple[Tensor]:
    return (lower + torch.sigmoid(raw) * width,)


class SharedHBV:
    """What all components of one trained model share: the torch model and, on the host, packed weights and kernels."""

    def __init__(self, bundle: TrainedModel, dtype: Literal["float32", "float64"], device: str) -> None:
        whole = steppable_model(bundle).to(device=device, dtype=getattr(torch, dtype)).requires_grad_(False)
        self.whole: DeltaHBV | MultiTimescaleHBV = whole
        self.model = whole.hourly if isinstance(whole, MultiTimescaleHBV) else whole
        self.identity = bundle.identity
        self.dtype, self.device = dtype, device
        self.names = self.model.output_names
        self.rows = (*self.names, "storage", "precipitation")
        self.variables = _parameter_variables(self.model, {a.name: a.units for a in bundle.attributes})

    @cached_property
    def packed(self) -> PackedRecurrent:
        """The network's weights laid out for stepping."""
        model = self.model

        def array(tensor: Tensor) -> NDArray[Any]:
            return tensor.detach().numpy()

        layer, rectified = model.embedding()
        lstm = model.lstm
        weights: Tensor = lstm.w_ih
        bias: Tensor = lstm.b_ih
        front = []
        if layer is not None and rectified:
            front = [DenseLayer(array(layer.weight), array(layer.bias), "relu")]
        elif layer is not None:
            # Two linear layers in a row are one.
            weights, bias = weights @ layer.weight, bias + weights @ layer.bias
        out_weights, out_bias = model.readout()
        return PackedRecurrent(
            front=front,
            w_ih=array(weights),
            w_hh=array(lstm.w_hh),
            b_ih=array(bias),
            b_hh=array(lstm.b_hh),
            readout=[DenseLayer(array(out_weights), array(out_bias))],
            forcing_mean=array(model.forcing_mean),
            forcing_std=array(model.forcing_std),
        )

    @cached_property
    def kernels(self) -> _Kernels:
        """The compiled parts of a step."""
        physics, components = self.model.physics, self.model.hyperparameters.components
        series = series_kernel(physics.name, physics.dynamic, self.names[2:], components, self.dtype)
        return _Kernels(
            scale=compiled_elementwise(_scaled_sigmoid, 3, 1, self.dtype).run,
            physics=series.simulate,
            total=total(self.dtype),
            add_total=add_total(self.dtype),
            route=route_step(self.dtype),
            accumulate=accumulate(self.dtype),
            publish=publish(self.dtype),
        )


@dataclass(frozen=True)
class _Kernels:
    scale: Any
    physics: Any
    total: Any
    add_total: Any
    route: Any
    accumulate: Any
    publish: Any


@cache
def shared_model(bundle: TrainedModel, dtype: Literal["float32", "float64"], device: str) -> SharedHBV:
    """Return the shared part of a trained model, made once per process, float type and device."""
    return SharedHBV(bundle, dtype, device)


def _parameter_variables(model: DeltaHBV, attribute_units: Mapping[str, str]) -> dict[str, Variable]:
    """Return the physical parameters (parBETA) and the attributes as variables that can be set by name."""

    def variable(p: Parameter) -> Variable:
        name = p.published_name
        return Variable(name, p.units, name, p.meaning, valid_range=(p.lower, p.upper))

    attributes = {
        name: Variable(name, units, name, "static attribute of the catchment")
        for name, units in attribute_units.items()
    }
    return {**attributes, **{p.published_name: variable(p) for p in model.physics.bounds()}}


class HBVStepper(Stepper):
    """What host and device have in common: binding, parameters by name, the water balance.

    The network's static part runs on first use, so that opening thousands of components costs little.

    Parameters
    ----------
    shared : SharedHBV
        From `shared_model`.
    attributes : array
        Attributes in the order of the model, physical units, ``[catchment, attribute]``.
    site : Site
        Where the catchments are.
    driver : Driver
        From inputs to forcing.
    outputs : sequence of OutputVariable
        What is published.
    record : function, optional
        Gives the forcing before the start, ``[time, catchment, 3]``: it fixes the static parameters of 1.x.
    keep_state : bool
        Whether stores and memory start as the record leaves them, or empty.
    tensor_driver : function, optional
        Makes ``driver`` for tensors: without it the stepper offers no differentiable form.
    """

    def __init__(
        self,
        shared: SharedHBV,
        attributes: Vector,
        site: Site,
        driver: Driver,
        outputs: Sequence[OutputVariable],
        record: Callable[[], Vector] | None = None,
        keep_state: bool = True,
        tensor_driver: Callable[[], Driver] | None = None,
    ) -> None:
        self.tensor_driver = tensor_driver
        self.shared, self.driver, self.site = shared, driver, site
        self.inputs, self.aggregations = driver.inputs, driver.aggregations
        self.outputs = tuple(o.variable for o in outputs)
        self.time_step = shared.model.physics.time_step
        self.size = attributes.shape[0]
        self.parameters = shared.variables
        self.identity = shared.identity
        self.coordinates = site.coordinates
        self._attributes = attributes
        self._record = record
        self._keep_state = keep_state and record is not None
        self._overridden: dict[str, Vector] = {}
        self._sources = np.array([shared.rows.index(o.source) for o in outputs])
        self._factors = np.empty((len(outputs), self.size))
        for row, output in zip(self._factors, outputs, strict=True):
            row[:] = output.factor
        self._is_bound = False

    # What host and device do differently ----------------------------------------------------------

    @abc.abstractmethod
    def _take_catchments(self, catchments: Catchments) -> None:
        """Keep static parameters, hydrograph and constants, and apply what was overridden."""

    @abc.abstractmethod
    def _take_state(self, state: HBVState) -> None:
        """Start from a state."""

    @abc.abstractmethod
    def _arrays(self) -> dict[str, Any]:
        """Everything that the past left, by name, as live arrays or tensors."""

    @abc.abstractmethod
    def _dynamic_now(self) -> Any:
        """Dynamic parameters of the latest step, ``[catchment, parameter, component]``."""

    # Binding --------------------------------------------------------------------------------------

    def _to_tensor(self, array: NDArray[Any]) -> Tensor:
        model = self.shared.model
        return torch.as_tensor(np.ascontiguousarray(array)).to(model.forcing_mean)

    def _bind(self) -> None:
        """Work out what the network makes of the catchments, the first time and after an attribute changed."""
        attributes = self._to_tensor(self._attributes)
        state = None
        with torch.no_grad():
            if self._record is not None:
                catchments, state = self.shared.whole.warm_up(self._to_tensor(self._record()), attributes)
            else:
                catchments = self.shared.whole.bind(attributes, None)
        self._take_catchments(catchments)
        if not self._is_bound:
            fresh = (
                state
                if state is not None and self._keep_state
                else self.shared.model.initial_state(self.size)
            )
            self._take_state(fresh)
            self._is_bound = True

    def _bound(self) -> None:
        if not self._is_bound:
            self._bind()

    def initial_outputs(self, outputs: Vector) -> None:
        """Write the stores as they are, and no fluxes."""
        model = self.shared.model
        values = np.zeros((len(self.shared.rows), self.size))
        if self._keep_state:
            self._bound()
            arrays = self._arrays()
            stores = _to_host(arrays["stores"]).mean(-1)
            values[-2] = _to_host(arrays["under_way"]).sum((0, 1)) * model.physics.dt
        else:
            # What `initial_state` gives, without building it: thousands of components open at once.
            stores = np.full((len(model.physics.stores), self.size), INITIAL_STORE)
        first = self.shared.rows.index(model.physics.stores[0])
        values[first : first + len(stores)] = stores
        values[-2] += stores.sum(0)
        outputs.reshape(self._factors.shape)[:] = values[self._sources] * self._factors

    def prepare(self, inputs: Any, time: float, seconds: float) -> Any:
        """Turn the inputs in force into the rows that are aggregated over the step."""
        if self.driver.prepare is None:
            return inputs
        return self.driver.prepare(inputs.reshape(-1, self.size), seconds).reshape(-1)

    # Series ---------------------------------------------------------------------------------------

    def differentiable(self) -> Differentiable | None:
        """Return model, network and physics as a function of parameters, attributes and weights."""
        from bmi_components.hbv.differentiable import differentiable

        return None if self.tensor_driver is None else differentiable(self, self.tensor_driver())

    def weather_before(self) -> Tensor | None:
        """Return the record that fixes the static parameters, ``[time, catchment, 3]``, or None."""
        return None if self._record is None else self._to_tensor(self._record())

    def static_attributes(self) -> Tensor:
        """Return the attributes in the order of the model, physical units, ``[catchment, attribute]``."""
        return self._to_tensor(self._attributes)

    def held_parameters(self) -> dict[str, Tensor]:
        """Return the physical parameters that are held at a value, each ``[catchment]``."""
        return {name: self._to_tensor(values) for name, values in self._overridden.items()}

    def published(self, before: HBVState, forcing: Tensor, values: Tensor) -> dict[str, Tensor]:
        """Return the outputs of a series by name, ``[step, catchment]``, as updates of one step publish them.

        Parameters
        ----------
        before
            The state from which the series starts.
        forcing
            ``[step, catchment, 3]``.
        values
            What the model makes of it, ``[step, output, catchment]``.
        """
        model, names = self.shared.model, self.shared.names
        streamflow, runoff = values[:, 0].double(), values[:, names.index("runoff")].double()
        stores = torch.stack([values[:, names.index(store)] for store in model.physics.stores]).sum(0)
        under_way = before.under_way.double().sum((0, 1)) + (runoff - streamflow).cumsum(0)
        stored = stores + (under_way * model.physics.dt).to(values.dtype)
        rows = torch.cat((values, stored[:, None], forcing[..., 0][:, None]), dim=1)
        chosen = rows[:, torch.from_numpy(self._sources)] * self._to_tensor(self._factors)
        return {
            v.name: chosen[:, i] * self.time_step if v.per_update else chosen[:, i]
            for i, v in enumerate(self.outputs)
        }

    @abc.abstractmethod
    def as_tensors(self) -> tuple[Catchments, HBVState, Tensor]:
        """Copy catchments, state and scaling ``[2, catchment, parameter, component]`` as they are now."""

    # State ----------------------------------------------------------------------------------------

    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy stores, water under way, the network's memory, the parameters in force and the cumulative balance."""
        self._bound()
        return {name: np.array(_to_host(array)) for name, array in self._arrays().items()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the state; see the base class."""
        self._bound()
        arrays = self._arrays()
        check_state({name: _to_host(array) for name, array in arrays.items()}, state)
        for name, array in arrays.items():
            values = state[name]
            array[...] = (
                values if isinstance(array, np.ndarray) else torch.from_numpy(np.array(values)).to(array)
            )

    # Parameters -----------------------------------------------------------------------------------

    def get_parameter(self, name: str) -> Vector:
        """Return the mean over the components, or an attribute; a dynamic parameter as of the latest step."""
        model = self.shared.model
        if name in model.attribute_names:
            return self._attributes[:, model.attribute_names.index(name)].copy()
        self._bound()
        arrays = self._arrays()
        lower, width = (_to_host(half) for half in arrays["dynamic_scaling"])
        dynamic = np.where(width == 0.0, lower, _to_host(self._dynamic_now())).swapaxes(0, 1)
        for bounds, values in (
            (model.static_bounds, _to_host(arrays["static_parameters"])),
            (model.dynamic_bounds, dynamic),
        ):
            for i, p in enumerate(bounds):
                if p.published_name == name:
                    mean: Vector = np.asarray(values[i], np.float64).mean(-1)
                    return mean
        raise KeyError(name)

    def set_parameter(self, name: str, values: Vector) -> None:
        """Hold a physical parameter at a value, or change an attribute and all that the network makes of it."""
        model = self.shared.model
        if name in model.attribute_names:
            self._attributes = self._attributes.copy()
            self._attributes[:, model.attribute_names.index(name)] = values
            if self._is_bound:
                self._bind()
            return
        self._bound()
        self._overridden[name] = values.copy()
        self._override(name, values)

    def _override(self, name: str, values: Vector) -> None:
        """Hold a parameter at one value per catchment for all components; a dynamic one stops varying."""
        model, arrays = self.shared.model, self._arrays()
        held = values[:, None]
        for i, p in enumerate(model.static_bounds):
            if p.published_name == name:
                target = arrays["static_parameters"]
                target[i] = held if isinstance(target, np.ndarray) else self._to_tensor(held)
        for i, p in enumerate(model.dynamic_bounds):
            if p.published_name == name:
                scaling = arrays["dynamic_scaling"]
                scaling[0, :, i] = held if isinstance(scaling, np.ndarray) else self._to_tensor(held)
                scaling[1, :, i] = 0.0

    def _unit_scaling(self) -> NDArray[Any]:
        """Lower bound and width of the dynamic parameters, ``[2, catchment, parameter, component]``."""
        model = self.shared.model
        low = np.array([p.lower for p in model.dynamic_bounds])
        width = np.array([p.upper - p.lower for p in model.dynamic_bounds])
        shape = (2, self.size, len(low), model.hyperparameters.components)
        return np.broadcast_to(np.stack([low, width])[:, None, :, None], shape).astype(self.shared.dtype)

    # Water ----------------------------------------------------------------------------------------

    def balance(self) -> Vector:
        """Return the water that came, left, is stored and was lost since the start, mm, ``[4, catchment]``.

        What came includes the initial storage.

        The loss is what the lateral exchange of 2.x took away less what the floors of the stores made up.
        """
        self._bound()
        model = self.shared.model
        arrays = {name: _to_host(array) for name, array in self._arrays().items()}
        dt = model.physics.dt
        sums = dict(zip(self.shared.rows, np.asarray(arrays["cumulative"], np.float64) * dt, strict=True))
        stored = arrays["stores"].astype(np.float64).mean(-1).sum(0)
        stored = stored + arrays["under_way"].astype(np.float64).sum((0, 1)) * dt
        leaked = -sums["made_up"] - sums.get("lateral_exchange", 0.0)
        out = sums["streamflow"] + sums["evapotranspiration"]
        return np.stack([sums["precipitation"] + arrays["initial_storage"], out, stored, leaked])

    def water_balance(self) -> WaterBalance:
        """Return `balance` in metres, weighted by area where every catchment's is known."""
        area = self.site.area
        weights = area / area.sum() if np.isfinite(area).all() else np.full(self.size, 1.0 / self.size)
        return WaterBalance(*(float(v) * METRES_PER_MILLIMETRE for v in self.balance() @ weights))


class HostHBVStepper(HBVStepper):
    """δHBV on the CPU, advanced in place by compiled kernels; parameters as `HBVStepper`."""

    def _take_catchments(self, catchments: Catchments) -> None:
        shared, first = self.shared, not self._is_bound
        kept = {} if first else {name: array.copy() for name, array in self._arrays().items()}
        dtype, n, model = np.dtype(shared.dtype), self.size, shared.model
        self._static = catchments.static.contiguous().numpy().copy()
        self._hydrograph = catchments.hydrograph.contiguous().numpy().copy()
        self._constants = catchments.site.contiguous().numpy().copy()
        bounds, packed = self._unit_scaling(), shared.packed
        # Lower bound, width and network output of the dynamic parameters in a row, so that one kernel combines them;
        # one catchment's network writes its output there, with room for the padding of its last layer.
        count = bounds[0].size
        memory = np.zeros(2 * count + max(count, packed.packed_outputs), dtype)
        self._scaling = memory[: 3 * count].reshape(3, *bounds.shape[1:])
        self._scaling[:2] = bounds
        self._lstm = RecurrentStepping(
            packed,
            catchments.features.numpy().astype(np.float64),
            memory[2 * count :][: packed.packed_outputs] if n == 1 else None,
        )
        if first:
            self._stores = np.zeros((len(model.physics.stores), n, model.hyperparameters.components), dtype)
            self._under_way = np.zeros((len(self._hydrograph) - 1, len(model.physics.runoff), n), dtype)
            # The model's outputs, and what is stored and has fallen in the last two rows.
            self._values = np.zeros((len(shared.rows), n), dtype)
            self._dt = np.array([model.physics.dt], dtype)
            self._cumulative = np.zeros(self._values.shape)
            self._initial = np.zeros(n)
        else:
            for name in ("network_hidden", "network_cell"):
                self._arrays()[name][:] = kept[name]
        for name, values in self._overridden.items():
            self._override(name, values)
        self._fix_calls()

    def _fix_calls(self) -> None:
        """Fix the arguments of the compiled calls: no array changes its place from here on."""
        shared, n = self.shared, self.size
        model = shared.model
        parts = len(model.physics.runoff)
        # One catchment's network and physics see the same forcing, unless the network wants logarithms.
        self._logarithmic = [i for i, log in enumerate(model.log_transformed) if log]
        lstm = self._lstm
        shared_forcing = n == 1 and not self._logarithmic
        self._forcing = lstm.forcing if shared_forcing else np.zeros(lstm.forcing.shape, lstm.forcing.dtype)
        self._flat_forcing = self._forcing.reshape(-1)
        self._dynamic = self._scaling[2]
        network: list[Call] = list(lstm.calls)
        if n > 1:
            network.append(copied(lstm.raw.T, self._dynamic.reshape(n, -1)))
        if n > 1 and not self._logarithmic:
            network.insert(0, copied(self._forcing, lstm.forcing))

        values, flows = _address(self._values), _address(self._values[2:])
        count, item = self._dynamic.size, self._values.itemsize
        scaling, forcing, under_way = (
            _address(self._scaling),
            _address(self._forcing),
            _address(self._under_way),
        )
        dynamic = scaling + 2 * count * item
        length, stores = len(self._hydrograph), model.physics.stores
        at_stores = values + shared.rows.index(stores[0]) * n * item
        at_storage = values + (len(shared.rows) - 2) * n * item
        at_rain = values + (len(shared.rows) - 1) * n * item
        physics = (1, n, _address(self._stores), _address(self._static), dynamic)
        kernels = shared.kernels
        publish = (len(self._sources), n, values, _address(self._sources))
        calls: list[Call] = [
            *network,
            (kernels.scale, (count, scaling, dynamic)),
            (kernels.physics, (*physics, forcing, _address(self._constants), flows)),
            (kernels.total, (parts, n, flows, values + n * item)),
            (kernels.route, (length, parts, n, _address(self._hydrograph), flows, under_way, flows)),
            (kernels.total, (parts, n, flows, values)),
            (kernels.total, (len(stores), n, at_stores, at_storage)),
            (kernels.add_total, ((length - 1) * parts, n, under_way, at_storage, _address(self._dt))),
            (kernels.total, (1, n, forcing, at_rain)),
            (kernels.accumulate, (self._values.size, values, _address(self._cumulative))),
            (kernels.publish, (*publish, _address(self._factors), 0)),
        ]
        # The component gives the same vector for the outputs every time; `step` fills in where it is.
        self._published: Vector | None = None
        self._program = Program(calls)

    def _take_state(self, state: HBVState) -> None:
        hidden = self.shared.packed.hidden
        self._stores[:] = state.stores.numpy()
        self._under_way[:] = state.under_way.numpy()
        self._lstm.h[:hidden] = state.h.numpy().T
        self._lstm.c[:hidden] = state.c.numpy().T
        under_way = self._under_way.sum((0, 1), dtype=np.float64) * self.shared.model.physics.dt
        self._initial[:] = self._stores.mean(-1, dtype=np.float64).sum(0) + under_way

    def _arrays(self) -> dict[str, Any]:
        return {
            "stores": self._stores,
            "under_way": self._under_way,
            "network_hidden": self._lstm.h,
            "network_cell": self._lstm.c,
            "static_parameters": self._static,
            "hydrograph": self._hydrograph,
            "dynamic_scaling": self._scaling[:2],
            "cumulative": self._cumulative,
            "initial_storage": self._initial,
        }

    def _dynamic_now(self) -> Any:
        return self._dynamic

    def as_tensors(self) -> tuple[Catchments, HBVState, Tensor]:
        """Copy them to tensors; see the base class."""
        self._bound()
        hidden = self.shared.packed.hidden
        features = self.shared.model.standardise_attributes(self.static_attributes())
        static, hydrograph, constants, stores, under_way, scaling = (
            torch.from_numpy(array.copy())
            for array in (
                *(self._static, self._hydrograph, self._constants),
                *(self._stores, self._under_way, self._scaling[:2]),
            )
        )
        h, c = (torch.from_numpy(memory[:hidden].T.copy()) for memory in (self._lstm.h, self._lstm.c))
        catchments = Catchments(features, static, hydrograph, constants)
        return catchments, HBVState(stores, under_way, h, c), scaling

    def _moving(self) -> tuple[NDArray[Any], ...]:
        """Return what a step changes of the state."""
        return (self._stores, self._under_way, self._lstm.h, self._lstm.c, self._cumulative)

    def checkpoint(self) -> Any:
        """Copy what a step changes: behind NextGen's hours a daily model tries a step every hour."""
        self._bound()
        return [array.copy() for array in self._moving()]

    def rollback(self, checkpoint: Any) -> None:
        """Put it back."""
        for array, kept in zip(self._moving(), checkpoint, strict=True):
            array[...] = kept

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one step: network, parameters, physics, routing, each in place."""
        if not self._is_bound:
            self._bind()
        lstm = self._lstm
        if self.driver.forcing is not None:
            forcings = self.driver.forcing(forcings.reshape(-1, self.size), time).reshape(-1)
        self._flat_forcing[:] = forcings
        if self._logarithmic:
            lstm.forcing[:] = self._forcing
            for i in self._logarithmic:
                lstm.forcing[i] = np.log10(np.sqrt(lstm.forcing[i]) + 0.1)
        if outputs is not self._published:
            self._published = outputs
            self._program.change(-1, 5, _address(outputs))
        self._program.run()
        return outputs


class DeviceHBVStepper(HBVStepper):
    """δHBV by torch on any device, one launch per operation; parameters as `HBVStepper`."""

    backend = "torch"

    def __init__(self, shared: SharedHBV, *args: Any, **kwargs: Any) -> None:
        super().__init__(shared, *args, **kwargs)
        self.device, self.dtype = shared.device, shared.dtype

    def _take_catchments(self, catchments: Catchments) -> None:
        static, hydrograph = catchments.static.clone(), catchments.hydrograph.clone()
        self._catchments = catchments._replace(static=static, hydrograph=hydrograph)
        self._scaling = self._to_tensor(self._unit_scaling())
        if not self._is_bound:
            self._factors_there = self._to_tensor(self._factors)
            shape = (len(self.shared.rows), self.size)
            self._cumulative = torch.zeros(shape, dtype=torch.float64, device=self.device)
            self._initial = torch.zeros(self.size, dtype=torch.float64, device=self.device)
            self._dynamic = self._scaling[0].clone()
        else:
            for name, values in self._overridden.items():
                self._override(name, values)

    def _take_state(self, state: HBVState) -> None:
        self._state = HBVState(*(tensor.clone() for tensor in state))
        under_way = state.under_way.double().sum((0, 1)) * self.shared.model.physics.dt
        self._initial[:] = state.stores.double().mean(-1).sum(0) + under_way

    def _arrays(self) -> dict[str, Any]:
        return {
            "stores": self._state.stores,
            "under_way": self._state.under_way,
            "network_hidden": self._state.h,
            "network_cell": self._state.c,
            "static_parameters": self._catchments.static,
            "hydrograph": self._catchments.hydrograph,
            "dynamic_scaling": self._scaling,
            "cumulative": self._cumulative,
            "initial_storage": self._initial,
        }

    def _dynamic_now(self) -> Any:
        return self._dynamic

    def as_tensors(self) -> tuple[Catchments, HBVState, Tensor]:
        """Copy them; see the base class."""
        self._bound()
        catchments = Catchments(*(tensor.clone() for tensor in self._catchments))
        return catchments, HBVState(*(tensor.clone() for tensor in self._state)), self._scaling.clone()

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one step and return the outputs as a tensor on the device."""
        self._bound()
        rows = forcings.reshape(-1, self.size)
        if self.driver.forcing is not None:
            rows = self.driver.forcing(rows, time)
        with torch.no_grad():
            scaling = (self._scaling[0], self._scaling[1])
            self._state, values, self._dynamic = self.shared.model.step_scaled(
                self._state, rows[: len(FORCINGS)].t(), self._catchments, scaling
            )
            stored = self._state.stores.mean(-1).sum(0)
            stored = stored + self._state.under_way.sum((0, 1)) * self.shared.model.physics.dt
            values = torch.cat((values, stored[None], rows[:1]))
            self._cumulative += values
            return (values[torch.from_numpy(self._sources)] * self._factors_there).reshape(-1)


def _address(array: NDArray[Any]) -> int:
    return array.ctypes.data


def _to_host(array: Any) -> NDArray[Any]:
    return array if isinstance(array, np.ndarray) else np.asarray(array.detach().cpu().numpy())
