"""The peer's side, run by its own interpreter: NOAA-OWP/lstm 1.1.0 through BMI."""

from __future__ import annotations

import sys

# The peer's package is named like a program in this folder, so this folder must come last.
sys.path.append(sys.path.pop(0))

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from instances import opening
from lstm.bmi_lstm import bmi_LSTM
from lstm_weather import NAMES, golden_difference, nextgen_file, series, stepped
from worker import serve

kept = tempfile.TemporaryDirectory(prefix="bmi_components_benchmark_")
SCRATCH = Path(kept.name)


def opened(file: str) -> Any:
    component = bmi_LSTM()
    component.initialize(file)
    return component


def golden(run: str) -> Callable[[], dict[str, Any]]:
    """The recorded run."""
    component = opened(nextgen_file(SCRATCH / "golden.yml", [run]))
    return lambda: {"difference": golden_difference(component)}


def runoff(runs: Sequence[str], forcings: Sequence[str], steps: int) -> Callable[[], dict[str, Any]]:
    """Runoff of some steps."""
    component = opened(nextgen_file(SCRATCH / "runoff.yml", runs))
    return lambda: {"runoff": series(component, forcings, steps)}


def step(runs: Sequence[str], forcings: Sequence[str]) -> Callable[[], Any]:
    """One step of one catchment; several runs are an ensemble."""
    return stepped(opened(nextgen_file(SCRATCH / "step.yml", runs)), forcings)


def instances(run: str, count: int, stepped: int, long_run: int) -> Callable[[], dict[str, float]]:
    """Many components."""

    def ready(file: str) -> Any:
        component = opened(file)
        for name in NAMES.values():
            component.set_value(name, np.array([1.0]))
        return component

    files = [nextgen_file(SCRATCH / f"{k}.yml", [run], k) for k in range(count)]
    return opening(ready, files, stepped, long_run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"golden": golden, "runoff": runoff, "step": step, "instances": instances})
