"""Sunlit and shaded leaves of the layers near a guess of their state, each by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

from bmi_components.canveg.air_flow import gas_expansion, leaf_resistances
from bmi_components.canveg.leaf_energy import LeafAirState, balance, vapour_resistance
from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.photosynthesis import LeafAir, assimilate, biochemistry
from bmi_components.canveg.settled import settled
from bmi_components.canveg.stomata import conductance_slope
from bmi_components.canveg.thermodynamics import (
    log_temperature,
    saturation_vapour_pressure,
)
from bmi_components.canveg.weather import STEFAN_BOLTZMANN

__all__ = ["LeafAnswer", "LeafGuess", "LeafResponse", "LeafSetting", "leaf_answer"]

Array = Any


class LeafGuess(NamedTuple):
    """What leaves are in and how they are; of the air ``[..., 1, layer]``, of leaves ``[..., 2, layer]``.

    Attributes
    ----------
    air, vapour, co2
        Around leaves: temperature, K; vapour pressure, Pa; umol mol-1.
    longwave
        That falls on both sides, W m-2, ``[..., 1, layer]``.
    temperature, inside
        Of leaves, K, and CO2 inside them, umol mol-1.
    """

    air: Array
    vapour: Array
    co2: Array
    longwave: Array
    temperature: Array
    inside: Array


class LeafSetting(NamedTuple):
    """What does not change while their state is sought; ``[..., 1, 1]`` unless said otherwise.

    Attributes
    ----------
    parameters
        Of leaves.
    light, shortwave
        Absorbed: PAR, umol m-2 s-1, and all, W m-2, ``[..., 2, layer]``.
    wind
        m s-1, ``[..., 1, layer]``.
    exposure
        Diffuse radiation that a leaf meets over that of its layer, 1.
    returned
        Share of what leaves emit that comes back to them, were all equally warm, ``[..., 1, layer]``.
    pressure, density, latent_heat
        Of the air: kPa, kg m-3, and J kg-1 of vaporisation.
    soil_moisture
        m3 m-3.
    """

    parameters: Parameters
    light: Array
    shortwave: Array
    wind: Array
    exposure: Array
    returned: Array
    pressure: Array
    density: Array
    latent_heat: Array
    soil_moisture: Array


class LeafAnswer(NamedTuple):
    """Fluxes per area of leaf at the next guess, and that guess; ``[..., 2, layer]``.

    Attributes
    ----------
    assimilation, dark
        Net, and respiration, umol m-2 s-1.
    conductance
        Of stomata to water vapour, mol m-2 s-1.
    latent, sensible, net
        Heat given off and radiation kept, W m-2.
    temperature, inside
        The next guess, K and umol mol-1.
    """

    assimilation: Array
    dark: Array
    conductance: Array
    latent: Array
    sensible: Array
    net: Array
    temperature: Array
    inside: Array


class LeafResponse(NamedTuple):
    """How leaves that stay in balance follow the air, about: with stomata as they are; ``[..., 2, layer]``.

    Attributes
    ----------
    by_air, by_vapour
        Change of the balanced leaf's temperature with the air's, 1, and with its vapour pressure, K Pa-1.
    transfer, evaporation
        Sensible heat per K over the air, latent heat per K of the leaf, W m-2 K-1.
    moistening
        Latent heat per Pa, W m-2 Pa-1.
    sensitivity
        Of assimilation to the air's CO2, mol m-2 s-1.
    """

    by_air: Array
    by_vapour: Array
    transfer: Array
    evaporation: Array
    moistening: Array
    sensitivity: Array


def leaf_answer(options: Options, guess: LeafGuess, given: LeafSetting) -> tuple[LeafAnswer, LeafResponse]:
    """Take a step of Newton's method towards the balances of heat and of CO2 of each leaf."""
    p, leaf, pressure = given.parameters, guess.temperature, given.pressure
    emission = 2.0 * p.leaf_emissivity * STEFAN_BOLTZMANN * given.exposure
    absorbed = settled(given.shortwave + p.leaf_emissivity * guess.longwave)
    expansion = settled(gas_expansion(pressure, log_temperature(guess.air)))
    resistances = settled(leaf_resistances(given.wind, leaf, guess.air, expansion, p))
    saturation = settled(saturation_vapour_pressure(leaf))
    molar = leaf * (101.3 * 0.022624 / 273.15) / pressure
    kept = options.kept()
    rates = settled(
        biochemistry(
            leaf,
            given.light,
            p,
            cold_oxygen=kept.cold_oxygen_kinetics,
            tied_dark=kept.tied_dark_respiration,
        )
    )
    slope = settled(conductance_slope(options, p, guess.vapour, saturation, given.soil_moisture))
    amphistomatous = options.stomata == "amphistomatous"
    stomata = settled(
        assimilate(
            rates,
            LeafAir(guess.co2, 1.0 / (resistances.co2 * molar), slope, p.conductance_intercept),
            guess.inside,
            amphistomatous=amphistomatous,
        )
    )
    resistance = settled(
        vapour_resistance(resistances.vapour, stomata.leaf.conductance * molar, amphistomatous=amphistomatous)
    )
    air = LeafAirState(guess.air, guess.vapour, 0.0, given.latent_heat, given.density, pressure)
    energy, rate = settled(
        balance(absorbed, leaf, saturation, air, resistances.heat, resistance, emission, given.returned)
    )
    # with stomata as they are
    warming = 1.0 / (rate.radiated + rate.sensible + rate.latent)
    return settled(
        (
            LeafAnswer(
                stomata.leaf.assimilation,
                rates.dark_respiration,
                stomata.leaf.conductance,
                energy.latent_heat,
                energy.sensible_heat,
                energy.net_radiation,
                energy.temperature,
                stomata.leaf.co2,
            ),
            LeafResponse(
                rate.sensible * warming,
                rate.moistening * warming,
                rate.sensible,
                rate.latent,
                rate.moistening,
                stomata.sensitivity,
            ),
        )
    )
