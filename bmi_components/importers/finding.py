"""Where a configuration's trained model lies: at its path, or by its name in the folders of an environment variable."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["MODEL_PATH_VARIABLE", "find_folder"]

MODEL_PATH_VARIABLE = "BMI_COMPONENTS_MODEL_PATH"
"""Environment variable: folders (separated as in PATH) in which a model folder that is absent is looked up by name."""


def find_folder(folder: Path, places: Sequence[Path] = ()) -> Path:
    """Return the folder of a model: as given or, where that is absent, by its name in ``places`` or the search path.

    A folder that is nowhere is returned as given, so that the error names what the user wrote.
    """
    if folder.exists():
        return folder
    searched = [Path(place) for place in os.environ.get(MODEL_PATH_VARIABLE, "").split(os.pathsep) if place]
    for place in (*places, *searched):
        if (place / folder.name).is_dir():
            return place / folder.name
    return folder
