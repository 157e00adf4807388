"""Measuring in a process of its own: each side has its interpreter and one thread, and is asked in turns.

Only the standard library is imported here, since the peers' environment runs this file too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Case = Callable[..., Callable[[], Any]]
"""Prepares something and returns the call that is to be measured; a call may return a dict of findings."""

CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}
"""CPU time of the process: of one thread, and little disturbed by other work on the machine. Wall time: for devices."""


class Measured(NamedTuple):
    """Seconds per call, the peak resident memory of the process since its start [MB], and what the call found."""

    seconds: float
    peak_megabytes: float
    found: dict[str, Any]


def resident_kilobytes() -> float:
    """Return the memory of this process that is in RAM now."""
    return _status("VmRSS")


def _status(key: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return float(line.split()[1])
    raise KeyError(key)


def serve(cases: Mapping[str, Case]) -> None:
    """Answer requests, one JSON object a line, until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not belong among the replies
    prepared: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps([request["case"], request["options"]], sort_keys=True)
        try:
            if key not in prepared:
                prepared.clear()  # one case at a time is in memory
                prepared[key] = cases[request["case"]](**request["options"])
                for _ in range(request["rehearsals"]):
                    prepared[key]()
            call, clock, found = prepared[key], CLOCKS[request["clock"]], None
            start = clock()
            for _ in range(request["calls"]):
                found = call()
            seconds = (clock() - start) / request["calls"]
            reply = {"seconds": seconds, "peak_megabytes": _status("VmHWM") / 1024, "found": found or {}}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


class Worker:
    """A process that serves cases; use it in a ``with`` statement.

    A peer's interpreter (``python``) sees its own packages only; ours, by default, sees this checkout first.
    """

    def __init__(
        self, script: Path, python: str | Path | None = None, threads: int = 1, device: str = "cpu"
    ) -> None:
        environment = os.environ | {
            "NGEN_SILENT": "1",
            "PYTHONWARNINGS": "ignore",
            "PYTHONPATH": str(script.resolve().parents[1]) if python is None else "",
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self._process = subprocess.Popen(
            [str(python or sys.executable), str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        if hasattr(os, "sched_setaffinity"):
            # JAX starts as many threads as there are cores, and only this keeps it from it
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(self._process.pid, cores[-threads:])

    def measure(
        self, case: str, calls: int = 1, rehearsals: int = 1, clock: str = "cpu", **options: Any
    ) -> Measured:
        """Time ``calls`` calls of a case, which is prepared and warmed up when it is another than the last one.

        Raises
        ------
        RuntimeError
            If the case fails or the process ends.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"case": case, "options": options, "calls": calls, "rehearsals": rehearsals, "clock": clock}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that measures {case!r} ended with {self._process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{case}: {reply['error']}")
        return Measured(**reply)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        # The end of its input ends the process, which then removes its temporary files.
        try:
            self._process.communicate(timeout=30)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self._process.kill()
            self._process.communicate()
