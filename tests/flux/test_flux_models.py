"""Flux models: DLFM's numbers, windows alone and together, trees equal to their libraries, bad bundles refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.lstm.flux.models import load_model
from bmi_components.lstm.flux.network import NetworkModel, average, create_network
from bmi_components.lstm.flux.trees import random_forest_arrays, xgboost_arrays
from bmi_components.trained_model import NamedUnits, TrainedModel

INPUTS = (
    NamedUnits("PPFD_IN", "umol m-2 s-1"),
    NamedUnits("NETRAD", "W m-2"),
    NamedUnits("TA_F", "degC"),
)
STATISTICS = {
    "PPFD_IN": {"mean": 700.0, "std": 300.0},
    "NETRAD": {"mean": 200.0, "std": 90.0},
    "TA_F": {"mean": 15.0, "std": 8.0},
    "NEE": {"mean": -4.0, "std": 6.0},
}
NETWORKS = {
    "lstm": {"hidden": 6, "layers": 2},
    "rnn": {"hidden": 5},
    "ann": {"hidden": 8},
    "dynamic_ann": {"layers": [6, 4]},
    "xlstm_mixer": {"latent": 7},
}


def physical(windows: int, days: int, seed: int = 0) -> np.ndarray:
    """Make windows of plausible weather."""
    means, stds = ([STATISTICS[q.name][s] for q in INPUTS] for s in ("mean", "std"))
    return np.random.default_rng(seed).normal(means, stds, (windows, days, len(INPUTS))).astype(np.float32)


def bundle(
    model: str, days: int, sizes: dict[str, Any], weights: dict[str, Any], **changes: Any
) -> TrainedModel:
    plain = TrainedModel(
        kind="flux",
        hyperparameters={"model": model, "sequence_length": days, "sizes": sizes},
        inputs=INPUTS,
        attributes=(),
        outputs=(NamedUnits("NEE", "umol m-2 s-1"),),
        normalisation=STATISTICS,
        time_step=86400.0,
        provenance={},
        licence="",
        weights=weights,
    )
    return dataclasses.replace(plain, **changes)


def network_bundle(model: str, days: int = 10, seed: int = 0, **changes: Any) -> TrainedModel:
    network = create_network(model, NETWORKS[model], len(INPUTS), days, seed)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    return bundle(model, days, NETWORKS[model], weights, **changes)


def test_dlfm_lstm_is_reproduced(shared_data: Path) -> None:
    golden = np.load(shared_data / "golden" / "lstm" / "dlfm_lstm_forward.npz", allow_pickle=False)
    names = [str(name) for name in golden["vars"]]
    dlfm = TrainedModel(
        kind="flux",
        hyperparameters={
            "model": "lstm",
            "sequence_length": 31,
            "sizes": {"hidden": 8, "layers": 2, "readout_layer": "first"},
        },
        inputs=tuple(NamedUnits(name, "1") for name in names),
        attributes=(),
        outputs=(NamedUnits("NEE", "umol m-2 s-1"),),
        normalisation={name: {"mean": 0.0, "std": 1.0} for name in (*names, "NEE")},
        time_step=86400.0,
        provenance={},
        licence="",
        weights={name.removeprefix("w/"): golden[name] for name in golden if name.startswith("w/")},
    )
    np.testing.assert_allclose(load_model(dlfm).predict(golden["X"]), golden["y"][:, 0], atol=1e-6, rtol=0)


def test_readout_decides_which_layers_matter() -> None:
    sizes = {"hidden": 4, "layers": 3}
    x = torch.randn(5, 7, 3, generator=torch.Generator().manual_seed(0))
    for readout, matters in (("first", False), ("last", True)):
        network = create_network("lstm", {**sizes, "readout_layer": readout}, 3, 7)
        before = network(x)
        with torch.no_grad():
            for name, tensor in network.named_parameters():
                if name.endswith("_l2"):
                    tensor.add_(0.1)
        assert torch.equal(before, network(x)) is not matters


@pytest.mark.parametrize("model", NETWORKS)
def test_a_window_never_depends_on_the_others(model: str) -> None:
    ready = load_model(network_bundle(model))
    x = physical(40, 10)
    together = ready.predict(x)
    alone = np.concatenate([ready.predict(window[None]) for window in x])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert together.std() > 0
    x[3, 2, 1] = np.nan
    broken = ready.predict(x)
    assert np.isnan(broken[3])
    np.testing.assert_allclose(np.delete(broken, 3), np.delete(together, 3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", NETWORKS)
def test_a_saved_bundle_is_the_same_model(model: str, tmp_path: Path) -> None:
    made = network_bundle(model)
    made.save(tmp_path / "bundle")
    x = physical(6, 10)
    again = load_model(TrainedModel.load(tmp_path / "bundle", kind="flux"))
    np.testing.assert_array_equal(load_model(made).predict(x), again.predict(x))


@pytest.mark.parametrize("model", NETWORKS)
def test_the_gradient_is_the_slope_of_the_prediction(model: str) -> None:
    ready = load_model(network_bundle(model))
    assert isinstance(ready, NetworkModel)
    ready.networks[0].double()  # central differences need more digits than float32 has
    ready.standardise = lambda inputs: torch.from_numpy((inputs - ready._mean) / ready._std)  # type: ignore[method-assign]
    x = physical(3, 10).astype(np.float64)
    slope = ready.gradient(x)
    step = 1e-5
    for day, column in ((0, 0), (9, 1), (5, 2)):
        up, down = x.copy(), x.copy()
        spread = STATISTICS[INPUTS[column].name]["std"]
        up[:, day, column] += step * spread
        down[:, day, column] -= step * spread
        difference = (ready.predict(up) - ready.predict(down)) / (2 * step)
        np.testing.assert_allclose(slope[:, day, column], difference, rtol=1e-5, atol=1e-8)


def test_an_average_is_the_mean_of_its_members(tmp_path: Path) -> None:
    members = [network_bundle("lstm", seed=seed) for seed in range(3)]
    average(members).save(tmp_path / "bundle")
    together = load_model(TrainedModel.load(tmp_path / "bundle"))
    x = physical(9, 10)
    alone = np.stack([load_model(member).predict(x) for member in members])
    np.testing.assert_allclose(together.predict(x), alone.mean(axis=0), rtol=1e-6)
    assert average(members[:1]) is members[0]
    with pytest.raises(BundleError, match="only single networks of the same sizes"):
        average([members[0], network_bundle("lstm", days=9)])
    with pytest.raises(BundleError, match="only single networks"):
        average([together.bundle, together.bundle])


def test_the_mixer_keeps_its_token() -> None:
    """DLFM loses it: the same weights loaded again would predict something else."""
    network = create_network("xlstm_mixer", {}, 3, 10)
    assert "mu" in dict(network.named_parameters())
    assert "mu" in network.state_dict()


def test_the_seed_decides_the_weights_and_nothing_else_is_disturbed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (create_network("lstm", {}, 3, 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    torch.testing.assert_close(one, same, rtol=0, atol=0)
    assert not torch.equal(one["linear.weight"], other["linear.weight"])


@pytest.fixture(scope="module")
def learnt() -> tuple[np.ndarray, np.ndarray]:
    x = physical(300, 4, seed=1)
    noise = np.random.default_rng(2).normal(0, 0.5, 300)
    return x, -0.01 * x[:, -1, 0] + 0.1 * x[:, 0, 2] ** 2 / 10 + noise


@pytest.mark.parametrize("depth", [None, 1, 4])
def test_our_forest_is_scikit_learns(learnt: tuple[np.ndarray, np.ndarray], depth: int | None) -> None:
    ensemble = pytest.importorskip("sklearn.ensemble")
    x, y = learnt
    forest = ensemble.RandomForestRegressor(n_estimators=30, max_depth=depth, random_state=0)
    forest.fit(x.reshape(300, -1), y)
    ours = load_model(bundle("random_forest", 4, {}, random_forest_arrays(forest)))
    new = np.concatenate((physical(500, 4, seed=3), x))
    expected = forest.predict(new.reshape(len(new), -1))
    np.testing.assert_allclose(ours.predict(new), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(ours.predict(new[:1]), expected[:1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("depth", [1, 6])
def test_our_boosted_trees_are_xgboosts(learnt: tuple[np.ndarray, np.ndarray], depth: int) -> None:
    xgboost = pytest.importorskip("xgboost")
    x, y = learnt
    regressor = xgboost.XGBRegressor(n_estimators=200, learning_rate=0.05, max_depth=depth, n_jobs=1)
    regressor.fit(x.reshape(300, -1), y)
    ours = load_model(bundle("xgboost", 4, {}, xgboost_arrays(regressor)))
    new = np.concatenate((physical(500, 4, seed=3), x))
    np.testing.assert_allclose(ours.predict(new), regressor.predict(new.reshape(len(new), -1)), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(values=st.lists(st.integers(-3, 3), min_size=8, max_size=40), seed=st.integers(0, 100))
def test_trees_agree_exactly_on_their_thresholds(values: list[int], seed: int) -> None:
    """Inputs that stand on a threshold must fall to the library's side: inputs here take few values."""
    ensemble, xgboost = pytest.importorskip("sklearn.ensemble"), pytest.importorskip("xgboost")
    x = np.repeat(np.array(values, np.float32)[:, None] * np.float32(0.1), 3, axis=1)
    y = np.random.default_rng(seed).normal(size=len(x))
    windows = x[:, None, :]
    between = np.concatenate((windows, windows + np.float32(0.05)))
    for library, arrays, name in (
        (ensemble.RandomForestRegressor(5, random_state=0), random_forest_arrays, "random_forest"),
        (xgboost.XGBRegressor(n_estimators=5, n_jobs=1), xgboost_arrays, "xgboost"),
    ):
        library.fit(x, y)
        ours = load_model(bundle(name, 1, {}, arrays(library)))
        np.testing.assert_allclose(ours.predict(between), library.predict(between[:, 0]), atol=1e-6)


def test_trees_that_go_in_circles_are_refused(learnt: tuple[np.ndarray, np.ndarray]) -> None:
    stump = {
        "feature": np.zeros(3, np.float32),
        "threshold": np.array([700.0, 0, 0], np.float32),
        "left": np.array([1.0, 1, 2], np.float32),
        "right": np.array([2.0, 1, 2], np.float32),
        "value": np.array([0.0, -5, 3], np.float32),
        "root": np.zeros(1, np.float32),
        "base": np.zeros(1, np.float32),
    }
    assert set(load_model(bundle("xgboost", 4, {}, stump)).predict(physical(50, 4))) == {-5.0, 3.0}
    for change, message in (
        ({"left": np.array([1.0, 0, 2], np.float32)}, "leads back"),
        ({"left": np.array([3.0, 1, 2], np.float32)}, "whole numbers from 0 to 2"),
        ({"feature": np.array([0.5, 0, 0], np.float32)}, "whole numbers"),
        ({"base": np.zeros(2, np.float32)}, "one number as base"),
        ({"extra": np.zeros(2, np.float32)}, "trees need"),
    ):
        with pytest.raises(BundleError, match=message):
            load_model(bundle("xgboost", 4, {}, stump | change))


def test_bundles_that_do_not_fit_are_refused() -> None:
    made = network_bundle("lstm")
    plain = dict(made.hyperparameters)
    for change, message in (
        ({"kind": "hbv"}, "'hbv' model"),
        ({"hyperparameters": plain | {"model": "oracle"}}, "'oracle' is unknown"),
        ({"hyperparameters": plain | {"sequence_length": 0}}, "do not make a flux model"),
        ({"hyperparameters": plain | {"sizes": {"hidden": 9}}}, "has shape"),
        ({"hyperparameters": plain | {"sizes": {"hiden": 9}}}, "cannot be made"),
        ({"outputs": ()}, "exactly one output"),
        ({"normalisation": {}}, "no mean and std of 'PPFD_IN'"),
        ({"weights": {}}, "has shape None"),
    ):
        with pytest.raises(BundleError, match=message):
            load_model(dataclasses.replace(made, **change))


def test_windows_of_the_wrong_shape_are_explained() -> None:
    ready = load_model(network_bundle("lstm"))
    for wrong in (physical(2, 9), physical(2, 10)[..., :2], physical(2, 10)[0]):
        with pytest.raises(ValueShapeError, match="10 days, 3 inputs"):
            ready.predict(wrong)
    assert ready.predict(physical(0, 10)).shape == (0,)


def test_wrong_sizes_are_explained() -> None:
    for model, sizes, message in (
        ("lstm", {"hidden": 0}, "hidden"),
        ("lstm", {"readout_layer": "middle"}, "readout_layer"),
        ("dynamic_ann", {"layers": []}, "layers"),
        ("ann", {"dropout": 1.0}, "dropout"),
        ("xlstm", {"width": 15}, "multiple of heads"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            create_network(model, sizes, 3, 10)


def test_the_real_xlstm_where_its_package_is() -> None:
    pytest.importorskip("xlstm")
    sizes = {"width": 8, "blocks": ["s", "m"]}
    network = create_network("xlstm", sizes, len(INPUTS), 10)
    weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    ready = load_model(bundle("xlstm", 10, sizes, weights))
    x = physical(12, 10)
    together = ready.predict(x)
    np.testing.assert_allclose(
        together, np.concatenate([ready.predict(window[None]) for window in x]), rtol=1e-4, atol=1e-5
    )
    assert isinstance(ready, NetworkModel)
    assert (np.abs(ready.gradient(x)).max(axis=(0, 2)) > 0).all()  # every day matters


def test_a_seasonal_cycle_is_added_and_needs_the_day_of_year() -> None:
    names = ["NETRAD", "DOY"]
    sizes = {"hidden": 4, "harmonics": 2}
    network = create_network("lstm", sizes, names, 5).eval()
    days = np.arange(1, 366)
    x = torch.zeros(days.size, 5, 2)
    x[:, :, 1] = torch.from_numpy((days - 183) / 105.66)[:, None]
    before = network(x).detach()
    with torch.no_grad():
        network.season.weight[0, 1] = 3.0
    expected = 3.0 * np.sin(2 * np.pi * 2 * days / 365.25)
    np.testing.assert_allclose((network(x).detach() - before).numpy(), expected, atol=2e-5)
    with pytest.raises(ConfigurationError, match="need the input DOY in the last place"):
        create_network("lstm", sizes, ["DOY", "NETRAD"], 5)
