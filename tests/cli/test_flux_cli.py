"""`bmi-components flux` from the outside: a recipe, a folder full of results, and interruptions that cost nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bmi_components.cli import main
from bmi_components.trained_model import TrainedModel

RECIPE = """
towers: [{files: [XX-Syn.csv]}]
inputs: [PPFD_IN, TA_F]
target: NEE
daily: {day_of_year: true, ustar: none}
model: {model: lstm, sequence_length: 3, sizes: {hidden: 4}, fit: {learning_rate: 0.02, epochs: EPOCHS}}
grid: {sizes.hidden: [2, 4]}
split: {years: 1, by: calendar}
folds: {by: calendar, least: 100}
final_fits: 2
importance: {lengths: [1, 3], fits: 2}
compare:
  folds: {by: calendar, least: 100}
  models: {ANN: {model: ann, sequence_length: 1, fit: {epochs: 3}}}
output: OUTPUT
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Hold a tower of more than two years and a recipe beside it."""
    random = np.random.default_rng(0)
    days = np.datetime64("2015-01-01") + np.arange(800)
    season = -np.cos(2 * np.pi * np.arange(800) / 365.25)
    light = (700 + 350 * season) * random.uniform(0.4, 1.0, 800)
    warmth = 12 + 8 * season + random.normal(0, 3, 800)
    exchange = 2 - 0.0008 * light * np.maximum(warmth, 0) + random.normal(0, 0.3, 800)
    rows = zip(days, light, warmth, exchange, strict=True)
    lines = [f"{str(day).replace('-', '')},{a:.2f},{b:.3f},{c:.4f}" for day, a, b, c in rows]
    header = "TIMESTAMP_START,PPFD_IN (umol m-2 s-1),TA_F (degC),NEE (umol m-2 s-1)"
    (tmp_path / "XX-Syn.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return write(tmp_path, 4)


def write(folder: Path, epochs: int) -> Path:
    text = RECIPE.replace("EPOCHS", str(epochs)).replace("OUTPUT", str(folder / "run"))
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    return folder / "recipe.yaml"


def test_all_tasks_leave_tables_figures_and_a_bundle(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = recipe.parent / "run"
    expected = {
        "tune": ["tuning.csv", "tuning.md"],
        "train": [
            "bundle/model.yaml",
            "bundle/README.md",
            "results.csv",
            "results.md",
            "training_curve.png",
            "predictions_training.png",
            "predictions_evaluation.png",
        ],
        "importance": [
            "sequence_importance.csv",
            "sequence_importance_r2.png",
            "sequence_importance_mse.png",
            "variable_importance.csv",
            "variable_importance.png",
        ],
        "compare": ["comparison.md", "comparison.csv", "comparison.png", "comparison_predictions.csv"],
    }
    fits = 0
    for task, files in expected.items():
        assert main(["flux", task, str(recipe), "--quiet"]) == 0
        out, err = capsys.readouterr()
        assert f"written to {run}" in out
        assert "no snow depth" in err
        for name in files:
            assert (run / name).stat().st_size > 0, name
        # what one task has fitted serves the next: the three days of the importance are those of the training
        before, fits = fits, len(list((run / "fits").iterdir()))
        assert fits - before == {"tune": 4, "train": 2, "importance": 2, "compare": 2}[task]
    assert TrainedModel.load(run / "bundle", kind="flux").hyperparameters["sequence_length"] == 3


def test_one_kind_of_importance_is_enough(recipe: Path) -> None:
    assert main(["flux", "importance", str(recipe), "--quiet", "--only", "variables"]) == 0
    names = {path.name for path in (recipe.parent / "run").iterdir()}
    assert "variable_importance.csv" in names
    assert "sequence_importance.csv" not in names


def test_a_user_s_mistakes_are_explained(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for change, message in (
        (("[PPFD_IN, TA_F]", "[PPFD_IN, TA_X]"), "there is no column 'TA_X'"),
        (("XX-Syn.csv", "XX-Sin.csv"), "there is no flux tower file"),
        (("least: 100", "least: 1000"), "no calendar year can be held out"),
        (("{hidden: 4}", "{hidden: 4, layer: 2}"), "layer"),
        (("target: NEE", "target: NEX"), "there is no column 'NEX'"),
    ):
        recipe.write_text(write(recipe.parent, 4).read_text().replace(*change), encoding="utf-8")
        output = ["--output", str(recipe.parent / message[-4:].strip("'"))]
        assert main(["flux", "train", str(recipe), "--quiet", *output]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["control-c", "kill"])
def test_the_same_command_goes_on_after_an_interruption(
    recipe: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    write(recipe.parent, 24)
    whole = recipe.parent / "whole"
    assert main(["flux", "train", str(recipe), "--quiet", "--output", str(whole)]) == 0
    command = [sys.executable, "-m", "bmi_components.cli", "flux", "train", str(recipe), "--quiet"]
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )
    fits = recipe.parent / "run" / "fits"
    deadline = time.monotonic() + 120
    while not list(fits.glob("*/checkpoint.safetensors")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on from there" in errors
    else:
        assert process.returncode == -signal.SIGKILL
    assert not (recipe.parent / "run" / "bundle").exists()
    assert main(["flux", "train", str(recipe), "--quiet"]) == 0
    one, other = (TrainedModel.load(folder / "bundle") for folder in (whole, recipe.parent / "run"))
    assert one.weights.keys() == other.weights.keys()
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array, other.weights[name])
