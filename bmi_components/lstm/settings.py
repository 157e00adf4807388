"""The configuration of StreamflowLSTM: this package's YAML, and that of NextGen's LSTM as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from bmi_components.catchments import Catchments, CatchmentsFile
from bmi_components.config import Settings
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.source import ForcingSource

__all__ = ["RunFolder", "StreamflowLSTMSettings", "from_nextgen"]


class RunFolder(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What a neuralhydrology run folder does not say by itself; see ``bmi-components import neuralhydrology``."""

    epoch: Annotated[int | None, Meta(description="Epoch of the weights; the highest without it.")] = None
    target: Annotated[str | None, Meta(description="Target of several; the first without it.")] = None
    units: Annotated[
        dict[str, str],
        Meta(
            description="UDUNITS-2 units by name of input, attribute or target, where the run does not tell them."
        ),
    ] = {}
    quantities: Annotated[
        dict[str, str],
        Meta(description="Our symbol by name of input, where the name does not tell what it is."),
    ] = {}
    time_step: Annotated[
        float | None, Meta(description="Length of a step, s, where the run does not tell it.")
    ] = None


class StreamflowLSTMSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a StreamflowLSTM component."""

    models: Annotated[
        tuple[Path, ...],
        Meta(
            min_length=1,
            description="Folders of the trained models: bundles or neuralhydrology runs; several are an ensemble.",
        ),
    ]
    catchments: Catchments = ()
    catchments_file: CatchmentsFile = None
    model_path: Annotated[
        Path | None,
        Meta(
            description="Folder in which a model folder that is absent is looked up by its name, before those of the "
            "environment variable BMI_COMPONENTS_MODEL_PATH."
        ),
    ] = None
    run_folder: Annotated[
        RunFolder,
        Meta(description="What neuralhydrology run folders among the models do not say by themselves."),
    ] = RunFolder()
    inputs: Annotated[
        Literal["direct", "nextgen"],
        Meta(
            description="Units of what is set: those of the catalogue (direct; precipitation of an hourly model in "
            "mm h-1), or those of NextGen's LSTM (nextgen: mm h-1 and K)."
        ),
    ] = "direct"
    state_mode: Annotated[
        Literal["carry", "window"],
        Meta(
            description='"carry": the state goes on for ever, as in NextGen; "window": every step runs the latest '
            "sequence from an empty state, as neuralhydrology evaluates."
        ),
    ] = "carry"
    spin_up: Annotated[
        ForcingSource | None,
        Meta(description="Record of the inputs before the start that fills the state, a forcing source."),
    ] = None
    negative_runoff: Annotated[
        Literal["zero", "keep"],
        Meta(
            description='What becomes of runoff below zero, which a network may predict: "zero" cuts it off in each '
            'model, "keep" leaves it.'
        ),
    ] = "zero"
    runoff_units: Annotated[
        Literal["mm d-1", "m h-1", "m3 s-1"],
        Meta(
            description="Units of the runoff rate; NextGen's LSTM has m3 s-1. The spread and the daily runoff are in "
            "mm d-1 whatever is chosen here."
        ),
    ] = "mm d-1"


_NEXTGEN_KEYS = {
    *("time_step", "area_sqkm", "basin_id", "basin_name", "initial_state", "lat", "lon", "train_cfg_file"),
    *("verbose", "model_path", "start_time", "dtype"),
}


def from_nextgen(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Translate the file of NextGen's LSTM: flat attributes and the ``config.yml`` of one run folder or several.

    A relative path is looked up beside the file, then from the working directory, as NextGen's LSTM does; a run folder
    that is in neither is looked up by its name. ``model_path``, ``start_time`` and ``dtype`` may be given besides.

    Raises
    ------
    ConfigurationError
        If an attribute is no number, the paths are not text, or the file asks for an initial state by itself.
    """
    listed = values["train_cfg_file"]
    files = [listed] if isinstance(listed, str) else listed
    if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
        raise ConfigurationError(
            f"{path}: train_cfg_file is {listed!r}; the path of a run's config.yml is needed, or a list of such"
        )
    if values.get("initial_state", "zero") != "zero":
        raise ConfigurationError(
            f"{path}: initial_state is {values['initial_state']!r}; NextGen's files know only 'zero' "
            "(give a saved state in this package's own configuration)"
        )
    attributes = {key: value for key, value in values.items() if key not in _NEXTGEN_KEYS}
    for key, value in attributes.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ConfigurationError(f"{path}: the attribute {key!r} is {value!r}; a number is needed")
    catchment = {"id": str(values.get("basin_id", path.stem)), "attributes": attributes}
    for theirs, ours in (("area_sqkm", "area_km2"), ("lat", "latitude"), ("lon", "longitude")):
        if theirs in values:
            catchment[ours] = values[theirs]
    translated: dict[str, Any] = {
        "models": [str(_run_folder(Path(file), path.parent)) for file in files],
        "catchments": [catchment],
        "inputs": "nextgen",
        "runoff_units": "m3 s-1",
        "partial_step": "estimate",
    }
    return translated | {key: values[key] for key in ("model_path", "start_time", "dtype") if key in values}


def _run_folder(file: Path, beside: Path) -> Path:
    """Return the folder of a run's configuration file, absolute where it is there."""
    for base in (beside, Path.cwd()):
        if (base / file).exists():
            return (base / file).resolve().parent
    return file.parent
