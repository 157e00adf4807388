"""Observation protocols: which values are seen, how noisy, and the same again for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.observations import (
    PROTOCOLS,
    ObservationProtocol,
    cut_windows,
    observation_mask,
    observe,
)

NAMES = ("x", "y", "z")


def seen_by(protocol: ObservationProtocol, windows: int = 4, length: int = 200) -> np.ndarray:
    truth = np.zeros((windows, length, 3))
    return np.isfinite(observe(truth, protocol, NAMES, np.random.default_rng(0)))


def test_fablets_protocol_sees_all_components_every_eighth_step_but_for_the_ends() -> None:
    seen = seen_by(PROTOCOLS["fablet"])
    np.testing.assert_array_equal(np.flatnonzero(seen[0, :, 0]), np.arange(16, 190, 8))
    assert (seen == seen[:1, :, :1]).all()


def test_x_alone_and_x_and_y_see_nothing_of_the_rest() -> None:
    assert not seen_by(PROTOCOLS["x_only"])[:, :, 1:].any()
    both = seen_by(PROTOCOLS["x_and_y"])
    assert both[:, :, :2].all()
    assert not both[:, :, 2].any()


@pytest.mark.parametrize(("name", "share"), [("random_75", 0.25), ("random_95", 0.05)])
def test_random_masks_leave_the_share_that_they_say(name: str, share: float) -> None:
    assert seen_by(PROTOCOLS[name], windows=100).mean() == pytest.approx(share, abs=0.005)


def test_noise_has_the_variance_that_is_asked_for() -> None:
    truth = np.full((200, 200, 3), 5.0)
    errors = observe(truth, PROTOCOLS["fablet"], NAMES, np.random.default_rng(1)) - truth
    assert np.nanvar(errors) == pytest.approx(2.0, rel=0.05)
    assert np.nanmean(errors) == pytest.approx(0.0, abs=0.05)


def test_a_blank_past_ends_at_any_step_and_leaves_the_present_alone() -> None:
    seen = seen_by(ObservationProtocol(every=1, blank_ends=0, blank_past=True), windows=2000, length=20)
    assert seen[:, -1].all()
    np.testing.assert_allclose(seen[:, :, 0].mean(axis=0), np.arange(1, 21) / 20, atol=0.05)
    assert (np.diff(seen.astype(int), axis=1) >= 0).all()


def test_windows_take_turns_between_protocols() -> None:
    turns = (PROTOCOLS["fablet"], PROTOCOLS["x_only"])
    seen = np.isfinite(observe(np.zeros((5, 40, 3)), turns, NAMES, np.random.default_rng(2)))
    np.testing.assert_array_equal(seen.any(axis=1)[:, 1], (True, False, True, False, True))


@given(
    every=st.integers(1, 12),
    blank=st.integers(0, 15),
    phase=st.sampled_from(["fixed", "random"]),
    seed=st.integers(0, 100),
)
@settings(max_examples=40, deadline=None)
def test_observations_keep_their_distance_and_their_seed(
    every: int, blank: int, phase: str, seed: int
) -> None:
    protocol = ObservationProtocol(every=every, blank_ends=blank, phase=phase)  # type: ignore[arg-type]
    masks = [observation_mask(protocol, NAMES, 3, 50, np.random.default_rng(seed)) for _ in range(2)]
    np.testing.assert_array_equal(*masks)
    for window in masks[0]:
        steps = np.flatnonzero(window[:, 0])
        assert (np.diff(steps) == every).all()
        assert ((steps >= blank) & (steps < 50 - blank)).all()


def test_windows_are_cut_from_the_trajectory_as_they_are() -> None:
    states = np.arange(60.0).reshape(30, 2)
    windows = cut_windows(states, 30, 3, np.random.default_rng(3))
    np.testing.assert_array_equal(windows, np.broadcast_to(states, (3, 30, 2)))
    with pytest.raises(ConfigurationError, match="30 steps holds no window of 31"):
        cut_windows(states, 31, 1, np.random.default_rng(3))


def test_an_unknown_component_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'w' is no component; there are x, y, z"):
        seen_by(ObservationProtocol(components=("x", "w")))
