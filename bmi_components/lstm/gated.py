"""Gated networks: dense layers, one LSTM or GRU layer, a readout; all that is one of them is this class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from bmi_components.lstm.cells import GruWeights, LstmWeights, gru_cell, lstm_cell, lstm_sequence
from bmi_components.lstm.layers import Layer, Layers, fold_linear
from bmi_components.lstm.recurrent import RecurrentNetwork, Scaling, State, Statistics

__all__ = ["GatedNetwork"]


class GatedNetwork(RecurrentNetwork):
    """Forcing and attributes, through dense layers, into one LSTM or GRU layer, whose hidden state is read out.

    What enters the recurrent layer is ``[front(forcing), static features, own runoff and its flag]``, the last two
    only with ``feedback``. Layers without activation are folded into the ones after them, so give float64.

    Parameters
    ----------
    cell
        "lstm" (gates i, f, g, o) or "gru" (gates r, z, n).
    weights
        ``w_ih[gates*hidden, input]``, ``w_hh[gates*hidden, hidden]``, ``b_ih``, ``b_hh`` ``[gates*hidden]``.
    front
        Layers between the standardised forcing and the recurrent layer; empty: the forcing enters as it is.
    readout
        Layers between the hidden state and ``raw``.
    forcings, attributes, scaling, head, attribute_layers
        As for `RecurrentNetwork`.
    sees_attributes
        Whether the static features join the forcing in front of ``front`` rather than behind it.
    feedback
        Steps by which the runoff is fed back, 0: it is not.
    feedback_statistics
        Mean and standard deviation that standardise the observed runoff.

    Attributes
    ----------
    front, readout
        `Layers`, which give their `Layer`s one by one.
    w_ih, w_hh, b_ih, b_hh
        The recurrent layer.
    """

    def __init__(
        self,
        *,
        cell: Literal["lstm", "gru"],
        weights: tuple[Tensor, Tensor, Tensor, Tensor],
        readout: Sequence[Layer],
        forcings: Statistics,
        attributes: Statistics,
        scaling: Scaling,
        head: str = "linear",
        front: Sequence[Layer] = (),
        attribute_layers: Sequence[Layer] = (),
        sees_attributes: bool = False,
        feedback: int = 0,
        feedback_statistics: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        w_ih, w_hh, b_ih, b_hh = weights
        statics = attribute_layers[-1].bias.numel() if attribute_layers else len(attributes.names)
        front, attribute_layers = fold_linear(front), fold_linear(attribute_layers)
        after = w_ih.shape[1] - (2 if feedback else 0)
        if not sees_attributes:
            w_ih, b_ih, attribute_layers = _fold_into(w_ih, b_ih, attribute_layers, after - statics, after)
            end = after - statics
        else:
            end = after
        w_ih, b_ih, front = _fold_into(w_ih, b_ih, front, 0, end)
        super().__init__(forcings, attributes, scaling, head, Layers(attribute_layers))
        self.cell: Literal["lstm", "gru"] = cell
        self.front, self.readout = Layers(front), Layers(fold_linear(readout))
        self.sees_attributes = sees_attributes
        self.w_ih, self.w_hh = nn.Parameter(w_ih), nn.Parameter(w_hh)
        self.b_ih, self.b_hh = nn.Parameter(b_ih), nn.Parameter(b_hh)
        self.feedback = feedback
        self.state_names = ("h", "c") if cell == "lstm" else ("h",)
        if feedback:
            self.state_names += ("own_runoff",)
        for name, value in zip(("feedback_mean", "feedback_std"), feedback_statistics, strict=True):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64), persistent=False)

    feedback_mean: Tensor
    feedback_std: Tensor

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.w_hh.shape[1]

    def initial_state(self, catchments: int) -> State:
        """Return the empty memory: zeros.

        With ``feedback`` its last tensor ``own_runoff[catchment, feedback]`` holds the standardised runoff of the
        latest steps, newest first.
        """
        sizes = [self.hidden] * (2 if self.cell == "lstm" else 1) + ([self.feedback] if self.feedback else [])
        return tuple(self.w_hh.new_zeros(catchments, size) for size in sizes)

    def step(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance by one step, see `RecurrentNetwork.step`."""
        features = self._features(forcing, static)
        if self.feedback:
            features = torch.cat((features, self._fed_back(state[-1], feedback)), dim=-1)
        if self.cell == "lstm":
            weights = LstmWeights(self.w_ih, self.w_hh, self.b_ih, self.b_hh)
            new: State = tuple(lstm_cell(features, (state[0], state[1]), weights))
        else:
            new = (gru_cell(features, state[0], GruWeights(self.w_ih, self.w_hh, self.b_ih, self.b_hh)),)
        raw: Tensor = self.readout(new[0])
        if self.feedback:
            latest = self.distribution(raw)[0].unsqueeze(-1)
            new = (*new, torch.cat((latest, state[-1][:, :-1]), dim=-1))
        return new, raw

    def run(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance over a whole series, see `RecurrentNetwork.run`."""
        if self.feedback or self.cell == "gru":
            return super().run(state, forcing, static, feedback)
        features = self._features(forcing, static.expand(forcing.shape[0], -1, -1))
        hidden, last = lstm_sequence(features, self.w_ih, self.w_hh, self.b_ih, self.b_hh, state[0], state[1])
        return tuple(last), self.readout(hidden)

    def _features(self, forcing: Tensor, static: Tensor) -> Tensor:
        """Return what enters the recurrent layer, without feedback, ``[..., catchment, feature]``."""
        standardised = self.standardise(forcing)
        if self.sees_attributes:
            features: Tensor = self.front(torch.cat((standardised, static), dim=-1))
            return features
        return torch.cat((self.front(standardised), static), dim=-1)

    def _fed_back(self, own: Tensor, observed: Tensor | None) -> Tensor:
        """Return the standardised runoff of ``feedback`` steps ago and whether it is the network's own."""
        if observed is None:
            return torch.stack((own[:, -1], torch.ones_like(own[:, -1])), dim=-1)
        unknown = observed.isnan()
        known = (observed - self.feedback_mean) / self.feedback_std
        return torch.stack((torch.where(unknown, own[:, -1], known), unknown.to(own)), dim=-1)


def _fold_into(
    w_ih: Tensor, b_ih: Tensor, layers: tuple[Layer, ...], start: int, stop: int
) -> tuple[Tensor, Tensor, tuple[Layer, ...]]:
    """Fold a last layer without activation into the columns ``[start, stop)`` that it feeds."""
    if not layers or layers[-1].activation != "linear":
        return w_ih, b_ih, layers
    *rest, last = layers
    columns = w_ih[:, start:stop]
    w_ih = torch.cat((w_ih[:, :start], columns @ last.weights, w_ih[:, stop:]), dim=1)
    return w_ih, b_ih + columns @ last.bias, tuple(rest)
