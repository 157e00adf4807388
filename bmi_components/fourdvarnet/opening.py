"""From a FourDVarNet configuration to a stepper."""

from __future__ import annotations

from functools import cache

import jax

from bmi_components.buffers import require_device
from bmi_components.errors import ConfigurationError
from bmi_components.fourdvarnet.model import KIND, FourDVarNet, load_model
from bmi_components.fourdvarnet.settings import FourDVarNetSettings
from bmi_components.fourdvarnet.stepper import FourDVarNetStepper
from bmi_components.importers.finding import find_folder
from bmi_components.jax_devices import jax_device, start_jax
from bmi_components.trained_model import TrainedModel

__all__ = ["open_stepper"]


@cache
def shared_model(bundle: TrainedModel, device: str) -> FourDVarNet:
    """Return the model of a bundle with its weights on a device, made (and compiled) once per process."""
    model = load_model(bundle)
    model.parameters = jax.device_put(model.parameters, jax_device(device))
    return model


def open_stepper(settings: FourDVarNetSettings) -> FourDVarNetStepper:
    """Load the model, shared within the process, for the configured sites.

    Raises
    ------
    ConfigurationError
        If the settings do not fit the model.
    BundleError
        If the model is absent, damaged or of another kind.
    DeviceError
        If the device is not there.
    """
    if settings.dtype != "float32":
        raise ConfigurationError(f"dtype is {settings.dtype}; this component computes in float32")
    start_jax(settings.threads)
    require_device("jax", settings.device)
    bundle = TrainedModel.load(find_folder(settings.model), KIND)
    return FourDVarNetStepper(shared_model(bundle, settings.device), bundle.identity, settings)
