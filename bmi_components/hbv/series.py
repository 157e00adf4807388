"""Many steps of the physics at once, differentiable: compiled on the CPU, plain torch elsewhere."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from bmi_components.errors import ValueShapeError
from bmi_components.hbv.physics import FORCINGS, INITIAL_STORE, Physics, physics_variant
from bmi_components.kernels import SeriesKernel, SeriesSignature

__all__ = ["Series", "initial_stores", "series_kernel", "simulate_physics", "simulate_physics_in_torch"]


class Series(NamedTuple):
    """What a run of the physics gives: outputs ``[time, output, catchment]`` and the stores after the last step."""

    outputs: Tensor
    stores: Tensor


def initial_stores(
    physics: Physics, catchments: int, components: int, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> Tensor:
    """Return the stores before the first step: 0.001 mm each, ``[store, catchment, component]``."""
    shape = (len(physics.stores), catchments, components)
    return torch.full(shape, INITIAL_STORE, dtype=dtype, device=device)


def _signature(physics: Physics, outputs: tuple[str, ...], raw: bool) -> SeriesSignature:
    bounds = tuple((p.lower, p.upper - p.lower) for p in physics.bounds() if p.symbol in physics.dynamic)
    return SeriesSignature(
        step=lambda stores, p, forcing, site: physics.step(stores, p, forcing, site, physics.dt),
        stores=physics.stores,
        static=tuple(s for s in physics.parameters if s not in physics.dynamic),
        dynamic=physics.dynamic,
        forcings=FORCINGS,
        sites=physics.sites,
        outputs=outputs,
        dynamic_bounds=bounds if raw else None,
    )


@cache
def series_kernel(
    name: str,
    dynamic: tuple[str, ...],
    outputs: tuple[str, ...],
    components: int,
    dtype: str,
    raw: bool = False,
) -> SeriesKernel:
    """Return the compiled loops of a variant; compiled once per process."""
    return SeriesKernel(_signature(physics_variant(name, dynamic), outputs, raw), components, dtype)


class _CompiledSeries(Function):
    """The compiled loops as one differentiable operation; the backward pass runs the stores again."""

    @staticmethod
    def forward(
        context: Any,
        kernel: SeriesKernel,
        stores: Tensor,
        static: Tensor,
        dynamic: Tensor,
        forcing: Tensor,
        site: Tensor,
    ) -> tuple[Tensor, Tensor]:
        steps, _, catchments = forcing.shape
        inputs = [t.contiguous() for t in (stores, static, dynamic, forcing, site)]
        final = inputs[0].clone()
        out = forcing.new_empty(steps, len(kernel.signature.outputs), catchments)
        addresses = [t.data_ptr() for t in (final, *inputs[1:], out)]
        kernel.simulate(steps, catchments, *addresses)
        context.kernel = kernel
        context.save_for_backward(*inputs)
        return out, final

    @staticmethod
    @once_differentiable
    def backward(context: Any, out_gradient: Tensor, final_gradient: Tensor) -> tuple[Tensor | None, ...]:
        kernel: SeriesKernel = context.kernel
        stores, static, dynamic, forcing, site = context.saved_tensors
        steps, _, catchments = forcing.shape
        gradients = [
            final_gradient.contiguous().clone(),
            torch.empty_like(static),
            torch.empty_like(dynamic),
            torch.empty_like(forcing),
        ]
        scratch = forcing.new_empty(kernel.scratch_size(steps))
        tensors = (stores, static, dynamic, forcing, site, out_gradient.contiguous(), *gradients, scratch)
        kernel.adjoint(steps, catchments, *(t.data_ptr() for t in tensors))
        return (None, *gradients, None)


def simulate_physics(
    physics: Physics,
    stores: Tensor,
    static: Tensor,
    dynamic: Tensor,
    forcing: Tensor,
    site: Tensor,
    outputs: tuple[str, ...],
    raw: bool = False,
) -> Series:
    """Run the physics over a series.

    Parameters
    ----------
    physics : Physics
        The variant.
    stores : Tensor
        Stores before the first step, mm, ``[store, catchment, component]``.
    static : Tensor
        Parameters that do not vary, in their own units, ``[parameter, catchment, component]``, in the order of the
        variant without its dynamic ones.
    dynamic : Tensor
        The others, ``[time, catchment, parameter, component]``.
    forcing : Tensor
        Precipitation [mm d-1], temperature [degC] and potential evapotranspiration [mm d-1],
        ``[time, 3, catchment]``.
    site : Tensor
        The variant's ``sites``, ``[site, catchment]``; no gradient is taken with respect to it.
    outputs : tuple of str
        Names of fluxes, or of stores after the step; averaged over the components.
    raw : bool
        Whether ``dynamic`` is a network's output, to be mapped between the bounds by a sigmoid.

    Returns
    -------
    Series
        Differentiable with respect to stores, parameters and forcing.

    Raises
    ------
    ValueShapeError
        If the shapes do not fit together.
    """
    _check_shapes(physics, stores, static, dynamic, forcing, site)
    if forcing.device.type == "cpu" and forcing.dtype in (torch.float32, torch.float64):
        dtype = str(forcing.dtype).removeprefix("torch.")
        kernel = series_kernel(physics.name, physics.dynamic, outputs, stores.shape[-1], dtype, raw)
        return Series(*_CompiledSeries.apply(kernel, stores, static, dynamic, forcing, site))  # type: ignore[no-untyped-call]
    return simulate_physics_in_torch(physics, stores, static, dynamic, forcing, site, outputs, raw)


def _check_shapes(
    physics: Physics, stores: Tensor, static: Tensor, dynamic: Tensor, forcing: Tensor, site: Tensor
) -> None:
    steps, _, catchments = forcing.shape
    components, moving = stores.shape[-1], len(physics.dynamic)
    for name, tensor, shape in (
        ("stores", stores, (len(physics.stores), catchments, components)),
        ("static", static, (len(physics.parameters) - moving, catchments, components)),
        ("dynamic", dynamic, (steps, catchments, moving, components)),
        ("forcing", forcing, (steps, len(FORCINGS), catchments)),
        ("site", site, (len(physics.sites), catchments)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueShapeError(
                f"{name} has the shape {tuple(tensor.shape)}; HBV {physics.name} needs {shape}"
            )


def simulate_physics_in_torch(
    physics: Physics,
    stores: Tensor,
    static: Tensor,
    dynamic: Tensor,
    forcing: Tensor,
    site: Tensor,
    outputs: tuple[str, ...],
    raw: bool = False,
) -> Series:
    """Run the physics step by step in torch: on any device, and what the compiled loops are tested against."""
    components = stores.shape[-1]
    if raw:
        bounds = [p for p in physics.bounds() if p.symbol in physics.dynamic]
        lower = dynamic.new_tensor([p.lower for p in bounds])[:, None]
        width = dynamic.new_tensor([p.upper - p.lower for p in bounds])[:, None]
        dynamic = lower + torch.sigmoid(dynamic) * width
    constant = dict(
        zip((s for s in physics.parameters if s not in physics.dynamic), static.unbind(0), strict=True)
    )
    sites = {name: site[i].unsqueeze(-1).expand(-1, components) for i, name in enumerate(physics.sites)}
    state = dict(zip(physics.stores, stores.unbind(0), strict=True))
    series = []
    for t in range(forcing.shape[0]):
        parameters = {**constant, **dict(zip(physics.dynamic, dynamic[t].unbind(1), strict=True))}
        weather = {
            name: forcing[t, i].unsqueeze(-1).expand(-1, components) for i, name in enumerate(FORCINGS)
        }
        state, fluxes = physics.step(state, parameters, weather, sites, physics.dt)
        everything = {**fluxes, **state}
        series.append(torch.stack([everything[name].mean(-1) for name in outputs]))
    return Series(torch.stack(series), torch.stack([state[name] for name in physics.stores]))
