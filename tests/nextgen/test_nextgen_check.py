"""What ngen would stumble over is found before it does, and each message says what to do."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from nextgen_folders import DEPTH, RAIN, WEATHER, module, realization
from test_nextgen_run import PERIOD, coupled, hbv_folder, lstm_folder

from bmi_components.nextgen.check import check_realization, find_folder
from bmi_components.nextgen.realization import read_realization
from bmi_components.nextgen.verify import Finding

HERE = str(Path(__file__).parent)
Change = Callable[[dict[str, Any]], None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(path: Path, level: str, **options: Any) -> list[str]:
    options = {"hydrofabric": Path("fabric.geojson")} | options
    return [f.message for f in check_realization(path, **options) if f.level == level]


def params(content: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = content["global"]["formulations"][0]["params"]
    return inner


def names(content: dict[str, Any]) -> dict[str, Any]:
    inner: dict[str, Any] = params(content)["variables_names_map"]
    return inner


def set_in(content: dict[str, Any], *keys: str, **values: Any) -> None:
    for key in keys:
        content = content[key]
    content.update(values)


def test_a_realization_that_is_right_has_no_errors() -> None:
    path = hbv_folder(Path(), "2.0", "partial_step: estimate\n")
    assert found(path, "error") == []


ERRORS: list[tuple[Change, str]] = [
    (lambda c: c.pop("time"), "'time'"),
    (lambda c: set_in(c, "time", end_time="2019-01-01 00:00:00"), "is before the start"),
    (
        lambda c: set_in(c, "time", end_time="2020-02-01 00:00:00"),
        "covers 2020-01-01 00:00:00 to .* set time",
    ),
    (lambda c: set_in(c, "time", start_time="tomorrow"), "write it as 2020-01-31"),
    (lambda c: c["global"].pop("forcing"), "no forcing for cat-0"),
    (lambda c: set_in(c, "global", "forcing", path="absent.nc"), "no absent.nc from here"),
    (lambda c: set_in(c, "global", "forcing", provider="Other"), "CsvPerFeature and NetCDF can be run"),
    (lambda c: c["global"]["formulations"][0].update(name="bmi_c++"), "bmi_python and bmi_multi"),
    (lambda c: params(c).pop("main_output_variable"), "main_output_variable is missing"),
    (
        lambda c: params(c).update(main_output_variable="runoff"),
        "'runoff' is no output; there are .*runoff_depth",
    ),
    (
        lambda c: params(c).update(main_output_variable="channel_exit_water_x-section__volume_flow_rate"),
        f"m3 s-1.*metres per hour; name {DEPTH}",
    ),
    (
        lambda c: params(c).update(main_output_variable="land_surface_water__runoff_volume_flux"),
        f"mm d-1.*metres per hour; name {DEPTH}",
    ),
    (
        lambda c: names(c).update({RAIN: "APCP_surface"}),
        "nothing supplies .*mapped to 'APCP_surface'.*precip_rate",
    ),
    (lambda c: names(c).update({RAIN: "TMP_2maboveground"}), "'TMP_2maboveground' is in 'K'.*unconverted"),
    (lambda c: names(c).update({RAIN: "PRES_surface"}), "'PRES_surface' is in 'Pa'"),
    (lambda c: params(c).update(python_type="DeltaHBV"), "module.Class"),
    (lambda c: params(c).update(python_type="no_such_package.Model"), "cannot be imported"),
    (lambda c: params(c).update(python_type="bmi_components.DeltaHVB"), "no class 'DeltaHVB'"),
    (lambda c: params(c).update(module_path="absent"), "no folder absent"),
    (lambda c: params(c).update(init_config="absent/{{id}}.yml"), "cat-0.*ngen looks from the folder"),
    (lambda c: params(c).update(model_params={"parFX": 1.0}), "parFX"),
    (lambda c: params(c).update(model_params={"parFC": 1e9}), "parFC.* at cat-0.*between"),
    (lambda c: params(c).update(model_params={}), "take it out"),
    (
        lambda c: params(c).update(model_params={"parFC": {"source": "hydrofabric", "from": "absent"}}),
        "no number 'absent' for cat-0",
    ),
    (lambda c: params(c).update(output_variables=["runoff"]), "'runoff' is no output"),
    (lambda c: params(c).update(uses_forcing_file=True), "take out uses_forcing_file"),
    (lambda c: c.update(layers=[{"id": 1}]), "layers"),
]


@pytest.mark.parametrize(("change", "message"), ERRORS)
def test_every_mistake_is_an_error_that_says_what_to_do(change: Change, message: str) -> None:
    path = hbv_folder(Path())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    errors = found(path, "error")
    assert len(errors) == 1
    import re

    assert re.search(message, errors[0]), errors[0]
    assert "Traceback" not in errors[0]


WARNINGS: list[tuple[Change, str]] = [
    (lambda c: set_in(c, "time", output_interval=86_400), "write 3600"),
    (lambda c: params(c).update(output_variable=[DEPTH]), "did you mean 'output_variables'"),
    (lambda c: params(c).update(output_variables=[DEPTH], output_header_fields=["a", "b"]), "2 fields for 1"),
    (lambda c: params(c).update(mass_balance={"frequency": -1}), "never fires"),
]


@pytest.mark.parametrize(("change", "message"), WARNINGS)
def test_what_ngen_passes_over_is_a_warning(change: Change, message: str) -> None:
    path = hbv_folder(Path())
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    assert found(path, "error") == []
    assert any(message in text for text in found(path, "warning"))


def test_precipitation_that_ngen_would_take_for_a_thousandth(folder: Path, shared_data: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    shutil.copyfile(shared_data / "nextgen" / "forcing" / WEATHER, folder / "forcing.nc")
    (folder / "forcing.nc").chmod(0o644)
    content = json.loads(path.read_text())
    content["time"] |= {"start_time": "2015-12-20 00:00:00", "end_time": "2015-12-24 00:00:00"}
    path.write_text(json.dumps(content))
    for index, name in enumerate(("cat-27", "cat-52", "cat-67")):
        text = (folder / f"cat-{index}.yml").read_text().replace(f"cat-{index}", name)
        (folder / f"{name}.yml").write_text(text.replace("2020-01-01", "2015-12-20"))
    fabric = shared_data / "nextgen" / "catchment_data.geojson"
    (error,) = found(path, "error", hydrofabric=fabric)
    assert "units = 'm s-1'" in error
    with netCDF4.Dataset(folder / "forcing.nc", "a") as file:
        file["precip_rate"].units = "m s-1"
    assert found(path, "error", hydrofabric=fabric) == []


def test_a_calendar_that_is_off(folder: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    config = folder / "cat-1.yml"
    config.write_text(config.read_text().replace("2020-01-01", "2020-01-02"))
    (error,) = found(path, "error")
    assert "cat-1.yml" in error
    assert "2020-01-01 00:00:00" in error


def test_a_configuration_of_another_catchment(folder: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    (folder / "cat-1.yml").write_text((folder / "cat-0.yml").read_text())
    assert any("is it a copy?" in text for text in found(path, "warning"))


def test_an_attribute_that_is_missing_names_catchment_and_attribute(folder: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    config = folder / "cat-2.yml"
    config.write_text(config.read_text().replace("slope_mean: 12", "slope: 12"))
    (error,) = found(path, "error")
    assert "cat-2" in error
    assert "slope_mean" in error


def test_a_component_that_ends_too_soon(folder: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    for index in range(3):
        config = folder / f"cat-{index}.yml"
        config.write_text(config.read_text() + "end_time: 2020-01-02\n")
    path.write_text(
        path.read_text().replace('"allow_exceed_end_time": true', '"allow_exceed_end_time": false')
    )
    (error,) = found(path, "error")
    assert "allow_exceed_end_time" in error


def test_no_mass_balance_where_the_model_keeps_none(folder: Path) -> None:
    path = lstm_folder(folder, ("lstm",))
    content = json.loads(path.read_text())
    params(content)["mass_balance"] = {"tolerance": 1e-6}
    path.write_text(json.dumps(content))
    assert any("keeps no mass balance" in text for text in found(path, "warning"))


def test_a_type_that_aborts_ngen(folder: Path) -> None:
    path = coupled(folder, "Integers")
    assert any("int16" in text and "aborts ngen" in text for text in found(path, "error"))


def test_names_that_occur_twice(folder: Path) -> None:
    path = coupled(folder)
    content = json.loads(path.read_text())
    modules = params(content)["modules"]
    modules.append(modules[0])
    path.write_text(json.dumps(content))
    (error,) = found(path, "error")
    assert "'PET' is also one of an earlier module" in error


def test_a_catchment_without_area(folder: Path) -> None:
    path = hbv_folder(folder)
    content = json.loads((folder / "fabric.geojson").read_text())
    del content["features"][1]["properties"]["areasqkm"]
    (folder / "fabric.geojson").write_text(json.dumps(content))
    assert any("cat-1 has no areasqkm" in text for text in found(path, "error"))


def test_csv_patterns_that_match_two_catchments(folder: Path) -> None:
    path = hbv_folder(folder)
    (folder / "weather").mkdir()
    for name in ("cat-0_a.csv", "cat-01_a.csv"):
        (folder / "weather" / name).write_text("time,precip_rate\n2020-01-01 00:00:00,0\n")
    content = json.loads(path.read_text())
    content["global"]["forcing"] = {"path": "weather", "file_pattern": ".*{{id}}.*csv"}
    path.write_text(json.dumps(content))
    (error,) = found(path, "error")
    assert "both match for cat-0" in error


@pytest.mark.parametrize(
    ("interval", "end", "steps"),
    [
        (3600, "2020-01-03 11:00:00", 60),
        (3600, "2020-01-01 00:00:00", 1),
        (3600, "2020-01-01 00:30:00", 1),
        (86_400, "2020-01-03 11:00:00", 49),  # ngen's clock stops at the last whole interval
        (900, "2020-01-03 11:00:00", 60),
    ],
)
def test_ngen_steps_by_the_hour_whatever_the_output_interval(
    interval: int, end: str, steps: int, folder: Path
) -> None:
    path = realization(
        folder / "r.json",
        module("a.B", "x", {}),
        "x",
        PERIOD[0],
        end,
        time={"start_time": PERIOD[0], "end_time": end, "output_interval": interval},
    )
    assert read_realization(path).steps == steps


# --- Python and NumPy ------------------------------------------------------------------------------------------------


def binary(path: Path, python: str, numpy: str) -> Path:
    """Write what ngen holds of its build summary."""
    summary = (
        f"Environment summary:\n  Boost:\n    Version: 1.79.0\n  Python:\n    Version: {python}\n"
        f"    Virtual Env: <none>\n    NumPy Version: {numpy}\n    NumPy Include: /usr\n"
    )
    path.write_bytes(b"\x7fELF\0\0" + summary.encode() + b"\0more")
    return path


def environment(findings: list[Finding]) -> list[str]:
    return [f.message for f in findings if f.level == "error"]


def test_versions_that_differ_from_ngens_build(folder: Path) -> None:
    path = hbv_folder(folder)
    ours = binary(folder / "ngen", platform.python_version(), np.__version__)
    assert found(path, "error", ngen=ours) == []
    theirs = binary(folder / "ngen", platform.python_version(), "1.26.3")
    (error,) = found(path, "error", ngen=theirs)
    assert "NumPy 1.26.3" in error
    assert "pip install numpy==1.26.3" in error
    (error,) = found(path, "error", ngen=binary(folder / "ngen", "3.9.1", np.__version__))
    assert "Python 3.9.1" in error
    (folder / "ngen").write_bytes(b"\x7fELF nothing")
    assert any("ngen --info" in text for text in found(path, "warning", ngen=folder / "ngen"))
    (error,) = found(path, "error", ngen=folder / "absent")
    assert "there is no" in error


def test_paths_count_from_where_the_forcing_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "run" / "config").mkdir(parents=True)
    (folder / "run" / "forcing.nc").touch()
    (folder / "run" / "config" / "cat-1.yml").touch()
    one = module("bmi_components.DeltaHBV", "./config/{{id}}.yml", {})
    path = realization(folder / "run" / "config" / "realization.json", one, "./forcing.nc", *PERIOD)
    assert find_folder(path) == (folder / "run").resolve()
    assert find_folder(path, folder) == folder.resolve()
    monkeypatch.chdir(folder / "run" / "config")
    assert find_folder(path) == (folder / "run").resolve()
