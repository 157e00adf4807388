"""`bmi-components run`: forcing in, results out; interrupted and resumed it is the same run."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
from numpy.typing import NDArray

from bmi_components import simulation
from bmi_components.cli import main
from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.errors import StateError
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.sample_weather import daily_weather
from bmi_components.stepper import Stepper
from bmi_components.variables import variable


class BucketStepper(Stepper):
    """dS = P - S / 10 d: one store per catchment."""

    inputs = (variable("precipitation"),)
    outputs = (variable("runoff_depth"), variable("runoff_rate"), variable("lower_zone_storage"))
    time_step = 86_400.0
    identity = "bucket"
    size = 2

    def __init__(self) -> None:
        self.storage = np.full(2, 5.0)

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        on_step(time)
        runoff = (self.storage + forcings) / 10.0
        self.storage = self.storage + forcings - runoff
        outputs[:] = np.concatenate([runoff / 1000.0 / 86_400.0, runoff, self.storage])
        return outputs

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        outputs[:] = np.concatenate([np.zeros(4), self.storage])

    def read_state(self) -> dict[str, NDArray[Any]]:
        return {"storage": self.storage.copy()}

    def write_state(self, state: Any) -> None:
        if set(state) != {"storage"}:
            raise StateError("a bucket's state is its storage")
        self.storage = np.array(state["storage"])


class BucketSettings(Settings, forbid_unknown_fields=True, kw_only=True, frozen=True):
    catchments: tuple[dict[str, Any], ...] = ()


class Bucket(Component):
    name = "Bucket"
    settings_type = BucketSettings

    def open(self, settings: Any) -> Stepper:
        return BucketStepper()


on_step: Callable[[float], None] = lambda time: None  # noqa: E731  (tests interrupt through it)

CONFIG = f"""
catchments: [{{id: 'snowy-forest', latitude: 45.2}}, {{id: 'oceanic-hills', latitude: 46.6}}]
run:
  component: {__name__}.Bucket
  start: 1995-10-01
  end: 1996-09-30
  forcing: {{kind: sample, seed: 2}}
  output: {{precision: float64}}
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bucket.yaml"
    path.write_text(CONFIG)
    return path


def values(path: Path) -> dict[str, NDArray[np.float64]]:
    with netCDF4.Dataset(path) as file:
        return {
            name: np.ma.filled(data[:].astype(np.float64), np.nan)
            for name, data in file.variables.items()
            if data.dimensions == ("time", "catchment")
        }


def test_a_run_writes_cf_netcdf_a_hydrograph_and_a_closed_water_balance(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(config), "--quiet"]) == 0
    folder = Path("output/bucket")
    assert sorted(path.name for path in folder.iterdir()) == ["bucket.nc", "bucket.png"]
    assert (folder / "bucket.png").read_bytes().startswith(b"\x89PNG")
    with netCDF4.Dataset(folder / "bucket.nc") as file:
        assert file.Conventions == "CF-1.8"
        assert list(file["catchment"][:]) == ["snowy-forest", "oceanic-hills"]
        assert file["catchment"].cf_role == "timeseries_id"
        assert file["time"].units == "days since 1995-10-01 00:00:00"
        assert file["precipitation"].standard_name == "lwe_precipitation_rate"
        assert file["runoff_rate"].units == "mm d-1"
        assert file["lower_zone_storage"].comment == "state at the end of the step"
        assert list(file["latitude"][:]) == [45.2, 46.6]
        assert "component: " in file.configuration
        gain = file["final_storage"][:] - file["initial_storage"][:]
    results = values(folder / "bucket.nc")
    assert results["runoff_rate"].shape == (366, 2)
    came, went = (results[symbol].sum(axis=0) for symbol in ("precipitation", "runoff_rate"))
    np.testing.assert_allclose(came - went, gain, atol=1e-9)
    np.testing.assert_allclose(results["runoff_depth"], results["runoff_rate"] / 1000.0)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["catchment", "P", "Q", "dS", "residual", "mm", "per", "year"]
    for line in table[1:3]:
        assert abs(float(line.split()[-1])) < 0.06


def test_an_interrupted_run_leaves_nothing_complete_and_resumes_to_the_same_results(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "whole"]) == 0

    def interrupt(time: float) -> None:
        if time == 100 * 86_400.0:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(f"{__name__}.on_step", interrupt)
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "parts"]) == 130
    assert "stopped at step 101 of 366; --resume goes on" in capsys.readouterr().out
    assert sorted(path.name for path in Path("parts").iterdir()) == ["bucket.nc.partial", "bucket.state"]
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "parts", "--resume"]) == 0
    assert [path.name for path in Path("parts").iterdir()] == ["bucket.nc"]
    whole, parts = values(Path("whole/bucket.nc")), values(Path("parts/bucket.nc"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_a_run_that_dies_resumes_from_its_last_checkpoint(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "whole"]) == 0
    monkeypatch.setattr(simulation, "CHECKPOINT_SECONDS", 0.0)

    def die(time: float) -> None:
        if time == 50 * 86_400.0:
            raise MemoryError

    monkeypatch.setattr(f"{__name__}.on_step", die)
    with pytest.raises(MemoryError):
        main(["run", str(config), "--quiet", "--no-plot", "--output", "parts"])
    monkeypatch.setattr(f"{__name__}.on_step", lambda time: None)
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "parts", "--resume"]) == 0
    for name, expected in values(Path("whole/bucket.nc")).items():
        np.testing.assert_array_equal(values(Path("parts/bucket.nc"))[name], expected)


def test_a_period_starts_from_the_state_at_the_end_of_another(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quietly = ["--quiet", "--no-plot", "--output"]
    assert main(["run", str(config), *quietly, "whole"]) == 0
    winter = ["--end", "1996-03-31", "--save-state", "states/winter.state"]
    assert main(["run", str(config), *quietly, "winter", *winter]) == 0
    summer = ["--start", "1996-04-01", "--initial-state", "states/winter.state"]
    assert main(["run", str(config), *quietly, "summer", *summer]) == 0
    for name, expected in values(Path("whole/bucket.nc")).items():
        np.testing.assert_array_equal(values(Path("summer/bucket.nc"))[name], expected[183:])
    assert main(["run", str(config), *quietly, "other", "--initial-state", "states/summer.state"]) == 2
    assert "no saved state at states/summer.state" in capsys.readouterr().err
    assert not Path("other").exists()

    # Where a run started is part of what it is.
    monkeypatch.setattr(f"{__name__}.on_step", lambda time: os.kill(os.getpid(), signal.SIGINT))
    assert main(["run", str(config), *quietly, "broken", *summer]) == 130
    assert main(["run", str(config), *quietly, "broken", *summer[:2], "--resume"]) == 2


def test_another_run_is_not_resumed(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(config), "--resume"]) == 2
    assert "there is no interrupted run to resume" in capsys.readouterr().err
    monkeypatch.setattr(f"{__name__}.on_step", lambda time: os.kill(os.getpid(), signal.SIGINT))
    assert main(["run", str(config), "--quiet"]) == 130
    capsys.readouterr()
    assert main(["run", str(config), "--resume", "--end", "1996-08-31"]) == 2
    assert "of a run with another configuration, forcing or period" in capsys.readouterr().err


def test_hours_of_forcing_step_a_daily_component_and_add_up(config: Path) -> None:
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "days"]) == 0
    config.write_text(CONFIG.replace("seed: 2", "seed: 2, time_step: 1 hour"))
    assert main(["run", str(config), "--quiet", "--no-plot", "--output", "hours"]) == 0
    days, hours = values(Path("days/bucket.nc")), values(Path("hours/bucket.nc"))
    np.testing.assert_allclose(hours["precipitation"], days["precipitation"], atol=1e-9)
    np.testing.assert_allclose(hours["lower_zone_storage"], days["lower_zone_storage"], rtol=1e-9)
    assert hours["runoff_depth"].sum() == pytest.approx(days["runoff_depth"].sum(), rel=0.05)


def test_results_in_csv_are_forcing_again(config: Path) -> None:
    assert main(["run", str(config), "--quiet", "--no-plot", "--csv"]) == 0
    again = read_forcing(Path("output/bucket/csv"), [variable("precipitation")])
    # A folder is read in the order of its names.
    weather = daily_weather("1995-10-01", "1996-09-30", seed=2).select(["oceanic-hills", "snowy-forest"])
    assert again.catchments == weather.catchments
    np.testing.assert_allclose(again.values["precipitation"], weather.values["precipitation"], rtol=1e-6)


def test_forcing_period_and_observations_may_be_the_users_own(config: Path, tmp_path: Path) -> None:
    weather = daily_weather("1995-01-01", "1997-12-31", seed=9)
    for column, name in enumerate(weather.catchments):
        rows = "\n".join(
            f"{day},{rain},{'' if i == 400 else 1.5}"
            for i, (day, rain) in enumerate(
                zip(
                    weather.time.astype("datetime64[D]"),
                    weather.values["precipitation"][:, column],
                    strict=True,
                )
            )
        )
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{name}.csv").write_text(f"time,precipitation (mm d-1),q (mm d-1)\n{rows}\n")
    config.write_text(CONFIG + "  observations: {kind: csv, path: own, columns: {runoff_rate: q}}\n")
    arguments = ["--forcing", "own", "--start", "1996-01-01", "--end", "1996-12-31"]
    assert main(["run", str(config), "--quiet", *arguments]) == 0
    results = values(Path("output/bucket/bucket.nc"))
    expected = weather.select(["snowy-forest", "oceanic-hills"], "1996-01-01", "1996-12-31").values[
        "precipitation"
    ]
    np.testing.assert_allclose(results["precipitation"], expected)
    assert np.isnan(results["observed_runoff"]).sum() == 2
    assert np.nanmax(results["observed_runoff"]) == 1.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("component: ", "component: no.such.", "there is no component"),
        (f"component: {__name__}.Bucket", "component: pathlib.Path", "is not a component"),
        ("kind: sample", "kind: sampel", "sampel"),
        ("forcing: {kind: sample, seed: 2}", "", "no forcing"),
        ("seed: 2}", "seed: 2, catchments: ['snowy-forest']}", "has 1 catchments, the component 2"),
        ("seed: 2}", "seed: 2, catchments: ['oceanic-hills', 'snowy-forest']}", "not those of the component"),
        ("precision: float64", "variables: [snow]", "no output 'snow'; it has runoff_depth"),
        ("precision: float64", "colour: red", "colour"),
        ("end: 1996-09-30", "end: 1994-09-30", "before it starts"),
        ("catchments: [", "start_time: 1994-10-01\ncatchments: [", "they must agree"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    config: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    assert old in CONFIG
    config.write_text(CONFIG.replace(old, new))
    assert main(["run", str(config), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not Path("output").exists()
