"""Golden runs of the published canopy model: their options, parameters and weather, and ours of the same, run once."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np

from bmi_components.ball_berry.network import Network
from bmi_components.canveg.fluxes import Fluxes
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.model import CanVeg
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters, default_parameters
from bmi_components.canveg.photosynthesis import dark_respiration_of
from bmi_components.jax_precision import jax_precision

ANGLES = ("erectophile", "spherical", "planophile", "plagiophile", "extremophile", "uniform")
"""By the published model's numbers."""

STOMATA = ("hypostomatous", "amphistomatous")

HEIGHTS = {"US-Bi1": (0.8, 5.0), "US-Whs": (1.0, 6.5), "US-Me2": (18.0, 34.0)}
"""Of canopy and measurement, m."""

MET = {
    "day_of_year": "day",
    "hour": "hhour",
    "air_temperature": "T_air",
    "shortwave": "rglobal",
    "vapour_pressure": "eair",
    "wind_speed": "wind",
    "co2": "CO2",
    "pressure": "P_kPa",
    "friction_velocity": "ustar",
    "soil_temperature": "Tsoil",
    "soil_moisture": "soilmoisture",
    "leaf_area_index": "lai",
    "canopy_height": "zcanopy",
}


class Case(NamedTuple):
    """What a golden run was made from; forcing ``[time, 1]``."""

    options: Options
    site: Site
    parameters: Parameters
    dispersion: np.ndarray
    forcing: Forcing

    def model(self, **options: Any) -> CanVeg:
        """Return the model, with options changed."""
        chosen = {name: getattr(self.options, name) for name in self.options.__struct_fields__} | options
        return CanVeg(Options(**chosen), self.site, self.parameters, self.dispersion)

    def steps(self, first: int, last: int) -> Forcing:
        return Forcing(*(field[first:last] for field in self.forcing))


def golden(folder: Path, name: str) -> dict[str, np.ndarray]:
    """Return all arrays of a golden file."""
    with np.load(folder / "golden" / "canveg" / f"{name}.npz") as file:
        return dict(file)


def forcing_of(arrays: dict[str, np.ndarray], prefix: str = "met.") -> Forcing:
    """Return the weather of a golden file, ``[time, 1]``."""
    fields = {name: arrays[prefix + theirs][:, None] for name, theirs in MET.items()}
    return Forcing(**fields, longwave=np.full_like(fields["hour"], np.nan))


def load(folder: Path, name: str) -> Case:
    """Return what the golden run of this name (site and case) was made from."""
    site = name[:6]
    given = golden(folder, f"{name}_params")
    matrix = given["dij"].reshape(len(given["dij"]), -1)
    layers = matrix.shape[1]
    options = Options(
        mode="reference",
        layers=layers,
        atmosphere_layers=matrix.shape[0] - layers,
        stomata=STOMATA[int(given["setup.stomata"])],
        leaf_angles=ANGLES[int(given["setup.leafangle"])],
        conductance="hybrid" if given["setup.leafrh"] else "ball_berry",
    )
    place = (float(given[f"setup.{key}"]) for key in ("lat_deg", "long_deg", "time_zone"))
    values = {row.name: float(given[f"para.{row.published_name}"]) for row in TABLE if row.published_name}
    values["dark_respiration_25"] = dark_respiration_of(values["maximum_carboxylation"])
    parameters = default_parameters(values)
    kind = parameters.clumping.dtype

    def network(name: str) -> Network:
        parts = ("weight", "bias")
        return Network(
            *(tuple(jnp.asarray(given[f"para.{name}.{i}.{part}"], kind) for i in range(3)) for part in parts)
        )

    scaling = parameters.scaling._replace(
        soil_moisture_mean=jnp.asarray(given["para.var_mean.soilmoisture"].item(), kind),
        soil_moisture_std=jnp.asarray(given["para.var_std.soilmoisture"].item(), kind),
    )
    return Case(
        options,
        Site(*place, *HEIGHTS[site], given["para.soil_depth"].item()),
        parameters._replace(
            humidity_network=network("LeafRHDL"), respiration_network=network("RsoilDL"), scaling=scaling
        ),
        matrix,
        forcing_of(golden(folder, f"{site}_forcing_obs")),
    )


def _single() -> AbstractContextManager[Any]:
    """Return a context in which JAX knows single precision only."""
    if hasattr(jax, "enable_x64"):
        off: AbstractContextManager[Any] = jax.enable_x64(False)
        return off
    before: AbstractContextManager[Any] = jax.experimental.disable_x64()  # JAX 0.7
    return before


@cache
def month(
    folder: Path, name: str, mode: str = "reference", dtype: str = "float64", warmer: float = 0.0
) -> Fluxes:
    """Return our month of a golden run, ``[time]`` and profiles ``[time, layer]``; in air warmer by a share."""
    # the tests around may have double precision switched on
    with _single() if dtype == "float32" else jax_precision(dtype):
        case = load(folder, name)
        forcing = case.forcing._replace(air_temperature=case.forcing.air_temperature * (1.0 + warmer))
        fluxes, _ = case.model(mode=mode).simulate(forcing)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], fluxes)
