"""Trained models of JAX-CanVeg (Jiang et al. 2025): a ``.eqx`` file and ``configs.json``, read without any of its code.

An ``.eqx`` file is one line of JSON and then one NumPy array after the other, in the order of the published model's
fields. Only numbers are read: nothing is unpickled or evaluated.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.ball_berry.network import Network
from bmi_components.canveg import bundle
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters, Scaling
from bmi_components.canveg.photosynthesis import dark_respiration_of
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.trained_model import TrainedModel, load_once

__all__ = ["import_jaxcanveg", "read_published_configuration"]

CONFIGURATION_FILE = "configs.json"
METRICS_FILE = "metrics.csv"
LICENCE = (
    "Simplified BSD (JAX-CanVeg, Battelle Memorial Institute); trained on AmeriFlux FLUXNET data, CC-BY-4.0"
)

STOMATA = {0: "hypostomatous", 1: "amphistomatous"}
# 0 and 2 are called planophile and erectophile there, but their densities are each other's (de Wit 1965).
LEAF_ANGLES = {
    0: "erectophile",
    1: "spherical",
    2: "planophile",
    3: "plagiophile",
    4: "extremophile",
    5: "uniform",
}
CONDUCTANCE = {0: "ball_berry", 1: "hybrid"}
SOIL_RESPIRATION = {0: "alfalfa", 1: "q10", 2: "network"}

PARAMETERS = (
    "zht1 zht2 delz1 delz2 soil_depth leaf_clumping_factor par_reflect par_trans par_soil_refl nir_reflect nir_trans "
    "nir_soil_refl sigma ep epsoil rugc rgc1000 Cp vcopt jmopt rd25 hkin skin ejm evc kc25 ko25 o2 ekc eko erd ektau "
    "tk_25 toptvc toptjm kball bprime rsm brs qalpha lleaf theta_min theta_max nuvisc dc dh dv do3 betfac Mair dLdT "
    "extinct q10a q10b q10c"
)
NETWORKS = ("RsoilDL", "LeafRHDL", "bprimeDL", "gscoefDL")
STATISTICS = ("mean", "std", "max", "min")
VARIABLES = "T_air rglobal eair wind CO2 P_kPa ustar Tsoil soilmoisture zcanopy lai rsoil LE H vpd"
SETUP = (
    "lat_deg long_deg time_zone leafangle stomata leafrh soilresp n_can_layers n_total_layers n_soil_layers dt_soil "
    "soil_mtime niter"
)
LEAVES = (
    *PARAMETERS.split(),
    *(f"{name}.{layer}.{part}" for name in NETWORKS for layer in range(3) for part in ("weight", "bias")),
    *(f"{statistic} of {name}" for statistic in STATISTICS for name in VARIABLES.split()),
    "dij",
    *SETUP.split(),
)
"""The arrays of an ``.eqx`` file, in its order."""

CONSTANTS = {"sigma": 5.670367e-8, "rugc": 8.314, "Cp": 1005.0, "Mair": 28.97, "dt_soil": 20.0}
"""What the published files hold beside parameters and our model has as constants."""

UNKNOWN_RESPIRATION = (0.0, 10.0)
"""Stands for a range of soil respiration that nothing reads, umol m-2 s-1."""

NPY_HEADER = re.compile(
    r"\{'descr': '(?P<type>[<|][fi][1248])', 'fortran_order': (?P<columns>True|False), "
    r"'shape': \((?P<shape>[\d, ]{0,60})\), \}\s*"
)

Leaves = dict[str, NDArray[Any]]


def import_jaxcanveg(path: str | os.PathLike[str]) -> TrainedModel:
    """Turn a folder of JAX-CanVeg into a trained model of kind "canveg", in the reference mode that it was trained in.

    The checkpoint's own constants are kept: training has clipped some (``hkin`` is 99,999 instead of 200,000).

    Parameters
    ----------
    path : path
        The folder, which holds one ``.eqx`` file and ``configs.json``; or its ``.eqx`` file.

    Returns
    -------
    TrainedModel
        The one copy that this process shares.

    Raises
    ------
    BundleError
        If a file is absent or damaged, holds anything but numbers, or the two describe different models.
    """
    source = Path(path).expanduser().resolve()
    folder = source.parent if source.suffix == ".eqx" else source
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder, so no trained model")
    found = [source] if source.suffix == ".eqx" else sorted(folder.glob("*.eqx"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise BundleError(f"{folder}: one .eqx file is needed, not {names}; name the one to use")
    files = (found[0], folder / CONFIGURATION_FILE)
    return load_once(files, lambda: _read(*files))


def read_published_configuration(path: str | os.PathLike[str]) -> tuple[Options, Site, dict[str, Any]]:
    """Read a JSON configuration of JAX-CanVeg.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    options
        In reference mode, which is what such a file describes.
    site
        Where the canopy stands.
    content
        The whole file: also ``data``, ``learning configurations`` and ``saving configurations``. Its relative paths
        start from its folder.

    Raises
    ------
    ConfigurationError
        If the file cannot be read, or a key is missing or has a value that the model does not know.
    """
    source = Path(path)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{source}: there is no such configuration file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{source}: this is not a readable JSON file ({error})") from None
    section = content.get("model configurations") if isinstance(content, dict) else None
    if not isinstance(section, dict):
        raise ConfigurationError(f"{source}: the section 'model configurations' is missing")
    values = _Values(section, f"{source}: model configurations")
    per_day = values.number("number of observed steps per day", 48)
    options = _options(
        layers=values.number("number of canopy layers"),
        atmosphere_layers=values.number("number of atmospheric layers", 50),
        soil_layers=values.number("number of soil layers", 10),
        stomata=values.choice("stomata type", STOMATA),
        leaf_angles=values.choice("leaf angle type", LEAF_ANGLES),
        conductance=values.choice("leaf relative humidity module", CONDUCTANCE),
        soil_respiration=values.choice("soil respiration module", SOIL_RESPIRATION),
        iterations=values.number("number of solver iterations", 15),
        time_step=86_400.0 / per_day if per_day > 0.0 else 0.0,
        where=str(source),
    )
    site = Site(
        latitude=values.number("latitude"),
        longitude=values.number("longitude"),
        time_zone=values.number("time zone"),
        canopy_height=values.number("canopy height"),
        measurement_height=values.number("measurement height"),
        soil_depth=values.number("soil depth", 0.15),
    )
    return options, site, content


class _Values:
    """A mapping of numbers, that can say where it is."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def number(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ConfigurationError(f"{self.where}: {key!r} must be a number, not {value!r}")
        return float(value)

    def choice(self, key: str, choices: Mapping[int, str]) -> str:
        """Return what an integer stands for."""
        return _named(self.values.get(key), choices, f"{self.where}: {key!r}")


def _named(value: Any, choices: Mapping[int, str], where: str) -> str:
    """Return what a form's number stands for."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or int(value) not in choices:
        listed = ", ".join(f"{number} ({name})" for number, name in choices.items())
        raise ConfigurationError(f"{where} is {value!r}; it must be one of {listed}")
    return choices[int(value)]


def _options(where: str, **values: Any) -> Options:
    """Return checked options of the reference mode."""
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() and name != "time_step" else value
        for name, value in values.items()
    }
    try:
        return msgspec.convert({"mode": "reference", **whole}, Options)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{where}: {error}") from None


# The checkpoint ---------------------------------------------------------------------------------------------


def _read(checkpoint: Path, configuration: Path) -> TrainedModel:
    try:
        described, place, content = read_published_configuration(configuration)
        header, leaves = _read_checkpoint(checkpoint)
        options, site = _setup(header, leaves, described, checkpoint)
    except ConfigurationError as error:
        raise BundleError(str(error)) from error
    for name, ours, theirs in (
        *((name, getattr(options, name), getattr(described, name)) for name in Options.__struct_fields__),
        *((name, getattr(site, name), getattr(place, name)) for name in Site._fields),
    ):
        if ours != theirs:
            raise BundleError(
                f"{checkpoint}: {name} is {ours!r} here, but {theirs!r} in {configuration.name}; they do not belong "
                "together"
            )
    learning = content.get("learning configurations")
    learning = learning if isinstance(learning, dict) else {}
    provenance: dict[str, Any] = {
        "imported_from": "JAX-CanVeg folder",
        "checkpoint": checkpoint.name,
        "epoch": learning.get("number of epochs"),
        "site": content.get("site name"),
        "steps_of_training": header.get("n_time"),
        "training": {key: learning.get(key) for key in ("output function", "loss function", "optimizer")},
        "published_scores": _scores(checkpoint.with_name(METRICS_FILE)),
        "attributes_of_unknown_units": [],
    }
    try:
        return bundle.pack(
            options, site, _parameters(leaves, options, checkpoint), leaves["dij"], provenance, LICENCE
        )
    except BundleError as error:
        raise BundleError(f"{checkpoint}: {error}") from error


def _read_checkpoint(path: Path) -> tuple[dict[str, Any], Leaves]:
    """Read the line of JSON and the arrays by name."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: the file cannot be read: {error.strerror}") from error
    line, _, _ = content.partition(b"\n")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: the first line of an .eqx file of JAX-CanVeg is JSON") from error
    if not isinstance(header, dict):
        raise BundleError(f"{path}: the first line must be a JSON object")
    arrays: list[NDArray[Any]] = []
    position = len(line) + 1
    while position < len(content):
        array, position = _read_array(content, position, path)
        arrays.append(array)
    if len(arrays) != len(LEAVES):
        raise BundleError(f"{path}: there are {len(arrays)} arrays; a canopy model has {len(LEAVES)}")
    leaves = dict(zip(LEAVES, arrays, strict=True))
    for name, constant in CONSTANTS.items():
        if float(_scalar(leaves, name, path)) != constant:
            raise BundleError(f"{path}: {name} is {leaves[name]}; the canopy model computes with {constant}")
    return header, leaves


def _read_array(content: bytes, start: int, path: Path) -> tuple[NDArray[Any], int]:
    """Read one array in NumPy's format 1.0, and say where the next begins.

    The header is matched against what NumPy writes for plain numbers, not evaluated.
    """
    where = f"{path}: at byte {start}"
    if content[start : start + 8] != b"\x93NUMPY\x01\x00":
        raise BundleError(f"{where}: no NumPy array (of format 1.0) begins here; the file is damaged")
    begin = start + 10 + int.from_bytes(content[start + 8 : start + 10], "little")
    matched = NPY_HEADER.fullmatch(content[start + 10 : begin].decode("latin-1"))
    if matched is None:
        raise BundleError(f"{where}: this array does not hold plain numbers")
    shape = tuple(int(length) for length in matched["shape"].split(",") if length.strip())
    dtype = np.dtype(matched["type"])
    end = begin + math.prod(shape) * dtype.itemsize
    if end > len(content):
        raise BundleError(f"{where}: the array is cut off; the file is damaged")
    values = np.frombuffer(content[begin:end], dtype)
    return values.reshape(shape, order="F" if matched["columns"] == "True" else "C"), end


def _scalar(leaves: Leaves, name: str, path: Path) -> Any:
    """Return the one number of an array."""
    if leaves[name].size != 1:
        raise BundleError(f"{path}: {name} has shape {list(leaves[name].shape)}; one number is needed")
    return leaves[name].reshape(())[()]


def _setup(header: Mapping[str, Any], leaves: Leaves, described: Options, path: Path) -> tuple[Options, Site]:
    """Return options and site: what the arrays say; heights and steps from the first line."""
    number = {name: _scalar(leaves, name, path) for name in SETUP.split()}
    first = _Values(header, f"{path}: first line")
    per_day = first.number("n_hr_per_day", 86_400.0 / described.time_step)
    options = _options(
        layers=int(number["n_can_layers"]),
        atmosphere_layers=int(number["n_total_layers"] - number["n_can_layers"]),
        soil_layers=int(number["n_soil_layers"]),
        stomata=_named(number["stomata"], STOMATA, f"{path}: stomata"),
        leaf_angles=_named(number["leafangle"], LEAF_ANGLES, f"{path}: leafangle"),
        conductance=_named(number["leafrh"], CONDUCTANCE, f"{path}: leafrh"),
        soil_respiration=_named(number["soilresp"], SOIL_RESPIRATION, f"{path}: soilresp"),
        iterations=int(number["niter"]),
        time_step=86_400.0 / per_day if per_day > 0.0 else 0.0,
        where=str(path),
    )
    site = Site(
        latitude=float(number["lat_deg"]),
        longitude=float(number["long_deg"]),
        time_zone=float(number["time_zone"]),
        canopy_height=first.number("veg_ht"),
        measurement_height=first.number("meas_ht"),
        soil_depth=float(_scalar(leaves, "soil_depth", path)),
    )
    return options, site


def _parameters(leaves: Leaves, options: Options, path: Path) -> Parameters:
    """Return the parameters by our names."""
    values = {
        row.name: _scalar(leaves, row.published_name, path) if row.published_name else np.float64(row.default)
        for row in TABLE
    }
    # what the model computed with: its own number was there to be tuned, but nothing read it
    values["dark_respiration_25"] = dark_respiration_of(values["maximum_carboxylation"])
    observed = tuple(_scalar(leaves, f"{side} of rsoil", path) for side in ("min", "max"))
    if not np.isfinite(observed).all():  # no soil respiration was observed
        if options.soil_respiration == "network":
            raise BundleError(
                f"{path}: the network of soil respiration has no range of soil respiration (NaN)"
            )
        observed = UNKNOWN_RESPIRATION
    scaling = Scaling(
        *(
            _scalar(leaves, f"{statistic} of soilmoisture", path)
            for statistic in ("mean", "std", "min", "max")
        ),
        *(_scalar(leaves, f"{statistic} of T_air", path) for statistic in ("min", "max")),
        *observed,
    )
    return Parameters(
        **values,
        humidity_network=_network(leaves, "LeafRHDL"),
        respiration_network=_network(leaves, "RsoilDL"),
        scaling=scaling,
    )


def _network(leaves: Leaves, name: str) -> Network:
    return Network(
        tuple(leaves[f"{name}.{layer}.weight"] for layer in range(3)),
        tuple(leaves[f"{name}.{layer}.bias"] for layer in range(3)),
    )


def _scores(path: Path) -> dict[str, dict[str, float]]:
    """Return root mean squared errors and efficiencies that were published with the model, where they are there."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(itertools.islice(csv.DictReader(file), 100))
        return {row[""]: {"rmse": float(row["rmse"]), "nse": float(row["nse"])} for row in rows}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise BundleError(
            f"{path}: this is not a table of scores as JAX-CanVeg writes it ({error})"
        ) from error
