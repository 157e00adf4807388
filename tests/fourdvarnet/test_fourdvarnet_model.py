"""A 4DVarNet goes into a bundle and out of it unchanged, and says what is wrong with what it is given."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import msgspec
import numpy as np
import pytest
from fourdvarnet_models import COMPONENTS, NORMALISATION, WINDOW, small_model

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.fourdvarnet.model import FourDVarNet, FourDVarNetHyperparameters, load_model
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.observations import PROTOCOLS
from bmi_components.fourdvarnet.priors import BilinearSettings, OdeSettings
from bmi_components.trained_model import TrainedModel

WINDOWS = np.random.default_rng(0).normal(0.0, 8.0, (2, WINDOW, 3))


@pytest.mark.parametrize("prior", [None, BilinearSettings(hidden=3, scales=(2, 1)), OdeSettings()])
def test_a_model_comes_back_from_its_bundle_bit_for_bit(tmp_path: Path, prior: object) -> None:
    model = small_model(**({} if prior is None else {"prior": prior}))
    folder = model.to_bundle({"seed": 0}, "CC0").save(tmp_path / "bundle")
    again = load_model(folder)
    assert again.hyperparameters == model.hyperparameters
    assert again.components == COMPONENTS
    assert again.time_step == 0.01
    for one, other in zip(model.solve(WINDOWS)[:3], again.solve(WINDOWS)[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_protocol_travels_with_the_bundle(tmp_path: Path) -> None:
    model = small_model()
    model.hyperparameters = msgspec.structs.replace(
        model.hyperparameters, observations=(PROTOCOLS["fablet"],), system="lorenz63"
    )
    again = load_model(model.to_bundle().save(tmp_path / "bundle"))
    assert again.hyperparameters.observations == (PROTOCOLS["fablet"],)


def broken(bundle: TrainedModel, **changes: object) -> TrainedModel:
    return dataclasses.replace(bundle, **changes)


def test_what_does_not_fit_is_refused() -> None:
    bundle = small_model().to_bundle()
    weights = dict(bundle.weights)
    name, array = next(iter(weights.items()))
    less = {key: value for key, value in weights.items() if key != name}
    for changes, message in (
        ({"kind": "hbv"}, "kind 'hbv'; 'fourdvarnet' is needed"),
        ({"weights": less}, f"lacks weight '{name}'"),
        ({"weights": weights | {"extra": array}}, "unknown weight 'extra'"),
        ({"weights": weights | {name: array[:-1]}}, f"weight '{name}' has shape"),
        ({"hyperparameters": dict(bundle.hyperparameters) | {"depth": 3}}, "unknown field `depth`"),
        ({"normalisation": {"x": {"mean": 0.0, "std": 1.0}}}, "no mean and std of 'y'"),
    ):
        with pytest.raises(BundleError, match=message):
            FourDVarNet.from_bundle(broken(bundle, **changes))


@pytest.mark.parametrize(
    ("observations", "start", "message"),
    [
        (WINDOWS[0], None, r"observations has shape \(24, 3\); \[window, 24, 3\] is needed"),
        (WINDOWS[:, :-1], None, r"observations has shape \(2, 23, 3\)"),
        (WINDOWS, WINDOWS[:, :, :2], r"start has shape \(2, 24, 2\)"),
        (WINDOWS, WINDOWS[:1], "start has 1 windows, observations 2"),
    ],
)
def test_arrays_of_another_shape_are_refused(
    observations: np.ndarray, start: np.ndarray | None, message: str
) -> None:
    with pytest.raises(ValueShapeError, match=message):
        small_model().solve(observations, start)


def test_windows_that_the_parts_cannot_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="window is 30; prior needs at least 2 steps and a multiple of 4"):
        FourDVarNetHyperparameters(window=30)
    with pytest.raises(ValueError, match=r"modulation\.patch needs"):
        FourDVarNetHyperparameters(window=20, modulation=ModulationSettings(patch=8))


def test_a_component_without_statistics_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no mean and std of 'z'"):
        FourDVarNet.create(
            FourDVarNetHyperparameters(), COMPONENTS, {k: NORMALISATION[k] for k in ("x", "y")}, 0.01
        )


def test_standardisation_is_undone() -> None:
    model = small_model()
    np.testing.assert_allclose(model.physical(model.standardised(WINDOWS)), WINDOWS, rtol=1e-5, atol=1e-5)


def test_the_starters_layout_and_patches_serve_the_same_windows() -> None:
    for modulation in (
        ModulationSettings(hidden=4, width=3, positions="component"),
        ModulationSettings(hidden=4),
    ):
        model = small_model(modulation=modulation)
        assert model.solve(WINDOWS).trajectory.shape == WINDOWS.shape


def test_an_analysis_is_pure_and_compiles_into_a_callers_program() -> None:
    model = small_model()
    inside = jax.jit(lambda parameters, windows: model.analyse(parameters, windows).trajectory)
    np.testing.assert_allclose(
        inside(model.parameters, WINDOWS), model.solve(WINDOWS).trajectory, rtol=1e-5, atol=1e-4
    )


def test_importing_changes_no_global_setting_of_jax_and_loads_no_torch() -> None:
    code = (
        "import sys, jax\n"
        "before = {name: getattr(jax.config, name) for name in ('jax_enable_x64', 'jax_default_matmul_precision')}\n"
        "import bmi_components.fourdvarnet.model, bmi_components.fourdvarnet.training\n"
        "assert before == {name: getattr(jax.config, name) for name in before}\n"
        "loaded = {'torch', 'diffrax', 'optimistix', 'equinox'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
