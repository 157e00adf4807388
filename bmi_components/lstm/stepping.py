"""Recurrent networks stepped on the CPU: packed weights that many components share, and the memory of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.kernels import Dense, Elementwise
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.dense import SAMPLES, aligned_zeros
from bmi_components.kernels.program import Call, Program, repeated

__all__ = ["DenseLayer", "PackedRecurrent", "RecurrentStepping"]

_TOGETHER = 2 * SAMPLES
"""Catchments that pass through all layers before the next ones do: what is between the layers stays in the cache."""


class DenseLayer(NamedTuple):
    """A layer ``activation(bias + weights x)`` with weights ``[output, input]``."""

    weights: NDArray[Any]
    bias: NDArray[Any]
    activation: str = "linear"


def _lstm_cell(
    i: torch.Tensor, f: torch.Tensor, g: torch.Tensor, o: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cell and hidden state after a step, from the gates before their activation (Hochreiter & Schmidhuber 1997)."""
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return c, torch.sigmoid(o) * torch.tanh(c)


def _gru_cell(
    r: torch.Tensor, z: torch.Tensor, n_input: torch.Tensor, n_hidden: torch.Tensor, h: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden state after a step, twice: the candidate's two halves are kept apart (Cho et al. 2014, PyTorch's form)."""
    z = torch.sigmoid(z)
    h = (1.0 - z) * torch.tanh(n_input + torch.sigmoid(r) * n_hidden) + z * h
    return h, h


def _relu(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.relu(x),)


def _tanh(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.tanh(x),)


def _sigmoid(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.sigmoid(x),)


def _softplus(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.relu(x) + torch.log(1.0 + torch.exp(-torch.abs(x))),)


_CELLS = {"lstm": _lstm_cell, "gru": _gru_cell}
_ACTIVATIONS = {"relu": _relu, "tanh": _tanh, "sigmoid": _sigmoid, "softplus": _softplus}


class _Layer:
    """A packed dense layer and its activation."""

    def __init__(self, weights: NDArray[Any], bias: NDArray[Any] | None, activation: str) -> None:
        self.width: int = weights.shape[0]
        self.dense = Dense(weights)
        self.bias = None if bias is None else self.dense.pad(bias[None])
        """Bias ``[1, row]``, or None where it belongs to the catchment."""
        self.activation: Elementwise | None = (
            None
            if activation == "linear"
            else compiled_elementwise(_ACTIVATIONS[activation], 1, 1, str(weights.dtype))
        )

    def calls(
        self, catchments: int, bias: NDArray[Any] | None, x: NDArray[Any], y: NDArray[Any]
    ) -> list[Call]:
        """Return the calls for one catchment or a multiple of `SAMPLES`; ``bias`` where it is theirs."""
        own = self.bias if bias is None else bias
        assert own is not None
        calls = [self.dense.call(catchments, own, x, y)]
        if self.activation is not None:
            at = y.ctypes.data
            calls.append(repeated((self.activation.run, (self.width, at, at)), catchments, y.strides[0]))
        return calls


class PackedRecurrent:
    """Weights of a recurrent network laid out for stepping, shared by every component of a trained model.

    Forcing passes the ``front`` layers, if any, into the recurrent layer, whose hidden state passes the ``readout``
    layers. What a catchment fixes (its static features) becomes a bias of its own, see `bind`. Hidden units are padded
    to a multiple of 16 with units that stay zero.

    Parameters
    ----------
    front : sequence of DenseLayer
        The first takes ``forcing`` or ``forcing + static feature`` columns.
    w_ih, w_hh, b_ih, b_hh : arrays
        The recurrent layer as PyTorch lays it out: gates i, f, g, o of an LSTM or r, z, n of a GRU. ``w_ih`` takes the
        front's output (or the forcing), and static features in the columns after it.
    readout : sequence of DenseLayer
        From the hidden state to the output.
    forcing_mean, forcing_std : arrays
        Standardisation of the forcing, folded into the first layer.
    cell : "lstm" or "gru"
        The recurrent layer.
    """

    def __init__(
        self,
        *,
        front: Sequence[DenseLayer] = (),
        w_ih: NDArray[Any],
        w_hh: NDArray[Any],
        b_ih: NDArray[Any],
        b_hh: NDArray[Any],
        readout: Sequence[DenseLayer],
        forcing_mean: NDArray[Any],
        forcing_std: NDArray[Any],
        cell: Literal["lstm", "gru"] = "lstm",
    ) -> None:
        dtype = self.dtype = w_hh.dtype
        self.hidden = hidden = w_hh.shape[1]
        self.padded = padded = -(-hidden // 16) * 16
        self.forcings = forcing_mean.size
        self.entering = front[-1].weights.shape[0] if front else self.forcings
        self.outputs = readout[-1].weights.shape[0]

        def rows(weights: NDArray[Any]) -> NDArray[Any]:
            wide = np.zeros((4, padded, *weights.shape[1:]))
            wide[:, :hidden] = weights.reshape(4, hidden, *weights.shape[1:])
            return wide.reshape(4 * padded, *weights.shape[1:])

        if cell == "gru":
            # The candidate's halves from the input and from the hidden state are gates of their own.
            nothing_in, nothing_back = np.zeros((hidden, w_ih.shape[1])), np.zeros((hidden, hidden))
            gates, nothing = 2 * hidden, np.zeros(hidden)
            into = np.concatenate([w_ih, nothing_in])
            back = np.concatenate([w_hh[:gates], nothing_back, w_hh[gates:]])
            bias = np.concatenate([b_ih[:gates] + b_hh[:gates], b_ih[gates:], nothing + b_hh[gates:]])
        else:
            into, back, bias = w_ih, w_hh, b_ih.astype(np.float64) + b_hh
        into, back, bias = rows(into), rows(back), rows(bias)
        first = front[0].weights if front else into
        weights = first[:, : self.forcings].astype(np.float64) / forcing_std
        shift = weights @ forcing_mean.astype(np.float64)
        self.front: list[_Layer] = []
        self._front_bias = self._front_static = None
        if front:
            self._front_bias = front[0].bias.astype(np.float64) - shift
            self._front_static = first[:, self.forcings :].astype(np.float64)
            self.front = [
                _Layer(weights.astype(dtype), None, front[0].activation),
                *(
                    _Layer(layer.weights.astype(dtype), layer.bias.astype(dtype), layer.activation)
                    for layer in front[1:]
                ),
            ]
            forcing_or_front = into[:, : self.entering]
        else:
            bias = bias - shift
            forcing_or_front = weights
        self._gate_bias = bias
        self._gate_static = into[:, self.entering :].astype(np.float64)
        wide = np.zeros((4 * padded, padded))
        wide[:, :hidden] = back
        self.gates = _Layer(np.concatenate([wide, forcing_or_front], axis=1).astype(dtype), None, "linear")
        self.cell: Elementwise = compiled_elementwise(_CELLS[cell], 5, 2, str(dtype))
        first_out = np.zeros((readout[0].weights.shape[0], padded), dtype)
        first_out[:, :hidden] = readout[0].weights
        out = (readout[0]._replace(weights=first_out), *readout[1:])
        self.readout = [
            _Layer(layer.weights.astype(dtype), layer.bias.astype(dtype), layer.activation) for layer in out
        ]

    @property
    def packed_outputs(self) -> int:
        """Elements that one catchment's output takes: whole blocks of rows."""
        return self.readout[-1].dense.rows

    def bind(self, static: NDArray[np.float64]) -> tuple[NDArray[Any] | None, NDArray[Any]]:
        """Return the biases of the first front layer, if any, and of the gates for ``static [catchment, feature]``.

        Each is ``[catchment, row]``; a part that sees no static features has one for all.
        """
        front = None
        if self._front_bias is not None and self._front_static is not None:
            front = self.front[0].dense.pad(_biased(self._front_bias, self._front_static, static))
        return front, self.gates.dense.pad(_biased(self._gate_bias, self._gate_static, static))


def _biased(bias: NDArray[Any], weights: NDArray[Any], static: NDArray[np.float64]) -> NDArray[np.float64]:
    own: NDArray[np.float64] = bias[None].astype(np.float64)
    if weights.shape[1]:
        own = own + static @ weights.T
    return own


class RecurrentStepping:
    """The memory of a packed network for some catchments, advanced in place.

    Parameters
    ----------
    packed : PackedRecurrent
        The shared weights.
    static : array
        Static features of the catchments, ``[catchment, feature]``.
    output : array, optional
        Memory for the output of one catchment, as many elements as the last layer has packed rows, where the caller
        wants it.

    Attributes
    ----------
    forcing : array
        Where the caller puts the step's forcing, ``[forcing, catchment]``, in physical units.
    raw : array
        Where a step leaves the output, ``[output, catchment]``.
    h, c : array
        The memory, ``[padded hidden, catchment]``; a GRU's is in both.
    calls : list
        The compiled calls of a step, for a `Program`.

    The arrays are views of memory in which each catchment has its own row.
    """

    def __init__(
        self, packed: PackedRecurrent, static: NDArray[np.float64], output: NDArray[Any] | None = None
    ) -> None:
        n, size, dtype = static.shape[0], packed.padded, packed.dtype
        self.packed, self._n = packed, n
        # Several catchments are computed by fours; those that make up the last four are never looked at.
        self._rows = rows = 1 if n == 1 else -(-n // SAMPLES) * SAMPLES

        # One row of memory per catchment, so that the gates and the cell are rows for one kernel, and the hidden state
        # and what enters the recurrent layer are one vector for the next: gates | c | h | front's output or forcing.
        entering = packed.front[-1].dense.rows if packed.front else -(-packed.entering // 16) * 16
        self._memory = aligned_zeros((rows, 6 * size + entering), dtype)
        if packed.gates.dense.rows > 4 * size:
            raise AssertionError("the gates' packed rows overlap the cell")
        self.c = self._memory[:n, 4 * size : 5 * size].T
        self.h = self._memory[:n, 5 * size : 6 * size].T

        def room(layer: _Layer) -> NDArray[Any]:
            return aligned_zeros((rows, layer.dense.rows), dtype)

        last = room(packed.readout[-1]) if output is None else output.reshape(1, -1)
        self.raw = last[:n, : packed.outputs].T
        # The compiled calls know addresses only, so the arrays between the layers are kept here.
        self._fronts = [room(layer) for layer in packed.front[:-1]]
        self._reads = [*(room(layer) for layer in packed.readout[:-1]), last]
        start = aligned_zeros((rows, -(-packed.forcings // 16) * 16), dtype) if packed.front else None
        self._start = self._memory[:, 6 * size :] if start is None else start
        self.forcing = self._start[:n, : packed.forcings].T
        self._front_bias, self._gate_bias = self._biases(static)
        self.calls: list[Call] = []
        for first in range(0, rows, _TOGETHER):
            self.calls += self._calls(slice(first, min(first + _TOGETHER, rows)))
        self._program: Program | None = None

    def _biases(self, static: NDArray[np.float64]) -> tuple[NDArray[Any] | None, NDArray[Any]]:
        """Return the biases of the catchments, with as many rows as the memory or one."""
        front, gates = self.packed.bind(static)
        return None if front is None else self._for_rows(front), self._for_rows(gates)

    def _for_rows(self, bias: NDArray[Any]) -> NDArray[Any]:
        if len(bias) in (1, self._rows):
            return bias
        return np.concatenate([bias, bias[:1].repeat(self._rows - len(bias), 0)])

    def rebind(self, static: NDArray[np.float64]) -> None:
        """Change the static features of the catchments; the memory stays."""
        front, gates = self._biases(static)
        if self._front_bias is not None:
            self._front_bias[...] = front
        self._gate_bias[...] = gates

    def reset(self) -> None:
        """Forget everything."""
        self.c[...] = 0.0
        self.h[...] = 0.0

    def _calls(self, some: slice) -> list[Call]:
        """Return the calls of a step for some of the memory's rows."""
        packed, size, count = self.packed, self.packed.padded, some.stop - some.start

        def own(bias: NDArray[Any]) -> NDArray[Any]:
            return bias if len(bias) == 1 else bias[some]

        memory = self._memory[some]
        source, calls = self._start[some], []
        for number, layer in enumerate(packed.front):
            target = self._fronts[number][some] if number < len(self._fronts) else memory[:, 6 * size :]
            bias = own(self._front_bias) if number == 0 and self._front_bias is not None else None
            calls += layer.calls(count, bias, source, target)
            source = target
        calls += packed.gates.calls(count, own(self._gate_bias), memory[:, 5 * size :], memory)
        at = memory.ctypes.data
        cell = (size, at, at + 4 * size * memory.itemsize)
        calls.append(repeated((packed.cell.run, cell), count, memory.strides[0]))
        source = memory[:, 5 * size : 6 * size]
        for layer, read in zip(packed.readout, self._reads, strict=True):
            calls += layer.calls(count, None, source, read[some])
            source = read[some]
        return calls

    def advance(self) -> None:
        """Advance the memory by the step whose ``forcing`` is there, and leave the output in ``raw``."""
        if self._program is None:
            self._program = Program(self.calls)
        self._program.run()
