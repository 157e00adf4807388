"""CanVeg drives δHBV: simulated as it is stepped, and differentiated through both."""

from __future__ import annotations

from pathlib import Path

import canopy_and_basin as example
import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
DAYS = 4


def test_gradients_through_canopy_and_basin_are_finite_differences() -> None:
    pair, _ = example.canopy_and_basin(DAYS, REPOSITORY)
    start = {"canopy:conductance_slope": 8.17, "canopy:maximum_carboxylation": 60.0}
    varied = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in start.items()
    }
    runoff = example.flow(pair, varied, DAYS)
    runoff.sum().backward()
    for name, value in varied.items():
        ends = []
        for sign in (1.0, -1.0):
            moved = {key: other.detach().clone() for key, other in varied.items()}
            moved[name] *= 1.0 + sign * 1e-3
            ends.append(float(example.flow(pair, moved, DAYS).sum()))
        difference = (ends[0] - ends[1]) / (2e-3 * start[name])
        assert difference != 0.0
        assert value.grad is not None
        np.testing.assert_allclose(value.grad.item(), difference, rtol=1e-3)

    stepped = pair.run(DAYS * example.DAY, ["basin:runoff_rate"], progress=False)
    np.testing.assert_allclose(
        example.flow(example.canopy_and_basin(DAYS, REPOSITORY)[0], {}, DAYS).numpy(),
        stepped["basin.runoff_rate"].values,
        rtol=1e-8,
    )
