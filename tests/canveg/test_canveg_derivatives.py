"""The parts that derivatives of the canopy are made of: rows, functions of each point, fixed points."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bmi_components.canveg.fixed_point import fixed_point
from bmi_components.canveg.pointwise import pointwise
from bmi_components.canveg.rows import row_max, row_products, row_sums
from bmi_components.jax_precision import jax_precision

Array = Any


@pytest.fixture(autouse=True)
def double_precision() -> Any:
    with jax_precision("float64"):
        yield


@pytest.mark.parametrize("length", [1, 3, 4, 7, 9, 40, 352])
def test_rows_are_summed_and_searched(length: int) -> None:
    values = np.random.default_rng(length).normal(size=(2, 5, length))
    first, second = jnp.asarray(values), jnp.asarray(values[..., ::-1] - 1.0)
    np.testing.assert_array_equal(row_max(first), values.max(axis=-1))
    totals = row_sums(first, second)
    np.testing.assert_allclose(totals[0], values.sum(axis=-1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(totals[1], np.asarray(second).sum(axis=-1), rtol=1e-12, atol=1e-12)
    found = row_products((first, first), (first, second))
    np.testing.assert_allclose(found[0], (values * values).sum(axis=-1), rtol=1e-13)
    np.testing.assert_allclose(found[1], (values * np.asarray(second)).sum(axis=-1), rtol=1e-12, atol=1e-12)
    for place in range(length):
        assert np.isnan(row_max(first.at[0, 0, place].set(jnp.nan))[0, 0])


def saturating(inputs: tuple[Array, Array], given: Array) -> tuple[Array, Array]:
    air, leaf = inputs
    both = given * leaf / (1.0 + air * air)
    return both, jnp.exp(-air) * jnp.sin(leaf)


AIR, LEAF = np.linspace(0.1, 1.0, 4)[None], np.linspace(-1.0, 1.0, 8).reshape(2, 4)


@pytest.mark.parametrize("by", [(0, 0), (0, 1), (1,)])
def test_pointwise_derivatives_are_those_of_the_function(by: tuple[int, ...]) -> None:
    # by the inputs together, by one of them, by what is given: forward and reverse
    values = ((AIR, LEAF), jnp.asarray(2.0))
    loss_of = {
        (0, 0): lambda f: lambda x: sum(jnp.sum(o**3) for o in f(x, values[1])),
        (0, 1): lambda f: lambda x: sum(jnp.sum(o**3) for o in f((AIR, x), values[1])),
        (1,): lambda f: lambda x: sum(jnp.sum(o**3) for o in f(values[0], x)),
    }[by]
    at: Any = {(0, 0): values[0], (0, 1): LEAF, (1,): values[1]}[by]
    kept = loss_of(lambda inputs, given: pointwise(saturating, inputs, given))
    plain = loss_of(saturating)
    for derive in (jax.grad, jax.jacfwd):
        found, expected = derive(kept)(at), derive(plain)(at)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)


def test_pointwise_keeps_one_number_for_each_output_input_and_point() -> None:
    _, pull_back = jax.vjp(lambda *x: pointwise(saturating, x, jnp.asarray(2.0)), AIR, LEAF)
    sizes = [leaf.size for leaf in jax.tree.leaves(pull_back)]
    assert max(sizes) <= LEAF.size


@pytest.mark.parametrize("slope", [0.1, -0.6, 0.9])
def test_a_fixed_point_and_its_derivatives(slope: float) -> None:
    # x = slope sin(x) + shift, by its own equation and its implicit derivatives
    def solve(shift: Array, slope: Array) -> tuple[Array, Array]:
        residual, (x,) = fixed_point(
            lambda x: (slope * jnp.sin(x) + shift, (x,)), jnp.zeros(3), tolerance=1e-12, most=200
        )
        return x, residual

    shift, factor = jnp.array([-0.8, 0.0, 0.5]), jnp.asarray(slope)
    x, residual = solve(shift, factor)
    assert residual <= 1e-12
    np.testing.assert_allclose(x, slope * np.sin(x) + shift, atol=1e-11)
    for derive in (jax.jacfwd, jax.jacrev):
        by_shift, by_slope = derive(lambda *given: solve(*given)[0], argnums=(0, 1))(shift, factor)
        answer = 1.0 / (1.0 - slope * np.cos(x))
        np.testing.assert_allclose(by_shift, np.diag(answer), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(by_slope, np.sin(x) * answer, rtol=1e-5, atol=1e-6)


def test_what_does_not_converge_says_so() -> None:
    residual, _ = fixed_point(lambda x: (x + 1.0, x), jnp.zeros((1, 3)), tolerance=1e-6, most=5)
    np.testing.assert_array_equal(residual, [1.0])
