"""The parameter networks give what the published ones give, stepped as well as over a series."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bmi_components.hbv.networks import (
    LstmMlpNetwork,
    LstmNetwork,
    Mlp,
    MultiTimescaleNetwork,
    TimescaleBranch,
)
from bmi_components.importers.deltamg import _our_name

REFERENCE = Path(__file__).parent / "multi_timescale_reference.npz"
"""Made by running dmg 1.5.0 as a black box with random weights (torch 2.13); numbers only."""


def tensors(path):
    with np.load(path) as arrays:
        values = {name: torch.from_numpy(arrays[name]) for name in arrays}
    weights = {name.removeprefix("sd_"): values.pop(name) for name in list(values) if name.startswith("sd_")}
    return weights, values


def small_multi_timescale(generator=None):
    return MultiTimescaleNetwork(
        TimescaleBranch(7, 5, 3, 4, 8, 13, generator=generator),
        TimescaleBranch(7, 6, 3, 4, 9, 16, generator=generator),
        Mlp(3, 10, 3, layers=2, generator=generator),
    )


@pytest.fixture
def golden(shared_data):
    return lambda name: tensors(shared_data / "golden" / "hbv" / f"{name}.npz")


@torch.no_grad()
def test_network_of_1x_equals_the_golden_one(golden):
    weights, values = golden("nn_lstm_f32")
    network = LstmNetwork(38, 24, 58).eval()
    network.load_state_dict(weights)
    raw, _ = network(values["x"])
    torch.testing.assert_close(raw, values["y_raw"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_network_of_20_equals_the_golden_one(golden):
    weights, values = golden("nn_lstmmlp_f32")
    network = LstmMlpNetwork(31, 16, 12, 28, 32, 54).eval()
    network.load_state_dict(weights)
    dynamic, static, _ = network(values["x"], values["z"])
    torch.testing.assert_close(dynamic, values["dy01"], rtol=0, atol=1e-6)
    torch.testing.assert_close(static, values["static01"], rtol=0, atol=1e-6)


@torch.no_grad()
def test_multi_timescale_network_equals_the_reference():
    weights, values = tensors(REFERENCE)
    network = small_multi_timescale().eval()
    network.load_state_dict({_our_name(name): tensor for name, tensor in weights.items()})
    inputs = ("daily", "daily_attributes", "hourly", "hourly_attributes", "pair_attributes")
    result = network(*(values[name] for name in inputs))._asdict()
    for name in ("daily_dynamic", "daily_static", "hourly_dynamic", "hourly_static", "routing"):
        torch.testing.assert_close(result[name], values[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    [LstmNetwork(5, 6, 7), LstmMlpNetwork(5, 6, 7, 3, 8, 9), TimescaleBranch(5, 6, 7, 3, 8, 9)],
    ids=lambda network: type(network).__name__,
)
@torch.no_grad()
def test_stepping_equals_the_series(network):
    network.eval()
    x = torch.randn(11, 4, 5, generator=torch.Generator().manual_seed(0))
    result = network(x, x[0, :, :3]) if isinstance(network, LstmMlpNetwork) else network(x)
    series, last = result[0], result[-1]
    state = network.initial_state(4)
    for t in range(11):
        out, state = network.step(x[t], state)
        torch.testing.assert_close(out, series[t], rtol=0, atol=1e-6)
    torch.testing.assert_close(state, last, rtol=0, atol=1e-6)


@torch.no_grad()
def test_hourly_steps_follow_the_daily_spin_up():
    weights, values = tensors(REFERENCE)
    network = small_multi_timescale().eval()
    network.load_state_dict({_our_name(name): tensor for name, tensor in weights.items()})
    state = network.initial_state(3)
    for day in values["daily"]:
        _, state = network.daily.step(day, state)
    state = network.hand_over(state)
    for hour, expected in zip(values["hourly"], values["hourly_dynamic"], strict=True):
        out, state = network.step(hour, state)
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_untrained_hand_over_is_an_empty_memory():
    network = small_multi_timescale()
    network.reset_parameters(torch.Generator().manual_seed(3))
    _, state = network.daily(torch.ones(4, 2, 7))
    h, c = network.hand_over(state)
    assert h.shape == (2, 6)
    assert not h.any()
    assert not c.any()


def test_weights_are_dropped_in_training_only():
    network = LstmNetwork(3, 8, 2, dropout=0.5)
    x = torch.ones(5, 2, 3)
    network.train()
    assert not torch.equal(network(x)[0], network(x)[0])
    masked = network.lstm.weights()
    kept = masked.w_hh != 0
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(masked.w_hh[kept], 2.0 * network.lstm.w_hh[kept])
    network.eval()
    assert torch.equal(network(x)[0], network(x)[0])
    assert network.lstm.weights().w_hh is network.lstm.w_hh


def make(seed):
    return LstmMlpNetwork(5, 6, 7, 3, 8, 9, generator=torch.Generator().manual_seed(seed))


def test_initial_weights_follow_the_seed_and_their_range():
    first, again, other = make(1), make(1), make(2)
    for name, weight in first.named_parameters():
        assert torch.equal(weight, again.get_parameter(name))
        assert not torch.equal(weight, other.get_parameter(name))
        assert torch.isfinite(weight).all()
    assert first.lstminv.lstm.w_ih.abs().max() <= 6**-0.5
    assert first.ann.i2h.weight.abs().max() <= 3**-0.5


def test_making_a_network_leaves_the_global_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    make(1)
    assert torch.equal(torch.rand(3), expected)


def test_forget_bias_opens_the_forget_gate_only():
    network = LstmNetwork(3, 4, 2)
    network.reset_parameters(torch.Generator().manual_seed(0))
    plain = network.lstm.b_ih.detach().clone()
    network.reset_parameters(torch.Generator().manual_seed(0), forget_bias=3.0)
    difference = network.lstm.b_ih.detach() - plain
    torch.testing.assert_close(difference, torch.tensor([0.0] * 4 + [3.0] * 4 + [0.0] * 8))


def test_every_weight_of_a_network_gets_a_gradient():
    network = small_multi_timescale(torch.Generator().manual_seed(0))
    network.reset_parameters(torch.Generator().manual_seed(0))
    result = network(
        torch.randn(6, 2, 7), torch.randn(2, 4), torch.randn(5, 2, 7), torch.randn(2, 4), torch.randn(3, 3)
    )
    sum(tensor.square().sum() for tensor in result[:5]).backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
