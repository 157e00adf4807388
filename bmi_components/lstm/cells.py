"""Recurrent cells: the long short-term memory, one step at a time and over a whole sequence at full speed; the GRU."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bmi_components.errors import ValueShapeError

__all__ = ["GruWeights", "LstmState", "LstmWeights", "gru_cell", "lstm_cell", "lstm_sequence"]

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
"""Fused ``y s (1 - s)`` of PyTorch's own derivative of the sigmoid ``s``."""

_ROWS_PER_BLOCK = 2048
"""Rows (time step x catchment) worked on together: enough for a fast GEMM, few enough for the cache."""

_FEW = 2048
"""Numbers for which one operation costs about as much as its call."""


class LstmState(NamedTuple):
    """What a LSTM remembers: hidden state ``h`` and cell state ``c``, each ``[catchment, hidden]``."""

    h: Tensor
    c: Tensor


class LstmWeights(NamedTuple):
    """Weights of one LSTM layer; the rows are the gates input, forget, cell, output (i, f, g, o), each
    ``hidden``.

    ``w_ih[4*hidden, feature]``, ``w_hh[4*hidden, hidden]``, ``b_ih[4*hidden]``, ``b_hh[4*hidden]``.
    """

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


def lstm_cell(x: Tensor, state: LstmState | tuple[Tensor, Tensor], weights: LstmWeights) -> LstmState:
    """Advance a LSTM by one time step (Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al.
    2000).

    Parameters
    ----------
    x : Tensor
        Features of this step, ``[catchment, feature]``.
    state : LstmState
        Hidden and cell state before the step, each ``[catchment, hidden]``.
    weights : LstmWeights
        The layer.

    Returns
    -------
    LstmState
        The state after the step; its ``h`` is the step's output.
    """
    h, c = state
    bias = weights.b_ih + weights.b_hh
    gates = torch.addmm(torch.addmm(bias, x, weights.w_ih.t()), h, weights.w_hh.t())
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return LstmState(torch.sigmoid(o) * torch.tanh(c), c)


class GruWeights(NamedTuple):
    """Weights of one GRU layer; the rows are reset, update and candidate (r, z, n), each ``hidden``.

    ``w_ih[3*hidden, feature]``, ``w_hh[3*hidden, hidden]``, ``b_ih[3*hidden]``, ``b_hh[3*hidden]``.
    """

    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor
    b_hh: Tensor


def gru_cell(x: Tensor, h: Tensor, weights: GruWeights) -> Tensor:
    """Advance a GRU by one time step (Cho et al. 2014, with the reset gate behind the product as in cuDNN).

    Parameters
    ----------
    x : Tensor
        Features of this step, ``[catchment, feature]``.
    h : Tensor
        State before the step, ``[catchment, hidden]``.
    weights : GruWeights
        The layer.

    Returns
    -------
    Tensor
        The state after the step, which is its output too.
    """
    from_input = torch.addmm(weights.b_ih, x, weights.w_ih.t()).chunk(3, dim=1)
    from_state = torch.addmm(weights.b_hh, h, weights.w_hh.t()).chunk(3, dim=1)
    r = torch.sigmoid(from_input[0] + from_state[0])
    z = torch.sigmoid(from_input[1] + from_state[1])
    n = torch.tanh(from_input[2] + r * from_state[2])
    return n + z * (h - n)


def lstm_sequence(
    x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h0: Tensor, c0: Tensor
) -> tuple[Tensor, LstmState]:
    """Run a LSTM over a whole sequence, equal to ``lstm_cell`` step by step and to ``torch.nn.LSTM``.

    Made for training on few CPU threads: the input half of the gates is one GEMM per block of time steps,
    the hidden half one GEMM per step into memory that is already there, and the backward pass forms every
    weight gradient by GEMMs over blocks of time. It is first-order differentiable in every argument.

    Parameters
    ----------
    x : Tensor
        Features, ``[time, catchment, feature]``; at least one time step.
    w_ih, w_hh, b_ih, b_hh : Tensor
        The layer, see `LstmWeights`.
    h0, c0 : Tensor
        State before the first step, each ``[catchment, hidden]``.

    Returns
    -------
    h_all : Tensor
        Hidden state after each step, ``[time, catchment, hidden]``.
    state : LstmState
        State after the last step.

    Raises
    ------
    ValueShapeError
        If the shapes do not belong together.
    """
    _check_shapes(x, w_ih, w_hh, b_ih, b_hh, h0, c0)
    arguments = (x, w_ih, w_hh, b_ih, b_hh, h0, c0)
    if torch.is_grad_enabled() and any(argument.requires_grad for argument in arguments):
        h_all, c_last = _LstmSequence.apply(*arguments)  # type: ignore[no-untyped-call]
    else:
        h_all, c_last, _, _ = _forward(*arguments, keep=False)
    return h_all, LstmState(h_all[-1], c_last)


def _check_shapes(
    x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, h0: Tensor, c0: Tensor
) -> None:
    if x.dim() != 3 or x.shape[0] == 0:
        raise ValueShapeError(
            "the LSTM needs features [time, catchment, feature] with at least one step; "
            f"got shape {tuple(x.shape)}"
        )
    _, catchments, features = x.shape
    hidden = w_hh.shape[-1]
    expected = {
        "w_ih": (w_ih, (4 * hidden, features)),
        "w_hh": (w_hh, (4 * hidden, hidden)),
        "b_ih": (b_ih, (4 * hidden,)),
        "b_hh": (b_hh, (4 * hidden,)),
        "h0": (h0, (catchments, hidden)),
        "c0": (c0, (catchments, hidden)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueShapeError(
                f"the LSTM's {name} has shape {tuple(tensor.shape)}; with features {tuple(x.shape)} "
                f"and hidden size {hidden} it must be {shape}"
            )


def _double_g(weights: Tensor, hidden: int) -> Tensor:
    """Double the rows of gate g, so that one sigmoid serves all four gates: tanh(a) = 2 sigmoid(2a) - 1.

    PyTorch's sigmoid takes a third of the time of its tanh; doubling is exact.
    """
    doubled = weights.clone(memory_format=torch.contiguous_format)
    doubled[2 * hidden : 3 * hidden] *= 2.0
    return doubled


def _blocks(steps: int, catchments: int) -> list[tuple[int, int]]:
    """Cut the time axis into blocks ``[start, stop)`` of about `_ROWS_PER_BLOCK` rows."""
    length = max(1, _ROWS_PER_BLOCK // max(1, catchments))
    return [(start, min(start + length, steps)) for start in range(0, steps, length)]


def _forward(
    x: Tensor,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor,
    b_hh: Tensor,
    h0: Tensor,
    c0: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Compute all hidden states and the last cell state; with ``keep`` also what the backward pass needs.

    That is the gates ``[time, catchment, 4*hidden]`` as they come out of the sigmoid (so that the third is
    (g + 1)/2) and the cell states ``[time, catchment, hidden]``.
    """
    steps, catchments, features = x.shape
    hidden = w_hh.shape[1]
    blocks = _blocks(steps, catchments)
    with torch.no_grad():
        input_weights = _double_g(w_ih, hidden).t()
        hidden_weights = _double_g(w_hh, hidden).t().contiguous()
        bias = _double_g(b_ih + b_hh, hidden)
        gates = x.new_empty((steps if keep else blocks[0][1], catchments, 4 * hidden))
        h_all = x.new_empty((steps, catchments, hidden))
        c_all = x.new_empty((steps if keep else 1, catchments, hidden))
        h_steps = (h0, *h_all.unbind(0))
        c_steps = (c0, *c_all.unbind(0)) if keep else (c0, *[c_all[0]] * steps)
        for start, stop in blocks:
            block = gates[start:stop] if keep else gates[: stop - start]
            rows = x[start:stop].reshape(-1, features)
            torch.addmm(bias, rows, input_weights, out=block.view(-1, 4 * hidden))
            parts = (part.unbind(0) for part in block.chunk(4, dim=2))
            for t, (step_gates, i, f, s, o) in enumerate(zip(block.unbind(0), *parts, strict=True), start):
                h, c = h_steps[t + 1], c_steps[t + 1]
                step_gates.addmm_(h_steps[t], hidden_weights).sigmoid_()
                torch.mul(f, c_steps[t], out=c)
                c.addcmul_(i, s, value=2.0).sub_(i)  # f c + i g, with g = 2s - 1
                _tanh(c, out=h).mul_(o)
    c_last = c_all[-1].clone()
    return (h_all, c_last, gates, c_all) if keep else (h_all, c_last, None, None)


def _tanh(x: Tensor, out: Tensor) -> Tensor:
    """Compute tanh(x), as 2 sigmoid(2x) - 1 where that is faster: not where a call costs more than its work."""
    if x.numel() < _FEW:
        return torch.tanh(x, out=out)
    return torch.mul(x, 2.0, out=out).sigmoid_().mul_(2.0).sub_(1.0)


class _LstmSequence(Function):
    """`lstm_sequence` with its derivative written out (back-propagation through time)."""

    @staticmethod
    def forward(ctx: Any, *arguments: Tensor) -> tuple[Tensor, Tensor]:
        x, w_ih, w_hh, b_ih, b_hh, h0, c0 = arguments
        h_all, c_last, gates, c_all = _forward(x, w_ih, w_hh, b_ih, b_hh, h0, c0, keep=True)
        ctx.save_for_backward(x, w_ih, w_hh, h0, c0, h_all, gates, c_all)
        ctx.set_materialize_grads(False)
        return h_all, c_last

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_h_all: Tensor | None, grad_c_last: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, h0, c0, h_all, gates, c_all = ctx.saved_tensors
        needs_x, needs_w_ih, needs_w_hh, needs_b_ih, needs_b_hh, needs_h0, needs_c0 = ctx.needs_input_grad
        steps, catchments, features = x.shape
        hidden = w_hh.shape[1]
        w_ih, w_hh = w_ih.contiguous(), w_hh.contiguous()
        grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if needs_x else None
        grad_w_ih = torch.zeros_like(w_ih) if needs_w_ih else None
        grad_w_hh = torch.zeros_like(w_hh) if needs_w_hh else None
        grad_bias = x.new_zeros(4 * hidden) if needs_b_ih or needs_b_hh else None

        grad_outputs = (torch.zeros_like(h_all) if grad_h_all is None else grad_h_all).unbind(0)
        grad_h = grad_outputs[-1].clone()
        grad_c = torch.zeros_like(c0) if grad_c_last is None else grad_c_last.clone()
        blocks = _blocks(steps, catchments)
        d_gates_memory = x.new_empty((blocks[0][1], catchments, 4 * hidden))
        d_cell_memory = x.new_empty((blocks[0][1], catchments, hidden))
        for start, stop in reversed(blocks):
            d_gates = d_gates_memory[: stop - start]
            d_cell = d_cell_memory[: stop - start]
            previous_c, previous_h = _before(c0, c_all, start, stop), _before(h0, h_all, start, stop)
            _local_derivatives(gates[start:stop], c_all[start:stop], previous_c, d_gates, d_cell)
            steps_of_block = zip(
                d_gates.unbind(0),
                d_gates.view(stop - start, catchments, 4, hidden)[:, :, :3].unbind(0),
                d_gates[:, :, 3 * hidden :].unbind(0),
                d_cell.unbind(0),
                gates[start:stop, :, hidden : 2 * hidden].unbind(0),
                strict=True,
            )
            grad_c_of_gates = grad_c.unsqueeze(1)
            for t, (d_step, d_ifg, d_o, d_c, f) in reversed(list(enumerate(steps_of_block, start))):
                grad_c.addcmul_(grad_h, d_c)
                d_o.mul_(grad_h)
                d_ifg.mul_(grad_c_of_gates)
                grad_c.mul_(f)
                if t > 0:
                    torch.addmm(grad_outputs[t - 1], d_step, w_hh, out=grad_h)
                else:
                    torch.mm(d_step, w_hh, out=grad_h)
            rows = d_gates.view(-1, 4 * hidden)
            if grad_x is not None:
                torch.mm(rows, w_ih, out=grad_x[start:stop].view(-1, features))
            if grad_w_ih is not None:
                grad_w_ih.addmm_(rows.t(), x[start:stop].reshape(-1, features))
            if grad_w_hh is not None:
                grad_w_hh.addmm_(rows.t(), previous_h.reshape(-1, hidden))
            if grad_bias is not None:
                grad_bias.add_(rows.sum(0))
        return (
            grad_x,
            grad_w_ih,
            grad_w_hh,
            grad_bias if needs_b_ih else None,
            grad_bias if needs_b_hh else None,
            grad_h if needs_h0 else None,
            grad_c if needs_c0 else None,
        )


def _before(initial: Tensor, series: Tensor, start: int, stop: int) -> Tensor:
    """Return the states before the steps ``[start, stop)``: the series one step earlier."""
    if start > 0:
        return series[start - 1 : stop - 1]
    return torch.cat((initial.unsqueeze(0), series[: stop - 1]))


def _local_derivatives(gates: Tensor, c: Tensor, previous_c: Tensor, d_gates: Tensor, d_cell: Tensor) -> None:
    """Write each gate's derivative within its own step, before the chain through time multiplies it.

    ``d_gates`` receives dc/d(pre-activation) for i, f and g and dh/d(pre-activation) for o; ``d_cell`` receives
    dh/dc.
    """
    i, f, s, o = gates.chunk(4, dim=2)
    d_i, d_f, d_g, d_o = d_gates.chunk(4, dim=2)
    # d_cell holds g, then tanh(c), then its own value; _sigmoid_backward(y, s) is y s (1 - s)
    torch.mul(s, 2.0, out=d_cell).sub_(1.0)
    _sigmoid_backward(d_cell, i, grad_input=d_i)
    _sigmoid_backward(previous_c, f, grad_input=d_f)
    _sigmoid_backward(i, s, grad_input=d_g).mul_(4.0)  # g' = 1 - g^2 = 4 s (1 - s)
    _tanh(c, out=d_cell)
    _sigmoid_backward(d_cell, o, grad_input=d_o)
    torch.mul(d_cell, d_cell, out=d_cell).neg_().add_(1.0).mul_(o)
