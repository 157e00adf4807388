"""The peers' side, run by their own interpreter: dmg 1.5.0 and hydrodl2 1.4.0 through their public classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from dmg.models.criterion.nse_batch_loss import NseBatchLoss
from dmg.models.delta_models import DplModel
from hydrodl2.models.hbv.hbv_1_1p import Hbv_1_1p
from worker import serve

COMPONENTS, HIDDEN, ATTRIBUTES = 16, 256, 35
PARAMETERS = 14 * COMPONENTS + 2


def physics_settings(warm_up: int, cached: bool) -> dict[str, Any]:
    return {
        "name": ["Hbv_1_1p"],
        "nmul": COMPONENTS,
        "warmup": warm_up,
        "warmup_states": False,
        "dynamic_params": {"Hbv_1_1p": ["parBETA", "parK0", "parBETAET"]},
        "variables": ["prcp", "tmean", "pet"],
        "routing": True,
        "cache_states": cached,
    }


def delta_model(warm_up: int, cached: bool, device: str) -> DplModel:
    torch.manual_seed(0)
    network = {
        "name": "LstmModel",
        "forcings": ["prcp", "tmean", "pet"],
        "attributes": [f"attribute_{i}" for i in range(ATTRIBUTES)],
        "hidden_size": HIDDEN,
        "dropout": 0.5,
        "cache_states": cached,
    }
    return DplModel(config={"phy": physics_settings(warm_up, cached), "nn": network}, device=device)


def weather(days: int, catchments: int, device: str) -> torch.Tensor:
    """Precipitation [mm d-1], temperature [degC] and potential evapotranspiration [mm d-1]."""
    random = np.random.default_rng(0)
    shape = (days, catchments)
    series = (
        random.gamma(0.3, 10.0, shape),
        random.normal(10.0, 8.0, shape),
        random.uniform(0.0, 5.0, shape),
    )
    return torch.tensor(np.stack(series, axis=-1), dtype=torch.float32, device=device)


def inputs(days: int, catchments: int, device: str) -> dict[str, torch.Tensor]:
    features = torch.randn(days, catchments, 3 + ATTRIBUTES, device=device)
    return {"x_phy": weather(days, catchments, device), "xc_nn_norm": features}


def settle(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def day(device: str = "cpu") -> Callable[[], None]:
    """One catchment, one day, network and physics, states kept between days."""
    model = delta_model(0, True, device).eval()
    data = inputs(1, 1, device)

    def call() -> None:
        with torch.no_grad():
            model(data)
        settle(device)

    return call


def physics(
    catchments: int,
    days: int,
    gradient: bool = False,
    warm_up: int = 0,
    raw: bool = True,
    device: str = "cpu",
) -> Callable[[], None]:
    """HBV and routing over a series: every flux and store; with ``gradient`` also backward from streamflow.

    From the network's raw output, or without ``raw`` from physical parameters.
    """
    torch.manual_seed(0)
    model = Hbv_1_1p(physics_settings(warm_up, False), device=torch.device(device))
    output = torch.randn(days, catchments, PARAMETERS, device=device, requires_grad=gradient)
    data = {"x_phy": weather(days, catchments, device)}
    if not raw:
        by_parameter, routing = model._unpack_parameters(output)
        parameters = model._descale_phy_parameters(by_parameter, dy_list=model.dynamic_params)
        model.muwts = None
        model.routing_param_dict = model._descale_route_parameters(routing)
        states = model._init_states(catchments)

    def call() -> None:
        with torch.set_grad_enabled(gradient):
            fluxes = model(data, output) if raw else model._PBM(data["x_phy"], states, parameters)[0]
            if gradient:
                output.grad = None
                fluxes["streamflow"].square().mean().backward()
        settle(device)

    return call


def train(catchments: int, warm_up: int, scored: int, device: str = "cpu") -> Callable[[], None]:
    """One training step: forward, loss, backward, Adadelta."""
    model = delta_model(warm_up, False, device).train()
    data = inputs(warm_up + scored, catchments, device)
    target = torch.rand(scored, catchments, 1, device=device)
    loss = NseBatchLoss({}, device, y_obs=target.cpu().numpy())
    columns = np.arange(catchments)
    optimiser = torch.optim.Adadelta(model.parameters(), lr=1.0)

    def call() -> None:
        optimiser.zero_grad()
        fluxes = model(data)
        loss(fluxes["streamflow"].squeeze(), target.squeeze(), sample_ids=columns).backward()
        optimiser.step()
        settle(device)

    return call


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve({"day": day, "physics": physics, "train": train})
