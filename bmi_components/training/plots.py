"""Figures of training and evaluation: loss, distribution and map of the skill, hydrographs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = [
    "COLOURS",
    "GREY",
    "plot_hydrographs",
    "plot_loss",
    "plot_skill_cdf",
    "plot_skill_map",
    "save_figure",
    "tidy",
]

COLOURS = ("#0b5394", "#c1440e", "#3a7d44", "#7b4ea3", "#8a6d1d", "#444444")
"""Distinguishable in print and for colour-blind readers in this order."""
GREY = "#666666"


def plot_loss(path: Path, losses: Sequence[float], validations: Sequence[tuple[int, float, float]]) -> None:
    """Draw the loss of every batch, its running mean, and the validation scores if there are any.

    ``validations`` holds (iteration, median NSE, median KGE).
    """
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    values = np.asarray(losses, dtype=np.float64)
    iterations = np.arange(1, values.size + 1)
    axes.plot(iterations, values, color=COLOURS[0], alpha=0.25, linewidth=0.7, label="each batch")
    width = max(1, min(100, values.size // 10))
    axes.plot(
        iterations,
        _running_mean(values, width),
        color=COLOURS[0],
        linewidth=1.8,
        label=f"mean of {width} batches",
    )
    known = values[np.isfinite(values)]
    if known.size:
        axes.set_ylim(0, float(np.quantile(known, 0.98)) * 1.15)
    axes.set_xlabel("iteration")
    axes.set_ylabel("training loss")
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    if validations:
        right = axes.twinx()
        points = np.asarray(validations, dtype=np.float64)
        for column, name in ((1, "NSE"), (2, "KGE")):
            right.plot(
                points[:, 0],
                points[:, column],
                "o-",
                color=COLOURS[column],
                markersize=3,
                label=f"validation {name}",
            )
        right.set_ylabel("median over gauges")
        right.set_ylim(min(0.0, float(np.nanmin(points[:, 1:]))), 1)
        right.spines["top"].set_visible(False)
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    save_figure(figure, path)


def plot_skill_cdf(path: Path, scores: Mapping[str, NDArray[np.float64]], metric: str = "NSE") -> None:
    """Draw the cumulative distribution over gauges of a skill score, one curve per model.

    ``scores``: values ``[catchment]`` by the name of the model; NaN is left out. The axis starts at -0.5, and what
    lies left of it is counted where the curve enters.
    """
    figure = Figure(figsize=(6.5, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(
        scores.items(), COLOURS * (1 + len(scores) // len(COLOURS)), strict=False
    ):
        known = np.sort(values[np.isfinite(values)])
        share = np.arange(1, known.size + 1) / max(1, known.size)
        median = float(np.median(known)) if known.size else np.nan
        label = f"{name}: median {median:.2f}, {known.size} gauges"
        axes.step(
            np.concatenate(([-10.0], known, [1.0])),
            np.concatenate(([0.0], share, [1.0])),
            where="post",
            color=colour,
            linewidth=1.8,
            label=label,
        )
        axes.plot([median], [0.5], "o", color=colour, markersize=5)
    axes.axhline(0.5, color=GREY, linewidth=0.6, linestyle=":")
    axes.set_xlim(-0.5, 1.0)
    axes.set_ylim(0, 1)
    axes.set_xlabel(f"{metric} of a gauge")
    axes.set_ylabel("share of gauges with less")
    axes.legend(frameon=False, loc="upper left")
    tidy(axes)
    save_figure(figure, path)


def plot_skill_map(
    path: Path,
    longitude: NDArray[np.float64],
    latitude: NDArray[np.float64],
    score: NDArray[np.float64],
    *,
    metric: str = "NSE",
    title: str = "",
) -> None:
    """Draw gauges where they lie, coloured by a skill score from 0 (and below) to 1; grey crosses: no score."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    known = np.isfinite(score)
    axes.plot(longitude[~known], latitude[~known], "x", color=GREY, markersize=4)
    order = np.argsort(-np.where(known, score, np.inf))
    order = order[known[order]]
    points = axes.scatter(
        longitude[order],
        latitude[order],
        c=np.clip(score[order], 0.0, 1.0),
        cmap="viridis",
        vmin=0.0,
        vmax=1.0,
        s=26,
        edgecolors="white",
        linewidths=0.4,
    )
    bar = figure.colorbar(points, ax=axes, extend="min", shrink=0.85, ticks=np.arange(0, 1.01, 0.2))
    bar.set_label(metric)
    middle = float(np.mean(latitude)) if latitude.size else 0.0
    axes.set_aspect(1.0 / max(0.2, float(np.cos(np.radians(middle)))))
    axes.set_xlabel("longitude (°E)")
    axes.set_ylabel("latitude (°N)")
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    tidy(axes)
    if title:
        axes.set_title(title, loc="left", fontsize=10)
    save_figure(figure, path)


def plot_hydrographs(
    path: Path,
    time: NDArray[np.datetime64],
    simulated: NDArray[np.float32],
    observed: NDArray[np.float32],
    precipitation: NDArray[np.float32],
    titles: Sequence[str],
) -> None:
    """Draw simulated and observed streamflow of a few gauges below their precipitation, one panel each.

    The series are ``[time, gauge]`` in mm d-1; ``titles`` has one line per gauge.
    """
    count = len(titles)
    figure = Figure(figsize=(10, 2.6 * count), layout="constrained")
    all_axes = np.atleast_1d(figure.subplots(count, 1, sharex=True))
    for column, (axes, title) in enumerate(zip(all_axes, titles, strict=True)):
        axes.plot(time, observed[:, column], color="black", linewidth=1.1, label="observed")
        axes.plot(time, simulated[:, column], color=COLOURS[1], linewidth=1.1, label="simulated")
        top = float(np.nanmax(np.concatenate((observed[:, column], simulated[:, column], [0.1]))))
        axes.set_ylim(0, 1.55 * top)
        axes.set_ylabel("streamflow\n(mm d⁻¹)")
        axes.set_title(title, loc="left", fontsize=10)
        tidy(axes)
        rain = axes.twinx()
        rain.bar(time, precipitation[:, column], width=1.0, color="#7fb2dd", linewidth=0)
        rain.set_ylim(3.2 * max(1.0, float(np.nanmax(precipitation[:, column]))), 0)
        rain.set_ylabel("precipitation\n(mm d⁻¹)", color="#4a86b8")
        rain.tick_params(axis="y", colors="#4a86b8")
        rain.spines["top"].set_visible(False)
        axes.set_zorder(rain.get_zorder() + 1)
        axes.patch.set_visible(False)
    all_axes[0].legend(
        frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.1, ncols=2
    )
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    all_axes[-1].xaxis.set_major_locator(locator)
    all_axes[-1].xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    all_axes[-1].set_xlim(time[0], time[-1])
    save_figure(figure, path)


def _running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Mean of the ``width`` values around each position, fewer at the ends; NaN is left out."""
    known = np.isfinite(values)
    total = np.concatenate(([0.0], np.cumsum(np.where(known, values, 0.0))))
    count = np.concatenate(([0], np.cumsum(known)))
    first = np.maximum(np.arange(values.size) - width // 2, 0)
    last = np.minimum(np.arange(values.size) - width // 2 + width, values.size)
    counted = count[last] - count[first]
    return (total[last] - total[first]) / np.where(counted > 0, counted, np.nan)


def tidy(axes: Axes) -> None:
    """Leave out the line at the top."""
    axes.spines["top"].set_visible(False)


def save_figure(figure: Figure, path: Path) -> None:
    """Write the figure in one move."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    figure.savefig(temporary, dpi=150)
    os.replace(temporary, path)
