"""The configuration of CanVeg."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bmi_components.canveg.options import Options
from bmi_components.config import Settings

__all__ = ["CanVegSettings", "CanVegSite", "Constant", "Quantity"]

_Monthly = Annotated[tuple[float, ...], Meta(min_length=12, max_length=12)]

Constant = float | _Monthly
"""A constant, or values for the middles of the twelve months, between which a day's value lies on a straight line."""

Quantity = Constant | Literal["input"]
"""A constant, twelve monthly values, or an input that a tower, NextGen's forcing or another component gives."""


class CanVegSite(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A place with a canopy: where it lies, how high the canopy is, and what differs from the other sites."""

    id: str = "site"
    latitude: Annotated[float | None, Meta(description="Degrees north.")] = None
    longitude: Annotated[float | None, Meta(description="Degrees east.")] = None
    utc_offset: Annotated[
        float | None,
        Meta(
            description="Hours by which local standard time is ahead of UTC; without it those of the longitude."
        ),
    ] = None
    measurement_height: Annotated[
        float | None,
        Meta(description="Height of wind and weather above the ground, m; without it 10 m above the canopy."),
    ] = None
    soil_depth: Annotated[
        float | None, Meta(description="Depth of the soil temperature, m; without it the model's, or 0.15.")
    ] = None
    canopy_height: Constant | None = None
    leaf_area_index: Constant | None = None
    carbon_dioxide: Constant | None = None
    soil_water_content: Constant | None = None
    soil_temperature: Constant | None = None
    parameters: Annotated[
        dict[str, float], Meta(description="Parameters of this site, in place of the model's.")
    ] = msgspec.field(default_factory=dict)


class CanVegSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a CanVeg component."""

    dtype: Annotated[
        Literal["float32", "float64"],
        Meta(description="Precision of the arithmetic inside the model; balances close in double precision."),
    ] = "float64"
    model: Annotated[
        Path | None,
        Meta(
            description="Folder of a trained model, a bundle of kind canveg; without it options, parameters and sites "
            "say everything."
        ),
    ] = None
    options: Annotated[
        Options | None,
        Meta(description="Mode, layers and forms of the processes, where there is no trained model."),
    ] = None
    parameters: Annotated[
        dict[str, float],
        Meta(description="Parameters in place of the model's, or else the table's, for all sites."),
    ] = msgspec.field(default_factory=dict)
    dispersion: Annotated[
        Path | None,
        Meta(description="CSV file of a dispersion matrix in place of the generated one, s m-1."),
    ] = None
    time_step: Annotated[
        Literal["half_hourly", "hourly"] | None,
        Meta(description="Length of a step; without it the model's own."),
    ] = None
    sites: Annotated[
        tuple[CanVegSite, ...],
        Meta(
            description="The canopies: id, latitude, longitude, utc_offset, canopy_height, measurement_height, "
            "soil_depth, and where they differ the quantities below and parameters; without sites the trained model's."
        ),
    ] = ()
    sites_file: Annotated[
        Path | None,
        Meta(
            description="CSV table of the sites instead: columns id, latitude, longitude and any of these keys."
        ),
    ] = None
    clock: Annotated[
        Literal["utc", "local"],
        Meta(description="Whether start_time and the forcing are in UTC or in each site's standard time."),
    ] = "utc"
    inputs: Annotated[
        Literal["tower", "nextgen"],
        Meta(
            description='"tower": vapour pressure and wind speed as measured; "nextgen": the eight AORC variables, '
            "from which they are derived."
        ),
    ] = "tower"
    longwave: Annotated[
        Literal["input", "estimate"],
        Meta(
            description="Incoming longwave radiation of a tower: measured, or from air temperature and clearness of "
            "the sky. NextGen always gives it."
        ),
    ] = "estimate"
    friction_velocity: Annotated[
        Literal["input", "profile"] | None,
        Meta(
            description="Measured, or from the logarithmic wind profile with the stability of the step before; without "
            "it measured at a tower and from the profile under NextGen."
        ),
    ] = None
    canopy_height: Annotated[
        Quantity | None,
        Meta(
            description="m: a constant, twelve monthly values, or input; without it the sites' or the model's."
        ),
    ] = None
    leaf_area_index: Annotated[Quantity, Meta(description="m2 m-2: likewise.")] = "input"
    carbon_dioxide: Annotated[Quantity, Meta(description="umol mol-1: likewise.")] = 410.0
    soil_water_content: Annotated[Quantity, Meta(description="m3 m-3: likewise.")] = "input"
    soil_temperature: Annotated[Quantity, Meta(description="degC, at the sites' soil_depth: likewise.")] = (
        "input"
    )
    profiles: Annotated[
        bool, Meta(description="Whether profiles by layer are published besides the fluxes.")
    ] = True
