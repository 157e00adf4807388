"""Each process of the canopy gives, on random points, what the published model gave (golden, ten digits)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from canveg_golden import ANGLES, golden, load
from numpy.typing import ArrayLike

from bmi_components.ball_berry import conductance as ball_berry
from bmi_components.canveg import (
    air,
    air_flow,
    leaf_angles,
    leaf_energy,
    photosynthesis,
    sky,
    soil,
    soil_respiration,
    sun,
    thermodynamics,
)
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.parameters import default_parameters
from bmi_components.canveg.weather import Weather, prepare
from bmi_components.jax_precision import jax_precision


@pytest.fixture(autouse=True, scope="module")
def double_precision() -> Iterator[None]:
    with jax_precision("float64"):
        yield


@pytest.fixture(scope="module")
def points(shared_data: Path) -> dict[str, np.ndarray]:
    return golden(shared_data, "components_f64")


def agree(found: ArrayLike, expected: ArrayLike, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=0.0)


def weather(**fields: np.ndarray) -> Weather:
    """Return a weather of which only these quantities matter."""
    (size,) = {len(field) for field in fields.values()}
    return prepare(Forcing(**dict.fromkeys(Forcing._fields, np.ones(size)) | fields))


def test_saturation_and_its_slope_and_latent_heat(points: dict[str, np.ndarray]) -> None:
    kelvin = points["thermo.T"]
    pressure = thermodynamics.saturation_vapour_pressure(kelvin)
    vaporise = thermodynamics.latent_heat_of_vaporisation(kelvin, frozen_quirk=True)
    agree(pressure, points["thermo.es"])
    agree(vaporise, points["thermo.lambda"])
    agree(pressure * vaporise * 18.0 / (8314.0 * kelvin**2), points["thermo.desdt"])


def test_the_slope_of_saturation_is_its_derivative() -> None:
    kelvin = np.linspace(250.0, 320.0, 71)
    at = thermodynamics.saturation_vapour_pressure
    slope = thermodynamics.saturation_slope(kelvin, at(kelvin))
    agree(slope, (at(kelvin + 1e-3) - at(kelvin - 1e-3)) / 2e-3, 1e-7)


def test_surface_resistance_of_the_soil(points: dict[str, np.ndarray]) -> None:
    agree(soil.surface_resistance(points["soilres.theta"], 0.1), points["soilres.r"])


@pytest.mark.parametrize(
    ("name", "place"), [("Bi1", (38.0991538, -121.49933, -8)), ("Whs", (31.7438, -110.0522, -7))]
)
def test_elevation_of_the_sun(points: dict[str, np.ndarray], name: str, place: tuple[float, ...]) -> None:
    sine = sun.sine_of_elevation(*place, points["sun.day"], points["sun.hour"], rounded=True)
    agree(sine, points[f"sun.{name}.sin_beta"])
    agree(np.arcsin(sine), points[f"sun.{name}.beta_rad"])
    exact = sun.sine_of_elevation(*place, points["sun.day"], points["sun.hour"], rounded=False)
    np.testing.assert_allclose(exact, sine, atol=1e-5)  # pi has six digits


@pytest.mark.parametrize("number", range(6))
def test_inclinations_and_shadows_of_leaves(points: dict[str, np.ndarray], number: int) -> None:
    name, zenith = ANGLES[number], points["leafang.theta_sun"]
    expected = {
        key: points[f"leafang{number}.{key}"] for key in ("pdf", "Gfunc", "Gfunc_Sky", "integ_exp_diff")
    }
    agree(leaf_angles.inclination_density(name, rounded=True), expected["pdf"])
    agree(leaf_angles.projection(jnp.cos(zenith), jnp.sin(zenith), name, rounded=True), expected["Gfunc"])
    agree(leaf_angles.sky_projection(name, rounded=True), expected["Gfunc_Sky"])
    leaf_area = points["leafang.lai"] / 50 * 0.95
    agree(leaf_angles.diffuse_transmission(leaf_area, name, rounded=True), expected["integ_exp_diff"])


def test_light_of_sun_and_sky(points: dict[str, np.ndarray]) -> None:
    around = weather(shortwave=points["dd.rglobal"], pressure=points["dd.P_kPa"])
    found = sky.divide(around, points["dd.sin_beta"], visible_quirk=True, lost_at_dusk=True)
    for ours, theirs in zip(
        found, ("par_beam", "par_diffuse", "nir_beam", "nir_diffuse", "ratrad"), strict=True
    ):
        agree(ours, points[f"dd.{theirs}"])


def test_longwave_of_the_sky(points: dict[str, np.ndarray]) -> None:
    celsius, clearness = points["skyir.T"] - 273.15, points["dd.ratrad"]
    estimated = weather(air_temperature=celsius, longwave=np.full_like(celsius, np.nan))
    agree(sky.sky_longwave(estimated, clearness), points["skyir.ir_in"])
    measured = np.linspace(200.0, 400.0, len(celsius))
    agree(sky.sky_longwave(weather(air_temperature=celsius, longwave=measured), clearness), measured)


@pytest.mark.parametrize("sides", [0, 1])
def test_assimilation_and_stomata(points: dict[str, np.ndarray], sides: int) -> None:
    p = default_parameters()
    kelvin = points["ps.Tlk"]
    humidity = points["ps.eair_Pa"] / thermodynamics.saturation_vapour_pressure(kelvin)
    molar = kelvin * 101.3 * 0.022624 / (273.15 * points["ps.P_kPa"][:, None])
    around = photosynthesis.LeafAir(
        points["ps.cca"],
        1.0 / (points["ps.rb_co2"] * molar),
        p.conductance_slope * humidity,
        p.conductance_intercept,
    )
    rates = photosynthesis.biochemistry(kelvin, points["ps.Iphoton"], p, cold_oxygen=True, tied_dark=True)
    leaf = photosynthesis.assimilate_published(
        rates, around, p.conductance_slope, amphistomatous=bool(sides), rounded=True, respire_twice=True
    )
    agree(rates.dark_respiration, points[f"ps.st{sides}.rd"])
    agree(leaf.assimilation, points[f"ps.st{sides}.aphoto"])
    agree(leaf.conductance * molar, points[f"ps.st{sides}.gs_m_s"])


def test_the_network_of_humidity(points: dict[str, np.ndarray], shared_data: Path) -> None:
    p = load(shared_data, "US-Bi1_Hybrid-ML-0.5").parameters
    humidity = points["ps.eair_Pa"] / thermodynamics.saturation_vapour_pressure(points["ps.Tlk"])
    scaling = (p.scaling.soil_moisture_mean, p.scaling.soil_moisture_std)
    found = ball_berry.hybrid_humidity(
        points["ps.swc"][:, None], 1.0 / humidity, p.humidity_network, *scaling
    )
    agree(found, points["leafrh_nn.Bi1Hybrid"])


def test_resistances_of_leaves(points: dict[str, np.ndarray]) -> None:
    expansion = air_flow.gas_expansion(
        points["bl.P_kPa"][:, None], thermodynamics.log_temperature(points["bl.Tair"])
    )
    given = (points["bl.wind"], points["bl.Tleaf"], points["bl.Tair"], expansion, default_parameters())
    found = air_flow.leaf_resistances_published(*given)
    for ours, theirs in zip(found, ("heat", "vapor", "co2"), strict=True):
        agree(ours, points[f"bl.{theirs}"])
    # the smooth form transfers what forced and free convection do together: at most 2 ** (1 / 4) times the larger one
    ratio = np.asarray(found[0] / air_flow.leaf_resistances(*given)[0])
    assert ratio.min() > 0.999
    assert ratio.max() < 1.2


@pytest.mark.parametrize("sides", [0, 1])
def test_energy_of_leaves(points: dict[str, np.ndarray], sides: int) -> None:
    kelvin, pressure = points["bl.Tair"], points["bl.P_kPa"][:, None]
    around = leaf_energy.LeafAirState(
        kelvin,
        points["leb.eair"],
        thermodynamics.saturation_vapour_pressure(kelvin),
        thermodynamics.latent_heat_of_vaporisation(kelvin, frozen_quirk=True),
        pressure * 28.97 / (8.314 * kelvin),
        pressure,
    )
    both = {"amphistomatous": bool(sides)}
    resistance = leaf_energy.vapour_resistance(points["bl.vapor"], points["leb.gs"], **both)
    found = leaf_energy.balance_published(
        points["leb.qin"], around, points["bl.heat"], resistance, 0.98, **both
    )
    for ours, theirs in zip(found, ("LE", "H", "Rnet", "Tsfc"), strict=True):
        agree(ours, points[f"leb.st{sides}.{theirs}"])


def test_respiration_of_the_soil(points: dict[str, np.ndarray]) -> None:
    kelvin, moisture = points["rsoil.Tsoil"], points["rsoil.swc"]
    agree(soil_respiration.respiration_q10(kelvin, moisture, default_parameters()), points["rsoil.q10"])
    gross = points["rsoil.Ac"] + points["rsoil.Rd"]
    agree(
        soil_respiration.respiration_of_alfalfa(
            gross, points["rsoil.Rd"], kelvin, moisture, points["rsoil.veg_ht"]
        ),
        points["rsoil.alfalfa"],
    )


def test_concentrations_by_the_dispersion_matrix(points: dict[str, np.ndarray], shared_data: Path) -> None:
    params = golden(shared_data, "US-Bi1_test-model_params")
    p = {key: points[f"conc.{key}"] for key in ("source", "soilflux", "zL", "ustar", "factor", "cref")}
    scale = 1.0 / (p["ustar"] * p["factor"])
    leaves = (air.buoyancy_factor_published(p["zL"]) * scale)[:, None] * p["source"] * params["para.delz1"][0]
    sources = leaves + (p["soilflux"] * scale)[:, None] * (np.arange(leaves.shape[1]) == 0)
    departures = (params["dij"] - params["dij"][-1]).T
    agree(air.profile(p["cref"], sources, departures), points["conc.out"])


def test_smooth_buoyancy_is_the_published_one_where_the_air_is_unstable() -> None:
    unstable = np.linspace(-2.5, -0.05, 50)
    np.testing.assert_allclose(
        air.buoyancy_factor(unstable), air.buoyancy_factor_published(unstable), rtol=0.05
    )
