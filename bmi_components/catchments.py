"""The catchments of a configuration: who they are, where they lie, and their static attributes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.trained_model import NamedUnits

__all__ = ["Catchment", "Catchments", "CatchmentsFile", "Site", "attribute_table", "read_catchments"]

Vector = NDArray[np.float64]


class Catchment(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One catchment: a name, where it lies, and the static attributes that the model reads.

    ``record_id`` is its name in records of weather, where that is another.
    """

    id: str
    attributes: dict[str, float]
    area_km2: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    record_id: str | None = None


Catchments = Annotated[
    tuple[Catchment, ...],
    Meta(description="The catchments: id, attributes, and where known area_km2, latitude and longitude."),
]
"""The key ``catchments`` of a configuration; see `read_catchments`."""

CatchmentsFile = Annotated[
    Path | None,
    Meta(description="CSV table instead: columns id, area_km2, latitude, longitude, and one per attribute."),
]
"""The key ``catchments_file`` of a configuration."""


@dataclass(frozen=True)
class Site:
    """What a component knows about its catchments, each ``[catchment]``: degrees and km2, NaN where unknown."""

    latitude: Vector
    longitude: Vector
    area: Vector

    @classmethod
    def of(cls, catchments: Sequence[Catchment]) -> Site:
        """Collect what is configured."""

        def column(key: str) -> Vector:
            values = (getattr(catchment, key) for catchment in catchments)
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)

        return cls(column("latitude"), column("longitude"), column("area_km2"))

    @property
    def coordinates(self) -> tuple[Vector, Vector] | None:
        """Longitude and latitude, each ``[catchment]``, where all are known."""
        if np.isfinite(self.latitude).all() and np.isfinite(self.longitude).all():
            return self.longitude, self.latitude
        return None


def read_catchments(listed: Sequence[Catchment], table: Path | None) -> tuple[Catchment, ...]:
    """Return the configured catchments, from the list or the table (a CSV file).

    Raises
    ------
    ConfigurationError
        If there are none, both, a name twice, or the table is unreadable.
    """
    if bool(listed) == (table is not None):
        raise ConfigurationError("give the catchments either as 'catchments' or as 'catchments_file'")
    catchments = tuple(listed) if table is None else _read_table(table)
    seen: set[str] = set()
    for catchment in catchments:
        if catchment.id in seen:
            raise ConfigurationError(f"the catchment {catchment.id!r} is there twice; ids must differ")
        seen.add(catchment.id)
    return catchments


def _read_table(path: Path) -> tuple[Catchment, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the table of catchments cannot be read ({error.strerror})"
        ) from error
    if not rows or "id" not in rows[0]:
        raise ConfigurationError(f"{path}: a table of catchments needs a column 'id' and at least one row")
    known = ("area_km2", "latitude", "longitude")
    catchments = []
    for number, row in enumerate(rows, start=2):
        values: dict[str, float] = {}
        for key, text in row.items():
            if key != "id" and text not in (None, ""):
                try:
                    values[key] = float(text)
                except ValueError:
                    raise ConfigurationError(
                        f"{path} line {number}: {key} is {text!r}, not a number"
                    ) from None
        place: dict[str, Any] = {key: values.pop(key) for key in known if key in values}
        catchments.append(Catchment(id=row["id"], attributes=values, **place))
    return tuple(catchments)


def attribute_table(catchments: Sequence[Catchment], attributes: Sequence[NamedUnits]) -> Vector:
    """Return ``[catchment, attribute]`` in the order of the model; attributes it does not use are passed over.

    Raises
    ------
    ConfigurationError
        If an attribute is missing or not a finite number.
    """
    names = [attribute.name for attribute in attributes]
    table = np.empty((len(catchments), len(names)))
    for row, catchment in zip(table, catchments, strict=True):
        for i, name in enumerate(names):
            value = catchment.attributes.get(name)
            if value is None or not np.isfinite(value):
                state = "is missing" if value is None else f"is {value}"
                raise ConfigurationError(
                    f"catchment {catchment.id}: the attribute {name!r} [{attributes[i].units}] {state}; "
                    f"the model needs a number for each of {', '.join(names)}"
                )
            row[i] = value
    return table
