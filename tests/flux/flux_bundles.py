"""Small untrained flux models and configurations of FluxLSTM, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bmi_components.trained_model import NamedUnits, TrainedModel

INPUTS = {
    "D_SNOW": ("cm", 2.0, 5.0),
    "P": ("mm (1800 s)-1", 0.03, 0.1),
    "PPFD_IN": ("umol m-2 s-1", 700.0, 300.0),
    "NETRAD": ("W m-2", 200.0, 90.0),
}
"""Units, mean and standard deviation."""

RESOLVED = {"daylight": "ppfd", "ustar": "na"}


def flux_bundle(
    model: str = "lstm",
    days: int = 5,
    inputs: Mapping[str, tuple[str, float, float]] = INPUTS,
    daily: Mapping[str, Any] = RESOLVED,
    target: tuple[str, str] = ("NEE_PI", "umol m-2 s-1"),
    seed: int = 0,
) -> TrainedModel:
    """Make a bundle with random weights, or a forest of two random trees."""
    count = len(inputs)
    if model == "random_forest":
        weights = random_trees(days * count, seed)
        sizes: dict[str, Any] = {}
    else:
        from bmi_components.lstm.flux.network import create_network

        sizes = {"hidden": 6, "layers": 2} if model == "lstm" else {}
        network = create_network(model, sizes, count, days, seed)
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    statistics = {name: {"mean": mean, "std": std} for name, (_, mean, std) in inputs.items()}
    return TrainedModel(
        kind="flux",
        hyperparameters={"model": model, "sequence_length": days, "sizes": sizes, "daily": dict(daily)},
        inputs=tuple(NamedUnits(name, units) for name, (units, _, _) in inputs.items()),
        attributes=(),
        outputs=(NamedUnits(*target),),
        normalisation={**statistics, target[0]: {"mean": -4.0, "std": 6.0}},
        time_step=86_400.0,
        provenance={},
        licence="CC-BY-4.0",
        weights=weights,
    )


def random_trees(features: int, seed: int) -> dict[str, np.ndarray]:
    """Two trees of one split each on the last day's photon flux and net radiation."""
    random = np.random.default_rng(seed)
    last_day = features - 4
    return {
        "feature": np.array([last_day + 2, 0, 0, last_day + 3, 0, 0], np.float32),
        "threshold": np.array([500, 0, 0, 150, 0, 0], np.float32),
        "left": np.array([1, 1, 2, 4, 4, 5], np.float32),
        "right": np.array([2, 1, 2, 5, 4, 5], np.float32),
        "value": random.normal(-3, 3, 6),
        "root": np.array([0, 3], np.float32),
        "base": np.zeros(1, np.float32),
    }


def flux_configuration(
    folder: Path, extra: str = "", towers: tuple[str, ...] = ("US-One",), **bundle: Any
) -> Path:
    """Write a bundle and a configuration for it."""
    model = folder / "flux_model"
    if not model.exists():
        flux_bundle(**bundle).save(model)
    path = folder / "flux.yaml"
    listed = "".join(f"  - id: {tower}\n" for tower in towers)
    path.write_text(f"model: flux_model\ntowers:\n{listed}{extra}")
    return path
