"""From a torch function to a flat list of elementwise operations, with torch's own derivative of it if wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.func import functionalize, vjp
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["trace", "trace_pullback"]

ElementwiseFunction = Callable[..., Sequence[Tensor]]


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Writes down each operation that torch carries out.

    torch's own ``make_fx`` does the same, but loads torch's compiler first, which takes seconds.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self._nodes: dict[int, fx.Node] = {}
        self._kept: list[Tensor] = []  # so that no two tensors have the same identity

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from wrapping the method below in a call of its compiler."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        result = func(*args, **named)
        node = self.graph.call_function(
            func, tuple(map(self._written, args)), {key: self._written(value) for key, value in named.items()}
        )
        self._know(result, node)
        return result

    def argument(self, tensor: Tensor) -> None:
        """Make a tensor the function's next argument."""
        self._know(tensor, self.graph.placeholder(f"x{len(self._nodes)}"))

    def results(self, tensors: Sequence[Tensor]) -> None:
        """End the function."""
        self.graph.output(tuple(map(self._written, tensors)))

    def _know(self, tensor: Tensor, node: fx.Node) -> None:
        self._nodes[id(tensor)] = node
        self._kept.append(tensor)

    def _written(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        # What no operation made is a constant of the function; an elementwise one has only single numbers.
        return self._nodes[id(value)] if id(value) in self._nodes else value.item()


def _examples(count: int) -> list[Tensor]:
    """Arguments to trace with: the values do not matter, since the function has no branches on data."""
    return [torch.full((2,), 0.5 + 0.01 * i, dtype=torch.float64) for i in range(count)]


def _graph(function: Callable[..., Any], arguments: list[Tensor]) -> fx.Graph:
    recorder = _Recorder()
    for tensor in arguments:
        recorder.argument(tensor)
    with recorder:
        results = functionalize(function)(*arguments)
    recorder.results(results)
    recorder.graph.eliminate_dead_code()
    return recorder.graph


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
