"""A run in its folder: the towers' windows, and fits that are kept, so that a run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.config import read_yaml
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.flux_screening import without_straight_lines
from bmi_components.forcing.flux_tower import read_flux_table
from bmi_components.lstm.flux.daily import DailyRules, DailyTable, daily_table
from bmi_components.lstm.flux.models import FluxModel, load_model
from bmi_components.lstm.flux.recipe import Recipe, Settings, identity
from bmi_components.lstm.flux.training import Fitted, History, Interrupted, fit_model
from bmi_components.lstm.flux.windows import Windows, concatenate, windows
from bmi_components.trained_model import TrainedModel
from bmi_components.training.files import write_whole

__all__ = ["FittedModel", "Run", "mean_prediction"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FittedModel:
    """A model of a run, ready to predict, and how its fit went."""

    model: FluxModel
    history: History

    def predict(self, windows: Windows) -> Array:
        """Return the prediction of each window."""
        return self.model.predict(windows.inputs)


class Run:
    """A recipe at work in its output folder.

    Every fit is kept in ``fits/`` under a name that follows from all that determines it (settings, windows, seed), and
    taken from there when it is asked for again: by the same command after an interruption, or by another.

    Parameters
    ----------
    recipe
        What to do.
    progress
        Show a progress bar of epochs.
    interrupts
        When something is in it, the run saves its progress and stops; see `gentle_interrupts`.

    Raises
    ------
    ConfigurationError
        If the folder holds a run of another recipe.
    """

    def __init__(self, recipe: Recipe, *, progress: bool = False, interrupts: Sequence[int] = ()) -> None:
        self.recipe = recipe
        self.folder = Path(recipe.output)
        self.interrupts = interrupts
        self._progress = progress
        kept = self.folder / "recipe.yaml"
        if kept.exists() and read_yaml(kept) != _plain(identity(recipe)):
            raise ConfigurationError(
                f"the folder {self.folder} already holds a run of another recipe; choose another output"
            )
        torch.set_num_threads(recipe.threads)
        (self.folder / "fits").mkdir(parents=True, exist_ok=True)
        write_whole(kept, msgspec.yaml.encode(identity(recipe)))
        self._bar: tqdm[Any] | None = None
        self._windows: dict[tuple[int, int], Windows] = {}

    def __enter__(self) -> Run:
        self._bar = tqdm(total=0, disable=not self._progress, unit="epoch", mininterval=1.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @cached_property
    def towers(self) -> list[DailyTable]:
        """The towers, day by day.

        Raises
        ------
        ConfigurationError, ForcingError, UnknownNameError
            If a file or a column is absent or cannot be used.
        """
        recipe = self.recipe
        tables = []
        for tower in recipe.towers:
            table = read_flux_table(
                tower.files, kind=tower.kind, columns=tower.columns, units=tower.units, site=tower.site
            )
            if (lines := tower.straight_lines) is not None:
                table = without_straight_lines(table, lines.columns, lines.hours)
            tables.append(daily_table(table, recipe.daily, recipe.inputs, recipe.target))
        return tables

    @property
    def rules(self) -> DailyRules:
        """How days were made: as applied, or as in the recipe where the towers' columns made a difference."""
        applied = self.towers[0].rules
        return applied if all(tower.rules == applied for tower in self.towers) else self.recipe.daily

    def windows(self, length: int, match_length: int | None = None) -> Windows:
        """Return all towers' windows of a length, on the prediction days that have windows of ``match_length`` days."""
        key = (length, match_length or length)
        if key not in self._windows:
            parts = [windows(tower, length, match_length=match_length) for tower in self.towers]
            self._windows[key] = concatenate(parts)
        return self._windows[key]

    def plan(self, fits: Iterable[Settings]) -> None:
        """Make the progress bar longer by these fits."""
        if self._bar is not None and self._bar.total is not None:
            self._bar.total += sum(_ticks(settings) for settings in fits)
            self._bar.refresh()

    def describe(self, text: str) -> None:
        """Say beside the progress bar what is being fitted."""
        if self._bar is not None:
            self._bar.set_description_str(text, refresh=False)

    def fit(self, settings: Settings, training: Windows, seed: int) -> FittedModel:
        """Fit a model, or take it from the folder.

        Raises
        ------
        Interrupted
            If the user asked to stop.
        ConfigurationError, TrainingError
            See `fit_model`.
        """
        name = f"{settings.model}-{_fingerprint(settings, training, seed)}"
        folder = self.folder / "fits" / name
        if (folder / "history.json").exists():
            bundle = TrainedModel.load(folder / "bundle")
            history = msgspec.json.decode((folder / "history.json").read_bytes(), type=History)
            self._advance(_ticks(settings))
            return FittedModel(load_model(bundle), history)
        if self.interrupts:
            raise Interrupted
        folder.mkdir(exist_ok=True)
        ticked = 0

        def tick() -> None:
            nonlocal ticked
            ticked += 1
            self._advance(1)

        fitted: Fitted = fit_model(
            settings,
            training,
            seed=seed,
            daily=self.rules,
            threads=self.recipe.threads,
            checkpoint=folder / "checkpoint.safetensors",
            tick=tick,
            interrupts=self.interrupts,
        )
        self._advance(_ticks(settings) - ticked)  # an early stop leaves epochs out
        fitted.bundle.save(folder / "bundle", overwrite=True)
        write_whole(folder / "history.json", msgspec.json.encode(fitted.history))
        return FittedModel(load_model(fitted.bundle), fitted.history)

    def fit_several(
        self, settings: Settings, training: Windows, count: int, what: str = "fits"
    ) -> list[FittedModel]:
        """Fit a model ``count`` times with different seeds; ``what`` stands beside the progress bar."""
        self.plan([settings] * count)
        self.describe(what)
        return [self.fit(settings, training, seed) for seed in self.seeds(count)]

    def seeds(self, count: int) -> list[int]:
        """Return the seeds of so many fits, which follow from the recipe's."""
        return [self.recipe.seed + number for number in range(count)]

    def _advance(self, epochs: int) -> None:
        if self._bar is not None:
            self._bar.update(epochs)


def mean_prediction(models: Sequence[FittedModel], windows: Windows) -> Array:
    """Return the mean of several models' predictions, ``[window]``."""
    return np.asarray(np.mean([model.predict(windows) for model in models], axis=0))


def _ticks(settings: Settings) -> int:
    """How often a fit moves the progress bar."""
    return 1 if settings.model in ("random_forest", "xgboost") else settings.fit.epochs


def _fingerprint(settings: Settings, training: Windows, seed: int) -> str:
    """Name everything that a fit depends on."""
    digest = hashlib.sha256(json.dumps(_plain(settings), sort_keys=True).encode())
    digest.update(f"|{seed}|{training.input_names}|{training.inputs.shape}|".encode())
    for array in (training.inputs, training.target, training.date):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    """Return what YAML and JSON can hold and read back equal."""
    return msgspec.json.decode(msgspec.json.encode(value))
