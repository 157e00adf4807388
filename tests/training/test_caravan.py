"""Reading basin data: what is in the files comes out, and what is wrong with them is said."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from bmi_components.errors import BmiComponentsError, ConfigurationError, ForcingError
from bmi_components.forcing.caravan import CAMELS_ATTRIBUTES, BasinDataset, read_caravan

ATTRIBUTES = ("p_mean", "frac_snow")


def test_files_hold_what_was_written(basins: BasinDataset, basin_folder: Path) -> None:
    read = read_caravan(basin_folder, attribute_names=ATTRIBUTES)
    assert read.gauge_ids == basins.gauge_ids
    assert (read.source, read.licence) == (basins.source, basins.licence)
    for name in ("time", "forcing", "target", "attributes", "latitude", "longitude", "area"):
        np.testing.assert_array_equal(getattr(read, name), getattr(basins, name), err_msg=name)


def test_a_netcdf_file_is_read_with_the_table_beside_it(basin_folder: Path) -> None:
    assert read_caravan(basin_folder / "timeseries.nc", attribute_names=ATTRIBUTES).size == 6


def test_a_column_of_text_becomes_the_position_of_its_value(basin_folder: Path) -> None:
    read = read_caravan(basin_folder, attribute_names=("geology",))
    assert read.attributes[:, 0].tolist() == [1, 0, 1, 0, 1, 0]


def test_the_camels_gauges_are_read(shared_data: Path) -> None:
    read = read_caravan(shared_data / "caravan_camels")
    assert read.forcing.shape == (10865, 402, 3)
    assert read.attribute_names == CAMELS_ATTRIBUTES
    assert np.isfinite(read.attributes).all()
    assert str(read.time[0]) == "1981-01-01"
    evaporation = read.forcing[..., 2].mean()
    assert 1 < evaporation < 4, "the Oudin evaporation, not the several times larger one of ERA5-Land"


def test_a_period_is_the_days_from_first_to_last(basins: BasinDataset) -> None:
    days = basins.days(("2001-01-11", "2001-01-20"))
    assert (days.start, days.stop) == (10, 20)


@pytest.mark.parametrize(
    ("period", "message"),
    [
        (("2001-02-01", "2001-01-01"), "ends before it starts"),
        (("2000-12-31", "2001-02-01"), "not within the data"),
        (("2001-01-01", "2031-01-01"), "not within the data"),
    ],
)
def test_a_period_outside_the_data_is_refused(
    basins: BasinDataset, period: tuple[str, str], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        basins.days(period)


def test_an_unknown_gauge_is_named(basins: BasinDataset) -> None:
    assert basins.positions(["g3", "g1"]).tolist() == [3, 1]
    assert basins.select([3, 1]).gauge_ids == ("g3", "g1")
    with pytest.raises(ConfigurationError, match="'g9'"):
        basins.positions(["g1", "g9"])


def test_absent_files_variables_and_attributes_are_named(basin_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere.* does not exist"):
        read_caravan(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="no variable 'humidity'"):
        read_caravan(basin_folder, ("humidity",), ATTRIBUTES)
    with pytest.raises(ConfigurationError, match="no attribute 'clay_frac'"):
        read_caravan(basin_folder, attribute_names=("clay_frac",))
    (basin_folder / "timeseries.nc").write_bytes(b"not netCDF")
    with pytest.raises(ConfigurationError, match="not a readable netCDF file"):
        read_caravan(basin_folder, attribute_names=ATTRIBUTES)


def test_a_hole_in_the_forcing_is_located(basin_folder: Path) -> None:
    with netCDF4.Dataset(basin_folder / "timeseries.nc", "a") as data:
        data["temperature"][4, 10] = np.nan
    with pytest.raises(ForcingError, match=r"temperature of gauge g4 .* 2001-01-11"):
        read_caravan(basin_folder, attribute_names=ATTRIBUTES)


def _kelvin(data: netCDF4.Dataset) -> None:
    data["temperature"].units = "K"


def _gap(data: netCDF4.Dataset) -> None:
    data["time"][5] = 7


def _no_epoch(data: netCDF4.Dataset) -> None:
    data["time"].units = "days"


@pytest.mark.parametrize(
    ("change", "message"), [(_kelvin, "'degC' is needed"), (_gap, "without gaps"), (_no_epoch, "CF units")]
)
def test_wrong_units_and_time_axes_are_refused(basin_folder: Path, change: object, message: str) -> None:
    with netCDF4.Dataset(basin_folder / "timeseries.nc", "a") as data:
        change(data)  # type: ignore[operator]
    with pytest.raises(ConfigurationError, match=message):
        read_caravan(basin_folder, attribute_names=ATTRIBUTES)


def test_a_gauge_without_a_row_in_the_table_is_named(basin_folder: Path) -> None:
    table = basin_folder / "attributes.csv"
    table.write_text(
        "".join(line for line in table.read_text().splitlines(True) if not line.startswith("g5"))
    )
    with pytest.raises(BmiComponentsError, match="no row for gauge 'g5'"):
        read_caravan(basin_folder, attribute_names=ATTRIBUTES)
