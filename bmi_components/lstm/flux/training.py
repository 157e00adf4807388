"""Fitting one flux model to its windows: one trainer for all networks, the tree libraries for trees."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.daily import DAY_OF_YEAR, DailyRules
from bmi_components.lstm.flux.models import KIND
from bmi_components.lstm.flux.network import NETWORKS, create_network
from bmi_components.lstm.flux.recipe import Fit, Settings
from bmi_components.lstm.flux.trees import random_forest_arrays, xgboost_arrays
from bmi_components.lstm.flux.windows import Windows, split_years
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.training.checkpoint import Checkpoint, pack_optimiser, unpack_optimiser
from bmi_components.training.run import TrainingError

__all__ = [
    "Fitted",
    "ForestSizes",
    "History",
    "Interrupted",
    "XgboostSizes",
    "fit_model",
    "window_statistics",
]

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(gt=0.0, le=1.0)]


class Interrupted(Exception):
    """The user asked to stop; what was done so far is saved."""


@dataclass
class History:
    """Mean squared errors after each epoch, in the target's units squared; ``validation`` only with early stopping."""

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Fitted:
    """A trained model as a bundle, and how it came about."""

    bundle: TrainedModel
    history: History


class ForestSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of a random forest, by scikit-learn's names and with its defaults but for the number of trees."""

    n_estimators: Positive = 500
    max_depth: Positive | None = None
    min_samples_leaf: Positive = 1
    max_features: Share = 1.0


class XgboostSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of boosted trees, by XGBoost's names; learning rate and number of trees are DLFM's."""

    n_estimators: Positive = 1000
    learning_rate: Annotated[float, Meta(gt=0.0)] = 0.01
    max_depth: Positive = 6
    min_child_weight: Annotated[float, Meta(ge=0.0)] = 1.0
    subsample: Share = 1.0
    colsample_bytree: Share = 1.0
    reg_lambda: Annotated[float, Meta(ge=0.0)] = 1.0


def fit_model(
    settings: Settings,
    training: Windows,
    *,
    seed: int,
    daily: DailyRules | None = None,
    threads: int = 1,
    checkpoint: Path | None = None,
    tick: Callable[[], None] | None = None,
    interrupts: Sequence[int] = (),
) -> Fitted:
    """Fit a model. The same arguments give the same weights, also when the fit was interrupted on the way.

    Parameters
    ----------
    settings
        Which model and how.
    training
        What it learns from; the statistics for its normalisation come from here alone.
    seed
        Of the initial weights and all that is random.
    daily
        How the days were made, to be recorded in the bundle.
    threads
        For trees.
    checkpoint
        File to save a network's progress in, and to go on from if it is there; removed at the end.
    tick
        Called after every epoch, for a progress bar; once for trees.
    interrupts
        When something is in it, a network's fit saves its progress and stops.

    Raises
    ------
    ConfigurationError
        If a size or option is out of range, or the model's package is not installed.
    TrainingError
        If a network's loss is not finite.
    Interrupted
        If the user asked to stop.
    """
    statistics = window_statistics(training)
    if settings.model in NETWORKS:
        run = _NetworkFit(settings, training, statistics, seed)
        run.go(checkpoint, tick or (lambda: None), interrupts)
        return Fitted(
            _bundle(
                settings, training, run.statistics, run.weights(), seed, daily, epochs=run.kept_epoch + 1
            ),
            run.history,
        )
    weights = _TREES[settings.model](settings, training, seed, threads)
    if tick is not None:
        tick()
    return Fitted(_bundle(settings, training, statistics, weights, seed, daily), History())


def window_statistics(windows: Windows) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of every input over all days of all windows, and of the target over the windows.

    An input that never changes gets the standard deviation 1, so that it becomes 0 instead of dividing by 0.
    """
    columns = {
        name: windows.inputs[:, :, position].astype(np.float64)
        for position, name in enumerate(windows.input_names)
    }
    columns[windows.target_name] = windows.target
    statistics = {}
    for name, values in columns.items():
        if name == DAY_OF_YEAR:  # scaled already, and the same in every model
            statistics[name] = {"mean": 0.0, "std": 1.0}
            continue
        mean, std = float(values.mean()), float(values.std())
        varies = std > 1e-9 * max(abs(mean), 1e-30)
        statistics[name] = {"mean": mean, "std": std if varies else 1.0}
    return statistics


def _bundle(
    settings: Settings,
    training: Windows,
    statistics: dict[str, dict[str, float]],
    weights: dict[str, NDArray[Any]],
    seed: int,
    daily: DailyRules | None,
    **provenance: Any,
) -> TrainedModel:
    return TrainedModel(
        kind=KIND,
        hyperparameters={
            "model": settings.model,
            "sequence_length": training.length,
            "sizes": settings.sizes,
            "daily": {} if daily is None else msgspec.to_builtins(daily),
        },
        inputs=tuple(map(NamedUnits, training.input_names, training.input_units)),
        attributes=(),
        outputs=(NamedUnits(training.target_name, training.target_units),),
        normalisation=statistics,
        time_step=86400.0,
        provenance={
            "towers": [str(site) for site in np.unique(training.site)],
            "trained_on": {
                "windows": len(training),
                "first_day": str(training.date.min()),
                "last_day": str(training.date.max()),
            },
            "seed": seed,
            **provenance,
        },
        licence="",
        weights=weights,
    )


class _NetworkFit:
    """One network on its way to its weights; everything that the next epoch depends on can be saved and restored."""

    def __init__(
        self, settings: Settings, training: Windows, statistics: dict[str, dict[str, float]], seed: int
    ) -> None:
        fit = settings.fit
        self.fit, self.seed = fit, seed
        if not fit.standardise_target:
            statistics = {**statistics, training.target_name: {"mean": 0.0, "std": 1.0}}
        self.statistics = statistics
        learnt, validation = training, None
        if fit.patience is not None:
            learnt, validation = split_years(training, 1, "calendar")
        self.x, self.y = self._tensors(learnt)
        self.validation = None if validation is None else self._tensors(validation)
        if fit.drop_last and len(self.y) < fit.batch:
            raise ConfigurationError(
                f"fit.batch is {fit.batch} and drop_last is on, but there are only {len(self.y)} training windows"
            )
        self.network = create_network(
            settings.model, settings.sizes, training.input_names, training.length, seed
        )
        self.optimiser = _make_optimiser(fit, self.network)
        self.epoch = 0
        self.history = History()
        self.best_error, self.best_epoch = math.inf, -1
        self.best: dict[str, Tensor] = {}

    @property
    def kept_epoch(self) -> int:
        """Epoch, counted from 0, whose weights are the result."""
        return self.best_epoch if self.validation is not None else self.epoch - 1

    @property
    def done(self) -> bool:
        patience = self.fit.patience
        stuck = patience is not None and self.epoch - 1 - self.best_epoch >= patience
        return self.epoch >= self.fit.epochs or (self.epoch > 0 and stuck)

    def weights(self) -> dict[str, NDArray[Any]]:
        tensors = self.best if self.validation is not None else self.network.state_dict()
        return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}

    def go(self, checkpoint: Path | None, tick: Callable[[], None], interrupts: Sequence[int]) -> None:
        """Train to the end, saving now and then."""
        if checkpoint is not None and checkpoint.exists():
            self._restore(Checkpoint.load(checkpoint))
            for _ in range(self.epoch):
                tick()
        every = max(1, self.fit.epochs // 20)
        while not self.done:
            self._learn()
            self._validate()
            self.epoch += 1
            tick()
            if checkpoint is not None and not self.done and (self.epoch % every == 0 or interrupts):
                self._save(checkpoint)
            if interrupts and not self.done:
                raise Interrupted
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)

    def _learn(self) -> None:
        """Go through the training windows once."""
        fit, count = self.fit, len(self.y)
        factor = (
            0.5 * (1.0 + math.cos(math.pi * self.epoch / fit.epochs)) if fit.schedule == "cosine" else 1.0
        )
        for group in self.optimiser.param_groups:
            group["lr"] = fit.learning_rate * factor
        total, seen = torch.zeros(()), 0
        self.network.train()
        # each epoch's randomness follows from its number, so that a resumed run goes on as if nothing had happened
        with _random(self.seed, self.epoch):
            order = torch.randperm(count) if fit.shuffle else torch.arange(count)
            last = count - count % fit.batch if fit.drop_last else count
            for start in range(0, last, fit.batch):
                chosen = order[start : min(start + fit.batch, last)]
                self.optimiser.zero_grad(set_to_none=True)
                loss = nn.functional.mse_loss(self.network(self.x[chosen]), self.y[chosen])
                loss.backward()  # type: ignore[no-untyped-call]
                if fit.clip is not None:
                    nn.utils.clip_grad_norm_(self.network.parameters(), fit.clip)
                self.optimiser.step()
                total += loss.detach() * len(chosen)
                seen += len(chosen)
        error = float(total) / seen
        if not math.isfinite(error):
            raise TrainingError(
                f"epoch {self.epoch + 1}: the loss is {error}; lower fit.learning_rate, set fit.clip or turn "
                "fit.standardise_target on"
            )
        self.history.training.append(error * self._variance)

    def _validate(self) -> None:
        if self.validation is None:
            return
        x, y = self.validation
        self.network.eval()
        with torch.no_grad():
            error = float(nn.functional.mse_loss(self.network(x), y)) * self._variance
        self.history.validation.append(error)
        if error < self.best_error:
            self.best_error, self.best_epoch = error, self.epoch
            self.best = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @property
    def _variance(self) -> float:
        """What turns errors of the target as it is learnt into its own units squared."""
        return float(self._target["std"] ** 2)

    def _tensors(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Return what the network reads ``[window, day, input]`` and should give ``[window]``."""
        names = windows.input_names
        mean, std = (np.array([self.statistics[name][key] for name in names]) for key in ("mean", "std"))
        self._target = self.statistics[windows.target_name]
        x = ((windows.inputs - mean) / std).astype(np.float32)
        y = ((windows.target - self._target["mean"]) / self._target["std"]).astype(np.float32)
        return torch.from_numpy(x), torch.from_numpy(y)

    def _save(self, path: Path) -> None:
        saved = Checkpoint()
        saved.put("network", self.network.state_dict())
        saved.put("optimiser", pack_optimiser(self.optimiser))
        saved.put("best", self.best)
        saved.values = {
            "epoch": self.epoch,
            "training": self.history.training,
            "validation": self.history.validation,
            "best_epoch": self.best_epoch,
        }
        saved.save(path)

    def _restore(self, saved: Checkpoint) -> None:
        self.network.load_state_dict(saved.group("network"))
        unpack_optimiser(self.optimiser, saved.group("optimiser"))
        self.best = saved.group("best")
        self.epoch, self.best_epoch = saved.values["epoch"], saved.values["best_epoch"]
        self.history = History(saved.values["training"], saved.values["validation"])
        if self.best:
            self.best_error = self.history.validation[self.best_epoch]


def _make_optimiser(fit: Fit, network: nn.Module) -> torch.optim.Optimizer:
    common: dict[str, Any] = {"lr": fit.learning_rate, "weight_decay": fit.weight_decay}
    if fit.optimiser == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=fit.momentum, **common)
    kinds: dict[str, Any] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimiser: torch.optim.Optimizer = kinds[fit.optimiser](network.parameters(), fused=True, **common)
    return optimiser


@contextmanager
def _random(seed: int, epoch: int) -> Iterator[None]:
    """Make PyTorch's random numbers those of an epoch, and give back the earlier ones afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1))
        yield


def _fit_forest(settings: Settings, training: Windows, seed: int, threads: int) -> dict[str, NDArray[Any]]:
    sizes = _tree_sizes(settings, ForestSizes)
    library = _library("sklearn.ensemble", "scikit-learn")
    forest = library.RandomForestRegressor(**msgspec.structs.asdict(sizes), random_state=seed, n_jobs=threads)
    return random_forest_arrays(forest.fit(training.flat(), training.target))


def _fit_xgboost(settings: Settings, training: Windows, seed: int, threads: int) -> dict[str, NDArray[Any]]:
    sizes = _tree_sizes(settings, XgboostSizes)
    library = _library("xgboost", "xgboost")
    regressor = library.XGBRegressor(
        **msgspec.structs.asdict(sizes), objective="reg:squarederror", random_state=seed, n_jobs=threads
    )
    return xgboost_arrays(regressor.fit(training.flat(), training.target))


_TREES: dict[str, Callable[[Settings, Windows, int, int], dict[str, NDArray[Any]]]] = {
    "random_forest": _fit_forest,
    "xgboost": _fit_xgboost,
}


def _tree_sizes(settings: Settings, sizes: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.convert(settings.sizes, sizes)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{settings.model} sizes: {error}") from error


def _library(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigurationError(
            f"fitting this model needs the package {package}, which is not installed: pip install "
            "'bmi_components[flux]'"
        ) from error
