"""Other projects' trained models, turned into `TrainedModel`s without ever running code that comes with them."""

from __future__ import annotations

import os
from pathlib import Path

from bmi_components.errors import BundleError
from bmi_components.trained_model import DESCRIPTION_FILE, TrainedModel

__all__ = ["import_deltamg", "load_model"]


def load_model(path: str | os.PathLike[str], kind: str | None = None) -> TrainedModel:
    """Load whatever trained model is at a path: a bundle or a δMG model folder (NextGen's ``model_dir``).

    What is inside decides. The model is read once per process and shared, as `TrainedModel.load` does.

    Parameters
    ----------
    path : path
        A bundle, a δMG model folder, or a ``.pt`` file in such a folder.
    kind : str, optional
        The kind that the caller can use.

    Raises
    ------
    BundleError
        If nothing usable is there, something is damaged, or the model is of another kind.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / DESCRIPTION_FILE).is_file():
        return TrainedModel.load(folder, kind)
    if folder.suffix == ".pt" or any(folder.glob("*.pt")):
        model = import_deltamg(folder)
        if kind is not None and model.kind != kind:
            raise BundleError(
                f"{folder}: this folder holds a model of kind {model.kind!r}; {kind!r} is needed here"
            )
        return model
    if not folder.is_dir():
        raise BundleError(f"{folder}: there is no such folder, so no trained model")
    raise BundleError(
        f"{folder}: no trained model is here; a bundle holds {DESCRIPTION_FILE} and weights.safetensors, "
        "a δMG model folder config.yaml, normalization_statistics.json and a .pt file"
    )


def import_deltamg(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a δMG model folder, see `bmi_components.importers.deltamg`; needs PyTorch."""
    from bmi_components.importers import deltamg

    return deltamg.import_deltamg(path)
