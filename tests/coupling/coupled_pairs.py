"""Pairs of components that are coupled in tests: a canopy in JAX over δHBV in torch, and reservoirs in both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from evaporating_canopy import EvaporatingCanopy
from hbv_bundles import configuration
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.coupling import Coupling, Link, couple
from bmi_components.differentiable import Differentiable
from bmi_components.hbv.component import DeltaHBV
from bmi_components.stepper import ArrayStepper
from bmi_components.variables import Variable, variable

Array = NDArray[np.float64]
DAY, HOUR = 86_400.0, 3_600.0
EVAPORATION = "potential_evapotranspiration"


def weather(days: int, seed: int = 0) -> tuple[dict[str, Array], dict[str, Array]]:
    """Hourly weather of one canopy, and the daily rain and temperature of two catchments."""
    rng = np.random.default_rng(seed)
    hours = np.arange(days * 24)
    radiation = 400.0 * np.clip(np.sin((hours % 24 - 6.0) / 12.0 * np.pi), -0.1, None) + rng.normal(
        0, 20, hours.size
    )
    air = 12.0 + 5.0 * np.sin((hours % 24 - 9.0) / 12.0 * np.pi) + rng.normal(0, 1, hours.size)
    daily = {
        "precipitation": rng.gamma(0.4, 8.0, (days, 2)),
        "temperature": np.repeat(air.reshape(days, 24).mean(1)[:, None], 2, axis=1),
    }
    return {"net_radiation": radiation[:, None], "temperature": air[:, None]}, daily


def canopy_over_hbv(folder: Path, days: int, physics: str = "1.1p", dtype: str = "float64") -> Coupling:
    """Return a canopy whose hourly evaporation (mm h-1) becomes the daily one (mm d-1) of two catchments."""
    (folder / "canopy.yaml").write_text("alpha: [1.26]\n")
    canopy, hbv = EvaporatingCanopy(), DeltaHBV()
    canopy.initialize(str(folder / "canopy.yaml"))
    hbv.initialize(str(configuration(folder, physics, (40.0, 900.0), f"dtype: {dtype}\n")))
    hourly, daily = weather(days)
    feeds = {f"canopy:{name}": values for name, values in hourly.items()}
    feeds |= {f"hbv:{name}": values for name, values in daily.items()}
    return couple(
        {"canopy": canopy, "hbv": hbv},
        [f"canopy:{EVAPORATION} -> hbv:{EVAPORATION}"],
        feeds,  # type: ignore[arg-type]
    )


class ReservoirSettings(Settings, kw_only=True, frozen=True):
    """A reservoir's framework, step and residence times."""

    framework: str
    step: float
    residence_time: list[float]


class ReservoirStepper(ArrayStepper):
    """Stores that lose S / k per day of what they hold, in explicit steps."""

    inputs = (variable("precipitation"),)
    outputs = (variable("runoff_rate"), variable("runoff_depth"))
    identity = "reservoirs"

    def __init__(self, settings: ReservoirSettings) -> None:
        self.framework, self.time_step, self.size = (
            settings.framework,
            settings.step,
            len(settings.residence_time),
        )
        self.values = {"k": np.array(settings.residence_time)}
        self.parameters = {"k": Variable("k", "d", "k", "Residence time", (0.1, 1e4))}
        self.state = {"storage": np.full(self.size, 20.0)}

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        """Advance one step."""
        runoff = self.state["storage"] / self.values["k"]
        self.state["storage"] = self.state["storage"] + (forcings - runoff) * (self.time_step / DAY)
        outputs[:] = np.concatenate([runoff, runoff / 1e3 / DAY])
        return outputs

    def initial_outputs(self, outputs: Any) -> None:
        """No runoff yet."""
        outputs[:] = 0.0

    def differentiable(self) -> Differentiable:
        """Return the same in either framework, step by step."""
        import jax.numpy as jnp
        import torch

        stack: Any = torch.stack if self.framework == "torch" else jnp.stack
        k, storage = self.values["k"], self.state["storage"].copy()
        rain, rate, depth = self.inputs[0].name, *(v.name for v in self.outputs)
        if self.framework == "torch":
            k, storage = torch.from_numpy(k), torch.from_numpy(storage)  # type: ignore[assignment]
        days = self.time_step / DAY

        def simulate(
            parameters: Mapping[str, Any], state: Any, inputs: Mapping[str, Any], time: float
        ) -> tuple[Any, dict[str, Any]]:
            (held,) = state
            rows = []
            for given in inputs[rain]:
                rows.append(held / parameters.get("k", k))
                held = held + (given - rows[-1]) * days
            runoff = stack(rows)
            return (held,), {rate: runoff, depth: runoff / 1e3 * days}

        return Differentiable(
            self.framework,
            simulate,
            (storage,),
            {"k": (self.size,)},
            {"k": (0.1, 1e4)},  # type: ignore[arg-type]
        )


class Reservoir(Component):
    """A component of either framework."""

    settings_type = ReservoirSettings

    def open(self, settings: ReservoirSettings) -> ReservoirStepper:
        """Return the reservoirs, with 20 mm each."""
        return ReservoirStepper(settings)


def reservoir(folder: Path, framework: str, step: float, *residence_times: float) -> Reservoir:
    """Return an initialized reservoir."""
    path = folder / f"{framework}.yaml"
    path.write_text(
        f"framework: {framework}\nstep: {step}\nresidence_time: [{', '.join(map(str, residence_times))}]\n"
    )
    component = Reservoir()
    component.initialize(str(path))
    return component


def cycle(folder: Path, how: str = "mean", mapped: bool = False) -> Coupling:
    """Return six-hourly reservoirs in JAX and daily ones in torch that feed each other."""
    pair = {
        "upper": reservoir(folder, "jax", 6 * HOUR, 3.0, 5.0),
        "lower": reservoir(folder, "torch", DAY, 9.0, 30.0),
    }
    weights = np.array([[0.25, 0.75], [0.5, 0.5]]) if mapped else None
    links = [
        Link("upper:runoff_rate", "lower:precipitation", how, weights),  # type: ignore[arg-type]
        Link("lower:runoff_rate", "upper:precipitation"),
    ]
    return couple(pair, links)
