"""What the trainer asks of a model, and where the models that it knows live."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter

from bmi_components.errors import ConfigurationError
from bmi_components.trained_model import NamedUnits, TrainedModel

__all__ = ["MODEL_CLASSES", "TrainableModel", "create_model", "load_model"]

MODEL_CLASSES: Mapping[str, str] = MappingProxyType(
    {
        "hbv": "bmi_components.hbv.model:DeltaHBV",
        "streamflow_lstm": "bmi_components.lstm.streamflow:StreamflowLSTM",
    }
)
"""Class of each kind of trainable model, imported when it is first needed."""


class TrainableModel(Protocol):
    """A ``torch.nn.Module`` that turns forcing and attributes into streamflow.

    Normalisation lives inside: all that goes in and comes out is in physical units.
    """

    forcing_names: tuple[str, ...]
    attribute_names: tuple[str, ...]

    def __call__(self, forcing: Tensor, attributes: Tensor, warm_up: int) -> Tensor:
        """Simulate streamflow.

        ``forcing[time, catchment, forcing]``, ``attributes[catchment, attribute]``; the first ``warm_up`` steps are
        dropped from the result, mm d-1, ``[time - warm_up, catchment]``.
        """

    def train(self, mode: bool = True) -> Any:
        """Switch to training (dropout active)."""

    def eval(self) -> Any:
        """Switch to evaluation."""

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Return the weights to be trained."""

    def state_dict(self) -> dict[str, Any]:
        """Return all weights by name."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Any:
        """Replace all weights."""

    def to_bundle(
        self,
        *,
        attributes: Sequence[NamedUnits] | None = None,
        provenance: Mapping[str, Any] | None = None,
        licence: str = "",
    ) -> TrainedModel:
        """Pack hyper-parameters, normalisation and weights for disk."""


def _model_class(kind: str) -> Any:
    if kind not in MODEL_CLASSES:
        raise ConfigurationError(f"model.kind: {kind!r} is unknown; choose one of {', '.join(MODEL_CLASSES)}")
    module, name = MODEL_CLASSES[kind].split(":")
    return getattr(importlib.import_module(module), name)


def create_model(
    kind: str,
    hyperparameters: Mapping[str, Any],
    forcing_names: Sequence[str],
    attribute_names: Sequence[str],
    normalisation: Mapping[str, Mapping[str, float]],
    seed: int,
) -> TrainableModel:
    """Make an untrained model of a kind.

    Raises
    ------
    ConfigurationError
        If the kind or a hyper-parameter is unknown.
    """
    model: TrainableModel = _model_class(kind).create(
        hyperparameters, forcing_names, attribute_names, normalisation, seed
    )
    return model


def load_model(bundle: TrainedModel) -> TrainableModel:
    """Make the model that a bundle holds.

    Raises
    ------
    ConfigurationError
        If the bundle's kind is none that streamflow can be evaluated with.
    """
    model: TrainableModel = _model_class(bundle.kind).from_bundle(bundle)
    return model
