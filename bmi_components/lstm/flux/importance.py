"""How much the past matters: skill by sequence length, and the prediction's slope by input and lag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.lstm.flux.folds import split_evaluation
from bmi_components.lstm.flux.models import FluxModel
from bmi_components.lstm.flux.network import NetworkModel
from bmi_components.lstm.flux.recipe import Settings
from bmi_components.lstm.flux.runs import Run
from bmi_components.lstm.flux.scores import score
from bmi_components.lstm.flux.windows import Windows

__all__ = [
    "SequenceImportance",
    "VariableImportance",
    "sequence_importance",
    "slopes",
    "variable_importance",
]

Array = NDArray[np.float64]

_STEP = 0.5
"""Half the step, in standard deviations, over which the slope of a forest is measured: it is flat in the small."""


@dataclass(frozen=True)
class SequenceImportance:
    """Scores by sequence length, all on the same prediction days.

    Attributes
    ----------
    lengths
        Sequence lengths, days.
    units
        Of the target.
    scores
        ``{"evaluation" | "training": {"r2" | "mse": [length, fit]}}``.
    """

    lengths: tuple[int, ...]
    units: str
    scores: dict[str, dict[str, Array]]

    def band(self, part: str, metric: str) -> tuple[Array, Array]:
        """Return the fits' mean ``[length]`` and the half width of its 95 % confidence band, 1.96 standard errors."""
        values = self.scores[part][metric]
        return values.mean(axis=1), 1.96 * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])


@dataclass(frozen=True)
class VariableImportance:
    """Variance over the evaluation windows of d(prediction)/d(input).

    Attributes
    ----------
    input_names
        The inputs.
    units
        Of the target; inputs count in their standard deviations.
    variance
        ``[lag, input]``, the prediction day first; in the target's units squared.
    """

    input_names: tuple[str, ...]
    units: str
    variance: Array


def sequence_importance(run: Run, settings: Settings) -> SequenceImportance:
    """Fit a model with each of the recipe's sequence lengths several times and judge all on the same days.

    Raises
    ------
    ConfigurationError, ForcingError
        If the data are too few for the longest sequence.
    """
    choice = run.recipe.importance
    lengths = tuple(sorted(set(choice.lengths)))
    scores: dict[str, dict[str, list[list[float]]]] = {
        part: {"r2": [], "mse": []} for part in ("training", "evaluation")
    }
    units = ""
    for length in lengths:
        windows = run.windows(length, lengths[-1])
        units = windows.target_units
        parts = dict(zip(scores, split_evaluation(windows, run.recipe.split), strict=True))
        sized = msgspec.structs.replace(settings, sequence_length=length)
        fits = run.fit_several(sized, parts["training"], choice.fits, f"{length} days")
        for part, judged in parts.items():
            found = [score(fit.predict(judged), judged.target) for fit in fits]
            scores[part]["r2"].append([one.r2 for one in found])
            scores[part]["mse"].append([one.mse for one in found])
    arrays = {
        part: {metric: np.array(values) for metric, values in by_metric.items()}
        for part, by_metric in scores.items()
    }
    return SequenceImportance(lengths, units, arrays)


def variable_importance(model: FluxModel, evaluation: Windows) -> VariableImportance:
    """Variance over windows of the prediction's slope, by lag and input.

    Parameters
    ----------
    model
        A trained model; an average of networks is taken as one.
    evaluation
        Windows that it has not learnt from.

    Raises
    ------
    ValueShapeError
        If the windows do not fit the model.
    """
    variance = slopes(model, evaluation.inputs).var(axis=0)[::-1]
    return VariableImportance(evaluation.input_names, evaluation.target_units, variance)


def slopes(model: FluxModel, inputs: NDArray[np.floating[Any]]) -> Array:
    """Slope of each window's prediction along each of its inputs, per standard deviation of the input.

    Exact for networks. Trees are constant but for jumps; for them it is the central difference over one standard
    deviation.

    Parameters
    ----------
    model
        The model.
    inputs
        ``[window, day, input]`` in physical units.

    Returns
    -------
    ndarray
        ``[window, day, input]``, in the target's units.
    """
    if isinstance(model, NetworkModel):
        return model.gradient(inputs)
    normalisation = model.bundle.normalisation
    if any(name not in normalisation for name in model.input_names):
        raise ConfigurationError("the bundle does not say how much its inputs vary; slopes need that")
    result = np.empty(inputs.shape)
    for column, name in enumerate(model.input_names):
        step = _STEP * normalisation[name]["std"]
        for day in range(inputs.shape[1]):
            up, down = inputs.copy(), inputs.copy()
            up[:, day, column] += step
            down[:, day, column] -= step
            result[:, day, column] = (model.predict(up) - model.predict(down)) / (2 * _STEP)
    return result
