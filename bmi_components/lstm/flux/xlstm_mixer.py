"""DLFM's network in the manner of xLSTM-Mixer (Kraus et al. 2024): mixes the days, then the inputs."""

from __future__ import annotations

from typing import Annotated

import msgspec
import torch
from msgspec import Meta
from torch import Tensor, nn

__all__ = ["XlstmMixerNetwork", "XlstmMixerSizes"]

Positive = Annotated[int, Meta(ge=1)]


class XlstmMixerSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of a mixer.

    Attributes
    ----------
    latent
        Numbers that each input's window is condensed to; also the LSTM's hidden size.
    layers
        Layers of the LSTM.
    dropout
        Share of the hidden state that is dropped between the layers, in training only.
    """

    latent: Positive = 20
    layers: Positive = 2
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0


class XlstmMixerNetwork(nn.Module):
    """Each input's window through two linear layers, then an LSTM over the inputs, forward and backward.

    An extra token ``mu`` goes before the inputs. In DLFM it is a random constant that is lost with the process; here
    it is a weight, trained and saved with the others. The other weights carry DLFM's names.

    Parameters
    ----------
    sizes
        See `XlstmMixerSizes`.
    inputs
        Number of inputs per day.
    sequence_length
        Days in a window.
    """

    Sizes = XlstmMixerSizes

    def __init__(self, sizes: XlstmMixerSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        latent = sizes.latent
        between = sizes.dropout if sizes.layers > 1 else 0.0
        self.NLinear = nn.Linear(sequence_length, sequence_length)
        self.FC_up = nn.Linear(sequence_length, latent)
        self.mu = nn.Parameter(torch.randn(latent))
        self.sLSTM = nn.LSTM(latent, latent, sizes.layers, batch_first=True, dropout=between)
        self.FC_view = nn.Linear(2 * latent, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        tokens = self.FC_up(self.NLinear(x.transpose(1, 2)))  # [window, input, latent]
        first = self.mu.expand(x.shape[0], 1, -1)
        views = [
            self.sLSTM(torch.cat((first, ordered), dim=1))[0][:, -1] for ordered in (tokens, tokens.flip(1))
        ]
        result: Tensor = self.FC_view(torch.cat(views, dim=1))
        return result.squeeze(-1)
