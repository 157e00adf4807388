"""CSDMS BMI 2.0 components for differentiable hydrology and land-surface models.

Importing the package loads neither PyTorch nor JAX: public names resolve on first use (PEP 562), because coupling
frameworks import every plugin eagerly.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "BallBerry": "bmi_components.ball_berry.component",
    "CanVeg": "bmi_components.canveg.component",
    "Component": "bmi_components.component",
    "DeltaHBV": "bmi_components.hbv.component",
    "Differentiable": "bmi_components.differentiable",
    "Ensemble": "bmi_components.ensemble",
    "FourDVarNet": "bmi_components.fourdvarnet.component",
    "FluxLSTM": "bmi_components.lstm.flux.component",
    "Link": "bmi_components.coupling",
    "Lorenz63": "bmi_components.fourdvarnet.forecast",
    "Perturbation": "bmi_components.ensemble",
    "PotentialEvapotranspiration": "bmi_components.potential_evapotranspiration",
    "Stepper": "bmi_components.stepper",
    "StreamflowLSTM": "bmi_components.lstm.component",
    "TrainedModel": "bmi_components.trained_model",
    "Variable": "bmi_components.variables",
    "couple": "bmi_components.coupling",
}

__all__ = [
    "BallBerry",
    "CanVeg",
    "Component",
    "DeltaHBV",
    "Differentiable",
    "Ensemble",
    "FluxLSTM",
    "FourDVarNet",
    "Link",
    "Lorenz63",
    "Perturbation",
    "PotentialEvapotranspiration",
    "Stepper",
    "StreamflowLSTM",
    "TrainedModel",
    "Variable",
    "couple",
]


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'bmi_components' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
