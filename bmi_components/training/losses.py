"""Loss functions of streamflow: what training makes small.

All take simulated and observed streamflow, mm d-1, ``[time, catchment]`` (one column per window; NaN where not
observed) and the `Spread` of each column's gauge, and return a scalar. Gradients reach the simulation only.
The published forms are those of δMG (Shen et al. 2023), which the golden numbers pin.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bmi_components.errors import ConfigurationError

__all__ = ["LOSSES", "Loss", "Spread", "get_loss", "range_bound"]


class Spread(NamedTuple):
    """How much streamflow of each column's gauge varies over the training period, ``[catchment]`` each.

    ``linear``: standard deviation, mm d-1; ``logarithmic``: that of ln(max(streamflow, 0.01)).
    """

    linear: Tensor
    logarithmic: Tensor


Loss = Callable[[Tensor, Tensor, Spread], Tensor]

_FLOOR = 0.01
"""Smallest streamflow in a logarithm, mm d-1."""
_STABILISER = 0.1
"""Added to spreads and means, so that gauges that hardly flow do not rule the loss."""
_TINY = 1e-12
"""Added under square roots whose slope at zero would be infinite."""


def nse(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Mean of ((s - o) / (sigma + 0.1))^2: one minus the NSE of each gauge, averaged (Kratzert et al. 2019)."""
    filled, known = _fill(observed)
    return _mean(_squared_error(simulated, filled, spread), known)


def nse_sqrt(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Mean of |s - o| / (sigma + 0.1), rounded near zero: less ruled by floods than `nse`."""
    filled, known = _fill(observed)
    return _mean(torch.sqrt((simulated - filled) ** 2 + 1e-6) / (spread.linear + _STABILISER), known)


def nse_log(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`nse` of ln(streamflow), floored at 0.01 mm d-1: ruled by low flows."""
    filled, known = _fill(observed)
    error = torch.log(simulated.clamp_min(_FLOOR)) - torch.log(filled.clamp_min(_FLOOR))
    return _mean((error / (spread.logarithmic + _STABILISER)) ** 2, known)


def nse_trend(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`nse` in which a day weighs 0.1 + |o(t) - o(t-1)| / max|o(t) - o(t-1)|: ruled by rising and falling limbs.

    The first day takes the second day's change. As in the published form a missing observation counts as zero in
    the changes, so the days beside a gap weigh more.
    """
    filled, known = _fill(observed)
    change = torch.diff(filled, dim=0).abs()
    change = torch.cat((change[:1], change))
    largest = change.amax(dim=0).clamp_min(_TINY)
    return _mean((change / largest + 0.1) * _squared_error(simulated, filled, spread), known)


def kge(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """One minus the KGE of all windows pooled into one series (the published form)."""
    filled, known = _fill(observed)
    return (
        1.0
        - _kge(simulated[known].unsqueeze(1), filled[known].unsqueeze(1), known[known].unsqueeze(1)).squeeze()
    )


def nkge(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`kge` bounded to [0, 1): 1 - K / (2 - K)."""
    efficiency = 1.0 - kge(simulated, observed, spread)
    return 1.0 - efficiency / (2.0 - efficiency)


def kge_per_window(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """One minus the KGE of each window, averaged: no window borrows correlation from differences between gauges."""
    filled, known = _fill(observed)
    varied = ((filled - filled[known].mean()).abs() * known).sum(dim=0) > 0
    return 1.0 - _kge(simulated[:, varied], filled[:, varied], known[:, varied]).mean()


def nse_kge(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`nse` plus a quarter of `kge_per_window`: skill as in the NSE, with the variability that the NSE dampens."""
    return nse(simulated, observed, spread) + 0.25 * kge_per_window(simulated, observed, spread)


def nse_kge_balanced(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`nse` plus `kge_per_window` in equal parts: gives up some NSE for floods and variability of the right size."""
    return nse(simulated, observed, spread) + kge_per_window(simulated, observed, spread)


def mse(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Mean squared error, (mm d-1)^2."""
    filled, known = _fill(observed)
    return _mean((simulated - filled) ** 2, known)


def rmse(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Root mean squared error, mm d-1."""
    return torch.sqrt(mse(simulated, observed, spread) + _TINY)


def rmse_combined(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """0.75 RMSE + 0.25 RMSE of log10(sqrt(q + 1e-6) + 0.1): floods and low flows together (Feng et al. 2022)."""

    def logarithm(streamflow: Tensor) -> Tensor:
        return torch.log10(torch.sqrt(streamflow.clamp_min(0.0) + 1e-6) + 0.1)

    low_flows = rmse(logarithm(simulated), logarithm(observed), spread)
    return 0.75 * rmse(simulated, observed, spread) + 0.25 * low_flows


def range_bound(values: Tensor, lower: float = 0.9, upper: float = 1.1) -> Tensor:
    """Mean distance of values from the interval [lower, upper]; holds the weights of a model average near one."""
    return (torch.relu(values - upper) + torch.relu(lower - values)).mean()


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {
        "nse": nse,
        "nse_sqrt": nse_sqrt,
        "nse_log": nse_log,
        "nse_trend": nse_trend,
        "kge": kge,
        "nkge": nkge,
        "kge_per_window": kge_per_window,
        "nse_kge": nse_kge,
        "nse_kge_balanced": nse_kge_balanced,
        "mse": mse,
        "rmse": rmse,
        "rmse_combined": rmse_combined,
    }
)
"""Losses by the name that a recipe uses."""


def get_loss(name: str) -> Loss:
    """Find a loss by name.

    Raises
    ------
    ConfigurationError
        If there is none of that name.
    """
    if name not in LOSSES:
        raise ConfigurationError(f"loss: {name!r} is unknown; choose one of {', '.join(LOSSES)}")
    return LOSSES[name]


def _fill(observed: Tensor) -> tuple[Tensor, Tensor]:
    """Return the observations with zeros for those that are missing, and where they are known.

    A NaN that is multiplied away would still reach the gradient.
    """
    known = ~torch.isnan(observed)
    return torch.where(known, observed, 0.0), known


def _mean(values: Tensor, known: Tensor) -> Tensor:
    """Mean over the known values."""
    return torch.where(known, values, 0.0).sum() / known.sum()


def _squared_error(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    return ((simulated - observed) / (spread.linear + _STABILISER)) ** 2


def _kge(simulated: Tensor, observed: Tensor, known: Tensor) -> Tensor:
    """KGE of 2009 per column, ``[catchment]``, with 0.1 added to every denominator."""
    count = known.sum(dim=0)

    def centre(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = torch.where(known, values, 0.0).sum(dim=0) / count
        deviation = torch.where(known, values - mean, 0.0)
        return mean, deviation, (deviation**2).sum(dim=0)

    mean_s, deviation_s, square_s = centre(simulated)
    mean_o, deviation_o, square_o = centre(observed)
    correlation = (deviation_s * deviation_o).sum(dim=0) / (
        torch.sqrt(square_s * square_o + _TINY) + _STABILISER
    )
    degrees = (count - 1).clamp_min(1)
    variability = torch.sqrt(square_s / degrees + _TINY) / (torch.sqrt(square_o / degrees) + _STABILISER)
    bias = mean_s / (mean_o + _STABILISER)
    return 1.0 - torch.sqrt((correlation - 1) ** 2 + (variability - 1) ** 2 + (bias - 1) ** 2 + _TINY)
