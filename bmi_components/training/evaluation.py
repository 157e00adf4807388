"""Evaluation: simulate whole periods, score them gauge by gauge, and write tables and figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.caravan import BasinDataset, Period
from bmi_components.training.files import write_whole
from bmi_components.training.metrics import compute_metrics
from bmi_components.training.models import TrainableModel
from bmi_components.training.plots import plot_hydrographs, plot_skill_cdf, plot_skill_map

__all__ = ["Evaluation", "evaluate", "simulate", "write_evaluation"]

HYDROGRAPH_DAYS = 3 * 365
"""Length of the hydrographs, from the end of the period."""


@dataclass(frozen=True)
class Evaluation:
    """What a model did over a period, and how well.

    ``simulated`` and ``observed`` are ``[time, catchment]``, mm d-1; ``metrics`` maps the name of a metric to values
    ``[catchment]``; ``dataset`` holds the evaluated gauges only.
    """

    dataset: BasinDataset
    period: Period
    warm_up: int
    simulated: NDArray[np.float32]
    observed: NDArray[np.float32]
    metrics: Mapping[str, NDArray[np.float64]]

    def medians(self) -> dict[str, float]:
        """Median over the gauges of every metric; gauges without a score are left out."""
        return {
            name: float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")
            for name, values in self.metrics.items()
        }


def simulate(
    model: TrainableModel,
    dataset: BasinDataset,
    period: Period,
    warm_up: int,
    *,
    gauges: NDArray[np.int64] | None = None,
    catchments_at_once: int = 100,
) -> NDArray[np.float32]:
    """Simulate streamflow of a period at some gauges, after a warm-up on the days before it.

    Parameters
    ----------
    model
        Trained model; it is switched to evaluation.
    dataset
        Forcing and attributes, in the model's order.
    period
        First and last day of the result.
    warm_up
        Days before the period that fill the model's state; fewer are used where the data start later.
    gauges
        Positions; None: all.
    catchments_at_once
        Bounds the memory.

    Returns
    -------
    ndarray
        mm d-1, ``[time, catchment]``.

    Raises
    ------
    ConfigurationError
        If the data's forcings or attributes are not the model's, an attribute is missing, or the period is not
        within the data.
    """
    for what, needed, given in (
        ("forcings", model.forcing_names, dataset.forcing_names),
        ("attributes", model.attribute_names, dataset.attribute_names),
    ):
        if tuple(needed) != tuple(given):
            raise ConfigurationError(
                f"the model needs the {what} {tuple(needed)}, but the data hold {tuple(given)}"
            )
    days = dataset.days(period)
    first = max(0, days.start - warm_up)
    chosen = np.arange(dataset.size) if gauges is None else gauges
    missing = np.argwhere(~np.isfinite(dataset.attributes[chosen]))
    if missing.size:
        gauge, attribute = missing[0]
        raise ConfigurationError(
            f"the attribute {dataset.attribute_names[attribute]} of gauge {dataset.gauge_ids[chosen[gauge]]} is missing"
        )
    simulated = np.empty((days.stop - days.start, chosen.size), dtype=np.float32)
    model.eval()
    with torch.no_grad():
        for start in range(0, chosen.size, catchments_at_once):
            part = chosen[start : start + catchments_at_once]
            forcing = torch.from_numpy(dataset.forcing[first : days.stop, part])
            attributes = torch.from_numpy(dataset.attributes[part])
            simulated[:, start : start + part.size] = model(forcing, attributes, days.start - first).numpy()
    return simulated


def evaluate(model: TrainableModel, dataset: BasinDataset, period: Period, warm_up: int = 365) -> Evaluation:
    """Simulate a period at all gauges of a data set and compute every metric; see `simulate` for the errors."""
    simulated = simulate(model, dataset, period, warm_up)
    observed = dataset.target[dataset.days(period)]
    return Evaluation(dataset, period, warm_up, simulated, observed, compute_metrics(simulated, observed))


def write_evaluation(evaluation: Evaluation, folder: Path, name: str) -> None:
    """Write ``metrics.csv`` (a row per gauge), ``summary.json`` (medians), and the figures of one model.

    Figures: ``nse_cdf.png``, ``nse_map.png``, and ``hydrographs.png`` of the gauges at the quartiles of the NSE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    dataset, metrics = evaluation.dataset, evaluation.metrics
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("gauge_id", "latitude", "longitude", "area_km2", *metrics))
    for position, gauge in enumerate(dataset.gauge_ids):
        where = (dataset.latitude[position], dataset.longitude[position], dataset.area[position])
        scores = (f"{values[position]:.6g}" for values in metrics.values())
        writer.writerow((gauge, *(f"{value:.6g}" for value in where), *scores))
    write_whole(folder / "metrics.csv", text.getvalue())
    known = metrics["nse"][np.isfinite(metrics["nse"])]
    summary = {
        "model": name,
        "period": [str(day) for day in evaluation.period],
        "warm_up_days": evaluation.warm_up,
        "gauges": dataset.size,
        "gauges_with_observations": int(known.size),
        "median": {
            key: None if np.isnan(value) else round(value, 4) for key, value in evaluation.medians().items()
        },
        "share_of_gauges_with_nse_below_zero": round(float(np.mean(known < 0)), 4) if known.size else None,
    }
    write_whole(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    first, last = evaluation.period
    plot_skill_cdf(folder / "nse_cdf.png", {name: metrics["nse"]})
    plot_skill_map(
        folder / "nse_map.png",
        dataset.longitude,
        dataset.latitude,
        metrics["nse"],
        title=f"{name}, {first} to {last}",
    )
    _plot_hydrographs(evaluation, folder / "hydrographs.png")


def _plot_hydrographs(evaluation: Evaluation, path: Path) -> None:
    """Draw the gauges at the quartiles of the NSE over the last years of the period."""
    scores = evaluation.metrics["nse"]
    order = np.argsort(scores)[: int(np.isfinite(scores).sum())]  # NaN sorts last
    if order.size == 0:
        return
    chosen = order[np.unique(np.round(np.array([0.75, 0.5, 0.25]) * (order.size - 1)).astype(np.int64))[::-1]]
    dataset = evaluation.dataset
    days = dataset.days(evaluation.period)
    shown = slice(max(days.start, days.stop - HYDROGRAPH_DAYS), days.stop)
    length = shown.stop - shown.start
    column = dataset.forcing_names.index("precipitation") if "precipitation" in dataset.forcing_names else 0
    plot_hydrographs(
        path,
        dataset.time[shown],
        evaluation.simulated[-length:][:, chosen],
        evaluation.observed[-length:][:, chosen],
        dataset.forcing[shown][:, chosen, column],
        [
            f"gauge {dataset.gauge_ids[gauge]}, NSE {scores[gauge]:.2f} over the whole period"
            for gauge in chosen
        ],
    )
