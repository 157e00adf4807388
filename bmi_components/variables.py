"""The variables at the BMI boundary: CSDMS Standard Names, UDUNITS-2 units and plain meanings, in one table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

__all__ = ["CATALOGUE", "GROUPS", "Variable", "variable"]

ANY = None
NOT_NEGATIVE = (0.0, math.inf)
FRACTION = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Variable:
    """One quantity as a caller sees it.

    Attributes
    ----------
    name
        CSDMS Standard Name (0.8.6 style).
    units
        UDUNITS-2 string, "1" if dimensionless.
    symbol
        Short name in the models' own code.
    description
        What it is, in a hydrologist's words.
    valid_range
        The physically possible values in ``units``, both ends included; None: any finite number.
    grid
        Name of the grid that carries it: "catchment", or one of ``Stepper.extra_grids``.
    nan_is_data
        A missing value is information rather than a mistake: a gap in observations, or an output that cannot be known
        yet.
    per_update
        An output that is an amount over the last BMI update rather than a value at its end. The stepper computes
        its *rate* (``units`` per second); the component multiplies it by the seconds of the update.
    mean_over_update
        An output whose reported value is the mean over the last BMI update of what the stepper gives, so that values
        times seconds add up to the true volume also where a step is estimated in parts.
    """

    name: str
    units: str
    symbol: str
    description: str
    valid_range: tuple[float, float] | None = None
    grid: str = "catchment"
    nan_is_data: bool = False
    per_update: bool = False
    mean_over_update: bool = False

    def with_units(self, units: str, valid_range: tuple[float, float] | None = None) -> Variable:
        """Return the same quantity in other units; ``valid_range`` is that of the new units."""
        return replace(self, units=units, valid_range=valid_range)

    def converted_to(self, units: str) -> Variable:
        """Return the same quantity in other units with its valid range converted along.

        Raises
        ------
        UnitsError
            If ``units`` cannot be parsed or measure something else.
        """
        if units == self.units:
            return self
        from bmi_components.units import converter

        if self.valid_range is None:
            converter(self.units, units)  # only to refuse units that do not convert
            return replace(self, units=units)
        convert = converter(self.units, units)
        low, high = sorted(convert(bound) for bound in self.valid_range)
        return replace(self, units=units, valid_range=(low, high))


_HYDROLOGY = (
    Variable(
        "atmosphere_water__liquid_equivalent_precipitation_rate",
        "mm d-1",
        "precipitation",
        "Precipitation, rain and snow, as liquid water",
        NOT_NEGATIVE,
    ),
    Variable(
        "land_surface_air__temperature",
        "degC",
        "temperature",
        "Air temperature near the ground",
        (-100.0, 70.0),
    ),
    Variable(
        "land_surface_air__time_min_of_temperature",
        "degC",
        "minimum_temperature",
        "Lowest air temperature of the step",
        (-100.0, 70.0),
    ),
    Variable(
        "land_surface_air__time_max_of_temperature",
        "degC",
        "maximum_temperature",
        "Highest air temperature of the step",
        (-100.0, 70.0),
    ),
    Variable(
        "land_surface_air__dew_point_temperature",
        "degC",
        "dew_point_temperature",
        "Dew point of the air near the ground",
        (-100.0, 50.0),
    ),
    Variable(
        "land_surface_daylight__duration",
        "s",
        "day_length",
        "Time between sunrise and sunset",
        (0.0, 86_400.0),
    ),
    Variable(
        "land_surface_water__potential_evaporation_volume_flux",
        "mm d-1",
        "potential_evapotranspiration",
        "Potential evapotranspiration",
        NOT_NEGATIVE,
    ),
    Variable(
        "atmosphere_air_water~vapor__relative_saturation",
        "kg kg-1",
        "specific_humidity",
        "Specific humidity of the air near the ground (NextGen's name for it is a misnomer)",
        FRACTION,
    ),
    Variable(
        "land_surface_air__pressure",
        "Pa",
        "pressure",
        "Air pressure at the ground",
        (30_000.0, 120_000.0),
    ),
    Variable(
        "land_surface_radiation~incoming~shortwave__energy_flux",
        "W m-2",
        "shortwave",
        "Incoming shortwave radiation (a little below zero at night is sensor or packing noise)",
        (-20.0, 2_000.0),
    ),
    Variable(
        "land_surface_radiation~incoming~longwave__energy_flux",
        "W m-2",
        "longwave",
        "Incoming longwave radiation",
        (0.0, 1_000.0),
    ),
    Variable(
        "land_surface_wind__x_component_of_velocity",
        "m s-1",
        "wind_x",
        "Wind towards the east, 10 m above the ground",
        (-150.0, 150.0),
    ),
    Variable(
        "land_surface_wind__y_component_of_velocity",
        "m s-1",
        "wind_y",
        "Wind towards the north, 10 m above the ground",
        (-150.0, 150.0),
    ),
    Variable(
        "land_surface_water__runoff_depth",
        "m",
        "runoff_depth",
        "Runoff depth over the last update (NextGen's main output: metres per step)",
        per_update=True,
    ),
    Variable(
        "land_surface_water__runoff_volume_flux",
        "mm d-1",
        "runoff_rate",
        "Runoff per unit of catchment area",
    ),
    Variable(
        "land_surface_water__standard_deviation_of_runoff_volume_flux",
        "mm d-1",
        "runoff_spread",
        "Standard deviation of the runoff rate over an ensemble of models, or of a predicted distribution",
    ),
    Variable(
        "land_surface_water__daily_mean_of_runoff_volume_flux",
        "mm d-1",
        "daily_runoff_rate",
        "Runoff of the latest complete day, by the long step of a model of two timescales",
    ),
    Variable(
        "land_surface_water__observation_of_runoff_volume_flux",
        "mm d-1",
        "observed_runoff_rate",
        "Observed runoff of the step before; NaN where nothing was observed",
        nan_is_data=True,
    ),
    Variable(
        "channel_exit_water_x-section__volume_flow_rate",
        "m3 s-1",
        "streamflow",
        "Streamflow at the outlet",
    ),
    Variable(
        "land_surface_water__evapotranspiration_volume_flux",
        "mm d-1",
        "evapotranspiration",
        "Actual evapotranspiration",
    ),
    Variable(
        "snowpack__liquid-equivalent_depth",
        "mm",
        "snow_water_equivalent",
        "Snow water equivalent",
        NOT_NEGATIVE,
    ),
    Variable("snowpack__melt_volume_flux", "mm d-1", "snow_melt", "Water released by the snowpack"),
    Variable(
        "land_surface_soil_water__volume-per-area_storage_density",
        "mm",
        "soil_moisture",
        "Soil moisture store",
        NOT_NEGATIVE,
    ),
    Variable(
        "soil_upper-zone_water__volume-per-area_storage_density",
        "mm",
        "upper_zone_storage",
        "Upper zone store",
        NOT_NEGATIVE,
    ),
    Variable(
        "groundwater__volume-per-area_storage_density",
        "mm",
        "lower_zone_storage",
        "Lower zone (groundwater) store",
        NOT_NEGATIVE,
    ),
    Variable(
        "soil_water_sat-zone_top__recharge_volume_flux",
        "mm d-1",
        "recharge",
        "Recharge from the soil to the zones below",
    ),
    Variable(
        "land_water__volume-per-area_storage_density",
        "mm",
        "water_storage",
        "All water of the catchment: snow, soil, zones, and what is on its way to the outlet",
        NOT_NEGATIVE,
    ),
    Variable(
        "groundwater__lateral-exchange_volume_flux",
        "mm d-1",
        "lateral_exchange",
        "Water gained from the regional groundwater (negative: lost to it)",
    ),
    Variable(
        "land_surface_water__quickflow_volume_flux",
        "mm d-1",
        "quickflow",
        "Quick runoff from the top of the upper zone",
    ),
    Variable(
        "land_subsurface_water__interflow_volume_flux",
        "mm d-1",
        "interflow",
        "Interflow from the upper zone",
    ),
    Variable(
        "land_surface_water__baseflow_volume_flux",
        "mm d-1",
        "baseflow",
        "Baseflow from the lower zone",
    ),
)

_LAND_SURFACE = (
    Variable(
        "atmosphere_bottom_air_water~vapor__partial_pressure",
        "kPa",
        "vapour_pressure",
        "Water vapour pressure of the air",
        (0.0, 20.0),
    ),
    Variable("land_surface_wind__speed", "m s-1", "wind_speed", "Wind speed", (0.0, 150.0)),
    Variable(
        "land_surface_wind__shear_speed", "m s-1", "friction_velocity", "Friction velocity", (0.0, 20.0)
    ),
    Variable(
        "atmosphere_bottom_air_carbon-dioxide__mole_fraction",
        "umol mol-1",
        "carbon_dioxide",
        "Carbon dioxide in the air",
        (0.0, 1e6),
    ),
    Variable(
        "land_vegetation__leaf-area_index",
        "m2 m-2",
        "leaf_area_index",
        "Leaf area per ground area",
        (0.0, 50.0),
    ),
    Variable("land_vegetation_canopy__height", "m", "canopy_height", "Height of the canopy", (0.0, 150.0)),
    Variable(
        "land_surface_soil_water__volume_fraction",
        "m3 m-3",
        "soil_water_content",
        "Water per volume of soil",
        FRACTION,
    ),
    Variable("soil__temperature", "degC", "soil_temperature", "Soil temperature", (-100.0, 100.0)),
    Variable(
        "land_surface__upward_latent_heat_energy_flux",
        "W m-2",
        "latent_heat",
        "Latent heat flux, positive upwards",
    ),
    Variable(
        "land_surface__upward_sensible_heat_energy_flux",
        "W m-2",
        "sensible_heat",
        "Sensible heat flux, positive upwards",
    ),
    Variable(
        "soil__downward_heat_energy_flux",
        "W m-2",
        "ground_heat",
        "Heat flux into the ground, positive downwards",
    ),
    Variable(
        "land_surface_radiation~net~total__energy_flux",
        "W m-2",
        "net_radiation",
        "Net radiation, positive downwards",
    ),
    Variable(
        "land_surface_carbon-dioxide__net_ecosystem_exchange_mole_flux",
        "umol m-2 s-1",
        "net_ecosystem_exchange",
        "Net ecosystem exchange of carbon dioxide, positive to the air",
    ),
    Variable(
        "land_vegetation_carbon-dioxide__gross_primary_production_mole_flux",
        "umol m-2 s-1",
        "gross_primary_production",
        "Gross primary production",
    ),
    Variable(
        "land_vegetation_canopy_water~vapor__mole_conductance",
        "mol m-2 s-1",
        "canopy_conductance",
        "Canopy conductance for water vapour",
    ),
    Variable(
        "soil_carbon-dioxide__respiration_mole_flux",
        "umol m-2 s-1",
        "soil_respiration",
        "Soil respiration",
    ),
    Variable(
        "land_surface_water__evapotranspiration_depth",
        "m",
        "evapotranspiration_depth",
        "Actual evapotranspiration over the last update (NextGen's main output: metres per step)",
        per_update=True,
    ),
    Variable(
        "soil_surface__temperature", "degC", "soil_surface_temperature", "Temperature of the soil's surface"
    ),
    Variable(
        "land_surface_energy-balance__converged_flag",
        "1",
        "converged",
        "Whether the balances of leaves, air and soil were solved to the model's tolerance: 1, or 0 where not",
    ),
)

_LEAF = (
    Variable(
        "land_vegetation_leaf_carbon-dioxide__net_assimilation_mole_flux",
        "umol m-2 s-1",
        "net_assimilation",
        "Net carbon dioxide assimilation of the leaf",
    ),
    Variable(
        "land_vegetation_leaf_surface_air_water~vapor__relative_saturation",
        "1",
        "leaf_relative_humidity",
        "Relative humidity at the leaf surface",
        (0.0, 1.2),
    ),
    Variable(
        "land_vegetation_leaf_surface_air_carbon-dioxide__mole_fraction",
        "umol mol-1",
        "leaf_carbon_dioxide",
        "Carbon dioxide at the leaf surface",
        (1.0, 1e6),
    ),
    Variable(
        "land_vegetation_leaf_surface_air_water~vapor__partial_pressure_deficit",
        "kPa",
        "leaf_vapour_pressure_deficit",
        "Water vapour pressure that the air at the leaf surface lacks to saturation at the leaf's temperature",
        (-5.0, 50.0),
    ),
    Variable(
        "land_vegetation_leaf_water~vapor__stomatal_mole_conductance",
        "mol m-2 s-1",
        "stomatal_conductance",
        "Stomatal conductance for water vapour",
    ),
)

_FLUX_TOWERS = (
    Variable(
        "land_surface_radiation~incoming~photosynthetically-active__mole_flux",
        "umol m-2 s-1",
        "photosynthetic_photon_flux",
        "Incoming photosynthetically active photon flux",
        (-20.0, 5_000.0),
    ),
    Variable(
        "snowpack__depth",
        "m",
        "snow_depth",
        "Depth of the snow",
        (0.0, 50.0),
    ),
    Variable(
        "land_surface_wind__direction",
        "degree",
        "wind_direction",
        "Direction the wind comes from, clockwise from north",
        (0.0, 360.0),
    ),
    Variable(
        "atmosphere_bottom_air_water~vapor__relative_saturation",
        "percent",
        "relative_humidity",
        "Relative humidity of the air",
        (0.0, 120.0),
    ),
    Variable(
        "land_surface_carbon__net_ecosystem_production_mass_flux",
        "g m-2 d-1",
        "net_ecosystem_production",
        "Net ecosystem production as mass of carbon",
    ),
    Variable(
        "land_surface_carbon-dioxide__net_ecosystem_production_mole_flux",
        "umol m-2 s-1",
        "net_ecosystem_production_rate",
        "Net ecosystem production: what the ecosystem takes from the air, minus the net ecosystem exchange",
    ),
    Variable(
        "atmosphere_bottom_air_water~vapor__partial_pressure_deficit",
        "kPa",
        "vapour_pressure_deficit",
        "Water vapour pressure that the air lacks to saturation",
        (-1.0, 20.0),
    ),
    Variable(
        "model_input-window_valid-days__count",
        "1",
        "valid_days",
        "Days with all inputs in the model's window of days, interpolated ones included",
        NOT_NEGATIVE,
    ),
)

_ASSIMILATION = (
    Variable("sea_water_surface__elevation", "m", "sea_surface_elevation", "Elevation of the sea surface"),
    Variable(
        "sea_water_surface__observation_of_elevation",
        "m",
        "observed_sea_surface_elevation",
        "Observed elevation of the sea surface; NaN where nothing was observed",
        nan_is_data=True,
    ),
)

GROUPS: Mapping[str, tuple[Variable, ...]] = MappingProxyType(
    {
        "Hydrology": _HYDROLOGY,
        "Land surface": _LAND_SURFACE,
        "Leaf": _LEAF,
        "Flux towers": _FLUX_TOWERS,
        "Assimilation": _ASSIMILATION,
    }
)
"""The catalogue by domain, in the order of the documentation."""

CATALOGUE: Mapping[str, Variable] = MappingProxyType(
    {entry.symbol: entry for group in GROUPS.values() for entry in group}
)
"""Every variable by its symbol, in its default units."""


def variable(symbol: str, units: str | None = None) -> Variable:
    """Return a variable of the catalogue, in ``units`` if given, with its valid range converted.

    Raises
    ------
    UnknownNameError
        If the catalogue has no such symbol.
    UnitsError
        If ``units`` cannot be parsed or measure something else.
    """
    try:
        entry = CATALOGUE[symbol]
    except KeyError:
        from bmi_components.errors import UnknownNameError

        raise UnknownNameError(
            f"the catalogue has no variable {symbol!r}; it has {', '.join(sorted(CATALOGUE))}"
        ) from None
    return entry if units is None else entry.converted_to(units)
