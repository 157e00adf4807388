"""Days from half-hours: equal to a slow restatement of DLFM's rules in pandas; seasons, gaps and real towers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_towers import synthetic_tower

from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError
from bmi_components.forcing.flux_tower import FluxTable, read_flux_table
from bmi_components.lstm.flux.daily import (
    DailyRules,
    DailyTable,
    daily_table,
    rolling_statistics,
    season_years,
)

INPUTS = ["D_SNOW", "P", "PPFD_IN", "NETRAD"]


def restated(
    table: FluxTable,
    *,
    ustar: str = "na",
    peak: bool = False,
    statistics_days: int | None = None,
    interpolate: bool = True,
    season: str | None = None,
    doy: bool = False,
) -> pd.DataFrame:
    """DLFM's data path row by row and day by day, from the words of the specification (A2), before normalisation."""
    frame = pd.DataFrame(dict(table.columns), index=pd.DatetimeIndex(table.time))
    frame = frame[[*INPUTS, "USTAR", "NEE_PI"]].rename(columns={"NEE_PI": "NEE"})
    inputs = list(INPUTS)
    if statistics_days is not None:
        for name in INPUTS:
            rolling = frame[name].rolling(48 * statistics_days, min_periods=5 * statistics_days)
            frame[f"{name}_rolling_var"], frame[f"{name}_rolling_avg"] = rolling.var(), rolling.mean()
            inputs += [f"{name}_rolling_var", f"{name}_rolling_avg"]
    snow_depth = frame["D_SNOW"].groupby(frame.index.date).mean()
    if ustar == "drop":
        frame = frame[~(frame["USTAR"] <= 0.2)]
    frame = frame[frame["PPFD_IN"] > 4.0]
    kept = {}
    for date, rows in frame.groupby(frame.index.date):
        means, counts = rows[inputs].mean(), rows[inputs].count()
        if means.isna().any() or (counts < 9).any():
            continue
        observed = rows["NEE"]
        if peak:
            observed = observed[(rows.index.hour >= 9) & (rows.index.hour <= 11)]
        exchange = observed.mean() if observed.count() >= (3 if peak else 9) else np.nan
        if ustar == "na" and rows["USTAR"].mean() <= 0.2:
            exchange = np.nan
        kept[pd.Timestamp(date)] = {**means.to_dict(), "NEE": exchange}
    result = pd.DataFrame.from_dict(kept, orient="index").sort_index()
    if interpolate:
        dates = result.index
        for before, after in pairwise(dates):
            if (after - before).days == 2:
                filled = (result.loc[before, inputs] + result.loc[after, inputs]) / 2
                result.loc[before + pd.Timedelta(days=1), inputs] = filled
        result = result.sort_index()
    labels, years = [], []
    snowy = [pd.Timestamp(day) for day in snow_depth.index[snow_depth > 0]]
    for date in result.index:
        spring = [day for day in snowy if day.year == date.year and day.month <= 6]
        autumn = [day for day in snowy if day.year == date.year and day.month >= 7]
        begun = not spring or date > max(spring)
        labels.append("summer" if begun and (not autumn or date < min(autumn)) else "winter")
        years.append(date.year if begun else date.year - 1)
    result["season"], result["season_year"] = labels, years
    if season is not None:
        result = result[result["season"] == season]
    if doy:
        result["DOY"] = (result.index.day_of_year - 183) / 105.66
    return result


def expect_same(daily: DailyTable, truth: pd.DataFrame) -> None:
    kept = np.isfinite(daily.inputs).all(axis=1)
    np.testing.assert_array_equal(daily.date[kept], truth.index.to_numpy().astype("datetime64[D]"))
    for column, name in enumerate(daily.input_names):
        np.testing.assert_allclose(daily.inputs[kept, column], truth[name], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(daily.target[kept], truth["NEE"], rtol=1e-12)
    assert np.isnan(daily.target[~kept]).all()
    np.testing.assert_array_equal(daily.season[kept], truth["season"])
    np.testing.assert_array_equal(daily.season_year[kept], truth["season_year"])


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        (DailyRules(), {}),
        (DailyRules(ustar="drop"), {"ustar": "drop"}),
        (DailyRules(ustar="none", interpolate=0), {"ustar": "none", "interpolate": False}),
        (DailyRules(peak_hours=(9, 11)), {"peak": True}),
        (DailyRules(season="summer"), {"season": "summer"}),
        (DailyRules(season="winter", day_of_year=True), {"season": "winter", "doy": True}),
        (DailyRules(statistics_days=10), {"statistics_days": 10}),
    ],
)
def test_the_rules_are_those_of_dlfm(rules: DailyRules, words: dict[str, object]) -> None:
    table = synthetic_tower(days=800)
    daily = daily_table(table, rules)
    assert daily.input_names[:4] == tuple(INPUTS)
    assert daily.target_name == "NEE_PI"
    truth = restated(table, **words)  # type: ignore[arg-type]
    assert 100 < truth["NEE"].notna().sum() < len(truth) or rules.season is not None
    expect_same(daily, truth)


def test_rules_can_be_written_and_read() -> None:
    for rules in (DailyRules(), DailyRules(peak_hours=(9, 11), statistics_days=31, season="winter")):
        assert msgspec.convert(msgspec.to_builtins(rules), DailyRules) == rules
    for wrong in ({"statistics_days": 0}, {"peak_hours": [11, 9]}, {"daylight": "moon"}, {"usstar": "na"}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(wrong, DailyRules)


def test_filled_days_have_inputs_but_no_target_and_no_counts() -> None:
    daily = daily_table(synthetic_tower(days=800))
    assert daily.filled.sum() > 5
    assert np.isfinite(daily.inputs[daily.filled]).all()
    assert np.isnan(daily.target[daily.filled]).all()
    assert (daily.counts[daily.filled] == 0).all()
    assert (daily.counts[np.isfinite(daily.target)] >= 9).all()
    longer = daily_table(synthetic_tower(days=800), DailyRules(interpolate=3))
    assert longer.filled.sum() > daily.filled.sum()


def test_hourly_data_need_half_as_many_values() -> None:
    time = np.datetime64("2010-06-01T00", "s") + np.arange(48) * np.timedelta64(3600, "s")
    light = np.zeros(48)
    light[8:12], light[32:37] = 500.0, 500.0  # four hours of light on the first day, five on the second
    table = FluxTable(
        "XX-Hrs", time, 3600, {"PPFD_IN": light, "NEE": light}, {"PPFD_IN": "1", "NEE": "umol m-2 s-1"}
    )
    daily = daily_table(table, DailyRules(least_valid=9))
    np.testing.assert_array_equal(daily.inputs[:, 0], [np.nan, 500.0])
    np.testing.assert_array_equal(daily.counts, [0, 5])


def test_daily_data_go_straight_in() -> None:
    table = synthetic_tower(days=400)
    daily = daily_table(table, DailyRules(interpolate=0))
    again = FluxTable(
        "XX-Syn",
        daily.date.astype("datetime64[s]"),
        86_400,
        {
            **{name: daily.inputs[:, i] for i, name in enumerate(daily.input_names)},
            "NEE_PI": np.where(np.isfinite(daily.target), daily.target, np.nan),
        },
        dict(table.units),
    )
    straight = daily_table(again, DailyRules(interpolate=0))
    np.testing.assert_array_equal(straight.inputs, daily.inputs)
    np.testing.assert_array_equal(straight.target, daily.target)
    assert any("daily" in note for note in straight.notes)


def test_daylight_may_be_told_by_photons_shortwave_or_nothing() -> None:
    table = synthetic_tower(days=300)
    columns = dict(table.columns)
    light = columns.pop("PPFD_IN")
    without = replace(table, columns=columns)
    inputs = ["NETRAD", "P"]
    all_hours = daily_table(without, DailyRules(), inputs)
    assert all_hours.rules.daylight == "none"
    assert any("all hours count" in note for note in all_hours.notes)
    assert all_hours.counts.max() > 40
    shortwave = daily_table(
        replace(
            table,
            columns={**columns, "SW_IN_F": light / 2},
            units={**table.units, "SW_IN_F": "W m-2"},
        ),
        DailyRules(),
        inputs,
    )
    assert shortwave.rules.daylight == "shortwave"
    by_photons = daily_table(table, DailyRules(), inputs)
    assert by_photons.rules.daylight == "ppfd"
    np.testing.assert_array_equal(shortwave.inputs, by_photons.inputs)  # 2 W m-2 are 4 umol m-2 s-1 here
    with pytest.raises(ConfigurationError, match="needs the column PPFD_IN"):
        daily_table(without, DailyRules(daylight="ppfd"), inputs)


def test_no_column_is_compulsory_but_the_target() -> None:
    table = synthetic_tower(days=300, snow=False)
    bare = replace(table, columns={name: table.columns[name] for name in ("NEE_PI", "NETRAD")})
    daily = daily_table(bare)
    assert daily.input_names == ("NETRAD",)
    assert daily.rules.ustar == "none"
    assert {"friction" in n or "snow" in n or "hours" in n for n in daily.notes} == {True}
    with pytest.raises(ConfigurationError, match="no net ecosystem exchange"):
        daily_table(replace(bare, columns={"NETRAD": table.columns["NETRAD"]}))
    with pytest.raises(UnknownNameError, match="no column 'TA'"):
        daily_table(bare, inputs=["TA"])
    with pytest.raises(ConfigurationError, match="none of DLFM's inputs"):
        daily_table(replace(bare, columns={"NEE_PI": table.columns["NEE_PI"]}))


def test_a_tower_without_one_whole_day_says_which_input_fails() -> None:
    table = synthetic_tower(days=50)
    columns = {**table.columns, "P": np.full(table.time.size, np.nan)}
    with pytest.raises(ForcingError, match=r"not one day.*P 0,"):
        daily_table(replace(table, columns=columns))


def test_gap_filled_exchange_can_be_left_out_by_its_flag() -> None:
    table = synthetic_tower(days=100)
    flag = np.where(np.arange(table.time.size) < table.time.size // 2, 0.0, 2.0)
    columns = {**table.columns, "NEE_PI_QC": flag}
    measured = daily_table(replace(table, columns=columns), DailyRules(largest_quality_flag=0))
    assert np.isfinite(measured.target[:50]).any()
    assert np.isnan(measured.target[50:]).all()
    skipped = daily_table(table, DailyRules(largest_quality_flag=0))
    assert any("NEE_PI_QC" in note for note in skipped.notes)


def test_without_snow_season_years_are_calendar_years_wherever_the_record_begins() -> None:
    dates = np.arange(np.datetime64("2011-07-05"), np.datetime64("2013-03-01"))
    season, year = season_years(dates, np.zeros(dates.size, dtype=bool))
    np.testing.assert_array_equal(year, dates.astype("datetime64[Y]").astype(int) + 1970)
    assert set(season) == {"summer"}


@given(
    first=st.integers(0, 800),
    length=st.integers(1, 900),
    snowy=st.lists(st.tuples(st.integers(0, 1700), st.integers(1, 60)), max_size=8),
)
def test_season_years_never_go_back_and_stay_near_the_calendar(
    first: int, length: int, snowy: list[tuple[int, int]]
) -> None:
    dates = np.datetime64("2008-01-01") + np.arange(first, first + length)
    lies = np.zeros(2000, dtype=bool)
    for start, duration in snowy:
        lies[start : start + duration] = True
    snow = lies[first : first + length]
    season, year = season_years(dates, snow)
    calendar = dates.astype("datetime64[Y]").astype(int) + 1970
    assert (np.diff(year) >= 0).all()
    assert ((calendar - year == 0) | (calendar - year == 1)).all()
    month = dates.astype("datetime64[M]").astype(int) % 12 + 1
    assert (year[month >= 7] == calendar[month >= 7]).all()
    assert (season[snow] == "winter").all()
    assert (season[year < calendar] == "winter").all()


@given(st.integers(1, 6), st.integers(0, 10_000), st.sampled_from([1, 24, 48]))
def test_rolling_statistics_are_those_of_pandas(days: int, seed: int, per_day: int) -> None:
    random = np.random.default_rng(seed)
    values = 285.0 + random.normal(0, 3, 30 * per_day)
    values[random.random(values.size) < 0.4] = np.nan
    mean, variance = rolling_statistics(values, days, per_day)
    least = max(2, -(-5 * days * per_day // 48))
    rolling = pd.Series(values).rolling(days * per_day, min_periods=min(least, days * per_day))
    if least <= days * per_day:
        np.testing.assert_allclose(mean, rolling.mean(), rtol=1e-12)
        np.testing.assert_allclose(variance, rolling.var(), rtol=1e-8, atol=1e-10)
    else:
        assert np.isnan(mean).all()


@pytest.mark.parametrize(("site", "least_days"), [("US-Bi1", 600), ("US-Me2", 200), ("US-Whs", 150)])
def test_the_towers_at_hand_become_days(shared_data: Path, site: str, least_days: int) -> None:
    table = read_flux_table(sorted((shared_data / "fluxtower" / site).glob("*.csv.gz")))
    inputs = ["P_F", "PPFD_IN", "NETRAD", "TA_F", "SWC_F_MDS"]
    daily = daily_table(table, DailyRules(day_of_year=True), inputs)
    assert daily.input_names == (*inputs, "DOY")
    both = np.isfinite(daily.target) & np.isfinite(daily.inputs).all(axis=1)
    assert both.sum() > least_days
    assert -60 < np.nanmin(daily.target) < 0  # green days take carbon up
    frame = pd.DataFrame(dict(table.columns), index=pd.DatetimeIndex(table.time))
    some = np.flatnonzero(both)[:: both.sum() // 20]
    for day in some:
        rows = frame.loc[str(daily.date[day])]
        rows = rows[rows["PPFD_IN"] > 4]
        assert rows["USTAR"].mean() > 0.2
        np.testing.assert_allclose(daily.target[day], rows["NEE_VUT_REF"].mean(), rtol=1e-12)
        np.testing.assert_allclose(daily.inputs[day, 1], rows["PPFD_IN"].mean(), rtol=1e-12)
