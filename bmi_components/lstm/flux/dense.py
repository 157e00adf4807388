"""Dense networks over all days of a window at once: one hidden layer, or as many as listed."""

from __future__ import annotations

import itertools
from typing import Annotated

import msgspec
from msgspec import Meta
from torch import Tensor, nn

__all__ = ["AnnNetwork", "AnnSizes", "DynamicAnnNetwork", "DynamicAnnSizes"]

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0.0, lt=1.0)]


class AnnSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Size of a network with one hidden layer.

    Attributes
    ----------
    hidden
        Units of the hidden layer; DLFM's first network has eight.
    dropout
        Share of the units that is dropped, in training only.
    """

    hidden: Positive = 8
    dropout: Share = 0.0


class DynamicAnnSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of a network with several hidden layers.

    Attributes
    ----------
    layers
        Units of each hidden layer, from the inputs on.
    dropout
        Share of each hidden layer's units that is dropped, in training only.
    """

    layers: Annotated[tuple[Positive, ...], Meta(min_length=1)] = (4, 6)
    dropout: Share = 0.0


class DynamicAnnNetwork(nn.Module):
    """All inputs of all days through hidden layers with ReLU to one linear output.

    Parameters
    ----------
    sizes
        See `DynamicAnnSizes`.
    inputs
        Number of inputs per day.
    sequence_length
        Days in a window.
    """

    Sizes: type[msgspec.Struct] = DynamicAnnSizes

    def __init__(self, sizes: DynamicAnnSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        self.dropout = sizes.dropout
        widths = (inputs * sequence_length, *sizes.layers)
        stages: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            stages += [nn.Linear(narrow, wide), nn.ReLU()]
        self.stack = nn.Sequential(*stages, nn.Linear(widths[-1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        x = x.flatten(1)
        for stage in self.stack:
            x = stage(x)
            if isinstance(stage, nn.ReLU):
                x = nn.functional.dropout(x, self.dropout, self.training)
        return x.squeeze(-1)


class AnnNetwork(DynamicAnnNetwork):
    """The same with a single hidden layer; see `AnnSizes`."""

    Sizes = AnnSizes

    def __init__(self, sizes: AnnSizes, inputs: int, sequence_length: int) -> None:
        several = DynamicAnnSizes(layers=(sizes.hidden,), dropout=sizes.dropout)
        super().__init__(several, inputs, sequence_length)
