"""The extended LSTM (Beck et al. 2024) through its authors' package `xlstm`, on the CPU."""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from torch import Tensor, nn

from bmi_components.errors import ConfigurationError

__all__ = ["XlstmNetwork", "XlstmSizes"]

Positive = Annotated[int, Meta(ge=1)]


class XlstmSizes(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Sizes of an xLSTM.

    Attributes
    ----------
    width
        Numbers that each day's inputs are turned into; a multiple of ``heads``, and of 4 for blocks "m".
    blocks
        Kind of each block from the inputs on: "s" (scalar memory, new memory mixing) or "m" (matrix memory).
    heads
        Heads of each block.
    dropout
        Share that each block drops, in training only.
    """

    width: Positive = 16
    blocks: Annotated[tuple[Literal["s", "m"], ...], Meta(min_length=1)] = ("s", "m")
    heads: Positive = 2
    dropout: Annotated[float, Meta(ge=0.0, lt=1.0)] = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or ("m" in self.blocks and self.width % 4):
            raise ValueError("width must be a multiple of heads and, with a block 'm', of 4")


class XlstmNetwork(nn.Module):
    """A linear layer per day, a stack of xLSTM blocks over the days, and one linear output of the last day.

    Parameters
    ----------
    sizes
        See `XlstmSizes`.
    inputs
        Number of inputs per day.
    sequence_length
        Days in a window; the matrix memory is made for this many.

    Raises
    ------
    ConfigurationError
        If the package is not installed.
    """

    Sizes = XlstmSizes

    def __init__(self, sizes: XlstmSizes, inputs: int, sequence_length: int) -> None:
        super().__init__()
        package = _package()
        kinds = set(sizes.blocks)
        scalar = matrix = None
        if "s" in kinds:
            # "vanilla" is plain PyTorch; the other backend compiles CUDA
            layer = package.sLSTMLayerConfig(backend="vanilla", num_heads=sizes.heads)
            feed_forward = package.FeedForwardConfig(proj_factor=1.3, act_fn="gelu")
            scalar = package.sLSTMBlockConfig(slstm=layer, feedforward=feed_forward)
        if "m" in kinds:
            matrix = package.mLSTMBlockConfig(mlstm=package.mLSTMLayerConfig(num_heads=sizes.heads))
        self.embedding = nn.Linear(inputs, sizes.width)
        self.stack = package.xLSTMBlockStack(
            package.xLSTMBlockStackConfig(
                slstm_block=scalar,
                mlstm_block=matrix,
                context_length=sequence_length,
                num_blocks=len(sizes.blocks),
                embedding_dim=sizes.width,
                dropout=sizes.dropout,
                slstm_at=[position for position, kind in enumerate(sizes.blocks) if kind == "s"],
            )
        )
        self.linear = nn.Linear(sizes.width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised target ``[window]`` of standardised inputs ``[window, day, input]``."""
        result: Tensor = self.linear(self.stack(self.embedding(x))[:, -1])
        return result.squeeze(-1)


def _package() -> Any:
    try:
        return importlib.import_module("xlstm")
    except ImportError as error:
        raise ConfigurationError(
            "the model 'xlstm' needs the package xlstm, which is not installed: pip install 'bmi_components[xlstm]'"
        ) from error
