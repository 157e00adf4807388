"""Figure of a canopy's training: the loss of each update, and how well the validation blocks are met."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from bmi_components.training.plots import COLOURS, save_figure, tidy

__all__ = ["plot_training"]


def plot_training(
    path: Path, losses: Sequence[float], validations: Sequence[tuple[int, float, float, float]]
) -> None:
    """Draw losses, and (iteration, loss, NSE of LE, NSE of NEE) of the validation blocks."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.semilogy(
        np.arange(1, len(losses) + 1), losses, color=COLOURS[0], linewidth=0.7, label="an update's pieces"
    )
    if validations:
        iterations, loss, latent, exchange = np.asarray(validations, np.float64).T
        above.semilogy(iterations, loss, "o-", color=COLOURS[1], markersize=3, label="validation blocks")
        below.plot(iterations, latent, "o-", color=COLOURS[0], markersize=3, label="latent heat")
        below.plot(iterations, exchange, "o-", color=COLOURS[2], markersize=3, label="NEE")
        below.set_ylim(max(-0.5, min(latent.min(), exchange.min()) - 0.05), 1.0)
        below.legend(frameon=False, loc="lower right")
    above.set_ylabel("loss, standardised")
    above.legend(frameon=False, loc="upper right")
    below.set_ylabel("NSE of the validation blocks")
    below.set_xlabel("update")
    tidy(above)
    tidy(below)
    save_figure(figure, path)
