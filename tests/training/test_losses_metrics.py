"""Losses and metrics: equal to the golden numbers, and true to what their names promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bmi_components.errors import ConfigurationError, ValueShapeError
from bmi_components.training.losses import LOSSES, Spread, get_loss, range_bound
from bmi_components.training.metrics import compute_metrics, kge, nse

WARM_UP = 50
"""Days that the golden losses leave out."""


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / "golden" / "hbv" / "losses_metrics.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nse", "NseBatchLoss"),
        ("nse_sqrt", "NseSqrtBatchLoss"),
        ("nse_log", "NseLogBatchLoss"),
        ("nse_trend", "NseTrendBatchLoss"),
        ("kge", "KgeBatchLoss"),
        ("nkge", "KgeNormBatchLoss"),
        ("mse", "MseLoss"),
        ("rmse", "RmseLoss"),
        ("rmse_combined", "RmseCombLoss"),
    ],
)
def test_losses_equal_the_golden_numbers(golden: dict[str, np.ndarray], name: str, key: str) -> None:
    gauges = golden["ids"]
    all_observed = golden["y_obs"][..., 0]
    spread = Spread(
        torch.tensor(np.nanstd(all_observed, axis=0)[gauges]),
        torch.tensor(np.nanstd(np.log(np.maximum(all_observed, 0.01)), axis=0)[gauges]),
    )
    observed = torch.tensor(all_observed[WARM_UP:, gauges])
    simulated = torch.tensor(golden["y_pred"][WARM_UP:, gauges, 0])
    assert float(LOSSES[name](simulated, observed, spread)) == pytest.approx(
        float(golden[f"loss_{key}"]), rel=1e-6
    )


def test_metrics_equal_the_golden_numbers(golden: dict[str, np.ndarray]) -> None:
    ours = compute_metrics(golden["y_pred"][..., 0], golden["y_obs"][..., 0])
    theirs = {key.removeprefix("metric_"): golden[key] for key in golden if key.startswith("metric_")}
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name], values, rtol=1e-9, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_ignore_missing_days_and_their_gradients_stay_finite(name: str) -> None:
    random = np.random.default_rng(1)
    observed = torch.tensor(random.gamma(0.5, 3.0, (60, 3)))
    simulated = torch.tensor(random.gamma(0.5, 3.0, (60, 3)))
    spread = Spread(observed.std(dim=0), observed.clamp_min(0.01).log().std(dim=0))
    observed[40:] = torch.nan
    simulated.requires_grad_()
    loss = LOSSES[name](simulated, observed, spread)
    loss.backward()
    assert torch.isfinite(loss)
    assert simulated.grad is not None
    assert torch.isfinite(simulated.grad).all()
    assert (simulated.grad[40:] == 0).all()
    assert (simulated.grad[:40] != 0).any()


@pytest.mark.parametrize("name", ["nse", "nse_log", "nse_trend", "mse"])
def test_losses_vanish_when_the_simulation_is_right(name: str) -> None:
    observed = torch.rand(50, 2) + 0.1
    assert float(LOSSES[name](observed, observed, Spread(observed.std(0), observed.log().std(0)))) == 0.0


def test_range_bound_is_zero_inside_and_the_distance_outside() -> None:
    assert float(range_bound(torch.tensor([0.95, 1.05]))) == 0.0
    assert float(range_bound(torch.tensor([0.5, 1.0]))) == pytest.approx(0.2)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(ConfigurationError, match="'rsme' is unknown"):
        get_loss("rsme")


def test_perfect_simulation_scores_one_and_the_mean_scores_zero() -> None:
    observed = np.random.default_rng(2).gamma(0.5, 3.0, (100, 2))
    np.testing.assert_allclose(nse(observed, observed), 1.0)
    np.testing.assert_allclose(kge(observed, observed), 1.0)
    np.testing.assert_allclose(
        nse(np.broadcast_to(observed.mean(0), observed.shape), observed), 0.0, atol=1e-12
    )


def test_a_gauge_without_observations_scores_nan_and_spoils_no_other() -> None:
    observed = np.random.default_rng(3).gamma(0.5, 3.0, (100, 3))
    observed[:, 1] = np.nan
    observed[:, 2] = 0.0
    table = compute_metrics(np.nan_to_num(observed) * 1.1 + 0.01, observed)
    assert all(np.isnan(values[1]) for values in table.values())
    assert all(np.isfinite(values[0]) for values in table.values())
    assert np.isnan(table["nse"][2])


def test_series_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueShapeError, match=r"\[time, catchment\]"):
        compute_metrics(np.zeros((10, 2)), np.zeros((11, 2)))
