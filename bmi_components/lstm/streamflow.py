"""The streamflow LSTM: forcing and catchment attributes in, streamflow out (Kratzert et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.lstm.cells import LstmState, LstmWeights, lstm_cell, lstm_sequence
from bmi_components.trained_model import NamedUnits, TrainedModel

__all__ = ["FORCING_UNITS", "StreamflowLSTM", "StreamflowLSTMHyperparameters"]

FORCING_UNITS = {
    "precipitation": "mm d-1",
    "temperature": "degC",
    "potential_evapotranspiration": "mm d-1",
}
"""Forcings that a streamflow LSTM can be fed, with their units."""


class StreamflowLSTMHyperparameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes and options of a `StreamflowLSTM`.

    Attributes
    ----------
    hidden
        Size of the LSTM's hidden and cell state.
    dropout
        Share of the hidden state that is dropped before the output layer, in training only.
    embedding
        Width of a Linear-ReLU layer in front of the LSTM; 0: the features go in directly.
    forget_bias
        Initial bias of the forget gate; large values let the cell remember over a season from the start
        (Gers et al. 2000).
    runoff_scale
        Attribute by which streamflow is divided before it is standardised, usually "p_mean" [mm d-1], so that
        wet and dry catchments look alike to the network; None: streamflow is standardised as it is.
    """

    hidden: int = 64
    dropout: float = 0.4
    embedding: int = 0
    forget_bias: float = 3.0
    runoff_scale: str | None = "p_mean"

    def __post_init__(self) -> None:
        if self.hidden < 1 or self.embedding < 0 or not 0.0 <= self.dropout < 1.0:
            raise ValueError("hidden must be at least 1, embedding at least 0 and dropout within [0, 1)")


class StreamflowLSTM(nn.Module):
    """One LSTM for all catchments, told apart by their attributes.

    ``features = (forcing, attributes)`` standardised, through an optional embedding into the LSTM, whose hidden
    state is read out linearly; the result is streamflow in mm d-1. Negative values are cut off outside training.

    Use `create` for a new model; the constructor takes the statistics that `create` looks up.
    """

    kind = "streamflow_lstm"

    def __init__(
        self,
        hyperparameters: StreamflowLSTMHyperparameters,
        forcing_names: Sequence[str],
        attribute_names: Sequence[str],
        normalisation: Mapping[str, Mapping[str, float]],
    ) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.forcing_names = tuple(forcing_names)
        self.attribute_names = tuple(attribute_names)
        unknown = [name for name in self.forcing_names if name not in FORCING_UNITS]
        if unknown:
            raise ConfigurationError(
                f"streamflow_lstm: {unknown[0]!r} is no forcing that it knows; it knows {', '.join(FORCING_UNITS)}"
            )
        scale = hyperparameters.runoff_scale
        if scale is not None and scale not in self.attribute_names:
            raise ConfigurationError(
                f"streamflow_lstm: runoff_scale names the attribute {scale!r}, which the model does not have"
            )
        self._scale_column = None if scale is None else self.attribute_names.index(scale)
        target = "streamflow" if scale is None else f"streamflow/{scale}"
        for name in (*self.forcing_names, *self.attribute_names, target):
            if name not in normalisation:
                raise ConfigurationError(
                    f"streamflow_lstm: the normalisation has no mean and std of {name!r}"
                )
        self.normalisation = {
            name: dict(normalisation[name]) for name in (*self.forcing_names, *self.attribute_names, target)
        }
        for label, names in (
            ("forcing", self.forcing_names),
            ("attribute", self.attribute_names),
            ("target", (target,)),
        ):
            for statistic in ("mean", "std"):
                values = [float(self.normalisation[name][statistic]) for name in names]
                self.register_buffer(f"{label}_{statistic}", torch.tensor(values), persistent=False)
        features = len(self.forcing_names) + len(self.attribute_names)
        hidden = hyperparameters.hidden
        width = hyperparameters.embedding or features
        self.embedding = nn.Linear(features, width) if hyperparameters.embedding else None
        self.w_ih = nn.Parameter(torch.empty(4 * hidden, width))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.b_ih = nn.Parameter(torch.zeros(4 * hidden))
        self.b_hh = nn.Parameter(torch.zeros(4 * hidden))
        self.head = nn.Linear(hidden, 1)

    forcing_mean: Tensor
    forcing_std: Tensor
    attribute_mean: Tensor
    attribute_std: Tensor
    target_mean: Tensor
    target_std: Tensor

    @classmethod
    def create(
        cls,
        hyperparameters: Mapping[str, Any],
        forcing_names: Sequence[str],
        attribute_names: Sequence[str],
        normalisation: Mapping[str, Mapping[str, float]],
        seed: int,
    ) -> StreamflowLSTM:
        """Make a model with random weights.

        Parameters
        ----------
        hyperparameters
            Fields of `StreamflowLSTMHyperparameters`; those left out take their defaults.
        forcing_names, attribute_names
            What the model is fed, in this order.
        normalisation
            ``{name: {"mean": ..., "std": ...}}`` of every forcing and attribute, of "streamflow" and, with
            ``runoff_scale``, of "streamflow/<runoff_scale>".
        seed
            Of the initial weights.

        Raises
        ------
        ConfigurationError
            If a hyper-parameter is unknown or out of range, or a statistic is missing.
        """
        try:
            parsed = msgspec.convert(dict(hyperparameters), StreamflowLSTMHyperparameters)
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"streamflow_lstm hyperparameters: {error}") from error
        model = cls(parsed, forcing_names, attribute_names, normalisation)
        model.reset_parameters(torch.Generator().manual_seed(seed))
        return model

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw new weights: Glorot for the input half, orthogonal for the hidden half, a wide-open forget gate."""
        hidden = self.hyperparameters.hidden
        with torch.no_grad():
            for gate in range(4):
                rows = slice(gate * hidden, (gate + 1) * hidden)
                nn.init.xavier_uniform_(self.w_ih[rows], generator=generator)
                nn.init.orthogonal_(self.w_hh[rows], generator=generator)
            self.b_ih.zero_()
            self.b_hh.zero_()
            self.b_hh[hidden : 2 * hidden] = self.hyperparameters.forget_bias
            for layer in (self.embedding, self.head):
                if layer is not None:
                    nn.init.xavier_uniform_(layer.weight, generator=generator)
                    layer.bias.zero_()

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> StreamflowLSTM:
        """Make the model that a bundle describes, with its weights, in evaluation mode.

        Raises
        ------
        BundleError
            If the bundle is for another kind of model, or its weights do not fit its hyper-parameters.
        """
        if bundle.kind != cls.kind:
            raise BundleError(
                f"the bundle holds a {bundle.kind!r} model; StreamflowLSTM needs one of kind {cls.kind!r}"
            )
        try:
            model = cls(
                msgspec.convert(dict(bundle.hyperparameters), StreamflowLSTMHyperparameters),
                [quantity.name for quantity in bundle.inputs],
                [quantity.name for quantity in bundle.attributes],
                bundle.normalisation,
            )
        except (msgspec.ValidationError, ConfigurationError) as error:
            raise BundleError(f"the bundle does not make a streamflow LSTM: {error}") from error
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        found = {name: array.shape for name, array in bundle.weights.items()}
        if expected != found:
            name = min(name for name in expected | found if expected.get(name) != found.get(name))
            raise BundleError(
                f"the bundle's weight {name!r} has shape {found.get(name)}; {expected.get(name)} is needed"
            )
        model.load_state_dict(
            {name: torch.from_numpy(np.array(array)) for name, array in bundle.weights.items()}
        )
        return model.eval()

    def to_bundle(
        self,
        *,
        attributes: Sequence[NamedUnits] | None = None,
        provenance: Mapping[str, Any] | None = None,
        licence: str = "",
    ) -> TrainedModel:
        """Describe the model and its weights as a bundle to be saved; ``attributes`` adds units to the names."""
        return TrainedModel(
            kind=self.kind,
            hyperparameters=msgspec.to_builtins(self.hyperparameters),
            inputs=tuple(NamedUnits(name, FORCING_UNITS[name]) for name in self.forcing_names),
            attributes=tuple(attributes or (NamedUnits(name, "1") for name in self.attribute_names)),
            outputs=(NamedUnits("streamflow", "mm d-1"),),
            normalisation=self.normalisation,
            time_step=86400.0,
            provenance=dict(provenance or {}),
            licence=licence,
            weights={
                name: tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()
            },
        )

    @property
    def weights(self) -> LstmWeights:
        """The recurrent layer's weights."""
        return LstmWeights(self.w_ih, self.w_hh, self.b_ih, self.b_hh)

    def forward(self, forcing: Tensor, attributes: Tensor, warm_up: int) -> Tensor:
        """Simulate streamflow from an empty state.

        Parameters
        ----------
        forcing
            ``[time, catchment, forcing]`` in physical units.
        attributes
            ``[catchment, attribute]`` in physical units.
        warm_up
            Steps at the start that only fill the state.

        Returns
        -------
        Tensor
            Streamflow, mm d-1, ``[time - warm_up, catchment]``.

        Raises
        ------
        ValueShapeError
            If the shapes do not fit the model, or the warm-up leaves nothing.
        """
        self._check(forcing, attributes)
        if not 0 <= warm_up < forcing.shape[0]:
            raise ValueShapeError(
                f"a warm-up of {warm_up} steps leaves nothing of a series of {forcing.shape[0]} steps"
            )
        catchments = forcing.shape[1]
        standardised = (forcing - self.forcing_mean) / self.forcing_std
        static = (attributes - self.attribute_mean) / self.attribute_std
        features = torch.cat((standardised, static.expand(forcing.shape[0], -1, -1)), dim=-1)
        if self.embedding is not None:
            features = torch.relu(self.embedding(features))
        state = self.initial_state(catchments)
        hidden, _ = lstm_sequence(features, *self.weights, state.h, state.c)
        return self._streamflow(hidden[warm_up:], attributes)

    def initial_state(self, catchments: int) -> LstmState:
        """Return the empty memory, two tensors of zeros ``[catchment, hidden]``."""
        zeros = self.w_hh.new_zeros(catchments, self.hyperparameters.hidden)
        return LstmState(zeros, zeros)

    def step(self, state: LstmState, forcing: Tensor, attributes: Tensor) -> tuple[LstmState, Tensor]:
        """Advance by one day without side effects.

        Parameters
        ----------
        state
            As from `initial_state` or the last call.
        forcing
            ``[catchment, forcing]`` of the day, in physical units.
        attributes
            ``[catchment, attribute]`` in physical units.

        Returns
        -------
        state, streamflow
            The new state and the day's streamflow, mm d-1, ``[catchment]``.

        Raises
        ------
        ValueShapeError
            If the shapes do not fit the model.
        """
        self._check(forcing.unsqueeze(0), attributes)
        features = torch.cat(
            (
                (forcing - self.forcing_mean) / self.forcing_std,
                (attributes - self.attribute_mean) / self.attribute_std,
            ),
            dim=-1,
        )
        if self.embedding is not None:
            features = torch.relu(self.embedding(features))
        state = lstm_cell(features, state, self.weights)
        return state, self._streamflow(state.h.unsqueeze(0), attributes)[0]

    def _streamflow(self, hidden: Tensor, attributes: Tensor) -> Tensor:
        """Read streamflow, mm d-1, out of hidden states ``[time, catchment, hidden]``."""
        kept = nn.functional.dropout(hidden, self.hyperparameters.dropout, self.training)
        streamflow: Tensor = self.head(kept).squeeze(-1) * self.target_std + self.target_mean
        if self._scale_column is not None:
            streamflow = streamflow * attributes[:, self._scale_column]
        return streamflow if self.training else streamflow.clamp_min(0.0)

    def _check(self, forcing: Tensor, attributes: Tensor) -> None:
        if forcing.dim() != 3 or forcing.shape[2] != len(self.forcing_names):
            raise ValueShapeError(
                f"forcing has shape {tuple(forcing.shape)}; "
                f"[time, catchment, {len(self.forcing_names)}] is needed ({', '.join(self.forcing_names)})"
            )
        if tuple(attributes.shape) != (forcing.shape[1], len(self.attribute_names)):
            raise ValueShapeError(
                f"attributes have shape {tuple(attributes.shape)}; "
                f"[{forcing.shape[1]} catchments, {len(self.attribute_names)} attributes] is needed"
            )
