"""The LSTM one step at a time on the CPU: packed weights that many components share, and the memory of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.kernels import Dense, Elementwise
from bmi_components.kernels.compiled import compiled_elementwise
from bmi_components.kernels.program import Call

__all__ = ["LstmStepping", "PackedLstm"]


def _gates(
    i: torch.Tensor, f: torch.Tensor, g: torch.Tensor, o: torch.Tensor, c: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cell and hidden state after a step, from the gates before their activation (Hochreiter & Schmidhuber 1997)."""
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return c, torch.sigmoid(o) * torch.tanh(c)


def _relu(x: torch.Tensor) -> tuple[torch.Tensor]:
    return (torch.relu(x),)


class PackedLstm:
    """Weights of an LSTM and the layers around it laid out for stepping, shared by every component of a trained model.

    The forcing goes through a Linear - ReLU layer into the LSTM, or straight into it; the output is linear. What a
    catchment fixes (its attributes) is left to a bias of its own, see ``bind``. Hidden units are padded to a multiple
    of 16 with units that stay zero.

    Parameters
    ----------
    embedding : pair of arrays, optional
        Weights ``[hidden, forcing + attribute]`` and bias of the Linear - ReLU layer.
    w_ih, w_hh, bias : arrays
        LSTM, gates in the order i, f, g, o; ``bias`` is the sum of both biases. Without an embedding ``w_ih`` is
        ``[4 * hidden, forcing + attribute]``.
    output : pair of arrays
        Weights ``[output, hidden]`` and bias of the output layer.
    forcing_mean, forcing_std : arrays
        Standardisation of the forcing, folded into the first layer.
    """

    def __init__(
        self,
        *,
        embedding: tuple[NDArray[Any], NDArray[Any]] | None,
        w_ih: NDArray[Any],
        w_hh: NDArray[Any],
        bias: NDArray[Any],
        output: tuple[NDArray[Any], NDArray[Any]],
        forcing_mean: NDArray[Any],
        forcing_std: NDArray[Any],
    ) -> None:
        self.dtype = w_hh.dtype
        self.hidden = hidden = w_hh.shape[1]
        self.padded = padded = -(-hidden // 16) * 16
        self.forcings = forcing_mean.size
        self.outputs = output[0].shape[0]
        self.embedded = embedding is not None

        def rows(weights: NDArray[Any], blocks: int) -> NDArray[Any]:
            wide = np.zeros((blocks, padded, *weights.shape[1:]), self.dtype)
            wide[:, :hidden] = weights.reshape(blocks, hidden, *weights.shape[1:])
            return wide.reshape(blocks * padded, *weights.shape[1:])

        def columns(weights: NDArray[Any]) -> NDArray[Any]:
            wide = np.zeros((weights.shape[0], padded), self.dtype)
            wide[:, :hidden] = weights
            return wide

        first, first_bias = (w_ih, bias) if embedding is None else embedding
        self._blocks = 4 if embedding is None else 1
        weights = first[:, : self.forcings].astype(np.float64) / forcing_std
        self._bias = first_bias.astype(np.float64) - weights @ forcing_mean.astype(np.float64)
        self._attribute_weights = first[:, self.forcings :].astype(np.float64)
        self._rows = rows
        forcing_weights = rows(weights.astype(self.dtype), self._blocks)
        if embedding is None:
            into_gates, self.gate_bias = forcing_weights, None
        else:
            into_gates, self.gate_bias = rows(columns(w_ih), 4), rows(bias, 4)
        gate_weights = np.concatenate([rows(columns(w_hh), 4), into_gates], axis=1)
        out_weights, self.out_bias = columns(output[0]), output[1].astype(self.dtype)
        # One catchment streams the weights through a matrix-vector kernel; many go through a matrix product.
        self.dense_in = Dense(forcing_weights) if self.embedded else None
        self.dense_gates, self.dense_out = Dense(gate_weights), Dense(out_weights)
        self.dense_out_bias = self.dense_out.pad(self.out_bias)
        self.tensors = tuple(torch.from_numpy(w) for w in (forcing_weights, gate_weights, out_weights))
        self.gates: Elementwise = compiled_elementwise(_gates, 5, 2, str(self.dtype))
        self.relu: Elementwise = compiled_elementwise(_relu, 1, 1, str(self.dtype))

    def bind(self, attributes: NDArray[np.float64]) -> NDArray[Any]:
        """Return the first layer's bias for catchments with standardised ``attributes [catchment, attribute]``.

        Its shape is ``[row, catchment]``: the rows are those of the embedding, or the gates where there is none.
        """
        return self._rows(self._bias[:, None] + self._attribute_weights @ attributes.T, self._blocks)


class LstmStepping:
    """The memory of a packed LSTM for some catchments, advanced in place.

    Parameters
    ----------
    packed : PackedLstm
        The shared weights.
    bias : array
        From ``PackedLstm.bind``.
    output : array, optional
        Memory for ``raw`` of one catchment, ``packed.dense_out.rows`` elements, where the caller wants it.

    Attributes
    ----------
    forcing : array
        Where the caller puts the step's forcing, ``[forcing, catchment]``, in physical units.
    raw : array
        Where `advance` leaves the output, ``[output, catchment]``.
    h, c : array
        The memory, ``[padded hidden, catchment]``.
    """

    def __init__(self, packed: PackedLstm, bias: NDArray[Any], output: NDArray[Any] | None = None) -> None:
        size, n, dtype = packed.padded, bias.shape[1], packed.dtype
        self.packed, self._n = packed, n
        # One block of memory, so that the gates and the cell are rows for one kernel, and the hidden state and what
        # enters the LSTM are one vector for the next: gates i f g o | c | h | embedding or forcing.
        entering = size if packed.embedded else packed.forcings
        reserved = packed.dense_in.rows if packed.dense_in is not None else entering
        self._memory = np.zeros((6 * size + reserved, n), dtype)
        self._gates = self._memory[: 4 * size]
        self.c = self._memory[4 * size : 5 * size]
        self.h = self._memory[5 * size : 6 * size]
        z = self._memory[6 * size : 6 * size + entering]
        hz = self._memory[5 * size : 6 * size + entering]
        self.forcing = np.zeros((packed.forcings, n), dtype) if packed.embedded else z
        self._output = (
            np.zeros((packed.dense_out.rows, n), dtype) if output is None else output.reshape(-1, 1)
        )
        self.raw = self._output[: packed.outputs]

        base, item = self._memory.ctypes.data, dtype.itemsize * n
        at_c, at_h, at_z = (base + k * size * item for k in (4, 5, 6))
        cell = (size * n, base, at_c)
        gate_bias = bias if packed.gate_bias is None else packed.gate_bias[:, None]
        self.calls: list[Call] = []
        if n == 1:
            self._kept = bias.ravel().copy()
            if packed.dense_in is not None:
                self._kept = packed.dense_in.pad(bias.ravel())
                self.calls.append(_call(packed.dense_in, self._kept, self.forcing.ctypes.data, at_z))
                self.calls.append((packed.relu.run, (size, at_z, at_z)))
            bias_of_gates = self._kept if packed.gate_bias is None else packed.gate_bias
            self.calls.append(_call(packed.dense_gates, bias_of_gates, at_h, base))
            self.calls.append((packed.gates.run, cell))
            self.calls.append(_call(packed.dense_out, packed.dense_out_bias, at_h, self._output.ctypes.data))
        else:
            self._cell = cell
            self._biases = tuple(torch.from_numpy(b) for b in (bias, gate_bias, packed.out_bias[:, None]))
            self._tensors = tuple(
                torch.from_numpy(a) for a in (self.forcing, z, hz, self._gates, self.h, self.raw)
            )

    def advance(self) -> None:
        """Advance the memory of many catchments by the step whose ``forcing`` is there; leave the output in ``raw``.

        For one catchment put ``calls`` into a `Program`.
        """
        packed = self.packed
        forcing, z, hz, gates, h, raw = self._tensors
        w_in, w_gates, w_out = packed.tensors
        b_in, b_gates, b_out = self._biases
        if packed.embedded:
            torch.addmm(b_in, w_in, forcing, out=z).relu_()
        torch.addmm(b_gates, w_gates, hz, out=gates)
        packed.gates.run(*self._cell)
        torch.addmm(b_out, w_out, h, out=raw)


def _call(dense: Dense, bias: NDArray[Any], x: int, y: int) -> Call:
    """Return the call of a dense layer for a vector and a result at fixed addresses."""
    return dense.run, (dense.blocks, dense.columns, dense.weights.ctypes.data, bias.ctypes.data, x, y)
