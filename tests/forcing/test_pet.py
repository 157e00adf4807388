"""Potential evapotranspiration against reference tables and FAO-56's worked examples, and its limits."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
from torch import Tensor

from bmi_components.forcing import pet


def tensors(*values: float) -> list[Tensor]:
    return [torch.tensor(float(v), dtype=torch.float64) for v in values]


@pytest.fixture(scope="module")
def golden(shared_data: Path) -> dict[str, Tensor]:
    with np.load(shared_data / "golden" / "hbv" / "pet_f64.npz") as file:
        return {name: torch.from_numpy(file[name]).double() for name in file}


def test_hargreaves_reproduces_the_reference_table(golden: dict[str, Tensor]) -> None:
    ours = pet.hargreaves(
        golden["tmean"], golden["tmin"], golden["tmax"], torch.rad2deg(golden["lat_rad"]), golden["doy"]
    )
    # The table was computed with single-precision angles: their rounding is what remains.
    torch.testing.assert_close(ours, golden["hargreaves_mm_day"], rtol=1e-6, atol=2e-6)


def test_penman_monteith_reproduces_the_reference_table_except_where_that_shrinks_humidity(
    golden: dict[str, Tensor],
) -> None:
    reference = golden["penman_monteith_mm_hr"]

    def ours(humidity: Tensor) -> Tensor:
        names = ("temp", "pres", "dswrf", "dlwrf", "u", "v")
        temperature, pressure, shortwave, longwave, u, v = (golden[name] for name in names)
        return pet.penman_monteith_hourly(temperature, humidity, pressure, shortwave, longwave, u, v)

    humidity = golden["spfh"]
    shrunk = humidity > 0.02  # the reference takes such humidity for g kg-1 and divides it by 1000
    assert int(shrunk.sum()) == 5
    torch.testing.assert_close(ours(humidity)[~shrunk], reference[~shrunk], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        ours(torch.where(shrunk, humidity / 1000.0, humidity)), reference, rtol=1e-12, atol=1e-14
    )
    # On the two rows of real tropical humidity the equation evaporates up to 0.072 mm h-1 less.
    tropical = shrunk & (humidity < 0.1)
    excess = (reference - ours(humidity))[tropical]
    assert excess.tolist() == pytest.approx([0.04122714, 0.07209324], abs=1e-6)


def test_oudin_is_what_caravan_ships(shared_data: Path) -> None:
    folder = shared_data / "caravan_camels"
    with open(folder / "attributes.csv", newline="", encoding="utf-8") as file:
        latitude = {row["gauge_id"]: float(row["gauge_lat"]) for row in csv.DictReader(file)}
    with netCDF4.Dataset(folder / "timeseries.nc") as file:
        gauges = [str(g) for g in file["gauge_id"][::40]]
        temperature = np.ma.filled(file["air_temperature"][::40, :], np.nan)
        shipped = np.ma.filled(file["potential_evapotranspiration"][::40, :], np.nan)
        times = netCDF4.num2date(file["time"][:], file["time"].units, only_use_cftime_datetimes=False)
    day = torch.tensor([[time.timetuple().tm_yday for time in times]], dtype=torch.float64)
    degrees = torch.tensor([[latitude[gauge]] for gauge in gauges], dtype=torch.float64)
    ours = pet.oudin(torch.from_numpy(temperature), degrees, day).numpy()
    assert np.nanmax(np.abs(ours - shipped)) <= 0.00501  # half of the 0.01 mm d-1 that the file resolves


def test_radiation_is_that_of_fao56_example_8() -> None:
    # 3 September at 20 degrees South: 32.2 MJ m-2 d-1.
    assert pet.extraterrestrial_radiation(*tensors(-20.0, 246)).item() == pytest.approx(32.2, abs=0.05)


def test_daily_penman_monteith_is_that_of_fao56_example_18() -> None:
    # Brussels, 6 July: 3.9 mm d-1 from net radiation 13.28 MJ m-2 d-1 and vapour pressure 1.409 kPa.
    low, high, pressure = 12.3, 21.5, 100.1e3
    vapour = 1409.0
    humidity = 0.622 * vapour / (pressure - 0.378 * vapour)
    emitted = pet.EMISSIVITY * pet.STEFAN_BOLTZMANN * ((low + 273.15) ** 4 + (high + 273.15) ** 4) / 2
    shortwave = 22.07 / 0.0864
    longwave = (13.28 + emitted - 0.77 * 22.07) / 0.0864
    wind_at_10_m = 2.078 / pet.CROP_HEIGHT_WIND
    evaporation = pet.penman_monteith_daily(
        *tensors((low + high) / 2, low, high, humidity, pressure, shortwave, longwave, wind_at_10_m)
    )
    assert evaporation.item() == pytest.approx(3.88, abs=0.03)


def test_a_day_of_equal_hours_evaporates_about_what_the_daily_form_says() -> None:
    hour = pet.penman_monteith_hourly(*tensors(18.0, 0.008, 1e5, 250.0, 340.0, 2.0, 1.0))
    day = pet.penman_monteith_daily(*tensors(18.0, 18.0, 18.0, 0.008, 1e5, 250.0, 340.0, math.sqrt(5.0)))
    assert 24 * hour.item() == pytest.approx(
        day.item(), rel=0.1
    )  # ground heat takes 10 % of an hour of daylight


def test_nothing_evaporates_in_the_polar_night_or_in_deep_frost() -> None:
    assert pet.extraterrestrial_radiation(*tensors(80.0, 355)).item() == pytest.approx(0.0, abs=1e-9)
    assert pet.oudin(*tensors(-5.0, 45.0, 180)).item() == 0.0
    assert pet.hargreaves(*tensors(-30.0, -40.0, -20.0, 45.0, 20)).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("latitude", "day"), [(90.0, 172), (-90.0, 355)])
def test_the_midnight_sun_shines_at_the_poles(latitude: float, day: int, dtype: torch.dtype) -> None:
    radiation = pet.extraterrestrial_radiation(
        torch.tensor(latitude, dtype=dtype), torch.tensor(float(day), dtype=dtype)
    )
    assert 40.0 < radiation.item() < 50.0


def test_saturated_cold_air_at_night_gives_dew_not_negative_evaporation() -> None:
    assert pet.penman_monteith_hourly(*tensors(0.0, 0.0038, 1e5, 0.0, 200.0, 1.0, 0.0)).item() == 0.0


EDGES: list[tuple[Callable[..., Tensor], list[float]]] = [
    (pet.hargreaves, [10.0, 10.0, 10.0, 45.0, 100]),  # no diurnal range
    (pet.hargreaves, [10.0, 5.0, 15.0, 66.5, 172]),  # the edge of the midnight sun
    (pet.hargreaves, [-20.0, -25.0, -15.0, 85.0, 355]),
    (pet.oudin, [-5.0, 90.0, 172]),
    (pet.oudin, [10.0, 0.0, 80]),
    (pet.penman_monteith_hourly, [15.0, 0.01, 1e5, 300.0, 300.0, 0.0, 0.0]),  # calm
    (pet.penman_monteith_daily, [15.0, 15.0, 15.0, 0.01, 1e5, 200.0, 300.0, 0.0]),
]


@pytest.mark.parametrize(("method", "values"), EDGES)
def test_gradients_are_finite_at_the_edges(method: Callable[..., Tensor], values: list[float]) -> None:
    inputs = [v.requires_grad_() for v in tensors(*values)]
    method(*inputs).backward()
    for tensor in inputs:
        assert tensor.grad is not None
        assert torch.isfinite(tensor.grad)


def test_gradients_are_the_derivatives() -> None:
    points: list[tuple[Callable[..., Tensor], list[float]]] = [
        (pet.hargreaves, [12.0, 4.0, 19.0, 40.0, 150]),
        (pet.oudin, [12.0, 40.0, 150]),
        (pet.penman_monteith_hourly, [20.0, 0.009, 9.5e4, 500.0, 330.0, 2.0, -1.0]),
        (pet.penman_monteith_daily, [20.0, 12.0, 28.0, 0.009, 9.5e4, 200.0, 330.0, 2.0]),
    ]
    for method, values in points:
        assert torch.autograd.gradcheck(method, [v.requires_grad_() for v in tensors(*values)])


def test_catchments_and_days_broadcast() -> None:
    latitude = torch.tensor([10.0, 45.0, 60.0])
    day = torch.arange(1.0, 366.0)[:, None]
    evaporation = pet.oudin(torch.full((365, 3), 12.0), latitude, day)
    assert evaporation.shape == (365, 3)
    assert evaporation[171, 2] > evaporation[171, 0] > evaporation[354, 0] > evaporation[354, 2]


def test_the_methods_compile_to_machine_code() -> None:
    elementwise = pytest.importorskip("bmi_components.kernels.elementwise")
    low = np.array([-20.0, 5e-4, 7e4, 0.0, 150.0, -9.0, -9.0])
    high = np.array([40.0, 0.03, 1.03e5, 1000.0, 450.0, 9.0, 9.0])
    inputs = np.random.default_rng(0).uniform(low[:, None], high[:, None], (7, 50))
    kernel = elementwise.Elementwise(lambda *x: (pet.penman_monteith_hourly(*x),), 7, 1, "float64")
    compiled = kernel(inputs, np.empty((1, 50)))[0]
    eager = pet.penman_monteith_hourly(*torch.from_numpy(inputs)).numpy()
    np.testing.assert_allclose(compiled, eager, rtol=1e-12, atol=1e-15)
