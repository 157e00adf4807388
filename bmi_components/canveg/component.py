"""CanVeg: a canopy's exchange of energy, water and carbon as a BMI component, for one site or many."""

from __future__ import annotations

from bmi_components.canveg.settings import CanVegSettings
from bmi_components.component import Component
from bmi_components.stepper import Stepper

__all__ = ["CanVeg"]


class CanVeg(Component):
    """The canopy model CanVeg (Baldocchi; Jiang et al. 2025), process-based or hybrid, by half-hours or hours.

    It takes a tower's measurements or NextGen's forcing, and leaf area, canopy height, carbon dioxide, soil moisture
    and deep soil temperature each as a constant, by month, or from another component. It gives evapotranspiration,
    latent, sensible and ground heat, net radiation, carbon fluxes, conductance, and profiles through the canopy.

    Soil moisture goes in and is not changed: the component holds no water, so that it has no mass balance of its own.
    """

    name = "CanVeg"
    METADATA = "../pymt/CanVeg"
    settings_type = CanVegSettings

    def open(self, settings: CanVegSettings) -> Stepper:
        """Load the model, shared within the process, and bind it to the configured sites."""
        # JAX comes with the first model, not with the class: coupling frameworks import every plugin.
        from bmi_components.canveg.opening import open_stepper

        return open_stepper(settings)
