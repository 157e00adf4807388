"""Skill of simulated streamflow, one number per gauge.

Every metric takes simulated and observed streamflow, mm d-1, ``[time, catchment]``, with NaN in ``observed`` where
there is none, and returns ``[catchment]``; NaN for a gauge whose observations do not define it. Flow duration curves
are cut at 30 % (low flows are the lowest 30 % of days) and 98 % (high flows are the highest 2 %).
Definitions as in δMG, which the golden numbers pin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bmi_components.errors import ValueShapeError

__all__ = ["METRICS", "compute_metrics", "kge", "kge_2012", "nse"]

Series = NDArray[np.float64]
Metric = Callable[[Series, Series], float]
"""A metric of one gauge: simulated and observed streamflow of the days that were observed."""

_LOW, _HIGH = 0.30, 0.98
"""Shares of the sorted days at which low flows end and high flows begin."""
_LOW_FLOW_OFFSET = 1e-4
"""Added to the sum of low flows, which can be zero."""
_PEAK_WINDOW = 10
"""Days before and after the highest observed flow among which the simulated peak is looked for (9 after)."""
_DURATION_CURVE_POINTS = 100


def nse(simulated: ArrayLike, observed: ArrayLike) -> Series:
    """Nash-Sutcliffe efficiency, 1 at best: 1 - sum((s - o)^2) / sum((o - mean(o))^2) (Nash and Sutcliffe 1970)."""
    return _per_gauge(_nse, simulated, observed)


def kge(simulated: ArrayLike, observed: ArrayLike) -> Series:
    """Kling-Gupta efficiency of 2009: 1 - |(r - 1, sigma_s/sigma_o - 1, mu_s/mu_o - 1)| (Gupta et al. 2009)."""
    return _per_gauge(_kge, simulated, observed)


def kge_2012(simulated: ArrayLike, observed: ArrayLike) -> Series:
    """Kling-Gupta efficiency of 2012, with the ratio of the coefficients of variation (Kling et al. 2012)."""
    return _per_gauge(_kge_2012, simulated, observed)


def _nse(s: Series, o: Series) -> float:
    return _ratio(-np.sum((s - o) ** 2), np.sum((o - o.mean()) ** 2)) + 1.0


def _correlation(s: Series, o: Series) -> float:
    ds, do = s - s.mean(), o - o.mean()
    return _ratio(np.sum(ds * do), np.sqrt(np.sum(ds**2) * np.sum(do**2)))


def _rank_correlation(s: Series, o: Series) -> float:
    return _correlation(_ranks(s), _ranks(o))


def _kge(s: Series, o: Series) -> float:
    return 1.0 - float(
        np.hypot(
            np.hypot(_correlation(s, o) - 1.0, _ratio(s.std(), o.std()) - 1.0),
            _ratio(s.mean(), o.mean()) - 1.0,
        )
    )


def _kge_2012(s: Series, o: Series) -> float:
    variation = _ratio(_ratio(s.std(), s.mean()), _ratio(o.std(), o.mean()))
    return 1.0 - float(
        np.hypot(np.hypot(_correlation(s, o) - 1.0, variation - 1.0), _ratio(s.mean(), o.mean()) - 1.0)
    )


def _mean_absolute_error(s: Series, o: Series) -> float:
    return float(np.abs(s - o).mean())


def _rmse(s: Series, o: Series) -> float:
    return float(np.sqrt(np.mean((s - o) ** 2)))


def _relative_error(s: Series, o: Series) -> float:
    return float(np.mean(np.abs(s - o) / (o + 1e-5)))


def _percent_bias(s: Series, o: Series) -> float:
    return 100.0 * _ratio(np.sum(s - o), np.sum(o))


def _percent_absolute_bias(s: Series, o: Series) -> float:
    return 100.0 * _ratio(np.sum(np.abs(s - o)), np.sum(o))


def _of_sorted(metric: Metric, start: float, stop: float) -> Metric:
    """Apply a metric to a part of the two flow duration curves."""

    def part(s: Series, o: Series) -> float:
        first, last = round(start * o.size), round(stop * o.size)
        return metric(np.sort(s)[first:last], np.sort(o)[first:last]) if last > first else np.nan

    return part


def _percent_bias_low(s: Series, o: Series) -> float:
    return 100.0 * float(np.sum(s - o) / (np.sum(o) + _LOW_FLOW_OFFSET))


def _percent_absolute_bias_low(s: Series, o: Series) -> float:
    return 100.0 * float(np.sum(np.abs(s - o)) / (np.sum(o) + _LOW_FLOW_OFFSET))


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        "nse": _nse,
        "kge": _kge,
        "kge_12": _kge_2012,
        "corr": _correlation,
        "corr_spearman": _rank_correlation,
        "r2": _nse,
        "rmse": _rmse,
        "mae": _mean_absolute_error,
        "bias": _relative_error,
        "pbias": _percent_bias,
        "pbias_abs": _percent_absolute_bias,
        "flv": _of_sorted(_percent_bias_low, 0.0, _LOW),
        "fhv": _of_sorted(_percent_bias, _HIGH, 1.0),
        "pbias_mid": _of_sorted(_percent_bias, _LOW, _HIGH),
        "flv_abs": _of_sorted(_percent_absolute_bias_low, 0.0, _LOW),
        "fhv_abs": _of_sorted(_percent_absolute_bias, _HIGH, 1.0),
        "pbias_abs_mid": _of_sorted(_percent_absolute_bias, _LOW, _HIGH),
        "rmse_low": _of_sorted(_rmse, 0.0, _LOW),
        "rmse_mid": _of_sorted(_rmse, _LOW, _HIGH),
        "rmse_high": _of_sorted(_rmse, _HIGH, 1.0),
    }
)
"""Metrics of the days that were observed, by their published names; fractions, mm d-1, and % where named so."""


def compute_metrics(simulated: ArrayLike, observed: ArrayLike) -> dict[str, Series]:
    """Compute all metrics of all gauges.

    Besides `METRICS`: ``d_max`` and ``d_max_rel``, the simulated minus the observed highest flow within days of the
    observed peak, mm d-1 and %; and three in which the published form lets the simulation of days without an
    observation count: ``bias_rel`` (difference of sums over the sum observed), ``rmse_ub`` (RMSE after taking each
    series' mean off) and ``rmse_fdc`` (RMSE between the two flow duration curves at 100 points).

    Returns
    -------
    dict
        ``{name: values[catchment]}``.

    Raises
    ------
    ValueShapeError
        If the two series differ in shape or are not ``[time, catchment]``.
    """
    s, o = _series(simulated, observed)
    table = {name: _per_gauge(metric, s, o) for name, metric in METRICS.items()}
    for name, metric in (
        ("bias_rel", _bias_of_sums),
        ("rmse_ub", _rmse_unbiased),
        ("rmse_fdc", _rmse_duration),
    ):
        table[name] = _per_gauge(metric, s, o, all_days=True)
    peaks = [_peak_error(s[:, gauge], o[:, gauge]) for gauge in range(o.shape[1])]
    table["d_max"] = np.array([error for error, _ in peaks])
    table["d_max_rel"] = np.array([100.0 * _ratio(error, peak) for error, peak in peaks])
    return table


def _bias_of_sums(s: Series, o: Series) -> float:
    return _ratio(np.sum(s) - np.nansum(o), np.nansum(o))


def _rmse_unbiased(s: Series, o: Series) -> float:
    return float(np.sqrt(np.nanmean(((s - s.mean()) - (o - np.nanmean(o))) ** 2)))


def _rmse_duration(s: Series, o: Series) -> float:
    return float(np.sqrt(np.mean((_duration_curve(s) - _duration_curve(o[np.isfinite(o)])) ** 2)))


def _duration_curve(flow: Series) -> Series:
    """Flow that is exceeded 0, 1, ... 99 % of the days."""
    positions = np.arange(_DURATION_CURVE_POINTS) / _DURATION_CURVE_POINTS * flow.size
    return np.sort(flow)[::-1][positions.astype(np.int64)]


def _peak_error(s: Series, o: Series) -> tuple[float, float]:
    """Simulated minus observed peak, and the observed peak."""
    if not np.isfinite(o).any():
        return np.nan, np.nan
    day = int(np.nanargmax(o))
    near = s[max(0, day - _PEAK_WINDOW) : day + _PEAK_WINDOW]
    return float(np.max(near) - o[day]), float(o[day])


def _series(simulated: ArrayLike, observed: ArrayLike) -> tuple[Series, Series]:
    s, o = np.asarray(simulated, dtype=np.float64), np.asarray(observed, dtype=np.float64)
    if s.shape != o.shape or s.ndim != 2:
        raise ValueShapeError(
            f"simulated and observed streamflow must both be [time, catchment]; they are {s.shape} and {o.shape}"
        )
    return s, o


def _per_gauge(
    metric: Metric, simulated: ArrayLike, observed: ArrayLike, *, all_days: bool = False
) -> Series:
    """Apply a metric gauge by gauge to the days that were observed, or to all; NaN where there are none."""
    s, o = _series(simulated, observed)
    known = np.isfinite(o)
    return np.array(
        [
            (metric(s[:, gauge], o[:, gauge]) if all_days else metric(s[days, gauge], o[days, gauge]))
            if (days := known[:, gauge]).any()
            else np.nan
            for gauge in range(o.shape[1])
        ]
    )


def _ratio(numerator: float, denominator: float) -> float:
    """Quotient, NaN instead of a division by zero."""
    return float(numerator / denominator) if denominator != 0 else np.nan


def _ranks(values: Series) -> Series:
    """Ranks from 1, equal values sharing their mean rank."""
    _, position, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return np.asarray((last - (count - 1) / 2)[position], dtype=np.float64)
