"""Our side: the same solver in JAX at the starter's size, and the model that ships."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from fourdvarnet_sizes import BATCH, ITERATIONS, LENGTH, RATE, windows
from worker import serve

from bmi_components.fourdvarnet.model import FourDVarNet, FourDVarNetHyperparameters, load_model
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.priors import BilinearSettings
from bmi_components.fourdvarnet.recipe import Data, ModelSettings, Recipe, Training
from bmi_components.fourdvarnet.solver import SolverSettings
from bmi_components.fourdvarnet.training import Trainer
from bmi_components.trained_model import NamedUnits

STARTER = ModelSettings(
    prior=BilinearSettings(hidden=30, width=3, scales=(5, 1)),
    modulation=ModulationSettings(hidden=50, width=3, output_width=3, positions="component"),
    solver=SolverSettings(
        iterations=ITERATIONS,
        update="starter",
        gradient_rate=RATE,
        observation_cost="observed",
        observation_weight=0.1,
        start="zeros",
    ),
)
SHIPPED = Path(__file__).resolve().parents[1] / "models" / "fourdvarnet_lorenz63"


def model(shipped: bool) -> FourDVarNet:
    """Return the model that ships, or one of the starter's size with random weights."""
    if shipped:
        return load_model(SHIPPED)
    names = ("x", "y", "z")
    hyperparameters = FourDVarNetHyperparameters(
        window=LENGTH, prior=STARTER.prior, modulation=STARTER.modulation, solver=STARTER.solver
    )
    standard = {name: {"mean": 0.0, "std": 1.0} for name in names}
    return FourDVarNet.create(hyperparameters, [NamedUnits(name, "1") for name in names], standard, 0.01)


def train() -> Callable[[], None]:
    """One weight update with the starter's loss: squared error and prior cost of the result."""
    recipe = Recipe(
        output="unused",
        data=Data(window=LENGTH, train=(0, 400), validation=(400, 700), test=(700, 1000)),
        model=STARTER,
        training=Training(batch=BATCH, windows_at_once=4, prior_loss=1.0),
    )
    trainer = Trainer(recipe)
    truth, seen = (trainer.model.physical(jnp.asarray(array)) for array in windows(BATCH))
    state: list[Any] = [trainer.parameters, trainer.optimiser_state]

    def call() -> None:
        state[0], state[1], _, loss = trainer._update(*state, None, truth, seen, 0)
        jax.block_until_ready((state, loss))

    return call


def analyse(count: int, shipped: bool) -> Callable[[], None]:
    """Analyse windows, from NumPy to NumPy."""
    solver = model(shipped)
    seen = np.asarray(solver.physical(jnp.asarray(windows(count)[1])))

    def call() -> None:
        np.asarray(solver.solve(seen).trajectory)

    return call


if __name__ == "__main__":
    serve({"train": train, "analyse": analyse})
