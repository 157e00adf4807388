"""Readers: the same weather from every format, in the units asked for; every damage is named."""

from __future__ import annotations

from pathlib import Path

import netCDF4
import numpy as np
import pytest

from bmi_components.errors import (
    BmiComponentsError,
    ConfigurationError,
    ForcingError,
    UnitsError,
    UnknownNameError,
)
from bmi_components.forcing import sample_weather
from bmi_components.forcing.readers import ForcingSource, read_forcing
from bmi_components.forcing.sample_weather import sample
from bmi_components.variables import variable

RAIN, WARMTH, EVAPORATION = (
    variable(symbol) for symbol in ("precipitation", "temperature", "potential_evapotranspiration")
)
DAYS = ["2001-01-01", "2001-01-02", "2001-01-03"]
VALUES = {"a": [(1.0, 5.0), (0.0, 6.0), (2.5, -1.0)], "b": [(3.0, 4.0), (0.5, 7.0), (0.0, 0.0)]}


def write_csv(path: Path, catchment: str, header: str = "time,rain (mm d-1),temperature [degC]") -> Path:
    rows = [f"{day},{rain},{warmth}" for day, (rain, warmth) in zip(DAYS, VALUES[catchment], strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def write_netcdf(path: Path, *, units: dict[str, str] | None = None, transposed: bool = False) -> Path:
    units = units or {"precipitation": "mm d-1", "temperature": "degC"}
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("time", 3)
        file.createDimension("gauge", 2)
        time = file.createVariable("time", "f8", ("time",))
        time.units, time[:] = "days since 2001-01-01", [0, 1, 2]
        names = file.createVariable("gauge", str, ("gauge",))
        names[:] = np.array(["a", "b"], dtype=object)
        data = np.array([VALUES["a"], VALUES["b"]])  # [catchment, time, variable]
        for index, (name, unit) in enumerate(units.items()):
            dimensions = ("gauge", "time") if transposed else ("time", "gauge")
            column = file.createVariable(name, "f4", dimensions, fill_value=-99.0)
            column[:] = data[:, :, index] if transposed else data[:, :, index].T
            if unit:
                column.units = unit
    return path


def expect_values(source: ForcingSource | Path, catchments: tuple[str, ...] = ("a", "b")) -> None:
    forcing = read_forcing(source, [RAIN, WARMTH])
    assert forcing.catchments == catchments
    assert [str(t)[:10] for t in forcing.time] == DAYS
    assert forcing.time_step == 86_400
    for index, symbol in enumerate(("precipitation", "temperature")):
        expected = np.array([[VALUES[c][day][index] for c in catchments] for day in range(3)])
        np.testing.assert_array_equal(forcing.values[symbol], expected)


RENAMED = {"precipitation": "rain"}


def test_a_folder_of_csv_files_is_one_catchment_each(tmp_path: Path) -> None:
    for name in VALUES:
        write_csv(tmp_path / f"{name}.csv", name)
    expect_values(ForcingSource(kind="csv", path=tmp_path, columns=RENAMED))
    expect_values(
        ForcingSource(kind="csv", path=tmp_path, columns=RENAMED, catchments=["b", "a"]), ("b", "a")
    )


def test_a_pattern_finds_the_files_of_the_catchments(tmp_path: Path) -> None:
    for name in VALUES:
        write_csv(tmp_path / f"lumped_{name}_daily.csv", name)
    (tmp_path / "readme.csv").write_text("not forcing\n")
    expect_values(ForcingSource(kind="csv", path=tmp_path / "lumped_{catchment}_daily.csv", columns=RENAMED))


def test_a_csv_file_may_have_a_catchment_column_and_standard_names(tmp_path: Path) -> None:
    rows = [
        f"{day};{name};{VALUES[name][i][1]};{VALUES[name][i][0]}"
        for i, day in enumerate(DAYS)
        for name in VALUES
    ]
    header = f"Date;catchment;{WARMTH.name} (degC);{RAIN.name} (mm d-1)"
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["# a comment", header, *rows]))
    expect_values(path)


@pytest.mark.parametrize("transposed", [False, True])
def test_a_netcdf_file_may_have_its_dimensions_in_either_order(tmp_path: Path, transposed: bool) -> None:
    expect_values(write_netcdf(tmp_path / "weather.nc", transposed=transposed))


def test_units_are_converted_and_amounts_per_step_become_rates(tmp_path: Path) -> None:
    for unit, factor in (
        ("m d-1", 1000.0),
        ("mm h-1", 24.0),
        ("mm", 1.0),
        ("kg m-2", 1.0),
        ("kg m-2 s-1", 86_400.0),
    ):
        path = write_netcdf(tmp_path / "weather.nc", units={"precipitation": unit, "temperature": "degC"})
        rain = read_forcing(path, [RAIN]).values["precipitation"]
        np.testing.assert_allclose(rain[:, 0], factor * np.array([1.0, 0.0, 2.5]), rtol=1e-12)
    path = write_netcdf(tmp_path / "weather.nc", units={"precipitation": "mm", "temperature": "degF"})
    warmth = read_forcing(path, [WARMTH]).values["temperature"]
    np.testing.assert_allclose(warmth[:, 0], (np.array([5.0, 6.0, -1.0]) - 32.0) / 1.8)


def test_the_period_is_cut_out(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "weather.nc")
    assert read_forcing(path, [RAIN], start="2001-01-02", end="2001-01-02").time.size == 1
    with pytest.raises(ForcingError, match="it covers"):
        read_forcing(path, [RAIN], end="2001-01-04")


def test_evaporation_is_computed_where_it_is_not_given(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "weather.nc")
    source = ForcingSource(
        kind="netcdf", path=path, potential_evapotranspiration="oudin", latitude={"a": 45.0, "b": -30.0}
    )
    evaporation = read_forcing(source, [RAIN, EVAPORATION]).values["potential_evapotranspiration"]
    assert (evaporation[:, 1] > evaporation[:, 0]).all()  # January is summer in the south
    assert 0.1 < evaporation[0, 0] < 1.0
    with pytest.raises(ConfigurationError, match="needs 'latitude'"):
        read_forcing(
            ForcingSource(kind="netcdf", path=path, potential_evapotranspiration="oudin"), [EVAPORATION]
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"columns": {}}, ForcingError, r"no column for precipitation .* it has rain, temperature"),
        (
            {"columns": {"precipitation": "prcp"}},
            ForcingError,
            "no column 'prcp' for precipitation; it has rain",
        ),
        ({"columns": {"prcp": "rain"}}, UnknownNameError, "no variable of ours"),
        ({"units": {"precipitation": "mm"}}, ForcingError, "'units' speaks of a column 'precipitation'"),
        ({"units": {"rain": "degC"}}, UnitsError, "'rain'.*'degC' do not convert to 'mm d-1'"),
        ({"units": {"rain": "wetness"}}, UnitsError, "'rain'.*wetness"),
        ({"units": {"temperature": "K"}}, ForcingError, "temperature is -268.15 degC .* are its units right"),
        ({"time": "when"}, ForcingError, "no column 'when'; there are time, rain, temperature"),
        ({"catchments": ["c"]}, UnknownNameError, "no file for catchment 'c'"),
    ],
)
def test_mistakes_in_the_source_are_named(
    tmp_path: Path, change: dict[str, object], error: type[BmiComponentsError], message: str
) -> None:
    for name in VALUES:
        write_csv(tmp_path / f"{name}.csv", name)
    settings = {"kind": "csv", "path": tmp_path, "columns": RENAMED, **change}
    with pytest.raises(error, match=message):
        read_forcing(ForcingSource(**settings), [RAIN, WARMTH])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (
            "time,rain (mm d-1)\n2001-01-01,1\n2001-01-02,\n2001-01-03,2\n",
            "precipitation is missing .* 2001-01-02 ",
        ),
        (
            "time,rain (mm d-1)\n2001-01-01,1\n2001-01-02,wet\n",
            "row 3: 'wet' in column 'rain' is not a number",
        ),
        ("time,rain (mm d-1)\n2001-01-01,1\n2001-01-02,1\n2001-01-04,1\n2001-01-05,1\n", "neither gaps"),
        ("time,rain (mm d-1)\n2001-01-01,1\n2001-01-01,1\n2001-01-02,1\n", "2001-01-01 occurs twice"),
        ("time,rain (mm d-1)\n2001-01-01,1\n2001-01-02\n", "row 3 has 1 cells, the header 2"),
        ("time,rain (mm d-1)\n2001-01-01,1\nsome day,1\n", "row 3: 'some day' is not a date"),
        ("time,rain (mm d-1),rain (mm)\n2001-01-01,1,2\n", "'rain' occurs more than once"),
        ("day,rain (mm d-1)\n2001-01-01,1\n", "no column time, date or datetime"),
    ],
)
def test_damaged_csv_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ForcingError, match=message):
        read_forcing(ForcingSource(kind="csv", path=path, columns=RENAMED), [RAIN])


def test_a_column_without_units_is_not_guessed(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", "a", header="time,precipitation,temperature")
    with pytest.raises(UnitsError, match="'precipitation' declares no units"):
        read_forcing(path, [RAIN])
    units = {"precipitation": "mm d-1", "temperature": "degC"}
    expect_values(ForcingSource(kind="csv", path=path, units=units), ("a",))


def test_files_that_differ_in_time_or_units_are_not_one_forcing(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", "a")
    other = write_csv(tmp_path / "b.csv", "b", header="time,rain (mm h-1),temperature [degC]")
    source = ForcingSource(kind="csv", path=tmp_path, columns=RENAMED)
    with pytest.raises(ForcingError, match=r"has the units 'mm h-1', but 'mm d-1' in a\.csv"):
        read_forcing(source, [RAIN])
    other.write_text(other.read_text().replace("2001", "2002"))
    with pytest.raises(ForcingError, match=r"b\.csv: its times are not those of a\.csv"):
        read_forcing(source, [RAIN])


def test_a_missing_value_in_netcdf_is_named(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "weather.nc")
    with netCDF4.Dataset(path, "a") as file:
        file["temperature"][1, 1] = np.ma.masked
    with pytest.raises(ForcingError, match=r"temperature is missing .* 2001-01-02 in catchment b"):
        read_forcing(path, [RAIN, WARMTH])


def test_a_truncated_netcdf_file_is_refused(tmp_path: Path) -> None:
    path = write_netcdf(tmp_path / "weather.nc")
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 200):
        path.write_bytes(whole[:length])
        with pytest.raises(ForcingError, match=r"not a whole netCDF file|damaged"):
            read_forcing(ForcingSource(kind="netcdf", path=path), [RAIN, WARMTH])


def test_absent_files_and_unknown_suffixes_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.nc", tmp_path / "none.csv", tmp_path):
        with pytest.raises(ForcingError, match="there is no"):
            read_forcing(path, [RAIN])
    with pytest.raises(ConfigurationError, match=r"read from \.nc and \.csv"):
        read_forcing(tmp_path / "weather.xlsx", [RAIN])


def test_sample_weather_comes_in_the_units_asked_for() -> None:
    source = ForcingSource(kind="sample", catchments=["oceanic-hills"], seed=4)
    rain = variable("precipitation", "mm s-1")
    forcing = read_forcing(source, [rain, WARMTH], start="2001-01-01", end="2001-01-31")
    weather = sample_weather.daily_weather(
        "2001-01-01", "2001-01-31", seed=4, catchments=sample(["oceanic-hills"])
    )
    np.testing.assert_allclose(forcing.values["precipitation"] * 86_400, weather.values["precipitation"])
    with pytest.raises(ForcingError, match="has no shortwave"):
        read_forcing(source, [variable("shortwave")], start="2001-01-01", end="2001-01-31")


# --- NextGen -------------------------------------------------------------------------------------------------------

AORC = [
    variable("precipitation", "mm s-1"),
    *(
        variable(symbol)
        for symbol in (
            *("temperature", "specific_humidity", "pressure", "shortwave", "longwave", "wind_x", "wind_y"),
        )
    ),
]


@pytest.fixture(scope="module")
def nextgen_folder(shared_data: Path) -> Path:
    return shared_data / "nextgen" / "forcing"


def test_nextgen_csv_and_netcdf_are_the_same_weather(nextgen_folder: Path) -> None:
    csv = read_forcing(ForcingSource(kind="nextgen", path=nextgen_folder), AORC)
    netcdf = read_forcing(nextgen_folder / "cats-27_52_67-2015_12_01-2015_12_30.nc", AORC)
    assert csv.catchments == netcdf.catchments == ("cat-27", "cat-52", "cat-67")
    assert csv.time_step == 3_600
    assert (str(csv.time[0]), str(csv.time[-1])) == ("2015-12-01T00:00:00", "2015-12-30T23:00:00")
    np.testing.assert_array_equal(csv.time, netcdf.time)
    for v in AORC:
        np.testing.assert_array_equal(csv.values[v.symbol], netcdf.values[v.symbol])
    assert csv.values["temperature"][0, 0] == pytest.approx(12.65, abs=1e-4)
    month = csv.values["precipitation"].sum(axis=0) * 3_600
    assert ((month > 150) & (month < 300)).all()  # mm in December 2015


def test_the_rate_whose_units_are_disputed_is_used_only_with_units_that_agree_with_the_depths(
    nextgen_folder: Path,
) -> None:
    def rain(**options: object) -> np.ndarray:
        source = ForcingSource(kind="nextgen", path=nextgen_folder, **options)  # type: ignore[arg-type]
        return read_forcing(source, AORC).values["precipitation"]

    depths = rain()  # APCP_surface, since precip_rate declares no units
    rates = rain(units={"precip_rate": "m s-1"})
    assert rates.sum() == pytest.approx(depths.sum(), rel=0.02)
    with pytest.raises(UnitsError, match=r"precip_rate adds up to 0\.65.* mm, APCP_surface to 647"):
        rain(units={"precip_rate": "mm s-1"})


def test_a_disputed_rate_alone_is_not_guessed(nextgen_folder: Path, tmp_path: Path) -> None:
    text = next(nextgen_folder.glob("cat-27*.csv")).read_text().replace("APCP_surface", "other")
    path = tmp_path / "cat-27.csv"
    path.write_text(text)
    with pytest.raises(UnitsError, match="precip_rate has no units"):
        read_forcing(ForcingSource(kind="nextgen", path=path), AORC)
    path.write_text(text.replace("precip_rate", "precip_rate (m s-1)"))
    assert read_forcing(ForcingSource(kind="nextgen", path=path), AORC).catchments == ("cat-27",)


def test_a_chosen_catchment_is_not_its_longer_namesake(nextgen_folder: Path, tmp_path: Path) -> None:
    text = next(nextgen_folder.glob("cat-27*.csv")).read_text()
    for name in ("cat-2", "cat-27"):
        (tmp_path / f"{name}_2015.csv").write_text(text)
    assert read_forcing(
        ForcingSource(kind="nextgen", path=tmp_path, catchments=["cat-2"]), AORC
    ).catchments == ("cat-2",)


def test_nextgen_hours_become_days(nextgen_folder: Path) -> None:
    source = ForcingSource(
        kind="nextgen",
        path=nextgen_folder,
        time_step="1 day",
        potential_evapotranspiration="oudin",
        latitude=40.0,
    )
    forcing = read_forcing(source, [RAIN, WARMTH, EVAPORATION])
    assert forcing.time.size == 30
    assert (forcing.values["potential_evapotranspiration"] > 0.0).all()


def test_a_yaml_file_describes_forcing(tmp_path: Path) -> None:
    write_netcdf(tmp_path / "weather.nc")
    description = tmp_path / "weather.yaml"
    description.write_text("kind: netcdf\npath: weather.nc\ncatchments: [b]\nstart: 2001-01-02\n")
    forcing = read_forcing(description, [RAIN])
    assert (forcing.catchments, forcing.time.size) == (("b",), 2)
    description.write_text("kind: netcdf\npath: weather.nc\ncatchment_names: [b]\n")
    with pytest.raises(ConfigurationError, match="catchment_names"):
        read_forcing(description, [RAIN])
