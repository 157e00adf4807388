"""The coupled solution as Jiang et al. (2025) published it: a fixed number of relaxed iterations, quirks included."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.canveg.air import buoyancy_factor_published, profile, profiles, stability
from bmi_components.canveg.air_flow import gas_expansion, leaf_resistances_published
from bmi_components.canveg.fluxes import Fluxes, Profiles
from bmi_components.canveg.leaf_energy import LeafAirState, balance_published, vapour_resistance
from bmi_components.canveg.longwave import exchange
from bmi_components.canveg.mixing import Mixing
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.photosynthesis import LeafAir, assimilate_published, biochemistry
from bmi_components.canveg.rows import row_max
from bmi_components.canveg.settled import settled
from bmi_components.canveg.soil import make_column
from bmi_components.canveg.soil_respiration import (
    respiration_of_alfalfa,
    respiration_of_network,
    respiration_q10,
)
from bmi_components.canveg.stomata import conductance_slope, steepest_slope
from bmi_components.canveg.surroundings import Surroundings, leaf_totals, of_both_classes, of_leaves
from bmi_components.canveg.thermodynamics import (
    latent_heat_of_vaporisation,
    log_temperature,
    saturation_vapour_pressure,
)
from bmi_components.canveg.weather import (
    AIR_HEAT_CAPACITY,
    AIR_MOLAR_MASS,
    GRAVITY,
    STEFAN_BOLTZMANN,
    VON_KARMAN,
    Weather,
)

__all__ = ["solve_published"]

Array = Any

RELAXATION = 0.25
"""Share of the new air temperature and humidity in each iteration."""

SUBSTEP = 20.0
"""Of the soil, s; as many as make half an hour in each iteration, whatever the time step."""

SUBSTEPS = 90

IMPLICIT = 0.6
"""Weight of the later time in the soil's steps."""

CONVERGED = 1e-3
"""Largest change of a temperature in the last iteration of a solution that counts as one, K."""

ROUGHNESS = 0.02
"""Height over the soil at which wind is still, m."""


class _Found(NamedTuple):
    """Of one iteration: leaves ``[..., 2, layer]``, the soil, and radiation at the top of the canopy."""

    assimilation: Array
    conductance: Array
    latent: Array
    sensible: Array
    net: Array
    soil_latent: Array
    soil_sensible: Array
    soil_net: Array
    soil_heat: Array
    respiration: Array
    longwave_down: Array
    longwave_up: Array
    change: Array


class _Unknowns(NamedTuple):
    """What changes from one iteration to the next.

    Attributes
    ----------
    heat, vapour, co2
        What the leaves of each layer, and last the soil, give off, over friction velocity and per unit of the
        quantity in air; relaxed but for CO2. ``[..., layer + 1]``.
    leaf
        Temperature of sunlit and shaded leaves, K, ``[..., 2, layer]``.
    stability
        Measurement height over the Obukhov length.
    surface
        Temperature of the soil's surface, K.
    soil
        Temperatures at and below it after the last iteration's half hour, K, ``[..., node]``: its first node is the
        surface that the iteration began with.
    gross, dark
        Assimilation and dark respiration of all leaves, umol m-2 s-1.
    found
        What the iteration found, of which the last gives the fluxes.
    """

    heat: Array
    vapour: Array
    co2: Array
    leaf: Array
    stability: Array
    surface: Array
    soil: Array
    gross: Array
    dark: Array
    found: _Found


class _Soil(NamedTuple):
    """Of one iteration."""

    latent: Array
    sensible: Array
    net: Array
    heat: Array
    surface: Array
    nodes: Array


def solve_published(
    options: Options,
    site: Site,
    parameters: Parameters,
    mixing: Mixing,
    around: Surroundings,
    earlier: Array,
    started: Array,
) -> tuple[Fluxes, Array]:
    """Return the fluxes of all steps, which are solved side by side.

    Parameters
    ----------
    options, site, parameters
        Of the model.
    mixing
        Of the air.
    around
        Of each step, ``[time, site]``.
    earlier
        Surface temperatures of the iterations of the step before the first, K, ``[site, iteration]``.
    started
        Whether there was one, ``[site]``.

    Returns
    -------
    fluxes
        ``[time, site]``.
    surface_temperatures
        Of each step's iterations, ``[time, site, iteration]``.
    """
    weather = around.weather
    # the soil gives off in the lowest layer
    matrix = jnp.concatenate([mixing.departures, mixing.departures[:1]])
    start = _start(options, weather)
    soil_conductance = _SoilSteps(options, site, around)

    @jax.checkpoint
    def iterate(unknowns: _Unknowns, before: Array) -> tuple[_Unknowns, Array]:
        surface = unknowns.surface
        previous = jnp.concatenate([before[None], surface[:-1]])
        warming = surface - previous
        warming = warming.at[0].multiply(started)
        after = _iteration(options, site, parameters, matrix, around, unknowns, warming, soil_conductance)
        return after, surface

    unknowns, surfaces = jax.lax.scan(iterate, start, jnp.moveaxis(earlier, -1, 0))
    return _fluxes(options, matrix, around, unknowns), jnp.moveaxis(surfaces, 0, -1)


def _start(options: Options, weather: Weather) -> _Unknowns:
    """Return unknowns before the first iteration: everything as warm as the air, the soil as its bottom."""
    kelvin = weather.air_temperature
    still = jnp.zeros((*kelvin.shape, options.layers + 1), kelvin.dtype)
    leaf = jnp.zeros((*kelvin.shape, 2, options.layers), kelvin.dtype)
    return _Unknowns(
        still,
        still,
        still,
        jnp.broadcast_to(kelvin[..., None, None], (*kelvin.shape, 2, options.layers)),
        jnp.zeros_like(kelvin),
        kelvin,
        jnp.broadcast_to(weather.soil_temperature[..., None], (*kelvin.shape, options.soil_layers)),
        jnp.zeros_like(kelvin),
        jnp.zeros_like(kelvin),
        _Found(*[leaf] * 5, *[jnp.zeros_like(kelvin)] * 8),
    )


class _SoilSteps:
    """Half an hour of small implicit steps of the soil, as one linear map (its modes are the same at all times)."""

    def __init__(self, options: Options, site: Site, around: Surroundings) -> None:
        self.column = make_column(options.soil_layers)
        self.heat, self.depth = around.soil, jnp.asarray(site.soil_depth)
        ratio = around.soil.conductivity * 2.0 * SUBSTEP / (around.soil.capacity * self.depth * self.depth)
        rates = ratio[..., None] * self.column.held_rates
        step = (1.0 - (1.0 - IMPLICIT) * rates) / (1.0 + IMPLICIT * rates)
        self.fading = step**SUBSTEPS
        # the explicit part of the first small step still sees the old surface
        push = (1.0 - IMPLICIT) * ratio / (self.column.thickness[0] * self.column.capacity[1])
        self.push = (
            step ** (SUBSTEPS - 1)
            * self.column.held_amplitudes[:, 0]
            * push[..., None]
            / (1.0 + IMPLICIT * rates)
        )

    def __call__(self, nodes: Array, surface: Array, bottom: Array) -> Array:
        """Return the nodes after half an hour with the surface and the bottom held."""
        steady = surface[..., None] + (bottom - surface)[..., None] * self.column.depth[1:-1]
        amplitudes = (nodes[..., 1:] - steady) @ self.column.held_amplitudes.T
        amplitudes = self.fading * amplitudes + self.push * (nodes[..., 0] - surface)[..., None]
        below = steady + amplitudes @ self.column.held_modes.T
        return jnp.concatenate([surface[..., None], below], axis=-1)


def _surface(
    parameters: Parameters,
    site: Site,
    options: Options,
    around: Surroundings,
    unknowns: _Unknowns,
    air: tuple[Array, Array],
    longwave: Array,
    warming: Array,
    steps: _SoilSteps,
) -> _Soil:
    """Return the heat balance of the soil's surface after Paw U (1987), with three temperatures of the air."""
    weather, column, p = around.weather, steps.column, parameters
    temperature, vapour_pressure = air
    surface = unknowns.surface
    shortwave = around.soil_shortwave + p.soil_emissivity * longwave
    second = temperature[..., 1]
    wind = around.wind[..., min(1, options.layers - 1)]
    height = (
        2.0 * site.canopy_height / options.layers
        if options.layers > 1
        else site.canopy_height + (site.measurement_height - site.canopy_height) / options.atmosphere_layers
    )
    neutral = jnp.log(height / ROUGHNESS) ** 2 / (VON_KARMAN * VON_KARMAN * wind)
    richardson = jnp.maximum(5.0 * GRAVITY * height * (surface - second) / (second * wind * wind), -1e5)
    unstable = richardson > 0.0
    rise = jnp.where(unstable, 1.0 + richardson, 2.0)
    fold = jnp.where(unstable | (jnp.abs(1.0 + richardson) < 1e-3), 1.0, 1.0 + richardson)
    folded = jnp.where(jnp.abs(1.0 + richardson) < 1e-3, 1e6, 1.0 / (fold * fold))
    factor = jnp.clip(jnp.where(unstable, rise**-0.75, folded), 0.1, 5.0)
    resistance = jnp.clip(neutral * factor, 25.0, 1000.0)
    to_heat = AIR_HEAT_CAPACITY * weather.density / resistance
    to_vapour = 1.0 / (resistance + around.surface_resistance)
    nodes = steps(unknowns.soil, surface, weather.soil_temperature)
    upper = around.soil.conductivity / (column.thickness[0] * steps.depth)
    conducted = upper * (surface - nodes[..., 1])
    stored = around.soil.capacity * column.capacity[0] * steps.depth / (2.0 * SUBSTEP) * warming
    heat = conducted + stored

    kelvin = temperature[..., 0]
    saturation = saturation_vapour_pressure(kelvin)
    vaporise = latent_heat_of_vaporisation(kelvin, frozen_quirk=True)
    water = vaporise * 18.0 / (8314.0 * kelvin * kelvin)
    slope = saturation * water
    curvature = slope * water - 2.0 * slope / kelvin
    le = weather.density * 0.622 * vaporise * to_vapour / (weather.pressure * 1000.0)
    emitted = p.soil_emissivity * STEFAN_BOLTZMANN
    cube = emitted * kelvin**3
    repeat = to_heat + 4.0 * cube
    out = p.leaf_emissivity * STEFAN_BOLTZMANN * weather.air_temperature**4
    x = shortwave - out - heat
    deficit = saturation - vapour_pressure[..., 0]
    a = le * curvature / (2.0 * repeat)
    b = -repeat - le * slope - 2.0 * a * x
    c = repeat * le * deficit + le * slope * x + a * x * x
    latent = (-b - jnp.sqrt(jnp.maximum(b * b - 4.0 * a * c, 10.0))) / (2.0 * a)
    a = 6.0 * emitted * kelvin * kelvin + curvature * le / 2.0
    b = 4.0 * cube + to_heat + le * slope
    c = out - shortwave + conducted + le * deficit
    under = b * b - 4.0 * a * c
    positive = under > 0.0
    step = jnp.where(positive, (jnp.sqrt(jnp.where(positive, under, 1.0)) - b) / (2.0 * a), 0.0)
    new = second + step
    return _Soil(latent, step * to_heat, shortwave - emitted * new**4, heat, new, nodes)


def _iteration(
    options: Options,
    site: Site,
    parameters: Parameters,
    matrix: Array,
    around: Surroundings,
    unknowns: _Unknowns,
    warming: Array,
    steps: _SoilSteps,
) -> _Unknowns:
    """Make one iteration."""
    weather, layers = around.weather, options.layers
    p, each = parameters, of_leaves(parameters, 2)
    near = matrix[:, : layers + 1]
    sunlit = around.classes

    temperature, vapour_pressure, co2 = settled(
        profiles(weather, (unknowns.heat, unknowns.vapour, unknowns.co2), near)
    )

    # longwave
    leaf = unknowns.leaf
    emitted = each.leaf_emissivity * STEFAN_BOLTZMANN * leaf**4
    emission = of_both_classes(sunlit, emitted) * (1.0 - around.transmission)[..., None]
    longwave = exchange(around.longwave, emission, around.sky, p.soil_emissivity, unknowns.surface)
    seen = longwave.up[..., :-1] + longwave.down[..., :-1]
    absorbed = around.shortwave + (jnp.asarray(p.leaf_emissivity)[..., None] * seen)[..., None, :]

    # leaves
    in_canopy = temperature[..., :layers]
    log = settled(log_temperature(in_canopy))
    pressure = weather.pressure[..., None, None]
    absorbed, expansion = settled((absorbed, gas_expansion(weather.pressure[..., None], log)))
    resistances = settled(
        leaf_resistances_published(
            around.wind[..., None, :], leaf, in_canopy[..., None, :], expansion[..., None, :], each
        )
    )
    air = settled(
        LeafAirState(
            in_canopy[..., None, :],
            vapour_pressure[..., None, :layers],
            saturation_vapour_pressure(in_canopy, log)[..., None, :],
            latent_heat_of_vaporisation(in_canopy, frozen_quirk=True)[..., None, :],
            pressure * AIR_MOLAR_MASS / (8.314 * in_canopy[..., None, :]),
            pressure,
        )
    )
    molar = leaf * (101.3 * 0.022624 / 273.15) / pressure
    rates = settled(biochemistry(leaf, around.light, each, cold_oxygen=True, tied_dark=True))
    slope = settled(
        conductance_slope(
            options,
            each,
            air.vapour_pressure,
            saturation_vapour_pressure(leaf),
            weather.soil_moisture[..., None, None],
        )
    )
    amphistomatous = options.stomata == "amphistomatous"
    assimilated = settled(
        assimilate_published(
            rates,
            LeafAir(
                co2[..., None, :layers], 1.0 / (resistances.co2 * molar), slope, each.conductance_intercept
            ),
            steepest_slope(options, each),
            amphistomatous=amphistomatous,
            rounded=True,
            respire_twice=options.kept().double_dark_respiration,
        )
    )
    resistance = vapour_resistance(
        resistances.vapour, assimilated.conductance * molar, amphistomatous=amphistomatous
    )
    energy = settled(
        balance_published(
            absorbed, air, resistances.heat, resistance, each.leaf_emissivity, amphistomatous=amphistomatous
        )
    )

    soil = settled(
        _surface(
            p,
            site,
            options,
            around,
            unknowns,
            (temperature, vapour_pressure),
            longwave.down[..., 0],
            warming,
            steps,
        )
    )
    deepest = soil.nodes[..., -1]
    if options.soil_respiration == "alfalfa":
        respiration = respiration_of_alfalfa(
            unknowns.gross, unknowns.dark, deepest, weather.soil_moisture, weather.canopy_height
        )
    elif options.soil_respiration == "network":
        respiration = respiration_of_network(deepest, weather.soil_moisture, p)
    else:
        respiration = respiration_q10(deepest, weather.soil_moisture, p)

    # air
    factor = buoyancy_factor_published(unknowns.stability)

    def sources(leaves: Array, ground: Array, capacity: Array) -> Array:
        scale = 1.0 / (weather.friction_velocity * capacity)
        per_ground = of_both_classes(sunlit, leaves) * (around.leaf_area * factor * scale)[..., None]
        return jnp.concatenate([per_ground, (ground * scale)[..., None]], axis=-1)

    def relax(new: Array, old: Array) -> Array:
        return RELAXATION * new + (1.0 - RELAXATION) * old

    heat = relax(
        sources(energy.sensible_heat, soil.sensible, weather.density * AIR_HEAT_CAPACITY), unknowns.heat
    )
    above = profile(weather.air_temperature, heat, near[:, layers:])[..., 0]
    capacity = latent_heat_of_vaporisation(above, frozen_quirk=True) * 18.01 / (8314.0 * above)
    vapour = relax(sources(energy.latent_heat, soil.latent, capacity), unknowns.vapour)
    molar_density = weather.molar_density * (AIR_MOLAR_MASS / 44.0)
    carbon = sources(-assimilated.assimilation, respiration, molar_density)

    net_assimilation, dark, sensible = leaf_totals(
        around.areas, assimilated.assimilation, rates.dark_respiration, energy.sensible_heat
    )
    obukhov = stability(sensible, weather, site.measurement_height, clipped=True)
    change = jnp.maximum(
        jnp.max(row_max(jnp.abs(energy.temperature - leaf)), axis=-1),
        jnp.abs(soil.surface - unknowns.surface),
    )
    return _Unknowns(
        heat,
        vapour,
        carbon,
        energy.temperature,
        obukhov,
        soil.surface,
        soil.nodes,
        net_assimilation + dark,
        dark,
        _Found(
            assimilated.assimilation,
            assimilated.conductance,
            energy.latent_heat,
            energy.sensible_heat,
            energy.net_radiation,
            soil.latent,
            soil.sensible,
            soil.net,
            soil.heat,
            respiration,
            longwave.down[..., -1],
            longwave.up[..., -1],
            change,
        ),
    )


def _fluxes(options: Options, matrix: Array, around: Surroundings, last: _Unknowns) -> Fluxes:
    """Return what the last iteration means above the canopy."""
    weather, found = around.weather, last.found
    sunlit = around.classes

    def by_layer(values: Array) -> Array:
        return of_both_classes(sunlit, values)

    leaf_latent, leaf_sensible, leaf_net, conductance, warmth = leaf_totals(
        around.areas, found.latent, found.sensible, found.net, found.conductance, last.leaf
    )
    net = leaf_net + found.soil_net
    latent, sensible = leaf_latent + found.soil_latent, leaf_sensible + found.soil_sensible
    temperature, vapour_pressure, co2 = profiles(weather, (last.heat, last.vapour, last.co2), matrix)
    return Fluxes(
        latent_heat=latent,
        sensible_heat=sensible,
        net_radiation=net,
        soil_heat=found.soil_heat,
        net_ecosystem_exchange=found.respiration - last.gross,
        gross_primary_production=last.gross,
        soil_respiration=found.respiration,
        dark_respiration=last.dark,
        canopy_conductance=conductance,
        canopy_latent_heat=leaf_latent,
        canopy_sensible_heat=leaf_sensible,
        canopy_net_radiation=leaf_net,
        soil_latent_heat=found.soil_latent,
        soil_sensible_heat=found.soil_sensible,
        soil_net_radiation=found.soil_net,
        soil_surface_temperature=last.surface,
        canopy_temperature=warmth / (around.leaf_area * options.layers),
        absorbed_radiation=around.net_shortwave + found.longwave_down - found.longwave_up,
        reflected_shortwave=around.reflected_shortwave,
        outgoing_longwave=found.longwave_up,
        stability=last.stability,
        imbalance=net - latent - sensible - found.soil_heat,
        residual=found.change,
        converged=(found.change < CONVERGED).astype(net.dtype),
        profiles=Profiles(
            air_temperature=temperature,
            vapour_pressure=vapour_pressure,
            co2=co2,
            sunlit_fraction=around.sunlit,
            sunlit_temperature=last.leaf[..., 0, :],
            shaded_temperature=last.leaf[..., 1, :],
            assimilation=by_layer(found.assimilation),
            latent_heat=by_layer(found.latent),
            sensible_heat=by_layer(found.sensible),
        ),
    )
