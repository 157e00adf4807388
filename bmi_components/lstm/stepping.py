"""Recurrent networks stepped on the CPU: packed weights that many components share, and the memory of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.kernels import Dense, Elementwise
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.program import Call, Program

__all__ = ["DenseLayer", "PackedRecurrent", "RecurrentStepping"]


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
    """A dense layer in both forms: packed for one catchment, a matrix for many."""

    def __init__(self, weights: NDArray[Any], bias: NDArray[Any] | None, activation: str) -> None:
        self.width: int = weights.shape[0]
        self.dense = Dense(weights)
        self.matrix = torch.from_numpy(np.ascontiguousarray(weights))
        self.bias = bias
        """Bias ``[output]``, or None where it belongs to the catchment."""
        self.padded_bias = None if bias is None else self.dense.pad(bias)
        self.activation: Elementwise | None = (
            None
            if activation == "linear"
            else compiled_elementwise(_ACTIVATIONS[activation], 1, 1, str(weights.dtype))
        )


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

    def bind(self, static: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the biases of the first front layer and of the gates for ``static [catchment, feature]``.

        Each is ``[row, catchment]``; a part that sees no static features has one column, and without a front the first
        has no rows.
        """
        front = np.zeros((0, 1), self.dtype)
        if self._front_bias is not None and self._front_static is not None:
            front = _biased(self._front_bias, self._front_static, static, self.dtype)
        return front, _biased(self._gate_bias, self._gate_static, static, self.dtype)


def _biased(
    bias: NDArray[Any], weights: NDArray[Any], static: NDArray[np.float64], dtype: np.dtype[Any]
) -> NDArray[Any]:
    own = bias[:, None]
    if weights.shape[1]:
        own = own + weights @ static.T
    return own.astype(dtype)


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
        Where `advance` leaves the output, ``[output, catchment]``.
    h, c : array
        The memory, ``[padded hidden, catchment]``; a GRU's is in both.
    calls : list
        The compiled calls of a step of one catchment, for a `Program`.
    """

    def __init__(
        self, packed: PackedRecurrent, static: NDArray[np.float64], output: NDArray[Any] | None = None
    ) -> None:
        n, size, dtype = static.shape[0], packed.padded, packed.dtype
        self.packed, self._n = packed, n
        single = n == 1

        def room(layer: _Layer) -> int:
            """Elements that a layer writes: the packed form fills whole blocks of rows."""
            return int(layer.dense.rows if single else layer.width)

        # One block of memory, so that the gates and the cell are rows for one kernel, and the hidden state and what
        # enters the recurrent layer are one vector for the next: gates | c | h | front's output or forcing.
        gates = room(packed.gates)
        entering = room(packed.front[-1]) if packed.front else packed.entering
        self._memory = np.zeros((6 * size + entering, n), dtype)
        if gates > 4 * size:
            raise AssertionError("the gates' packed rows overlap the cell")
        self._gates = self._memory[: 4 * size]
        self.c = self._memory[4 * size : 5 * size]
        self.h = self._memory[5 * size : 6 * size]
        z = self._memory[6 * size : 6 * size + packed.entering]
        hz = self._memory[5 * size : 6 * size + packed.entering]
        self.forcing = np.zeros((packed.forcings, n), dtype) if packed.front else z
        last = np.zeros((room(packed.readout[-1]), n), dtype) if output is None else output.reshape(-1, 1)
        self.raw = last[: packed.outputs]
        fronts = [np.zeros((room(layer), n), dtype) for layer in packed.front[:-1]]
        if packed.front:
            fronts.append(self._memory[6 * size :])
        reads = [*(np.zeros((room(layer), n), dtype) for layer in packed.readout[:-1]), last]
        self._between = (fronts, reads)  # the compiled calls know addresses only

        self._front_bias, self._gate_bias = self._biases(static)
        self.calls: list[Call] = []
        self._program: Program | None = None
        base, item = self._memory.ctypes.data, dtype.itemsize * n
        self._cell = (size * n, base, base + 4 * size * item)
        if single:
            self._fix_calls(fronts, reads, hz)
        else:
            self._chain_front = self._chain(packed.front, self.forcing, fronts, self._front_bias)
            self._chain_out = self._chain(packed.readout, self.h, reads, None)
            self._tensors = tuple(torch.from_numpy(a) for a in (hz, self._gates))
            self._gate_tensor = torch.from_numpy(self._gate_bias)

    def _biases(self, static: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
        front, gates = self.packed.bind(static)
        if self._n == 1:
            padded = self.packed.front[0].dense.pad(front.ravel()) if self.packed.front else front.ravel()
            return padded, self.packed.gates.dense.pad(gates.ravel())
        return front, gates

    def rebind(self, static: NDArray[np.float64]) -> None:
        """Change the static features of the catchments; the memory stays."""
        front, gates = self._biases(static)
        self._front_bias[...] = front
        self._gate_bias[...] = gates

    def reset(self) -> None:
        """Forget everything."""
        self.c[...] = 0.0
        self.h[...] = 0.0

    # One catchment: the weights stream through a matrix-vector kernel ------------------------------

    def _fix_calls(self, fronts: list[NDArray[Any]], reads: list[NDArray[Any]], hz: NDArray[Any]) -> None:
        packed = self.packed
        source = self.forcing
        for layer, target in zip(packed.front, fronts, strict=True):
            self._add(layer, self._front_bias if layer.bias is None else layer.padded_bias, source, target)
            source = target
        self._add(packed.gates, self._gate_bias, hz, self._memory)
        self.calls.append((packed.cell.run, self._cell))
        source = self.h
        for layer, target in zip(packed.readout, reads, strict=True):
            self._add(layer, layer.padded_bias, source, target)
            source = target

    def _add(
        self, layer: _Layer, bias: NDArray[Any] | None, source: NDArray[Any], target: NDArray[Any]
    ) -> None:
        assert bias is not None
        dense, x, y = layer.dense, source.ctypes.data, target.ctypes.data
        self.calls.append(
            (dense.run, (dense.blocks, dense.columns, dense.weights.ctypes.data, bias.ctypes.data, x, y))
        )
        if layer.activation is not None:
            self.calls.append((layer.activation.run, (layer.width, y, y)))

    # Many: a matrix product per layer --------------------------------------------------------------

    def _chain(
        self,
        layers: Sequence[_Layer],
        source: NDArray[Any],
        targets: Sequence[NDArray[Any]],
        own_bias: NDArray[Any] | None,
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, _Layer, tuple[int, int, int]]]:
        chain = []
        for layer, target in zip(layers, targets, strict=True):
            bias = own_bias if layer.bias is None else layer.bias[:, None]
            assert bias is not None
            out = target[: layer.width]
            tensors = (torch.from_numpy(bias), torch.from_numpy(source), torch.from_numpy(out))
            at = out.ctypes.data
            chain.append((tensors[0], layer.matrix, tensors[1], tensors[2], layer, (out.size, at, at)))
            source = out
        return chain

    def advance(self) -> None:
        """Advance the memory by the step whose ``forcing`` is there, and leave the output in ``raw``."""
        if self._n == 1:
            if self._program is None:
                self._program = Program(self.calls)
            self._program.run()
            return
        packed = self.packed
        for bias, matrix, source, target, layer, activation in self._chain_front:
            torch.addmm(bias, matrix, source, out=target)
            if layer.activation is not None:
                layer.activation.run(*activation)
        hz, gates = self._tensors
        torch.addmm(self._gate_tensor, packed.gates.matrix, hz, out=gates)
        packed.cell.run(*self._cell)
        for bias, matrix, source, target, layer, activation in self._chain_out:
            torch.addmm(bias, matrix, source, out=target)
            if layer.activation is not None:
                layer.activation.run(*activation)
