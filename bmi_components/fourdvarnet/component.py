"""FourDVarNet: learned variational assimilation as a BMI component."""

from __future__ import annotations

from bmi_components.component import Component
from bmi_components.fourdvarnet.settings import FourDVarNetSettings
from bmi_components.stepper import Stepper

__all__ = ["FourDVarNet"]


class FourDVarNet(Component):
    """Observations in, analyses of the state out, by a trained variational solver (Fablet et al. 2021).

    A step takes the observations of its time (NaN: none), and gives the analysis of the window that ends with it.
    """

    name = "FourDVarNet"
    METADATA = "../pymt/FourDVarNet"
    settings_type = FourDVarNetSettings

    def open(self, settings: FourDVarNetSettings) -> Stepper:
        """Load the trained model, shared within the process, for the configured sites."""
        # JAX comes with the first model, not with the class: coupling frameworks import every plugin.
        from bmi_components.fourdvarnet.opening import open_stepper

        return open_stepper(settings)
