"""Elementwise functions compiled once per process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

from bmi_components.kernels.elementwise import Elementwise

__all__ = ["compiled_elementwise"]


@cache
def compiled_elementwise(
    function: Callable[..., Sequence[Tensor]], arguments: int, results: int, dtype: str
) -> Elementwise:
    """Return the machine code of a module-level function, compiling it on the first call."""
    return Elementwise(function, arguments, results, dtype)
