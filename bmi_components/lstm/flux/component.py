"""FluxLSTM: fluxes of carbon and energy from the memory of past days, as a BMI component for one tower or many."""

from __future__ import annotations

from bmi_components.component import Component
from bmi_components.lstm.flux.settings import FluxLSTMSettings
from bmi_components.stepper import Stepper

__all__ = ["FluxLSTM"]


class FluxLSTM(Component):
    """A trained flux model (LSTM, xLSTM, dense network, random forest, XGBoost) as a BMI component.

    It predicts each day's net ecosystem exchange from a window of days that ends with it. An update takes a day's
    inputs, or (`FluxLSTMSettings.inputs`) half an hour's or an hour's, of which the component makes days by the rules
    of the model's training; then outputs are those of the latest complete day. They are NaN until the window is full.
    A model that was trained on one season only predicts all year, but knows nothing of the other.
    """

    name = "FluxLSTM"
    METADATA = "../../pymt/FluxLSTM"
    settings_type = FluxLSTMSettings

    def open(self, settings: FluxLSTMSettings) -> Stepper:
        """Load the trained model, shared within the process, and bind it to the configured towers."""
        # The model's framework comes with the first model, not with the class: frameworks import every plugin.
        from bmi_components.lstm.flux.opening import open_stepper

        return open_stepper(settings)
