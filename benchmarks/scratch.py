"""Files that last as long as a process that measures."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_kept: list[tempfile.TemporaryDirectory[str]] = []


@cache
def scratch() -> Path:
    """Return a folder that lasts as long as the process."""
    folder = tempfile.TemporaryDirectory(prefix="bmi_components_benchmark_")
    _kept.append(folder)
    return Path(folder.name)


def write(name: str, settings: Mapping[str, Any]) -> str:
    """Write a configuration into the scratch folder and return its path."""
    path = scratch() / name
    path.write_text(yaml.safe_dump(dict(settings)), encoding="utf-8")
    return str(path)
