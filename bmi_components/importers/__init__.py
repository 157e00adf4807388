"""Other projects' trained models, turned into `TrainedModel`s without ever running code that comes with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bmi_components.errors import BundleError
from bmi_components.importers.finding import MODEL_PATH_VARIABLE
from bmi_components.trained_model import DESCRIPTION_FILE, TrainedModel

__all__ = ["import_deltamg", "import_jaxcanveg", "import_neuralhydrology", "load_model"]


def load_model(path: str | os.PathLike[str], kind: str | None = None, **run_options: Any) -> TrainedModel:
    """Load whatever trained model is at a path: a bundle, or a folder of δMG, neuralhydrology or JAX-CanVeg.

    What is inside decides. The model is read once per process and shared, as `TrainedModel.load` does.

    Parameters
    ----------
    path : path
        A bundle; a δMG model folder (NextGen's ``model_dir``), or a ``.pt`` file in it; a neuralhydrology run folder,
        or the ``config.yml`` in it (NextGen's ``train_cfg_file``); a JAX-CanVeg folder, or its ``.eqx`` file.
    kind : str, optional
        The kind that the caller can use.
    run_options
        What a neuralhydrology run folder does not say by itself, see `import_neuralhydrology`; the others say it all.

    Raises
    ------
    BundleError
        If nothing usable is there, something is damaged, or the model is of another kind.
    """
    folder = Path(path).expanduser().resolve()
    if (folder / DESCRIPTION_FILE).is_file():
        return TrainedModel.load(folder, kind)
    if folder.name == "config.yml" or _is_run_folder(folder):
        return _of_kind(import_neuralhydrology(folder, **run_options), kind, folder)
    if folder.suffix == ".pt" or any(folder.glob("*.pt")):
        return _of_kind(import_deltamg(folder), kind, folder)
    if folder.suffix == ".eqx" or any(folder.glob("*.eqx")):
        return _of_kind(import_jaxcanveg(folder), kind, folder)
    if not folder.is_dir():
        raise BundleError(
            f"{folder}: there is no such folder, so no trained model; components also look for {folder.name!r} in the "
            f"folders of the environment variable {MODEL_PATH_VARIABLE}"
        )
    raise BundleError(
        f"{folder}: no trained model is here; a bundle holds {DESCRIPTION_FILE} and weights.safetensors, "
        "a δMG model folder config.yaml, normalization_statistics.json and a .pt file, a neuralhydrology run folder "
        "config.yml, train_data and model_epoch*.pt, a JAX-CanVeg folder configs.json and an .eqx file"
    )


def _is_run_folder(folder: Path) -> bool:
    return (folder / "config.yml").is_file() and any(folder.glob("model_epoch*.pt"))


def _of_kind(model: TrainedModel, kind: str | None, folder: Path) -> TrainedModel:
    if kind is not None and model.kind != kind:
        raise BundleError(
            f"{folder}: this folder holds a model of kind {model.kind!r}; {kind!r} is needed here"
        )
    return model


def import_deltamg(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a δMG model folder, see `bmi_components.importers.deltamg`; needs PyTorch."""
    from bmi_components.importers import deltamg

    return deltamg.import_deltamg(path)


def import_neuralhydrology(path: str | os.PathLike[str], **options: Any) -> TrainedModel:
    """Read a neuralhydrology run folder, see `bmi_components.importers.neuralhydrology`; needs PyTorch."""
    from bmi_components.importers import neuralhydrology

    return neuralhydrology.import_neuralhydrology(path, **options)


def import_jaxcanveg(path: str | os.PathLike[str]) -> TrainedModel:
    """Read a JAX-CanVeg folder, see `bmi_components.importers.jaxcanveg`; needs JAX."""
    from bmi_components.importers import jaxcanveg

    return jaxcanveg.import_jaxcanveg(path)
