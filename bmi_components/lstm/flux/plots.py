"""Figures of flux models: training curves, predictions by date, skill by model, importance of the past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bmi_components.lstm.flux.training import History
from bmi_components.lstm.flux.windows import Windows
from bmi_components.training.plots import COLOURS, GREY, save_figure, tidy

if TYPE_CHECKING:
    from bmi_components.lstm.flux.importance import SequenceImportance, VariableImportance

__all__ = [
    "plot_predictions",
    "plot_sequence_importance",
    "plot_skill",
    "plot_training",
    "plot_variable_importance",
]

Array = NDArray[np.float64]


def plot_training(path: Path, histories: Sequence[History], units: str) -> None:
    """Draw the root mean squared error after each epoch, a line for each fit; validation errors are dashed."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    for number, history in enumerate(histories):
        colour = COLOURS[number % len(COLOURS)]
        for errors, style, what in ((history.training, "-", ""), (history.validation, "--", ", validation")):
            if errors:
                label = f"fit {number + 1}{what}"
                axes.plot(
                    np.arange(1, len(errors) + 1),
                    np.sqrt(errors),
                    style,
                    color=colour,
                    linewidth=1.2,
                    label=label,
                )
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch")
    axes.set_ylabel(f"root mean squared error ({units})")
    axes.legend(frameon=False, ncols=2)
    tidy(axes)
    save_figure(figure, path)


def plot_predictions(path: Path, windows: Windows, predicted: Array, title: str) -> None:
    """Draw observed and predicted target by date, a panel for each tower and calendar year; gaps stay gaps."""
    panels = sorted({(str(s), int(y)) for s, y in zip(windows.site, windows.calendar_year, strict=True)})
    figure = Figure(figsize=(10, 1.0 + 2.0 * len(panels)), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(len(panels), 1, squeeze=False)[:, 0])
    for axes, (site, year) in zip(all_axes, panels, strict=True):
        here = np.flatnonzero((windows.site == site) & (windows.calendar_year == year))
        here = here[np.argsort(windows.date[here])]
        first = np.datetime64(f"{year}-01-01", "D")
        days = np.arange(first, np.datetime64(f"{year + 1}-01-01", "D"))
        series = np.full((2, days.size), np.nan)
        series[:, (windows.date[here] - first).astype(np.int64)] = windows.target[here], predicted[here]
        axes.plot(days, series[0], ".", color="black", markersize=3, label="observed")
        axes.plot(days, series[1], ".-", color=COLOURS[1], markersize=2.5, linewidth=1.3, label="predicted")
        axes.axhline(0, color=GREY, linewidth=0.5)
        axes.set_xlim(days[0], days[-1])
        axes.set_ylabel(f"{site}, {year}\n({windows.target_units})", fontsize=8)
        locator = AutoDateLocator()  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        tidy(axes)
    all_axes[0].set_title(title, loc="left", fontsize=10)
    all_axes[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    save_figure(figure, path)


def plot_sequence_importance(path: Path, importance: SequenceImportance, metric: str) -> None:
    """Draw the mean R2 ("r2") or mean squared error ("mse") by sequence length with its 95 % band."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for part, colour in (("evaluation", COLOURS[0]), ("training", COLOURS[1])):
        mean, half_width = importance.band(part, metric)
        low, high = mean - half_width, mean + half_width
        axes.plot(importance.lengths, mean, "o-", color=colour, markersize=3, label=part)
        axes.fill_between(importance.lengths, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("sequence length (days)")
    axes.set_ylabel("R²" if metric == "r2" else f"mean squared error (({importance.units})²)")
    axes.legend(frameon=False)
    tidy(axes)
    save_figure(figure, path)


def plot_variable_importance(path: Path, importance: VariableImportance) -> None:
    """Draw the variance of the prediction's slope by lag, a line for each input."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    lags = np.arange(importance.variance.shape[0])
    styles = ("-", "--", ":")
    for column, name in enumerate(importance.input_names):
        axes.plot(
            lags,
            importance.variance[:, column],
            styles[column // len(COLOURS) % len(styles)],
            color=COLOURS[column % len(COLOURS)],
            marker="o",
            markersize=2.5,
            linewidth=1.2,
            label=name,
        )
    axes.set_xlabel("lag (days before the prediction day)")
    axes.set_ylabel(f"variance of the slope\n(({importance.units} per standard deviation)²)")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, ncols=2)
    tidy(axes)
    save_figure(figure, path)


def plot_skill(path: Path, skill: Mapping[str, Mapping[str, float]], title: str = "") -> None:
    """Draw R2 by model as bars, a group for each tower; ``skill[tower][model]``. Bars below -0.3 are cut off."""
    models = list(dict.fromkeys(model for scores in skill.values() for model in scores))
    figure = Figure(figsize=(1.5 + 2.6 * len(skill), 3.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / len(models)
    for number, model in enumerate(models):
        places = np.arange(len(skill)) + (number - (len(models) - 1) / 2) * width
        heights = [scores.get(model, np.nan) for scores in skill.values()]
        axes.bar(places, heights, width * 0.92, color=COLOURS[number % len(COLOURS)], label=model)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.3))
    axes.set_xticks(np.arange(len(skill)), list(skill))
    axes.set_ylabel("R² on days not seen")
    axes.set_title(title, loc="left", fontsize=10)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    tidy(axes)
    save_figure(figure, path)
