"""Routing of runoff to the outlet by gamma unit hydrographs, with the water still under way as explicit state."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["lagged", "route", "route_to_gauges", "unit_hydrograph"]


def unit_hydrograph(a: Tensor, b: Tensor, length: int) -> Tensor:
    """Ordinates of the gamma unit hydrograph, ``[length, ...]``, summing to 1.

    ``w_k`` is proportional to ``t^(alpha - 1) exp(-t / theta)`` at ``t = k + 1/2`` steps, with ``alpha = max(a, 0) +
    0.1`` and ``theta = max(b, 0) + 0.5`` (Feng et al. 2022, eq. 6; Nash 1957). The constant factor of the gamma
    density cancels.
    """
    alpha = torch.relu(a) + 0.1
    theta = torch.relu(b) + 0.5
    t = torch.arange(length, dtype=a.dtype, device=a.device) + 0.5
    t = t.reshape(-1, *[1] * a.dim())
    return torch.softmax((alpha - 1.0) * torch.log(t) - t / theta, dim=0)


def lagged(hydrograph: Tensor, lag: Tensor) -> Tensor:
    """Delay a unit hydrograph ``[length, ...]`` by ``lag`` steps, splitting it between the two whole steps around it.

    What leaves the window is lost, as in the reference: the ordinates may sum to less than 1.
    """
    length = hydrograph.shape[0]
    whole = torch.floor(lag)
    part = lag - whole
    k = torch.arange(length, device=lag.device).reshape(-1, *[1] * lag.dim())
    source = k - whole.to(torch.int64)

    def shifted(index: Tensor) -> Tensor:
        value = torch.gather(hydrograph, 0, index.clamp(0, length - 1).expand_as(hydrograph))
        return torch.where((index >= 0) & (index < length), value, torch.zeros_like(value))

    return (1.0 - part) * shifted(source) + part * shifted(source - 1)


def route(flow: Tensor, hydrograph: Tensor, under_way: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Route a series through unit hydrographs.

    Parameters
    ----------
    flow : Tensor
        Runoff, ``[time, ...]``.
    hydrograph : Tensor
        Ordinates, ``[length, ...]``, from `unit_hydrograph`.
    under_way : Tensor, optional
        Water of earlier steps that arrives in the coming ones, ``[length - 1, ...]``; nothing if absent.

    Returns
    -------
    routed : Tensor
        Flow at the outlet, ``[time, ...]``.
    under_way : Tensor
        Water that arrives after the last step, ``[length - 1, ...]``: routing a series in pieces gives what routing
        it at once gives.
    """
    steps, length = flow.shape[0], hydrograph.shape[0]
    ends = [0, 0] * (flow.dim() - 1)
    padded = functional.pad(flow, [*ends, length - 1, length - 1])
    arriving = torch.zeros_like(padded[: steps + length - 1])
    for k in range(length):
        arriving = arriving + hydrograph[k] * padded[length - 1 - k : steps + 2 * (length - 1) - k]
    if under_way is not None:
        arriving = arriving + functional.pad(under_way, [*ends, 0, steps])
    return arriving[:steps], arriving[steps:]


def route_to_gauges(
    runoff: Tensor, area: Tensor, topology: Tensor, a: Tensor, b: Tensor, tau: Tensor, length: int = 72
) -> Tensor:
    """Route hourly runoff of units to the gauges downstream of them (Song et al. 2025).

    Parameters
    ----------
    runoff : Tensor
        Runoff of the units, mm h-1, ``[time, unit]``.
    area : Tensor
        Area of the units, km2, ``[unit]``.
    topology : Tensor
        1 where a unit drains to a gauge, else 0, ``[gauge, unit]``.
    a, b, tau : Tensor
        Routing parameters of the pairs (gauge, unit) in row-major order of the topology, ``[pair]``.
    length : int
        Steps of the unit hydrograph.

    Returns
    -------
    Tensor
        Streamflow at the gauges, mm h-1 over the area that drains to each, ``[time, gauge]``.
    """
    gauge, unit = torch.nonzero(topology, as_tuple=True)
    hydrograph = lagged(unit_hydrograph(a, b, length), tau)
    routed, _ = route(runoff[:, unit] * area[unit], hydrograph)
    total = torch.zeros(runoff.shape[0], topology.shape[0], dtype=runoff.dtype, device=runoff.device)
    total = total.index_add(1, gauge, routed)
    drained = torch.zeros(topology.shape[0], dtype=runoff.dtype, device=runoff.device)
    drained = drained.index_add(0, gauge, area[unit])
    return total / torch.clamp(drained, min=1e-6)
