"""δMG model folders (``.pt`` + ``normalization_statistics.json`` + ``config.yaml``) as trained models.

Only numbers are read: the checkpoint through ``weights_only=True``, after its archive has been checked. Facts about the
format come from published configurations and from the behaviour of dmg 1.5.0 (see ``docs/decisions.md``); old and new
spellings are both understood.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bmi_components.config import read_yaml
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.hbv.networks import (
    LstmMlpNetwork,
    LstmNetwork,
    Mlp,
    MultiTimescaleNetwork,
    TimescaleBranch,
)
from bmi_components.hbv.parameters import GAGE_ROUTING, UNIT_ROUTING
from bmi_components.hbv.physics import FORCINGS, Physics, physics_variant
from bmi_components.importers.attributes import ATTRIBUTE_UNITS
from bmi_components.importers.checkpoint import Weights, read_checkpoint
from bmi_components.trained_model import NamedUnits, TrainedModel, load_once

__all__ = ["import_deltamg"]

STATISTICS_FILE = "normalization_statistics.json"
CONFIGURATION_FILES = ("config.yaml", "config.yml", "config.json")
CHECKPOINT = re.compile(r"(?P<model>.+?)_ep(?P<epoch>\d+)\.pt", re.IGNORECASE)
LICENCE = "not stated in the checkpoint; the published δMG weights are for non-commercial use"

Statistics = dict[str, dict[str, float]]

VARIANT_OF_NAME = {
    "hbv": "1.0",
    "hbv10": "1.0",
    "hbv11p": "1.1p",
    "hbv2": "2.0",
    "hbv20": "2.0",
    "hbv2hourly": "2.0-hourly",
    "hbv20hourly": "2.0-hourly",
    "hbv21hourly": "2.1-hourly",
    "hbv2mts": "multi-timescale",
    "hbv20mts": "multi-timescale",
    "hbv21mts": "multi-timescale",
}
"""The physics behind each spelling of a model's name, in lower case without separators."""

FORCING_OF_NAME = {
    "prcp": "precipitation",
    "P": "precipitation",
    "tmean": "temperature",
    "Temp": "temperature",
    "T": "temperature",
    "pet": "potential_evapotranspiration",
    "PET": "potential_evapotranspiration",
}
"""Our symbol of each forcing that δMG models are trained with."""

INPUTS = (
    NamedUnits("precipitation", "mm d-1"),
    NamedUnits("temperature", "degC"),
    NamedUnits("potential_evapotranspiration", "mm d-1"),
)


def import_deltamg(path: str | os.PathLike[str]) -> TrainedModel:
    """Turn a δMG model folder into a trained model of kind "hbv".

    Parameters
    ----------
    path : path
        The folder, or one checkpoint in it. Of several checkpoints in a folder the highest epoch is taken.

    Returns
    -------
    TrainedModel
        The one copy that this process shares.

    Raises
    ------
    BundleError
        If a file is absent, damaged or holds code; if a tensor has a shape that the configuration does not explain;
        if a statistic or an attribute that the model needs is missing.
    """
    folder = _Folder.find(Path(path).expanduser().resolve())
    return load_once((folder.configuration, folder.statistics, folder.checkpoint), folder.read)


@dataclasses.dataclass(frozen=True)
class _Folder:
    """The three files of a model."""

    configuration: Path
    statistics: Path
    checkpoint: Path

    @classmethod
    def find(cls, path: Path) -> _Folder:
        folder = path.parent if path.suffix == ".pt" else path
        if not folder.is_dir():
            raise BundleError(f"{folder}: there is no such folder, so no trained model")
        configuration = next((folder / n for n in CONFIGURATION_FILES if (folder / n).is_file()), None)
        if configuration is None:
            raise BundleError(f"{folder}: config.yaml is absent; a δMG model folder holds one")
        statistics = folder / STATISTICS_FILE
        if not statistics.is_file():
            raise BundleError(f"{folder}: {STATISTICS_FILE} is absent; a δMG model folder holds one")
        if path.suffix == ".pt" and not path.is_file():
            raise BundleError(f"{path}: there is no such checkpoint")
        return cls(configuration, statistics, path if path.suffix == ".pt" else _latest_checkpoint(folder))

    def read(self) -> TrainedModel:
        settings = _Settings.read(self.configuration)
        matched = CHECKPOINT.fullmatch(self.checkpoint.name)
        named = _variant(matched["model"].lstrip("dD")) if matched else None
        if named is not None and named != settings.variant:
            raise BundleError(
                f"{self.checkpoint}: by its name this is HBV {named}, but {self.configuration.name} describes "
                f"HBV {settings.variant}"
            )
        weights = {
            name.removeprefix("nn_model."): array for name, array in read_checkpoint(self.checkpoint).items()
        }
        statistics = _read_json(self.statistics)
        importer = _import_multi_timescale if settings.variant == "multi-timescale" else _import_single
        try:
            return importer(settings, weights, statistics, self)
        except KeyError as error:  # from physics_variant: a dynamic parameter that the variant lacks
            raise BundleError(
                f"{self.configuration}: dynamic_params names {error}, which HBV {settings.variant} lacks"
            ) from error

    def provenance(self, settings: _Settings, attributes: Sequence[str]) -> dict[str, Any]:
        """Tell where the model comes from."""
        matched = CHECKPOINT.fullmatch(self.checkpoint.name)
        return {
            "imported_from": "δMG model folder",
            "checkpoint": self.checkpoint.name,
            "epoch": int(matched["epoch"]) if matched else None,
            "training": settings.root.get("train") or {},
            "attributes_of_unknown_units": [name for name in attributes if name not in ATTRIBUTE_UNITS],
        }


def _latest_checkpoint(folder: Path) -> Path:
    """Return the model file with the highest epoch; ``trainer_state_ep*.pt`` are no models."""
    found = [
        (int(matched["epoch"]), file)
        for file in sorted(folder.glob("*.pt"))
        if (matched := CHECKPOINT.fullmatch(file.name)) and not file.name.startswith("trainer_state")
    ]
    if not found:
        raise BundleError(f"{folder}: no checkpoint is here; one named like hbv_1_1p_ep100.pt is needed")
    last = max(epoch for epoch, _ in found)
    latest = [file for epoch, file in found if epoch == last]
    if len(latest) > 1:
        names = ", ".join(file.name for file in latest)
        raise BundleError(f"{folder}: several checkpoints are of epoch {last} ({names}); name the one to use")
    return latest[0]


# Configuration ----------------------------------------------------------------------------------------------


def _variant(name: str) -> str | None:
    """Return the physics that a model's name stands for in any of its spellings; None if it is unknown."""
    return VARIANT_OF_NAME.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def _symbol(name: str) -> str:
    """Return our symbol of a parameter: BETA of parBETA, C of the old parCx."""
    symbol = name.removeprefix("par")
    return "C" if symbol == "Cx" else symbol


@dataclasses.dataclass(frozen=True)
class _Section:
    """A mapping of the configuration, that can say where it is."""

    values: Mapping[str, Any]
    where: str

    def section(self, *spellings: str) -> _Section:
        """Return the mapping under the first of the keys that is there."""
        for key in spellings:
            if isinstance(self.values.get(key), Mapping):
                return _Section(self.values[key], f"{self.where} {key}")
        raise BundleError(f"{self.where}: the section {spellings[0]!r} is missing")

    def get(self, *spellings: str) -> Any:
        """Return the value under the first of the keys that is there; None without it."""
        return next((self.values[key] for key in spellings if self.values.get(key) is not None), None)

    def names(self, key: str) -> list[str]:
        """Return a list of names."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise BundleError(f"{self.where}: {key!r} must be a list of names, not {value!r}")
        return value

    def integer(self, *spellings: str) -> int:
        """Return a whole number above zero."""
        value = self.get(*spellings)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BundleError(f"{self.where}: {spellings[0]!r} must be a whole number above 0, not {value!r}")
        return value

    def probability(self, *spellings: str) -> float:
        """Return a dropout; 0 without it."""
        value = self.get(*spellings)
        if value is None:
            return 0.0
        if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
            raise BundleError(f"{self.where}: {spellings[0]!r} must be within [0, 1), not {value!r}")
        return float(value)

    def physics(self) -> str:
        """Return the physics that ``name`` (once ``model``) stands for."""
        value = self.get("name", "model")
        name = value[0] if isinstance(value, list) and len(value) == 1 else value
        variant = _variant(name) if isinstance(name, str) else None
        if variant is None:
            raise BundleError(
                f"{self.where}: 'name' is {value!r}; one HBV is needed: Hbv, Hbv_1_1p, Hbv_2, Hbv_2_hourly, "
                "Hbv_2_1_hourly or Hbv_2_mts"
            )
        return variant

    def dynamic(self, variant: str) -> tuple[str, ...]:
        """Return the symbols of the dynamic parameters of a physics."""
        table = self.section("dynamic_params")
        entries = [key for key in table.values if _variant(key) == variant]
        if not entries and len(table.values) == 1:
            entries = list(table.values)  # the oldest files list HBV's for every variant
        if len(entries) != 1:
            raise BundleError(
                f"{table.where}: one list for HBV {variant} is needed, not {list(table.values)}"
            )
        return tuple(_symbol(name) for name in table.names(entries[0]))

    def variant(self) -> Physics:
        """Return the physics with its dynamic parameters."""
        name = self.physics()
        return physics_variant(name, self.dynamic(name))


@dataclasses.dataclass(frozen=True)
class _Settings:
    """A δMG configuration."""

    root: Mapping[str, Any]
    model: _Section
    physics: _Section
    network: _Section
    variant: str

    @classmethod
    def read(cls, path: Path) -> _Settings:
        try:
            root = read_yaml(path)
        except ConfigurationError as error:
            raise BundleError(str(error)) from error
        except RecursionError as error:
            raise BundleError(f"{path}: the configuration is nested too deeply") from error
        model = _Section(root, f"{path}:").section("model", "delta_model", "dpl_model")
        physics = model.section("phy", "phy_model")
        return cls(root, model, physics, model.section("nn", "nn_model"), physics.physics())

    def log_transformed(self, forcings: Sequence[str]) -> list[str]:
        """Return our symbols of the forcings that the network sees as log10(sqrt(x) + 0.1)."""
        section = self.physics if self.physics.get("use_log_norm") else self.model
        names = section.names("use_log_norm") if section.get("use_log_norm") else []
        unknown = [n for n in names if n not in forcings and n not in ("runoff", "streamflow", "flow_sim")]
        if unknown:
            raise BundleError(
                f"{self.model.where}: use_log_norm names {', '.join(unknown)}; only the forcings "
                f"{', '.join(forcings)} can be transformed"
            )
        return [FORCING_OF_NAME[n] for n in names if n in forcings]

    def site_attributes(self) -> tuple[str, str]:
        """Return the names of the attributes that hold elevation and upstream area."""
        observations = _Section(self.root, "").values.get("observations")
        known = observations if isinstance(observations, Mapping) else {}
        return str(known.get("elevation_name", "meanelevation")), str(
            known.get("upstream_area_name", "uparea")
        )


# Files ------------------------------------------------------------------------------------------------------


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: this is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: a mapping of variables to statistics is needed")
    return content


def _check_shapes(path: Path, weights: Weights, network: torch.nn.Module) -> None:
    """Compare with a network of the configured sizes (on the meta device: shapes without memory)."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = sorted(set(expected) - set(weights))
    if missing:
        raise BundleError(f"{path}: the checkpoint lacks {', '.join(missing[:4])}")
    unknown = sorted(set(weights) - set(expected))
    if unknown:
        raise BundleError(f"{path}: the checkpoint holds {', '.join(unknown[:4])}, which no HBV network has")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise BundleError(
                f"{path}: {name} has shape {weights[name].shape}; by the configuration it must be {shape}"
            )


# Single time scale: HBV 1.0, 1.1p, 2.0 ------------------------------------------------------------------------


def _import_single(
    settings: _Settings, weights: Weights, statistics: dict[str, Any], files: _Folder
) -> TrainedModel:
    physics, network = settings.physics.variant(), settings.network
    if physics.dt < 1.0:
        raise BundleError(f"{files.configuration}: an hourly HBV comes as Hbv_2_mts, with its daily partner")
    forcings, attributes = network.names("forcings"), network.names("attributes")
    components = settings.physics.get("nmul") and settings.physics.integer("nmul")
    components = components or settings.model.integer("nmul")
    elevation, area = settings.site_attributes()
    needed = {"elevation": elevation, "upstream_area": area}
    for site in physics.sites:
        if needed[site] not in attributes:
            raise BundleError(
                f"{network.where}: attributes lacks {needed[site]!r}, which HBV {physics.name} needs ({site})"
            )
    hyperparameters: dict[str, Any] = {
        "physics": physics.name,
        "components": components,
        "dynamic_parameters": list(physics.dynamic),
        "hidden": network.integer("hidden_size", "lstm_hidden_size"),
        "dropout": network.probability("dropout", "lstm_dropout"),
        "routing": settings.physics.get("routing") is not False,
        "log_transformed": settings.log_transformed(forcings),
        "elevation_attribute": elevation,
        "area_attribute": area,
    }
    features, hidden = len(forcings) + len(attributes), hyperparameters["hidden"]
    dynamic, static = len(physics.dynamic) * components, len(physics.parameters) * components
    expected: torch.nn.Module
    if physics.name.startswith("1"):
        # the published 1.x take their static parameters from the end of the simulated window
        hyperparameters |= {"network": "lstm", "static_parameters_from": "last_step"}
        first, last = "linear_in", "linear_out"
        with torch.device("meta"):
            expected = LstmNetwork(features, hidden, static + len(UNIT_ROUTING))
    else:
        width = network.integer("mlp_hidden_size")
        layers = sum(bool(re.fullmatch(r"ann\.h2h\d+\.weight", name)) for name in weights)
        hyperparameters |= {
            "network": "lstm_mlp",
            "mlp_hidden": width,
            "mlp_layers": layers,
            "mlp_dropout": network.probability("mlp_dropout"),
        }
        first, last = "lstminv.linear_in", "ann.h2o"
        with torch.device("meta"):
            expected = LstmMlpNetwork(
                features,
                hidden,
                dynamic,
                len(attributes),
                width,
                static - dynamic + len(UNIT_ROUTING),
                mlp_layers=layers,
            )
    _check_shapes(files.checkpoint, weights, expected)
    _order_forcings(weights, f"{first}.weight", forcings, network.where)
    if not hyperparameters["routing"]:
        for name in (f"{last}.weight", f"{last}.bias"):  # the last channels would route, and are not used
            weights[name] = weights[name][: -len(UNIT_ROUTING)]
    normalisation = {
        FORCING_OF_NAME.get(name, name): _statistics_of(statistics, name, files.statistics)
        for name in (*forcings, *attributes)
    }
    provenance = files.provenance(settings, attributes)
    return _trained_model(hyperparameters, attributes, normalisation, physics.time_step, provenance, weights)


def _statistics_of(statistics: dict[str, Any], name: str, path: Path) -> dict[str, float]:
    """Return mean and standard deviation of one variable, the last two of (p10, p90, mean, std)."""
    if name not in statistics:
        raise BundleError(f"{path}: the statistics of {name!r} are missing")
    entry = statistics[name]
    if not isinstance(entry, list) or len(entry) != 4 or not all(_is_number(value) for value in entry):
        raise BundleError(f"{path}: {name!r} must be [p10, p90, mean, std], not {entry!r}")
    return {"mean": float(entry[2]), "std": float(entry[3])}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


def _order_forcings(weights: Weights, name: str, forcings: Sequence[str], where: str) -> None:
    """Put the columns of an input layer into our order of the forcings."""
    unknown = [f for f in forcings if f not in FORCING_OF_NAME]
    if unknown or sorted(FORCING_OF_NAME[f] for f in forcings) != sorted(FORCINGS):
        raise BundleError(
            f"{where}: forcings are {', '.join(forcings)}; precipitation, mean temperature and PET are needed "
            f"({', '.join(FORCING_OF_NAME)})"
        )
    symbols = [FORCING_OF_NAME[f] for f in forcings]
    columns = [*(symbols.index(symbol) for symbol in FORCINGS), *range(len(forcings), weights[name].shape[1])]
    weights[name] = weights[name][:, columns]


def _trained_model(
    hyperparameters: dict[str, Any],
    attributes: Sequence[str],
    normalisation: Statistics,
    time_step: float,
    provenance: dict[str, Any],
    weights: Weights,
) -> TrainedModel:
    return TrainedModel(
        kind="hbv",
        hyperparameters=hyperparameters,
        inputs=INPUTS,
        attributes=tuple(NamedUnits(name, ATTRIBUTE_UNITS.get(name, "1")) for name in attributes),
        outputs=(NamedUnits("streamflow", "mm d-1"),),
        normalisation=normalisation,
        time_step=time_step,
        provenance=provenance,
        licence=LICENCE,
        weights=weights,
    )


# Multiple time scales: a daily HBV 2.0 hands over to an hourly one -----------------------------------------------

OUR_NAMES = (
    (r"^lstm_mlp\.", "daily."),
    (r"^lstm_mlp2\.ann2\.", "routing."),
    (r"^lstm_mlp2\.ann1\.", "hourly.ann."),
    (r"^lstm_mlp2\.", "hourly."),
    (r"\.lstm_inv\.weight_([ih]h)_l0$", r".lstm.w_\1"),
    (r"\.lstm_inv\.bias_([ih]h)_l0$", r".lstm.b_\1"),
)
"""From the published names of the multi-timescale network's parameters to ours, applied in turn."""

MLP_LAYERS = {"0": "i2h", "3": "h2h1", "6": "h2h2", "9": "h2o"}
"""Layers of the published MLPs, which count activations and dropouts too, by our names."""

TRAINING_EPSILON = 1e-6
"""What the multi-timescale models were trained with beside each standard deviation."""


def _our_name(name: str) -> str:
    for pattern, replacement in OUR_NAMES:
        name = re.sub(pattern, replacement, name)
    return re.sub(r"((?:ann|routing)\.)(\d+)\.", lambda m: f"{m[1]}{MLP_LAYERS.get(m[2], m[2])}.", name)


def _import_multi_timescale(
    settings: _Settings, weights: Weights, statistics: dict[str, Any], files: _Folder
) -> TrainedModel:
    daily_physics = settings.physics.section("lof_model", "low_freq_model")
    hourly_physics = settings.physics.section("hif_model", "high_freq_model")
    daily_network = settings.network.section("lof_model", "low_freq_model")
    hourly_network = settings.network.section("hif_model", "high_freq_model")
    daily, hourly = daily_physics.variant(), hourly_physics.variant()
    if daily.dt != 1.0 or hourly.dt >= 1.0:
        raise BundleError(
            f"{settings.physics.where}: a daily and an hourly HBV are needed, not {daily.name} and {hourly.name}"
        )
    weights = {_our_name(name): array for name, array in weights.items()}
    forcings, attributes = hourly_network.names("forcings"), hourly_network.names("attributes")
    if daily_network.names("attributes") != attributes or daily_network.names("forcings") != forcings:
        raise BundleError(
            f"{daily_network.where}: forcings and attributes differ from those of the hourly model"
        )
    routing_attributes = hourly_network.names("attributes2")
    elevation, area = settings.site_attributes()
    projected, transferred = "hourly.in_proj.weight" in weights, "h_transfer.weight" in weights
    branches = {}
    sizes: dict[str, dict[str, Any]] = {}
    for label, physics, components, network in (
        ("daily", daily, daily_physics.integer("nmul"), daily_network),
        ("hourly", hourly, hourly_physics.integer("nmul"), hourly_network),
    ):
        size = sizes[label] = {
            "physics": physics.name,
            "components": components,
            "dynamic_parameters": list(physics.dynamic),
            "hidden": network.integer("lstm_hidden_size", "hidden_size"),
            "dropout": network.probability("lstm_dropout", "dropout"),
            "mlp_hidden": network.integer("mlp_hidden_size"),
            "mlp_layers": 2,
            "mlp_dropout": network.probability("mlp_dropout"),
        }
        dynamic = len(physics.dynamic)
        with torch.device("meta"):
            branches[label] = TimescaleBranch(
                len(forcings) + len(attributes),
                size["hidden"],
                dynamic * components,
                len(attributes),
                size["mlp_hidden"],
                (len(physics.parameters) - dynamic) * components,
                project=projected,
            )
    with torch.device("meta"):
        routing = Mlp(
            len(routing_attributes), hourly_network.integer("mlp2_hidden_size"), len(GAGE_ROUTING), layers=2
        )
        expected = MultiTimescaleNetwork(branches["daily"], branches["hourly"], routing, transferred)
    _check_shapes(files.checkpoint, weights, expected)
    for label in branches:
        name = f"{label}.in_proj.weight" if projected else f"{label}.lstm.w_ih"
        _order_forcings(weights, name, forcings, hourly_network.where)

    hyperparameters: dict[str, Any] = {
        **sizes["hourly"],
        "network": "multi_timescale",
        "daily": sizes["daily"] | {"window": daily_physics.get("window_size")},
        "window": hourly_physics.get("window_size"),
        "routing": hourly_physics.get("routing") is True,
        "network_attributes": attributes,
        "routing_attributes": routing_attributes,
        "log_transformed": settings.log_transformed(forcings),
        "elevation_attribute": elevation,
        "area_attribute": area,
    }
    columns = _Columns(statistics, files.statistics)
    per_day = {"precipitation": 24.0, "temperature": 1.0, "potential_evapotranspiration": 24.0}
    symbols = [FORCING_OF_NAME[name] for name in forcings]
    hourly_statistics = {
        name: {key: value * per_day[name] for key, value in entry.items()}
        for name, entry in columns.of("dyn_input", symbols).items()
    }
    normalisation = {
        **hourly_statistics,
        **{f"daily/{name}": entry for name, entry in columns.of("dyn_input_daily", symbols).items()},
        **columns.of("static_input", attributes),
        **{f"routing/{n}": e for n, e in columns.of("rout_static_input", routing_attributes).items()},
    }
    everything = list(dict.fromkeys((*attributes, *routing_attributes, elevation, area)))
    provenance = files.provenance(settings, everything)
    return _trained_model(hyperparameters, everything, normalisation, hourly.time_step, provenance, weights)


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Statistics that come as one list per group of variables: ``{"mean": {group: [...]}, "std": {...}}``."""

    statistics: dict[str, Any]
    path: Path

    def of(self, group: str, names: Sequence[str]) -> Statistics:
        """Return mean and standard deviation of each variable of a group."""
        lists: dict[str, list[float]] = {}
        for statistic in ("mean", "std"):
            table = self.statistics.get(statistic)
            values = table.get(group) if isinstance(table, Mapping) else None
            if not isinstance(values, list) or not all(_is_number(value) for value in values):
                raise BundleError(
                    f"{self.path}: {statistic} of {group!r} is missing or not a list of numbers"
                )
            if len(values) != len(names):
                raise BundleError(
                    f"{self.path}: {statistic} of {group!r} has {len(values)} values; the configuration names "
                    f"{len(names)} variables"
                )
            lists[statistic] = values
        return {
            name: {"mean": float(mean), "std": float(std) + TRAINING_EPSILON}
            for name, mean, std in zip(names, lists["mean"], lists["std"], strict=True)
        }
