"""DeltaHBV: the differentiable HBV family as a BMI component, for one catchment or many."""

from __future__ import annotations

from pathlib import Path

from bmi_components.component import Component
from bmi_components.config import convert, read_yaml
from bmi_components.hbv.settings import DeltaHBVSettings, from_nextgen
from bmi_components.stepper import Stepper

__all__ = ["DeltaHBV"]


class DeltaHBV(Component):
    """Differentiable HBV 1.0, 1.1p, 2.0 and the hourly forms, trained, as a BMI component.

    ``initialize`` takes this package's YAML (`DeltaHBVSettings`) or NextGen In A Box's δHBV 2 files as they are.
    """

    name = "DeltaHBV"
    METADATA = "../pymt/DeltaHBV"
    settings_type = DeltaHBVSettings

    def read_settings(self, path: Path) -> DeltaHBVSettings:
        """Read our own configuration, or NextGen In A Box's, told apart by its ``model_dir``."""
        values = read_yaml(path)
        if "model_dir" in values:
            values = from_nextgen(values, path)
        return convert(values, DeltaHBVSettings, path)

    def open(self, settings: DeltaHBVSettings) -> Stepper:
        """Load the trained model, shared within the process, and bind it to the configured catchments."""
        # PyTorch comes with the first model, not with the class: coupling frameworks import every plugin.
        from bmi_components.hbv.opening import open_stepper

        return open_stepper(settings)
