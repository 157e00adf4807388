"""Invented windows that a flux model can learn from in seconds, and a tower file that holds such a tower."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bmi_components.lstm.flux.windows import Windows

INPUT_NAMES = ("PPFD_IN", "TA_F", "DOY")


def learnable_windows(
    days: int = 1100, length: int = 5, first: str = "2015-01-01", seed: int = 0, site: str = "XX-Syn"
) -> Windows:
    """Exchange follows light times warmth of the last three days; both have seasons and weather."""
    random = np.random.default_rng(seed)
    date = np.datetime64(first, "D") + np.arange(days)
    doy = (date - date.astype("datetime64[Y]")).astype(np.float64) + 1
    season = -np.cos(2 * np.pi * doy / 365.25)
    light = (700 + 350 * season) * random.uniform(0.4, 1.0, days)
    warmth = 12 + 8 * season + random.normal(0, 3, days)
    memory = np.convolve(warmth, np.ones(3) / 3)[:days]
    target = 2 - 0.0008 * light * np.maximum(memory, 0) + random.normal(0, 0.3, days)
    inputs = np.stack((light, warmth, (doy - 183) / 105.66), axis=1).astype(np.float32)
    last = np.arange(length - 1, days)
    date = date[last]
    year = date.astype("datetime64[Y]").astype(np.int64) + 1970
    return Windows(
        inputs=inputs[last[:, None] + np.arange(1 - length, 1)],
        target=target[last],
        date=date,
        season_year=year,
        calendar_year=year,
        site=np.full(last.size, site),
        input_names=INPUT_NAMES,
        input_units=("umol m-2 s-1", "degC", "1"),
        target_name="NEE",
        target_units="umol m-2 s-1",
    )


def write_tower(path: Path, days: int = 800, first: str = "2015-01-01", seed: int = 0) -> Path:
    """Write a daily csv file of the tower of `learnable_windows`."""
    made = learnable_windows(days, 1, first, seed)
    rows = ["TIMESTAMP_START,PPFD_IN (umol m-2 s-1),TA_F (degC),NEE (umol m-2 s-1)"]
    for day, (light, warmth, _), exchange in zip(made.date, made.inputs[:, 0], made.target, strict=True):
        rows.append(f"{str(day).replace('-', '')},{light:.3f},{warmth:.4f},{exchange:.4f}")
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path
