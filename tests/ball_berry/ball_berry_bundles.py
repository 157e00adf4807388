"""A small untrained canopy model of the hybrid form as a bundle, and a configuration of its leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bmi_components.canveg.bundle import pack
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters, default_parameters
from bmi_components.trained_model import TrainedModel


def canopy_parameters() -> Parameters:
    return default_parameters({"conductance_slope": 9.5, "conductance_intercept": 0.02}, seed=4)


def canopy_bundle(conductance: str = "hybrid") -> TrainedModel:
    options = Options(layers=1, atmosphere_layers=2, conductance=conductance)  # type: ignore[arg-type]
    site = Site(38.0, -121.0, -8.0, 0.8, 5.0)
    return pack(options, site, canopy_parameters(), np.ones((3, 1)), {}, "CC0")


def leaf_configuration(folder: Path, extra: str = "", conductance: str = "hybrid") -> Path:
    """Write a configuration and return its path."""
    canopy_bundle(conductance).save(folder / "canopy")
    path = folder / "leaves.yaml"
    path.write_text(f"model: canopy\n{extra}")
    return path
