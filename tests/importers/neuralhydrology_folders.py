"""neuralhydrology run folders: those of the reference file, and small ones with random weights."""

import json
from pathlib import Path

import numpy as np
import torch

REFERENCE = Path(__file__).parents[1] / "networks" / "neuralhydrology_reference.npz"


def reference(case):
    """Return the arrays of one case, see ``make_neuralhydrology_reference.py``."""
    with np.load(REFERENCE) as arrays:
        return {k.removeprefix(f"{case}/"): arrays[k] for k in arrays if k.startswith(f"{case}/")}


def cases():
    with np.load(REFERENCE) as arrays:
        return sorted({name.split("/")[0] for name in arrays})


def weights_of(arrays):
    weights, start = {}, 0
    for name, shape in json.loads(str(arrays["layout"])).items():
        size = int(np.prod(shape))
        weights[name] = torch.from_numpy(arrays["weights"][start : start + size].reshape(shape))
        start += size
    return weights


def write(folder, configuration, scaler, weights, epoch=2):
    (folder / "train_data").mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(json.dumps(configuration))
    (folder / "train_data" / "train_data_scaler.yml").write_text(json.dumps(scaler))
    torch.save(weights, folder / f"model_epoch{epoch:03d}.pt")
    return folder


def write_reference(folder, case):
    """Write the run folder of a case; return its arrays."""
    arrays = reference(case)
    configuration, scaler = (json.loads(str(arrays[key])) for key in ("config", "scaler"))
    write(folder, configuration, scaler, weights_of(arrays))
    if "basins" in arrays:
        numbers = {str(basin): number for number, basin in enumerate(arrays["basins"])}
        (folder / "train_data" / "id_to_int.yml").write_text(json.dumps(numbers))
    return arrays


def scaler_yaml(statistics, attributes):
    """Return a scaler as neuralhydrology writes it, from ``{name: (mean, std)}`` each."""
    scaler = {
        f"attribute_{key}": {name: pair[position] for name, pair in attributes.items()}
        for position, key in enumerate(("means", "stds"))
    }
    for position, key in enumerate(("xarray_feature_center", "xarray_feature_scale")):
        entries = {n: {"dims": [], "attrs": {}, "data": pair[position]} for n, pair in statistics.items()}
        scaler[key] = {"coords": {}, "attrs": {}, "dims": {}, "data_vars": entries}
    return scaler


CONFIGURATION = {
    "dataset": "camels_us",
    "forcings": ["daymet"],
    "model": "cudalstm",
    "head": "regression",
    "hidden_size": 4,
    "seq_length": 30,
    "epochs": 30,
    "run_dir": "/nowhere/runs/x",
    "dynamic_inputs": ["prcp(mm/day)", "tmax(C)"],
    "static_attributes": ["slope_mean", "elev_mean"],
    "target_variables": ["QObs(mm/d)"],
}
STATISTICS = {"prcp(mm/day)": (3.0, 6.0), "tmax(C)": (12.0, 9.0), "QObs(mm/d)": (1.5, 2.0)}
ATTRIBUTES = {"elev_mean": (700.0, 500.0), "slope_mean": (30.0, 20.0)}


def random_weights(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


LSTM_SHAPES = {
    "lstm.weight_ih_l0": (16, 4),
    "lstm.weight_hh_l0": (16, 4),
    "lstm.bias_ih_l0": (16,),
    "lstm.bias_hh_l0": (16,),
    "head.net.0.weight": (1, 4),
    "head.net.0.bias": (1,),
}


def small_run(folder, weights=None, statistics=None, epoch=2, **changes):
    """Write a run of a cudalstm with changes to its configuration (None: without the key)."""
    configuration = {k: v for k, v in {**CONFIGURATION, **changes}.items() if v is not None}
    scaler = scaler_yaml({**STATISTICS, **(statistics or {})}, ATTRIBUTES)
    return write(folder, configuration, scaler, weights or random_weights(LSTM_SHAPES), epoch)
