"""The StreamflowLSTM component is its networks, stepped: for ever, over windows, at two timescales, or together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from streamflow_bundles import ATTRIBUTES, configuration, make_bundle

from bmi_components import StreamflowLSTM
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.lstm.networks import make_network
from bmi_components.variables import CATALOGUE

Array = NDArray[np.float64]
RATE = CATALOGUE["runoff_rate"].name
DEPTH = CATALOGUE["runoff_depth"].name
STREAMFLOW = CATALOGUE["streamflow"].name
SPREAD = CATALOGUE["runoff_spread"].name
DAY = CATALOGUE["daily_runoff_rate"].name
OBSERVED = CATALOGUE["observed_runoff_rate"].name
PER_HOUR = 24.0  # from mm h-1 to mm d-1
SINGLE = ("lstm", "layered", "gru", "gmm", "cmal", "umal", "feedback", "mass_conserving", "hybrid")
EXACT = "negative_runoff: keep\ndtype: float64\n"


def weather(steps: int, catchments: int, architecture: str = "lstm", seed: int = 3) -> Array:
    """Inputs as the component is fed them, ``[time, input, catchment]``."""
    random = np.random.default_rng(seed)
    rain = random.gamma(0.3, 3.0, (steps, catchments))
    temperature = random.normal(8.0, 9.0, (steps, catchments))
    if architecture == "hybrid":
        return np.stack([rain, temperature, random.uniform(0.0, 5.0, (steps, catchments))], axis=1)
    return np.stack([rain, temperature], axis=1)


def opened(path: Path) -> StreamflowLSTM:
    component = StreamflowLSTM()
    component.initialize(str(path))
    return component


def stepped(component: StreamflowLSTM, rows: Array, *names: str, observed: Array | None = None) -> Array:
    """Outputs after each update, ``[time, output, catchment]``."""
    outputs = []
    inputs = [name for name in component.get_input_var_names() if name != OBSERVED]
    for t, row in enumerate(rows):
        for name, values in zip(inputs, row, strict=True):
            component.set_value(name, values)
        if OBSERVED in component.get_input_var_names():
            component.set_value(OBSERVED, np.full(rows.shape[2], np.nan) if observed is None else observed[t])
        component.update()
        outputs.append([component.get_value_ptr(name).copy() for name in names])
    return np.array(outputs)


def simulated(architecture: str, rows: Array, feedback: Array | None = None) -> Array:
    """The pure network's runoff from the empty state, mm d-1, ``[time, catchment]``."""
    bundle = make_bundle(architecture)
    network: Any = make_network(bundle, torch.float64)
    forcing = rows.copy()
    per_day = 1.0
    if architecture != "hybrid":
        forcing[:, 1] += 273.15
        per_day = PER_HOUR
    tensor = torch.from_numpy(forcing.transpose(0, 2, 1))
    attributes = torch.tensor(
        [[200.0 + 100 * i, 5.0 + 9 * i] for i in range(rows.shape[2])], dtype=torch.float64
    )
    observed = None if feedback is None else torch.from_numpy(feedback)
    return np.asarray(network.simulate(tensor, attributes, observed).numpy() * per_day)


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("catchments", [1, 3])
@pytest.mark.parametrize("architecture", SINGLE)
def test_stepping_is_the_network_over_the_series(
    architecture: str, catchments: int, device: str, tmp_path: Path
) -> None:
    rows = weather(30, catchments, architecture)
    path = configuration(tmp_path, [architecture], catchments, f"{EXACT}device: {device}\n")
    runoff = stepped(opened(path), rows, RATE)[:, 0]
    np.testing.assert_allclose(runoff, simulated(architecture, rows), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("architecture", SINGLE)
def test_a_window_starts_from_the_empty_state_each_step(architecture: str, tmp_path: Path) -> None:
    rows, length = weather(20, 2, architecture), 7
    path = configuration(tmp_path, [architecture], 2, f"{EXACT}state_mode: window\n")
    runoff = stepped(opened(path), rows, RATE)[:, 0]
    for t in range(20):
        window = rows[max(0, t + 1 - length) : t + 1]
        np.testing.assert_allclose(runoff[t], simulated(architecture, window)[-1], rtol=1e-10, atol=1e-10)


def test_observed_runoff_is_fed_back_as_old_as_the_network_wants_it(tmp_path: Path) -> None:
    rows = weather(25, 2)
    random = np.random.default_rng(1)
    truth = random.uniform(0.0, 40.0, (25, 2))
    truth[random.random((25, 2)) < 0.4] = np.nan
    given = np.concatenate([np.full((1, 2), np.nan), truth[:-1]])  # at each step that of the step before
    wanted = np.concatenate([np.full((2, 2), np.nan), truth[:-2]])  # the network looks two steps back
    runoff = stepped(opened(configuration(tmp_path, ["feedback"], 2, EXACT)), rows, RATE, observed=given)[
        :, 0
    ]
    np.testing.assert_allclose(runoff, simulated("feedback", rows, wanted / PER_HOUR), rtol=1e-10)


@pytest.mark.parametrize("carry", [False, True])
def test_hours_start_from_the_days_before_them(carry: bool, tmp_path: Path) -> None:
    days, catchments = 9, 2
    rows = weather(24 * days, catchments)
    mode = "carry" if carry else "window"
    path = configuration(tmp_path, ["multi_timescale"], catchments, f"{EXACT}state_mode: {mode}\n")
    found = stepped(opened(path), rows, RATE, DAY)

    network: Any = make_network(make_bundle("multi_timescale"), torch.float64)
    forcing = rows.copy()
    forcing[:, 1] += 273.15
    hours = torch.from_numpy(forcing.transpose(0, 2, 1))
    means = hours.reshape(days, 24, catchments, 2).mean(1)
    attributes = torch.tensor([[200.0, 5.0], [300.0, 14.0]], dtype=torch.float64)
    slow_window, fast_days = 5, 2
    for day in range(days):
        first = 0 if carry else max(0, day + 1 - slow_window)
        begin = 24 * max(first, day + 1 - fast_days)
        slow, fast = network.simulate(means[first : day + 1], hours[begin : 24 * (day + 1)], attributes)
        hourly = fast[-24:].numpy() * PER_HOUR
        np.testing.assert_allclose(found[24 * day : 24 * (day + 1), 0], hourly, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[24 * day + 23, 1], slow[-1].numpy() * PER_HOUR, rtol=1e-9)


def test_an_ensemble_is_the_mean_and_the_spread_of_its_models(tmp_path: Path) -> None:
    rows = weather(15, 3)
    architectures = ["lstm", "layered", "gru"]
    together = stepped(
        opened(configuration(tmp_path, architectures, 3, "dtype: float64\n")), rows, RATE, SPREAD
    )
    alone = []
    for seed, architecture in enumerate(architectures):
        folder = tmp_path / architecture
        folder.mkdir()
        make_bundle(architecture, seed).save(folder / f"{architecture}_0")
        alone.append(
            stepped(opened(configuration(folder, [architecture], 3, "dtype: float64\n")), rows, RATE)[:, 0]
        )
    np.testing.assert_allclose(together[:, 0], np.mean(alone, axis=0), rtol=1e-12)
    np.testing.assert_allclose(together[:, 1], np.std(alone, axis=0), rtol=1e-9, atol=1e-12)


def test_an_ensemble_of_mixed_kinds_adds_their_own_spread_to_that_between_them(tmp_path: Path) -> None:
    rows = weather(10, 2)
    found = stepped(opened(configuration(tmp_path, ["lstm", "gmm"], 2, EXACT)), rows, RATE, SPREAD)
    point = stepped(opened(configuration(tmp_path, ["lstm"], 2, EXACT)), rows, RATE)[:, 0]
    folder = tmp_path / "alone"
    folder.mkdir()
    make_bundle("gmm", 1).save(folder / "gmm_0")
    own = stepped(opened(configuration(folder, ["gmm"], 2, EXACT)), rows, RATE, SPREAD)
    np.testing.assert_allclose(found[:, 0], (point + own[:, 0]) / 2, rtol=1e-9)
    between = ((point - own[:, 0]) / 2) ** 2
    np.testing.assert_allclose(found[:, 1], np.sqrt(own[:, 1] ** 2 / 2 + between), rtol=1e-9)


def test_depth_rate_and_streamflow_are_the_same_water(tmp_path: Path) -> None:
    found = stepped(opened(configuration(tmp_path, ["lstm"], 2)), weather(20, 2), DEPTH, RATE, STREAMFLOW)
    np.testing.assert_allclose(found[:, 0], found[:, 1] / 24_000.0, rtol=1e-12)
    np.testing.assert_allclose(found[:, 2], found[:, 1] * np.array([10.0, 11.0]) / 86.4, rtol=1e-12)
    assert (found >= 0.0).all()


def test_one_catchment_among_many_is_that_catchment_alone(tmp_path: Path) -> None:
    rows = weather(12, 4)
    many = stepped(opened(configuration(tmp_path, ["lstm"], 4)), rows, RATE)
    alone = stepped(opened(configuration(tmp_path, ["lstm"], 1)), rows[:, :, :1], RATE)
    np.testing.assert_allclose(many[:, :, :1], alone, rtol=2e-5, atol=1e-5)


def test_an_attribute_set_by_name_is_an_attribute_configured(tmp_path: Path) -> None:
    rows = weather(10, 2)
    changed = opened(configuration(tmp_path, ["lstm", "gru"], 2, "dtype: float64\n"))
    for quantity in ATTRIBUTES:
        assert changed.get_var_units(quantity.name) == quantity.units
    changed.set_value("elev_mean", np.array([900.0, 50.0]))
    np.testing.assert_array_equal(changed.get_value("elev_mean", np.empty(2)), [900.0, 50.0])
    path = configuration(tmp_path, ["lstm", "gru"], 2, "dtype: float64\n")
    path.write_text(
        path.read_text()
        .replace("elev_mean: 200", "elev_mean: 900")
        .replace("elev_mean: 300", "elev_mean: 50")
    )
    configured = stepped(opened(path), rows, RATE)
    np.testing.assert_array_equal(stepped(changed, rows, RATE), configured)


@pytest.mark.parametrize(
    ("architecture", "mode"),
    [("lstm", "carry"), ("layered", "window"), ("multi_timescale", "carry"), ("multi_timescale", "window")],
)
def test_a_spin_up_is_the_same_weather_lived_through(architecture: str, mode: str, tmp_path: Path) -> None:
    hours = 24 * 6 + 5  # a record that does not divide into days loses its oldest hours where days matter
    before, after = weather(hours, 2, seed=1), weather(30, 2, seed=2)
    moments = np.datetime64("2019-12-31T23:00") - np.arange(hours)[::-1].astype("timedelta64[h]")
    for i in range(2):
        lines = [f"{m},{p!r},{t!r}" for m, p, t in zip(moments, *before[:, :, i].T.tolist(), strict=True)]
        (tmp_path / f"cat-{i}.csv").write_text("time,precipitation,temperature\n" + "\n".join(lines) + "\n")
    record = f"""spin_up:
  kind: csv
  path: {tmp_path}/{{catchment}}.csv
  catchments: [cat-0, cat-1]
  units: {{precipitation: mm h-1, temperature: degC}}
"""
    start = f"state_mode: {mode}\nstart_time: 2020-01-01\ndtype: float64\n"
    spun_up = opened(configuration(tmp_path, [architecture], 2, start + record))
    lived = opened(configuration(tmp_path, [architecture], 2, start))
    stepped(lived, before[5:] if architecture == "multi_timescale" else before, RATE)
    np.testing.assert_array_equal(stepped(spun_up, after, RATE), stepped(lived, after, RATE))


def test_hourly_calls_of_a_daily_model_add_up_to_its_day(tmp_path: Path) -> None:
    path = configuration(tmp_path, ["lstm"], 1, "partial_step: estimate\n", daily=True)
    rows = np.concatenate([weather(4, 1), np.full((4, 1, 1), 2.0)], axis=1)
    days = stepped(opened(path), rows, DEPTH)[:, 0, 0]
    component = opened(path)
    total = 0.0
    for day in range(4):
        for name, values in zip(component.get_input_var_names(), rows[day], strict=True):
            component.set_value(name, values)
        for hour in range(24):
            component.update_until(86_400.0 * day + 3_600.0 * (hour + 1))
            total += component.get_value_ptr(DEPTH)[0]
    assert total == pytest.approx(days.sum(), rel=1e-5)


def test_two_products_of_one_quantity_are_two_inputs(tmp_path: Path) -> None:
    bundle = make_bundle("lstm", daily=True)
    quantities = dict.fromkeys(bundle.hyperparameters["quantities"], "precipitation")
    quantities["tmean(C)"] = "temperature"
    changed = {**bundle.hyperparameters, "quantities": quantities}
    replace(bundle, hyperparameters=changed).save(tmp_path / "lstm_0_daily")
    component = opened(configuration(tmp_path, ["lstm"], daily=True))
    assert component.get_input_var_names() == ("prcp(mm/day)", CATALOGUE["temperature"].name, "pet(mm/day)")


def test_ten_thousand_components_share_their_weights(tmp_path: Path) -> None:
    path = configuration(tmp_path, ["lstm"])
    first, second = opened(path), opened(path)
    a: Any = first._run.stepper.members[0].shared  # type: ignore[union-attr]
    b: Any = second._run.stepper.members[0].shared  # type: ignore[union-attr]
    assert a is b


@pytest.mark.parametrize(
    ("architectures", "old", "new", "message"),
    [
        (["lstm"], "slope_mean: 5", "aspect: 5", r"cat-0.*'slope_mean' \[m km-1\] is missing"),
        (["lstm"], "area_km2: 10.0, ", "", "needs the area"),
        (["lstm"], "models: [", "models: [/nowhere/to/be/found, ", "/nowhere/to/be/found"),
        (["lstm", "hybrid"], "", "", "models of one time step"),
        (["multi_timescale"], "models", "start_time: 2020-01-01 06:00\nmodels", "00:00"),
    ],
)
def test_what_does_not_fit_is_refused(
    architectures: list[str], old: str, new: str, message: str, tmp_path: Path
) -> None:
    path = configuration(tmp_path, architectures, 1, "runoff_units: m3 s-1\n")
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises((ConfigurationError, BundleError), match=message):
        StreamflowLSTM().initialize(str(path))
