"""Assimilation of leaves: Farquhar's biochemistry with stomata that follow it, by a cubic or by Newton's method."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bmi_components.ball_berry.conductance import VAPOUR_OVER_CO2
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.settled import inverse_root, settled

__all__ = [
    "Biochemistry",
    "Leaf",
    "LeafAir",
    "Stomata",
    "assimilate",
    "assimilate_published",
    "biochemistry",
    "dark_respiration_of",
]

Array = Any

GAS_CONSTANT = 8.314
"""J mol-1 K-1."""


class LeafAir(NamedTuple):
    """What a leaf's stomata see; all of one shape.

    Attributes
    ----------
    co2
        Of the air around the leaf, umol mol-1.
    boundary_conductance
        Of the leaf's boundary layer to CO2, one side, mol m-2 s-1.
    slope
        Conductance to water vapour per assimilation over CO2 at the leaf, beyond the intercept, 1.
    intercept
        Conductance to water vapour without assimilation, mol m-2 s-1.
    """

    co2: Array
    boundary_conductance: Array
    slope: Array
    intercept: Array


class Biochemistry(NamedTuple):
    """Rates at a leaf's temperature and light.

    Attributes
    ----------
    carboxylation, electron_transport, dark_respiration
        Capacity, rate, rate; umol m-2 s-1.
    michaelis
        Effective Michaelis constant of CO2, umol mol-1.
    compensation
        CO2 at which photorespiration balances assimilation, umol mol-1.
    """

    carboxylation: Array
    electron_transport: Array
    dark_respiration: Array
    michaelis: Array
    compensation: Array


class Leaf(NamedTuple):
    """Of a leaf, per its area.

    Attributes
    ----------
    assimilation
        Net, umol m-2 s-1.
    conductance
        Of stomata to water vapour, mol m-2 s-1.
    co2
        Inside the leaf, umol mol-1.
    """

    assimilation: Array
    conductance: Array
    co2: Array


def biochemistry(
    temperature: Array,
    light: Array,
    parameters: Parameters,
    *,
    cold_oxygen: bool = False,
    tied_dark: bool = False,
) -> Biochemistry:
    """Return the rates of Farquhar et al. (1980) with the temperature responses of CanVeg (Baldocchi 1994).

    Parameters
    ----------
    temperature
        Of the leaf, K.
    light
        Absorbed, umol m-2 s-1.
    parameters
        Leaves broadcast against the other arguments.
    cold_oxygen
        Whether the Michaelis constant of oxygen ignores temperature and light inhibits dark respiration with a jump, as
        published.
    tied_dark
        Whether dark respiration follows from the carboxylation capacity, as published.
    """
    p = parameters
    scale = (temperature - p.reference_temperature) / (p.reference_temperature * GAS_CONSTANT * temperature)
    celsius = temperature - 273.15
    solubility_co2 = 78.5e-3 + celsius * (-2.89e-3 + celsius * (54.7e-6 - 0.417e-6 * celsius))
    solubility_o2 = 2.1e-3 + celsius * (-57.1e-6 + celsius * (1.024e-6 - 7.503e-9 * celsius))
    compensation = 500.0 * p.oxygen * solubility_o2 / (102.0 * solubility_co2)
    michaelis_co2 = p.carboxylation_michaelis * jnp.exp(p.carboxylation_michaelis_activation * scale)
    michaelis_o2 = p.oxygenation_michaelis
    if not cold_oxygen:
        michaelis_o2 = michaelis_o2 * jnp.exp(p.oxygenation_michaelis_activation * scale)
    michaelis = michaelis_co2 * (1.0 + p.oxygen * 101.3 / (michaelis_o2 * 100.0))
    dark = dark_respiration_of(p.maximum_carboxylation) if tied_dark else p.dark_respiration_25
    dark = dark * jnp.exp(p.dark_respiration_activation * scale)
    if cold_oxygen:
        dark = dark * jnp.where(light > 10.0, 0.4, 1.0)
    else:  # light inhibits respiration, without a jump
        dark = dark * (1.0 - 0.6 * light * light / (light * light + 100.0))
    carboxylation = p.maximum_carboxylation * _optimum(
        temperature, p.carboxylation_activation, p.carboxylation_optimum, p.deactivation_enthalpy
    )
    maximum_transport = p.maximum_electron_transport * _optimum(
        temperature, p.electron_transport_activation, p.electron_transport_optimum, p.deactivation_enthalpy
    )
    absorbed = p.quantum_yield * light
    both = maximum_transport * maximum_transport + absorbed * absorbed
    transport = absorbed * maximum_transport * inverse_root(both)
    return Biochemistry(carboxylation, transport, dark, michaelis, compensation)


def dark_respiration_of(carboxylation: Array) -> Array:
    """Return CanVeg's dark respiration at 25 degC for a carboxylation capacity, both umol m-2 s-1."""
    return 0.004657 * carboxylation


def _optimum(temperature: Array, activation: Array, optimum: Array, deactivation: Array) -> Array:
    """Return the share of a rate at its optimum temperature (Boltzmann)."""
    distance = (temperature - optimum) / (GAS_CONSTANT * optimum * temperature)
    rise = jnp.exp(activation * distance)
    fall = jnp.exp(deactivation * distance)
    return deactivation * rise / (deactivation - activation * (1.0 - fall))


_THIRD = tuple(
    float(c)
    for c in np.polynomial.Chebyshev.interpolate(
        lambda t: np.cos(2.0 / 3.0 * np.arccos(np.clip(0.5 * (t + 1.0), -1.0, 1.0))), 12
    )
    .convert(kind=np.polynomial.Polynomial)
    .coef
)
"""Of cos(2/3 arccos(s)) in powers of 2 s - 1, for s within 0 and 1."""


def _cosine_of_third(x: Array) -> Array:
    """Return cos(arccos(x) / 3): the largest root of 4 y^3 - 3 y = x, for x within -0.99 and 0.99.

    A polynomial of the half angle's cosine, then a step of Newton's method: several times faster than the functions
    themselves, and exact to rounding.
    """
    half = 2.0 * jnp.sqrt(0.5 * (1.0 + x)) - 1.0
    y = jnp.full_like(half, _THIRD[-1])
    for coefficient in _THIRD[-2::-1]:
        y = coefficient + half * y
    return y - ((4.0 * y * y - 3.0) * y - x) / (12.0 * y * y - 3.0)


def _smaller_root(curvature: float, first: Array, second: Array) -> tuple[Array, Array]:
    """Return a smooth minimum of two rates, and whether it is real."""
    total, product = first + second, first * second
    inside = total * total - 4.0 * curvature * product
    real = inside >= 0.0
    root = jnp.sqrt(jnp.where(inside > 0.0, inside, 1e-30))
    return (total - root) / (2.0 * curvature), real


def assimilate_published(
    rates: Biochemistry,
    air: LeafAir,
    steepest: Array,
    *,
    amphistomatous: bool,
    rounded: bool,
    respire_twice: bool,
) -> Leaf:
    """Return assimilation by the cubic of Baldocchi (1994) as Jiang et al. (2025) solve it.

    Parameters
    ----------
    rates
        At the leaf's temperature and light.
    air
        At the leaf; `LeafAir.slope` may count humidity above saturation.
    steepest
        Slope at saturation, which conductance keeps to (the cubic does not).
    amphistomatous
        Whether both sides have stomata.
    rounded
        Whether pi has seven digits in the cubic's roots.
    respire_twice
        Whether dark respiration is taken from assimilation that is net of it already.
    """
    carboxylation, transport, dark, michaelis, compensation = rates
    ca, gb = air.co2, air.boundary_conductance
    k, b = air.slope / VAPOUR_OVER_CO2, air.intercept / VAPOUR_OVER_CO2
    sides = 2.0 if amphistomatous else 1.0
    alpha = 1.0 + b / gb - k
    beta = ca * (sides * gb * k - (3.0 if amphistomatous else 2.0) * b - sides * gb)
    gamma = sides * sides * ca * ca * gb * b
    theta = sides * gb * k - sides * b

    trial = 0.7 * ca
    by_light = transport * (trial - compensation) / (4.0 * trial + 8.0 * compensation)
    by_rubisco = carboxylation * (trial - compensation) / (trial + michaelis)
    light_limits = by_light < by_rubisco
    rate = jnp.where(light_limits, transport, carboxylation)
    constant = jnp.where(light_limits, 8.0 * compensation, michaelis)
    factor = jnp.where(light_limits, 4.0, 1.0)

    scale = 1.0 / (factor * alpha)
    p = (factor * beta + constant * theta - rate * alpha + factor * dark * alpha) * scale
    q = (
        factor * gamma
        + constant * gamma / ca
        - rate * beta
        + rate * compensation * theta
        + factor * dark * beta
        + dark * constant * theta
    ) * scale
    r = (
        -rate * gamma
        + rate * compensation * gamma / ca
        + factor * dark * gamma
        + dark * constant * gamma / ca
    ) * scale
    p, q, r = settled((p, q, r))
    big_q = (p * p - 3.0 * q) / 9.0
    big_r = (p * (2.0 * p * p - 9.0 * q) + 27.0 * r) / 54.0
    cube = big_q * big_q * big_q
    three = cube - big_r * big_r > 0.0
    cosine = _cosine_of_third(jnp.clip(big_r * inverse_root(jnp.maximum(cube, 0.01)), -0.99, 0.99))
    sine = jnp.sqrt(1.0 - cosine * cosine)
    third = (6.2831852 if rounded else 2.0 * math.pi) / 3.0
    turn_c, turn_s = math.cos(third), math.sin(third)
    amplitude = -2.0 * jnp.sqrt(jnp.maximum(big_q, 0.01))
    centre = p / 3.0
    low = jnp.where(three, amplitude * cosine - centre, 0.0)
    high = jnp.where(three, amplitude * (cosine * turn_c - sine * turn_s) - centre, 0.0)
    middle = jnp.where(three, amplitude * (cosine * turn_c + sine * turn_s) - centre, 0.0)
    root = jnp.where(
        (low < 0.0) & (high > 0.0) & (middle != 0.0),
        jnp.where(middle < 0.0, high, middle),
        jnp.where((low < 0.0) & (middle < 0.0) & (high < 0.0), high, low),
    )
    root = settled(root)
    again = dark if respire_twice else 0.0
    sucrose = carboxylation / 2.0 - dark
    assimilation = jnp.minimum(root - again, sucrose)
    surface = ca - assimilation / (sides * gb)
    slope = jnp.minimum(air.slope, steepest)
    conductance = slope * assimilation / surface + air.intercept
    inside = surface - assimilation * VAPOUR_OVER_CO2 / conductance
    by_light = transport * (inside - compensation) / (4.0 * inside + 8.0 * compensation)
    by_rubisco = carboxylation * (inside - compensation) / (inside + michaelis)
    product, real_product = _smaller_root(0.98, by_light, by_rubisco)
    smooth, real_smooth = _smaller_root(0.95, product, sucrose)
    take = (smooth > 0.0) & (smooth < assimilation) & real_product & real_smooth
    assimilation = jnp.where(take, smooth - again, assimilation)
    conductance = jnp.where(take, slope * assimilation / surface + air.intercept, conductance)

    dim = (by_light <= dark) | (by_rubisco <= dark)
    first = ca * gb * b
    sum_ = b + gb
    both = gb * b
    a2 = sum_ * factor
    b2 = -first * factor - rate * sum_ + factor * dark * sum_ - constant * both
    c2 = rate * first - rate * compensation * both - factor * dark * first - dark * constant * both
    under = b2 * b2 - 4.0 * a2 * c2
    assimilation_dim = (-b2 - jnp.where(under > 0.0, jnp.sqrt(jnp.where(under > 0.0, under, 1.0)), 0.0)) / (
        2.0 * a2
    )
    assimilation = jnp.where(dim, assimilation_dim, assimilation)
    conductance = jnp.where(dim, air.intercept, conductance)
    return Leaf(assimilation, conductance, inside)


class Stomata(NamedTuple):
    """Assimilation and conductance near a guess of CO2 inside leaves.

    Attributes
    ----------
    leaf
        At the next guess.
    sensitivity
        Of assimilation to the air's CO2, mol m-2 s-1, about.
    """

    leaf: Leaf
    sensitivity: Array


LIGHT_AND_RUBISCO, WITH_SUCROSE = 0.98, 0.95
"""Curvatures of the smooth minima of the limiting rates (Collatz et al. 1991)."""

BLUNT = 0.05
"""Assimilation below which stomata stop following it, umol m-2 s-1."""


def assimilate(rates: Biochemistry, air: LeafAir, guess: Array, *, amphistomatous: bool) -> Stomata:
    """Take a step of Newton's method towards the CO2 inside leaves at which supply meets demand.

    Rubisco, light and the export of sucrose limit demand together and smoothly; stomata follow assimilation where it is
    positive, and have their intercept where it is not. There are no branches, and where the guess no longer changes
    assimilation, conductance and CO2 belong together.

    Parameters
    ----------
    rates
        At the leaf's temperature and light.
    air
        At the leaf.
    guess
        CO2 inside the leaf, umol mol-1.
    amphistomatous
        Whether both sides have stomata.
    """
    sides = 2.0 if amphistomatous else 1.0
    to_surface = 1.0 / (sides * air.boundary_conductance)

    def at(inside: Array) -> tuple[Array, Array, Array, Array, Array]:
        demand, slope = _demand(rates, inside)
        surface = jnp.maximum(air.co2 - demand * to_surface, 0.1 * air.co2)
        square = demand * demand + BLUNT * BLUNT
        inverse = inverse_root(square)
        positive = 0.5 * (demand + square * inverse)
        following = air.slope * positive / surface
        return demand, slope, surface, following, positive * inverse

    demand, slope, surface, following, share = settled(at(guess))
    conductance = (air.intercept + following) / VAPOUR_OVER_CO2
    # d(conductance)/d(demand): `positive` grows by positive / root per unit of demand
    gain = (air.slope * share / surface + following * to_surface / surface) / VAPOUR_OVER_CO2
    excess = conductance * (surface - guess) - demand
    rate = slope * (gain * (surface - guess) - conductance * to_surface - 1.0) - conductance
    new = guess - excess / jnp.minimum(rate, -0.2 * conductance)
    new = jnp.clip(new, 0.3 * guess, 0.5 * guess + 1.0 * air.co2)
    new = settled(new)
    demand, slope, surface, following, _ = settled(at(new))
    total = air.intercept + following
    supply = 1.0 / (to_surface + VAPOUR_OVER_CO2 / total)
    return Stomata(Leaf(demand, total, new), slope * supply / (slope + supply))


def _demand(rates: Biochemistry, inside: Array) -> tuple[Array, Array]:
    """Return net assimilation at a CO2 inside leaves, umol m-2 s-1, and how it grows with it."""
    carboxylation, transport, dark, michaelis, compensation = rates
    above = inside - compensation
    per_rubisco = 1.0 / (inside + michaelis)
    by_rubisco = carboxylation * above * per_rubisco
    d_rubisco = carboxylation * (michaelis + compensation) * per_rubisco * per_rubisco
    per_light = 1.0 / (4.0 * inside + 8.0 * compensation)
    by_light = transport * above * per_light
    d_light = transport * 12.0 * compensation * per_light * per_light
    first, w_light, w_rubisco = _smooth_minimum(LIGHT_AND_RUBISCO, by_light, by_rubisco)
    sucrose = 0.5 * carboxylation
    gross, w_first, _ = _smooth_minimum(WITH_SUCROSE, first, sucrose)
    return gross - dark, w_first * (w_light * d_light + w_rubisco * d_rubisco)


def _smooth_minimum(curvature: float, first: Array, second: Array) -> tuple[Array, Array, Array]:
    """Return a smooth minimum of two rates, and its derivatives by each."""
    total = first + second
    inside = total * total - 4.0 * curvature * first * second
    square = jnp.maximum(inside, 0.0) + 1e-8
    inverse = inverse_root(square)
    scale = 1.0 / (2.0 * curvature)
    by_first = scale * (1.0 - (total - 2.0 * curvature * second) * inverse)
    by_second = scale * (1.0 - (total - 2.0 * curvature * first) * inverse)
    return scale * (total - square * inverse), by_first, by_second
