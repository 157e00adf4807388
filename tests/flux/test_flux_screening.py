"""Straight lines across gaps are found; nights, calm and slow columns are left alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.errors import UnknownNameError
from bmi_components.forcing.flux_screening import without_straight_lines
from bmi_components.forcing.flux_tower import FluxTable, read_flux_table


def tower(values: np.ndarray) -> FluxTable:
    time = np.datetime64("2020-01-01T00:00:00") + np.arange(values.size) * np.timedelta64(1800, "s")
    return FluxTable("XX-Syn", time, 1800, {"PPFD_IN": values, "LAI": np.ones(values.size)}, {}, "made up")


def sunny(days: int) -> np.ndarray:
    hour = np.arange(48 * days) % 48 / 2
    weather = np.random.default_rng(0).uniform(0.5, 1.0, 48 * days)
    return np.maximum(np.sin(np.pi * (hour - 8) / 8), 0.0) * (np.abs(hour - 12) < 4) * 1500 * weather


@given(start=st.integers(10, 300), length=st.integers(1, 150))
def test_a_filled_gap_is_opened_if_it_is_longer_than_a_night(start: int, length: int) -> None:
    values = sunny(12)
    line = values.copy()
    line[start : start + length] = np.interp(
        np.arange(start, start + length), [start - 1, start + length], values[[start - 1, start + length]]
    )
    found = without_straight_lines(tower(line), ["PPFD_IN"]).columns["PPFD_IN"]
    opened = np.isnan(found)
    np.testing.assert_array_equal(found[~opened], line[~opened])
    # a line that ends in the night grows by what it meets there, sixteen hours at most
    assert opened.sum() == 0 or length + 64 >= 36
    if length >= 36:
        assert opened[start + 1 : start + length - 1].all()


def test_columns_that_rest_are_only_screened_if_they_are_named() -> None:
    values = sunny(3)
    values[20:110] = np.linspace(5.0, 90.0, 90)
    table = without_straight_lines(tower(values), ["PPFD_IN"])
    assert np.isnan(table.columns["PPFD_IN"]).any()
    assert np.isfinite(table.columns["LAI"]).all()
    assert np.isnan(without_straight_lines(tower(values), ["LAI"]).columns["LAI"]).any()
    with pytest.raises(UnknownNameError, match="NETRAD"):
        without_straight_lines(tower(values), ["NETRAD"])
    nothing = tower(np.full(100, np.nan))
    assert np.isnan(without_straight_lines(nothing, ["PPFD_IN"]).columns["PPFD_IN"]).all()


def test_the_photon_flux_of_us_whs_was_interpolated_over_a_monsoon(shared_data: Path) -> None:
    """It rises by 0.2 each half-hour, night and day, from 13 August to 20 November 2014."""
    table = read_flux_table(shared_data / "fluxtower" / "US-Whs" / "US-Whs-fluxes-test.csv.gz")
    screened = without_straight_lines(table, ["PPFD_IN"])
    gap = np.isnan(screened.columns["PPFD_IN"])
    inside = (table.time > np.datetime64("2014-08-13")) & (table.time < np.datetime64("2014-11-20"))
    assert gap[inside].all()
    assert not gap[~inside].any() or gap[~inside].sum() < 48
    midnight = inside & (table.time.astype("datetime64[h]").astype(int) % 24 == 0)
    assert table.columns["PPFD_IN"][midnight].mean() > 400
