"""Forcing: weather of some catchments on one regular time axis, checked once so that nobody has to check again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bmi_components.config import parse_time
from bmi_components.errors import ForcingError, UnknownNameError
from bmi_components.variables import Variable

__all__ = ["DAY", "HOUR", "Forcing", "Times", "last_moment", "moment", "regular_step"]

Times = NDArray[np.datetime64]

DAY = 86_400
"""Seconds of a day."""
HOUR = 3_600
"""Seconds of an hour."""


@dataclass(frozen=True)
class Forcing:
    """Weather of ``catchments`` over steps of ``time_step`` seconds.

    The constructor checks shapes, the regularity of the time axis, that nothing is missing (unless the variable's
    ``nan_is_data``) and that every value is physically possible.

    Attributes
    ----------
    time
        Start of each step (UTC), ``datetime64[s]``, shape ``[time]``; a value is valid until the next one.
    time_step
        Seconds.
    catchments
        Identifiers, in the order of the columns.
    variables
        What the values are and in which units.
    values
        ``float64 [time, catchment]`` by the variable's symbol.
    source
        Where it came from, for messages and provenance.

    Raises
    ------
    ForcingError
        Naming the source, the variable, the catchment and the time.
    """

    time: Times
    time_step: int
    catchments: tuple[str, ...]
    variables: tuple[Variable, ...]
    values: Mapping[str, NDArray[np.float64]]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        if self.time.size == 0:
            raise ForcingError(f"{self.source}: there is no time step in it")
        if self.time.size > 1 and regular_step(self.time, self.source) != self.time_step:
            raise ForcingError(f"{self.source}: the time axis does not have steps of {self.time_step} s")
        if len(set(self.catchments)) < len(self.catchments):
            repeated = next(name for name in self.catchments if self.catchments.count(name) > 1)
            raise ForcingError(f"{self.source}: the catchment {repeated!r} occurs more than once")
        for variable in self.variables:
            self._check(variable)

    def _check(self, variable: Variable) -> None:
        values = self.values[variable.symbol]
        if values.shape != (self.time.size, len(self.catchments)):
            raise ForcingError(
                f"{self.source}: {variable.symbol} has the shape {values.shape} instead of "
                f"[{self.time.size} times, {len(self.catchments)} catchments]"
            )
        missing = ~np.isfinite(values)
        if variable.nan_is_data:
            missing &= ~np.isnan(values)
        if missing.any():
            where = self._place(missing)
            raise ForcingError(
                f"{self.source}: {variable.symbol} is missing (NaN or infinite) in {int(missing.sum())} of "
                f"{values.size} values, first at {where}; fill the gaps or choose another period"
            )
        if variable.valid_range is not None:
            low, high = variable.valid_range
            impossible = (values < low) | (values > high)
            if impossible.any():
                first = values[impossible][0]
                raise ForcingError(
                    f"{self.source}: {variable.symbol} is {first:g} {variable.units} at {self._place(impossible)}, "
                    f"outside of [{low:g}, {high:g}]; are its units right?"
                )

    def _place(self, mask: NDArray[np.bool_]) -> str:
        time, catchment = np.argwhere(mask)[0]
        return f"{_text(self.time[time])} in catchment {self.catchments[catchment]}"

    @property
    def end(self) -> np.datetime64:
        """End of the last step."""
        last: np.datetime64 = self.time[-1] + np.timedelta64(self.time_step, "s")
        return last

    def select(
        self,
        catchments: Sequence[str] | None = None,
        start: str | None = None,
        end: str | None = None,
    ) -> Forcing:
        """Return some catchments, in the order given, from ``start`` to ``end``.

        Both ends are included, and a date without an hour means the whole day.

        Raises
        ------
        ForcingError
            If the period is not covered.
        UnknownNameError
            If there is no such catchment.
        """
        first = self.time[0] if start is None else moment(start)
        last = self.time[-1] if end is None else last_moment(end, self.time_step)
        if last < first:
            raise ForcingError(f"the period ends ({_text(last)}) before it starts ({_text(first)})")
        if first < self.time[0] or last > self.time[-1]:
            raise ForcingError(
                f"{self.source}: it covers {_text(self.time[0])} to {_text(self.time[-1])}; "
                f"the period asked for is {_text(first)} to {_text(last)}"
            )
        rows = slice(
            int(np.searchsorted(self.time, first)), int(np.searchsorted(self.time, last, side="right"))
        )
        columns: slice | list[int] = slice(None)
        names = self.catchments
        if catchments is not None:
            columns = catchment_columns(self.catchments, catchments, self.source)
            names = tuple(catchments)
        return replace(
            self,
            time=self.time[rows],
            catchments=names,
            values={symbol: values[rows][:, columns] for symbol, values in self.values.items()},
        )

    def aggregate(self, time_step: int) -> Forcing:
        """Return means over steps of ``time_step`` seconds that begin at midnight or a multiple of it thereafter.

        Every forcing is a rate or a state, so its mean is right; what is nonlinear in it (evaporation, melt) is
        not: a daily component that is given hourly values does that itself.

        Raises
        ------
        ForcingError
            If the steps do not fit into each other, or the first or last one is incomplete.
        """
        if time_step == self.time_step:
            return self
        count, rest = divmod(time_step, self.time_step)
        if rest or count < 1 or DAY % time_step:
            raise ForcingError(
                f"{self.source}: steps of {self.time_step} s do not add up to steps of {time_step} s of a day"
            )
        if int((self.time[0] - self.time[0].astype("datetime64[D]")) / np.timedelta64(1, "s")) % time_step:
            raise ForcingError(
                f"{self.source}: it starts amid a step of {time_step} s, at {_text(self.time[0])}"
            )
        if self.time.size % count:
            raise ForcingError(f"{self.source}: it ends amid a step of {time_step} s, at {_text(self.end)}")
        shape = (self.time.size // count, count, len(self.catchments))
        return replace(
            self,
            time=self.time[::count],
            time_step=time_step,
            values={symbol: values.reshape(shape).mean(axis=1) for symbol, values in self.values.items()},
        )

    def with_values(self, variable: Variable, values: NDArray[np.float64]) -> Forcing:
        """Return the forcing with one more variable."""
        return replace(
            self, variables=(*self.variables, variable), values={**self.values, variable.symbol: values}
        )


def regular_step(time: Times, source: str) -> int:
    """Return the step of a time axis in seconds.

    Raises
    ------
    ForcingError
        If times repeat, run backwards, or leave a gap.
    """
    steps = np.diff(time).astype("timedelta64[s]").astype(np.int64)
    if steps.size == 0:
        raise ForcingError(f"{source}: one time alone does not tell the length of the step")
    for wrong, problem in ((steps == 0, "occurs twice"), (steps < 0, "is followed by an earlier time")):
        if wrong.any():
            raise ForcingError(f"{source}: the time {_text(time[:-1][wrong][0])} {problem}")
    step = int(np.median(steps))
    irregular = steps != step
    if irregular.any():
        index = int(np.argmax(irregular))
        raise ForcingError(
            f"{source}: after {_text(time[index])} comes {_text(time[index + 1])} although the step is {step} s; "
            "the time axis must have neither gaps nor extra times"
        )
    return step


def catchment_columns(present: Sequence[str], wanted: Sequence[str], source: str) -> list[int]:
    """Return where the wanted catchments are.

    Raises
    ------
    UnknownNameError
        If one is not present.
    """
    index = {name: position for position, name in enumerate(present)}
    absent = [name for name in wanted if name not in index]
    if absent:
        shown = ", ".join(present[:10]) + (", ..." if len(present) > 10 else "")
        raise UnknownNameError(f"{source}: there is no catchment {absent[0]!r}; it has {shown}")
    return [index[name] for name in wanted]


def moment(text: str) -> np.datetime64:
    """Return a date, in any form that ``config.parse_time`` knows, as seconds.

    Raises
    ------
    ForcingError
        If it is not a date.
    """
    try:
        return np.datetime64(parse_time(text), "s")
    except ValueError as error:
        raise ForcingError(str(error)) from None


def last_moment(text: str, time_step: int) -> np.datetime64:
    """Return the start of the last step that ``text`` includes: a date without an hour includes its whole day."""
    end = moment(text)
    if time_step < DAY and re.fullmatch(r"\d{4}[-/]?\d{2}[-/]?\d{2}", text.strip()):
        end = end + np.timedelta64(DAY - time_step, "s")
    return end


def _text(time: np.datetime64) -> str:
    return str(time.astype("datetime64[s]")).replace("T", " ").removesuffix(" 00:00:00")
