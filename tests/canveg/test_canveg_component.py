"""CanVeg as a component gives what the model gives, wherever its inputs come from and the run is cut."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from canveg_configurations import SITES, SLOW, START, configuration, opened, run, weather

from bmi_components import CanVeg
from bmi_components.canveg import model as models
from bmi_components.canveg.dispersion import dispersion_matrix
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.names import AIR, CANOPY, PROFILES
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import default_parameters
from bmi_components.canveg.program import compiled
from bmi_components.errors import BmiComponentsError, ConfigurationError, ForcingError, StateError
from bmi_components.jax_precision import jax_precision

LATENT_HEAT = "land_surface__upward_latent_heat_energy_flux"
EXCHANGE = "land_surface_carbon-dioxide__net_ecosystem_exchange_mole_flux"
RATE = "land_surface_water__evapotranspiration_volume_flux"
DEPTH = "land_surface_water__evapotranspiration_depth"


@pytest.fixture(autouse=True, scope="module")
def kept_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Optimise little, and keep programs in a folder of the tests: compiling takes nearly all of their time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "programs"))
        jax.config.update("jax_disable_most_optimizations", True)
        yield
        jax.config.update("jax_disable_most_optimizations", False)


def test_the_component_gives_what_the_model_gives(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path))
    rows = weather(component, 4)
    found = run(component, rows)
    by_symbol = [{component.variables[name].symbol: row[name] for name in row} for row in rows]
    with jax_precision("float64"):
        options = Options(mode="reference", layers=3, atmosphere_layers=4)
        site = Site(38.1, -121.5, -8.0, 0.8, 5.0)
        parameters = default_parameters(dtype=np.float64)
        model = models.CanVeg(options, site, parameters, dispersion_matrix(3, 4))
        state = model.initial_state(1)
        for step, row in enumerate(by_symbol):
            forcing = Forcing(
                day_of_year=np.array([182.0]),
                hour=np.array([8.5 + 0.5 * step]),  # of the step's end; 16:00 UTC is 8 o'clock in California
                air_temperature=row["temperature"] - 273.15,
                shortwave=row["shortwave"],
                vapour_pressure=row["vapour_pressure"],
                wind_speed=row["wind_speed"],
                co2=np.array([410.0]),
                pressure=row["pressure"] / 1000.0,
                friction_velocity=row["friction_velocity"],
                soil_temperature=np.array([14.0]),
                soil_moisture=np.array([0.2]),
                leaf_area_index=np.array([2.5]),
                canopy_height=np.array([0.8]),
                longwave=np.array([np.nan]),  # estimated
            )
            state, fluxes = model.step(state, forcing)
            named = {component.variables[name].symbol: values for name, values in found[step].items()}
            for symbol, expected in (
                ("latent_heat", fluxes.latent_heat),
                ("sensible_heat", fluxes.sensible_heat),
                ("ground_heat", fluxes.soil_heat),
                ("net_radiation", fluxes.net_radiation),
                ("net_ecosystem_exchange", fluxes.net_ecosystem_exchange),
                ("gross_primary_production", fluxes.gross_primary_production),
                ("canopy_conductance", fluxes.canopy_conductance),
                ("soil_respiration", fluxes.soil_respiration),
                ("converged", fluxes.converged),
            ):
                np.testing.assert_allclose(named[symbol], expected, rtol=1e-9, atol=1e-9, err_msg=symbol)
            for v, profile in zip(PROFILES, fluxes.profiles, strict=True):
                scale = 1e-3 if v.units == "kPa" else 1.0
                shift = -273.15 if v.units == "degC" else 0.0
                np.testing.assert_allclose(named[v.symbol], scale * profile[0] + shift, rtol=1e-9, atol=1e-9)


def test_profiles_end_at_the_measured_weather_and_have_their_own_grids(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path, sites=2))
    (row,) = weather(component, 1)
    run(component, [row])
    for v in PROFILES:
        size = 2 * {CANOPY: 3, AIR: 7}[v.grid]
        grid = component.get_var_grid(v.name)
        assert component.get_value_ptr(v.name).size == size == component.get_grid_face_count(grid)
    temperature, vapour = (component.get_value_ptr(v.name).reshape(7, 2) for v in PROFILES[:2])
    symbols = {component.variables[name].symbol: values for name, values in row.items()}
    np.testing.assert_allclose(temperature[-1], symbols["temperature"] - 273.15, rtol=1e-9)
    np.testing.assert_allclose(vapour[-1], symbols["vapour_pressure"], rtol=1e-9)


def test_without_profiles_the_fluxes_are_the_same(tmp_path: Path) -> None:
    whole, lean = (opened(configuration(tmp_path, extra)) for extra in ("", "profiles: false\n"))
    rows = weather(whole, 2)
    first, second = run(whole, rows), run(lean, rows)
    assert len(second[0]) == len(first[0]) - len(PROFILES)
    for name, values in second[-1].items():
        np.testing.assert_allclose(values, first[-1][name], rtol=1e-10)


@pytest.mark.parametrize("mode", ["reference", "corrected"])
def test_a_site_among_others_is_as_it_is_alone(tmp_path: Path, mode: str) -> None:
    many = opened(
        configuration(tmp_path, sites=2, mode=mode)
    )  # of different heights: each has its dispersion matrix
    alone = opened(configuration(tmp_path, mode=mode))
    rows = weather(many, 3)
    first = run(many, rows)
    second = run(alone, [{name: values[:1] for name, values in row.items()} for row in rows])
    for name, values in second[-1].items():
        np.testing.assert_allclose(first[-1][name].reshape(-1, 2)[:, 0], values, rtol=1e-9, atol=1e-12)
    assert first[-1][LATENT_HEAT][0] != first[-1][LATENT_HEAT][1]


def test_evapotranspiration_is_latent_heat_as_water(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path))
    (found,) = run(component, weather(component, 1))
    heat = found[LATENT_HEAT][0] / found[RATE][0]
    assert heat == pytest.approx(
        3_149_000.0 - 2370.0 * 286.0, rel=3e-3
    )  # at the air's temperature, about 13 degC
    assert found[DEPTH][0] == pytest.approx(found[RATE][0] * 1800.0 / 1000.0, rel=1e-12)
    assert component.get_var_units(RATE) == "mm s-1"


def test_a_restart_goes_on_bit_for_bit(tmp_path: Path) -> None:
    path = configuration(tmp_path, "friction_velocity: profile\n", sites=2)
    straight, first, second = opened(path), opened(path), opened(path)
    rows = weather(straight, 5)
    expected = run(straight, rows)
    run(first, rows[:3])
    first.save_state(tmp_path / "state")
    second.load_state(tmp_path / "state", restore_clock=True)
    found = run(second, rows[3:])
    for name, values in found[-1].items():
        np.testing.assert_array_equal(values, expected[-1][name])
    with pytest.raises(StateError):
        opened(configuration(tmp_path)).load_state(tmp_path / "state")


def test_soil_remembers_the_step_before(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    warm, cold = opened(path), opened(path)
    before, after = weather(warm, 2)
    run(warm, [{name: values + 12.0 * ("temperature" in name) for name, values in before.items()}])
    run(cold, [before])
    first, second = run(warm, [after])[0], run(cold, [after])[0]
    ground = "soil__downward_heat_energy_flux"
    assert first[ground][0] < second[ground][0] - 1.0


# --- inputs, quantities and the calendar -----------------------------------------------------------------------------


def test_a_constant_twelve_equal_months_and_an_input_are_the_same(tmp_path: Path) -> None:
    months = SLOW.replace("2.5", str([2.5] * 12))
    given = SLOW.replace("2.5", "input")
    results = []
    for slow in (SLOW, months, given):
        component = opened(configuration(tmp_path, slow=slow))
        (row,) = weather(component, 1)
        row["land_vegetation__leaf-area_index"] = np.array([2.5])
        if slow is not given:
            del row["land_vegetation__leaf-area_index"]
            assert "land_vegetation__leaf-area_index" not in component.get_input_var_names()
        for name in row:
            row[name][:] = {"land_vegetation__leaf-area_index": 2.5}.get(name, row[name][0])
        results.append((row, component))
    base = results[0][0]
    found = [run(c, [base | {n: v for n, v in row.items() if n not in base}])[0] for row, c in results]
    for other in found[1:]:
        for name, values in other.items():
            np.testing.assert_allclose(values, found[0][name], rtol=1e-10, atol=1e-13)


def test_the_sun_is_the_same_on_either_clock(tmp_path: Path) -> None:
    utc = opened(configuration(tmp_path))
    local = opened(configuration(tmp_path, "clock: local\n", start=START.replace("16:00", "08:00")))
    rows = weather(utc, 30)
    first, second = run(utc, rows), run(local, rows)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one[LATENT_HEAT], other[LATENT_HEAT])


def test_without_an_offset_the_longitude_tells_the_hour(tmp_path: Path) -> None:
    told = opened(configuration(tmp_path))
    path = configuration(tmp_path)
    path.write_text(path.read_text().replace("utc_offset: -8, ", ""))
    guessed = opened(path)
    rows = weather(told, 24)
    np.testing.assert_array_equal(run(told, rows)[-1][EXCHANGE], run(guessed, rows)[-1][EXCHANGE])


# --- parameters ------------------------------------------------------------------------------------------------------


def test_a_parameter_can_be_configured_and_set_for_each_site(tmp_path: Path) -> None:
    path = configuration(tmp_path, "parameters: {kball: 4.0}\n", sites=2)
    path.write_text(
        path.read_text().replace(
            "measurement_height: 34.0}", "measurement_height: 34.0, parameters: {bprime: 0.2}}"
        )
    )
    component, changed = opened(path), opened(path)
    np.testing.assert_array_equal(component.get_value_ptr("conductance_slope"), [4.0, 4.0])
    np.testing.assert_array_equal(component.get_value_ptr("conductance_intercept"), [0.05, 0.2])
    changed.set_value("maximum_carboxylation", np.array([171.0, 60.0]))
    rows = weather(component, 2)
    before, after = run(component, rows)[-1], run(changed, rows)[-1]
    assert after[EXCHANGE][0] == pytest.approx(before[EXCHANGE][0], rel=1e-9)
    assert after[EXCHANGE][1] > before[EXCHANGE][1]  # less uptake


# --- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((START, ""), "start_time"),
        (("latitude: 38.1, ", ""), "site meadow: latitude is missing"),
        (("latitude: 38.1", "latitude: 138.1"), "not on the globe"),
        (("canopy_height: 0.8, ", ""), "site meadow: canopy_height is missing"),
        (("measurement_height: 5.0", "measurement_height: 0.5"), "above"),
        (("leaf_area_index: 2.5", "leaf_area_index: -1.0"), "leaf_area_index is -1"),
        (("leaf_area_index: 2.5", "leaf_area_index: [1.0, 2.0]"), "leaf_area_index"),
        (("leaf_area_index: 2.5", "leaf_area_index: satellite"), "leaf_area_index"),
        ((SITES, "sites: []\n"), "sites"),
        (("utc_offset: -8", "utc_offset: -800"), "utc_offset"),
        (("layers: 3", "layers: 0"), "layers"),
        (("options", "parameters: {kbal: 3.0}\noptions"), "no parameter 'kbal'"),
        (("options", "time_step: daily\noptions"), "time_step"),
        (("options", "model: nowhere\noptions"), "options"),
        (("options", "device: cuda:99\noptions"), "cuda:99"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = configuration(tmp_path)
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(BmiComponentsError, match=message):
        opened(path)


def test_two_sites_of_one_name_are_refused(tmp_path: Path) -> None:
    path = configuration(tmp_path, sites=2)
    path.write_text(path.read_text().replace("id: wood", "id: meadow"))
    with pytest.raises(ConfigurationError, match="twice"):
        opened(path)


def test_forcing_without_a_finite_solution_is_refused_and_nothing_has_changed(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    component, expected = opened(path), opened(path)
    first, second = weather(component, 2)
    run(component, [first])
    before = {name: component.get_value_ptr(name).copy() for name in component.get_output_var_names()}
    component.set_value("leaf_length", np.array([-0.04]))
    for name, values in second.items():
        component.set_value(name, values)
    with pytest.raises(ForcingError, match="meadow has no finite solution with temperature"):
        component.update()
    for name, values in before.items():
        np.testing.assert_array_equal(component.get_value_ptr(name), values)
    component.set_value("leaf_length", np.array([0.04]))
    found, wanted = run(component, [second]), run(expected, [first, second])
    np.testing.assert_array_equal(found[0][LATENT_HEAT], wanted[1][LATENT_HEAT])


# --- programs, devices and precision ---------------------------------------------------------------------------------


def test_instances_share_one_program(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    opened(path)
    before = compiled.cache_info().misses
    other = configuration(tmp_path)
    other.write_text(other.read_text().replace("latitude: 38.1", "latitude: -20.0").replace("2.5", "1.5"))
    for _ in range(3):
        opened(path)
        opened(other)
    assert compiled.cache_info().misses == before


def test_double_precision_stays_inside(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path))
    run(component, weather(component, 1))
    assert jnp.zeros(1).dtype == jnp.float32 or jax.config.jax_enable_x64
    assert component._run is not None
    assert {array.dtype for array in component._run.stepper.read_state().values()} == {np.dtype(np.float64)}


def test_on_a_device_tensors_go_in_and_out_without_the_host(tmp_path: Path) -> None:
    host, device = (opened(configuration(tmp_path, extra)) for extra in ("", "device: cpu:0\n"))
    rows = weather(host, 2)
    expected = run(host, rows)[-1]
    for row in rows:
        for name, values in row.items():
            device.set_tensor(name, values)
        device.update()
    found = device.get_tensor(LATENT_HEAT)
    assert isinstance(found, jax.Array)
    assert found.dtype == np.float64
    for name, values in expected.items():
        np.testing.assert_allclose(device.get_value_ptr(name), values, rtol=1e-6 if name == DEPTH else 1e-12)


def test_single_precision_is_close(tmp_path: Path) -> None:
    double, single = opened(configuration(tmp_path)), opened(configuration(tmp_path, "dtype: float32\n"))
    rows = weather(double, 2)
    first, second = run(single, rows)[-1], run(double, rows)[-1]
    np.testing.assert_allclose(first[LATENT_HEAT], second[LATENT_HEAT], rtol=1e-3)


KEPT = """
import sys
import jax
jax.config.update("jax_disable_most_optimizations", True)
from bmi_components import CanVeg
component = CanVeg()
component.initialize(sys.argv[1])
assert jax.config.jax_compilation_cache_dir is None
for name in component.get_input_var_names():
    component.set_value(name, [dict(temperature=290.0, pressure=1e5).get(component.variables[name].symbol, 1.0)])
component.update()
"""


def test_another_process_finds_the_program_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = configuration(tmp_path), Path(os.environ["XDG_CACHE_HOME"])
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)

    def programs() -> dict[str, int]:
        subprocess.run([sys.executable, "-c", KEPT, str(path)], check=True)
        return {file.name: file.stat().st_mtime_ns for file in folder.rglob("*") if "atime" not in file.name}

    first = programs()
    assert any(name.startswith("jit_") for name in first)
    assert programs() == first


def test_the_class_costs_no_framework() -> None:
    program = "import sys, bmi_components; bmi_components.CanVeg(); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert CanVeg().get_component_name() == "CanVeg"
