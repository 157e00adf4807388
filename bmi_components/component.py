"""Component: the Basic Model Interface 2.0, complete, once, for every model behind a ``Stepper``."""

from __future__ import annotations

import abc
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import bmipy
import numpy as np
from numpy.typing import NDArray

from bmi_components import config
from bmi_components.buffers import Backend, ForcingAccumulator, Layout, backend_of, layout_of, numbers
from bmi_components.clock import NO_END, Clock
from bmi_components.config import Settings
from bmi_components.errors import (
    ConfigurationError,
    ForcingError,
    GridError,
    StateError,
    TimeError,
    UnknownNameError,
    ValueShapeError,
)
from bmi_components.grid import Grid
from bmi_components.protocols import HiddenVariable, MassBalance, Parameter, StateExchange
from bmi_components.snapshot import Snapshot
from bmi_components.stepper import Stepper

__all__ = ["Component"]

_FLOAT64 = np.dtype(np.float64)
_NOTHING: Mapping[str, Any] = {}


class Component(bmipy.Bmi):
    """A model behind the 41 functions of BMI 2.0.

    A concrete component says three things::

        class LinearReservoir(Component):
            name = "Linear reservoir"
            settings_type = LinearReservoirSettings

            def open(self, settings: LinearReservoirSettings) -> Stepper: ...

    What callers may rely on:

    * Values are float64, one-dimensional, contiguous and live. ``get_value_ptr`` returns the same writable array for
      the life of the run. On a device the array is a mirror: inputs are uploaded once per update, outputs come down
      when they are first read through BMI after an update.
    * Inputs keep their values until they are set again. An update whose inputs are missing, NaN, infinite or
      impossible raises ForcingError, and nothing has changed.
    * Outputs follow from the model: setting one is an error, since it would have no effect.
    * Time is in seconds from 0.0. ``update`` advances by exactly one time step, ``update_until(t)`` to exactly ``t``.
    * Parameters and static attributes are not published, but typed, read and set by name (``Stepper.parameters``).
    * An output that is an amount per update (``Variable.per_update``, such as NextGen's runoff depth) is the runoff
      rate reported over the update times its seconds, so that 24 hourly updates of a daily model add up to a day.
    * Calls may come from different threads, one at a time.
    """

    name: str
    """What ``get_component_name`` answers."""
    settings_type: type[Settings] = Settings
    """Schema of the configuration file."""

    # Before ``initialize`` and after ``finalize`` an instance owns none of these.
    _stepper: Stepper | None = None
    _layout: Layout | None = None
    _clock: Clock | None = None
    _units: Mapping[str, str] = _NOTHING
    _types: Mapping[str, str] = _NOTHING
    _itemsizes: Mapping[str, int] = _NOTHING
    _nbytes: Mapping[str, int] = _NOTHING
    _views: Mapping[str, NDArray[np.float64]] = _NOTHING
    _input_views: Mapping[str, NDArray[np.float64]] = _NOTHING
    _settings: Settings
    _inputs: NDArray[np.float64]
    _outputs: NDArray[np.float64]
    _backend: Backend
    _accumulator: ForcingAccumulator
    _stale: bool = False
    _device_inputs: dict[str, Any]
    _device_outputs: Any = None
    _amounts: tuple[NDArray[np.float64], ...] = ()
    _rates: list[Any]
    _depths: list[Any]
    _published: list[Any]
    _hidden: dict[str, HiddenVariable]
    _balance: MassBalance | None = None
    _estimates: bool = False

    # ---------------------------------------------------------------- what a concrete component declares

    @abc.abstractmethod
    def open(self, settings: Any) -> Stepper:
        """Return the model, bound to its catchments and in its initial state."""

    def read_settings(self, path: Path) -> Any:
        """Read the configuration file; override to accept another project's dialect too."""
        return config.load(path, self.settings_type)

    # ---------------------------------------------------------------- control

    def initialize(self, config_file: str) -> None:
        """Read the configuration, open the model, and stand at time 0.

        On an error nothing has changed: the component may be initialized again, and a run that was open goes on.

        Raises
        ------
        ConfigurationError
            If the file is absent or wrong.
        StateError
            If ``initial_state`` does not fit.
        """
        if not isinstance(config_file, (str, Path)) or not str(config_file):
            raise ConfigurationError(
                f"{self.get_component_name()}: initialize needs the path of a configuration file"
            )
        settings = self.read_settings(Path(config_file))
        stepper = self.open(settings)
        layout = layout_of(stepper.inputs, stepper.outputs, stepper.size, tuple(stepper.extra_grids.items()))
        backend = backend_of(stepper.backend, stepper.device, stepper.dtype)
        duration = settings.duration
        clock = Clock(float(stepper.time_step), NO_END if duration is None else duration)
        if stepper.backend == "torch":
            _limit_torch_threads(settings.threads)
        inputs = np.full(layout.input_count, np.nan)
        outputs = np.zeros(layout.output_count)
        accumulator = ForcingAccumulator(backend, stepper.aggregations)
        snapshot = None
        if settings.initial_state is None:
            stepper.initial_outputs(outputs)
        else:
            snapshot = Snapshot.load(settings.initial_state)
            _check_snapshot(self, snapshot, stepper, layout, str(settings.initial_state))
            stepper.write_state(_stepper_state(snapshot))

        rates = [backend.upload(outputs[part]) for part in layout.per_update]
        published = [backend.upload(np.zeros(part.stop - part.start)) for part in layout.per_update]

        self._stepper, self._layout, self._clock, self._settings = stepper, layout, clock, settings
        self._backend, self._accumulator = backend, accumulator
        self._units, self._types = layout.units, layout.types
        self._itemsizes, self._nbytes = layout.itemsizes, layout.nbytes
        self._inputs, self._outputs = inputs, outputs
        input_views = {name: inputs[part] for name, part in layout.input_slices.items()}
        self._input_views = input_views
        self._views = input_views | {name: outputs[part] for name, part in layout.output_slices.items()}
        self._stale, self._device_outputs, self._device_inputs = False, None, {}
        self._hidden, self._balance = {}, None
        self._estimates = settings.partial_step == "estimate"
        self._rates, self._depths, self._published = rates, list(rates), published
        self._amounts = tuple(outputs[part] for part in layout.per_update) if backend.on_host else ()
        if snapshot is None:
            # What has not been updated has not released any water.
            for part in layout.per_update:
                outputs[part] = 0.0
        else:
            self._adopt(snapshot, restore_clock=False)

    def update(self) -> None:
        """Advance by exactly one time step.

        Raises
        ------
        ForcingError
            If an input is missing or impossible; nothing has changed.
        TimeError
            If the step would end beyond the end of the run, or before ``initialize``.
        """
        stepper, clock = self._stepper, self._clock
        if stepper is None or clock is None:
            self._not_ready("update")
        if clock.elapsed:
            self.update_until(clock.current + clock.time_step)
            return
        if clock.boundary > clock.end:
            clock.check(clock.boundary)
        self._check_inputs()
        start = clock.step_start
        forcings = stepper.prepare(
            self._inputs if self._backend.on_host else self._upload(), start, clock.time_step
        )
        self._take(stepper.step(forcings, start, self._outputs))
        if self._amounts and not self._estimates:
            for index, amount in enumerate(self._amounts):
                self._rates[index] = amount.copy()
                amount *= clock.time_step
        elif self._rates:
            amounts = _Amounts(len(self._rates))
            self._release_step(clock.time_step, amounts)
            self._show(amounts)
        clock.advance_step()
        if self._balance is not None:
            self._balance.refresh()

    def update_until(self, time: float) -> None:
        """Advance to exactly ``time``, s, by any number of whole steps and parts of steps.

        The inputs hold over the interval. A part of a step adds them to the step's forcing (``Stepper.aggregations``);
        the model steps when the step is complete.

        Raises
        ------
        TimeError
            If ``time`` is in the past, beyond the end or not a number.
        ForcingError
            If an input is missing or impossible; nothing has changed.
        """
        stepper, clock = self._stepper, self._clock
        if stepper is None or clock is None:
            self._not_ready("update_until")
        target = clock.check(time)
        if target == clock.current:
            return
        self._check_inputs()
        inputs = self._inputs if self._backend.on_host else self._upload()
        amounts = _Amounts(len(self._rates))
        accumulator = self._accumulator
        try:
            while clock.current < target:
                start = clock.step_start
                completes = clock.reaches_boundary(target)
                seconds = (clock.boundary if completes else target) - clock.current
                forcings = stepper.prepare(inputs, clock.current, seconds)
                if not completes:
                    accumulator.add(forcings, seconds)
                    clock.advance_part(target)
                    if self._estimates:
                        self._try_step(stepper, accumulator.value(), start)
                        self._release_estimate(clock.elapsed, amounts)
                    else:
                        self._release_held(seconds, amounts)
                    break
                if accumulator.parts:
                    accumulator.add(forcings, seconds)
                    forcings = accumulator.value()
                self._take(stepper.step(forcings, start, self._outputs))
                accumulator.clear()
                self._release_step(seconds, amounts)
                clock.advance_step()
                clock.settle(target)
        finally:  # if a later step was refused, the earlier ones have happened
            self._show(amounts)
            if self._balance is not None:
                self._balance.refresh()

    def finalize(self) -> None:
        """Let go of the model and all arrays; may be called at any time, any number of times."""
        for attribute in list(vars(self)):
            if attribute.startswith("_") and attribute in Component.__annotations__:
                delattr(self, attribute)

    # ---------------------------------------------------------------- information

    def get_component_name(self) -> str:
        """Return the component's name."""
        return getattr(self, "name", type(self).__name__)

    def get_input_item_count(self) -> int:
        """Return the number of inputs."""
        return len(self._the_layout("get_input_item_count").input_names)

    def get_output_item_count(self) -> int:
        """Return the number of outputs."""
        return len(self._the_layout("get_output_item_count").output_names)

    # bmipy 2.0.1 types the names as a tuple of exactly one; the specification means any number.
    def get_input_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the inputs, each of which must be set before an update."""
        return self._the_layout("get_input_var_names").input_names

    def get_output_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the outputs."""
        return self._the_layout("get_output_var_names").output_names

    def get_var_grid(self, name: str) -> int:
        """Return the number of the grid that carries a variable."""
        layout = self._the_layout("get_var_grid")
        try:
            return layout.grids[name]
        except KeyError:
            if self._find_hidden(name).on_grid:
                return 0
            raise UnknownNameError(f"{name!r} does not lie on a grid") from None

    def get_var_location(self, name: str) -> str:
        """Return the grid element that carries a variable: "node" of a scalar, "face" of a mesh."""
        layout = self._the_layout("get_var_location")
        try:
            return layout.locations[name]
        except KeyError:
            if self._find_hidden(name).on_grid:
                return "node" if layout.grid_sizes[0] == 1 else "face"
            raise UnknownNameError(f"{name!r} does not lie on a grid") from None

    def get_var_type(self, name: str) -> str:
        """Return the NumPy name of a variable's data type."""
        try:
            return self._types[name]
        except KeyError:
            return self._find_hidden(name).dtype

    def get_var_units(self, name: str) -> str:
        """Return a variable's units, a UDUNITS-2 string."""
        try:
            return self._units[name]
        except KeyError:
            return self._find_hidden(name).units

    def get_var_itemsize(self, name: str) -> int:
        """Return the bytes of one element."""
        try:
            return self._itemsizes[name]
        except KeyError:
            return self._find_hidden(name).itemsize

    def get_var_nbytes(self, name: str) -> int:
        """Return the bytes of all elements."""
        try:
            return self._nbytes[name]
        except KeyError:
            return self._find_hidden(name).nbytes

    # ---------------------------------------------------------------- time

    def get_current_time(self) -> float:
        """Return the time now, s since the start."""
        clock = self._clock
        if clock is None:
            self._not_ready("get_current_time")
        return clock.current

    def get_start_time(self) -> float:
        """Return the start time: 0.0."""
        return 0.0

    def get_end_time(self) -> float:
        """Return the end of the run, s; the largest float if none is configured."""
        clock = self._clock
        if clock is None:
            self._not_ready("get_end_time")
        return clock.end

    def get_time_units(self) -> str:
        """Return the units of time: "s"."""
        return "s"

    def get_time_step(self) -> float:
        """Return the length of one model step, s."""
        clock = self._clock
        if clock is None:
            self._not_ready("get_time_step")
        return clock.time_step

    # ---------------------------------------------------------------- values

    def get_value(self, name: str, dest: NDArray[Any]) -> NDArray[Any]:
        """Copy a variable's values into ``dest`` and return it.

        Raises
        ------
        ValueShapeError
            If ``dest`` is not an array of the variable's length.
        """
        values = self.get_value_ptr(name)
        if (
            not isinstance(dest, np.ndarray)
            or dest.shape != values.shape
            or (dest.dtype is not values.dtype and not np.can_cast(values.dtype, dest.dtype, "same_kind"))
        ):
            _refuse_destination(name, dest, values.size)
        dest[:] = values
        return dest

    def get_value_ptr(self, name: str) -> NDArray[Any]:
        """Return the live array of a variable: always the same one."""
        try:
            view = self._views[name]
        except KeyError:
            return self._find_hidden(name).read()
        if not self._backend.on_host:
            self._download(name)
        return view

    def get_value_at_indices(self, name: str, dest: NDArray[Any], inds: NDArray[Any]) -> NDArray[Any]:
        """Copy the values at flat indices into ``dest`` and return it.

        Raises
        ------
        ValueShapeError
            If ``dest`` is not an array with one element per index, or an index is outside the variable.
        """
        values = self.get_value_ptr(name)
        try:
            if (
                inds.size == 1 and dest.size == 1 and dest.dtype is _FLOAT64
            ):  # NextGen's only use: worth a path without temporaries
                index = inds.item()
                if 0 <= index < values.size:
                    dest[0] = values.item(index)
                    return dest
        except (AttributeError, TypeError, IndexError):
            pass
        indices = _indices(name, inds, values.size)
        if (
            not isinstance(dest, np.ndarray)
            or dest.shape != indices.shape
            or not np.can_cast(values.dtype, dest.dtype, "same_kind")
        ):
            _refuse_destination(name, dest, indices.size)
        dest[:] = values[indices]
        return dest

    def set_value(self, name: str, src: NDArray[Any]) -> None:
        """Set an input, a parameter or a static attribute.

        Raises
        ------
        ValueShapeError
            If ``src`` does not hold as many real numbers as the variable has elements; nothing has changed.
        UnknownNameError
            If there is no such variable, or it is an output.
        """
        try:
            view = self._input_views[name]
        except KeyError:
            self._set_hidden(name, src)
            return
        if type(src) is np.ndarray and src.dtype is _FLOAT64 and src.shape == view.shape:
            view[:] = src
        else:
            given = numbers(src, repr(name), self._units[name])
            if given.size != view.size:
                raise ValueShapeError(f"{name!r} takes {view.size} values, not {given.size}")
            view[:] = given
        if self._device_inputs:
            self._device_inputs.pop(name, None)

    def set_value_at_indices(self, name: str, inds: NDArray[Any], src: NDArray[Any]) -> None:
        """Set an input, a parameter or a static attribute at flat indices.

        Raises
        ------
        ValueShapeError
            If an index is outside the variable, or ``src`` does not hold one real number per index.
        UnknownNameError
            If there is no such variable, or it is an output.
        """
        view = self._input_views.get(name)
        if view is None:
            hidden = self._settable_hidden(name)
            if not hidden.on_grid:
                raise UnknownNameError(f"{name!r} cannot be set at indices")
            values = hidden.read().copy()
            values[_indices(name, inds, values.size)] = _one_per_index(name, inds, src)
            hidden.write(values)
            return
        indices = _indices(name, inds, view.size)
        given = _one_per_index(name, inds, src)
        if not self._backend.on_host:
            self._download(name)
        view[indices] = given
        self._device_inputs.pop(name, None)

    # ---------------------------------------------------------------- values, without the host

    def get_tensor(self, name: str) -> Any:
        """Return a variable's values where the model lives, 1-D, for any framework to take by DLPack.

        A NumPy array, a torch tensor or a JAX array, by the component's own framework; hand it to
        ``torch.from_dlpack`` or ``jax.numpy.from_dlpack``. Of a host component it is the live array; of a device
        component an output is the result of the latest update and is not changed by the next.
        """
        layout = self._the_layout("get_tensor")
        if self._backend.on_host or name not in self._views:
            return self.get_value_ptr(name)
        if name in layout.inputs:
            tensor = self._device_inputs.get(name)
            return self._backend.upload(self._input_views[name]) if tensor is None else tensor
        part = layout.output_slices[name]
        if self._device_outputs is None:
            return self._backend.upload(self._views[name])
        if part in layout.per_update:
            return self._depths[layout.per_update.index(part)]
        return self._device_outputs[part]

    def set_tensor(self, name: str, values: Any) -> None:
        """Set an input from any framework's tensor (DLPack) without passing through the host; it is copied.

        Raises
        ------
        ValueShapeError
            If it does not hold as many real numbers as the input has elements.
        ForcingError
            If a value is missing or impossible.
        """
        layout = self._the_layout("set_tensor")
        view = self._input_views.get(name)
        if view is None or self._backend.on_host:
            self.set_value(name, values)
            return
        tensor = self._backend.adopt(values)
        if len(tensor) != view.size:
            raise ValueShapeError(f"{name!r} takes {view.size} values, not {len(tensor)}")
        if not layout.inputs[name].nan_is_data:
            low, high = layout.bounds[name]
            smallest, largest = self._backend.smallest_and_largest(tensor)
            if not (smallest >= low and largest <= high):
                host = np.empty(view.size)
                self._backend.download(tensor, host)
                self._refuse_forcing({name: host})
        self._device_inputs[name] = tensor

    # ---------------------------------------------------------------- states

    def save_state(self, path: str | Path) -> None:
        """Save everything that the component remembers to a file, all or nothing.

        The file also holds the forcing of an unfinished step, so that a run may be cut anywhere.
        """
        self._snapshot().save(path)

    def load_state(self, path: str | Path, *, restore_clock: bool = False) -> None:
        """Continue bit for bit from a file that ``save_state`` wrote.

        The clock goes on from where it is, as NextGen needs it, unless ``restore_clock``.

        Raises
        ------
        StateError
            If the file is absent, damaged, or another component's, model's or size's; nothing has changed.
        """
        self._restore(Snapshot.load(path), str(path), restore_clock=restore_clock)

    # ---------------------------------------------------------------- grids

    def get_grid_rank(self, grid: int) -> int:
        """Return the number of dimensions: 0 of a scalar, 2 of a mesh."""
        return self._grid(grid).rank

    def get_grid_size(self, grid: int) -> int:
        """Return the number of nodes."""
        return self._grid(grid).node_count

    def get_grid_type(self, grid: int) -> str:
        """Return "scalar" (one element) or "unstructured" (one face per element)."""
        return self._grid(grid).kind

    def get_grid_shape(self, grid: int, shape: NDArray[Any]) -> NDArray[Any]:
        """Leave ``shape`` as it is for a scalar, which has no dimensions; a mesh has no shape."""
        return self._only_scalar(grid, shape, "shape")

    def get_grid_spacing(self, grid: int, spacing: NDArray[Any]) -> NDArray[Any]:
        """Leave ``spacing`` as it is for a scalar; a mesh has no spacing."""
        return self._only_scalar(grid, spacing, "spacing")

    def get_grid_origin(self, grid: int, origin: NDArray[Any]) -> NDArray[Any]:
        """Leave ``origin`` as it is for a scalar; a mesh has no origin."""
        return self._only_scalar(grid, origin, "origin")

    def get_grid_x(self, grid: int, x: NDArray[Any]) -> NDArray[Any]:
        """Fill ``x`` with the nodes' x (longitude, where it is configured)."""
        return _fill(x, self._grid(grid).node_coordinates()[0], "x")

    def get_grid_y(self, grid: int, y: NDArray[Any]) -> NDArray[Any]:
        """Fill ``y`` with the nodes' y (latitude, where it is configured)."""
        return _fill(y, self._grid(grid).node_coordinates()[1], "y")

    def get_grid_z(self, grid: int, z: NDArray[Any]) -> NDArray[Any]:
        """Refuse: no grid of a component has a third dimension."""
        self._grid(grid)
        raise GridError(f"the grid {grid} has no z: its rank is below 3")

    def get_grid_node_count(self, grid: int) -> int:
        """Return the number of nodes."""
        return self._grid(grid).node_count

    def get_grid_edge_count(self, grid: int) -> int:
        """Return the number of edges."""
        return self._grid(grid).edge_count

    def get_grid_face_count(self, grid: int) -> int:
        """Return the number of faces."""
        return self._grid(grid).face_count

    def get_grid_edge_nodes(self, grid: int, edge_nodes: NDArray[Any]) -> NDArray[Any]:
        """Fill ``edge_nodes`` with the two nodes of each edge."""
        return _fill(edge_nodes, self._grid(grid).edge_nodes(), "edge_nodes")

    def get_grid_face_edges(self, grid: int, face_edges: NDArray[Any]) -> NDArray[Any]:
        """Fill ``face_edges`` with the edges around each face."""
        return _fill(face_edges, self._grid(grid).face_edges(), "face_edges")

    def get_grid_face_nodes(self, grid: int, face_nodes: NDArray[Any]) -> NDArray[Any]:
        """Fill ``face_nodes`` with the nodes around each face."""
        return _fill(face_nodes, self._grid(grid).face_nodes(), "face_nodes")

    def get_grid_nodes_per_face(self, grid: int, nodes_per_face: NDArray[Any]) -> NDArray[Any]:
        """Fill ``nodes_per_face`` with the number of nodes of each face."""
        return _fill(nodes_per_face, self._grid(grid).nodes_per_face(), "nodes_per_face")

    # ---------------------------------------------------------------- one step, from inside

    def _check_inputs(self) -> None:
        """Refuse inputs that are missing, not finite or impossible."""
        layout = self._layout
        assert layout is not None
        if layout.element_bounds is not None and not self._device_inputs:
            for value, (low, high) in zip(self._inputs.tolist(), layout.element_bounds, strict=True):
                if not low <= value <= high:
                    break
            else:
                return
        else:
            for name, (low, high) in layout.bounds.items():
                view = self._input_views[name]
                # A NaN makes both extremes NaN, and every comparison with NaN is false.
                if not (view.min() >= low and view.max() <= high):
                    break
            else:
                return
        self._refuse_forcing(
            {name: view for name, view in self._input_views.items() if name not in self._device_inputs}
        )

    def _refuse_forcing(self, inputs: Mapping[str, NDArray[np.float64]]) -> None:
        """Name the first impossible value; return if all that looked odd is data."""
        layout = self._layout
        assert layout is not None
        for name, values in inputs.items():
            variable, (low, high) = layout.inputs[name], layout.bounds[name]
            wrong = ~((values >= low) & (values <= high))
            if variable.nan_is_data:
                wrong &= ~np.isnan(values)
            if not wrong.any():
                continue
            index = int(np.flatnonzero(wrong)[0])
            value = float(values[index])
            place = (
                f"{variable.grid} {index}" if variable.grid == "catchment" else f"{variable.grid}[{index}]"
            )
            if variable.valid_range is None:
                right = f"a finite number in {variable.units}"
            else:
                least, most = variable.valid_range
                right = (
                    f"between {least:g} and {most:g} {variable.units}"
                    if np.isfinite(most)
                    else f"a finite number of at least {least:g} {variable.units}"
                )
            state = "missing (NaN or never set)" if np.isnan(value) else f"{value:g} {variable.units}"
            raise ForcingError(
                f"{self.get_component_name()}: the input {name!r} ({variable.description}) is {state} at {place}; "
                f"it must be {right}"
            )

    def _upload(self) -> Any:
        """Copy the inputs to the device, those that live there already excepted."""
        layout = self._layout
        assert layout is not None
        vector = self._backend.upload(self._inputs)
        for name, tensor in self._device_inputs.items():
            vector = self._backend.replace(vector, layout.input_slices[name], tensor)
        return vector

    def _take(self, outputs: Any) -> None:
        """Accept what a step returned."""
        if self._backend.on_host:
            if outputs is not self._outputs:
                self._outputs[:] = outputs
        else:
            self._device_outputs = outputs
            self._stale = True

    def _download(self, name: str) -> None:
        """Bring host mirrors up to date for reading one variable."""
        layout = self._layout
        assert layout is not None
        if name in self._device_inputs:
            self._backend.download(self._device_inputs[name], self._input_views[name])
        elif self._stale and name in layout.outputs:
            self._backend.download(self._device_outputs, self._outputs)
            for part, depth in zip(layout.per_update, self._depths, strict=True):
                self._backend.download(depth, self._outputs[part])
            self._stale = False

    def _try_step(self, stepper: Stepper, forcings: Any, start: float) -> None:
        """Take outputs from a step that is then undone."""
        checkpoint = stepper.checkpoint()
        try:
            self._take(stepper.step(forcings, start, self._outputs))
        finally:
            stepper.rollback(checkpoint)

    # Amounts per update. ``_rates`` are those of the latest step, ``_depths`` the amounts over the running update,
    # ``_published`` what estimates have given out of the running step, so that a whole step adds up exactly.

    def _latest_rates(self) -> list[Any]:
        layout = self._layout
        assert layout is not None
        outputs = self._outputs if self._backend.on_host else self._device_outputs
        return [self._backend.copy(outputs[part]) for part in layout.per_update]

    def _release_step(self, seconds: float, amounts: _Amounts) -> None:
        """Account for a step that has just been completed by an interval of so many seconds."""
        if not self._rates:
            return
        self._rates = self._latest_rates()
        if not self._estimates:
            self._release_held(seconds, amounts)
            return
        assert self._clock is not None
        for index, rate in enumerate(self._rates):
            due = rate * self._clock.time_step - self._published[index]
            amounts.add(index, due.clip(0.0))
            self._published[index] = (-due).clip(0.0)

    def _release_estimate(self, elapsed: float, amounts: _Amounts) -> None:
        """Account for an estimate ``elapsed`` seconds into a step."""
        for index, rate in enumerate(self._latest_rates()):
            due = (rate * elapsed - self._published[index]).clip(0.0)
            amounts.add(index, due)
            self._published[index] = self._published[index] + due

    def _release_held(self, seconds: float, amounts: _Amounts) -> None:
        """Account for an interval over which the latest rates are reported."""
        for index, rate in enumerate(self._rates):
            amounts.add(index, rate * seconds)

    def _show(self, amounts: _Amounts) -> None:
        """Write the amounts over the update where callers read them."""
        layout = self._layout
        assert layout is not None
        if not amounts.started:
            return
        self._depths = amounts.totals
        if self._device_outputs is not None:
            self._stale = True
            return
        for part, depth in zip(layout.per_update, self._depths, strict=True):
            self._backend.download(depth, self._outputs[part])

    # ---------------------------------------------------------------- states, from inside

    def _snapshot(self) -> Snapshot:
        stepper, clock = self._stepper, self._clock
        if stepper is None or clock is None:
            self._not_ready("saving a state")
        for name in self._views if not self._backend.on_host else ():
            self._download(name)
        arrays: dict[str, NDArray[Any]] = {
            f"model/{name}": value for name, value in stepper.read_state().items()
        }
        arrays["run/seconds"] = np.array([clock.elapsed, self._accumulator.seconds])
        arrays["run/inputs"] = self._inputs.copy()
        arrays["run/outputs"] = self._outputs.copy()
        for kind, vectors in (("rates", self._rates), ("published", self._published)):
            for index, vector in enumerate(vectors):
                arrays[f"run/{kind}_{index}"] = self._to_host(vector)
        if self._accumulator.parts:
            arrays["run/forcings"] = self._to_host(self._accumulator.value())
        return Snapshot(type(self).__name__, stepper.identity, stepper.size, clock.current, arrays)

    def _to_host(self, vector: Any) -> NDArray[np.float64]:
        host = np.empty(len(vector))
        self._backend.download(vector, host)
        return host

    def _restore(self, snapshot: Snapshot, source: str, *, restore_clock: bool) -> None:
        stepper, layout = self._stepper, self._layout
        if stepper is None or layout is None:
            self._not_ready("restoring a state")
        _check_snapshot(self, snapshot, stepper, layout, source)
        stepper.write_state(_stepper_state(snapshot))
        self._adopt(snapshot, restore_clock=restore_clock)

    def _adopt(self, snapshot: Snapshot, *, restore_clock: bool) -> None:
        """Take over the run's side of a snapshot that has been checked."""
        clock, arrays = self._clock, snapshot.arrays
        assert clock is not None
        elapsed, accumulated = (float(value) for value in arrays["run/seconds"])
        self._device_inputs.clear()
        self._inputs[:] = arrays["run/inputs"]
        self._outputs[:] = arrays["run/outputs"]
        self._device_outputs, self._stale = None, False
        upload = self._backend.upload
        self._rates = [upload(arrays[f"run/rates_{index}"]) for index in range(len(self._rates))]
        self._published = [upload(arrays[f"run/published_{index}"]) for index in range(len(self._published))]
        self._accumulator.clear()
        if "run/forcings" in arrays:
            self._accumulator.restore(upload(arrays["run/forcings"]), accumulated)
        clock.restart(elapsed, snapshot.time if restore_clock else None)
        if self._balance is not None:
            self._balance.refresh()

    # ---------------------------------------------------------------- names, from inside

    def _find_hidden(self, name: str) -> HiddenVariable:
        """Return the unpublished variable of this name."""
        stepper = self._stepper
        if stepper is None:
            self._not_ready(f"asking for {name!r}")
        hidden = self._hidden.get(name)
        if hidden is not None:
            return hidden
        if name in stepper.parameters:
            self._hidden[name] = Parameter(stepper, name)
        elif name in MassBalance.NAMES and stepper.water_balance() is not None:
            self._balance = MassBalance(stepper.water_balance)
            self._hidden |= self._balance.terms
        elif name in StateExchange.NAMES:
            self._hidden |= StateExchange(
                lambda: self._snapshot().to_bytes(),
                lambda data: self._restore(
                    Snapshot.from_bytes(data, "the state to restore"),
                    "the state to restore",
                    restore_clock=False,
                ),
                self._reset_time,
            ).variables
        else:
            known = [*self._views, *stepper.parameters]
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise UnknownNameError(f"{self.get_component_name()} has no variable {name!r}; {advice}")
        return self._hidden[name]

    def _settable_hidden(self, name: str) -> HiddenVariable:
        if name in self._views:
            raise UnknownNameError(
                f"{name!r} is an output of {self.get_component_name()}: setting it would have no effect; set inputs "
                "or parameters, or restore a state"
            )
        return self._find_hidden(name)

    def _set_hidden(self, name: str, values: Any) -> None:
        self._settable_hidden(name).write(values)

    def _reset_time(self) -> None:
        assert self._clock is not None
        self._clock.restart(self._clock.elapsed, 0.0)

    def _the_layout(self, what: str) -> Layout:
        layout = self._layout
        if layout is None:
            self._not_ready(what)
        return layout

    def _not_ready(self, what: str) -> NoReturn:
        raise TimeError(f"{self.get_component_name()}: {what} needs initialize(config_file) first")

    def _grid(self, grid: int) -> Grid:
        layout, stepper = self._the_layout("asking for a grid"), self._stepper
        assert stepper is not None
        if isinstance(grid, bool) or grid not in range(len(layout.grid_sizes)):
            raise UnknownNameError(
                f"{self.get_component_name()} has no grid {grid!r}; its grids are 0 to {len(layout.grid_sizes) - 1}"
            )
        if grid == 0 and stepper.coordinates is not None:
            return Grid(layout.grid_sizes[0], *stepper.coordinates)
        return Grid(layout.grid_sizes[int(grid)])

    def _only_scalar(self, grid: int, values: NDArray[Any], what: str) -> NDArray[Any]:
        if self._grid(grid).rank == 0:
            return values
        raise GridError(f"the grid {grid} is unstructured: it has no {what}")


class _Amounts:
    """What one BMI update has released so far, per output that is an amount over the update."""

    __slots__ = ("totals",)

    def __init__(self, count: int) -> None:
        self.totals: list[Any] = [None] * count

    @property
    def started(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.totals) and self.totals[0] is not None

    def add(self, index: int, amount: Any) -> None:
        """Add what an interval released."""
        so_far = self.totals[index]
        self.totals[index] = amount if so_far is None else so_far + amount


def _limit_torch_threads(threads: int) -> None:
    import torch

    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _fill(destination: NDArray[Any], values: NDArray[Any], what: str) -> NDArray[Any]:
    """Copy grid data into a caller's array."""
    if not isinstance(destination, np.ndarray) or destination.size < values.size:
        raise ValueShapeError(f"{what} has {values.size} elements; give an array of that length")
    destination.reshape(-1)[: values.size] = values
    return destination


def _indices(name: str, inds: Any, size: int) -> NDArray[np.intp]:
    indices = np.asarray(inds)
    if indices.ndim != 1 or (indices.size and indices.dtype.kind not in "iu"):
        raise ValueShapeError(f"the indices into {name!r} must be whole numbers in one dimension")
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise ValueShapeError(f"the indices into {name!r} must be between 0 and {size - 1}")
    return indices.astype(np.intp)


def _one_per_index(name: str, inds: Any, src: Any) -> NDArray[Any]:
    given = numbers(src, repr(name))
    if given.size != np.size(inds):
        raise ValueShapeError(f"{name!r} takes one value per index: {np.size(inds)}, not {given.size}")
    return given


def _refuse_destination(name: str, dest: Any, size: int) -> NoReturn:
    given = f"{dest.dtype} of shape {dest.shape}" if isinstance(dest, np.ndarray) else type(dest).__name__
    raise ValueShapeError(
        f"the values of {name!r} need a one-dimensional float64 array of {size} elements, not {given}"
    )


def _stepper_state(snapshot: Snapshot) -> dict[str, NDArray[Any]]:
    return {
        name.removeprefix("model/"): array
        for name, array in snapshot.arrays.items()
        if name.startswith("model/")
    }


def _check_snapshot(
    component: Component, snapshot: Snapshot, stepper: Stepper, layout: Layout, source: str
) -> None:
    """Refuse a snapshot whose run's side does not fit; the model checks its own side."""
    snapshot.check_owner(type(component).__name__, stepper.identity, stepper.size, source)
    expected = {"run/seconds": 2, "run/inputs": layout.input_count, "run/outputs": layout.output_count}
    for index, part in enumerate(layout.per_update):
        expected[f"run/rates_{index}"] = expected[f"run/published_{index}"] = part.stop - part.start
    run = {name: array for name, array in snapshot.arrays.items() if name.startswith("run/")}
    wrong = sorted(
        name
        for name in expected.keys() | (run.keys() - {"run/forcings"})
        if name not in run
        or name not in expected
        or run[name].shape != (expected[name],)
        or run[name].dtype != np.float64
    )
    if wrong:
        raise StateError(f"{source} does not fit this component's variables ({', '.join(wrong)})")
    elapsed = float(run["run/seconds"][0])
    if not 0.0 <= elapsed < stepper.time_step or (elapsed > 0.0) != ("run/forcings" in run):
        raise StateError(
            f"{source} was saved {elapsed} s into a step of a length other than {stepper.time_step} s"
        )
