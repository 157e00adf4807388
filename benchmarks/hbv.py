"""Speed and memory of δHBV against dmg 1.5.0, hydrodl2 1.4.0 and plain NumPy, measured in turns in one run.

    python benchmarks/hbv.py                      with the peers if their environment is there
    python benchmarks/hbv.py --peers [FOLDER]     makes the environment first where it is absent
    python benchmarks/hbv.py --quick --only day   fewer repetitions, some parts; nothing is recorded

Ours and the peer run in processes of their own with one thread each and are asked alternately; the best of several
counts on both sides. Times on the CPU are CPU times, so that other work on the machine disturbs little.
"""

from __future__ import annotations

import os
import subprocess
import sys

import peers
from comparing import HERE, Benchmark, Question, Setting, compared, in_turns, run, say, verdict
from table import Row, duration, size
from worker import Measured

RECORDED = {"day": 4.07e-3, "physics": 6.4e-6, "train": 24.3, "gradient": 16.0}
"""Seconds of the peers on the machine of the specification, for when they are not installed: a day; a basin-day; a
training step, and the physics in it."""
RECORDED_PEAK_KILOBYTES = 2.4 * 1024**2
CELLS = 60 / 23
"""The bar of a day on the machine of the specification, in LSTM-256 cells in NumPy there."""


def both(
    setting: Setting, case: str, repeats: int, calls: tuple[int, int], **options: object
) -> tuple[Measured, Measured | None]:
    """Measure a case on both sides alternately, ``calls`` times a turn; return each side's best turn."""
    options["device"] = setting.device
    with setting.ours() as ours, setting.theirs() as theirs:
        asked = [Question(ours, case, calls[0], options), Question(theirs, case, calls[1], options)]
        mine, other = in_turns(setting, asked, repeats)
    assert mine is not None
    return mine, other


# The parts ------------------------------------------------------------


def day(setting: Setting) -> list[Row]:
    """One catchment, one day through BMI."""
    calls = (200, 20) if setting.quick else (1000, 100)
    ours, theirs = both(setting, "day", 3 if setting.quick else 15, calls)
    what = "δHBV 1.1p, 16 components, LSTM-256: one catchment, one day through BMI"
    first = compared(what, setting, ours.seconds, theirs and theirs.seconds, "dmg step", RECORDED["day"], 60)
    if setting.device != "cpu":
        return [first]
    with setting.ours() as worker:
        floor = min(worker.measure("numpy_cell", calls[0]).seconds for _ in range(10))
    cells = ours.seconds / floor
    reference = f"{duration(floor)} (one LSTM-256 cell in NumPy)"
    bar = f"≤ {CELLS:.1f} cells (60 µs where a cell takes 23 µs): {verdict(cells <= CELLS)}"
    floor_row = Row(
        "the same, against the floor",
        setting.where,
        duration(ours.seconds),
        reference,
        f"{cells:.2f} cells",
        bar,
    )
    return [first, floor_row]


def physics(setting: Setting) -> list[Row]:
    """The physics over a large batch, forward: of itself, and with the scaling of the network's output."""
    catchments, days = (200, 200) if setting.quick else (1000, 730)
    rows = []
    for raw, start in ((False, "physical parameters"), (True, "the network's raw output")):
        options = {"catchments": catchments, "days": days, "raw": raw}
        ours, theirs = both(setting, "physics", 2 if setting.quick else 4, (1, 1), **options)
        cells = catchments * days
        what = (
            f"HBV 1.1p from {start} to routed fluxes, {catchments} catchments x {days} d, per catchment-day"
        )
        peer = theirs and theirs.seconds / cells
        rows.append(compared(what, setting, ours.seconds / cells, peer, "hydrodl2", RECORDED["physics"], 20))
    return rows


def gradient(setting: Setting) -> list[Row]:
    """The physics of a training step, forward and backward."""
    catchments, days = (20, 200) if setting.quick else (100, 730)
    repeats = 1 if setting.quick else 3
    options = {"catchments": catchments, "days": days, "gradient": True, "warm_up": days // 2}
    ours, theirs = both(setting, "physics", repeats, (1, 1), **options)
    what = f"HBV 1.1p forward and backward, {catchments} catchments x {days} d"
    return [
        compared(what, setting, ours.seconds, theirs and theirs.seconds, "hydrodl2", RECORDED["gradient"], 20)
    ]


def train(setting: Setting) -> list[Row]:
    """A whole training step, and the memory of a process that does nothing else."""
    catchments, warm_up, scored = (20, 100, 100) if setting.quick else (100, 365, 365)
    repeats = 1 if setting.quick else 3
    options = {"catchments": catchments, "warm_up": warm_up, "scored": scored}
    ours, theirs = both(setting, "train", repeats, (1, 1), **options)
    what = f"training step, δHBV 1.1p, LSTM-256, {catchments} catchments x ({warm_up} + {scored}) d, Adadelta"
    seconds = compared(what, setting, ours.seconds, theirs and theirs.seconds, "dmg", RECORDED["train"], 5)
    if setting.device != "cpu":
        return [seconds]
    mine = ours.peak_megabytes * 1024
    if theirs is None:
        reference, bar = f"{size(RECORDED_PEAK_KILOBYTES)} (dmg, recorded)", "less: peer not installed"
        ratio = ""
    else:
        reference = f"{size(theirs.peak_megabytes * 1024)} (dmg)"
        ratio = f"{theirs.peak_megabytes / ours.peak_megabytes:.1f}×"
        bar = f"less: {verdict(ours.peak_megabytes < theirs.peak_megabytes)}"
    return [seconds, Row("its peak memory, whole process", setting.where, size(mine), reference, ratio, bar)]


def instances(setting: Setting) -> list[Row]:
    """Thousands of components on one bundle."""
    rows = []
    count, long_run = (300, 1000) if setting.quick else (10_000, 20_000)
    for model, label, stepped in (
        ("nextgen", "NextGen files, δHBV 2.0", count - 1),
        ("1.1p", "own YAML, δHBV 1.1p, LSTM-256", min(count - 1, 400)),
    ):
        say(f"instances: {count} components of {label}")
        with setting.ours() as worker:
            found = worker.measure(
                "instances", rehearsals=0, model=model, count=count, stepped=stepped, long_run=long_run
            ).found
        each, memory = found["seconds_each"], found["kilobytes_each"]
        step, stepping = found["first_step_seconds"], found["stepping_kilobytes_each"]
        grown = (found["growth_of_all_kilobytes"], found["growth_of_one_kilobytes"])
        rows += [
            Row(
                f"{count} instances ({label}): initialize, each after the first",
                setting.where,
                duration(each),
                f"{duration(found['first_seconds'])} (the first, with its first step)",
                bar=f"< 1 ms: {verdict(each < 1e-3)}",
            ),
            Row(
                "their memory, each: after initialize; more after the first step",
                setting.where,
                f"{size(memory)}; {size(stepping)}",
                f"{size(found['traced_kilobytes_each'])} (after initialize, by Python's own account)",
                bar=f"< 30 KB: {verdict(memory + stepping < 30.0)}",
            ),
            Row("first step of each (binds the network to the catchment)", setting.where, duration(step)),
            Row(
                f"growth: {stepped} stepped 4 times; one stepped {long_run} times",
                setting.where,
                "; ".join(size(g) for g in grown),
                bar=f"none: {verdict(grown[0] < 0.1 * stepped and grown[1] < 500)}",
            ),
        ]
    return rows


def importing(setting: Setting) -> list[Row]:
    """What it costs to import the package."""
    code = (
        "import sys, time; start = time.perf_counter(); import bmi_components; "
        "print(time.perf_counter() - start, *(m for m in ('torch', 'jax') if m in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    best, loaded = 1e9, []
    for _ in range(3 if setting.quick else 10):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        seconds, *loaded = done.stdout.split()
        best = min(best, float(seconds))
    bar = f"< 300 ms, without torch or jax: {verdict(best < 0.3 and not loaded)}"
    return [Row("import bmi_components", setting.where, duration(best), bar=bar)]


def units(setting: Setting) -> list[Row]:
    """A year of δHBV 2.0 over all units of the continental United States, on a device."""
    if setting.device == "cpu":
        return []
    count, days = (2_000, 60) if setting.quick else (180_000, 365)
    with setting.ours() as worker:
        seconds = worker.measure("units", clock="wall", count=count, days=days, device=setting.device).seconds
    what = f"δHBV 2.0 of the published size, {count} units x {days} d"
    return [
        Row(what, setting.where, duration(seconds), "1.4 µs per unit-day (published, A100)",
            f"{1.4e-6 * count * days / seconds:.1f}×")
    ]  # fmt: skip


if __name__ == "__main__":
    run(
        Benchmark(
            name="hbv",
            title="δHBV",
            parts={
                part.__name__: part for part in (day, physics, gradient, train, instances, importing, units)
            },
            environment=peers.HBV,
            note="One thread a side, asked in turns, the best turn of each; times on the CPU are CPU times, "
            "random weights.",
            on_devices=("day", "physics", "gradient", "train", "units"),
            without_gpu="the same on a GPU, and 180,000 units x 365 d",
        ),
        __doc__,
    )
