"""Time does not drift, and goes exactly where it is sent."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.clock import NO_END, Clock
from bmi_components.errors import TimeError

steps = st.floats(1e-3, 1e8)


@given(step=steps, count=st.integers(0, 500))
def test_k_steps_take_k_times_the_step_exactly(step: float, count: int) -> None:
    clock = Clock(step)
    for _ in range(count):
        clock.advance_step()
    assert clock.current == count * step


@given(step=steps, parts=st.integers(1, 50), count=st.integers(1, 20))
def test_a_step_cut_into_parts_is_complete_after_its_last_part(step: float, parts: int, count: int) -> None:
    clock = Clock(step)
    completed = 0
    for index in range(1, count * parts + 1):
        target = clock.check(index * (step / parts))  # as a framework computes it, rounding and all
        if clock.reaches_boundary(target):
            clock.advance_step()
            clock.settle(target)
            completed += 1
        else:
            clock.advance_part(target)
        assert clock.current == target
        assert completed == index // parts


@given(step=steps, share=st.floats(0.01, 0.99))
def test_a_clock_set_amid_a_step_completes_it_in_the_rest(step: float, share: float) -> None:
    clock = Clock(step)
    clock.restart(share * step)
    assert clock.current == 0.0
    assert clock.boundary == pytest.approx((1.0 - share) * step, rel=1e-9)
    clock.advance_step()
    assert clock.elapsed == 0.0


def test_a_set_clock_keeps_or_takes_over_the_time() -> None:
    clock = Clock(10.0)
    clock.advance_step()
    clock.advance_part(13.0)
    clock.restart(3.0)
    assert (clock.current, clock.elapsed, clock.boundary) == (13.0, 3.0, 20.0)
    clock.restart(4.0, 104.0)
    assert (clock.current, clock.elapsed, clock.boundary) == (104.0, 4.0, 110.0)
    clock.reset()
    assert (clock.current, clock.elapsed, clock.boundary) == (0.0, 4.0, 6.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 4.9, 21.0, "noon", None, [1.0, 2.0]])
def test_times_in_the_past_beyond_the_end_or_without_sense_are_refused(bad: object) -> None:
    clock = Clock(5.0, end=20.0)
    clock.advance_step()
    with pytest.raises(TimeError):
        clock.check(bad)  # type: ignore[arg-type]
    assert clock.check(20) == 20.0


def test_a_clock_without_an_end_reaches_the_largest_number() -> None:
    assert Clock(1.0).end == NO_END
    with pytest.raises(TimeError):
        Clock(1.0).check(math.inf)
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(TimeError):
            Clock(wrong)
    with pytest.raises(TimeError):
        Clock(1.0, end=0.0)
