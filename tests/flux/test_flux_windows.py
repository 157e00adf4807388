"""Windows: none has a gap, every observed day that can be predicted is, and years split them without overlap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_towers import synthetic_tower

from bmi_components.errors import ConfigurationError, ForcingError
from bmi_components.lstm.flux.daily import DailyRules, DailyTable, daily_table
from bmi_components.lstm.flux.windows import (
    Windows,
    concatenate,
    smallest_fold,
    split_years,
    windows,
    year_folds,
)


def table_of(complete: list[bool], observed: list[bool]) -> DailyTable:
    """A tower whose single input on day i is i where it is complete, and whose target is -i where observed."""
    size = len(complete)
    number = np.arange(size, dtype=float)
    date = np.datetime64("2009-11-01") + np.arange(size)
    return DailyTable(
        site="XX-One",
        date=date,
        inputs=np.where(complete, number, np.nan)[:, np.newaxis],
        target=np.where(np.array(complete) & np.array(observed), -number, np.nan),
        counts=np.full(size, 9),
        filled=np.zeros(size, dtype=bool),
        season=np.full(size, "summer"),
        season_year=date.astype("datetime64[Y]").astype(int) + 1970,
        input_names=("x",),
        input_units=("1",),
        target_name="NEE",
        target_units="umol m-2 s-1",
        rules=DailyRules(),
    )


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80), st.integers(1, 6))
def test_windows_are_all_that_the_days_allow_and_no_others(
    days: list[tuple[bool, bool]], length: int
) -> None:
    complete, observed = [day[0] or day[1] for day in days], [day[1] for day in days]
    expected = [
        last
        for last in range(length - 1, len(days))
        if observed[last] and complete[last] and all(complete[last - length + 1 : last + 1])
    ]
    daily = table_of(complete, observed)
    if not expected:
        with pytest.raises(ForcingError, match="there is no window"):
            windows(daily, length)
        return
    found = windows(daily, length)
    assert found.inputs.dtype == np.float32
    assert found.inputs.shape == (len(expected), length, 1)
    for window, last in enumerate(expected):
        np.testing.assert_array_equal(found.inputs[window, :, 0], np.arange(last - length + 1, last + 1))
    np.testing.assert_array_equal(found.target, -np.array(expected, dtype=float))
    np.testing.assert_array_equal(found.date, daily.date[expected])
    np.testing.assert_array_equal(found.flat(), found.inputs[:, :, 0])


def test_the_window_before_a_gap_and_the_last_of_the_record_are_kept() -> None:
    complete = [True] * 5 + [False] + [True] * 5
    found = windows(table_of(complete, [True] * 11), 5)
    np.testing.assert_array_equal(found.target, [-4.0, -10.0])


def test_matched_windows_predict_the_same_days_for_every_length() -> None:
    daily = daily_table(synthetic_tower(days=700))
    dates = [windows(daily, length, match_length=30).date for length in (None, 1, 3, 29, 30)]
    for other in dates[1:]:
        np.testing.assert_array_equal(dates[0], other)
    assert len(windows(daily, 3)) > dates[0].size
    with pytest.raises(ConfigurationError, match="31 days matched to 30"):
        windows(daily, 31, match_length=30)
    with pytest.raises(ConfigurationError, match="window of 0 days"):
        windows(daily, 0)


def test_a_tower_too_short_for_the_window_says_what_there_is() -> None:
    with pytest.raises(ForcingError, match=r"no window of 9 days.*longest stretch.*is 5"):
        windows(table_of([True] * 5 + [False, True], [True] * 7), 9)


def tower_windows(days: int, first: str, length: int = 7, site: str = "XX-Syn") -> Windows:
    table = replace(synthetic_tower(days=days, first=first, snow=False), site=site)
    return windows(daily_table(table), length)


def test_the_last_years_of_each_tower_are_for_evaluation() -> None:
    long, short = tower_windows(1800, "2010-01-01"), tower_windows(700, "2015-01-01", site="XX-Two")
    both = concatenate([long, short])
    training, evaluation = split_years(both, 2)
    assert len(training) + len(evaluation) == len(both)
    for site, years in (("XX-Syn", {2013, 2014}), ("XX-Two", {2016})):
        assert set(evaluation.season_year[evaluation.site == site]) == years
    assert set(training.season_year[training.site == "XX-Two"]) == {
        2015
    }  # no more years than asked for: one trains


def test_a_single_year_is_split_four_to_one_in_time() -> None:
    one = tower_windows(300, "2010-02-01")
    training, evaluation = split_years(one, 3, "calendar")
    assert abs(len(training) - 0.8 * len(one)) < 1
    assert training.date.max() < evaluation.date.min()
    with pytest.raises(ConfigurationError, match="1 windows are too few"):
        split_years(one.select(slice(0, 1)))
    with pytest.raises(ConfigurationError, match="at least 1"):
        split_years(one, 0)


def test_folds_hold_out_one_year_each_from_the_last_and_pass_over_small_ones() -> None:
    assert [smallest_fold(length) for length in (1, 31, 90, 120)] == [192, 151, 116, 103]
    many = tower_windows(365 * 4 + 60, "2010-01-01")  # the fifth year has two months
    folds = year_folds(many)
    assert [fold.year for fold in folds] == [2013, 2012, 2011, 2010]
    for fold in folds:
        assert set(fold.validation.season_year) == {fold.year}
        assert fold.year not in set(fold.training.season_year)
        assert len(fold.training) + len(fold.validation) == len(many)
    assert [fold.year for fold in year_folds(many, 2)] == [2013, 2012]
    assert year_folds(many, least=1)[0].year == 2014
    with pytest.raises(ConfigurationError, match=r"no season year can be held out.*2014: \d+"):
        year_folds(many.select(many.season_year == 2014))


def test_season_years_and_calendar_years_differ_where_snow_lies_over_new_year() -> None:
    found = windows(daily_table(synthetic_tower(days=1000)), 5)
    differ = found.season_year != found.calendar_year
    assert differ.any()
    assert (found.season_year[differ] == found.calendar_year[differ] - 1).all()
    training, evaluation = split_years(found, 1, "season")
    assert set(training.season_year).isdisjoint(evaluation.season_year)


def test_towers_with_different_inputs_do_not_mix() -> None:
    one = tower_windows(300, "2010-01-01")
    with pytest.raises(ConfigurationError, match="length: 8 and 7"):
        concatenate([one, tower_windows(300, "2010-01-01", length=8)])
    with pytest.raises(ConfigurationError, match="input units"):
        concatenate([one, replace(one, input_units=("K",) * len(one.input_names))])
    with pytest.raises(ConfigurationError, match="no windows"):
        concatenate([])
