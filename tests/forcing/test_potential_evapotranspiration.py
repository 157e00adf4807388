"""PotentialEvapotranspiration: its hours add up to the equations' days, and it says what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components import PotentialEvapotranspiration
from bmi_components.errors import ConfigurationError
from bmi_components.forcing import pet
from bmi_components.forcing.evaporation import oudin

RATE = "land_surface_water__potential_evaporation_volume_flux"
WEATHER = {
    "land_surface_air__temperature": 18.0,
    "atmosphere_air_water~vapor__relative_saturation": 0.008,
    "land_surface_air__pressure": 98_000.0,
    "land_surface_radiation~incoming~shortwave__energy_flux": 600.0,
    "land_surface_radiation~incoming~longwave__energy_flux": 330.0,
    "land_surface_wind__x_component_of_velocity": 3.0,
    "land_surface_wind__y_component_of_velocity": -2.0,
}


def opened(folder: Path, text: str) -> PotentialEvapotranspiration:
    (folder / "c.yaml").write_text(text)
    model = PotentialEvapotranspiration()
    model.initialize(str(folder / "c.yaml"))
    return model


@settings(max_examples=25, deadline=None)
@given(
    hours=st.lists(st.floats(-5.0, 40.0), min_size=24, max_size=24),
    latitude=st.floats(-66.0, 66.0),
    date=st.dates(min_value=np.datetime64("1990-01-01").item(), max_value=np.datetime64("2030-12-31").item()),
)
def test_the_hours_of_a_day_are_oudins_day(
    hours: list[float], latitude: float, date: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = opened(
        tmp_path_factory.mktemp("oudin"),
        f"start_time: {date}\ncatchments: [{{id: a, latitude: {latitude!r}, attributes: {{}}}}]\n",
    )
    rates = []
    for temperature in hours:
        model.set_value("land_surface_air__temperature", np.array([temperature]))
        model.update()
        rates.append(model.get_value(RATE, np.empty(1))[0])
    day = np.array([np.datetime64(str(date), "s")])
    expected = oudin(np.array([[np.mean(hours)]]), np.array([latitude]), day)[0, 0]
    assert np.mean(rates) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_an_hour_of_penman_and_monteith(tmp_path: Path) -> None:
    model = opened(tmp_path, "method: penman_monteith\ncatchments: [{id: a, attributes: {}}]\n")
    assert set(model.get_input_var_names()) == set(WEATHER)
    for name, value in WEATHER.items():
        model.set_value(name, np.array([value]))
    model.update()
    expected = pet.penman_monteith_hourly(
        *(torch.tensor(value, dtype=torch.float64) for value in WEATHER.values())
    )
    noon = model.get_value(RATE, np.empty(1))[0]
    assert noon == pytest.approx(24.0 * float(expected), rel=1e-12)
    assert 5.0 < noon < 25.0  # an hour of a summer noon, as mm d-1
    model.set_value("land_surface_radiation~incoming~shortwave__energy_flux", np.zeros(1))
    model.set_value("atmosphere_air_water~vapor__relative_saturation", np.array([0.013]))
    model.update()
    assert model.get_value(RATE, np.empty(1))[0] == 0.0  # a moist night: dew is not evaporation


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("catchments: [{id: a, latitude: 40, attributes: {}}]\n", "start_time is missing"),
        ("start_time: 2000-01-01\ncatchments: [{id: far, attributes: {}}]\n", "catchment far: the latitude"),
        ("start_time: 2000-01-01\ncatchments: [{id: far, latitude: 95, attributes: {}}]\n", "catchment far"),
        ("start_time: 2000-01-01\n", "catchments"),
        ("method: hamon\ncatchments: [{id: a, attributes: {}}]\n", "method"),
    ],
)
def test_what_is_missing_is_one_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message):
        opened(tmp_path, text)
