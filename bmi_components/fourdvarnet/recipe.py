"""The recipe of a 4DVarNet: one YAML file with the system, how it is observed, the model, and how it learns."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bmi_components.config import read_yaml
from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.lorenz import SYSTEMS
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.observations import ObservationProtocol
from bmi_components.fourdvarnet.priors import PriorSettings, TwoScaleSettings
from bmi_components.fourdvarnet.solver import Differentiation, SolverSettings

__all__ = ["Data", "ModelSettings", "Recipe", "Training", "identity", "load_recipe"]

Positive = Annotated[int, Meta(ge=1)]
NotNegative = Annotated[int, Meta(ge=0)]
Rate = Annotated[float, Meta(gt=0.0)]
Steps = tuple[NotNegative, Positive]


class Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where true states come from: one trajectory, cut in time into parts that do not overlap.

    Attributes
    ----------
    system
        "lorenz63" or "lorenz96".
    spin_up
        Time that is integrated before the first step, in the system's units.
    window
        Steps of a window.
    train, validation, test
        First step and the step after the last one of each part. Fablet: [0, 12000] and [15000, 20000].
    validation_windows, test_windows
        How many windows are cut at random from these parts, once.
    """

    system: str = "lorenz63"
    spin_up: Annotated[float, Meta(ge=0.0)] = 5.0
    window: Annotated[int, Meta(ge=2)] = 200
    train: Steps = (0, 12_000)
    validation: Steps = (12_000, 15_000)
    test: Steps = (15_000, 20_000)
    validation_windows: Positive = 256
    test_windows: Positive = 2_000

    def __post_init__(self) -> None:
        if self.system not in SYSTEMS:
            raise ValueError(f"system {self.system!r} is unknown; choose one of {', '.join(SYSTEMS)}")
        parts = sorted((*getattr(self, name), name) for name in ("train", "validation", "test"))
        for first, last, name in parts:
            if last - first < self.window:
                raise ValueError(f"{name} has {last - first} steps; a window needs {self.window}")
        for (_, last, name), (first, _, other) in itertools.pairwise(parts):
            if first < last:
                raise ValueError(f"{name} and {other} overlap")


class ModelSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The parts of the algorithm; those left out take their defaults."""

    prior: PriorSettings = TwoScaleSettings()
    modulation: ModulationSettings = ModulationSettings()
    solver: SolverSettings = SolverSettings()


class Training(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How the weights are found: Adam, with a learning rate that falls along half a cosine.

    The loss is the mean squared error of the last iterate, with components weighted as in physical units, plus
    ``prior_loss`` / 2 times the prior's cost of the last iterate and of the truth (Fablet et al. 2021).

    Attributes
    ----------
    iterations
        Number of weight updates.
    batch
        Windows of an update; each is drawn anew, with new noise.
    windows_at_once
        Windows whose gradients are computed together: as many as fit the processor's cache. It must divide ``batch``.
    learning_rate
        Of the modulation network, at its highest.
    prior_rate
        Learning rate of the prior, as a share of ``learning_rate``.
    rise
        Updates over which the learning rates rise from zero.
    final_fraction
        Share of the learning rates that is left at the end.
    clip
        Largest norm of the gradient.
    prior_loss
        Weight of the prior's costs in the loss.
    reach
        The error counts from so many steps before a window's first observation; what was earlier nobody can know.
    differentiation
        How gradients go through the solver's iterations: "unrolled", "checkpointed" or "one_step".
    average
        Decay per update of the running mean of the weights that is validated and shipped; null: the last weights.
    """

    iterations: Positive = 4_000
    batch: Positive = 64
    windows_at_once: Positive = 8
    learning_rate: Rate = 1e-3
    prior_rate: Rate = 0.5
    rise: NotNegative = 50
    final_fraction: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.01
    clip: Rate = 1.0
    prior_loss: Annotated[float, Meta(ge=0.0)] = 0.1
    reach: NotNegative = 20
    differentiation: Differentiation = "unrolled"
    average: Annotated[float, Meta(gt=0.0, lt=1.0)] | None = None

    def __post_init__(self) -> None:
        if self.batch % self.windows_at_once:
            raise ValueError(f"batch {self.batch} is no multiple of windows_at_once {self.windows_at_once}")
        if self.rise >= self.iterations:
            raise ValueError(f"rise {self.rise} must be less than iterations {self.iterations}")


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that determines a 4DVarNet's training and evaluation.

    Attributes
    ----------
    output
        The run's folder, relative to where the command is started.
    data
        The true states.
    observations
        How they are observed; with several protocols, the windows of a batch take turns.
    test_observations
        How they are observed in evaluation; null: by the first protocol of the training.
    model
        What learns.
    training
        How.
    crop
        Steps at each end of a window that the second score of an evaluation leaves out; the first leaves out none.
    baseline_windows
        Test windows, the first ones, that an evaluation also gives to the other methods.
    seed
        Of the initial weights, windows and noise.
    validate_every, checkpoint_every
        Updates from one validation, or checkpoint, to the next.
    """

    output: str
    data: Data = Data()
    observations: Annotated[tuple[ObservationProtocol, ...], Meta(min_length=1)] = (ObservationProtocol(),)
    test_observations: ObservationProtocol | None = None
    model: ModelSettings = ModelSettings()
    training: Training = Training()
    crop: NotNegative = 20
    baseline_windows: Positive = 200
    seed: NotNegative = 0
    validate_every: Positive = 200
    checkpoint_every: Positive = 100


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe.

    Raises
    ------
    ConfigurationError
        If the file is absent or not YAML, or a key is unknown, missing or out of range; the error names the key.
    """
    try:
        return msgspec.convert(read_yaml(path), Recipe)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return what a run must keep when it is resumed; its folder may be moved, and the evaluation changed."""
    parts: dict[str, Any] = msgspec.to_builtins(recipe)
    for key in ("output", "checkpoint_every", "crop", "test_observations", "baseline_windows"):
        del parts[key]
    return parts
