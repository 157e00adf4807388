"""Recurrent networks over a window of days: the long short-term memory and the plain recurrent network."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

from bmi_components.lstm.flux.daily import DOY_MIDDLE, DOY_SCALE

__all__ = ["LstmNetwork", "RecurrentSizes", "RnnNetwork", "SeasonalCycle"]

Positive = Annotated[int, Meta(ge=1)]


class RecurrentSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of a recurrent network.

    Attributes
    ----------
    hidden
        Size of each layer's hidden state.
    layers
        Layers, each reading the hidden states of the one below.
    dropout
        Share of the hidden state that is dropped between the layers and before the output, in training only.
    readout_layer
        Layer whose hidden state after the last day is read out. "last" is the top of the stack; "first" is what
        DLFM computes, where the layers above the first never reach the result.
    harmonics
        Harmonics of the year that are added to the output, as a linear function of the last day's day of the year: a
        seasonal cycle beside which the rest of the network learns the departures from it. They need the input DOY,
        which comes last.
    """

    hidden: Positive = 8
    layers: Positive = 1
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0
    readout_layer: Literal["last", "first"] = "last"
    harmonics: Annotated[int, Meta(ge=0, le=6)] = 0


class _RecurrentNetwork(nn.Module):
    """Stacked recurrent layers from a zero state; ReLU of the last day's hidden state; one linear output.

    The weights carry the names of DLFM's, so that its ``state_dict`` fits as it is.

    Parameters
    ----------
    sizes
        See `RecurrentSizes`.
    inputs
        Number of inputs per day.
    sequence_length
        Days in a window; a recurrent network takes any.
    """

    Sizes = RecurrentSizes
    layers_name: ClassVar[str]
    layers_class: ClassVar[type[nn.LSTM] | type[nn.RNN]]

    def __init__(self, sizes: RecurrentSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        self.sizes = sizes
        between = sizes.dropout if sizes.layers > 1 else 0.0
        layers = self.layers_class(inputs, sizes.hidden, sizes.layers, batch_first=True, dropout=between)
        self.add_module(self.layers_name, layers)
        self.linear = nn.Linear(sizes.hidden, 1)
        self.season = SeasonalCycle(sizes.harmonics) if sizes.harmonics else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        _, state = self.get_submodule(self.layers_name)(x)
        hidden = state[0] if isinstance(state, tuple) else state  # an LSTM's state has its cells besides
        chosen = torch.relu(hidden[0 if self.sizes.readout_layer == "first" else -1])
        result: Tensor = self.linear(nn.functional.dropout(chosen, self.sizes.dropout, self.training))
        result = result.squeeze(-1)
        return result if self.season is None else result + self.season(x)


class LstmNetwork(_RecurrentNetwork):
    """Stacked LSTM layers."""

    layers_name = "lstm"
    layers_class = nn.LSTM


class RnnNetwork(_RecurrentNetwork):
    """Stacked recurrent layers (Elman 1990, tanh)."""

    layers_name = "rnn"
    layers_class = nn.RNN


class SeasonalCycle(nn.Module):
    """A linear function of the first harmonics of the year; zero until it has learnt."""

    def __init__(self, harmonics: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, harmonics))
        self.harmonics = harmonics

    def forward(self, x: Tensor) -> Tensor:
        """Return the cycle ``[window]`` on the last day of ``[window, day, input]``, whose last input is DOY."""
        day = x[:, -1, -1:] * DOY_SCALE + DOY_MIDDLE
        angle = day * torch.arange(1, self.harmonics + 1, device=x.device) * (2 * torch.pi / 365.25)
        return torch.sin(angle) @ self.weight[0] + torch.cos(angle) @ self.weight[1]
