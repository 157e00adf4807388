"""The coupled solution, converged: leaves, the air between them, radiation and the soil all in balance.

One map takes guesses of the unknowns to better ones: leaves and the soil's surface make a step of Newton's method
towards their own balances in the air as guessed; the air answers what they give off, see `air_answer`. Leaves leave out
what their like will radiate back. What is left is mixed after Anderson. At the fixed point every balance closes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.canveg.air import buoyancy_factor, profiles, stability
from bmi_components.canveg.air_answer import (
    AirState,
    Gains,
    GroundResponse,
    LayerResponse,
    SoilBelow,
    answer_sources,
)
from bmi_components.canveg.fixed_point import fixed_point
from bmi_components.canveg.fluxes import Fluxes, Profiles
from bmi_components.canveg.leaves import LeafAnswer, LeafGuess, LeafResponse, LeafSetting, leaf_answer
from bmi_components.canveg.longwave import exchange
from bmi_components.canveg.mixing import Mixing
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.pointwise import pointwise
from bmi_components.canveg.settled import settled
from bmi_components.canveg.soil_respiration import (
    respiration_of_alfalfa,
    respiration_of_network,
    respiration_q10,
)
from bmi_components.canveg.soil_series import SoilSeries
from bmi_components.canveg.soil_surface import AirOverSoil, SurfaceHeat, felt_layer, surface_heat
from bmi_components.canveg.surroundings import Surroundings, leaf_totals, of_both_classes, of_leaves
from bmi_components.canveg.thermodynamics import latent_heat_of_vaporisation
from bmi_components.canveg.weather import AIR_HEAT_CAPACITY, STEFAN_BOLTZMANN

__all__ = ["MOST_ITERATIONS", "TOLERANCE", "solve_coupled"]

Array = Any

TOLERANCE = 3e-5
"""Largest change in an iteration of a solution that counts as converged: K, 100 Pa, 10 umol mol-1."""

MOST_ITERATIONS = 60

PASCAL, MICROMOLE, SLANT = 100.0, 10.0, 0.05
"""What counts as much as 1 K: of vapour pressure (Pa), of CO2 (umol mol-1) and of stability."""


class _Unknowns(NamedTuple):
    """What is solved for, as departures from the weather: K, Pa, umol mol-1.

    Attributes
    ----------
    air
        In each layer, ``[..., layer]``.
    leaf, inside
        Temperature of sunlit and shaded leaves, and CO2 inside them, ``[..., 2, layer]``.
    surface
        Temperature of the soil's surface.
    stability
        Measurement height over the Obukhov length.
    """

    air: AirState
    leaf: Array
    inside: Array
    surface: Array
    stability: Array


class _Found(NamedTuple):
    """What the balances are at a guess: sources ``[..., layer]``, the rest beside leaves ``[...]``.

    ``soil_starts`` belongs to `SoilSeries`.
    """

    leaves: LeafAnswer
    soil_latent: Array
    soil_sensible: Array
    soil_net: Array
    soil_heat: Array
    surface: Array
    soil_starts: Array
    respiration: Array
    longwave_down: Array
    longwave_up: Array
    sources: AirState
    stability: Array


def _pack(u: _Unknowns) -> Array:
    """Join unknowns into one vector, scaled so that all count alike."""
    flat = (*u.leaf.shape[:-2], -1)
    return jnp.concatenate(
        [
            u.air.temperature,
            u.air.vapour / PASCAL,
            u.air.co2 / MICROMOLE,
            u.leaf.reshape(flat),
            u.inside.reshape(flat) / MICROMOLE,
            u.surface[..., None],
            u.stability[..., None] / SLANT,
        ],
        axis=-1,
    )


def _unpack(x: Array, layers: int) -> _Unknowns:
    """Undo `_pack`."""
    classes = (*x.shape[:-1], 2, layers)
    n = layers
    return _Unknowns(
        AirState(x[..., :n], x[..., n : 2 * n] * PASCAL, x[..., 2 * n : 3 * n] * MICROMOLE),
        x[..., 3 * n : 5 * n].reshape(classes),
        x[..., 5 * n : 7 * n].reshape(classes) * MICROMOLE,
        x[..., 7 * n],
        x[..., 7 * n + 1] * SLANT,
    )


def solve_coupled(
    options: Options,
    site: Site,
    parameters: Parameters,
    mixing: Mixing,
    around: Surroundings,
    earlier: Array,
    started: Array,
) -> tuple[Fluxes, Array]:
    """Return the fluxes of all steps, solved side by side.

    Parameters
    ----------
    options, site, parameters
        Of the model.
    mixing
        Of the air.
    around
        Of each step, ``[time, site]``.
    earlier
        Temperatures of the soil's nodes before the first step, the surface first, K, ``[site, node]``.
    started
        Whether there was a step before, ``[site]``; without one the soil is as warm as its bottom.

    Returns
    -------
    fluxes
        ``[time, site]``.
    nodes
        Temperatures of the soil after each step, ``[time, site, node]``.
    """
    canopy = _Canopy(options, site, parameters, mixing, around, earlier, started)
    # where the step begins matters for the count of iterations only
    start = canopy.first_guess()
    residual, found = fixed_point(canopy.balances, start, TOLERANCE, MOST_ITERATIONS)
    nodes = canopy.column.nodes(found.soil_starts, found.soil_heat)
    return _fluxes(options, canopy, found, residual), nodes


class _Canopy:
    """The map whose fixed point is the solution, with all that does not change while it is sought."""

    def __init__(
        self,
        options: Options,
        site: Site,
        parameters: Parameters,
        mixing: Mixing,
        around: Surroundings,
        earlier: Array,
        started: Array,
    ) -> None:
        self.options, self.site, self.p, self.around = options, site, parameters, around
        self.mixing, self.felt = mixing, felt_layer(options)
        weather = around.weather
        self.column = SoilSeries(options, site, around)
        self.first = self.column.before_the_first(earlier, started)
        self.sunlit, self.area = around.classes, around.areas
        self.kelvin = weather.air_temperature
        self.vaporise = latent_heat_of_vaporisation(self.kelvin, frozen_quirk=False)
        # leaves of one layer see leaves like themselves: what they emit is not all lost
        per_layer = jnp.broadcast_to((1.0 - around.transmission)[..., None], around.wind.shape)
        none = jnp.zeros_like(self.kelvin)
        among = exchange(around.longwave, per_layer, none, parameters.soil_emissivity, none)
        returned = (
            0.5
            * jnp.asarray(parameters.leaf_emissivity)[..., None]
            * (among.up[..., :-1] + among.down[..., 1:])
        )
        self.setting = LeafSetting(
            of_leaves(parameters, 2),
            around.light,
            around.shortwave,
            around.wind[..., None, :],
            around.exposure[..., None, None],
            jax.lax.stop_gradient(returned)[..., None, :],
            *(
                values[..., None, None]
                for values in (
                    weather.pressure,
                    weather.density,
                    self.vaporise,
                    weather.soil_moisture,
                )
            ),
        )
        friction = weather.friction_velocity
        # a source over these is a departure in the air
        self.to_heat = 1.0 / (friction * weather.density * AIR_HEAT_CAPACITY)
        self.to_vapour = 8314.0 * self.kelvin / (18.01 * self.vaporise * friction)
        self.to_co2 = 1.0 / (friction * weather.molar_density)

    def first_guess(self) -> Array:
        """Return unknowns: everything as the weather, leaves' CO2 at 0.7 of the air's, the soil as it was."""
        weather, layers = self.around.weather, self.options.layers
        none = jnp.zeros((*self.kelvin.shape, layers), self.kelvin.dtype)
        leaf = jnp.zeros((*self.kelvin.shape, 2, layers), self.kelvin.dtype)
        inside = leaf - 0.3 * weather.co2[..., None, None]
        still = jnp.zeros_like(self.kelvin)
        return _pack(_Unknowns(AirState(none, none, none), leaf, inside, still, still))

    def balances(self, x: Array) -> tuple[Array, _Found]:
        """Return better unknowns than a guess, and what the balances are at the guess."""
        around, options, p = self.around, self.options, self.p
        weather, layers = around.weather, options.layers
        u = _unpack(x, layers)
        air_temperature = self.kelvin[..., None] + u.air.temperature
        # what is far from the solution must not leave what the functions hold for
        air_temperature = jnp.clip(air_temperature, 200.0, 350.0)
        vapour_pressure = jnp.maximum(
            weather.vapour_pressure[..., None] + u.air.vapour, 0.05 * weather.vapour_pressure[..., None]
        )
        co2 = jnp.maximum(weather.co2[..., None] + u.air.co2, 0.2 * weather.co2[..., None])
        leaf = jnp.clip(self.kelvin[..., None, None] + u.leaf, 200.0, 360.0)
        inside = jnp.maximum(weather.co2[..., None, None] + u.inside, 1.0)
        surface = jnp.clip(self.kelvin + u.surface, 180.0, 380.0)

        air_temperature, vapour_pressure, co2, leaf, inside, surface = settled(
            (air_temperature, vapour_pressure, co2, leaf, inside, surface)
        )

        # longwave
        emitted = self.setting.parameters.leaf_emissivity * STEFAN_BOLTZMANN * leaf**4
        emission = of_both_classes(self.sunlit, emitted) * (1.0 - around.transmission)[..., None]
        longwave = settled(exchange(around.longwave, emission, around.sky, p.soil_emissivity, surface))
        seen = (longwave.up[..., :-1] + longwave.down[..., 1:]) * around.exposure[..., None]

        guess = LeafGuess(
            air_temperature[..., None, :],
            vapour_pressure[..., None, :],
            co2[..., None, :],
            seen[..., None, :],
            leaf,
            inside,
        )
        leaves, response = settled(pointwise(partial(leaf_answer, options), guess, self.setting))

        # soil
        ground, rate = settled(self._ground(surface, air_temperature, vapour_pressure, longwave.down[..., 0]))
        entering = ground.net - ground.latent - ground.sensible
        leaving = rate.latent + rate.sensible - rate.net
        per_pascal = ground.per_pascal
        soil_heat, new_surface, deepest, soil_starts = settled(
            self.column.advance(self.first, entering, leaving, surface)
        )
        change = new_surface - surface
        ground = jax.tree.map(lambda value, slope: value + slope * change, ground, rate)
        net_assimilation, dark, sensible = leaf_totals(
            self.area, leaves.assimilation, leaves.dark, leaves.sensible
        )
        respiration = self._respiration(deepest, net_assimilation + dark, dark)

        # air
        factor, factor_rate = settled(jax.jvp(buoyancy_factor, (u.stability,), (jnp.ones_like(u.stability),)))

        def sources(of_leaves: Array, soil: Array) -> Array:
            per_ground = of_both_classes(self.area, of_leaves)
            first = jnp.arange(layers) == 0
            return per_ground + soil[..., None] * first

        heat = sensible + ground.sensible
        found = _Found(
            leaves,
            ground.latent,
            ground.sensible,
            ground.net,
            soil_heat,
            new_surface,
            soil_starts,
            respiration,
            longwave.down[..., -1],
            longwave.up[..., -1],
            AirState(
                sources(leaves.sensible, ground.sensible) * (factor * self.to_heat)[..., None],
                sources(leaves.latent, ground.latent) * (factor * self.to_vapour)[..., None],
                sources(-leaves.assimilation, respiration) * (factor * self.to_co2)[..., None],
            ),
            self._stability(heat),
        )
        found, heat = settled((found, heat))
        # steps come from what is left, nothing at the solution: how large they are must not count in its derivatives
        response, ground_response, gains = jax.lax.stop_gradient(
            (
                response,
                GroundResponse(rate.sensible, rate.latent, per_pascal, leaving),
                Gains(
                    factor * self.to_heat, factor * self.to_vapour, factor * self.to_co2, factor_rate / factor
                ),
            )
        )
        step = settled(
            answer_sources(
                self.mixing,
                found.sources,
                u.air,
                u.stability,
                heat,
                gains,
                settled(self._responses(response)),
                SoilBelow(
                    self.column, self.first, entering, surface, new_surface, ground_response, self.felt
                ),
                self._stability,
            )
        )
        improved = _Unknowns(
            AirState(*(now + change for now, change in zip(u.air, step.air, strict=True))),
            leaves.temperature
            - self.kelvin[..., None, None]
            + response.by_air * step.air.temperature[..., None, :]
            + response.by_vapour * step.air.vapour[..., None, :],
            leaves.inside - weather.co2[..., None, None],
            step.surface - self.kelvin,
            u.stability + step.stability,
        )
        return _pack(improved), found

    def _stability(self, sensible_heat: Array) -> Array:
        height = self.site.measurement_height
        return stability(sensible_heat, self.around.weather, height, clipped=False)

    def _respiration(self, deepest: Array, gross: Array, dark: Array) -> Array:
        weather = self.around.weather
        if self.options.soil_respiration == "alfalfa":
            return respiration_of_alfalfa(gross, dark, deepest, weather.soil_moisture, weather.canopy_height)
        if self.options.soil_respiration == "network":
            return respiration_of_network(deepest, weather.soil_moisture, self.p)
        return respiration_q10(deepest, weather.soil_moisture, self.p)

    def _ground(
        self, surface: Array, air: Array, vapour: Array, longwave: Array
    ) -> tuple[SurfaceHeat, SurfaceHeat]:
        """Return the heat balance of the soil's surface at a guess of its temperature, and its change per K."""

        def at(surface: Array) -> SurfaceHeat:
            overlying = AirOverSoil(air[..., self.felt], vapour[..., self.felt], longwave, self.vaporise)
            return surface_heat(self.options, self.site, self.p, self.around, overlying, surface)

        return jax.jvp(at, (surface,), (jnp.ones_like(surface),))

    def _responses(self, leaves: LeafResponse) -> LayerResponse:
        """Return how the fluxes of a mean layer's leaves, which stay in balance, answer the air around them."""
        totals = leaf_totals(
            self.area,
            leaves.transfer * (leaves.by_air - 1.0),
            leaves.transfer * leaves.by_vapour,
            leaves.evaporation * leaves.by_air,
            leaves.evaporation * leaves.by_vapour - leaves.moistening,
            leaves.sensitivity,
        )
        return LayerResponse(*(total / self.options.layers for total in totals))


def _fluxes(options: Options, canopy: _Canopy, found: _Found, residual: Array) -> Fluxes:
    """Return what the balances mean above the canopy."""
    around, weather, leaves = canopy.around, canopy.around.weather, found.leaves

    def by_layer(values: Array) -> Array:
        return of_both_classes(canopy.sunlit, values)

    assimilation, dark, leaf_latent, leaf_sensible, leaf_net, conductance, warmth = leaf_totals(
        canopy.area,
        leaves.assimilation,
        leaves.dark,
        leaves.latent,
        leaves.sensible,
        leaves.net,
        leaves.conductance,
        leaves.temperature,
    )
    quirks = options.kept()
    gross = assimilation + dark
    net = leaf_net + found.soil_net
    latent, sensible = leaf_latent + found.soil_latent, leaf_sensible + found.soil_sensible
    temperature, vapour_pressure, co2 = profiles(weather, found.sources, canopy.mixing.departures)
    return Fluxes(
        latent_heat=latent,
        sensible_heat=sensible,
        net_radiation=net,
        soil_heat=found.soil_heat,
        net_ecosystem_exchange=found.respiration
        - (gross if quirks.missing_dark_respiration else assimilation),
        gross_primary_production=gross,
        soil_respiration=found.respiration,
        dark_respiration=dark,
        canopy_conductance=conductance,
        canopy_latent_heat=leaf_latent,
        canopy_sensible_heat=leaf_sensible,
        canopy_net_radiation=leaf_net,
        soil_latent_heat=found.soil_latent,
        soil_sensible_heat=found.soil_sensible,
        soil_net_radiation=found.soil_net,
        soil_surface_temperature=found.surface,
        canopy_temperature=warmth / (around.leaf_area * options.layers),
        absorbed_radiation=around.net_shortwave + found.longwave_down - found.longwave_up,
        reflected_shortwave=around.reflected_shortwave,
        outgoing_longwave=found.longwave_up,
        stability=found.stability,
        imbalance=net - latent - sensible - found.soil_heat,
        residual=residual,
        converged=(residual <= (1000.0 if net.dtype == jnp.float32 else 10.0) * TOLERANCE).astype(net.dtype),
        profiles=Profiles(
            air_temperature=temperature,
            vapour_pressure=vapour_pressure,
            co2=co2,
            sunlit_fraction=around.sunlit,
            sunlit_temperature=leaves.temperature[..., 0, :],
            shaded_temperature=leaves.temperature[..., 1, :],
            assimilation=by_layer(leaves.assimilation),
            latent_heat=by_layer(leaves.latent),
            sensible_heat=by_layer(leaves.sensible),
        ),
    )
