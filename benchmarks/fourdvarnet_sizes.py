"""What both sides of the 4DVarNet benchmark share: sizes, windows, the golden numbers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH, COMPONENTS, ITERATIONS, BATCH, RATE = 200, 3, 15, 128, 10.0
"""4dvarnet-starter's Lorenz-63 configuration."""
GOLDEN = "iterates"


def golden() -> dict[str, Any]:
    """Return the starter's recorded weights, input and iterates."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    data = Path(os.environ.get("BMI_COMPONENTS_DATA", beside))
    with np.load(data / "golden" / "fourdvarnet" / "starter_l63_random.npz") as file:
        return {name: file[name] for name in file.files}


def windows(count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return random smooth windows and what is seen of them, [window, time, component]."""
    generator = np.random.default_rng(0)
    phase = generator.uniform(0.0, 6.0, (count, 1, COMPONENTS))
    truth = np.sin(np.arange(LENGTH)[:, None] / 12.0 + phase).astype(np.float32)
    seen = np.where(np.arange(LENGTH)[:, None] % 8 == 0, truth, np.nan).astype(np.float32)
    return truth, seen
