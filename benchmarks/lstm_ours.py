"""Our side: StreamflowLSTM through BMI, and the run folders that all sides load."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from instances import opening
from lstm_weather import (
    AREA,
    ATTRIBUTES,
    NAMES,
    STATISTICS,
    data_folder,
    golden_difference,
    nextgen_file,
    series,
    stepped,
)
from scratch import scratch, write
from torch import Tensor
from worker import serve

from bmi_components.config import read_yaml
from bmi_components.lstm.component import StreamflowLSTM

HIDDEN = 126
MEMBERS = 6
SEQUENCE = 999
TARGET = "QObs(mm/h)"


# Models ------------------------------------------------------------


def write_run(folder: Path, model: str, forcings: Sequence[str], state: dict[str, Tensor]) -> None:
    """Write a neuralhydrology run folder."""
    (folder / "train_data").mkdir(parents=True)
    torch.save(state, folder / "model_epoch001.pt")
    settings = {
        "model": model,
        "dataset": "hourly_camels_us",
        "run_dir": str(folder),
        "epochs": 1,
        "head": "regression",
        "hidden_size": HIDDEN,
        "dynamic_inputs": list(forcings),
        "static_attributes": list(ATTRIBUTES),
        "target_variables": [TARGET],
        "seq_length": SEQUENCE,
    }
    if model == "mclstm":
        settings |= {"mass_inputs": settings["dynamic_inputs"][:1], "dynamic_inputs": list(forcings)[1:]}
    (folder / "config.yml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    centre = {name: STATISTICS[name][0] for name in forcings} | {TARGET: 0.15}
    scale = {name: STATISTICS[name][1] for name in forcings} | {TARGET: 0.3}
    if model == "mclstm":
        for name in (forcings[0], TARGET):
            centre[name], scale[name] = 0.0, 1.0

    def xarray(values: dict[str, float]) -> dict[str, Any]:
        return {"data_vars": {name: {"dims": [], "attrs": {}, "data": v} for name, v in values.items()}}

    scaler = {
        "attribute_means": {name: 1.1 * value for name, value in ATTRIBUTES.items()},
        "attribute_stds": {name: 0.5 * value for name, value in ATTRIBUTES.items()},
        "xarray_feature_center": xarray(centre),
        "xarray_feature_scale": xarray(scale),
    }
    (folder / "train_data" / "train_data_scaler.yml").write_text(yaml.safe_dump(scaler), encoding="utf-8")


def random_state(model: str, forcings: int, seed: int = 0) -> dict[str, Tensor]:
    """Return random weights under neuralhydrology's names: speed does not depend on them."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return 0.1 * torch.randn(*shape, generator=generator)

    features = forcings + len(ATTRIBUTES)
    head = {"head.net.0.weight": random(1, HIDDEN), "head.net.0.bias": random(1)}
    if model == "ealstm":
        return {
            "input_gate.weight": random(HIDDEN, len(ATTRIBUTES)),
            "input_gate.bias": random(HIDDEN),
            "dynamic_gates.weight_ih": random(forcings, 3 * HIDDEN),
            "dynamic_gates.weight_hh": random(HIDDEN, 3 * HIDDEN),
            "dynamic_gates.bias": random(3 * HIDDEN),
            **head,
        }
    if model == "mclstm":
        rows = {"output_gate": HIDDEN, "input_gate": HIDDEN, "redistribution": HIDDEN**2}
        gates = {}
        for name, size in rows.items():
            gates[f"mclstm.{name}.fc.weight"] = random(size, features + HIDDEN)
            gates[f"mclstm.{name}.fc.bias"] = random(size)
        return gates
    name, gates_of = ("gru", 3) if model == "gru" else ("lstm", 4)
    return {
        f"{name}.weight_ih_l0": random(gates_of * HIDDEN, features),
        f"{name}.weight_hh_l0": random(gates_of * HIDDEN, HIDDEN),
        f"{name}.bias_ih_l0": random(gates_of * HIDDEN),
        f"{name}.bias_hh_l0": random(gates_of * HIDDEN),
        **head,
    }


def runs(folder: str) -> Callable[[], dict[str, Any]]:
    """Write the run folders: NOAA's model where it is, or random weights of its size, and others beside it."""
    base, forcings = Path(folder), list(NAMES)
    published = data_folder() / "checkpoints" / "noaa_lstm_aorc_hourly"

    def call() -> dict[str, Any]:
        first = base / "member_0"
        if published.is_dir():
            shutil.copytree(published, first)
            settings = read_yaml(first / "config.yml") | {"run_dir": str(first)}
            (first / "config.yml").write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
        else:
            write_run(first, "cudalstm", forcings[:2], random_state("cudalstm", 2))
        # The other members of the ensemble are the first with other weights.
        for number in range(1, MEMBERS):
            member = shutil.copytree(first, base / f"member_{number}")
            settings = read_yaml(member / "config.yml") | {"run_dir": str(member)}
            (member / "config.yml").write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
            (checkpoint,) = member.glob("model_epoch*.pt")
            generator = torch.Generator().manual_seed(number)
            state = torch.load(checkpoint, weights_only=True, map_location="cpu")
            torch.save(
                {
                    name: t * (1.0 + 0.1 * torch.randn(t.shape, generator=generator))
                    for name, t in state.items()
                },
                checkpoint,
            )
        write_run(base / "eight", "cudalstm", forcings, random_state("cudalstm", len(forcings)))
        for model in ("ealstm", "gru", "mclstm"):
            write_run(base / model, model, forcings[:2], random_state(model, 2))
        return {"published": published.is_dir()}

    return call


# Components ------------------------------------------------------------


def opened(file: str) -> StreamflowLSTM:
    component = StreamflowLSTM()
    component.initialize(file)
    return component


def golden(run: str) -> Callable[[], dict[str, Any]]:
    """The recorded run."""
    component = opened(nextgen_file(scratch() / "golden.yml", [run]))
    return lambda: {"difference": golden_difference(component)}


def runoff(runs: Sequence[str], forcings: Sequence[str], steps: int) -> Callable[[], dict[str, Any]]:
    """Runoff of some steps."""
    component = opened(nextgen_file(scratch() / "runoff.yml", runs))
    return lambda: {"runoff": series(component, forcings, steps)}


def step(runs: Sequence[str], forcings: Sequence[str]) -> Callable[[], Any]:
    """One step of one catchment; several runs are an ensemble."""
    return stepped(opened(nextgen_file(scratch() / "step.yml", runs)), forcings)


def batch(run: str, catchments: int) -> Callable[[], Any]:
    """One step of many catchments in one component."""
    return stepped(opened(our_file(run, catchments)), list(NAMES)[:2], catchments)


def window(run: str) -> Callable[[], Any]:
    """One step of one catchment in window mode, whose window is full."""
    component = opened(our_file(run, 1, state_mode="window"))
    call = stepped(component, list(NAMES)[:2])
    for _ in range(SEQUENCE):
        call()
    return call


def our_file(run: str, catchments: int, **settings: Any) -> str:
    """Write a configuration of ours for many catchments."""
    listed = [
        {"id": f"cat-{k}", "area_km2": AREA, "attributes": {n: v + k for n, v in ATTRIBUTES.items()}}
        for k in range(catchments)
    ]
    return write("ours.yml", {"models": [run], "inputs": "nextgen", "catchments": listed, **settings})


def instances(run: str, count: int, stepped: int, long_run: int) -> Callable[[], dict[str, float]]:
    """Many components on one run folder, each with NextGen's file of its own."""

    def ready(file: str) -> StreamflowLSTM:
        component = opened(file)
        for name in component.get_input_var_names():
            component.set_value(name, np.array([1.0 if "precipitation" in name else 280.0]))
        return component

    files = [nextgen_file(scratch() / f"{k}.yml", [run], k) for k in range(count)]
    return opening(ready, files, stepped, long_run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        {
            "runs": runs,
            "golden": golden,
            "runoff": runoff,
            "step": step,
            "batch": batch,
            "window": window,
            "instances": instances,
        }
    )
