"""What thousands of components cost: time and memory of each, and whether stepping makes them grow.

Only the standard library is imported here, since the peers' environments run this file too.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from time import process_time
from typing import Any

from worker import resident_kilobytes


def held_kilobytes() -> float:
    """Return the resident memory without what is free but kept by the C library for the next allocation."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return resident_kilobytes()


def opening(
    opened: Callable[[str], Any], files: Sequence[str], stepped: int, long_run: int
) -> Callable[[], dict[str, float]]:
    """Open a component for each file, step ``stepped`` of them, and the first ``long_run`` times more."""
    count = len(files)

    def call() -> dict[str, float]:
        start = process_time()
        first = opened(files[0])
        first.update()
        found = {"first_seconds": process_time() - start}
        before, start = held_kilobytes(), process_time()
        components = [opened(file) for file in files[1:]]
        found["seconds_each"] = (process_time() - start) / (count - 1)
        found["kilobytes_each"] = (held_kilobytes() - before) / (count - 1)

        before, start = held_kilobytes(), process_time()
        for component in components[:stepped]:
            component.update()
        found["first_step_seconds"] = (process_time() - start) / stepped
        found["stepping_kilobytes_each"] = (held_kilobytes() - before) / stepped
        before = held_kilobytes()
        for _ in range(4):
            for component in components[:stepped]:
                component.update()
        found["growth_of_all_kilobytes"] = held_kilobytes() - before
        before = held_kilobytes()
        for _ in range(long_run):
            first.update()
        found["growth_of_one_kilobytes"] = held_kilobytes() - before

        # Python's own account of it, of a few more (it slows everything down, so it comes last).
        tracemalloc.start()
        more = [opened(file) for file in files[:200]]
        for component in more[: min(stepped, 50)]:
            component.update()
        traced = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        found["traced_kilobytes_each"] = traced / 1024 / len(more)
        return found

    return call
