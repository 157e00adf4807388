"""Skill of simulated streamflow, one number per gauge."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["kge", "nse"]

Series = NDArray[np.float64]


def nse(simulated: ArrayLike, observed: ArrayLike) -> Series:
    """Nash-Sutcliffe efficiency, 1 at best: 1 - sum((s - o)^2) / sum((o - mean(o))^2) (Nash and Sutcliffe 1970).

    Parameters
    ----------
    simulated, observed
        Streamflow, ``[time, catchment]``; NaN in ``observed`` where there is none.

    Returns
    -------
    ndarray
        ``[catchment]``; NaN for a gauge without observations or without variation.
    """
    s, o = _pair(simulated, observed)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.nansum((s - o) ** 2, axis=0)
        variation = np.nansum((o - _mean(o)) ** 2, axis=0)
        return np.where(variation > 0, 1 - error / variation, np.nan)


def kge(simulated: ArrayLike, observed: ArrayLike) -> Series:
    """Kling-Gupta efficiency of 2009: 1 - |(r - 1, sigma_s/sigma_o - 1, mu_s/mu_o - 1)| (Gupta et al. 2009)."""
    s, o = _pair(simulated, observed)
    with np.errstate(invalid="ignore", divide="ignore"):
        ds, do = s - _mean(s), o - _mean(o)
        ss, so = np.sqrt(np.nansum(ds**2, axis=0)), np.sqrt(np.nansum(do**2, axis=0))
        correlation = np.nansum(ds * do, axis=0) / (ss * so)
        return 1 - np.sqrt((correlation - 1) ** 2 + (ss / so - 1) ** 2 + (_mean(s) / _mean(o) - 1) ** 2)


def _pair(simulated: ArrayLike, observed: ArrayLike) -> tuple[Series, Series]:
    """Both series in double precision, NaN in both where either is."""
    s, o = np.array(simulated, dtype=np.float64), np.array(observed, dtype=np.float64)
    unknown = ~(np.isfinite(s) & np.isfinite(o))
    s[unknown] = o[unknown] = np.nan
    return s, o


def _mean(values: Series) -> Series:
    """Mean over known values; NaN, without a warning, where there are none."""
    count = np.isfinite(values).sum(axis=0)
    return np.nansum(values, axis=0) / np.where(count > 0, count, np.nan)
