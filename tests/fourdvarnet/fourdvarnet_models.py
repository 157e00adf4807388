"""Small models and recipes that the tests of 4DVarNet share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import msgspec

from bmi_components.fourdvarnet.model import FourDVarNet, FourDVarNetHyperparameters
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.priors import TwoScaleSettings
from bmi_components.fourdvarnet.recipe import Data, ModelSettings, Recipe, Training
from bmi_components.fourdvarnet.solver import SolverSettings
from bmi_components.trained_model import NamedUnits

WINDOW = 24
COMPONENTS = tuple(NamedUnits(name, "1") for name in ("x", "y", "z"))
NORMALISATION = {
    "x": {"mean": 0.0, "std": 7.9},
    "y": {"mean": 0.0, "std": 9.0},
    "z": {"mean": 23.5, "std": 8.6},
}
PARTS = ModelSettings(
    prior=TwoScaleSettings(hidden=3, width=5, scale=4),
    modulation=ModulationSettings(hidden=5, width=3, patch=2),
    solver=SolverSettings(iterations=4),
)


def small_model(seed: int = 0, dtype: Any = jnp.float32, **parts: Any) -> FourDVarNet:
    """Make a model for windows of 24 steps with random weights; ``parts`` replace the usual ones."""
    settings = {name: getattr(PARTS, name) for name in ("prior", "modulation", "solver")} | parts
    return FourDVarNet.create(
        FourDVarNetHyperparameters(window=WINDOW, **settings),
        COMPONENTS,
        NORMALISATION,
        0.01,
        seed=seed,
        dtype=dtype,
    )


def small_recipe(folder: Path, **changes: Any) -> Recipe:
    """Make a run of some seconds."""
    plain = Recipe(
        output=str(folder),
        data=Data(
            window=WINDOW,
            train=(0, 400),
            validation=(400, 500),
            test=(500, 700),
            validation_windows=8,
            test_windows=6,
        ),
        model=PARTS,
        training=Training(iterations=6, batch=4, windows_at_once=2, rise=2, average=0.9),
        crop=4,
        baseline_windows=3,
        validate_every=3,
        checkpoint_every=2,
    )
    return msgspec.structs.replace(plain, **changes)
