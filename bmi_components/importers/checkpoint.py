"""Weights of a PyTorch checkpoint, read without running anything that comes with them."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from bmi_components.errors import BundleError

__all__ = ["Weights", "read_checkpoint"]

Weights = dict[str, NDArray[Any]]
"""Arrays by name, float32 or float64."""


def read_checkpoint(path: Path) -> Weights:
    """Read the tensors of a checkpoint, running no code that it may hold.

    Parameters
    ----------
    path
        A ``state_dict`` as ``torch.save`` writes it since PyTorch 1.6.

    Returns
    -------
    dict
        float32 or float64 arrays by name.

    Raises
    ------
    BundleError
        If the file is damaged, holds code, or does not hold a ``state_dict`` of floating-point tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            compressed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        raise BundleError(f"{path}: the checkpoint is damaged, or not one of PyTorch 1.6 or later") from error
    if damaged is not None or compressed:
        raise BundleError(f"{path}: the checkpoint is damaged (in {damaged or 'its directory'})")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path}: the checkpoint holds pickled code, not only weights, and is not opened; ask its author for the "
            "state_dict"
        ) from error
    except Exception as error:  # whatever PyTorch's reader makes of a file that is not what it expects
        raise BundleError(f"{path}: PyTorch cannot read the checkpoint ({type(error).__name__})") from error
    if not isinstance(content, Mapping) or not content:
        raise BundleError(f"{path}: the checkpoint holds no state_dict but a {type(content).__name__}")
    weights: Weights = {}
    for key, tensor in content.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided:
            raise BundleError(f"{path}: the checkpoint's {key!r} is not a dense tensor of a state_dict")
        if not tensor.is_floating_point():
            raise BundleError(
                f"{path}: the checkpoint's {key!r} is of type {tensor.dtype}, not floating-point"
            )
        exact = tensor.detach() if tensor.dtype in (torch.float32, torch.float64) else tensor.detach().float()
        weights[key] = exact.contiguous().numpy()
    return weights
