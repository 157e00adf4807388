"""Streamflow networks brought to life: from a trained model's description and weights to a pure network."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from bmi_components.errors import BundleError
from bmi_components.lstm.asymmetries import AsymmetriesNetwork
from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.heads import tau_grid
from bmi_components.lstm.layers import ACTIVATIONS, Layer, Layers, fold_linear
from bmi_components.lstm.mass_conserving import MassConservingNetwork, MassConservingWeights
from bmi_components.lstm.multi_timescale import MultiTimescaleNetwork
from bmi_components.lstm.recurrent import RecurrentNetwork, Scaling, Statistics
from bmi_components.lstm.simple_hydrology import HybridNetwork
from bmi_components.lstm.streamflow import StreamflowLSTM
from bmi_components.trained_model import TrainedModel

__all__ = [
    "KINDS",
    "Branch",
    "Hybrid",
    "Hyperparameters",
    "MassConserving",
    "MultiTimescale",
    "Recurrent",
    "Taus",
    "make_network",
]

KINDS = ("neuralhydrology", "streamflow_lstm")
"""Kinds of trained models that are streamflow networks."""


class Branch(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One recurrent network of a trained model.

    Attributes
    ----------
    inputs
        Forcings that it reads, in order.
    cell
        Kind of its recurrent layer.
    front, attribute_layers
        Activation of each layer between the forcing, and between the attributes, and the recurrent layer.
    readout
        Activation of each layer between the hidden state and the head.
    head
        What turns the last layer into runoff, see `bmi_components.lstm.heads`.
    """

    inputs: tuple[str, ...]
    cell: Literal["lstm", "gru"] = "lstm"
    front: tuple[str, ...] = ()
    attribute_layers: tuple[str, ...] = ()
    readout: tuple[str, ...] = ("linear",)
    head: Literal["linear", "relu", "softplus", "gmm", "cmal", "umal"] = "linear"


class Taus(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Asymmetries at which a UMAL network is evaluated: so many, evenly between the two ends."""

    number: int
    lowest: float
    highest: float


class _Common(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True, tag_field="network"):
    """What every network's description says.

    Attributes
    ----------
    model
        neuralhydrology's name of the architecture.
    sequence_length
        Steps that neuralhydrology runs for one value, from an empty state; of two timescales the fast one's.
    quantities
        Symbol in the catalogue of variables for each input that is known.
    not_negative
        Whether the training counted runoff below zero as zero (``clip_targets_to_zero``); the network's own result
        is not cut off.
    """

    model: str
    sequence_length: int
    quantities: dict[str, str] = {}
    not_negative: bool = False


class Recurrent(_Common, frozen=True, kw_only=True, tag="recurrent"):
    """A LSTM or GRU.

    Attributes
    ----------
    branch
        The network.
    feedback
        Steps by which the runoff is fed back (autoregression); 0: it is not.
    taus
        For a UMAL head.
    """

    branch: Branch
    feedback: int = 0
    taus: Taus | None = None


class MassConserving(_Common, frozen=True, kw_only=True, tag="mass_conserving"):
    """The mass-conserving LSTM.

    Attributes
    ----------
    inputs
        Forcings in order, precipitation first.
    attribute_layers
        As in `Branch`.
    company
        Size of the batches it was trained in, see `bmi_components.lstm.mass_conserving.mass_conserving_cell`.
    """

    inputs: tuple[str, ...]
    attribute_layers: tuple[str, ...] = ()
    company: int = 1


class Hybrid(_Common, frozen=True, kw_only=True, tag="hybrid"):
    """An LSTM that sets the parameters of the Simple Hydrological Model.

    Attributes
    ----------
    branch
        The LSTM.
    conceptual_inputs
        Precipitation, potential evapotranspiration and two temperatures; the statistics of each are under
        "conceptual/<name>".
    warm_up
        Steps after which the stores start to change.
    """

    branch: Branch
    conceptual_inputs: tuple[str, str, str, str]
    warm_up: int = 0


class MultiTimescale(_Common, frozen=True, kw_only=True, tag="multi_timescale"):
    """Two LSTMs at two timescales.

    Attributes
    ----------
    slow, fast
        The networks.
    transfer
        For ``h`` and ``c``: how the slow state becomes the fast one.
    ratio
        Fast steps in a slow one.
    slow_window
        Slow steps that neuralhydrology runs; ``sequence_length`` are the fast ones.
    """

    slow: Branch
    fast: Branch
    transfer: dict[Literal["h", "c"], Literal["linear", "identity", "none"]]
    ratio: int
    slow_window: int


Hyperparameters = Recurrent | MassConserving | Hybrid | MultiTimescale
"""What a trained model of kind "neuralhydrology" says about its network."""


def make_network(
    bundle: TrainedModel, dtype: torch.dtype = torch.float32
) -> RecurrentNetwork | MultiTimescaleNetwork:
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
    network: RecurrentNetwork | MultiTimescaleNetwork
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


def _from_neuralhydrology(bundle: TrainedModel) -> RecurrentNetwork | MultiTimescaleNetwork:
    try:
        parsed = msgspec.convert(dict(bundle.hyperparameters), Hyperparameters)
    except msgspec.ValidationError as error:
        raise BundleError(f"the bundle's hyperparameters do not make a network: {error}") from error
    try:
        return _Making(bundle).network(parsed)
    except KeyError as error:
        raise BundleError(f"the bundle has no normalisation of {error}") from error


class _Making:
    """Networks from a bundle's weights and statistics."""

    def __init__(self, bundle: TrainedModel) -> None:
        self.bundle = bundle
        self.attributes = self.statistics(quantity.name for quantity in bundle.attributes)
        self.target = bundle.outputs[0].name
        statistics = bundle.normalisation[self.target]
        self.scaling = Scaling(statistics["mean"], statistics["std"])

    def statistics(self, names: Iterable[str], prefix: str = "") -> Statistics:
        return Statistics.of(names, self.bundle.normalisation, prefix)

    @functools.singledispatchmethod
    def network(self, parsed: Hyperparameters) -> RecurrentNetwork | MultiTimescaleNetwork:
        raise NotImplementedError(type(parsed).__name__)

    @network.register
    def _(self, parsed: Recurrent) -> RecurrentNetwork:
        if parsed.taus is not None:
            network = self.gated(parsed.branch, more=("tau",))
            taus = tau_grid(parsed.taus.number, parsed.taus.lowest, parsed.taus.highest)
            forcings = self.statistics(parsed.branch.inputs)
            return AsymmetriesNetwork(network, forcings, self.attributes, taus)
        return self.gated(parsed.branch, feedback=parsed.feedback)

    @network.register
    def _(self, parsed: MassConserving) -> RecurrentNetwork:
        weights = _Weights(self.bundle.weights)
        statics = weights.layers("attribute_layers", len(self.attributes.names), parsed.attribute_layers)
        hidden = weights.tensor("output_gate.bias", (None,)).numel()
        features = len(parsed.inputs) + hidden + _width(statics, self.attributes)
        rows = {"input_gate": hidden, "redistribution": hidden**2, "output_gate": hidden}
        gates = (
            Layer(
                weights.tensor(f"{name}.weights", (size, features)), weights.tensor(f"{name}.bias", (size,))
            )
            for name, size in rows.items()
        )
        return MassConservingNetwork(
            weights=MassConservingWeights(*gates),
            forcings=self.statistics(parsed.inputs),
            attributes=self.attributes,
            scaling=self.scaling,
            attribute_layers=Layers(fold_linear(statics)),
            company=parsed.company,
        )

    @network.register
    def _(self, parsed: Hybrid) -> RecurrentNetwork:
        return HybridNetwork(
            self.gated(parsed.branch),
            conceptual=self.statistics(parsed.conceptual_inputs, "conceptual/"),
            names=tuple(quantity.name for quantity in self.bundle.inputs),
            warm_up=parsed.warm_up,
        )

    @network.register
    def _(self, parsed: MultiTimescale) -> MultiTimescaleNetwork:
        slow, fast = (
            self.gated(branch, f"{name}.") for name, branch in (("slow", parsed.slow), ("fast", parsed.fast))
        )
        weights = _Weights(self.bundle.weights)
        transfer: list[Layer | str | None] = []
        for name in ("h", "c"):
            mode = parsed.transfer[name]
            if mode == "linear":
                (layer,) = weights.layers(f"transfer.{name}", slow.hidden, ("linear",))
                transfer.append(layer)
            else:
                transfer.append(None if mode == "none" else mode)
        return MultiTimescaleNetwork(
            slow, fast, transfer, parsed.ratio, parsed.slow_window, parsed.sequence_length
        )

    def gated(
        self, branch: Branch, prefix: str = "", more: tuple[str, ...] = (), feedback: int = 0
    ) -> GatedNetwork:
        """Make the network of a branch; ``more`` are inputs that no caller feeds."""
        weights = _Weights(self.bundle.weights, prefix)
        known = self.statistics(branch.inputs)
        extra = torch.zeros(len(more), dtype=torch.float64)
        forcings = Statistics(
            known.names + more, torch.cat((known.mean, extra)), torch.cat((known.std, extra + 1.0))
        )
        front = weights.layers("front", len(forcings.names), branch.front)
        statics = weights.layers("attribute_layers", len(self.attributes.names), branch.attribute_layers)
        features = _width(front, forcings) + _width(statics, self.attributes) + (2 if feedback else 0)
        gates = 4 if branch.cell == "lstm" else 3
        hidden = weights.tensor("recurrent.w_hh", (None, None)).shape[1]
        shapes = {
            "w_ih": (gates * hidden, features),
            "w_hh": (gates * hidden, hidden),
            "b_ih": (gates * hidden,),
            "b_hh": (gates * hidden,),
        }
        w_ih, w_hh, b_ih, b_hh = (weights.tensor(f"recurrent.{n}", shape) for n, shape in shapes.items())
        fed_back = (
            self.bundle.normalisation[f"{self.target}_shift{feedback}"]
            if feedback
            else {"mean": 0.0, "std": 1.0}
        )
        return GatedNetwork(
            cell=branch.cell,
            weights=(w_ih, w_hh, b_ih, b_hh),
            readout=weights.layers("readout", hidden, branch.readout),
            forcings=forcings,
            attributes=self.attributes,
            scaling=self.scaling,
            head=branch.head,
            front=front,
            attribute_layers=statics,
            feedback=feedback,
            feedback_statistics=(fed_back["mean"], fed_back["std"]),
        )


def _width(layers: Sequence[Layer], quantities: Statistics) -> int:
    """Return how many numbers come out of layers that read these quantities."""
    return layers[-1].bias.numel() if layers else len(quantities.names)


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
