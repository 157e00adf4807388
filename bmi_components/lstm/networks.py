"""Streamflow networks brought to life: from a trained model's description and weights to a pure network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from bmi_components.errors import BundleError
from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.layers import ACTIVATIONS, Layer
from bmi_components.lstm.recurrent import RecurrentNetwork, Scaling, Statistics
from bmi_components.lstm.streamflow import StreamflowLSTM
from bmi_components.trained_model import TrainedModel

__all__ = ["KINDS", "Branch", "Hyperparameters", "make_network"]

KINDS = ("neuralhydrology", "streamflow_lstm")
"""Kinds of trained models that are streamflow networks."""


class Branch(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One recurrent network of a trained model.

    Attributes
    ----------
    inputs
        Forcings that it reads, in order.
    network
        "lstm" or "gru".
    front, attribute_layers
        Activation of each layer between the forcing, and between the attributes, and the recurrent layer.
    readout
        Activation of each layer between the hidden state and the head.
    head
        "linear", "relu", "softplus", "gmm", "cmal" or "umal".
    """

    inputs: tuple[str, ...]
    network: Literal["lstm", "gru"] = "lstm"
    front: tuple[str, ...] = ()
    attribute_layers: tuple[str, ...] = ()
    readout: tuple[str, ...] = ("linear",)
    head: Literal["linear", "relu", "softplus", "gmm", "cmal", "umal"] = "linear"


class Hyperparameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a trained model of kind "neuralhydrology" says about its network.

    Attributes
    ----------
    model
        neuralhydrology's name of the architecture.
    branch
        The recurrent network.
    feedback
        Steps by which the runoff is fed back (autoregression); 0: it is not.
    sequence_length
        Steps that neuralhydrology evaluates for one value, from an empty state.
    quantities
        Symbol in the catalogue of variables for each input that is known.
    not_negative
        Whether the training counted runoff below zero as zero (``clip_targets_to_zero``); the network's own result
        is not cut off.
    """

    model: str
    branch: Branch
    feedback: int = 0
    sequence_length: int
    quantities: dict[str, str] = {}
    not_negative: bool = False


def make_network(bundle: TrainedModel, dtype: torch.dtype = torch.float32) -> RecurrentNetwork:
    """Make the network that a trained model describes, with its weights, in evaluation mode.

    Parameters
    ----------
    bundle
        Of one of `KINDS`.
    dtype
        Type of its arithmetic.

    Raises
    ------
    BundleError
        If the model is of another kind, or its weights or statistics do not fit its hyper-parameters.
    """
    if bundle.kind == StreamflowLSTM.kind:
        network = _from_streamflow_lstm(bundle)
    elif bundle.kind == "neuralhydrology":
        network = _from_neuralhydrology(bundle)
    else:
        raise BundleError(
            f"the trained model is of kind {bundle.kind!r}; a streamflow network is of kind {' or '.join(KINDS)}"
        )
    return network.to(dtype).eval().requires_grad_(False)


def _from_streamflow_lstm(bundle: TrainedModel) -> RecurrentNetwork:
    """Make the network of a model of ours, see `StreamflowLSTM`."""
    ours = StreamflowLSTM.from_bundle(bundle)
    scale = ours.hyperparameters.runoff_scale
    target = bundle.normalisation["streamflow" if scale is None else f"streamflow/{scale}"]

    def wide(tensor: Tensor) -> Tensor:
        return tensor.detach().double()

    front: tuple[Layer, ...] = ()
    if ours.embedding is not None:
        front = (Layer(wide(ours.embedding.weight), wide(ours.embedding.bias), "relu"),)
    return GatedNetwork(
        cell="lstm",
        weights=(wide(ours.w_ih), wide(ours.w_hh), wide(ours.b_ih), wide(ours.b_hh)),
        readout=(Layer(wide(ours.head.weight), wide(ours.head.bias)),),
        forcings=Statistics.of(ours.forcing_names, bundle.normalisation),
        attributes=Statistics.of(ours.attribute_names, bundle.normalisation),
        scaling=Scaling(target["mean"], target["std"], scale, not_negative=True),
        front=front,
        sees_attributes=bool(front),
    )


def _from_neuralhydrology(bundle: TrainedModel) -> RecurrentNetwork:
    try:
        parsed = msgspec.convert(dict(bundle.hyperparameters), Hyperparameters)
    except msgspec.ValidationError as error:
        raise BundleError(f"the bundle's hyperparameters do not make a network: {error}") from error
    target = bundle.outputs[0].name
    try:
        statistics = bundle.normalisation[target]
        fed_back = bundle.normalisation[f"{target}_shift{parsed.feedback}"] if parsed.feedback else None
        return _gated(
            parsed.branch,
            _Weights(bundle.weights),
            bundle,
            Scaling(statistics["mean"], statistics["std"]),
            feedback=parsed.feedback,
            feedback_statistics=(fed_back["mean"], fed_back["std"]) if fed_back else (0.0, 1.0),
        )
    except KeyError as error:
        raise BundleError(f"the bundle has no normalisation of {error}") from error


def _gated(
    branch: Branch, weights: _Weights, bundle: TrainedModel, scaling: Scaling, **feedback: Any
) -> GatedNetwork:
    attributes = tuple(quantity.name for quantity in bundle.attributes)
    front = weights.layers("front", len(branch.inputs), branch.front)
    attribute_layers = weights.layers("attribute_layers", len(attributes), branch.attribute_layers)
    features = (front[-1].bias.numel() if front else len(branch.inputs)) + (
        attribute_layers[-1].bias.numel() if attribute_layers else len(attributes)
    )
    gates = 4 if branch.network == "lstm" else 3
    hidden = weights.tensor("recurrent.w_hh", (None, None)).shape[1]
    shapes = {
        "w_ih": (gates * hidden, features + (2 if feedback.get("feedback") else 0)),
        "w_hh": (gates * hidden, hidden),
        "b_ih": (gates * hidden,),
        "b_hh": (gates * hidden,),
    }
    w_ih, w_hh, b_ih, b_hh = (weights.tensor(f"recurrent.{n}", shape) for n, shape in shapes.items())
    return GatedNetwork(
        cell=branch.network,
        weights=(w_ih, w_hh, b_ih, b_hh),
        readout=weights.layers("readout", hidden, branch.readout),
        forcings=Statistics.of(branch.inputs, bundle.normalisation),
        attributes=Statistics.of(attributes, bundle.normalisation),
        scaling=scaling,
        head=branch.head,
        front=front,
        attribute_layers=attribute_layers,
        **feedback,
    )


class _Weights:
    """A bundle's weights, looked up with the shape that they must have, as float64."""

    def __init__(self, arrays: Mapping[str, Any], prefix: str = "") -> None:
        self._arrays, self._prefix = arrays, prefix

    def tensor(self, name: str, shape: tuple[int | None, ...]) -> Tensor:
        """Return a weight; None in ``shape`` stands for any size."""
        name = self._prefix + name
        if name not in self._arrays:
            raise BundleError(f"the bundle's weight {name!r} is missing")
        found = self._arrays[name].shape
        fits = len(found) == len(shape) and all(b in (a, None) for a, b in zip(found, shape, strict=True))
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise BundleError(f"the bundle's weight {name!r} has shape {found}; ({wanted}) is needed")
        return torch.tensor(self._arrays[name], dtype=torch.float64)

    def layers(self, name: str, inputs: int, activations: tuple[str, ...]) -> tuple[Layer, ...]:
        """Return dense layers ``name.0``, ``name.1`` ... that start from ``inputs`` numbers."""
        layers: list[Layer] = []
        for number, activation in enumerate(activations):
            if activation not in ACTIVATIONS:
                raise BundleError(f"{activation!r} is no activation; there are {', '.join(ACTIVATIONS)}")
            weights = self.tensor(f"{name}.{number}.weights", (None, inputs))
            inputs = weights.shape[0]
            layers.append(Layer(weights, self.tensor(f"{name}.{number}.bias", (inputs,)), activation))
        return tuple(layers)
