"""What a streamflow network remembers from step to step: its state for ever, a window, or two timescales."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bmi_components.lstm.recurrent import RecurrentNetwork
from bmi_components.lstm.stepping import PackedRecurrent, RecurrentStepping

__all__ = ["Carried", "Cell", "Lagged", "Memory", "MultiTimescale", "PackedCell", "TorchCell", "Windowed"]

Result = tuple[Tensor, Tensor | None]
"""Mean and spread of runoff, each ``[catchment]`` in the target's units; the spread is None for a single value."""


class Cell(abc.ABC):
    """A network bound to catchments, with its momentary state, fed from the rows of a component's inputs.

    Rows are ``[input, catchment]`` in the component's units, with the observed runoff last where the network wants it.
    """

    state_names: tuple[str, ...]

    @abc.abstractmethod
    def run(self, rows: Tensor) -> None:
        """Advance over steps, ``rows [time, input, catchment]``; `result` is of the last."""

    @abc.abstractmethod
    def result(self) -> Result:
        """Return the runoff of the latest step."""

    @abc.abstractmethod
    def reset(self) -> None:
        """Forget everything."""

    @abc.abstractmethod
    def rebind(self, attributes: Tensor) -> None:
        """Change the static attributes ``[catchment, attribute]``; the state stays."""

    @abc.abstractmethod
    def arrays(self) -> dict[str, Tensor]:
        """Return the state as live tensors by name."""

    @abc.abstractmethod
    def get_state(self) -> tuple[Tensor, ...]:
        """Copy the state in the network's own order and shapes, each ``[catchment, ...]``."""

    @abc.abstractmethod
    def set_state(self, state: Sequence[Tensor]) -> None:
        """Replace the state."""


class TorchCell(Cell):
    """Any network by torch, on any device.

    Parameters
    ----------
    network
        The network.
    attributes
        ``[catchment, attribute]``, physical units.
    rows
        Which of the component's rows are the network's forcing, in its order.
    scale, offset
        From the component's units to the network's, ``[forcing, 1]``.
    feedback_scale
        From the component's units of observed runoff to the network's, ``[catchment]``.
    """

    def __init__(
        self,
        network: RecurrentNetwork,
        attributes: Tensor,
        rows: Tensor,
        scale: Tensor,
        offset: Tensor,
        feedback_scale: Tensor,
    ) -> None:
        self.network, self._rows, self._scale, self._offset = network, rows, scale, offset
        self._feedback_scale = feedback_scale
        self.state_names = network.state_names
        self.rebind(attributes)
        self._state = tuple(tensor.clone() for tensor in network.initial_state(attributes.shape[0]))
        self._raw: Tensor | None = None

    def rebind(self, attributes: Tensor) -> None:
        """Change the attributes."""
        self._attributes = attributes
        self._static = self.network.static_features(attributes)

    def run(self, rows: Tensor) -> None:
        """Advance over steps."""
        forcing = (rows[:, self._rows] * self._scale + self._offset).transpose(1, 2)
        feedback = rows[:, -1] * self._feedback_scale if self.network.feedback else None
        if len(forcing) == 1:
            state, raw = self.network.step(
                self._state, forcing[0], self._static, None if feedback is None else feedback[0]
            )
        else:
            state, series = self.network.run(self._state, forcing, self._static, feedback)
            raw = series[-1]
        self.set_state(state)
        self._raw = raw

    def result(self) -> Result:
        """Decode the last layer's result."""
        assert self._raw is not None
        return self.network.runoff(self._raw, self._attributes)

    def reset(self) -> None:
        """Start from the empty state."""
        self.set_state(self.network.initial_state(len(self._attributes)))

    def arrays(self) -> dict[str, Tensor]:
        """Return the live state."""
        return dict(zip(self.state_names, self._state, strict=True))

    def get_state(self) -> tuple[Tensor, ...]:
        """Copy the state."""
        return tuple(tensor.clone() for tensor in self._state)

    def set_state(self, state: Sequence[Tensor]) -> None:
        """Replace the state, in place."""
        for mine, given in zip(self._state, state, strict=True):
            mine.copy_(given)


class PackedCell(Cell):
    """An LSTM or GRU on the CPU by compiled kernels; parameters as `TorchCell`, units are folded into ``packed``."""

    def __init__(
        self, network: RecurrentNetwork, packed: PackedRecurrent, attributes: Tensor, rows: Tensor
    ) -> None:
        self.network, self.rows = network, rows
        self.state_names = network.state_names
        self.stepping = RecurrentStepping(packed, _static(network, attributes))
        self._attributes = attributes
        # A GRU's hidden state is in both places, and the step reads either.
        self._live = {name: torch.from_numpy(getattr(self.stepping, name)) for name in ("h", "c")}
        self._raw = torch.from_numpy(self.stepping.raw).T

    def rebind(self, attributes: Tensor) -> None:
        """Change the attributes."""
        self._attributes = attributes
        self.stepping.rebind(_static(self.network, attributes))

    def run(self, rows: Tensor) -> None:
        """Advance over steps."""
        stepping = self.stepping
        for forcing in rows[:, self.rows].numpy():
            stepping.forcing[...] = forcing
            stepping.advance()

    def result(self) -> Result:
        """Decode the last layer's result."""
        return self.network.runoff(self._raw, self._attributes)

    def reset(self) -> None:
        """Start from the empty state."""
        self.stepping.reset()

    def arrays(self) -> dict[str, Tensor]:
        """Return the live state, ``[padded hidden, catchment]``."""
        return self._live

    def get_state(self) -> tuple[Tensor, ...]:
        """Copy the state, ``[catchment, hidden]``."""
        hidden = self.stepping.packed.hidden
        return tuple(self._live[name][:hidden].T.clone() for name in self.state_names)

    def set_state(self, state: Sequence[Tensor]) -> None:
        """Replace the state; a GRU's is in both places."""
        hidden = self.stepping.packed.hidden
        for name, given in zip(self.state_names, state, strict=True):
            self._live[name][:hidden] = given.T
        if "c" not in self.state_names:
            self.stepping.c[...] = self.stepping.h


def _static(network: RecurrentNetwork, attributes: Tensor) -> NDArray[np.float64]:
    features: NDArray[np.float64] = network.static_features(attributes).double().numpy()
    return features


class Memory(abc.ABC):
    """How a component's steps become a network's steps."""

    @abc.abstractmethod
    def take(self, rows: Tensor) -> Result:
        """Advance by one step of the component, ``rows [input, catchment]``, and return its runoff."""

    def remember(self, rows: Tensor) -> None:
        """Live through a step before the start, of which nobody wants the runoff."""
        self.take(rows)

    def spin_up(self, rows: Tensor) -> None:
        """Live through the steps ``rows [time, input, catchment]`` before the start."""
        for one in rows:
            self.remember(one)

    @abc.abstractmethod
    def arrays(self) -> dict[str, Tensor]:
        """Return all that is remembered as live tensors by name."""

    @abc.abstractmethod
    def rebind(self, attributes: Sequence[Tensor]) -> None:
        """Change the static attributes, ``[catchment, attribute]`` for each network of the model."""

    def slow_result(self) -> Tensor | None:
        """Return the runoff of the latest complete long step, where there are two timescales."""
        return None


class Carried(Memory):
    """The state goes on for ever, as in NextGen."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def take(self, rows: Tensor) -> Result:
        """Advance the cell."""
        self.cell.run(rows[None])
        return self.cell.result()

    def spin_up(self, rows: Tensor) -> None:
        """Run the cell over the record."""
        self.cell.run(rows)

    def arrays(self) -> dict[str, Tensor]:
        """Return the cell's state."""
        return self.cell.arrays()

    def rebind(self, attributes: Sequence[Tensor]) -> None:
        """Change the attributes."""
        self.cell.rebind(attributes[0])


class Lagged(Memory):
    """Holds observed runoff, the last row, back until it is as old as the network wants it.

    Parameters
    ----------
    memory
        Of the network.
    shift
        Steps by which the network wants it to lag; it is given with a lag of one.
    like
        Rows of one step.
    """

    def __init__(self, memory: Memory, shift: int, like: Tensor) -> None:
        self._memory = memory
        self._waiting = torch.full_like(like[-1], torch.nan).repeat(shift - 1, 1)

    def take(self, rows: Tensor) -> Result:
        """Advance with the older observation."""
        rows = rows.clone()
        latest = rows[-1].clone()
        rows[-1] = self._waiting[-1]
        self._waiting[1:] = self._waiting[:-1].clone()
        self._waiting[0] = latest
        return self._memory.take(rows)

    def arrays(self) -> dict[str, Tensor]:
        """Return the state and the observations that wait."""
        return {**self._memory.arrays(), "waiting_observations": self._waiting}

    def rebind(self, attributes: Sequence[Tensor]) -> None:
        """Change the attributes."""
        self._memory.rebind(attributes)


class Windowed(Memory):
    """Each step runs the network over the latest ``length`` steps from the empty state, as it was trained.

    Until so many steps have been, the window is as long as the past.
    """

    def __init__(self, cell: Cell, length: int, like: Tensor) -> None:
        self.cell = cell
        self._window = like.new_zeros((length, *like.shape))
        self._filled = torch.zeros(1, dtype=torch.int64)

    def remember(self, rows: Tensor) -> None:
        """Put a step at the end of the window."""
        self._window[:-1] = self._window[1:].clone()
        self._window[-1] = rows
        self._filled.add_(1).clamp_(max=len(self._window))

    def take(self, rows: Tensor) -> Result:
        """Run the cell over the window."""
        self.remember(rows)
        self.cell.reset()
        self.cell.run(self._window[-int(self._filled) :])
        return self.cell.result()

    def arrays(self) -> dict[str, Tensor]:
        """Return the window; the cell starts anew each time."""
        return {"window": self._window, "steps_in_window": self._filled}

    def rebind(self, attributes: Sequence[Tensor]) -> None:
        """Change the attributes."""
        self.cell.rebind(attributes[0])


class MultiTimescale(Memory):
    """A network of long steps (days) whose state starts one of short steps (hours), after Gauch et al. (2021).

    The short network runs its window of ``fast_window`` steps that ends with the day, from the long network's state at
    the window's beginning. So at the start of a day the state as it was is handed over, the days between are run
    through again, and the hours of the day follow one by one. When the day is over the long network runs through the
    same days for its own runoff, and is put back.

    Parameters
    ----------
    slow, fast : Cell
        The two networks.
    transfer : function
        From the slow network's state to the fast one's.
    ratio : int
        Short steps in a long one.
    slow_window, fast_window : int
        Lengths of the windows that the networks were trained on, each in its own steps; the fast one is whole days.
    carry : bool
        Whether the slow network's state goes on for ever, or starts empty at the beginning of its window.
    like : Tensor
        Rows of one step, for type, device and shape ``[input, catchment]``.
    """

    def __init__(
        self,
        slow: Cell,
        fast: Cell,
        transfer: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]],
        ratio: int,
        slow_window: int,
        fast_window: int,
        carry: bool,
        like: Tensor,
    ) -> None:
        self.slow, self.fast, self._transfer, self._carry = slow, fast, transfer, carry
        self._ratio, self._past = ratio, slow_window - 1
        self._reach = fast_window // ratio  # days that the fast network's window covers
        self._hours = like.new_zeros((self._reach, ratio, *like.shape))
        """The days of the fast window in hours; the last is the day that is going on."""
        self._days = like.new_zeros((self._reach if carry else max(self._past, self._reach), *like.shape))
        """Means of the latest complete days."""
        self._complete = torch.zeros(1, dtype=torch.int64)
        self._hour = torch.zeros(1, dtype=torch.int64)
        self._slow_runoff = like.new_zeros(like.shape[1])

    def take(self, rows: Tensor) -> Result:
        """Advance by one short step."""
        hour = int(self._hour)
        if hour == 0:
            self._begin_day()
        self._hours[-1, hour] = rows
        self.fast.run(rows[None])
        result = self.fast.result()
        self._hour.add_(1)
        if hour + 1 == self._ratio:
            self._end_day()
        return result

    def remember(self, rows: Tensor) -> None:
        """Live through a short step without the fast network, which each day starts anew."""
        hour = int(self._hour)
        self._hours[-1, hour] = rows
        self._hour.add_(1)
        if hour + 1 == self._ratio:
            self._end_day()

    def spin_up(self, rows: Tensor) -> None:
        """Live through whole days before the start."""
        super().spin_up(rows[len(rows) % self._ratio :])

    def _latest_days(self, number: int) -> Tensor:
        return self._days[len(self._days) - min(int(self._complete), number) :]

    def _begin_day(self) -> None:
        """Hand the slow network's state over and run the fast one through the days between."""
        between = self._reach - 1
        if not self._carry:
            self.slow.reset()
            past = self._latest_days(self._past)
            if len(past) > between:
                self.slow.run(past[: len(past) - between])
        self.fast.set_state(self._transfer(self.slow.get_state()))
        replayed = min(int(self._complete), between)
        if replayed:
            self.fast.run(self._hours[between - replayed : between].flatten(0, 1))

    def _end_day(self) -> None:
        """Put the day's mean to the others, and run the slow network up to it for its own runoff."""
        self._days[:-1] = self._days[1:].clone()
        self._days[-1] = self._hours[-1].mean(0)
        self._hours[:-1] = self._hours[1:].clone()
        self._complete.add_(1)
        self._hour.zero_()
        days = self._latest_days(self._reach)
        handed_over = self.slow.get_state()
        if self._carry and len(days) == self._reach:
            # Tomorrow the oldest of these days is before the fast window.
            self.slow.run(days[:1])
            handed_over, days = self.slow.get_state(), days[1:]
        if len(days):
            self.slow.run(days)
        self._slow_runoff.copy_(self.slow.result()[0])
        self.slow.set_state(handed_over)

    def slow_result(self) -> Tensor | None:
        """Return the latest complete day's runoff, ``[catchment]`` in the slow network's units."""
        return self._slow_runoff

    def arrays(self) -> dict[str, Tensor]:
        """Return both networks' states and the days that will be run through again."""
        return {
            **{f"slow_{name}": tensor for name, tensor in self.slow.arrays().items()},
            **{f"fast_{name}": tensor for name, tensor in self.fast.arrays().items()},
            "hours": self._hours,
            "days": self._days,
            "complete_days": self._complete,
            "hour": self._hour,
            "slow_runoff": self._slow_runoff,
        }

    def rebind(self, attributes: Sequence[Tensor]) -> None:
        """Change the attributes of both networks, slow then fast."""
        for cell, own in zip((self.slow, self.fast), attributes, strict=True):
            cell.rebind(own)
