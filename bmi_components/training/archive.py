"""Archives of a training run: arrays by name and plain values in one safetensors file, replaced atomically."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from bmi_components.errors import StateError

__all__ = ["Archive"]


@dataclass
class Archive:
    """NumPy arrays by names like ``group/name``, and values that JSON can hold."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, group: str, arrays: Mapping[str, Any]) -> None:
        """Add arrays (NumPy's, JAX's) under ``group/``."""
        # C order: safetensors writes another order's numbers in the wrong places
        self.arrays |= {f"{group}/{name}": np.asarray(array, order="C") for name, array in arrays.items()}

    def group(self, group: str) -> dict[str, Any]:
        """Return the arrays that were put under ``group/``, by their own names."""
        prefix = f"{group}/"
        return {
            name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)
        }

    def save(self, path: Path) -> None:
        """Write to disk; a kill at any moment leaves either the old or the new file, whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        safetensors.numpy.save_file(self.arrays, temporary, metadata={"values": json.dumps(self.values)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read from disk.

        Raises
        ------
        StateError
            If the file is absent or damaged.
        """
        try:
            with safetensors.safe_open(path, framework="np") as file:
                values = json.loads((file.metadata() or {})["values"])
                return cls({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
        except FileNotFoundError as error:
            raise StateError(f"there is no checkpoint {path}: nothing to resume") from error
        except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StateError(f"the checkpoint {path} is damaged: {error}") from error
