"""How good analyses are: errors with the crop and the mask stated, beside methods that learn nothing."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.baselines import (
    ensemble_kalman_smoother,
    linear_interpolation,
    strong_constraint_4dvar,
)
from bmi_components.fourdvarnet.lorenz import system
from bmi_components.fourdvarnet.model import Analysis, FourDVarNet
from bmi_components.fourdvarnet.observations import ObservationProtocol
from bmi_components.fourdvarnet.plots import plot_costs, plot_error_by_lead, plot_trajectory
from bmi_components.fourdvarnet.recipe import Recipe
from bmi_components.fourdvarnet.training import held_out_windows, true_states
from bmi_components.training.files import write_whole

__all__ = ["Comparison", "Scores", "compare", "score", "write_comparison"]

Values = NDArray[np.float64]

LEARNED = "4DVarNet"
DESCENT = "gradient descent, same cost"
DESCENT_ITERATIONS = 2_000
DESCENT_RATES = (0.3, 0.1, 0.03, 0.01)
"""Step lengths that are tried on a few windows; the one that ends with the lowest cost is used."""


@dataclass(frozen=True)
class Scores:
    """Mean squared errors in physical units over windows.

    Attributes
    ----------
    windows
        How many windows.
    all_steps
        Over all steps and components, nothing cropped.
    observed, unobserved
        Over the values that were, and that were not observed.
    interior
        Over the steps that are left when the recipe's ``crop`` is taken off both ends.
    median
        Median over windows of each window's mean over all steps.
    components
        Over all steps, for each component.
    milliseconds
        Wall time for one window, compilation not counted.
    """

    windows: int
    all_steps: float
    observed: float
    unobserved: float
    interior: float
    median: float
    components: tuple[float, ...]
    milliseconds: float


@dataclass(frozen=True)
class Comparison:
    """Methods on the same windows.

    Attributes
    ----------
    scores
        By the method's name.
    error_by_step
        Root mean squared error over windows and components at each step of a window, ``[time]``, by method.
    truth, observations
        One window to look at, ``[time, component]``.
    examples
        Its analyses by method.
    costs
        Mean variational cost before each iteration, of the solvers that have one, ``[iteration]``.
    protocol, crop, components
        What the scores hold for.
    """

    scores: dict[str, Scores]
    error_by_step: dict[str, Values]
    truth: Values
    observations: Values
    examples: dict[str, Values]
    costs: dict[str, Values]
    protocol: ObservationProtocol
    crop: int
    components: tuple[str, ...]


def score(analysis: Values, truth: Values, observations: Values, crop: int, seconds: float = 0.0) -> Scores:
    """Score analyses ``[window, time, component]`` against the truth; NaN in ``observations`` is unobserved."""
    error = (analysis - truth) ** 2
    seen = np.isfinite(observations)
    interior = error[:, crop : error.shape[1] - crop]
    if interior.size == 0:
        raise ConfigurationError(f"crop: {crop} steps at each end leave nothing of {error.shape[1]}")
    return Scores(
        windows=len(error),
        all_steps=float(error.mean()),
        observed=float(error[seen].mean()) if seen.any() else np.nan,
        unobserved=float(error[~seen].mean()) if not seen.all() else np.nan,
        interior=float(interior.mean()),
        median=float(np.median(error.mean(axis=(1, 2)))),
        components=tuple(float(value) for value in error.mean(axis=(0, 1))),
        milliseconds=1e3 * seconds / len(error),
    )


def compare(recipe: Recipe, model: FourDVarNet, *, progress: bool = True) -> Comparison:
    """Analyse the test windows of a recipe with the model, and the first of them with every other method too.

    The others are linear interpolation, plain gradient descent on the model's own cost and, with the true model, an
    ensemble Kalman smoother and strong-constraint 4DVar.

    Raises
    ------
    ConfigurationError
        If the model is for other windows or another system.
    """
    data = recipe.data
    names = system(data.system).components
    if model.hyperparameters.window != data.window or tuple(c.name for c in model.components) != names:
        raise ConfigurationError(
            f"the model is for windows of {model.hyperparameters.window} steps of "
            f"{', '.join(c.name for c in model.components)}; the recipe is for {data.window} of {', '.join(names)}"
        )
    protocol = recipe.test_observations or recipe.observations[0]
    states = true_states(data)
    climatology = states[slice(*data.train)]
    truth, observations = held_out_windows(recipe, states, "test", protocol)
    everyone = f"{LEARNED}, all {len(truth)} test windows"
    few = slice(0, min(recipe.baseline_windows, len(truth)))
    some = observations[few]
    rate = _descent_rate(model, some[:16])
    methods: dict[str, Callable[[], Values]] = {
        "linear interpolation": lambda: linear_interpolation(some, climatology.mean(axis=0)),
        DESCENT: lambda: _trajectory(model.descend(some, DESCENT_ITERATIONS, rate)),
        LEARNED: lambda: _trajectory(model.solve(some)),
        "ensemble Kalman smoother, true model": lambda: ensemble_kalman_smoother(
            system(data.system), some, climatology, protocol.noise_variance
        ),
        "strong-constraint 4DVar, true model": lambda: strong_constraint_4dvar(
            system(data.system), some, climatology
        ),
        everyone: lambda: _trajectory(model.solve(observations)),
    }
    scores, by_step, examples = {}, {}, {}
    for name, analyse in tqdm(methods.items(), disable=not progress, unit="method"):
        if name in (LEARNED, everyone):
            analyse()  # compiled before the clock runs; the others spend their time elsewhere
        began = time.perf_counter()
        analysis = analyse()
        seconds = time.perf_counter() - began
        same = slice(None) if name == everyone else few
        scores[name] = score(analysis, truth[same], observations[same], recipe.crop, seconds)
        if name != everyone:
            by_step[name] = np.sqrt(((analysis - truth[few]) ** 2).mean(axis=(0, 2)))
            examples[name] = analysis[0]
    return Comparison(
        scores=scores,
        error_by_step=by_step,
        truth=truth[0],
        observations=observations[0],
        examples=examples,
        costs={
            LEARNED: _mean_costs(model.solve(some)),
            DESCENT: _mean_costs(model.descend(some, DESCENT_ITERATIONS, rate)),
        },
        protocol=protocol,
        crop=recipe.crop,
        components=names,
    )


def _trajectory(analysis: Analysis) -> Values:
    return np.asarray(analysis.trajectory, np.float64)


def _mean_costs(analysis: Analysis) -> Values:
    """Return the costs before each iteration and at the end."""
    costs = np.column_stack((analysis.costs, analysis.cost))
    mean: Values = costs.mean(axis=0, dtype=np.float64)
    return mean


def _descent_rate(model: FourDVarNet, observations: Values) -> float:
    """Return the step length with which plain descent gets lowest, on a few windows."""
    costs = [float(np.mean(model.descend(observations, 200, rate).cost)) for rate in DESCENT_RATES]
    return DESCENT_RATES[int(np.argmin([cost if np.isfinite(cost) else np.inf for cost in costs]))]


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write ``scores.csv``, ``scores.md`` and the figures ``trajectory``, ``error_by_lead`` and ``cost`` (png)."""
    folder.mkdir(parents=True, exist_ok=True)
    header, rows = _table(comparison)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_whole(folder / "scores.csv", text.getvalue())
    write_whole(folder / "scores.md", markdown(comparison))
    plot_trajectory(
        folder / "trajectory.png",
        comparison.truth,
        comparison.observations,
        comparison.examples,
        comparison.components,
    )
    plot_error_by_lead(folder / "error_by_lead.png", comparison.error_by_step, comparison.observations)
    plot_costs(folder / "cost.png", comparison.costs)


def markdown(comparison: Comparison) -> str:
    """Return the scores as a table that says what they hold for."""
    header, rows = _table(comparison)
    protocol = comparison.protocol
    seen = "all components" if protocol.components is None else " and ".join(protocol.components)
    noun = "step" if protocol.every == 1 else f"{protocol.every} steps"
    missing = f", {protocol.missing:.0%} of them missing" if protocol.missing else ""
    lines = [
        f"Mean squared errors in physical units. Observed: {seen} every {noun}{missing}, noise variance "
        f'{protocol.noise_variance:g}, {protocol.blank_ends} steps at both ends blank. "Interior" leaves out '
        f"{comparison.crop} steps at both ends; everything else leaves out none.",
        "",
        "| " + " | ".join(header) + " |",
        "|" + "---|" * len(header),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    header = ["method", "windows", "MSE", "observed", "unobserved", "interior", "median window"]
    header += [*(f"MSE of {name}" for name in comparison.components[:3]), "ms per window"]
    rows = []
    for name, one in comparison.scores.items():
        errors = (one.all_steps, one.observed, one.unobserved, one.interior, one.median, *one.components[:3])
        rows.append(
            [name, str(one.windows), *(f"{error:.3f}" for error in errors), f"{one.milliseconds:.2g}"]
        )
    return header, rows
