"""Which component a trained model is for, and what of it NextGen is to write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bmi_components.component import Component
from bmi_components.errors import ConfigurationError
from bmi_components.trained_model import TrainedModel

__all__ = ["COMPONENTS", "MAIN_OUTPUTS", "OUTPUTS", "hint_about", "kind_of", "new_component"]

COMPONENTS = {
    "hbv": "DeltaHBV",
    "lstm": "StreamflowLSTM",
    "flux": "FluxLSTM",
    "canveg": "CanVeg",
    "evapotranspiration": "PotentialEvapotranspiration",
}
"""Public names of the components that are configured, by kind."""

MAIN_OUTPUTS = {
    "hbv": "runoff_depth",
    "lstm": "runoff_depth",
    "flux": "net_ecosystem_exchange",
    "canveg": "evapotranspiration_depth",
    "evapotranspiration": "potential_evapotranspiration",
}
"""Symbol of the main output: metres per step where the component gives water to the land's surface or the air."""

OUTPUTS = {
    "hbv": ("runoff_depth", "evapotranspiration", "snow_water_equivalent", "soil_moisture"),
    "lstm": ("runoff_depth", "runoff_rate", "runoff_spread"),
    "flux": ("net_ecosystem_exchange", "net_ecosystem_production_rate", "valid_days"),
    "canveg": (
        *("evapotranspiration_depth", "latent_heat", "sensible_heat", "ground_heat", "net_radiation"),
        *("net_ecosystem_exchange", "gross_primary_production", "canopy_conductance", "soil_respiration"),
        "converged",
    ),
}
"""What goes into the csv files, by symbol, where the component publishes it."""

NO_CATCHMENTS = {
    "BallBerry": "BallBerry computes single leaves from their photosynthesis, which NextGen's forcing does not tell; "
    "CanVeg has its stomata in a whole canopy",
    "FourDVarNet": "FourDVarNet estimates a field from observations of it and knows no catchments; run it by itself "
    "(bmi-components fourdvarnet) or with bmi_components.couple",
    "Lorenz63": "Lorenz63 is three equations without weather or catchments; run it by itself or with "
    "bmi_components.couple",
}
"""Why components have no place in NextGen unless other modules feed them, by public name."""


def kind_of(models: Sequence[TrainedModel], folders: Sequence[Path]) -> str:
    """Return the kind of component that one model, or an ensemble, is for.

    Raises
    ------
    ConfigurationError
        If a model is not for catchments, or several make no ensemble.
    """
    from bmi_components.lstm.networks import KINDS

    kinds = set()
    for model, folder in zip(models, folders, strict=True):
        kind = "lstm" if model.kind in KINDS else model.kind
        if kind not in COMPONENTS:
            if kind == "fourdvarnet":
                raise ConfigurationError(f"{folder}: {NO_CATCHMENTS['FourDVarNet']}")
            configured = ", ".join(COMPONENTS[name] for name in OUTPUTS)
            raise ConfigurationError(f"{folder}: a model of kind {kind!r} is for none of {configured}")
        kinds.add(kind)
    if len(kinds) > 1 or (kinds != {"lstm"} and len(models) > 1):
        raise ConfigurationError("--model: several models are an ensemble, and only LSTMs make one")
    return kinds.pop()


def hint_about(python_type: str) -> str:
    """Return what an error adds where a module cannot be fed, because its component has no place in NextGen."""
    package, _, name = python_type.rpartition(".")
    if package.partition(".")[0] != "bmi_components" or name not in NO_CATCHMENTS:
        return ""
    return f". {NO_CATCHMENTS[name]}"


def new_component(kind: str) -> Component:
    """Return a component that is not initialized yet."""
    import bmi_components

    component: Component = getattr(bmi_components, COMPONENTS[kind])()
    return component
