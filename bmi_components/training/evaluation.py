"""Evaluation: simulate whole periods and score them gauge by gauge."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.caravan import BasinDataset
from bmi_components.training.models import TrainableModel

__all__ = ["simulate"]


def simulate(
    model: TrainableModel,
    dataset: BasinDataset,
    period: tuple[str, str],
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
        If the data's forcings or attributes are not the model's.
    """
    for what, needed, given in (
        ("forcings", model.forcing_names, dataset.forcing_names),
        ("attributes", model.attribute_names, dataset.attribute_names),
    ):
        if tuple(needed) != tuple(given):
            raise ConfigurationError(f"the model needs the {what} {tuple(needed)}, but the data hold {tuple(given)}")
    days = dataset.days(period)
    first = max(0, days.start - warm_up)
    chosen = np.arange(dataset.size) if gauges is None else gauges
    simulated = np.empty((days.stop - days.start, chosen.size), dtype=np.float32)
    model.eval()
    with torch.no_grad():
        for start in range(0, chosen.size, catchments_at_once):
            part = chosen[start : start + catchments_at_once]
            forcing = torch.from_numpy(dataset.forcing[first : days.stop, part])
            attributes = torch.from_numpy(dataset.attributes[part])
            simulated[:, start : start + part.size] = model(forcing, attributes, days.start - first).numpy()
    return simulated
