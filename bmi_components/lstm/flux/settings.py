"""The configuration of FluxLSTM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bmi_components.config import Settings
from bmi_components.forcing.source import ForcingSource

__all__ = ["FluxLSTMSettings", "Tower"]


class Tower(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A place to predict fluxes for: its name, where it lies, and its name in records, where that is another."""

    id: str
    latitude: float | None = None
    longitude: float | None = None
    record_id: str | None = None


class FluxLSTMSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a FluxLSTM component."""

    model: Annotated[Path, Meta(description="Folder of the trained model, a bundle of kind flux.")]
    towers: Annotated[
        tuple[Tower, ...],
        Meta(min_length=1, description="The towers: id, and where known latitude and longitude."),
    ] = (Tower(id="tower"),)
    inputs: Annotated[
        Literal["daily", "half_hourly", "hourly"],
        Meta(
            description='What one update takes: "daily": a day\'s means of the hours that count for the model; '
            '"half_hourly", "hourly": measurements, of which the component makes days by the rules of the model\'s '
            "training. Missing values are NaN."
        ),
    ] = "daily"
    utc_offset: Annotated[
        float,
        Meta(
            ge=-14,
            le=14,
            description="Hours by which the towers' standard time is ahead of start_time's clock: 0 where start_time "
            "is in the towers' time, -8 on the Pacific coast where it is UTC. Days begin at the towers' midnight.",
        ),
    ] = 0.0
    missing_day: Annotated[
        Literal["nan", "hold"],
        Meta(
            description='What to do on the last day of the window if it is missing: "nan" gives no prediction, "hold" '
            "takes the inputs of the day before as long as the gap is one that would be interpolated."
        ),
    ] = "nan"
    longest_gap: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(
            description="Longest gap, days, whose inputs are interpolated once it has ended, in place of the model's "
            "own rule; a longer one leaves no prediction until it has left the window."
        ),
    ] = None
    warm_up: Annotated[
        ForcingSource | None,
        Meta(
            description="Record of the inputs up to start_time that fills the window, a forcing source (kind: "
            "flux_tower, path, ...); without it the window fills as the run goes."
        ),
    ] = None
