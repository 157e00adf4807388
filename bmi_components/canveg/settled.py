"""Hints to the compiler: what is computed once, and what must not keep a loop from computing several values at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

__all__ = ["compiled", "compiler_options", "inverse_root", "settled"]

T = TypeVar("T", bound=Any)

FEW = 512
"""Leaves (layers of all sites and steps) that take less time than starting the loops over them."""


def compiler_options(platform: str, leaves: int) -> dict[str, Any] | None:
    """Return XLA's options for a program of so many leaves, on a platform such as "cpu"."""
    if platform != "cpu":
        return None
    # on processors XLA takes the hints away before it fuses loops, unless that pass is left out
    options: dict[str, Any] = {"xla_disable_hlo_passes": "cse_barrier_expander"}
    # more takes a tenth to a quarter longer to compile, and is no faster afterwards
    options["xla_backend_optimization_level"] = 1
    if leaves <= FEW:
        # the older way to make loops takes half as long to compile; its exponential is slower
        options["xla_cpu_use_fusion_emitters"] = False
    return options


def compiled(function: Callable[..., Any], leaves: int = FEW + 1, **options: Any) -> Any:
    """Return `jax.jit` of a function that uses `settled`, with the options of JAX's default device."""
    options["compiler_options"] = compiler_options(jax.default_backend(), leaves)
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
