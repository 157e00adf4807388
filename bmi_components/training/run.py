"""A training run in one folder, whatever the framework: its loop, interrupts, checkpoints, and when it gives up.

A trainer stands on `TrainingRun`. It calls ``super().__init__(recipe, iterations)``, builds its model and its data,
and defines

* `TrainingRun.learn`: one batch, one update of the weights;
* `TrainingRun.memory` and `TrainingRun.recall`: what the next iteration depends on, to an archive and back (the
  iteration's number, losses and validation scores are kept here);
* `TrainingRun.identity`: the parts of the recipe that a run must keep when it is resumed;
* `TrainingRun.bundle`, `TrainingRun.card` and `TrainingRun.plot`: what is left when the run is over;

and, if it validates, `TrainingRun.validation_scores` with ``score_names`` and ``score_label``. A resumed run gives the
same bits as one without a break if each batch follows from the recipe's seed and ``self.iteration`` alone
(``np.random.default_rng([recipe.seed, 0, self.iteration])``), or if `memory` keeps the state of what draws it.
"""

from __future__ import annotations

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec
import numpy as np
from tqdm import tqdm

from bmi_components.errors import BmiComponentsError, ConfigurationError, StateError
from bmi_components.trained_model import TrainedModel
from bmi_components.training.archive import Archive
from bmi_components.training.files import write_whole
from bmi_components.training.interrupts import gentle_interrupts

__all__ = ["BUNDLE", "CHECKPOINT", "TrainingError", "TrainingRun"]

CHECKPOINT = "checkpoint.safetensors"
BUNDLE = "bundle"
_LARGEST_RUN_OF_BAD_BATCHES = 20


class TrainingError(BmiComponentsError):
    """Training cannot go on, because batch after batch gives a loss or gradient that is not finite."""


class RunRecipe(Protocol):
    """What a run needs to know of its recipe, a `msgspec.Struct`."""

    @property
    def output(self) -> str:
        """The run's folder."""

    @property
    def checkpoint_every(self) -> int:
        """Iterations from one checkpoint to the next: how many are at most lost by a kill."""


RecipeT = TypeVar("RecipeT", bound=RunRecipe)


class TrainingRun(ABC, Generic[RecipeT]):
    """One training run in one folder.

    The folder holds ``recipe.yaml``, ``checkpoint.safetensors`` (to resume), ``metrics.csv`` and ``loss.png`` (to look
    at) and, at the end, ``bundle/`` (to use).

    Parameters
    ----------
    recipe
        What to do.
    iterations
        Updates of the weights in the whole run.

    Attributes
    ----------
    iteration
        Updates that are done; while `learn` runs, the number of the present one, counted from 0.
    losses
        Loss of every batch; NaN where it was skipped.
    validations
        The number of an iteration, and its `validation_scores`.
    """

    advice: ClassVar[str] = "lower the learning rate"
    """What a user may do about batches that give no finite loss."""
    score_names: ClassVar[tuple[str, ...]] = ()
    """Columns of ``metrics.csv`` for the validation scores."""
    score_label: ClassVar[str] = ""
    """What the progress bar calls the first score."""

    def __init__(self, recipe: RecipeT, iterations: int) -> None:
        self.recipe = recipe
        self.folder = Path(recipe.output)
        self.iterations = iterations
        self.iteration = 0
        self.losses: list[float] = []
        self.validations: list[tuple[Any, ...]] = []
        self._bad_batches = 0

    @abstractmethod
    def learn(self) -> float:
        """Learn from batch ``self.iteration``; return its loss.

        Where the loss or its gradient is not finite, nothing may change, and what is returned is not finite.
        """

    @abstractmethod
    def memory(self) -> Archive:
        """Return what the next iteration depends on; it is written before the next iteration begins."""

    @abstractmethod
    def recall(self, memory: Archive) -> None:
        """Put back what `memory` returned."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return the parts of the recipe that a run must keep when it is resumed, as JSON could hold them."""

    @abstractmethod
    def bundle(self) -> TrainedModel:
        """Return the trained model that is shipped."""

    @abstractmethod
    def card(self) -> str:
        """What a reader of the bundle should know, before anybody has evaluated it."""

    @abstractmethod
    def plot(self, path: Path) -> None:
        """Draw the losses and the validation scores."""

    def learning_rate(self, iteration: int) -> float | None:
        """Learning rate of an iteration (counted from 0), for ``metrics.csv``; None: no such column."""
        return None

    def validation_scores(self) -> tuple[float, ...] | None:
        """Scores on data that are not learnt from, if they are due after ``self.iteration`` updates."""
        return None

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
            self._restore(path)
        elif path.exists():
            raise ConfigurationError(
                f"the folder {self.folder} already holds a run: resume it, or choose another output"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "recipe.yaml", msgspec.yaml.encode(self.recipe))
        bar = tqdm(
            total=self.iterations, initial=self.iteration, disable=not progress, unit="it", mininterval=2.0
        )
        with bar, gentle_interrupts() as interrupts:
            while self.iteration < self.iterations:
                self.losses.append(self.iterate())
                self.iteration += 1
                if (scores := self.validation_scores()) is not None:
                    self.validations.append((self.iteration, *scores))
                bar.update()
                bar.set_postfix_str(self._progress(), refresh=False)
                done = self.iteration == self.iterations
                if self.iteration % self.recipe.checkpoint_every == 0 or interrupts or done:
                    self._save(path)
                if interrupts:
                    break
        self.plot(self.folder / "loss.png")
        if self.iteration < self.iterations:
            return False
        folder = self.folder / BUNDLE
        self.bundle().save(folder, card=self.card(), overwrite=folder.exists())
        return True

    def iterate(self) -> float:
        """Learn from one batch; return its loss, or NaN if it was skipped because it gave no finite gradient.

        Raises
        ------
        TrainingError
            If it is the 20th such batch in a row.
        """
        loss = self.learn()
        if math.isfinite(loss):
            self._bad_batches = 0
            return loss
        self._bad_batches += 1
        if self._bad_batches >= _LARGEST_RUN_OF_BAD_BATCHES:
            raise TrainingError(
                f"{self._bad_batches} batches in a row up to iteration {self.iteration} gave a loss or gradient that "
                f"is not finite; {self.advice}"
            )
        return math.nan

    def _progress(self) -> str:
        """Mean loss of the last hundred batches that were not skipped, and the latest score."""
        known = [loss for loss in self.losses[-100:] if not math.isnan(loss)]
        text = f"loss {sum(known) / len(known) if known else math.nan:.5f}"
        if self.validations:
            text += f", validation {self.score_label} {self.validations[-1][1]:.3f}"
        return text

    def _save(self, path: Path) -> None:
        archive = self.memory()
        archive.arrays["history/losses"] = np.array(self.losses, dtype=np.float64)
        archive.values |= {
            "iteration": self.iteration,
            "validations": self.validations,
            "bad_batches": self._bad_batches,
            "recipe": self.identity(),
        }
        archive.save(path)
        self._write_metrics()

    def _restore(self, path: Path) -> None:
        archive = Archive.load(path)
        known = archive.values["recipe"]
        # by way of JSON, as the file's values are: it knows no tuples
        for key, value in json.loads(json.dumps(self.identity())).items():
            if known.get(key) != value:
                raise StateError(
                    f"the checkpoint in {self.folder} was made with another recipe: {key} was {known.get(key)!r} "
                    f"and is now {value!r}"
                )
        self.recall(archive)
        self.losses = archive.arrays["history/losses"].tolist()
        self.iteration = int(archive.values["iteration"])
        self.validations = [
            (int(iteration), *map(float, scores)) for iteration, *scores in archive.values["validations"]
        ]
        self._bad_batches = int(archive.values["bad_batches"])

    def _write_metrics(self) -> None:
        """Write ``metrics.csv`` from the whole history, so that it always agrees with the checkpoint."""
        validations = {
            iteration: [f"{score:.6g}" for score in scores] for iteration, *scores in self.validations
        }
        no_scores = [""] * len(self.score_names)
        text = io.StringIO()
        writer = csv.writer(text)
        rate_name = () if self.learning_rate(0) is None else ("learning_rate",)
        writer.writerow(("iteration", *rate_name, "loss", *self.score_names))
        for iteration, loss in enumerate(self.losses, start=1):
            rate = self.learning_rate(iteration - 1)
            numbers = (loss,) if rate is None else (rate, loss)
            scores = validations.get(iteration, no_scores)
            writer.writerow((iteration, *(f"{number:.6g}" for number in numbers), *scores))
        write_whole(self.folder / "metrics.csv", text.getvalue())
