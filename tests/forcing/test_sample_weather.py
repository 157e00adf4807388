"""Sample weather has the climate it was asked for, and is the same on every call."""

from __future__ import annotations

import numpy as np
import pytest

from bmi_components.errors import ForcingError, UnknownNameError
from bmi_components.forcing.sample_weather import (
    CATCHMENTS,
    CLIMATES,
    SampleCatchment,
    daily_weather,
    hourly_weather,
    sample,
)
from bmi_components.forcing.series import DAY, Forcing

YEARS = 60


@pytest.fixture(scope="module")
def long_series() -> Forcing:
    return daily_weather("1960-01-01", "2019-12-31", seed=7)


def months(forcing: Forcing) -> np.ndarray:
    return forcing.time.astype("datetime64[M]").astype(int) % 12


@pytest.mark.parametrize("column", range(len(CATCHMENTS)))
def test_the_climate_is_the_configured_one(long_series: Forcing, column: int) -> None:
    climate = CLIMATES[CATCHMENTS[column].climate]
    month = months(long_series)
    rain = long_series.values["precipitation"][:, column]
    temperature = long_series.values["temperature"][:, column]
    sums = np.array([rain[month == m].sum() for m in range(12)]) / YEARS
    wet = np.array([(rain[month == m] > 0).mean() for m in range(12)])
    means = np.array([temperature[month == m].mean() for m in range(12)])
    assert sums.sum() == pytest.approx(sum(climate.precipitation), rel=0.06)
    # Sampling errors: a month's sum varies by about half from year to year, its temperature by about 2.5 K.
    np.testing.assert_allclose(sums, climate.precipitation, rtol=4 * 0.6 / np.sqrt(YEARS))
    np.testing.assert_allclose(wet, climate.wet_days, atol=0.06)
    np.testing.assert_allclose(means, climate.temperature, atol=4 * 2.5 / np.sqrt(YEARS))
    assert np.abs(means - climate.temperature).mean() < 0.5


@pytest.mark.parametrize("column", range(len(CATCHMENTS)))
def test_wet_days_come_in_spells(long_series: Forcing, column: int) -> None:
    climate = CLIMATES[CATCHMENTS[column].climate]
    wet = long_series.values["precipitation"][:, column] > 0
    frequency = np.array(climate.wet_days)[months(long_series)]
    departure = wet - frequency
    persistence = (departure[1:] * departure[:-1]).mean() / (departure**2).mean()
    assert persistence == pytest.approx(climate.persistence, abs=0.03)


def test_the_same_seed_gives_the_same_weather_and_another_one_another() -> None:
    once = daily_weather("2001-01-01", "2001-12-31", seed=3)
    again = daily_weather("2001-01-01", "2001-12-31", seed=3)
    other = daily_weather("2001-01-01", "2001-12-31", seed=4)
    for symbol, values in once.values.items():
        np.testing.assert_array_equal(values, again.values[symbol])
        assert not np.array_equal(values, other.values[symbol])


def test_weather_does_not_depend_on_who_else_is_asked_for_or_on_the_period() -> None:
    everywhere = daily_weather("2001-01-01", "2003-12-31", seed=3)
    alone = daily_weather("2001-11-05", "2002-02-03", seed=3, catchments=sample(["oceanic-hills"]))
    for symbol, values in alone.values.items():
        np.testing.assert_array_equal(
            values, everywhere.select(["oceanic-hills"], "2001-11-05", "2002-02-03").values[symbol]
        )


def test_the_series_of_a_seed_is_pinned() -> None:
    weather = daily_weather("2000-01-01", "2000-03-31", seed=1, catchments=sample(["snowy-forest"]))
    assert weather.values["precipitation"].sum() == pytest.approx(211.988486899, rel=1e-9)
    assert weather.values["temperature"].mean() == pytest.approx(-6.364455483, rel=1e-9)


def test_neighbours_share_storms_and_high_places_are_colder_and_wetter() -> None:
    valley = SampleCatchment("valley", "", 45.0, -70.0, 250.0, "snowy")
    hill = SampleCatchment("hill", "", 45.1, -70.1, 1250.0, "snowy")
    far = SampleCatchment("far", "", 45.1, -120.0, 436.0, "oceanic")
    weather = daily_weather("1981-01-01", "2010-12-31", catchments=[valley, hill, far])
    rain, temperature = weather.values["precipitation"], weather.values["temperature"]
    together = np.corrcoef(rain.T)
    assert together[0, 1] > 0.5
    assert abs(together[0, 2]) < 0.05
    assert (temperature[:, 0] - temperature[:, 1]).mean() == pytest.approx(6.5, abs=0.5)
    assert rain[:, 1].mean() / rain[:, 0].mean() == pytest.approx(1.4, rel=0.1)


def test_hours_add_up_to_the_days() -> None:
    hours = hourly_weather("2001-06-01", "2001-08-31", seed=5)
    days = daily_weather("2001-06-01", "2001-08-31", seed=5)
    mean = hours.aggregate(DAY)
    np.testing.assert_allclose(mean.values["precipitation"] * DAY, days.values["precipitation"], atol=1e-12)
    np.testing.assert_allclose(mean.values["temperature"] - 273.15, days.values["temperature"], atol=1e-10)


def test_the_sun_stands_highest_at_local_noon_and_nights_are_dark() -> None:
    catchment = SampleCatchment("greenwich", "", 51.5, 0.0, 20.0, "oceanic")
    hours = hourly_weather("2001-06-21", "2001-06-21", catchments=[catchment])
    sun = hours.values["shortwave"][:, 0]
    assert int(sun.argmax()) in (11, 12)
    assert sun[11] == pytest.approx(sun[12])
    assert sun[0] == 0.0
    assert hours.values["temperature"][:, 0].argmax() == 15


def test_hourly_air_is_never_above_saturation() -> None:
    hours = hourly_weather("2001-01-01", "2001-12-31")
    celsius = hours.values["temperature"] - 273.15
    humidity, pressure = hours.values["specific_humidity"], hours.values["pressure"]
    vapour = humidity * pressure / (0.622 + 0.378 * humidity)
    assert (vapour <= 610.8 * np.exp(17.27 * celsius / (celsius + 237.3)) * (1 + 1e-9)).all()


def test_unknown_catchments_and_reversed_periods_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no sample catchment 'Rhine'"):
        sample(["Rhine"])
    with pytest.raises(ForcingError, match="before it starts"):
        daily_weather("2001-01-02", "2001-01-01")
