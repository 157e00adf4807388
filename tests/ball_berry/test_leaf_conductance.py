"""Stomatal conductance of leaves: the published laws, their limits, and gradients that are true everywhere."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.ball_berry.conductance import (
    DEFICIT_FLOOR,
    ball_berry_slope,
    hybrid_humidity,
    medlyn_slope,
    smooth_deficit,
    stomatal_conductance,
)
from bmi_components.ball_berry.model import LOWEST_HUMIDITY, Leaves, conductance, leaf_conductance
from bmi_components.ball_berry.network import Network, draw_network
from bmi_components.jax_precision import jax_precision

FORMS = ("ball_berry", "hybrid", "medlyn")
LEAVES = Leaves(8.0, 0.02, 4.0, draw_network(1), 0.2, 0.1)
WIDELY = {
    "assimilation": st.floats(-20.0, 80.0),
    "co2": st.floats(1.0, 2000.0),
    "humidity": st.floats(0.0, 1.2),
    "soil_moisture": st.floats(0.0, 1.0),
    "deficit": st.floats(-5.0, 50.0),
}


def inputs_of(form, assimilation, co2, humidity, soil_moisture, deficit):
    """Return the inputs of a form, ``[input, leaf]`` with one leaf."""
    last = {"ball_berry": [humidity], "hybrid": [humidity, soil_moisture], "medlyn": [deficit]}[form]
    return np.array([assimilation, co2, *last])[:, None]


def test_ball_berry_by_hand():
    # m = 9, rh = 0.6, A = 15 umol m-2 s-1, 360 umol mol-1, g0 = 0.01 mol m-2 s-1
    slope = ball_berry_slope(0.6, 9.0)
    assert stomatal_conductance(15.0, 360.0, slope, 0.01) == pytest.approx(0.235)


def test_medlyn_by_hand():
    # g1 = 3 kPa0.5 at 1.44 kPa: 1.6 (1 + 3 / 1.2) = 5.6; the smooth floor changes it by less than a tenth of a percent
    assert medlyn_slope(1.44, 3.0) == pytest.approx(5.6, rel=1e-3)


def test_the_deficit_stays_above_its_floor_and_elsewhere_as_it_is():
    deficit = jnp.linspace(-5.0, 20.0, 2001)
    smooth = smooth_deficit(deficit)
    assert (smooth > DEFICIT_FLOOR).all()
    assert (jnp.diff(smooth) > 0.0).all()
    np.testing.assert_allclose(smooth[deficit > 1.0], deficit[deficit > 1.0], rtol=1e-3)


def test_the_network_is_tanh_between_layers_and_a_sigmoid_at_the_end():
    with jax_precision("float64"):
        network = draw_network(3)
        (first, second, third), biases = network.weights, network.biases
        values = np.array([(0.31 - 0.2) / 0.1, 1.7])
        hidden = np.tanh(second @ np.tanh(first @ values + biases[0]) + biases[1])
        logit = (third @ hidden + biases[2])[0]
        humidity = hybrid_humidity(0.31, 1.7, network, 0.2, 0.1)
        assert float(humidity) == pytest.approx(1.0 / (1.0 + np.exp(-logit)), rel=1e-14)


def test_the_hybrid_humidity_is_that_of_the_published_model(shared_data):
    golden = np.load(shared_data / "golden" / "canveg" / "components_f64.npz")
    parameters = np.load(shared_data / "golden" / "canveg" / "US-Bi1_Hybrid-ML-0.5_params.npz")
    layers = [f"para.LeafRHDL.{layer}" for layer in range(3)]
    network = Network(
        tuple(parameters[f"{layer}.weight"] for layer in layers),
        tuple(parameters[f"{layer}.bias"] for layer in layers),
    )
    scaling = (parameters[f"para.var_{name}.soilmoisture"] for name in ("mean", "std"))
    leaf = golden["ps.Tlk"]
    saturation = 100.0 * np.exp(54.8781919 - 6790.4985 / leaf - 5.02808 * np.log(leaf))
    with jax_precision("float64"):
        found = hybrid_humidity(
            golden["ps.swc"][:, None], saturation / golden["ps.eair_Pa"], network, *scaling
        )
        np.testing.assert_allclose(found, golden["leafrh_nn.Bi1Hybrid"], rtol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@given(**WIDELY)
@settings(max_examples=60, deadline=None)
def test_numpy_and_compiled_program_agree_wherever_a_leaf_may_be(form, **state):
    inputs = inputs_of(form, **state)
    on_host = conductance(form, LEAVES, inputs, np)
    compiled = leaf_conductance(form, LEAVES, inputs)
    np.testing.assert_allclose(on_host, compiled, rtol=1e-4)
    assert np.isfinite(on_host).all()
    assert (on_host >= LEAVES.conductance_intercept).all()


@pytest.mark.parametrize("form", FORMS)
@given(**WIDELY)
@settings(max_examples=40, deadline=None)
def test_gradients_are_finite_wherever_a_leaf_may_be(form, **state):
    by_leaves, by_inputs = gradient(form, LEAVES, inputs_of(form, **state))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((by_leaves, by_inputs)))


@partial(jax.jit, static_argnames="form")
def gradient(form, leaves, inputs):
    return jax.grad(lambda p, x: leaf_conductance(form, p, x).sum(), argnums=(0, 1))(leaves, inputs)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_central_differences(form):
    state = {"assimilation": 12.0, "co2": 350.0, "humidity": 0.6, "soil_moisture": 0.25, "deficit": 1.3}
    with jax_precision("float64"):
        leaves, inputs = jax.tree.map(jnp.asarray, LEAVES), inputs_of(form, **state)
        by_leaves, by_inputs = gradient(form, leaves, inputs)

        def difference(change):
            up, down = (
                jax.tree.map(
                    lambda value, d, sign=sign: value + sign * d, (leaves, jnp.asarray(inputs)), change
                )
                for sign in (1.0, -1.0)
            )
            return (leaf_conductance(form, *up) - leaf_conductance(form, *down)).sum() / 2.0

        generator = np.random.default_rng(0)
        for _ in range(5):
            change = jax.tree.map(lambda v: 1e-6 * generator.normal(size=np.shape(v)), (leaves, inputs))
            along = sum(
                (g * d).sum()
                for g, d in zip(jax.tree.leaves((by_leaves, by_inputs)), jax.tree.leaves(change), strict=True)
            )
            assert float(along) == pytest.approx(float(difference(change)), rel=1e-6)


def test_a_leaf_that_gives_off_co2_keeps_the_intercept():
    for form in FORMS:
        inputs = inputs_of(form, -3.0, 380.0, 0.5, 0.2, 1.0)
        assert conductance(form, LEAVES, inputs, np)[0] == LEAVES.conductance_intercept


def test_conductance_grows_with_humidity_and_falls_with_deficit():
    humid = np.linspace(0.1, 1.0, 10)
    many = np.ones(10)
    assert (
        np.diff(conductance("ball_berry", LEAVES, np.array([12 * many, 380 * many, humid]), np)) > 0.0
    ).all()
    assert (
        np.diff(conductance("medlyn", LEAVES, np.array([12 * many, 380 * many, 3 * humid]), np)) < 0.0
    ).all()


def test_supersaturated_air_counts_as_saturated_and_the_driest_has_a_limit():
    at = {humidity: inputs_of("ball_berry", 10.0, 380.0, humidity, 0.2, 1.0) for humidity in (1.0, 1.1)}
    assert conductance("ball_berry", LEAVES, at[1.0], np) == conductance("ball_berry", LEAVES, at[1.1], np)
    dry = {h: inputs_of("hybrid", 10.0, 380.0, h, 0.2, 1.0) for h in (0.0, LOWEST_HUMIDITY)}
    assert conductance("hybrid", LEAVES, dry[0.0], np) == conductance(
        "hybrid", LEAVES, dry[LOWEST_HUMIDITY], np
    )
