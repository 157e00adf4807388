"""Recurrent networks over a window of days: the long short-term memory and the plain recurrent network."""

from __future__ import annotations

from typing import Annotated, Literal

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


class LstmNetwork(nn.Module):
    """Stacked LSTM layers from a zero state; ReLU of the last day's hidden state; one linear output.

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

    def __init__(self, sizes: RecurrentSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        self.sizes = sizes
        between = sizes.dropout if sizes.layers > 1 else 0.0
        self.lstm = nn.LSTM(inputs, sizes.hidden, sizes.layers, batch_first=True, dropout=between)
        self.linear = nn.Linear(sizes.hidden, 1)
        self.season = SeasonalCycle(sizes.harmonics) if sizes.harmonics else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        _, (hidden, _) = self.lstm(x)
        result = _read_out(hidden, self.sizes, self.linear, self.training)
        return result if self.season is None else result + self.season(x)


class RnnNetwork(nn.Module):
    """Stacked recurrent layers (Elman 1990, tanh), read out as in `LstmNetwork`; same parameters."""

    Sizes = RecurrentSizes

    def __init__(self, sizes: RecurrentSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        self.sizes = sizes
        between = sizes.dropout if sizes.layers > 1 else 0.0
        self.rnn = nn.RNN(inputs, sizes.hidden, sizes.layers, batch_first=True, dropout=between)
        self.linear = nn.Linear(sizes.hidden, 1)
        self.season = SeasonalCycle(sizes.harmonics) if sizes.harmonics else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        _, hidden = self.rnn(x)
        result = _read_out(hidden, self.sizes, self.linear, self.training)
        return result if self.season is None else result + self.season(x)


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


def _read_out(hidden: Tensor, sizes: RecurrentSizes, linear: nn.Linear, training: bool) -> Tensor:
    """Turn the last day's hidden states ``[layer, window, hidden]`` into one number per window."""
    chosen = torch.relu(hidden[0 if sizes.readout_layer == "first" else -1])
    result: Tensor = linear(nn.functional.dropout(chosen, sizes.dropout, training))
    return result.squeeze(-1)
