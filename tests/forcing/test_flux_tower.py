"""Flux tower files: every format becomes the same table; gaps, order and repeats are healed or named."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError
from bmi_components.forcing.flux_conventions import columns_named, units_of
from bmi_components.forcing.flux_tower import read_flux_table
from bmi_components.units import converter

TIMES = ["201001010000", "201001010030", "201001010100"]
ENDS = ["201001010030", "201001010100", "201001010130"]
TEMPERATURE = ["1.5", "-9999", "2.5"]
EXCHANGE = ["-3", "0.5", "-9999"]


def base_file(path: Path, rows: list[int] | None = None, header: str = "NEE_PI") -> Path:
    body = [f"{TIMES[i]},{ENDS[i]},{TEMPERATURE[i]},{EXCHANGE[i]}" for i in rows or (0, 1, 2)]
    lines = [
        "# Site: US-Tst",
        "# Version: 1-5",
        f"TIMESTAMP_START,TIMESTAMP_END,TA_1_1_3,{header}",
        *body,
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def expect_truth(table, temperature: str = "TA_1_1_3", exchange: str = "NEE_PI") -> None:  # type: ignore[no-untyped-def]
    assert table.step == 1800
    assert [str(moment) for moment in table.time] == [
        "2010-01-01T00:00:00",
        "2010-01-01T00:30:00",
        "2010-01-01T01:00:00",
    ]
    np.testing.assert_array_equal(table.columns[temperature], [1.5, np.nan, 2.5])
    np.testing.assert_array_equal(table.columns[exchange], [-3.0, 0.5, np.nan])
    assert table.units[temperature] == "degC"
    assert table.units[exchange] == "umol m-2 s-1"


def test_ameriflux_base_has_comments_positions_and_its_own_gap_value(tmp_path: Path) -> None:
    table = read_flux_table(base_file(tmp_path / "AMF_US-Tst_BASE_HH_1-5.csv"))
    expect_truth(table)
    assert table.site == "US-Tst"
    assert table.find("TA") == "TA_1_1_3"


def test_fluxnet_has_no_comments(tmp_path: Path) -> None:
    path = tmp_path / "AMF_US-Xyz_FLUXNET_FULLSET_HH_2010-2010_3-5.csv"
    rows = [f"{TIMES[i]},{ENDS[i]},{TEMPERATURE[i]},{EXCHANGE[i]},0,{i}" for i in range(3)]
    path.write_text(
        "\n".join(["TIMESTAMP_START,TIMESTAMP_END,TA_F,NEE_VUT_REF,NEE_VUT_REF_QC,P_F", *rows]) + "\n"
    )
    table = read_flux_table(path)
    expect_truth(table, "TA_F", "NEE_VUT_REF")
    assert table.site == "US-Xyz"
    assert table.units["NEE_VUT_REF_QC"] == "1"
    # a depth per half-hour is a rate: 1 mm in 30 minutes is 48 mm a day
    assert converter(table.units["P_F"], "mm d-1")(1.0) == pytest.approx(48.0)


def test_daily_fluxnet_gives_carbon_as_mass_per_day(tmp_path: Path) -> None:
    path = tmp_path / "FLX_US-Xyz_FLUXNET2015_FULLSET_DD_2010-2010_1-3.csv"
    path.write_text("TIMESTAMP,NEE_VUT_REF,P_F\n20100101,-1,2\n20100102,-2,0\n20100104,3,1\n")
    table = read_flux_table(path)
    assert table.daily
    assert table.units == {"NEE_VUT_REF": "g m-2 d-1", "P_F": "mm d-1"}
    np.testing.assert_array_equal(table.columns["NEE_VUT_REF"], [-1, -2, np.nan, 3])


def test_plain_csv_may_name_everything_differently(tmp_path: Path) -> None:
    path = tmp_path / "tower.csv"
    rows = [
        f"2010-01-01T{hour}:00,{kelvin},{flux},dry"
        for hour, kelvin, flux in (("00:30", 274.65, -3), ("01:00", "", 0.5), ("01:30", 275.65, "NaN"))
    ]
    path.write_text("\n".join(["until,warmth (K),flux,remark", *rows]) + "\n")
    table = read_flux_table(
        path,
        columns={"TIMESTAMP_END": "until", "TA": "warmth", "NEE": "flux"},
        site="my tower",
        units={"NEE": "nmol m-2 s-1"},
    )
    assert str(table.time[0]) == "2010-01-01T00:00:00"
    np.testing.assert_array_equal(table.columns["TA"], [274.65, np.nan, 275.65])
    assert table.units == {"TA": "K", "NEE": "nmol m-2 s-1"}
    assert table.site == "my tower"
    assert "remark" not in table.columns


@pytest.mark.parametrize("packing", ["gz", "zip"])
def test_packed_files_are_read_as_they_are_delivered(tmp_path: Path, packing: str) -> None:
    plain = base_file(tmp_path / "AMF_US-Tst_BASE_HH_1-5.csv")
    packed = tmp_path / f"delivered.{packing}"
    if packing == "gz":
        packed.write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.write(plain, "AMF_US-Tst_BASE_HH_1-5.csv")
            archive.writestr("AMF_US-Tst_BIF.xlsx", b"other")
    table = read_flux_table(packed)
    expect_truth(table)
    assert table.site == "US-Tst"


def test_an_archive_gives_its_finest_table_or_asks(tmp_path: Path) -> None:
    content = base_file(tmp_path / "one.csv").read_text()
    archive = tmp_path / "both.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("AMF_US-Tst_FLUXNET_FULLSET_DD_2010-2010_3-5.csv", "TIMESTAMP,TA_F\n20100101,1\n")
        file.writestr("AMF_US-Tst_FLUXNET_FULLSET_HH_2010-2010_3-5.csv", content)
    expect_truth(read_flux_table(archive))
    with zipfile.ZipFile(tmp_path / "unclear.zip", "w") as file:
        file.writestr("a.csv", content)
        file.writestr("b.csv", content)
    with pytest.raises(ForcingError, match=r"which file.*a\.csv, b\.csv"):
        read_flux_table(tmp_path / "unclear.zip")


def test_a_gap_in_the_times_becomes_a_row_of_nan_and_order_does_not_matter(tmp_path: Path) -> None:
    table = read_flux_table(base_file(tmp_path / "gap.csv", rows=[2, 0]))
    np.testing.assert_array_equal(table.columns["TA_1_1_3"], [1.5, np.nan, 2.5])
    np.testing.assert_array_equal(table.columns["NEE_PI"], [-3.0, np.nan, np.nan])


def test_a_row_that_is_there_twice_counts_once_but_must_agree(tmp_path: Path) -> None:
    expect_truth(read_flux_table(base_file(tmp_path / "twice.csv", rows=[0, 1, 1, 2])))
    path = base_file(tmp_path / "contradiction.csv")
    path.write_text(path.read_text() + f"{TIMES[0]},{ENDS[0]},99,1\n")
    with pytest.raises(ForcingError, match=r"occurs twice with different TA_1_1_3; .*summer time"):
        read_flux_table(path)


def test_files_are_joined_by_column_and_appended_in_time(tmp_path: Path) -> None:
    (tmp_path / "warmth.csv").write_text("time,TA\n2010-01-01 00:00,1.5\n2010-01-01 00:30,\n")
    (tmp_path / "later.csv").write_text("time,TA\n2010-01-01 01:00,2.5\n2010-01-01 01:30,9\n")
    (tmp_path / "flux.csv").write_text("time,NEE\n2010-01-01 00:00,-3\n2010-01-01 00:30,0.5\n")
    files = [tmp_path / name for name in ("later.csv", "warmth.csv", "flux.csv")]
    table = read_flux_table(files)
    np.testing.assert_array_equal(table.columns["TA"], [1.5, np.nan, 2.5, 9.0])
    np.testing.assert_array_equal(table.columns["NEE"], [-3.0, 0.5, np.nan, np.nan])
    (tmp_path / "other.csv").write_text("time,NEE\n2010-01-01 00:00,-4\n2010-01-01 00:30,0.5\n")
    with pytest.raises(ForcingError, match=r"other\.csv: NEE at 2010-01-01T00:00:00"):
        read_flux_table([*files, tmp_path / "other.csv"])
    (tmp_path / "hourly.csv").write_text("time,RH\n2010-01-01 00:00,-4\n2010-01-01 01:00,0.5\n")
    with pytest.raises(ForcingError, match=r"intervals are 3600 s long, those of later\.csv 1800 s"):
        read_flux_table([*files, tmp_path / "hourly.csv"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("time,TA\n", "holds no rows"),
        ("TA,RH\n1,2\n", "no column of time stamps"),
        ("time,TA\n2010-01-01,1\n", "one time alone"),
        ("time,TA\nyesterday,1\ntoday,2\n", "neither YYYYMMDDHHMM nor ISO 8601"),
        ("time,TA\n201013010000,1\n201013010030,1\n", "neither YYYYMMDDHHMM"),
        ("time,TA\n201002300000,1\n201003010030,1\n", "neither YYYYMMDDHHMM"),
        ("time,TA\n2010-01-01 00:00,1\n2010-01-01 00:30,x\n", "row 2: 'x' in column 'TA' is not a number"),
        ("time,TA\n2010-01-01 00:10,1\n2010-01-01 00:40,2\n", "not a whole number of intervals"),
        ("time,TA\n2010-01-01 00:00,1\n2010-01-01 00:07,2\n", "intervals are 420 s long"),
        ("time,TA\n2010-01-01,1\n2010-01-08,2\n", "intervals are 604800 s long"),
        ("time,TA,TA\n2010-01-01,1,1\n2010-01-02,2,2\n", "'TA' occurs more than once"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tower.csv"
    path.write_text(content)
    with pytest.raises(ForcingError, match=message):
        read_flux_table(path)


def test_other_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ForcingError, match="there is no flux tower file"):
        read_flux_table(tmp_path / "absent.csv")
    with pytest.raises(ConfigurationError, match="list of paths is empty"):
        read_flux_table([])
    path = base_file(tmp_path / "tower.csv")
    with pytest.raises(ConfigurationError, match="columns names 'RH'"):
        read_flux_table(path, columns={"RH": "humidity"})
    with pytest.raises(ConfigurationError, match="units names 'RH'"):
        read_flux_table(path, units={"RH": "1"})
    with pytest.raises(UnknownNameError, match="no column 'RH'"):
        read_flux_table(path).find("RH")
    (tmp_path / "broken.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    with pytest.raises(ForcingError, match="damaged"):
        read_flux_table(tmp_path / "broken.gz")
    path.rename(tmp_path / "FLX_US-Tst_FLUXNET2015_FULLSET_MM_2010-2010_1-3.csv")
    with pytest.raises(ForcingError, match="monthly"):
        read_flux_table(tmp_path / "FLX_US-Tst_FLUXNET2015_FULLSET_MM_2010-2010_1-3.csv")


def test_positions_are_found_but_never_guessed(tmp_path: Path) -> None:
    columns = ["SWC_1_1_1", "SWC_1_2_1", "SWC_F", "SWC_1_1_1_QC", "TS_F_MDS_4", "WD", "WD_1_1_1"]
    assert columns_named("SWC", columns) == ["SWC_1_1_1", "SWC_1_2_1"]
    assert columns_named("TS_F_MDS", columns) == ["TS_F_MDS_4"]
    assert columns_named("WD", columns) == ["WD"]
    table = read_flux_table(base_file(tmp_path / "tower.csv", header="TA_1_2_1"))
    with pytest.raises(UnknownNameError, match=r"which TA\? There are TA_1_1_3, TA_1_2_1"):
        table.find("TA")


def test_units_follow_the_conventions() -> None:
    expected = {
        "PPFD_IN_PI_F": "umol m-2 s-1",
        "P": "mm (1800 s)-1",
        "PA_F": "kPa",
        "P_F_QC": "1",
        "SW_IN_F_MDS": "W m-2",
        "SWC_1_5_1": "percent",
        "D_SNOW": "cm",
        "VPD_F": "hPa",
        "GPP_NT_VUT_REF": "umol m-2 s-1",
        "H_F_MDS": "W m-2",
        "H2O": "mmol mol-1",
        "NIGHT": "1",
    }
    assert {name: units_of(name, 1800) for name in expected} == expected


@pytest.mark.parametrize(
    ("site", "first", "rows"),
    [
        ("US-Bi1", "2018-06-30T23:30:00", 52_608),
        ("US-Me2", "2019-06-30T23:30:00", 11_712),
        ("US-Whs", "2012-01-31T23:30:00", 53_952),
    ],
)
def test_the_towers_at_hand(shared_data: Path, site: str, first: str, rows: int) -> None:
    table = read_flux_table(sorted((shared_data / "fluxtower" / site).glob("*.csv.gz")))
    assert table.site == site
    assert str(table.time[0]) == first
    assert table.time.size == rows
    assert table.units[table.find("SWC_F_MDS")] == "m3 m-3"  # FLUXNET says percent; these files do not
    # The labels are ends, not starts: noon is when the sun says so (within ten minutes of the tower's longitude).
    light, hour = (
        table.columns["SW_IN_F"],
        (table.time - table.time.astype("datetime64[D]")).astype(int) / 3600,
    )
    day = np.isfinite(light)
    centre = (light[day] * (hour[day] + 0.25)).sum() / light[day].sum()
    solar_noon = {"US-Bi1": 12.10, "US-Me2": 12.10, "US-Whs": 12.34}[site]
    assert abs(centre - solar_noon) < 0.17
