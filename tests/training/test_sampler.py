"""Windows: inside their period, only of gauges that may be learnt from, the same again from a saved state."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.caravan import BasinDataset
from bmi_components.training.normalisation import compute_normalisation
from bmi_components.training.sampler import WindowSampler, iterations_per_epoch, split_gauges


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 100),
    length=st.integers(60, 200),
    warm_up=st.integers(0, 120),
    scored=st.integers(1, 60),
    seed=st.integers(0, 9),
)
def test_no_scored_day_leaves_its_period(
    start: int, length: int, warm_up: int, scored: int, seed: int
) -> None:
    target = np.ones((300, 4), np.float32)
    period = slice(start, start + length)
    allowed = np.array([0, 2])
    if max(start, warm_up) + scored > period.stop:
        with pytest.raises(ConfigurationError, match="do not fit"):
            WindowSampler(target, allowed, period, warm_up=warm_up, scored=scored, batch=50, seed=seed)
        return
    sampler = WindowSampler(target, allowed, period, warm_up=warm_up, scored=scored, batch=50, seed=seed)
    batch = sampler.draw()
    assert np.isin(batch.gauges, allowed).all()
    assert (batch.starts >= 0).all()
    assert (batch.starts + warm_up >= period.start).all()
    assert (batch.starts + warm_up + scored <= period.stop).all()


def test_every_window_can_be_drawn() -> None:
    sampler = WindowSampler(
        np.ones((40, 3), np.float32), np.arange(3), slice(10, 30), warm_up=5, scored=10, batch=2000, seed=0
    )
    batch = sampler.draw()
    assert sampler.windows == 3 * 11
    assert len(set(zip(batch.gauges.tolist(), batch.starts.tolist(), strict=True))) == sampler.windows


def test_windows_without_observations_are_not_drawn() -> None:
    target = np.ones((200, 2), np.float32)
    target[:100, 0] = np.nan
    sampler = WindowSampler(target, np.arange(2), slice(0, 200), warm_up=0, scored=50, batch=500, seed=0)
    batch = sampler.draw()
    assert batch.starts[batch.gauges == 0].min() >= 80, "at least 30 of the 50 days were observed"
    assert batch.starts[batch.gauges == 1].min() < 20
    with pytest.raises(ConfigurationError, match="observed streamflow"):
        WindowSampler(
            np.full((99, 1), np.nan, np.float32),
            np.arange(1),
            slice(0, 99),
            warm_up=0,
            scored=50,
            batch=1,
            seed=0,
        )


def test_a_saved_state_repeats_the_draws_that_follow() -> None:
    def sampler(seed: int) -> WindowSampler:
        return WindowSampler(
            np.ones((99, 5), np.float32), np.arange(5), slice(0, 99), warm_up=9, scored=20, batch=8, seed=seed
        )

    first, second = sampler(1), sampler(2)
    first.draw()
    state = first.state()
    second.set_state(state)
    for _ in range(3):
        for a, b in zip(first.draw(), second.draw(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_epochs_are_as_long_as_published() -> None:
    # Feng et al. 2022: 531 gauges, 1999-10-01..2008-09-30 with its year of warm-up, 100 windows of 365 days
    assert iterations_per_epoch(531, 3288, batch=100, scored=365, warm_up=365) == 194
    assert iterations_per_epoch(1, 400, batch=10, scored=365, warm_up=0) == 1


@settings(max_examples=30, deadline=None)
@given(size=st.integers(2, 60), seed=st.integers(0, 5), folds=st.integers(2, 10))
def test_folds_hold_out_every_gauge_exactly_once(size: int, seed: int, folds: int) -> None:
    parts = [split_gauges(size, seed=seed, folds=folds, fold=fold) for fold in range(folds)]
    for trained, held_out in parts:
        assert not set(trained) & set(held_out)
        assert len(trained) + len(held_out) == size
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(size))


def test_a_fraction_is_held_out() -> None:
    trained, held_out = split_gauges(402, seed=0, fraction=0.15)
    assert (trained.size, held_out.size) == (342, 60)
    assert not np.array_equal(held_out, split_gauges(402, seed=1, fraction=0.15)[1])


def test_statistics_see_only_training_gauges_and_days(basins: BasinDataset) -> None:
    gauges, period = np.array([0, 1, 3]), ("2001-03-01", "2002-03-01")
    before = compute_normalisation(basins, gauges, period)
    basins.forcing[:, [2, 4, 5]] += 1000.0
    basins.forcing[600:] += 1000.0
    basins.target[600:] += 1000.0
    basins.attributes[[2, 4, 5]] += 1000.0
    assert compute_normalisation(basins, gauges, period) == before
    days = basins.days(period)
    assert before["temperature"]["mean"] == pytest.approx(
        basins.forcing[days, :, 1][:, gauges].mean(), rel=1e-5
    )


def test_a_constant_input_does_not_divide_by_zero(basins: BasinDataset) -> None:
    basins.attributes[:, 1] = 0.25
    normalisation = compute_normalisation(basins, np.arange(6), ("2001-03-01", "2002-03-01"))
    assert normalisation["frac_snow"] == {"mean": 0.25, "std": 0.001}
