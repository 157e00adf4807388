"""From a recipe to a judged model: tune, train, test."""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.lstm.flux.climatology import CLIMATOLOGIES
from bmi_components.lstm.flux.folds import split_evaluation
from bmi_components.lstm.flux.network import NETWORKS, average
from bmi_components.lstm.flux.recipe import Settings, candidates, identity
from bmi_components.lstm.flux.runs import FittedModel, Run, mean_prediction
from bmi_components.lstm.flux.scores import Scores, score
from bmi_components.lstm.flux.tuning import CandidateScores, best_candidate, tune
from bmi_components.lstm.flux.windows import Windows
from bmi_components.trained_model import TrainedModel

__all__ = ["Judged", "train_test_eval"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Judged:
    """The outcome of `train_test_eval`.

    Attributes
    ----------
    settings
        The best candidate.
    tuning
        What cross-validation said; empty if there was only one candidate.
    fits
        The final fits.
    training, evaluation
        The windows that they learnt from, and those that they never saw.
    predicted
        Mean prediction of the fits for the two, ``[window]``.
    bundle
        The model to use.
    """

    settings: Settings
    tuning: list[CandidateScores]
    fits: list[FittedModel]
    training: Windows
    evaluation: Windows
    predicted: tuple[Array, Array]
    bundle: TrainedModel

    def scores(self) -> dict[str, tuple[Scores, Scores]]:
        """Return scores on training and evaluation windows: of each fit, of their mean prediction, of climatology."""
        both = self.training, self.evaluation
        rows: dict[str, tuple[Scores, Scores]] = {}
        for number, fit in enumerate(self.fits, start=1):
            trained, evaluated = (score(fit.predict(part), part.target) for part in both)
            rows[f"fit {number}"] = trained, evaluated
        trained, evaluated = (score(p, part.target) for p, part in zip(self.predicted, both, strict=True))
        rows["mean prediction"] = trained, evaluated
        for name, climatology in CLIMATOLOGIES.items():
            trained, evaluated = (score(climatology(self.training, part), part.target) for part in both)
            rows[name] = trained, evaluated
        return rows


def train_test_eval(run: Run) -> Judged:
    """Choose the best candidate by cross-validation, fit it several times, and judge it on the years kept apart.

    With a single candidate there is no cross-validation.

    Raises
    ------
    ConfigurationError, ForcingError
        If the data are too few to be split.
    TrainingError
        If a network's loss is not finite.
    Interrupted
        If the user asked to stop.
    """
    recipe = run.recipe
    choices = candidates(recipe.model, recipe.grid)
    tuning = tune(run) if len(choices) > 1 else []
    settings = best_candidate(tuning, recipe.folds) if tuning else choices[0]
    training, evaluation = split_evaluation(run.windows(settings.sequence_length), recipe.split)
    fits = run.fit_several(settings, training, recipe.final_fits, "final fits")
    predicted = mean_prediction(fits, training), mean_prediction(fits, evaluation)
    kept = [fit.model.bundle for fit in fits]
    bundle = average(kept) if settings.model in NETWORKS else kept[0]
    provenance = {
        **bundle.provenance,
        "evaluated_on": {
            "windows": len(evaluation),
            "first_day": str(evaluation.date.min()),
            "last_day": str(evaluation.date.max()),
        },
        "seeds": run.seeds(recipe.final_fits)[: len(kept) if settings.model in NETWORKS else 1],
        "settings": msgspec.to_builtins(settings),
        "recipe": {key: value for key, value in identity(recipe).items() if key != "compare"},
    }
    provenance.pop("seed", None)
    return Judged(
        settings=settings,
        tuning=tuning,
        fits=fits,
        training=training,
        evaluation=evaluation,
        predicted=predicted,
        bundle=replace(bundle, provenance=provenance, licence=recipe.licence),
    )
