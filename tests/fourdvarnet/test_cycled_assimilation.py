"""The example of the documentation: a forecast in a cycle with observations and the shipped 4DVarNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cycled_assimilation import cycled, error, free_run, nudged, truth_and_observations

MODEL = Path(__file__).resolve().parents[2] / "models" / "fourdvarnet_lorenz63"
STEPS, LAG = 700, 20


@pytest.fixture(scope="module")
def experiment() -> tuple[np.ndarray, np.ndarray]:
    truth, seen = truth_and_observations(STEPS + 1)
    return truth[1:], seen[1:]


def test_the_cycle_follows_the_truth(experiment: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    truth, seen = experiment
    free = error(free_run(tmp_path, STEPS), truth)
    forecasts, analyses, lagged = cycled(tmp_path, seen, MODEL, f"lag: {LAG}\n")
    assert error(analyses, truth) < 0.2 * free
    assert error(forecasts, truth) < 0.2 * free
    # What later observations have confirmed is better than what nobody has contradicted yet.
    assert error(lagged[LAG:], truth[:-LAG]) < 0.8 * error(analyses, truth)
    assert error(analyses, truth) < error(nudged(tmp_path, seen, 0.2), truth)
