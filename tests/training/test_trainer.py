"""Training runs: they learn, they stop and go on as if nothing had happened, and they refuse what makes no sense."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from bmi_components.errors import ConfigurationError, StateError
from bmi_components.forcing.caravan import BasinDataset
from bmi_components.trained_model import TrainedModel
from bmi_components.training.checkpoint import Checkpoint
from bmi_components.training.models import load_model
from bmi_components.training.recipe import (
    Data,
    HeldOut,
    ModelChoice,
    Optimiser,
    Periods,
    Recipe,
    Validation,
    Window,
    load_recipe,
)
from bmi_components.training.run import CHECKPOINT, TrainingError
from bmi_components.training.trainer import Trainer, learning_rate

PERIODS = Periods(train=(date(2001, 2, 1), date(2002, 6, 30)), test=(date(2003, 1, 1), date(2003, 6, 1)))


def recipe(folder: Path, **changes: object) -> Recipe:
    """Make a run of some seconds: hidden size 8, windows of 20 + 40 days."""
    plain = Recipe(
        model=ModelChoice(kind="streamflow_lstm", hyperparameters={"hidden": 8, "dropout": 0.2}),
        data=Data(path="unused"),
        periods=PERIODS,
        window=Window(gauges=4, warm_up=20, scored=40),
        optimiser=Optimiser(name="adam", learning_rate=0.01, schedule="cosine", rise=3, average=0.9),
        iterations=12,
        checkpoint_every=5,
        output=str(folder),
    )
    return msgspec.structs.replace(plain, **changes)


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(TrainedModel.load(folder / "bundle").weights)


def assert_same_run(one: Path, other: Path) -> None:
    """The two runs ended with the same bits: weights, optimiser, random states, history."""
    first, second = (Checkpoint.load(folder / CHECKPOINT) for folder in (one, other))
    assert first.tensors.keys() == second.tensors.keys()
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    assert first.values == second.values
    for name, array in weights(one).items():
        np.testing.assert_array_equal(array, weights(other)[name])
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()


@pytest.mark.parametrize("optimiser", ["adadelta", "adam", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    basins: BasinDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str
) -> None:
    settings = Optimiser(name=optimiser, learning_rate=0.01, schedule="cosine", average=0.9)  # type: ignore[arg-type]
    validation = Validation(period=(date(2002, 7, 1), date(2002, 12, 31)), every=4)

    def trainer(folder: str) -> Trainer:
        return Trainer(recipe(tmp_path / folder, optimiser=settings, validation=validation), basins)

    assert trainer("whole").run(progress=False)

    stopped = trainer("broken")
    learn = stopped.iterate

    def learn_then_fail() -> float:
        if stopped.iteration == 8:
            raise MemoryError
        return learn()

    monkeypatch.setattr(stopped, "iterate", learn_then_fail)
    with pytest.raises(MemoryError):
        stopped.run(progress=False)
    torch.manual_seed(12345)  # whatever else the process does must not matter
    resumed = trainer("broken")
    assert resumed.run(resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def test_control_c_saves_after_the_iteration_and_resumes(
    basins: BasinDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Trainer(recipe(tmp_path / "whole"), basins).run(progress=False)
    stopped = Trainer(recipe(tmp_path / "broken"), basins)
    learn = stopped.iterate

    def learn_and_interrupt() -> float:
        if stopped.iteration == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return learn()

    monkeypatch.setattr(stopped, "iterate", learn_and_interrupt)
    before = signal.getsignal(signal.SIGINT)
    assert not stopped.run(progress=False)
    assert signal.getsignal(signal.SIGINT) is before
    assert stopped.iteration == 7
    assert Checkpoint.load(tmp_path / "broken" / CHECKPOINT).values["iteration"] == 7
    assert Trainer(recipe(tmp_path / "broken"), basins).run(resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


RUN = """
import sys
from bmi_components.training.recipe import load_recipe
from bmi_components.training.trainer import Trainer
Trainer(load_recipe(sys.argv[1])).run(progress=False)
"""


def test_a_killed_run_goes_on_from_its_checkpoint(basin_folder: Path, tmp_path: Path) -> None:
    def write(name: str) -> Path:
        # long enough to be killed in the middle, a checkpoint at every iteration
        run = recipe(
            tmp_path / name,
            iterations=100,
            checkpoint_every=1,
            data=Data(path=str(basin_folder), attributes=("p_mean", "frac_snow")),
        )
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(msgspec.yaml.encode(run))
        return path

    whole, killed = write("whole"), write("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", RUN, killed], env=environment)
    checkpoint = tmp_path / "killed" / CHECKPOINT
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < Checkpoint.load(checkpoint).values["iteration"] < 100
    for path, resume in ((killed, True), (whole, False)):
        assert Trainer(load_recipe(path)).run(resume=resume, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_training_learns_and_what_it_ships_scores_the_same(basins: BasinDataset, tmp_path: Path) -> None:
    run = recipe(tmp_path / "run", iterations=150, optimiser=Optimiser(name="adam", learning_rate=0.02))
    trainer = Trainer(run, basins)
    assert trainer.run(progress=False)
    assert np.mean(trainer.losses[-20:]) < 0.6 * np.mean(trainer.losses[:20])
    forcing, attributes = torch.from_numpy(basins.forcing), torch.from_numpy(basins.attributes)
    shipped = load_model(TrainedModel.load(tmp_path / "run" / "bundle"))
    with torch.no_grad():
        expected = trainer.model.eval()(forcing, attributes, 100)
        assert torch.equal(shipped(forcing, attributes, 100), expected)
    for file in ("loss.png", "metrics.csv", "recipe.yaml"):
        assert (tmp_path / "run" / file).stat().st_size > 0
    with (tmp_path / "run" / "metrics.csv").open() as table:
        assert [row["iteration"] for row in csv.DictReader(table)] == [str(i) for i in range(1, 151)]


def test_a_hybrid_model_is_trained_by_the_same_trainer(basins: BasinDataset, tmp_path: Path) -> None:
    small = ModelChoice(kind="hbv", hyperparameters={"physics": "1.1p", "components": 2, "hidden": 4})
    trainer = Trainer(recipe(tmp_path / "run", model=small, loss="nse_kge"), basins)
    assert trainer.run(progress=False)
    assert np.isfinite(trainer.losses).all()
    assert np.mean(trainer.losses[-4:]) < np.mean(trainer.losses[:4])
    model = load_model(TrainedModel.load(tmp_path / "run" / "bundle", kind="hbv"))
    assert model.attribute_names == basins.attribute_names


def test_held_out_gauges_are_never_drawn(basins: BasinDataset, tmp_path: Path) -> None:
    trainer = Trainer(recipe(tmp_path, held_out=HeldOut(fraction=0.34, seed=3)), basins)
    assert trainer.held_out_gauges.size == 2
    drawn = np.concatenate([trainer.sampler.draw().gauges for _ in range(200)])
    assert set(drawn) == set(trainer.trained_gauges)
    provenance = trainer.provenance()["trained_on"]
    assert provenance["held_out_gauges"] == [basins.gauge_ids[i] for i in trainer.held_out_gauges]


def test_test_period_streamflow_cannot_influence_training(basins: BasinDataset, tmp_path: Path) -> None:
    Trainer(recipe(tmp_path / "a"), basins).run(progress=False)
    basins.target[basins.days(PERIODS.test)] = 1e6
    Trainer(recipe(tmp_path / "b"), basins).run(progress=False)
    for name, array in weights(tmp_path / "a").items():
        np.testing.assert_array_equal(array, weights(tmp_path / "b")[name])


def test_a_batch_without_a_finite_loss_is_skipped_and_changes_no_weight(
    basins: BasinDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe(tmp_path), basins)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    healthy = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda *arguments: healthy(*arguments) * torch.nan)
    assert np.isnan(trainer.iterate())
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    monkeypatch.setattr(trainer, "loss", healthy)
    assert np.isfinite(trainer.iterate())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in trainer.model.state_dict().items())


def test_a_run_of_bad_batches_ends_training(
    basins: BasinDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(recipe(tmp_path, iterations=100), basins)
    healthy = trainer.loss
    monkeypatch.setattr(trainer, "loss", lambda *arguments: healthy(*arguments) * torch.inf)
    with pytest.raises(TrainingError, match="20 batches in a row"):
        trainer.run(progress=False)


def test_a_folder_with_a_run_is_neither_overwritten_nor_mixed_up(
    basins: BasinDataset, tmp_path: Path
) -> None:
    with pytest.raises(StateError, match="nothing to resume"):
        Trainer(recipe(tmp_path), basins).run(resume=True, progress=False)
    Trainer(recipe(tmp_path), basins).run(progress=False)
    with pytest.raises(ConfigurationError, match="already holds a run"):
        Trainer(recipe(tmp_path), basins).run(progress=False)
    with pytest.raises(StateError, match="seed was 0 and is now 1"):
        Trainer(recipe(tmp_path, seed=1), basins).run(resume=True, progress=False)


@pytest.mark.parametrize("damage", ["cut", "flip", "pickle"])
def test_a_damaged_checkpoint_is_refused(basins: BasinDataset, tmp_path: Path, damage: str) -> None:
    Trainer(recipe(tmp_path), basins).run(progress=False)
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(bytes([content[0] ^ 0xFF]) + content[1:])
    else:
        torch.save({"weights": torch.zeros(3)}, path)
    with pytest.raises(StateError, match="damaged"):
        Trainer(recipe(tmp_path), basins).run(resume=True, progress=False)


def test_learning_rate_rises_then_falls_along_a_cosine() -> None:
    optimiser = Optimiser(name="adam", learning_rate=1.0, schedule="cosine", rise=10, final_fraction=0.1)
    rates = [learning_rate(optimiser, iteration, 101) for iteration in range(101)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1)
    assert learning_rate(Optimiser(learning_rate=0.5), 77, 100) == 0.5


RECIPE = """
model: {kind: streamflow_lstm}
data: {path: basins}
periods: {train: [2001-02-01, 2002-06-30], test: [2003-01-01, 2003-06-01]}
iterations: 10
output: run
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("iterations: 10", "iterations: 0"), "iterations"),
        (("iterations: 10", "iteration: 10"), "iteration"),
        (("2003-01-01", "2002-01-01"), "test period overlaps the training period"),
        (("output: run", "output: run\nheld_out: {seed: 1}"), "held_out"),
        (("output: run", "output: run\nheld_out: {folds: 5, fold: 5}"), "fold 5 does not exist"),
        (
            ("output: run", "output: run\nvalidation: {period: [2002-01-01, 2002-12-31], every: 5}"),
            "overlaps the train",
        ),
        (("output: run", "output: run\noptimiser: {name: sgd}"), "optimiser.name"),
        (("path: basins", "path: $NOT_SET_ANYWHERE/basins"), "NOT_SET_ANYWHERE"),
        (("model:", "model: ["), "YAML"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    assert load_recipe(path).data.path == str(tmp_path / "basins")
    path.write_text(RECIPE.replace(*change))
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(path)


def test_an_unknown_model_or_hyperparameter_is_named(basins: BasinDataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'transformer' is unknown"):
        Trainer(recipe(tmp_path, model=ModelChoice(kind="transformer")), basins)
    with pytest.raises(ConfigurationError, match="hiden"):
        Trainer(
            recipe(tmp_path, model=ModelChoice(kind="streamflow_lstm", hyperparameters={"hiden": 8})), basins
        )
