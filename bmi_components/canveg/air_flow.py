"""Wind in the canopy, and the boundary layer of air on its leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.settled import settled
from bmi_components.canveg.weather import GRAVITY

__all__ = [
    "LeafResistances",
    "gas_expansion",
    "leaf_resistances",
    "leaf_resistances_published",
    "wind_profile",
]

Array = Any


class LeafResistances(NamedTuple):
    """Of a leaf's boundary layer, one side, s m-1."""

    heat: Array
    vapour: Array
    co2: Array


def wind_profile(
    wind_speed: Array, canopy_height: Array, measurement_height: Array, extinction: Array, layers: int
) -> Array:
    """Return wind at the top of each layer, m s-1, ``[..., layer]``: logarithmic above, exponential in the canopy.

    Parameters
    ----------
    wind_speed
        At the measurement height, m s-1.
    canopy_height, measurement_height
        m; displacement is 0.6 and roughness 0.1 of the canopy's height.
    extinction
        Of wind with depth.
    layers
        Of the canopy.
    """
    displacement, roughness = 0.6 * canopy_height, 0.1 * canopy_height
    share = jnp.log((canopy_height - displacement) / roughness) / jnp.log(
        (measurement_height - displacement) / roughness
    )
    height = np.arange(1, layers + 1) / layers
    return (wind_speed * share)[..., None] * jnp.exp(jnp.asarray(extinction)[..., None] * (height - 1.0))


def gas_expansion(pressure: Array, log_air_temperature: Array) -> Array:
    """Return how much faster gases diffuse than at 273.16 K and 101.3 kPa, of pressure (kPa) and ln(T / 273.15 K)."""
    return (101.3 / pressure) * jnp.exp(1.81 * (log_air_temperature - np.log(273.16 / 273.15)))


def leaf_resistances_published(
    wind: Array, leaf_temperature: Array, air_temperature: Array, expansion: Array, parameters: Parameters
) -> LeafResistances:
    """Return the resistances of forced or free convection, whichever holds (Schuepp 1993), as published.

    Parameters
    ----------
    wind
        m s-1.
    leaf_temperature, air_temperature
        K.
    expansion
        See `gas_expansion`.
    parameters
        Leaf length, enhancement, viscosity, diffusivities; leaves broadcast against the other arguments.
    """
    length = parameters.leaf_length
    viscosity = parameters.kinematic_viscosity * 1e-6
    reynolds = length * wind / (viscosity * expansion)
    grashof = jnp.maximum(
        GRAVITY * length**3 / viscosity**2 * (leaf_temperature - air_temperature) / air_temperature, 0.0
    )
    forced = settled(
        parameters.boundary_layer_enhancement
        * _above(reynolds, 14000.0, 0.66 * jnp.sqrt(reynolds), lambda x: 0.036 * x**0.8)
    )
    free = grashof > reynolds * reynolds
    buoyant = jnp.where(free, grashof, 1.0)
    convection = _above(buoyant, 1e5, 0.5 * jnp.sqrt(jnp.sqrt(buoyant)), lambda x: 0.13 * x**0.33)
    coefficient = jnp.where(free, convection, forced) * expansion * 1e-6 / length

    return _resistances(coefficient, parameters)


def leaf_resistances(
    wind: Array, leaf_temperature: Array, air_temperature: Array, expansion: Array, parameters: Parameters
) -> LeafResistances:
    """Return the resistances of forced and free convection together: the fourth powers of their transfer add.

    Parameters are those of `leaf_resistances_published`. Warm leaves and cold ones make the air move alike; turbulence
    takes over where it transfers more, without the published jumps.
    """
    length = parameters.leaf_length
    viscosity = parameters.kinematic_viscosity * 1e-6
    reynolds = length * wind / (viscosity * expansion)
    difference = leaf_temperature - air_temperature
    grashof = GRAVITY * length**3 / viscosity**2 * jnp.sqrt(difference * difference + 1e-4) / air_temperature
    laminar = 0.66 * 0.66 * reynolds
    # turbulent transfer equals the laminar at a Reynolds number of 14,000
    forced = settled(
        parameters.boundary_layer_enhancement**2
        * _above(reynolds, 14000.0, laminar, lambda x: 0.66 * 0.66 * x * (x / 14000.0) ** 0.6)
    )
    coefficient = jnp.sqrt(jnp.sqrt(forced * forced + 0.0625 * grashof)) * expansion * 1e-6 / length
    return _resistances(coefficient, parameters)


def _above(x: Array, limit: float, low: Array, high: Callable[[Array], Array]) -> Array:
    """Return ``low``, but ``high(x)`` where ``x`` is above a limit.

    Powers are slow and few leaves ask for them: they are computed only if any leaf does.
    """
    beyond = x > limit

    def mixed(x: Array) -> Array:
        return jnp.where(beyond, high(jnp.where(beyond, x, limit)), low)

    taken: Array = jax.lax.cond(jnp.max(x) > limit, mixed, lambda _: jnp.broadcast_to(low, x.shape), x)
    return taken


def _resistances(coefficient: Array, parameters: Parameters) -> LeafResistances:
    """Return the resistances of a transfer coefficient, each gas with its diffusivity."""

    def resistance(diffusivity: Array) -> Array:
        schmidt = (parameters.kinematic_viscosity / diffusivity) ** 0.33
        return 1.0 / (diffusivity * schmidt * coefficient)

    p = parameters
    return LeafResistances(
        resistance(p.heat_diffusivity), resistance(p.vapour_diffusivity), resistance(p.co2_diffusivity)
    )
