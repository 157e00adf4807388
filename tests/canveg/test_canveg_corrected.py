"""The canopy model in corrected mode: nothing is lost, everything is converged, derivatives are true and finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from canveg_golden import Case, load, month
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.canveg import coupled
from bmi_components.canveg.dispersion import dispersion_matrix
from bmi_components.canveg.fluxes import Fluxes
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.layers import make_stack, propagate
from bmi_components.canveg.model import STEPS_AT_ONCE, CanVeg
from bmi_components.canveg.options import Options
from bmi_components.canveg.settled import compiled
from bmi_components.canveg.sun import sine_of_elevation
from bmi_components.canveg.surroundings import surroundings
from bmi_components.jax_precision import jax_precision

TOWERS = ("US-Bi1_test-model", "US-Whs_test-model", "US-Me2_test-model")

TUNED = (
    "conductance_intercept",
    "conductance_slope",
    "maximum_carboxylation",
    "maximum_electron_transport",
    "dark_respiration_25",
    "quantum_yield",
    "leaf_length",
    "clumping",
    "leaf_emissivity",
    "soil_emissivity",
    "par_reflectance",
    "nir_reflectance",
    "nir_transmittance",
    "par_soil_reflectance",
    "nir_soil_reflectance",
    "carboxylation_optimum",
    "respiration_base",
    "respiration_q10",
    "soil_conductivity",
    "surface_moisture",
)


@pytest.fixture(autouse=True, scope="module")
def double_precision() -> Iterator[None]:
    with jax_precision("float64"):
        yield


@pytest.fixture(scope="module", params=TOWERS)
def tower(request: pytest.FixtureRequest, shared_data: Path, bouldin: Case) -> tuple[Case, Fluxes]:
    """A month of a tower, with the published default parameters."""
    if "Whs" not in request.param:
        return load(shared_data, request.param), month(shared_data, request.param, "corrected")
    # the leaf angles of another tower, whose program is compiled already
    case = load(shared_data, request.param)._replace(options=bouldin.options)
    fluxes, _ = case.model(mode="corrected").simulate(case.forcing)
    return case, jax.tree.map(lambda leaf: np.asarray(leaf)[:, 0], fluxes)


@pytest.fixture(scope="module")
def bouldin(shared_data: Path) -> Case:
    return load(shared_data, TOWERS[0])


# --- balances --------------------------------------------------------------------------------------------------------


def test_the_solution_is_converged(tower: tuple[Case, Fluxes]) -> None:
    _, f = tower
    assert np.mean(f.converged) == 1.0
    assert np.quantile(f.residual, 0.99) <= coupled.TOLERANCE


def test_energy_of_canopy_leaves_and_soil_is_closed(tower: tuple[Case, Fluxes]) -> None:
    _, f = tower
    for name, rest in {
        "canopy": f.net_radiation - f.latent_heat - f.sensible_heat - f.soil_heat,
        "leaves": f.canopy_net_radiation - f.canopy_latent_heat - f.canopy_sensible_heat,
        "soil": f.soil_net_radiation - f.soil_latent_heat - f.soil_sensible_heat - f.soil_heat,
        "reported": f.imbalance,
    }.items():
        assert np.abs(rest).max() < 1e-3, name


def test_radiation_that_enters_is_absorbed(tower: tuple[Case, Fluxes]) -> None:
    _, f = tower
    assert np.abs(f.net_radiation - f.absorbed_radiation).max() < 1e-2


def test_shortwave_is_absorbed_or_reflected_and_the_albedo_is_real(tower: tuple[Case, Fluxes]) -> None:
    case, f = tower
    model = case.model(mode="corrected")
    around = compiled(surroundings, static_argnums=0)(
        model.options, model.site, model.parameters, case.forcing
    )
    sunlit = np.stack([around.sunlit, 1.0 - around.sunlit], axis=-2)
    leaves = np.sum(sunlit * around.shortwave * np.asarray(around.leaf_area)[..., None, None], axis=(-2, -1))[
        :, 0
    ]
    soil, reflected = np.asarray(around.soil_shortwave)[:, 0], f.reflected_shortwave
    incoming = np.maximum(case.forcing.shortwave[:, 0], 0.0)
    np.testing.assert_allclose(leaves + soil + reflected, incoming, rtol=1e-9, atol=1e-9)
    assert min(leaves.min(), soil.min(), reflected.min()) >= 0.0
    noon = incoming > 500.0
    albedo = reflected[noon] / incoming[noon]
    assert albedo.min() > 0.08
    assert albedo.max() < 0.35


@pytest.mark.parametrize("seed", range(3))
def test_the_direct_solution_of_radiation_is_what_sweeps_end_at(seed: int) -> None:
    random = np.random.default_rng(seed)
    layers = 12
    forward = random.uniform(0.3, 0.9)
    backward = random.uniform(0.0, 1.0 - forward)
    send_down, send_up = random.uniform(0.0, 5.0, (2, layers))
    top, reflectance, ground = random.uniform(0.0, 1.0, 3) * (300.0, 0.5, 50.0)
    down, up = np.zeros(layers + 1), np.zeros(layers + 1)
    down[-1] = top
    for _ in range(4000):
        for n in range(layers - 1, -1, -1):
            down[n] = down[n + 1] * forward + up[n] * backward + send_down[n]
        up[0] = reflectance * down[0] + ground
        for n in range(layers):
            up[n + 1] = up[n] * forward + down[n + 1] * backward + send_up[n]
    found = propagate(
        make_stack(jnp.asarray(forward), jnp.asarray(backward), layers),
        *(jnp.asarray(x) for x in (send_down, send_up, top, reflectance, ground)),
    )
    np.testing.assert_allclose(found.down, down, rtol=1e-9)
    np.testing.assert_allclose(found.up, up, rtol=1e-9)


# --- steps and memory ------------------------------------------------------------------------------------------------

FIVE = ("latent_heat", "sensible_heat", "soil_heat", "net_radiation", "net_ecosystem_exchange")


def test_stepping_is_the_series(bouldin: Case, shared_data: Path) -> None:
    model, whole = bouldin.model(mode="corrected"), month(shared_data, TOWERS[0], "corrected")
    state = model.initial_state(1)
    for step in range(52):  # over the end of a piece
        state, found = model.step(state, Forcing(*(field[step] for field in bouldin.forcing)))
        for name in FIVE:
            assert abs(getattr(found, name)[0] - getattr(whole, name)[step]) < 0.02, (name, step)


def test_a_series_goes_on_from_where_it_was_left(bouldin: Case, shared_data: Path) -> None:
    model, whole = bouldin.model(mode="corrected"), month(shared_data, TOWERS[0], "corrected")
    # whole pieces, as the month is compiled for
    _, state = model.simulate(bouldin.steps(0, STEPS_AT_ONCE))
    rest, _ = model.simulate(bouldin.steps(STEPS_AT_ONCE, 2 * STEPS_AT_ONCE), state)
    for name in FIVE:
        expected = getattr(whole, name)[STEPS_AT_ONCE : 2 * STEPS_AT_ONCE]
        np.testing.assert_allclose(np.asarray(getattr(rest, name))[:, 0], expected, atol=0.02, err_msg=name)


def test_the_soil_remembers_for_hours_and_forgets_in_days(bouldin: Case) -> None:
    model = bouldin.model(mode="corrected")
    _, state = model.simulate(bouldin.steps(0, STEPS_AT_ONCE))
    warm = state._replace(temperature=state.temperature + 5.0)
    later = bouldin.steps(STEPS_AT_ONCE, 3 * STEPS_AT_ONCE)
    (usual, _), (warmed, end) = (model.simulate(later, s) for s in (state, warm))
    less = np.asarray(usual.soil_heat - warmed.soil_heat)[:, 0]
    assert less[0] > 20.0  # W m-2: the soil gives off what it holds
    assert 1.0 < less[8] < less[0]
    assert abs(less[-1]) < 0.1
    assert end.temperature.shape == (1, model.options.soil_layers)


def test_peat_takes_up_less_heat_by_day_and_gives_off_less_by_night(bouldin: Case) -> None:
    model, day = bouldin.model(mode="corrected"), bouldin.steps(STEPS_AT_ONCE, 2 * STEPS_AT_ONCE)
    mineral, peat = (
        np.asarray(
            model.simulate(day, parameters=bouldin.parameters._replace(soil_conductivity=k))[0].soil_heat
        )[:, 0]
        for k in (np.float64(1.0), np.float64(0.2))
    )
    # what enters a half-space of soil within a day goes with the root of its conductivity; the air holds some back
    assert 0.4 < np.std(peat) / np.std(mineral) < 0.8
    assert peat.max() < mineral.max()
    assert peat.min() > mineral.min()


@pytest.mark.parametrize(("mode", "more"), [("corrected", 2.0), ("reference", 1.0)])
def test_dark_respiration_is_a_parameter_of_its_own_but_in_the_published_model(
    bouldin: Case, mode: str, more: float
) -> None:
    model, night = bouldin.model(mode=mode), bouldin.steps(0, 4)

    def respired(rate: float) -> Any:
        fluxes, _ = model.simulate(
            night, parameters=bouldin.parameters._replace(dark_respiration_25=np.float64(rate))
        )
        return np.asarray(fluxes.dark_respiration)

    np.testing.assert_allclose(respired(1.6) / respired(0.8), more, rtol=1e-2)  # leaves hardly warm


@pytest.mark.parametrize("time_step", [1800.0, 3600.0])
def test_the_same_light_before_and_after_noon_is_reflected_alike(bouldin: Case, time_step: float) -> None:
    steps = round(86400.0 / time_step)
    ends = np.arange(1, steps + 1)[:, None] * time_step / 3600.0
    hours = np.linspace(10.0, 14.0, 40001)
    place = (float(x) for x in bouldin.site[:3])
    noon = hours[np.argmax(sine_of_elevation(*place, 100.0, hours, rounded=False))]
    site = bouldin.site._replace(longitude=bouldin.site.longitude + 15.0 * (noon - 12.0))
    light = np.maximum(np.cos(np.pi * (ends - 0.5 * time_step / 3600.0 - 12.0) / 12.0), 0.0)
    one = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x)[:1], ends.shape), bouldin.steps(0, 1))
    forcing = one._replace(hour=ends % 24.0, day_of_year=np.full(ends.shape, 100.0), shortwave=600.0 * light)
    options = Options(layers=2, atmosphere_layers=2, time_step=time_step)
    reflected = np.asarray(surroundings(options, site, bouldin.parameters, forcing).reflected_shortwave)
    assert reflected.max() > 50.0
    np.testing.assert_allclose(reflected, reflected[::-1], atol=0.05)


# --- derivatives -----------------------------------------------------------------------------------------------------

STEPS = 2


def three(fluxes: Fluxes) -> Any:
    """Return latent heat and net ecosystem exchange of the last step, and sensible heat of all."""
    return jnp.stack(
        [fluxes.latent_heat[-1, 0], fluxes.net_ecosystem_exchange[-1, 0], fluxes.sensible_heat.sum()]
    )


class Derivatives:
    """A canopy of two layers over two steps: fluxes, and the derivatives of three of them by reverse mode."""

    def __init__(self, case: Case) -> None:
        self.parameters = case.parameters
        self.values = np.array([getattr(case.parameters, name) for name in TUNED])
        self.forcing = case.steps(507, 507 + STEPS)  # of 12 July, to half past two
        model = CanVeg(
            Options(layers=2, atmosphere_layers=2, stomata=case.options.stomata),
            case.site,
            case.parameters,
            dispersion_matrix(2, 2, measurement_height_ratio=5.0 / 0.8),
        )

        def fluxes(values: Any, forcing: Forcing) -> tuple[Any, Fluxes]:
            changed = {name: values[index] for index, name in enumerate(TUNED)}
            found, _ = model.simulate(forcing, parameters=self.parameters._replace(**changed))
            return three(found), found

        def pulled_back(values: Any, forcing: Forcing, weights: Any) -> tuple[Any, Fluxes]:
            _, pull_back, found = jax.vjp(fluxes, values, forcing, has_aux=True)
            return pull_back(weights), found

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(coupled, "TOLERANCE", 1e-12)
            traced = compiled(pulled_back, leaves=2 * STEPS).lower(self.values, self.forcing, np.zeros(3))
        self._pulled_back: Callable[..., Any] = traced.compile()

    def derive(self, values: Any, forcing: Forcing) -> tuple[Any, Fluxes]:
        """Return derivatives by values and forcing, of the three fluxes along their first axis; and all fluxes."""
        rows = [self._pulled_back(values, forcing, weights) for weights in np.eye(3)]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(row[0] for row in rows)), rows[0][1]

    def central(self, values: Any, forcing: Forcing, change: Callable[[float], tuple[Any, Forcing]]) -> Any:
        """Return the change of the three fluxes per share of change."""
        step = 1e-4
        high, low = (three(self._pulled_back(*change(sign * step), np.zeros(3))[1]) for sign in (1.0, -1.0))
        return (np.asarray(high) - np.asarray(low)) / (2.0 * step)


@pytest.fixture(scope="module")
def derivatives(bouldin: Case) -> Derivatives:
    return Derivatives(bouldin)


def test_derivatives_by_parameters_are_central_differences(derivatives: Derivatives) -> None:
    d = derivatives
    (found, _), fluxes = d.derive(d.values, d.forcing)
    assert np.all(fluxes.converged == 1.0)
    for index, name in enumerate(TUNED):
        unit = np.eye(len(TUNED))[index]
        expected = d.central(
            d.values, d.forcing, lambda share, unit=unit: (d.values * (1.0 + share * unit), d.forcing)
        )
        assert np.abs(expected).max() > 1e-4, name  # all of them matter
        np.testing.assert_allclose(
            found[:, index] * d.values[index], expected, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_derivatives_by_weather_are_central_differences(derivatives: Derivatives) -> None:
    d = derivatives
    (_, found), _ = d.derive(d.values, d.forcing)
    for name in set(Forcing._fields) - {"longwave", "canopy_height"}:
        field = getattr(d.forcing, name)
        for step in range(STEPS):
            unit = np.eye(STEPS)[:, [step]]
            expected = d.central(
                d.values,
                d.forcing,
                lambda share, name=name, field=field, unit=unit: (
                    d.values,
                    d.forcing._replace(**{name: field * (1.0 + share * unit)}),
                ),
            )
            ours = getattr(found, name)[:, step, 0] * field[step, 0]
            np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5, err_msg=f"{name} of step {step}")


# --- any weather -----------------------------------------------------------------------------------------------------

RANGES = {
    "day_of_year": (1.0, 366.0),
    "hour": (0.0, 23.5),
    "air_temperature": (-35.0, 48.0),
    "shortwave": (-12.0, 1250.0),
    "vapour_pressure": (0.02, 4.5),
    "wind_speed": (0.0, 20.0),
    "co2": (330.0, 650.0),
    "pressure": (72.0, 104.0),
    "friction_velocity": (0.0, 9.0),
    "soil_temperature": (-15.0, 42.0),
    "soil_moisture": (0.0, 0.6),
    "leaf_area_index": (0.0, 8.0),
    "canopy_height": (0.1, 20.0),
}
"""What towers measure, faults included: negative radiation at night, soil without water, no leaves, strong wind."""

EDGES = {
    "shortwave": 0.0,
    "soil_moisture": 0.0,
    "leaf_area_index": 0.0,
    "friction_velocity": 0.0,
    "wind_speed": 0.0,
}


@st.composite
def weathers(draw: st.DrawFn) -> Forcing:
    def value(name: str) -> st.SearchStrategy[float]:
        within = st.floats(*RANGES[name])
        return st.one_of(st.just(EDGES[name]), within) if name in EDGES else within

    fields = {name: np.array([[draw(value(name))] for _ in range(STEPS)]) for name in RANGES}
    measured = st.one_of(st.just(np.nan), st.floats(120.0, 480.0))
    return Forcing(**fields, longwave=np.array([[draw(measured)] for _ in range(STEPS)]))


def everything_is_finite(derivatives: Derivatives, forcing: Forcing) -> Fluxes:
    slopes, fluxes = derivatives.derive(derivatives.values, forcing)
    for path, leaf in jax.tree_util.tree_leaves_with_path((fluxes, slopes)):
        assert np.all(np.isfinite(leaf)), jax.tree_util.keystr(path)
    return fluxes


@settings(max_examples=150, deadline=None)
@given(forcing=weathers())
def test_any_weather_gives_finite_fluxes_and_derivatives(derivatives: Derivatives, forcing: Forcing) -> None:
    fluxes = everything_is_finite(derivatives, forcing)
    assert np.abs(fluxes.imbalance[fluxes.converged == 1.0]).max(initial=0.0) < 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"shortwave": 0.0, "hour": 1.0},
        {"shortwave": -10.0, "hour": 1.0},
        {"shortwave": 0.0},
        {"shortwave": 40.0, "hour": 20.0},  # light after sunset
        {"leaf_area_index": 0.0},
        {"leaf_area_index": 0.0, "shortwave": 0.0, "hour": 1.0},
        {"soil_moisture": 0.0},
        {"soil_temperature": -8.0, "air_temperature": -20.0, "vapour_pressure": 0.1},
        {"wind_speed": 0.0, "friction_velocity": 0.0},
        {"vapour_pressure": 0.0},
        {"longwave": 300.0},
    ],
)
def test_edges_of_the_weather(derivatives: Derivatives, changes: dict[str, float]) -> None:
    fields = {name: np.full((STEPS, 1), value) for name, value in changes.items()}
    everything_is_finite(derivatives, derivatives.forcing._replace(**fields))
