"""What the benchmark programs share: sides asked in turns, rows of comparisons, the command line, the record."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peers
from table import Row, duration, print_table, save
from worker import Measured, Worker

__all__ = ["Benchmark", "Question", "Setting", "compared", "in_turns", "run", "say", "verdict"]

HERE = Path(__file__).resolve().parent
CPU = "CPU, 1 thread"


@dataclass(frozen=True)
class Setting:
    """What a part needs to know.

    Attributes
    ----------
    quick
        Whether fewer repetitions will do.
    device
        Where it is measured.
    name
        Of the benchmark: its sides are ``<name>_ours.py`` and ``<name>_peer.py``.
    peer
        Interpreter of the peers, if they are installed.
    """

    quick: bool
    device: str
    name: str
    peer: Path | None

    @property
    def where(self) -> str:
        """The device in words."""
        return CPU if self.device == "cpu" else self.device

    @property
    def clock(self) -> str:
        """Which time counts."""
        return "cpu" if self.device == "cpu" else "wall"

    def ours(self, script: str = "ours") -> Worker:
        """Start a process of our side, or of another script that our interpreter runs."""
        return Worker(HERE / f"{self.name}_{script}.py", device=self.device)

    def theirs(self) -> AbstractContextManager[Worker | None]:
        """Start a process of the peers; without them it is None."""
        if self.peer is None:
            return nullcontext()
        return Worker(HERE / f"{self.name}_peer.py", self.peer, device=self.device)


@dataclass(frozen=True)
class Question:
    """A case for a process: how many calls make a turn, and the case's options. Without a process nobody answers."""

    worker: Worker | None
    case: str
    calls: int
    options: Mapping[str, Any] = field(default_factory=dict)


def in_turns(setting: Setting, questions: Sequence[Question], repeats: int) -> list[Measured | None]:
    """Ask all alternately; return the best turn of each, None where nobody answers."""
    answers: list[list[Measured]] = [[] for _ in questions]
    for turn in range(repeats):
        say(f"{questions[0].case}: turn {turn + 1} of {repeats}")
        for question, found in zip(questions, answers, strict=True):
            if question.worker is not None:
                found.append(
                    question.worker.measure(
                        question.case, question.calls, clock=setting.clock, **question.options
                    )
                )
    return [min(found, key=lambda m: m.seconds) if found else None for found in answers]


def compared(
    what: str,
    setting: Setting,
    ours: float,
    theirs: float | None,
    peer: str,
    recorded: float | None,
    least: float,
) -> Row:
    """Return the row of a comparison: seconds per unit of work on both sides, and the smallest ratio that will do.

    ``recorded`` stands for a peer that is not installed.
    """
    if theirs is None:
        reference = "" if recorded is None else f"{duration(recorded)} ({peer}, recorded on another machine)"
        return Row(what, setting.where, duration(ours), reference, "", f"≥ {least:g}×: peer not installed")
    ratio = theirs / ours
    bar = f"≥ {least:g}×: {verdict(ratio >= least)}"
    return Row(what, setting.where, duration(ours), f"{duration(theirs)} ({peer})", f"{ratio:.1f}×", bar)


def verdict(met: bool) -> str:
    """Say whether a bar is met."""
    return "met" if met else "missed"


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"  {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Benchmark:
    """A program.

    Attributes
    ----------
    name, title
        Of its files and results; of the table in the documentation.
    parts
        What it measures, each a list of rows.
    environment
        Of its peers.
    note
        How it is measured, for the record.
    on_devices
        Parts that run on a GPU too.
    without_gpu
        What the table says could not be measured where there is no GPU.
    """

    name: str
    title: str
    parts: Mapping[str, Callable[[Setting], list[Row]]]
    environment: peers.Environment
    note: str
    on_devices: Sequence[str] = ()
    without_gpu: str = ""


def run(benchmark: Benchmark, description: str | None) -> None:
    """Run the program: read the command line, measure, print the table, record a whole run."""
    try:
        _run(benchmark, description)
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _run(benchmark: Benchmark, description: str | None) -> None:
    environment, parts = benchmark.environment, benchmark.parts
    folder = environment.default_folder()
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="smaller and fewer repetitions")
    parser.add_argument("--peers", nargs="?", type=Path, const=folder, metavar="FOLDER",
                        help=f"make the peers' environment if absent (in {folder})")  # fmt: skip
    parser.add_argument("--only", default="", metavar="A,B", help=f"parts, of {', '.join(parts)}")
    recorded = HERE / "results" / f"{benchmark.name}.json"
    parser.add_argument(
        "--output", type=Path, help=f"where to record; whole runs go to benchmarks/results/{recorded.name}"
    )
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.only.split(",") if name.strip()] or list(parts)
    if unknown := sorted(set(names) - set(parts)):
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(parts)}")

    rows: list[Row] = []
    problem = ""
    load = [os.getloadavg()[0]]

    def measure(names: Sequence[str], device: str) -> None:
        setting = Setting(arguments.quick, device, benchmark.name, peer)
        for name in names:
            say(f"{name} on {setting.where}")
            rows.extend(parts[name](setting))

    try:
        peer = environment.create(arguments.peers) if arguments.peers else environment.interpreter(folder)
        if peer is None:
            say("the peers are not installed (--peers installs them): their figures are the recorded ones")
        measure(names, "cpu")
        if benchmark.on_devices and has_gpu():
            measure([n for n in names if n in benchmark.on_devices], "cuda")
        elif benchmark.without_gpu:
            rows.append(Row(benchmark.without_gpu, "GPU", "no GPU was lent"))
    except KeyboardInterrupt:
        problem = "interrupted"
    except RuntimeError as error:
        problem = str(error)
    load.append(os.getloadavg()[0])

    print_table(rows)
    if problem:
        sys.exit(f"{problem}: the table holds what was finished, and nothing is recorded")
    output = arguments.output
    if output is None and not arguments.quick and set(names) == set(parts):
        output = recorded
    if output is not None:
        loads = f"Load averages of the machine before and after: {load[0]:.1f} and {load[1]:.1f}."
        save(output, benchmark.title, rows, f"{benchmark.note} {loads}")
        print(f"recorded in {os.path.relpath(output)}")


def has_gpu() -> bool:
    """Ask a process of its own, so that this one need not load PyTorch."""
    code = "import torch; print(torch.cuda.is_available())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() == "True"
