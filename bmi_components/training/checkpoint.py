"""Checkpoints of a training run: one safetensors file, replaced atomically, that continues the run bit for bit."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bmi_components.errors import StateError

__all__ = ["Checkpoint", "pack_optimiser", "unpack_optimiser"]


@dataclass
class Checkpoint:
    """Everything that a run's next iteration depends on: tensors by name, and plain values."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def put(self, group: str, tensors: dict[str, Tensor]) -> None:
        """Add tensors under ``group/``."""
        self.tensors.update({f"{group}/{name}": tensor for name, tensor in tensors.items()})

    def group(self, group: str) -> dict[str, Tensor]:
        """Return the tensors that were put under ``group/``, by their own names."""
        prefix = f"{group}/"
        return {
            name.removeprefix(prefix): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(prefix)
        }

    def save(self, path: Path) -> None:
        """Write to disk; a kill at any moment leaves either the old or the new file, whole."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, temporary, metadata={"values": json.dumps(self.values)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read from disk.

        Raises
        ------
        StateError
            If the file is absent or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                values = json.loads((file.metadata() or {})["values"])
                return cls({name: file.get_tensor(name) for name in file.keys()}, values)  # noqa: SIM118
        except FileNotFoundError as error:
            raise StateError(f"there is no checkpoint {path}: nothing to resume") from error
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise StateError(f"the checkpoint {path} is damaged: {error}") from error


def pack_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's memory as tensors named ``<position of the parameter>/<quantity>``."""
    memory = optimiser.state_dict()["state"]
    return {
        f"{position}/{quantity}": torch.as_tensor(value)
        for position, quantities in memory.items()
        for quantity, value in quantities.items()
    }


def unpack_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back the memory that `pack_optimiser` returned; settings such as the learning rate stay as they are."""
    memory: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        position, quantity = name.split("/")
        memory.setdefault(int(position), {})[quantity] = tensor
    optimiser.load_state_dict({"state": memory, "param_groups": optimiser.state_dict()["param_groups"]})
