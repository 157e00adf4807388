"""A hint to the compiler: what is computed here is computed once."""

from __future__ import annotations

from typing import Any, TypeVar

import jax

__all__ = ["settled"]

T = TypeVar("T", bound=Any)


def settled(values: T) -> T:
    """Return the values (any pytree) as they are, and keep XLA from repeating their computation in each use.

    XLA's fusion on processors copies even sines and cosines into every loop that needs them: without this, the
    canopy took four times as long to compile and twice as long to run.
    """
    return jax.lax.optimization_barrier(values)
