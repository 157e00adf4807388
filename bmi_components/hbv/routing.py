"""Routing of runoff to the outlet by gamma unit hydrographs, with the water still under way as explicit state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from bmi_components.kernels.correlation import correlate

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
    weights = hydrograph.expand(length, *flow.shape[1:])
    if flow.device.type == "cpu" and flow.dtype in (torch.float32, torch.float64):
        arriving = _Routing.apply(flow, weights)  # type: ignore[no-untyped-call]
    else:
        arriving = _route_in_torch(flow, weights)
    if under_way is not None:
        arriving = torch.cat((arriving[: length - 1] + under_way, arriving[length - 1 :]))
    return arriving[:steps], arriving[steps:]


def _pad(series: Tensor, steps: int) -> Tensor:
    """Add so many steps of nothing at both ends."""
    return functional.pad(series, [*[0, 0] * (series.dim() - 1), steps, steps])


def _correlate(weights: Tensor, series: Tensor) -> Tensor:
    """Sums over k of ``weights[k] * series[j + k]``, for every j for which all are there."""
    weights, series = weights.contiguous(), series.contiguous()
    out = series.new_empty(series.shape[0] - weights.shape[0] + 1, *series.shape[1:])
    kernel = correlate(str(series.dtype).removeprefix("torch."))
    lanes = out[0].numel() if out.shape[0] else 0
    kernel(out.shape[0], weights.shape[0], lanes, weights.data_ptr(), series.data_ptr(), out.data_ptr())
    return out


class _Routing(Function):
    """All that arrives from a series, ``[time + length - 1, ...]``: a convolution and, backward, two correlations."""

    @staticmethod
    def forward(context: Any, flow: Tensor, weights: Tensor) -> Tensor:
        context.save_for_backward(flow, weights)
        return _correlate(weights.flip(0), _pad(flow, weights.shape[0] - 1))

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        flow, weights = context.saved_tensors
        return _correlate(weights, gradient), _correlate(flow, gradient)


def _route_in_torch(flow: Tensor, weights: Tensor) -> Tensor:
    """The same by torch, for other devices."""
    steps, length = flow.shape[0], weights.shape[0]
    padded = _pad(flow, length - 1)
    arriving = torch.zeros_like(padded[: steps + length - 1])
    for k in range(length):
        arriving = arriving + weights[k] * padded[length - 1 - k : steps + 2 * (length - 1) - k]
    return arriving


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
