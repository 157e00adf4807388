"""Small multilayer perceptrons, the learned parts of the leaf and canopy models."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

__all__ = ["Network", "draw_network"]

Array = Any
"""A JAX array (or a tracer, or a NumPy array)."""


class Network(NamedTuple):
    """A multilayer perceptron with tanh between its layers.

    Attributes
    ----------
    weights
        Matrices ``[output, input]`` of each layer.
    biases
        Of each layer.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def __call__(self, *inputs: Array) -> Array:
        """Apply to inputs of any (common) shape; the one output, before its activation, has that shape."""
        values = list(jnp.broadcast_arrays(*inputs))
        last = len(self.weights) - 1
        # written out per unit: one fused loop over the leaves is several times faster than small matrix products
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            sums = [
                sum((weight[unit, k] * value for k, value in enumerate(values)), bias[unit])
                for unit in range(weight.shape[0])
            ]
            values = sums if index == last else [jnp.tanh(value) for value in sums]
        return values[0]

    def on_host(self, *inputs: Array) -> Array:
        """Apply to inputs ``[leaf]`` by NumPy: for few leaves faster than a call of a compiled program."""
        values = np.array(inputs)
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            sums = weight @ values + bias[:, None]
            values = sums if index == last else np.tanh(sums)
        return values[0]


def draw_network(seed: int, sizes: tuple[int, ...] = (2, 6, 6, 1)) -> Network:
    """Draw weights, uniform within one over the square root of a layer's number of inputs."""
    generator = np.random.default_rng(seed)
    limits = [1.0 / math.sqrt(inputs) for inputs in sizes[:-1]]
    return Network(
        tuple(
            generator.uniform(-limit, limit, (outputs, inputs))
            for limit, inputs, outputs in zip(limits, sizes, sizes[1:], strict=False)
        ),
        tuple(
            generator.uniform(-limit, limit, outputs)
            for limit, outputs in zip(limits, sizes[1:], strict=True)
        ),
    )
