"""Flux models as their users see them: a window of days in physical units in, one number per window out."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.errors import BundleError, ValueShapeError
from bmi_components.trained_model import TrainedModel

__all__ = ["KIND", "MODELS", "FluxHyperparameters", "FluxModel", "load_model"]

KIND = "flux"
"""Kind of the bundles of all flux models."""

_NETWORK = "bmi_components.lstm.flux.network:NetworkModel"
_TREES = "bmi_components.lstm.flux.trees:TreeModel"

MODELS = MappingProxyType(
    {
        "lstm": _NETWORK,
        "rnn": _NETWORK,
        "ann": _NETWORK,
        "dynamic_ann": _NETWORK,
        "xlstm": _NETWORK,
        "xlstm_mixer": _NETWORK,
        "random_forest": _TREES,
        "xgboost": _TREES,
    }
)
"""Models by name, with the class that predicts with them; it is imported when it is first needed."""

_WINDOWS_AT_ONCE = 2048
"""Windows predicted together: bounds the memory that a prediction needs."""


class FluxHyperparameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What the bundle of a flux model says beside its inputs, outputs and normalisation.

    Attributes
    ----------
    model
        One of `MODELS`.
    sequence_length
        Days in a window; the prediction is for the last of them.
    sizes
        The model's own sizes, such as ``{hidden: 8, layers: 1, readout_layer: last}``.
    members
        Networks of the same sizes whose predictions are averaged.
    daily
        How half-hours become a day's inputs and target, so that whoever feeds the model does the same.
    """

    model: str
    sequence_length: Annotated[int, Meta(ge=1)]
    sizes: dict[str, Any] = {}
    members: Annotated[int, Meta(ge=1)] = 1
    daily: dict[str, Any] = {}


class FluxModel(ABC):
    """A trained flux model. It holds no state: the window is all that it knows.

    Parameters
    ----------
    bundle
        The model's description and weights.

    Raises
    ------
    BundleError
        If the bundle does not describe this model.
    """

    def __init__(self, bundle: TrainedModel) -> None:
        self.bundle = bundle
        self.hyperparameters = read_hyperparameters(bundle)
        self.sequence_length = self.hyperparameters.sequence_length
        self.input_names = tuple(quantity.name for quantity in bundle.inputs)
        self.target_name = bundle.outputs[0].name

    def predict(self, inputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Predict the target of each window, which never depends on the other windows.

        Parameters
        ----------
        inputs
            ``[window, day, input]`` in the units of the bundle's inputs, oldest day first.

        Returns
        -------
        ndarray
            ``[window]``, in the units of the bundle's output; NaN where the window holds NaN.

        Raises
        ------
        ValueShapeError
            If the shape does not fit the model.
        """
        self._check(inputs)
        complete = np.isfinite(inputs).all(axis=(1, 2))
        if complete.all() and len(inputs) <= _WINDOWS_AT_ONCE:
            return self._predict(inputs)
        result = np.full(len(inputs), np.nan)
        known = np.flatnonzero(complete)
        for start in range(0, known.size, _WINDOWS_AT_ONCE):
            chosen = known[start : start + _WINDOWS_AT_ONCE]
            result[chosen] = self._predict(inputs[chosen])
        return result

    @abstractmethod
    def _predict(self, inputs: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Predict from complete windows of the right shape."""

    def _check(self, inputs: NDArray[np.floating[Any]]) -> None:
        if inputs.ndim != 3 or inputs.shape[1:] != (self.sequence_length, len(self.input_names)):
            raise ValueShapeError(
                f"the inputs have shape {inputs.shape}; [window, {self.sequence_length} days, "
                f"{len(self.input_names)} inputs] is needed ({', '.join(self.input_names)})"
            )


def load_model(bundle: TrainedModel) -> FluxModel:
    """Make the flux model that a bundle holds.

    Raises
    ------
    BundleError
        If the bundle is of another kind, names no model that is known, or its weights do not fit its sizes.
    ConfigurationError
        If the model needs a package that is not installed.
    """
    name = read_hyperparameters(bundle).model
    if name not in MODELS:
        raise BundleError(f"the bundle's model {name!r} is unknown; known are {', '.join(MODELS)}")
    module, class_name = MODELS[name].split(":")
    model: FluxModel = getattr(importlib.import_module(module), class_name)(bundle)
    return model


def read_hyperparameters(bundle: TrainedModel) -> FluxHyperparameters:
    """Return the hyper-parameters of a bundle of kind `KIND` with one output.

    Raises
    ------
    BundleError
        If the bundle is of another kind or a hyper-parameter is missing, unknown or out of range.
    """
    if bundle.kind != KIND:
        raise BundleError(f"the bundle holds a {bundle.kind!r} model; one of kind {KIND!r} is needed")
    if not bundle.inputs or len(bundle.outputs) != 1:
        raise BundleError(
            f"the bundle has {len(bundle.inputs)} inputs and {len(bundle.outputs)} outputs; "
            "a flux model has at least one input and exactly one output"
        )
    try:
        return msgspec.convert(dict(bundle.hyperparameters), FluxHyperparameters)
    except msgspec.ValidationError as error:
        raise BundleError(f"the bundle's hyperparameters do not make a flux model: {error}") from error
