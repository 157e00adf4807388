"""Potential evapotranspiration: Hargreaves, FAO-56 Penman-Monteith (hourly and daily) and Oudin.

Every function is elementwise: tensors of any shapes that broadcast, scalars (0-d) included, and no branch
depends on a value. So the same lines run batched, differentiate, and compile to a scalar kernel. Gradients
are finite everywhere, also in calm air, without a diurnal temperature range and in the polar night.

Sources: Allen et al. (1998), FAO Irrigation and Drainage Paper 56 ("FAO-56", equation numbers below);
Hargreaves and Samani (1985), Appl. Eng. Agric. 1(2); Oudin et al. (2005), J. Hydrol. 303,
doi:10.1016/j.jhydrol.2004.08.026.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bmi_components.forcing.humidity import vapour_pressure

__all__ = [
    "extraterrestrial_radiation",
    "hargreaves",
    "oudin",
    "penman_monteith_daily",
    "penman_monteith_hourly",
]

SOLAR_CONSTANT = 0.0820
"""MJ m-2 min-1 (FAO-56 eq. 21)."""
LATENT_HEAT = 2.45
"""Latent heat of vaporisation, MJ kg-1 (FAO-56 eq. 3-1 at 20 degC)."""
PER_LATENT_HEAT = 0.408
"""Water that 1 MJ m-2 evaporates, mm: 1 / 2.45 as FAO-56 rounds it (eq. 20)."""
ALBEDO = 0.23
"""Albedo of the reference crop (FAO-56 eq. 38)."""
EMISSIVITY = 0.98
"""Longwave emissivity of the reference crop."""
STEFAN_BOLTZMANN = 4.903e-9
"""MJ K-4 m-2 d-1 (FAO-56 eq. 39)."""
KELVIN = 273.15
"""0 degC in K."""
CROP_HEIGHT_WIND = 4.87 / math.log(67.8 * 10.0 - 5.42)
"""Factor from wind at 10 m to wind at 2 m (FAO-56 eq. 47)."""


def extraterrestrial_radiation(latitude: Tensor, day_of_year: Tensor) -> Tensor:
    """Return the daily solar radiation on a horizontal plane at the top of the atmosphere (FAO-56 eq. 21-25).

    Parameters
    ----------
    latitude
        Degrees north.
    day_of_year
        1 on 1 January.

    Returns
    -------
    Tensor
        Radiation, MJ m-2 d-1.
    """
    phi = latitude * (math.pi / 180.0)
    year_angle = day_of_year * (2.0 * math.pi / 365.0)
    delta = 0.409 * torch.sin(year_angle - 1.39)
    inverse_distance = 1.0 + 0.033 * torch.cos(year_angle)
    # A pole's cosine is zero up to rounding of either sign; the floor keeps the midnight sun on its side.
    cos_phi = torch.clamp(torch.cos(phi), min=1e-6)
    horizontal = torch.sin(phi) * torch.sin(delta)
    vertical = cos_phi * torch.cos(delta)
    sunset_angle = _finite_arccos(-horizontal / vertical)
    return (
        (24.0 * 60.0 / math.pi * SOLAR_CONSTANT)
        * inverse_distance
        * (sunset_angle * horizontal + vertical * torch.sin(sunset_angle))
    )


def hargreaves(
    mean_temperature: Tensor,
    min_temperature: Tensor,
    max_temperature: Tensor,
    latitude: Tensor,
    day_of_year: Tensor,
) -> Tensor:
    """Return potential evapotranspiration from the diurnal temperature range (FAO-56 eq. 52).

    Parameters
    ----------
    mean_temperature, min_temperature, max_temperature
        Air temperature over the day, degC. A minimum above the maximum counts as no range.
    latitude
        Degrees north.
    day_of_year
        1 on 1 January.

    Returns
    -------
    Tensor
        Potential evapotranspiration, mm d-1, never negative.
    """
    diurnal = _finite_sqrt(torch.clamp(max_temperature - min_temperature, min=0.0))
    radiation = PER_LATENT_HEAT * extraterrestrial_radiation(latitude, day_of_year)
    return torch.clamp(0.0023 * (mean_temperature + 17.8) * diurnal * radiation, min=0.0)


def oudin(mean_temperature: Tensor, latitude: Tensor, day_of_year: Tensor) -> Tensor:
    """Return potential evapotranspiration for rainfall-runoff models (Oudin et al. 2005, eq. 3).

    Parameters
    ----------
    mean_temperature
        Daily mean air temperature, degC.
    latitude
        Degrees north.
    day_of_year
        1 on 1 January.

    Returns
    -------
    Tensor
        Potential evapotranspiration, mm d-1; zero at and below -5 degC.
    """
    evaporable = extraterrestrial_radiation(latitude, day_of_year) / LATENT_HEAT
    return evaporable * torch.clamp(mean_temperature + 5.0, min=0.0) / 100.0


def penman_monteith_hourly(
    temperature: Tensor,
    specific_humidity: Tensor,
    pressure: Tensor,
    shortwave: Tensor,
    longwave: Tensor,
    wind_x: Tensor,
    wind_y: Tensor,
) -> Tensor:
    """Return reference evapotranspiration of one hour (FAO-56 eq. 53, resistances of day and night).

    Parameters
    ----------
    temperature
        Air temperature at 2 m, degC.
    specific_humidity
        Water vapour per moist air, kg kg-1. Used as it is: values in g kg-1 are not recognised as such.
    pressure
        Surface pressure, Pa.
    shortwave, longwave
        Incoming radiation, W m-2.
    wind_x, wind_y
        Wind at 10 m, m s-1.

    Returns
    -------
    Tensor
        Potential evapotranspiration, mm h-1, never negative (dew is not evaporation).
    """
    wind = CROP_HEIGHT_WIND * _finite_sqrt(wind_x * wind_x + wind_y * wind_y)
    kelvin = temperature + KELVIN
    emitted = EMISSIVITY * (STEFAN_BOLTZMANN / 24.0) * _square(_square(kelvin))
    net_radiation = 0.0036 * ((1.0 - ALBEDO) * shortwave + longwave) - emitted
    daylight = net_radiation > 0.0
    ground_heat = torch.where(daylight, 0.1 * net_radiation, 0.5 * net_radiation)  # FAO-56 eq. 45, 46
    saturation = _saturation_vapour_pressure(temperature)
    return _combination(
        available_energy=net_radiation - ground_heat,
        slope=4098.0 * saturation / _square(temperature + 237.3),
        kelvin=kelvin,
        deficit=saturation - vapour_pressure(specific_humidity, pressure),
        pressure=pressure,
        wind=wind,
        aerodynamic=37.0,
        resistance=torch.where(daylight, 0.24 * wind, 0.96 * wind),
    )


def penman_monteith_daily(
    mean_temperature: Tensor,
    min_temperature: Tensor,
    max_temperature: Tensor,
    specific_humidity: Tensor,
    pressure: Tensor,
    shortwave: Tensor,
    longwave: Tensor,
    wind_speed: Tensor,
) -> Tensor:
    """Return reference evapotranspiration of one day from daily values (FAO-56 eq. 6).

    The ground heat flux of a whole day is zero (eq. 42); saturation pressure is the mean of that at the
    minimum and that at the maximum temperature (eq. 12), emitted longwave likewise (eq. 39).

    Parameters
    ----------
    mean_temperature, min_temperature, max_temperature
        Air temperature at 2 m over the day, degC.
    specific_humidity
        Daily mean, kg kg-1.
    pressure
        Daily mean surface pressure, Pa.
    shortwave, longwave
        Daily mean incoming radiation, W m-2.
    wind_speed
        Daily mean of the wind's speed at 10 m, m s-1 (not the speed of the mean wind: components cancel).

    Returns
    -------
    Tensor
        Potential evapotranspiration, mm d-1, never negative.
    """
    fourth_powers = _square(_square(min_temperature + KELVIN)) + _square(_square(max_temperature + KELVIN))
    emitted = EMISSIVITY * STEFAN_BOLTZMANN * 0.5 * fourth_powers
    wind = CROP_HEIGHT_WIND * wind_speed
    saturation = 0.5 * (
        _saturation_vapour_pressure(min_temperature) + _saturation_vapour_pressure(max_temperature)
    )
    return _combination(
        available_energy=0.0864 * ((1.0 - ALBEDO) * shortwave + longwave) - emitted,
        slope=4098.0 * _saturation_vapour_pressure(mean_temperature) / _square(mean_temperature + 237.3),
        kelvin=mean_temperature + 273.0,  # as eq. 6 rounds it
        deficit=saturation - vapour_pressure(specific_humidity, pressure),
        pressure=pressure,
        wind=wind,
        aerodynamic=900.0,
        resistance=0.34 * wind,
    )


def _combination(
    *,
    available_energy: Tensor,
    slope: Tensor,
    kelvin: Tensor,
    deficit: Tensor,
    pressure: Tensor,
    wind: Tensor,
    aerodynamic: float,
    resistance: Tensor,
) -> Tensor:
    """Combine energy (MJ m-2) and drying power (deficit in kPa, wind at 2 m in m s-1) to mm per step.

    ``aerodynamic`` is FAO-56's C_n and ``resistance`` its C_d times the wind.
    """
    psychrometric = 0.665e-3 * (pressure / 1000.0)  # FAO-56 eq. 8, kPa K-1
    energy = PER_LATENT_HEAT * slope * available_energy
    drying = psychrometric * aerodynamic / kelvin * wind * deficit
    return torch.clamp((energy + drying) / (slope + psychrometric * (1.0 + resistance)), min=0.0)


def _saturation_vapour_pressure(temperature: Tensor) -> Tensor:
    """Return the saturation vapour pressure, kPa, at ``temperature``, degC (FAO-56 eq. 11)."""
    return 0.6108 * torch.exp(17.27 * temperature / (temperature + 237.3))


def _square(x: Tensor) -> Tensor:
    """Multiply instead of raising to a power, which compiled kernels would do through logarithms."""
    return x * x


def _finite_sqrt(x: Tensor) -> Tensor:
    """Square root of a non-negative number whose gradient at zero is zero instead of infinite."""
    positive = x > 0.0
    return torch.where(positive, torch.sqrt(torch.where(positive, x, 1.0)), 0.0)


def _finite_arccos(x: Tensor) -> Tensor:
    """Arc cosine of ``x`` limited to [-1, 1], whose gradient at and beyond the limits is zero."""
    inside = torch.abs(x) < 1.0
    inner = torch.arccos(torch.where(inside, x, 0.0))
    return torch.where(x >= 1.0, 0.0, torch.where(inside, inner, math.pi))
