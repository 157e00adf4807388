"""CanVeg drives δHBV: simulated as it is stepped, and differentiated through both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import canopy_and_basin as example
import jax
import numpy as np
import pytest
import torch
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parents[2]
DAYS = 3
START = {"canopy:conductance_slope": 8.17, "canopy:maximum_carboxylation": 60.0}
"""As in the example's configuration."""


@pytest.fixture(autouse=True)
def quickly_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Optimise little: compiling takes nearly all of the time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def parameters(moved: str = "", factor: float = 1.0) -> dict[str, Tensor]:
    """Return all with gradients, so that one compiled program serves every run."""
    values = {name: value * (factor if name == moved else 1.0) for name, value in START.items()}
    return {k: torch.tensor(v, dtype=torch.float64, requires_grad=True) for k, v in values.items()}


def test_gradients_through_canopy_and_basin_are_finite_differences() -> None:
    pair, _ = example.canopy_and_basin(DAYS, REPOSITORY)
    varied = parameters()
    runoff = example.flow(pair, varied, DAYS)
    runoff.sum().backward()
    for name, value in varied.items():
        above, below = (
            float(example.flow(pair, parameters(name, 1.0 + change), DAYS).detach().sum())
            for change in (1e-3, -1e-3)
        )
        assert above != below
        assert value.grad is not None
        np.testing.assert_allclose(value.grad.item(), (above - below) / (2e-3 * START[name]), rtol=1e-3)

    stepped = pair.run(DAYS * example.DAY, ["basin:runoff_rate"], progress=False)
    np.testing.assert_allclose(runoff.detach().numpy(), stepped["basin.runoff_rate"].values, rtol=1e-6)
