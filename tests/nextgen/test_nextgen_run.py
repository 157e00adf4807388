"""A realization run without ngen gives what ngen gives: one object per catchment, stepped as ngen steps it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from deltamg_folders import folder_mts
from hbv_bundles import CLIMATOLOGY, catchment_lines, write_bundle
from nextgen_folders import (
    CATCHMENTS,
    DEPTH,
    NAMES_MAP,
    RAIN,
    copy_weather,
    module,
    read_rows,
    realization,
    write_geojson,
    write_weather,
)
from potential_evaporation import EVAPORATION, WETNESS
from streamflow_bundles import make_bundle

from bmi_components.cli import main
from bmi_components.errors import BmiComponentsError, ConfigurationError, ForcingError, StateError
from bmi_components.nextgen import run as running
from bmi_components.nextgen.forcing import open_forcing
from bmi_components.nextgen.realization import read_realization
from bmi_components.nextgen.run import run_realization
from bmi_components.testing import NgenAdapter
from bmi_components.units import converter

HOURS = 60
PERIOD = ("2020-01-01 00:00:00", "2020-01-03 11:00:00")
HERE = str(Path(__file__).parent)
STREAMFLOW = "land_surface_water__runoff_volume_flux"
TEMPERATURE = "land_surface_air__temperature"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hbv_folder(folder: Path, physics: str = "2.0", extra: str = "", count: int = 3, **params: Any) -> Path:
    """Write a realization of δHBV with everything that it needs."""
    names = [f"cat-{i}" for i in range(count)]
    write_bundle(folder / "model", physics)
    areas = [10.0 + 3.0 * i for i in range(count)]
    lines = catchment_lines(physics, areas).splitlines()[1:]
    for name, index in zip(names, range(count), strict=True):
        text = f"model: model\ninputs: nextgen\npotential_evapotranspiration: penman_monteith\n{extra}dtype: float64\n"
        text += "catchments:\n" + lines[index].replace(f"id: c{index}", f"id: {name}") + "\n"
        text += CLIMATOLOGY if physics.startswith("1") else ""
        (folder / f"{name}.yml").write_text(text)
    write_weather(folder / "forcing.nc", names, HOURS + 1)
    write_geojson(folder / "fabric.geojson", names, nexus="nex-1", areas=areas)
    one = module("bmi_components.DeltaHBV", "{{id}}.yml", NAMES_MAP, **params)
    return realization(folder / "realization.json", one, "forcing.nc", *PERIOD)


def lstm_folder(folder: Path, architectures: tuple[str, ...] = ("lstm", "gru"), count: int = 3) -> Path:
    """Write a realization of an ensemble of LSTMs."""
    names = [f"cat-{i}" for i in range(count)]
    paths = []
    for seed, architecture in enumerate(architectures):
        paths.append(str(make_bundle(architecture, seed).save(folder / f"m{seed}")))
    for index, name in enumerate(names):
        (folder / f"{name}.yml").write_text(
            f"models: {json.dumps(paths)}\ninputs: nextgen\ndtype: float64\nstart_time: 2020-01-01\ncatchments:\n"
            f"  - {{id: {name}, area_km2: {5 + index}, "
            f"attributes: {{elev_mean: {200 + 50 * index}, slope_mean: 12}}}}\n"
        )
    write_weather(folder / "forcing.nc", names, HOURS)
    write_geojson(folder / "fabric.geojson", names)
    one = module("bmi_components.StreamflowLSTM", "{{id}}.yml", NAMES_MAP)
    return realization(folder / "realization.json", one, "forcing.nc", *PERIOD)


def as_ngen_steps(path: Path, names: tuple[str, ...]) -> dict[str, list[dict[str, float]]]:
    """Step one object per catchment by ngen's calls, feeding it forcing in the component's units."""
    content = read_realization(path)
    results: dict[str, list[dict[str, float]]] = {}
    for name in names:
        formulation, params = content.of(name)
        one = formulation.modules[0]
        package, _, kind = one.python_type.rpartition(".")
        adapter = NgenAdapter(
            getattr(importlib.import_module(package), kind),
            one.init_config.replace("{{id}}", name),
            model_params=one.model_params,
            allow_exceed_end_time=one.allow_exceed_end_time,
        )
        with open_forcing(params, [name], content.start, content.last) as forcing:
            series = {}
            for variable in adapter.model.get_input_var_names():
                column = forcing.column(one.alias(variable))
                assert column is not None
                convert = converter(forcing.units(column), adapter.model.get_var_units(variable))
                series[variable] = convert(forcing.read(column, 0, content.steps)[:, 0])
        rows = [
            adapter.step({variable: float(values[step]) for variable, values in series.items()})
            for step in range(content.steps)
        ]
        adapter.finalize()
        results[name] = rows
    return results


@pytest.mark.parametrize("case", ["daily", "hourly", "lumped", "hold", "lstm", "multi_timescale"])
def test_many_catchments_in_one_object_are_one_object_each(folder: Path, case: str) -> None:
    match case:
        case "lstm":
            path = lstm_folder(folder)
        case "multi_timescale":
            path = lstm_folder(folder, ("multi_timescale",))
        case "hourly":
            path = hbv_folder(folder, "2.0-hourly")
        case "lumped":
            path = hbv_folder(folder, "1.1p", "partial_step: estimate\n")
        case "hold":
            path = hbv_folder(folder)
        case _:
            path = hbv_folder(folder, "2.0", "partial_step: estimate\n")
    names = ("cat-0", "cat-1", "cat-2")
    truth = as_ngen_steps(path, names)
    result = run_realization(path, hydrofabric=Path("fabric.geojson"), netcdf=Path("all.nc"), progress=False)
    assert result.complete
    with netCDF4.Dataset("all.nc") as file:
        for name in names:
            header, rows = read_rows(Path("outputs") / f"{name}.csv")
            assert header[:2] == ["Time Step", "Time"]
            assert rows.shape == (HOURS, len(header) - 2)
            index = list(file["catchment"][:]).index(name)
            for number, column in enumerate(header[2:]):
                expected = np.array([row[column] for row in truth[name]])
                # Summation order is all that differs; what is left of stores of metres is 1e-15 m.
                np.testing.assert_allclose(file[column][:, index], expected, rtol=1e-9, atol=1e-13)
                np.testing.assert_allclose(rows[:, number], expected, rtol=6e-9, atol=1e-13)


def test_one_object_each_is_ngens_calls_to_the_bit(folder: Path) -> None:
    path = hbv_folder(folder, "2.0", "partial_step: estimate\n")
    truth = as_ngen_steps(path, ("cat-1",))["cat-1"]
    run_realization(path, netcdf=Path("all.nc"), batch=False, progress=False)
    with netCDF4.Dataset("all.nc") as file:
        for column in truth[0]:
            assert file[column][:, 1].tolist() == [row[column] for row in truth]


def test_nexuses_get_the_depths_times_the_areas_in_cubic_metres_per_second(folder: Path) -> None:
    path = hbv_folder(folder, output={"root": "./outputs", "precision": 17})
    path.write_text(
        path.read_text().replace('"output_root"', '"output": {"precision": 17, "root": "outputs"}, "x"')
    )
    result = run_realization(path, hydrofabric=Path("fabric.geojson"), progress=False)
    assert result.nexuses == 1
    total = np.zeros(HOURS)
    for index in range(3):
        header, rows = read_rows(Path("outputs") / f"cat-{index}.csv")
        total += rows[:, header.index(DEPTH) - 2] * (10.0 + 3.0 * index) * 1e6 / 3600.0
    lines = (Path("outputs") / "nex-1_output.csv").read_text().splitlines()
    assert lines[0].split(", ")[:2] == ["0", "2020-01-01 00:00:00"]
    assert [line.split(", ")[2] for line in lines] == [f"{value:.6g}" for value in total]


def test_the_numbers_are_noaas(folder: Path, shared_data: Path) -> None:
    with np.load(shared_data / "golden" / "lstm" / "noaa_cat67_2in.npz") as file:
        depth, text = file["runoff_depth_m"], str(file["config"])
    run = shared_data / "checkpoints" / "noaa_lstm_aorc_hourly" / "config.yml"
    lines = [line for line in text.splitlines() if not line.startswith(("train_cfg_file", "- ", "  - "))]
    (folder / "cat-67.yml").write_text("\n".join(lines) + f"\ntrain_cfg_file: {run}\n")
    copy_weather(shared_data, folder / "forcing.nc")
    with netCDF4.Dataset(folder / "forcing.nc", "a") as weather:  # NOAA's run read the hour's depth
        weather["precip_rate"][:] = weather["APCP_surface"][:] / 3.6e6
    inputs = {RAIN: "precip_rate", TEMPERATURE: "TMP_2maboveground"}
    one = module("bmi_components.StreamflowLSTM", "{{id}}.yml", inputs)
    path = realization(
        folder / "realization.json", one, "forcing.nc", "2015-12-01 00:00:00", "2015-12-30 23:00:00"
    )
    run_realization(path, catchments=["cat-67"], netcdf=Path("all.nc"), progress=False)
    with netCDF4.Dataset("all.nc") as file:
        np.testing.assert_allclose(file[DEPTH][:, 0], depth, rtol=0, atol=1e-8)


@pytest.fixture
def shipped(folder: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run folder of this repository's realizations, with forcing, and the models that they look up."""
    repository = Path(__file__).resolve().parents[2]
    shutil.copytree(repository / "ngen_realizations", folder / "run")
    copy_weather(shared_data, folder / "run" / "forcings" / "forcings.nc")
    write_bundle(folder / "dhbv_2", "2.0")
    folder_mts(folder / "dhbv_2_mts")
    places = (folder, repository / "models", shared_data / "checkpoints")
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", os.pathsep.join(map(str, places)))
    return folder / "run"


def check_and_run(path: Path, shared_data: Path) -> None:
    """Let the command line check a realization on NextGen's sample catchments, and run it."""
    fabric = ["--hydrofabric", str(shared_data / "nextgen" / "catchment_data.geojson")]
    assert main(["nextgen", "check", str(path), *fabric]) == 0
    assert main(["nextgen", "run", str(path), *fabric, "--quiet"]) == 0


def shortened(path: Path, last: str) -> Path:
    """Let a realization end earlier."""
    content = json.loads(path.read_text())
    content["time"]["end_time"] = last
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["dhbv_drop_in", "dhbv_water_balance", "dhbv_hourly", "lstm_drop_in"])
def test_the_realizations_of_this_repository_run(
    name: str, folder: Path, shipped: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_and_run(shortened(shipped / f"{name}.json", "2015-12-04 23:00:00"), shared_data)
    assert "unaccounted" not in capsys.readouterr().err
    for catchment in CATCHMENTS:
        header, rows = read_rows(folder / "run" / "outputs" / f"{catchment}.csv")
        assert rows.shape[0] == 96
        assert np.isfinite(rows).all()
        if name == "dhbv_water_balance":
            assert header[2:] == ["runoff_m", "evapotranspiration_mm_per_day", "snow_mm", "soil_mm"]
    assert (folder / "run" / "outputs" / "nex-68_output.csv").is_file()


def test_the_shipped_pair_of_components_runs(shipped: Path, shared_data: Path) -> None:
    """Potential evapotranspiration from one component to another; the rain of December raises the flow."""
    check_and_run(shipped / "evapotranspiration_and_lstm.json", shared_data)
    for catchment, area in zip(CATCHMENTS, (18.9, 21.7, 14.8), strict=True):
        header, rows = read_rows(shipped / "outputs" / f"{catchment}.csv")
        assert header[2:] == ["runoff_m", "streamflow_m3_per_s", "potential_evapotranspiration_mm_per_day"]
        assert rows.shape[0] == 720
        depth, flow, evaporation = rows.T
        # The hours of a daily model are estimates that settle with the day's flow.
        assert depth.sum() * area * 1e6 == pytest.approx(flow[23::24].sum() * 86_400.0, rel=1e-5)
        assert 0.0 <= evaporation.min() < evaporation.max() < 5.0
        assert depth[23 * 24 :].mean() > 2.0 * depth[10 * 24 : 20 * 24].mean()


def test_the_shipped_halves_with_states_between_them_are_one_run(shipped: Path, shared_data: Path) -> None:
    whole = json.loads((shipped / "lstm_load_states.json").read_text())
    whole["time"]["start_time"] = "2015-12-01 00:00:00"
    del whole["state_saving"]
    (shipped / "whole.json").write_text(json.dumps(whole))
    parts = {}
    for name in ("lstm_save_states", "lstm_load_states", "whole"):
        check_and_run(shipped / f"{name}.json", shared_data)
        parts[name] = read_rows(shipped / "outputs" / "cat-52.csv")[1]
        if name == "lstm_save_states":
            assert {path.name for path in (shipped / "states").iterdir()} == set(CATCHMENTS)
    halves = np.concatenate([parts["lstm_save_states"], parts["lstm_load_states"]])
    np.testing.assert_allclose(halves, parts["whole"], rtol=1e-6, atol=1e-12)  # the whole is batched


# --- modules that feed each other ------------------------------------------------------------------------------------


def coupled(folder: Path, kind: str = "PotentialEvaporation", **extra: Any) -> Path:
    """δHBV 1.1p by the hour's means, fed potential evaporation by another module, in other units."""
    path = hbv_folder(folder, "1.1p")
    for index in range(3):
        config = folder / f"cat-{index}.yml"
        text = config.read_text().replace(
            "inputs: nextgen\npotential_evapotranspiration: penman_monteith\n", ""
        )
        config.write_text("inputs: direct\npartial_step: estimate\n" + text)
    inputs = {
        RAIN: "precip_rate",
        TEMPERATURE: "TMP_2maboveground",
        "land_surface_water__potential_evaporation_volume_flux": "PET",
        "land_surface_soil_water__volume-per-area_storage_density": "soil",
    }
    evaporation = module(
        f"potential_evaporation.{kind}",
        "/dev/null",
        {TEMPERATURE: "TMP_2maboveground", EVAPORATION: "PET", WETNESS: "soil_fraction"},
        module_path=HERE,
        main_output_variable=EVAPORATION,
    )
    hbv = module("bmi_components.DeltaHBV", "{{id}}.yml", inputs)
    both = {
        "name": "bmi_multi",
        "params": {
            "model_type_name": "both",
            "init_config": "",
            "main_output_variable": DEPTH,
            "allow_exceed_end_time": True,
            "modules": [evaporation, hbv],
            **extra,
        },
    }
    return realization(path, both, "forcing.nc", *PERIOD)


def test_a_module_is_fed_by_another_in_its_own_units(folder: Path) -> None:
    path = coupled(
        folder, output_variables=[DEPTH, "PET", "TMP_2maboveground"], output_header_fields=["q", "pet", "t"]
    )
    (folder / "dev").mkdir()
    run_realization(path, progress=False)
    header, rows = read_rows(folder / "outputs" / "cat-1.csv")
    assert header == ["Time Step", "Time", "q", "pet", "t"]
    with netCDF4.Dataset(folder / "forcing.nc") as file:
        warm = file["TMP_2maboveground"][1]
    expected = 0.2e-3 / 86_400.0 * np.maximum(0.0, warm[:HOURS] - 273.15 + 5.0)
    np.testing.assert_allclose(rows[:, 1], expected, rtol=1e-8, atol=1e-15)
    # ngen reads forcing among the outputs after the update: it stands one step ahead.
    np.testing.assert_allclose(rows[:, 2], warm[1 : HOURS + 1], rtol=1e-8)

    # The same by hand: the component alone, fed millimetres a day.
    adapter = NgenAdapter(importlib.import_module("bmi_components").DeltaHBV, folder / "cat-1.yml")
    with netCDF4.Dataset(folder / "forcing.nc") as file:
        rain = file["precip_rate"][1] * 86_400.0
    for step in range(HOURS):
        outputs = adapter.step(
            {
                RAIN: float(rain[step]),
                TEMPERATURE: float(warm[step] - 273.15),
                "land_surface_water__potential_evaporation_volume_flux": expected[step] * 86_400e3,
            }
        )
        assert rows[step, 0] == pytest.approx(outputs[DEPTH], rel=1e-8, abs=1e-15)


def test_a_module_looks_back_at_a_later_one(folder: Path) -> None:
    """The soil of the hour before, or the default before there is one."""
    path = coupled(
        folder, "DryingEvaporation", output_variables=["PET", "soil_fraction"],
        default_output_values=[{"name": "soil_fraction", "value": 0.5}],
    )  # fmt: skip
    text = path.read_text().replace(
        '"land_surface_soil_water__volume-per-area_storage_density": "soil"', '"x": "y"'
    )
    # A store in mm is no fraction: ngen would pass it raw, we refuse.
    broken = text.replace(
        '"x": "y"', '"land_surface_soil_water__volume-per-area_storage_density": "soil_fraction"'
    )
    path.write_text(broken)
    with pytest.raises(BmiComponentsError, match="soil_fraction"):
        run_realization(path, progress=False)
    content = json.loads(broken)
    hbv = content["global"]["formulations"][0]["params"]["modules"][1]["params"]["variables_names_map"]
    del hbv["land_surface_soil_water__volume-per-area_storage_density"]
    # Two of the same kind look at each other: what the second gives is what the first sees an hour later.
    modules = content["global"]["formulations"][0]["params"]["modules"]
    second = json.loads(json.dumps(modules[0]))
    second["params"]["variables_names_map"] = {
        TEMPERATURE: "TMP_2maboveground", EVAPORATION: "soil_fraction", WETNESS: "PET",
    }  # fmt: skip
    second["params"]["python_type"] = "potential_evaporation.Fraction"
    content["global"]["formulations"][0]["params"]["modules"] = [modules[0], second, modules[1]]
    path.write_text(json.dumps(content))
    run_realization(path, progress=False)
    _, rows = read_rows(folder / "outputs" / "cat-0.csv")
    with netCDF4.Dataset(folder / "forcing.nc") as file:
        warm = np.maximum(0.0, file["TMP_2maboveground"][0][:HOURS] - 273.15 + 5.0)
    seen = np.concatenate([[0.5], rows[:-1, 1]])
    np.testing.assert_allclose(rows[:, 0], 0.2e-3 / 86_400.0 * warm * seen, rtol=1e-7, atol=1e-15)


# --- stopped, killed, resumed ----------------------------------------------------------------------------------------


def results_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def after(steps: int) -> Iterator[bool]:
    for _ in range(steps):
        yield False
    while True:
        yield True


@pytest.mark.parametrize("case", ["hbv", "lstm"])
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(folder: Path, case: str) -> None:
    path = hbv_folder(folder, "2.0", "partial_step: estimate\n") if case == "hbv" else lstm_folder(folder)
    whole = run_realization(path, hydrofabric=Path("fabric.geojson"), progress=False)
    expected = results_of(whole.root)
    (folder / "outputs").rename(folder / "whole")
    stops = after(30)
    stopped = run_realization(
        path, hydrofabric=Path("fabric.geojson"), progress=False, stop=lambda: next(stops)
    )
    assert not stopped.complete
    assert [p.name for p in (folder / "outputs").iterdir()] == [running.WORK]  # nothing looks finished
    done = run_realization(path, hydrofabric=Path("fabric.geojson"), progress=False, resume=True)
    assert done.complete
    assert results_of(folder / "outputs") == expected
    with pytest.raises(StateError, match="no interrupted run"):
        run_realization(path, progress=False, resume=True)


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = 12_000
    monkeypatch.setattr(sys.modules[__name__], "HOURS", hours)
    monkeypatch.setattr(sys.modules[__name__], "PERIOD", ("2020-01-01 00:00:00", "2021-05-14 23:00:00"))
    path = lstm_folder(folder, ("lstm",), count=1)
    command = [sys.executable, "-m", "bmi_components.cli", "nextgen", "run", str(path), "--quiet"]
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(command, env=environment)
    work = folder / "outputs" / running.WORK
    deadline = time.monotonic() + 120.0
    while not list(work.glob("part-0.states/step-*")):
        assert process.poll() is None, "it was over before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert [p.name for p in (folder / "outputs").iterdir()] == [running.WORK]
    steps: list[int] = []
    original = running._Part._chunk

    def noted(self: Any, start: int, *others: Any) -> Any:
        steps.append(start)
        return original(self, start, *others)

    monkeypatch.setattr(running._Part, "_chunk", noted)
    assert run_realization(path, progress=False, resume=True).complete
    resumed = results_of(folder / "outputs")
    assert run_realization(path, progress=False).complete
    assert results_of(folder / "outputs") == resumed
    assert len((folder / "outputs" / "cat-0.csv").read_text().splitlines()) == hours + 1


def test_a_damaged_file_costs_its_part_alone(folder: Path) -> None:
    path = hbv_folder(folder)
    run_realization(path, progress=False)
    expected = results_of(folder / "outputs")
    stops = after(30)
    run_realization(path, progress=False, stop=lambda: next(stops))
    partial = folder / "outputs" / running.WORK / "part-0.nc.partial"
    partial.write_bytes(partial.read_bytes()[:2000])
    assert run_realization(path, progress=False, resume=True).complete
    assert results_of(folder / "outputs") == expected


def test_a_worker_that_was_killed_costs_what_it_had_not_saved(folder: Path) -> None:
    names = ["cat-0", "cat-1"]
    write_weather(folder / "forcing.nc", names, HOURS)
    fraction = module(
        "potential_evaporation.Fragile",
        "/dev/null",
        NAMES_MAP,
        module_path=HERE,
        main_output_variable=EVAPORATION,
    )
    path = realization(folder / "realization.json", fraction, "forcing.nc", *PERIOD)
    fabric = write_geojson(folder / "fabric.geojson", names)
    (note,) = run_realization(path, hydrofabric=fabric, progress=False).notes
    assert "no water" in note
    expected = results_of(folder / "outputs")
    (folder / "fuse").touch()
    with pytest.raises(StateError, match=r"a worker was killed.*--resume"):
        run_realization(path, hydrofabric=fabric, progress=False, processes=2)
    done = run_realization(path, hydrofabric=fabric, progress=False, processes=2, resume=True)
    assert (done.complete, done.nexuses) == (True, 0)
    assert results_of(folder / "outputs") == expected
    assert not list((folder / "outputs").glob("nex-*"))


def test_dask_workers_give_the_same_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    path = hbv_folder(folder, count=4)
    run_realization(path, progress=False)
    expected = results_of(folder / "outputs")
    monkeypatch.setattr(running, "PART", 2)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        done = run_realization(path, progress=False, scheduler=cluster.scheduler_address)
    assert done.complete
    assert list(results_of(folder / "outputs")) == list(expected)


def test_without_dask_a_scheduler_is_an_error_that_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(BmiComponentsError, match="pip install distributed"):
        run_realization(hbv_folder(folder), progress=False, scheduler="tcp://127.0.0.1:1")


# --- states kept between runs ----------------------------------------------------------------------------------------


def with_states(path: Path, name: str, period: tuple[str, str], **folders: str) -> Path:
    """Write a copy of a realization that steps a period, and loads and saves states in folders."""
    content = json.loads(path.read_text())
    content["time"] |= dict(zip(("start_time", "end_time"), period, strict=True))
    content["output_root"] = f"./{name}"
    content["state_saving"] = [
        {
            "direction": direction,
            "label": name,
            "path": folder,
            "type": "FilePerUnit",
            "when": {"save": "EndOfRun", "load": "StartOfRun"}[direction],
        }
        for direction, folder in folders.items()
    ]
    target = path.with_name(f"{name}.json")
    target.write_text(json.dumps(content))
    return target


FIRST = (PERIOD[0], "2020-01-02 06:00:00")
SECOND = ("2020-01-02 07:00:00", PERIOD[1])
"""Cut amid a day."""


@pytest.mark.parametrize("case", ["hbv", "lstm", "coupled"])
def test_two_halves_with_states_kept_between_them_are_one_run(folder: Path, case: str) -> None:
    path = {
        "hbv": lambda: hbv_folder(folder, "2.0", "partial_step: estimate\n"),
        "lstm": lambda: lstm_folder(folder),
        "coupled": lambda: coupled_hbv_and_lstm(folder),
    }[case]()
    for config in folder.glob("cat-*.yml"):
        config.write_text(config.read_text().replace("start_time: 2020-01-01\n", ""))
    run_realization(path, batch=False, progress=False)
    whole = [read_rows(folder / "outputs" / f"cat-{i}.csv")[1] for i in range(3)]
    first = with_states(path, "first", FIRST, save="states")
    second = with_states(path, "second", SECOND, load="states")
    assert main(["nextgen", "check", str(second)]) == 2  # nothing to go on from yet
    assert main(["nextgen", "check", str(first)]) == 0
    assert main(["nextgen", "run", str(first), "--quiet"]) == 0
    assert main(["nextgen", "check", str(second)]) == 0
    run_realization(second, progress=False)
    for index, rows in enumerate(whole):
        halves = [read_rows(folder / half / f"cat-{index}.csv")[1] for half in ("first", "second")]
        np.testing.assert_array_equal(np.concatenate(halves), rows)


def test_a_run_from_states_that_was_stopped_goes_on_to_the_same_bytes(folder: Path) -> None:
    path = hbv_folder(folder, "2.0", "partial_step: estimate\n")
    first = with_states(path, "first", FIRST, save="begin")
    run_realization(first, progress=False)
    assert results_of(folder / "begin").keys() == {"cat-0", "cat-1", "cat-2"}
    second = with_states(path, "second", SECOND, load="begin", save="end")
    run_realization(second, progress=False)
    expected, states = results_of(folder / "second"), results_of(folder / "end")
    for made in ("second", "end"):
        shutil.rmtree(folder / made)
    stops = after(9)
    assert not run_realization(second, progress=False, stop=lambda: next(stops)).complete
    assert not (folder / "end").exists()
    assert run_realization(second, progress=False, resume=True).complete
    assert (results_of(folder / "second"), results_of(folder / "end")) == (expected, states)


def coupled_hbv_and_lstm(folder: Path) -> Path:
    """Two modules beside each other, so that each has a state."""
    lstm = json.loads(lstm_folder(folder).read_text())["global"]["formulations"][0]
    (folder / "lstm").mkdir()
    for index in range(3):
        (folder / f"cat-{index}.yml").rename(folder / "lstm" / f"cat-{index}.yml")
        text = (folder / "lstm" / f"cat-{index}.yml").read_text().replace("start_time: 2020-01-01\n", "")
        (folder / "lstm" / f"cat-{index}.yml").write_text(text)
    path = hbv_folder(folder)
    content = json.loads(path.read_text())
    hbv = content["global"]["formulations"][0]
    lstm["params"]["init_config"] = "lstm/{{id}}.yml"
    for one, suffix in ((lstm, "lstm"), (hbv, "hbv")):
        from bmi_components import DeltaHBV, StreamflowLSTM

        component = (StreamflowLSTM if suffix == "lstm" else DeltaHBV)()
        component.initialize(one["params"]["init_config"].replace("{{id}}", "cat-0"))
        names = {name: f"{suffix}_{name}" for name in component.get_output_var_names()}
        one["params"]["variables_names_map"] |= names
    both = {
        "model_type_name": "both",
        "init_config": "",
        "main_output_variable": f"hbv_{DEPTH}",
        "allow_exceed_end_time": True,
        "output_variables": [f"hbv_{DEPTH}", f"lstm_{DEPTH}"],
        "modules": [lstm, hbv],
    }
    content["global"]["formulations"] = [{"name": "bmi_multi", "params": both}]
    path.write_text(json.dumps(content))
    return path


def test_a_state_that_does_not_fit_is_one_error_and_leaves_nothing(folder: Path) -> None:
    path = hbv_folder(folder)
    run_realization(with_states(path, "first", FIRST, save="states"), progress=False)
    (folder / "states" / "cat-1").write_bytes((folder / "states" / "cat-1").read_bytes()[:-7])
    second = with_states(path, "second", SECOND, load="states")
    with pytest.raises(StateError, match=r"cat-1.*not a saved state, or is damaged"):
        run_realization(second, progress=False)
    assert not (folder / "second").exists()
    (folder / "states" / "cat-1").unlink()
    with pytest.raises(StateError, match=r"there is no states.cat-1"):
        run_realization(second, progress=False)


def test_a_module_without_a_state_is_told_so(folder: Path) -> None:
    path = with_states(coupled(folder), "first", FIRST, save="states")
    with pytest.raises(ConfigurationError, match="no variable serialization_state"):
        run_realization(path, progress=False)
    assert not (folder / "states").exists()


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"when": "FirstOfMonth"}, "save, FilePerUnit, FirstOfMonth"),
        ({"path": ""}, r"state_saving\[0\].path is missing"),
        ({"direction": "load"}, "load, FilePerUnit, EndOfRun"),
    ],
)
def test_state_saving_that_ngen_does_not_know_is_one_error(
    folder: Path, entry: dict[str, str], message: str
) -> None:
    path = with_states(hbv_folder(folder), "first", FIRST, save="states")
    content = json.loads(path.read_text())
    content["state_saving"][0] |= entry
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match=message):
        read_realization(path)


def test_a_changed_run_is_not_resumed(folder: Path) -> None:
    path = hbv_folder(folder)
    stops = after(30)
    run_realization(path, progress=False, stop=lambda: next(stops))
    (folder / "cat-1.yml").write_text((folder / "cat-1.yml").read_text() + "# changed\n")
    with pytest.raises(StateError, match="another realization"):
        run_realization(path, progress=False, resume=True)


def test_parts_that_were_finished_are_not_run_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = hbv_folder(folder)
    monkeypatch.setattr(running, "PART", 1)
    stops = after(int(1.5 * HOURS))
    assert not run_realization(path, progress=False, stop=lambda: next(stops)).complete
    stepped: list[int] = []
    original = running._Part.run

    def counted(self: Any, progress: Any, stop: Any) -> bool:
        stepped.append(self.job.number)
        return bool(original(self, progress, stop))

    monkeypatch.setattr(running._Part, "run", counted)
    assert run_realization(path, progress=False, resume=True).complete
    assert stepped == [1, 2]


def test_processes_give_the_same_numbers(folder: Path) -> None:
    path = hbv_folder(folder, count=4)
    run_realization(path, hydrofabric=Path("fabric.geojson"), progress=False)
    expected = results_of(folder / "outputs")
    result = run_realization(path, hydrofabric=Path("fabric.geojson"), progress=False, processes=2)
    assert result.complete
    found = results_of(folder / "outputs")
    assert list(found) == list(expected)
    for index in range(4):
        _, rows = read_rows(folder / "outputs" / f"cat-{index}.csv")
        (folder / "before.csv").write_bytes(expected[f"cat-{index}.csv"])
        _, before = read_rows(folder / "before.csv")
        np.testing.assert_allclose(rows, before, rtol=2e-9, atol=1e-13)


# --- what is asked for besides ---------------------------------------------------------------------------------------


def test_catchments_that_differ_in_more_than_the_catchment_get_objects_of_their_own(folder: Path) -> None:
    path = hbv_folder(folder)
    config = folder / "cat-1.yml"
    config.write_text(config.read_text() + "parameters: {parFC: 300.0}\n")
    truth = as_ngen_steps(path, ("cat-0", "cat-1"))
    run_realization(path, netcdf=Path("all.nc"), progress=False)
    with netCDF4.Dataset("all.nc") as file:
        for index, name in enumerate(("cat-0", "cat-1")):
            expected = [row[DEPTH] for row in truth[name]]
            np.testing.assert_allclose(file[DEPTH][:, index], expected, rtol=1e-9, atol=1e-14)


def test_model_params_are_numbers_or_columns_of_the_hydrofabric(folder: Path) -> None:
    path = hbv_folder(
        folder, model_params={"parFC": 300.0, "uparea": {"source": "hydrofabric", "from": "areasqkm"}}
    )
    plain = hbv_folder(folder / "plain") if (folder / "plain").mkdir() is None else path
    assert plain.is_file()
    run_realization(path, hydrofabric=Path("fabric.geojson"), netcdf=Path("all.nc"), progress=False)
    adapter = NgenAdapter(
        importlib.import_module("bmi_components").DeltaHBV,
        "cat-2.yml",
        model_params={"parFC": 300.0, "uparea": 16.0},
        allow_exceed_end_time=True,
    )
    content = read_realization(path)
    with open_forcing(content.of("cat-2")[1], ["cat-2"], content.start, content.last) as forcing:
        series = {n: forcing.read(c, 0, HOURS)[:, 0] for n, c in NAMES_MAP.items()}
    series[TEMPERATURE] = series[TEMPERATURE] - 273.15
    with netCDF4.Dataset("all.nc") as file:
        for step in range(HOURS):
            outputs = adapter.step({n: float(v[step]) for n, v in series.items()})
            assert file[DEPTH][step, 2] == pytest.approx(outputs[DEPTH], rel=1e-9, abs=1e-14)


def test_a_broken_mass_balance_is_told_or_fatal(folder: Path) -> None:
    balance = {"tolerance": 1e-5, "check": True, "fatal": True, "frequency": 1}
    path = hbv_folder(folder, mass_balance=balance)
    assert run_realization(path, progress=False).notes == ()
    path.write_text(path.read_text().replace("1e-05", "-1.0"))
    with pytest.raises(BmiComponentsError, match="mass balance of DeltaHBV in cat-0 at 2020-01-01 00:00:00"):
        run_realization(path, progress=False)
    path.write_text(path.read_text().replace('"fatal": true', '"fatal": false'))
    (note,) = run_realization(path, progress=False).notes
    assert f"({3 * HOURS} such in all)" in note


def test_csv_forcing_and_one_file_for_all(folder: Path, shared_data: Path) -> None:
    weather = folder / "weather"
    weather.mkdir()
    for path in (shared_data / "nextgen" / "forcing").glob("*.csv"):
        text = path.read_text().replace("precip_rate", "precip_rate (m s-1)", 1)
        (weather / path.name).write_text(text)
    copy_weather(shared_data, folder / "forcing.nc")
    write_bundle(folder / "model", "2.0")
    lines = catchment_lines("2.0", (10.0, 11.0, 12.0)).splitlines()[1:]
    for index, name in enumerate(CATCHMENTS):
        (folder / f"{name}.yml").write_text(
            "model: model\ninputs: nextgen\npotential_evapotranspiration: penman_monteith\ncatchments:\n"
            + lines[index].replace(f"id: c{index}", f"id: {name}")
        )
    one = module("bmi_components.DeltaHBV", "{{id}}.yml", NAMES_MAP, output_variables=[DEPTH])
    period = ("2015-12-20 00:00:00", "2015-12-23 23:00:00")
    csv = {"path": "weather", "provider": "CsvPerFeature", "file_pattern": "{{id}}_.*csv"}
    results = []
    for forcing in (csv, "forcing.nc"):
        path = realization(folder / "realization.json", one, forcing, *period)
        run_realization(path, catchments=CATCHMENTS, progress=False)
        results.append(read_rows(folder / "outputs" / "cat-52.csv")[1])
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-9)

    grouped = {"root": "grouped", "catchment": {"grouping": "per_formulation"}, "nexus": {"enable": False}}
    path = realization(folder / "realization.json", one, csv, *period, output=grouped)
    run_realization(path, catchments=CATCHMENTS, progress=False)
    lines = (folder / "grouped" / "cat_output.csv").read_text().splitlines()
    assert lines[0] == f"catchment_id,Time Step,Time,{DEPTH}"
    assert [line.split(",")[:2] for line in lines[1:5]] == [
        ["cat-27", "0"],
        ["cat-52", "0"],
        ["cat-67", "0"],
        ["cat-27", "1"],
    ]
    assert len(lines) == 1 + 3 * 96


def test_a_gap_in_the_forcing_names_catchment_and_time_and_leaves_nothing(folder: Path) -> None:
    path = hbv_folder(folder)
    with netCDF4.Dataset(folder / "forcing.nc", "a") as file:
        file["PRES_surface"][1, 7] = np.nan
    with pytest.raises(ForcingError, match=r"PRES_surface is missing.*2020-01-01T07:00:00 in cat-1"):
        run_realization(path, progress=False)
    assert not (folder / "outputs").exists()


def test_an_impossible_value_names_the_catchment(folder: Path) -> None:
    path = hbv_folder(folder)
    with netCDF4.Dataset(folder / "forcing.nc", "a") as file:
        file["precip_rate"][2, 7] = -1.0
    with pytest.raises(ForcingError, match=r"2020-01-01 07:00:00.*cat-2"):
        run_realization(path, progress=False)
