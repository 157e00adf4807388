"""Our side of the canopy benchmark: series, single steps, first calls and gradients."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scratch import write
from worker import serve

from bmi_components import CanVeg as Component
from bmi_components.canveg.dispersion import dispersion_matrix
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.model import CanVeg
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, default_parameters
from bmi_components.canveg.settled import compiled

jax.config.update("jax_enable_x64", True)

STEPS = 480
TUNED = [row.name for row in TABLE if row.trained][:17]


def weather(steps: int) -> Forcing:
    """Return half-hourly days of June in California."""
    hour = (np.arange(steps) * 0.5) % 24.0
    sun = np.maximum(np.sin(np.pi * (hour - 5.0) / 14.0), 0.0)
    gusts = np.random.default_rng(1).uniform(0.7, 1.4, steps)

    def column(values: Any) -> Any:
        return np.broadcast_to(np.asarray(values, float), (steps,))[:, None]

    return Forcing(
        day_of_year=column(170.0 + np.arange(steps) // 48),
        hour=column(hour),
        air_temperature=column(16.0 + 12.0 * sun),
        shortwave=column(950.0 * sun * np.minimum(gusts, 1.0)),
        vapour_pressure=column(1.3),
        wind_speed=column(3.0 * gusts),
        co2=column(410.0),
        pressure=column(101.0),
        friction_velocity=column((0.12 + 0.3 * sun) * gusts),
        soil_temperature=column(20.0),
        soil_moisture=column(0.2),
        leaf_area_index=column(2.5),
        canopy_height=column(0.8),
        longwave=column(np.nan),
    )


def model(mode: str, layers: int) -> CanVeg:
    """Return a canopy with the table's parameters."""
    above = 50
    options = Options(mode=mode, layers=layers, atmosphere_layers=above, stomata="amphistomatous")
    ratio = 2.0 if mode == "reference" and layers > 1 else 5.0 / 0.8
    return CanVeg(
        options,
        Site(38.1, -121.5, -8.0, 0.8, 5.0),
        default_parameters(),
        dispersion_matrix(layers, above, measurement_height_ratio=ratio),
    )


def series(mode: str, layers: int) -> Callable[[], dict[str, Any]]:
    """Make ten days at once."""
    canopy, forcing = model(mode, layers), weather(STEPS)

    def call() -> dict[str, Any]:
        fluxes, _ = canopy.simulate(forcing)
        return {"converged": float(fluxes.converged.mean())}

    return call


def first(mode: str, layers: int) -> Callable[[], dict[str, Any]]:
    """Make the first step of a process, with all that is compiled for it."""
    canopy = model(mode, layers)
    air = jax.tree.map(lambda x: x[24], weather(48))
    state = canopy.initial_state()

    def call() -> dict[str, Any]:
        start = time.process_time()
        jax.block_until_ready(canopy.step(state, air))
        return {"seconds": time.process_time() - start}

    return call


def gradient(mode: str, layers: int, derive: bool) -> Callable[[], None]:
    """Compute a day's loss, or its gradient by 17 parameters."""
    canopy, forcing = model(mode, layers), weather(48)

    def loss(values: dict[str, Any]) -> Any:
        fluxes, _ = canopy.simulate(forcing, parameters=canopy.parameters._replace(**values))
        return jnp.mean(fluxes.latent_heat**2) + jnp.mean(fluxes.net_ecosystem_exchange**2)

    function = compiled(jax.value_and_grad(loss) if derive else loss)
    values = {name: getattr(canopy.parameters, name) for name in TUNED}

    def call() -> None:
        jax.block_until_ready(function(values))

    return call


def component(mode: str, layers: int) -> Callable[[], None]:
    """Make one step of one site through BMI, its input set before."""
    settings = {
        "options": {"mode": mode, "layers": layers, "atmosphere_layers": 50},
        "time_step": "half_hourly",
        "start_time": "2020-06-18",
        "sites": [
            {
                "id": "field",
                "latitude": 38.1,
                "longitude": -121.5,
                "utc_offset": -8,
                "canopy_height": 0.8,
                "measurement_height": 5.0,
            }
        ],
        "friction_velocity": "input",
        "longwave": "estimate",
        "carbon_dioxide": 410.0,
        "leaf_area_index": 2.5,
        "soil_water_content": 0.2,
        "soil_temperature": 20.0,
        "profiles": False,
    }
    canopy = Component()
    canopy.initialize(write(f"canveg_{mode}_{layers}.yaml", settings))
    values = {
        "land_surface_radiation~incoming~shortwave__energy_flux": 700.0,
        "land_surface_air__temperature": 297.0,
        "land_surface_air__pressure": 101000.0,
        "atmosphere_bottom_air_water~vapor__partial_pressure": 1.3,
        "land_surface_wind__speed": 3.0,
        "land_surface_wind__shear_speed": 0.4,
    }
    arrays = {name: np.array([values[name]]) for name in canopy.get_input_var_names()}

    def call() -> None:
        for name, value in arrays.items():
            canopy.set_value(name, value)
        canopy.update()

    return call


if __name__ == "__main__":
    serve({"series": series, "first": first, "gradient": gradient, "component": component})
