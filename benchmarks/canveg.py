"""Speed of CanVeg: series, steps, first calls and gradients, against what the published JAX-CanVeg was recorded with.

    python benchmarks/canveg.py                  all parts, recorded
    python benchmarks/canveg.py --quick --only series

One process on one core, double precision; times are CPU times, the best of several turns.
"""

from __future__ import annotations

from comparing import Benchmark, Question, Setting, in_turns, run, verdict
from peers import Environment
from table import Row, duration
from worker import Measured

STEPS = 480
RECORDED = {50: 1.14e-3, 1: 0.25e-3}
"""Of the published program per half-hour, batch, fastest figure, s."""

LAYERS = (50, 1)


def _both_modes(setting: Setting, case: str, calls: int, layers: int) -> tuple[Measured, Measured]:
    """Ask both modes in turns: what slows this machine for a minute slows both."""
    with setting.ours() as reference, setting.ours() as corrected:
        sides = {"reference": reference, "corrected": corrected}
        questions = [
            Question(side, case, calls, {"mode": mode, "layers": layers}) for mode, side in sides.items()
        ]
        first, second = in_turns(setting, questions, 2 if setting.quick else 8)
    assert first is not None
    assert second is not None
    return first, second


def series(setting: Setting) -> list[Row]:
    """Ten days at once."""
    rows = []
    for layers in LAYERS:
        reference, corrected = _both_modes(setting, "series", 1, layers)
        recorded = RECORDED[layers]
        most = 0.25e-3 if layers == 50 else recorded / 5
        for mode, took in (("reference", reference), ("corrected", corrected)):
            seconds = took.seconds / STEPS
            what = f"half-hour in a series, {layers} layers, {mode} mode"
            bar = f"≤ {duration(most)}: {verdict(seconds <= most)}"
            if mode == "corrected":
                what += f" ({took.found['converged']:.0%} converged)"
                slower = corrected.seconds / reference.seconds
                bar += f"; no slower than reference: {verdict(slower <= 1.0)} ({slower:.2f}×)"
            rows.append(
                Row(
                    what,
                    setting.where,
                    duration(seconds),
                    f"{duration(recorded)} (JAX-CanVeg, recorded)",
                    f"{recorded / seconds:.1f}×",
                    bar,
                )
            )
    return rows


def component(setting: Setting) -> list[Row]:
    """One step through BMI."""
    rows = []
    for layers in LAYERS:
        for mode, took in zip(
            ("reference", "corrected"), _both_modes(setting, "component", 50, layers), strict=True
        ):
            bar = f"≤ 600 µs: {verdict(took.seconds <= 6e-4)}" if layers == 50 else ""
            reference = "2.6 ms jitted, 10.6 ms as shipped (JAX-CanVeg, recorded)" if layers == 50 else ""
            what = f"one step through BMI, {layers} layers, {mode} mode"
            rows.append(Row(what, setting.where, duration(took.seconds), reference, "", bar))
    return rows


def first(setting: Setting) -> list[Row]:
    """The first step of a process."""
    rows = []
    for mode in ("reference", "corrected"):
        with setting.ours() as ours:
            took = ours.measure("first", 1, rehearsals=0, mode=mode, layers=50).found["seconds"]
        what = f"first step of a process, compiled for it, 50 layers, {mode} mode"
        bar = f"≤ 3 s: {verdict(took <= 3.0)}"
        rows.append(Row(what, setting.where, duration(took), "7.4 s (JAX-CanVeg, recorded)", "", bar))
    return rows


def gradient(setting: Setting) -> list[Row]:
    """A day's loss and its gradient."""
    with setting.ours() as forward, setting.ours() as backward:
        options = {"mode": "corrected", "layers": 50}
        questions = [
            Question(forward, "gradient", 2, options | {"derive": False}),
            Question(backward, "gradient", 2, options | {"derive": True}),
        ]
        plain, derived = in_turns(setting, questions, 2 if setting.quick else 6)
    assert plain is not None
    assert derived is not None
    ratio = derived.seconds / plain.seconds
    what = "true gradient of a day's loss by 17 parameters, 50 layers, corrected mode"
    bar = f"≤ 3×: {verdict(ratio <= 3.0)}"
    reference = f"{duration(plain.seconds)} (the loss alone)"
    return [Row(what, setting.where, duration(derived.seconds), reference, f"{ratio:.1f}×", bar)]


if __name__ == "__main__":
    run(
        Benchmark(
            name="canveg",
            title="CanVeg",
            parts={part.__name__: part for part in (series, component, first, gradient)},
            environment=Environment("none", (), ""),
            note="One core, double precision, the best turn; CPU times. The published program is not installed: its "
            "figures were recorded on a machine like this one, under load.",
        ),
        __doc__,
    )
