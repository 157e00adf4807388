"""A coupling as a function: equal to stepping it, and its gradients those of finite differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coupled_pairs import DAY, EVAPORATION, HOUR, canopy_over_hbv, cycle, reservoir, weather
from hbv_bundles import configuration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmi_components.coupling import Coupling, Link, couple
from bmi_components.errors import (
    ConfigurationError,
    ForcingError,
    TimeError,
    UnknownNameError,
    ValueShapeError,
)
from bmi_components.fourdvarnet.forecast import Lorenz63
from bmi_components.hbv.component import DeltaHBV

RUNOFF = "hbv:runoff_rate"


def assert_gradients(
    loss: Callable[[dict[str, Tensor]], Tensor],
    start: Mapping[str, Any],
    step: float = 1e-5,
    rtol: float = 1e-5,
) -> None:
    """Each gradient is the central difference, for every element of every parameter."""
    values = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in start.items()
    }
    loss(values).backward()
    for name, value in values.items():
        assert value.grad is not None
        differences = torch.empty_like(value).reshape(-1)
        for element in range(value.numel()):
            ends = []
            for sign in (1.0, -1.0):
                moved = {key: other.detach().clone() for key, other in values.items()}
                flat = moved[name].view(-1)
                flat[element] += sign * step * max(1.0, abs(float(flat[element])))
                ends.append(loss(moved))
            width = 2.0 * step * max(1.0, abs(float(value.detach().reshape(-1)[element])))
            differences[element] = (ends[0] - ends[1]) / width
        assert float(differences.abs().max()) > 0.0
        torch.testing.assert_close(value.grad.reshape(-1), differences, rtol=rtol, atol=1e-9)


def assert_equal_to_steps(coupling: Coupling, until: float, record: list[str], rtol: float = 1e-10) -> None:
    simulated = coupling.simulate(until, record)
    stepped = coupling.run(until, record, progress=False)
    for where in record:
        expected = stepped[where.replace(":", ".")].values
        assert simulated[where].dtype == torch.float64
        np.testing.assert_allclose(simulated[where].numpy(), expected, rtol=rtol, atol=1e-12)


OUTPUTS = [
    "runoff_rate",
    "runoff_depth",
    "streamflow",
    "soil_moisture",
    "evapotranspiration",
    "water_storage",
]


@pytest.mark.parametrize("physics", ["1.0", "1.1p", "2.0"])
def test_hours_in_jax_and_days_in_torch_are_simulated_as_they_are_stepped(
    physics: str, tmp_path: Path
) -> None:
    pair = canopy_over_hbv(tmp_path, 40, physics)
    record = [f"canopy:{EVAPORATION}", *(f"hbv:{name}" for name in OUTPUTS)]
    assert_equal_to_steps(pair, 25 * DAY, record)
    # and from there on, with what the links remember
    assert_equal_to_steps(pair, 40 * DAY, record)


WEATHER = {
    "precipitation": (0.0, 8e-4),
    "temperature": (270.0, 295.0),
    "specific_humidity": (0.002, 0.01),
    "longwave": (200.0, 400.0),
    "shortwave": (0.0, 900.0),
    "pressure": (8.0e4, 1.0e5),
    "wind_x": (-4.0, 4.0),
    "wind_y": (-4.0, 4.0),
    "potential_evapotranspiration": (0.0, 0.3),
}
"""Ranges in the units of NextGen, and of an hour."""
NEXTGEN = "inputs: nextgen\nrunoff_units: m h-1\npotential_evapotranspiration: "


@pytest.mark.parametrize(
    ("physics", "extra"),
    [
        ("1.1p", "device: cpu:0\n"),
        ("1.1p", "potential_evapotranspiration: oudin\nstart_time: 2000-01-01\n"),
        ("2.0", f"{NEXTGEN}penman_monteith_daily\n"),
        ("2.0", f"{NEXTGEN}hargreaves\nstart_time: 2000-02-27\npartial_step: estimate\n"),
        ("2.0-hourly", f"{NEXTGEN}penman_monteith\n"),
        ("2.1-hourly", ""),
    ],
)
def test_every_way_to_drive_hbv_is_simulated_as_it_is_stepped(
    physics: str, extra: str, tmp_path: Path
) -> None:
    hbv = DeltaHBV()
    hbv.initialize(str(configuration(tmp_path, physics, (40.0, 900.0), f"dtype: float64\n{extra}")))
    rng = np.random.default_rng(2)
    feeds = {}
    for name in hbv.get_input_var_names():
        known = hbv.variables[name]
        values = rng.uniform(*WEATHER[known.symbol], (80, 2))
        if known.symbol == "temperature":
            values = values - (273.15 if known.units == "degC" else 0.0)
        feeds[f"hbv:{name}"] = values * (1e3 if known.units == "mm d-1" else 1.0)
    coupling = couple({"hbv": hbv}, [], feeds)  # type: ignore[arg-type]
    outputs = [f"hbv:{name}" for name in hbv.get_output_var_names()]
    step = hbv.get_time_step()
    simulated = coupling.simulate(80 * step, outputs)
    coupling.advance("hbv")  # a step away from the start
    for where, values in coupling.simulate(80 * step, outputs).items():
        torch.testing.assert_close(values, simulated[where][1:], rtol=1e-9, atol=1e-12)
    stepped = coupling.run(80 * step, outputs, progress=False)
    for name in hbv.get_output_var_names():
        expected = stepped[f"hbv.{hbv.variables[name].symbol}"].values
        np.testing.assert_allclose(simulated[f"hbv:{name}"][1:].numpy(), expected, rtol=1e-8, atol=1e-10)


def test_single_precision_agrees_to_its_rounding(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 60, dtype="float32")
    assert_equal_to_steps(pair, 60 * DAY, [f"hbv:{name}" for name in OUTPUTS], rtol=2e-5)


def test_gradients_reach_the_parameters_of_both(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 30)
    observed = torch.linspace(0.5, 3.0, 60, dtype=torch.float64).reshape(30, 2)

    def loss(parameters: Mapping[str, Tensor]) -> Tensor:
        return ((pair.simulate(30 * DAY, [RUNOFF], parameters)[RUNOFF] - observed) ** 2).mean()

    start = {
        "canopy:alpha": [1.1],
        "hbv:parFC": [180.0, 240.0],
        "hbv:parBETA": [2.5, 1.7],
        "hbv:aridity": [0.4, 0.9],
    }
    assert_gradients(loss, start)


def test_gradients_reach_the_weights_of_a_network(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 12)
    network = pair.components["hbv"].differentiable()  # type: ignore[attr-defined]
    biases = [name for name in network.parameters if name.endswith("linear_out.bias")]
    model = pair.components["hbv"]._run.stepper.shared.whole  # type: ignore[attr-defined]
    start = {f"hbv:{name}": dict(model.named_parameters())[name].tolist() for name in biases}
    assert_gradients(lambda p: pair.simulate(12 * DAY, [RUNOFF], p)[RUNOFF].square().mean(), start, rtol=1e-4)


def test_gradients_reach_what_is_fed(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 4)
    hourly, _ = weather(4, seed=3)

    def loss(feeds: Mapping[str, Tensor]) -> Tensor:
        return pair.simulate(4 * DAY, ["hbv:soil_moisture"], feeds=feeds)["hbv:soil_moisture"].sum()

    assert_gradients(loss, {"canopy:net_radiation": np.abs(hourly["net_radiation"]) + 50.0})


def test_a_parameter_that_is_given_is_one_that_is_set(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 30)
    given = {"hbv:parFC": np.array([111.0, 333.0]), "hbv:parBETA": 2.0, "hbv:aridity": np.array([0.1, 1.3])}
    simulated = pair.simulate(30 * DAY, [RUNOFF], {**given, "canopy:alpha": 0.8})[RUNOFF]
    for where, value in {**given, "canopy:alpha": np.array([0.8])}.items():
        name, _, key = where.partition(":")
        pair.components[name].set_value(key, np.broadcast_to(value, 2 if name == "hbv" else 1).astype(float))
    stepped = pair.run(30 * DAY, [RUNOFF], progress=False)["hbv.runoff_rate"].values
    np.testing.assert_allclose(simulated.numpy(), stepped, rtol=1e-10)


@pytest.mark.parametrize("how", ["mean", "sum", "latest"])
@pytest.mark.parametrize("mapped", [False, True])
def test_components_that_feed_each_other(how: str, mapped: bool, tmp_path: Path) -> None:
    record = ["upper:runoff_rate", "upper:runoff_depth", "lower:runoff_rate"]
    assert_equal_to_steps(cycle(tmp_path, how, mapped), 12 * DAY, record)
    pair = cycle(tmp_path, how, mapped)
    pair.run(3 * DAY, progress=False)

    def loss(parameters: Mapping[str, Tensor]) -> Tensor:
        return pair.simulate(8 * DAY, ["lower:runoff_rate"], parameters)["lower:runoff_rate"].square().sum()

    assert_gradients(loss, {"upper:k": [3.0, 5.0], "lower:k": [9.0, 30.0]})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from([3.0, 5.0, 6.0, 8.0, 24.0, 36.0]), min_size=2, max_size=3),
    hows=st.lists(st.sampled_from(["mean", "sum", "latest"]), min_size=3, max_size=3),
    feedback=st.booleans(),
    first=st.floats(0.0, 80.0),
    second=st.floats(0.0, 80.0),
)
def test_any_steps_and_links(
    steps: list[float], hows: list[Any], feedback: bool, first: float, second: float, tmp_path: Path
) -> None:
    names = ["a", "b", "c"][: len(steps)]
    pair = {n: reservoir(tmp_path, "torch", s * HOUR, 3.0) for n, s in zip(names, steps, strict=True)}
    ends = [*pairwise(names)] + ([(names[-1], names[0])] if feedback else [])
    links = [Link(f"{a}:runoff_rate", f"{b}:precipitation", h) for (a, b), h in zip(ends, hows, strict=False)]
    feeds = {} if feedback else {"a:precipitation": lambda time: [1.0 + time / DAY]}
    coupling = couple(pair, links, feeds)  # type: ignore[arg-type]
    record = [f"{name}:runoff_rate" for name in names]
    # Where nothing is stepped, both say nothing.
    for until in (first * HOUR, (first + second) * HOUR):
        simulated = coupling.simulate(until, record)
        stepped = coupling.run(until, record, progress=False)
        for where in record:
            expected = stepped[where.replace(":", ".")].values
            assert simulated[where].numel() == expected.size
            np.testing.assert_allclose(simulated[where].numpy().reshape(-1), expected.reshape(-1), rtol=1e-12)


def test_a_day_is_shared_out_over_its_hours(tmp_path: Path) -> None:
    pair = {"day": reservoir(tmp_path, "torch", DAY, 4.0), "hours": reservoir(tmp_path, "jax", HOUR, 2.0)}
    rain = np.random.default_rng(0).gamma(0.5, 8.0, (2, 1))
    coupling = couple(pair, ["day:runoff_rate -> hours:precipitation"], {"day:precipitation": rain})
    assert_equal_to_steps(coupling, 2 * DAY, ["hours:runoff_rate"])


def test_lorenz_is_simulated_as_it_is_stepped_and_differentiated(tmp_path: Path) -> None:
    (tmp_path / "lorenz.yaml").write_text("state: [[1.0, 2.0, 20.0], [5.0, 5.0, 25.0]]\n")

    def lorenz() -> Coupling:
        component = Lorenz63()
        component.initialize(str(tmp_path / "lorenz.yaml"))
        analyses = np.full((50, 2), np.nan)
        analyses[20, 1] = 3.0
        feeds = {f"it:analysed_{name}": analyses for name in ("x", "y", "z")}
        return couple({"it": component}, [], feeds)  # type: ignore[arg-type]

    assert_equal_to_steps(lorenz(), 0.5, ["it:x", "it:y", "it:z"], rtol=1e-9)
    start = {"it:sigma": [10.0, 9.0], "it:rho": [28.0, 27.0], "it:beta": [2.7, 2.5]}
    assert_gradients(lambda p: lorenz().simulate(0.5, ["it:z"], p)["it:z"].square().mean(), start)


def test_nothing_is_stepped(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 6)
    first = pair.simulate(6 * DAY, [RUNOFF])[RUNOFF]
    assert pair.time == 0.0
    torch.testing.assert_close(pair.simulate(6 * DAY, [RUNOFF])[RUNOFF], first, rtol=0.0, atol=0.0)


def test_what_cannot_be_simulated_is_refused(tmp_path: Path) -> None:
    pair = canopy_over_hbv(tmp_path, 6)

    def refused(error: type[Exception], message: str, **changes: Any) -> None:
        with pytest.raises(error, match=message):
            pair.simulate(6 * DAY, [RUNOFF], **changes)

    refused(UnknownNameError, "no parameter 'parX'", parameters={"hbv:parX": 1.0})
    refused(ConfigurationError, "component:parameter", parameters={"parFC": 1.0})
    refused(ConfigurationError, "between 50 and 1000", parameters={"hbv:parFC": 5.0})
    refused(ValueShapeError, r"\(2,\) or one number", parameters={"hbv:parFC": [1.0, 2.0, 3.0]})
    refused(ValueShapeError, r"\(6, 2\) is needed", feeds={"hbv:precipitation": np.ones((6, 3))})
    refused(
        ForcingError,
        "element 0, 3 steps on",
        feeds={"hbv:precipitation": np.array([1, 2, 3, np.nan, 1, 1])[:, None] * [1, 1]},
    )
    refused(ConfigurationError, "fed more than once", feeds={f"hbv:{EVAPORATION}": np.ones((6, 2))})
    with pytest.raises(TimeError, match="ends after"):
        pair.simulate(9 * DAY, [RUNOFF])
    pair.components["hbv"].set_value(pair.find(f"hbv:{EVAPORATION}", "input")[1], np.ones(2))
    for name in ("precipitation", "temperature"):
        pair.components["hbv"].set_value(pair.find(f"hbv:{name}", "input")[1], np.ones(2))
    pair.components["hbv"].update_until(HOUR)
    refused(TimeError, "3600 s into a step")
