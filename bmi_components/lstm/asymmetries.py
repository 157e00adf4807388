"""A network that is asked for many asymmetries at once (UMAL): one copy of its memory for each of them."""

from __future__ import annotations

import torch
from torch import Tensor

from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.heads import Distribution, umal
from bmi_components.lstm.recurrent import RecurrentNetwork, State, Statistics

__all__ = ["AsymmetriesNetwork"]


class AsymmetriesNetwork(RecurrentNetwork):
    """A gated network whose last forcing is the asymmetry tau, evaluated at a fixed grid of them.

    Parameters
    ----------
    network
        Gives location and scale for one tau.
    forcings, attributes
        Of the network, without tau.
    taus
        The grid, ``[tau]``.
    """

    taus: Tensor

    def __init__(
        self, network: GatedNetwork, forcings: Statistics, attributes: Statistics, taus: Tensor
    ) -> None:
        super().__init__(forcings, attributes, network.scaling, "umal")
        self.network = network
        self.state_names = network.state_names
        self.register_buffer("taus", taus.clone(), persistent=False)

    def static_features(self, attributes: Tensor) -> Tensor:
        """Return those of the network, see `RecurrentNetwork.static_features`."""
        return self.network.static_features(attributes)

    def initial_state(self, catchments: int) -> State:
        """Return the empty memory, each tensor ``[catchment, tau*hidden]``."""
        return tuple(
            tensor.reshape(catchments, -1)
            for tensor in self.network.initial_state(catchments * len(self.taus))
        )

    def step(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance by one step, see `RecurrentNetwork.step`."""
        state, raw = self.run(state, forcing.unsqueeze(0), static)
        return state, raw[0]

    def run(
        self, state: State, forcing: Tensor, static: Tensor, feedback: Tensor | None = None
    ) -> tuple[State, Tensor]:
        """Advance over a whole series, see `RecurrentNetwork.run`."""
        number = len(self.taus)
        steps, catchments = forcing.shape[:2]
        taus = self.taus.repeat(catchments).expand(steps, -1).unsqueeze(-1)
        wide, raw = self.network.run(
            tuple(tensor.reshape(catchments * number, -1) for tensor in state),
            torch.cat((forcing.repeat_interleave(number, 1), taus), dim=-1),
            static.repeat_interleave(number, 0),
        )
        return tuple(tensor.reshape(catchments, -1) for tensor in wide), raw.reshape(steps, catchments, -1)

    def distribution(self, raw: Tensor) -> Distribution:
        """Return mean and deviation over the grid, see `bmi_components.lstm.heads.umal`."""
        return umal(raw.view(*raw.shape[:-1], len(self.taus), 2), self.taus)
