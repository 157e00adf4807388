"""BallBerry: stomatal conductance of leaves as a BMI component."""

from __future__ import annotations

from bmi_components.ball_berry.settings import BallBerrySettings
from bmi_components.component import Component
from bmi_components.stepper import Stepper

__all__ = ["BallBerry"]


class BallBerry(Component):
    """Net assimilation, humidity and CO2 at leaves in, their stomatal conductance out.

    The law of Ball, Woodrow and Berry (1987), its hybrid with a trained network that knows soil moisture (Jiang et
    al. 2025), or the optimal form of Medlyn et al. (2011).
    """

    name = "BallBerry"
    METADATA = "../pymt/BallBerry"
    settings_type = BallBerrySettings

    def open(self, settings: BallBerrySettings) -> Stepper:
        """Return the configured leaves."""
        # JAX comes with the first model, not with the class: coupling frameworks import every plugin.
        from bmi_components.ball_berry.opening import open_stepper

        return open_stepper(settings)
