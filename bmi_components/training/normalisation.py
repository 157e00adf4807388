"""Means and standard deviations of inputs and target, from the training gauges and period only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.caravan import BasinDataset, Period

__all__ = ["SMALLEST_STD", "compute_normalisation", "streamflow_spread"]

SMALLEST_STD = 0.001
"""Floor of every standard deviation, so that a constant input does not divide by zero."""


def compute_normalisation(
    dataset: BasinDataset, gauges: NDArray[np.int64], period: Period
) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of every forcing, attribute and of streamflow.

    Forcings and streamflow are pooled over the gauges and days of training, attributes over the gauges.
    Streamflow comes twice: as it is, mm d-1, and as "streamflow/<attribute>" divided by each attribute in mm d-1
    by which a model may scale it (p_mean).

    Parameters
    ----------
    dataset
        All the data.
    gauges
        Positions of the training gauges.
    period
        First and last day of training.

    Returns
    -------
    dict
        ``{name: {"mean": ..., "std": ...}}``, every std at least `SMALLEST_STD`.

    Raises
    ------
    ConfigurationError
        If an attribute is missing for a training gauge, or streamflow was never observed.
    """
    days = dataset.days(period)
    normalisation = {
        name: _statistics(dataset.forcing[days, :, column][:, gauges])
        for column, name in enumerate(dataset.forcing_names)
    }
    for column, name in enumerate(dataset.attribute_names):
        values = dataset.attributes[gauges, column]
        if not np.isfinite(values).all():
            gauge = dataset.gauge_ids[gauges[np.flatnonzero(~np.isfinite(values))[0]]]
            raise ConfigurationError(f"the attribute {name} of gauge {gauge} is missing")
        normalisation[name] = _statistics(values)
    target = dataset.target[days][:, gauges]
    if not np.isfinite(target).any():
        raise ConfigurationError(
            f"no streamflow was observed in {period[0]}..{period[1]} at the training gauges"
        )
    normalisation["streamflow"] = _statistics(target)
    if "p_mean" in dataset.attribute_names:
        mean_precipitation = dataset.attributes[gauges, dataset.attribute_names.index("p_mean")]
        normalisation["streamflow/p_mean"] = _statistics(target / mean_precipitation)
    return normalisation


def streamflow_spread(dataset: BasinDataset, period: Period) -> dict[str, NDArray[np.float32]]:
    """How much observed streamflow of each gauge varies in a period, ``[catchment]`` each; NaN if never observed.

    ``linear``: standard deviation, mm d-1; ``logarithmic``: standard deviation of ln(max(streamflow, 0.01)).
    """
    target = dataset.target[dataset.days(period)].astype(np.float64)
    observed = np.isfinite(target).any(axis=0)
    spread = {name: np.full(dataset.size, np.nan, np.float32) for name in ("linear", "logarithmic")}
    known = target[:, observed]
    spread["linear"][observed] = np.nanstd(known, axis=0)
    spread["logarithmic"][observed] = np.nanstd(np.log(np.maximum(known, 0.01)), axis=0)
    return spread


def _statistics(values: NDArray[np.float32]) -> dict[str, float]:
    exact = values.astype(np.float64)
    return {"mean": float(np.nanmean(exact)), "std": max(float(np.nanstd(exact)), SMALLEST_STD)}
