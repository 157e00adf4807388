"""Training of the canopy model at a tower: true gradients through days that run side by side; survives kills."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from numpy.typing import NDArray

from bmi_components.canveg.baseline import train_pure_network
from bmi_components.canveg.dispersion import dispersion_matrix, read_dispersion_matrix
from bmi_components.canveg.evaluation import Evaluation, evaluate, markdown, write_evaluations
from bmi_components.canveg.gauss_newton import gauss_newton_step
from bmi_components.canveg.humidity import as_relative_humidity
from bmi_components.canveg.model import KIND, CanVeg, load_model
from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import TABLE, Parameters, Scaling, default_parameters, draw_network
from bmi_components.canveg.recipe import Recipe, Training, identity, load_recipe
from bmi_components.canveg.record import Data, Pieces, Record, read_data
from bmi_components.canveg.settled import compiled
from bmi_components.canveg.training_plots import plot_training
from bmi_components.canveg.transforms import Free, choose_transforms
from bmi_components.jax_precision import jax_precision
from bmi_components.trained_model import TrainedModel
from bmi_components.training.archive import Archive
from bmi_components.training.run import BUNDLE, TrainingRun

__all__ = ["Trainer", "train_from_recipe"]

Array = Any


class Trainer(TrainingRun[Recipe]):
    """One training run of a canopy, in one folder: see `TrainingRun`.

    It needs the recipe's precision, see `bmi_components.jax_precision`.

    Parameters
    ----------
    recipe
        What to do.
    data
        The tower's; None: read as the recipe says.
    """

    advice = "lower training.learning_rate"
    score_names = ("validation_loss", "validation_nse_le", "validation_nse_nee")
    score_label = "loss"

    def __init__(self, recipe: Recipe, data: Data | None = None) -> None:
        super().__init__(recipe, recipe.training.iterations)
        self.data = data or read_data(recipe)
        self.transforms = choose_transforms(recipe.options, recipe.trained, recipe.bounds)
        ancestor: TrainedModel | None = None
        self.ancestor: str | None = None
        if recipe.start is not None:
            ancestor = TrainedModel.load(Path(recipe.start), KIND)
            self.ancestor = f"{'/'.join(Path(recipe.start).parts[-2:])} ({ancestor.identity[:12]})"
        self.start = _start(recipe, self.data, ancestor)
        self._origin = self.transforms.free(self.start)
        self.free: Free = self._origin
        self.optimiser = _optimiser(recipe.training)
        self.optimiser_state: Any = jax.jit(self.optimiser.init)(self.free)
        self.best: Free = self.free
        self.best_score = math.inf
        self._record = Record(recipe, self.data)
        self.damping = recipe.training.damping
        self._programs: dict[int, _Programs] = {}
        self._judged: list[Evaluation] = []

    def learn(self) -> float:
        """Draw pieces of the record and move the parameters, unless their loss or gradient is not finite."""
        # a batch depends on the seed and its number alone, so a resumed run draws what it would have drawn
        starts = self._record.draw(np.random.default_rng([self.recipe.seed, 0, self.iteration]))
        if self.recipe.training.method == "gauss_newton":
            return self._step(starts)
        update = self._compiled(self.iteration).update
        free, state, loss = update(self.free, self.optimiser_state, self._record.whole, starts)
        if math.isfinite(value := float(loss)):
            self.free, self.optimiser_state = free, state
        return value

    def _step(self, starts: Array) -> float:
        """Make one step of Gauss-Newton."""
        program = self._compiled(self.iteration)
        pieces = program.cut(self._record.whole, starts)
        vector, back = ravel_pytree(self.free)
        origin, _ = ravel_pytree(self._origin)
        training, loss = self.recipe.training, self.recipe.loss
        pull, _ = ravel_pytree(
            {
                group: jax.tree.map(lambda x, p=weight: jnp.full_like(x, p), self.free[group])
                for group, weight in (("parameters", loss.pull), ("networks", training.weight_decay))
            }
        )

        def residuals(free: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(program.judge(back(jnp.asarray(free, vector.dtype)), pieces)[0], np.float64)

        begin, home, back_force = (np.asarray(x, np.float64) for x in (vector, origin, pull))
        step = gauss_newton_step(residuals, begin, home, back_force, self.damping)
        self.free, self.damping = back(jnp.asarray(step.free, vector.dtype)), step.damping
        return step.loss

    def validation_scores(self) -> tuple[float, float, float] | None:
        """Loss of the validation blocks and efficiencies of LE and NEE, if due; remembers the best parameters."""
        coarse = self.recipe.training.coarse
        # what was best with few layers goes on with all, and does not count as validated
        if coarse is not None and self.iteration == coarse.iterations:
            self.free = self.best if math.isfinite(self.best_score) else self.free
            self.best_score = math.inf
        due = {self.iterations, self.iterations if coarse is None else coarse.iterations}
        if self.iteration % self.recipe.validate_every and self.iteration not in due:
            return None
        scores = self.validate()
        if scores[0] < self.best_score or not math.isfinite(self.best_score):
            self.best, self.best_score = self.free, scores[0]
        return scores

    def validate(self) -> tuple[float, float, float]:
        """Return the loss of the validation blocks, and the efficiencies of LE and NEE; NaN where not observed."""
        _, squares = self._compiled(self.iteration).judge(self.free, self._record.validation)
        errors = dict(zip(self._record.names, np.asarray(squares), strict=True))
        loss = sum(
            float(weight * errors[name] / self._record.variances[name])
            for name, weight in self.recipe.loss.weights().items()
        )
        efficiencies = [
            1.0 - float(errors[name] / self._record.validation_variances[name])
            for name in ("latent_heat", "net_ecosystem_exchange")
        ]
        return loss, efficiencies[0], efficiencies[1]

    def trained_model(self) -> CanVeg:
        """Return the model with the best parameters so far."""
        return _model(self.recipe, self.recipe.options.layers, self._parameters(self.best))

    def _parameters(self, free: Free) -> Parameters:
        return self.transforms.parameters(free, self.start)

    def _compiled(self, iteration: int) -> _Programs:
        """Return what an iteration computes, with as many layers as it has."""
        coarse = self.recipe.training.coarse
        layers = self.recipe.options.layers
        if coarse is not None and iteration < coarse.iterations:
            layers = coarse.layers
        if layers not in self._programs:
            self._programs[layers] = self._programs_of(_model(self.recipe, layers, self.start))
        return self._programs[layers]

    def _programs_of(self, model: CanVeg) -> _Programs:
        """Return the pure functions of one update and of the validation, to be compiled when called."""
        recipe, record = self.recipe, self._record
        weights = jnp.asarray([recipe.loss.weights().get(name, 0.0) for name in record.names], model.dtype)
        variances = jnp.asarray([record.variances[name] for name in record.names], model.dtype)
        # a flux that does not count may have no variance
        weights = jnp.where(weights > 0.0, weights / variances, 0.0)

        def differences(free: Free, pieces: Pieces) -> list[tuple[Array, Array]]:
            """Return simulated less observed by flux, 0 where there is no observation, and how many there are."""
            fluxes, _ = model.simulate(pieces.forcing, parameters=self._parameters(free))
            found = []
            for index, name in enumerate(record.names):
                observed = pieces.observed[index]
                known = jnp.isfinite(observed)
                difference = jnp.where(known, getattr(fluxes, name) - jnp.where(known, observed, 0.0), 0.0)
                found.append((difference, jnp.maximum(jnp.sum(known), 1).astype(model.dtype)))
            return found

        def judge(free: Free, pieces: Pieces) -> tuple[Array, Array]:
            """Return residuals, whose squares sum to the loss, and mean squared errors by flux."""
            found = differences(free, pieces)
            residuals = [
                (d * jnp.sqrt(weight / count)).ravel()
                for weight, (d, count) in zip(weights, found, strict=True)
            ]
            return jnp.concatenate(residuals), jnp.stack([jnp.sum(d**2) / count for d, count in found])

        def loss(free: Free, pieces: Pieces) -> Array:
            away = jax.tree.map(jnp.subtract, free["parameters"], self._origin["parameters"])
            distance = sum((jnp.sum(x * x) for x in away.values()), jnp.zeros((), model.dtype))
            return jnp.sum(judge(free, pieces)[0] ** 2) + recipe.loss.pull * distance

        def update(free: Free, state: Any, whole: Pieces, starts: Array) -> tuple[Free, Any, Array]:
            value, gradient = jax.value_and_grad(loss)(free, record.cut(whole, starts))
            total = sum(jnp.sum(leaf) for leaf in jax.tree.leaves(gradient))
            change, state = self.optimiser.update(gradient, state, free)
            return optax.apply_updates(free, change), state, jnp.where(jnp.isfinite(total), value, jnp.nan)

        return _Programs(jax.jit(record.cut), compiled(update), compiled(judge))

    def memory(self) -> Archive:
        """Return parameters, optimiser and the best so far; the pieces follow from the seed and their number."""
        archive = Archive()
        for name, tree in (("free", self.free), ("optimiser", self.optimiser_state), ("best", self.best)):
            archive.put(name, {f"{place:03d}": leaf for place, leaf in enumerate(jax.tree.leaves(tree))})
        archive.put("numbers", {"best_score": self.best_score, "damping": self.damping})
        return archive

    def recall(self, memory: Archive) -> None:
        """Put back what `memory` returned."""

        def tree(name: str, like: Any) -> Any:
            leaves = memory.group(name)
            return jax.tree.unflatten(
                jax.tree.structure(like), [jnp.asarray(leaves[key]) for key in sorted(leaves)]
            )

        self.free = tree("free", self.free)
        self.optimiser_state = tree("optimiser", self.optimiser_state)
        self.best = tree("best", self.best)
        numbers = memory.group("numbers")
        self.best_score, self.damping = float(numbers["best_score"]), float(numbers["damping"])

    def identity(self) -> dict[str, Any]:
        """Return what a run must keep; see `recipe.identity`."""
        return identity(self.recipe)

    def bundle(self) -> TrainedModel:
        """Return the trained model that is shipped."""
        recipe, data = self.recipe, self.data
        kept = msgspec.to_builtins(recipe)
        provenance = {
            "site": data.forcing.site,
            "data": "flux tower, observed steps only",
            "period": [str(data.forcing.time[0]), str(data.forcing.time[-1])],
            "recipe": {key: kept[key] for key in ("loss", "training", "bounds", "seed", "dtype")}
            | {"blocks": kept["tower"]["blocks"], "gap": kept["tower"]["gap"]},
            "start": self.ancestor,
            "trained": [*self.transforms.bounds, *self.transforms.networks],
            "validation": self._best_scores(),
            "test": {
                one.name: {
                    flux: {"nse": round(scores["all"].nse, 4), "rmse": round(scores["all"].rmse, 4)}
                    for flux, scores in one.scores.items()
                }
                for one in self.judged()
            },
        }
        return self.trained_model().to_bundle(provenance, recipe.licence)

    def _best_scores(self) -> dict[str, float]:
        found = [scores for scores in self.validations if scores[1] == self.best_score]
        if not found:
            return {}
        iteration, *scores = found[-1]
        return {"iteration": iteration} | dict(
            zip(self.score_names, (round(s, 4) for s in scores), strict=True)
        )

    def judged(self) -> list[Evaluation]:
        """Evaluate the trained model, and the network without physics, over the steps of the test; once."""
        if self._judged:
            return self._judged
        data, recipe = self.data, self.recipe
        models: dict[str, Any] = {f"CanVeg, {recipe.options.conductance}": self.trained_model()}
        if recipe.baseline:
            models["network without physics"] = train_pure_network(
                data.forcing, data.fluxes, data.parts["train"], data.parts["validation"], seed=recipe.seed
            )
        self._judged = [
            evaluate(model, data.test_forcing, data.test_fluxes, name=name, part=data.test)
            for name, model in models.items()
        ]
        return self._judged

    def card(self) -> str:
        """What a reader of the bundle should know, with the scores over the test."""
        recipe, data = self.recipe, self.data
        judged = self.judged()
        write_evaluations(judged, self.folder / "test")
        options, training = recipe.options, recipe.training
        model = self.trained_model().parameters
        rows = [
            f"| {row.name} | {float(getattr(model, row.name)):.4g} | {float(getattr(self.start, row.name)):.4g} | "
            f"{bounds.lower:g} to {bounds.upper:g} | {row.units} |"
            for row in TABLE
            if (bounds := self.transforms.bounds.get(row.name)) is not None
        ]
        blocks = ", ".join(f"{name} {days:g}" for name, days in recipe.tower.blocks.items())
        split = (
            f"Trained and validated on {data.forcing.time[0]} to {data.forcing.time[-1]} in blocks of days that take "
            f"turns ({blocks}, gaps of {recipe.tower.gap:g})."
        )
        if data.test is None:
            split += f" Tested on {data.test_forcing.time[0]} to {data.test_forcing.time[-1]}, later and never seen."
        else:
            split += (
                " The test blocks lie between those of the training, in the same seasons: scores say how well gaps of "
                "days are bridged, not how well another year would be foretold."
            )
        origin = "" if self.ancestor is None else f"They went on from the model {self.ancestor}. "
        weights = ", ".join(f"{name} {weight:.2f}" for name, weight in recipe.loss.weights().items())
        return "\n".join(
            [
                f"# CanVeg, {data.forcing.site}: {options.conductance}, "
                f"{options.layers} layer{'s' if options.layers > 1 else ''}, {options.mode} mode",
                "",
                f"{split} {training.iterations} updates ({training.method}) of {training.pieces} pieces of "
                f"{training.days:g} days; "
                f"weights of the loss: {weights}. {origin}What ships is the best on the validation blocks: "
                f"{', '.join(f'{name} {score:g}' for name, score in self._best_scores().items())}.",
                "",
                "## Test",
                "",
                markdown(judged),
                "## Parameters",
                "",
                "A value at a bound says that the model lacks something.",
                "",
                "| parameter | trained | before | bounds | units |",
                "| --- | --- | --- | --- | --- |",
                *rows,
                "",
                "## Limits",
                "",
                "One site. Leaf area, soil moisture and soil temperature are inputs. Rain on leaves, snow and mowing "
                "are not in the model. Observed fluxes do not close the energy balance, the model's do: where net "
                "radiation is right, latent and sensible heat together exceed the observed.",
                "",
            ]
        )

    def plot(self, path: Path) -> None:
        """Draw the losses and the validation scores."""
        plot_training(path, self.losses, self.validations)


class _Programs(NamedTuple):
    """Compiled functions of one number of layers: see `Trainer._programs_of`."""

    cut: Any
    update: Any
    judge: Any


def _start(recipe: Recipe, data: Data, ancestor: TrainedModel | None) -> Parameters:
    """Return the parameters that training starts from, those of an earlier model if there is one."""
    given = recipe.parameters
    parameters = default_parameters(given, seed=recipe.seed)
    kind = parameters.clumping.dtype
    learnt = None if ancestor is None else load_model(ancestor)
    if learnt is not None:
        names = {row.published_name: row.name for row in TABLE} | {row.name: row.name for row in TABLE}
        kept = {name for name in Parameters._fields if name not in {names[key] for key in given}}
        parameters = parameters._replace(**{name: getattr(learnt.parameters, name) for name in kept})
    hybrid = recipe.options.conductance == "hybrid"
    if hybrid and (learnt is None or learnt.options.conductance != "hybrid"):
        network = as_relative_humidity(draw_network(recipe.seed))
        parameters = parameters._replace(
            humidity_network=jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), network)
        )
    if learnt is not None and learnt.options.conductance == recipe.options.conductance:
        return parameters  # its networks know their inputs in its own scaling
    forcing, train = data.forcing.forcing, data.parts["train"]
    moisture, temperature = forcing.soil_moisture[train], forcing.air_temperature[train]
    respired = data.fluxes.soil_respiration[train]
    range_ = (np.nanmin(respired), np.nanmax(respired)) if np.isfinite(respired).any() else (0.0, 10.0)
    scaling = Scaling(
        moisture.mean(),
        moisture.std(),
        moisture.min(),
        moisture.max(),
        temperature.min(),
        temperature.max(),
        *range_,
    )
    return parameters._replace(scaling=Scaling(*(jnp.asarray(value, kind) for value in scaling)))


def _model(recipe: Recipe, layers: int, parameters: Parameters) -> CanVeg:
    """Return the recipe's model with some number of layers."""
    options: Options = msgspec.structs.replace(recipe.options, layers=layers)
    above = options.atmosphere_layers
    if recipe.dispersion is not None:
        matrix = read_dispersion_matrix(recipe.dispersion, layers, above)
    else:
        # the published matrices end where layers of the canopy's thickness end
        ratio = (
            (layers + above) / layers
            if options.mode == "reference"
            else recipe.site.measurement_height / recipe.site.canopy_height
        )
        matrix = dispersion_matrix(layers, above, measurement_height_ratio=ratio)
    return CanVeg(options, recipe.site.site(), parameters, matrix)


def _optimiser(training: Training) -> optax.GradientTransformation:
    """Adam with cosine schedule; networks learn at a rate of their own."""
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=training.learning_rate / max(training.rise, 1),
        peak_value=training.learning_rate,
        warmup_steps=min(training.rise, training.iterations - 1),
        decay_steps=training.iterations,
        end_value=training.learning_rate * training.final_fraction,
    )

    def are_networks(tree: Free) -> dict[str, bool]:
        return {group: group == "networks" for group in tree}

    return optax.chain(
        optax.clip_by_global_norm(training.clip),
        optax.scale_by_adam(),
        optax.masked(
            optax.chain(optax.add_decayed_weights(training.weight_decay), optax.scale(training.network_rate)),
            are_networks,
        ),
        optax.scale_by_learning_rate(schedule),
    )


def train_from_recipe(
    recipe: Recipe | str | Path,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Path | None:
    """Train a canopy as a recipe says.

    Parameters
    ----------
    recipe
        A recipe, or a file of one: YAML, or a JSON configuration of JAX-CanVeg.
    output
        The run's folder, instead of the recipe's.
    resume
        Continue from the folder's checkpoint.
    progress
        Show a bar.

    Returns
    -------
    Path
        The bundle's folder; None if the run was interrupted, after a checkpoint.

    Raises
    ------
    ConfigurationError, ForcingError
        If the recipe or the data are not as needed, or the folder holds a run and ``resume`` is off.
    StateError
        If there is nothing to resume, or it belongs to another recipe.
    TrainingError
        If batch after batch gives no finite loss or gradient.
    """
    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if output is not None:
        loaded = msgspec.structs.replace(loaded, output=str(output))
    with jax_precision(loaded.dtype):
        trainer = Trainer(loaded)
        if not trainer.run(resume=resume, progress=progress):
            return None
    return trainer.folder / BUNDLE
