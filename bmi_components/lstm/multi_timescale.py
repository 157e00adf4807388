"""Two networks at two timescales: days hand their memory over to hours (MTS-LSTM, Gauch et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bmi_components.lstm.gated import GatedNetwork
from bmi_components.lstm.layers import Layer, Layers
from bmi_components.lstm.recurrent import State

__all__ = ["MultiTimescaleNetwork"]


class MultiTimescaleNetwork(nn.Module):
    """A slow and a fast LSTM; the fast one's window starts from the slow one's state at that time.

    A slow step's forcing is the mean of the fast steps in it. ``slow_window`` slow steps and ``fast_window`` fast ones
    end at the same time; ``fast_window`` is a whole number of slow steps.

    Parameters
    ----------
    slow, fast
        The networks; they read the same attributes.
    transfer
        For ``h`` and ``c`` a linear layer, "identity", or None: the fast network starts from zeros.
    ratio
        Fast steps in a slow one.
    slow_window, fast_window
        Windows that neuralhydrology evaluates, each in its own steps.

    Attributes
    ----------
    forcing_names, attribute_names
        What the two read together; the fast network's forcings first.
    slow_columns, fast_columns
        Where each network's forcings are among them.
    """

    def __init__(
        self,
        slow: GatedNetwork,
        fast: GatedNetwork,
        transfer: Sequence[Layer | str | None],
        ratio: int,
        slow_window: int,
        fast_window: int,
    ) -> None:
        super().__init__()
        self.slow, self.fast = slow, fast
        self.ratio, self.slow_window, self.fast_window = ratio, slow_window, fast_window
        self.forcing_names = tuple(dict.fromkeys((*fast.forcing_names, *slow.forcing_names)))
        self.attribute_names = fast.attribute_names
        self.slow_columns = [self.forcing_names.index(name) for name in slow.forcing_names]
        self.fast_columns = [self.forcing_names.index(name) for name in fast.forcing_names]
        self._handed_over = [mode is not None for mode in transfer]
        self._transfer = nn.ModuleList(Layers((m,) if isinstance(m, Layer) else ()) for m in transfer)

    def transfer(self, slow_state: State) -> State:
        """Turn the slow network's state into the one from which the fast network starts."""
        empty = self.fast.initial_state(slow_state[0].shape[0])
        return tuple(
            layers(mine) if handed_over else zeros
            for layers, handed_over, mine, zeros in zip(
                self._transfer, self._handed_over, slow_state, empty, strict=True
            )
        )

    def simulate(
        self, slow_forcing: Tensor, fast_forcing: Tensor, attributes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Simulate both timescales over windows that end together, from the empty state.

        Parameters
        ----------
        slow_forcing
            ``[slow step, catchment, forcing]`` of the slow network, in physical units.
        fast_forcing
            ``[fast step, catchment, forcing]`` of the fast network: the last whole slow steps of that time.
        attributes
            ``[catchment, attribute]``.

        Returns
        -------
        slow, fast
            Mean runoff, ``[slow step, catchment]`` and ``[fast step, catchment]``.
        """
        before = slow_forcing.shape[0] - fast_forcing.shape[0] // self.ratio
        static = self.slow.static_features(attributes)
        state = self.slow.initial_state(attributes.shape[0])
        raw = []
        if before:
            state, early = self.slow.run(state, slow_forcing[:before], static)
            raw.append(early)
        raw.append(self.slow.run(state, slow_forcing[before:], static)[1])
        _, fast_raw = self.fast.run(self.transfer(state), fast_forcing, self.fast.static_features(attributes))
        slow_runoff = self.slow.runoff(torch.cat(raw), attributes)[0]
        return slow_runoff, self.fast.runoff(fast_raw, attributes)[0]
