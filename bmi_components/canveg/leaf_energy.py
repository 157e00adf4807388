"""The heat balance of leaves: what they absorb goes to evaporation, to the air and back to the sky."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from bmi_components.canveg.thermodynamics import saturation_slope
from bmi_components.canveg.weather import AIR_HEAT_CAPACITY, STEFAN_BOLTZMANN

__all__ = ["LeafAirState", "LeafEnergy", "LeafRates", "balance", "balance_published", "vapour_resistance"]

Array = Any


class LeafAirState(NamedTuple):
    """Air around leaves, ``[..., layer]`` or to be broadcast against it.

    Attributes
    ----------
    temperature
        K.
    vapour_pressure, saturation
        Pa; the latter at the air's temperature.
    latent_heat
        Of vaporisation at the air's temperature, J kg-1.
    density
        kg m-3.
    pressure
        kPa.
    """

    temperature: Array
    vapour_pressure: Array
    saturation: Array
    latent_heat: Array
    density: Array
    pressure: Array


class LeafEnergy(NamedTuple):
    """Per area of leaf, W m-2, and the leaf's temperature, K."""

    latent_heat: Array
    sensible_heat: Array
    net_radiation: Array
    temperature: Array


class LeafRates(NamedTuple):
    """How a leaf's fluxes change with its temperature, W m-2 K-1, and latent heat with vapour pressure, W m-2 Pa-1.

    Attributes
    ----------
    radiated, sensible, latent
        More of each per K of the leaf.
    moistening
        More latent heat per Pa between the leaf and the air.
    """

    radiated: Array
    sensible: Array
    latent: Array
    moistening: Array


def vapour_resistance(boundary: Array, conductance: Array, *, amphistomatous: bool) -> Array:
    """Return the resistance of a leaf to water vapour, s m-1, of its boundary layer's (s m-1) and stomata's (m s-1)."""
    if amphistomatous:
        return 0.5 * boundary + 1.0 / conductance
    return 1.0 / conductance + boundary


def balance_published(
    absorbed: Array,
    air: LeafAirState,
    heat_resistance: Array,
    resistance: Array,
    emissivity: Array,
    *,
    amphistomatous: bool,
) -> LeafEnergy:
    """Return the balance by the quadratics of Paw U (1987) as Jiang et al. (2025) write them, which do not quite close.

    Parameters
    ----------
    absorbed
        Radiation of all wavelengths, W m-2.
    air
        Around the leaf.
    heat_resistance, resistance
        To heat (one side) and to water vapour, s m-1.
    emissivity
        Of the leaf.
    amphistomatous
        Whether both sides have stomata.
    """
    kelvin, heat = air.temperature, air.latent_heat
    emitted = emissivity * STEFAN_BOLTZMANN
    deficit = jnp.clip(air.saturation - air.vapour_pressure, 0.0, 5000.0)
    water = heat * 18.0 / (8314.0 * kelvin * kelvin)
    slope = air.saturation * water
    curvature = slope * water - 2.0 * slope / kelvin
    le = air.density * 0.622 * heat / (resistance * air.pressure * 1000.0)
    hc = 2.0 * air.density * AIR_HEAT_CAPACITY / heat_resistance
    cube = emitted * kelvin**3
    repeat = hc + 8.0 * cube
    x = absorbed - 2.0 * cube * kelvin
    bend = le * curvature / ((2.0 if amphistomatous else 4.0) * repeat)
    if amphistomatous:
        linear = -repeat - le * slope - 2.0 * bend * x / repeat
        constant = le * repeat * deficit + le * slope * x + le * curvature / 2.0 * x * x / repeat
    else:
        linear = -repeat - le * slope - 2.0 * bend * x
        constant = bend * x * x + le * (deficit * repeat + slope * x)
    under = linear * linear - 4.0 * bend * constant
    latent = (-linear - jnp.where(under > 0.0, jnp.sqrt(jnp.where(under > 0.0, under, 1.0)), 0.0)) / (
        2.0 * bend
    )
    a = 12.0 * emitted * kelvin * kelvin + curvature * le / 2.0
    b = 8.0 * cube + hc + le * slope
    c = le * deficit - x
    under = b * b - 4.0 * a * c
    warming = jnp.where(under >= 0.0, (jnp.sqrt(jnp.where(under > 0.0, under, 1.0)) - b) / (2.0 * a), 0.0)
    temperature = kelvin + warming
    return LeafEnergy(latent, hc * warming, absorbed - 2.0 * emitted * temperature**4, temperature)


def balance(
    absorbed: Array,
    temperature: Array,
    saturation: Array,
    air: LeafAirState,
    heat_resistance: Array,
    resistance: Array,
    emission: Array,
    returned: Array,
) -> tuple[LeafEnergy, LeafRates]:
    """Take one step of Newton's method towards the temperature at which the leaf's balance closes.

    The fluxes returned belong to the new temperature by the same linearisation, so that they close at each step, and
    are exact where the temperature no longer changes.

    Parameters
    ----------
    absorbed
        Radiation of all wavelengths, W m-2.
    temperature, saturation
        Of the leaf before the step, K, and vapour pressure at it, Pa.
    air
        Around the leaf.
    heat_resistance, resistance
        To heat (one side) and to water vapour, s m-1.
    emission
        Emissivity, times the Stefan-Boltzmann constant, of both sides, W m-2 K-4.
    returned
        Share of what a leaf emits that other leaves send back when all warm alike: it makes the step longer.
    """
    le = air.density * 0.622 * air.latent_heat / (resistance * air.pressure * 1000.0)
    hc = 2.0 * air.density * AIR_HEAT_CAPACITY / heat_resistance
    cube = emission * temperature**3
    latent = le * (saturation - air.vapour_pressure)
    sensible = hc * (temperature - air.temperature)
    net = absorbed - cube * temperature
    latent_rate = le * saturation_slope(temperature, saturation)
    loss = 4.0 * (1.0 - returned) * cube
    step = (net - latent - sensible) / (loss + hc + latent_rate)
    energy = LeafEnergy(
        latent + latent_rate * step, sensible + hc * step, net - loss * step, temperature + step
    )
    return energy, LeafRates(loss, hc, latent_rate, le)
