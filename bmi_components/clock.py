"""The model time of one component: whole steps without drift, parts of steps exactly where they were asked for."""

from __future__ import annotations

import math
import sys

from bmi_components.errors import TimeError

__all__ = ["NO_END", "Clock"]

NO_END = sys.float_info.max
"""End time of a run without a configured end (what NextGen expects)."""


class Clock:
    """Seconds since the start, in steps of ``time_step``.

    After ``k`` whole steps ``current`` is exactly ``k * time_step``; after a move to ``t`` it is exactly ``t``.

    Attributes
    ----------
    time_step
        Length of a whole step, s.
    end
        Last time that may be reached, s.
    current
        The time now, s.
    elapsed
        Seconds of the unfinished step that have passed; 0.0 at a step's boundary.
    steps
        Whole steps since ``origin``.
    origin
        Time at which step 0 began: 0.0, or earlier where a state that was saved amid a step was restored.
    """

    __slots__ = ("current", "elapsed", "end", "origin", "steps", "time_step")

    def __init__(self, time_step: float, end: float = NO_END) -> None:
        if not (math.isfinite(time_step) and time_step > 0.0):
            raise TimeError(f"the time step is {time_step} s; it must be a positive number of seconds")
        if not end > 0.0:
            raise TimeError(f"the end time is {end} s after the start; it must be later than the start")
        self.time_step = time_step
        self.end = end
        self.current = 0.0
        self.elapsed = 0.0
        self.steps = 0
        self.origin = 0.0

    @property
    def boundary(self) -> float:
        """Time at which the running step will be complete, s."""
        return self.origin + (self.steps + 1) * self.time_step

    @property
    def step_start(self) -> float:
        """Time at which the running step began, s."""
        return self.origin + self.steps * self.time_step

    def check(self, time: float) -> float:
        """Return ``time`` as a float that can be moved to.

        Raises
        ------
        TimeError
            If it is not a number, in the past, or beyond the end.
        """
        try:
            target = float(time)
        except (TypeError, ValueError):
            raise TimeError(f"the time {time!r} is not a number of seconds") from None
        if not self.current <= target <= self.end:
            if math.isnan(target):
                raise TimeError("the time is NaN; it must be a number of seconds since the start")
            if target < self.current:
                raise TimeError(
                    f"the time {target!r} s is in the past: the component is at {self.current!r} s"
                )
            raise TimeError(f"the time {target!r} s is beyond the end of the run at {self.end!r} s")
        return target

    def reaches_boundary(self, time: float) -> bool:
        """Whether moving to ``time`` completes the running step (callers' rounding of a few ulp forgiven)."""
        boundary = self.boundary
        return time >= boundary or boundary - time <= 4.0 * math.ulp(boundary)

    def advance_step(self) -> None:
        """Complete the running step: the time is the step's boundary."""
        self.steps += 1
        self.elapsed = 0.0
        self.current = self.origin + self.steps * self.time_step

    def advance_part(self, time: float) -> None:
        """Move to ``time`` within the running step."""
        self.elapsed = time - self.step_start
        self.current = time

    def settle(self, time: float) -> None:
        """Call the boundary just reached ``time``, if that differs from it by rounding at most."""
        if abs(time - self.current) <= 4.0 * math.ulp(time):
            self.current = time

    def restart(self, elapsed: float, current: float | None = None) -> None:
        """Stand ``elapsed`` seconds into a step at ``current`` (None: the time as it is)."""
        if current is not None:
            self.current = current
        elif elapsed == self.elapsed:
            return
        self.elapsed = elapsed
        self.steps = 0
        self.origin = self.current - elapsed

    def reset(self) -> None:
        """Call this moment time 0; an unfinished step stays as far as it is."""
        self.restart(self.elapsed, 0.0)
