"""The heat balance of the soil's surface: radiation kept, and what evaporates and warms the air over it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.surroundings import Surroundings
from bmi_components.canveg.thermodynamics import saturation_vapour_pressure
from bmi_components.canveg.weather import AIR_HEAT_CAPACITY, GRAVITY, STEFAN_BOLTZMANN, VON_KARMAN

__all__ = ["AirOverSoil", "SurfaceHeat", "felt_layer", "surface_heat"]

Array = Any

ROUGHNESS = 0.02
"""Height over the soil at which wind is still, m."""


class SurfaceHeat(NamedTuple):
    """Net radiation, latent and sensible heat of the soil's surface, W m-2, latent heat per Pa; or changes per K."""

    net: Array
    latent: Array
    sensible: Array
    per_pascal: Array


class AirOverSoil(NamedTuple):
    """What lies over the soil, ``[...]``.

    Attributes
    ----------
    temperature, vapour_pressure
        Of the air in `felt_layer`, K and Pa.
    longwave
        That comes down, W m-2.
    latent_heat
        Of vaporisation, J kg-1.
    """

    temperature: Array
    vapour_pressure: Array
    longwave: Array
    latent_heat: Array


def felt_layer(options: Options) -> int:
    """Return the layer whose air the soil exchanges heat with: the second, if there is one."""
    return min(1, options.layers - 1)


def surface_heat(
    options: Options,
    site: Site,
    parameters: Parameters,
    around: Surroundings,
    over: AirOverSoil,
    surface: Array,
) -> SurfaceHeat:
    """Return the heat balance of the surface at a temperature (corrected mode: smooth in it).

    Parameters
    ----------
    options, site, parameters
        Of the model.
    around
        Of each step, ``[time, site]``: wind, what is absorbed, the soil's own resistance to vapour.
    over
        The air over the soil.
    surface
        Temperature, K, ``[time, site]``.
    """
    weather = around.weather
    height = site.canopy_height if options.layers == 1 else 2.0 * site.canopy_height / options.layers
    wind = around.wind[..., felt_layer(options)]
    neutral = jnp.log(height / ROUGHNESS) ** 2 / (VON_KARMAN * VON_KARMAN * wind)
    richardson = 5.0 * GRAVITY * height * (surface - over.temperature) / (over.temperature * wind * wind)
    resistance = 25.0 + 5.0 * jax.nn.softplus((neutral * _stability(richardson) - 25.0) / 5.0)
    to_vapour = (
        weather.density
        * 0.622
        * over.latent_heat
        / ((resistance + around.surface_resistance) * weather.pressure * 1000.0)
    )
    emitted = parameters.soil_emissivity * STEFAN_BOLTZMANN * surface**4
    return SurfaceHeat(
        net=around.soil_shortwave + parameters.soil_emissivity * over.longwave - emitted,
        latent=to_vapour * (saturation_vapour_pressure(surface) - over.vapour_pressure),
        sensible=AIR_HEAT_CAPACITY * weather.density / resistance * (surface - over.temperature),
        per_pascal=to_vapour,
    )


def _stability(richardson: Array) -> Array:
    """Return the factor of the soil's aerodynamic resistance: (1 + s)^-3/4 over warm soil, from 1 to 5 over cold soil.

    Over cold soil it starts as steeply as over warm soil and then follows the published (1 + s)^-2 up to its limit.
    """
    warm = jnp.maximum(richardson, 0.0)
    cold = jnp.maximum(-richardson, 0.0)
    climb = 0.75 * cold + 1.25 * cold * cold / (cold + 0.05)
    return (1.0 + warm) ** -0.75 - 4.0 * jnp.expm1(-climb / 4.0)
