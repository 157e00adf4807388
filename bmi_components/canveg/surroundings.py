"""What does not depend on the temperatures in the canopy: light, sky, wind, leaf area and the soil's properties."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from bmi_components.canveg.air_flow import wind_profile
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.layers import Stack, make_stack
from bmi_components.canveg.leaf_angles import diffuse_transmission, projection
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters
from bmi_components.canveg.rows import row_sums
from bmi_components.canveg.settled import settled
from bmi_components.canveg.shortwave import Band, Beam, make_beam, transfer
from bmi_components.canveg.sky import Sunlight, divide, sky_longwave
from bmi_components.canveg.soil import SoilHeat, soil_heat, surface_resistance
from bmi_components.canveg.sun import circle, sine_of_elevation
from bmi_components.canveg.weather import PHOTONS_PER_JOULE, Weather, prepare

__all__ = ["Surroundings", "leaf_totals", "of_both_classes", "of_leaves", "surroundings"]

Array = Any

LEAST_LEAF_AREA = 1e-3
"""A bare site has this much, m2 m-2, so that what is per leaf stays finite."""


class Surroundings(NamedTuple):
    """Of each step; ``[...]`` unless said otherwise.

    Attributes
    ----------
    weather
        At the measurement height.
    leaf_area
        Of each layer, m2 m-2.
    sunlit
        Fraction of each layer's leaves in the sun, ``[..., layer]``.
    light
        PAR that sunlit and shaded leaves absorb, umol m-2 s-1, ``[..., 2, layer]``.
    shortwave
        All shortwave that they absorb, W m-2, ``[..., 2, layer]``.
    soil_shortwave
        That the soil absorbs, W m-2.
    net_shortwave, reflected_shortwave
        At the top of the canopy, W m-2.
    sky
        Incoming longwave, W m-2.
    transmission
        Share of diffuse radiation that passes a layer.
    exposure
        Diffuse radiation that a leaf meets over that of its layer, 1.
    longwave
        Optical properties of the layers for longwave.
    wind
        m s-1, ``[..., layer]``.
    soil
        Thermal properties.
    surface_resistance
        Of the soil to water vapour, s m-1.
    """

    weather: Weather
    leaf_area: Array
    sunlit: Array
    light: Array
    shortwave: Array
    soil_shortwave: Array
    net_shortwave: Array
    reflected_shortwave: Array
    sky: Array
    transmission: Array
    exposure: Array
    longwave: Stack
    wind: Array
    soil: SoilHeat
    surface_resistance: Array

    @property
    def classes(self) -> Array:
        """Fractions of each layer's leaves in sun and shade, ``[..., 2, layer]``."""
        return jnp.stack([self.sunlit, 1.0 - self.sunlit], axis=-2)

    @property
    def areas(self) -> Array:
        """Leaf area of each layer in sun and shade, m2 m-2, ``[..., 2, layer]``."""
        return self.classes * self.leaf_area[..., None, None]


def of_leaves(parameters: Parameters, axes: int) -> Parameters:
    """Return parameters that broadcast against arrays with ``axes`` more axes than one value per site."""
    index = (..., *[None] * axes)
    spread: dict[str, Any] = {row.name: jnp.asarray(getattr(parameters, row.name))[index] for row in TABLE}
    return parameters._replace(**spread)


def of_both_classes(share: Array, values: Array) -> Array:
    """Return the sum over sunlit and shaded leaves of values times a share of each, ``[..., 2, layer]``."""
    # a sum over an axis would go to a library; this becomes part of the loops around it
    return share[..., 0, :] * values[..., 0, :] + share[..., 1, :] * values[..., 1, :]


def leaf_totals(areas: Array, *values: Array) -> tuple[Array, ...]:
    """Return what all leaves have together per area of ground, ``[...]``, of values per area of leaf.

    Parameters
    ----------
    areas
        `Surroundings.areas`.
    values
        ``[..., 2, layer]``.
    """
    return row_sums(*(of_both_classes(areas, of_leaf) for of_leaf in values))


def _from_zenith(sine: Array, rounded: bool) -> tuple[Array, Array]:
    """Return cosine and sine of the sun's angle from the zenith, of the sine of its elevation."""
    cosine = jnp.sqrt(1.0 - sine * sine)
    # a rounded right angle is short by this much
    short = 0.5 * (math.pi - circle(rounded))
    return sine * math.cos(short) + cosine * math.sin(short), cosine * math.cos(short) - sine * math.sin(
        short
    )


def _bands(
    p: Parameters, sunlight: Sunlight, beam: Beam, transmission: Array, exposure: Array, *, one_sweep: bool
) -> tuple[Band, Band, Stack]:
    """Return visible light and near infrared in the canopy, and how its layers pass longwave; all bands together."""

    def banded(*values: Array) -> Array:
        """Return properties in several bands, ``[band, 1, ..., 1]`` or ``[band, ..., site]``."""
        joined = jnp.stack(jnp.broadcast_arrays(*values))
        return joined.reshape(len(values), *(1,) * (transmission.ndim - joined.ndim + 1), *joined.shape[1:])

    # of longwave leaves scatter what they do not absorb, half of it to either side
    scattered = 0.5 * (1.0 - p.leaf_emissivity)
    reflectance = banded(p.par_reflectance, p.nir_reflectance, scattered)
    transmittance = banded(p.par_transmittance, p.nir_transmittance, scattered)
    forward = transmission + (1.0 - transmission) * transmittance
    backward = (1.0 - transmission) * reflectance
    swept = None
    if one_sweep:
        swept, backward = backward[:2], backward.at[:2].set(0.0)
    stack = make_stack(forward, backward, beam.sunlit.shape[-1])
    light = transfer(
        jnp.stack([sunlight.par_beam, sunlight.nir_beam]),
        jnp.stack([sunlight.par_diffuse, sunlight.nir_diffuse]),
        beam,
        Stack(*(values[:2] for values in stack)),
        exposure,
        (reflectance[:2], transmittance[:2]),
        banded(p.par_soil_reflectance, p.nir_soil_reflectance),
        swept,
    )
    par, nir = (Band(*(values[band] for values in light)) for band in (0, 1))
    return par, nir, Stack(*(values[2] for values in stack))


def surroundings(options: Options, site: Site, parameters: Parameters, forcing: Forcing) -> Surroundings:
    """Return everything that is settled before the coupled balances are solved.

    Parameters
    ----------
    options, site, parameters
        Of the model; leaves of the latter are scalars or have the last axis of the forcing.
    forcing
        Fields ``[...]``.
    """
    quirks, p = options.kept(), parameters
    weather = prepare(forcing)
    leaf_area_index = weather.leaf_area_index
    if not quirks.fixed_iterations:
        leaf_area_index = jnp.maximum(leaf_area_index, LEAST_LEAF_AREA)
    leaf_area = leaf_area_index / options.layers
    rounded = quirks.rounded_constants
    hour = forcing.hour if quirks.sun_at_the_end else forcing.hour - 0.5 * options.time_step / 3600.0
    sine = settled(
        sine_of_elevation(
            site.latitude, site.longitude, site.time_zone, forcing.day_of_year, hour, rounded=rounded
        )
    )
    shadow = settled(projection(*_from_zenith(sine, rounded), options.leaf_angles, rounded=rounded))
    sunlight = settled(
        divide(
            weather,
            sine,
            visible_quirk=quirks.visible_light_in_near_infrared,
            lost_at_dusk=quirks.light_lost_at_dusk,
        )
    )
    transmission = settled(diffuse_transmission(leaf_area * p.clumping, options.leaf_angles, rounded=rounded))
    published = quirks.single_shortwave_sweep
    exposure = jnp.ones_like(transmission) if published else (1.0 - transmission) / leaf_area
    beam = settled(make_beam(leaf_area, p.clumping, shadow, sine, options.layers, by_level=published))

    par, nir, longwave = _bands(parameters, sunlight, beam, transmission, exposure, one_sweep=published)

    def at(level: int, sign: float = -1.0) -> Array:
        visible, near = (
            x.beam[..., level] + x.down[..., level] + sign * x.up[..., level] for x in (par, nir)
        )
        return visible / PHOTONS_PER_JOULE + near

    light = jnp.stack([par.sunlit, par.shaded], axis=-2)
    found = Surroundings(
        weather=weather,
        leaf_area=leaf_area,
        sunlit=beam.sunlit,
        light=light,
        shortwave=light / PHOTONS_PER_JOULE + jnp.stack([nir.sunlit, nir.shaded], axis=-2),
        soil_shortwave=at(0),
        net_shortwave=at(-1),
        reflected_shortwave=par.up[..., -1] / PHOTONS_PER_JOULE + nir.up[..., -1],
        sky=sky_longwave(weather, sunlight.clearness),
        transmission=transmission,
        exposure=exposure,
        longwave=longwave,
        wind=wind_profile(
            weather.wind_speed,
            site.canopy_height,
            site.measurement_height,
            p.wind_extinction,
            options.layers,
        ),
        soil=soil_heat(
            weather,
            p.soil_conductivity,
            poor_conductivity=quirks.poor_soil_conductivity,
            frozen_quirk=quirks.frozen_latent_heat,
        ),
        surface_resistance=surface_resistance(weather.soil_moisture, p.surface_moisture),
    )
    return settled(found)
