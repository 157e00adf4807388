"""The neural networks that turn weather and catchment attributes into HBV parameters."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmi_components.lstm.cells import LstmState, LstmWeights, lstm_cell, lstm_sequence

__all__ = [
    "LstmLayer",
    "LstmMlpNetwork",
    "LstmNetwork",
    "Mlp",
    "MultiTimescaleNetwork",
    "MultiTimescaleParameters",
    "TimescaleBranch",
]


def _uniform(tensor: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Fill with U(-k, k), k = 1/sqrt(fan_in): what PyTorch and the published networks start from."""
    bound = 1.0 / math.sqrt(fan_in)
    with torch.no_grad():
        tensor.uniform_(-bound, bound, generator=generator)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """Make a linear layer without drawing weights: the network draws them once, from its own generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device=torch.get_default_device())


def _initialise_linear(layer: nn.Linear, generator: torch.Generator | None) -> None:
    _uniform(layer.weight, layer.in_features, generator)
    _uniform(layer.bias, layer.in_features, generator)


class LstmLayer(nn.Module):
    """One LSTM layer with dropout on its *weights*, drawn once per sequence while training (Wan et al. 2013).

    Parameters
    ----------
    features : int
        Number of input features.
    hidden : int
        Number of hidden units.
    dropout : float
        Probability that a weight of ``w_ih`` or ``w_hh`` is zero during one training pass; the others are
        scaled by 1/(1 - dropout). No effect in evaluation mode.
    """

    def __init__(self, features: int, hidden: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.dropout = dropout
        self.w_ih = nn.Parameter(torch.empty(4 * hidden, features))
        self.w_hh = nn.Parameter(torch.empty(4 * hidden, hidden))
        self.b_ih = nn.Parameter(torch.empty(4 * hidden))
        self.b_hh = nn.Parameter(torch.empty(4 * hidden))

    @property
    def hidden(self) -> int:
        """Number of hidden units."""
        return self.w_hh.shape[1]

    def reset_parameters(self, generator: torch.Generator | None = None, forget_bias: float = 0.0) -> None:
        """Draw from U(-k, k), k = 1/sqrt(hidden); ``forget_bias`` is added to the forget gate's bias."""
        for parameter in (self.w_ih, self.w_hh, self.b_ih, self.b_hh):
            _uniform(parameter, self.hidden, generator)
        with torch.no_grad():
            self.b_ih[self.hidden : 2 * self.hidden] += forget_bias

    def initial_state(self, catchments: int) -> LstmState:
        """Return the state of a LSTM that has seen nothing: zeros, ``[catchment, hidden]``."""
        zeros = self.w_hh.new_zeros(catchments, self.hidden)
        return LstmState(zeros, zeros.clone())

    def weights(self) -> LstmWeights:
        """Return the weights of one pass: masked while training, as they are in evaluation mode."""
        return LstmWeights(
            functional.dropout(self.w_ih, self.dropout, self.training),
            functional.dropout(self.w_hh, self.dropout, self.training),
            self.b_ih,
            self.b_hh,
        )

    def forward(self, x: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
        """Run over ``x[time, catchment, feature]``: ``[time, catchment, hidden]`` and the last state."""
        h, c = self.initial_state(x.shape[1]) if state is None else state
        return lstm_sequence(x, *self.weights(), h, c)

    def step(self, x: Tensor, state: LstmState) -> LstmState:
        """Advance by one step of ``x[catchment, feature]``."""
        return lstm_cell(x, state, self.weights())


class LstmNetwork(nn.Module):
    """Linear - ReLU - LSTM - Linear: the parameter network of HBV 1.0 and 1.1p (Feng et al. 2022).

    The output is raw (before the sigmoid), channel ``parameter * components + component``, then the two
    routing parameters, as the physics expects it.

    Parameters
    ----------
    features : int
        Number of normalised inputs: forcings, then attributes repeated at each step.
    hidden : int
        Number of hidden units.
    outputs : int
        Number of output channels.
    dropout : float
        Weight dropout of the LSTM while training, see `LstmLayer`.
    generator : torch.Generator, optional
        Source of the initial weights; PyTorch's default generator if absent.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.linear_in = _linear(features, hidden)
        self.lstm = LstmLayer(hidden, hidden, dropout)
        self.linear_out = _linear(hidden, outputs)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None, forget_bias: float = 0.0) -> None:
        """Draw from U(-k, k), k = 1/sqrt(inputs of the layer), for the LSTM 1/sqrt(hidden)."""
        _initialise_linear(self.linear_in, generator)
        self.lstm.reset_parameters(generator, forget_bias)
        _initialise_linear(self.linear_out, generator)

    def initial_state(self, catchments: int) -> LstmState:
        """Return the state before any weather: zeros."""
        return self.lstm.initial_state(catchments)

    def forward(self, x: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
        """Run over a whole series.

        Parameters
        ----------
        x : Tensor
            Normalised features, ``[time, catchment, feature]``.
        state : LstmState, optional
            State before the first step; zeros if absent.

        Returns
        -------
        raw : Tensor
            ``[time, catchment, output]``.
        state : LstmState
            State after the last step.
        """
        hidden, state = self.lstm(torch.relu(self.linear_in(x)), state)
        return self.linear_out(hidden), state

    def step(self, features: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """Advance by one step of ``features[catchment, feature]``: ``raw[catchment, output]``, new state."""
        state = self.lstm.step(torch.relu(self.linear_in(features)), state)
        return self.linear_out(state.h), state


class Mlp(nn.Module):
    """A multilayer perceptron of equally wide ReLU layers with a sigmoid at the end: attributes to (0, 1).

    Layers are called ``i2h``, ``h2h1`` ... ``h2hN`` and ``h2o``, as in published δHBV 2.0 checkpoints.

    Parameters
    ----------
    features, hidden, outputs : int
        Widths.
    layers : int
        Number of hidden-to-hidden layers.
    dropout : float
        Dropout of activations while training.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        outputs: int,
        layers: int = 6,
        dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = layers
        self.i2h = _linear(features, hidden)
        for number in range(1, layers + 1):
            self.add_module(f"h2h{number}", _linear(hidden, hidden))
        self.h2o = _linear(hidden, outputs)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new initial weights: U(-k, k), k = 1/sqrt(inputs of the layer)."""
        for layer in self.children():
            assert isinstance(layer, nn.Linear)
            _initialise_linear(layer, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[catchment, output]`` in (0, 1) for ``x[catchment, feature]``."""
        *hidden_layers, last = self.children()
        for layer in hidden_layers:
            x = functional.dropout(torch.relu(layer(x)), self.dropout, self.training)
        return torch.sigmoid(last(x))


class LstmMlpNetwork(nn.Module):
    """LSTM for the dynamic and MLP for the static parameters: the network of HBV 2.0 (Song et al. 2025).

    Parameters
    ----------
    features : int
        Number of normalised inputs of the LSTM: forcings, then attributes repeated at each step.
    hidden : int
        Hidden units of the LSTM.
    dynamic_outputs : int
        Dynamic parameters x components.
    attributes : int
        Number of normalised attributes, the inputs of the MLP.
    mlp_hidden : int
        Width of the MLP.
    static_outputs : int
        Static parameters x components, plus two routing parameters.
    mlp_layers : int
        Hidden-to-hidden layers of the MLP.
    dropout, mlp_dropout : float
        Dropout while training, of the LSTM's weights and of the MLP's activations.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        dynamic_outputs: int,
        attributes: int,
        mlp_hidden: int,
        static_outputs: int,
        mlp_layers: int = 6,
        dropout: float = 0.5,
        mlp_dropout: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.lstminv = LstmNetwork(features, hidden, dynamic_outputs, dropout, generator)
        self.ann = Mlp(attributes, mlp_hidden, static_outputs, mlp_layers, mlp_dropout, generator)

    def reset_parameters(self, generator: torch.Generator | None = None, forget_bias: float = 0.0) -> None:
        """Draw new initial weights, see `LstmNetwork.reset_parameters` and `Mlp.reset_parameters`."""
        self.lstminv.reset_parameters(generator, forget_bias)
        self.ann.reset_parameters(generator)

    def initial_state(self, catchments: int) -> LstmState:
        """Return the state before any weather: zeros."""
        return self.lstminv.initial_state(catchments)

    def static(self, attributes: Tensor) -> Tensor:
        """Return the static parameters and routing, ``[catchment, static output]`` in (0, 1).

        ``attributes[catchment, attribute]`` are normalised. They do not change in time: compute them once.
        """
        result: Tensor = self.ann(attributes)
        return result

    def forward(
        self, x: Tensor, attributes: Tensor, state: LstmState | None = None
    ) -> tuple[Tensor, Tensor, LstmState]:
        """Run over a whole series.

        Parameters
        ----------
        x : Tensor
            Normalised features, ``[time, catchment, feature]``.
        attributes : Tensor
            Normalised attributes, ``[catchment, attribute]``.
        state : LstmState, optional
            State before the first step; zeros if absent.

        Returns
        -------
        dynamic : Tensor
            ``[time, catchment, dynamic output]`` in (0, 1).
        static : Tensor
            ``[catchment, static output]`` in (0, 1).
        state : LstmState
            State after the last step.
        """
        raw, state = self.lstminv(x, state)
        return torch.sigmoid(raw), self.static(attributes), state

    def step(self, features: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """Advance by one step of ``features[catchment, feature]``: ``dynamic[catchment, output]``, state."""
        raw, state = self.lstminv.step(features, state)
        return torch.sigmoid(raw), state


class TimescaleBranch(nn.Module):
    """Linear - LSTM - Linear - sigmoid for the dynamic and a MLP for the static parameters, at one time step.

    Parameters
    ----------
    features : int
        Number of normalised inputs of the LSTM: forcings, then attributes repeated at each step.
    hidden : int
        Hidden units of the LSTM.
    dynamic_outputs : int
        Dynamic parameters x components.
    attributes : int
        Number of normalised attributes, the inputs of the MLP.
    mlp_hidden : int
        Width of the MLP.
    static_outputs : int
        Static parameters x components.
    mlp_layers : int
        Hidden-to-hidden layers of the MLP.
    project : bool
        Whether a linear layer precedes the LSTM; the LSTM reads the features itself otherwise.
    dropout, mlp_dropout : float
        Dropout while training, of the LSTM's weights and of the MLP's activations.
    generator : torch.Generator, optional
        Source of the initial weights.
    """

    def __init__(
        self,
        features: int,
        hidden: int,
        dynamic_outputs: int,
        attributes: int,
        mlp_hidden: int,
        static_outputs: int,
        mlp_layers: int = 2,
        project: bool = True,
        dropout: float = 0.1,
        mlp_dropout: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.in_proj = _linear(features, hidden) if project else None
        self.lstm = LstmLayer(hidden if project else features, hidden, dropout)
        self.linear_out = _linear(hidden, dynamic_outputs)
        self.ann = Mlp(attributes, mlp_hidden, static_outputs, mlp_layers, mlp_dropout, generator)
        self._reset_recurrent(generator, 0.0)

    def _reset_recurrent(self, generator: torch.Generator | None, forget_bias: float) -> None:
        if self.in_proj is not None:
            _initialise_linear(self.in_proj, generator)
        self.lstm.reset_parameters(generator, forget_bias)
        _initialise_linear(self.linear_out, generator)

    def reset_parameters(self, generator: torch.Generator | None = None, forget_bias: float = 0.0) -> None:
        """Draw new initial weights, see `LstmNetwork.reset_parameters` and `Mlp.reset_parameters`."""
        self.ann.reset_parameters(generator)
        self._reset_recurrent(generator, forget_bias)

    def initial_state(self, catchments: int) -> LstmState:
        """Return the state before any weather: zeros."""
        return self.lstm.initial_state(catchments)

    def static(self, attributes: Tensor) -> Tensor:
        """Return the static parameters ``[catchment, static output]`` in (0, 1); compute them once."""
        result: Tensor = self.ann(attributes)
        return result

    def forward(self, x: Tensor, state: LstmState | None = None) -> tuple[Tensor, LstmState]:
        """Run over ``x[time, catchment, feature]``: ``dynamic[time, catchment, output]`` in (0, 1), state."""
        embedded = x if self.in_proj is None else self.in_proj(x)
        hidden, state = self.lstm(embedded, state)
        return torch.sigmoid(self.linear_out(hidden)), state

    def step(self, features: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """Advance by one step of ``features[catchment, feature]``: ``dynamic[catchment, output]``, state."""
        embedded = features if self.in_proj is None else self.in_proj(features)
        state = self.lstm.step(embedded, state)
        return torch.sigmoid(self.linear_out(state.h)), state


class MultiTimescaleParameters(NamedTuple):
    """What a `MultiTimescaleNetwork` gives, all in (0, 1).

    ``daily_dynamic[day, catchment, output]``, ``daily_static[catchment, output]``,
    ``hourly_dynamic[hour, catchment, output]``, ``hourly_static[catchment, output]``, ``routing[pair, 3]``;
    ``state`` is that of the hourly LSTM after the last hour.
    """

    daily_dynamic: Tensor
    daily_static: Tensor
    hourly_dynamic: Tensor
    hourly_static: Tensor
    routing: Tensor
    state: LstmState


class MultiTimescaleNetwork(nn.Module):
    """A daily branch that spins up and an hourly branch that takes over: the network of the multi-timescale HBV 2.

    The hourly LSTM starts from a linear map of the daily LSTM's last state. The maps start at zero, so that an
    untrained network starts each hourly window from an empty memory.

    Parameters
    ----------
    daily, hourly : TimescaleBranch
        The branches.
    routing : Mlp
        From the attributes of a (gauge, catchment) pair to its routing parameters a, b and tau.
    transfer : bool
        Whether the daily state is handed over; the hourly LSTM starts from zeros otherwise.
    """

    def __init__(
        self, daily: TimescaleBranch, hourly: TimescaleBranch, routing: Mlp, transfer: bool = True
    ) -> None:
        super().__init__()
        self.daily, self.hourly, self.routing = daily, hourly, routing
        self.h_transfer = _linear(daily.lstm.hidden, hourly.lstm.hidden) if transfer else None
        self.c_transfer = _linear(daily.lstm.hidden, hourly.lstm.hidden) if transfer else None
        self._zero_transfer()

    def _zero_transfer(self) -> None:
        for layer in (self.h_transfer, self.c_transfer):
            if layer is not None:
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def reset_parameters(self, generator: torch.Generator | None = None, forget_bias: float = 0.0) -> None:
        """Draw new initial weights; the maps between the LSTMs become zero."""
        self.daily.reset_parameters(generator, forget_bias)
        self.hourly.reset_parameters(generator, forget_bias)
        self.routing.reset_parameters(generator)
        self._zero_transfer()

    def initial_state(self, catchments: int) -> LstmState:
        """Return the state of the daily LSTM before any weather: zeros."""
        return self.daily.initial_state(catchments)

    def hand_over(self, daily_state: LstmState) -> LstmState:
        """Turn the daily LSTM's state into the one from which the hourly LSTM starts."""
        if self.h_transfer is None or self.c_transfer is None:
            return self.hourly.initial_state(daily_state.h.shape[0])
        return LstmState(self.h_transfer(daily_state.h), self.c_transfer(daily_state.c))

    def forward(
        self,
        daily: Tensor,
        daily_attributes: Tensor,
        hourly: Tensor,
        hourly_attributes: Tensor,
        pair_attributes: Tensor,
    ) -> MultiTimescaleParameters:
        """Spin up on days, then run over the hours that follow them.

        Parameters
        ----------
        daily, hourly : Tensor
            Normalised features, ``[day, catchment, feature]`` and ``[hour, catchment, feature]``.
        daily_attributes, hourly_attributes : Tensor
            Attributes normalised for each branch, ``[catchment, attribute]``.
        pair_attributes : Tensor
            Normalised attributes of (gauge, catchment) pairs, ``[pair, attribute]``.
        """
        daily_dynamic, daily_state = self.daily(daily)
        hourly_dynamic, state = self.hourly(hourly, self.hand_over(daily_state))
        return MultiTimescaleParameters(
            daily_dynamic,
            self.daily.static(daily_attributes),
            hourly_dynamic,
            self.hourly.static(hourly_attributes),
            self.routing(pair_attributes),
            state,
        )

    def step(self, features: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        """Advance the hourly branch by one hour of ``features[catchment, feature]``; see `TimescaleBranch`."""
        return self.hourly.step(features, state)
