"""The configurations that ship: sample weather, and NextGen's LSTM on real AORC weather from the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import yaml

from bmi_components.cli import main
from bmi_components.forcing.readers import source_of

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CSV = "cat-67_2015-12-01 00_00_00_2015-12-30 23_00_00.csv"
NETCDF = "cats-27_52_67-2015_12_01-2015_12_30.nc"


def drawn(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


def test_the_sample_run_gives_plausible_water(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(CONFIGS / "lstm_sample.yaml"), "--quiet", "--output", str(tmp_path)]) == 0
    assert drawn(tmp_path / "lstm_sample.png")
    with netCDF4.Dataset(tmp_path / "lstm_sample.nc") as file:
        runoff, rain = file["runoff_rate"][:], file["precipitation"][:]
        assert runoff.shape == (1827, 6)
        assert np.isfinite(runoff).all()
        assert runoff.min() >= 0.0
        ratio = dict(zip(file["catchment"][:], runoff.mean(axis=0) / rain.mean(axis=0), strict=True))
    # A network knows no balance, but it has learned where the water goes.
    assert ratio["semi-arid-plain"] < 0.15
    assert ratio["oceanic-hills"] > 0.6
    assert max(ratio.values()) < 1.0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split()[:6] == ["catchment", "P", "Q", "P", "-", "Q"]


@pytest.fixture
def december(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(shared_data / "checkpoints"))
    return shared_data / "nextgen" / "forcing"


@pytest.mark.parametrize("forcing", [CSV, NETCDF, ""])
def test_the_real_example_gives_noaas_numbers_from_the_command_line(
    forcing: str, december: Path, shared_data: Path, tmp_path: Path
) -> None:
    config = CONFIGS / "lstm_cat-67.yaml"
    run = ["run", str(config), "--forcing", str(december / forcing), "--quiet", "--output", str(tmp_path)]
    assert main(run) == 0
    assert drawn(tmp_path / "lstm_cat-67.png")
    with np.load(shared_data / "golden" / "lstm" / "noaa_cat67_2in.npz") as golden:
        expected = golden["runoff_depth_m"]
    with netCDF4.Dataset(tmp_path / "lstm_cat-67.nc") as file:
        assert list(file["catchment"][:]) == ["cat-67"]
        assert file["runoff_rate"].units == "m3 s-1"
        np.testing.assert_allclose(file["runoff_depth"][:, 0], expected, rtol=0, atol=1e-8)


def test_nextgens_own_file_runs_from_the_command_line(
    december: Path, shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(shared_data / "golden" / "lstm" / "noaa_cat67_2in.npz") as golden:
        content = yaml.safe_load(str(golden["config"]))
        depth = float(golden["runoff_depth_m"].sum())
    content["train_cfg_file"] = "noaa_lstm_aorc_hourly/config.yml"
    path = tmp_path / "cat-67.yml"
    path.write_text(yaml.safe_dump(content))
    run = ["run", str(path), "--component", "StreamflowLSTM", "--forcing", str(december / NETCDF)]
    assert main([*run, "--quiet", "--output", str(tmp_path)]) == 0
    assert drawn(tmp_path / "cat-67.png")
    row = capsys.readouterr().out.splitlines()[1].split()
    assert row[0] == "cat-67"
    assert float(row[2]) == pytest.approx(depth * 1000.0 / 30.0 * 365.25, abs=0.1)


def test_a_bare_path_is_nextgens_forcing_only_if_it_looks_like_it(december: Path, tmp_path: Path) -> None:
    assert (
        source_of(december / CSV).kind
        == source_of(december).kind
        == source_of(december / NETCDF).kind
        == "nextgen"
    )
    own = tmp_path / "own.csv"
    own.write_text("time,precipitation (mm d-1)\n2001-01-01,1.0\n")
    assert source_of(own).kind == "csv"
    labelled = tmp_path / "labelled.csv"
    labelled.write_text("time,catchment,precip_rate (mm s-1)\n2001-01-01,a,1.0\n")
    assert source_of(labelled).kind == "csv"
    described = tmp_path / "described.yaml"
    shutil.copy(december / CSV, tmp_path / "cat-67.csv")
    described.write_text("kind: csv\npath: cat-67.csv\n")
    assert source_of(described).kind == "csv"
