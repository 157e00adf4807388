"""Sample weather: a seeded stochastic generator of daily and hourly weather for a handful of climates.

For trying things out, teaching and tests, not for science: it has the seasons, the wet spells and the storms of a
real place, but no trends, no droughts of years and no floods of the century.

Each climate is a table that a climate station publishes. From it, per day:

* temperature: the monthly means, interpolated through the year, plus an anomaly with the memory of an AR(1)
  process whose spread goes from winter's to summer's; rain comes with mild air in winter and cool air in summer.
  It falls by 6.5 K per km of height above the station.
* wet or dry: a two-state Markov chain with the month's frequency ``f`` of wet days and persistence ``r``: a wet day
  follows a dry one with probability ``f (1 - r)`` and a wet one with ``f + r (1 - f)``.
* rain on a wet day: gamma distributed with the month's mean; 4 % more per 100 m of height.
* potential evapotranspiration: Oudin's, from temperature and latitude.

Catchments of one climate share their weather for the larger part (a correlation of 0.8), those of different
climates do not. A year's weather depends on the seed, the place and the year only: not on the period or on the other
catchments that are asked for, so that a warm-up record and a run fit together.

References: Richardson (1981), Water Resour. Res. 17(1), for the daily scheme; FAO-56 (eq. 28) for hourly radiation;
Brutsaert (1975), Water Resour. Res. 11(5), for longwave radiation from clear skies. The climates are rounded monthly
statistics, 1981-2010, of six basins of CAMELS in the Caravan data set (Kratzert et al. 2023,
doi:10.1038/s41597-023-01975-w, CC-BY-4.0).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ForcingError, UnknownNameError
from bmi_components.forcing.evaporation import day_of_year, oudin
from bmi_components.forcing.series import DAY, HOUR, Forcing, Times, last_moment, moment
from bmi_components.variables import variable

__all__ = [
    "CATCHMENTS",
    "CLIMATES",
    "Climate",
    "SampleCatchment",
    "daily_weather",
    "hourly_weather",
    "sample",
]

SHARED = 0.8
"""Part of the variance of weather that catchments of one climate have in common."""
LAPSE_RATE = 0.0065
"""Fall of temperature with height, K m-1."""
OROGRAPHIC_GAIN = 4e-4
"""Relative gain of precipitation with height, m-1."""
CLOUDINESS_EFFECT = 0.35
"""Relative loss of diurnal temperature range on a wet day against a dry one."""

Array = NDArray[np.float64]
Months = tuple[float, float, float, float, float, float, float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Climate:
    """A climate as a station's table tells it; months from January, pairs as (January, July).

    Attributes
    ----------
    name
        Words for it.
    elevation
        Height of the station, m.
    temperature
        Monthly means, degC.
    precipitation
        Monthly sums, mm.
    wet_days
        Fraction of days of the month with precipitation.
    persistence
        Lag-1 autocorrelation of wet and dry days.
    storm_shape
        Shape of the gamma distribution of a wet day's precipitation; below 1, few storms bring most of it.
    temperature_spread
        Standard deviation of daily temperature about its season, K.
    temperature_memory
        Lag-1 autocorrelation of that.
    wet_warmth
        How much warmer wet days are than dry ones, K.
    diurnal_range
        Mean difference between a day's maximum and minimum temperature, K.
    """

    name: str
    elevation: float
    temperature: Months
    precipitation: Months
    wet_days: Months
    persistence: float
    storm_shape: float
    temperature_spread: tuple[float, float]
    temperature_memory: float
    wet_warmth: tuple[float, float]
    diurnal_range: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SampleCatchment:
    """A place to make weather for: its identifier, what it is, position (degrees), mean height (m) and climate."""

    id: str
    description: str
    latitude: float
    longitude: float
    elevation: float
    climate: str


CLIMATES: Mapping[str, Climate] = MappingProxyType(
    {
        "snowy": Climate(
            name="humid, snowy winters",
            elevation=248.0,
            temperature=(-10.4, -8.2, -3.3, 3.6, 10.9, 16.3, 19.2, 18.5, 13.9, 7.2, 0.8, -6.6),
            precipitation=(84, 81, 96, 106, 97, 106, 103, 93, 98, 109, 117, 96),
            wet_days=(0.32, 0.31, 0.35, 0.39, 0.44, 0.44, 0.43, 0.39, 0.34, 0.34, 0.38, 0.36),
            persistence=0.16,
            storm_shape=0.86,
            temperature_spread=(6.1, 2.9),
            temperature_memory=0.67,
            wet_warmth=(4.4, -0.7),
            diurnal_range=(11.0, 12.0),
        ),
        "humid": Climate(
            name="humid, temperate mountains",
            elevation=935.0,
            temperature=(-3.4, -1.8, 2.5, 8.3, 13.1, 17.5, 19.4, 18.9, 15.4, 9.6, 4.2, -1.1),
            precipitation=(103, 107, 118, 119, 144, 112, 126, 96, 107, 90, 109, 105),
            wet_days=(0.47, 0.48, 0.49, 0.51, 0.54, 0.54, 0.55, 0.49, 0.39, 0.34, 0.38, 0.46),
            persistence=0.21,
            storm_shape=0.91,
            temperature_spread=(5.7, 2.3),
            temperature_memory=0.75,
            wet_warmth=(1.9, 0.4),
            diurnal_range=(10.0, 11.0),
        ),
        "subtropical": Climate(
            name="humid subtropical",
            elevation=114.0,
            temperature=(8.8, 10.8, 14.4, 18.5, 23.0, 26.1, 27.1, 27.0, 24.5, 19.4, 14.4, 10.1),
            precipitation=(109, 122, 119, 104, 93, 105, 122, 111, 88, 93, 95, 108),
            wet_days=(0.32, 0.34, 0.33, 0.30, 0.35, 0.49, 0.60, 0.51, 0.36, 0.27, 0.29, 0.32),
            persistence=0.30,
            storm_shape=0.76,
            temperature_spread=(5.2, 1.8),
            temperature_memory=0.75,
            wet_warmth=(3.1, -1.2),
            diurnal_range=(12.0, 11.0),
        ),
        "alpine": Climate(
            name="high mountains, snowmelt",
            elevation=2991.0,
            temperature=(-10.4, -8.9, -5.7, -2.2, 2.3, 8.5, 12.8, 11.7, 7.4, 0.6, -7.0, -11.2),
            precipitation=(67, 81, 86, 90, 65, 49, 65, 73, 69, 73, 77, 70),
            wet_days=(0.40, 0.47, 0.49, 0.50, 0.43, 0.33, 0.43, 0.52, 0.44, 0.36, 0.40, 0.39),
            persistence=0.35,
            storm_shape=1.55,
            temperature_spread=(3.6, 2.2),
            temperature_memory=0.80,
            wet_warmth=(0.5, -1.6),
            diurnal_range=(12.0, 15.0),
        ),
        "oceanic": Climate(
            name="oceanic, wet winters",
            elevation=436.0,
            temperature=(2.7, 3.4, 5.2, 7.3, 10.3, 13.0, 15.9, 16.3, 14.0, 9.4, 4.9, 2.0),
            precipitation=(233, 188, 183, 149, 98, 78, 27, 34, 66, 147, 275, 240),
            wet_days=(0.60, 0.55, 0.61, 0.56, 0.44, 0.36, 0.18, 0.17, 0.25, 0.44, 0.66, 0.58),
            persistence=0.43,
            storm_shape=1.13,
            temperature_spread=(3.0, 2.7),
            temperature_memory=0.80,
            wet_warmth=(1.4, -2.5),
            diurnal_range=(6.0, 11.0),
        ),
        "semi-arid": Climate(
            name="semi-arid, convective storms",
            elevation=464.0,
            temperature=(10.0, 12.1, 15.4, 19.4, 23.0, 25.9, 27.1, 27.6, 24.6, 20.0, 14.7, 10.6),
            precipitation=(49, 70, 81, 83, 116, 86, 64, 47, 75, 92, 74, 59),
            wet_days=(0.25, 0.30, 0.35, 0.35, 0.42, 0.37, 0.28, 0.25, 0.31, 0.32, 0.29, 0.28),
            persistence=0.37,
            storm_shape=0.61,
            temperature_spread=(4.5, 1.9),
            temperature_memory=0.75,
            wet_warmth=(1.1, -1.8),
            diurnal_range=(14.0, 13.0),
        ),
    }
)
"""Climates by a short name."""

CATCHMENTS: tuple[SampleCatchment, ...] = (
    SampleCatchment("snowy-forest", "forest with snowy winters", 45.0, -69.0, 250.0, "snowy"),
    SampleCatchment("temperate-mountains", "humid, wooded mountains", 38.0, -80.0, 900.0, "humid"),
    SampleCatchment("humid-lowland", "subtropical lowland", 31.5, -89.5, 100.0, "subtropical"),
    SampleCatchment("alpine-valley", "high mountains fed by snowmelt", 39.0, -107.0, 3000.0, "alpine"),
    SampleCatchment("oceanic-hills", "hills with wet winters", 46.5, -123.0, 450.0, "oceanic"),
    SampleCatchment("semi-arid-plain", "dry plain with summer storms", 30.0, -99.0, 450.0, "semi-arid"),
)
"""The catchments that the sample configurations run: invented, one for each climate."""


def sample(ids: Sequence[str]) -> tuple[SampleCatchment, ...]:
    """Return the sample catchments with these identifiers.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    known = {catchment.id: catchment for catchment in CATCHMENTS}
    for name in ids:
        if name not in known:
            raise UnknownNameError(f"there is no sample catchment {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in ids)


def daily_weather(
    start: str, end: str, *, seed: int = 1, catchments: Sequence[SampleCatchment] = CATCHMENTS
) -> Forcing:
    """Generate precipitation (mm d-1), temperature (degC) and Oudin's potential evapotranspiration (mm d-1).

    Parameters
    ----------
    start, end
        First and last day.
    seed
        Any integer; the same seed gives the same weather.
    catchments
        Places; those of the same climate share most of their weather.
    """
    return _collect(_daily_year, start, end, DAY, seed, catchments)


def hourly_weather(
    start: str, end: str, *, seed: int = 1, catchments: Sequence[SampleCatchment] = CATCHMENTS
) -> Forcing:
    """Generate the eight hourly variables of NextGen's AORC forcing, in their units.

    Daily means of temperature and sums of precipitation are those of ``daily_weather``. Each wet day has one storm;
    temperature follows a cosine with its maximum at 15 h local time; the sun is FAO-56's (eq. 28) behind the day's
    clouds; humidity follows the night's minimum temperature; wind is an AR(1) breeze from the west.

    Parameters
    ----------
    start, end
        First and last day (UTC).
    seed, catchments
        As in ``daily_weather``.
    """
    return _collect(_hourly_year, start, end, HOUR, seed, catchments)


_Year = Callable[[int, int, Sequence[SampleCatchment]], dict[str, Array]]
"""``make(year, seed, catchments)`` returns arrays ``[time, catchment]`` over a calendar year, by symbol."""


def _collect(
    make: _Year, start: str, end: str, time_step: int, seed: int, catchments: Sequence[SampleCatchment]
) -> Forcing:
    """Make the calendar years of a period and cut the period out."""
    first, last = moment(start), last_moment(end, time_step)
    if last < first:
        raise ForcingError(f"the period of the sample weather ends ({end}) before it starts ({start})")
    years = range(first.astype(object).year, last.astype(object).year + 1)
    parts = [make(year, seed, catchments) for year in years]
    return Forcing(
        time=np.arange(_new_year(years[0]), _new_year(years[-1] + 1), np.timedelta64(time_step, "s")),
        time_step=time_step,
        catchments=tuple(catchment.id for catchment in catchments),
        variables=tuple(
            variable(symbol, _HOURLY_UNITS.get(symbol) if time_step == HOUR else None) for symbol in parts[0]
        ),
        values={symbol: np.concatenate([part[symbol] for part in parts]) for symbol in parts[0]},
        source=f"{'hourly ' if time_step == HOUR else ''}sample weather (seed {seed})",
    ).select(start=start, end=end)


_HOURLY_UNITS = {"precipitation": "mm s-1", "temperature": "K"}


def _new_year(year: int) -> np.datetime64:
    return np.datetime64(f"{year:04d}-01-01T00:00:00", "s")


def _daily_year(year: int, seed: int, catchments: Sequence[SampleCatchment]) -> dict[str, Array]:
    """Generate precipitation, temperature and potential evapotranspiration, each ``[day, catchment]``."""
    days = _days(year, seed, catchments)
    latitude = np.array([catchment.latitude for catchment in catchments])
    return {
        "precipitation": days.precipitation,
        "temperature": days.temperature,
        "potential_evapotranspiration": oudin(days.temperature, latitude, days.dates),
    }


def _hourly_year(year: int, seed: int, catchments: Sequence[SampleCatchment]) -> dict[str, Array]:
    """Generate the AORC variables, each ``[hour, catchment]``."""
    days = _days(year, seed, catchments)
    dates = days.dates
    generators = [_generator(seed, str(year), catchment.id, "hourly") for catchment in catchments]
    longitude = np.array([catchment.longitude for catchment in catchments])
    latitude = np.array([catchment.latitude for catchment in catchments])
    height = np.array([catchment.elevation for catchment in catchments])

    # [day, hour, catchment]; the shift to local time is whole hours, so that the day's mean, least and most are kept.
    hour = np.arange(24.0)[:, np.newaxis]
    local = hour + np.round(longitude / 15.0)
    temperature = days.temperature[:, np.newaxis] + 0.5 * days.diurnal_range[:, np.newaxis] * np.cos(
        (local - 15.0) * (2.0 * math.pi / 24.0)
    )
    precipitation = days.precipitation[:, np.newaxis] / HOUR * _storms(dates.size, generators)
    cloud = np.where(days.precipitation > 0.0, 0.9, 0.25)[:, np.newaxis]
    shortwave = (0.75 - 0.5 * cloud) * _hourly_radiation(dates, latitude, longitude)
    pressure = np.broadcast_to(101_325.0 * (1.0 - 2.25577e-5 * height) ** 5.25588, temperature.shape)
    minimum = (days.temperature - 0.5 * days.diurnal_range)[:, np.newaxis]
    vapour = np.minimum(_saturation(minimum - 2.0 * (1.0 - cloud)), _saturation(temperature))
    kelvin = temperature + 273.15
    clear_emissivity = 1.24 * (0.01 * vapour / kelvin) ** (1.0 / 7.0)
    longwave = np.minimum(clear_emissivity * (1.0 + 0.22 * cloud**2), 1.0) * 5.670374e-8 * kelvin**4
    wind_x, wind_y = (
        np.stack([_breeze(generator, 24 * dates.size, mean) for generator in generators], axis=1)
        for mean in (2.0, 0.0)
    )
    values = {
        "precipitation": precipitation,
        "temperature": kelvin,
        "specific_humidity": 0.622 * vapour / (pressure - 0.378 * vapour),
        "pressure": pressure,
        "shortwave": shortwave,
        "longwave": longwave,
        "wind_x": wind_x,
        "wind_y": wind_y,
    }
    return {name: np.ascontiguousarray(x.reshape(24 * dates.size, -1)) for name, x in values.items()}


@dataclass(frozen=True, slots=True)
class _Days:
    """Daily weather of a calendar year, each ``[day, catchment]``: mm, degC, K."""

    dates: Times
    precipitation: Array
    temperature: Array
    diurnal_range: Array


def _generator(seed: int, *names: str) -> np.random.Generator:
    """Return a stream of its own for each name: what is drawn for one thing never shifts another's draws."""
    return np.random.Generator(
        np.random.PCG64([abs(seed), int(seed < 0), *(zlib.crc32(n.encode()) for n in names)])
    )


def _days(year: int, seed: int, catchments: Sequence[SampleCatchment]) -> _Days:
    dates = np.arange(_new_year(year), _new_year(year + 1), np.timedelta64(DAY, "s"))
    columns = [_days_of_one(dates, seed, str(year), catchment) for catchment in catchments]
    return _Days(dates, *(np.stack(series, axis=1) for series in zip(*columns, strict=True)))


def _days_of_one(time: Times, seed: int, year: str, catchment: SampleCatchment) -> tuple[Array, Array, Array]:
    """Generate precipitation, mean temperature and diurnal range of one catchment, each ``[day]``."""
    climate = CLIMATES[catchment.climate]
    month = time.astype("datetime64[M]").astype(np.int64) % 12
    # 0 in mid-January, 1 in mid-July
    summer: Array = 0.5 - 0.5 * np.cos((day_of_year(time) - 15.0) * (2.0 * math.pi / 365.25))
    height = catchment.elevation - climate.elevation

    def seasonal(january_july: tuple[float, float]) -> Array:
        january, july = january_july
        return np.asarray(january + (july - january) * summer)

    def normals(purpose: str) -> Array:
        common = _generator(seed, year, catchment.climate, purpose).standard_normal(time.size)
        own = _generator(seed, year, catchment.id, purpose).standard_normal(time.size)
        return math.sqrt(SHARED) * common + math.sqrt(1.0 - SHARED) * own

    def gammas() -> Array:
        # Gamma variables of one scale add up in their shapes: a common part and an own part make one storm.
        common = _generator(seed, year, catchment.climate, "storm").standard_gamma(
            SHARED * climate.storm_shape, time.size
        )
        own = _generator(seed, year, catchment.id, "storm").standard_gamma(
            (1.0 - SHARED) * climate.storm_shape, time.size
        )
        return (common + own) / climate.storm_shape

    frequency = np.array(climate.wet_days)
    wet = _markov_chain(normals("wet"), frequency, climate.persistence, month)
    days_in_month = np.array([31, 28.2425, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
    mean_storm = np.array(climate.precipitation) / (days_in_month * frequency)
    gain = max(0.0, 1.0 + OROGRAPHIC_GAIN * height)
    precipitation = np.where(wet, gain * mean_storm[month] * gammas(), 0.0)

    wetness = wet - frequency[month]
    anomaly = seasonal(climate.temperature_spread) * _memory(
        normals("temperature"), climate.temperature_memory
    )
    mid_month = 15.5 + 30.4375 * np.arange(12)
    mean = np.interp(day_of_year(time), mid_month, _nodes(climate.temperature), period=365.25)
    temperature = mean - LAPSE_RATE * height + anomaly + seasonal(climate.wet_warmth) * wetness
    diurnal_range = seasonal(climate.diurnal_range) * (1.0 - CLOUDINESS_EFFECT * wetness)
    return precipitation, temperature, diurnal_range


def _nodes(monthly_means: Months) -> Array:
    """Return mid-month values between which straight lines have the wanted monthly means.

    A month's mean is made of its own middle by 6/8 and of its neighbours' by 1/8 each.
    """
    own = np.eye(12)
    share = 0.75 * own + 0.125 * (np.roll(own, 1, axis=0) + np.roll(own, -1, axis=0))
    return np.linalg.solve(share, np.array(monthly_means))


def _markov_chain(
    noise: Array, frequency: Array, persistence: float, month: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which days are wet: standard normal ``noise`` below the threshold of the transition's probability."""
    quantile = NormalDist().inv_cdf
    after_dry = [quantile(f * (1.0 - persistence)) for f in frequency]
    after_wet = [quantile(f + persistence * (1.0 - f)) for f in frequency]
    wet = np.empty(noise.size, dtype=np.bool_)
    today = noise[-1] < quantile(
        frequency[month[0]]
    )  # as likely as any: the draw of another day stands for the eve
    for day, (draw, m) in enumerate(zip(noise.tolist(), month.tolist(), strict=True)):
        today = draw < (after_wet[m] if today else after_dry[m])
        wet[day] = today
    return wet


def _memory(noise: Array, memory: float) -> Array:
    """Turn white noise into an AR(1) series of unit variance."""
    innovation = math.sqrt(1.0 - memory**2)
    series = noise.tolist()
    for i in range(1, len(series)):
        series[i] = memory * series[i - 1] + innovation * series[i]
    return np.array(series)


def _storms(days: int, generators: Sequence[np.random.Generator]) -> Array:
    """Return the share of the day's precipitation that each hour gets, ``[day, hour, catchment]``.

    One storm a day of 2 to 18 hours that swells and ebbs.
    """
    hour = np.arange(24.0)
    shares = np.empty((days, 24, len(generators)))
    for column, generator in enumerate(generators):
        length = generator.integers(2, 19, days)[:, np.newaxis]
        start = np.floor(generator.random(days)[:, np.newaxis] * (25 - length))
        within = (hour - start + 0.5) / length
        intensity = np.where(
            (within > 0.0) & (within < 1.0), np.sin(math.pi * np.clip(within, 0.0, 1.0)), 0.0
        )
        shares[:, :, column] = intensity / intensity.sum(axis=1, keepdims=True)
    return shares


def _hourly_radiation(dates: Times, latitude: Array, longitude: Array) -> Array:
    """Return the radiation at the top of the atmosphere, W m-2, mean of each hour ``[day, hour, catchment]``."""
    year_angle = (2.0 * math.pi / 365.0) * day_of_year(dates)[:, np.newaxis, np.newaxis]
    declination = 0.409 * np.sin(year_angle - 1.39)
    phi = np.deg2rad(latitude)
    middle = np.arange(24.0)[:, np.newaxis] + 0.5 + longitude / 15.0  # local solar time
    angle = (math.pi / 12.0) * ((middle - 12.0 + 12.0) % 24.0 - 12.0)
    half_hour = math.pi / 24.0
    sunset = np.arccos(np.clip(-np.tan(phi) * np.tan(declination), -1.0, 1.0))
    first = np.clip(angle - half_hour, -sunset, sunset)
    last = np.clip(angle + half_hour, -sunset, sunset)
    sunlit = (last - first) * np.sin(phi) * np.sin(declination) + np.cos(phi) * np.cos(declination) * (
        np.sin(last) - np.sin(first)
    )
    solar_constant = 0.0820 * 1e6 / 60.0  # W m-2
    top = solar_constant * (1.0 + 0.033 * np.cos(year_angle))
    return np.asarray(np.maximum((12.0 / math.pi) * top * sunlit, 0.0))


def _saturation(temperature: Array) -> Array:
    """Return the saturation vapour pressure, Pa, at ``temperature``, degC (FAO-56 eq. 11)."""
    return np.asarray(610.8 * np.exp(17.27 * temperature / (temperature + 237.3)))


def _breeze(generator: np.random.Generator, hours: int, mean: float) -> Array:
    """Return a wind component, m s-1, ``[hour]``."""
    return mean + 2.0 * _memory(generator.standard_normal(hours), 0.9)
