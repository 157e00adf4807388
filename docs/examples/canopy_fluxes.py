"""Judge a canopy model and see what its fluxes depend on, at a tower that does not exist.

    python docs/examples/canopy_fluxes.py FOLDER

The weather is generated. What the tower "measured" is the shipped model of alfalfa with the scatter of eddy covariance
added; the models that are judged have the parameters before training, in both modes. The figures are those of the
notebooks of JAX-CanVeg: time series, diurnal cycles, scatter, and sensitivity by hour of the day. Run from the root of
the repository.
"""

import sys
from pathlib import Path

import msgspec
import numpy as np

from bmi_components.canveg.evaluation import evaluate, simulate_tower, write_evaluations
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.model import CanVeg, load_model
from bmi_components.canveg.options import Mode
from bmi_components.canveg.parameters import TABLE, Parameters
from bmi_components.canveg.sensitivity import derivatives_by_step, write_derivatives_by_step
from bmi_components.canveg.tower import MEASURED, TowerFluxes, TowerForcing
from bmi_components.forcing.readers import ForcingSource, read_forcing
from bmi_components.jax_precision import jax_precision
from bmi_components.variables import variable

HOUR = 3600
UTC_OFFSET = -8
SYMBOLS = (
    *("temperature", "shortwave", "vapour_pressure", "wind_speed", "carbon_dioxide", "pressure"),
    *("friction_velocity", "soil_temperature", "soil_water_content", "leaf_area_index", "longwave"),
)


def sample_tower(start: str, end: str) -> TowerForcing:
    """Return generated weather of the sample's western hills, in local standard time."""
    source = ForcingSource(kind="sample", time_step="1 hour", catchments=("oceanic-hills",))
    made = read_forcing(source, [variable(symbol) for symbol in SYMBOLS], start=start, end=end)
    one = {symbol: made.values[symbol][:, 0] for symbol in SYMBOLS}
    kelvin = {symbol: variable(symbol).units == "K" for symbol in ("temperature", "soil_temperature")}
    time = made.time.astype("datetime64[s]") + np.timedelta64(UTC_OFFSET * HOUR, "s")
    end_of_step = time + np.timedelta64(HOUR, "s")
    day = end_of_step.astype("datetime64[D]")
    forcing = Forcing(
        day_of_year=(day - day.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.float64) + 1.0,
        hour=(end_of_step - day).astype(np.float64) / HOUR,
        air_temperature=one["temperature"] - 273.15 * kelvin["temperature"],
        shortwave=one["shortwave"],
        vapour_pressure=one["vapour_pressure"],
        wind_speed=one["wind_speed"],
        co2=one["carbon_dioxide"],
        pressure=one["pressure"] / 1000.0,
        friction_velocity=one["friction_velocity"],
        soil_temperature=one["soil_temperature"] - 273.15 * kelvin["soil_temperature"],
        soil_moisture=one["soil_water_content"],
        leaf_area_index=one["leaf_area_index"],
        canopy_height=np.full(len(time), 0.8),
        longwave=one["longwave"],
    )
    return TowerForcing("sample tower", time, HOUR, forcing)


def variant(model: CanVeg, mode: Mode, parameters: Parameters) -> CanVeg:
    """Return a model by the hour in a mode and with parameters."""
    options = msgspec.structs.replace(model.options, mode=mode, time_step=float(HOUR))
    return CanVeg(options, model.site, parameters, model.dispersion)


def measured(model: CanVeg, forcing: TowerForcing) -> TowerFluxes:
    """Return simulated fluxes with a tenth of themselves, and something more, as scatter; a tenth is missing."""
    rng = np.random.default_rng(0)
    fluxes = {}
    for name, values in simulate_tower(model, forcing, MEASURED).items():
        floor = 10.0 if name.endswith(("heat", "radiation")) else 0.5
        scattered = values + rng.laplace(0.0, floor + 0.1 * np.abs(values))
        fluxes[name] = np.where(rng.random(len(forcing)) < 0.1, np.nan, scattered)
    return TowerFluxes(forcing.site, forcing.time, HOUR, **fluxes)


def main(folder: Path, days: int = 20) -> None:
    """Write scores, series and figures."""
    forcing = sample_tower("1998-06-10", "1998-07-20").select(slice(0, 24 * days))
    with jax_precision("float64"):
        shipped = load_model("models/canveg_us_bi1_process_1l")
        truth = variant(shipped, "corrected", shipped.parameters)
        observed = measured(truth, forcing)
        defaults = shipped.parameters._replace(**{row.name: row.default for row in TABLE})
        judged = [
            evaluate(variant(shipped, mode, defaults), forcing, observed, name=f"before training, {mode}")
            for mode in ("corrected", "reference")
        ]
        write_evaluations(judged, folder)
        write_derivatives_by_step(derivatives_by_step(truth, forcing), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
