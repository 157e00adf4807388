"""The recipe of a flux model: one YAML file that says which towers, which days, which model, and how it is judged."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bmi_components.config import read_yaml
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.flux_tower import FluxKind
from bmi_components.lstm.flux.daily import DailyRules
from bmi_components.lstm.flux.models import MODELS

__all__ = [
    "Comparison",
    "Entrant",
    "Fit",
    "Folds",
    "Grouping",
    "Importance",
    "Recipe",
    "Settings",
    "Split",
    "StraightLines",
    "Tower",
    "candidates",
    "identity",
    "load_recipe",
]

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[float, Meta(ge=0.0)]
Grouping = Literal["season", "calendar", "july", "month"]
"""What is held out together: season years (from spring snow to spring snow), calendar years, years that begin on
1 July (named by the year in which they begin), or single months."""


class StraightLines(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Gaps that were filled by linear interpolation, to be gaps again; see `without_straight_lines`.

    Attributes
    ----------
    columns
        Columns that vary with the sun or the weather.
    hours
        Length from which a straight line is a fill; longer than a night.
    """

    columns: tuple[str, ...]
    hours: Annotated[float, Meta(gt=0.0)] = 18.0


class Tower(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Files of one flux tower.

    Attributes
    ----------
    files
        One file, or several that are joined by column and in time; relative to the recipe, environment variables
        allowed.
    kind
        Kind of the files: "base", "fluxnet", "canveg", "csv", or "auto".
    columns
        Our name: name in the file, where they differ.
    units
        Our name: units, where the file says none or wrong ones.
    site
        Identifier, where the files' names hold none.
    straight_lines
        Interpolated gaps that shall be gaps again; null: the files are taken as they are.
    """

    files: tuple[str, ...]
    kind: FluxKind = "auto"
    columns: dict[str, str] = {}
    units: dict[str, str] = {}
    site: str | None = None
    straight_lines: StraightLines | None = None


class Fit(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How a network's weights are found: the mean squared error is made small, batch by batch. Trees ignore it.

    DLFM's own choice is ``{optimiser: sgd, learning_rate: 0.001, epochs: 2500, shuffle: false, drop_last: true,
    clip: null, standardise_target: false}``.

    Attributes
    ----------
    optimiser
        "adam", "adamw" or "sgd".
    learning_rate
        Step size.
    schedule
        "constant", or "cosine": the learning rate falls along half a cosine towards zero at the last epoch.
    momentum
        Of "sgd".
    weight_decay
        Pull of the weights towards zero.
    epochs
        Passes over the training windows.
    batch
        Windows per step.
    shuffle
        Whether each epoch takes the windows in a new random order.
    drop_last
        Whether an epoch leaves out its last, incomplete batch.
    clip
        Largest norm of the gradient; null: any.
    standardise_target
        Whether the network learns the target as (target - mean) / standard deviation of the training windows.
    patience
        Stop when the validation error has not fallen for so many epochs, and take the best epoch's weights; null:
        never. The validation windows are the last calendar year of each tower's training windows (the last fifth
        where there is one year); the network does not learn from them.
    """

    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Annotated[float, Meta(gt=0.0)] = 0.003
    schedule: Literal["constant", "cosine"] = "constant"
    momentum: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    weight_decay: NotNegative = 0.0
    epochs: Positive = 100
    batch: Positive = 64
    shuffle: bool = True
    drop_last: bool = False
    clip: Annotated[float, Meta(gt=0.0)] | None = 1.0
    standardise_target: bool = True
    patience: Positive | None = None


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One model and how it is fitted.

    Attributes
    ----------
    model
        "lstm", "rnn", "ann", "dynamic_ann", "xlstm", "xlstm_mixer", "random_forest" or "xgboost".
    sequence_length
        Days in a window, the prediction day included.
    sizes
        The model's own sizes; those left out take their defaults.
    fit
        How a network is trained.
    """

    model: str = "lstm"
    sequence_length: Positive = 31
    sizes: dict[str, Any] = {}
    fit: Fit = Fit()

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model {self.model!r} is unknown; choose one of {', '.join(MODELS)}")


class Split(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is kept for evaluation: the last ``years`` years of each tower.

    A tower with no more than so many years trains on its first year, one with a single year on its first 80 %.

    Attributes
    ----------
    years
        How many.
    by
        Which: "season" years, "calendar" years, years from "july" to June, or single "month"s.
    """

    years: Positive = 3
    by: Grouping = "season"


class Folds(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How candidates are cross-validated: each fold holds out one year, the last first.

    Attributes
    ----------
    by
        Which: "season" years, "calendar" years, years from "july" to June, or single "month"s. Towers that share one
        are held out together.
    count
        Number of folds; null: as many as there are.
    least
        Windows below which a year is no fold; null: DLFM's rule, 200 - floor(sqrt(80 sequence_length)).
    choose
        What makes a candidate the best: the largest "mean_r2" over the folds, or "pooled_r2", the largest R2 of all
        folds' predictions together, which suits folds so small that their own variance says little.
    """

    by: Grouping = "season"
    count: Positive | None = None
    least: Positive | None = None
    choose: Literal["mean_r2", "pooled_r2"] = "mean_r2"


class Importance(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the importance of the past is measured.

    Attributes
    ----------
    lengths
        Sequence lengths, days, that are compared on the same prediction days.
    fits
        Trainings of each length, with different seeds, that the 95 % bands come from.
    """

    lengths: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (1, 3, 7, 14, 31, 60, 90)
    fits: Annotated[int, Meta(ge=2)] = 5


class Entrant(Settings, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A model that is compared: `Settings`, and a grid from which each fold chooses for itself.

    Attributes
    ----------
    grid
        As a recipe's ``grid``. The candidates are cross-validated within the training windows of each fold, so that the
        held-out year has no say in the choice.
    """

    grid: dict[str, Annotated[list[Any], Meta(min_length=1)]] = {}


class Comparison(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Models that are compared with each other, and with the climatology, fold by fold on the same prediction days.

    Attributes
    ----------
    models
        By the name that the table shows.
    folds
        What each fold holds out.
    inner
        How a fold's candidates are cross-validated within its training windows.
    seeds
        Trainings of each model and fold; their mean prediction is scored.
    """

    models: dict[str, Entrant]
    folds: Folds = Folds()
    inner: Folds = Folds()
    seeds: Positive = 1


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that determines a flux model's training and evaluation.

    Attributes
    ----------
    towers
        Where the data are. Several towers train one model.
    output
        The run's folder, relative to where the command is started.
    inputs
        Columns that the model reads; null: those of snow depth, precipitation, photon flux and net radiation that
        there are.
    target
        Column that it predicts; null: the net ecosystem exchange.
    daily
        How half-hours become days.
    model
        The model; where there is a grid, what all candidates share.
    grid
        Values to be tried by key of ``model``, such as ``sequence_length: [31, 90]``, ``sizes.hidden: [8, 15]`` or
        ``fit.learning_rate: [0.01, 0.001]``; each combination is a candidate.
    split
        What is kept for evaluation.
    folds
        How candidates are cross-validated within the rest.
    final_fits
        Trainings of the best candidate on all training windows, with different seeds. The bundle holds all of them, if
        they are networks, and predicts their mean.
    importance
        How the importance of the past is measured.
    compare
        Models for ``bmi-components flux compare``.
    licence
        Of the data, as their authors state it; the bundle passes it on.
    seed
        Of the initial weights and all that is random.
    threads
        Of PyTorch and the trees.
    """

    towers: Annotated[tuple[Tower, ...], Meta(min_length=1)]
    output: str
    inputs: tuple[str, ...] | None = None
    target: str | None = None
    daily: DailyRules = DailyRules()
    model: Settings = Settings()
    grid: dict[str, Annotated[list[Any], Meta(min_length=1)]] = {}
    split: Split = Split()
    folds: Folds = Folds()
    final_fits: Positive = 5
    importance: Importance = Importance()
    compare: Comparison | None = None
    licence: str = ""
    seed: Annotated[int, Meta(ge=0)] = 0
    threads: Positive = 1


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe; the towers' files come back absolute.

    Raises
    ------
    ConfigurationError
        If the file is absent or not YAML, or a key is unknown, missing or out of range; the error names the key.
    """
    path = Path(path)
    try:
        recipe = msgspec.convert(read_yaml(path), Recipe)
        for base in (recipe.model, *(recipe.compare.models.values() if recipe.compare else ())):
            candidates(base, base.grid if isinstance(base, Entrant) else recipe.grid)
    except (msgspec.ValidationError, ConfigurationError) as error:
        message = str(error)
        raise ConfigurationError(
            message if message.startswith(str(path)) else f"{path}: {message}"
        ) from error
    towers = tuple(
        msgspec.structs.replace(tower, files=tuple(_resolve(file, path) for file in tower.files))
        for tower in recipe.towers
    )
    return msgspec.structs.replace(recipe, towers=towers)


def _resolve(file: str, recipe: Path) -> str:
    expanded = Path(os.path.expandvars(file)).expanduser()
    if "$" in str(expanded):
        raise ConfigurationError(
            f"{recipe}: towers.files names an environment variable that is not set: {file}"
        )
    return str((recipe.resolve().parent / expanded).resolve())


def candidates(base: Settings, grid: Mapping[str, Sequence[Any]]) -> list[Settings]:
    """Return every combination of a grid's values, the last key changing fastest; without a grid ``base`` itself.

    Raises
    ------
    ConfigurationError
        If a key of the grid is none of a model's, or a value is out of range.
    """
    plain = {name: msgspec.to_builtins(getattr(base, name)) for name in Settings.__struct_fields__}
    made = []
    for values in itertools.product(*grid.values()):
        chosen = {**plain, "sizes": dict(plain["sizes"]), "fit": dict(plain["fit"])}
        for key, value in zip(grid, values, strict=True):
            _put(chosen, key, value)
        try:
            made.append(msgspec.convert(chosen, Settings))
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"grid: {error}") from error
    return made


def _put(settings: dict[str, Any], key: str, value: Any) -> None:
    group, _, name = key.rpartition(".")
    if group in ("sizes", "fit"):
        settings[group][name] = value
    elif group == "" and name in ("model", "sequence_length"):
        settings[name] = value
    else:
        raise ConfigurationError(
            f"grid: {key!r} cannot be varied; use model, sequence_length, sizes.<size> or fit.<option>"
        )


def identity(recipe: Recipe) -> Mapping[str, Any]:
    """Return what a run's folder must keep; a run may be moved, and its data too."""
    parts: dict[str, Any] = msgspec.to_builtins(recipe)
    for key in ("output", "threads"):
        del parts[key]
    for tower in parts["towers"]:
        tower["files"] = [Path(file).name for file in tower["files"]]
    return parts
