"""The methods that 4DVarNet is measured against do what they should, and the comparison says what it holds for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fourdvarnet_models import small_model, small_recipe

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.baselines import (
    ensemble_kalman_smoother,
    linear_interpolation,
    strong_constraint_4dvar,
)
from bmi_components.fourdvarnet.evaluation import compare, markdown, score, write_comparison
from bmi_components.fourdvarnet.lorenz import System, system, trajectory
from bmi_components.fourdvarnet.observations import PROTOCOLS, ObservationProtocol, cut_windows, observe

LORENZ = system("lorenz63")
STATES = trajectory(LORENZ, 3000)


def windows(
    protocol: ObservationProtocol, count: int = 4, length: int = 100
) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    truth = cut_windows(STATES, length, count, generator)
    return truth, observe(truth, protocol, LORENZ.components, generator)


def test_interpolation_passes_through_observations_and_knows_only_the_mean_of_the_rest() -> None:
    _, seen = windows(PROTOCOLS["x_only"])
    mean = STATES.mean(axis=0)
    found = linear_interpolation(seen, mean)
    mask = np.isfinite(seen)
    np.testing.assert_allclose(found[mask], seen[mask], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found[:, :, 1:], np.broadcast_to(mean[1:], found[:, :, 1:].shape), rtol=1e-5)


@pytest.mark.parametrize("components", [None, ("x",), ("x", "y")])
def test_4dvar_finds_the_truth_from_perfect_observations(components: tuple[str, ...] | None) -> None:
    truth, seen = windows(ObservationProtocol(components=components, noise_variance=0.0, blank_ends=4))
    found = strong_constraint_4dvar(LORENZ, seen, STATES, starts=16)
    np.testing.assert_allclose(found, truth, atol=0.05)


def test_the_ensemble_smoother_is_better_than_interpolation_and_than_its_observations() -> None:
    truth, seen = windows(PROTOCOLS["fablet"], count=8, length=200)
    smoothed = ensemble_kalman_smoother(LORENZ, seen, STATES, 2.0)
    interior = slice(30, -30)
    error = ((smoothed - truth)[:, interior] ** 2).mean()
    assert error < 0.3
    assert error < 0.2 * ((linear_interpolation(seen, STATES.mean(axis=0)) - truth)[:, interior] ** 2).mean()


def test_the_ensemble_smoother_of_a_constant_is_the_weighted_mean() -> None:
    """With a state that stays as it is, the exact answer is the mean of observations and prior by their precision."""
    constant = System("constant", ("a",), 1.0, lambda state, xp: 0.0 * state, (0.0,))
    generator = np.random.default_rng(1)
    prior = 3.0 * generator.standard_normal((20_000, 1))
    truth = np.full((40, 6, 1), 2.0)
    seen = truth + generator.standard_normal(truth.shape)
    seen[:, ::2] = np.nan
    smoothed = ensemble_kalman_smoother(constant, seen, prior, 1.0, members=2000, inflation=1.0)
    exact = np.nansum(seen, axis=(1, 2)) / (3.0 + 1.0 / 9.0)
    np.testing.assert_allclose(smoothed[:, :, 0], np.broadcast_to(exact[:, None], (40, 6)), atol=0.1)


def test_scores_say_where_the_errors_are() -> None:
    truth = np.zeros((2, 10, 2))
    analysis = truth.copy()
    analysis[0, 0, 0] = 2.0  # at the end, observed
    analysis[1, 5, 1] = 4.0  # inside, not observed
    seen = np.full_like(truth, np.nan)
    seen[:, 0, 0] = 0.0
    scores = score(analysis, truth, seen, crop=2)
    assert scores.all_steps == pytest.approx(20.0 / 40.0)
    assert scores.observed == pytest.approx(4.0 / 2.0)
    assert scores.unobserved == pytest.approx(16.0 / 38.0)
    assert scores.interior == pytest.approx(16.0 / 24.0)
    assert scores.median == pytest.approx((4.0 + 16.0) / 2.0 / 20.0)
    assert scores.components == pytest.approx((4.0 / 20.0, 16.0 / 20.0))
    with pytest.raises(ConfigurationError, match="leave nothing of 10"):
        score(analysis, truth, seen, crop=5)


def test_a_comparison_states_its_protocol_and_draws_itself(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    comparison = compare(recipe, small_model(), progress=False)
    write_comparison(comparison, tmp_path)
    text = markdown(comparison)
    assert "all components every 8 steps, noise variance 2, 10 steps at both ends blank" in text
    assert "leaves out 4 steps" in text
    assert {one.windows for one in comparison.scores.values()} == {3, 6}
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 7
    for name in ("trajectory", "error_by_lead", "cost"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    with pytest.raises(ConfigurationError, match="the model is for windows of 24 steps"):
        compare(small_recipe(tmp_path, data=type(recipe.data)()), small_model(), progress=False)
