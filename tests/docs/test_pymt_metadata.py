"""What pymt reads of a component beside its BMI: metadata that pass its own checks and set up a run that opens."""

from __future__ import annotations

import warnings
from pathlib import Path

import bmi_components
from bmi_components.config import load
from bmi_components.hbv.settings import DeltaHBVSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the import itself, which is not ours
    from model_metadata.model_setup import FileSystemLoader
    from model_metadata.modelmetadata import ModelMetadata

FOLDER = Path(bmi_components.__file__).parent / "pymt" / "DeltaHBV"


def test_the_metadata_pass_pymts_checks() -> None:
    found = ModelMetadata(str(FOLDER))
    assert found.api["class"] == "DeltaHBV"
    assert found.info["version"] == bmi_components.__version__
    assert found.run["config_file"]["path"] == "config.yaml"


def test_every_parameter_is_a_key_of_the_configuration() -> None:
    keys = set(DeltaHBVSettings.__struct_fields__) | {"warm_up_forcing"}
    assert set(ModelMetadata(str(FOLDER)).parameters) <= keys


def test_a_run_that_pymt_sets_up_has_a_valid_configuration(tmp_path: Path) -> None:
    defaults = {name: p["value"]["default"] for name, p in ModelMetadata(str(FOLDER)).parameters.items()}
    given = {"model": "/models/some", "catchments_file": "/data/c.csv", "warm_up_forcing": "/data/before.nc"}
    FileSystemLoader(str(FOLDER)).stage_all(str(tmp_path), **(defaults | given))
    settings = load(tmp_path / "config.yaml", DeltaHBVSettings)
    assert settings.model == Path("/models/some")
    assert settings.warm_up is not None
    assert settings.warm_up.path == Path("/data/before.nc")
