"""Trained models on disk: bundles (a description, the weights, a card), shared within a process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
import threading
import uuid
from collections.abc import Callable, Hashable, Iterable, Mapping
from datetime import date
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
import yaml
from numpy.typing import NDArray

from bmi_components.config import read_yaml
from bmi_components.errors import BundleError, ConfigurationError

__all__ = ["NamedUnits", "TrainedModel", "forget_shared_models", "load_once"]

DESCRIPTION_FILE = "model.yaml"
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "README.md"
FORMAT = 1
"""Version of the folder's layout."""

Signature = tuple[tuple[int, int, int], ...]
"""Inode, size and time of modification of each file of a model."""


class NamedUnits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A quantity that a model reads or gives: its short name and its UDUNITS-2 units."""

    name: str
    units: str


class _Statistics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mean: float
    std: float


class _Checksums(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    weights: str
    description: str


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What ``model.yaml`` holds, in the order in which it is written."""

    format: int
    kind: str
    time_step: float
    hyperparameters: dict[str, Any]
    inputs: tuple[NamedUnits, ...]
    attributes: tuple[NamedUnits, ...]
    outputs: tuple[NamedUnits, ...]
    normalisation: dict[str, _Statistics]
    provenance: dict[str, Any]
    licence: str
    sha256: _Checksums


class _Dumper(yaml.SafeDumper):
    """Writes text that looks like a number in quotes: gauge 01078000 is one in YAML 1.2 and none in PyYAML's 1.1."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if re.fullmatch(r"[-+.]?\d[\d.eE+_-]*", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model without its code: everything that a model class needs to come to life.

    It is immutable, so that thousands of components can share it: mappings and arrays are read-only.

    Parameters
    ----------
    kind : str
        Which model class reads it: "hbv", "streamflow_lstm", ...
    hyperparameters : mapping
        The model class's own settings: numbers, texts, lists and mappings of such.
    inputs : tuple of NamedUnits
        Forcings in the order of the network's inputs.
    attributes : tuple of NamedUnits
        Static catchment attributes in the order of the network's inputs.
    outputs : tuple of NamedUnits
        What the model gives.
    normalisation : mapping
        ``{name: {"mean": ..., "std": ...}}``.
    time_step : float
        Length of a step, s.
    provenance : mapping
        Data, period, code version, seed, scores: whatever tells where the weights come from.
    licence : str
        Licence of the weights as the training data and their authors allow.
    weights : mapping
        Arrays by name, float32 or float64.

    Raises
    ------
    BundleError
        If a statistic is not usable, a value cannot be written to YAML, or a weight is not a finite number.
    """

    kind: str
    hyperparameters: Mapping[str, Any]
    inputs: tuple[NamedUnits, ...]
    attributes: tuple[NamedUnits, ...]
    outputs: tuple[NamedUnits, ...]
    normalisation: Mapping[str, Mapping[str, float]]
    time_step: float
    provenance: Mapping[str, Any]
    licence: str
    weights: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        where = f"trained model of kind {self.kind!r}"
        normalised: dict[str, Mapping[str, float]] = {}
        for name, entry in self.normalisation.items():
            try:
                statistics = msgspec.convert(_plain(entry, where), _Statistics)
            except msgspec.ValidationError as error:
                raise BundleError(f"{where}: normalisation of {name!r}: {_sentence(error)}") from error
            mean, std = statistics.mean, statistics.std
            if not (math.isfinite(mean) and math.isfinite(std) and std > 0.0):
                raise BundleError(
                    f"{where}: normalisation of {name!r} has mean {mean} and std {std}; "
                    "a finite mean and a finite std above 0 are needed"
                )
            normalised[name] = MappingProxyType(msgspec.structs.asdict(statistics))
        if not (math.isfinite(self.time_step) and self.time_step > 0.0):
            raise BundleError(f"{where}: time_step is {self.time_step}; a length above 0 s is needed")
        for label in ("inputs", "attributes", "outputs"):
            names = [quantity.name for quantity in getattr(self, label)]
            if len(set(names)) < len(names):
                raise BundleError(f"{where}: {label} names a quantity twice: {', '.join(names)}")
        # a frozen dataclass sets its own fields this way while it is being made
        for field, value in {
            "hyperparameters": MappingProxyType(_plain(self.hyperparameters, f"{where}: hyperparameters")),
            "inputs": tuple(self.inputs),
            "attributes": tuple(self.attributes),
            "outputs": tuple(self.outputs),
            "normalisation": MappingProxyType(normalised),
            "time_step": float(self.time_step),
            "provenance": MappingProxyType(_plain(self.provenance, f"{where}: provenance")),
            "weights": MappingProxyType(
                {name: _read_only(name, self.weights[name], where) for name in self.weights}
            ),
        }.items():
            object.__setattr__(self, field, value)

    @cached_property
    def identity(self) -> str:
        """Fingerprint of all that determines the results; snapshots recognise their model by it."""
        digest = hashlib.sha256(_canonical(self._science()))
        for name in sorted(self.weights):
            array = self.weights[name]
            digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(array.data if array.size else b"")
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: str | os.PathLike[str], kind: str | None = None) -> TrainedModel:
        """Read a bundle, or return the one that this process has already read from the same unchanged files.

        Parameters
        ----------
        folder : path
            The bundle.
        kind : str, optional
            The kind that the caller can use.

        Raises
        ------
        BundleError
            If the folder or a file of it is absent, unreadable, damaged or not described correctly, or if
            the bundle is of another kind.
        """
        path = Path(folder).expanduser().resolve()
        files = _bundle_files(path)
        model = load_once(files, lambda: _read_bundle(*files))
        if kind is not None and model.kind != kind:
            raise BundleError(
                f"{path}: this bundle holds a model of kind {model.kind!r}; {kind!r} is needed here"
            )
        return model

    def save(self, folder: str | os.PathLike[str], card: str = "", overwrite: bool = False) -> Path:
        """Write the bundle: all of it or, if anything fails, nothing.

        Parameters
        ----------
        folder : path
            The folder to create; its parent must exist.
        card : str
            Markdown for ``README.md``: what the model was trained on, scores on held-out data, limits.
        overwrite : bool
            Whether another bundle that is already there may be replaced.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        BundleError
            If something else is already there, or the folder cannot be written.
        """
        path = Path(folder).expanduser().resolve()
        if path.exists() and not self._may_replace(path, overwrite):
            return path
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            temporary.mkdir()
            safetensors.numpy.save_file(dict(self.weights), temporary / WEIGHTS_FILE)
            description = self._science() | {"provenance": dict(self.provenance), "licence": self.licence}
            description["sha256"] = {
                "weights": _sha256_of_file(temporary / WEIGHTS_FILE),
                "description": hashlib.sha256(_canonical(self._science())).hexdigest(),
            }
            text = yaml.dump(description, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
            (temporary / DESCRIPTION_FILE).write_text(text, encoding="utf-8")
            (temporary / CARD_FILE).write_text(card or f"# {path.name}\n", encoding="utf-8")
            if path.exists():
                replaced = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
                path.rename(replaced)
                temporary.rename(path)
                shutil.rmtree(replaced)
            else:
                temporary.rename(path)
        except OSError as error:
            raise BundleError(f"{path}: the bundle cannot be written: {error.strerror or error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return path

    def _may_replace(self, path: Path, overwrite: bool) -> bool:
        """Whether to write where something is: not if it is this very bundle; an error if it is another."""
        is_bundle = (path / DESCRIPTION_FILE).is_file()
        if overwrite and is_bundle:
            return True
        if is_bundle and _read_bundle(*_bundle_files(path)).identity == self.identity:
            return False
        if is_bundle:
            raise BundleError(
                f"{path}: another bundle is already there; overwrite it on purpose or choose another folder"
            )
        raise BundleError(f"{path}: something that is not a bundle is already there; choose another folder")

    def _science(self) -> dict[str, Any]:
        """Return what the description says about the model's results, in plain types."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "time_step": self.time_step,
            "hyperparameters": dict(self.hyperparameters),
            **{
                label: [msgspec.structs.asdict(quantity) for quantity in getattr(self, label)]
                for label in ("inputs", "attributes", "outputs")
            },
            "normalisation": {name: dict(entry) for name, entry in self.normalisation.items()},
        }


_shared: dict[Hashable, tuple[Signature, TrainedModel]] = {}
_shared_lock = threading.Lock()


def load_once(
    files: Iterable[Path], read: Callable[[], TrainedModel], variant: Hashable = None
) -> TrainedModel:
    """Return the process's one copy of the model in ``files``, calling ``read`` if it is new or has changed.

    Parameters
    ----------
    files : iterable of Path
        The resolved paths of all files that the model is read from.
    read : callable
        Reads and checks them.
    variant : hashable, optional
        What else determines the model, where the same files can be read in several ways.

    Raises
    ------
    BundleError
        If a file is absent; and whatever ``read`` raises.
    """
    paths = tuple(files)
    signature = tuple(_signature(path) for path in paths)
    with _shared_lock:
        known = _shared.get((paths, variant))
        if known is None or known[0] != signature:
            known = _shared[paths, variant] = (signature, read())
        return known[1]


def _signature(path: Path) -> tuple[int, int, int]:
    """Tell a file from an earlier or later version of itself."""
    try:
        status = path.stat()
    except OSError as error:
        raise BundleError(f"{path}: the file is absent or cannot be read: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def forget_shared_models() -> None:
    """Let go of the bundles that this process has read, so that their memory can be freed."""
    with _shared_lock:
        _shared.clear()


def _bundle_files(folder: Path) -> tuple[Path, Path]:
    """Return the two files that make a bundle, saying what is missing if they are not there."""
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder, so no trained model")
    files = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
    for file in files:
        if not file.is_file():
            raise BundleError(
                f"{folder}: {file.name} is absent; a bundle holds {DESCRIPTION_FILE} and {WEIGHTS_FILE}"
            )
    return files


def _read_bundle(description_file: Path, weights_file: Path) -> TrainedModel:
    """Read and check everything."""
    description = _read_description(description_file)
    try:
        digest = _sha256_of_file(weights_file)
    except OSError as error:
        raise BundleError(f"{weights_file}: the weights cannot be read: {error.strerror}") from error
    if digest != description.sha256.weights:
        raise BundleError(
            f"{weights_file}: the weights are damaged, or not those that {DESCRIPTION_FILE} describes: "
            f"sha256 is {digest[:12]}..., it should be {description.sha256.weights[:12]}..."
        )
    try:
        weights = safetensors.numpy.load_file(weights_file)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{weights_file}: this is not a safetensors file: {error}") from error
    try:
        model = TrainedModel(
            kind=description.kind,
            hyperparameters=description.hyperparameters,
            inputs=description.inputs,
            attributes=description.attributes,
            outputs=description.outputs,
            normalisation={n: msgspec.structs.asdict(s) for n, s in description.normalisation.items()},
            time_step=description.time_step,
            provenance=description.provenance,
            licence=description.licence,
            weights=weights,
        )
    except BundleError as error:
        raise BundleError(f"{description_file}: {error}") from error
    science = hashlib.sha256(_canonical(model._science())).hexdigest()
    if science != description.sha256.description:
        raise BundleError(
            f"{description_file}: the description was changed after it was saved; undo the change or, "
            f"if it is meant, set sha256.description to {science}"
        )
    return model


def _read_description(path: Path) -> _Description:
    try:
        content = read_yaml(path)
    except ConfigurationError as error:
        raise BundleError(str(error)) from error
    except RecursionError as error:
        raise BundleError(f"{path}: the YAML is nested too deeply to be a description") from error
    if content.get("format") != FORMAT:
        raise BundleError(
            f"{path}: format is {content.get('format')!r}; this version of the package reads format {FORMAT}"
        )
    try:
        return msgspec.convert(content, _Description)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path}: {_sentence(error)}") from error


def _sentence(error: msgspec.ValidationError) -> str:
    """Turn msgspec's message into "what was wrong, at key"."""
    what, _, where = str(error).partition(" - at `$")
    return f"{what[:1].lower()}{what[1:]}" + (f" at key {where.strip('`.')}" if where else "")


def _read_only(name: str, array: NDArray[Any], where: str) -> NDArray[Any]:
    """Return a read-only contiguous array that shares memory where it can."""
    contiguous = np.ascontiguousarray(array).reshape(np.shape(array))
    if contiguous.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise BundleError(
            f"{where}: weight {name} is of type {contiguous.dtype}; float32 or float64 is needed"
        )
    if not np.isfinite(contiguous).all():
        raise BundleError(f"{where}: weight {name} holds values that are not finite numbers")
    view = contiguous.view()
    view.flags.writeable = False
    return view


def _plain(value: Any, where: str) -> Any:
    """Copy into types that YAML can hold and that read back equal."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, where) for item in value]
    if isinstance(value, (date, Path)):
        return str(value)
    raise BundleError(
        f"{where}: a {type(value).__name__} cannot be saved; use numbers, text, lists and mappings"
    )


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
