"""Figures: how training went, what an analysis looks like, where its errors are, how the cost falls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bmi_components.training.plots import COLOURS, save_figure, tidy

__all__ = ["plot_training"]


def plot_training(path: Path, losses: Sequence[float], validations: Sequence[tuple[int, float]]) -> None:
    """Draw the loss of every batch, and the mean squared error of the validation windows as (iteration, error)."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.semilogy(np.arange(1, len(losses) + 1), losses, color=COLOURS[0], linewidth=0.7, label="loss of a batch")
    axes.set_xlabel("iteration")
    axes.set_ylabel("training loss, standardised")
    tidy(axes)
    handles, labels = axes.get_legend_handles_labels()
    if validations:
        right = axes.twinx()
        points = np.asarray(validations, dtype=np.float64)
        right.semilogy(points[:, 0], points[:, 1], "o-", color=COLOURS[1], markersize=3, label="validation MSE")
        right.set_ylabel("mean squared error, physical units")
        right.spines["top"].set_visible(False)
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels, frameon=False, loc="upper right")
    save_figure(figure, path)
