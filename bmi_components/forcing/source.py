"""The settings that say where forcing comes from: the ``forcing`` section of configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bmi_components import config
from bmi_components.errors import ConfigurationError

__all__ = ["ForcingSource", "Kind"]

Kind = Literal["sample", "netcdf", "csv", "nextgen", "flux_tower"]


class ForcingSource(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Where forcing comes from and how its columns are to be understood."""

    kind: Annotated[
        Kind,
        Meta(
            description="sample (generated weather), netcdf, csv, nextgen (its csv folder or netCDF file), or "
            "flux_tower (AmeriFlux, FLUXNET)."
        ),
    ]
    path: Annotated[
        Path | None,
        Meta(
            description="File or folder. csv: one file with a catchment column, a folder with one file per "
            "catchment, or a pattern with {catchment}, such as forcing/{catchment}_daily.csv. flux_tower: one tower's "
            "file or folder, or a pattern of such, towers/{catchment}."
        ),
    ] = None
    catchments: Annotated[
        list[str] | None, Meta(description="Which catchments to use, in this order; without it all.")
    ] = None
    columns: Annotated[
        dict[str, str],
        Meta(
            description="Column (or netCDF variable) by our symbol or Standard Name, where the file's names differ."
        ),
    ] = {}
    units: Annotated[
        dict[str, str], Meta(description="Units by column, where the file declares none or wrong ones.")
    ] = {}
    time: Annotated[str | None, Meta(description="Column or variable that holds the time.")] = None
    catchment: Annotated[
        str | None, Meta(description="Column or variable that holds the catchments' identifiers.")
    ] = None
    potential_evapotranspiration: Annotated[
        Literal["given", "oudin"],
        Meta(description="oudin: compute it from temperature and latitude instead of reading it."),
    ] = "given"
    latitude: Annotated[
        float | dict[str, float] | None,
        Meta(description="Degrees north, one for all or by catchment; for oudin."),
    ] = None
    time_step: Annotated[
        Literal["1 hour", "1 day"] | None,
        Meta(
            description="Aggregate finer data to means over this step; for sample the step to generate (1 day)."
        ),
    ] = None
    start: Annotated[
        str | None,
        Meta(description="First date to use, where the run does not say; without it the first there is."),
    ] = None
    end: Annotated[
        str | None,
        Meta(description="Last date to use, included, where the run does not say; without it the last."),
    ] = None
    seed: Annotated[int, Meta(description="Seed of the sample weather.")] = 1

    @classmethod
    def of_path(cls, path: str | Path) -> ForcingSource:
        """Return the source that a bare path means: by its suffix; a folder holds csv files.

        A ``.yaml`` file holds the keys of this class.

        Raises
        ------
        ConfigurationError
            If the suffix is none that we read, or the YAML file is wrong.
        """
        file = Path(path)
        kinds: dict[str, Kind] = {
            ".nc": "netcdf",
            ".nc4": "netcdf",
            ".cdf": "netcdf",
            ".csv": "csv",
            "": "csv",
        }
        if file.suffix.lower() in (".yaml", ".yml"):
            return config.load(file, cls)
        kind = kinds.get(file.suffix.lower())
        if kind is None:
            raise ConfigurationError(
                f"{file}: forcing is read from .nc and .csv files, folders of .csv files and .yaml descriptions"
            )
        return cls(kind=kind, path=file)
