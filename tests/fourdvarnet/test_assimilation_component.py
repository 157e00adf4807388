"""The FourDVarNet component analyses the window that its observations make, wherever the run is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fourdvarnet_bundles import COMPONENTS, WINDOW, configuration, make_model
from numpy.typing import NDArray

from bmi_components import FourDVarNet
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.fourdvarnet import names

Array = NDArray[np.float64]


def observations(steps: int, sites: int, seed: int = 0) -> Array:
    """Values of about the right size every third step, ``[time, component, site]``."""
    random = np.random.default_rng(seed)
    values = random.normal([[0.0], [0.0], [24.0]], 8.0, (steps, 3, sites))
    values[np.arange(steps) % 3 != 0] = np.nan
    return values


def opened(path: Path) -> FourDVarNet:
    component = FourDVarNet()
    component.initialize(str(path))
    return component


def read(component: FourDVarNet, role: object, sites: int) -> Array:
    """One output of every component, ``[site, component]``."""
    return np.array([component.get_value_ptr(role(c).name).copy() for c in COMPONENTS]).T  # type: ignore[operator]


def advance(component: FourDVarNet, row: Array) -> None:
    for name, values in zip(COMPONENTS, row, strict=True):
        component.set_value(names.observed(name).name, values)
    component.update()


def test_the_analysis_is_the_solvers_for_the_latest_window(tmp_path: Path) -> None:
    steps, sites = 20, 2
    component, rows = opened(configuration(tmp_path, f"sites: {sites}\n")), observations(steps, sites)
    for row in rows:
        advance(component, row)
    window = rows[-WINDOW:].transpose(2, 0, 1)
    expected = make_model().solve(window.astype(np.float32))
    trajectory = np.array(expected.trajectory)
    np.testing.assert_allclose(read(component, names.analysed, sites), trajectory[:, -1], rtol=1e-5)
    np.testing.assert_allclose(read(component, names.lagged, sites), trajectory[:, -5], rtol=1e-5)
    np.testing.assert_allclose(component.get_value_ptr(names.COST.name), expected.cost, rtol=1e-5)
    for number, name in enumerate(COMPONENTS):
        whole = component.get_value_ptr(names.trajectory(name).name).reshape(WINDOW, sites)
        np.testing.assert_allclose(whole, trajectory[:, :, number].T, rtol=1e-5)
    np.testing.assert_array_equal(component.get_value_ptr(names.NUMBER_OF_OBSERVATIONS.name), 12)


def test_before_anything_is_observed_nothing_is_known(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path, "sites: 2\n"))
    advance(component, np.full((3, 2), np.nan))
    assert np.isnan(read(component, names.analysed, 2)).all()
    seen = np.full((3, 2), np.nan)
    seen[0, 1] = 4.0
    advance(component, seen)
    assert np.isnan(read(component, names.analysed, 2)[0]).all()
    assert np.isfinite(read(component, names.analysed, 2)[1]).all()
    np.testing.assert_array_equal(component.get_value_ptr(names.NUMBER_OF_OBSERVATIONS.name), [0, 1])


@pytest.mark.parametrize("extra", ["", "start: warm\n", "ensemble: {members: 3, noise: 1.4}\n"])
def test_a_restart_goes_on_bit_for_bit(extra: str, tmp_path: Path) -> None:
    path, rows = configuration(tmp_path, f"sites: 2\n{extra}"), observations(20, 2)
    straight, first = opened(path), opened(path)
    for row in rows:
        advance(straight, row)
    for row in rows[:7]:
        advance(first, row)
    first.save_state(tmp_path / "state")
    second = opened(path)
    second.load_state(tmp_path / "state")
    for row in rows[7:]:
        advance(second, row)
    for name in straight.get_output_var_names():
        np.testing.assert_array_equal(straight.get_value_ptr(name), second.get_value_ptr(name))


def test_a_site_is_analysed_for_itself(tmp_path: Path) -> None:
    rows = observations(15, 3)
    many, alone = opened(configuration(tmp_path, "sites: 3\n")), opened(configuration(tmp_path, "sites: 1\n"))
    for row in rows:
        advance(many, row)
        advance(alone, row[:, 1:2])
    np.testing.assert_allclose(
        read(many, names.analysed, 3)[1], read(alone, names.analysed, 1)[0], rtol=1e-5, atol=1e-5
    )


def test_a_warm_analysis_never_costs_more_than_the_previous_one_moved_on(tmp_path: Path) -> None:
    component, rows = opened(configuration(tmp_path, "start: warm\n")), observations(24, 1)
    model, kept = make_model(), 0
    for step, row in enumerate(rows):
        before = np.array([component.get_value_ptr(names.trajectory(c).name).copy() for c in COMPONENTS]).T
        advance(component, row)
        seen = np.full((1, WINDOW, 3), np.nan, np.float32)
        known = rows[max(0, step + 1 - WINDOW) : step + 1, :, 0]
        seen[0, -len(known) :] = known
        moved = np.concatenate([before[1:], before[-1:]])[None].astype(np.float32)
        fresh = model.solve(seen)
        candidates = [(float(fresh.cost[0]), np.array(fresh.trajectory)[0])]
        if np.isfinite(moved).all():
            candidates.append((float(model.solve(seen, moved, 0).cost[0]), moved[0]))
        cost, trajectory = min(candidates, key=lambda pair: pair[0])
        kept += trajectory is not candidates[0][1]
        assert component.get_value_ptr(names.COST.name)[0] == pytest.approx(cost, rel=1e-4)
        np.testing.assert_allclose(
            read(component, names.analysed, 1)[0], trajectory[-1], rtol=1e-3, atol=1e-3
        )
    assert 0 < kept < len(rows)


def test_innovations_are_against_the_forecast_that_is_given(tmp_path: Path) -> None:
    component = opened(configuration(tmp_path, "background: true\n"))
    forecast = [1.0, 2.0, 20.0]
    for name, value in zip(COMPONENTS, forecast, strict=True):
        component.set_value(names.state(name).name, np.array([value]))
    advance(component, np.array([[4.0], [np.nan], [25.0]]))
    np.testing.assert_allclose(read(component, names.innovation, 1), [[3.0, np.nan, 5.0]])


def test_without_noise_to_speak_of_the_members_agree(tmp_path: Path) -> None:
    rows = observations(10, 1)
    quiet = opened(configuration(tmp_path, "ensemble: {members: 4, noise: 1.0e-6}\n"))
    loud = opened(configuration(tmp_path, "ensemble: {members: 4, noise: 2.0}\n"))
    for row in rows:
        advance(quiet, row)
        advance(loud, row)
    assert (read(quiet, names.spread, 1) < 1e-3).all()
    assert (read(loud, names.spread, 1) > 1e-2).all()
    np.testing.assert_array_equal(read(quiet, names.analysed, 1), read(loud, names.analysed, 1))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("lag: 12\n", "window has 12 steps"),
        ("dtype: float64\n", "float32"),
        ("ensemble: {members: 1, noise: 1.0}\n", "members"),
    ],
)
def test_settings_that_cannot_be_are_refused(extra: str, message: str, tmp_path: Path) -> None:
    path = configuration(tmp_path)
    path.write_text(path.read_text().replace("lag: 4\n", "" if "lag" in extra else "lag: 4\n") + extra)
    with pytest.raises(ConfigurationError, match=message):
        opened(path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    shipped = Path(__file__).resolve().parents[2] / "models" / "streamflow_lstm"
    path.write_text(f"model: {shipped}\n")
    with pytest.raises(BundleError, match="fourdvarnet"):
        opened(path)
