"""What pymt reads of a component beside its BMI: metadata that pass its own checks and set up a run that opens."""

from __future__ import annotations

import importlib
import tomllib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import bmi_components
from bmi_components.ball_berry.settings import BallBerrySettings
from bmi_components.canveg.settings import CanVegSettings, CanVegSite
from bmi_components.config import Settings, load
from bmi_components.fourdvarnet.forecast import Lorenz63Settings
from bmi_components.fourdvarnet.settings import FourDVarNetSettings
from bmi_components.hbv.settings import DeltaHBVSettings
from bmi_components.lstm.flux.settings import FluxLSTMSettings
from bmi_components.lstm.settings import StreamflowLSTMSettings
from bmi_components.potential_evapotranspiration import PotentialEvapotranspirationSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, which is not ours
    from model_metadata.model_setup import FileSystemLoader
    from model_metadata.modelmetadata import ModelMetadata

REPOSITORY = Path(__file__).resolve().parents[2]
PYMT = Path(bmi_components.__file__).parent / "pymt"
SOME = Path("/models/some")
BEFORE = "/data/before.nc"
US_BI1 = CanVegSite(id="US-Bi1", latitude=38.1, longitude=-121.5, canopy_height=0.8, measurement_height=5.0)


@dataclass(frozen=True)
class Case:
    """What a user gives to ``setup`` of a component, and keys of the configuration that follow from it.

    ``own`` are parameters that are no keys themselves.
    """

    settings: type[Settings]
    given: dict[str, str]
    follows: dict[str, Any]
    own: frozenset[str] = frozenset()


CASES = {
    "CanVeg": Case(
        CanVegSettings,
        {
            "model": str(SOME),
            "site": "US-Bi1",
            "latitude": "38.1",
            "longitude": "-121.5",
            "canopy_height": "0.8",
        },
        {"model": SOME, "clock": "utc", "inputs": "tower", "sites": (US_BI1,)},
        frozenset(
            {"site", "latitude", "longitude", "measurement_height"}
        ),  # and canopy_height, a key as well
    ),
    "BallBerry": Case(
        BallBerrySettings,
        {"leaves": "3", "conductance": "medlyn"},
        {"leaves": 3, "conductance": "medlyn", "medlyn_slope": 4.0, "model": None},
    ),
    "DeltaHBV": Case(
        DeltaHBVSettings,
        {"model": str(SOME), "catchments_file": "/data/c.csv", "warm_up_forcing": BEFORE},
        {"model": SOME, "catchments_file": Path("/data/c.csv"), "warm_up.path": Path(BEFORE)},
        frozenset({"warm_up_forcing"}),
    ),
    "StreamflowLSTM": Case(
        StreamflowLSTMSettings,
        {"models": f"{SOME}, /models/other", "catchments_file": "/data/c.csv", "spin_up_forcing": BEFORE},
        {"models": (SOME, Path("/models/other")), "spin_up.path": Path(BEFORE), "state_mode": "carry"},
        frozenset({"spin_up_forcing"}),
    ),
    "FluxLSTM": Case(
        FluxLSTMSettings,
        {"model": str(SOME), "tower": "US-Me2"},
        {"model": SOME, "missing_day": "nan", "utc_offset": 0.0},
        frozenset({"tower"}),
    ),
    "PotentialEvapotranspiration": Case(
        PotentialEvapotranspirationSettings,
        {"catchments_file": "/data/c.csv"},
        {"catchments_file": Path("/data/c.csv"), "method": "oudin"},
    ),
    "FourDVarNet": Case(
        FourDVarNetSettings,
        {"model": str(SOME), "sites": "3"},
        {"model": SOME, "sites": 3, "background": False, "lag": 20},
    ),
    "Lorenz63": Case(
        Lorenz63Settings,
        {"x": "1.5"},
        {"state": ((1.5, 0.0, 30.0),), "time_step": 0.01},
        frozenset({"x", "y", "z"}),
    ),
}


def test_every_component_that_pymt_finds_has_metadata() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    plugins = project["entry-points"]["pymt.plugins"]
    assert set(plugins) == set(CASES) == {folder.name for folder in PYMT.iterdir() if folder.is_dir()}
    for name, place in plugins.items():
        module, _, attribute = place.partition(":")
        component = getattr(importlib.import_module(module), attribute)
        assert component is getattr(bmi_components, name)
        home = Path(importlib.import_module(module).__file__ or "").parent
        assert (home / component.METADATA).resolve() == PYMT / name


@pytest.mark.parametrize("name", CASES)
def test_the_metadata_pass_pymts_checks(name: str) -> None:
    found = ModelMetadata(str(PYMT / name))
    assert found.api["class"] == name
    assert hasattr(importlib.import_module(found.api["package"]), name)
    assert found.info["version"] == bmi_components.__version__
    assert found.run["config_file"]["path"] == "config.yaml"


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_is_a_key_of_the_configuration(name: str) -> None:
    case = CASES[name]
    assert set(ModelMetadata(str(PYMT / name)).parameters) <= {*case.settings.__struct_fields__, *case.own}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_pymt_sets_up_has_a_valid_configuration(name: str, tmp_path: Path) -> None:
    case, folder = CASES[name], str(PYMT / name)
    defaults = {key: p["value"]["default"] for key, p in ModelMetadata(folder).parameters.items()}
    FileSystemLoader(folder).stage_all(str(tmp_path), **(defaults | case.given))
    settings = load(tmp_path / "config.yaml", case.settings)
    for key, expected in case.follows.items():
        found: Any = settings
        for part in key.split("."):
            found = getattr(found, part)
        assert found == expected, key
