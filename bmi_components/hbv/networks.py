"""The neural networks that turn weather and catchment attributes into HBV parameters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from bmi_components.lstm.cells import LstmState, LstmWeights, lstm_cell, lstm_sequence

__all__ = ["LstmLayer", "LstmMlpNetwork", "LstmNetwork", "Mlp"]


def _uniform(tensor: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Fill with U(-k, k), k = 1/sqrt(fan_in): what PyTorch and the published networks start from."""
    bound = 1.0 / math.sqrt(fan_in)
    with torch.no_grad():
        tensor.uniform_(-bound, bound, generator=generator)


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
        self.linear_in = nn.utils.skip_init(nn.Linear, features, hidden)
        self.lstm = LstmLayer(hidden, hidden, dropout)
        self.linear_out = nn.utils.skip_init(nn.Linear, hidden, outputs)
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
        self.i2h = nn.utils.skip_init(nn.Linear, features, hidden)
        for number in range(1, layers + 1):
            self.add_module(f"h2h{number}", nn.utils.skip_init(nn.Linear, hidden, hidden))
        self.h2o = nn.utils.skip_init(nn.Linear, hidden, outputs)
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
