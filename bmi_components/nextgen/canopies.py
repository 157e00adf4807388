"""The canopy of a catchment as CanVeg is configured with it: from columns, constants and the hydrofabric."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.nextgen.attributes import Known
from bmi_components.nextgen.hydrofabric import Divide
from bmi_components.trained_model import TrainedModel
from bmi_components.variables import variable

__all__ = ["CANOPY", "FORCED", "Canopies"]

MONTHLY = ("leaf_area_index", "canopy_height", "soil_water_content", "soil_temperature", "carbon_dioxide")
"""Keys of a site that are a number or twelve."""
NUMBERS = ("measurement_height", "soil_depth", "utc_offset")
"""Keys of a site that are a number, and have a default."""
DEFAULTS = ("carbon_dioxide",)
"""Those of `MONTHLY` that the component has a value of its own for."""
CANOPY = ("latitude", "longitude", *MONTHLY, *NUMBERS)
"""What columns and constants may say of a canopy."""
FORCED = ("leaf_area_index", "soil_water_content", "soil_temperature", "carbon_dioxide")
"""Symbols of what a column of the forcing may give by the hour instead."""
DISPERSION = "dispersion"
"""Folder of the dispersion matrices, beside the configurations."""


@dataclass
class Canopies:
    """The canopies of one trained model.

    Attributes
    ----------
    model
        Trained at a tower, whose place and heights hold for no other.
    known
        What is known of the catchments.
    forced
        Those of `FORCED` that the forcing gives.
    matrices
        Dispersion matrices that the catchments need in place of the model's, by file name; filled by `text`.
    """

    model: TrainedModel
    known: Known
    forced: Collection[str]
    matrices: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def _trained(self) -> tuple[Any, Any]:
        """Options and site of the model, read once for all catchments."""
        from bmi_components.canveg.bundle import unpack

        options, tower, _, _ = unpack(self.model)
        return options, tower

    def text(self, divide: Divide) -> str:
        """Return what is a catchment's own in its configuration, JSON as YAML.

        Raises
        ------
        ConfigurationError
            If something is missing; all that is, is named.
        """
        site = self._site(divide)
        lines = [f"{symbol}: input" for symbol in self.forced]
        matrix = self._matrix(site)
        if matrix is not None:
            lines.append(f"dispersion: ../{DISPERSION}/{matrix}")
        lines += ["sites:", f"  - id: {json.dumps(divide.id)}"]
        lines += [f"    {key}: {json.dumps(value)}" for key, value in site.items()]
        return "\n".join(lines) + "\n"

    def write_matrices(self, folder: Path) -> None:
        """Write the matrices that `text` has named into a folder beside the configurations'."""
        if self.matrices:
            (folder / DISPERSION).mkdir()
        for name, matrix in self.matrices.items():
            np.savetxt(folder / DISPERSION / name, matrix, fmt="%.17g", delimiter=",")

    def _site(self, divide: Divide) -> dict[str, float | list[float]]:
        from bmi_components.canveg.inputs import CLEARANCE

        found: dict[str, float | list[float]] = {}
        missing = []
        for key, place in (("latitude", divide.latitude), ("longitude", divide.longitude)):
            value = self.known.number(divide.id, key)
            value = value if math.isfinite(value) or place is None else place
            found[key] = value
            if not math.isfinite(value):
                missing.append(f"{key} [degrees], which the hydrofabric does not know either")
        for key in MONTHLY:
            months = math.nan if key in self.forced else self.known.monthly(divide.id, key)
            if np.isfinite(months).all():
                found[key] = months
            elif key not in self.forced and key not in DEFAULTS:
                missing.append(f"{key} [{variable(key).units}]")
        for key in NUMBERS:
            value = self.known.number(divide.id, key)
            if math.isfinite(value):
                found[key] = value
        if missing:
            raise self.known.lack(divide.id, missing)
        # The tower's height is not that of this catchment's weather.
        found.setdefault("measurement_height", float(np.max(found["canopy_height"])) + CLEARANCE)
        return found

    def _matrix(self, site: Mapping[str, float | list[float]]) -> str | None:
        """Return the file of the dispersion matrix, which follows from the heights; None: the model's own."""
        from bmi_components.canveg.dispersion import dispersion_matrix

        options, tower = self._trained
        canopy, height = np.mean(site["canopy_height"]), np.mean(site["measurement_height"])
        if not 0.0 < canopy < height:
            return None  # the component says what is wrong
        ratio = f"{height / canopy:.3g}"
        own = np.asarray(tower.measurement_height) / np.asarray(tower.canopy_height)
        if options.mode == "reference" or all(f"{value:.3g}" == ratio for value in np.atleast_1d(own)):
            return None
        name = f"{ratio}.csv"
        if name not in self.matrices:
            self.matrices[name] = dispersion_matrix(
                options.layers, options.atmosphere_layers, measurement_height_ratio=float(ratio)
            )
        return name
