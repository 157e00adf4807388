"""Figures: how training went, what an analysis looks like, where its errors are, how the cost falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bmi_components.training.plots import COLOURS, GREY, save_figure, tidy

__all__ = ["plot_costs", "plot_error_by_lead", "plot_training", "plot_trajectory"]

Values = NDArray[np.float64]

MOST_COMPONENTS = 4
"""Panels of one figure; more would not be readable."""


def plot_training(path: Path, losses: Sequence[float], validations: Sequence[tuple[int, float]]) -> None:
    """Draw the loss of every batch, and the mean squared error of the validation windows as (iteration, error)."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    iterations = np.arange(1, len(losses) + 1)
    axes.semilogy(iterations, losses, color=COLOURS[0], linewidth=0.7, label="loss of a batch")
    axes.set_xlabel("iteration")
    axes.set_ylabel("training loss, standardised")
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    if validations:
        right = axes.twinx()
        points = np.asarray(validations, dtype=np.float64)
        right.semilogy(
            points[:, 0], points[:, 1], "o-", color=COLOURS[1], markersize=3, label="validation MSE"
        )
        right.set_ylabel("mean squared error, physical units")
        right.spines["top"].set_visible(False)
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels, frameon=False, loc="upper right")
    save_figure(figure, path)


def plot_trajectory(
    path: Path,
    truth: Values,
    observations: Values,
    analyses: Mapping[str, Values],
    names: Sequence[str],
) -> None:
    """Draw one window: truth, observations and analyses, a panel per component.

    All arrays are ``[time, component]``; NaN in ``observations`` is unobserved. The first four components are drawn.
    """
    count = min(len(names), MOST_COMPONENTS)
    figure = Figure(figsize=(10, 2.2 * count + 0.6), layout="constrained")
    panels = np.atleast_1d(figure.subplots(count, 1, sharex=True))
    steps = np.arange(len(truth))
    for component, axes in enumerate(panels):
        axes.plot(steps, truth[:, component], color="black", linewidth=2.2, label="truth")
        for (name, analysis), colour in zip(analyses.items(), COLOURS, strict=False):
            learned = name == "4DVarNet"
            axes.plot(
                steps,
                analysis[:, component],
                color=colour,
                linewidth=1.9 if learned else 1.0,
                zorder=3 if learned else 2,
                label=name,
            )
        axes.plot(
            steps,
            observations[:, component],
            "o",
            color="white",
            markeredgecolor=GREY,
            markersize=4,
            label="observations",
            zorder=4,
        )
        axes.set_ylabel(names[component])
        axes.set_xlim(0, len(truth) - 1)
        tidy(axes)
    panels[-1].set_xlabel("step of the window")
    panels[0].legend(
        frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1, ncols=3, fontsize=9
    )
    save_figure(figure, path)


def plot_error_by_lead(path: Path, errors: Mapping[str, Values], observations: Values) -> None:
    """Draw root mean squared errors by distance from the window's end, the present of a running assimilation.

    ``errors`` are ``[time]`` by method; the ticks at the bottom show when ``observations`` [time, component] has any.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, error), colour in zip(errors.items(), COLOURS, strict=False):
        before_end = np.arange(error.size)[::-1]
        axes.semilogy(before_end, error, color=colour, linewidth=1.5, label=name)
    seen = np.flatnonzero(np.isfinite(observations).any(axis=1))
    last = len(observations) - 1
    axes.plot(
        last - seen,
        np.full(seen.size, 0.02),
        "|",
        color=GREY,
        transform=axes.get_xaxis_transform(),
        label="observed (first window)",
    )
    axes.set_xlim(last, 0)
    axes.set_xlabel("steps before the window's end")
    axes.set_ylabel("root mean squared error, physical units")
    axes.grid(color="#dddddd", linewidth=0.5, which="both")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2)
    tidy(axes)
    save_figure(figure, path)


def plot_costs(path: Path, costs: Mapping[str, Values]) -> None:
    """Draw the mean variational cost before each iteration and at the end, ``[iteration]`` by solver."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(costs.items(), COLOURS, strict=False):
        known = np.flatnonzero(np.isfinite(values) & (values > 0.0))  # plain descent may run away
        marker = "o" if values.size < 50 else ""
        axes.plot(known + 1, values[known], marker=marker, markersize=4, color=colour, label=name)
    axes.set_xscale("log")
    if axes.dataLim.y1 > 0.0:
        axes.set_yscale("log")
    axes.set_xlabel("iteration + 1")
    axes.set_ylabel("variational cost, mean over windows")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.legend(frameon=False)
    tidy(axes)
    save_figure(figure, path)
