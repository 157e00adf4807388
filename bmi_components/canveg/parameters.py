"""Parameters of the canopy model: one table with meaning, units, default, bounds and source, and the values as a pytree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bmi_components.ball_berry.network import Network, draw_network
from bmi_components.errors import ConfigurationError

__all__ = ["TABLE", "Network", "Parameter", "Parameters", "Scaling", "default_parameters", "draw_network"]

Array = Any
"""A JAX array (or a tracer, or a NumPy array)."""


class Parameter(NamedTuple):
    """A row of the table.

    Attributes
    ----------
    name
        Ours.
    published_name
        As the published models, their files and configurations call it.
    meaning, units
        For people, and UDUNITS-2.
    default
        Value before training.
    lower, upper
        Bounds that training keeps; None: none.
    trained
        Whether training adjusts it unless a recipe says otherwise.
    source
        Where default and bounds come from.
    """

    name: str
    published_name: str
    meaning: str
    units: str
    default: float
    lower: float | None
    upper: float | None
    trained: bool
    source: str


_JIANG = "Jiang et al. (2025)"
_BALDOCCHI = "Baldocchi (1994), CanVeg"

TABLE: tuple[Parameter, ...] = (
    Parameter("clumping", "leaf_clumping_factor", "Clumping factor of the leaves", "1", 0.95, 0.3, 1.0, True, _JIANG),
    Parameter("par_reflectance", "par_reflect", "Reflectance of a leaf for PAR", "1", 0.05, 0.01, 0.25, True, _JIANG),
    Parameter("par_transmittance", "par_trans", "Transmittance of a leaf for PAR", "1", 0.05, 0.01, 0.25, True, _JIANG),
    Parameter("par_soil_reflectance", "par_soil_refl", "Reflectance of the soil for PAR", "1", 0.05, 0.01, 0.4, True, _JIANG),
    Parameter("nir_reflectance", "nir_reflect", "Reflectance of a leaf for near infrared", "1", 0.60, 0.2, 0.7, True, _JIANG),
    Parameter("nir_transmittance", "nir_trans", "Transmittance of a leaf for near infrared", "1", 0.20, 0.05, 0.29, True, _JIANG),
    Parameter("nir_soil_reflectance", "nir_soil_refl", "Reflectance of the soil for near infrared", "1", 0.10, 0.05, 0.6, True, _JIANG),
    Parameter("leaf_emissivity", "ep", "Emissivity of leaves for longwave radiation", "1", 0.98, 0.9, 0.999, True, _JIANG),
    Parameter("soil_emissivity", "epsoil", "Emissivity of the soil for longwave radiation", "1", 0.98, 0.85, 0.999, True, _JIANG),
    Parameter("maximum_carboxylation", "vcopt", "Carboxylation capacity at its optimum temperature", "umol m-2 s-1", 171.0, 5.0, 400.0, True, _BALDOCCHI),
    Parameter("maximum_electron_transport", "jmopt", "Electron transport capacity at its optimum temperature", "umol m-2 s-1", 259.0, 10.0, 600.0, True, _BALDOCCHI),
    Parameter("dark_respiration_25", "rd25", "Dark respiration of a leaf at 25 degC", "umol m-2 s-1", 0.796, 0.05, 8.0, True, "0.004657 of the carboxylation, as " + _BALDOCCHI),
    Parameter("carboxylation_optimum", "toptvc", "Optimum temperature of carboxylation", "K", 303.0, 288.0, 320.0, True, _BALDOCCHI),
    Parameter("electron_transport_optimum", "toptjm", "Optimum temperature of electron transport", "K", 303.0, 288.0, 320.0, True, _BALDOCCHI),
    Parameter("conductance_slope", "kball", "Slope of stomatal conductance against assimilation (Ball-Berry)", "1", 8.17, 1.0, 40.0, True, "Ball et al. (1987)"),
    Parameter("conductance_intercept", "bprime", "Stomatal conductance to water vapour without assimilation", "mol m-2 s-1", 0.05, 1e-4, 0.4, True, "Ball et al. (1987)"),
    Parameter("medlyn_slope", "", "Slope g1 of the optimal stomatal conductance (Medlyn form only)", "kPa0.5", 4.0, 0.3, 15.0, False, "Medlyn et al. (2011)"),
    Parameter("quantum_yield", "qalpha", "Electrons transported per absorbed photon", "mol mol-1", 0.22, 0.05, 0.5, True, _BALDOCCHI),
    Parameter("leaf_length", "lleaf", "Length of a leaf along the wind", "m", 0.04, 0.001, 0.3, True, _JIANG),
    Parameter("respiration_base", "q10a", "Soil respiration at 10 degC and soil moisture 1", "umol m-2 s-1", 5.0, 0.01, 60.0, True, _JIANG),
    Parameter("respiration_q10", "q10b", "Factor of soil respiration per 10 degC", "1", 1.7, 1.0, 5.0, True, _JIANG),
    Parameter("respiration_moisture_exponent", "q10c", "Exponent of soil moisture in soil respiration", "1", 0.8, 0.0, 3.0, True, _JIANG),
    Parameter("soil_conductivity", "", "Thermal conductivity of the soil, relative to that of a mineral soil of its moisture", "1", 1.0, 0.1, 5.0, True, "de Vries (1963); peat and gravel"),
    Parameter("surface_moisture", "", "Moisture at the soil's surface as a share of the soil moisture", "1", 0.1, 0.02, 1.5, True, _JIANG),
    Parameter("boundary_layer_enhancement", "betfac", "Enhancement of leaf transfer by turbulence", "1", 1.5, None, None, False, _BALDOCCHI),
    Parameter("wind_extinction", "extinct", "Extinction of wind with depth in the canopy", "1", 2.0, None, None, False, _BALDOCCHI),
    Parameter("deactivation_enthalpy", "hkin", "Enthalpy of deactivation of photosynthetic enzymes", "J mol-1", 200000.0, None, None, False, _BALDOCCHI),
    Parameter("electron_transport_activation", "ejm", "Activation energy of electron transport", "J mol-1", 55000.0, None, None, False, _BALDOCCHI),
    Parameter("carboxylation_activation", "evc", "Activation energy of carboxylation", "J mol-1", 55000.0, None, None, False, _BALDOCCHI),
    Parameter("carboxylation_michaelis", "kc25", "Michaelis constant of CO2 at 25 degC", "umol mol-1", 274.6, None, None, False, _BALDOCCHI),
    Parameter("oxygenation_michaelis", "ko25", "Michaelis constant of O2 at 25 degC", "mmol mol-1", 419.8, None, None, False, _BALDOCCHI),
    Parameter("oxygen", "o2", "Mole fraction of oxygen in air", "mmol mol-1", 210.0, None, None, False, _BALDOCCHI),
    Parameter("carboxylation_michaelis_activation", "ekc", "Activation energy of the Michaelis constant of CO2", "J mol-1", 80500.0, None, None, False, _BALDOCCHI),
    Parameter("oxygenation_michaelis_activation", "eko", "Activation energy of the Michaelis constant of O2", "J mol-1", 14500.0, None, None, False, _BALDOCCHI),
    Parameter("dark_respiration_activation", "erd", "Activation energy of dark respiration", "J mol-1", 38000.0, None, None, False, _BALDOCCHI),
    Parameter("reference_temperature", "tk_25", "Reference temperature of the Arrhenius functions", "K", 298.16, None, None, False, _BALDOCCHI),
    Parameter("kinematic_viscosity", "nuvisc", "Kinematic viscosity of air at 273.16 K and 101.3 kPa", "mm2 s-1", 13.27, None, None, False, _BALDOCCHI),
    Parameter("heat_diffusivity", "dh", "Diffusivity of heat in air at 273.16 K and 101.3 kPa", "mm2 s-1", 18.69, None, None, False, _BALDOCCHI),
    Parameter("vapour_diffusivity", "dv", "Diffusivity of water vapour in air at 273.16 K and 101.3 kPa", "mm2 s-1", 21.78, None, None, False, _BALDOCCHI),
    Parameter("co2_diffusivity", "dc", "Diffusivity of CO2 in air at 273.16 K and 101.3 kPa", "mm2 s-1", 13.81, None, None, False, _BALDOCCHI),
)  # fmt: skip
"""All parameters, in the order of `Parameters`."""


class Scaling(NamedTuple):
    """What the networks' inputs and outputs are scaled with, from the forcing of the training period.

    Attributes
    ----------
    soil_moisture_mean, soil_moisture_std
        m3 m-3; of the humidity network.
    soil_moisture_minimum, soil_moisture_maximum
        m3 m-3; of the respiration network.
    air_temperature_minimum, air_temperature_maximum
        degC; of the respiration network.
    soil_respiration_minimum, soil_respiration_maximum
        umol m-2 s-1; of the respiration network.
    """

    soil_moisture_mean: Array
    soil_moisture_std: Array
    soil_moisture_minimum: Array
    soil_moisture_maximum: Array
    air_temperature_minimum: Array
    air_temperature_maximum: Array
    soil_respiration_minimum: Array
    soil_respiration_maximum: Array


class Parameters(NamedTuple):
    """Values of the table's parameters, scalars or one per site, and of the networks.

    Attributes
    ----------
    clumping, ..., co2_diffusivity
        See `TABLE`.
    humidity_network
        2 inputs, 1 output: stands for relative humidity at the leaf in the hybrid Ball-Berry conductance.
    respiration_network
        2 inputs, 1 output: soil respiration of option ``network``.
    scaling
        Of the networks; not trained.
    """

    clumping: Array
    par_reflectance: Array
    par_transmittance: Array
    par_soil_reflectance: Array
    nir_reflectance: Array
    nir_transmittance: Array
    nir_soil_reflectance: Array
    leaf_emissivity: Array
    soil_emissivity: Array
    maximum_carboxylation: Array
    maximum_electron_transport: Array
    dark_respiration_25: Array
    carboxylation_optimum: Array
    electron_transport_optimum: Array
    conductance_slope: Array
    conductance_intercept: Array
    medlyn_slope: Array
    quantum_yield: Array
    leaf_length: Array
    respiration_base: Array
    respiration_q10: Array
    respiration_moisture_exponent: Array
    soil_conductivity: Array
    surface_moisture: Array
    boundary_layer_enhancement: Array
    wind_extinction: Array
    deactivation_enthalpy: Array
    electron_transport_activation: Array
    carboxylation_activation: Array
    carboxylation_michaelis: Array
    oxygenation_michaelis: Array
    oxygen: Array
    carboxylation_michaelis_activation: Array
    oxygenation_michaelis_activation: Array
    dark_respiration_activation: Array
    reference_temperature: Array
    kinematic_viscosity: Array
    heat_diffusivity: Array
    vapour_diffusivity: Array
    co2_diffusivity: Array
    humidity_network: Network
    respiration_network: Network
    scaling: Scaling


def default_parameters(
    values: Mapping[str, float] | None = None, *, seed: int = 0, dtype: Any = None
) -> Parameters:
    """Return the table's defaults, with some replaced.

    Parameters
    ----------
    values
        By our names or the published ones.
    seed
        Of the networks' weights.
    dtype
        Floating-point type; None: JAX's own (double precision where that is switched on).

    Raises
    ------
    ConfigurationError
        If a name is not in the table.
    """
    known = {row.name: row.name for row in TABLE} | {
        row.published_name: row.name for row in TABLE if row.published_name
    }
    chosen = {row.name: row.default for row in TABLE}
    for name, value in (values or {}).items():
        if name not in known:
            raise ConfigurationError(f"canveg: there is no parameter {name!r}; there are {', '.join(chosen)}")
        chosen[known[name]] = float(value)
    parameters = Parameters(
        **chosen,
        humidity_network=draw_network(seed),
        respiration_network=draw_network(seed + 1),
        scaling=Scaling(0.2, 0.1, 0.0, 0.5, -10.0, 40.0, 0.0, 10.0),
    )
    kind = dtype or jnp.zeros(0).dtype
    result: Parameters = jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), parameters)
    return result
