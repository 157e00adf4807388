"""neuralhydrology run folders (``config.yml``, ``model_epoch*.pt``, ``train_data/``) as trained models.

Only numbers are read: weights by ``weights_only=True``, statistics from YAML or, of old runs, by
`bmi_components.importers.restricted_pickle`. Paths in the configuration are those of the machine that trained the
model and are passed over. Facts about the format come from runs of neuralhydrology 1.11 and 1.13.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bmi_components.config import read_yaml
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.importers.attributes import ATTRIBUTE_UNITS
from bmi_components.importers.checkpoint import read_checkpoint
from bmi_components.importers.neuralhydrology_settings import SECONDS, RunSettings
from bmi_components.importers.neuralhydrology_units import describe_column, doubt
from bmi_components.importers.neuralhydrology_weights import Tensors, architecture
from bmi_components.importers.restricted_pickle import read_pickled_statistics
from bmi_components.lstm.networks import make_network
from bmi_components.trained_model import NamedUnits, TrainedModel, load_once
from bmi_components.units import convertible
from bmi_components.variables import CATALOGUE

__all__ = ["import_neuralhydrology"]

CONFIGURATION_FILE = "config.yml"
CHECKPOINT = re.compile(r"model_epoch(?P<epoch>\d+)\.pt")
SCALER_YAML, SCALER_PICKLE = "train_data_scaler.yml", "train_data_scaler.p"
BASIN_NUMBERS = "id_to_int.yml"
LICENCE = "not stated in the run folder"

STATISTICS_KEYS = {
    "mean": (("xarray_feature_center", "xarray_means"), ("attribute_means", "camels_attr_means")),
    "std": (("xarray_feature_scale", "xarray_stds"), ("attribute_stds", "camels_attr_stds")),
}
"""Keys of a scaler's statistics of series and of attributes, the newer spelling first."""

Statistics = dict[str, dict[str, float]]


def import_neuralhydrology(
    path: str | os.PathLike[str],
    *,
    epoch: int | None = None,
    target: str | None = None,
    units: Mapping[str, str] | None = None,
    quantities: Mapping[str, str] | None = None,
    time_step: float | None = None,
) -> TrainedModel:
    """Turn a neuralhydrology run folder into a trained model of kind "neuralhydrology".

    Parameters
    ----------
    path : path
        The folder, or its ``config.yml``.
    epoch : int, optional
        The weights to take; without it those of the highest epoch that is there.
    target : str, optional
        The target variable to take of several; without it the first.
    units : mapping, optional
        UDUNITS-2 units by name of input, attribute or target, where neither name nor data set tells them; these are
        believed.
    quantities : mapping, optional
        Symbol in the catalogue of variables by name of input, where the name does not tell it.
    time_step : float, optional
        Length of a step, s, where the configuration does not tell it; of two frequencies the shorter one's.

    Returns
    -------
    TrainedModel
        The one copy that this process shares.

    Raises
    ------
    BundleError
        If a file is absent, damaged or holds code; if the model cannot be stepped; if tensors or statistics are not
        those that the configuration explains; if units or time step are not known, or are contradicted by the training
        data's mean.
    """
    given = Path(path).expanduser().resolve()
    folder = given.parent if given.name == CONFIGURATION_FILE else given
    options = _Options(epoch, target, dict(units or {}), dict(quantities or {}), time_step)
    run = _Run.find(folder, options)
    return load_once(run.files, run.read, options.key())


@dataclasses.dataclass(frozen=True)
class _Options:
    """What the caller said."""

    epoch: int | None
    target: str | None
    units: Mapping[str, str]
    quantities: Mapping[str, str]
    time_step: float | None

    def key(self) -> tuple[Any, ...]:
        """Return what tells two imports of the same files apart."""
        named = (tuple(sorted(table.items())) for table in (self.units, self.quantities))
        return (self.target, self.time_step, *named)


@dataclasses.dataclass(frozen=True)
class _Run:
    """The files of a run and what to make of them."""

    folder: Path
    checkpoint: Path
    scaler: Path
    options: _Options

    @classmethod
    def find(cls, folder: Path, options: _Options) -> _Run:
        if not folder.is_dir():
            raise BundleError(f"{folder}: there is no such folder, so no trained model")
        if not (folder / CONFIGURATION_FILE).is_file():
            raise BundleError(
                f"{folder}: {CONFIGURATION_FILE} is absent; a neuralhydrology run folder holds one"
            )
        checkpoints = {
            int(matched["epoch"]): file
            for file in folder.glob("model_epoch*.pt")
            if (matched := CHECKPOINT.fullmatch(file.name))
        }
        if not checkpoints:
            raise BundleError(f"{folder}: no weights are here; model_epoch*.pt is needed")
        epoch = max(checkpoints) if options.epoch is None else options.epoch
        if epoch not in checkpoints:
            there = ", ".join(str(number) for number in sorted(checkpoints))
            raise BundleError(f"{folder}: weights of epoch {epoch} are not here, those of epochs {there} are")
        statistics = [folder / "train_data" / name for name in (SCALER_YAML, SCALER_PICKLE)]
        scaler = next((file for file in statistics if file.is_file()), None)
        if scaler is None:
            raise BundleError(f"{folder}: train_data/{SCALER_YAML} is absent; it holds the statistics")
        return cls(folder, checkpoints[epoch], scaler, options)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that are read."""
        numbers = self.folder / "train_data" / BASIN_NUMBERS
        return (
            self.folder / CONFIGURATION_FILE,
            self.scaler,
            self.checkpoint,
            *([numbers] if numbers.is_file() else []),
        )

    def read(self) -> TrainedModel:
        settings = RunSettings(_yaml(self.folder / CONFIGURATION_FILE), self.folder / CONFIGURATION_FILE)
        settings.refuse_what_cannot_be_stepped()
        statistics = _Scaler.read(self.scaler)
        target = self._target(settings)
        attributes, normalisation = self._attributes(settings, statistics)
        made = architecture(
            settings, Tensors(read_checkpoint(self.checkpoint), self.checkpoint), target, len(attributes)
        )
        inputs, quantities = [], {}
        for name, copies in made.inputs.items():
            units, symbol = self._column(name, copies, settings, statistics)
            inputs.append(NamedUnits(name, units))
            if symbol is not None:
                quantities[name] = symbol
        for key, name in made.statistics.items():
            if key in attributes or key == target:
                settings.refuse(f"{key!r} is an input and a target or an attribute, too")
            normalisation[key] = statistics.series(name)
        normalisation[target] = statistics.series(target)
        outputs = (NamedUnits(target, self._target_units(target, settings)),)
        unknown = [n for n in attributes if n not in ATTRIBUTE_UNITS and n not in self.options.units]
        model = TrainedModel(
            kind="neuralhydrology",
            hyperparameters={
                **made.hyperparameters,
                "model": settings.model,
                "quantities": quantities,
                "not_negative": target in settings.names("clip_targets_to_zero"),
            },
            inputs=tuple(inputs),
            attributes=tuple(
                NamedUnits(n, self.options.units.get(n, ATTRIBUTE_UNITS.get(n, "1"))) for n in attributes
            ),
            outputs=outputs,
            normalisation=normalisation,
            time_step=self._time_step(settings, outputs[0].units),
            provenance=self._provenance(settings, target, unknown),
            licence=LICENCE,
            weights=made.weights,
        )
        try:
            make_network(model)
        except BundleError as error:
            raise BundleError(f"{self.checkpoint}: {error}") from error
        return model

    def _target(self, settings: RunSettings) -> str:
        targets = settings.names("target_variables", "target_variable")
        if not targets:
            settings.refuse("target_variables names no target")
        target = self.options.target or targets[0]
        if target not in targets:
            settings.refuse(f"{target!r} is no target of this run; its targets are {', '.join(targets)}")
        return target

    def _attributes(self, settings: RunSettings, statistics: _Scaler) -> tuple[list[str], Statistics]:
        """Return the attributes in the network's order and their statistics.

        Static ones come in alphabetical order whatever the configuration says, then those that change, then one for
        each basin of the training data, which is 1 for the basin and 0 for all others.
        """
        static = sorted(
            {
                *settings.names("static_attributes", "camels_attributes"),
                *settings.names("hydroatlas_attributes"),
            }
        )
        changing = settings.names("evolving_attributes", "static_inputs")
        found = {name: statistics.attribute(name) for name in static}
        found |= {name: statistics.series(name) for name in changing}
        if settings.get("use_basin_id_encoding"):
            numbers = _yaml(self.folder / "train_data" / BASIN_NUMBERS)
            if sorted(numbers.values()) != list(range(len(numbers))):
                raise BundleError(
                    f"{self.folder / 'train_data' / BASIN_NUMBERS}: the basins are not numbered from 0 on"
                )
            for basin in sorted(numbers, key=lambda basin: numbers[basin]):
                found[f"basin_{basin}"] = {"mean": 0.0, "std": 1.0}
        return list(found), found

    def _column(
        self, name: str, copies: Sequence[str], settings: RunSettings, statistics: _Scaler
    ) -> tuple[str, str | None]:
        """Return units and symbol of an input, or say how to give them."""
        known = describe_column(name, settings.dataset, settings.names("forcings"))
        symbol = self.options.quantities.get(name) or (known.symbol if known else None)
        if symbol is not None and symbol not in CATALOGUE:
            settings.refuse(f"the catalogue of variables has no {symbol!r}, given for the input {name!r}")
        if name in self.options.units:
            units = self.options.units[name]
            if symbol is not None and not convertible(units, CATALOGUE[symbol].units):
                if name in self.options.quantities:
                    settings.refuse(f"{units!r}, given for the input {name!r}, are no units of {symbol}")
                symbol = None
            return units, symbol
        advice = (
            f'give units={{"{name}": "..."}} (--units "{name}=...", or run_folder: units: in a configuration)'
        )
        if known is None:
            settings.refuse(
                f"neither the name of the input {name!r} nor the data set {settings.dataset!r} tells its units; "
                f"{advice}"
            )
        for copy in copies:
            if copy in (settings.get("custom_normalization") or {}):
                continue  # its centre need not be a mean
            doubtful = doubt(known, statistics.series(copy)["mean"])
            if doubtful is not None:
                settings.refuse(f"the input {name!r} should be in {known.units!r}, but {doubtful}; {advice}")
        return known.units, symbol

    def _target_units(self, target: str, settings: RunSettings) -> str:
        known = describe_column(target, settings.dataset, settings.names("forcings"))
        units = self.options.units.get(target) or (known.units if known else None)
        if units is None:
            settings.refuse(
                f"neither the name of the target {target!r} nor the data set {settings.dataset!r} tells its units; "
                f'give units={{"{target}": "mm h-1"}} (--units "{target}=mm h-1", or run_folder: '
                "units: in a configuration)"
            )
        if not any(convertible(units, runoff) for runoff in ("mm d-1", "m3 s-1")):
            settings.refuse(
                f"the target {target!r} is in {units!r}; runoff (mm d-1) or streamflow (m3 s-1) is needed"
            )
        return units

    def _time_step(self, settings: RunSettings, target_units: str) -> float:
        if self.options.time_step is not None:
            return float(self.options.time_step)
        frequencies = settings.frequencies()
        if frequencies:
            return min(frequencies.values())
        if "hourly" in settings.dataset:
            return SECONDS["h"]
        if settings.dataset.startswith(("camels_", "caravan", "lamah")):
            return SECONDS["d"]
        for units, length in (("mm h-1", "h"), ("mm d-1", "d")):
            if target_units == units:
                return SECONDS[length]
        return settings.refuse(
            "neither use_frequencies nor the data set nor the target's units tell the length of a step; "
            "give time_step=3600 (--time-step 3600, or run_folder: time_step: in a configuration) for hours"
        )

    def _provenance(self, settings: RunSettings, target: str, unknown: Sequence[str]) -> dict[str, Any]:
        matched = CHECKPOINT.fullmatch(self.checkpoint.name)
        assert matched is not None
        keys = ("train_start_date", "train_end_date", "number_of_basins", "forcings", "loss", "seed")
        targets = settings.names("target_variables", "target_variable")
        return {
            "imported_from": "neuralhydrology run folder",
            "checkpoint": self.checkpoint.name,
            "epoch": int(matched["epoch"]),
            "experiment": settings.get("experiment_name"),
            "package_version": settings.get("package_version"),
            "dataset": settings.dataset,
            "training": {key: settings.get(key) for key in keys if settings.get(key) is not None},
            "target": target,
            "targets_left_out": [name for name in targets if name != target],
            "predict_last_n": settings.get("predict_last_n"),
            "attributes_of_unknown_units": list(unknown),
        }


def _yaml(path: Path) -> dict[str, Any]:
    try:
        return read_yaml(path)
    except ConfigurationError as error:
        raise BundleError(str(error)) from error
    except RecursionError as error:
        raise BundleError(f"{path}: the YAML is nested too deeply") from error


@dataclasses.dataclass(frozen=True)
class _Scaler:
    """What a run standardises its data with."""

    statistics: Mapping[str, tuple[dict[str, float], dict[str, float]]]
    path: Path

    @classmethod
    def read(cls, path: Path) -> _Scaler:
        if path.suffix == ".p":
            tables = read_pickled_statistics(path)
        else:
            tables = {key: _table(value, f"{path}: {key}") for key, value in _yaml(path).items() if value}
        found = {}
        for statistic, spellings in STATISTICS_KEYS.items():
            series, attributes = (
                next((tables[key] for key in keys if key in tables), {}) for keys in spellings
            )
            found[statistic] = (series, attributes)
        return cls(found, path)

    def series(self, name: str) -> dict[str, float]:
        """Return mean and standard deviation of a series."""
        return self._of(name, 0)

    def attribute(self, name: str) -> dict[str, float]:
        """Return mean and standard deviation of an attribute."""
        return self._of(name, 1)

    def _of(self, name: str, group: int) -> dict[str, float]:
        found = {}
        for statistic, groups in self.statistics.items():
            value = groups[group].get(name)
            if value is None:
                raise BundleError(f"{self.path}: the {statistic} of {name!r} is missing")
            if not np.isfinite(value) or (statistic == "std" and value <= 0.0):
                raise BundleError(f"{self.path}: the {statistic} of {name!r} is {value}, which cannot be")
            found[statistic] = value
        return found


def _table(value: Any, where: str) -> dict[str, float]:
    """Return the numbers in one entry of a scaler: a mapping, or a data set of xarray as a mapping."""
    entries = value.get("data_vars", value) if isinstance(value, Mapping) else None
    if not isinstance(entries, Mapping):
        raise BundleError(f"{where} is no mapping of names to numbers")
    numbers = {}
    for name, entry in entries.items():
        number = entry.get("data") if isinstance(entry, Mapping) else entry
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise BundleError(f"{where}: {name!r} must be a number, not {number!r}")
        numbers[str(name)] = float(number)
    return numbers
