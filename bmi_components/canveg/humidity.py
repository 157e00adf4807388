"""Where the hybrid conductance begins: its network as relative humidity, so that training departs from Ball-Berry."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bmi_components.ball_berry.network import Network

__all__ = ["as_relative_humidity"]

DRIEST = 12.0
"""Largest inverse of relative humidity that is fitted."""

UPDATES = 3_000


def as_relative_humidity(network: Network) -> Network:
    """Return the network trained such that its sigmoid is relative humidity, whatever the soil moisture.

    Parameters
    ----------
    network
        To start from; its inputs are soil moisture, standardised, and the inverse of relative humidity.
    """
    moisture, inverse = (
        x.ravel() for x in np.meshgrid(np.linspace(-2.0, 3.0, 6), np.geomspace(1.02, DRIEST, 60))
    )
    kind = jnp.zeros(0).dtype
    start = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), network)
    optimiser = optax.adam(optax.cosine_decay_schedule(0.02, UPDATES))

    def error(network: Network) -> jax.Array:
        found = jax.nn.sigmoid(network(jnp.asarray(moisture, kind), jnp.asarray(inverse, kind)))
        return jnp.mean((found - jnp.asarray(1.0 / inverse, kind)) ** 2)

    def update(carry: tuple[Network, optax.OptState], _: None) -> tuple[tuple[Network, optax.OptState], None]:
        network, state = carry
        change, state = optimiser.update(jax.grad(error)(network), state)
        return (optax.apply_updates(network, change), state), None

    @jax.jit
    def fit(network: Network) -> Network:
        (found, _), _ = jax.lax.scan(update, (network, optimiser.init(network)), length=UPDATES)
        return found

    found: Network = fit(start)
    return found
