"""Hints to the compiler: what is computed once, and what must not keep a loop from computing several values at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

__all__ = ["COMPILER_OPTIONS", "compiled", "inverse_root", "settled"]

T = TypeVar("T", bound=Any)

COMPILER_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""On processors XLA takes the hints away before it fuses loops, unless that pass is left out."""


def compiled(function: Callable[..., Any], **options: Any) -> Any:
    """Return `jax.jit` of a function that uses `settled`, with the options of JAX's default device."""
    if jax.default_backend() == "cpu":
        options["compiler_options"] = COMPILER_OPTIONS
    return jax.jit(function, **options)


def settled(values: T) -> T:
    """Return the values (any pytree) as they are, and keep XLA from repeating their computation in each use.

    XLA's fusion on processors copies even sines and cosines into every loop that needs them: without this, the
    canopy took four times as long to compile and twice as long to run.
    """
    barrier: Any = jax.lax.optimization_barrier
    held: T = barrier(values)
    return held


def inverse_root(x: Any) -> Any:
    """Return ``1 / sqrt(x)``.

    As a quotient XLA calls a function of its own for it, one number at a time, and so for all else in the same loop.
    """
    return jnp.sqrt(1.0 / x)
