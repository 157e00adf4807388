"""Our side: the same work as ``hbv_peer.py`` through this package's public classes, and what only we can be asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from instances import opening
from numpy.typing import NDArray
from scratch import scratch, write
from torch import Tensor
from worker import serve

from bmi_components.hbv.component import DeltaHBV as DeltaHBVComponent
from bmi_components.hbv.model import DeltaHBV
from bmi_components.hbv.physics import FORCINGS, VARIANTS
from bmi_components.hbv.routing import route, unit_hydrograph
from bmi_components.hbv.series import initial_stores, simulate_physics
from bmi_components.training.losses import Spread, nse

COMPONENTS, HIDDEN = 16, 256
ATTRIBUTES = [f"attribute_{i}" for i in range(35)]
NEXTGEN_ATTRIBUTES = [
    *("aridity", "meanP", "ETPOT_Hargr", "NDVI", "FW", "meanslope", "glaciers", "meanelevation", "meanTa"),
    *("SoilGrids1km_sand", "SoilGrids1km_clay", "SoilGrids1km_silt"),
    *("HWSD_clay", "HWSD_gravel", "HWSD_sand", "HWSD_silt"),
    *("permafrost", "permeability", "seasonality_P", "seasonality_PET", "snow_fraction", "snowfall_fraction"),
    *("T_clay", "T_gravel", "T_sand", "T_silt", "Porosity", "uparea"),
]
FORCING_STATISTICS = {
    "precipitation": {"mean": 3.0, "std": 6.0},
    "temperature": {"mean": 10.0, "std": 8.0},
    "potential_evapotranspiration": {"mean": 2.5, "std": 1.5},
}


def delta_model(attributes: list[str], **hyperparameters: Any) -> DeltaHBV:
    """Return a model with random weights: speed does not depend on them."""
    normalisation = FORCING_STATISTICS | {name: {"mean": 0.0, "std": 1.0} for name in attributes}
    return DeltaHBV.create(hyperparameters, FORCINGS, attributes, normalisation, seed=0)


def model_1_1p() -> DeltaHBV:
    return delta_model(ATTRIBUTES, physics="1.1p", components=COMPONENTS, hidden=HIDDEN)


def model_2(mlp_hidden: int) -> DeltaHBV:
    return delta_model(
        NEXTGEN_ATTRIBUTES, physics="2.0", network="lstm_mlp", components=4, hidden=64, mlp_hidden=mlp_hidden
    )


def weather(days: int, catchments: int) -> NDArray[np.float64]:
    """Precipitation [mm d-1], temperature [degC], potential evapotranspiration [mm d-1], ``[day, catchment, 3]``."""
    random = np.random.default_rng(0)
    shape = (days, catchments)
    series = (
        random.gamma(0.3, 10.0, shape),
        random.normal(10.0, 8.0, shape),
        random.uniform(0.0, 5.0, shape),
    )
    return np.stack(series, axis=-1)


def tensor(array: NDArray[Any], device: str) -> Tensor:
    return torch.tensor(array, dtype=torch.float32, device=device)


def settle(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def settings_1_1p(bundle: Path, number: int = 0) -> dict[str, Any]:
    catchment = {"id": f"cat-{number}", "attributes": {a: 0.01 * i for i, a in enumerate(ATTRIBUTES, number)}}
    climatology = dict(zip(FORCINGS, ([3.0] * 12, [10.0] * 12, [2.0] * 12), strict=True))
    return {"model": str(bundle), "catchments": [catchment], "climatology": climatology}


def settings_nextgen(bundle: Path, number: int = 0) -> dict[str, Any]:
    attributes = {a: 0.01 * i + 1e-4 * number for i, a in enumerate(NEXTGEN_ATTRIBUTES, start=1)}
    run = {"time_step": "1 day", "start_time": "2020-01-01 00:00:00", "pet_method": "hargreaves"}
    place = {"catchment_id": f"cat-{number}", "latitude": 39.1, "model_dir": str(bundle)}
    return {**attributes, **run, **place}


# One day ------------------------------------------------------------


def day(device: str = "cpu") -> Callable[[], None]:
    """One catchment, one day, through BMI: three ``set_value``, ``update``, ``get_value_at_indices``."""
    bundle = model_1_1p().to_bundle().save(scratch() / "1.1p")
    component = DeltaHBVComponent()
    component.initialize(write("day.yaml", settings_1_1p(bundle) | {"device": device}))
    names = component.get_input_var_names()
    days = [[np.array([value]) for value in row] for row in weather(730, 1)[:, 0]]
    runoff, index = np.zeros(1), np.zeros(1, dtype=np.int64)
    position = 0

    def call() -> None:
        nonlocal position
        for name, value in zip(names, days[position], strict=True):
            component.set_value(name, value)
        component.update()
        component.get_value_at_indices("land_surface_water__runoff_volume_flux", runoff, index)
        position = (position + 1) % len(days)

    return call


def numpy_cell() -> Callable[[], None]:
    """The floor of a day: the arithmetic of a LSTM-256 cell in plain NumPy, weights of both halves side by side."""
    random = np.random.default_rng(0)
    weights = (0.05 * random.standard_normal((4 * HIDDEN, 2 * HIDDEN))).astype(np.float32)
    bias = np.zeros(4 * HIDDEN, np.float32)
    inputs_and_hidden = random.standard_normal(2 * HIDDEN).astype(np.float32)
    cell = np.zeros(HIDDEN, np.float32)

    def call() -> None:
        gates = weights @ inputs_and_hidden + bias
        sigmoids = 1.0 / (1.0 + np.exp(-gates[: 3 * HIDDEN]))
        i, f, o = sigmoids[:HIDDEN], sigmoids[HIDDEN : 2 * HIDDEN], sigmoids[2 * HIDDEN :]
        cell[:] = f * cell + i * np.tanh(gates[3 * HIDDEN :])
        inputs_and_hidden[HIDDEN:] = o * np.tanh(cell)

    return call


# Many days ------------------------------------------------------------


def physics(
    catchments: int,
    days: int,
    gradient: bool = False,
    warm_up: int = 0,
    raw: bool = True,
    device: str = "cpu",
) -> Callable[[], None]:
    """HBV and routing over a series: every flux and store, or with ``gradient`` runoff alone, and backward.

    From the network's raw output, or without ``raw`` from physical parameters. Our network gives the static parameters
    for one day only, so they are a tensor of their own.
    """
    torch.manual_seed(0)
    hbv = VARIANTS["1.1p"]
    bounds = hbv.bounds()
    groups = [[p for p in bounds if (p.symbol in hbv.dynamic) is dynamic] for dynamic in (True, False)]
    dynamic_bounds, static_bounds = (
        [torch.tensor([[getattr(p, end)] for p in group], device=device) for end in ("lower", "upper")]
        for group in groups
    )
    dynamic = torch.randn(days, catchments, len(groups[0]), COMPONENTS, device=device)
    static = torch.randn(catchments, len(groups[1]), COMPONENTS, device=device)
    delay = torch.rand(2, catchments, device=device)
    forcing = tensor(weather(days, catchments), device).transpose(1, 2).contiguous()
    site = torch.zeros(0, catchments, device=device)
    stores = initial_stores(hbv, catchments, COMPONENTS, torch.float32, device)
    others = [*hbv.stores, *(f for f in hbv.fluxes if f not in hbv.runoff)]
    outputs = hbv.runoff if gradient else (*hbv.runoff, *others)
    if not raw:
        dynamic = torch.lerp(*dynamic_bounds, torch.sigmoid(dynamic)).contiguous()
        static = torch.lerp(*static_bounds, torch.sigmoid(static)).transpose(0, 1).contiguous()
    leaves = [tensor.requires_grad_(gradient) for tensor in (dynamic, static)]

    def call() -> None:
        with torch.set_grad_enabled(gradient):
            fixed = torch.lerp(*static_bounds, torch.sigmoid(static)).transpose(0, 1) if raw else static
            run = simulate_physics(hbv, stores, fixed, dynamic, forcing, site, outputs, raw)
            hydrograph = unit_hydrograph(delay[0], delay[1], hbv.routing_length)
            routed, _ = route(run.outputs[:, : len(hbv.runoff)], hydrograph[:, None])
            if gradient:
                for leaf in leaves:
                    leaf.grad = None
                routed.sum(1)[warm_up:].square().mean().backward()
        settle(device)

    return call


def train(catchments: int, warm_up: int, scored: int, device: str = "cpu") -> Callable[[], None]:
    """One training step: forward, loss, backward, Adadelta."""
    torch.manual_seed(0)
    model = model_1_1p().to(device).train()
    forcing = tensor(weather(warm_up + scored, catchments), device)
    attributes = torch.randn(catchments, len(ATTRIBUTES), device=device)
    observed = torch.rand(scored, catchments, device=device)
    spread = Spread(observed.std(0), observed.log().std(0))
    optimiser = torch.optim.Adadelta(model.parameters(), lr=1.0)

    def call() -> None:
        optimiser.zero_grad()
        nse(model(forcing, attributes, warm_up), observed, spread).backward()
        optimiser.step()
        settle(device)

    return call


def units(count: int, days: int, device: str, chunk: int = 30) -> Callable[[], None]:
    """δHBV 2.0 of the published size over many units: network, physics and routing, ``chunk`` days at a time."""
    model = model_2(mlp_hidden=4096).to(device).eval()
    forcing = tensor(weather(days, 1), device).expand(days, count, 3)
    attributes = torch.randn(count, len(NEXTGEN_ATTRIBUTES), device=device)

    def call() -> None:
        with torch.no_grad():
            catchments, state = model.bind(attributes, None), model.initial_state(count)
            for start in range(0, days, chunk):
                state, _ = model.simulate(state, forcing[start : start + chunk], catchments)
        settle(device)

    return call


# Many components ------------------------------------------------------------


def instances(model: str, count: int, stepped: int, long_run: int) -> Callable[[], dict[str, float]]:
    """Open ``count`` components on one bundle, each with a file of its own, and step ``stepped`` of them.

    ``model`` is "1.1p" (climatology, LSTM-256) or "nextgen" (NextGen's files, δHBV 2.0 with an MLP of width 256).
    """
    if model == "1.1p":
        bundle = model_1_1p().to_bundle().save(scratch() / model)
        files = [write(f"{k}.yaml", settings_1_1p(bundle, k)) for k in range(count)]
    else:
        bundle = model_2(mlp_hidden=256).to_bundle().save(scratch() / model)
        files = [write(f"{k}.yaml", settings_nextgen(bundle, k)) for k in range(count)]

    def opened(file: str) -> DeltaHBVComponent:
        component = DeltaHBVComponent()
        component.initialize(file)
        for name in component.get_input_var_names():
            component.set_value(name, np.array([INPUTS.get(name, 1.0)]))
        return component

    return opening(opened, files, stepped, long_run)


INPUTS = {
    "atmosphere_water__liquid_equivalent_precipitation_rate": 1e-4,
    "land_surface_air__temperature": 10.0,
    "land_surface_air__pressure": 95_000.0,
    "atmosphere_air_water~vapor__relative_saturation": 0.006,
    "land_surface_radiation~incoming~longwave__energy_flux": 300.0,
    "land_surface_radiation~incoming~shortwave__energy_flux": 200.0,
}
"""Plausible weather by published name; anything else is 1."""


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(
        {
            "day": day,
            "numpy_cell": numpy_cell,
            "physics": physics,
            "train": train,
            "units": units,
            "instances": instances,
        }
    )
