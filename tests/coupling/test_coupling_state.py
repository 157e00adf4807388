"""A coupling that is saved goes on bit for bit, in its own time or in that of another period, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coupled_pairs import DAY, HOUR, canopy_over_hbv, cycle, reservoir, weather

from bmi_components.coupling import Coupling, couple
from bmi_components.errors import StateError

MAKERS: dict[str, Callable[[Path], Coupling]] = {
    "canopy over δHBV": lambda folder: canopy_over_hbv(folder, 30, dtype="float32"),
    "mean": lambda folder: cycle(folder),
    "sum, mapped": lambda folder: cycle(folder, "sum", mapped=True),
}
RECORDS = {
    "canopy over δHBV": ["hbv:runoff_rate", "hbv:water_storage", "canopy:potential_evapotranspiration"]
}


def record_of(label: str) -> list[str]:
    return RECORDS.get(label, ["upper:runoff_rate", "lower:runoff_rate"])


def assert_same(found: Any, expected: Any) -> None:
    assert found.sizes == expected.sizes
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("label", MAKERS)
@pytest.mark.parametrize("until", [10 * DAY, 10 * DAY + 12 * HOUR])
def test_it_goes_on_bit_for_bit(label: str, until: float, tmp_path: Path) -> None:
    first = MAKERS[label](tmp_path)
    first.run(until, progress=False)
    first.save(tmp_path / "states" / "coupling.state")
    expected = first.run(25 * DAY, record_of(label), progress=False)

    second = MAKERS[label](tmp_path)
    second.run(3 * DAY, progress=False)
    second.restore(tmp_path / "states" / "coupling.state")
    assert second.time == 10 * DAY
    assert_same(second.run(25 * DAY, record_of(label), progress=False), expected)
    assert [file.name for file in (tmp_path / "states").iterdir()] == ["coupling.state"]


@pytest.mark.parametrize("until", [10 * DAY, 10 * DAY + 12 * HOUR])
def test_a_warm_start_calls_the_moment_of_saving_the_start(until: float, tmp_path: Path) -> None:
    first = canopy_over_hbv(tmp_path, 30)
    first.run(until, progress=False)
    first.save(tmp_path / "coupling.state")
    record = ["hbv:runoff_rate", "canopy:potential_evapotranspiration"]
    expected = first.run(25 * DAY, record, progress=False)

    hourly, daily = weather(30)
    other = canopy_over_hbv(tmp_path, 30)
    feeds = {f"canopy:{name}": values[240:] for name, values in hourly.items()}
    feeds |= {f"hbv:{name}": values[10:] for name, values in daily.items()}
    link = "canopy:potential_evapotranspiration -> hbv:potential_evapotranspiration"
    second = couple(other.components, [link], feeds)  # type: ignore[arg-type]
    second.restore(tmp_path / "coupling.state", warm_start=True)
    assert second.time == 0.0
    found = second.run(15 * DAY, record, progress=False)
    for name in expected:
        np.testing.assert_array_equal(found[name].values, expected[name].values)
        np.testing.assert_array_equal(
            found[name][found[name].dims[0]], expected[name][found[name].dims[0]] - 10 * DAY
        )


def test_a_state_that_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "coupling.state"
    cycle(tmp_path).save(path)
    with pytest.raises(StateError, match="saved by another coupling"):
        cycle(tmp_path, "sum").restore(path)
    with pytest.raises(StateError, match="state of a Coupling, not of a Reservoir"):
        reservoir(tmp_path, "torch", DAY, 1.0).load_state(path)
    with pytest.raises(StateError, match="no saved state"):
        cycle(tmp_path).restore(tmp_path / "absent")

    # The second component refuses: the first must be as it was.
    links = ["upper:runoff_rate -> lower:precipitation"]
    pair = {
        "upper": reservoir(tmp_path, "jax", 6 * HOUR, 3.0),
        "lower": reservoir(tmp_path, "torch", DAY, 9.0),
    }
    couple(pair, links).save(path)  # type: ignore[arg-type]
    pair["lower"] = reservoir(tmp_path, "torch", DAY, 9.0, 30.0)
    other = couple(pair, links)  # type: ignore[arg-type]
    other.components["upper"].set_value(pair["upper"].get_input_var_names()[0], np.ones(1))
    before = pair["upper"].snapshot().to_bytes()
    with pytest.raises(StateError, match=r"\(lower\) holds 1 catchments; this component has 2"):
        other.restore(path)
    assert pair["upper"].snapshot().to_bytes() == before


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "coupling.state"
    cycle(tmp_path).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StateError, match="damaged"):
        cycle(tmp_path).restore(path)


def test_a_component_of_somebody_else_cannot_be_saved(tmp_path: Path) -> None:
    class Foreign:
        def __init__(self, component: Any) -> None:
            self._component = component

        def __getattr__(self, name: str) -> Any:
            if not name.startswith(("get_", "set_value", "update")) or name in ("get_tensor", "set_tensor"):
                raise AttributeError(name)
            return getattr(self._component, name)

    coupling = couple({"theirs": Foreign(reservoir(tmp_path, "torch", DAY, 1.0))})  # type: ignore[dict-item]
    with pytest.raises(StateError, match="theirs: a Foreign cannot be saved"):
        coupling.save(tmp_path / "coupling.state")
    assert not (tmp_path / "coupling.state").exists()
