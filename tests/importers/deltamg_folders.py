"""δMG model folders with random weights, in the layouts of the published ones."""

import json
from pathlib import Path

import numpy as np
import torch
import yaml

from bmi_components.hbv.networks import LstmMlpNetwork, LstmNetwork

REFERENCE = Path(__file__).parents[1] / "networks" / "multi_timescale_reference.npz"
DYNAMIC = ["parBETA", "parK0", "parBETAET"]
CAMELS = [f"attribute_{number}" for number in range(32)] + ["p_mean", "aridity", "elev_mean"]
MERIT = [f"attribute_{number}" for number in range(25)] + ["meanelevation", "aridity", "uparea"]


def statistics_for(names):
    random = np.random.default_rng(4)
    return {name: [0.0, 1.0, *random.uniform(0.5, 3.0, 2)] for name in names}


def write(folder, checkpoint, configuration, statistics, weights, prefix="nn_model."):
    folder.mkdir(exist_ok=True)
    torch.save({prefix + name: tensor for name, tensor in weights.items()}, folder / checkpoint)
    (folder / "config.yaml").write_text(yaml.safe_dump(configuration))
    (folder / "normalization_statistics.json").write_text(json.dumps(statistics))
    return folder


def seeded(network):
    network.reset_parameters(torch.Generator().manual_seed(7))
    return dict(network.state_dict())


def folder_11p(folder, weights=None, hidden=8, components=4, **network):
    configuration = {
        "mode": "sim",
        "train": {"target": ["streamflow"], "start_time": "1999/10/01"},
        "model": {
            "rho": 365,
            "use_log_norm": [],
            "phy": {
                "name": ["Hbv_1_1p"],
                "nmul": components,
                "warm_up_states": False,
                "dynamic_params": {"Hbv_1_1p": DYNAMIC},
                "routing": True,
            },
            "nn": {
                "name": "CudnnLstmModel",
                "dropout": 0.5,
                "hidden_size": hidden,
                "forcings": ["prcp", "tmean", "pet"],
                "attributes": CAMELS,
                **network,
            },
        },
    }
    statistics = statistics_for(["prcp", "tmean", "pet", *CAMELS, "flow_sim"])
    weights = weights or seeded(LstmNetwork(38, hidden, 14 * components + 2))
    return write(folder, "hbv_1_1p_ep100.pt", configuration, statistics, weights)


def folder_20(folder, weights=None, components=4):
    """The old layout: dpl_model, phy_model, nn_model, model, HBV_2_0."""
    configuration = {
        "train": {"target": ["flow_sim"]},
        "dpl_model": {
            "rho": 365,
            "phy_model": {
                "model": ["HBV_2_0"],
                "nmul": components,
                "dynamic_params": {"HBV_2_0": DYNAMIC, "PRMS": ["alpha"]},
                "use_log_norm": ["P"],
                "routing": True,
            },
            "nn_model": {
                "model": "LSTMMLP",
                "lstm_hidden_size": 16,
                "lstm_dropout": 0.5,
                "mlp_hidden_size": 32,
                "mlp_dropout": 0.5,
                "forcings": ["P", "Temp", "PET"],
                "attributes": MERIT,
            },
        },
        "observations": {"upstream_area_name": "uparea", "elevation_name": "meanelevation"},
    }
    weights = weights or seeded(LstmMlpNetwork(31, 16, 3 * components, 28, 32, 13 * components + 2))
    statistics = statistics_for(["P", "Temp", "PET", *MERIT])
    return write(folder, "dhbv2_ep100.pt", configuration, statistics, weights)


ATTRIBUTES_MTS = ["aridity", "meanP", "meanelevation", "catchsize"]
ROUTING_MTS = ["aridity", "catchsize", "lengthkm"]


def folder_mts(folder, hourly="Hbv_2_1_hourly"):
    with np.load(REFERENCE) as arrays:
        weights = {k.removeprefix("sd_"): torch.from_numpy(arrays[k]) for k in arrays if k.startswith("sd_")}
    network = {"forcings": ["P", "T", "PET"], "attributes": ATTRIBUTES_MTS, "lstm_dropout": 0.1}
    physics = {"nmul": 1, "routing": False}
    configuration = {
        "model": {
            "use_log_norm": [],
            "phy": {
                "name": ["Hbv_2_mts"],
                "hif_model": {
                    **physics,
                    "name": [hourly],
                    "dynamic_params": {hourly: DYNAMIC},
                    "window_size": 336,
                },
                "lof_model": {
                    **physics,
                    "name": ["Hbv_2"],
                    "dynamic_params": {"Hbv_2": DYNAMIC},
                    "window_size": 351,
                },
            },
            "nn": {
                "hif_model": {
                    **network,
                    "name": "LstmMlp2Model",
                    "lstm_hidden_size": 6,
                    "mlp_hidden_size": 9,
                    "mlp2_hidden_size": 10,
                    "attributes2": ROUTING_MTS,
                },
                "lof_model": {
                    **network,
                    "model": "LstmMlpModel",
                    "lstm_hidden_size": 5,
                    "mlp_hidden_size": 8,
                },
            },
        }
    }
    groups = {
        "dyn_input": 3,
        "dyn_input_daily": 3,
        "static_input": 4,
        "rout_static_input": 3,
        "state_input": 5,
    }
    statistics = {
        key: {"target": 0.1} | {group: [start + i for i in range(n)] for group, n in groups.items()}
        for key, start in (("mean", 0.5), ("std", 2.0))
    } | {"norm_dyn_indexes": [], "use_norm_target": False}
    return write(folder, "dhbv_2_mts_ep30.pt", configuration, statistics, weights)


FOLDERS = {"1.1p": folder_11p, "2.0": folder_20, "multi-timescale": folder_mts}
