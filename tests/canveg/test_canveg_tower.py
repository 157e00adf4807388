"""Tower files: columns are found or asked about, units convert, gaps stay gaps, and parts of a year do not touch."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.canveg.tower import (
    MEASURED,
    common_period,
    read_fluxes,
    read_forcing,
    split_blocks,
)
from bmi_components.errors import ConfigurationError, ForcingError

SITES = ("US-Bi1", "US-Me2", "US-Whs")

FORCING = (
    "TIMESTAMP_END,Year,DoY,Hour,TA_F,SW_IN_F,eair,WS_F,CO2,PA_F,USTAR,TS_F_MDS_4,SWC_F_MDS_1,veg_ht,LAI"
)
ROWS = (
    "2020-06-30 23:30:00,2020,182,23.5,12.7,0.0,1.09,2.4,410.0,100.3,0.3,26.0,0.09,0.8,2.1",
    "2020-07-01 00:00:00,2020,183,0.0,12.5,0.0,1.08,2.3,411.0,100.3,0.2,25.9,0.09,0.8,2.1",
    "2020-07-01 00:30:00,2020,183,0.5,12.3,0.0,1.07,2.2,412.0,100.3,0.1,25.8,0.09,0.8,2.1",
)
FLUXES = "TIMESTAMP_END,P_F,LE_F_MDS,LE_MODIS,H_F_MDS,NETRAD,G_F_MDS,NEE_VUT_REF"


def write(path: Path, header: str, rows: tuple[str, ...]) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return path


def flux_rows(values: np.ndarray) -> tuple[str, ...]:
    start = np.datetime64("2020-07-01T00:30")
    return tuple(
        f"{str(start + np.timedelta64(30 * i, 'm')).replace('T', ' ')}:00,0,{v},900,{v},{v},{v},{v}"
        for i, v in enumerate(values)
    )


# Forcing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_published_forcing_is_what_the_published_model_reads(shared_data: Path, site: str) -> None:
    tower = read_forcing(shared_data / "fluxtower" / site / f"{site}-forcings-test.csv.gz")
    assert (tower.site, tower.step) == (site, 1800)
    theirs = np.load(shared_data / "golden" / "canveg" / f"{site}_forcing_obs.npz")
    steps = theirs["met.T_air"].size
    names = {
        "day_of_year": "day",
        "hour": "hhour",
        "air_temperature": "T_air",
        "shortwave": "rglobal",
        "vapour_pressure": "eair",
        "wind_speed": "wind",
        "co2": "CO2",
        "pressure": "P_kPa",
        "friction_velocity": "ustar",
        "soil_temperature": "Tsoil",
        "soil_moisture": "soilmoisture",
        "leaf_area_index": "lai",
        "canopy_height": "zcanopy",
    }
    least = {"shortwave": 0.0, "wind_speed": 0.75, "friction_velocity": 0.1}  # the model's, not the reader's
    for ours, name in names.items():
        values = np.maximum(getattr(tower.forcing, ours)[:steps], least.get(ours, -np.inf))
        np.testing.assert_array_equal(values, theirs[f"met.{name}"], err_msg=ours)
    assert np.isnan(tower.forcing.longwave).all()


def test_clock_gives_midnight_to_the_new_day(tmp_path: Path) -> None:
    without = ",".join(FORCING.split(",")[:1] + FORCING.split(",")[4:])
    rows = tuple(",".join(row.split(",")[:1] + row.split(",")[4:]) for row in ROWS)
    tower = read_forcing(write(tmp_path / "US-Xxx.csv", without, rows))
    assert tower.forcing.day_of_year.tolist() == [182.0, 183.0, 183.0]
    assert tower.forcing.hour.tolist() == [23.5, 0.0, 0.5]
    assert str(tower.time[0]) == "2020-06-30T23:00:00"
    assert len(tower.select(slice(1, 3))) == 2


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (FORCING.replace("eair", "VPD"), "no column for vapour_pressure, whose name would begin with eair"),
        (FORCING.replace("veg_ht", "TS_F_MDS_2"), "TS_F_MDS_4 and TS_F_MDS_2 compete for soil_temperature"),
        (FORCING.replace("SWC_F_MDS_1,veg_ht", "veg_ht,SWC_F_MDS_1"), None),
    ],
)
def test_columns_are_found_or_asked_about(tmp_path: Path, header: str, sentence: str | None) -> None:
    path = write(tmp_path / "US-Xxx-forcings.csv", header, ROWS)
    if sentence is None:
        tower = read_forcing(path)
        assert tower.forcing.soil_moisture[0] == 0.8
        assert tower.forcing.canopy_height[0] == 0.09
    else:
        with pytest.raises(ForcingError, match=sentence):
            read_forcing(path)


def test_headers_of_other_towers_are_understood(tmp_path: Path) -> None:
    # as at US-Hn1: parts of words, other heights, and photosynthetic radiation beside pressure
    header = "TIMESTAMP_END,Year,DoY,Hour,Tair,Rg,eair,WS_x,CO2,PA,Ustar,TS_15cm,SWC_15cm,PAR,LAI"
    forcing = read_forcing(write(tmp_path / "US-Xxx.csv", header, ROWS)).forcing
    assert (forcing.air_temperature[0], forcing.pressure[0], forcing.soil_moisture[0]) == (12.7, 100.3, 0.09)
    assert np.isnan(forcing.canopy_height).all()


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path / "US-Xxx.csv", FORCING.replace("veg_ht", "TS_F_MDS_2"), ROWS)
    tower = read_forcing(path, columns={"soil_temperature": "TS_F_MDS_2"})
    assert tower.forcing.soil_temperature[0] == 0.8
    with pytest.raises(ConfigurationError, match="there is no 'soil_heat'"):
        read_forcing(path, columns={"soil_heat": "TS_F_MDS_2"})
    with pytest.raises(ConfigurationError, match="has no 'TS_9'"):
        read_forcing(path, columns={"soil_temperature": "TS_9"})


def test_units_in_the_header_convert(tmp_path: Path) -> None:
    header = FORCING.replace("eair", "eair (hPa)").replace("TA_F", "TA_F (K)")
    forcing = read_forcing(write(tmp_path / "US-Xxx.csv", header, ROWS)).forcing
    assert forcing.vapour_pressure[0] == pytest.approx(0.109)
    assert forcing.air_temperature[0] == pytest.approx(12.7 - 273.15)
    with pytest.raises(ForcingError, match="SWC_F_MDS_1"):
        read_forcing(write(tmp_path / "b.csv", FORCING.replace("SWC_F_MDS_1", "SWC_F_MDS_1 (K)"), ROWS))


def test_wrong_forcing_is_a_sentence(tmp_path: Path) -> None:
    gap = (*ROWS[:2], ROWS[2].replace("412.0", "-9999"))
    with pytest.raises(ForcingError, match=r"CO2 is missing in 1 of 3 steps, first at 2020-07-01T00:00"):
        read_forcing(write(tmp_path / "a.csv", FORCING, gap))
    with pytest.raises(ForcingError, match="forcing without gaps"):
        read_forcing(write(tmp_path / "b.csv", FORCING, (*ROWS, ROWS[2].replace("00:30", "02:00"))))
    with pytest.raises(ForcingError, match=r"Hour is 12\.5 for the step that starts at 2020-07-01T00:00"):
        read_forcing(write(tmp_path / "c.csv", FORCING, (*ROWS[:2], ROWS[2].replace(",0.5,", ",12.5,"))))
    wet = tuple(row.replace(",0.09,", ",9.0,") for row in ROWS)
    with pytest.raises(ForcingError, match="soil moisture reaches 9"):
        read_forcing(write(tmp_path / "d.csv", FORCING, wet))


# Fluxes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("site", SITES)
def test_published_fluxes_with_gaps_bridged_are_the_published_targets(shared_data: Path, site: str) -> None:
    path = shared_data / "fluxtower" / site / f"{site}-fluxes-test.csv.gz"
    bridged = read_fluxes(path, interpolate_gaps=True)
    theirs = np.load(shared_data / "golden" / "canveg" / f"{site}_forcing_obs.npz")
    names = ("LE", "H", "gsoil", "rnet", "Fco2", "GPP", "Rsoil")
    for ours, name in zip(MEASURED, names, strict=True):
        values = getattr(bridged, ours)[: theirs["obs.LE"].size]
        np.testing.assert_array_equal(values, theirs[f"obs.{name}"], err_msg=ours)
    observed = read_fluxes(path)
    assert np.isnan(observed.net_ecosystem_exchange).sum() > np.isnan(bridged.net_ecosystem_exchange).sum()
    both = np.isfinite(observed.latent_heat)
    np.testing.assert_array_equal(observed.latent_heat[both], bridged.latent_heat[both])


def test_gaps_stay_gaps_unless_the_published_targets_are_wanted(tmp_path: Path) -> None:
    values = np.array([-9999.0, 3.0, -9999.0, 7.0, 2.0, -9999.0])
    path = write(tmp_path / "US-Xxx-fluxes.csv", FLUXES, flux_rows(values))
    np.testing.assert_array_equal(read_fluxes(path).latent_heat, [np.nan, 3.0, np.nan, 7.0, 2.0, np.nan])
    bridged = read_fluxes(path, interpolate_gaps=True).latent_heat
    np.testing.assert_array_equal(bridged, [np.nan, 3.0, 5.0, 7.0, 2.0, 2.0])
    assert np.isnan(read_fluxes(path).soil_respiration).all()


def test_a_straight_line_is_a_gap(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=40)
    values[10:22] = np.linspace(values[10], values[21], 12)
    path = write(tmp_path / "US-Xxx-fluxes.csv", FLUXES, flux_rows(values))
    assert np.flatnonzero(np.isnan(read_fluxes(path).latent_heat)).tolist() == list(range(11, 21))
    assert np.isfinite(read_fluxes(path, straight_hours=None).latent_heat).all()


def test_flags_tell_what_was_measured(tmp_path: Path) -> None:
    rows = tuple(
        f"{row},{flag}" for row, flag in zip(flux_rows(np.array([1.0, 4.0, 2.0])), (0, 1, 3), strict=True)
    )
    path = write(tmp_path / "US-Xxx-fluxes.csv", f"{FLUXES},LE_F_MDS_QC", rows)
    np.testing.assert_array_equal(read_fluxes(path).latent_heat, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(read_fluxes(path).sensible_heat, [1.0, 4.0, 2.0])


def test_competing_or_absent_fluxes_are_a_sentence(tmp_path: Path) -> None:
    rows = flux_rows(np.array([1.0, 4.0]))
    path = write(tmp_path / "a.csv", FLUXES.replace("LE_MODIS", "NEE_CUT_REF"), rows)
    with pytest.raises(ForcingError, match="NEE_CUT_REF and NEE_VUT_REF compete for net_ecosystem_exchange"):
        read_fluxes(path)
    chosen = read_fluxes(path, columns={"net_ecosystem_exchange": "NEE_CUT_REF"})
    assert chosen.net_ecosystem_exchange[0] == 900.0
    with pytest.raises(ForcingError, match="there is no flux in it"):
        read_fluxes(write(tmp_path / "b.csv", FORCING, ROWS))


def test_packed_files_read_alike(tmp_path: Path) -> None:
    path = write(tmp_path / "US-Xxx-fluxes.csv", FLUXES, flux_rows(np.array([1.0, 4.0, 2.0])))
    packed = tmp_path / "US-Xxx-fluxes.csv.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    np.testing.assert_array_equal(read_fluxes(packed).latent_heat, read_fluxes(path).latent_heat)


# Periods ----------------------------------------------------------------------------------------------------


def test_only_common_steps_are_kept(tmp_path: Path) -> None:
    forcing = read_forcing(write(tmp_path / "US-Xxx.csv", FORCING, ROWS))
    fluxes = read_fluxes(write(tmp_path / "US-Xxx-fluxes.csv", FLUXES, flux_rows(np.array([1.0, 4.0, 2.0]))))
    a, b = common_period(forcing, fluxes)
    assert len(a) == len(b) == 1
    assert a.time.tolist() == b.time.tolist()
    assert (a.forcing.co2[0], b.latent_heat[0]) == (412.0, 1.0)
    with pytest.raises(ForcingError, match="no time in common"):
        common_period(forcing.select(slice(0, 1)), fluxes)


@given(
    train=st.integers(1, 20),
    validation=st.integers(1, 10),
    test=st.integers(1, 10),
    gap=st.integers(0, 3),
)
def test_parts_never_touch(train: int, validation: int, test: int, gap: int) -> None:
    time = np.datetime64("2014-07-01T00:00:00") + np.arange(0, 48 * 120) * np.timedelta64(1800, "s")
    parts = split_blocks(time, {"train": train, "validation": validation, "test": test}, gap=gap)
    owner = np.stack(list(parts.values())).astype(int)
    assert (owner.sum(axis=0) <= 1).all()
    assert parts["train"][: 48 * train].all()
    label = np.where(owner.any(axis=0), owner.argmax(axis=0), -1)
    edges = np.flatnonzero(np.diff(label))
    lengths = np.diff(edges)[:-1]
    assert all(length / 48 in (train, validation, test, gap) for length in lengths)
    assert gap == 0 or not any(label[e] >= 0 and label[e + 1] >= 0 for e in edges)


def test_blocks_that_do_not_fit_are_a_sentence() -> None:
    time = np.datetime64("2014-07-01T00:00:00") + np.arange(48) * np.timedelta64(1800, "s")
    with pytest.raises(ConfigurationError, match="too short for a block of 'test'"):
        split_blocks(time, {"train": 10, "test": 5})
    with pytest.raises(ConfigurationError, match="lengths above 0"):
        split_blocks(time, {"train": 0})
    assert split_blocks(time, {"train": 0.5, "test": 0.25}, gap=0.25)["test"].sum() == 12


def test_scores_see_only_their_part(tmp_path: Path) -> None:
    fluxes = read_fluxes(write(tmp_path / "US-Xxx-fluxes.csv", FLUXES, flux_rows(np.array([1.0, 4.0, 2.0]))))
    part = fluxes.where(np.array([True, False, True]))
    np.testing.assert_array_equal(part.latent_heat, [1.0, np.nan, 2.0])
    assert len(part) == 3
