"""What tests of every area share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# The example of the documentation is tested like a component of ours; several areas use HBV's small models.
for folder in (
    "docs/examples",
    "tests/ball_berry",
    "tests/canveg",
    "tests/flux",
    "tests/hbv",
    "tests/importers",
    "tests/lstm",
    "tests/fourdvarnet",
):
    sys.path.insert(0, str(REPOSITORY / folder))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of golden numbers and real data: BMI_COMPONENTS_DATA, or ../shared/data beside the repository.

    Continuous integration must have it; elsewhere tests that need it are skipped.
    """
    folder = Path(os.environ.get("BMI_COMPONENTS_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        message = f"no shared data at {folder}: set BMI_COMPONENTS_DATA"
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
