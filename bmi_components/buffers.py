"""Where values live: flat float64 vectors on the host with a view per variable, and their mirror on a device."""

from __future__ import annotations

import abc
import functools
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import DeviceError, ValueShapeError
from bmi_components.jax_devices import jax_device
from bmi_components.jax_precision import jax_precision
from bmi_components.stepper import Aggregation
from bmi_components.variables import Variable

__all__ = ["Backend", "ForcingAccumulator", "Layout", "backend_of", "layout_of", "numbers", "require_device"]

_LARGEST = sys.float_info.max
_FEW_ELEMENTS = 24  # below this, Python comparisons beat NumPy calls

Bounds = tuple[float, float]


class Layout:
    """How the variables of one kind of component lie in its vectors, and what BMI says about each.

    Immutable, and shared by all components of the same kind and size: an instance holds no metadata of its own.
    """

    __slots__ = (
        "bounds",
        "element_bounds",
        "grid_names",
        "grid_sizes",
        "grids",
        "input_count",
        "input_names",
        "input_slices",
        "inputs",
        "itemsizes",
        "locations",
        "nbytes",
        "output_count",
        "output_names",
        "output_slices",
        "outputs",
        "per_update",
        "types",
        "units",
        "update_means",
    )

    def __init__(
        self,
        inputs: tuple[Variable, ...],
        outputs: tuple[Variable, ...],
        size: int,
        extra_grids: tuple[tuple[str, int], ...],
    ) -> None:
        sizes = {"catchment": size, **dict(extra_grids)}
        self.grid_names: tuple[str, ...] = tuple(sizes)
        self.grid_sizes: tuple[int, ...] = tuple(sizes.values())
        self.inputs = {variable.name: variable for variable in inputs}
        self.outputs = {variable.name: variable for variable in outputs}
        everything = (*inputs, *outputs)
        if len(self.inputs) + len(self.outputs) != len({variable.name for variable in everything}) or len(
            {variable.name for variable in everything}
        ) != len(everything):
            raise ValueError("a variable name may be used once only: as one input or as one output")
        self.input_names: tuple[str, ...] = tuple(self.inputs)
        self.output_names: tuple[str, ...] = tuple(self.outputs)
        self.input_slices, self.input_count = _lay_end_to_end(inputs, sizes)
        self.output_slices, self.output_count = _lay_end_to_end(outputs, sizes)
        self.bounds: dict[str, Bounds] = {variable.name: _finite_bounds(variable) for variable in inputs}
        self.element_bounds: tuple[Bounds, ...] | None = None
        if self.input_count <= _FEW_ELEMENTS:
            self.element_bounds = tuple(
                self.bounds[variable.name] for variable in inputs for _ in range(sizes[variable.grid])
            )
        self.per_update: tuple[slice, ...] = tuple(
            self.output_slices[variable.name]
            for variable in outputs
            if variable.per_update or variable.mean_over_update
        )
        self.update_means: tuple[bool, ...] = tuple(
            variable.mean_over_update
            for variable in outputs
            if variable.per_update or variable.mean_over_update
        )
        self.units = {variable.name: variable.units for variable in everything}
        self.types = dict.fromkeys(self.units, "float64")
        self.itemsizes = dict.fromkeys(self.units, 8)
        self.nbytes = {variable.name: 8 * sizes[variable.grid] for variable in everything}
        self.grids = {variable.name: self.grid_names.index(variable.grid) for variable in everything}
        self.locations = {
            variable.name: "node" if sizes[variable.grid] == 1 else "face" for variable in everything
        }


@functools.lru_cache(maxsize=128)
def layout_of(
    inputs: tuple[Variable, ...],
    outputs: tuple[Variable, ...],
    size: int,
    extra_grids: tuple[tuple[str, int], ...] = (),
) -> Layout:
    """Return the (immutable, shared) layout of these variables."""
    return Layout(inputs, outputs, size, extra_grids)


def _lay_end_to_end(variables: Sequence[Variable], sizes: dict[str, int]) -> tuple[dict[str, slice], int]:
    slices, start = {}, 0
    for variable in variables:
        if variable.grid not in sizes:
            raise ValueError(
                f"{variable.name} lies on the grid {variable.grid!r}, which the stepper does not have"
            )
        slices[variable.name] = slice(start, start + sizes[variable.grid])
        start += sizes[variable.grid]
    return slices, start


def _finite_bounds(variable: Variable) -> Bounds:
    low, high = variable.valid_range or (-math.inf, math.inf)
    return max(low, -_LARGEST), min(high, _LARGEST)


def numbers(values: Any, what: str, units: str = "") -> NDArray[Any]:
    """Return what a caller gave as a 1-D array of real numbers; masked values become NaN.

    Raises
    ------
    ValueShapeError
        If it does not hold real numbers, or has more than one dimension.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = np.ma.filled(values.astype(np.float64), np.nan)
    elif not isinstance(values, np.ndarray) and hasattr(values, "detach"):
        values = values.detach().cpu()  # a torch tensor that may still belong to a graph
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiu":
        expected = f"numbers in {units}" if units else "numbers"
        raise ValueShapeError(f"{what} takes {expected}, not {type(values).__name__} of {array.dtype}")
    if array.ndim > 1 and array.size > 1:
        raise ValueShapeError(f"{what} takes a one-dimensional array, not one of shape {array.shape}")
    return array.reshape(-1)


class Backend(abc.ABC):
    """The few operations on vectors that a component needs, in one framework on one device. Stateless."""

    on_host = False
    minimum: Callable[..., Any]
    maximum: Callable[..., Any]
    concatenate: Callable[..., Any]

    def precise(self) -> AbstractContextManager[Any]:
        """Return a context in which arithmetic on vectors keeps their precision."""
        return nullcontext()

    @abc.abstractmethod
    def copy(self, vector: Any) -> Any:
        """Return a copy that shares nothing with ``vector``."""

    @abc.abstractmethod
    def upload(self, host: NDArray[Any]) -> Any:
        """Copy a host vector to the device."""

    @abc.abstractmethod
    def download(self, vector: Any, host: NDArray[np.float64]) -> None:
        """Copy a device vector into a host vector."""

    @abc.abstractmethod
    def adopt(self, tensor: Any) -> Any:
        """Copy anyone's tensor (DLPack) to the device as a flat vector."""

    @abc.abstractmethod
    def replace(self, vector: Any, part: slice, values: Any) -> Any:
        """Return ``vector`` with one part replaced; ``vector`` itself may be changed."""

    def smallest_and_largest(self, vector: Any) -> Bounds:
        """Return the extremes, NaN if any element is NaN."""
        return float(vector.min()), float(vector.max())


class NumpyBackend(Backend):
    """The host itself: float64 NumPy vectors."""

    on_host = True

    def __init__(self) -> None:
        self.minimum, self.maximum, self.concatenate = np.minimum, np.maximum, np.concatenate

    def copy(self, vector: Any) -> Any:
        return vector.copy()

    def upload(self, host: NDArray[Any]) -> Any:
        return host.copy()

    def download(self, vector: Any, host: NDArray[np.float64]) -> None:
        host[:] = vector

    def adopt(self, tensor: Any) -> Any:
        return numbers(tensor, "set_tensor").astype(np.float64)

    def replace(self, vector: Any, part: slice, values: Any) -> Any:
        vector[part] = values
        return vector


class TorchBackend(Backend):
    """PyTorch tensors on one device."""

    def __init__(self, device: str, dtype: str) -> None:
        import torch

        require_device("torch", device)
        self._torch = torch
        self._device = torch.device(device)
        self._dtype = getattr(torch, dtype)
        self.minimum = torch.minimum
        self.maximum = torch.maximum
        self.concatenate = torch.cat

    def copy(self, vector: Any) -> Any:
        return vector.clone()

    def upload(self, host: NDArray[Any]) -> Any:
        # Narrow on the host: half the bytes to move.
        return self._torch.from_numpy(host).to(self._dtype, copy=True).to(self._device)

    def download(self, vector: Any, host: NDArray[np.float64]) -> None:
        self._torch.from_numpy(host).copy_(vector.detach())

    def adopt(self, tensor: Any) -> Any:
        if not isinstance(tensor, self._torch.Tensor):
            if not hasattr(tensor, "__dlpack__"):
                tensor = numbers(tensor, "set_tensor")
            tensor = self._torch.utils.dlpack.from_dlpack(tensor)
        if tensor.is_complex() or tensor.dtype == self._torch.bool:
            raise ValueShapeError(f"set_tensor takes real numbers, not {tensor.dtype}")
        return tensor.detach().to(device=self._device, dtype=self._dtype, copy=True).reshape(-1)

    def replace(self, vector: Any, part: slice, values: Any) -> Any:
        vector[part] = values
        return vector


class JaxBackend(Backend):
    """JAX arrays on one device."""

    def __init__(self, device: str, dtype: str) -> None:
        jax = importlib.import_module("jax")
        jnp = importlib.import_module("jax.numpy")

        require_device("jax", device)
        self._jax = jax
        self._numpy = jnp
        self._device = jax_device(device)
        self._dtype = np.dtype(dtype)
        self._name = dtype
        self.minimum = jnp.minimum
        self.maximum = jnp.maximum
        self.concatenate = jnp.concatenate

    def precise(self) -> AbstractContextManager[Any]:
        return jax_precision(self._name)

    def copy(self, vector: Any) -> Any:
        return vector  # JAX arrays are immutable

    def upload(self, host: NDArray[Any]) -> Any:
        # A private copy: on the CPU JAX may use the very memory it is given.
        with self.precise():
            return self._jax.device_put(np.array(host, dtype=self._dtype), self._device)

    def download(self, vector: Any, host: NDArray[np.float64]) -> None:
        host[:] = np.asarray(vector)

    def adopt(self, tensor: Any) -> Any:
        if hasattr(tensor, "detach"):
            tensor = tensor.detach()
        if not isinstance(tensor, self._jax.Array):
            if not hasattr(tensor, "__dlpack__"):
                tensor = numbers(tensor, "set_tensor")
            # A copy: the caller may go on to write into its own tensor.
            with self.precise():
                tensor = self._numpy.array(self._numpy.from_dlpack(tensor), copy=True)
        if tensor.dtype.kind not in "fiuV":
            raise ValueShapeError(f"set_tensor takes real numbers, not {tensor.dtype}")
        with self.precise():
            return self._jax.device_put(tensor.astype(self._dtype).reshape(-1), self._device)

    def replace(self, vector: Any, part: slice, values: Any) -> Any:
        with self.precise():
            return vector.at[part].set(values)


def require_device(framework: str, device: str) -> None:
    """Refuse a device that this machine, or this installation of "torch" or "jax", does not have.

    Raises
    ------
    DeviceError
        Naming the device and what there is.
    """
    if device == "cpu":
        return
    kind, _, index = device.partition(":")
    wanted = int(index) if index.isdigit() else 0
    if framework == "torch":
        import torch

        module = getattr(torch, kind, None)
        is_available = getattr(module, "is_available", None)
        count = (
            module.device_count() if module is not None and is_available is not None and is_available() else 0
        )
        there = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    elif framework == "jax":
        jax = importlib.import_module("jax")
        try:
            count = len(jax.devices(kind))
        except RuntimeError:
            count = 0
        there = [f"{known.platform}:{known.id}" for known in jax.devices()]
    else:
        count, there = 0, ["cpu"]
    if wanted >= count or (index and not index.isdigit()):
        raise DeviceError(f"there is no device {device!r} for {framework} here; there is {', '.join(there)}")


@functools.lru_cache(maxsize=32)
def backend_of(name: str, device: str, dtype: str) -> Backend:
    """Return the (stateless, shared) operations of a framework on a device."""
    if name == "numpy":
        return NumpyBackend()
    return TorchBackend(device, dtype) if name == "torch" else JaxBackend(device, dtype)


def aggregation_runs(
    aggregations: tuple[Aggregation, ...] | None, elements: int
) -> tuple[tuple[Aggregation, slice], ...]:
    """Return neighbouring forcings of one kind as one run each; each forcing has the same number of elements."""
    if aggregations is None:
        return (("mean", slice(None)),)
    each, rest = divmod(elements, len(aggregations))
    if rest:
        raise ValueError(f"{elements} forcing elements cannot be {len(aggregations)} forcings of one length")
    runs: list[tuple[Aggregation, slice]] = []
    for index, kind in enumerate(aggregations):
        if runs and runs[-1][0] == kind:
            runs[-1] = (kind, slice(runs[-1][1].start, (index + 1) * each))
        else:
            runs.append((kind, slice(index * each, (index + 1) * each)))
    return tuple(runs)


class ForcingAccumulator:
    """The forcing of an unfinished step: means weighted by time, extremes, latest values.

    The running mean moves by ``(new - mean) * share``: a constant forcing keeps its every bit, however it is cut.
    """

    __slots__ = ("_aggregations", "_backend", "_runs", "parts", "seconds")

    def __init__(self, backend: Backend, aggregations: tuple[Aggregation, ...] | None) -> None:
        self._backend = backend
        self._aggregations = aggregations
        self._runs: tuple[tuple[Aggregation, slice], ...] = ()
        self.parts: list[Any] = []
        self.seconds = 0.0

    def add(self, forcings: Any, seconds: float) -> None:
        """Take in forcings that held for so many seconds."""
        backend = self._backend
        if not self.parts:
            self._runs = aggregation_runs(self._aggregations, len(forcings))
            self.parts = [backend.copy(forcings[part]) for _, part in self._runs]
            self.seconds = seconds
            return
        self.seconds += seconds
        share = seconds / self.seconds
        for index, (kind, part) in enumerate(self._runs):
            new, old = forcings[part], self.parts[index]
            if kind == "mean":
                self.parts[index] = old + (new - old) * share
            elif kind == "min":
                self.parts[index] = backend.minimum(old, new)
            elif kind == "max":
                self.parts[index] = backend.maximum(old, new)
            else:
                self.parts[index] = backend.copy(new)

    def value(self) -> Any:
        """Return the forcings aggregated so far, as one vector."""
        return self.parts[0] if len(self.parts) == 1 else self._backend.concatenate(self.parts)

    def clear(self) -> None:
        """Begin a new step."""
        self.parts = []
        self.seconds = 0.0

    def restore(self, value: Any, seconds: float) -> None:
        """Stand where a saved accumulator stood."""
        self._runs = aggregation_runs(self._aggregations, len(value))
        self.parts = [self._backend.copy(value[part]) for _, part in self._runs]
        self.seconds = seconds
