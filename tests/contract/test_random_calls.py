"""Any sequence of BMI calls, valid and not, keeps the component in step with a model of the contract."""

from __future__ import annotations

import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from linear_reservoir import DAY, LinearReservoir

from bmi_components.errors import BmiComponentsError, ForcingError, StateError, TimeError, ValueShapeError

RAIN = "atmosphere_water__liquid_equivalent_precipitation_rate"
STORAGE = "groundwater__volume-per-area_storage_density"
SIZE = 3
rains = st.lists(st.floats(0.0, 300.0), min_size=SIZE, max_size=SIZE)
not_rain = st.sampled_from(
    [np.zeros(SIZE + 1), np.zeros(0), "rain", None, [None] * SIZE, np.zeros((2, SIZE)), 1.0j]
)
impossible = st.sampled_from([math.nan, math.inf, -math.inf, -1.0])


class AnyCalls(RuleBasedStateMachine):
    """The contract in small: a clock, inputs in force, a mean over the running step, and an exact reservoir."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.config = self.folder / "config.yaml"
        self.config.write_text("residence_time: [5.0, 0.5, 80.0]\n")
        self.component: Any = LinearReservoir()
        self.saved: list[tuple[Path, Any]] = []
        self.open = False
        self.begin()

    @rule()
    def begin(self) -> None:
        self.component.initialize(str(self.config))
        self.pointers = {name: self.component.get_value_ptr(name) for name in (RAIN, STORAGE)}
        self.open = True
        self.rain = np.full(SIZE, np.nan)
        self.residence = np.array([5.0, 0.5, 80.0])
        self.time, self.elapsed = 0.0, 0.0
        self.fallen = np.zeros(SIZE)
        self.storage = np.zeros(SIZE)

    def advance(self, seconds: float) -> None:
        while seconds > 0.0:
            part = min(seconds, DAY - self.elapsed)
            self.fallen = self.fallen + self.rain * part
            self.elapsed += part
            seconds -= part
            if self.elapsed == DAY:
                equilibrium = self.fallen / DAY * self.residence
                self.storage = equilibrium + (self.storage - equilibrium) * np.exp(-1.0 / self.residence)
                self.elapsed, self.fallen = 0.0, np.zeros(SIZE)

    def can_step(self) -> bool:
        return self.open and bool(np.isfinite(self.rain).all() and (self.rain >= 0.0).all())

    @precondition(lambda self: self.open)
    @rule(values=rains, kind=st.sampled_from([np.array, list, tuple]))
    def set_rain(self, values: list[float], kind: Any) -> None:
        self.component.set_value(RAIN, kind(values))
        self.rain = np.array(values)

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, SIZE - 1), value=st.floats(0.0, 300.0))
    def set_rain_somewhere(self, index: int, value: float) -> None:
        self.component.set_value_at_indices(RAIN, np.array([index], dtype=np.int32), np.array([value]))
        self.rain[index] = value

    @precondition(lambda self: self.open)
    @rule(index=st.integers(0, SIZE - 1), value=st.floats(0.0, 300.0) | impossible)
    def write_through_the_pointer(self, index: int, value: float) -> None:
        self.pointers[RAIN][index] = value
        self.rain[index] = value

    @precondition(lambda self: self.open)
    @rule(values=not_rain)
    def set_what_is_not_rain(self, values: Any) -> None:
        with pytest.raises(ValueShapeError):
            self.component.set_value(RAIN, values)

    @precondition(lambda self: self.open)
    @rule(index=st.sampled_from([-1, SIZE, 10**6]))
    def reach_outside(self, index: int) -> None:
        with pytest.raises(ValueShapeError):
            self.component.set_value_at_indices(RAIN, [index], [1.0])
        with pytest.raises(ValueShapeError):
            self.component.get_value_at_indices(STORAGE, np.zeros(1), np.array([index]))

    @precondition(lambda self: self.can_step())
    @rule()
    def update(self) -> None:
        self.component.update()
        self.advance(DAY)
        self.time += DAY

    @precondition(lambda self: self.can_step())
    @rule(hours=st.integers(0, 60))
    def update_until(self, hours: int) -> None:
        self.component.update_until(self.time + hours * 3600.0)
        self.advance(hours * 3600.0)
        self.time += hours * 3600.0

    @precondition(lambda self: self.open and not self.can_step())
    @rule()
    def update_without_forcing(self) -> None:
        with pytest.raises(ForcingError):
            self.component.update()
        with pytest.raises(ForcingError):
            self.component.update_until(self.time + 1.0)

    @precondition(lambda self: self.open)
    @rule(nonsense=st.sampled_from([math.nan, math.inf, -1.0, "noon", None]))
    def update_until_nonsense(self, nonsense: Any) -> None:
        with pytest.raises(TimeError):
            self.component.update_until(nonsense)

    @precondition(lambda self: self.open)
    @rule(days=st.floats(0.05, 500.0))
    def calibrate(self, days: float) -> None:
        self.component.set_value("residence_time", days)
        self.residence = np.full(SIZE, days)

    @precondition(lambda self: self.open)
    @rule()
    def save(self) -> None:
        path = self.folder / f"{len(self.saved)}.safetensors"
        self.component.save_state(path)
        self.saved.append((path, (self.rain.copy(), self.elapsed, self.fallen.copy(), self.storage.copy())))

    @precondition(lambda self: self.open and self.saved)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        path, (rain, elapsed, fallen, storage) = data.draw(st.sampled_from(self.saved))
        self.component.load_state(path)
        self.rain, self.elapsed, self.fallen, self.storage = (
            rain.copy(),
            elapsed,
            fallen.copy(),
            storage.copy(),
        )

    @precondition(lambda self: self.open and self.saved)
    @rule(data=st.data())
    def restore_damaged(self, data: st.DataObject) -> None:
        content = bytearray(self.saved[-1][0].read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        damaged = self.folder / "damaged"
        damaged.write_bytes(content)
        with pytest.raises(StateError):
            self.component.load_state(damaged)

    @rule()
    def finalize(self) -> None:
        self.component.finalize()
        self.open = False

    @precondition(lambda self: not self.open)
    @rule()
    def call_when_closed(self) -> None:
        for call in (
            self.component.update,
            self.component.get_current_time,
            lambda: self.component.get_value_ptr(RAIN),
            lambda: self.component.set_value(RAIN, np.zeros(SIZE)),
            lambda: self.component.get_var_units(RAIN),
            lambda: self.component.get_grid_rank(0),
        ):
            with pytest.raises(BmiComponentsError):
                call()

    @invariant()
    def in_step_with_the_model(self) -> None:
        if not getattr(self, "open", False):
            return
        assert self.component.get_current_time() == self.time
        np.testing.assert_array_equal(self.component.get_value(RAIN, np.empty(SIZE)), self.rain)
        for name, pointer in self.pointers.items():
            assert self.component.get_value_ptr(name) is pointer
        np.testing.assert_allclose(self.pointers[STORAGE], self.storage, rtol=1e-9, atol=1e-9)

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


AnyCalls.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyCalls = AnyCalls.TestCase
