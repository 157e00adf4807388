"""Control-C that waits for a good moment: between two iterations of a training run, when all is saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["gentle_interrupts"]


@contextmanager
def gentle_interrupts() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in the list that is lent, instead of breaking into an iteration.

    A second SIGINT breaks in after all. Outside the main thread, where Python takes no signals, nothing changes.
    """
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    try:
        before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
