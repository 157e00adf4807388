"""The solver: equal to the reference given its weights, blind to batch mates, right in its derivatives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fourdvarnet_models import WINDOW, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.convolution import convolve
from bmi_components.fourdvarnet.lorenz import system, trajectory
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.priors import (
    BilinearSettings,
    OdeSettings,
    TwoScaleSettings,
    make_prior,
)
from bmi_components.fourdvarnet.solver import (
    Solution,
    SolverSettings,
    first_guess,
    interpolate,
    solve,
    variational_cost,
)

STARTER_LAYERS = {
    "conv_in": "conv_in",
    "conv_hidden": "conv_hidden",
    "linear": "bilin_1",
    "factor_1": "bilin_21",
    "factor_2": "bilin_22",
    "conv_out": "conv_out",
}
STARTER = SolverSettings(
    iterations=15,
    update="starter",
    gradient_rate=10.0,
    observation_cost="observed",
    observation_weight=0.1,
    start="zeros",
)
SMALL_PRIORS = {
    "two_scale": TwoScaleSettings(hidden=3, width=5, scale=4),
    "bilinear": BilinearSettings(hidden=4, scales=(4, 1)),
    "quadratic": BilinearSettings(hidden=4, scales=(1,), quadratic=True),
}


class Starter:
    """4dvarnet-starter's Lorenz-63 solver with its own random weights, and what it gave."""

    def __init__(self, shared_data: Path) -> None:
        with np.load(shared_data / "golden" / "fourdvarnet" / "starter_l63_random.npz") as file:
            self.golden = {name: file[name] for name in file.files}
        self.prior = make_prior(BilinearSettings(scales=(5, 1)), np.zeros(3), np.ones(3))
        self.modulation = ModulationSettings(hidden=50, width=3, output_width=3, positions="component")
        self.parameters = {
            "prior": {
                f"scale_{scale}": {
                    ours: self.layer(f"prior_cost.priors.{place}.{theirs}")
                    for ours, theirs in STARTER_LAYERS.items()
                }
                for place, scale in enumerate((5, 1))
            },
            "modulation": {
                "gates": self.layer("grad_mod.gates"),
                "conv_out": self.layer("grad_mod.conv_out"),
            },
            "weights": {"observation": jnp.sqrt(jnp.float32(0.1)), "prior": jnp.float32(1.0)},
        }
        self.observations = jnp.asarray(self.golden["input"].transpose(0, 2, 1))

    def layer(self, name: str) -> dict[str, Array]:
        """Their 3 x 3 kernels see images one pixel wide: only the middle column meets anything but padding."""
        kernel = self.golden[f"w/{name}.weight"][:, :, :, 1].transpose(2, 1, 0)
        return {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(self.golden[f"w/{name}.bias"])}

    def run(self, axis: str | None) -> Solution:
        def one(window: Array) -> Solution:
            return solve(
                self.prior,
                self.modulation,
                STARTER,
                self.parameters,
                window,
                first_guess(STARTER, window),
                keep_iterates=True,
                axis=axis,
            )

        return jax.jit(jax.vmap(one, axis_name=axis))(self.observations)

    def reconstruct(self, x: Array) -> np.ndarray:
        """Phi, laid out as theirs: [window, component, time]."""
        reconstruct = partial(self.prior.reconstruct, self.parameters["prior"])
        found = jax.jit(jax.vmap(reconstruct))(x)
        return np.asarray(found).transpose(0, 2, 1)


@pytest.fixture(scope="module")
def starter(shared_data: Path) -> Starter:
    return Starter(shared_data)


def test_the_references_iterates_come_out_given_its_weights_and_its_mean_over_the_batch(
    starter: Starter,
) -> None:
    solution = starter.run("window")
    assert solution.iterates is not None
    iterates = np.asarray(solution.iterates).transpose(1, 0, 3, 2)
    np.testing.assert_allclose(iterates, starter.golden["iterates"], atol=1e-6)
    np.testing.assert_allclose(starter.reconstruct(solution.trajectory), starter.golden["output"], atol=1e-6)
    np.testing.assert_allclose(solution.cost.sum(), starter.golden["final_cost"], rtol=1e-5)


def test_each_window_for_itself_equals_the_reference_one_window_at_a_time(starter: Starter) -> None:
    alone = starter.reconstruct(starter.run(None).trajectory)
    np.testing.assert_allclose(alone, starter.golden["output_one_by_one"], atol=1e-6)


def observed_windows(count: int = 5, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = 8.0 * generator.normal(size=(count, WINDOW, 3))
    return np.where(generator.random(values.shape) < 0.3, values, np.nan)


@pytest.mark.parametrize("update", ["fablet", "starter"])
def test_an_analysis_does_not_depend_on_its_batch_mates(update: str) -> None:
    model = small_model(solver=SolverSettings(iterations=4, update=update))  # type: ignore[arg-type]
    windows = observed_windows(11)
    together = np.asarray(model.solve(windows).trajectory)
    order = np.random.default_rng(1).permutation(11)
    np.testing.assert_allclose(model.solve(windows[order]).trajectory, together[order], atol=1e-4)
    np.testing.assert_allclose(model.solve(windows[:1]).trajectory, together[:1], atol=1e-4)
    # a mate with observations that are absurdly far off, or with none, changes nothing
    mates = windows.copy()
    mates[1:] = 1e4 * np.nan_to_num(mates[1:])
    mates[2] = np.nan
    np.testing.assert_allclose(model.solve(mates).trajectory[0], together[0], atol=1e-4)


@pytest.mark.parametrize("prior", SMALL_PRIORS)
def test_a_window_without_observations_costs_only_its_prior(prior: str) -> None:
    model = small_model(prior=SMALL_PRIORS[prior])
    nothing = np.full((1, WINDOW, 3), np.nan)
    analysis = model.solve(nothing)
    assert np.isfinite(analysis.trajectory).all()
    standardised = model.standardised(analysis.trajectory)[0]
    own = jax.jit(model.prior.cost)(model.parameters["prior"], standardised)
    np.testing.assert_allclose(analysis.cost[0], own, rtol=1e-4)


def test_a_gradient_of_zero_is_no_division_by_zero() -> None:
    model = small_model(prior=OdeSettings())
    still = np.zeros((1, WINDOW, 3))  # Lorenz-63 rests here
    nothing = np.full_like(still, np.nan)

    def error(parameters: Any) -> Array:
        return jnp.sum(model.analyse(parameters, nothing, still).trajectory ** 2)

    derivatives = jax.tree.leaves(jax.jit(jax.grad(error))(model.parameters))
    assert all(np.isfinite(part).all() for part in derivatives)


def test_no_iterations_return_the_start() -> None:
    model = small_model()
    windows = observed_windows()
    start = 5.0 * np.random.default_rng(2).normal(size=windows.shape)
    analysis = model.solve(windows, start, iterations=0)
    np.testing.assert_allclose(analysis.trajectory, start, rtol=1e-5, atol=1e-5)
    assert analysis.costs.shape == (5, 0)


def test_more_iterations_begin_with_the_fewer_ones() -> None:
    model = small_model()
    windows = observed_windows()
    long = model.solve(windows, iterations=7, keep_iterates=True)
    assert long.iterates is not None
    short = model.solve(windows, iterations=3)
    np.testing.assert_allclose(long.iterates[:, 2], short.trajectory, atol=1e-4)
    np.testing.assert_allclose(long.costs[:, 3], short.cost, rtol=1e-4)


@pytest.mark.parametrize("prior", [*SMALL_PRIORS.values(), OdeSettings()])
def test_the_costs_gradient_is_that_of_finite_differences(prior: Any) -> None:
    with jax.enable_x64(True):
        model = small_model(dtype=jnp.float64, prior=prior)
        window = model.standardised(observed_windows(1)[0])
        x = jnp.asarray(np.random.default_rng(3).normal(size=window.shape))
        way = jnp.asarray(np.random.default_rng(4).normal(size=window.shape))

        def cost(x: Array) -> Array:
            return variational_cost(model.prior, model.parameters, x, window)

        check_derivative(cost, x, way)


def check_derivative(of: Callable[[Any], Array], at: Any, way: Any) -> None:
    """Compare a directional derivative with a central difference."""

    def moved(step: float) -> Any:
        return jax.tree.map(lambda a, b: a + step * b, at, way)

    of = jax.jit(of)
    gradient = jax.jit(jax.grad(of))(at)
    along = sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(way), strict=True))
    difference = (of(moved(1e-5)) - of(moved(-1e-5))) / 2e-5
    np.testing.assert_allclose(along, difference, rtol=1e-5)


@pytest.mark.parametrize("differentiation", ["unrolled", "checkpointed"])
def test_training_differentiates_through_all_iterations(differentiation: Any) -> None:
    with jax.enable_x64(True):
        model = small_model(dtype=jnp.float64)
        window = model.standardised(observed_windows(1)[0])
        keys = iter(jax.random.split(jax.random.key(5), 50))
        way = jax.tree.map(
            lambda leaf: jax.random.normal(next(keys), leaf.shape, leaf.dtype), model.parameters
        )

        def loss(parameters: Any) -> Array:
            start = interpolate(window)
            found = model.solve_window(parameters, window, start, differentiation=differentiation)
            return jnp.sum(found.trajectory**2)

        check_derivative(loss, model.parameters, way)


def test_one_step_differentiation_is_that_of_the_last_step_alone() -> None:
    model = small_model()
    window = model.standardised(observed_windows(1)[0])

    def gradient(differentiation: Any, iterations: int) -> tuple[Array, Any]:
        def loss(parameters: Any) -> tuple[Array, Array]:
            found = model.solve_window(
                parameters,
                window,
                interpolate(window),
                differentiation=differentiation,
                iterations=iterations,
            )
            return jnp.sum(found.trajectory**2), found.trajectory

        (_, trajectory), parts = jax.jit(jax.value_and_grad(loss, has_aux=True))(model.parameters)
        return trajectory, parts

    # with one iteration the last step is the only one
    for one, full in zip(
        *(jax.tree.leaves(gradient(kind, 1)) for kind in ("one_step", "unrolled")), strict=True
    ):
        np.testing.assert_allclose(one, full, rtol=1e-5)
    (same, truncated), (trajectory, full) = gradient("one_step", 4), gradient("unrolled", 4)
    np.testing.assert_allclose(same, trajectory, rtol=1e-5, atol=1e-5)
    gates = [parts["modulation"]["gates"]["kernel"] for parts in (truncated, full)]
    assert not np.allclose(*gates, rtol=0.1)
    directions = [np.asarray(part).ravel() for part in gates]
    assert np.corrcoef(*directions)[0, 1] > 0.2


def test_both_precisions_agree() -> None:
    windows = observed_windows()
    single = small_model(seed=6)
    with jax.enable_x64(True):
        double = small_model(seed=6, dtype=jnp.float64)
        double.parameters = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), single.parameters)
        found = double.solve(windows)
        assert found.trajectory.dtype == jnp.float64
        expected = np.asarray(found.trajectory)
    analysis = single.solve(windows)
    assert analysis.trajectory.dtype == jnp.float32
    np.testing.assert_allclose(analysis.trajectory, expected, rtol=1e-3, atol=1e-3)


def test_the_two_scale_prior_does_not_see_the_value_that_it_reconstructs() -> None:
    model = small_model()
    x = jnp.asarray(np.random.default_rng(7).normal(size=(WINDOW, 3)), jnp.float32)
    slope = jax.jit(jax.jacobian(lambda x: model.prior.reconstruct(model.parameters["prior"], x)))(x)
    own = np.einsum("tctd->tcd", np.asarray(slope))
    np.testing.assert_array_equal(own, 0.0)
    assert np.abs(slope).max() > 0.0


def test_an_even_kernel_is_one_with_a_centre_of_zero() -> None:
    generator = np.random.default_rng(8)
    x, kernel = (jnp.asarray(generator.normal(size=size), jnp.float32) for size in ((9, 2), (4, 2, 3)))
    whole = jnp.concatenate((kernel[:2], jnp.zeros((1, 2, 3)), kernel[2:]))
    np.testing.assert_allclose(convolve(x, kernel), convolve(x, whole), rtol=1e-5, atol=1e-6)
    for feature in range(3):
        expected = sum(
            np.correlate(np.pad(x[:, channel], 2), np.asarray(whole[:, channel, feature]), "valid")
            for channel in range(2)
        )
        np.testing.assert_allclose(convolve(x, whole)[:, feature], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["rk4", "diffrax"])
@pytest.mark.parametrize("name", ["lorenz63", "lorenz96"])
def test_a_true_trajectory_costs_nothing_under_its_own_equations(method: Any, name: str) -> None:
    states = trajectory(system(name), 12)
    mean, std = states.mean(axis=0), states.std(axis=0) + 1.0
    prior = make_prior(OdeSettings(system=name, method=method), mean, std)
    x = jnp.asarray((states - mean) / std, jnp.float32)
    cost = jax.jit(lambda x: prior.cost({}, x))
    assert cost(x) < 1e-7  # the steps' own error at Lorenz-96's long steps
    assert cost(x.at[5].add(0.5)) > 1e-3


def test_diffrax_can_be_differentiated_twice() -> None:
    prior = make_prior(OdeSettings(method="diffrax"), np.zeros(3), np.ones(3))
    states = jnp.asarray(trajectory(system("lorenz63"), 3), jnp.float32)

    def steepness(x: Array) -> Array:
        return jnp.sum(jax.grad(lambda x: prior.cost({}, x))(x) ** 2)

    curvature = jax.jit(jax.grad(steepness))(states)
    assert np.isfinite(curvature).all()


def test_an_ode_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="lorenz96 has 40 components; the model has 3"):
        make_prior(OdeSettings(system="lorenz96"), np.zeros(3), np.ones(3))


@given(seed=st.integers(0, 1000), share=st.floats(0.02, 0.9))
@settings(max_examples=40, deadline=None)
def test_the_start_is_numpys_interpolation(seed: int, share: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(30, 2)).astype(np.float32)
    seen = generator.random(values.shape) < share
    found = jax.jit(interpolate)(np.where(seen, values, np.nan))
    for component in range(2):
        known = np.flatnonzero(seen[:, component])
        expected = np.zeros(30)
        if known.size:
            expected = np.interp(np.arange(30), known, values[known, component])
        np.testing.assert_allclose(found[:, component], expected, rtol=1e-4, atol=1e-5)


def test_plain_descent_lowers_the_cost_of_the_true_equations() -> None:
    model = small_model(prior=OdeSettings())
    truth = trajectory(system("lorenz63"), WINDOW)[None]
    seen = np.where(np.arange(WINDOW)[:, None] % 4 == 0, truth, np.nan)
    analysis = model.descend(seen, 300, 0.1)
    costs = np.asarray(analysis.costs[0])
    assert (np.diff(costs) <= 1e-7).all()
    assert analysis.cost[0] < 0.2 * costs[0]
