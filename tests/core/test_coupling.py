"""Coupled components: water is passed on whole, time is kept in order, units and grids fit or are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_reservoir import LinearReservoir, ReservoirStepper
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.coupling import Link, _Bound, couple
from bmi_components.errors import ConfigurationError, TimeError, UnitsError, UnknownNameError, ValueShapeError
from bmi_components.stepper import ArrayStepper
from bmi_components.units import Conversion
from bmi_components.variables import variable

DAY, HOUR = 86_400.0, 3_600.0
Array = NDArray[np.float64]


def reservoir(folder: Path, *residence_times: float) -> LinearReservoir:
    path = folder / "reservoir.yaml"
    path.write_text(f"residence_time: [{', '.join(map(str, residence_times))}]\n")
    component = LinearReservoir()
    component.initialize(str(path))
    return component


class HourlyRain(Component):
    """Passes on what it is given, each hour, as a rate and as a depth."""

    def open(self, settings: Settings) -> ArrayStepper:
        return HourlyStepper()


class HourlyStepper(ArrayStepper):
    time_step = HOUR
    size = 1
    inputs = (variable("evapotranspiration", "mm h-1"),)
    outputs = (variable("runoff_rate", "mm h-1"), variable("runoff_depth"))

    def __init__(self) -> None:
        self.state = {}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        outputs[:] = forcings[0], forcings[0] / 1e3 / HOUR
        return outputs

    def initial_outputs(self, outputs: Any) -> None:
        outputs[:] = 0.0


def hourly(folder: Path) -> HourlyRain:
    (folder / "hourly.yaml").write_text("")
    component = HourlyRain()
    component.initialize(str(folder / "hourly.yaml"))
    return component


def test_a_chain_is_its_members_stepped_by_hand(tmp_path: Path) -> None:
    rain = np.random.default_rng(0).gamma(0.4, 8.0, (40, 2))
    pair = {"upper": reservoir(tmp_path, 3.0, 9.0), "lower": reservoir(tmp_path, 20.0, 40.0)}
    coupled = couple(pair, ["upper:runoff_rate -> lower:precipitation"], {"upper:precipitation": rain})
    found = coupled.run(40 * DAY, ["upper:runoff_rate", "lower:runoff_rate"], progress=False)

    upper, lower = reservoir(tmp_path, 3.0, 9.0), reservoir(tmp_path, 20.0, 40.0)
    runoff = variable("runoff_rate").name
    for t, row in enumerate(rain):
        upper.set_value(variable("precipitation").name, row)
        upper.update()
        lower.set_value(variable("precipitation").name, upper.get_value_ptr(runoff))
        lower.update()
        np.testing.assert_array_equal(found["upper.runoff_rate"][t], upper.get_value_ptr(runoff))
        np.testing.assert_array_equal(found["lower.runoff_rate"][t], lower.get_value_ptr(runoff))
    assert found["lower.runoff_rate"].attrs["units"] == "mm d-1"
    np.testing.assert_allclose(found["time_of_lower"], DAY * np.arange(1, 41))


def test_hours_become_the_mean_of_a_day_and_no_water_is_lost(tmp_path: Path) -> None:
    rain = np.random.default_rng(1).gamma(0.2, 3.0, (240, 1))
    pair = {"rain": hourly(tmp_path), "soil": reservoir(tmp_path, 5.0)}
    coupled = couple(pair, ["rain:runoff_rate -> soil:precipitation"], {"rain:evapotranspiration": rain})
    coupled.run(10 * DAY, progress=False)
    stored, drained = (pair["soil"]._run.stepper.state[n][0] for n in ("storage", "drained"))  # type: ignore
    assert stored + drained == pytest.approx(rain.sum(), rel=1e-12)
    assert coupled.time == 10 * DAY


def test_amounts_are_added_up_and_share_out_over_shorter_steps() -> None:
    depths = [(HOUR * k, HOUR * (k + 1), np.array([k + 1.0])) for k in range(24)]
    link = _Bound("a", "x", "b", "y", "sum", Conversion(1.0, 0.0), None, depths)
    assert link.values(0.0, DAY) == pytest.approx([300.0])
    link.segments = [(0.0, DAY, np.array([24.0]))]
    assert sum(link.values(HOUR * k, HOUR * (k + 1))[0] for k in range(24)) == pytest.approx(24.0)


def test_a_day_feeds_each_of_its_hours(tmp_path: Path) -> None:
    pair = {"soil": reservoir(tmp_path, 2.0), "rain": hourly(tmp_path)}
    rain = np.array([[24.0], [0.0], [12.0]])
    coupled = couple(pair, ["soil:runoff_rate -> rain:evapotranspiration"], {"soil:precipitation": rain})
    found = coupled.run(3 * DAY, ["soil:runoff_rate", "rain:runoff_rate"], progress=False)
    per_hour = np.repeat(found["soil.runoff_rate"].values[:, 0] / 24.0, 24)
    np.testing.assert_allclose(found["rain.runoff_rate"].values[:, 0], per_hour, rtol=1e-12)


def test_a_later_component_feeds_an_earlier_one_with_the_time_before(tmp_path: Path) -> None:
    pair = {"first": reservoir(tmp_path, 3.0), "second": reservoir(tmp_path, 7.0)}
    links = ["first:runoff_rate -> second:precipitation", "second:runoff_rate -> first:precipitation"]
    pair["second"]._run.stepper.state["storage"][:] = 100.0  # type: ignore[union-attr, attr-defined]
    coupled = couple(pair, links)
    found = coupled.run(5 * DAY, ["first:runoff_rate", "second:runoff_rate"], progress=False)
    stepper = ReservoirStepper([3.0])
    given = np.concatenate([[0.0], found["second.runoff_rate"].values[:-1, 0]])
    alone = [stepper.step(np.array([p]), 0.0, np.empty(3))[1] for p in given]
    np.testing.assert_allclose(found["first.runoff_rate"].values[:, 0], alone, rtol=1e-12)


def test_one_element_feeds_many_and_weights_map_grids(tmp_path: Path) -> None:
    pair = {"a": reservoir(tmp_path, 3.0), "b": reservoir(tmp_path, 3.0, 3.0)}
    rain = np.full((4, 1), 10.0)
    coupled = couple(pair, ["a:runoff_rate -> b:precipitation"], {"a:precipitation": rain})
    both = coupled.run(4 * DAY, ["b:runoff_rate"], progress=False)["b.runoff_rate"].values
    np.testing.assert_array_equal(both[:, 0], both[:, 1])

    pair = {"b": reservoir(tmp_path, 3.0, 9.0), "c": reservoir(tmp_path, 1.0)}
    weights = np.array([[0.25, 0.75]])
    link = Link("b:runoff_rate", "c:precipitation", weights=weights)
    coupled = couple(pair, [link], {"b:precipitation": np.full((3, 2), 8.0)})
    found = coupled.run(3 * DAY, ["b:runoff_rate", "c:runoff_rate"], progress=False)
    stepper = ReservoirStepper([1.0])
    mixed = [stepper.step(weights @ row, 0.0, np.empty(3))[1] for row in found["b.runoff_rate"].values]
    np.testing.assert_allclose(found["c.runoff_rate"].values[:, 0], mixed)


class Foreign:
    """A component of somebody else: BMI and nothing more, with days as its units of time."""

    def __init__(self, component: LinearReservoir) -> None:
        self._component = component

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("get_", "set_value", "update")) or name in ("get_tensor", "set_tensor"):
            raise AttributeError(name)
        return getattr(self._component, name)

    def get_time_units(self) -> str:
        return "d"

    def get_time_step(self) -> float:
        return 1.0

    def get_current_time(self) -> float:
        return self._component.get_current_time() / DAY


def test_a_foreign_component_needs_bmi_only(tmp_path: Path) -> None:
    rain = np.random.default_rng(2).gamma(0.4, 8.0, (12, 1))
    names = (variable("runoff_rate").name, variable("precipitation").name)
    link, feeds = f"a:{names[0]} -> b:{names[1]}", {f"a:{names[1]}": rain}
    ours = couple({"a": reservoir(tmp_path, 3.0), "b": reservoir(tmp_path, 8.0)}, [link], feeds)
    foreign: Any = {"a": Foreign(reservoir(tmp_path, 3.0)), "b": Foreign(reservoir(tmp_path, 8.0))}
    theirs = couple(foreign, [link], feeds)
    record = [f"b:{names[0]}"]
    expected = ours.run(12 * DAY, record, progress=False)["b.runoff_rate"]
    found = theirs.run(12 * DAY, record, progress=False)[f"b.{names[0]}"]
    np.testing.assert_array_equal(found, expected)


def test_torch_and_jax_exchange_without_numpy(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "contract"))
    from framework_reservoirs import JaxReservoir, TorchReservoir

    members: dict[str, Any] = {"a": TorchReservoir(), "b": JaxReservoir()}
    for member in members.values():
        path = tmp_path / "two.yaml"
        path.write_text("residence_time: [3.0, 8.0]\n")
        member.initialize(str(path))
    rain = np.random.default_rng(3).gamma(0.4, 8.0, (6, 2))
    link, feeds = ["a:runoff_rate -> b:precipitation"], {"a:precipitation": rain}
    found = couple(members, link, feeds).run(6 * DAY, ["b:runoff_rate"], progress=False)
    host = {"a": reservoir(tmp_path, 3.0, 8.0), "b": reservoir(tmp_path, 3.0, 8.0)}
    expected = couple(host, link, feeds).run(6 * DAY, ["b:runoff_rate"], progress=False)
    np.testing.assert_allclose(found["b.runoff_rate"], expected["b.runoff_rate"], rtol=1e-5)


@pytest.mark.parametrize(
    ("links", "feeds", "error", "message"),
    [
        (["a:runoff_rate"], {}, ConfigurationError, "component:output -> component:input"),
        (["x:runoff_rate -> b:precipitation"], {}, ConfigurationError, "one of the components a, b"),
        (["a:runof -> b:precipitation"], {}, UnknownNameError, "a has no output 'runof'"),
        (["a:runoff_depth -> b:precipitation"], {}, UnitsError, "runoff_depth"),
        (["a:runoff_rate -> b:precipitation"] * 2, {}, ConfigurationError, "fed more than once"),
        ([], {"b:precipitation": np.zeros((4, 2))}, ValueShapeError, "2 columns; 1 are needed"),
    ],
)
def test_what_does_not_fit_is_refused(
    links: list[str], feeds: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        couple({"a": reservoir(tmp_path, 3.0), "b": reservoir(tmp_path, 3.0)}, links, feeds)


def test_grids_that_differ_need_weights(tmp_path: Path) -> None:
    pair = {"a": reservoir(tmp_path, 3.0, 4.0), "b": reservoir(tmp_path, 3.0, 4.0, 5.0)}
    with pytest.raises(ValueShapeError, match=r"weights \[3, 2\]"):
        couple(pair, ["a:runoff_rate -> b:precipitation"])


def test_a_feed_that_ends_says_so(tmp_path: Path) -> None:
    coupled = couple({"a": reservoir(tmp_path, 3.0)}, [], {"a:precipitation": np.ones((3, 1))})
    with pytest.raises(TimeError, match="ends after 3 steps"):
        coupled.run(5 * DAY, progress=False)
    assert coupled.time == 3 * DAY
