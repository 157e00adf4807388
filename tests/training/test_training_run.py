"""What every trainer stands on: a run without any framework, resumed to the bit, and archives that keep arrays."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from bmi_components.errors import StateError
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.training.archive import Archive
from bmi_components.training.run import BUNDLE, CHECKPOINT, TrainingError, TrainingRun


class Recipe(msgspec.Struct, frozen=True):
    output: str
    checkpoint_every: int = 2
    rate: float = 0.5
    bounds: tuple[float, float] = (0.0, 1.0)


class Descent(TrainingRun[Recipe]):
    """Learns one number from noisy samples of 3, half-way at every iteration."""

    advice = "lower rate"
    score_names = ("squared_error",)
    score_label = "error"
    bad: frozenset[int] = frozenset()

    def __init__(self, recipe: Recipe, iterations: int = 7) -> None:
        super().__init__(recipe, iterations)
        self.weight = np.zeros(())

    def learn(self) -> float:
        if self.iteration in self.bad:
            return np.inf
        error = self.weight - np.random.default_rng([self.iteration]).normal(3.0)
        self.weight = self.weight - self.recipe.rate * error
        return float(error**2)

    def validation_scores(self) -> tuple[float] | None:
        return (float((self.weight - 3.0) ** 2),) if self.iteration % 3 == 0 else None

    def learning_rate(self, iteration: int) -> float:
        return self.recipe.rate

    def memory(self) -> Archive:
        archive = Archive()
        archive.put("model", {"weight": self.weight})
        return archive

    def recall(self, memory: Archive) -> None:
        self.weight = memory.group("model")["weight"]

    def identity(self) -> dict[str, Any]:
        return {"rate": self.recipe.rate, "bounds": self.recipe.bounds}

    def bundle(self) -> TrainedModel:
        target = (NamedUnits("target", "1"),)
        return TrainedModel("descent", {}, (), (), target, {}, 1.0, {}, "", {"weight": self.weight})

    def card(self) -> str:
        return "# A number\n"

    def plot(self, path: Path) -> None:
        path.touch()


def test_a_run_without_a_framework_breaks_off_and_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Descent(Recipe(str(tmp_path / "whole")))
    assert whole.run(progress=False)
    broken = Descent(Recipe(str(tmp_path / "broken")))
    learn = broken.learn

    def fail_at_five() -> float:
        if broken.iteration == 5:
            raise OSError("the machine went away")
        return learn()

    monkeypatch.setattr(broken, "learn", fail_at_five)
    with pytest.raises(OSError, match="went away"):
        broken.run(progress=False)
    again = Descent(Recipe(str(tmp_path / "broken")))
    assert again.run(resume=True, progress=False)
    assert again.weight == whole.weight
    assert (again.losses, again.validations) == (whole.losses, whole.validations)
    for name in (CHECKPOINT, "metrics.csv", f"{BUNDLE}/weights.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes()
    rows = list(csv.DictReader((tmp_path / "whole" / "metrics.csv").read_text().splitlines()))
    assert list(rows[0]) == ["iteration", "learning_rate", "loss", "squared_error"]
    assert [row["iteration"] for row in rows if row["squared_error"]] == ["3", "6"]


def test_bad_batches_are_skipped_and_a_long_run_of_them_ends_training(tmp_path: Path) -> None:
    trainer = Descent(Recipe(str(tmp_path / "some")), iterations=60)
    trainer.bad = frozenset(range(1, 20)) | frozenset(range(21, 40))
    assert trainer.run(progress=False)
    assert np.isnan(trainer.losses).sum() == 38
    trainer = Descent(Recipe(str(tmp_path / "many")), iterations=60)
    trainer.bad = frozenset(range(20, 40))
    with pytest.raises(TrainingError, match=r"20 batches in a row up to iteration 39 gave .*; lower rate"):
        trainer.run(progress=False)


def test_another_recipe_is_refused_and_the_same_is_recognised(tmp_path: Path) -> None:
    Descent(Recipe(str(tmp_path))).run(progress=False)
    with pytest.raises(StateError, match=r"another recipe: bounds was \[0.0, 1.0\] and is now \[0.0, 2.0\]"):
        Descent(Recipe(str(tmp_path), bounds=(0.0, 2.0))).run(resume=True, progress=False)
    assert Descent(Recipe(str(tmp_path), checkpoint_every=5), iterations=9).run(resume=True, progress=False)


def test_an_archive_keeps_every_array_and_its_shape(tmp_path: Path) -> None:
    arrays = {
        "number": np.array(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "turned": np.arange(6).reshape(2, 3).T,
        "columns_first": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "every_other": np.arange(8.0)[::2],
    }
    archive = Archive(values={"gauges": ["01078000"], "score": 0.1})
    archive.put("data", arrays)
    archive.save(tmp_path / "archive")
    again = Archive.load(tmp_path / "archive")
    assert again.values == archive.values
    assert again.group("data").keys() == arrays.keys()
    for name, array in again.group("data").items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name, strict=True)
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


def test_the_loop_needs_no_framework() -> None:
    program = "import sys, bmi_components.training.run\nassert not {'torch', 'jax', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
