"""From a hydrofabric to a realization: everything that ngen will ask for is there, or nothing is written."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import yaml
from hbv_bundles import LUMPED, UNIT, write_bundle
from hypothesis import given
from hypothesis import strategies as st
from nextgen_folders import (
    CATCHMENTS,
    WEATHER,
    copy_weather,
    read_rows,
    square,
    write_geojson,
    write_geopackage,
    write_weather,
)
from streamflow_bundles import make_bundle

from bmi_components.cli import main
from bmi_components.errors import BmiComponentsError, ConfigurationError, UnknownNameError
from bmi_components.forcing.evaporation import oudin
from bmi_components.importers import load_model
from bmi_components.nextgen.attributes import parse_sources, read_attributes
from bmi_components.nextgen.configure import Request, configure_realization
from bmi_components.nextgen.hydrofabric import _from_conus_albers, read_divides


def write_attributes(
    path: Path, catchments: tuple[str, ...], names: tuple[str, ...], value: float = 1.5
) -> Path:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["divide_id", *names])
        writer.writerows([name, *[value + 0.1 * i] * len(names)] for i, name in enumerate(catchments))
    return path


@pytest.fixture
def sample(tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """NextGen's sample catchments and forcing, an untrained LSTM, and attributes."""
    monkeypatch.chdir(tmp_path)
    data = shared_data / "nextgen"
    return {
        "hydrofabric": data / "catchment_data.geojson",
        "models": (make_bundle().save(tmp_path / "lstm"),),
        "forcing": data / "forcing" / WEATHER,
        "attributes": write_attributes(tmp_path / "a.csv", CATCHMENTS, ("elev_mean", "slope_mean"), 250.0),
        "attribute_columns": ("slope_mean=slope_mean*0.1",),
        "output": tmp_path / "made",
    }


@pytest.mark.parametrize("kind", ["netcdf", "csv"])
@pytest.mark.parametrize("model", ["lstm", "hbv"])
def test_the_sample_catchments_from_configure_to_run(
    kind: str, model: str, sample: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if model == "hbv":
        sample["models"] = (write_bundle(tmp_path / "dhbv", "2.0-hourly"),)
        sample["attributes"] = write_attributes(tmp_path / "a.csv", CATCHMENTS, UNIT)
        sample["attribute_columns"] = ("uparea=areasqkm",)
    forcing = sample["forcing"] if kind == "netcdf" else sample["forcing"].parent
    command = ["nextgen", "configure", str(sample["hydrofabric"]), "--model", str(sample["models"][0])]
    command += ["--forcing", str(forcing), "--attributes", str(sample["attributes"]), "--output", "made"]
    for column in sample["attribute_columns"]:
        command += ["--attribute", column]
    command += ["--start", "2015-12-21 00:00:00", "--end", "2015-12-23 23:00:00"]
    assert main(command) == 0
    told = capsys.readouterr()
    assert "in m s-1, which ngen would take for mm s-1" in told.err
    assert main(["nextgen", "check", "made/realization.json"]) == 0, capsys.readouterr().err
    assert main(["nextgen", "run", "made/realization.json", "--quiet", "--netcdf", "all.nc"]) == 0
    made = Path("made")
    assert {path.name for path in (made / "outputs").iterdir()} == {
        *(f"{name}.csv" for name in CATCHMENTS),
        *("nex-26_output.csv", "nex-34_output.csv", "nex-68_output.csv"),
    }
    assert sorted(path.name for path in Path().iterdir() if path.name.startswith(".")) == []
    with netCDF4.Dataset("all.nc") as file:
        assert set(file["catchment"][:]) == set(CATCHMENTS)
        assert np.isfinite(file["catchment_flow"][:]).all()
        assert file["area_km2"][:].tolist() == pytest.approx([14.7565, 18.9221, 21.6783], rel=1e-4)
    folder = "lstm" if model == "lstm" else "hbv"
    content = yaml.safe_load((made / "config" / "cat_config" / folder / "cat-27.yml").read_text())
    (catchment,) = content["catchments"]
    assert catchment["area_km2"] == 18.92205293111518
    assert (catchment["latitude"], catchment["longitude"]) == pytest.approx((35.200, -80.704), abs=2e-3)
    if model == "lstm":
        assert catchment["attributes"] == {"elev_mean": 250.0, "slope_mean": 25.0}
    else:
        assert catchment["attributes"]["uparea"] == 18.92205293111518


@pytest.mark.parametrize("method", ["oudin", "penman_monteith"])
def test_a_component_supplies_the_evapotranspiration_that_forcing_lacks(
    method: str, sample: dict[str, Any], tmp_path: Path
) -> None:
    """The shipped LSTM, which no forcing of NextGen feeds alone; by Oudin it is fed what it was trained with."""
    model = Path(__file__).resolve().parents[2] / "models" / "streamflow_lstm"
    names = tuple(attribute.name for attribute in load_model(model).attributes)
    request = changed(
        sample,
        models=(model,),
        attributes=write_attributes(tmp_path / "a.csv", CATCHMENTS, names, 2.0),
        attribute_columns=(),
        evapotranspiration=method,
    )
    made = configure_realization(request)
    assert main(["nextgen", "check", str(made.realization)]) == 0
    assert main(["nextgen", "run", str(made.realization), "--quiet"]) == 0
    header, rows = read_rows(tmp_path / "made" / "outputs" / "cat-27.csv")
    assert header[2:] == ["runoff_depth", "runoff_rate", "potential_evapotranspiration"]
    assert (rows[:, 0] >= 0.0).all()
    assert rows[:, 0].any()
    if method == "oudin":
        with netCDF4.Dataset(sample["forcing"]) as file:
            index = list(file["ids"][:]).index("cat-27")
            daily = file["TMP_2maboveground"][index].reshape(30, 24).mean(axis=1) - 273.15
        days = np.arange("2015-12-01", "2015-12-31", dtype="datetime64[D]").astype("datetime64[s]")
        expected = oudin(daily[:, np.newaxis].astype(float), np.array([35.2003]), days)[:, 0]
        np.testing.assert_allclose(rows[:, 2].reshape(30, 24).mean(axis=1), expected, rtol=2e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evapotranspiration": "hargreaves"}, "an LSTM is fed oudin or penman_monteith"),
        ({"evapotranspiration": "oudin"}, "these models take no potential evapotranspiration"),
        ({"evapotranspiration": "oudin", "spin_up": True, "start": "2015-12-10"}, "give one of them"),
    ],
)
def test_evapotranspiration_that_nobody_takes_is_one_error(
    changes: dict[str, Any], message: str, sample: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        configure_realization(changed(sample, **changes))
    assert not sample["output"].exists()


def changed(sample: dict[str, Any], **changes: Any) -> Request:
    return Request(**(sample | changes))


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda s, f: {"hydrofabric": f / "absent.geojson"}, "there is no such hydrofabric"),
        (lambda s, f: {"catchments": ["cat-1"]}, "no catchment 'cat-1'; it has cat-67"),
        (lambda s, f: {"models": (f,)}, "no trained model is here"),
        (lambda s, f: {"forcing": f / "absent.nc"}, "there is no .*absent.nc"),
        (
            lambda s, f: {"attributes": None},
            r"lacks elev_mean \[m\], slope_mean \[m km-1\].*areasqkm.*--attribute",
        ),
        (
            lambda s, f: {
                "attributes": write_attributes(f / "b.csv", ("cat-27",), ("elev_mean", "slope_mean"))
            },
            "cat-67 lacks .*cat-67 is not in it",
        ),
        (lambda s, f: {"attribute_columns": ("slope=slope_mean",)}, "the model has no such attribute"),
        (lambda s, f: {"attribute_columns": ("slope_mean",)}, "attribute=column"),
        (lambda s, f: {"start": "2015-11-01"}, "covers 2015-12-01 00:00:00 to 2015-12-30 23:00:00"),
        (lambda s, f: {"precipitation_units": "kg"}, "do not convert to mm s-1"),
        (
            lambda s, f: {"models": (make_bundle("hybrid").save(f / "daily"),)},
            r"takes potential_evapotranspiration \[mm d-1\].*NextGen's forcing has none",
        ),
        (
            lambda s, f: {"models": (*s["models"], write_bundle(f / "dhbv", "2.0"))},
            "only LSTMs make one",
        ),
        (lambda s, f: {"output": s["models"][0]}, "something is already there"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    break_it: Any, message: str, sample: dict[str, Any], tmp_path: Path
) -> None:
    request = changed(sample, **break_it(sample, tmp_path))
    before = {path for path in tmp_path.rglob("*") if "made" in str(path) or path.name.startswith(".")}
    with pytest.raises(BmiComponentsError, match=message):
        configure_realization(request)
    after = {path for path in tmp_path.rglob("*") if "made" in str(path) or path.name.startswith(".")}
    assert after == before


def test_a_catchment_without_area_or_nexus_is_refused(sample: dict[str, Any], tmp_path: Path) -> None:
    content = json.loads(sample["hydrofabric"].read_text())
    for key, word in (("areasqkm", "areasqkm"), ("toid", "toid")):
        broken = json.loads(json.dumps(content))
        del broken["features"][1]["properties"][key]
        (tmp_path / "broken.geojson").write_text(json.dumps(broken))
        with pytest.raises(ConfigurationError, match=f"cat-27 has no {word}"):
            configure_realization(changed(sample, hydrofabric=tmp_path / "broken.geojson"))


def test_a_value_holds_where_there_is_no_column(sample: dict[str, Any], tmp_path: Path) -> None:
    request = changed(
        sample,
        attributes=write_attributes(tmp_path / "b.csv", ("cat-27",), ("elev_mean",), 250.0),
        attribute_columns=(),
        values=("elev_mean=300", "slope_mean=12.5"),
    )
    configure_realization(request)
    found = {
        name: yaml.safe_load((tmp_path / f"made/config/cat_config/lstm/{name}.yml").read_text())[
            "catchments"
        ][0]
        for name in ("cat-27", "cat-52")
    }
    assert found["cat-27"]["attributes"] == {"elev_mean": 250.0, "slope_mean": 12.5}
    assert found["cat-52"]["attributes"] == {"elev_mean": 300.0, "slope_mean": 12.5}


def test_forcing_that_says_its_units_is_not_copied(
    sample: dict[str, Any], shared_data: Path, tmp_path: Path
) -> None:
    weather = copy_weather(shared_data, tmp_path / "weather.nc")
    made = configure_realization(changed(sample, forcing=weather))
    content = json.loads(made.realization.read_text())
    assert content["global"]["forcing"]["path"] == str(weather)
    assert not (tmp_path / "made" / "forcings").exists()


def test_rates_that_nothing_explains_need_a_word_from_the_user(
    sample: dict[str, Any], tmp_path: Path
) -> None:
    weather = tmp_path / "weather.nc"
    shutil.copyfile(sample["forcing"], weather)
    weather.chmod(0o644)
    with netCDF4.Dataset(weather, "a") as file:
        file.renameVariable("APCP_surface", "other")
    with pytest.raises(BmiComponentsError, match="--precipitation-units"):
        configure_realization(changed(sample, forcing=weather))
    made = configure_realization(changed(sample, forcing=weather, precipitation_units="m s-1"))
    with netCDF4.Dataset(made.realization.parent / "forcings" / "weather.nc") as file:
        assert file["precip_rate"].units == "m s-1"


def test_attributes_unlike_those_of_the_training_are_pointed_out(
    sample: dict[str, Any], tmp_path: Path
) -> None:
    far = write_attributes(tmp_path / "far.csv", CATCHMENTS, ("elev_mean", "slope_mean"), 300_000.0)
    made = configure_realization(
        changed(sample, attributes=far, attribute_columns=("slope_mean=slope_mean*1e-4",))
    )
    (warning,) = (text for text in made.warnings if "attribute" in text)
    assert "elev_mean" in warning
    assert "300 ± 200" in warning


@pytest.mark.parametrize("model", ["lstm", "hbv"])
def test_the_forcing_before_the_start_spins_the_models_up(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("cat-1", "cat-2")
    weather = write_weather(tmp_path / "forcing.nc", names, 24 * 12)
    with netCDF4.Dataset(weather, "a") as file:
        del file["precip_rate"].units  # nothing shows them, and the user says that they are what ngen takes
    attributes = ("elev_mean", "slope_mean") if model == "lstm" else LUMPED
    sample = {
        "hydrofabric": write_geojson(tmp_path / "fabric.geojson", names),
        "models": (
            make_bundle().save(tmp_path / "m") if model == "lstm" else write_bundle(tmp_path / "m", "1.1p"),
        ),
        "forcing": weather,
        "attributes": write_attributes(tmp_path / "a.csv", names, attributes, 1.5),
        "start": "2020-01-11",
        "precipitation_units": "m h-1",
    }
    depths = []
    for spin_up in (True, False):
        if model == "hbv" and not spin_up:
            with pytest.raises(BmiComponentsError, match="warm_up"):
                configure_realization(Request(**sample, output=tmp_path / "cold", spin_up=False))
            continue
        folder = tmp_path / f"made{spin_up}"
        made = configure_realization(Request(**sample, output=folder, spin_up=spin_up))
        assert main(["nextgen", "check", str(made.realization)]) == 0
        assert main(["nextgen", "run", str(made.realization), "--quiet"]) == 0
        together = read_rows(folder / "outputs" / "cat-2.csv")[1]
        assert main(["nextgen", "run", str(made.realization), "--quiet", "--one-each"]) == 0
        np.testing.assert_allclose(
            read_rows(folder / "outputs" / "cat-2.csv")[1], together, rtol=1e-4, atol=1e-6
        )
        depths.append(together[:, 0])
        assert together.shape[0] == 48
    if model == "lstm":
        assert (depths[0][:3] != depths[1][:3]).all()
    with pytest.raises(BmiComponentsError, match="0 hours before the start"):
        configure_realization(Request(**(sample | {"start": None}), output=tmp_path / "late", spin_up=True))


# --- hydrofabrics ----------------------------------------------------------------------------------------------------


def conus_albers(longitude: float, latitude: float) -> tuple[float, float]:
    """Project by Snyder's equations 14-1 to 14-4, on GRS 80."""
    a, e2 = 6_378_137.0, 0.00669438002290
    e = math.sqrt(e2)

    def q_of(phi: float) -> float:
        s = math.sin(phi)
        return (1 - e2) * (s / (1 - e2 * s * s) - math.log((1 - e * s) / (1 + e * s)) / (2 * e))

    def m_of(phi: float) -> float:
        return math.cos(phi) / math.sqrt(1 - e2 * math.sin(phi) ** 2)

    origin, south, north = (math.radians(v) for v in (23.0, 29.5, 45.5))
    n = (m_of(south) ** 2 - m_of(north) ** 2) / (q_of(north) - q_of(south))
    c = m_of(south) ** 2 + n * q_of(south)
    rho = a * math.sqrt(c - n * q_of(math.radians(latitude))) / n
    rho0 = a * math.sqrt(c - n * q_of(origin)) / n
    theta = n * math.radians(longitude + 96.0)
    return rho * math.sin(theta), rho0 - rho * math.cos(theta)


@given(longitude=st.floats(-125.0, -67.0), latitude=st.floats(24.0, 50.0))
def test_hydrofabric_coordinates_come_back_as_degrees(longitude: float, latitude: float) -> None:
    found = _from_conus_albers(*conus_albers(longitude, latitude))
    assert found == pytest.approx((longitude, latitude), abs=1e-9)


def test_the_projection_is_that_of_the_textbook() -> None:
    # Snyder, USGS Professional Paper 1395, p. 292: 35 N, 75 W is at (1885472.7, 1535925.0) on Clarke's ellipsoid of
    # 1866, whose axis is 69 m longer and whose flattening differs: a hundred metres.
    longitude, latitude = _from_conus_albers(1_885_472.7, 1_535_925.0)
    assert (longitude, latitude) == pytest.approx((-75.0, 35.0), abs=2e-3)


@pytest.mark.parametrize("system", [5070, 4326])
def test_a_geopackage_is_the_same_hydrofabric(system: int, tmp_path: Path) -> None:
    names = ("cat-5", "cat-7")
    geojson = read_divides(write_geojson(tmp_path / "a.geojson", names, areas=(3.5, 4.5)))
    rows = {}
    for index, name in enumerate(names):
        ring = square(-80.0 - index, 40.0 + index)
        points = [conus_albers(x, y) for x, y in ring] if system == 5070 else [(x, y) for x, y in ring]
        rows[name] = (3.5 + index, f"nex-{name[4:]}", points)
    package = write_geopackage(tmp_path / "b.gpkg", rows, {n: {"mean.elevation": 7.0} for n in names}, system)
    found = read_divides(package)
    for name in names:
        one, other = geojson[name], found[name]
        assert (one.area_km2, one.nexus) == (other.area_km2, other.nexus)
        assert other.latitude == pytest.approx(one.latitude, abs=1e-4)
        assert other.longitude == pytest.approx(one.longitude, abs=1e-4)
    assert list(read_divides(package, ["cat-7"])) == ["cat-7"]
    assert read_attributes(package) == {n: {"mean.elevation": 7.0} for n in names}
    with pytest.raises(UnknownNameError, match="no catchment 'cat-9'"):
        read_divides(package, ["cat-9"])


def test_a_hydrofabrics_own_attributes_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ring = [conus_albers(x, y) for x, y in square(-90.0, 40.0)]
    attributes = {"cat-5": {"mean.elevation": 25_000.0, "mean.slope": 20.0}}
    package = write_geopackage(tmp_path / "b.gpkg", {"cat-5": (3.5, "nex-5", ring)}, attributes)
    made = configure_realization(
        Request(
            hydrofabric=package,
            models=(make_bundle().save(tmp_path / "lstm"),),
            forcing=write_weather(tmp_path / "forcing.nc", ["cat-5"], 48),
            attribute_columns=("elev_mean=mean.elevation*0.01", "slope_mean=mean.slope"),
            output=tmp_path / "made",
        )
    )
    assert made.catchments == 1
    assert made.warnings == ()
    assert "ngen" in made.command
    content = yaml.safe_load((tmp_path / "made/config/cat_config/lstm/cat-5.yml").read_text())
    assert content["catchments"][0]["attributes"] == {"elev_mean": 250.0, "slope_mean": 20.0}
    assert main(["nextgen", "run", str(made.realization), "--quiet"]) == 0
    assert (tmp_path / "made" / "outputs" / "nex-5_output.csv").is_file()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"SQLite format 3\0 and then nothing", "cannot be read|no layer"),
        (b'{"type": "Point"}', "no GeoJSON FeatureCollection"),
        (b"{", "neither a GeoPackage nor valid GeoJSON"),
        (b'{"features": []}', "there is no catchment"),
        (b'{"features": [{"properties": {}}]}', "has no id"),
        (b'{"features": [{"id": "cat-1"}, {"id": "cat-1"}]}', "twice"),
    ],
)
def test_a_damaged_hydrofabric_is_one_error(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "fabric").write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        read_divides(tmp_path / "fabric")


def test_a_damaged_geometry_is_one_error(tmp_path: Path) -> None:
    import sqlite3

    package = write_geopackage(
        tmp_path / "b.gpkg", {"cat-5": (3.5, "nex-5", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])}
    )
    base = sqlite3.connect(package)
    base.execute("UPDATE divides SET geom = substr(geom, 1, 30)")
    base.commit()
    base.close()
    with pytest.raises(ConfigurationError, match="cat-5: its geometry is damaged"):
        read_divides(package)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,elev\na,1\n", "no column names the catchments"),
        ("id,elev\ncat-1,1\ncat-1,2\n", "twice"),
        ("id,elev\ncat-1\n", "row 2 has 1 cells"),
        ("", "empty"),
    ],
)
def test_a_wrong_table_of_attributes_is_one_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        read_attributes(tmp_path / "a.csv")


@given(factor=st.floats(1e-6, 1e6))
def test_columns_with_a_factor(factor: float) -> None:
    source = parse_sources([f"elev_mean = mean.elevation*{factor!r}"])["elev_mean"]
    assert (source.column, source.factor) == ("mean.elevation", factor)


def test_parquet_without_pyarrow_says_what_to_do(tmp_path: Path) -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        (tmp_path / "a.parquet").write_bytes(b"PAR1")
        with pytest.raises(ConfigurationError, match="pip install pyarrow"):
            read_attributes(tmp_path / "a.parquet")
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"divide_id": ["cat-1"], "elev": [3.0]}), tmp_path / "a.parquet")
    assert read_attributes(tmp_path / "a.parquet") == {"cat-1": {"elev": 3.0}}
