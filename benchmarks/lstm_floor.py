"""The floor: a step of the same weights and nothing else, in plain NumPy and by ``torch.nn.LSTM``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lstm_weather import ATTRIBUTES, golden_run
from numpy.typing import NDArray
from torch import nn
from worker import serve

from bmi_components.config import read_yaml

Array = NDArray[np.float32]


class Weights:
    """A cudalstm run folder's numbers."""

    def __init__(self, run: str) -> None:
        folder = Path(run)
        checkpoint = sorted(folder.glob("model_epoch*.pt"))[-1]
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        self.state = state
        self.hidden: int = state["lstm.weight_hh_l0"].shape[1]
        numbers = {name: tensor.numpy() for name, tensor in state.items()}
        self.matrix: Array = np.concatenate([numbers["lstm.weight_ih_l0"], numbers["lstm.weight_hh_l0"]], 1)
        self.bias: Array = numbers["lstm.bias_ih_l0"] + numbers["lstm.bias_hh_l0"]
        self.out: Array = numbers["head.net.0.weight"][0]
        self.out_bias: Array = numbers["head.net.0.bias"]
        scaler = read_yaml(folder / "train_data" / "train_data_scaler.yml")
        centre, scale = (
            {name: entry["data"] for name, entry in scaler[f"xarray_feature_{key}"]["data_vars"].items()}
            for key in ("center", "scale")
        )
        config = read_yaml(folder / "config.yml")
        (target,) = config["target_variables"]
        self.target = (centre[target], scale[target])
        names = [*config["dynamic_inputs"], *sorted(config["static_attributes"])]
        self.mean = np.array([{**centre, **scaler["attribute_means"]}[name] for name in names])
        self.std = np.array([{**scale, **scaler["attribute_stds"]}[name] for name in names])
        self.features = len(names)


def sigmoid(x: Array) -> Array:
    """In place."""
    np.negative(x, out=x)
    np.exp(x, out=x)
    np.add(x, np.float32(1.0), out=x)
    return np.reciprocal(x, out=x)


def numpy_step(run: str) -> Callable[[], None]:
    """One step of one catchment in float32: one product of all gates, one of the readout."""
    advance, seen, _ = stepping(Weights(run))
    seen[:4] = 0.1

    def call() -> None:
        advance()

    return call


def stepping(weights: Weights) -> tuple[Callable[[], np.float32], Array, Array]:
    """Return a step, what it sees (features, hidden) and its cell."""
    hidden, features = weights.hidden, weights.features
    # Sigmoid gates side by side, i f o g.
    order = np.r_[0 : 2 * hidden, 3 * hidden : 4 * hidden, 2 * hidden : 3 * hidden]
    matrix, bias = np.ascontiguousarray(weights.matrix[order]), weights.bias[order]
    seen, cell = np.zeros(features + hidden, np.float32), np.zeros(hidden, np.float32)
    gates = np.empty(4 * hidden, np.float32)
    opened, candidate = gates[: 3 * hidden], gates[3 * hidden :]
    i, f, o = opened[:hidden], opened[hidden : 2 * hidden], opened[2 * hidden :]
    out, out_bias, memory = weights.out, weights.out_bias[0], seen[features:]

    def advance() -> np.float32:
        np.dot(matrix, seen, out=gates)
        np.add(gates, bias, out=gates)
        sigmoid(opened)
        np.tanh(candidate, out=candidate)
        np.multiply(f, cell, out=cell)
        np.multiply(i, candidate, out=candidate)
        np.add(cell, candidate, out=cell)
        np.tanh(cell, out=memory)
        np.multiply(o, memory, out=memory)
        return out @ memory + out_bias

    return advance, seen, cell


def numpy_window(run: str, steps: int) -> Callable[[], None]:
    """So many steps from an empty state."""
    advance, seen, cell = stepping(Weights(run))
    features = np.random.default_rng(0).normal(size=(steps, 4)).astype(np.float32)

    def call() -> None:
        seen[:] = 0.0
        cell[:] = 0.0
        for row in features:
            seen[:4] = row
            advance()

    return call


def numpy_batch(run: str, catchments: int) -> Callable[[], None]:
    """One step of many catchments in float32."""
    weights = Weights(run)
    hidden, features = weights.hidden, weights.features
    order = np.r_[0 : 2 * hidden, 3 * hidden : 4 * hidden, 2 * hidden : 3 * hidden]
    matrix, bias = np.ascontiguousarray(weights.matrix[order].T), weights.bias[order]
    seen = np.full((catchments, features + hidden), 0.1, np.float32)
    cell = np.zeros((catchments, hidden), np.float32)
    gates = np.empty((catchments, 4 * hidden), np.float32)
    opened, candidate = gates[:, : 3 * hidden], gates[:, 3 * hidden :]
    i, f, o = opened[:, :hidden], opened[:, hidden : 2 * hidden], opened[:, 2 * hidden :]
    memory = seen[:, features:]

    def call() -> None:
        np.matmul(seen, matrix, out=gates)
        np.add(gates, bias, out=gates)
        sigmoid(opened)
        np.tanh(candidate, out=candidate)
        np.multiply(f, cell, out=cell)
        np.multiply(i, candidate, out=candidate)
        np.add(cell, candidate, out=cell)
        np.tanh(cell, out=memory)
        np.multiply(o, memory, out=memory)
        _ = memory @ weights.out + weights.out_bias

    return call


def torch_batch(run: str, catchments: int) -> Callable[[], None]:
    """One step of many catchments by ``torch.nn.LSTM`` and a linear layer."""
    weights = Weights(run)
    lstm, head = nn.LSTM(weights.features, weights.hidden), nn.Linear(weights.hidden, 1)
    lstm.load_state_dict(
        {name.removeprefix("lstm."): t for name, t in weights.state.items() if name.startswith("lstm.")}
    )
    head.load_state_dict(
        {name.removeprefix("head.net.0."): t for name, t in weights.state.items() if name.startswith("head.")}
    )
    x = torch.full((1, catchments, weights.features), 0.1)
    state = (torch.zeros(1, catchments, weights.hidden), torch.zeros(1, catchments, weights.hidden))

    def call() -> None:
        nonlocal state
        with torch.inference_mode():
            hidden, state = lstm(x, state)
            head(hidden)

    return call


def golden(run: str) -> Callable[[], dict[str, Any]]:
    """The recorded run by the NumPy step, so that what is timed is known to be right."""
    weights, recorded = Weights(run), golden_run()
    advance, seen, _ = stepping(weights)

    def call() -> dict[str, Any]:
        if recorded is None:
            return {"difference": None}
        difference = 0.0
        static = list(ATTRIBUTES.values())
        for hour, expected in enumerate(recorded["runoff_depth_m"]):
            forcing = (recorded[f"forcing_{name}"][hour] for name in ("APCP_surface", "TMP_2maboveground"))
            seen[:4] = (np.array([*forcing, *static]) - weights.mean) / weights.std
            depth = max(float(advance()) * weights.target[1] + weights.target[0], 0.0) / 1000.0
            difference = max(difference, abs(depth - float(expected)))
        return {"difference": difference}

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        {
            "golden": golden,
            "numpy_step": numpy_step,
            "numpy_window": numpy_window,
            "numpy_batch": numpy_batch,
            "torch_batch": torch_batch,
        }
    )
