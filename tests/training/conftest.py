"""A made-up basin data set that a model can learn from in seconds."""

from __future__ import annotations

import csv
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from bmi_components.forcing.caravan import BasinDataset

DAYS = 900
GAUGES = 6
FORCING = ("precipitation", "temperature", "potential_evapotranspiration")
ATTRIBUTES = ("p_mean", "frac_snow")


@pytest.fixture
def basins() -> BasinDataset:
    """Six catchments whose streamflow is a leaky store of their precipitation, with a gap of 40 days at one."""
    random = np.random.default_rng(7)
    precipitation = random.gamma(0.3, 8.0, (DAYS, GAUGES)) * np.linspace(0.5, 1.5, GAUGES)
    season = np.sin(2 * np.pi * np.arange(DAYS) / 365.25)[:, None]
    temperature = 10 + 10 * season + random.normal(0, 1, (DAYS, GAUGES))
    evaporation = np.maximum(0.1, 2 + 1.5 * season) * np.ones((1, GAUGES))
    streamflow = np.empty((DAYS, GAUGES))
    store = np.full(GAUGES, 10.0)
    for day in range(DAYS):
        store = np.maximum(store + precipitation[day] - 0.4 * evaporation[day], 0.0)
        streamflow[day] = 0.1 * store
        store -= streamflow[day]
    streamflow[300:340, 2] = np.nan
    return BasinDataset(
        gauge_ids=tuple(f"g{number}" for number in range(GAUGES)),
        time=np.datetime64("2001-01-01", "D") + np.arange(DAYS),
        forcing=np.stack((precipitation, temperature, evaporation), axis=-1).astype(np.float32),
        forcing_names=FORCING,
        target=streamflow.astype(np.float32),
        attributes=np.stack((precipitation.mean(0), np.linspace(0, 0.5, GAUGES)), axis=-1).astype(np.float32),
        attribute_names=ATTRIBUTES,
        latitude=np.linspace(30.0, 50.0, GAUGES),
        longitude=np.linspace(-120.0, -70.0, GAUGES),
        area=np.full(GAUGES, 500.0),
        source="made up",
        licence="CC0-1.0",
    )


@pytest.fixture
def basin_folder(basins: BasinDataset, tmp_path: Path) -> Path:
    """Hold the same data as files in the layout that `read_caravan` reads."""
    folder = tmp_path / "basins"
    folder.mkdir()
    with netCDF4.Dataset(folder / "timeseries.nc", "w") as data:
        data.title, data.license = basins.source, basins.licence
        data.createDimension("gauge_id", basins.size)
        data.createDimension("time", basins.time.size)
        names = data.createVariable("gauge_id", str, ("gauge_id",))
        for position, gauge in enumerate(basins.gauge_ids):
            names[position] = gauge
        time = data.createVariable("time", "i4", ("time",))
        time.units = "days since 2001-01-01"
        time[:] = np.arange(basins.time.size)
        series = {name: basins.forcing[..., column] for column, name in enumerate(FORCING)}
        for name, values in (series | {"streamflow": basins.target}).items():
            variable = data.createVariable(name, "f4", ("gauge_id", "time"), fill_value=-9999.0)
            variable.units = "degC" if name == "temperature" else "mm d-1"
            variable[:] = np.ma.masked_invalid(values.T)
    with (folder / "attributes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("gauge_id", "gauge_lat", "gauge_lon", "area_gages2", *ATTRIBUTES, "geology"))
        for position, gauge in enumerate(basins.gauge_ids):
            where = (basins.latitude[position], basins.longitude[position], basins.area[position])
            rock = ("sand", "chalk")[position % 2]
            writer.writerow((gauge, *where, *(repr(float(v)) for v in basins.attributes[position]), rock))
    return folder
