"""Small untrained streamflow networks of every architecture as bundles, and configurations that use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmi_components.trained_model import NamedUnits, TrainedModel

HOURLY = (NamedUnits("APCP_surface", "mm h-1"), NamedUnits("TMP_2maboveground", "K"))
DAILY = (
    NamedUnits("prcp(mm/day)", "mm d-1"),
    NamedUnits("tmean(C)", "degC"),
    NamedUnits("pet(mm/day)", "mm d-1"),
)
QUANTITIES = {
    "APCP_surface": "precipitation",
    "TMP_2maboveground": "temperature",
    "prcp(mm/day)": "precipitation",
    "tmean(C)": "temperature",
    "pet(mm/day)": "potential_evapotranspiration",
}
ATTRIBUTES = (NamedUnits("elev_mean", "m"), NamedUnits("slope_mean", "m km-1"))
STATISTICS = {
    "APCP_surface": (0.2, 0.8),
    "TMP_2maboveground": (284.0, 12.0),
    "prcp(mm/day)": (3.0, 7.0),
    "tmean(C)": (9.0, 10.0),
    "pet(mm/day)": (2.0, 1.5),
    "elev_mean": (300.0, 200.0),
    "slope_mean": (20.0, 15.0),
}
HIDDEN = 5


def make_bundle(architecture: str = "lstm", seed: int = 0, daily: bool = False) -> TrainedModel:
    """Return one of: lstm, layered, gru, gmm, cmal, umal, feedback, mass_conserving, hybrid, multi_timescale."""
    random = np.random.default_rng(seed)
    inputs = DAILY if daily or architecture == "hybrid" else HOURLY
    names = [quantity.name for quantity in inputs]
    weights: dict[str, np.ndarray[Any, Any]] = {}

    def layer(name: str, outputs: int, columns: int) -> None:
        weights[f"{name}.weights"] = random.normal(0.0, 0.5, (outputs, columns))
        weights[f"{name}.bias"] = random.normal(0.0, 0.3, outputs)

    def recurrent(columns: int, gates: int = 4, outputs: int = 1, prefix: str = "") -> None:
        weights[f"{prefix}recurrent.w_ih"] = random.normal(0.0, 0.5, (gates * HIDDEN, columns))
        weights[f"{prefix}recurrent.w_hh"] = random.normal(0.0, 0.4, (gates * HIDDEN, HIDDEN))
        for bias in ("b_ih", "b_hh"):
            weights[f"{prefix}recurrent.{bias}"] = random.normal(0.0, 0.3, gates * HIDDEN)
        layer(f"{prefix}readout.0", outputs, HIDDEN)

    features = len(names) + 2
    branch: dict[str, Any] = {"inputs": names}
    described: dict[str, Any] = {"network": "recurrent", "branch": branch}
    statistics = dict(STATISTICS)
    match architecture:
        case "lstm":
            recurrent(features)
        case "layered":
            layer("front.0", 4, len(names))
            layer("front.1", 3, 4)
            layer("attribute_layers.0", 6, 2)
            layer("attribute_layers.1", 3, 6)
            recurrent(6)
            branch |= {
                "front": ["tanh", "sigmoid"],
                "attribute_layers": ["relu", "linear"],
                "head": "softplus",
            }
        case "gru":
            recurrent(features, gates=3)
            branch |= {"cell": "gru"}
        case "gmm" | "cmal":
            recurrent(features, outputs=6 if architecture == "gmm" else 8)
            branch |= {"head": architecture}
        case "umal":
            recurrent(features + 1, outputs=2)
            branch |= {"head": "umal"}
            described |= {"taus": {"number": 4, "lowest": 0.01, "highest": 0.99}}
        case "feedback":
            recurrent(features + 2)
            described |= {"feedback": 2}
            statistics["runoff_shift2"] = (0.5, 0.9)
        case "mass_conserving":
            for name, outputs in (
                ("input_gate", HIDDEN),
                ("redistribution", HIDDEN**2),
                ("output_gate", HIDDEN),
            ):
                layer(name, outputs, features + HIDDEN)
            described = {"network": "mass_conserving", "inputs": names}
            statistics[names[0]] = (0.0, 1.0)
        case "hybrid":
            recurrent(features, outputs=8)
            conceptual = [names[0], names[2], names[1], names[1]]
            described = {"network": "hybrid", "branch": branch, "conceptual_inputs": conceptual, "warm_up": 2}
            statistics |= {f"conceptual/{name}": (0.0, 1.0) for name in names}
        case "multi_timescale":
            recurrent(features, prefix="slow.")
            recurrent(features, prefix="fast.")
            layer("transfer.h.0", HIDDEN, HIDDEN)
            described = {
                "network": "multi_timescale",
                "slow": branch,
                "fast": branch,
                "ratio": 24,
                "slow_window": 5,
            }
            described |= {"transfer": {"h": "linear", "c": "identity"}}
    mass = architecture in ("mass_conserving", "hybrid")
    statistics["runoff"] = (0.0, 1.0) if mass else (0.5, 0.9)
    length = 48 if architecture == "multi_timescale" else 7
    return TrainedModel(
        kind="neuralhydrology",
        hyperparameters={
            "model": architecture,
            "sequence_length": length,
            "quantities": {name: QUANTITIES[name] for name in names},
            **described,
        },
        inputs=inputs,
        attributes=ATTRIBUTES,
        outputs=(NamedUnits("runoff", "mm d-1" if daily or architecture == "hybrid" else "mm h-1"),),
        normalisation={name: {"mean": mean, "std": std} for name, (mean, std) in statistics.items()},
        time_step=86_400.0 if daily or architecture == "hybrid" else 3_600.0,
        provenance={},
        licence="none: random weights",
        weights=weights,
    )


def catchment_lines(number: int) -> str:
    """YAML of catchments that differ."""
    lines = ["catchments:"]
    for i in range(number):
        attributes = f"{{elev_mean: {200 + 100 * i}, slope_mean: {5 + 9 * i}}}"
        lines.append(f"  - {{id: cat-{i}, area_km2: {10.0 + i}, attributes: {attributes}}}")
    return "\n".join(lines) + "\n"


def configuration(
    folder: Path,
    architectures: Sequence[str] = ("lstm",),
    catchments: int = 1,
    extra: str = "",
    daily: bool = False,
) -> Path:
    """Write bundles and a configuration, and return the latter's path."""
    folders = []
    for seed, architecture in enumerate(architectures):
        path = folder / f"{architecture}_{seed}{'_daily' if daily else ''}"
        if not path.exists():
            make_bundle(architecture, seed, daily).save(path)
        folders.append(str(path))
    path = folder / "streamflow.yaml"
    path.write_text(f"models: [{', '.join(folders)}]\n{catchment_lines(catchments)}{extra}")
    return path
