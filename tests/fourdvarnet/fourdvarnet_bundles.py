"""Small untrained 4DVarNets as bundles, and configurations that use them."""

from __future__ import annotations

import atexit
import functools
import tempfile
from pathlib import Path

import msgspec

from bmi_components.fourdvarnet.model import FourDVarNet, FourDVarNetHyperparameters
from bmi_components.trained_model import NamedUnits

WINDOW = 12
COMPONENTS = ("x", "y", "z")
STATISTICS = {"x": {"mean": 0.0, "std": 8.0}, "y": {"mean": 0.0, "std": 9.0}, "z": {"mean": 24.0, "std": 8.0}}
SETTINGS = {
    "window": WINDOW,
    "prior": {"kind": "two_scale", "width": 3, "hidden": 4},
    "modulation": {"hidden": 3},
    "solver": {"iterations": 3},
}


def make_model(seed: int = 0) -> FourDVarNet:
    hyperparameters = msgspec.convert(SETTINGS, FourDVarNetHyperparameters)
    components = [NamedUnits(name, "1") for name in COMPONENTS]
    return FourDVarNet.create(hyperparameters, components, STATISTICS, 0.01, seed=seed)


@functools.cache
def shared_bundle() -> Path:
    """Write the bundle once per process: a model is compiled once per bundle."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return make_model().to_bundle().save(Path(folder.name) / "fourdvarnet")


def configuration(folder: Path, extra: str = "") -> Path:
    """Write a configuration and return its path."""
    path = folder / "fourdvarnet.yaml"
    path.write_text(f"model: {shared_bundle()}\nlag: 4\n{extra}")
    return path
