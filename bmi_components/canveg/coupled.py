"""The coupled solution, converged: leaves, the air between them, radiation and the soil all in balance.

One map takes guesses of the unknowns to better ones: leaves and the soil's surface make a step of Newton's method
towards their own balances in the air as guessed; the air answers what they give off. Air and leaves answer each other
strongly where wind is weak, so the air's step counts in how the leaves of an average layer, the soil and the stability
will answer (a quasi-Newton step in the dispersion matrix's own modes), the soil, which links the steps of time, counts
in how the air over it will answer, and leaves what their like will radiate back. What is left is mixed after Anderson.
At the fixed point every balance closes.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.canveg.air import buoyancy_factor, stability
from bmi_components.canveg.fixed_point import fixed_point
from bmi_components.canveg.fluxes import Fluxes, Profiles
from bmi_components.canveg.leaves import LeafAnswer, LeafGuess, LeafResponse, LeafSetting, leaf_answer
from bmi_components.canveg.longwave import exchange
from bmi_components.canveg.mixing import Mixing
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.pairs import Pairs
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
from bmi_components.canveg.surroundings import Surroundings, of_both_classes, of_leaves
from bmi_components.canveg.thermodynamics import (
    latent_heat_of_vaporisation,
)
from bmi_components.canveg.weather import (
    AIR_HEAT_CAPACITY,
    STEFAN_BOLTZMANN,
)

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
    air, vapour, co2
        Of the air in each layer, ``[..., layer]``.
    leaf, inside
        Temperature of sunlit and shaded leaves, and CO2 inside them, ``[..., 2, layer]``.
    surface
        Temperature of the soil's surface.
    stability
        Measurement height over the Obukhov length.
    """

    air: Array
    vapour: Array
    co2: Array
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
    heat_source: Array
    vapour_source: Array
    co2_source: Array
    stability: Array


def _pack(u: _Unknowns) -> Array:
    """Join unknowns into one vector, scaled so that all count alike."""
    flat = (*u.leaf.shape[:-2], -1)
    return jnp.concatenate(
        [
            u.air,
            u.vapour / PASCAL,
            u.co2 / MICROMOLE,
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
        x[..., :n],
        x[..., n : 2 * n] * PASCAL,
        x[..., 2 * n : 3 * n] * MICROMOLE,
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
    matrix = mixing.matrix - mixing.matrix[-1]
    canopy = _Canopy(options, site, parameters, mixing, around, earlier, started)
    # where the step begins matters for the count of iterations only
    start = canopy.first_guess()
    residual, found = fixed_point(canopy.balances, start, TOLERANCE, MOST_ITERATIONS)
    nodes = canopy.column.nodes(found.soil_starts, found.soil_heat)
    return _fluxes(options, matrix, canopy, found, residual), nodes


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
        within = mixing.matrix[: options.layers] - mixing.matrix[-1]
        # how the solution is sought must not count in its derivatives
        self.modal, self.modes = jax.lax.stop_gradient((mixing.strengths, mixing.modes))
        self.to_modes = within.T @ self.modes
        self.felt = felt_layer(options)
        self.over = self.modes[self.felt]
        weather = around.weather
        self.column = SoilSeries(options, site, around)
        self.first = self.column.before_the_first(earlier, started)
        self.sunlit = jnp.stack([around.sunlit, 1.0 - around.sunlit], axis=-2)
        self.area = self.sunlit * around.leaf_area[..., None, None]
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
        return _pack(_Unknowns(none, none, none, leaf, inside, still, still))

    def balances(self, x: Array) -> tuple[Array, _Found]:
        """Return better unknowns than a guess, and what the balances are at the guess."""
        around, options, p = self.around, self.options, self.p
        weather, layers = around.weather, options.layers
        u = _unpack(x, layers)
        air_temperature = self.kelvin[..., None] + u.air
        # what is far from the solution must not leave what the functions hold for
        air_temperature = jnp.clip(air_temperature, 200.0, 350.0)
        vapour_pressure = jnp.maximum(
            weather.vapour_pressure[..., None] + u.vapour, 0.05 * weather.vapour_pressure[..., None]
        )
        co2 = jnp.maximum(weather.co2[..., None] + u.co2, 0.2 * weather.co2[..., None])
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
        net_assimilation = jnp.sum(of_both_classes(self.area, leaves.assimilation), axis=-1)
        dark = jnp.sum(of_both_classes(self.area, leaves.dark), axis=-1)
        respiration = self._respiration(deepest, net_assimilation + dark, dark)

        # air
        factor, factor_rate = settled(jax.jvp(buoyancy_factor, (u.stability,), (jnp.ones_like(u.stability),)))

        def sources(of_leaves: Array, soil: Array) -> Array:
            per_ground = of_both_classes(self.area, of_leaves)
            first = jnp.arange(layers) == 0
            return per_ground + soil[..., None] * first

        heat = jnp.sum(of_both_classes(self.area, leaves.sensible), axis=-1) + ground.sensible
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
            sources(leaves.sensible, ground.sensible) * (factor * self.to_heat)[..., None],
            sources(leaves.latent, ground.latent) * (factor * self.to_vapour)[..., None],
            sources(-leaves.assimilation, respiration) * (factor * self.to_co2)[..., None],
            self._stability(heat),
        )
        found, heat = settled((found, heat))
        # steps come from what is left, nothing at the solution: how large they are must not count in its derivatives
        response, soil_response, gains = jax.lax.stop_gradient(
            (
                response,
                _GroundResponse(rate.sensible, rate.latent, per_pascal, leaving),
                _Gains(
                    factor * self.to_heat, factor * self.to_vapour, factor * self.to_co2, factor_rate / factor
                ),
            )
        )
        step, answer, turn = settled(
            self._answer(
                found,
                u,
                heat,
                gains,
                settled(self._responses(response)),
                soil_response,
                _SoilGuess(entering, surface),
            )
        )
        improved = _Unknowns(
            u.air + step[0],
            u.vapour + step[1],
            u.co2 + step[2],
            leaves.temperature
            - self.kelvin[..., None, None]
            + response.by_air * step[0][..., None, :]
            + response.by_vapour * step[1][..., None, :],
            leaves.inside - weather.co2[..., None, None],
            answer - self.kelvin,
            u.stability + turn,
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

    def _responses(self, leaves: LeafResponse) -> _Responses:
        """Return how the fluxes of a mean layer's leaves, which stay in balance, answer the air around them."""

        def mean(values: Array) -> Array:
            return jnp.sum(of_both_classes(self.area, values), axis=-1) / self.options.layers

        return _Responses(
            mean(leaves.transfer * (leaves.by_air - 1.0)),
            mean(leaves.transfer * leaves.by_vapour),
            mean(leaves.evaporation * leaves.by_air),
            mean(leaves.evaporation * leaves.by_vapour - leaves.moistening),
            mean(leaves.sensitivity),
        )

    def _answer(
        self,
        found: _Found,
        u: _Unknowns,
        sensible_heat: Array,
        gains: _Gains,
        leaves: _Responses,
        ground: _GroundResponse,
        before: _SoilGuess,
    ) -> tuple[tuple[Array, Array, Array], Array, Array]:
        """Return the steps of the air's temperature, vapour and CO2, the soil's next surface, and the stability's step.

        Leaves (as those of a mean layer), the soil and the stability answer the steps as they are made.
        """

        def modal(source: Array, now: Array) -> Array:
            """What is left, and what comes with a unit of stability."""
            given = source @ self.to_modes
            return jnp.stack(
                [given - now @ self.modes, jax.lax.stop_gradient(gains.growth[..., None] * given)]
            )

        # heat and vapour of each mode, which leaves answer
        answers = settled(
            Pairs(
                gains.heat * leaves.heat_by_air,
                gains.heat * leaves.heat_by_vapour,
                gains.vapour * leaves.latent_by_air,
                gains.vapour * leaves.latent_by_vapour,
            )
        )
        e, f, g, h = (answer[..., None] * self.modal for answer in answers)
        balanced = settled(Pairs(1.0 - e, -f, -g, 1.0 - h).inverse())
        heat, vapour = settled((modal(found.heat_source, u.air), modal(found.vapour_source, u.vapour)))
        warmer, moister = balanced.of(heat, vapour)
        soil = self._answer_to_soil(balanced, gains, ground)
        air, moisture = soil.held.of(warmer @ self.over, moister @ self.over)
        entering = ground.sensible * air + ground.per_pascal * moisture
        alone = entering / (soil.leaving + 1.0 / self.column.resistance)
        heat_given = ground.sensible * (alone - air - soil.air * alone)

        richer = modal(found.co2_source, u.co2) / (1.0 + (gains.co2 * leaves.uptake)[..., None] * self.modal)
        # stronger mixing brings air and leaves together, which changes the heat that drives the mixing
        total = jnp.sum(self.modes, axis=0)
        answered = (
            leaves.heat_by_air * (warmer @ total) + leaves.heat_by_vapour * (moister @ total) + heat_given
        )
        then = sensible_heat + answered[0]
        stability_then, rate = jax.jvp(self._stability, (then,), (jnp.ones_like(then),))
        # only what damps: what reinforces itself would have the first steps go far too far
        feedback = jnp.minimum(jax.lax.stop_gradient(rate * answered[1]), 0.0)
        turn = (stability_then - u.stability) / (1.0 - feedback)

        def turned(steps: Array) -> Array:
            each = turn.reshape(*turn.shape, *(1,) * (steps.ndim - 1 - turn.ndim))
            return steps[0] + each * jax.lax.stop_gradient(steps[1])

        # each step's soil answers the air's steps and the soil before it
        changed = found.surface - before.surface
        air, moisture = turned(air), turned(moisture)
        entering = before.entering + turned(entering) + (soil.leaving - ground.leaving) * changed
        _, surface, _, _ = self.column.advance(self.first, entering, soil.leaving, before.surface)
        warming = surface - found.surface
        given = soil.modes.of(
            (ground.sensible * (warming - air - soil.air * warming))[..., None],
            (ground.latent * warming - ground.per_pascal * (moisture + soil.moisture * warming))[..., None],
        )
        back = self.modes.T
        steps = (
            (turned(warmer) + given[0]) @ back,
            (turned(moister) + given[1]) @ back,
            turned(richer) @ back,
        )
        return steps, surface, turn

    def _answer_to_soil(self, balanced: Pairs, gains: _Gains, ground: _GroundResponse) -> _AnswerToSoil:
        """Return how the air, in balance with the leaves, answers the soil, which gives off in the lowest layer."""
        at = self.modes[0] * self.modal
        heat, vapour = gains.heat[..., None] * at, gains.vapour[..., None] * at
        modes = Pairs(
            balanced.first_of_first * heat,
            balanced.first_of_second * vapour,
            balanced.second_of_first * heat,
            balanced.second_of_second * vapour,
        )
        p, q, r, t = over = Pairs(*(part @ self.over for part in modes))
        sensible, latent, per_pascal = ground.sensible, ground.latent, ground.per_pascal
        held = Pairs(1.0 + p * sensible, q * per_pascal, r * sensible, 1.0 + t * per_pascal).inverse()
        air, moisture = held.of(*over.of(sensible, latent))
        # what the air gives back leaves less to be lost
        leaving = ground.leaving - sensible * air - per_pascal * moisture
        return _AnswerToSoil(modes, held, air, moisture, leaving)


class _AnswerToSoil(NamedTuple):
    """How the air answers the soil: first temperature, then vapour pressure.

    Attributes
    ----------
    modes
        Of heat and of latent heat that the soil gives off, the air's modes, ``[..., mode]``.
    held
        What becomes of a change of the air over the soil, whose fluxes answer it.
    air, moisture
        Change of the air over the soil per K of the soil's surface: K and Pa.
    leaving
        Less heat that enters the soil per K of its surface, the air answering, W m-2 K-1.
    """

    modes: Pairs
    held: Pairs
    air: Array
    moisture: Array
    leaving: Array


class _SoilGuess(NamedTuple):
    """Heat that enters the soil at a guess of its surface's temperature, W m-2, and that guess, K."""

    entering: Array
    surface: Array


class _Gains(NamedTuple):
    """What a source of heat, vapour or CO2 becomes in the air, before the matrix; its relative growth per stability."""

    heat: Array
    vapour: Array
    co2: Array
    growth: Array


class _Responses(NamedTuple):
    """Answers of a mean layer's leaves to the air: of their fluxes of heat, vapour and CO2 (per umol mol-1)."""

    heat_by_air: Array
    heat_by_vapour: Array
    latent_by_air: Array
    latent_by_vapour: Array
    uptake: Array


class _GroundResponse(NamedTuple):
    """How fluxes at the soil's surface answer it and the air over it.

    Attributes
    ----------
    sensible, latent
        Heat given off per K of the surface, W m-2 K-1; of sensible heat it is as much less per K of the air.
    per_pascal
        Less latent heat per Pa in the air, W m-2 Pa-1.
    leaving
        Less heat that enters the soil per K of its surface, W m-2 K-1.
    """

    sensible: Array
    latent: Array
    per_pascal: Array
    leaving: Array


def _fluxes(options: Options, matrix: Array, canopy: _Canopy, found: _Found, residual: Array) -> Fluxes:
    """Return what the balances mean above the canopy."""
    around, weather, leaves = canopy.around, canopy.around.weather, found.leaves

    def total(values: Array) -> Array:
        return jnp.sum(of_both_classes(canopy.area, values), axis=-1)

    def by_layer(values: Array) -> Array:
        return of_both_classes(canopy.sunlit, values)

    def profile(reference: Array, source: Array) -> Array:
        return reference[..., None] + source @ matrix.T

    assimilation, dark = total(leaves.assimilation), total(leaves.dark)
    quirks = options.kept()
    gross = assimilation + dark
    leaf_latent, leaf_sensible, leaf_net = total(leaves.latent), total(leaves.sensible), total(leaves.net)
    net = leaf_net + found.soil_net
    latent, sensible = leaf_latent + found.soil_latent, leaf_sensible + found.soil_sensible
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
        canopy_conductance=total(leaves.conductance),
        canopy_latent_heat=leaf_latent,
        canopy_sensible_heat=leaf_sensible,
        canopy_net_radiation=leaf_net,
        soil_latent_heat=found.soil_latent,
        soil_sensible_heat=found.soil_sensible,
        soil_net_radiation=found.soil_net,
        soil_surface_temperature=found.surface,
        canopy_temperature=total(leaves.temperature) / (around.leaf_area * options.layers),
        absorbed_radiation=around.net_shortwave + found.longwave_down - found.longwave_up,
        reflected_shortwave=around.reflected_shortwave,
        outgoing_longwave=found.longwave_up,
        stability=found.stability,
        imbalance=net - latent - sensible - found.soil_heat,
        residual=residual,
        converged=(residual <= (1000.0 if net.dtype == jnp.float32 else 10.0) * TOLERANCE).astype(net.dtype),
        profiles=Profiles(
            air_temperature=profile(weather.air_temperature, found.heat_source),
            vapour_pressure=profile(weather.vapour_pressure, found.vapour_source),
            co2=profile(weather.co2, found.co2_source),
            sunlit_fraction=around.sunlit,
            sunlit_temperature=leaves.temperature[..., 0, :],
            shaded_temperature=leaves.temperature[..., 1, :],
            assimilation=by_layer(leaves.assimilation),
            latent_heat=by_layer(leaves.latent),
            sensible_heat=by_layer(leaves.sensible),
        ),
    )
