"""Heads: from a network's last layer to the mean and the spread of runoff, both still standardised.

The mixtures are those of Klotz et al. (2022, doi:10.5194/hess-26-1673-2022). Their mean and standard deviation are
computed, not sampled; samples that neuralhydrology draws have the same mean and deviation as long as it leaves their
negative values alone (``negative_sample_handling``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

__all__ = ["HEADS", "Distribution", "asymmetric_laplace_moments", "mixture_moments", "tau_grid", "umal"]

Distribution = tuple[Tensor, Tensor | None]
"""Mean and standard deviation; None where a single value is predicted."""

FLOOR = 1e-5
"""Least scale, weight and asymmetry, which keeps the distributions proper."""

LARGEST_UMAL_SCALE = 0.5


def _point(activation: Callable[[Tensor], Tensor] | None) -> Callable[[Tensor], Distribution]:
    def head(raw: Tensor) -> Distribution:
        value = raw.squeeze(-1)
        return (value if activation is None else activation(value)), None

    return head


def mixture_moments(weight: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of a mixture, summed over the last axis; weights need not add up to 1."""
    share = weight / weight.sum(-1, keepdim=True)
    centre = (share * mean).sum(-1)
    spread = (share * (variance + (mean - centre.unsqueeze(-1)) ** 2)).sum(-1)
    return centre, spread.sqrt()


def asymmetric_laplace_moments(location: Tensor, scale: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of asymmetric Laplace distributions.

    Values lie below ``location`` with probability ``tau``, by an exponential distance of mean ``scale/(1 - tau)``;
    above it by one of mean ``scale/tau`` (Yu and Zhang 2005).
    """
    below, above = scale / (1.0 - tau), scale / tau
    distance = (1.0 - tau) * above - tau * below
    second = 2.0 * (tau * below**2 + (1.0 - tau) * above**2)
    return location + distance, second - distance**2


def _gmm(raw: Tensor) -> Distribution:
    """Gaussian mixture; ``raw[..., 3*component]`` holds means, logarithms of the deviations, logits."""
    mean, log_deviation, logit = raw.chunk(3, dim=-1)
    deviation = torch.exp(log_deviation) + FLOOR
    return mixture_moments(torch.softmax(logit, dim=-1), mean, deviation**2)


def _cmal(raw: Tensor) -> Distribution:
    """Countable mixture of asymmetric Laplacians; ``raw[..., 4*component]``: location, scale, asymmetry, logit."""
    location, scale, asymmetry, logit = raw.chunk(4, dim=-1)
    scale = torch.nn.functional.softplus(scale, beta=2) + FLOOR
    tau = (1.0 - FLOOR) * torch.sigmoid(asymmetry) + FLOOR
    weight = (1.0 - FLOOR) * torch.softmax(logit, dim=-1) + FLOOR
    return mixture_moments(weight, *asymmetric_laplace_moments(location, scale, tau))


def tau_grid(number: int, lowest: float, highest: float) -> Tensor:
    """Return the asymmetries at which a UMAL network is evaluated: the midpoints of equal parts, float64 ``[tau]``."""
    return lowest + (highest - lowest) * (torch.arange(number, dtype=torch.float64) + 0.5) / number


def umal(raw: Tensor, taus: Tensor) -> Distribution:
    """Uncountable mixture of asymmetric Laplacians, its integral over tau taken at fixed ``taus [tau]``.

    neuralhydrology draws the taus at random, so that two of its evaluations differ; this one does not.

    Parameters
    ----------
    raw
        Location and scale at each tau, ``[..., tau, 2]``.
    taus
        Asymmetries, ``[tau]``.
    """
    location, scale = raw.unbind(-1)
    scale = LARGEST_UMAL_SCALE * torch.sigmoid(scale) + FLOOR
    mean, variance = asymmetric_laplace_moments(location, scale, taus)
    return mixture_moments(torch.ones_like(mean), mean, variance)


HEADS: Mapping[str, Callable[[Tensor], Distribution]] = MappingProxyType(
    {
        "linear": _point(None),
        "relu": _point(torch.relu),
        "softplus": _point(torch.nn.functional.softplus),
        "gmm": _gmm,
        "cmal": _cmal,
    }
)
"""Mean and deviation ``[...]`` from the last layer ``[..., output]``, by name; "umal" needs its taus, see `umal`."""
