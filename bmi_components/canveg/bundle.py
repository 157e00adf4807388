"""The canopy model as a bundle: options, site, parameters and dispersion matrix to a `TrainedModel` and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.ball_berry.network import Network
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters, Scaling
from bmi_components.errors import BundleError
from bmi_components.trained_model import NamedUnits, TrainedModel

__all__ = ["INPUTS", "KIND", "LATER", "OUTPUTS", "pack", "unpack"]

KIND = "canveg"
DISPERSION = "dispersion"

LATER = {"soil_conductivity": 1.0, "surface_moisture": 0.1}
"""Parameters that older bundles lack, and the values at which the model is what it was without them."""

INPUTS = (
    NamedUnits("day_of_year", "1"),
    NamedUnits("hour", "h"),
    NamedUnits("air_temperature", "degC"),
    NamedUnits("shortwave", "W m-2"),
    NamedUnits("vapour_pressure", "kPa"),
    NamedUnits("wind_speed", "m s-1"),
    NamedUnits("co2", "umol mol-1"),
    NamedUnits("pressure", "kPa"),
    NamedUnits("friction_velocity", "m s-1"),
    NamedUnits("soil_temperature", "degC"),
    NamedUnits("soil_moisture", "m3 m-3"),
    NamedUnits("leaf_area_index", "m2 m-2"),
    NamedUnits("canopy_height", "m"),
    NamedUnits("longwave", "W m-2"),
)
"""The fields of `Forcing`."""

OUTPUTS = (
    NamedUnits("latent_heat", "W m-2"),
    NamedUnits("sensible_heat", "W m-2"),
    NamedUnits("net_radiation", "W m-2"),
    NamedUnits("soil_heat", "W m-2"),
    NamedUnits("net_ecosystem_exchange", "umol m-2 s-1"),
    NamedUnits("gross_primary_production", "umol m-2 s-1"),
    NamedUnits("soil_respiration", "umol m-2 s-1"),
    NamedUnits("canopy_conductance", "mol m-2 s-1"),
)
"""The fields of `Fluxes` that a user looks at first."""


def pack(
    options: Options,
    site: Site,
    parameters: Parameters,
    dispersion: Any,
    provenance: Mapping[str, Any],
    licence: str,
) -> TrainedModel:
    """Turn a canopy model into a trained model of kind "canveg".

    Parameters
    ----------
    options
        Forms of the processes, layers, numerics.
    site
        Scalars, or one value per site.
    parameters
        Scalars, or one value per site; NumPy or JAX arrays of single or double precision.
    dispersion
        ``[layers + atmosphere_layers, layers]``, s m-1.
    provenance
        Where the parameters come from.
    licence
        As the training data and their authors allow.

    Raises
    ------
    BundleError
        If shapes do not fit the options, or a value is not a finite number.
    """
    model = TrainedModel(
        kind=KIND,
        hyperparameters={
            "options": msgspec.to_builtins(options),
            "site": {name: np.asarray(value).tolist() for name, value in site._asdict().items()},
        },
        inputs=INPUTS,
        attributes=(),
        outputs=OUTPUTS,
        normalisation={},
        time_step=options.time_step,
        provenance=provenance,
        licence=licence,
        weights={name: _floating(value) for name, value in _leaves(parameters)}
        | {DISPERSION: _floating(dispersion)},
    )
    unpack(model)
    return model


def unpack(bundle: TrainedModel) -> tuple[Options, Site, Parameters, NDArray[Any]]:
    """Return options, site, parameters and dispersion matrix of a trained model; the arrays are NumPy's, read-only.

    Raises
    ------
    BundleError
        If the model is of another kind, its options are not known, or its arrays do not fit them.
    """
    if bundle.kind != KIND:
        raise BundleError(f"this is a model of kind {bundle.kind!r}; {KIND!r} is needed")
    try:
        options = msgspec.convert(bundle.hyperparameters["options"], Options)
        values = msgspec.convert(bundle.hyperparameters["site"], dict[str, float | list[float]])
        site = Site(**{name: _scalar_or_array(value) for name, value in values.items()})
    except (KeyError, TypeError, msgspec.ValidationError) as error:
        raise BundleError(f"canveg: the hyperparameters do not describe a canopy model: {error}") from error
    weights = dict(bundle.weights)
    dispersion = _taken(weights, DISPERSION)
    shape = (options.layers + options.atmosphere_layers, options.layers)
    if dispersion.shape != shape:
        raise BundleError(
            f"canveg: the dispersion matrix is {list(dispersion.shape)}; {list(shape)} is needed for "
            f"{options.layers} layers of the canopy and {options.atmosphere_layers} above it"
        )
    for name, value in LATER.items():
        weights.setdefault(name, np.asarray(value, dispersion.dtype))
    parameters = Parameters(
        **{row.name: _taken(weights, row.name) for row in TABLE},
        humidity_network=_network(weights, "humidity_network"),
        respiration_network=_network(weights, "respiration_network"),
        scaling=Scaling(*(_taken(weights, f"scaling.{name}") for name in Scaling._fields)),
    )
    if weights:
        raise BundleError(f"canveg: the model has no parameter {', '.join(weights)}")
    return options, site, parameters, dispersion


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Walk through named tuples and tuples: each array with its name, parts joined by points."""
    if not isinstance(value, tuple):
        yield name, value
        return
    names = getattr(value, "_fields", None) or [str(index) for index in range(len(value))]
    for part, item in zip(names, value, strict=True):
        yield from _leaves(item, f"{name}.{part}" if name else part)


def _network(weights: dict[str, NDArray[Any]], name: str) -> Network:
    """Take the layers of a network out of the weights."""
    number = sum(key.startswith(f"{name}.weights.") for key in weights)
    matrices = tuple(_taken(weights, f"{name}.weights.{index}") for index in range(number))
    biases = tuple(_taken(weights, f"{name}.biases.{index}") for index in range(number))
    width = 2
    for index, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
        if matrix.ndim != 2 or matrix.shape[1] != width or bias.shape != matrix.shape[:1]:
            raise BundleError(
                f"canveg: layer {index} of {name} is {list(matrix.shape)} with biases {list(bias.shape)}; "
                f"[n, {width}] and [n] are needed"
            )
        width = len(bias)
    if not matrices or width != 1:
        raise BundleError(f"canveg: {name} must have layers that lead from 2 inputs to 1 output")
    return Network(matrices, biases)


def _taken(weights: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """Take one array out of the weights."""
    if name not in weights:
        raise BundleError(f"canveg: the parameter {name} is missing")
    return weights.pop(name)


def _floating(value: Any) -> NDArray[Any]:
    """Return an array of floating-point numbers; of its own precision if it has one."""
    array = np.asarray(value)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float64)


def _scalar_or_array(value: float | list[float]) -> Any:
    return np.asarray(value) if isinstance(value, list) else value
