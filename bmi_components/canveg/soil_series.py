"""The soil's temperatures over a series of steps, all steps solved together."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.soil import make_column
from bmi_components.canveg.surroundings import Surroundings

__all__ = ["SoilSeries"]

Array = Any

LONGEST_BLOCK = 48
"""Steps whose soil is solved as one system: its matrix grows with their square."""


class SoilSeries:
    """The soil over some steps: its temperatures after each are linear functions of the heat that went in.

    Heat conduction with a flux at the surface and a held bottom decays in modes (`soil.Column`), each at its own rate.
    A step lets amplitudes a, which are departures from the bottom, fade and adds to them what entered::

        a(t) = exp(-rate dt) (a(t - 1) - fall of the departures with a warmer bottom) + entry heat(t)

    The chain of steps is one triangular system of equations per block of them: a loop over steps, short as its body
    is, took about as long as all leaves.

    Attributes
    ----------
    fading
        What is left at each step of the amplitudes before the block, ``[block, site, step, mode]``.
    sinking
        What warmer bottoms have taken from them since then, ``[block, site, step, mode]``.
    given
        What a W m-2 of an earlier step has added to them at a later one, ``[block, site, later, earlier, mode]``.
    to_surface, to_deepest
        The same as temperatures of the surface and of the lowest node that is not held, K per W m-2,
        ``[block, site, later, earlier]``.
    resistance
        How much a step's own heat warms the surface, K per W m-2, ``[time, site]``.
    """

    def __init__(self, options: Options, site: Site, around: Surroundings) -> None:
        column = make_column(options.soil_layers)
        self.modes, self.amplitudes = column.free_modes, column.free_amplitudes
        heat, depth = around.soil, jnp.asarray(site.soil_depth)
        rates = (2.0 * heat.conductivity / (heat.capacity * depth * depth))[..., None] * column.free_rates
        ageing = rates * options.time_step
        fading = jnp.exp(-ageing)
        entry = self.amplitudes[:, 0] * 2.0 / column.capacity[0]
        entry = (1.0 - fading) / rates * entry / (heat.capacity * depth)[..., None]
        self.resistance = entry @ self.modes[0]
        bottom = around.weather.soil_temperature
        # amplitudes are departures from the bottom, which may change
        falls = jnp.concatenate([jnp.zeros_like(bottom[:1]), bottom[1:] - bottom[:-1]])
        self.steps = bottom.shape[0]
        self.block = -(-self.steps // -(-self.steps // LONGEST_BLOCK))
        self.first_bottom, self.bottom = bottom[0], self._blocked(bottom)
        if self.block == 1:  # a step alone
            self.fading = self._blocked(fading)
            kept = jnp.ones_like(self.fading)[..., None, :]
        else:
            age = jnp.cumsum(self._blocked(ageing), axis=2)
            self.fading = jnp.exp(-age)
            kept = jnp.exp(-jnp.maximum(age[..., :, None, :] - age[..., None, :, :], 0.0))
            kept = kept * np.tril(np.ones((self.block, self.block)))[..., None]
        lost = self._blocked(fading * falls[..., None]) * self.amplitudes.sum(axis=1)
        self.given = kept * self._blocked(entry)[..., None, :, :]
        self.sinking = jnp.einsum("bslem,bsem->bslm", kept, lost)
        ends = self.given @ self.modes[[0, -1]].T
        self.to_surface, self.to_deepest = ends[..., 0], ends[..., 1]

    def _blocked(self, values: Array) -> Array:
        """Return values ``[time, site, ...]`` as ``[block, site, step, ...]``, filled up with the last step's."""
        missing = -self.steps % self.block
        filled = jnp.concatenate([values, jnp.repeat(values[-1:], missing, axis=0)]) if missing else values
        return jnp.moveaxis(filled.reshape(-1, self.block, *values.shape[1:]), 1, 2)

    def _unblocked(self, values: Array) -> Array:
        """Undo `_blocked`."""
        values = jnp.moveaxis(values, 2, 1)
        return values.reshape(-1, *values.shape[2:])[: self.steps]

    def before_the_first(self, nodes: Array, started: Array) -> Array:
        """Return the modes' amplitudes at the start, of the nodes' temperatures (none before the first step)."""
        return started[..., None] * ((nodes - self.first_bottom[..., None]) @ self.amplitudes.T)

    def advance(
        self, first: Array, entering: Array, leaving: Array, surface: Array
    ) -> tuple[Array, Array, Array, Array]:
        """Solve the surface and the soil of all steps together.

        Parameters
        ----------
        first
            Amplitudes before the first step, ``[site, mode]``.
        entering, leaving
            Heat that enters at the surface temperature ``surface``, W m-2, and how much less per K, ``[time, site]``.
        surface
            The guess, K.

        Returns
        -------
        heat
            That enters the soil, W m-2, ``[time, site]``.
        temperature, deepest
            Of the surface and of the lowest node that is not held, K, ``[time, site]``.
        starts
            Amplitudes before each block, ``[block, site, mode]``.
        """
        balance = self._blocked(entering), self._blocked(leaving), self._blocked(surface) - self.bottom

        def solve(start: Array, rows: Any) -> tuple[Array, tuple[Array, Array]]:
            entering, leaving, surface, fading, sinking, to_surface, given = rows
            free = fading * start[..., None, :] - sinking
            wanted = entering + leaving * (surface - free @ self.modes[0])
            system = leaving[..., None] * to_surface + np.eye(self.block)
            if self.block == 1:
                heat = wanted / system[..., 0]
            else:
                solved = jax.lax.linalg.triangular_solve(
                    system, wanted[..., None], left_side=True, lower=True
                )
                heat = solved[..., 0]
            end = free[..., -1, :] + jnp.einsum("sem,se->sm", given[..., -1, :, :], heat)
            return end, (start, heat)

        rows = (*balance, self.fading, self.sinking, self.to_surface, self.given)
        if self.bottom.shape[0] == 1:
            _, alone = solve(first, jax.tree.map(lambda x: x[0], rows))
            starts, heat = jax.tree.map(lambda x: x[None], alone)
        else:
            starts, heat = jax.lax.scan(solve, first, rows)[1]
        free = self.fading * starts[..., None, :] - self.sinking

        def node(mode: Any, entered: Array) -> Array:
            return self._unblocked(self.bottom + free @ mode + jnp.einsum("bsle,bse->bsl", entered, heat))

        return (
            self._unblocked(heat),
            node(self.modes[0], self.to_surface),
            node(self.modes[-1], self.to_deepest),
            starts,
        )

    def nodes(self, starts: Array, heat: Array) -> Array:
        """Return the temperatures of all nodes after each step, K, ``[time, site, node]``, of `advance`'s results."""
        entered = jnp.einsum("bslem,bse->bslm", self.given, self._blocked(heat))
        amplitudes = self.fading * starts[..., None, :] - self.sinking + entered
        return self._unblocked(self.bottom[..., None] + amplitudes @ self.modes.T)
