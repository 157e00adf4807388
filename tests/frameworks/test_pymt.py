"""pymt itself, where it is installed (it is not on PyPI for Python 3): it finds, sets up and steps our components.

What can be tested without it, the metadata and the entry points, is in tests/docs/test_pymt_metadata.py.
"""

from __future__ import annotations

import tomllib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PET = "land_surface_water__potential_evaporation_volume_flux"
TEMPERATURE = "land_surface_air__temperature"


@pytest.fixture(scope="module")
def models() -> Any:
    """Return pymt's collection of models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pymt's own imports
        return pytest.importorskip("pymt", exc_type=ImportError).MODELS


def opened(models: Any, name: str, folder: Path, **parameters: Any) -> Any:
    """Set a component up and initialize it, as pymt's users do."""
    folder.mkdir(exist_ok=True)
    model = models[name]()
    model.initialize(*model.setup(str(folder), **parameters))
    return model


def test_pymt_finds_every_component(models: Any) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in project["entry-points"]["pymt.plugins"]:
        assert models[name].__name__ == name


def test_pymt_steps_a_model_of_chaos(models: Any, tmp_path: Path) -> None:
    model = opened(models, "Lorenz63", tmp_path, x=1.0, y=1.0, z=20.0)
    for _ in range(3):
        model.update()
    assert model.time == pytest.approx(0.03)
    values = [float(model.get_value(name)[0]) for name in model.output_var_names]
    assert np.isfinite(values).all()
    assert values != [1.0, 1.0, 20.0]


def test_pymt_converts_units_and_feeds_one_component_by_another(models: Any, tmp_path: Path) -> None:
    catchments = REPOSITORY / "configs" / "sample_catchments.csv"
    evaporation = opened(
        models,
        "PotentialEvapotranspiration",
        tmp_path / "evaporation",
        catchments_file=str(catchments),
        start_time="2000-06-01 00:00:00",
    )
    evaporation.set_value(TEMPERATURE, np.full(6, 15.0))
    evaporation.update()
    rate = evaporation.get_value(PET)
    assert (rate > 1.0).all()
    np.testing.assert_allclose(evaporation.get_value(PET, units="m s-1"), rate / 86_400e3, rtol=1e-5)
    lstm = opened(
        models,
        "StreamflowLSTM",
        tmp_path / "lstm",
        models=str(REPOSITORY / "models" / "streamflow_lstm"),
        catchments_file=str(catchments),
        start_time="2000-06-01 00:00:00",
    )
    lstm.set_value(PET, rate)
    lstm.set_value(TEMPERATURE, np.full(6, 15.0))
    lstm.set_value("atmosphere_water__liquid_equivalent_precipitation_rate", np.full(6, 30.0))
    lstm.update()
    assert (lstm.get_value("channel_exit_water_x-section__volume_flow_rate") >= 0.0).all()
