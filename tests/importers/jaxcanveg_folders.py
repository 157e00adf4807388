"""Folders as JAX-CanVeg leaves them: an .eqx file (a line of JSON, then arrays), configs.json, metrics.csv."""

import io
import json
from pathlib import Path

import numpy as np

from bmi_components.importers.jaxcanveg import LEAVES

WIDTHS = {
    "RsoilDL": (2, 6, 6, 1),
    "LeafRHDL": (2, 6, 6, 1),
    "bprimeDL": (4, 6, 6, 1),
    "gscoefDL": (3, 6, 6, 2),
}
SETUP = {
    "time_zone": np.array([-8]),
    "leafangle": np.array([0]),
    "stomata": np.array([1]),
    "leafrh": np.array([1]),
    "soilresp": np.array([1]),
    "n_can_layers": np.array([2]),
    "n_total_layers": np.array([5]),
    "n_soil_layers": np.array([10]),
    "soil_mtime": np.array([90]),
    "niter": np.array([15]),
}
CONSTANTS = {
    "sigma": 5.670367e-8,
    "rugc": 8.314,
    "Cp": 1005.0,
    "Mair": 28.97,
    "dt_soil": 20.0,
    "lat_deg": 38.1,
    "long_deg": -121.5,
    "soil_depth": 0.15,
    "min of rsoil": np.nan,
    "max of rsoil": np.nan,
}
HEADER = {"veg_ht": 0.8, "meas_ht": 5.0, "n_hr_per_day": 48, "n_time": 96, "time_zone": -8}
CONFIGURATION = {
    "site name": "US-Any",
    "model configurations": {
        "time zone": -8,
        "latitude": 38.1,
        "longitude": -121.5,
        "stomata type": 1,
        "leaf angle type": 0,
        "leaf relative humidity module": 1,
        "soil respiration module": 1,
        "canopy height": 0.8,
        "measurement height": 5.0,
        "soil depth": 0.15,
        "number of canopy layers": 2,
        "number of atmospheric layers": 3,
        "number of observed steps per day": 48,
        "number of solver iterations": 15,
        "dispersion matrix": "../dij.csv",
        "model type": None,
    },
    "learning configurations": {"number of epochs": 7},
}


def leaf(name, generator):
    """Return a value of the right shape."""
    network, _, rest = name.partition(".")
    if network in WIDTHS:
        layer, part = int(rest[0]), rest[2:]
        widths = WIDTHS[network]
        shape = (widths[layer + 1], widths[layer]) if part == "weight" else (widths[layer + 1],)
        return generator.normal(size=shape)
    if name == "dij":
        return generator.uniform(1.0, 9.0, (5, 2))
    return SETUP.get(name, np.float64(CONSTANTS.get(name, generator.uniform(0.1, 0.9))))


def leaves(**changes):
    """Return all arrays of a small model by name."""
    generator = np.random.default_rng(5)
    return {name: leaf(name, generator) for name in LEAVES} | changes


def eqx(arrays, header=HEADER):
    """Return the content of an .eqx file."""
    stream = io.BytesIO()
    stream.write(json.dumps(header).encode() + b"\n")
    for array in arrays.values():
        np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def published_folder(folder: Path, arrays=None, configuration=CONFIGURATION, header=HEADER) -> Path:
    """Write a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "US-Any_model.eqx").write_bytes(eqx(arrays or leaves(), header))
    (folder / "configs.json").write_text(json.dumps(configuration))
    (folder / "metrics.csv").write_text(",rmse,nse\nLE-test,43.1,0.84\n")
    return folder
