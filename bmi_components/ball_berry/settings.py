"""The configuration of BallBerry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from bmi_components.config import Settings

__all__ = ["BallBerrySettings"]


class BallBerrySettings(Settings, kw_only=True, frozen=True):
    """Configuration of a BallBerry component."""

    conductance: Annotated[
        Literal["ball_berry", "hybrid", "medlyn"] | None,
        Meta(
            description="Stomatal conductance by relative humidity (ball_berry), by a network of soil moisture and "
            "humidity in its place (hybrid, needs model), or by vapour pressure deficit (medlyn). Without it: the "
            "model's, or ball_berry."
        ),
    ] = None
    model: Annotated[
        Path | None,
        Meta(
            description="Trained canopy model whose leaves these are: a bundle of kind canveg, or a folder of "
            "JAX-CanVeg."
        ),
    ] = None
    leaves: Annotated[int, Meta(ge=1, description="Number of leaves.")] = 1
    conductance_slope: Annotated[
        float | list[float] | None,
        Meta(
            description="Slope of ball_berry and hybrid, one or one per leaf. Without it: the model's, or 8.17."
        ),
    ] = None
    conductance_intercept: Annotated[
        float | list[float] | None,
        Meta(
            description="Conductance without assimilation, mol m-2 s-1, one or one per leaf. Without it: the model's, "
            "or 0.05."
        ),
    ] = None
    medlyn_slope: Annotated[
        float | list[float] | None,
        Meta(description="Slope g1 of medlyn, kPa0.5, one or one per leaf. Without it: the model's, or 4.0."),
    ] = None
    time_step: Annotated[
        float, Meta(gt=0.0, description="Seconds from one update to the next; the leaves remember nothing.")
    ] = 1800.0
