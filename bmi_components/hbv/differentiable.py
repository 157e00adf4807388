"""δHBV as a function of physical parameters, attributes and weights over a series: for gradients through a coupling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bmi_components.differentiable import Differentiable
from bmi_components.hbv.driver import Driver
from bmi_components.hbv.model import Catchments, HBVState
from bmi_components.hbv.physics import FORCINGS

if TYPE_CHECKING:
    from bmi_components.hbv.stepper import HBVStepper

__all__ = ["differentiable"]

Tensors = Mapping[str, Tensor]


class _Within(nn.Module):
    """Calls functions while a model's weights are others."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], Any]) -> Any:
        return function()


def differentiable(stepper: HBVStepper, driver: Driver) -> Differentiable:
    """Return a stepper as it stands as a pure function.

    Its parameters: physical ones (``parFC``), each held at one value per catchment for all components and times, as
    ``set_value`` holds them; attributes, with all that the network makes of them; and the network's weights, by their
    names in the bundle. Attributes that the equations themselves use (elevation, area) are data.

    Parameters
    ----------
    stepper
        Bound to its catchments.
    driver
        The stepper's own, for tensors.
    """
    shared, size = stepper.shared, stepper.size
    model = shared.model
    start, state, scaling = stepper.as_tensors()
    attributes, record = stepper.static_attributes(), stepper.weather_before()
    weights = {name: tuple(weight.shape) for name, weight in shared.whole.named_parameters()}
    in_equations = {model.attribute_names[column] for column in model.site_columns}
    static_names = [p.published_name for p in model.static_bounds]
    dynamic_names = [p.published_name for p in model.dynamic_bounds]
    held = stepper.held_parameters()

    def catchments_of(parameters: Tensors) -> Catchments:
        """What the network makes of attributes, with what is held put in its place."""
        columns = [parameters.get(name, attributes[:, i]) for i, name in enumerate(model.attribute_names)]
        if any(name in weights or name in model.attribute_names for name in parameters):
            changed = torch.stack(columns, dim=1)
            if record is None:
                bound = shared.whole.bind(changed, None)
            else:
                bound, _ = shared.whole.warm_up(record, changed)
            parameters = {**held, **parameters}
        else:
            bound = start
        rows = [
            parameters[name][:, None].expand_as(row) if name in parameters else row
            for name, row in zip(static_names, bound.static, strict=True)
        ]
        return bound._replace(static=torch.stack(rows))

    def scaling_of(parameters: Tensors) -> tuple[Tensor, Tensor]:
        lower, width = scaling[0].unbind(1), scaling[1].unbind(1)
        pairs = [
            (low, wide)
            if name not in parameters
            else (parameters[name][:, None].expand_as(low), torch.zeros_like(wide))
            for name, low, wide in zip(dynamic_names, lower, width, strict=True)
        ]
        if not pairs:
            return scaling[0], scaling[1]
        return torch.stack([low for low, _ in pairs], dim=1), torch.stack([wide for _, wide in pairs], dim=1)

    def forcing_of(inputs: Tensors, time: float) -> Tensor:
        """Return ``[step, catchment, 3]``."""
        rows = torch.stack([inputs[v.name] for v in driver.inputs])
        if driver.prepare is not None:
            rows = driver.prepare(rows, stepper.time_step)
        if driver.forcing is not None:
            steps = enumerate(rows.unbind(1))
            rows = torch.stack([driver.forcing(r, time + i * stepper.time_step) for i, r in steps], dim=1)
        return rows[: len(FORCINGS)].permute(1, 2, 0)

    def run(
        parameters: Tensors, state: HBVState, inputs: Tensors, time: float
    ) -> tuple[HBVState, dict[str, Tensor]]:
        forcing = forcing_of(inputs, time)
        after, values, _ = model.simulate_scaled(
            state, forcing, catchments_of(parameters), scaling_of(parameters)
        )
        return after, stepper.published(state, forcing, values)

    whole = _Within(shared.whole)

    def simulate(
        parameters: Tensors, state: HBVState, inputs: Tensors, time: float
    ) -> tuple[HBVState, dict[str, Tensor]]:
        others = {f"model.{name}": value for name, value in parameters.items() if name in weights}
        found: tuple[HBVState, dict[str, Tensor]] = functional_call(
            whole, others, (lambda: run(parameters, state, inputs, time),)
        )
        return found

    known = {name: (size,) for name in stepper.parameters if name not in in_equations}
    ranges = {name: v.valid_range for name, v in stepper.parameters.items() if v.valid_range is not None}
    return Differentiable("torch", simulate, state, {**known, **weights}, ranges, shared.device, shared.dtype)
