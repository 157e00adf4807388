"""The training recipe: one YAML file that says what is learnt, from which data, and how."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bmi_components.config import read_yaml
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.caravan import CAMELS_ATTRIBUTES, CARAVAN_FORCING

__all__ = [
    "Data",
    "HeldOut",
    "ModelChoice",
    "Optimiser",
    "Periods",
    "Recipe",
    "Validation",
    "Window",
    "load_recipe",
]

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Period = tuple[date, date]


class ModelChoice(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Which model; ``hyperparameters`` are the model's own, absent ones take its defaults."""

    kind: str
    hyperparameters: dict[str, Any] = {}


class Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where the data are: a folder with ``timeseries.nc`` and ``attributes.csv``, or a netCDF file.

    ``path`` may be relative to the recipe and may hold environment variables; ``forcing`` and ``attributes`` are
    what the model is fed, in this order.
    """

    path: str
    forcing: tuple[str, ...] = CARAVAN_FORCING
    attributes: tuple[str, ...] = CAMELS_ATTRIBUTES


class Periods(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """First and last day of training and testing; nothing of the test period is ever read while training."""

    train: Period
    test: Period


class HeldOut(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Gauges that are not trained on: a ``fraction`` of all, or part ``fold`` of ``folds``, shuffled by ``seed``."""

    fraction: Annotated[float, Meta(ge=0.0, lt=1.0)] | None = None
    folds: Annotated[int, Meta(ge=2)] | None = None
    fold: NotNegative = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.fraction is None) == (self.folds is None):
            raise ValueError("held_out needs either 'fraction' or 'folds'")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds} folds (they count from 0)")


class Window(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Batches: ``gauges`` windows of ``warm_up`` days that fill the state and ``scored`` days that are learnt from."""

    gauges: Positive = 100
    warm_up: NotNegative = 365
    scored: Positive = 365


class Optimiser(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How weights move.

    ``learning_rate`` rises linearly over ``rise`` iterations and, with the schedule "cosine", falls along half a
    cosine to ``final_fraction`` of itself at the last iteration. ``clip``: largest gradient norm; None: any.
    ``average``: decay per iteration of the running mean of the weights that is evaluated and shipped instead of the
    last weights (Polyak averaging); None: the last weights.
    """

    name: Literal["adadelta", "adam", "adamw"] = "adadelta"
    learning_rate: Annotated[float, Meta(gt=0.0)] = 1.0
    weight_decay: Annotated[float, Meta(ge=0.0)] = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    rise: NotNegative = 0
    final_fraction: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01
    clip: Annotated[float, Meta(gt=0.0)] | None = 1.0
    average: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None


class Validation(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Scores on a period that is not trained on (and not the test period), ``every`` so many iterations."""

    period: Period
    every: Positive


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that determines a training run.

    ``iterations`` is the number of weight updates, ``checkpoint_every`` how many are at most lost by a kill,
    ``threads`` of PyTorch. ``start_from`` is a bundle whose model is trained further, with its own normalisation.
    ``output`` (the run's folder) and ``start_from`` are relative to where the command is started.
    """

    model: ModelChoice
    data: Data
    periods: Periods
    output: str
    iterations: Positive
    loss: str = "nse"
    window: Window = Window()
    optimiser: Optimiser = Optimiser()
    held_out: HeldOut | None = None
    validation: Validation | None = None
    test_warm_up: NotNegative = 365
    seed: int = 0
    start_from: str | None = None
    threads: Positive = 1
    checkpoint_every: Positive = 50

    def __post_init__(self) -> None:
        if self.periods.test[0] <= self.periods.train[1] and self.periods.train[0] <= self.periods.test[1]:
            raise ValueError("the test period overlaps the training period")
        if self.validation is not None:
            first, last = self.validation.period
            for name in ("train", "test"):
                other = getattr(self.periods, name)
                if first <= other[1] and other[0] <= last:
                    raise ValueError(f"the validation period overlaps the {name} period")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; ``data.path`` comes back absolute.

    Raises
    ------
    ConfigurationError
        If the file is absent or not YAML, or a key is unknown, missing or out of range; the error names the key.
    """
    path = Path(path)
    try:
        recipe = msgspec.convert(read_yaml(path), Recipe)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    data = Path(os.path.expandvars(recipe.data.path)).expanduser()
    if "$" in str(data):
        raise ConfigurationError(f"{path}: data.path names an environment variable that is not set: {data}")
    resolved = str((path.resolve().parent / data).resolve())
    return msgspec.structs.replace(recipe, data=msgspec.structs.replace(recipe.data, path=resolved))
