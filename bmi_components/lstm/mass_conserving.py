"""The mass-conserving LSTM (Hoedt et al. 2021): cells that hold water, gates that share it out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bmi_components.lstm.layers import Layer, Layers
from bmi_components.lstm.recurrent import RecurrentNetwork, Scaling, State, Statistics

__all__ = ["MassConservingNetwork", "MassConservingWeights", "mass_conserving_cell"]

_NEGLIGIBLE = 1e-5
"""Added to the water in the cells before it divides them."""


class MassConservingWeights(NamedTuple):
    """The three gates; each reads ``[mass, auxiliary inputs, cells]``, ``feature`` numbers in all.

    ``input_gate`` and ``output_gate`` have ``weights[hidden, feature]`` and ``bias[hidden]``, ``redistribution`` has
    ``weights[hidden*hidden, feature]`` and ``bias[hidden*hidden]``: rows by the giving cell, then by the taking one.
    """

    input_gate: Layer
    redistribution: Layer
    output_gate: Layer


def mass_conserving_cell(
    mass: Tensor,
    auxiliary: Tensor,
    cells: Tensor,
    weights: MassConservingWeights,
    company: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Advance the cells by one step; what comes in is either kept or goes out.

    The gates see the cells as shares of water. In neuralhydrology it is the water of the whole batch, so that a
    catchment's result depends on its company, in training (batches of hundreds) as in evaluation.

    Parameters
    ----------
    mass
        Precipitation of the step, ``[catchment]``.
    auxiliary
        Whatever else the gates may see, ``[catchment, feature]``.
    cells
        Water in the cells, ``[catchment, hidden]``.
    weights
        The gates.
    company
        Number of catchments, each with as much water as this one, whose water the shares are taken of: every catchment
        stands for itself, 1 as Hoedt et al. publish it, the size of the training's batches to come close to what the
        gates have learnt. None: of the water of all catchments at hand, as neuralhydrology computes.

    Returns
    -------
    cells, outgoing
        Each ``[catchment, hidden]``. The first cell is the one for losses; what leaves the others is runoff.
    """
    hidden = cells.shape[1]
    if company is None:
        water = torch.linalg.vector_norm(cells, ord=1)
    else:
        water = company * torch.linalg.vector_norm(cells, ord=1, dim=1, keepdim=True)
    seen = torch.cat((mass.unsqueeze(1), auxiliary, cells / (water + _NEGLIGIBLE)), dim=1)
    share_in, moved, share_out = (
        functional.linear(seen, layer.weights, layer.bias)
        for layer in (weights.input_gate, weights.redistribution, weights.output_gate)
    )
    incoming = mass.unsqueeze(1) * functional.normalize(torch.sigmoid(share_in), p=1.0, dim=1)
    moved = functional.normalize(torch.relu(moved).view(-1, hidden, hidden), p=1.0, dim=2)
    water_now = incoming + torch.bmm(cells.unsqueeze(1), moved).squeeze(1)
    opened = torch.sigmoid(share_out)
    return (1.0 - opened) * water_now, opened * water_now


class MassConservingNetwork(RecurrentNetwork):
    """The mass-conserving LSTM over catchments, each on its own.

    Parameters
    ----------
    weights
        The gates.
    forcings
        Precipitation first.
    attributes, scaling, attribute_layers
        As for `RecurrentNetwork`.
    company
        As for `mass_conserving_cell`; a number.
    """

    state_names = ("cells",)

    def __init__(
        self,
        *,
        weights: MassConservingWeights,
        forcings: Statistics,
        attributes: Statistics,
        scaling: Scaling,
        attribute_layers: Layers | None = None,
        company: int = 1,
    ) -> None:
        super().__init__(forcings, attributes, scaling, "linear", attribute_layers)
        self.company = company
        self.gates = Layers(weights)

    @property
    def weights(self) -> MassConservingWeights:
        """The gates."""
        return MassConservingWeights(*self.gates)

    def initial_state(self, catchments: int) -> State:
        """Return cells without water."""
        output_gate = self.weights.output_gate
        return (output_gate.bias.new_zeros(catchments, output_gate.bias.numel()),)

    def step(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance by one step, see `RecurrentNetwork.step`."""
        standardised = self.standardise(forcing)
        auxiliary = torch.cat((standardised[:, 1:], static), dim=1)
        cells, outgoing = mass_conserving_cell(
            standardised[:, 0], auxiliary, state[0], self.weights, self.company
        )
        return (cells,), outgoing[:, 1:].sum(1, keepdim=True)
