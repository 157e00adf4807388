"""Make ``neuralhydrology_reference.npz``: what neuralhydrology's own classes compute with small random networks.

Run it in an environment with neuralhydrology 1.13, which the tests do not need::

    python tests/networks/make_neuralhydrology_reference.py

Each case is a run folder, ``config`` and ``scaler`` as JSON (which is YAML), the checkpoint's ``weights`` one after the
other with names and shapes in ``layout``. ``x [batch, time, input]`` and ``a [batch, attribute]`` (alphabetical) are
physical; ``y/<target> [batch, time]`` is the model's result in physical units. Distributions come as their parameters,
and as mean and deviation of samples that neuralhydrology draws. All numbers are random; none are data of others.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import xarray
from neuralhydrology.modelzoo import get_model
from neuralhydrology.utils.config import Config
from neuralhydrology.utils.samplingutils import sample_cmal, sample_gmm

TARGET = Path(__file__).with_name("neuralhydrology_reference.npz")
INPUTS = ["prcp(mm/day)", "tmax(C)", "srad(W/m2)"]
ATTRIBUTES = ["slope_mean", "aridity"]
BATCH, STEPS, SAMPLES = 3, 12, 200_000
MEANS = {"prcp(mm/day)": 3.0, "tmax(C)": 12.0, "tmin(C)": 4.0, "srad(W/m2)": 250.0, "pet(mm/day)": 2.5}

BASE = {
    "dataset": "camels_us",
    "forcings": ["daymet"],
    "dynamic_inputs": INPUTS,
    "static_attributes": ATTRIBUTES,
    "target_variables": ["QObs(mm/d)"],
    "hidden_size": 5,
    "seq_length": STEPS,
    "predict_last_n": STEPS,
    "head": "regression",
    "output_activation": "linear",
    "output_dropout": 0.0,
    "initial_forget_bias": 3,
    "batch_size": 64,
    "number_of_basins": BATCH,
    "seed": 1,
}
EMBEDDING = {"type": "fc", "hiddens": [6, 4], "activation": "tanh", "dropout": 0.0}
MIXTURE = {"n_distributions": 2, "negative_sample_handling": "none", "mc_dropout": False, "hidden_size": 3}
RAW = {"centering": None, "scaling": None}

CASES = {
    "customlstm": {"model": "customlstm"},
    "embcudalstm": {"model": "embcudalstm", "statics_embedding": EMBEDDING},
    "cudalstm_embedded": {
        "model": "cudalstm",
        "dynamics_embedding": EMBEDDING,
        "statics_embedding": {**EMBEDDING, "hiddens": [3], "activation": "relu"},
        "output_activation": "relu",
    },
    "gru_embedded": {
        "model": "gru",
        "dynamics_embedding": {**EMBEDDING, "activation": "sigmoid", "hiddens": [4, 6, 3]},
        "statics_embedding": EMBEDDING,
        "output_activation": "softplus",
    },
    "ealstm_embedded": {"model": "ealstm", "dynamics_embedding": EMBEDDING, "statics_embedding": EMBEDDING},
    "two_targets": {"model": "cudalstm", "target_variables": ["QObs(mm/d)", "swe(mm)"]},
    "basins": {"model": "cudalstm", "use_basin_id_encoding": True},
    "arlstm": {
        "model": "arlstm",
        "autoregressive_inputs": ["QObs(mm/d)_shift2"],
        "lagged_features": {"QObs(mm/d)": [2]},
    },
    "gmm": {"model": "cudalstm", "head": "gmm", **MIXTURE, "target_variables": ["QObs(mm/d)", "swe(mm)"]},
    "cmal": {"model": "cudalstm", "head": "cmal", **MIXTURE},
    "umal": {
        "model": "cudalstm",
        "head": "umal",
        "n_taus": 4,
        "tau_down": 0.1,
        "tau_up": 0.9,
        "hidden_size": 3,
        "dynamics_embedding": EMBEDDING,
    },
    "mclstm": {
        "model": "mclstm",
        "mass_inputs": ["prcp(mm/day)"],
        "dynamic_inputs": INPUTS[1:],
        "statics_embedding": EMBEDDING,
        "batch_size": 1,
        "custom_normalization": {"prcp(mm/day)": RAW, "QObs(mm/d)": RAW},
    },
    "hybrid": {
        "model": "hybrid_model",
        "conceptual_model": "SHM",
        "dynamic_inputs": ["prcp(mm/day)", "tmax(C)", "tmin(C)"],
        "dynamic_conceptual_inputs": [
            "prcp(mm/day)_copy1",
            "pet(mm/day)",
            "tmin(C)_copy1",
            "tmax(C)_copy1",
        ],
        "duplicate_features": {"prcp(mm/day)": 1, "tmax(C)": 1, "tmin(C)": 1},
        "warmup_period": 4,
        "custom_normalization": dict.fromkeys(
            ["prcp(mm/day)_copy1", "pet(mm/day)", "tmin(C)_copy1", "tmax(C)_copy1", "QObs(mm/d)"], RAW
        ),
    },
    "mtslstm_embedded": {
        "model": "mtslstm",
        "dataset": "generic",
        "use_frequencies": ["1D", "1h"],
        "dynamic_inputs": {"1D": ["APCP_surface"], "1h": ["APCP_surface", "TMP_2maboveground"]},
        "seq_length": {"1D": 5, "1h": 48},
        "predict_last_n": {"1D": 1, "1h": 24},
        "target_variables": ["QObs(mm/h)"],
        "hidden_size": {"1D": 3, "1h": 4},
        "transfer_mtslstm_states": {"h": "linear", "c": "linear"},
        "statics_embedding": EMBEDDING,
        "dynamics_embedding": EMBEDDING,
    },
}
MEANS |= {
    "APCP_surface": 0.2,
    "TMP_2maboveground": 285.0,
    "QObs(mm/d)": 1.5,
    "QObs(mm/h)": 0.1,
    "swe(mm)": 40.0,
}


def names_of(configuration):
    inputs = configuration["dynamic_inputs"]
    flat = [n for group in inputs.values() for n in group] if isinstance(inputs, dict) else list(inputs)
    more = ("mass_inputs", "dynamic_conceptual_inputs", "target_variables", "autoregressive_inputs")
    return list(dict.fromkeys(flat + [name for key in more for name in configuration.get(key, [])]))


def plain(name):
    return name.removesuffix("_copy1").removesuffix("_shift2")


def scaler_of(configuration, random):
    centre, scale = {}, {}
    for name in names_of(configuration):
        mean = MEANS[plain(name)]
        raw = name in configuration.get("custom_normalization", {})
        centre[name] = 0.0 if raw else round(mean * random.uniform(0.98, 1.02), 3)
        scale[name] = 1.0 if raw else round(max(0.05, 0.4 * min(mean, 40.0)) * random.uniform(0.9, 1.1), 3)
    entries = {
        key: {
            "coords": {},
            "attrs": {},
            "dims": {},
            "data_vars": {n: {"dims": [], "attrs": {}, "data": v} for n, v in t.items()},
        }
        for key, t in (("xarray_feature_center", centre), ("xarray_feature_scale", scale))
    }
    attributes = {
        "attribute_means": {"aridity": 0.8, "slope_mean": 30.0},
        "attribute_stds": {"aridity": 0.3, "slope_mean": 20.0},
    }
    return centre, scale, {**attributes, **entries}


def physical(name, shape, random):
    mean = MEANS[plain(name)]
    if name.startswith(("prcp", "APCP")):
        return mean * random.exponential(1.0, shape) * (random.uniform(size=shape) < 0.5)
    if name.startswith("pet"):
        return mean * random.uniform(0.2, 1.8, shape)
    return mean + 0.4 * min(mean, 40.0) * random.standard_normal(shape)


def make(case, changes):
    random = np.random.default_rng(sorted(CASES).index(case))
    torch.manual_seed(sorted(CASES).index(case))
    configuration = {**BASE, **changes}
    centre, scale, scaler = scaler_of(configuration, random)
    cfg = Config({**configuration, "device": "cpu"}, dev_mode=True)
    model = get_model(cfg).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    attributes = np.stack([random.uniform(0.3, 1.5, BATCH), random.uniform(2.0, 60.0, BATCH)], axis=1)
    means, stds = (
        np.array([scaler[f"attribute_{s}s"][n] for n in ("aridity", "slope_mean")]) for s in ("mean", "std")
    )
    out = {
        "config": np.array(json.dumps(configuration)),
        "scaler": np.array(json.dumps(scaler)),
        "a": attributes,
        "layout": np.array(json.dumps({n: list(t.shape) for n, t in model.state_dict().items()})),
        "weights": np.concatenate([tensor.numpy().ravel() for tensor in model.state_dict().values()]),
    }
    x_s = torch.tensor((attributes - means) / stds, dtype=torch.float32)
    target = configuration["target_variables"][0]

    def standardised(name, values):
        return torch.tensor((values - centre[name]) / scale[name], dtype=torch.float32).unsqueeze(-1)

    with torch.no_grad():
        if case.startswith("mts"):
            hours = configuration["seq_length"]["1D"] * 24
            series = {n: physical(n, (BATCH, hours), random) for n in configuration["dynamic_inputs"]["1h"]}
            days = {n: v.reshape(BATCH, -1, 24).mean(2) for n, v in series.items()}
            data = {
                "x_d_1D": {n: standardised(n, days[n]) for n in configuration["dynamic_inputs"]["1D"]},
                "x_d_1h": {n: standardised(n, v[:, -48:]) for n, v in series.items()},
                "x_s_1D": x_s,
                "x_s_1h": x_s,
            }
            result = model(data)
            out["x"] = np.stack(list(series.values()), axis=-1)
            for frequency in ("1D", "1h"):
                out[f"y_{frequency}"] = (
                    result[f"y_hat_{frequency}"][..., 0].numpy() * scale[target] + centre[target]
                )
            return out
        inputs = [
            n
            for n in names_of(configuration)
            if n not in configuration["target_variables"] and "_shift" not in n
        ]
        series = {name: physical(name, (BATCH, STEPS), random) for name in dict.fromkeys(map(plain, inputs))}
        out["names"] = np.array(list(series))
        out["x"] = np.stack(list(series.values()), axis=-1)
        data = {"x_d": {name: standardised(name, series[plain(name)]) for name in inputs}, "x_s": x_s}
        if case == "basins":
            data["x_one_hot"] = torch.eye(BATCH)
            out["basins"] = np.array(["01022500", "02064000", "03015500"])
        if case == "arlstm":
            observed = physical(target, (BATCH, STEPS), random)
            observed[:, :2] = np.nan
            observed[1, 5:] = np.nan
            observed[2, 7] = np.nan
            out["observed"] = observed
            name = configuration["autoregressive_inputs"][0]
            data["x_d"][name] = standardised(name, observed)
        if case == "umal":
            number = configuration["n_taus"]
            taus = 0.1 + 0.8 * (torch.arange(number) + 0.5) / number
            data["x_d"] = {n: v.repeat_interleave(number, 0) for n, v in data["x_d"].items()}
            data["x_d"]["_tau"] = taus.repeat(BATCH).view(-1, 1, 1).repeat(1, STEPS, 1)
            data["x_s"] = x_s.repeat_interleave(number, 0)
        if case == "mclstm":  # one by one: neuralhydrology mixes the catchments of a batch
            singles = [
                model({"x_d": {n: v[i : i + 1] for n, v in data["x_d"].items()}, "x_s": x_s[i : i + 1]})[
                    "y_hat"
                ]
                for i in range(BATCH)
            ]
            result = {"y_hat": torch.cat(singles)}
        else:
            result = model(data)
        if "y_hat" in result:
            for number, name in enumerate(configuration["target_variables"]):
                out[f"y/{name}"] = result["y_hat"][..., number].numpy() * scale[name] + centre[name]
        else:
            out |= {
                f"distribution/{key}": value.numpy()
                for key, value in result.items()
                if key in ("mu", "b", "tau", "pi", "sigma")
            }
        sampler = {"gmm": sample_gmm, "cmal": sample_cmal}.get(case)
        if sampler is not None:
            # samples of the first catchment only
            first = {
                "x_d": {n: v[:1] for n, v in data["x_d"].items()},
                "x_s": x_s[:1],
                "y": torch.zeros(1, STEPS, 1),
            }
            statistics = {
                "xarray_feature_center": xarray.Dataset(centre),
                "xarray_feature_scale": xarray.Dataset(scale),
            }
            drawn = sampler(model, first, SAMPLES, statistics)["y_hat"][0, :, 0].double()
            out["sampled_mean"] = drawn.mean(1).numpy() * scale[target] + centre[target]
            out["sampled_std"] = drawn.std(1).numpy() * scale[target]
    return out


if __name__ == "__main__":
    collected = {
        f"{case}/{key}": value
        for case, changes in CASES.items()
        for key, value in make(case, changes).items()
    }
    np.savez_compressed(TARGET, **collected)
    print(TARGET, TARGET.stat().st_size, "bytes", file=sys.stderr)
