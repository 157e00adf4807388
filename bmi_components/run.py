"""One open run: a model, its clock, its values, and the stepping that ties them together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.buffers import Backend, ForcingAccumulator, Layout, backend_of, layout_of
from bmi_components.clock import NO_END, Clock
from bmi_components.errors import ForcingError, StateError, ValueShapeError
from bmi_components.protocols import MassBalance
from bmi_components.snapshot import Snapshot
from bmi_components.stepper import Stepper

__all__ = ["Run"]


class Run:
    """A stepper between ``initialize`` and ``finalize``.

    Attributes
    ----------
    stepper
        The model.
    layout
        Where each variable lies, and its metadata.
    clock
        The model time.
    backend
        Vector operations where the model lives.
    inputs, outputs
        All inputs (outputs) end to end, float64, on the host.
    input_views, views
        The live array of each input (of each variable) by name.
    balance
        NextGen's mass balance, once somebody has asked for it.
    """

    __slots__ = (
        "_accumulator",
        "_amounts",
        "_component",
        "_device_inputs",
        "_device_outputs",
        "_estimates",
        "_stale",
        "backend",
        "balance",
        "clock",
        "input_views",
        "inputs",
        "layout",
        "outputs",
        "stepper",
        "views",
    )

    def __init__(
        self, component: str, stepper: Stepper, duration: float | None = None, *, estimates: bool = False
    ) -> None:
        layout = layout_of(stepper.inputs, stepper.outputs, stepper.size, tuple(stepper.extra_grids.items()))
        backend = backend_of(stepper.backend, stepper.device, stepper.dtype)
        inputs = np.full(layout.input_count, np.nan)
        outputs = np.zeros(layout.output_count)
        stepper.initial_outputs(outputs)
        self.stepper: Stepper = stepper
        self.layout: Layout = layout
        self.backend: Backend = backend
        self.clock = Clock(float(stepper.time_step), NO_END if duration is None else duration)
        self.inputs: NDArray[np.float64] = inputs
        self.outputs: NDArray[np.float64] = outputs
        self.input_views = {name: inputs[part] for name, part in layout.input_slices.items()}
        self.views = self.input_views | {name: outputs[part] for name, part in layout.output_slices.items()}
        self.balance: MassBalance | None = None
        self._component = component
        self._estimates = estimates
        self._accumulator = ForcingAccumulator(backend, stepper.aggregations)
        self._amounts = (
            _Amounts(backend, layout.per_update, layout.update_means, outputs) if layout.per_update else None
        )
        self._device_inputs: dict[str, Any] = {}
        self._device_outputs: Any = None
        self._stale = False

    # ---------------------------------------------------------------- stepping

    @property
    def amid_step(self) -> bool:
        """Whether a part of a step has been taken, or is still to be settled."""
        return bool(self.clock.elapsed) or (self._amounts is not None and self._amounts.owes)

    def update(self) -> None:
        """Advance by exactly one time step."""
        clock = self.clock
        if clock.elapsed:
            self.update_until(clock.current + clock.time_step)
            return
        if clock.boundary > clock.end:
            clock.check(clock.boundary)
        if self._amounts is not None and self._amounts.owes:
            self.update_until(clock.boundary)
            return
        self._whole_step()

    def _whole_step(self) -> None:
        """Advance from one boundary to the next with nothing left over from before: the hot path."""
        clock = self.clock
        self.check_inputs()
        seconds, start = clock.time_step, clock.step_start
        inputs = self.inputs if self.backend.on_host else self._upload()
        self._take(self.stepper.step(self.stepper.prepare(inputs, start, seconds), start, self.outputs))
        if self._amounts is not None:
            if self.backend.on_host:
                self._amounts.whole_step(seconds)
            else:
                with self.backend.precise():
                    self._amounts.begin()
                    self._amounts.hold(self._device_outputs, seconds)
                    self._amounts.finish(seconds)
        clock.advance_step()
        if self.balance is not None:
            self.balance.refresh()

    def update_until(self, time: float) -> None:
        """Advance to exactly ``time``, s: whole steps, and at either end a part of one."""
        if self.backend.on_host:
            self._until(time)
        else:
            with self.backend.precise():
                self._until(time)

    def _until(self, time: float) -> None:
        clock, stepper, accumulator, amounts = self.clock, self.stepper, self._accumulator, self._amounts
        target = clock.check(time)
        if target == clock.current:
            return
        # NextGen calls nothing but this, step by step.
        if (
            not clock.elapsed
            and abs(target - clock.boundary) <= 4.0 * math.ulp(target)
            and not (amounts is not None and amounts.owes)
        ):
            self._whole_step()
            clock.settle(target)
            return
        self.check_inputs()
        began = clock.current
        inputs = self.inputs if self.backend.on_host else self._upload()
        if amounts is not None:
            amounts.begin()
        try:
            while clock.current < target:
                start = clock.step_start
                completes = clock.reaches_boundary(target)
                seconds = (clock.boundary if completes else target) - clock.current
                forcings = stepper.prepare(inputs, clock.current, seconds)
                if not completes:
                    accumulator.add(forcings, seconds)
                    clock.advance_part(target)
                    if self._estimates:
                        self._try_step(accumulator.value(), start)
                        if amounts is not None:
                            amounts.estimate(self._raw_outputs(), clock.elapsed)
                    elif amounts is not None:
                        amounts.hold(None, seconds)
                    break
                if accumulator.parts:
                    accumulator.add(forcings, seconds)
                    forcings = accumulator.value()
                self._take(stepper.step(forcings, start, self.outputs))
                accumulator.clear()
                if amounts is not None:
                    if self._estimates:
                        amounts.settle(self._raw_outputs(), clock.time_step)
                    else:
                        amounts.hold(self._raw_outputs(), seconds)
                clock.advance_step()
                clock.settle(target)
        finally:  # should the model refuse a later step, the earlier ones have happened
            if amounts is not None:
                amounts.finish(clock.current - began)
                self._show_amounts()
            if self.balance is not None:
                self.balance.refresh()

    def _try_step(self, forcings: Any, start: float) -> None:
        """Take outputs from a step that is then undone."""
        checkpoint = self.stepper.checkpoint()
        try:
            self._take(self.stepper.step(forcings, start, self.outputs))
        finally:
            self.stepper.rollback(checkpoint)

    def _take(self, outputs: Any) -> None:
        """Accept what a step returned."""
        if not self.backend.on_host:
            self._device_outputs = outputs
            self._stale = True
        elif outputs is not self.outputs:
            self.outputs[:] = outputs

    def _raw_outputs(self) -> Any:
        """Return the outputs as the latest step gave them, where the model lives."""
        return self.outputs if self.backend.on_host else self._device_outputs

    def _show_amounts(self) -> None:
        """Let callers read the amounts over the update in place of the rates."""
        amounts = self._amounts
        if amounts is None or not amounts.begun:
            return
        if self._device_outputs is not None:
            self._stale = True
        else:
            amounts.show(self.outputs)

    # ---------------------------------------------------------------- inputs

    def check_inputs(self) -> None:
        """Refuse inputs that are missing, not finite or impossible."""
        layout = self.layout
        if layout.element_bounds is not None and not self._device_inputs:
            for value, (low, high) in zip(self.inputs.tolist(), layout.element_bounds, strict=True):
                if not low <= value <= high:
                    break
            else:
                return
        else:
            for name, (low, high) in layout.bounds.items():
                view = self.input_views[name]
                # A NaN makes both extremes NaN, and every comparison with NaN is false.
                if not (view.min() >= low and view.max() <= high):
                    break
            else:
                return
        for name, view in self.input_views.items():
            if name not in self._device_inputs:
                self._refuse_impossible(name, view)

    def _refuse_impossible(self, name: str, values: NDArray[np.float64]) -> None:
        """Name the first impossible value of an input; return if all that looked odd is data."""
        variable, (low, high) = self.layout.inputs[name], self.layout.bounds[name]
        wrong = ~((values >= low) & (values <= high))
        if variable.nan_is_data:
            wrong &= ~np.isnan(values)
        if not wrong.any():
            return
        index = int(np.flatnonzero(wrong)[0])
        value, units = float(values[index]), variable.units
        state = "missing (NaN or never set)" if np.isnan(value) else f"{value:g} {units}"
        least, most = variable.valid_range or (-np.inf, np.inf)
        if np.isfinite(least) and np.isfinite(most):
            right = f"between {least:g} and {most:g} {units}"
        else:
            right = f"a finite number in {units}" + (f" of at least {least:g}" if np.isfinite(least) else "")
        raise ForcingError(
            f"{self._component}: the input {name!r} ({variable.description}) is {state} at {variable.grid} {index}; "
            f"it must be {right}"
        )

    def forget_device_input(self, name: str) -> None:
        """The host's values of this input hold again."""
        if self._device_inputs:
            self._device_inputs.pop(name, None)

    def set_device_input(self, name: str, values: Any) -> None:
        """Set an input from anyone's tensor, on the device."""
        tensor = self.backend.adopt(values)
        size = self.input_views[name].size
        if len(tensor) != size:
            raise ValueShapeError(f"{name!r} takes {size} values, not {len(tensor)}")
        low, high = self.layout.bounds[name]
        with self.backend.precise():
            smallest, largest = self.backend.smallest_and_largest(tensor)
        if not (smallest >= low and largest <= high):
            self._refuse_impossible(name, self._to_host(tensor))
        self._device_inputs[name] = tensor

    def _upload(self) -> Any:
        """Copy the inputs to the device, those that live there already excepted."""
        vector = self.backend.upload(self.inputs)
        for name, tensor in self._device_inputs.items():
            vector = self.backend.replace(vector, self.layout.input_slices[name], tensor)
        return vector

    # ---------------------------------------------------------------- reading

    def download(self, name: str) -> None:
        """Bring the host's array of a variable up to date; nothing to do where the model lives on the host."""
        if name in self._device_inputs:
            self.backend.download(self._device_inputs[name], self.input_views[name])
        elif self._stale and name in self.layout.outputs:
            self.backend.download(self._device_outputs, self.outputs)
            if self._amounts is not None:
                self._amounts.show(self.outputs)
            self._stale = False

    def tensor(self, name: str) -> Any:
        """Return the values of a variable where the model lives."""
        if self.backend.on_host:
            return self.views[name]
        if name in self.input_views:
            tensor = self._device_inputs.get(name)
            return (
                self.backend.upload(self.input_views[name]) if tensor is None else self.backend.copy(tensor)
            )
        if self._device_outputs is None:
            return self.backend.upload(self.views[name])
        part = self.layout.output_slices[name]
        if self._amounts is not None and part in self.layout.per_update:
            return self._amounts.totals[self.layout.per_update.index(part)]
        return self._device_outputs[part]

    def _to_host(self, vector: Any) -> NDArray[np.float64]:
        host = np.empty(len(vector))
        self.backend.download(vector, host)
        return host

    # ---------------------------------------------------------------- states

    def snapshot(self, component: str) -> Snapshot:
        """Copy everything that is remembered: the model's state and the run's side of an unfinished step."""
        if not self.backend.on_host:
            for name in self.views:
                self.download(name)
        arrays: dict[str, NDArray[Any]] = {
            f"model/{name}": array for name, array in self.stepper.read_state().items()
        }
        arrays["run/seconds"] = np.array([self.clock.elapsed, self._accumulator.seconds])
        arrays["run/inputs"] = self.inputs.copy()
        arrays["run/outputs"] = self.outputs.copy()
        if self._amounts is not None:
            for name, vector in self._amounts.memory().items():
                arrays[f"run/{name}"] = self._to_host(vector)
        if self._accumulator.parts:
            arrays["run/forcings"] = self._to_host(self._accumulator.value())
        return Snapshot(component, self.stepper.identity, self.stepper.size, self.clock.current, arrays)

    def restore(
        self, snapshot: Snapshot, component: str, source: str, *, restore_clock: bool = False
    ) -> None:
        """Continue from a snapshot, bit for bit.

        Raises
        ------
        StateError
            If it is not this component's; nothing has changed then.
        """
        snapshot.check_owner(component, self.stepper.identity, self.stepper.size, source)
        self._check_arrays(snapshot.arrays, source)
        arrays, upload = snapshot.arrays, self.backend.upload
        self.stepper.write_state(
            {
                name.removeprefix("model/"): array
                for name, array in arrays.items()
                if name.startswith("model/")
            }
        )
        elapsed, accumulated = (float(value) for value in arrays["run/seconds"])
        self.inputs[:] = arrays["run/inputs"]
        self.outputs[:] = arrays["run/outputs"]
        self._device_inputs.clear()
        self._device_outputs, self._stale = None, False
        if self._amounts is not None:
            with self.backend.precise():
                self._amounts.remember(
                    {name: upload(arrays[f"run/{name}"]) for name in self._amounts.memory()}
                )
        self._accumulator.clear()
        if "run/forcings" in arrays:
            self._accumulator.restore(upload(arrays["run/forcings"]), accumulated)
        self.clock.restart(elapsed, snapshot.time if restore_clock else None)
        if self.balance is not None:
            self.balance.refresh()

    def _check_arrays(self, arrays: Mapping[str, NDArray[Any]], source: str) -> None:
        """Refuse a snapshot whose run's side does not fit; the model checks its own side."""
        expected = {"seconds": 2, "inputs": self.layout.input_count, "outputs": self.layout.output_count}
        if self._amounts is not None:
            expected |= {name: len(vector) for name, vector in self._amounts.memory().items()}
        given = {
            name.removeprefix("run/"): array for name, array in arrays.items() if name.startswith("run/")
        }
        forcings = given.pop("forcings", None)
        wrong = sorted(
            name
            for name in expected.keys() | given.keys()
            if name not in given
            or name not in expected
            or given[name].shape != (expected[name],)
            or given[name].dtype != np.float64
        )
        if wrong:
            raise StateError(f"{source} does not fit the variables of this component ({', '.join(wrong)})")
        elapsed = float(given["seconds"][0])
        if not 0.0 <= elapsed < self.clock.time_step or (elapsed > 0.0) != (forcings is not None):
            raise StateError(
                f"{source} was saved {elapsed} s into a step, but the steps here are {self.clock.time_step} s long"
            )


class _Amounts:
    """Outputs that are amounts over the BMI update: the reported rate times seconds, added up over the update.

    An output that is a mean over the update is such an amount divided by the update's seconds.

    Attributes
    ----------
    totals
        The amount over the running (or latest) update, one vector per output.
    begun
        Whether the running update has given any amount yet.
    owes
        Whether an estimate has given what a later step must settle.
    """

    __slots__ = ("_backend", "_given", "_means", "_parts", "_rates", "_shown", "begun", "owes", "totals")

    def __init__(
        self,
        backend: Backend,
        parts: tuple[slice, ...],
        means: tuple[bool, ...],
        outputs: NDArray[np.float64],
    ) -> None:
        self._backend = backend
        self._parts = parts
        self._means = means
        self._shown = [outputs[part] for part in parts]  # where callers read them
        self._rates = [backend.upload(outputs[part]) for part in parts]  # of the latest complete step
        self._given = [backend.upload(np.zeros(part.stop - part.start)) for part in parts]
        self.begun = self.owes = False
        self.totals: list[Any] = list(self._given)
        for part in parts:
            outputs[part] = 0.0  # what has not been updated has not released any water

    def begin(self) -> None:
        """A new update begins."""
        self.begun = False

    def hold(self, outputs: Any, seconds: float) -> None:
        """An interval reports the rates of the step just completed (``outputs``), or (None) of the one before."""
        if outputs is not None:
            self._rates = [self._backend.copy(outputs[part]) for part in self._parts]
        self._add([rate * seconds for rate in self._rates])

    def whole_step(self, seconds: float) -> None:
        """On the host, in place: the update was one whole step."""
        for rate, amount, mean in zip(self._rates, self._shown, self._means, strict=True):
            if mean:
                rate[:] = amount
            elif amount.size == 1:  # a Python float is five times faster than NumPy on one element
                value = amount.item()
                rate[0], amount[0] = value, value * seconds
            else:
                rate[:] = amount
                amount *= seconds

    def estimate(self, outputs: Any, elapsed: float) -> None:
        """An estimate says how fast it has run in the step's first ``elapsed`` seconds.

        Given out is what that comes to, less what earlier estimates within the step have given; never less than 0.
        """
        due = [
            (outputs[part] * elapsed - given).clip(0.0)
            for part, given in zip(self._parts, self._given, strict=True)
        ]
        self._given = [given + more for given, more in zip(self._given, due, strict=True)]
        self.owes = True
        self._add(due)

    def settle(self, outputs: Any, time_step: float) -> None:
        """The step is complete: give the rest of its true amount; too much given counts for the next step."""
        self._rates = [self._backend.copy(outputs[part]) for part in self._parts]
        rest = [rate * time_step - given for rate, given in zip(self._rates, self._given, strict=True)]
        self._given = [(-more).clip(0.0) for more in rest]
        self.owes = self._anything_given()
        self._add([more.clip(0.0) for more in rest])

    def _anything_given(self) -> bool:
        return any(bool((given != 0.0).any()) for given in self._given)

    def _add(self, amounts: list[Any]) -> None:
        if self.begun:
            amounts = [total + more for total, more in zip(self.totals, amounts, strict=True)]
        self.totals = amounts
        self.begun = True

    def finish(self, seconds: float) -> None:
        """The update is over, after so many seconds: what is a mean over it becomes one."""
        if self.begun and seconds > 0.0:
            self.totals = [
                total / seconds if mean else total
                for total, mean in zip(self.totals, self._means, strict=True)
            ]

    def show(self, outputs: NDArray[np.float64]) -> None:
        """Write the amounts into the host's outputs."""
        for part, total in zip(self._parts, self.totals, strict=True):
            self._backend.download(total, outputs[part])

    def memory(self) -> dict[str, Any]:
        """Return what must survive a restart, by name."""
        return {
            f"{kind}_{index}": vector
            for kind, vectors in (("rates", self._rates), ("given", self._given))
            for index, vector in enumerate(vectors)
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Take ``memory`` back."""
        count = len(self._parts)
        self._rates = [memory[f"rates_{index}"] for index in range(count)]
        self._given = [memory[f"given_{index}"] for index in range(count)]
        self.owes = self._anything_given()
