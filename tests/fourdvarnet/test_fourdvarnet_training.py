"""Training runs of 4DVarNet: they learn, stop and go on as if nothing had happened, and refuse what makes no sense."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy
from fourdvarnet_models import small_recipe

from bmi_components.errors import ConfigurationError, StateError
from bmi_components.fourdvarnet.model import load_model
from bmi_components.fourdvarnet.observations import PROTOCOLS
from bmi_components.fourdvarnet.recipe import load_recipe
from bmi_components.fourdvarnet.training import Trainer, held_out_windows
from bmi_components.training import run
from bmi_components.training.run import BUNDLE, CHECKPOINT, TrainingError

REPOSITORY = Path(__file__).resolve().parents[2]


def assert_same_run(one: Path, other: Path) -> None:
    """The two runs ended with the same bits: weights, optimiser, history."""
    first, second = (safetensors.numpy.load_file(folder / CHECKPOINT) for folder in (one, other))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
    assert (one / "metrics.csv").read_bytes() == (other / "metrics.csv").read_bytes()
    first, second = (dict(load_model(folder / BUNDLE).to_bundle().weights) for folder in (one, other))
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])


def test_an_interrupted_run_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Trainer(small_recipe(tmp_path / "whole"))
    assert whole.run(progress=False)
    assert len(whole.losses) == 6
    assert [iteration for iteration, _ in whole.validations] == [3, 6]
    broken = Trainer(small_recipe(tmp_path / "broken"))
    iterate = broken.iterate

    def with_control_c() -> float:
        if broken.iteration == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return iterate()

    monkeypatch.setattr(broken, "iterate", with_control_c)
    assert not broken.run(progress=False)
    assert broken.iteration == 3
    again = Trainer(small_recipe(tmp_path / "broken"))
    assert again.run(resume=True, progress=False)
    assert_same_run(tmp_path / "whole", tmp_path / "broken")
    written = {path.name for path in (tmp_path / "whole").iterdir()}
    assert written == {"recipe.yaml", CHECKPOINT, "metrics.csv", "loss.png", BUNDLE}
    assert load_recipe(tmp_path / "whole" / "recipe.yaml") == whole.recipe


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path / "run")
    recipe = msgspec.structs.replace(
        recipe, training=msgspec.structs.replace(recipe.training, iterations=100_000)
    )
    (tmp_path / "recipe.yaml").write_bytes(msgspec.yaml.encode(recipe))
    command = [
        sys.executable,
        "-m",
        "bmi_components.cli",
        "fourdvarnet",
        "train",
        str(tmp_path / "recipe.yaml"),
    ]
    process = subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE)
    checkpoint = tmp_path / "run" / CHECKPOINT
    deadline = time.monotonic() + 120.0
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.kill()
    message = process.communicate()[1].decode()
    assert checkpoint.exists(), message
    trainer = Trainer(recipe)
    trainer._restore(checkpoint)
    assert trainer.iteration >= 2
    assert len(trainer.losses) == trainer.iteration
    assert np.isfinite(trainer.iterate())


def test_training_learns(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    settings = msgspec.structs.replace(recipe.training, iterations=60, batch=8, learning_rate=0.01)
    trainer = Trainer(msgspec.structs.replace(recipe, training=settings))
    before = trainer.validate()
    for trainer.iteration in range(60):
        trainer.losses.append(trainer.iterate())
    assert np.mean(trainer.losses[-10:]) < 0.9 * np.mean(trainer.losses[:10])
    assert trainer.validate() < before


def test_the_prior_learns_at_a_rate_of_its_own(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    moved = []
    for share in (1.0, 0.5):
        settings = msgspec.structs.replace(recipe.training, prior_rate=share, clip=1e6)
        trainer = Trainer(msgspec.structs.replace(recipe, training=settings))
        before = trainer.parameters
        trainer.iterate()
        moved.append(
            [
                np.abs(
                    np.asarray(trainer.parameters[part][branch][layer] - before[part][branch][layer])
                ).max()
                for part, branch, layer in (("prior", "fine", "conv_out"), ("modulation", "gates", "bias"))
            ]
        )
    (prior, network), (slower, same) = moved
    assert slower == pytest.approx(0.5 * prior, rel=1e-2)
    assert same == pytest.approx(network, rel=1e-5)


def test_a_gradient_does_not_depend_on_how_a_batch_is_cut(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    losses = []
    for at_once in (1, 2, 4):
        settings = msgspec.structs.replace(recipe.training, windows_at_once=at_once)
        trainer = Trainer(msgspec.structs.replace(recipe, training=settings))
        losses.append([trainer.iterate() for trainer.iteration in range(3)])
    np.testing.assert_allclose(losses[1:], losses[:1] * 2, rtol=1e-4)


def test_held_out_windows_stay_in_their_part_and_stay_the_same(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    states = np.arange(700.0)[:, None] * np.ones(3)
    truth, observations = held_out_windows(recipe, states, "test", PROTOCOLS["random_75"])
    assert truth.min() >= 500.0
    assert truth.max() <= 699.0
    again = held_out_windows(recipe, states, "test", PROTOCOLS["random_75"])
    np.testing.assert_array_equal(again[0], truth)
    np.testing.assert_array_equal(again[1], observations)


def test_nothing_overwrites_a_run_and_nothing_resumes_another(tmp_path: Path) -> None:
    recipe = small_recipe(tmp_path)
    with pytest.raises(StateError, match="nothing to resume"):
        Trainer(recipe).run(resume=True, progress=False)
    trainer = Trainer(recipe)
    trainer.iterate()
    trainer._save(tmp_path / CHECKPOINT)
    with pytest.raises(ConfigurationError, match="already holds a run"):
        Trainer(recipe).run(progress=False)
    with pytest.raises(StateError, match="another recipe: seed was 0 and is now 1"):
        Trainer(msgspec.structs.replace(recipe, seed=1)).run(resume=True, progress=False)
    (tmp_path / CHECKPOINT).write_bytes(b"not a checkpoint")
    with pytest.raises(StateError, match="is damaged"):
        Trainer(recipe).run(resume=True, progress=False)


def test_batches_without_a_finite_loss_change_nothing_and_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(small_recipe(tmp_path))
    before = trainer.parameters
    monkeypatch.setattr(run, "_LARGEST_RUN_OF_BAD_BATCHES", 2)
    trainer._learnt = np.full_like(trainer._learnt, np.nan)
    assert np.isnan(trainer.iterate())
    assert trainer.parameters is before
    with pytest.raises(TrainingError, match="2 batches in a row"):
        trainer.iterate()


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (REPOSITORY / "configs").glob("train_fourdvarnet*.yaml"))
)
def test_the_recipes_that_ship_can_be_read(name: str) -> None:
    assert load_recipe(REPOSITORY / "configs" / name).data.system == "lorenz63"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "missing required field `output`"),
        ("{output: a, epochs: 3}", "unknown field `epochs`"),
        ("{output: a, data: {system: lorenz84}}", "'lorenz84' is unknown"),
        ("{output: a, data: {test: [11000, 20000]}}", "test overlap"),
        ("{output: a, data: {validation: [12000, 12100]}}", "validation has 100 steps; a window needs 200"),
        ("{output: a, model: {prior: {kind: spline}}}", "'spline'"),
        ("{output: a, model: {prior: {kind: two_scale, width: 4}}}", "odd number of taps"),
        ("{output: a, training: {batch: 10}}", "batch 10 is no multiple of windows_at_once 8"),
        ("{output: a, observations: []}", "length >= 1"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        load_recipe(path)
