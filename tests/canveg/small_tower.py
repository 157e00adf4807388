"""A made-up tower: forcing of some weeks, and what the stand-in canopy would measure there."""

from __future__ import annotations

import numpy as np
from canopy_stand_in import StandIn

from bmi_components.canveg.evaluation import simulate_tower
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.tower import MEASURED, TowerFluxes, TowerForcing


def make_forcing(days: int = 20, step: int = 1800) -> TowerForcing:
    steps = days * 86_400 // step
    time = np.datetime64("2020-07-01T00:00:00") + np.arange(steps) * np.timedelta64(step, "s")
    hour = (np.arange(1, steps + 1) * step / 3600.0) % 24.0
    day = 183.0 + (np.arange(1, steps + 1) * step // 86_400)
    light = np.maximum(np.sin(np.pi * (hour - 6.0) / 12.0), 0.0) * (0.7 + 0.3 * np.cos(day))
    nothing = np.zeros(steps)
    forcing = Forcing(
        day_of_year=day,
        hour=hour,
        air_temperature=18.0 + 8.0 * np.sin(np.pi * (hour - 9.0) / 12.0) + np.sin(day),
        shortwave=900.0 * light,
        vapour_pressure=nothing + 1.2,
        wind_speed=nothing + 2.5,
        co2=nothing + 410.0,
        pressure=nothing + 101.0,
        friction_velocity=nothing + 0.3,
        soil_temperature=nothing + 20.0,
        soil_moisture=0.3 - 0.2 * np.arange(steps) / steps,
        leaf_area_index=nothing + 2.0,
        canopy_height=nothing + 0.8,
        longwave=nothing * np.nan,
    )
    return TowerForcing("US-Xxx", time, step, forcing)


def make_fluxes(forcing: TowerForcing, **shifts: float) -> TowerFluxes:
    """Return what the stand-in gives, shifted; every fifth step is a gap."""
    simulated = simulate_tower(StandIn(), forcing, MEASURED)
    gaps = np.arange(len(forcing)) % 5 == 3
    values = {name: np.where(gaps, np.nan, simulated[name] + shifts.get(name, 0.0)) for name in MEASURED}
    return TowerFluxes(forcing.site, forcing.time, forcing.step, **values)
