"""What a step of the canopy gives: fluxes above the canopy, their parts, diagnostics and profiles."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Fluxes", "Profiles", "State"]

Array = Any


class State(NamedTuple):
    """What the canopy remembers from one step to the next.

    Attributes
    ----------
    temperature
        K, ``[..., node]``. Corrected mode: the surface of the soil, then its nodes downwards. Reference mode: the
        surface temperature of each iteration of the step before.
    started
        0 before the first step, then 1.
    """

    temperature: Array
    started: Array


class Profiles(NamedTuple):
    """By layer, the lowest first.

    Attributes
    ----------
    air_temperature, vapour_pressure, co2
        K, Pa, umol mol-1; ``[..., layer + atmosphere layer]``.
    sunlit_fraction, sunlit_temperature, shaded_temperature
        1, K, K; ``[..., layer]``.
    assimilation, latent_heat, sensible_heat
        Of the layer's leaves per unit of leaf area: umol m-2 s-1, W m-2, W m-2; ``[..., layer]``.
    """

    air_temperature: Array
    vapour_pressure: Array
    co2: Array
    sunlit_fraction: Array
    sunlit_temperature: Array
    shaded_temperature: Array
    assimilation: Array
    latent_heat: Array
    sensible_heat: Array


class Fluxes(NamedTuple):
    """Per unit of ground, upward unless said otherwise.

    Attributes
    ----------
    latent_heat, sensible_heat, net_radiation, soil_heat
        W m-2; net radiation and soil heat downward.
    net_ecosystem_exchange, gross_primary_production, soil_respiration, dark_respiration
        umol m-2 s-1 of CO2; exchange positive to the air.
    canopy_conductance
        To water vapour, mol m-2 s-1.
    canopy_latent_heat, canopy_sensible_heat, canopy_net_radiation
        Of all leaves, W m-2.
    soil_latent_heat, soil_sensible_heat, soil_net_radiation
        W m-2.
    soil_surface_temperature, canopy_temperature
        K.
    absorbed_radiation
        Net radiation from what enters and leaves at the top of the canopy, W m-2: `net_radiation` where no
        radiation is lost on the way.
    reflected_shortwave, outgoing_longwave
        W m-2.
    stability
        Measurement height over the Obukhov length, 1.
    imbalance
        Net radiation less latent, sensible and soil heat, W m-2.
    residual
        Largest change of the last iteration over all unknowns, in K (1 K, 100 Pa and 10 umol mol-1 count the same).
    converged
        1 where the residual is within the tolerance, 0 where not.
    profiles
        By layer.
    """

    latent_heat: Array
    sensible_heat: Array
    net_radiation: Array
    soil_heat: Array
    net_ecosystem_exchange: Array
    gross_primary_production: Array
    soil_respiration: Array
    dark_respiration: Array
    canopy_conductance: Array
    canopy_latent_heat: Array
    canopy_sensible_heat: Array
    canopy_net_radiation: Array
    soil_latent_heat: Array
    soil_sensible_heat: Array
    soil_net_radiation: Array
    soil_surface_temperature: Array
    canopy_temperature: Array
    absorbed_radiation: Array
    reflected_shortwave: Array
    outgoing_longwave: Array
    stability: Array
    imbalance: Array
    residual: Array
    converged: Array
    profiles: Profiles
