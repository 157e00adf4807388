"""JAX's devices by name, and the threads that its programs run on."""

from __future__ import annotations

import importlib
import os
from typing import Any

__all__ = ["jax_device", "start_jax"]

THREADS = "NPROC"
"""Environment variable in which XLA looks for the number of threads; its own flags for them have no effect."""


def jax_device(name: str) -> Any:
    """Return JAX's device of a name such as "cpu" or "cuda:1"."""
    kind, _, index = name.partition(":")
    return importlib.import_module("jax").devices(kind)[int(index or 0)]


def start_jax(threads: int) -> None:
    """Start JAX with so many threads of the CPU, unless this process has used it before: its threads are for good.

    Waiting for each other they used a third more CPU time in a canopy's small loops.
    """
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads)
    try:
        importlib.import_module("jax").devices()
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before
