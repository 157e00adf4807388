"""The Lorenz systems have their fixed points, symmetries and climate; trajectories follow from the seed."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.lorenz import SYSTEMS, lorenz63, lorenz96, runge_kutta_4, system, trajectory
from bmi_components.fourdvarnet.observability import smallest_errors


def test_the_convection_model_rests_at_its_three_fixed_points() -> None:
    across = np.sqrt(8.0 / 3.0 * 27.0)
    points = np.array([[0.0, 0.0, 0.0], [across, across, 27.0], [-across, -across, 27.0]])
    np.testing.assert_allclose(lorenz63(points), 0.0, atol=1e-12)


def test_the_convection_model_is_symmetric_about_its_axis() -> None:
    state, mirror = np.random.default_rng(0).normal(size=(5, 3)), np.array([-1.0, -1.0, 1.0])
    np.testing.assert_allclose(lorenz63(state * mirror), lorenz63(state) * mirror)


def test_the_latitude_circle_rests_when_uniform_and_knows_no_first_site() -> None:
    np.testing.assert_allclose(lorenz96(np.full(40, 8.0)), 0.0)
    state = np.random.default_rng(1).normal(size=40)
    np.testing.assert_allclose(lorenz96(np.roll(state, 7)), np.roll(lorenz96(state), 7))


def test_the_latitude_circle_conserves_energy_without_forcing_and_friction() -> None:
    state = np.random.default_rng(2).normal(size=(3, 40))
    advection = lorenz96(state, forcing=0.0) + state
    np.testing.assert_allclose((state * advection).sum(axis=-1), 0.0, atol=1e-12)


@pytest.mark.parametrize("name", SYSTEMS)
def test_steps_are_of_fourth_order(name: str) -> None:
    of = system(name)
    start = trajectory(of, 1, spin_up=2.0)[0]

    def end(steps: int) -> np.ndarray:
        state = start
        for _ in range(steps):
            state = runge_kutta_4(of.tendency, state, 0.08 / steps)
        return state

    exact = end(64)
    ratio = np.abs(end(2) - exact).max() / np.abs(end(4) - exact).max()
    assert 10.0 < ratio < 26.0


def test_numpy_and_jax_agree() -> None:
    state = np.random.default_rng(3).normal(size=(2, 40)).astype(np.float32)
    np.testing.assert_allclose(
        lorenz63(jnp.asarray(state[:, :3]), jnp), lorenz63(state[:, :3]), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(lorenz96(jnp.asarray(state), jnp), lorenz96(state), rtol=1e-5, atol=1e-5)
    assert not jax.config.jax_enable_x64


def test_a_trajectory_follows_from_its_seed_and_has_the_known_climate() -> None:
    of = system("lorenz63")
    several = trajectory(of, 400, members=50, seed=4)
    np.testing.assert_array_equal(several, trajectory(of, 400, members=50, seed=4))
    assert several.shape == (400, 50, 3)
    assert not np.allclose(several, trajectory(of, 400, members=50, seed=5))
    long = trajectory(of, 20_000)
    np.testing.assert_allclose(long.mean(axis=0), (0.0, 0.0, 23.5), atol=1.2)
    np.testing.assert_allclose(long.std(axis=0), (7.9, 9.0, 8.6), rtol=0.03)
    np.testing.assert_allclose(trajectory(system("lorenz96"), 2000, spin_up=50.0).std(), 3.64, rtol=0.05)


def test_an_unknown_system_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"'lorenz84' is unknown; choose one of lorenz63, lorenz96"):
        system("lorenz84")


def test_five_points_of_x_and_y_cannot_determine_z() -> None:
    of = system("lorenz63")
    states = trajectory(of, 8_000)[::80]
    climate = trajectory(of, 8_000)[:, 2].std()
    short = smallest_errors(of, states, 5, ("x", "y"), np.sqrt(2.0))[:, 2]
    long = smallest_errors(of, states, 200, ("x", "y"), np.sqrt(2.0))[:, 2]
    # no method whatever could tell z better than the climate does, for about half of the states
    assert 0.35 < (short > climate).mean() < 0.65
    assert np.median(long) < 0.4
    assert np.all(long < short)


def test_what_is_observed_perfectly_often_is_known_by_the_root_of_the_number() -> None:
    of = system("lorenz63")
    bound = smallest_errors(of, trajectory(of, 1), 1, ("x", "y", "z"), 0.5)
    np.testing.assert_allclose(bound, 0.5, rtol=1e-5)
    assert np.isinf(smallest_errors(of, trajectory(of, 1), 1, ("x",), 0.5)).all()
