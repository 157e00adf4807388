"""Streamflow networks bound to catchments and stepped: one model or an ensemble, compiled on the CPU or by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.catchments import Site
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.program import Call, Program
from bmi_components.kernels.publishing import copied, gather, publish
from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.memory import Carried, Memory, PackedCell
from bmi_components.lstm.networks import make_network
from bmi_components.lstm.recurrent import RecurrentNetwork
from bmi_components.lstm.stepping import DenseLayer, PackedRecurrent
from bmi_components.runoff import OutputVariable
from bmi_components.stepper import Stepper, check_state
from bmi_components.trained_model import TrainedModel
from bmi_components.units import Conversion, converter
from bmi_components.variables import Variable

__all__ = [
    "CompiledStreamflowStepper",
    "Member",
    "SharedNetwork",
    "StreamflowStepper",
    "can_be_compiled",
    "shared_network",
]

ROWS = ("runoff", "spread", "daily_runoff")
"""What a step of all models together gives, mm d-1."""
Vector = NDArray[np.float64]


class SharedNetwork:
    """What all components share of a trained model whose inputs come in certain units.

    Parameters
    ----------
    bundle
        The trained model.
    dtype, device
        Of the arithmetic.
    units
        Units in which the model's inputs are given, in the order of ``bundle.inputs``.
    """

    def __init__(
        self,
        bundle: TrainedModel,
        dtype: Literal["float32", "float64"],
        device: str,
        units: tuple[str, ...],
    ) -> None:
        self.bundle, self.dtype = bundle, dtype
        self.network = make_network(bundle, getattr(torch, dtype)).to(device)
        self.conversions: Mapping[str, Conversion] = {
            quantity.name: converter(given, quantity.units)
            for quantity, given in zip(bundle.inputs, units, strict=True)
        }
        self._packed: dict[RecurrentNetwork, PackedRecurrent] = {}

    def scale_and_offset(self, network: RecurrentNetwork) -> tuple[Vector, Vector]:
        """Return what turns a network's forcing from the given units into its own, each ``[forcing]``."""
        conversions = [self.conversions[name] for name in network.forcing_names]
        return np.array([c.scale for c in conversions]), np.array([c.offset for c in conversions])

    def packed(self, network: RecurrentNetwork) -> PackedRecurrent | None:
        """Return the weights laid out for compiled stepping on the CPU; None where only torch can step the network."""
        if not isinstance(network, GatedNetwork) or network.feedback or network.w_hh.device.type != "cpu":
            return None
        if network not in self._packed:
            scale, offset = self.scale_and_offset(network)

            def layers(given: Any) -> list[DenseLayer]:
                return [DenseLayer(w.numpy(), b.numpy(), activation) for w, b, activation in given]

            self._packed[network] = PackedRecurrent(
                front=layers(network.front),
                w_ih=network.w_ih.numpy(),
                w_hh=network.w_hh.numpy(),
                b_ih=network.b_ih.numpy(),
                b_hh=network.b_hh.numpy(),
                readout=layers(network.readout),
                forcing_mean=(network.forcing_mean.double().numpy() - offset) / scale,
                forcing_std=network.forcing_std.double().numpy() / scale,
                cell=network.cell,
            )
        return self._packed[network]


@cache
def shared_network(
    bundle: TrainedModel, dtype: Literal["float32", "float64"], device: str, units: tuple[str, ...]
) -> SharedNetwork:
    """Return the shared part of a trained model, made once per process, float type, device and units."""
    return SharedNetwork(bundle, dtype, device, units)


@dataclass(frozen=True)
class Member:
    """One model of an ensemble, bound to the component's catchments.

    Attributes
    ----------
    shared
        What it has in common with other components.
    networks
        Its networks, the slow one first where there are two.
    memory
        Its own state.
    to_mm_per_day
        What turns its target into mm d-1, ``[catchment]``.
    """

    shared: SharedNetwork
    networks: tuple[RecurrentNetwork, ...]
    memory: Memory
    to_mm_per_day: Tensor

    def attributes(self, values: Mapping[str, Vector], size: int) -> tuple[Tensor, ...]:
        """Collect the attributes of each network for ``size`` catchments."""
        return tuple(attribute_tensor(network, values, size) for network in self.networks)


def attribute_tensor(network: RecurrentNetwork, values: Mapping[str, Vector], size: int) -> Tensor:
    """Return a network's attributes ``[catchment, attribute]`` in its type, on its device."""
    table = np.empty((size, len(network.attribute_names)))
    for column, name in enumerate(network.attribute_names):
        table[:, column] = values[name]
    return torch.from_numpy(table).to(network.forcing_mean)


class StreamflowStepper(Stepper):
    """One model or several by torch, on any device.

    Parameters
    ----------
    members
        The models.
    inputs
        What the component is fed; observed runoff, if any, is the last.
    attributes
        Static attributes of all models by name, ``[catchment]``.
    parameters
        The same as variables.
    outputs
        What is published; their sources are `ROWS`.
    site
        Where the catchments are.
    not_negative
        Whether runoff below zero becomes zero, in each model.
    device, dtype
        Where the models are, and of which type.
    """

    def __init__(
        self,
        members: Sequence[Member],
        inputs: Sequence[Variable],
        attributes: Mapping[str, Vector],
        parameters: Mapping[str, Variable],
        outputs: Sequence[OutputVariable],
        site: Site,
        not_negative: bool,
        device: str,
        dtype: Literal["float32", "float64"],
    ) -> None:
        self.members = tuple(members)
        self.inputs = tuple(inputs)
        self.outputs = tuple(o.variable for o in outputs)
        self.parameters = parameters
        self.time_step = members[0].shared.bundle.time_step
        self.size = len(site.area)
        self.identity = "+".join(member.shared.bundle.identity for member in members)
        self.coordinates = site.coordinates
        self.device, self.dtype = device, dtype
        self.backend = "numpy" if device == "cpu" else "torch"
        self._type = getattr(torch, dtype)
        self._attributes = dict(attributes)
        self._not_negative = not_negative
        self._sources = np.array([ROWS.index(o.source) for o in outputs])
        self._factors = np.empty((len(outputs), self.size))
        for row, output in zip(self._factors, outputs, strict=True):
            row[:] = output.factor
        self._source_tensor = torch.from_numpy(self._sources).to(device)
        self._factor_tensor = torch.from_numpy(self._factors).to(device=device, dtype=self._type)

    # Stepping -------------------------------------------------------------------------------------

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance every model, and return mean and spread over them."""
        on_host = self.backend == "numpy"
        rows = torch.as_tensor(forcings).to(self._type).reshape(len(self.inputs), self.size)
        with torch.no_grad():
            values = self._together([member.memory.take(rows) for member in self.members])
            published = values[self._source_tensor].double() if on_host else values[self._source_tensor]
            published = published * self._factor_tensor
        if not on_host:
            return published.reshape(-1)
        outputs.reshape(self._factors.shape)[:] = published.numpy()
        return outputs

    def _together(self, results: Sequence[tuple[Tensor, Tensor | None]]) -> Tensor:
        """Return the `ROWS` over all models, ``[row, catchment]``, mm d-1.

        The spread is that of the mixture: the models' own variances on average, and the variance between them.
        """
        factors = [member.to_mm_per_day for member in self.members]
        means = torch.stack([mean * factor for (mean, _), factor in zip(results, factors, strict=True)])
        if self._not_negative:
            means = means.clamp_min(0.0)
        own = [
            torch.zeros_like(mean) if spread is None else (spread * factor) ** 2
            for (mean, spread), factor in zip(results, factors, strict=True)
        ]
        mean = means.mean(0)
        variance = torch.stack(own).mean(0) + ((means - mean) ** 2).mean(0)
        daily = [
            slow * factor
            for member, factor in zip(self.members, factors, strict=True)
            if (slow := member.memory.slow_result()) is not None
        ]
        slow = torch.stack(daily).mean(0) if daily else torch.zeros_like(mean)
        return torch.stack((mean, variance.sqrt(), slow.clamp_min(0.0) if self._not_negative else slow))

    def initial_outputs(self, outputs: Vector) -> None:
        """No water has run yet."""
        outputs[:] = 0.0

    def spin_up(self, rows: Vector) -> None:
        """Live through a record before the start, ``[time, input, catchment]``."""
        tensor = torch.from_numpy(rows).to(device=self.device, dtype=self._type)
        with torch.no_grad():
            for member in self.members:
                member.memory.spin_up(tensor)

    # State ----------------------------------------------------------------------------------------

    def _arrays(self) -> dict[str, Tensor]:
        """Return all live state by name; the models of an ensemble are numbered."""
        if len(self.members) == 1:
            return self.members[0].memory.arrays()
        return {
            f"model_{number}_{name}": tensor
            for number, member in enumerate(self.members)
            for name, tensor in member.memory.arrays().items()
        }

    def read_state(self) -> dict[str, NDArray[Any]]:
        """Copy the memories."""
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._arrays().items()}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Replace the memories; see the base class."""
        arrays = self._arrays()
        check_state({name: tensor.cpu().numpy() for name, tensor in arrays.items()}, state)
        for name, tensor in arrays.items():
            tensor.copy_(torch.from_numpy(np.array(state[name])))

    def checkpoint(self) -> Any:
        """Copy the memories where they are."""
        return [tensor.clone() for tensor in self._arrays().values()]

    def rollback(self, checkpoint: Any) -> None:
        """Put the copies back."""
        for tensor, kept in zip(self._arrays().values(), checkpoint, strict=True):
            tensor.copy_(kept)

    # Attributes -----------------------------------------------------------------------------------

    def get_parameter(self, name: str) -> Vector:
        """Return a static attribute, ``[catchment]``."""
        return self._attributes[name].copy()

    def set_parameter(self, name: str, values: Vector) -> None:
        """Change a static attribute; the memories stay."""
        self._attributes = {**self._attributes, name: values.copy()}
        for member in self.members:
            if any(name in network.attribute_names for network in member.networks):
                member.memory.rebind(member.attributes(self._attributes, self.size))


def can_be_compiled(members: Sequence[Member]) -> bool:
    """Whether every model carries the state of one packed network that predicts a single value."""
    return all(
        isinstance(member.memory, Carried)
        and isinstance(member.memory.cell, PackedCell)
        and member.networks[0].head in _ACTIVATIONS
        for member in members
    )


_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "softplus": lambda x: torch.relu(x) + torch.log(1.0 + torch.exp(-torch.abs(x))),
}


@cache
def _ensemble(heads: tuple[str, ...], not_negative: tuple[bool, ...]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the function from the models' scales, offsets and raw results to mean and spread of runoff."""
    count = len(heads)

    def mean_and_spread(*rows: Tensor) -> tuple[Tensor, Tensor]:
        runoff = []
        for k in range(count):
            value = _ACTIVATIONS[heads[k]](rows[2 * count + k]) * rows[k] + rows[count + k]
            runoff.append(torch.relu(value) if not_negative[k] else value)
        mean = runoff[0]
        for value in runoff[1:]:
            mean = mean + value
        mean = mean / float(count)
        variance = (runoff[0] - mean) * (runoff[0] - mean)
        for value in runoff[1:]:
            variance = variance + (value - mean) * (value - mean)
        return mean, torch.sqrt(variance / float(count))

    return mean_and_spread


class CompiledStreamflowStepper(StreamflowStepper):
    """Packed networks on the CPU that carry their state, advanced in place; parameters as `StreamflowStepper`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        count, n, dtype = len(self.members), self.size, np.dtype(self.dtype)
        cells = [member.memory.cell for member in self.members]  # type: ignore[attr-defined]
        self._steppings = [cell.stepping for cell in cells]
        # Scales, offsets and raw results of the models in a row, so that one kernel makes runoff of them.
        self._block = np.zeros((3 * count, n), dtype)
        self._values = np.zeros((2, n), dtype)
        self._raw = self._block[2 * count :]
        self._take_scales()
        heads = tuple(member.networks[0].head for member in self.members)
        clipped = tuple(
            self._not_negative or member.networks[0].scaling.not_negative for member in self.members
        )
        combine = compiled_elementwise(_ensemble(heads, clipped), 3 * count, 2, self.dtype)
        self._given = np.zeros(len(self.inputs) * n)
        self._indices = [np.asarray(cell.rows.numpy(), np.int64) for cell in cells]
        calls: list[Call] = []
        take = gather(self.dtype)
        for k, stepping in enumerate(self._steppings):
            into = stepping.forcing
            steps = [stride // into.itemsize for stride in into.strides]
            given = (self._indices[k].ctypes.data, self._given.ctypes.data)
            calls.append((take, (len(into), n, *given, into.ctypes.data, *steps)))
            calls += stepping.calls
            calls.append(copied(stepping.raw, self._raw[k : k + 1]))
        calls.append((combine.run, (n, self._block.ctypes.data, self._values.ctypes.data)))
        publishing = (len(self._sources), n, self._values.ctypes.data, self._sources.ctypes.data)
        calls.append((publish(self.dtype), (*publishing, self._factors.ctypes.data, 0)))
        self._published: Vector | None = None
        self._program = Program(calls)

    def _take_scales(self) -> None:
        """Work out what turns each model's raw result into mm d-1 for the catchments."""
        count = len(self.members)
        for k, member in enumerate(self.members):
            network = member.networks[0]
            scale, offset = network.runoff_scaling(member.attributes(self._attributes, self.size)[0])
            self._block[k] = (scale * member.to_mm_per_day).numpy()
            self._block[count + k] = (offset * member.to_mm_per_day).numpy()

    def set_parameter(self, name: str, values: Vector) -> None:
        """Change a static attribute; the memories stay."""
        super().set_parameter(name, values)
        self._take_scales()

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance every model in place."""
        self._given[:] = forcings
        if outputs is not self._published:
            self._published = outputs
            self._program.change(-1, 5, outputs.ctypes.data)
        self._program.run()
        return outputs
