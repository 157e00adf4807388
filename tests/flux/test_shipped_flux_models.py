"""The flux models that ship score what their cards say, on days that they have not learnt from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from bmi_components.lstm.flux.climatology import CLIMATOLOGIES
from bmi_components.lstm.flux.folds import split_evaluation
from bmi_components.lstm.flux.models import load_model
from bmi_components.lstm.flux.recipe import load_recipe
from bmi_components.lstm.flux.runs import Run
from bmi_components.lstm.flux.scores import score
from bmi_components.trained_model import TrainedModel

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("name", "recipe", "r2", "rmse", "ahead"),
    [
        ("flux_lstm", "train_flux_us_bi1.yaml", 0.678, 4.04, 0.3),
        ("flux_lstm_us_whs", "train_flux_us_whs.yaml", 0.652, 0.295, 0.3),
        ("flux_lstm_weather", "train_flux_us_whs_weather.yaml", 0.442, 0.362, 0.28),
    ],
)
def test_the_card_s_score_is_met(
    name: str, recipe: str, r2: float, rmse: float, ahead: float, shared_data: Path, tmp_path: Path
) -> None:
    made = load_recipe(REPOSITORY / "configs" / recipe)
    towers = tuple(
        msgspec.structs.replace(
            tower,
            files=tuple(
                str(shared_data / "fluxtower" / Path(file).parent.name / Path(file).name)
                for file in tower.files
            ),
        )
        for tower in made.towers
    )
    run = Run(msgspec.structs.replace(made, towers=towers, output=str(tmp_path / "run")))
    bundle = TrainedModel.load(REPOSITORY / "models" / name, kind="flux")
    model = load_model(bundle)
    training, evaluation = split_evaluation(run.windows(model.sequence_length), made.split)
    assert bundle.provenance["trained_on"]["last_day"] == str(training.date.max())
    assert bundle.provenance["evaluated_on"]["windows"] == len(evaluation)
    found = score(model.predict(evaluation.inputs), evaluation.target)
    assert found.r2 == pytest.approx(r2, abs=0.001)
    assert found.rmse == pytest.approx(rmse, abs=0.005)
    card = (REPOSITORY / "models" / name / "README.md").read_text(encoding="utf-8")
    assert f"| **this bundle** | {r2} | {rmse} |" in card
    for climatology in CLIMATOLOGIES.values():
        assert found.r2 > score(climatology(training, evaluation), evaluation.target).r2 + ahead
