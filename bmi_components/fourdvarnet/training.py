"""Training end to end: through the solver's iterations, so with second derivatives of the prior; survives kills."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from bmi_components.fourdvarnet.lorenz import system, trajectory
from bmi_components.fourdvarnet.model import (
    FourDVarNet,
    FourDVarNetHyperparameters,
    flatten,
    statistics,
    unflatten,
)
from bmi_components.fourdvarnet.observations import ObservationProtocol, cut_windows, observe
from bmi_components.fourdvarnet.plots import plot_training
from bmi_components.fourdvarnet.recipe import Data, Recipe, identity
from bmi_components.fourdvarnet.solver import first_guess
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.training.archive import Archive
from bmi_components.training.run import BUNDLE, CHECKPOINT, TrainingRun

__all__ = ["BUNDLE", "CHECKPOINT", "Trainer", "held_out_windows", "true_states"]

_VALIDATION, _TEST = 1, 2
"""Streams of random numbers beside that of the training."""

Parameters = dict[str, Any]
Windows = tuple[NDArray[np.float64], NDArray[np.float64]]
"""True states and their observations, each ``[window, time, component]``."""


def true_states(data: Data) -> NDArray[np.float64]:
    """Integrate the system over all parts of the data, ``[time, component]``."""
    steps = max(data.train[1], data.validation[1], data.test[1])
    return trajectory(system(data.system), steps, spin_up=data.spin_up)


def held_out_windows(
    recipe: Recipe, states: NDArray[np.float64], part: str, protocol: ObservationProtocol | None = None
) -> Windows:
    """Cut and observe the windows of "validation" or "test", always the same for the same recipe.

    Parameters
    ----------
    recipe
        Where the parts are, and how many windows.
    states
        `true_states`.
    part
        "validation" or "test".
    protocol
        How the windows are observed; None: as the recipe says.
    """
    stream, count = {
        "validation": (_VALIDATION, recipe.data.validation_windows),
        "test": (_TEST, recipe.data.test_windows),
    }[part]
    generator = np.random.default_rng([recipe.seed, stream])
    first, last = getattr(recipe.data, part)
    truth = cut_windows(states[first:last], recipe.data.window, count, generator)
    names = system(recipe.data.system).components
    return truth, observe(truth, protocol or recipe.observations, names, generator)


class Trainer(TrainingRun[Recipe]):
    """One training run of 4DVarNet, in one folder: see `TrainingRun`.

    Parameters
    ----------
    recipe
        What to do.
    """

    advice = "lower training.learning_rate"
    score_names = ("validation_mse",)
    score_label = "MSE"

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe, recipe.training.iterations)
        data = recipe.data
        self.system = system(data.system)
        self.states = true_states(data)
        self._learnt = self.states[slice(*data.train)]
        hyperparameters = FourDVarNetHyperparameters(
            window=data.window,
            prior=recipe.model.prior,
            modulation=recipe.model.modulation,
            solver=recipe.model.solver,
            observations=recipe.observations,
            system=data.system,
        )
        names = self.system.components
        self.model = FourDVarNet.create(
            hyperparameters,
            [NamedUnits(name, "1") for name in names],
            statistics(self._learnt, names),
            self.system.time_step,
            seed=recipe.seed,
        )
        self.parameters: Parameters = self.model.parameters
        self.optimiser = _optimiser(recipe)
        self.optimiser_state: Any = jax.jit(self.optimiser.init)(self.parameters)
        self.average: Parameters | None = None if recipe.training.average is None else self.parameters
        self._update = jax.jit(self._make_update())

    def learn(self) -> float:
        """Cut and observe a batch and move the weights, unless its loss or gradient is not finite."""
        recipe = self.recipe
        # a batch depends on the seed and its number alone, so a resumed run draws what it would have drawn
        generator = np.random.default_rng([recipe.seed, 0, self.iteration])
        truth = cut_windows(self._learnt, recipe.data.window, recipe.training.batch, generator)
        observations = observe(truth, recipe.observations, self.system.components, generator)
        parameters, state, average, loss = self._update(
            self.parameters,
            self.optimiser_state,
            self.average,
            truth.astype(np.float32),
            observations.astype(np.float32),
            self.iteration,
        )
        if math.isfinite(value := float(loss)):
            self.parameters, self.optimiser_state, self.average = parameters, state, average
        return value

    def validation_scores(self) -> tuple[float] | None:
        """Mean squared error of the validation windows, if it is due."""
        due = self.iteration % self.recipe.validate_every == 0 or self.iteration == self.iterations
        return (self.validate(),) if due else None

    def validate(self) -> float:
        """Mean squared error of the validation windows in physical units, all steps and components."""
        truth, observations = held_out_windows(self.recipe, self.states, "validation")
        analysis = self.trained_model().solve(observations)
        return float(np.mean((np.asarray(analysis.trajectory) - truth) ** 2))

    def trained_model(self) -> FourDVarNet:
        """Return the model with the weights as they are now."""
        self.model.parameters = self.parameters if self.average is None else self.average
        return self.model

    def _make_update(self) -> Any:
        """Return the pure function of one weight update."""
        recipe, model = self.recipe.training, self.model
        settings = self.model.hyperparameters.solver
        importance = jnp.asarray(model.std**2 / np.mean(model.std**2), jnp.float32)

        def window_loss(parameters: Parameters, truth: Array, observations: Array) -> Array:
            found = model.solve_window(
                parameters,
                observations,
                first_guess(settings, observations),
                differentiation=recipe.differentiation,
            ).trajectory
            steps = jnp.arange(truth.shape[0])
            first = jnp.min(jnp.where(jnp.isfinite(observations).any(axis=1), steps, truth.shape[0]))
            counted = (steps >= first - recipe.reach).astype(truth.dtype)
            errors = jnp.mean(importance * (found - truth) ** 2, axis=1)
            error = jnp.sum(counted * errors) / jnp.maximum(jnp.sum(counted), 1.0)
            costs = model.prior.cost(parameters["prior"], found) + model.prior.cost(
                parameters["prior"], truth
            )
            return error + 0.5 * recipe.prior_loss * costs

        def part_loss(parameters: Parameters, truth: Array, observations: Array) -> Array:
            losses = jax.vmap(window_loss, in_axes=(None, 0, 0))(parameters, truth, observations)
            return jnp.sum(losses) / recipe.batch

        def update(
            parameters: Parameters,
            state: Any,
            average: Parameters | None,
            truth: Array,
            observations: Array,
            iteration: Array,
        ) -> tuple[Parameters, Any, Parameters | None, Array]:
            def add(total: Any, part: Any) -> tuple[Any, None]:
                return jax.tree.map(jnp.add, total, jax.value_and_grad(part_loss)(parameters, *part)), None

            shape = (-1, recipe.windows_at_once, *truth.shape[1:])
            parts = tuple(model.standardised(array).reshape(shape) for array in (truth, observations))
            nothing: Any = (jnp.zeros((), truth.dtype), jax.tree.map(jnp.zeros_like, parameters))
            (loss, gradient), _ = jax.lax.scan(add, nothing, parts)
            total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient))
            loss = jnp.where(jnp.isfinite(total), loss, jnp.nan)
            change, state = self.optimiser.update(gradient, state, parameters)
            parameters = optax.apply_updates(parameters, change)
            if average is not None and recipe.average is not None:
                # the first updates count less, so that the random initial weights are soon forgotten
                decay = jnp.minimum(recipe.average, (1.0 + iteration) / (10.0 + iteration)).astype(loss.dtype)
                average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, parameters)
            return parameters, state, average, loss

        return update

    def memory(self) -> Archive:
        """Return weights, optimiser and running mean; the batches follow from the seed and their number."""
        archive = Archive()
        archive.put("parameters", flatten(self.parameters))
        leaves = jax.tree.leaves(self.optimiser_state)
        archive.put("optimiser", {f"{place:03d}": leaf for place, leaf in enumerate(leaves)})
        archive.put("average", flatten(self.average or {}))
        return archive

    def recall(self, memory: Archive) -> None:
        """Put back what `memory` returned."""
        parameters, leaves, average = (
            jax.tree.map(jnp.asarray, memory.group(group)) for group in ("parameters", "optimiser", "average")
        )
        self.parameters = unflatten(parameters)
        self.optimiser_state = jax.tree.unflatten(
            jax.tree.structure(self.optimiser_state), [leaves[name] for name in sorted(leaves)]
        )
        if self.average is not None:
            self.average = unflatten(average)

    def identity(self) -> dict[str, Any]:
        """Return what a run must keep; see `recipe.identity`."""
        return identity(self.recipe)

    def bundle(self) -> TrainedModel:
        """Return the trained model that is shipped."""
        return self.trained_model().to_bundle(self._provenance(), licence="")

    def plot(self, path: Path) -> None:
        """Draw the losses and the validation errors."""
        plot_training(path, self.losses, self.validations)

    def _provenance(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "data": f"{recipe.data.system}, simulated by bmi_components.fourdvarnet.lorenz",
            "iterations": self.iteration,
            "validation_mse": self.validations[-1][1] if self.validations else None,
            "recipe": msgspec.to_builtins(msgspec.structs.replace(recipe, output="")),
        }

    def card(self) -> str:
        """What a reader of the bundle should know, before anybody has evaluated it."""
        recipe = self.recipe
        return (
            f"# 4DVarNet, {recipe.data.system}\n\n"
            f"{recipe.training.iterations} updates of {recipe.training.batch} windows of {recipe.data.window} steps, "
            f"seed {recipe.seed}; the whole recipe is in model.yaml. Mean squared error of the validation windows: "
            f"{self.validations[-1][1]:.3f}. Scores on unseen data: `bmi-components fourdvarnet evaluate`.\n"
        )


def _optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """Adam with cosine schedule; the prior learns at a rate of its own."""
    training = recipe.training
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=training.learning_rate / max(training.rise, 1),
        peak_value=training.learning_rate,
        warmup_steps=training.rise,
        decay_steps=training.iterations,
        end_value=training.learning_rate * training.final_fraction,
    )

    def is_prior(tree: Parameters) -> dict[str, bool]:
        return {group: group == "prior" for group in tree}

    return optax.chain(
        optax.clip_by_global_norm(training.clip),
        optax.scale_by_adam(),
        optax.masked(optax.scale(training.prior_rate), is_prior),
        optax.scale_by_learning_rate(schedule),
    )
