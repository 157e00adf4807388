"""CanVeg and FluxLSTM from a hydrofabric: what a canopy needs is there, or one sentence says what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from nextgen_folders import NAMES_MAP, module, read_rows, realization, write_geojson, write_weather

from bmi_components.canveg.dispersion import dispersion_matrix, read_dispersion_matrix
from bmi_components.cli import main
from bmi_components.errors import BmiComponentsError, ConfigurationError
from bmi_components.importers import load_model
from bmi_components.nextgen.attributes import Known, parse_constants, parse_sources
from bmi_components.nextgen.canopies import FORCED, Canopies
from bmi_components.nextgen.check import check_realization
from bmi_components.nextgen.configure import Request, configure_realization
from bmi_components.nextgen.hydrofabric import Divide

MODELS = Path(__file__).resolve().parents[2] / "models"
CANOPY = MODELS / "canveg_us_bi1_process_1l"
NAMES = ("cat-1", "cat-2", "cat-3")
ROWS = {
    "cat-1": {"lai": 25.0, "height": 12.0, "soil_water_content": 0.25},
    "cat-2": {"lai": 15.0, "height": 1.0, "soil_water_content": 0.3},
    "cat-3": {"lai": 30.0, "height": 12.0, "soil_water_content": 0.2},
}
MONTHS = "3,4,7,12,17,22,24,23,19,13,8,4"


@pytest.fixture(autouse=True, scope="module")
def kept_programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep programs in a folder of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "programs"))
        yield


def write_table(path: Path, rows: dict[str, dict[str, float]]) -> Path:
    lines = [",".join(("divide_id", *next(iter(rows.values()))))]
    lines += [",".join((name, *map(str, row.values()))) for name, row in rows.items()]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def canopies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Three invented catchments under canopies, and the shipped model of one layer."""
    monkeypatch.chdir(tmp_path)
    return {
        "hydrofabric": write_geojson(tmp_path / "fabric.geojson", NAMES),
        "models": (CANOPY,),
        "forcing": write_weather(tmp_path / "forcing.nc", NAMES, 6),
        "attributes": write_table(tmp_path / "canopies.csv", ROWS),
        "attribute_columns": ("leaf_area_index=lai*0.1", "canopy_height=height"),
        "values": (f"soil_temperature={MONTHS}", "carbon_dioxide=420"),
        "output": tmp_path / "made",
    }


def test_canopies_from_configure_to_run(canopies: dict[str, Any], tmp_path: Path) -> None:
    made = configure_realization(Request(**canopies))
    (formulation,) = json.loads(made.realization.read_text())["global"]["formulations"]
    module = formulation["params"]
    assert module["python_type"] == "bmi_components.CanVeg"
    assert module["main_output_variable"] == "land_surface_water__evapotranspiration_depth"
    assert set(module["variables_names_map"].values()) == {
        *("precip_rate", "TMP_2maboveground", "SPFH_2maboveground", "PRES_surface"),
        *("DSWRF_surface", "DLWRF_surface", "UGRD_10maboveground", "VGRD_10maboveground"),
    }
    configs = tmp_path / "made" / "config" / "cat_config" / "canveg"
    content = yaml.safe_load((configs / "cat-1.yml").read_text())
    (site,) = content["sites"]
    assert site["id"] == "cat-1"
    assert (site["latitude"], site["longitude"]) == pytest.approx((40.0, -80.0))
    assert (site["leaf_area_index"], site["canopy_height"], site["carbon_dioxide"]) == (2.5, 12.0, 420.0)
    assert site["soil_temperature"] == [float(month) for month in MONTHS.split(",")]
    assert site["measurement_height"] == 22.0  # not the tower's 5 m
    # the air between canopy and weather is not the tower's either: 22 m over 12 m
    matrix = read_dispersion_matrix(configs / content["dispersion"], 1, 50)
    np.testing.assert_array_equal(matrix, dispersion_matrix(1, 50, measurement_height_ratio=1.83))

    assert main(["nextgen", "check", str(made.realization)]) == 0
    assert main(["nextgen", "run", str(made.realization), "--quiet"]) == 0
    outputs = tmp_path / "made" / "outputs"
    together = {name: read_rows(outputs / f"{name}.csv") for name in NAMES}
    assert main(["nextgen", "run", str(made.realization), "--quiet", "--one-each"]) == 0
    for name in NAMES:
        header, rows = read_rows(outputs / f"{name}.csv")
        assert together[name][0] == header
        np.testing.assert_allclose(together[name][1], rows, rtol=1e-6, atol=1e-9)
    fluxes = dict(zip(header[2:], rows.T, strict=True))
    assert (fluxes["converged"] == 1.0).all()
    balance = (
        fluxes["net_radiation"] - fluxes["latent_heat"] - fluxes["sensible_heat"] - fluxes["ground_heat"]
    )
    assert (np.abs(balance) < 0.05).all()
    assert not np.array_equal(together["cat-1"][1], together["cat-3"][1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": ()}, r"cat-1 lacks soil_temperature \[degC\]\. Columns are .*lai.*--value NAME=NUMBER"),
        (
            {"attributes": None, "attribute_columns": ()},
            r"leaf_area_index \[m2 m-2\], canopy_height \[m\], soil_water_content \[m3 m-3\].*cat-1 is not in it",
        ),
        (
            {"values": ("elevation=3",)},
            "--value elevation: the model has no such attribute; it has canopy_height, ",
        ),
        ({"values": ("soil_temperature=1,2,3",)}, "twelve numbers for January to December"),
        ({"values": ("soil_temperature=285.0",)}, r"site cat-1: soil_temperature is 285; -100 to 100 degC"),
        (
            {
                "attribute_columns": (
                    "leaf_area_index=lai*0.1",
                    "canopy_height=height",
                    "measurement_height=lai*0.1",
                )
            },
            "site cat-1: measurement_height is 2.5 m, the canopy 12 m high",
        ),
        ({"evapotranspiration": "oudin"}, "--pet: CanVeg takes no potential evapotranspiration"),
        ({"spin_up": True}, "--spin-up: CanVeg takes no record before the start"),
        ({"climatology": Path("c.yaml")}, "--climatology is for δHBV"),
        ({"models": (CANOPY, CANOPY)}, "only LSTMs make one"),
        ({"models": (MODELS / "fourdvarnet_lorenz63",)}, "FourDVarNet .* knows no catchments"),
    ],
)
def test_what_a_canopy_lacks_is_said_before_anything_is_written(
    changes: dict[str, Any], message: str, canopies: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(BmiComponentsError, match=message):
        configure_realization(Request(**(canopies | changes)))
    assert not any("made" in path.name for path in tmp_path.iterdir())


def test_a_hydrofabric_without_geometry_needs_columns_of_the_place(canopies: dict[str, Any]) -> None:
    content = json.loads(canopies["hydrofabric"].read_text())
    for feature in content["features"]:
        feature["geometry"] = None
    canopies["hydrofabric"].write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=r"cat-1 lacks latitude \[degrees\], which the hydrofabric"):
        configure_realization(Request(**canopies))


def test_leaf_area_may_come_with_the_forcing() -> None:
    known = Known({"cat-1": {"canopy_height": 0.8, "measurement_height": 5.0}}, {}, {}, {}, "table")
    divide = Divide("cat-1", 1.0, "nex-1", 40.0, -80.0, {})
    canopies = Canopies(load_model(CANOPY), known, FORCED)
    content = yaml.safe_load(canopies.text(divide))
    assert {symbol: content[symbol] for symbol in FORCED} == dict.fromkeys(FORCED, "input")
    # heights in the tower's proportion: the model's own dispersion matrix holds
    assert content["sites"] == [
        {"id": "cat-1", "latitude": 40.0, "longitude": -80.0, "canopy_height": 0.8, "measurement_height": 5.0}
    ]
    assert not canopies.matrices
    assert "dispersion" not in content


def test_fluxes_from_configure_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("cat-1", "cat-2", "cat-9")
    fabric = write_geojson(tmp_path / "fabric.geojson", names)  # 80, 81 and 82 degrees west
    request = Request(
        hydrofabric=fabric,
        models=(MODELS / "flux_lstm_weather",),
        forcing=write_weather(tmp_path / "forcing.nc", names, 24 * 93),
        start="2020-04-01",
        spin_up=True,
        values=("utc_offset=-6",),
        output=tmp_path / "made",
    )
    made = configure_realization(request)
    assert any("it is no water" in warning for warning in made.warnings)
    content = yaml.safe_load((tmp_path / "made/config/cat_config/flux/cat-9.yml").read_text())
    assert content["utc_offset"] == -6.0
    assert content["towers"][0]["id"] == "cat-9"
    assert main(["nextgen", "check", str(made.realization)]) == 0
    assert main(["nextgen", "run", str(made.realization), "--quiet"]) == 0
    outputs = tmp_path / "made" / "outputs"
    together = {name: read_rows(outputs / f"{name}.csv")[1] for name in names}
    assert main(["nextgen", "run", str(made.realization), "--quiet", "--one-each"]) == 0
    for name in names:
        header, rows = read_rows(outputs / f"{name}.csv")
        np.testing.assert_allclose(together[name], rows, rtol=1e-5, atol=1e-6)
    assert header[2:] == ["net_ecosystem_exchange", "net_ecosystem_production_rate", "valid_days"]
    assert np.isfinite(rows).all()  # the 91 days before the start fill the window
    np.testing.assert_array_equal(rows[:, 0], -rows[:, 1])
    # a day is known when it is over at the catchment: local midnight is 6 UTC, the end of the step from 5 on
    changes = np.flatnonzero(np.diff(rows[:, 0])) + 1
    assert set(changes % 24) == {5}


def test_a_tower_without_a_place_needs_its_time_zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fabric = write_geojson(tmp_path / "fabric.geojson", ("cat-1",))
    content = json.loads(fabric.read_text())
    content["features"][0]["geometry"] = None
    fabric.write_text(json.dumps(content))
    sample = {
        "hydrofabric": fabric,
        "models": (MODELS / "flux_lstm_weather",),
        "forcing": write_weather(tmp_path / "forcing.nc", ("cat-1",), 24),
    }
    with pytest.raises(ConfigurationError, match=r"cat-1 lacks utc_offset \[h\]"):
        configure_realization(Request(**sample, output=tmp_path / "made"))
    with pytest.raises(
        BmiComponentsError, match=r"takes photosynthetic_photon_flux .*NextGen's forcing has none"
    ):
        configure_realization(
            Request(
                **(sample | {"models": (MODELS / "flux_lstm",)}),
                values=("utc_offset=0",),
                output=tmp_path / "made",
            )
        )


@pytest.mark.parametrize(
    ("component", "configuration", "message"),
    [
        ("BallBerry", "ball_berry.yaml", "is an array.* BallBerry computes single leaves .*CanVeg"),
        ("Lorenz63", "lorenz63.yaml", "nothing supplies the input .* Lorenz63 .* bmi_components.couple"),
    ],
)
def test_components_without_catchments_are_pointed_elsewhere(
    component: str, configuration: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_weather(tmp_path / "forcing.nc", ("cat-1",), 6)
    config = Path(__file__).resolve().parents[2] / "configs" / configuration
    path = realization(
        tmp_path / "realization.json",
        module(f"bmi_components.{component}", str(config), NAMES_MAP),
        "forcing.nc",
        *("2020-01-01 00:00:00", "2020-01-01 05:00:00"),
    )
    fabric = write_geojson(tmp_path / "fabric.geojson", ("cat-1",))
    (error,) = (f for f in check_realization(path, hydrofabric=fabric) if f.level == "error")
    assert re.search(message, error.message)


@given(st.lists(st.floats(-1e6, 1e6), min_size=12, max_size=12), st.floats(0.01, 100.0), st.booleans())
def test_monthly_columns_are_twelve_numbers(months: list[float], factor: float, padded: bool) -> None:
    row = {f"lai_{i:02}" if padded else f"lai_{i}": value for i, value in enumerate(months, start=1)}
    known = Known({"cat-1": row}, {}, parse_sources([f"leaf_area_index=lai*{factor!r}"]), {}, "table")
    assert known.monthly("cat-1", "leaf_area_index") == [value * factor for value in months]
    assert np.isnan(known.monthly("cat-2", "leaf_area_index"))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=14))
def test_values_are_one_number_or_twelve(numbers: list[float]) -> None:
    text = "leaf_area_index=" + ",".join(map(repr, numbers))
    if len(numbers) in (1, 12):
        assert parse_constants([text]) == {"leaf_area_index": tuple(numbers)}
    else:
        with pytest.raises(ConfigurationError, match="twelve numbers"):
            parse_constants([text])
