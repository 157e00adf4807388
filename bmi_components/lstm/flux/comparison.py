"""The comparison of models, with each other and with the climatology, on years that none of them has seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.climatology import CLIMATOLOGIES
from bmi_components.lstm.flux.folds import group_labels, group_name, make_folds
from bmi_components.lstm.flux.recipe import Grouping, Settings, candidates
from bmi_components.lstm.flux.runs import Run, mean_prediction
from bmi_components.lstm.flux.scores import Scores, score
from bmi_components.lstm.flux.tuning import best_candidate, cross_validate, matched
from bmi_components.lstm.flux.windows import Windows, concatenate

__all__ = ["Compared", "compare"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Compared:
    """One model in a comparison.

    Attributes
    ----------
    name
        As in the recipe.
    windows
        What was held out, fold after fold.
    fold
        What each window's fold held out, ``[window]``; see `group_name`.
    predicted
        Prediction for each window by the models that had not seen its year.
    chosen
        Settings that each fold chose; empty for a climatology.
    """

    name: str
    windows: Windows
    fold: tuple[str, ...]
    predicted: Array
    chosen: dict[str, Settings]

    def scores(self, site: str | None = None) -> Scores:
        """Scores of all held-out predictions, or of one tower's."""
        here = np.ones(len(self.windows), bool) if site is None else self.windows.site == site
        return score(self.predicted[here], self.windows.target[here])

    def fold_scores(self) -> dict[str, Scores]:
        """Scores by what the fold held out."""
        folds = np.array(self.fold)
        return {
            name: score(self.predicted[folds == name], self.windows.target[folds == name])
            for name in dict.fromkeys(self.fold)
        }


def compare(run: Run) -> list[Compared]:
    """Predict every fold by every model of the recipe's comparison and by the climatologies.

    All predict the same days. A model with a grid is tuned anew within the training windows of each fold, so that
    nothing about the held-out year enters its choice.

    Raises
    ------
    ConfigurationError
        If the recipe has no ``compare``, or no year can be held out.
    """
    recipe = run.recipe
    if recipe.compare is None:
        raise ConfigurationError("the recipe says nothing under 'compare'")
    options = {name: candidates(entrant, entrant.grid) for name, entrant in recipe.compare.models.items()}
    longest = max(choice.sequence_length for choices in options.values() for choice in choices)
    folds = matched(recipe.compare.folds, longest)
    reference = make_folds(run.windows(longest, longest), folds)
    names = tuple(group_name(fold.year, folds.by) for fold in reference)
    held_out = [fold.validation for fold in reference]
    together = concatenate(held_out)
    fold_of = tuple(n for n, part in zip(names, held_out, strict=True) for _ in range(len(part)))
    results = [
        Compared(
            name,
            together,
            fold_of,
            np.concatenate([climatology(f.training, f.validation) for f in reference]),
            {},
        )
        for name, climatology in CLIMATOLOGIES.items()
    ]
    for name, choices in options.items():
        predicted, chosen = [], {}
        for fold, label in zip(reference, names, strict=True):
            parts = _Parts(run, longest, folds.by, fold.year)
            settings = choices[0]
            if len(choices) > 1:
                inner = recipe.compare.inner
                settings = best_candidate(cross_validate(run, choices, parts.training, inner), inner)
            fits = run.fit_several(
                settings,
                parts.training(settings.sequence_length),
                recipe.compare.seeds,
                f"{name} without {label}",
            )
            predicted.append(mean_prediction(fits, parts.held_out(settings.sequence_length)))
            chosen[label] = settings
        results.append(Compared(name, together, fold_of, np.concatenate(predicted), chosen))
    return results


@dataclass(frozen=True)
class _Parts:
    """One fold's windows at any length; the prediction days are the same at all of them."""

    run: Run
    longest: int
    by: Grouping
    year: int

    def training(self, length: int) -> Windows:
        windows, out = self._divided(length)
        return windows.select(~out)

    def held_out(self, length: int) -> Windows:
        windows, out = self._divided(length)
        return windows.select(out)

    def _divided(self, length: int) -> tuple[Windows, NDArray[np.bool_]]:
        windows = self.run.windows(length, self.longest)
        return windows, group_labels(windows, self.by) == self.year
