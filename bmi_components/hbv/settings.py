"""The configuration of DeltaHBV: this package's YAML, and NextGen In A Box's files as they are."""

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

__all__ = ["Climatology", "DeltaHBVSettings", "WarmUp", "from_nextgen"]

Evapotranspiration = Literal["given", "penman_monteith", "penman_monteith_daily", "hargreaves", "oudin"]
"""Where potential evapotranspiration comes from."""

_Monthly = Annotated[tuple[float, ...], Meta(min_length=12, max_length=12)]


class WarmUp(ForcingSource, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A record of the component's inputs before the start: fixes the static parameters of 1.x, fills the stores."""

    keep_state: Annotated[
        bool, Meta(description="Whether stores and memory start as the record leaves them, or empty.")
    ] = True


class Climatology(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Mean weather of the twelve months, from which a 1.x model's static parameters are read; stores stay empty."""

    precipitation: _Monthly
    temperature: _Monthly
    potential_evapotranspiration: _Monthly


class DeltaHBVSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a DeltaHBV component."""

    model: Annotated[
        Path,
        Meta(description="Folder of the trained model: a bundle, or a δMG model folder, which is imported."),
    ]
    catchments: Catchments = ()
    catchments_file: CatchmentsFile = None
    inputs: Annotated[
        Literal["direct", "nextgen"],
        Meta(
            description='"direct": precipitation, temperature and, if given, potential evapotranspiration; '
            '"nextgen": the eight AORC variables, precipitation in mm s-1.'
        ),
    ] = "direct"
    potential_evapotranspiration: Annotated[
        Evapotranspiration,
        Meta(
            description="Where potential evapotranspiration comes from: an input (given), the hourly equation at every "
            "update (penman_monteith), or daily equations; hargreaves needs temperature within the day."
        ),
    ] = "given"
    warm_up: Annotated[
        WarmUp | None,
        Meta(
            description="Record of the inputs before the start, a forcing source (kind, path, ...) with keep_state; "
            "1.x models need this or climatology."
        ),
    ] = None
    climatology: Annotated[
        Climatology | None,
        Meta(description="Monthly mean forcing, one value a month, where there is no record."),
    ] = None
    parameters: Annotated[
        dict[str, float],
        Meta(description="Physical parameters held at a value, by published name (parFC: 250.0)."),
    ] = msgspec.field(default_factory=dict)
    runoff_units: Annotated[
        Literal["mm d-1", "m h-1"],
        Meta(description="Units of the runoff rate; NextGen's δHBV 2 realizations expect m h-1."),
    ] = "mm d-1"


_NEXTGEN_KEYS = {
    "catchment_id",
    "catchment_name",
    "model_dir",
    "stepwise",
    "initial_state",
    "dtype",
    "verbose",
} | {
    *(
        "time_step",
        "start_time",
        "end_time",
        "start_date",
        "start_hour",
        "pet_method",
        "latitude",
        "longitude",
    ),
}


def from_nextgen(values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Translate NextGen In A Box's file: flat attributes, and a model that steps behind NextGen's hours.

    NextGen runs past ``end_time``, so it is not taken over.
    """
    attributes = {k: v for k, v in values.items() if k not in _NEXTGEN_KEYS}
    for key, value in attributes.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise ConfigurationError(f"{path}: the attribute {key!r} is {value!r}; a number is needed")
    if values.get("initial_state", "zero") != "zero":
        raise ConfigurationError(
            f"{path}: initial_state is {values['initial_state']!r}; NextGen's files know only 'zero' "
            "(give a saved state in this package's own configuration)"
        )
    catchment: dict[str, Any] = {"id": str(values.get("catchment_id", path.stem)), "attributes": attributes}
    if "latitude" in values:
        catchment["latitude"] = values["latitude"]
    if "longitude" in values:
        catchment["longitude"] = values["longitude"]
    if "catchsize" in values:
        catchment["area_km2"] = values["catchsize"]
    translated: dict[str, Any] = {
        "model": values["model_dir"],
        "catchments": [catchment],
        "inputs": "nextgen",
        "potential_evapotranspiration": values.get("pet_method", "penman_monteith"),
        "runoff_units": "m h-1",
        "partial_step": "estimate",
        "dtype": values.get("dtype", "float32"),
    }
    if "start_time" in values:
        translated["start_time"] = values["start_time"]
    return translated
