"""StreamflowLSTM: recurrent networks for streamflow as a BMI component, one model or an ensemble."""

from __future__ import annotations

from pathlib import Path

from bmi_components.component import Component
from bmi_components.config import convert, read_yaml
from bmi_components.lstm.settings import StreamflowLSTMSettings, from_nextgen
from bmi_components.stepper import Stepper

__all__ = ["StreamflowLSTM"]


class StreamflowLSTM(Component):
    """LSTM, GRU, EA-LSTM, MC-LSTM, multi-timescale and hybrid networks, trained, as a BMI component.

    ``initialize`` takes this package's YAML (`StreamflowLSTMSettings`) or the file of NextGen's LSTM as it is.
    """

    name = "StreamflowLSTM"
    METADATA = "../pymt/StreamflowLSTM"
    settings_type = StreamflowLSTMSettings

    def read_settings(self, path: Path) -> StreamflowLSTMSettings:
        """Read our own configuration, or NextGen's, told apart by its ``train_cfg_file``."""
        values = read_yaml(path)
        if "train_cfg_file" in values:
            values = from_nextgen(values, path)
        return convert(values, StreamflowLSTMSettings, path)

    def open(self, settings: StreamflowLSTMSettings) -> Stepper:
        """Load the models, shared within the process, and bind them to the configured catchments."""
        # PyTorch comes with the first model, not with the class: coupling frameworks import every plugin.
        from bmi_components.lstm.opening import open_stepper

        return open_stepper(settings)
