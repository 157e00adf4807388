"""Run folders as NextGen In A Box has them: NOAA's real one, and random ones under the names of the rest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml

AORC = (
    "APCP_surface",
    "TMP_2maboveground",
    "SPFH_2maboveground",
    "DLWRF_surface",
    "DSWRF_surface",
    "PRES_surface",
    "UGRD_10maboveground",
    "VGRD_10maboveground",
)
"""The inputs of the models whose weights are not here."""


def write_nextgen_runs(trained: Path, folder: Path, files: Sequence[str]) -> None:
    """Write a run folder for each ``config.yml`` that a configuration of NextGen's names."""
    folder.mkdir()
    for seed, file in enumerate(files):
        name = Path(file).parent.name
        if "slope_elev_precip_temp" in name:
            shutil.copytree(trained, folder / name)
        else:
            eight_input_run(trained, folder / name, seed)


def eight_input_run(source: Path, folder: Path, seed: int) -> None:
    """A run folder like those of NextGen's ensemble that are not here: eight inputs, random weights."""
    folder.mkdir()
    (folder / "train_data").mkdir()
    config = yaml.safe_load((source / "config.yml").read_text())
    config |= {"dynamic_inputs": list(AORC), "hidden_size": 16, "seq_length": 336}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    scaler = yaml.safe_load((source / "train_data" / "train_data_scaler.yml").read_text())
    typical = {"SPFH": (0.006, 0.004), "DLWRF": (300, 60), "DSWRF": (170, 250), "PRES": (9.5e4, 8e3)}
    for name in AORC:
        center, scale = next((v for k, v in typical.items() if name.startswith(k)), (0.3, 2.0))
        for key, value in (("xarray_feature_center", center), ("xarray_feature_scale", scale)):
            scaler[key]["data_vars"].setdefault(name, {"dims": [], "attrs": {}, "data": value})
    (folder / "train_data" / "train_data_scaler.yml").write_text(yaml.safe_dump(scaler))
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    weights = {
        "lstm.weight_ih_l0": random(64, 10),
        "lstm.weight_hh_l0": random(64, 16),
        "lstm.bias_ih_l0": random(64),
        "lstm.bias_hh_l0": random(64),
        "head.net.0.weight": random(1, 16),
        "head.net.0.bias": random(1),
    }
    torch.save(weights, folder / "model_epoch007.pt")
