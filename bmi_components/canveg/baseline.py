"""The network without physics of Jiang et al. (2025), which a canopy model has to measure itself against."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import NDArray

from bmi_components.canveg.fluxes import Fluxes, Profiles, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.tower import TowerFluxes, TowerForcing

__all__ = ["INPUTS", "PureNetwork", "train_pure_network"]

Array = Any
Mask = NDArray[np.bool_]

INPUTS = (
    "air_temperature",
    "shortwave",
    "vapour_pressure",
    "wind_speed",
    "co2",
    "pressure",
    "friction_velocity",
    "soil_moisture",
    "leaf_area_index",
)
OUTPUTS = ("latent_heat", "net_ecosystem_exchange")
_SIZES = (len(INPUTS), 6, 6, len(OUTPUTS))

Layers = list[tuple[Array, Array]]


class PureNetwork:
    """A multilayer perceptron 9-6-6-2 with tanh, from the forcing of a step to its latent heat and NEE.

    Parameters
    ----------
    layers
        Matrix ``[input, output]`` and biases of each layer.
    scaling
        Mean and standard deviation of inputs and of outputs, ``[2, input]`` and ``[2, output]``.
    """

    def __init__(self, layers: Layers, scaling: tuple[Array, Array]) -> None:
        self.layers, self.scaling = layers, scaling

    def simulate(
        self, forcing: Forcing, state: State | None = None, parameters: Any = None
    ) -> tuple[Fluxes, State]:
        """Return latent heat and NEE ``[time, site]``; NaN for all that it knows nothing of. It remembers nothing."""
        (mean, std), (low, width) = self.scaling
        inputs = np.stack([np.asarray(getattr(forcing, name)) for name in INPUTS], axis=-1)
        found = np.asarray(_apply(self.layers, (inputs - mean) / std)) * width + low
        nothing = np.full(found.shape[:-1], np.nan)
        fields: dict[str, Any] = dict.fromkeys(Fluxes._fields, nothing)
        fields |= {
            "profiles": Profiles(*[nothing] * len(Profiles._fields)),
            "converged": np.ones_like(nothing),
        }
        fields |= {name: found[..., index] for index, name in enumerate(OUTPUTS)}
        return Fluxes(**fields), State(np.zeros((found.shape[1], 0)), np.ones(found.shape[1]))


def train_pure_network(
    forcing: TowerForcing,
    fluxes: TowerFluxes,
    train: Mask,
    validation: Mask,
    *,
    seed: int = 0,
    epochs: int = 200,
    batch: int = 256,
    learning_rate: float = 0.01,
) -> PureNetwork:
    """Train the network on the steps at which both fluxes were observed.

    Parameters
    ----------
    forcing, fluxes
        Of the same steps.
    train, validation
        Steps, bool ``[time]``; the weights after the epoch that is best on the latter are returned.
    seed
        Of weights and order.
    epochs, batch, learning_rate
        Of Adam; the rate falls along half a cosine.
    """
    inputs = np.stack([getattr(forcing.forcing, name) for name in INPUTS], axis=-1)
    targets = np.stack([getattr(fluxes, name) for name in OUTPUTS], axis=-1)
    seen = np.isfinite(targets).all(axis=-1)

    def statistics(values: Array) -> Array:
        known = values[train & seen]
        std = known.std(axis=0)
        return np.stack([known.mean(axis=0), np.where(std > 0.0, std, 1.0)])

    scaling = (statistics(inputs), statistics(targets))
    scaled = [(x - mean) / std for x, (mean, std) in zip((inputs, targets), scaling, strict=True)]
    learnt, held = ([jnp.asarray(x[part & seen]) for x in scaled] for part in (train, validation))
    generator = np.random.default_rng(seed)
    layers: Layers = [
        (jnp.asarray(generator.normal(size=(a, b)) / np.sqrt(a)), jnp.zeros(b))
        for a, b in itertools.pairwise(_SIZES)
    ]
    count = len(learnt[0])
    batches = max(1, count // batch)
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, epochs * batches))

    def error(layers: Layers, x: Array, y: Array) -> Array:
        return jnp.mean((_apply(layers, x) - y) ** 2)

    @jax.jit
    def epoch(layers: Layers, state: Any, order: Array) -> tuple[Layers, Any, Array]:
        def update(carry: tuple[Layers, Any], chosen: Array) -> tuple[tuple[Layers, Any], None]:
            layers, state = carry
            gradient = jax.grad(error)(layers, learnt[0][chosen], learnt[1][chosen])
            change, state = optimiser.update(gradient, state)
            return (optax.apply_updates(layers, change), state), None

        (layers, state), _ = jax.lax.scan(update, (layers, state), order)
        return layers, state, error(layers, *held)

    state = optimiser.init(layers)
    best, least = layers, np.inf
    for _ in range(epochs):
        order = generator.permutation(count)[: batches * min(batch, count)].reshape(batches, -1)
        layers, state, score = epoch(layers, state, order)
        if float(score) < least:
            best, least = layers, float(score)
    return PureNetwork(best, scaling)


def _apply(layers: Layers, values: Array) -> Array:
    for index, (weight, bias) in enumerate(layers):
        values = values @ weight + bias
        if index < len(layers) - 1:
            values = jnp.tanh(values)
    return values
