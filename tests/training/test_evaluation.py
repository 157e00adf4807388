"""Evaluation: whole periods with the right warm-up, files that can be read back, figures, and the command line."""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from bmi_components.cli import evaluate as evaluate_command
from bmi_components.cli import train as train_command
from bmi_components.errors import BmiComponentsError, ConfigurationError
from bmi_components.forcing.caravan import BasinDataset
from bmi_components.training.evaluation import evaluate, simulate, write_evaluation
from bmi_components.training.plots import plot_loss

PERIOD = ("2002-01-01", "2002-12-31")


class Echo(torch.nn.Module):
    """A model whose streamflow is the precipitation, so that every day and gauge can be recognised."""

    def __init__(self, dataset: BasinDataset) -> None:
        super().__init__()
        self.forcing_names, self.attribute_names = dataset.forcing_names, dataset.attribute_names
        self.warm_ups: list[int] = []

    def forward(self, forcing: torch.Tensor, attributes: torch.Tensor, warm_up: int) -> torch.Tensor:
        self.warm_ups.append(warm_up)
        return forcing[warm_up:, :, 0]


def test_each_day_and_gauge_of_the_period_is_simulated_in_its_place(basins: BasinDataset) -> None:
    model = Echo(basins)
    days = basins.days(PERIOD)
    simulated = simulate(model, basins, PERIOD, 100, catchments_at_once=4)
    np.testing.assert_array_equal(simulated, basins.forcing[days, :, 0])
    assert model.warm_ups == [100, 100]
    chosen = np.array([5, 1])
    np.testing.assert_array_equal(
        simulate(model, basins, PERIOD, 0, gauges=chosen), basins.forcing[days][:, chosen, 0]
    )


def test_a_warm_up_before_the_data_is_as_long_as_it_can_be(basins: BasinDataset) -> None:
    model = Echo(basins)
    assert simulate(model, basins, ("2001-02-01", "2001-03-01"), 365).shape == (29, 6)
    assert model.warm_ups == [31]


def test_data_for_another_model_are_refused(basins: BasinDataset) -> None:
    with pytest.raises(ConfigurationError, match="forcings"):
        simulate(Echo(basins), replace(basins, forcing_names=("a", "b", "c")), PERIOD, 0)
    with pytest.raises(ConfigurationError, match="attributes"):
        simulate(Echo(basins), replace(basins, attribute_names=("frac_snow", "p_mean")), PERIOD, 0)
    basins.attributes[3, 1] = np.nan
    with pytest.raises(ConfigurationError, match="frac_snow of gauge g3 is missing"):
        simulate(Echo(basins), basins, PERIOD, 0)


def test_tables_and_figures_are_written(basins: BasinDataset, tmp_path: Path) -> None:
    basins.target[:, 4] = np.nan
    evaluation = evaluate(Echo(basins), basins, PERIOD, 30)
    write_evaluation(evaluation, tmp_path / "result", "echo")
    with (tmp_path / "result" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["gauge_id"] for row in rows] == list(basins.gauge_ids)
    np.testing.assert_allclose([float(row["nse"]) for row in rows], evaluation.metrics["nse"], rtol=1e-5)
    summary = json.loads((tmp_path / "result" / "summary.json").read_text())
    assert (summary["gauges"], summary["gauges_with_observations"]) == (6, 5)
    assert summary["median"]["nse"] == pytest.approx(np.nanmedian(evaluation.metrics["nse"]), abs=1e-4)
    assert sorted(file.name for file in (tmp_path / "result").iterdir()) == [
        *("hydrographs.png", "metrics.csv", "nse_cdf.png", "nse_map.png", "summary.json")
    ]


def test_a_period_without_any_observation_still_gives_a_summary(basins: BasinDataset, tmp_path: Path) -> None:
    basins.target[:] = np.nan
    write_evaluation(evaluate(Echo(basins), basins, PERIOD, 0), tmp_path, "echo")
    assert json.loads((tmp_path / "summary.json").read_text())["median"]["nse"] is None


def test_the_loss_figure_stands_skipped_batches(tmp_path: Path) -> None:
    plot_loss(tmp_path / "loss.png", [1.0, np.nan, 0.5], [(2, 0.3, 0.2)])
    plot_loss(tmp_path / "skipped.png", [np.nan], [])
    assert (tmp_path / "loss.png").stat().st_size > 0


def command(*arguments: object) -> int:
    """Run one of the two subcommands as the command line does."""
    parser = argparse.ArgumentParser()
    subparsers = parser.add_subparsers(required=True)
    for module in (train_command, evaluate_command):
        module.add_parser(subparsers)
    parsed = parser.parse_args([str(argument) for argument in arguments])
    result: int = parsed.func(parsed)
    return result


@pytest.fixture
def recipe(basin_folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(
        msgspec.yaml.encode(
            {
                "model": {"kind": "streamflow_lstm", "hyperparameters": {"hidden": 4}},
                "data": {"path": basin_folder.name, "attributes": ["p_mean", "frac_snow"]},
                "periods": {"train": ["2001-02-01", "2002-06-30"], "test": ["2003-01-01", "2003-06-01"]},
                "held_out": {"fraction": 0.34, "seed": 3},
                "window": {"gauges": 4, "warm_up": 20, "scored": 40},
                "iterations": 6,
                "output": str(tmp_path / "run"),
            }
        )
    )
    return path


def test_train_then_evaluate_on_the_command_line(
    recipe: Path, basin_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", recipe, "--quiet") == 0
    assert command("train", recipe, "--quiet", "--output", tmp_path / "other") == 0
    bundles = [tmp_path / "run" / "bundle", tmp_path / "other" / "bundle"]
    out = tmp_path / "scores"
    assert command("evaluate", *bundles, basin_folder, "--out", out) == 0
    assert {file.name for file in out.iterdir()} == {"run", "other", "nse_cdf.png", "kge_cdf.png"}
    assert json.loads((out / "run" / "summary.json").read_text())["period"] == ["2003-01-01", "2003-06-01"]
    capsys.readouterr()
    assert (
        command("evaluate", bundles[0], basin_folder, "--gauges", "held-out", "--out", tmp_path / "space")
        == 0
    )
    assert "2 gauges, median NSE" in capsys.readouterr().out
    period = "2002-10-01..2002-12-31"
    assert (
        command(
            "evaluate",
            bundles[0],
            basin_folder,
            "--period",
            period,
            "--gauges",
            "g1",
            "--out",
            tmp_path / "g1",
        )
        == 0
    )
    assert json.loads((tmp_path / "g1" / "summary.json").read_text())["gauges"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--period", "2002"), "FIRST..LAST"),
        (("--period", "2002-01-01..2042-01-01"), "not within the data"),
        (("--gauges", "g7"), "'g7'"),
        (("--warm-up", "-1"), "--warm-up"),
    ],
)
def test_wrong_questions_are_explained(
    recipe: Path, basin_folder: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    command("train", recipe, "--quiet")
    with pytest.raises(BmiComponentsError, match=message):
        command("evaluate", tmp_path / "run" / "bundle", basin_folder, *arguments, "--out", tmp_path / "none")
    assert not (tmp_path / "none").exists()
