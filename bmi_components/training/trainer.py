"""The trainer: draws windows, moves weights, and survives kills, NaN batches and impatient users."""

from __future__ import annotations

import csv
import ctypes
import io
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from bmi_components.errors import BmiComponentsError, ConfigurationError, StateError
from bmi_components.forcing.caravan import BasinDataset, attribute_units, read_caravan
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.training.checkpoint import Checkpoint, pack_optimiser, unpack_optimiser
from bmi_components.training.evaluation import simulate
from bmi_components.training.files import write_whole
from bmi_components.training.interrupts import gentle_interrupts
from bmi_components.training.losses import Spread, get_loss
from bmi_components.training.metrics import kge, nse
from bmi_components.training.models import TrainableModel, create_model, load_model
from bmi_components.training.normalisation import compute_normalisation, streamflow_spread
from bmi_components.training.plots import plot_loss
from bmi_components.training.recipe import Optimiser, Recipe
from bmi_components.training.sampler import Batch, WindowSampler, iterations_per_epoch, split_gauges

__all__ = ["Trainer", "TrainingError", "learning_rate"]

CHECKPOINT = "checkpoint.safetensors"
BUNDLE = "bundle"
_LARGEST_RUN_OF_BAD_BATCHES = 20


def _keep_freed_memory() -> None:
    """Tell glibc to keep what is freed: fresh pages for each iteration's arrays cost a seventh of its time.

    Measured with 100 x 730 days and hidden 256: 0.7 of 5 s. Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform == "linux" and mallopt is not None:
        trim_threshold, mmap_max = -1, -4
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_max, 0)


_OPTIMISERS = {"adadelta": torch.optim.Adadelta, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class TrainingError(BmiComponentsError):
    """Training cannot go on, because batch after batch gives a loss or gradient that is not finite."""


def learning_rate(optimiser: Optimiser, iteration: int, iterations: int) -> float:
    """Learning rate of an iteration (counted from 0) by the schedule described at `Optimiser`."""
    rate = optimiser.learning_rate
    if iteration < optimiser.rise:
        return rate * (iteration + 1) / optimiser.rise
    if optimiser.schedule == "constant":
        return rate
    progress = (iteration - optimiser.rise) / max(1, iterations - 1 - optimiser.rise)
    final = optimiser.final_fraction
    return rate * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


class Trainer:
    """One training run in one folder.

    The folder holds ``recipe.yaml``, ``checkpoint.safetensors`` (to resume), ``metrics.csv`` and ``loss.png`` (to
    look at) and, at the end, ``bundle/`` (to use).

    Parameters
    ----------
    recipe
        What to do.
    dataset
        The data; None: read from ``recipe.data``.

    Raises
    ------
    ConfigurationError
        If the recipe and the data do not fit together.
    """

    def __init__(self, recipe: Recipe, dataset: BasinDataset | None = None) -> None:
        torch.set_num_threads(recipe.threads)
        _keep_freed_memory()
        self.recipe = recipe
        self.folder = Path(recipe.output)
        self.dataset = dataset or read_caravan(recipe.data.path, recipe.data.forcing, recipe.data.attributes)
        self.loss = get_loss(recipe.loss)
        self.trained_gauges, self.held_out_gauges = self._split()
        spread = streamflow_spread(self.dataset, recipe.periods.train)
        observed = self.trained_gauges[np.isfinite(spread["linear"][self.trained_gauges])]
        window = recipe.window
        self.sampler = WindowSampler(
            self.dataset.target,
            observed,
            self.dataset.days(recipe.periods.train),
            warm_up=window.warm_up,
            scored=window.scored,
            batch=window.gauges,
            seed=recipe.seed,
        )
        normalisation = compute_normalisation(self.dataset, self.trained_gauges, recipe.periods.train)
        if recipe.start_from is None:
            self.model = create_model(
                recipe.model.kind,
                recipe.model.hyperparameters,
                self.dataset.forcing_names,
                self.dataset.attribute_names,
                normalisation,
                recipe.seed,
            )
        else:
            self.model = self._continued(TrainedModel.load(recipe.start_from, recipe.model.kind))
        settings = recipe.optimiser
        self.optimiser: torch.optim.Optimizer = _OPTIMISERS[settings.name](
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._average: dict[str, Tensor] | None = None
        if settings.average is not None:
            self._average = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self._forcing = torch.from_numpy(self.dataset.forcing)
        self._target = torch.from_numpy(self.dataset.target)
        self._attributes = torch.from_numpy(self.dataset.attributes)
        self._spread = Spread(**{name: torch.from_numpy(values) for name, values in spread.items()})
        self.iteration = 0
        self.losses: list[float] = []
        self.validations: list[tuple[int, float, float]] = []
        self._bad_batches = 0
        torch.manual_seed(recipe.seed)

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
            If 20 batches in a row give no finite loss or gradient.
        """
        path = self.folder / CHECKPOINT
        if resume:
            self._restore(Checkpoint.load(path))
        elif path.exists():
            raise ConfigurationError(
                f"the folder {self.folder} already holds a run: resume it, or choose another output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "recipe.yaml", msgspec.yaml.encode(self.recipe))
        every = self.recipe.checkpoint_every
        bar = tqdm(
            total=self.recipe.iterations,
            initial=self.iteration,
            disable=not progress,
            unit="it",
            mininterval=2.0,
        )
        with bar, gentle_interrupts() as interrupts:
            while self.iteration < self.recipe.iterations:
                self.losses.append(self.iterate())
                self.iteration += 1
                bar.update()
                bar.set_postfix_str(
                    f"loss {_recent(self.losses):.4f}{self._validation_text()}", refresh=False
                )
                self._validate()
                if self.iteration % every == 0 or interrupts or self.iteration == self.recipe.iterations:
                    self._save(path)
                if interrupts:
                    break
        plot_loss(self.folder / "loss.png", self.losses, self.validations)
        if self.iteration < self.recipe.iterations:
            return False
        with self.evaluated_weights():
            bundle = self.model.to_bundle(
                attributes=[NamedUnits(name, attribute_units(name)) for name in self.dataset.attribute_names],
                provenance=self.provenance(),
                licence=self.dataset.licence,
            )
        bundle.save(self.folder / BUNDLE, card=self._card(), overwrite=(self.folder / BUNDLE).exists())
        return True

    def _continued(self, bundle: TrainedModel) -> TrainableModel:
        """Make a trained model ready for further training on this data set."""
        model = load_model(bundle)
        for what, ours, theirs in (
            ("forcings", self.dataset.forcing_names, model.forcing_names),
            ("attributes", self.dataset.attribute_names, model.attribute_names),
        ):
            if tuple(ours) != tuple(theirs):
                raise ConfigurationError(
                    f"start_from: the model was trained on the {what} {', '.join(theirs)}; the recipe's data give "
                    f"{', '.join(ours)}"
                )
        return model

    def iterate(self) -> float:
        """Learn from one batch; return its loss, or NaN if it was skipped because it gave no finite gradient."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.recipe.optimiser, self.iteration, self.recipe.iterations)
        forcing, attributes, observed, spread = self._gather(self.sampler.draw())
        self.model.train()
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(self.model(forcing, attributes, self.recipe.window.warm_up), observed, spread)
        if torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(
                self.model.parameters(), self.recipe.optimiser.clip or math.inf
            )
            if torch.isfinite(norm):
                self.optimiser.step()
                self._update_average()
                self._bad_batches = 0
                return loss.item()
        self._bad_batches += 1
        if self._bad_batches >= _LARGEST_RUN_OF_BAD_BATCHES:
            raise TrainingError(
                f"{self._bad_batches} batches in a row up to iteration {self.iteration} gave a loss or gradient that "
                "is not finite; lower optimiser.learning_rate or look for faults in the data"
            )
        return math.nan

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Lend the model the weights that are evaluated and shipped: the running mean, if the recipe asks for it."""
        if self._average is None:
            yield
            return
        current = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self._average)
        try:
            yield
        finally:
            self.model.load_state_dict(current)

    def provenance(self) -> dict[str, Any]:
        """Return what a bundle records about its training."""
        recipe = self.recipe
        window = recipe.window
        train_days = self.dataset.days(recipe.periods.train)
        return {
            "data": self.dataset.source,
            "trained_on": {
                "period": [str(day) for day in recipe.periods.train],
                "gauges": int(self.trained_gauges.size),
                "held_out_gauges": [self.dataset.gauge_ids[position] for position in self.held_out_gauges],
            },
            "test_period": [str(day) for day in recipe.periods.test],
            "iterations": self.iteration,
            "iterations_per_epoch": iterations_per_epoch(
                int(self.trained_gauges.size),
                train_days.stop - train_days.start,
                batch=window.gauges,
                scored=window.scored,
                warm_up=window.warm_up,
            ),
            "recipe": msgspec.to_builtins(
                msgspec.structs.replace(
                    recipe,
                    output="",
                    data=msgspec.structs.replace(recipe.data, path=Path(recipe.data.path).name),
                )
            ),
        }

    def _card(self) -> str:
        """What a reader of the bundle should know, before anybody has evaluated it."""
        recipe, held_out = self.recipe, int(self.held_out_gauges.size)
        days = f"{recipe.periods.train[0]} to {recipe.periods.train[1]}"
        return (
            f"# {recipe.model.kind}\n\n"
            f"Trained on {self.trained_gauges.size} gauges, {days}"
            f"{f'; {held_out} gauges were held out (listed in model.yaml)' if held_out else ''}.\n\n"
            f"Data: {self.dataset.source}\n\nLicence of the data: {self.dataset.licence or 'not stated'}\n\n"
            f"{self.iteration} iterations of {recipe.window.gauges} windows ({recipe.window.warm_up} days of warm-up, "
            f"{recipe.window.scored} scored), loss `{recipe.loss}`, seed {recipe.seed}; the whole recipe is in "
            "model.yaml. Scores on unseen data: `bmi-components evaluate`.\n"
        )

    def _split(self) -> tuple[Any, Any]:
        held_out = self.recipe.held_out
        if held_out is None:
            return np.arange(self.dataset.size), np.arange(0)
        return split_gauges(
            self.dataset.size,
            seed=held_out.seed,
            fraction=held_out.fraction,
            folds=held_out.folds,
            fold=held_out.fold,
        )

    def _gather(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Spread]:
        """Cut the batch's windows out of the data; what is scored comes without its warm-up."""
        window = self.recipe.window
        gauges = torch.from_numpy(batch.gauges)
        days = torch.from_numpy(batch.starts) + torch.arange(window.warm_up + window.scored).unsqueeze(1)
        spread = Spread(*(values[gauges] for values in self._spread))
        return (
            self._forcing[days, gauges],
            self._attributes[gauges],
            self._target[days[window.warm_up :], gauges],
            spread,
        )

    def _update_average(self) -> None:
        if self._average is None or self.recipe.optimiser.average is None:
            return
        # the first iterations count less, so that the random initial weights are soon forgotten
        decay = min(self.recipe.optimiser.average, (1 + self.iteration) / (10 + self.iteration))
        for name, tensor in self.model.state_dict().items():
            self._average[name].lerp_(tensor, 1.0 - decay)

    def _validate(self) -> None:
        validation = self.recipe.validation
        if validation is None or self.iteration % validation.every:
            return
        with self.evaluated_weights():
            simulated = simulate(
                self.model,
                self.dataset,
                validation.period,
                self.recipe.test_warm_up,
                gauges=self.trained_gauges,
            )
        observed = self.dataset.target[self.dataset.days(validation.period)][:, self.trained_gauges]
        self.validations.append(
            (
                self.iteration,
                float(np.nanmedian(nse(simulated, observed))),
                float(np.nanmedian(kge(simulated, observed))),
            )
        )

    def _validation_text(self) -> str:
        return f", validation NSE {self.validations[-1][1]:.3f}" if self.validations else ""

    def _save(self, path: Path) -> None:
        checkpoint = Checkpoint()
        checkpoint.put("model", self.model.state_dict())
        checkpoint.put("optimiser", pack_optimiser(self.optimiser))
        checkpoint.put("average", self._average or {})
        checkpoint.put("random", {"torch": torch.get_rng_state()})
        checkpoint.put("history", {"losses": torch.tensor(self.losses, dtype=torch.float64)})
        checkpoint.values = {
            "iteration": self.iteration,
            "sampler": self.sampler.state(),
            "validations": self.validations,
            "bad_batches": self._bad_batches,
            "recipe": _identity(self.recipe),
        }
        checkpoint.save(path)
        self._write_metrics()

    def _restore(self, checkpoint: Checkpoint) -> None:
        known = checkpoint.values["recipe"]
        for key, value in _identity(self.recipe).items():
            if known.get(key) != value:
                raise StateError(
                    f"the checkpoint in {self.folder} was made with another recipe: {key} was {known.get(key)!r} "
                    f"and is now {value!r}"
                )
        self.model.load_state_dict(checkpoint.group("model"))
        unpack_optimiser(self.optimiser, checkpoint.group("optimiser"))
        if self._average is not None:
            self._average = checkpoint.group("average")
        torch.set_rng_state(checkpoint.group("random")["torch"])
        self.losses = checkpoint.group("history")["losses"].tolist()
        self.iteration = int(checkpoint.values["iteration"])
        self.sampler.set_state(checkpoint.values["sampler"])
        self.validations = [(int(i), float(n), float(k)) for i, n, k in checkpoint.values["validations"]]
        self._bad_batches = int(checkpoint.values["bad_batches"])

    def _write_metrics(self) -> None:
        """Write ``metrics.csv`` from the whole history, so that it always agrees with the checkpoint."""
        validations = {iteration: (n, k) for iteration, n, k in self.validations}
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(
            ("iteration", "learning_rate", "loss", "validation_median_nse", "validation_median_kge")
        )
        for iteration, loss in enumerate(self.losses, start=1):
            rate = learning_rate(self.recipe.optimiser, iteration - 1, self.recipe.iterations)
            scores = [f"{score:.4f}" for score in validations.get(iteration, ())] or ["", ""]
            writer.writerow((iteration, f"{rate:.6g}", f"{loss:.6g}", *scores))
        write_whole(self.folder / "metrics.csv", text.getvalue().encode())


def _identity(recipe: Recipe) -> dict[str, Any]:
    """Return the parts of a recipe that a run must keep; it may be moved, and its data too."""
    parts: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    for key in ("output", "threads", "checkpoint_every"):
        del parts[key]
    del parts["data"]["path"]
    return parts


def _recent(losses: list[float]) -> float:
    """Mean loss of the last hundred batches that were not skipped."""
    known = [loss for loss in losses[-100:] if not math.isnan(loss)]
    return sum(known) / len(known) if known else math.nan
