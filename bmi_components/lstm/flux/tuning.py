"""Choosing among candidates: each is fitted to all years but one and judged on that one, year after year."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from bmi_components.lstm.flux.folds import make_folds, split_evaluation
from bmi_components.lstm.flux.recipe import Folds, Settings, candidates
from bmi_components.lstm.flux.runs import Run
from bmi_components.lstm.flux.scores import Scores, score
from bmi_components.lstm.flux.windows import Windows, smallest_fold

__all__ = ["CandidateScores", "best_candidate", "cross_validate", "matched", "tune"]


@dataclass(frozen=True)
class CandidateScores:
    """What cross-validation says of one candidate.

    Attributes
    ----------
    settings
        The candidate.
    years
        What each fold held out, see `group_name`.
    training_windows
        Windows that each fold learnt from.
    folds
        Scores on what each fold held out.
    pooled
        Scores of all folds' held-out predictions together.
    """

    settings: Settings
    years: tuple[int, ...]
    training_windows: tuple[int, ...]
    folds: tuple[Scores, ...]
    pooled: Scores

    @property
    def mean_r2(self) -> float:
        """Mean of the folds' R2."""
        return float(np.mean([fold.r2 for fold in self.folds]))

    @property
    def mean_mse(self) -> float:
        """Mean of the folds' mean squared error."""
        return float(np.mean([fold.mse for fold in self.folds]))


def matched(folds: Folds, longest: int) -> Folds:
    """Return the folds with their smallest size settled, so that candidates of every length get the same folds."""
    if folds.least is not None:
        return folds
    return msgspec.structs.replace(folds, least=max(1, smallest_fold(longest)))


def cross_validate(
    run: Run, choices: Sequence[Settings], windows_of: Callable[[int], Windows], folds: Folds
) -> list[CandidateScores]:
    """Judge every candidate on the same folds.

    Parameters
    ----------
    run
        Where fits are kept.
    choices
        The candidates.
    windows_of
        Windows of a sequence length, to be divided into folds; the prediction days of all lengths must agree.
    folds
        How.

    Raises
    ------
    ConfigurationError
        If no year can be held out.
    """
    folds = matched(folds, max(choice.sequence_length for choice in choices))
    divided = {
        length: make_folds(windows_of(length), folds)
        for length in {choice.sequence_length for choice in choices}
    }
    run.plan(choice for choice in choices for _ in divided[choice.sequence_length])
    results = []
    for number, choice in enumerate(choices, start=1):
        run.describe(f"candidate {number} of {len(choices)}")
        parts = divided[choice.sequence_length]
        predicted = [
            run.fit(choice, fold.training, run.recipe.seed).predict(fold.validation) for fold in parts
        ]
        observed = [fold.validation.target for fold in parts]
        results.append(
            CandidateScores(
                settings=choice,
                years=tuple(fold.year for fold in parts),
                training_windows=tuple(len(fold.training) for fold in parts),
                folds=tuple(map(score, predicted, observed)),
                pooled=score(np.concatenate(predicted), np.concatenate(observed)),
            )
        )
    return results


def best_candidate(results: Sequence[CandidateScores], folds: Folds) -> Settings:
    """Return the candidate that `Folds.choose` prefers; of equals the first."""
    by_mean = folds.choose == "mean_r2"
    return max(results, key=lambda result: result.mean_r2 if by_mean else result.pooled.r2).settings


def tune(run: Run) -> list[CandidateScores]:
    """Cross-validate the recipe's candidates on what is not kept for evaluation.

    Raises
    ------
    ConfigurationError
        If no year can be held out.
    """
    recipe = run.recipe
    choices = candidates(recipe.model, recipe.grid)
    longest = max(choice.sequence_length for choice in choices)

    def training_windows(length: int) -> Windows:
        return split_evaluation(run.windows(length, longest), recipe.split)[0]

    return cross_validate(run, choices, training_windows, recipe.folds)
