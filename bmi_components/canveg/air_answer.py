"""How the air answers what leaves and soil give off: a step in the modes of the dispersion matrix.

Air and leaves answer each other strongly where wind is weak. The step therefore counts in how the leaves of an average
layer, the soil and the stability will answer it, and the soil, which links the steps of time, counts in how the air
over it will. What it leaves undone is left to the next iteration: none of it changes the solution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.canveg.mixing import Mixing
from bmi_components.canveg.pairs import Pairs
from bmi_components.canveg.settled import settled
from bmi_components.canveg.soil_series import SoilSeries

__all__ = [
    "AirState",
    "AirSteps",
    "Gains",
    "GroundResponse",
    "LayerResponse",
    "SoilBelow",
    "answer_sources",
]

Array = Any


class AirState(NamedTuple):
    """Temperature (K), vapour pressure (Pa) and CO2 (umol mol-1), ``[time, site, layer]``, less the weather's.

    Of sources: what becomes of them in the same units, before the dispersion matrix.
    """

    temperature: Array
    vapour: Array
    co2: Array


class Gains(NamedTuple):
    """What sources become in the air, before the dispersion matrix, ``[time, site]``.

    Attributes
    ----------
    heat, vapour, co2
        K and Pa of 1 W m-2 of sensible and latent heat; umol mol-1 of 1 umol m-2 s-1 of CO2.
    growth
        Their relative growth per unit of stability.
    """

    heat: Array
    vapour: Array
    co2: Array
    growth: Array


class LayerResponse(NamedTuple):
    """How fluxes of a mean layer's leaves answer the air around them, ``[time, site]``.

    Attributes
    ----------
    heat_by_air, latent_by_air
        Sensible and latent heat per K, W m-2 K-1.
    heat_by_vapour, latent_by_vapour
        The same per Pa, W m-2 Pa-1.
    uptake
        CO2 taken up per umol mol-1 in the air, umol m-2 s-1.
    """

    heat_by_air: Array
    heat_by_vapour: Array
    latent_by_air: Array
    latent_by_vapour: Array
    uptake: Array


class GroundResponse(NamedTuple):
    """How fluxes at the soil's surface answer it and the air over it, ``[time, site]``.

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


class SoilBelow(NamedTuple):
    """The soil under all steps, ``[time, site]``.

    Attributes
    ----------
    column
        Its layers, one step after the other.
    first
        Their amplitudes before the first step.
    entering
        Heat that enters at a guess of the surface's temperature, W m-2.
    guess, surface
        That guess, and the temperature that the soil comes to by itself, K.
    response
        Of the surface's fluxes.
    felt
        The layer whose air the surface feels.
    """

    column: SoilSeries
    first: Any
    entering: Array
    guess: Array
    surface: Array
    response: GroundResponse
    felt: int


class AirSteps(NamedTuple):
    """Steps of the air and of its stability, and the temperature of the soil's next surface, K, ``[time, site]``."""

    air: AirState
    stability: Array
    surface: Array


def answer_sources(
    mixing: Mixing,
    sources: AirState,
    air: AirState,
    stability: Array,
    sensible_heat: Array,
    gains: Gains,
    leaves: LayerResponse,
    soil: SoilBelow,
    stability_of: Callable[[Array], Array],
) -> AirSteps:
    """Return the steps of the air, and the soil's next surface.

    Parameters
    ----------
    mixing
        Of the air.
    sources
        By layer, as what they make of the air before the matrix.
    air, stability
        The guess: of the air, and of its stability.
    sensible_heat
        Of leaves and soil, W m-2, ``[time, site]``.
    gains
        Of sources.
    leaves
        Answers of a mean layer's leaves, which stay in balance.
    soil
        And its answers.
    stability_of
        Returns the stability of a sensible heat.
    """
    # of each mode: what is left, and what comes with a unit of stability
    given = jnp.stack(sources) @ mixing.to_modes
    left = given - jnp.stack(air) @ mixing.modes
    growth = jax.lax.stop_gradient(gains.growth[..., None] * given)
    heat, vapour, co2 = settled(tuple(jnp.stack(both) for both in zip(left, growth, strict=True)))

    # heat and vapour of each mode, which leaves answer
    answers = settled(
        Pairs(
            gains.heat * leaves.heat_by_air,
            gains.heat * leaves.heat_by_vapour,
            gains.vapour * leaves.latent_by_air,
            gains.vapour * leaves.latent_by_vapour,
        )
    )
    e, f, g, h = (answer[..., None] * mixing.strengths for answer in answers)
    balanced = settled(Pairs(1.0 - e, -f, -g, 1.0 - h).inverse())
    warmer, moister = balanced.of(heat, vapour)
    ground = soil.response
    over = _answer_to_soil(mixing, balanced, gains, soil)
    # over the soil, and in all layers together
    seen = jnp.stack([mixing.modes[soil.felt], jnp.sum(mixing.modes, axis=0)], axis=-1)
    warmer_seen, moister_seen = jnp.stack([warmer, moister]) @ seen
    warmth, moisture = over.held.of(warmer_seen[..., 0], moister_seen[..., 0])
    entering = ground.sensible * warmth + ground.per_pascal * moisture
    alone = entering / (over.leaving + 1.0 / soil.column.resistance)
    heat_given = ground.sensible * (alone - warmth - over.air * alone)

    richer = co2 / (1.0 + (gains.co2 * leaves.uptake)[..., None] * mixing.strengths)
    # stronger mixing brings air and leaves together, which changes the heat that drives the mixing
    answered = (
        leaves.heat_by_air * warmer_seen[..., 1] + leaves.heat_by_vapour * moister_seen[..., 1] + heat_given
    )
    then = sensible_heat + answered[0]
    stability_then, rate = jax.jvp(stability_of, (then,), (jnp.ones_like(then),))
    # only what damps: what reinforces itself would have the first steps go far too far
    feedback = jnp.minimum(jax.lax.stop_gradient(rate * answered[1]), 0.0)
    turn = (stability_then - stability) / (1.0 - feedback)

    def turned(steps: Array) -> Array:
        each = turn.reshape(*turn.shape, *(1,) * (steps.ndim - 1 - turn.ndim))
        return steps[0] + each * jax.lax.stop_gradient(steps[1])

    # each step's soil answers the air's steps and the soil before it
    changed = soil.surface - soil.guess
    warmth, moisture = turned(warmth), turned(moisture)
    entering = soil.entering + turned(entering) + (over.leaving - ground.leaving) * changed
    _, surface, _, _ = soil.column.advance(soil.first, entering, over.leaving, soil.guess)
    warming = surface - soil.surface
    returned = over.modes.of(
        (ground.sensible * (warming - warmth - over.air * warming))[..., None],
        (ground.latent * warming - ground.per_pascal * (moisture + over.moisture * warming))[..., None],
    )
    steps = turned(warmer) + returned[0], turned(moister) + returned[1], turned(richer)
    return AirSteps(AirState(*(jnp.stack(steps) @ mixing.modes.T)), turn, surface)


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


def _answer_to_soil(mixing: Mixing, balanced: Pairs, gains: Gains, soil: SoilBelow) -> _AnswerToSoil:
    """Return how the air, in balance with the leaves, answers the soil, which gives off in the lowest layer."""
    at = mixing.modes[0] * mixing.strengths
    heat, vapour = gains.heat[..., None] * at, gains.vapour[..., None] * at
    answers = Pairs(
        balanced.first_of_first * heat,
        balanced.first_of_second * vapour,
        balanced.second_of_first * heat,
        balanced.second_of_second * vapour,
    )
    p, q, r, t = over = Pairs(*(jnp.stack(answers) @ mixing.modes[soil.felt]))
    ground = soil.response
    sensible, latent, per_pascal = ground.sensible, ground.latent, ground.per_pascal
    held = Pairs(1.0 + p * sensible, q * per_pascal, r * sensible, 1.0 + t * per_pascal).inverse()
    air, moisture = held.of(*over.of(sensible, latent))
    # what the air gives back leaves less to be lost
    leaving = ground.leaving - sensible * air - per_pascal * moisture
    return _AnswerToSoil(answers, held, air, moisture, leaving)
