"""The soil: how it conducts heat, how dry its surface is, and how its temperatures change."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bmi_components.canveg.thermodynamics import (
    latent_heat_of_vaporisation,
    saturation_vapour_pressure,
)
from bmi_components.canveg.weather import Weather

__all__ = ["Column", "SoilHeat", "make_column", "soil_heat", "surface_resistance"]

Array = Any

POROSITY = 1.0 - 1.06 / 2.65
"""Of a soil of bulk density 1.06 t m-3."""

ORGANIC = 0.08
MINERAL = 1.0 - POROSITY - ORGANIC
"""Shares of the volume."""


class Column(NamedTuple):
    """A column of soil layers that double in thickness downwards, of depth 1; constants.

    Attributes
    ----------
    thickness, depth
        Of layers, and of the nodes that bound them (the surface first).
    capacity
        Thickness that each node stands for, twice over (the surface's node: its layer's, once).
    held_rates, held_modes, held_amplitudes
        Diffusion with surface and bottom held: its rates, and the matrices from modes to nodes and back, for the
        nodes in between.
    free_rates, free_modes, free_amplitudes
        The same with a flux at the surface and the bottom held, for all nodes but the bottom.
    """

    thickness: NDArray[np.float64]
    depth: NDArray[np.float64]
    capacity: NDArray[np.float64]
    held_rates: NDArray[np.float64]
    held_modes: NDArray[np.float64]
    held_amplitudes: NDArray[np.float64]
    free_rates: NDArray[np.float64]
    free_modes: NDArray[np.float64]
    free_amplitudes: NDArray[np.float64]


def make_column(layers: int) -> Column:
    """Return the column of ``layers`` layers.

    New arrays each time: JAX 0.10 remembers for an array the precision that it had in the first program that held it.
    """
    doubled = 2.0 ** np.arange(1, layers + 1)
    thickness = np.asarray(doubled / doubled.sum(), dtype=np.float64)
    depth = np.concatenate([[0.0], np.cumsum(thickness)])
    capacity = np.concatenate([thickness[:1], depth[2:] - depth[:-2]])
    conduction = np.zeros((layers, layers))
    # each layer joins the node above it to the one below; the last joins the bottom, which is held
    for layer in range(layers):
        conduction[layer, layer] += 1.0 / thickness[layer]
        if layer + 1 < layers:
            conduction[layer + 1, layer + 1] += 1.0 / thickness[layer]
            conduction[layer, layer + 1] -= 1.0 / thickness[layer]
            conduction[layer + 1, layer] -= 1.0 / thickness[layer]

    def modes(first: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        root = np.sqrt(capacity[first:])
        rates, vectors = np.linalg.eigh(conduction[first:, first:] / np.outer(root, root))
        return rates, vectors / root[:, None], vectors.T * root

    return Column(thickness, depth, capacity, *modes(1), *modes(0))


class SoilHeat(NamedTuple):
    """Thermal properties of the soil: W m-1 K-1, and J m-3 K-1."""

    conductivity: Array
    capacity: Array


def soil_heat(
    weather: Weather, relative_conductivity: Array, *, poor_conductivity: bool, frozen_quirk: bool
) -> SoilHeat:
    """Return thermal properties after de Vries (1963) in the form of Campbell (1985).

    Parameters
    ----------
    weather
        Soil moisture, pressure, temperature of the air.
    relative_conductivity
        What conductivity is multiplied by; 1: a mineral soil.
    poor_conductivity
        Whether water conducts 0.25 W m-1 K-1 and organic matter as minerals do, as published.
    frozen_quirk
        See `latent_heat_of_vaporisation`.
    """
    theta = weather.soil_moisture
    air = POROSITY - theta
    if not poor_conductivity:
        air = jnp.maximum(air, 0.0)
    k_water, k_organic, k_mineral = (0.25 if poor_conductivity else 0.57), 0.8, 2.5
    kelvin = weather.air_temperature
    saturation = saturation_vapour_pressure(kelvin)
    slope = (
        saturation
        * latent_heat_of_vaporisation(kelvin, frozen_quirk=frozen_quirk)
        * 18.0
        / (8314.0 * kelvin * kelvin)
    )
    ratio = theta / 0.15
    fourth = ratio**4
    flow = fourth / (1.0 + fourth)  # of liquid water: 1 / (1 + ratio^-4), finite where the soil is dry
    k_air = 0.024 + 44100.0 * 2.42e-5 * flow * weather.molar_density * slope / (weather.pressure * 1000.0)
    fluid = k_air + flow * (k_water - k_air)

    def weight(conductivity: Array) -> Array:
        excess = conductivity / fluid - 1.0
        return 2.0 / (3.0 * (1.0 + 0.2 * excess)) + 1.0 / (3.0 * (1.0 + 0.6 * excess))

    shares = (
        (MINERAL * weight(k_mineral), k_mineral),
        (air * weight(k_air), k_air),
        (theta * weight(k_water), k_water),
        (ORGANIC * weight(k_organic), k_mineral if poor_conductivity else k_organic),
    )
    conductivity = sum(share * k for share, k in shares) / sum(share for share, _ in shares)
    capacity = weather.density * air * 1065.0 + 1000.0 * 4180.0 * theta + 1300.0 * 1920.0 * ORGANIC
    return SoilHeat(relative_conductivity * conductivity, capacity + 2650.0 * 870.0 * MINERAL)


def surface_resistance(soil_moisture: Array, surface_moisture: Array) -> Array:
    """Return the resistance of the soil's surface to water vapour, s m-1 (Kondo et al. 1990).

    Parameters
    ----------
    soil_moisture
        Of the soil, m3 m-3.
    surface_moisture
        Share of it that the surface holds, which dries first: a tenth in Jiang et al. (2025).
    """
    return 3e10 * jnp.maximum(0.395 - surface_moisture * soil_moisture, 1e-3) ** 16.6
