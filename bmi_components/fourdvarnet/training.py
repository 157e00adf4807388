"""Training end to end: through the solver's iterations, so with second derivatives of the prior; survives kills."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import safetensors
import safetensors.numpy
from jax import Array
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.errors import BmiComponentsError, ConfigurationError, StateError
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
from bmi_components.trained_model import NamedUnits
from bmi_components.training.files import write_whole
from bmi_components.training.interrupts import gentle_interrupts

__all__ = ["BUNDLE", "CHECKPOINT", "Trainer", "TrainingError", "held_out_windows", "true_states"]

CHECKPOINT = "checkpoint.safetensors"
BUNDLE = "bundle"
_LARGEST_RUN_OF_BAD_BATCHES = 20
_VALIDATION, _TEST = 1, 2
"""Streams of random numbers beside that of the training."""

Parameters = dict[str, Any]
Windows = tuple[NDArray[np.float64], NDArray[np.float64]]
"""True states and their observations, each ``[window, time, component]``."""


class TrainingError(BmiComponentsError):
    """Training cannot go on, because batch after batch gives a loss that is not finite."""


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


class Trainer:
    """One training run in one folder.

    The folder holds ``recipe.yaml``, ``checkpoint.safetensors`` (to resume), ``metrics.csv`` and ``loss.png`` (to look
    at) and, at the end, ``bundle/`` (to use).

    Parameters
    ----------
    recipe
        What to do.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.folder = Path(recipe.output)
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
        self.iteration = 0
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        self._bad_batches = 0

    def run(self, *, resume: bool = False, progress: bool = True) -> bool:
        """Train to the recipe's last iteration, writing a checkpoint every so often.

        Control-C (or SIGTERM) ends the run after the current iteration, with a checkpoint.

        Parameters
        ----------
        resume
            Continue from the folder's checkpoint, exactly as if there had been no break.
        progress
            Show a progress bar with the loss.

        Returns
        -------
        bool
            Whether the run is complete; False if it was interrupted.

        Raises
        ------
        ConfigurationError
            If the folder already holds a run and ``resume`` is off.
        StateError
            If there is nothing to resume, the checkpoint is damaged, or it belongs to another recipe.
        TrainingError
            If 20 batches in a row give no finite loss.
        """
        path = self.folder / CHECKPOINT
        if resume:
            self._restore(path)
        elif path.exists():
            raise ConfigurationError(
                f"the folder {self.folder} already holds a run: resume it, or choose another output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "recipe.yaml", msgspec.yaml.encode(self.recipe))
        total = self.recipe.training.iterations
        bar = tqdm(total=total, initial=self.iteration, disable=not progress, unit="it", mininterval=2.0)
        with bar, gentle_interrupts() as interrupts:
            while self.iteration < total:
                self.losses.append(self.iterate())
                self.iteration += 1
                done = self.iteration == total
                if self.iteration % self.recipe.validate_every == 0 or done:
                    self.validations.append((self.iteration, self.validate()))
                bar.update()
                bar.set_postfix_str(self._progress(), refresh=False)
                if self.iteration % self.recipe.checkpoint_every == 0 or interrupts or done:
                    self._save(path)
                if interrupts:
                    break
        plot_training(self.folder / "loss.png", self.losses, self.validations)
        if self.iteration < total:
            return False
        bundle = self.trained_model().to_bundle(self._provenance(), licence="")
        bundle.save(self.folder / BUNDLE, card=self._card(), overwrite=(self.folder / BUNDLE).exists())
        return True

    def iterate(self) -> float:
        """Learn from one batch; return its loss, or NaN if it was skipped because it is not finite."""
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
            self._bad_batches = 0
            return value
        self._bad_batches += 1
        if self._bad_batches >= _LARGEST_RUN_OF_BAD_BATCHES:
            raise TrainingError(
                f"{self._bad_batches} batches in a row up to iteration {self.iteration} gave a loss or gradient that "
                "is not finite; lower training.learning_rate"
            )
        return math.nan

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

    def _progress(self) -> str:
        known = [loss for loss in self.losses[-100:] if not math.isnan(loss)]
        text = f"loss {sum(known) / len(known):.5f}" if known else "loss nan"
        return text + (f", validation MSE {self.validations[-1][1]:.3f}" if self.validations else "")

    def _arrays(self) -> dict[str, Any]:
        """All that the next iteration depends on, as one mapping of arrays."""
        leaves = {f"{place:03d}": leaf for place, leaf in enumerate(jax.tree.leaves(self.optimiser_state))}
        tree = {"parameters": self.parameters, "optimiser": leaves, "average": self.average or {}}
        return flatten(tree)

    def _save(self, path: Path) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        arrays = {name: np.asarray(array) for name, array in self._arrays().items()}
        arrays["losses"] = np.array(self.losses)
        values = {
            "iteration": self.iteration,
            "validations": self.validations,
            "bad_batches": self._bad_batches,
            "recipe": identity(self.recipe),
        }
        safetensors.numpy.save_file(arrays, temporary, metadata={"values": json.dumps(values)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        self._write_metrics()

    def _restore(self, path: Path) -> None:
        try:
            arrays = safetensors.numpy.load_file(path)
            with safetensors.safe_open(path, framework="np") as file:
                values = json.loads((file.metadata() or {})["values"])
        except FileNotFoundError as error:
            raise StateError(f"there is no checkpoint {path}: nothing to resume") from error
        except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StateError(f"the checkpoint {path} is damaged: {error}") from error
        ours: dict[str, Any] = json.loads(json.dumps(identity(self.recipe)))
        for key, value in ours.items():
            if values["recipe"].get(key) != value:
                raise StateError(
                    f"the checkpoint in {self.folder} was made with another recipe: {key} was "
                    f"{values['recipe'].get(key)!r} and is now {value!r}"
                )

        def group(prefix: str) -> dict[str, Array]:
            start = f"{prefix}/"
            return {
                name.removeprefix(start): jnp.asarray(array)
                for name, array in arrays.items()
                if name.startswith(start)
            }

        self.parameters = unflatten(group("parameters"))
        leaves = group("optimiser")
        self.optimiser_state = jax.tree.unflatten(
            jax.tree.structure(self.optimiser_state), [leaves[name] for name in sorted(leaves)]
        )
        if self.average is not None:
            self.average = unflatten(group("average"))
        self.iteration = int(values["iteration"])
        self.losses = [float(loss) for loss in arrays["losses"]]
        self.validations = [(int(iteration), float(error)) for iteration, error in values["validations"]]
        self._bad_batches = int(values["bad_batches"])

    def _write_metrics(self) -> None:
        """Write ``metrics.csv`` from the whole history, so that it always agrees with the checkpoint."""
        validations = dict(self.validations)
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(("iteration", "loss", "validation_mse"))
        for iteration, loss in enumerate(self.losses, start=1):
            score = f"{validations[iteration]:.5g}" if iteration in validations else ""
            writer.writerow((iteration, f"{loss:.6g}", score))
        write_whole(self.folder / "metrics.csv", text.getvalue())

    def _provenance(self) -> dict[str, Any]:
        recipe = self.recipe
        return {
            "data": f"{recipe.data.system}, simulated by bmi_components.fourdvarnet.lorenz",
            "iterations": self.iteration,
            "validation_mse": self.validations[-1][1] if self.validations else None,
            "recipe": msgspec.to_builtins(msgspec.structs.replace(recipe, output="")),
        }

    def _card(self) -> str:
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
