"""The LSTM over a sequence is PyTorch's LSTM, forward and backward, and the cell repeated."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.errors import ValueShapeError
from bmi_components.lstm import cells
from bmi_components.lstm.cells import LstmState, LstmWeights, lstm_cell, lstm_sequence

NAMES = ("x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0")


def arguments(time, batch, features, hidden, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [
        (time, batch, features),
        (4 * hidden, features),
        (4 * hidden, hidden),
        (4 * hidden,),
        (4 * hidden,),
        (batch, hidden),
        (batch, hidden),
    ]
    tensors = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    for tensor in tensors[1:5]:
        tensor *= 0.4
    return [tensor.requires_grad_() for tensor in tensors]


def torch_lstm(x, w_ih, w_hh, b_ih, b_hh, h0, c0):
    module = torch.nn.LSTM(x.shape[2], h0.shape[1], dtype=x.dtype)
    weights = {"weight_ih_l0": w_ih, "weight_hh_l0": w_hh, "bias_ih_l0": b_ih, "bias_hh_l0": b_hh}
    h_all, (h, c) = torch.func.functional_call(module, weights, (x, (h0[None], c0[None])))
    return h_all, LstmState(h[0], c[0])


def loss_of(result, seed=1):
    h_all, (h, c) = result
    generator = torch.Generator().manual_seed(seed)
    return sum(
        (tensor * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)).sum()
        for tensor in (h_all, h, c)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("rows_per_block", [1, 7, 2048])
@pytest.mark.parametrize("few", [0, 2048])
def test_forward_and_all_gradients_equal_those_of_torch(dtype, tolerance, rows_per_block, few, monkeypatch):
    monkeypatch.setattr(cells, "_ROWS_PER_BLOCK", rows_per_block)
    monkeypatch.setattr(cells, "_FEW", few)
    inputs = arguments(23, 3, 5, 6, dtype)
    ours, theirs = lstm_sequence(*inputs), torch_lstm(*inputs)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=min(tolerance, 1e-6))
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=min(tolerance, 1e-6))
    ours_gradients = torch.autograd.grad(loss_of(ours), inputs)
    theirs_gradients = torch.autograd.grad(loss_of(theirs), inputs)
    for name, ours_one, theirs_one in zip(NAMES, ours_gradients, theirs_gradients, strict=True):
        difference = (ours_one - theirs_one).abs().max() / theirs_one.abs().max()
        assert difference <= tolerance, name


@settings(max_examples=20, deadline=None)
@given(time=st.integers(1, 9), batch=st.integers(0, 4), features=st.integers(1, 4), hidden=st.integers(1, 4))
def test_sequence_is_the_cell_repeated(time, batch, features, hidden):
    x, *weights, h0, c0 = arguments(time, batch, features, hidden)
    h_all, state = lstm_sequence(x, *weights, h0, c0)
    stepped = LstmState(h0, c0)
    for t in range(time):
        stepped = lstm_cell(x[t], stepped, LstmWeights(*weights))
        torch.testing.assert_close(h_all[t], stepped.h, rtol=0, atol=1e-13)
    torch.testing.assert_close(state, stepped, rtol=0, atol=1e-13)


def test_derivative_is_that_of_finite_differences():
    assert torch.autograd.gradcheck(
        lambda *inputs: (lambda result: (result[0], *result[1]))(lstm_sequence(*inputs)),
        arguments(4, 2, 3, 2),
    )


@pytest.mark.parametrize("wanted", range(7))
def test_gradient_of_one_argument_alone(wanted):
    inputs = arguments(5, 2, 3, 4)
    everything = torch.autograd.grad(loss_of(lstm_sequence(*inputs)), inputs)
    alone = [tensor.detach().requires_grad_(i == wanted) for i, tensor in enumerate(inputs)]
    (gradient,) = torch.autograd.grad(loss_of(lstm_sequence(*alone)), [alone[wanted]])
    torch.testing.assert_close(gradient, everything[wanted], rtol=0, atol=1e-14)


def test_gradient_of_the_last_state_alone():
    inputs = arguments(5, 2, 3, 4)
    for pick in (lambda result: result[1].c.sum(), lambda result: result[1].h.square().sum()):
        ours = torch.autograd.grad(pick(lstm_sequence(*inputs)), inputs)
        theirs = torch.autograd.grad(pick(torch_lstm(*inputs)), inputs)
        for ours_one, theirs_one in zip(ours, theirs, strict=True):
            torch.testing.assert_close(ours_one, theirs_one, rtol=0, atol=1e-13)


def test_backward_twice_gives_the_same_gradient():
    inputs = arguments(6, 2, 3, 4)
    loss = loss_of(lstm_sequence(*inputs))
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_without_gradient_the_result_is_the_same():
    inputs = arguments(40, 3, 5, 6, torch.float32)
    with torch.no_grad():
        h_all, state = lstm_sequence(*inputs)
    assert not h_all.requires_grad
    expected, last = lstm_sequence(*inputs)
    assert torch.equal(h_all, expected)
    assert torch.equal(state.c, last.c)


def test_views_and_repeated_attributes_are_as_good_as_copies():
    x, *rest = arguments(7, 3, 4, 5)
    transposed = x.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    torch.testing.assert_close(lstm_sequence(transposed, *rest)[0], lstm_sequence(x, *rest)[0])
    expanded = x.detach()[:1].expand(7, 3, 4)
    torch.testing.assert_close(
        lstm_sequence(expanded, *rest)[0], lstm_sequence(expanded.contiguous(), *rest)[0]
    )


def test_the_halves_of_a_sequence_join():
    x, *weights, h0, c0 = arguments(12, 2, 3, 4)
    whole, end = lstm_sequence(x, *weights, h0, c0)
    first, middle = lstm_sequence(x[:5], *weights, h0, c0)
    second, last = lstm_sequence(x[5:], *weights, *middle)
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(last, end, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("which", "shape", "message"),
    [
        (0, (0, 2, 3), "at least one step"),
        (0, (2, 3), "at least one step"),
        (1, (16, 4), "w_ih"),
        (2, (12, 4), "w_hh"),
        (3, (15,), "b_ih"),
        (5, (3, 4), "h0"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(which, shape, message):
    inputs = arguments(5, 2, 3, 4)
    inputs[which] = torch.zeros(shape, dtype=torch.float64)
    with pytest.raises(ValueShapeError, match=message):
        lstm_sequence(*inputs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_as_on_the_cpu():
    inputs = arguments(23, 3, 5, 6)
    on_gpu = [tensor.detach().cuda().requires_grad_() for tensor in inputs]
    ours = torch.autograd.grad(loss_of(lstm_sequence(*inputs)), inputs)
    result = lstm_sequence(*on_gpu)
    result = (result[0].cpu(), LstmState(*(tensor.cpu() for tensor in result[1])))
    theirs = torch.autograd.grad(loss_of(result), on_gpu)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=0, atol=1e-12)
