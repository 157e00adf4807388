"""The recipe of a trained canopy: one YAML file with tower, model, loss and how it learns; or a JSON of JAX-CanVeg."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.tower_files import published_files
from bmi_components.config import read_yaml
from bmi_components.errors import ConfigurationError
from bmi_components.importers.jaxcanveg import read_published_configuration

__all__ = ["Coarse", "Loss", "Recipe", "Tower", "Training", "identity", "load_recipe"]

Positive = Annotated[int, Meta(ge=1)]
Weight = Annotated[float, Meta(ge=0.0)]
Rate = Annotated[float, Meta(gt=0.0)]
Files = str | tuple[str, ...]
Pair = tuple[float, float]


class Tower(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where forcing and observed fluxes are, and which of them is for what.

    Attributes
    ----------
    forcing, fluxes
        csv files, relative to the recipe; several follow one another. See `bmi_components.canveg.tower`.
    test_forcing, test_fluxes
        Those of the test; null: blocks called "test" of the others.
    blocks
        Lengths in days of blocks that take turns: "train", "validation" and, without test files, "test". See
        `bmi_components.canveg.tower.split_blocks`.
    gap
        Days between blocks, which belong to no part.
    columns
        ``{flux: column}`` where names of columns do not tell.
    """

    forcing: Files
    fluxes: Files
    test_forcing: Files | None = None
    test_fluxes: Files | None = None
    blocks: dict[str, float] = msgspec.field(default_factory=lambda: {"train": 16.0, "validation": 4.0})
    gap: Weight = 1.0
    columns: dict[str, str] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.test_forcing is None) != (self.test_fluxes is None):
            raise ValueError("test_forcing and test_fluxes: give both or none")
        parts = ["train", "validation"] + (["test"] if self.test_forcing is None else [])
        if sorted(self.blocks) != sorted(parts):
            raise ValueError(
                f"blocks: lengths of {', '.join(parts)} are needed, not {', '.join(self.blocks)}"
            )


class Loss(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What is made small: a weighted mean of squared errors, each over the variance of what was observed.

    Attributes
    ----------
    latent_heat, net_ecosystem_exchange, sensible_heat, net_radiation, soil_heat
        Weights of the fluxes. Those of LE and NEE are what Jiang et al. (2025) weigh against each other.
    pull
        Of squared distances of the parameters (as they are moved, see `bmi_components.canveg.transforms`) from where
        they started: keeps those that the fluxes say nothing about where they were.
    """

    latent_heat: Weight = 0.5
    net_ecosystem_exchange: Weight = 0.5
    sensible_heat: Weight = 0.05
    net_radiation: Weight = 0.1
    soil_heat: Weight = 0.0
    pull: Weight = 5e-4

    def weights(self) -> dict[str, float]:
        """Return the shares of the fluxes that count, which make 1."""
        found = {
            name: getattr(self, name)
            for name in self.__struct_fields__
            if name != "pull" and getattr(self, name) > 0.0
        }
        total = sum(found.values())
        return {name: weight / total for name, weight in found.items()}

    def __post_init__(self) -> None:
        if not any(getattr(self, name) for name in self.__struct_fields__ if name != "pull"):
            raise ValueError("one flux at least needs a weight above 0")


class Coarse(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """First updates with fewer layers, whose parameters are nearly those of many at a share of the cost.

    After the last of them the validation is of all layers; if no other update follows, that is what ships.
    """

    layers: Positive = 8
    iterations: Positive = 12


class Training(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """How parameters are found.

    Attributes
    ----------
    method
        "gauss_newton": damped steps of least squares, see `bmi_components.canveg.gauss_newton`; or "adam": along true
        gradients, with a learning rate that rises and then falls along half a cosine.
    iterations
        Number of updates, those with fewer layers included: tens of Gauss-Newton, hundreds of Adam.
    pieces
        Pieces of the record that an update sees side by side, drawn anew each time, evenly over the record.
    days
        Length of a piece that counts.
    warm_up
        Days before these that do not: until the soil has forgotten that it began.
    damping
        Of the first step of Gauss-Newton, relative to the curvature; it then follows success.
    learning_rate
        Of Adam, of bounded parameters, at its highest; see `bmi_components.canveg.transforms`.
    network_rate
        Learning rate of networks' weights, as a share of this.
    weight_decay
        Of networks' weights, with Adam per update and unit of learning rate (AdamW).
    rise
        Updates over which the learning rate rises from zero.
    final_fraction
        Share of the learning rate that is left at the end.
    clip
        Largest norm of the gradient.
    coarse
        Updates with fewer layers; null: none.
    """

    method: Literal["gauss_newton", "adam"] = "gauss_newton"
    iterations: Positive = 20
    pieces: Positive = 64
    days: Rate = 1.0
    warm_up: Weight = 0.5
    damping: Rate = 0.1
    learning_rate: Rate = 0.05
    network_rate: Rate = 0.3
    weight_decay: Weight = 1e-4
    rise: Annotated[int, Meta(ge=0)] = 5
    final_fraction: Annotated[float, Meta(ge=0.0, le=1.0)] = 0.02
    clip: Rate = 1.0
    coarse: Coarse | None = None

    def __post_init__(self) -> None:
        if self.method == "adam" and self.rise >= self.iterations:
            raise ValueError(f"rise {self.rise} must be less than iterations {self.iterations}")
        if self.coarse is not None and self.coarse.iterations > self.iterations:
            raise ValueError(
                f"coarse.iterations {self.coarse.iterations} must not be more than iterations {self.iterations}"
            )


class Place(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Where the canopy stands, see `bmi_components.canveg.options.Site`."""

    latitude: Annotated[float, Meta(ge=-90.0, le=90.0)]
    longitude: Annotated[float, Meta(ge=-180.0, le=360.0)]
    time_zone: Annotated[float, Meta(ge=-14.0, le=14.0)]
    canopy_height: Rate
    measurement_height: Rate
    soil_depth: Rate = 0.15

    def site(self) -> Site:
        """Return it as the model reads it."""
        return Site(**msgspec.structs.asdict(self))

    def __post_init__(self) -> None:
        if self.measurement_height <= self.canopy_height:
            raise ValueError("measurement_height must be above canopy_height")


class Recipe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Everything that determines a canopy's training.

    Attributes
    ----------
    output
        The run's folder, relative to where the command is started.
    tower
        Data.
    site
        Where it stands.
    options
        Forms of the processes and layers.
    parameters
        Values to start from in place of the table's, by name.
    start
        Bundle to start from, relative to the recipe; null: the table. ``parameters`` go before it.
    trained
        Names of trained parameters; null: those that the table marks. The networks of the options are always trained.
    bounds
        ``{name: [lower, upper]}`` in place of the table's.
    dispersion
        csv file of a dispersion matrix, relative to the recipe; null: generated.
    loss, training
        What is made small, and how.
    baseline
        Whether the network of the paper, without physics, is trained too, to compare with.
    licence
        As the data allow.
    dtype
        Precision.
    seed
        Of the networks' initial weights and the draw of pieces.
    validate_every, checkpoint_every
        Updates from one validation, or checkpoint, to the next. What ships is the best validated.
    """

    output: str
    tower: Tower
    site: Place
    options: Options = Options()
    parameters: dict[str, float] = msgspec.field(default_factory=dict)
    start: str | None = None
    trained: tuple[str, ...] | None = None
    bounds: dict[str, Pair] = msgspec.field(default_factory=dict)
    dispersion: str | None = None
    loss: Loss = Loss()
    training: Training = Training()
    baseline: bool = True
    licence: str = ""
    dtype: Literal["float32", "float64"] = "float64"
    seed: Annotated[int, Meta(ge=0)] = 0
    validate_every: Positive = 1
    checkpoint_every: Positive = 1

    def __post_init__(self) -> None:
        coarse = self.training.coarse
        if coarse is not None and self.dispersion is not None:
            raise ValueError(
                "dispersion: a file's matrix has one number of layers; leave training.coarse out"
            )
        if coarse is not None and coarse.layers >= self.options.layers:
            raise ValueError(f"coarse.layers {coarse.layers} must be less than options.layers")


def load_recipe(path: str | Path) -> Recipe:
    """Read and check a recipe, or a JSON configuration of JAX-CanVeg; paths come back absolute.

    Of a JSON configuration, which describes the published model, the model in reference mode, files, weights of the
    loss, trained parameters and the number of epochs (one update each, as there) are taken.

    Raises
    ------
    ConfigurationError
        If the file is absent or cannot be read, or a key is unknown, missing or out of range; the error names the key.
    """
    path = Path(path)
    try:
        if path.suffix == ".json":
            return _published(path)
        recipe = msgspec.convert(read_yaml(path), Recipe)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {error}") from error

    def resolve(files: Files | None) -> Any:
        if files is None:
            return None
        return _resolved(files, path) if isinstance(files, str) else tuple(_resolved(f, path) for f in files)

    names = ("forcing", "fluxes", "test_forcing", "test_fluxes")
    return msgspec.structs.replace(
        recipe,
        tower=msgspec.structs.replace(
            recipe.tower, **{name: resolve(getattr(recipe.tower, name)) for name in names}
        ),
        start=resolve(recipe.start),
        dispersion=resolve(recipe.dispersion),
    )


def identity(recipe: Recipe) -> dict[str, Any]:
    """Return what a run must keep when it is resumed; its folder and the data may be moved."""
    parts: dict[str, Any] = msgspec.to_builtins(recipe)
    for key in ("output", "checkpoint_every", "baseline", "licence", "start", "dispersion"):
        del parts[key]
    for key in ("forcing", "fluxes", "test_forcing", "test_fluxes"):
        files = parts["tower"][key]
        named = [files] if isinstance(files, str) else files or []
        parts["tower"][key] = [Path(file).name for file in named]
    return parts


def _resolved(file: str, recipe: Path) -> str:
    expanded = Path(os.path.expandvars(file)).expanduser()
    if "$" in str(expanded):
        raise ConfigurationError(f"{recipe}: {file} names an environment variable that is not set")
    return str((recipe.resolve().parent / expanded).resolve())


_NETWORKS = {"LeafRHDL", "RsoilDL", "bprimeDL", "gscoefDL"}
_OUTPUTS = {"canopy LE": (1.0, 0.0), "canopy NEE": (0.0, 1.0), "canopy LE NEE": (0.5, 0.5)}
_EPOCHS = 300


def _published(path: Path) -> Recipe:
    """Return a recipe of what a published configuration says."""
    options, site, content = read_published_configuration(path)
    learning = content.get("learning configurations")
    if not isinstance(learning, dict):
        raise ConfigurationError(f"{path}: the section 'learning configurations' is missing")
    output = learning.get("output function")
    if output not in _OUTPUTS:
        raise ConfigurationError(
            f"{path}: output function is {output!r}; {', '.join(_OUTPUTS)} can be trained for"
        )
    weights: Any = _OUTPUTS[output]
    loss = learning.get("loss function")
    if output == "canopy LE NEE" and isinstance(loss, dict) and loss.get("weights"):
        weights = loss["weights"]
    named = learning.get("tunable parameters")
    if not isinstance(named, list):
        raise ConfigurationError(f"{path}: tunable parameters must be a list of names")
    forcing, fluxes = published_files(path, "training")
    test_forcing, test_fluxes = published_files(path, "test")
    dispersion = path.parent / str(content["model configurations"].get("dispersion matrix"))
    epochs = learning.get("number of epochs", _EPOCHS)
    return msgspec.convert(
        {
            "output": f"runs/canveg_{path.resolve().parent.name}",
            "tower": {
                "forcing": str(forcing),
                "fluxes": str(fluxes),
                "test_forcing": str(test_forcing),
                "test_fluxes": str(test_fluxes),
            },
            "site": site._asdict(),
            "options": msgspec.to_builtins(options),
            "trained": [name for name in named if name not in _NETWORKS],
            "dispersion": str(dispersion) if dispersion.is_file() else None,
            "loss": {
                "latent_heat": weights[0],
                "net_ecosystem_exchange": weights[1],
                "sensible_heat": 0.0,
                "net_radiation": 0.0,
            },
            "training": {"method": "adam", "iterations": epochs, "pieces": 24, "rise": min(20, epochs // 10)},
            "validate_every": 25,
            "checkpoint_every": 25,
        },
        Recipe,
    )
