"""From a torch function to a flat list of elementwise operations, with torch's own derivative of it if wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize, vjp
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["trace", "trace_pullback"]

ElementwiseFunction = Callable[..., Sequence[Tensor]]


def _examples(count: int) -> list[Tensor]:
    """Arguments to trace with: the values do not matter, since the function has no branches on data."""
    return [torch.full((2,), 0.5 + 0.01 * i, dtype=torch.float64) for i in range(count)]


def _graph(function: Callable[..., Any], arguments: list[Tensor]) -> fx.Graph:
    graph: fx.Graph = make_fx(functionalize(function))(*arguments).graph
    graph.eliminate_dead_code()
    return graph


def trace(function: ElementwiseFunction, arguments: int) -> fx.Graph:
    """Trace ``function(*tensors) -> tensors`` of so many arguments into aten operations.

    The function must be elementwise and free of Python branches on values.
    """
    return _graph(lambda *x: tuple(function(*x)), _examples(arguments))


def trace_pullback(function: ElementwiseFunction, arguments: int, results: int) -> fx.Graph:
    """Trace the vector-Jacobian product: ``(*arguments, *cotangents) -> cotangents of the arguments``."""

    def pullback(*values: Tensor) -> tuple[Tensor, ...]:
        pull = vjp(lambda *x: tuple(function(*x)), *values[:arguments])[1]
        return tuple(pull(tuple(values[arguments:])))

    return _graph(pullback, _examples(arguments + results))
