"""What CanVeg derives of its inputs: humidity, friction velocity, local time, values between months."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.canveg.inputs import (
    SLOW,
    friction_velocity,
    local_time,
    make_forcing,
    momentum_correction,
    monthly_table,
    monthly_value,
    published_inputs,
)
from bmi_components.forcing.humidity import vapour_pressure

SECONDS = st.integers(0, 4_000_000_000)
MONTHS = (3.0, 4.0, 7.0, 1.0, 0.0, -2.0, 5.0, 6.0, 8.0, 2.0, 9.0, 1.0)


@given(st.floats(0.0, 0.05), st.floats(5e4, 1.1e5))
def test_vapour_pressure_gives_its_specific_humidity_back(humidity: float, pressure: float) -> None:
    vapour = 1000.0 * vapour_pressure(humidity, pressure)
    assert 0.622 * vapour / (pressure - 0.378 * vapour) == pytest.approx(humidity, rel=1e-12, abs=1e-15)


@given(SECONDS, st.integers(-14 * 3600, 14 * 3600))
def test_local_time_is_the_calendars(seconds: int, offset: int) -> None:
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds + offset)
    ((day, hour),) = local_time(float(seconds), [offset])
    assert day == moment.timetuple().tm_yday
    assert hour == pytest.approx(moment.hour + moment.minute / 60.0 + moment.second / 3600.0, abs=1e-12)
    assert 0.0 <= hour < 24.0


def test_midnight_belongs_to_the_new_day() -> None:
    newyear = (datetime.datetime(2020, 12, 31, 16) - datetime.datetime(1970, 1, 1)).total_seconds()
    assert local_time(newyear, [8 * 3600, 0]) == [(1.0, 0.0), (366.0, 16.0)]


@settings(deadline=None)  # what is new to JAX is compiled
@given(st.floats(1.0, 366.0))
def test_a_day_lies_between_its_months(day: float) -> None:
    values = np.array(MONTHS)[:, None]
    found = float(monthly_value(values, np.array([day]))[0])
    position = (day - 15.5) / 30.4375
    low, high = MONTHS[math.floor(position) % 12], MONTHS[(math.floor(position) + 1) % 12]
    assert min(low, high) - 1e-5 <= found <= max(low, high) + 1e-5


def test_the_middle_of_a_month_has_the_months_value_at_each_site() -> None:
    table = monthly_table([MONTHS, 2.0])
    assert table.shape == (12, 2)
    found = np.array(monthly_value(table, np.array([15.5 + 30.4375 * 6, 80.0])))
    np.testing.assert_allclose(found, [5.0, 2.0], rtol=1e-6)
    newyear = float(monthly_value(table, np.array([365.25 + 15.5 - 30.4375 / 2.0, 1.0]))[0])
    assert newyear == pytest.approx(0.5 * (MONTHS[11] + MONTHS[0]), rel=1e-5)


def profile_wind(velocity: float, heat: float, canopy: float, height: float) -> float:
    """Wind at the measurement height that friction velocity and sensible heat make at 20 degC and 100 kPa."""
    above, roughness = height - 0.6 * canopy, 0.1 * canopy
    density = 100.0 * 28.97 / (8.314 * 293.15)
    stability = -0.4 * 9.8 * above * heat / (density * 1005.0 * 293.15 * velocity**3)
    stability = min(max(stability, -3.0), 0.25)

    def correction(z: float) -> float:
        if z >= 0.0:
            return -5.0 * z
        x = (1.0 - 16.0 * z) ** 0.25
        return 2 * math.log((1 + x) / 2) + math.log((1 + x * x) / 2) - 2 * math.atan(x) + math.pi / 2

    integral = math.log(above / roughness) - correction(stability) + correction(stability * roughness / above)
    return velocity / 0.4 * integral


@settings(deadline=None)
@given(st.floats(0.2, 1.2), st.floats(-40.0, 400.0), st.floats(0.3, 20.0), st.floats(1.5, 8.0))
def test_friction_velocity_is_that_of_the_profile(
    velocity: float, heat: float, canopy: float, ratio: float
) -> None:
    height = ratio * canopy + 2.0
    wind = profile_wind(velocity, heat, canopy, height)
    found = float(friction_velocity(wind, 20.0, 100.0, heat, canopy, height))
    again = profile_wind(found, heat, canopy, height)
    assert again == pytest.approx(max(wind, 0.75), rel=0.02) or found == pytest.approx(0.1)


def test_warm_ground_stirs_and_cold_ground_calms() -> None:
    neutral, warm, cold = (
        float(friction_velocity(2.0, 20.0, 100.0, heat, 1.0, 10.0)) for heat in (0.0, 300.0, -30.0)
    )
    assert cold < neutral < warm
    assert neutral == pytest.approx(0.4 * 2.0 / math.log(9.4 / 0.1), rel=1e-6)


@settings(deadline=None)
@given(st.floats(0.0, 100.0), st.floats(-1000.0, 2000.0), st.floats(0.01, 100.0))
def test_friction_velocity_is_always_a_number(wind: float, heat: float, canopy: float) -> None:
    found = float(friction_velocity(wind, 10.0, 95.0, heat, canopy, canopy + 10.0))
    assert 0.0999 <= found < 60.0


def test_the_correction_of_neutral_air_is_nothing() -> None:
    assert float(momentum_correction(0.0)) == pytest.approx(0.0, abs=1e-6)
    assert float(momentum_correction(-1.0)) > 0.0 > float(momentum_correction(0.1))


def test_each_way_needs_its_own_inputs() -> None:
    tower = [v.symbol for v in published_inputs(False, True, True, ())]
    assert tower == [
        *(
            "temperature",
            "vapour_pressure",
            "pressure",
            "shortwave",
            "wind_speed",
            "longwave",
            "friction_velocity",
        )
    ]
    aorc = [v.symbol for v in published_inputs(True, False, False, ("leaf_area_index",))]
    assert aorc[:8] == [
        *(
            "precipitation",
            "temperature",
            "specific_humidity",
            "pressure",
            "shortwave",
            "longwave",
            "wind_x",
            "wind_y",
        )
    ]
    assert aorc[8:] == ["leaf_area_index"]


def test_nextgens_weather_becomes_the_models() -> None:
    given = {
        "precipitation": 0.0,
        "temperature": 293.15,
        "specific_humidity": 0.008,
        "pressure": 1e5,
        "shortwave": 500.0,
        "longwave": 350.0,
        "wind_x": -3.0,
        "wind_y": 4.0,
    }
    monthly = dict.fromkeys(SLOW, monthly_table([2.0]))
    forcing, height = make_forcing(
        {symbol: np.array([value]) for symbol, value in given.items()},
        monthly,
        (np.array([182.0]), np.array([12.0])),
        np.array(np.nan),
        np.zeros(1),
    )
    assert float(forcing.wind_speed[0]) == pytest.approx(5.0, rel=1e-6)
    assert float(forcing.air_temperature[0]) == pytest.approx(20.0)
    assert float(forcing.vapour_pressure[0]) == pytest.approx(1.280, abs=2e-3)
    assert float(forcing.pressure[0]) == pytest.approx(100.0)
    assert float(height[0]) == 12.0  # 10 m above a canopy of 2 m
    assert float(forcing.friction_velocity[0]) == pytest.approx(0.4 * 5.0 / math.log(10.8 / 0.2), rel=1e-5)
    assert float(forcing.longwave[0]) == 350.0
