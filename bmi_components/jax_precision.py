"""Single or double precision in JAX for one computation, whatever the rest of the process has chosen."""

from __future__ import annotations

import contextlib
import importlib
from contextlib import AbstractContextManager
from typing import Any

__all__ = ["jax_precision"]


def jax_precision(dtype: str) -> AbstractContextManager[Any]:
    """Return a context in which JAX knows a precision ("float32", "float64"); outside of it nothing changes.

    Single precision needs nothing, since JAX always knows it.
    """
    if dtype == "float32":
        return contextlib.nullcontext()
    jax = importlib.import_module("jax")
    home = (
        jax if hasattr(jax, "enable_x64") else importlib.import_module("jax.experimental")
    )  # before JAX 0.8
    context: AbstractContextManager[Any] = home.enable_x64(True)
    return context
