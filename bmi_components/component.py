"""Component: the Basic Model Interface 2.0, complete, once, for every model behind a ``Stepper``."""

from __future__ import annotations

import abc
import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import bmipy
import numpy as np
from numpy.typing import NDArray

from bmi_components import config
from bmi_components.buffers import numbers
from bmi_components.config import Settings
from bmi_components.differentiable import Differentiable
from bmi_components.errors import (
    ConfigurationError,
    GridError,
    TimeError,
    UnknownNameError,
    ValueShapeError,
)
from bmi_components.grid import Grid
from bmi_components.protocols import HiddenVariable, MassBalance, Parameter, StateExchange
from bmi_components.run import Run
from bmi_components.snapshot import Snapshot
from bmi_components.stepper import Stepper
from bmi_components.variables import Variable

__all__ = ["Component"]

_FLOAT64 = np.dtype(np.float64)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_OF_THE_RUN = (
    "_run", "_units", "_types", "_itemsizes", "_nbytes", "_views", "_input_views", "_hidden", "_on_host"
)  # fmt: skip


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

    # The open run, and shortcuts into it for the functions that frameworks call a billion times. Before
    # ``initialize`` and after ``finalize`` an instance has neither.
    _run: Run | None = None
    _units: Mapping[str, str] = _NOTHING
    _types: Mapping[str, str] = _NOTHING
    _itemsizes: Mapping[str, int] = _NOTHING
    _nbytes: Mapping[str, int] = _NOTHING
    _views: Mapping[str, NDArray[np.float64]] = _NOTHING
    _input_views: Mapping[str, NDArray[np.float64]] = _NOTHING
    _hidden: Mapping[str, HiddenVariable] = _NOTHING
    _on_host: bool = True

    # ---------------------------------------------------------------- what a concrete component declares

    @abc.abstractmethod
    def open(self, settings: Any) -> Stepper:
        """Return the model, bound to its catchments and in its initial state."""

    def read_settings(self, path: Path) -> Any:
        """Read the configuration file; override to accept another project's dialect too."""
        return config.load(path, self.settings_type)

    @property
    def variables(self) -> Mapping[str, Variable]:
        """The published variables by name: inputs, then outputs."""
        layout = self._open_run("variables").layout
        return {**layout.inputs, **layout.outputs}

    def settable_parameters(self) -> Mapping[str, Variable]:
        """Return the parameters and static attributes that can be set by name; none of them is published."""
        return self._open_run("settable_parameters").stepper.parameters

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
        if stepper.backend == "torch":
            _limit_torch_threads(settings.threads)
        run = Run(
            self.get_component_name(),
            stepper,
            settings.duration,
            estimates=settings.partial_step == "estimate",
        )
        if settings.initial_state is not None:
            run.restore(
                Snapshot.load(settings.initial_state), type(self).__name__, str(settings.initial_state)
            )
        layout = run.layout
        self._run = run
        self._units, self._types = layout.units, layout.types
        self._itemsizes, self._nbytes = layout.itemsizes, layout.nbytes
        self._views, self._input_views = run.views, run.input_views
        self._hidden = {}
        self._on_host = run.backend.on_host

    def update(self) -> None:
        """Advance by exactly one time step.

        Raises
        ------
        ForcingError
            If an input is missing or impossible; nothing has changed.
        TimeError
            If the step would end beyond the end of the run, or before ``initialize``.
        """
        run = self._run
        if run is None:
            self._not_ready("update")
        run.update()

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
        run = self._run
        if run is None:
            self._not_ready("update_until")
        run.update_until(time)

    def finalize(self) -> None:
        """Let go of the model and all arrays; may be called at any time, any number of times."""
        for attribute in _OF_THE_RUN:
            vars(self).pop(attribute, None)

    # ---------------------------------------------------------------- information

    def get_component_name(self) -> str:
        """Return the component's name."""
        return getattr(self, "name", type(self).__name__)

    def get_input_item_count(self) -> int:
        """Return the number of inputs."""
        return len(self._open_run("get_input_item_count").layout.input_names)

    def get_output_item_count(self) -> int:
        """Return the number of outputs."""
        return len(self._open_run("get_output_item_count").layout.output_names)

    # bmipy 2.0.1 types the names as a tuple of exactly one; the specification means any number.
    def get_input_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the inputs, each of which must be set before an update."""
        return self._open_run("get_input_var_names").layout.input_names

    def get_output_var_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Return the names of the outputs."""
        return self._open_run("get_output_var_names").layout.output_names

    def get_var_grid(self, name: str) -> int:
        """Return the number of the grid that carries a variable."""
        layout = self._open_run("get_var_grid").layout
        try:
            return layout.grids[name]
        except KeyError:
            if self._find_hidden(name).on_grid:
                return 0
            raise UnknownNameError(f"{name!r} does not lie on a grid") from None

    def get_var_location(self, name: str) -> str:
        """Return the grid element that carries a variable: "node" of a scalar, "face" of a mesh."""
        layout = self._open_run("get_var_location").layout
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
        run = self._run
        if run is None:
            self._not_ready("get_current_time")
        return run.clock.current

    def get_start_time(self) -> float:
        """Return the start time: 0.0."""
        return 0.0

    def get_end_time(self) -> float:
        """Return the end of the run, s; the largest float if none is configured."""
        run = self._run
        if run is None:
            self._not_ready("get_end_time")
        return run.clock.end

    def get_time_units(self) -> str:
        """Return the units of time: "s"."""
        return "s"

    def get_time_step(self) -> float:
        """Return the length of one model step, s."""
        run = self._run
        if run is None:
            self._not_ready("get_time_step")
        return run.clock.time_step

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
        if not self._on_host:
            self._open_run("get_value_ptr").download(name)
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
        if not self._on_host:
            self._open_run("set_value").forget_device_input(name)

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
        run = self._open_run("set_value_at_indices")
        run.download(name)
        view[indices] = given
        run.forget_device_input(name)

    # ---------------------------------------------------------------- values, without the host

    def get_tensor(self, name: str) -> Any:
        """Return a variable's values where the model lives, 1-D, for any framework to take by DLPack.

        A NumPy array, a torch tensor or a JAX array, by the component's own framework; hand it to
        ``torch.from_dlpack`` or ``jax.numpy.from_dlpack``. Of a host component it is the live array; of a device
        component an output is the result of the latest update and is not changed by the next.
        """
        run = self._open_run("get_tensor")
        return run.tensor(name) if name in run.views else self._find_hidden(name).read()

    def set_tensor(self, name: str, values: Any) -> None:
        """Set an input from any framework's tensor (DLPack) without passing through the host; it is copied.

        Raises
        ------
        ValueShapeError
            If it does not hold as many real numbers as the input has elements.
        ForcingError
            If a value is missing or impossible.
        """
        run = self._open_run("set_tensor")
        if run.backend.on_host or name not in run.input_views:
            self.set_value(name, values)
        else:
            run.set_device_input(name, values)

    def differentiable(self) -> Differentiable:
        """Return the component as it stands as a pure function of parameters, state and series of inputs.

        Raises
        ------
        ConfigurationError
            If its model is not one that can be differentiated.
        TimeError
            If it stands amid a step.
        """
        run = self._open_run("differentiable")
        if run.amid_step:
            raise TimeError(
                f"{self.get_component_name()} stands {run.clock.elapsed:g} s into a step; it must be at a step's end"
            )
        found = run.stepper.differentiable()
        if found is None:
            raise ConfigurationError(f"{self.get_component_name()} offers no form that can be differentiated")
        return found

    # ---------------------------------------------------------------- states

    def save_state(self, path: str | Path) -> None:
        """Save everything that the component remembers to a file, all or nothing.

        The file also holds the forcing of an unfinished step, so that a run may be cut anywhere.
        """
        self.snapshot().save(path)

    def load_state(self, path: str | Path, *, restore_clock: bool = False) -> None:
        """Continue bit for bit from a file that ``save_state`` wrote.

        The clock goes on from where it is, as NextGen needs it, unless ``restore_clock``.

        Raises
        ------
        StateError
            If the file is absent, damaged, or another component's, model's or size's; nothing has changed.
        """
        self._open_run("load_state")
        self.restore(Snapshot.load(path), str(path), restore_clock=restore_clock)

    def snapshot(self) -> Snapshot:
        """Copy everything that the component remembers."""
        return self._open_run("snapshot").snapshot(type(self).__name__)

    def restore(self, snapshot: Snapshot, source: str, *, restore_clock: bool = False) -> None:
        """Continue bit for bit from a snapshot, as ``load_state`` does from a file; ``source`` names it in errors.

        Raises
        ------
        StateError
            If it is another component's, model's or size's; nothing has changed.
        """
        self._open_run("restore").restore(snapshot, type(self).__name__, source, restore_clock=restore_clock)

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

    # ---------------------------------------------------------------- names, from inside

    def _find_hidden(self, name: str) -> HiddenVariable:
        """Return the unpublished variable of this name."""
        hidden = self._hidden.get(name)
        if hidden is not None:
            return hidden
        run = self._open_run(f"asking for {name!r}")
        if name in run.stepper.parameters:
            found: Mapping[str, HiddenVariable] = {name: Parameter(run.stepper, name)}
        elif name in MassBalance.NAMES and run.stepper.water_balance() is not None:
            run.balance = MassBalance(run.stepper.water_balance)
            found = run.balance.terms
        elif name in StateExchange.NAMES:
            found = StateExchange(run, type(self).__name__).variables
        else:
            known = [*run.views, *run.stepper.parameters]
            close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.6)
            advice = f"did you mean {close[0]!r}?" if close else f"it has {', '.join(known)}"
            raise UnknownNameError(f"{self.get_component_name()} has no variable {name!r}; {advice}")
        self._hidden = {**self._hidden, **found}
        return found[name]

    def _settable_hidden(self, name: str) -> HiddenVariable:
        if name in self._views:
            raise UnknownNameError(
                f"{name!r} is an output of {self.get_component_name()}: setting it would have no effect; set inputs "
                "or parameters, or restore a state"
            )
        return self._find_hidden(name)

    def _set_hidden(self, name: str, values: Any) -> None:
        self._settable_hidden(name).write(values)

    def _open_run(self, what: str) -> Run:
        run = self._run
        if run is None:
            self._not_ready(what)
        return run

    def _not_ready(self, what: str) -> NoReturn:
        raise TimeError(f"{self.get_component_name()}: {what} needs initialize(config_file) first")

    def _grid(self, grid: int) -> Grid:
        run = self._open_run("asking for a grid")
        sizes = run.layout.grid_sizes
        if isinstance(grid, bool) or grid not in range(len(sizes)):
            raise UnknownNameError(
                f"{self.get_component_name()} has no grid {grid!r}; its grids are 0 to {len(sizes) - 1}"
            )
        coordinates = run.stepper.coordinates if grid == 0 else None
        return Grid(sizes[int(grid)], *(coordinates or ()))

    def _only_scalar(self, grid: int, values: NDArray[Any], what: str) -> NDArray[Any]:
        if self._grid(grid).rank == 0:
            return values
        raise GridError(f"the grid {grid} is unstructured: it has no {what}")


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
