"""Dense layers as plain tensors: what stands before and behind a recurrent layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ACTIVATIONS", "Layer", "Layers", "fold_linear"]


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"linear": _identity, "relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}
)
"""What a layer may do to its result."""


class Layer(NamedTuple):
    """One dense layer, ``activation(weights @ x + bias)``.

    ``weights[output, input]``, ``bias[output]``, ``activation`` a name of `ACTIVATIONS`.
    """

    weights: Tensor
    bias: Tensor
    activation: str = "linear"


class Layers(nn.Module):
    """Dense layers one after the other; none of them is the identity.

    Parameters
    ----------
    layers
        In the order of the computation.
    """

    def __init__(self, layers: Iterable[Layer] = ()) -> None:
        super().__init__()
        given = tuple(layers)
        self.weights = nn.ParameterList(nn.Parameter(layer.weights) for layer in given)
        self.biases = nn.ParameterList(nn.Parameter(layer.bias) for layer in given)
        self.activations = tuple(layer.activation for layer in given)

    def __iter__(self) -> Iterator[Layer]:
        return map(Layer, self.weights, self.biases, self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def forward(self, x: Tensor) -> Tensor:
        """Compute ``[..., output]`` of ``x[..., input]``."""
        for weights, bias, activation in self:
            x = ACTIVATIONS[activation](nn.functional.linear(x, weights, bias))
        return x


def fold_linear(layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """Merge each layer without activation into the one after it: the same function with fewer layers.

    The last layer stays as it is; give wide enough a type that the products keep their digits.
    """
    folded: list[Layer] = []
    for layer in layers:
        if folded and folded[-1].activation == "linear":
            before = folded.pop()
            layer = Layer(
                layer.weights @ before.weights, layer.weights @ before.bias + layer.bias, layer.activation
            )
        folded.append(layer)
    return tuple(folded)
