"""A forcing is regular, complete and possible, or it is refused with the place that is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bmi_components.errors import ForcingError, UnknownNameError
from bmi_components.forcing.series import DAY, HOUR, Forcing
from bmi_components.variables import variable


def make(hours: int = 48, change: Callable[[np.ndarray], None] | None = None) -> Forcing:
    values = np.arange(2.0 * hours).reshape(hours, 2)
    if change:
        change(values)
    return Forcing(
        time=np.datetime64("2001-01-01T00", "s") + np.arange(hours) * np.timedelta64(HOUR, "s"),
        time_step=HOUR,
        catchments=("a", "b"),
        variables=(variable("precipitation"),),
        values={"precipitation": values},
        source="here",
    )


def test_a_gap_is_named_with_its_variable_time_and_catchment() -> None:
    with pytest.raises(
        ForcingError, match=r"here: precipitation is missing .* 2001-01-01 03:00:00 in catchment b"
    ):
        make(change=lambda v: v.__setitem__((3, 1), np.nan))


def test_an_impossible_value_asks_for_the_units() -> None:
    with pytest.raises(ForcingError, match=r"precipitation is -1 mm d-1 .* are its units right"):
        make(change=lambda v: v.__setitem__((3, 1), -1.0))


@pytest.mark.parametrize(
    ("hours", "message"),
    [
        ([0, 1, 2, 4, 5], "after 2001-01-01 02:00:00 comes 2001-01-01 04:00:00"),
        ([0, 1, 1, 2, 3], "2001-01-01 01:00:00 occurs twice"),
        ([0, 2, 1, 3, 4], "2001-01-01 02:00:00 is followed by an earlier time"),
    ],
)
def test_an_irregular_time_axis_is_refused(hours: list[int], message: str) -> None:
    with pytest.raises(ForcingError, match=message):
        Forcing(
            time=np.datetime64("2001-01-01T00", "s") + np.array(hours) * np.timedelta64(HOUR, "s"),
            time_step=HOUR,
            catchments=("a",),
            variables=(variable("precipitation"),),
            values={"precipitation": np.zeros((5, 1))},
            source="here",
        )


def test_a_date_without_an_hour_is_a_whole_day() -> None:
    day = make().select(start="2001-01-02", end="2001-01-02")
    assert day.time.size == 24
    assert str(day.time[0]) == "2001-01-02T00:00:00"
    assert make().select(end="2001-01-02 00:00:00").time.size == 25


def test_a_period_beyond_the_data_is_refused() -> None:
    with pytest.raises(
        ForcingError, match="it covers 2001-01-01 to 2001-01-02 23:00:00; the period asked for"
    ):
        make().select(end="2001-01-03")


def test_catchments_come_in_the_order_asked_for() -> None:
    np.testing.assert_array_equal(make().select(["b", "a"]).values["precipitation"][0], [1.0, 0.0])
    with pytest.raises(UnknownNameError, match="no catchment 'c'; it has a, b"):
        make().select(["c"])


def test_days_are_means_of_whole_days() -> None:
    days = make().aggregate(DAY)
    assert days.time_step == DAY
    np.testing.assert_allclose(days.values["precipitation"], [[23.0, 24.0], [71.0, 72.0]])
    with pytest.raises(ForcingError, match="ends amid"):
        make(hours=47).aggregate(DAY)
    with pytest.raises(ForcingError, match="starts amid"):
        make().select(start="2001-01-01 01:00:00").aggregate(DAY)
    with pytest.raises(ForcingError, match="do not add up"):
        make().aggregate(5_400)
