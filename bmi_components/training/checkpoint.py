"""Checkpoints of PyTorch models: archives that take and give tensors, so that a run continues bit for bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from bmi_components.training.archive import Archive

__all__ = ["Checkpoint", "pack_optimiser", "unpack_optimiser"]


class Checkpoint(Archive):
    """Everything that a run's next iteration depends on: tensors by name, and plain values."""

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by names like ``group/name``."""
        return {name: torch.from_numpy(array) for name, array in self.arrays.items()}

    def put(self, group: str, arrays: Mapping[str, Tensor]) -> None:
        """Add tensors under ``group/``."""
        super().put(group, {name: tensor.detach().cpu().numpy() for name, tensor in arrays.items()})

    def group(self, group: str) -> dict[str, Tensor]:
        """Return the tensors that were put under ``group/``, by their own names."""
        return {name: torch.from_numpy(array) for name, array in super().group(group).items()}


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
