"""Which units the columns of neuralhydrology's data sets are in, and which variables of the catalogue they are.

The sources are the data sets' own descriptions: CAMELS (Newman et al. 2015), its hourly NLDAS forcing (Gauch et al.
2020), AORC (Kitzmiller et al. 2018; the names are NextGen's), Caravan (Kratzert et al. 2023), CAMELS-GB (Coxon et al.
2020), CAMELS-DE (Loritz et al. 2024), CAMELS-AUS (Fowler et al. 2021).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from bmi_components.units import convertible
from bmi_components.variables import CATALOGUE, variable

__all__ = ["Column", "describe_column", "doubt", "plain_name"]


class Column(NamedTuple):
    """Units of a column in UDUNITS-2, and its symbol in the catalogue; None if it has none."""

    units: str
    symbol: str | None


UNITS_OF_TEXT: Mapping[str, str] = MappingProxyType(
    {
        "mm/day": "mm d-1",
        "mm/d": "mm d-1",
        "mm/hour": "mm h-1",
        "mm/hr": "mm h-1",
        "mm/h": "mm h-1",
        "m3/s": "m3 s-1",
        "c": "degC",
        "degc": "degC",
        "k": "K",
        "w/m2": "W m-2",
        "pa": "Pa",
        "hpa": "hPa",
        "kpa": "kPa",
        "s": "s",
        "mm": "mm",
        "m/s": "m s-1",
        "g/kg": "g kg-1",
        "kg/kg": "kg kg-1",
        "%": "percent",
    }
)
"""Units as names carry them in brackets, in lower case."""

SYMBOL_OF_NAME: Mapping[str, str] = MappingProxyType(
    {
        "prcp": "precipitation",
        "precip": "precipitation",
        "precipitation": "precipitation",
        "tmax": "maximum_temperature",
        "tmin": "minimum_temperature",
        "tmean": "temperature",
        "tavg": "temperature",
        "temp": "temperature",
        "temperature": "temperature",
        "srad": "shortwave",
        "vp": "vapour_pressure",
        "dayl": "day_length",
        "pet": "potential_evapotranspiration",
    }
)
"""Variables by the part of a name before the brackets, in lower case."""

AORC: Mapping[str, Column] = MappingProxyType(
    {
        "APCP_surface": Column("mm h-1", "precipitation"),
        "TMP_2maboveground": Column("K", "temperature"),
        "SPFH_2maboveground": Column("kg kg-1", "specific_humidity"),
        "DLWRF_surface": Column("W m-2", "longwave"),
        "DSWRF_surface": Column("W m-2", "shortwave"),
        "PRES_surface": Column("Pa", "pressure"),
        "UGRD_10maboveground": Column("m s-1", "wind_x"),
        "VGRD_10maboveground": Column("m s-1", "wind_y"),
    }
)
"""NextGen's names, the same in every data set that has them."""

DATASETS: Mapping[str, Mapping[str, Column]] = MappingProxyType(
    {
        "hourly_camels_us": {
            "total_precipitation": Column("mm h-1", "precipitation"),
            "temperature": Column("degC", "temperature"),
            "specific_humidity": Column("kg kg-1", "specific_humidity"),
            "longwave_radiation": Column("W m-2", "longwave"),
            "shortwave_radiation": Column("W m-2", "shortwave"),
            "pressure": Column("Pa", "pressure"),
            "wind_u": Column("m s-1", "wind_x"),
            "wind_v": Column("m s-1", "wind_y"),
            "potential_evaporation": Column("mm h-1", "potential_evapotranspiration"),
            "potential_energy": Column("J kg-1", None),
            "convective_fraction": Column("1", None),
            "qobs_mm_per_hour": Column("mm h-1", None),
        },
        "caravan": {
            "total_precipitation_sum": Column("mm d-1", "precipitation"),
            "potential_evaporation_sum": Column("mm d-1", "potential_evapotranspiration"),
            "potential_evaporation_sum_ERA5_LAND": Column("mm d-1", "potential_evapotranspiration"),
            "potential_evaporation_sum_FAO_PENMAN_MONTEITH": Column("mm d-1", "potential_evapotranspiration"),
            "temperature_2m_mean": Column("degC", "temperature"),
            "temperature_2m_min": Column("degC", "minimum_temperature"),
            "temperature_2m_max": Column("degC", "maximum_temperature"),
            "dewpoint_temperature_2m_mean": Column("degC", "dew_point_temperature"),
            "dewpoint_temperature_2m_min": Column("degC", None),
            "dewpoint_temperature_2m_max": Column("degC", None),
            "surface_pressure_mean": Column("kPa", "pressure"),
            "surface_pressure_min": Column("kPa", None),
            "surface_pressure_max": Column("kPa", None),
            "u_component_of_wind_10m_mean": Column("m s-1", "wind_x"),
            "v_component_of_wind_10m_mean": Column("m s-1", "wind_y"),
            **dict.fromkeys(
                (
                    f"{part}_component_of_wind_10m_{statistic}"
                    for part in "uv"
                    for statistic in ("min", "max")
                ),
                Column("m s-1", None),
            ),
            **dict.fromkeys(
                (
                    f"surface_net_{part}_radiation_{statistic}"
                    for part in ("solar", "thermal")
                    for statistic in ("mean", "min", "max")
                ),
                Column("W m-2", None),
            ),
            **dict.fromkeys(
                (f"snow_depth_water_equivalent_{statistic}" for statistic in ("mean", "min", "max")),
                Column("mm", None),
            ),
            **dict.fromkeys(
                (
                    f"volumetric_soil_water_layer_{layer}_{statistic}"
                    for layer in (1, 2, 3, 4)
                    for statistic in ("mean", "min", "max")
                ),
                Column("m3 m-3", None),
            ),
            "streamflow": Column("mm d-1", None),
        },
        "camels_gb": {
            "precipitation": Column("mm d-1", "precipitation"),
            "pet": Column("mm d-1", "potential_evapotranspiration"),
            "peti": Column("mm d-1", "potential_evapotranspiration"),
            "temperature": Column("degC", "temperature"),
            "humidity": Column("g kg-1", "specific_humidity"),
            "shortwave_rad": Column("W m-2", "shortwave"),
            "longwave_rad": Column("W m-2", "longwave"),
            "windspeed": Column("m s-1", "wind_speed"),
            "discharge_spec": Column("mm d-1", None),
            "discharge_vol": Column("m3 s-1", None),
        },
        "camels_de": {
            "precipitation_mean": Column("mm d-1", "precipitation"),
            "temperature_mean": Column("degC", "temperature"),
            "temperature_min": Column("degC", "minimum_temperature"),
            "temperature_max": Column("degC", "maximum_temperature"),
            "humidity_mean": Column("percent", "relative_humidity"),
            "radiation_global_mean": Column("W m-2", "shortwave"),
            "discharge_spec_obs": Column("mm d-1", None),
            "discharge_vol_obs": Column("m3 s-1", None),
        },
        "camels_aus": {"streamflow_mmd": Column("mm d-1", None)},
        "camels_ind": {"streamflow_mm_day": Column("mm d-1", None)},
    }
)
"""Columns of a data set (``dataset`` of the run's configuration) whose names say nothing about their units."""


def plain_name(name: str, forcings: Sequence[str] = ()) -> str:
    """Return the column behind a network's input: without a copy's number, and without the product's name.

    neuralhydrology calls copies of a column ``<name>_copy1``, and the columns of several forcing products
    ``<name>_<product>``.
    """
    name = re.sub(r"_copy\d+$", "", name)
    if len(forcings) > 1:
        for product in forcings:
            name = name.removesuffix(f"_{product}")
    return name


def describe_column(name: str, dataset: str, forcings: Sequence[str] = ()) -> Column | None:
    """Look up the units and the variable of a column.

    Parameters
    ----------
    name
        As in the run's configuration.
    dataset, forcings
        What the configuration says under these keys.

    Returns
    -------
    Column or None
        None if neither the name nor the data set tells the units.
    """
    plain = plain_name(name, forcings)
    in_brackets = re.fullmatch(r"(?P<base>[^()]+)\((?P<units>[^()]+)\)", plain)
    if in_brackets is not None:
        units = UNITS_OF_TEXT.get(in_brackets["units"].strip().lower())
        if units is None:
            return None
        symbol = SYMBOL_OF_NAME.get(in_brackets["base"].strip().lower())
        if symbol is not None and not convertible(units, CATALOGUE[symbol].units):
            symbol = None
        return Column(units, symbol)
    return AORC.get(plain) or DATASETS.get(dataset.lower(), {}).get(plain)


def doubt(column: Column, mean: float) -> str | None:
    """Say what speaks against a column's units: a mean over the training data that the variable cannot have."""
    if column.symbol is None:
        return None
    valid_range = variable(column.symbol, column.units).valid_range
    if valid_range is None or valid_range[0] <= mean <= valid_range[1]:
        return None
    low, high = valid_range
    return f"the training data's mean is {mean:g}, and in {column.units!r} it lies within [{low:g}, {high:g}]"
