"""The components that must keep the contract. A new component is covered by one more line in CASES."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bmipy
import pytest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class Case:
    """One component with one configuration.

    ``config`` is YAML text, the name of a file in configs/, or a function that writes one (and what it needs) into a
    folder. ``options`` go to ``check_component``. A case whose
    framework (``requires``) is not installed is skipped; one that differs from another in nothing that bmi-tester
    looks at says ``bmi_tester=False``.
    """

    label: str
    component: str
    config: str | Callable[[Path], Path]
    options: Mapping[str, Any] = field(default_factory=dict)
    requires: str = ""
    bmi_tester: bool = True

    def load(self) -> type[bmipy.Bmi]:
        if self.requires:
            pytest.importorskip(self.requires)
        module, _, name = self.component.partition(":")
        loaded: type[bmipy.Bmi] = getattr(importlib.import_module(module), name)
        return loaded

    def config_file(self, folder: Path) -> Path:
        if not isinstance(self.config, str):
            return self.config(folder)
        if "\n" not in self.config and (CONFIGS / self.config).is_file():
            return CONFIGS / self.config
        path = folder / "config.yaml"
        path.write_text(self.config)
        return path


def dhbv(physics: str, extra: str = "", areas: tuple[float, ...] = (12.5,)) -> Callable[[Path], Path]:
    """Return what writes a small untrained bundle and a DeltaHBV configuration for it."""

    def write(folder: Path) -> Path:
        from hbv_bundles import configuration

        return configuration(folder, physics, areas, extra)

    return write


def streamflow(
    architectures: tuple[str, ...], extra: str = "", catchments: int = 1
) -> Callable[[Path], Path]:
    """Return what writes small untrained streamflow networks and a StreamflowLSTM configuration for them."""

    def write(folder: Path) -> Path:
        from streamflow_bundles import configuration

        return configuration(folder, architectures, catchments, extra)

    return write


def assimilation(extra: str = "") -> Callable[[Path], Path]:
    """Return what writes a FourDVarNet configuration for a small untrained model."""

    def write(folder: Path) -> Path:
        from fourdvarnet_bundles import configuration

        return configuration(folder, extra)

    return write


def leaves(extra: str = "") -> Callable[[Path], Path]:
    """Return what writes a BallBerry configuration for the leaves of a small untrained canopy model."""

    def write(folder: Path) -> Path:
        from ball_berry_bundles import leaf_configuration

        return leaf_configuration(folder, extra)

    return write


OUDIN = "potential_evapotranspiration: oudin\nstart_time: 2000-01-01\n"
NEXTGEN = "inputs: nextgen\nrunoff_units: m h-1\npotential_evapotranspiration: "
ASSIMILATION = "bmi_components.fourdvarnet.component:FourDVarNet"
STREAMFLOW = "bmi_components.lstm.component:StreamflowLSTM"
ELEVATION = {"parameters": {"elev_mean": 700.0}}


def canopy(extra: str = "", sites: int = 1) -> Callable[[Path], Path]:
    """Return what writes a CanVeg configuration with few layers."""

    def write(folder: Path) -> Path:
        from canveg_configurations import configuration

        return configuration(folder, extra, sites=sites)

    return write


CANVEG = "bmi_components.canveg.component:CanVeg"
BALL_BERRY = "bmi_components.ball_berry.component:BallBerry"
SLOPE = {"parameters": {"conductance_slope": 12.0}}
DHBV = "bmi_components.hbv.component:DeltaHBV"
# In single precision the stores round: a micrometre of water is what NextGen is told to tolerate.
FIELD_CAPACITY = {"parameters": {"parFC": 250.0, "parBETA": 2.0}, "mass_tolerance": 1e-6}


def flux(extra: str = "", towers: tuple[str, ...] = ("US-One",), **bundle: Any) -> Callable[[Path], Path]:
    """Return what writes a small untrained flux model of two days' memory and a FluxLSTM configuration for it."""

    def write(folder: Path) -> Path:
        from flux_bundles import flux_configuration

        return flux_configuration(folder, f"start_time: 2010-06-01\n{extra}", towers, **{"days": 2, **bundle})

    return write


FLUX = "bmi_components.lstm.flux.component:FluxLSTM"
# Steps of more than two days, so that the window of days is full.
HALF_HOURS = {"steps": 100, "parts": 3}

NEXTGEN_CANOPY = "inputs: nextgen\npartial_step: estimate\ndevice: cpu:0\n"

EVAPORATION = "bmi_components.potential_evapotranspiration:PotentialEvapotranspiration"
OUDIN_AT = """
start_time: 2000-06-01
catchments: [{id: a, latitude: 40, attributes: {}}, {id: b, latitude: 5, attributes: {}}]
"""

RESERVOIR = "linear_reservoir:LinearReservoir"
RESIDENCE = {"parameters": {"residence_time": 4.0}}

CASES = [
    Case("reservoir", RESERVOIR, "residence_time: [5.0]\n", RESIDENCE),
    Case("reservoirs", RESERVOIR, "residence_time: [5.0, 3.0, 80.0]\n", RESIDENCE),
    Case(
        "reservoir-estimate",
        RESERVOIR,
        "residence_time: [5.0]\npartial_step: estimate\n",
        RESIDENCE,
        bmi_tester=False,
    ),
    Case("torch", "framework_reservoirs:TorchReservoir", "residence_time: [5.0, 3.0]\n", RESIDENCE, "torch"),
    Case(
        "torch-estimate",
        "framework_reservoirs:TorchReservoir",
        "residence_time: [5.0]\npartial_step: estimate\n",
        RESIDENCE,
        "torch",
        bmi_tester=False,
    ),
    Case(
        "jax",
        "framework_reservoirs:JaxReservoir",
        "residence_time: [5.0, 3.0]\n",
        {**RESIDENCE, "mass_tolerance": 1e-6},
        "jax",
    ),
    Case("dhbv11p", DHBV, dhbv("1.1p"), FIELD_CAPACITY, "torch"),
    Case(
        "dhbv10-many", DHBV, dhbv("1.0", areas=(12.5, 300.0, 4.0)), FIELD_CAPACITY, "torch", bmi_tester=False
    ),
    Case("dhbv20-many", DHBV, dhbv("2.0", areas=(12.5, 2600.0)), FIELD_CAPACITY, "torch"),
    Case(
        "dhbv20-device",
        DHBV,
        dhbv("2.0", "device: cpu:0\n", (12.5, 2600.0)),
        FIELD_CAPACITY,
        "torch",
        bmi_tester=False,
    ),
    Case(
        "dhbv20-nextgen-penman-monteith",
        DHBV,
        dhbv("2.0", NEXTGEN + "penman_monteith\npartial_step: estimate\n"),
        FIELD_CAPACITY,
        "torch",
    ),
    Case(
        "dhbv20-nextgen-hargreaves",
        DHBV,
        dhbv("2.0", NEXTGEN + "hargreaves\npartial_step: estimate\nstart_time: 2020-01-01\n"),
        FIELD_CAPACITY,
        "torch",
        bmi_tester=False,
    ),
    Case(
        "dhbv20-daily-penman-monteith",
        DHBV,
        dhbv("2.0", "potential_evapotranspiration: penman_monteith_daily\n"),
        FIELD_CAPACITY,
        "torch",
        bmi_tester=False,
    ),
    Case("dhbv20-hourly", DHBV, dhbv("2.0-hourly", NEXTGEN + "penman_monteith\n"), FIELD_CAPACITY, "torch"),
    Case(
        "dhbv21-hourly",
        DHBV,
        dhbv("2.1-hourly", NEXTGEN + "penman_monteith\n"),
        FIELD_CAPACITY,
        "torch",
        bmi_tester=False,
    ),
    Case("dhbv11p-oudin", DHBV, dhbv("1.1p", OUDIN), FIELD_CAPACITY, "torch", bmi_tester=False),
    Case("lstm", STREAMFLOW, streamflow(("lstm",)), ELEVATION, "torch"),
    Case(
        "lstm-ensemble",
        STREAMFLOW,
        streamflow(("lstm", "gru", "layered"), "", 3),
        ELEVATION,
        "torch",
        bmi_tester=False,
    ),
    Case("lstm-window", STREAMFLOW, streamflow(("lstm",), "state_mode: window\n", 2), ELEVATION, "torch"),
    Case("lstm-feedback", STREAMFLOW, streamflow(("feedback",)), ELEVATION, "torch"),
    Case("lstm-gmm", STREAMFLOW, streamflow(("gmm",)), ELEVATION, "torch", bmi_tester=False),
    Case("lstm-two-timescales", STREAMFLOW, streamflow(("multi_timescale",), "", 2), ELEVATION, "torch"),
    Case(
        "lstm-device",
        STREAMFLOW,
        streamflow(("lstm", "mass_conserving"), "device: cpu:0\n", 2),
        ELEVATION,
        "torch",
        bmi_tester=False,
    ),
    Case("flux-daily", FLUX, flux(), requires="torch"),
    Case(
        "flux-many-held",
        FLUX,
        flux("missing_day: hold\n", ("US-One", "US-Two", "US-Six")),
        requires="torch",
        bmi_tester=False,
    ),
    Case("flux-half-hourly", FLUX, flux("inputs: half_hourly\n"), HALF_HOURS, "torch"),
    Case("flux-trees", FLUX, flux(model="random_forest"), bmi_tester=False),
    Case("oudin", EVAPORATION, OUDIN_AT),
    Case("penman-monteith", EVAPORATION, "method: penman_monteith\ncatchments: [{id: a, attributes: {}}]\n"),
    Case(
        "lorenz63",
        "bmi_components.fourdvarnet.forecast:Lorenz63",
        "state: [[8.0, 0.0, 30.0], [1.0, 1.0, 20.0]]\n",
    ),
    Case("fourdvarnet", ASSIMILATION, assimilation(), requires="jax"),
    Case(
        "fourdvarnet-ensemble",
        ASSIMILATION,
        assimilation("sites: 2\nstart: warm\nbackground: true\nensemble: {members: 3, noise: 1.4}\n"),
        requires="jax",
        bmi_tester=False,
    ),
    Case("canveg", CANVEG, canopy(), SLOPE, "jax"),
    Case("canveg-nextgen-device", CANVEG, canopy(NEXTGEN_CANOPY, 2), SLOPE, "jax", bmi_tester=False),
    Case("ball-berry", BALL_BERRY, "ball_berry.yaml", SLOPE, "jax"),
    Case("ball-berry-hybrid", BALL_BERRY, leaves("leaves: 2\n"), SLOPE, "jax"),
    Case("ball-berry-device", BALL_BERRY, leaves("device: cpu:0\n"), SLOPE, "jax", bmi_tester=False),
]
