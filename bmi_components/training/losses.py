"""Loss functions of streamflow: what training makes small.

All take simulated and observed streamflow, mm d-1, ``[time, catchment]`` (one column per window; NaN where not
observed), and the `Spread` of each column's gauge over the training period, and return a scalar. Gradients reach
the simulation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from bmi_components.errors import ConfigurationError

__all__ = ["LOSSES", "Loss", "Spread", "get_loss"]


class Spread(NamedTuple):
    """How much streamflow of each column's gauge varies over the training period, ``[catchment]`` each.

    ``linear``: standard deviation, mm d-1; ``logarithmic``: that of ln(max(streamflow, 0.01)); ``step``: the
    largest change from one day to the next, mm d-1.
    """

    linear: Tensor
    logarithmic: Tensor
    step: Tensor


Loss = Callable[[Tensor, Tensor, Spread], Tensor]

_FLOOR = 0.01
"""Smallest streamflow in a logarithm, mm d-1."""
_STABILISER = 0.1
"""Added to spreads so that gauges that hardly flow do not rule the loss."""


def nse(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Mean of ((s - o) / (sigma + 0.1))^2: one minus the NSE of each gauge, averaged (Kratzert et al. 2019)."""
    observed, known = _fill(observed)
    return _mean(((simulated - observed) / (spread.linear + _STABILISER)) ** 2, known)


def nse_sqrt(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """Mean of |s - o| / (sigma + 0.1), rounded near zero: less ruled by floods than `nse`."""
    observed, known = _fill(observed)
    return _mean(torch.sqrt((simulated - observed) ** 2 + 1e-6) / (spread.linear + _STABILISER), known)


def nse_log(simulated: Tensor, observed: Tensor, spread: Spread) -> Tensor:
    """`nse` of ln(streamflow), floored at 0.01 mm d-1: ruled by low flows."""
    observed, known = _fill(observed)
    error = torch.log(simulated.clamp_min(_FLOOR)) - torch.log(observed.clamp_min(_FLOOR))
    return _mean((error / (spread.logarithmic + _STABILISER)) ** 2, known)


LOSSES: Mapping[str, Loss] = MappingProxyType({"nse": nse, "nse_sqrt": nse_sqrt, "nse_log": nse_log})
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
