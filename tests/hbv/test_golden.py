"""HBV equals the published implementation's numbers, fluxes, stores and gradients, in double and single precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bmi_components.hbv.multiscale import hand_over_stores
from bmi_components.hbv.parameters import GAGE_ROUTING, UNIT_ROUTING
from bmi_components.hbv.physics import Physics, physics_variant
from bmi_components.hbv.routing import route, route_to_gauges, unit_hydrograph
from bmi_components.hbv.series import (
    initial_stores,
    simulate_physics,
    simulate_physics_in_torch,
)

# Largest differences allowed, relative to the largest value of a series: rounding of the precision, times the number of
# roundings that a year of recursions piles up; 7e-6 is what the data themselves reach in float32 (their README).
TOLERANCE = {"f64": 2e-13, "f32": 7e-6}
DTYPE = {"f64": torch.float64, "f32": torch.float32}
RUNOFF = ("quickflow", "interflow", "baseflow")
ROUTED = {"quickflow": "srflow", "interflow": "ssflow", "baseflow": "gwflow"}
PUBLISHED = {
    "evapotranspiration": "AET_hydro",
    "recharge": "recharge",
    "excess": "excs",
    "evaporation_factor": "evapfactor",
    "to_soil": "tosoil",
    "percolation": "percolation",
    "capillary_rise": "capillary",
    "snowpack": "SWE",
}


class Golden:
    """One file of the published implementation's inputs and outputs."""

    def __init__(self, folder: Path, name: str, precision: str) -> None:
        with np.load(folder / "golden" / "hbv" / f"{name}_{precision}.npz") as file:
            self.arrays: dict[str, Any] = dict(file)
        self.dtype = DTYPE[precision]
        self.tolerance = TOLERANCE[precision]

    def tensor(self, name: str) -> Tensor:
        return torch.tensor(self.arrays[name]).to(self.dtype)

    def names(self, key: str) -> tuple[str, ...]:
        return tuple(str(name).removeprefix("par") for name in self.arrays[key])

    @property
    def components(self) -> int:
        return int(self.arrays["nmul"])

    def physics(self, variant: str) -> Physics:
        return physics_variant(variant, self.names("dynamic"))

    def forcing(self, key: str = "x_phy") -> Tensor:
        return self.tensor(key).transpose(1, 2)

    def check(self, ours: Tensor, key: str, tolerance: float | None = None) -> None:
        theirs = torch.tensor(self.arrays[key]).squeeze(-1).to(torch.float64)
        assert ours.shape == theirs.shape, key
        scale = max(float(theirs.abs().max()), 1e-3)
        worst = float((ours.double() - theirs).abs().max()) / scale
        assert worst <= (tolerance or self.tolerance), f"{key}: {worst:.1e} of {scale:.3g}"


def scaled(u: Tensor, physics: Physics, names: tuple[str, ...], components: int) -> dict[str, Tensor]:
    """Parameters in their units, ``[..., catchment, component]``, from u in [0, 1] ``[..., catchment, p * m]``."""
    bounds = {p.symbol: p for p in physics.bounds()}
    parts = u[..., : len(names) * components].unflatten(-1, (len(names), components))
    return {
        name: bounds[name].lower + parts[..., i, :] * (bounds[name].upper - bounds[name].lower)
        for i, name in enumerate(names)
    }


def stacked(physics: Physics, static: dict[str, Tensor], dynamic: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    still = torch.stack([static[s] for s in physics.parameters if s not in physics.dynamic])
    moving = [dynamic[s] for s in physics.dynamic]
    if moving:
        return still, torch.stack(moving, dim=2)
    return still, still.new_zeros(0)


def hydrograph(u: Tensor, length: int = 15) -> Tensor:
    a, b = (p.lower + u[..., i] * (p.upper - p.lower) for i, p in enumerate(UNIT_ROUTING))
    return unit_hydrograph(a, b, length)


def no_site(golden: Golden) -> Tensor:
    return golden.tensor("x_phy").new_zeros(0, golden.arrays["x_phy"].shape[1])


def site(golden: Golden) -> Tensor:
    return torch.stack([golden.tensor("elev_all"), golden.tensor("ac_all")])


def check_fluxes(
    golden: Golden, outputs: Tensor, names: tuple[str, ...], uh: Tensor | None, skip: int
) -> None:
    series = {name: outputs[:, i] for i, name in enumerate(names)}
    for name, published in ROUTED.items():
        golden.check(series[name][skip:], f"out_{published}_no_rout")
        if uh is not None:
            golden.check(route(series[name], uh)[0][skip:], f"out_{published}")
    if uh is not None:
        golden.check(route(sum(series[n] for n in RUNOFF), uh)[0][skip:], "out_streamflow")
    for name, published in PUBLISHED.items():
        if f"out_{published}" in golden.arrays:
            golden.check(series[name][skip:], f"out_{published}")


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize(
    ("name", "variant"),
    [("hbv11p_dyn", "1.1p"), ("hbv11p_nmul16", "1.1p"), ("hbv10_static_nmul16", "1.0")],
)
def test_one_run_through_warm_up_and_scored_window(
    shared_data: Path, name: str, variant: str, precision: str
) -> None:
    golden = Golden(shared_data, name, precision)
    physics, m, forcing = golden.physics(variant), golden.components, golden.forcing()
    u = torch.sigmoid(golden.tensor("raw"))
    parameters = scaled(u, physics, golden.names("param_names"), m)
    static, dynamic = stacked(physics, {k: v[-1] for k, v in parameters.items()}, parameters)
    if not physics.dynamic:
        dynamic = static.new_zeros(forcing.shape[0], static.shape[1], 0, static.shape[2])
    names = (*RUNOFF, *(f for f in PUBLISHED if f in (*physics.fluxes, *physics.stores)))
    stores = initial_stores(physics, forcing.shape[2], m, golden.dtype)
    outputs, final = simulate_physics(physics, stores, static, dynamic, forcing, no_site(golden), names)
    check_fluxes(golden, outputs, names, hydrograph(u[-1, :, -2:]), int(golden.arrays["warmup"]))
    golden.check(final, "states_final")


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize(("name", "variant"), [("hbv10_dyn", "1.0"), ("hbv11p_dyn_wstates", "1.1p")])
def test_warm_up_run_apart(shared_data: Path, name: str, variant: str, precision: str) -> None:
    """The published ``warmup_states``: static parameters of the warm-up's last day, nothing dynamic in 1.0."""
    golden = Golden(shared_data, name, precision)
    physics, m, forcing = golden.physics(variant), golden.components, golden.forcing()
    days = int(golden.arrays["warmup"])
    u = torch.sigmoid(golden.tensor("raw"))
    parameters = scaled(u, physics, golden.names("param_names"), m)
    none = no_site(golden)
    before = {k: v[days - 1] for k, v in parameters.items()}
    if variant == "1.0":
        held = {k: v[days - 1].expand(days, *v.shape[1:]) for k, v in parameters.items()}
        static, dynamic = stacked(physics, before, held)
    else:
        static, dynamic = stacked(physics, before, {k: v[:days] for k, v in parameters.items()})
    stores = initial_stores(physics, forcing.shape[2], m, golden.dtype)
    _, stores = simulate_physics(physics, stores, static, dynamic, forcing[:days], none, RUNOFF)
    golden.check(stores, "states_at_score_start")

    static, dynamic = stacked(
        physics, {k: v[-1] for k, v in parameters.items()}, {k: v[days:] for k, v in parameters.items()}
    )
    names = (*RUNOFF, *(f for f in PUBLISHED if f in (*physics.fluxes, *physics.stores)))
    outputs, final = simulate_physics(physics, stores, static, dynamic, forcing[days:], none, names)
    check_fluxes(golden, outputs, names, hydrograph(u[-1, :, -2:]), 0)
    golden.check(final, "states_final")


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize("name", ["hbv20_uh", "hbv20_norout_warm"])
def test_hbv20_on_every_branch_of_elevation_and_area(shared_data: Path, name: str, precision: str) -> None:
    golden = Golden(shared_data, name, precision)
    physics, m, forcing = golden.physics("2.0"), golden.components, golden.forcing()
    u = golden.tensor("static01")
    static, dynamic = stacked(
        physics,
        scaled(u, physics, golden.names("static_names"), m),
        scaled(golden.tensor("dy01"), physics, physics.dynamic, m),
    )
    names = (*RUNOFF, *(f for f in PUBLISHED if f in (*physics.fluxes, *physics.stores)))
    stores = initial_stores(physics, forcing.shape[2], m, golden.dtype)
    outputs, final = simulate_physics(physics, stores, static, dynamic, forcing, site(golden), names)
    uh = hydrograph(u[:, -2:]) if name == "hbv20_uh" else None
    check_fluxes(golden, outputs, names, uh, int(golden.arrays["warmup"]))
    golden.check(final, "states_final")


@pytest.mark.parametrize("precision", ["f64", "f32"])
@pytest.mark.parametrize(
    ("name", "variant"), [("hbv20_hourly", "2.0-hourly"), ("hbv21_hourly", "2.1-hourly")]
)
def test_hourly_models_and_lagged_routing_to_gauges(
    shared_data: Path, name: str, variant: str, precision: str
) -> None:
    golden = Golden(shared_data, name, precision)
    # The reference computes the infiltration of 2.1 in float32 whatever it runs in: its double run has single's error.
    tolerance = TOLERANCE["f32"] if variant == "2.1-hourly" else None
    physics, m = golden.physics(variant), golden.components
    hours = torch.tensor([24.0, 1.0, 24.0], dtype=golden.dtype)[:, None]
    static, dynamic = stacked(
        physics,
        scaled(golden.tensor("static01"), physics, golden.names("static_names"), m),
        scaled(golden.tensor("dy01"), physics, physics.dynamic, m),
    )
    forcing = golden.forcing() * hours
    stores = initial_stores(physics, forcing.shape[2], m, golden.dtype)
    outputs, final = simulate_physics(physics, stores, static, dynamic, forcing, site(golden), physics.runoff)
    runoff = outputs.sum(1) / 24.0
    golden.check(runoff, "out_Qs", tolerance)
    golden.check(final, "states_final", tolerance)

    u = golden.tensor("distr01")
    a, b, tau = (p.lower + u[:, i] * (p.upper - p.lower) for i, p in enumerate(GAGE_ROUTING))
    flow = route_to_gauges(runoff, golden.tensor("areas"), golden.tensor("outlet_topo"), a, b, tau)
    golden.check(flow, "out_streamflow", tolerance)


def test_daily_stores_handed_over_to_the_hourly_model(shared_data: Path) -> None:
    golden = Golden(shared_data, "hbv2_mts", "f32")
    m, where = golden.components, site(golden)
    days = physics_variant("2.0", ("BETA", "K0", "BETAET"))
    hours = physics_variant("2.1-hourly", ("BETA", "K0", "BETAET"))
    stores: dict[str, Tensor] = {}
    shared: dict[str, Tensor] = {}
    runoff = None
    for physics, label, factor in ((days, "lof", 1.0), (hours, "hif", 24.0)):
        forcing = golden.forcing("x_daily" if label == "lof" else "x_hourly")
        forcing = forcing * torch.tensor([factor, 1.0, factor])[:, None]
        still = tuple(s for s in physics.parameters if s not in physics.dynamic)
        # The hourly model keeps the daily one's static parameters, and adds its own.
        shared = scaled(golden.tensor(f"{label}_static01"), physics, still, m) | shared
        static, dynamic = stacked(
            physics, shared, scaled(golden.tensor(f"{label}_dy01"), physics, physics.dynamic, m)
        )
        start = initial_stores(physics, forcing.shape[2], m, golden.dtype)
        if label == "hif":
            start = hand_over_stores(stores["lof"], start)
        outputs, stores[label] = simulate_physics(
            physics, start, static, dynamic, forcing, where, physics.runoff
        )
        runoff = outputs.sum(1) / factor
    assert runoff is not None
    golden.check(stores["lof"], "lof_states_end")
    golden.check(runoff, "out_Qs", 5e-6)
    golden.check(stores["hif"], "hif_states_final", 5e-6)


@pytest.mark.parametrize("simulate", [simulate_physics, simulate_physics_in_torch])
def test_gradients_through_warm_up_physics_and_routing(shared_data: Path, simulate: Any) -> None:
    golden = Golden(shared_data, "grad_hbv11p", "f64")
    physics = physics_variant("1.1p", ("BETA", "K0", "BETAET"))
    raw = golden.tensor("raw").requires_grad_()
    u, forcing = torch.sigmoid(raw), golden.forcing()
    parameters = scaled(u, physics, physics.parameters, 2)
    static, dynamic = stacked(physics, {k: v[-1] for k, v in parameters.items()}, parameters)
    stores = initial_stores(physics, forcing.shape[2], 2, golden.dtype)
    outputs, _ = simulate(physics, stores, static, dynamic, forcing, no_site(golden), RUNOFF)
    streamflow = route(outputs.sum(1), hydrograph(u[-1, :, -2:]))[0][30:]
    golden.check(streamflow.detach(), "streamflow")
    loss = torch.mean((streamflow - golden.tensor("obs").squeeze(-1)) ** 2)
    assert float(loss.detach()) == pytest.approx(float(golden.arrays["loss"]), rel=1e-13)
    (gradient,) = torch.autograd.grad(loss, raw)
    golden.check(gradient, "grad_raw")


def test_unit_hydrographs_and_their_lag(shared_data: Path) -> None:
    from bmi_components.hbv.routing import lagged

    golden = Golden(shared_data, "uh_kernels", "f64")
    a, b = golden.tensor("a"), golden.tensor("b")
    for length in (1, 5, 15, 72):
        golden.check(unit_hydrograph(a, b, length), f"uh_{length}")
    golden.check(lagged(unit_hydrograph(a, b, 72), golden.tensor("tau")), "uh72_shifted")
    golden.check(route(golden.tensor("q"), unit_hydrograph(a, b, 15))[0], "q_routed15")
