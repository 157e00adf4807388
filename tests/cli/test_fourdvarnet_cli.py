"""`bmi-components fourdvarnet`: a model is trained, stopped, resumed and judged from the command line."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fourdvarnet_models import small_recipe

from bmi_components.cli import main


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(msgspec.yaml.encode(small_recipe(tmp_path / "unused")))
    return path


def test_a_recipe_becomes_a_bundle_and_a_table(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = [str(recipe), "--output", str(folder), "--quiet"]
    assert main(["fourdvarnet", "train", *options]) == 0
    assert f"trained model: {folder / 'bundle'}" in capsys.readouterr().out
    assert main(["fourdvarnet", "train", *options]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main(["fourdvarnet", "train", "--resume", *options]) == 0
    assert main(["fourdvarnet", "evaluate", *options]) == 0
    assert "| strong-constraint 4DVar, true model | 3 |" in capsys.readouterr().out
    assert (folder / "evaluation" / "scores.md").is_file()


def test_an_absent_bundle_is_a_sentence(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fourdvarnet", "evaluate", str(recipe), "--output", str(tmp_path / "nothing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
