"""A trained flux model stepped through time: from half-hours to days, from days to windows, from windows to fluxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.lstm.flux.columns import Conversions
from bmi_components.lstm.flux.daily import DAY_OF_YEAR, DailyRules, Reduction, day_of_year, rolling_statistics
from bmi_components.lstm.flux.models import FluxModel
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import Variable

__all__ = ["DayMaker", "FluxStepper", "Published"]

Array = NDArray[np.float64]
DAY = 86_400


@dataclass(frozen=True)
class Published:
    """What goes out: each output as a multiple of the prediction; the count of valid days comes last."""

    variables: tuple[Variable, ...]
    factors: Array


class DayMaker:
    """Intervals of one day into the model's daily inputs, by the rules of its training.

    Parameters
    ----------
    measured
        Columns that are measured, in the order of ``[interval, tower, column]``.
    inputs
        The model's inputs: measured columns, their rolling statistics, the day of the year.
    rules
        Of the training.
    step
        Seconds of an interval.
    light, friction
        Positions of the columns that tell day from night and turbulence, where the rules need them.
    """

    def __init__(
        self,
        measured: Sequence[str],
        inputs: Sequence[str],
        rules: DailyRules,
        step: int,
        light: int | None,
        friction: int | None,
    ) -> None:
        self.per_day = DAY // step
        self._reduction = Reduction.of(rules, step)
        self._light, self._friction = light, friction
        self._statistics_days = rules.statistics_days
        self.memory = (
            self.per_day if rules.statistics_days is None else self.per_day * (rules.statistics_days + 1) - 1
        )
        """Intervals that a day's inputs depend on."""
        count = len(measured)
        kinds = {name: i for i, name in enumerate(measured)}
        if rules.statistics_days is not None:
            kinds |= {f"{name}_rolling_var": count + i for i, name in enumerate(measured)}
            kinds |= {f"{name}_rolling_avg": 2 * count + i for i, name in enumerate(measured)}
        self._chosen = [kinds.get(name, -1) for name in inputs]

    def __call__(self, history: Array) -> Array:
        """Return the daily inputs ``[input, tower]`` of the last day of ``history [interval, tower, column]``.

        The day of the year is left NaN.
        """
        today = history[-self.per_day :].transpose(1, 0, 2)  # [tower, interval, column]
        counted = self._reduction.counted(
            None if self._light is None else today[:, :, self._light],
            None if self._friction is None else today[:, :, self._friction],
        )
        if self._statistics_days is not None:
            mean, variance = rolling_statistics(history, self._statistics_days, self.per_day)
            parts = (today, *(part[-self.per_day :].transpose(1, 0, 2) for part in (variance, mean)))
            today = np.concatenate(parts, axis=2)
        means, _ = self._reduction.means(today, counted)
        unknown = np.full((means.shape[0], 1), np.nan)
        return np.concatenate([means, unknown], axis=1)[:, self._chosen].T


class FluxStepper(ArrayStepper):
    """One trained flux model at several towers.

    The state is ``window [day, tower, input]`` in the model's units, NaN on missing days but for the day of the year;
    for measurements within the day also ``history [interval, tower, column]`` and the ``position`` in the day; and
    the ``latest`` outputs.

    Parameters
    ----------
    model
        Shared by all instances of the process.
    rules
        Of its training.
    inputs
        Published inputs, in the order of ``conversions`` and of the day maker's columns (or of the model's inputs
        without the day of the year).
    conversions
        From published to the model's units.
    published
        Outputs.
    size
        Number of towers.
    start
        Date and time of time 0 at the towers.
    day_maker
        None: inputs are days already.
    hold
        Predict from the day before where the last day is missing.
    """

    def __init__(
        self,
        model: FluxModel,
        rules: DailyRules,
        inputs: tuple[Variable, ...],
        conversions: Conversions,
        published: Published,
        size: int,
        start: np.datetime64,
        day_maker: DayMaker | None = None,
        hold: bool = False,
        coordinates: tuple[Array, Array] | None = None,
    ) -> None:
        self.inputs, self.outputs, self.size = inputs, published.variables, size
        self.coordinates = coordinates
        self._model, self._conversions, self._published = model, conversions, published
        self._start, self._day_maker, self._hold = start, day_maker, hold
        self._gap = rules.interpolate
        self._dated = np.array([name == DAY_OF_YEAR for name in model.input_names])
        per_day = 1 if day_maker is None else day_maker.per_day
        self.time_step = DAY / per_day
        self.identity = f"flux {per_day} a day, {model.bundle.identity}"
        window = np.full((max(model.sequence_length, self._gap + 2), size, self._dated.size), np.nan)
        latest = np.full(len(self.outputs) * size, np.nan)
        latest[-size:] = 0.0
        self.state = {"window": window, "latest": latest}
        if day_maker is not None:
            first = (start - start.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.int64)
            self.state["position"] = np.array([first // (DAY // per_day)])
            self.state["history"] = np.full((day_maker.memory, size, len(inputs)), np.nan)

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Take in a day, or an interval of one; predict at the end of the day."""
        if self.absorb(forcings, time):
            self.predict()
        outputs[:] = self.state["latest"]
        return outputs

    def absorb(self, forcings: Array, time: float) -> bool:
        """Take in what was measured from ``time`` on; return whether a day is complete."""
        values = self._conversions(forcings.reshape(-1, self.size))  # [column, tower]
        if self._day_maker is None:
            full = np.full((self._dated.size, self.size), np.nan)
            full[~self._dated] = values
            self._append(full, time)
            return True
        history, position = self.state["history"], self.state["position"]
        per_day = self._day_maker.per_day
        filled = int(position[0])
        history[filled - per_day] = values.T
        position[0] = filled + 1
        if filled + 1 < per_day:
            return False
        self._append(self._day_maker(history), time)
        history[:-per_day] = history[per_day:]
        history[-per_day:] = np.nan
        position[0] = 0
        return True

    def absorb_record(self, record: Array, times: Sequence[float]) -> None:
        """Take in ``record [time, column, tower]`` from before the start; ``times`` are negative, s."""
        if self._day_maker is not None:
            first = self._start + np.timedelta64(round(times[0]), "s")
            seconds = (first - first.astype("datetime64[D]")).astype("timedelta64[s]").astype(np.int64)
            self.state["position"][0] = seconds // round(self.time_step)
        whole_days = False
        for values, time in zip(record, times, strict=True):
            whole_days |= self.absorb(values.reshape(-1), time)
        if whole_days:
            self.predict()

    def _append(self, day: Array, time: float) -> None:
        """Put a day ``[input, tower]`` at the end of the window, and fill the gap that it ends, if it is short."""
        window = self.state["window"]
        window[:-1] = window[1:]
        window[-1] = np.where(np.isfinite(day[~self._dated]).all(axis=0), day, np.nan).T
        if self._dated.any():
            date = self._start + np.timedelta64(round(time), "s")
            window[-1][:, self._dated] = day_of_year(date.astype("datetime64[D]").reshape(1))
        complete = self._complete()
        for gap in range(1, self._gap + 1):
            ends = complete[-1] & complete[-gap - 2] & ~complete[-gap - 1 : -1].any(axis=0)
            if not ends.any():
                continue
            before, after = window[-gap - 2], window[-1]
            for day_of_gap in range(1, gap + 1):
                filled = before + day_of_gap / (gap + 1) * (after - before)
                fill = ends[:, np.newaxis] & ~self._dated
                np.copyto(window[day_of_gap - gap - 2], filled, where=fill)

    def predict(self) -> None:
        """Predict the fluxes of the last day and count the valid days of the window."""
        length = self._model.sequence_length
        window, complete = self.state["window"], self._complete()
        if self._hold:
            window = self._held(window, complete)
        x = window[-length:].transpose(1, 0, 2).astype(np.float32)  # as the training has its windows
        prediction = np.full(self.size, np.nan)
        known = np.isfinite(x).all(axis=(1, 2))
        if known.any():
            prediction[known] = self._model.predict(x[known])
        fluxes = self._published.factors[:, np.newaxis] * prediction
        self.state["latest"] = np.concatenate([fluxes.reshape(-1), complete[-length:].sum(axis=0)])

    def _held(self, window: Array, complete: NDArray[np.bool_]) -> Array:
        """Continue the last complete day over a gap of interpolable length at the end of the window."""
        held = window.copy()
        for gap in range(1, self._gap + 1):
            ends = complete[-gap - 1] & ~complete[-gap:].any(axis=0)
            np.copyto(held[-gap:], window[-gap - 1], where=ends[:, np.newaxis] & ~self._dated)
        return held

    def _complete(self) -> NDArray[np.bool_]:
        """Whether a day of the window has all inputs, ``[day, tower]``."""
        return np.asarray(np.isfinite(self.state["window"][:, :, ~self._dated]).all(axis=2))

    def initial_outputs(self, outputs: Array) -> None:
        """What the window says at the start: nothing, unless a record filled it."""
        outputs[:] = self.state["latest"]
