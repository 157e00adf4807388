"""The configuration of FourDVarNet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from bmi_components.config import Settings

__all__ = ["Ensemble", "FourDVarNetSettings"]


class Ensemble(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Analyses of perturbed observations, whose spread tells how uncertain the analysis is."""

    members: Annotated[
        int, Meta(ge=2, description="Number of perturbed analyses beside the unperturbed one.")
    ]
    noise: Annotated[
        float, Meta(gt=0.0, description="Standard deviation of the observations' error, in their units.")
    ]
    seed: Annotated[int, Meta(ge=0, description="Of the perturbations.")] = 0


class FourDVarNetSettings(Settings, kw_only=True, frozen=True):
    """Configuration of a FourDVarNet component."""

    model: Annotated[Path, Meta(description="Folder of the trained model, a bundle of kind fourdvarnet.")]
    sites: Annotated[
        int, Meta(ge=1, description="Number of systems that are observed and analysed, each for itself.")
    ] = 1
    background: Annotated[
        bool,
        Meta(
            description="Whether a forecast of the state is given at each step: innovations are then against it, and a "
            "previous analysis that is moved on ends with it."
        ),
    ] = False
    start: Annotated[
        Literal["interpolation", "warm"],
        Meta(
            description="Where the analysis comes from: the solver, which starts from interpolated observations as "
            "in training (interpolation); or (warm) from whichever has the lower cost, that or the previous analysis "
            "moved on by a step."
        ),
    ] = "interpolation"
    lag: Annotated[
        int, Meta(ge=0, description="Steps before the present at which a second analysis is published.")
    ] = 20
    ensemble: Annotated[
        Ensemble | None, Meta(description="Perturbed analyses for the spread; none without it.")
    ] = None
