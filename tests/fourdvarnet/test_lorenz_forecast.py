"""The Lorenz-63 component follows the trajectory generator, and starts from the analyses that it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet import names
from bmi_components.fourdvarnet.forecast import Lorenz63
from bmi_components.fourdvarnet.lorenz import SYSTEMS, trajectory

COMPONENTS = ("x", "y", "z")


def opened(folder: Path, text: str = "") -> Lorenz63:
    path = folder / "lorenz63.yaml"
    path.write_text(text)
    component = Lorenz63()
    component.initialize(str(path))
    return component


def state_of(component: Lorenz63) -> np.ndarray:
    return np.array([component.get_value_ptr(names.state(c).name).copy() for c in COMPONENTS]).T


def test_a_free_run_is_the_trajectory(tmp_path: Path) -> None:
    truth = trajectory(SYSTEMS["lorenz63"], 50, spin_up=0.0)
    component = opened(tmp_path)
    for expected in truth[1:]:
        component.update()
        np.testing.assert_array_equal(state_of(component)[0], expected)


def test_a_step_starts_from_the_components_that_are_analysed(tmp_path: Path) -> None:
    component = opened(tmp_path, "state: [[1.0, 2.0, 20.0], [8.0, 0.0, 30.0]]\n")
    given = opened(tmp_path, "state: [[5.0, 2.0, 20.0], [8.0, 0.0, 25.0]]\n")
    component.set_value(names.analysed("x").name, np.array([5.0, np.nan]))
    component.set_value(names.analysed("z").name, np.array([np.nan, 25.0]))
    component.update()
    given.update()
    np.testing.assert_array_equal(state_of(component), state_of(given))


def test_a_start_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not finite"):
        opened(tmp_path, "state: [[.nan, 0.0, 1.0]]\n")
