"""Speed and memory of StreamflowLSTM against NOAA-OWP/lstm 1.1.0, plain NumPy and torch, measured in turns in one run.

    python benchmarks/lstm.py                       with the peer if its environment is there
    python benchmarks/lstm.py --peers [FOLDER]      makes the environment first where it is absent
    python benchmarks/lstm.py --quick --only step   fewer repetitions, some parts; nothing is recorded

Every side runs in a process of its own with one thread and is asked in turns; the best of several counts. Times are CPU
times, so that other work on the machine disturbs little. The model is NOAA's, trained on AORC (hidden size 126,
precipitation and temperature, two attributes), where BMI_COMPONENTS_DATA has it, or one of its size.
"""

from __future__ import annotations

import atexit
import tempfile
from functools import cache

import peers
from comparing import Benchmark, Question, Setting, compared, in_turns, run, verdict
from lstm_weather import NAMES
from table import Row, duration, size

RECORDED = {"two": 606e-6, "eight": 785e-6, "three members": 2079e-6}
"""CPU seconds of NOAA's update on the machine of the specification, for when it is not installed."""
MEMBERS, WINDOW = 6, 999
TWO, EIGHT = list(NAMES)[:2], list(NAMES)
PEER = "NOAA"


@cache
def folder() -> str:
    """Return where the models are, written by our side on first use."""
    place = tempfile.TemporaryDirectory(prefix="bmi_components_benchmark_")
    atexit.register(place.cleanup)
    with Setting(True, "cpu", "lstm", None).ours() as ours:
        found = ours.measure("runs", rehearsals=0, folder=place.name).found
    _published.append(bool(found["published"]))
    return place.name


_published: list[bool] = []


def members(count: int = MEMBERS) -> list[str]:
    return [f"{folder()}/member_{number}" for number in range(count)]


def agreement(setting: Setting) -> list[Row]:
    """Whether all sides compute the same, before anything is timed."""
    rows = []
    (first,) = members(1)
    with setting.ours() as ours, setting.theirs() as theirs, setting.ours("floor") as floor:
        if _published[0]:
            named = (("ours", ours), (PEER, theirs), ("NumPy step", floor))
            found = {
                name: worker.measure("golden", rehearsals=0, run=first).found["difference"]
                for name, worker in named
                if worker is not None
            }
            if None not in found.values():
                worst = max(found.values())
                listed = ", ".join(f"{v:.1e} m ({name})" for name, v in found.items() if name != "ours")
                what = "NOAA's recorded run, 720 h: largest difference per hour"
                rows.append(
                    Row(
                        what,
                        setting.where,
                        f"{found['ours']:.1e} m",
                        listed,
                        bar=f"< 1e-8 m: {verdict(worst < 1e-8)}",
                    )
                )
        if theirs is not None:
            cases = (("6 members", members(), TWO), ("8 inputs", [f"{folder()}/eight"], EIGHT))
            for label, runs, forcings in cases:
                options = {"runs": runs, "forcings": forcings, "steps": 200}
                mine, other = (
                    side.measure("runoff", rehearsals=0, **options).found["runoff"] for side in (ours, theirs)
                )
                worst = max(abs(a - b) for a, b in zip(mine, other, strict=True))
                what = f"{label}, 200 h of made-up weather: largest difference from NOAA's component per hour"
                rows.append(
                    Row(what, setting.where, f"{worst:.1e} m", bar=f"< 1e-8 m: {verdict(worst < 1e-8)}")
                )
    return rows


def step(setting: Setting) -> list[Row]:
    """One catchment through BMI, against NOAA's component and the arithmetic alone."""
    rows = []
    calls, repeats = (500, 4) if setting.quick else (2000, 20)
    for label, inputs, model, forcings in (
        ("two", "2 inputs", members(1)[0], TWO),
        ("eight", "8 inputs", f"{folder()}/eight", EIGHT),
    ):
        options = {"runs": [model], "forcings": forcings}
        with setting.ours() as ours, setting.theirs() as theirs, setting.ours("floor") as floor:
            asked = [
                Question(ours, "step", calls, options),
                Question(theirs, "step", calls // 10, options),
                *([Question(floor, "numpy_step", calls, {"run": model})] if forcings == TWO else []),
            ]
            mine, other, *least = in_turns(setting, asked, repeats)
        assert mine is not None
        what = f"LSTM-126, {inputs}: one catchment, one hour through BMI"
        peer = other and other.seconds
        rows.append(compared(what, setting, mine.seconds, peer, PEER, RECORDED[label], 25))
        for bare in least:
            assert bare is not None
            rows.append(
                floored("the same, against the floor", setting, mine.seconds, bare.seconds, "NumPy step", 2)
            )
    return rows


def floored(what: str, setting: Setting, ours: float, floor: float, name: str, most: float | None) -> Row:
    """Return the row of a comparison with the arithmetic alone: at most so many times as long."""
    ratio = ours / floor
    bar = "" if most is None else f"≤ {most:g} floors: {verdict(ratio <= most)}"
    return Row(what, setting.where, duration(ours), f"{duration(floor)} ({name})", f"{ratio:.2f} floors", bar)


def ensemble(setting: Setting) -> list[Row]:
    """Six models, one catchment."""
    calls, repeats = (200, 4) if setting.quick else (1000, 15)
    options = {"runs": members(), "forcings": TWO}
    with setting.ours() as ours, setting.theirs() as theirs:
        asked = [Question(ours, "step", calls, options), Question(theirs, "step", calls // 20, options)]
        mine, other = in_turns(setting, asked, repeats)
    assert mine is not None
    what = f"ensemble of {MEMBERS} different models, 2 inputs: one catchment, one hour through BMI"
    # NOAA's members run one after the other.
    recorded = RECORDED["three members"] * MEMBERS / 3
    return [compared(what, setting, mine.seconds, other and other.seconds, PEER, recorded, 50)]


def batch(setting: Setting) -> list[Row]:
    """Many catchments in one component, against one batched step of the same weights."""
    rows = []
    (run,) = members(1)
    for catchments in (2, 10, 100, 1000):
        calls = max(1, (2000 if setting.quick else 10_000) // catchments)
        options = {"run": run, "catchments": catchments}
        with setting.ours() as ours, setting.ours("floor") as first, setting.ours("floor") as second:
            asked = [
                Question(ours, "batch", calls, options),
                Question(first, "numpy_batch", calls, options),
                Question(second, "torch_batch", calls, options),
            ]
            mine, *floors = (
                answer.seconds / catchments
                for answer in in_turns(setting, asked, 4 if setting.quick else 15)
                if answer is not None
            )
        best = min(floors)
        name = "NumPy, batched" if best == floors[0] else "torch.nn.LSTM, batched"
        what = f"LSTM-126: {catchments} catchments in one component, one hour, per catchment"
        rows.append(floored(what, setting, mine, best, name, 1.5 if catchments == 100 else None))
    return rows


def window(setting: Setting) -> list[Row]:
    """A step that runs the whole sequence, as neuralhydrology evaluates."""
    (run,) = members(1)
    with setting.ours() as ours, setting.ours("floor") as floor:
        asked = [
            Question(ours, "window", 5, {"run": run}),
            Question(floor, "numpy_window", 5, {"run": run, "steps": WINDOW}),
        ]
        mine, bare = in_turns(setting, asked, 2 if setting.quick else 8)
    assert mine is not None
    assert bare is not None
    what = f"state_mode window: {WINDOW} steps for one hour of one catchment"
    return [floored(what, setting, mine.seconds, bare.seconds, f"{WINDOW} NumPy steps", None)]


def instances(setting: Setting) -> list[Row]:
    """Thousands of components on one model."""
    count, long_run = (300, 2000) if setting.quick else (10_000, 50_000)
    few = 20 if setting.quick else 100
    (run,) = members(1)
    with setting.ours() as worker:
        options = {"run": run, "count": count, "stepped": count - 1, "long_run": long_run}
        mine = worker.measure("instances", rehearsals=0, **options).found
    with setting.theirs() as worker:
        options = {"run": run, "count": few, "stepped": few - 1, "long_run": few}
        other = worker and worker.measure("instances", rehearsals=0, **options).found
    opening, memory = mine["seconds_each"], mine["kilobytes_each"]
    stepping = mine["stepping_kilobytes_each"]
    grown = (mine["growth_of_all_kilobytes"], mine["growth_of_one_kilobytes"])
    where, what = setting.where, f"{count} components on one model"
    theirs, held, ratio, share = "10 to 17 ms (NOAA, recorded)", "264.0 KB (NOAA, recorded)", "", ""
    if other:
        theirs, held = (
            f"{text} (NOAA, {few})"
            for text in (duration(other["seconds_each"]), size(other["kilobytes_each"]))
        )
        ratio = f"{other['seconds_each'] / opening:.0f}×"
        share = f"{other['kilobytes_each'] / (memory + stepping):.0f}×"
    first = f"{duration(mine['first_seconds'])} (with its first step, and the kernels compiled)"
    return [
        Row("initialize, the first in a process", where, first),
        Row(f"{what}: initialize, each after the first", where, duration(opening), theirs, ratio),
        Row(
            "their memory, each: after initialize; more after the first step",
            where,
            f"{size(memory)}; {size(stepping)}",
            held,
            share,
            f"weights shared, < 30 KB: {verdict(memory + stepping < 30.0)}",
        ),
        Row(
            f"growth: all stepped 4 times; one stepped {long_run} times",
            where,
            "; ".join(size(kilobytes) for kilobytes in grown),
            bar=f"none: {verdict(grown[0] < 0.1 * count and grown[1] < 500)}",
        ),
    ]


def architectures(setting: Setting) -> list[Row]:
    """Other networks of the same size, for the record."""
    rows = []
    for model, label in (("gru", "GRU-126"), ("ealstm", "EA-LSTM-126"), ("mclstm", "MC-LSTM-126")):
        options = {"runs": [f"{folder()}/{model}"], "forcings": TWO}
        with setting.ours() as ours:
            asked = [Question(ours, "step", 20 if model == "mclstm" else 1000, options)]
            (mine,) = in_turns(setting, asked, 3 if setting.quick else 10)
        assert mine is not None
        rows.append(
            Row(
                f"{label}, 2 inputs: one catchment, one hour through BMI",
                setting.where,
                duration(mine.seconds),
            )
        )
    return rows


if __name__ == "__main__":
    run(
        Benchmark(
            name="lstm",
            title="StreamflowLSTM",
            parts={
                part.__name__: part
                for part in (agreement, step, ensemble, batch, window, instances, architectures)
            },
            environment=peers.LSTM,
            note="One thread a side, asked in turns, the best turn of each; CPU times. NOAA is NOAA-OWP/lstm 1.1.0, "
            "and the model its own of hourly AORC.",
        ),
        __doc__,
    )
