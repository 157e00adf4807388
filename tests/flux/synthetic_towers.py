"""An invented tower whose half-hours have everything real ones have: nights, snow, calm hours, gaps of all lengths."""

from __future__ import annotations

import numpy as np

from bmi_components.forcing.flux_tower import FluxTable

UNITS = {
    "D_SNOW": "cm",
    "P": "mm (1800 s)-1",
    "PPFD_IN": "umol m-2 s-1",
    "NETRAD": "W m-2",
    "USTAR": "m s-1",
    "NEE_PI": "umol m-2 s-1",
}


def synthetic_tower(
    days: int = 900, first: str = "2010-01-01T00:00", seed: int = 1, snow: bool = True, step: int = 1800
) -> FluxTable:
    """A tower with ``days`` days of data from ``first``; exchange follows light, warmth and last month's rain."""
    random = np.random.default_rng(seed)
    per_day = 86_400 // step
    size = days * per_day
    time = np.datetime64(first, "s") + np.arange(size) * np.timedelta64(step, "s")
    hour = (time - time.astype("datetime64[D]")).astype(int) / 3600 + step / 7200
    day = (time - time.astype("datetime64[Y]")).astype("timedelta64[D]").astype(int)
    season = -np.cos(2 * np.pi * day / 365.25)
    light = np.maximum(np.sin(np.pi * (hour - 6 + season) / (12 + 2 * season)), 0) * (1100 + 700 * season)
    light *= random.uniform(0.3, 1.0, days).repeat(per_day)
    rain = np.where(random.random(size) < 0.03, random.exponential(0.8, size), 0.0)
    columns = {
        "P": rain,
        "PPFD_IN": light,
        "NETRAD": 0.4 * light - 60 + random.normal(0, 5, size),
        "USTAR": random.gamma(3, 0.12, size) * random.uniform(0.2, 1.5, days).repeat(per_day),
        "NEE_PI": 2 - 0.01 * light + random.normal(0, 0.5, size),
    }
    if snow:
        depth = np.where(season < -0.5, -40 * (season + 0.5), 0.0)
        columns["D_SNOW"] = np.where(depth > 0, depth + random.normal(0, 0.5, size), 0.0)
    for name, values in columns.items():
        values[random.random(size) < 0.03] = np.nan
        for start in random.integers(0, size, days // 60):  # gaps of hours to days, some of exactly one day
            length = int(random.choice([per_day // 4, per_day, per_day, 3 * per_day]))
            begin = start - start % per_day if length == per_day else start
            if name != "PPFD_IN" or length <= per_day:
                values[begin : begin + length] = np.nan
    return FluxTable("XX-Syn", time, step, columns, {n: UNITS[n] for n in columns}, "synthetic")
