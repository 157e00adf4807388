"""What CanVeg publishes: fluxes per site, and profiles by layer on grids of their own."""

from __future__ import annotations

from bmi_components.variables import Variable, variable

__all__ = ["AIR", "CANOPY", "PROFILES", "SCALARS"]

CANOPY = "canopy_layer"
"""Grid of the canopy's layers, ``[layer, site]``, the lowest first."""
AIR = "air_layer"
"""Grid of the layers of the canopy and of the air above it, ``[layer, site]``, the lowest first."""

SCALARS = (
    variable("evapotranspiration_depth"),
    variable("evapotranspiration", "mm s-1"),
    variable("latent_heat"),
    variable("sensible_heat"),
    variable("ground_heat"),
    variable("net_radiation"),
    variable("net_ecosystem_exchange"),
    variable("gross_primary_production"),
    variable("canopy_conductance"),
    variable("soil_respiration"),
    variable("soil_surface_temperature"),
    variable("converged"),
)
"""Outputs with one value per site."""


def _profile(field: str, name: str, units: str, meaning: str, grid: str) -> Variable:
    return Variable(
        f"land_vegetation_canopy_{name}", units, f"{field}_by_layer", f"{meaning}, by layer", grid=grid
    )


_LEAVES = "of leaves, per area of leaf"

PROFILES = (
    _profile("air_temperature", "air__temperature", "degC", "Air temperature", AIR),
    _profile("vapour_pressure", "air_water~vapor__partial_pressure", "kPa", "Water vapour pressure", AIR),
    _profile("co2", "air_carbon-dioxide__mole_fraction", "umol mol-1", "Carbon dioxide in the air", AIR),
    _profile("sunlit_fraction", "leaf-sunlit__area_fraction", "1", "Part of the leaves in the sun", CANOPY),
    _profile(
        "sunlit_temperature", "leaf-sunlit__temperature", "degC", "Temperature of leaves in the sun", CANOPY
    ),
    _profile(
        "shaded_temperature", "leaf-shaded__temperature", "degC", "Temperature of leaves in the shade", CANOPY
    ),
    _profile(
        "assimilation",
        "leaf_carbon-dioxide__net_assimilation_mole_flux",
        "umol m-2 s-1",
        f"Net assimilation {_LEAVES}",
        CANOPY,
    ),
    _profile(
        "latent_heat", "leaf__upward_latent_heat_energy_flux", "W m-2", f"Latent heat flux {_LEAVES}", CANOPY
    ),
    _profile(
        "sensible_heat",
        "leaf__upward_sensible_heat_energy_flux",
        "W m-2",
        f"Sensible heat flux {_LEAVES}",
        CANOPY,
    ),
)
"""Outputs with one value per layer and site, in the order of `fluxes.Profiles`."""
