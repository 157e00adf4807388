"""Compiled kernels equal the torch functions they come from, values and derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bmi_components.hbv.physics import FORCINGS, VARIANTS, Physics, physics_variant
from bmi_components.hbv.routing import route, unit_hydrograph
from bmi_components.hbv.series import initial_stores, simulate_physics, simulate_physics_in_torch
from bmi_components.kernels import Dense, Elementwise
from bmi_components.kernels.dense import SAMPLES
from bmi_components.kernels.program import Program, repeated
from bmi_components.kernels.publishing import accumulate, copied, gather, publish, total
from bmi_components.kernels.routing import route_step


def _functions(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    positive = torch.clamp(x, min=1e-6)
    return (
        positive**y,
        torch.exp(-y),
        torch.log(positive),
        torch.tanh(x - y),
        torch.sigmoid(x - y),
        torch.where(x > y, torch.minimum(x, 2.0 * y), torch.maximum(x, y) - 3.0),
        torch.sqrt(positive) / (1.0 + y) - torch.abs(x),
        torch.sin(x) * torch.cos(y) + torch.atan(x),
    )


@pytest.fixture(scope="module", params=["float32", "float64"])
def elementwise(request: pytest.FixtureRequest) -> Elementwise:
    return Elementwise(_functions, 2, 8, request.param)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), count=st.integers(1, 70))
def test_elementwise_equals_torch_at_any_length(
    elementwise: Elementwise, data: st.DataObject, count: int
) -> None:
    numbers = st.floats(-5, 5, allow_nan=False, width=32)
    rows = data.draw(st.lists(st.tuples(numbers, numbers), min_size=count, max_size=count))
    inputs = np.ascontiguousarray(np.array(rows, elementwise.dtype).T)
    inputs[1] = np.abs(inputs[1]) + 0.1
    ours = elementwise(inputs, np.empty((8, count), elementwise.dtype))
    theirs = torch.stack(_functions(*torch.tensor(inputs, dtype=torch.float64))).numpy()
    tolerance = 3e-6 if elementwise.dtype == np.float32 else 1e-14
    # Differences of nearly equal numbers are known only to the rounding of what is subtracted.
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_not_a_number_stays_not_a_number() -> None:
    kernel = Elementwise(lambda x, y: (torch.minimum(x, y), torch.clamp(x, min=0.0), x**y), 2, 3, "float32")
    nan = np.full((2, 3), np.nan, np.float32)
    nan[1] = 1.0
    assert np.isnan(kernel(nan, np.empty((3, 3), np.float32))).all()


def test_an_operation_without_machine_code_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="cumsum"):
        Elementwise(lambda x: (torch.cumsum(x, 0),), 1, 1, "float32")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (48, 256), (130, 7), (1024, 512)])
def test_dense_equals_matrix_vector_product(outputs: int, inputs: int, dtype: type) -> None:
    rng = np.random.default_rng(outputs)
    weights, x = rng.normal(size=(outputs, inputs)).astype(dtype), rng.normal(size=inputs).astype(dtype)
    bias = rng.normal(size=outputs).astype(dtype)
    dense = Dense(weights)
    padded, y = dense.pad(bias[None]), np.empty((1, dense.rows), dtype)
    Program([dense.call(1, padded, x[None], y)]).run()
    exact = weights.astype(float) @ x.astype(float) + bias
    tolerance = np.finfo(dtype).eps * 8 * np.sqrt(inputs) * 4
    np.testing.assert_allclose(y[0, :outputs], exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (48, 256), (130, 7)])
@pytest.mark.parametrize("samples", [SAMPLES, 3 * SAMPLES])
@pytest.mark.parametrize("own_bias", [False, True])
def test_each_of_many_samples_gets_the_bits_it_gets_alone(
    outputs: int, inputs: int, samples: int, dtype: type, own_bias: bool
) -> None:
    rng = np.random.default_rng(outputs)
    dense = Dense(rng.normal(size=(outputs, inputs)).astype(dtype))
    bias = dense.pad(rng.normal(size=(samples if own_bias else 1, outputs)))
    x = rng.normal(size=(samples, inputs + 3)).astype(dtype)[:, 2:-1]  # rows that lie apart
    together, alone = np.empty((samples, dense.rows + 5), dtype), np.empty((samples, dense.rows), dtype)
    each = [
        dense.call(1, bias[k : k + 1] if own_bias else bias, x[k : k + 1], alone[k : k + 1])
        for k in range(samples)
    ]
    Program([dense.call(samples, bias, x, together), *each]).run()
    np.testing.assert_array_equal(together[:, :outputs], alone[:, :outputs])


def test_samples_that_make_no_whole_group_are_refused() -> None:
    dense, samples = Dense(np.ones((1, 1))), np.zeros((3, 64))
    with pytest.raises(ValueError, match="multiple of 4"):
        dense.call(3, samples, samples, samples)


def test_calls_are_repeated_and_arrays_copied_by_their_strides() -> None:
    double = Elementwise(lambda x: (x + x,), 1, 1, "float64")
    memory, target = np.arange(15.0).reshape(3, 5), np.zeros((3, 3))
    at = memory.ctypes.data
    calls = [repeated((double.run, (2, at, at)), 3, memory.strides[0]), copied(memory[:, 1:4].T, target)]
    Program(calls).run()
    np.testing.assert_array_equal(memory, [[0, 2, 2, 3, 4], [10, 12, 7, 8, 9], [20, 22, 12, 13, 14]])
    np.testing.assert_array_equal(target, memory[:, 1:4].T)
    with pytest.raises(ValueError, match="cannot be copied"):
        copied(memory, target)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_are_gathered_into_any_layout(dtype: str) -> None:
    values, source = np.arange(12.0), np.array([2, 0])
    gathered = np.zeros((3, 2), dtype)
    addresses = (a.ctypes.data for a in (source, values, gathered))
    gather(dtype)(2, 3, *addresses, 1, 2)
    np.testing.assert_array_equal(gathered.T, values.reshape(4, 3)[source])


# Series ---------------------------------------------------------------------------------------------------------------


def random_run(
    physics: Physics, catchments: int, components: int, steps: int, dtype: torch.dtype, seed: int
) -> dict[str, Tensor]:
    """Parameters within their bounds and weather on both sides of freezing."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    bounds = physics.bounds()
    lower, width = (
        torch.tensor(v, dtype=torch.float64)
        for v in zip(*((p.lower, p.upper - p.lower) for p in bounds), strict=True)
    )
    moving = torch.tensor([p.symbol in physics.dynamic for p in bounds])
    lower, width = lower[:, None, None], width[:, None, None]
    static = (lower + width * uniform(len(bounds), catchments, components))[~moving]
    dynamic = (lower + width * uniform(steps, len(bounds), catchments, components))[:, moving].transpose(1, 2)
    rain = 30.0 * uniform(steps, catchments) * (uniform(steps, catchments) < 0.5)
    forcing = torch.stack(
        [rain, 30.0 * uniform(steps, catchments) - 12.0, 6.0 * uniform(steps, catchments)], 1
    )
    site = torch.stack([3000.0 * uniform(catchments), 6000.0 * uniform(catchments)])[: len(physics.sites)]
    stores = initial_stores(physics, catchments, components, torch.float64) + 100.0 * uniform(
        len(physics.stores), catchments, components
    )
    return {
        name: tensor.to(dtype)
        for name, tensor in {
            "stores": stores,
            "static": static,
            "dynamic": dynamic,
            "forcing": forcing,
            "site": site,
        }.items()
    }


def everything(physics: Physics) -> tuple[str, ...]:
    return (*physics.fluxes, *physics.stores)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("catchments", "components"), [(1, 16), (5, 4), (9, 1), (3, 3), (2, 32)])
def test_compiled_loops_equal_torch_whatever_the_lanes(
    variant: str, catchments: int, components: int
) -> None:
    physics = VARIANTS[variant] if variant != "1.0" else physics_variant("1.0", ("BETA", "BETAET"))
    run = random_run(physics, catchments, components, 20, torch.float64, catchments)
    compiled = simulate_physics(physics, **run, outputs=everything(physics))
    plain = simulate_physics_in_torch(physics, **run, outputs=everything(physics))
    torch.testing.assert_close(compiled.outputs, plain.outputs, rtol=1e-11, atol=1e-10)
    torch.testing.assert_close(compiled.stores, plain.stores, rtol=1e-11, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), catchments=st.integers(1, 20), steps=st.integers(1, 12))
def test_single_precision_follows_double(seed: int, catchments: int, steps: int) -> None:
    physics = VARIANTS["1.1p"]
    run = random_run(physics, catchments, 4, steps, torch.float64, seed)
    double = simulate_physics(physics, **run, outputs=everything(physics))
    single = simulate_physics(physics, **{k: v.float() for k, v in run.items()}, outputs=everything(physics))
    torch.testing.assert_close(single.outputs.double(), double.outputs, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("catchments", "components"), [(2, 16), (5, 4), (2, 3)])
def test_adjoint_equals_torch_autograd(variant: str, catchments: int, components: int) -> None:
    physics = VARIANTS[variant] if variant != "1.0" else physics_variant("1.0", ("BETA", "BETAET"))
    outputs = (*physics.runoff, "evapotranspiration", "soil_moisture")
    gradients = []
    for simulate in (simulate_physics, simulate_physics_in_torch):
        run = random_run(physics, catchments, components, 12, torch.float64, 3)
        leaves = [run[name].requires_grad_() for name in ("stores", "static", "dynamic", "forcing")]
        result = simulate(physics, **run, outputs=outputs)
        weights = torch.linspace(0.5, 1.5, result.outputs.numel(), dtype=torch.float64).view_as(
            result.outputs
        )
        scalar = (result.outputs * weights).sum() + (result.stores * 0.3).sum()
        gradients.append(torch.autograd.grad(scalar, leaves))
    for name, ours, theirs in zip(("stores", "static", "dynamic", "forcing"), *gradients, strict=True):
        torch.testing.assert_close(
            ours, theirs, rtol=1e-9, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.mark.parametrize(("catchments", "components"), [(3, 16), (5, 4), (2, 3)])
def test_the_sigmoid_inside_the_loops_equals_the_one_outside(catchments: int, components: int) -> None:
    physics = VARIANTS["1.1p"]
    results = []
    for simulate in (simulate_physics, simulate_physics_in_torch):
        run = random_run(physics, catchments, components, 10, torch.float64, 5)
        run["dynamic"] = torch.randn(
            run["dynamic"].shape, generator=torch.Generator().manual_seed(1)
        ).double()
        leaf = run["dynamic"].requires_grad_()
        outputs = simulate(physics, **run, outputs=physics.runoff, raw=True).outputs
        results.append((outputs.detach(), *torch.autograd.grad(outputs.square().sum(), leaf)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_adjoint_equals_finite_differences() -> None:
    physics = VARIANTS["1.1p"]
    run = random_run(physics, 1, 4, 25, torch.float64, 11)

    def streamflow(static: Tensor) -> Tensor:
        return simulate_physics(physics, **(run | {"static": static}), outputs=physics.runoff).outputs.sum()

    static = run["static"].requires_grad_()
    (gradient,) = torch.autograd.grad(streamflow(static), static)
    for index in np.ndindex(*static.shape):
        step = 1e-6 * max(1.0, abs(float(static[index].detach())))
        shifted = [static.detach().clone() for _ in range(2)]
        shifted[0][index] += step
        shifted[1][index] -= step
        slope = (streamflow(shifted[0]) - streamflow(shifted[1])) / (2 * step)
        assert float(gradient[index]) == pytest.approx(float(slope), rel=1e-4, abs=1e-5), index


# The step's small kernels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [1, 2, 15, 72])
def test_routing_step_by_step_equals_routing_a_series(dtype: str, length: int) -> None:
    rng = np.random.default_rng(length)
    n, parts, steps = 3, 2, 40
    flow = rng.gamma(0.5, 4.0, (steps, parts, n)).astype(dtype)
    a, b = torch.tensor([0.5, 1.0, 2.0], dtype=getattr(torch, dtype)), torch.tensor([1.0, 4.0, 6.0])
    uh = unit_hydrograph(a, b.to(a), length)
    expected, waiting = route(torch.tensor(flow), uh[:, None])
    hydrograph, under_way = uh.numpy().copy(), np.zeros((length - 1, parts, n), dtype)
    for t in range(steps):
        now, routed = np.ascontiguousarray(flow[t]), np.empty((parts, n), dtype)
        route_step(dtype)(length, parts, n, *(x.ctypes.data for x in (hydrograph, now, under_way, routed)))
        np.testing.assert_allclose(routed, expected[t].numpy(), rtol=2e-5 if dtype == "float32" else 1e-13)
    np.testing.assert_allclose(
        under_way, waiting.numpy(), rtol=2e-5 if dtype == "float32" else 1e-13, atol=1e-6
    )


def test_gradient_of_routing_equals_finite_differences() -> None:
    torch.manual_seed(1)
    flow, uh = torch.rand(9, 2, 3).double().requires_grad_(), torch.rand(4, 1, 3).double().requires_grad_()
    waiting = torch.rand(3, 2, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(route, (flow, uh, waiting))


def test_routing_in_pieces_loses_no_water() -> None:
    torch.manual_seed(0)
    flow = torch.rand(50, 4, dtype=torch.float64)
    uh = unit_hydrograph(torch.rand(4).double() * 2.9, torch.rand(4).double() * 6.5, 15)
    whole, rest = route(flow, uh)
    pieces, waiting = [], None
    for start, end in ((0, 1), (1, 2), (2, 30), (30, 50)):
        routed, waiting = route(flow[start:end], uh, waiting)
        pieces.append(routed)
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(whole.sum() + rest.sum(), flow.sum(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_totals_and_published_values(dtype: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(5, 3)).astype(dtype)
    summed, out = np.ones((5, 3)), np.empty((2, 3))
    source, factor = np.array([4, 1]), rng.normal(size=(2, 3))
    publish(dtype)(2, 3, *(a.ctypes.data for a in (values, source, factor, out)))
    accumulate(dtype)(values.size, values.ctypes.data, summed.ctypes.data)
    np.testing.assert_array_equal(out, values[source].astype(float) * factor)
    np.testing.assert_array_equal(summed, 1.0 + values.astype(float))
    result = np.empty(3, dtype)
    total(dtype)(5, 3, values.ctypes.data, result.ctypes.data)
    np.testing.assert_allclose(result, values.sum(0), rtol=1e-6)


def test_every_variant_is_driven_by_the_same_three() -> None:
    assert FORCINGS == ("precipitation", "temperature", "potential_evapotranspiration")
