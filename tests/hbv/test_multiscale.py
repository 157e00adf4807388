"""The multi-timescale model: imported from a δMG folder, spun up by the day, stepped by the hour without a break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from deltamg_folders import folder_mts

from bmi_components import DeltaHBV
from bmi_components.errors import ValueShapeError
from bmi_components.hbv.model import DeltaHBV as HBVModel
from bmi_components.hbv.multiscale import MultiTimescaleHBV, steppable_model
from bmi_components.importers import load_model

ATTRIBUTES = {
    "aridity": 0.9,
    "meanP": 950.0,
    "meanelevation": 300.0,
    "catchsize": 10.0,
    "lengthkm": 7.0,
    "uparea": 10.0,
}
RUNOFF = "land_surface_water__runoff_volume_flux"
INPUTS = (
    "atmosphere_water__liquid_equivalent_precipitation_rate",
    "land_surface_air__temperature",
    "land_surface_water__potential_evaporation_volume_flux",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_mts(tmp_path / "dhbv_2_mts")


@pytest.fixture
def model(folder: Path) -> MultiTimescaleHBV:
    found = steppable_model(load_model(folder))
    assert isinstance(found, MultiTimescaleHBV)
    return found.double()


def weather(hours: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    rain = (
        40.0 * torch.rand(hours, 1, generator=generator) * (torch.rand(hours, 1, generator=generator) < 0.2)
    )
    temperature = 8.0 + 10.0 * torch.sin(torch.arange(hours)[:, None] / 24.0 * 2 * torch.pi)
    return torch.stack([rain, temperature, torch.full_like(rain, 2.0)], -1).double()


def attributes(model: MultiTimescaleHBV) -> torch.Tensor:
    return torch.tensor([[ATTRIBUTES[name] for name in model.hourly.attribute_names]]).double()


def test_the_record_is_days_for_the_daily_and_the_last_hours_for_the_hourly_model(
    model: MultiTimescaleHBV,
) -> None:
    hours = 40 * 24 + model.window
    record = weather(hours)
    with torch.no_grad():
        catchments, state = model.warm_up(record, attributes(model))
        days = record[: 40 * 24].reshape(40, 24, 1, 3).mean(1)
        _, daily = model.daily.warm_up(days, attributes(model))
        start = model.hand_over(daily, model.hourly.initial_state(1))
        again, _ = model.hourly.simulate(start, record[40 * 24 :], catchments)
    torch.testing.assert_close(start.stores[:5], daily.stores)
    for ours, theirs in zip(state, again, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_shared_static_parameters_are_the_daily_ones(model: MultiTimescaleHBV) -> None:
    bound, alone = model.bind(attributes(model)), model.hourly.bind(attributes(model), None)
    daily = model.daily.bind(attributes(model), None)
    by_day = {p.symbol: i for i, p in enumerate(model.daily.static_bounds)}
    for i, p in enumerate(model.hourly.static_bounds):
        expected = daily.static[by_day[p.symbol]] if p.symbol in by_day else alone.static[i]
        torch.testing.assert_close(bound.static[i], expected)
    assert {p.symbol for p in model.hourly.static_bounds} - set(by_day) == {"F0", "ALPHA", "KS"}


def test_too_short_a_record_is_refused(model: MultiTimescaleHBV) -> None:
    with pytest.raises(ValueShapeError, match="too short"):
        model.warm_up(weather(model.window), attributes(model))


def test_the_component_steps_the_imported_model(
    folder: Path, model: MultiTimescaleHBV, tmp_path: Path
) -> None:
    """NextGen's file names the folder; hours go by without the published jump every seven days."""
    values = "".join(f"{name}: {value}\n" for name, value in ATTRIBUTES.items())
    path = tmp_path / "cat-1.yml"
    path.write_text(
        f"catchment_id: cat-1\nmodel_dir: {folder}\npet_method: penman_monteith\nlatitude: 39.1\n{values}"
    )
    component = DeltaHBV()
    component.initialize(str(path))
    assert component.get_time_step() == 3600.0

    own = tmp_path / "own.yaml"
    listed = ", ".join(f"{name}: {value}" for name, value in ATTRIBUTES.items())
    own.write_text(
        f"model: {folder}\ndtype: float64\ncatchments: [{{id: cat-1, attributes: {{{listed}}}}}]\n"
    )
    component = DeltaHBV()
    component.initialize(str(own))
    hourly: HBVModel = model.hourly
    forcing = weather(24 * 9)
    with torch.no_grad():
        catchments = model.bind(attributes(model))
        _, expected = hourly.simulate(hourly.initial_state(1), forcing, catchments)
    for hour, simulated in zip(forcing[:, 0], expected[:, 0, 0], strict=True):
        for name, value, per in zip(INPUTS, hour.tolist(), (24.0, 1.0, 24.0), strict=True):
            component.set_value(name, np.array([value / per]))
        component.update()
        runoff = component.get_value(RUNOFF, np.empty(1))[0]
        assert runoff == pytest.approx(float(simulated), rel=1e-8, abs=1e-9)
