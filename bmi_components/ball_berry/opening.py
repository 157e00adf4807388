"""From a BallBerry configuration to a stepper."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bmi_components.ball_berry.model import Leaves
from bmi_components.ball_berry.settings import BallBerrySettings
from bmi_components.ball_berry.stepper import PARAMETERS, BallBerryStepper
from bmi_components.buffers import require_device
from bmi_components.canveg.bundle import KIND, unpack
from bmi_components.canveg.parameters import TABLE
from bmi_components.errors import ConfigurationError
from bmi_components.importers import load_model
from bmi_components.importers.finding import find_folder
from bmi_components.jax_devices import start_jax

__all__ = ["open_stepper"]

Array = NDArray[np.float64]


def open_stepper(settings: BallBerrySettings) -> BallBerryStepper:
    """Return the configured leaves.

    Raises
    ------
    ConfigurationError
        If a parameter is out of range or there is not one per leaf, or if the hybrid form has no trained network.
    BundleError
        If the model is absent, damaged or of another kind.
    DeviceError
        If the device is not there.
    """
    start_jax(settings.threads)
    require_device("jax", settings.device)
    if settings.dtype != "float32" and settings.device != "cpu":
        raise ConfigurationError(f"dtype is {settings.dtype}; on {settings.device} the leaves are of float32")
    found = {row.name: row.default for row in TABLE if row.name in PARAMETERS}
    form, network, scaling, identity = settings.conductance or "ball_berry", None, (0.0, 1.0), ""
    if settings.model is not None:
        bundle = load_model(find_folder(settings.model), KIND)
        options, _, parameters, _ = unpack(bundle)
        found = {name: getattr(parameters, name) for name in PARAMETERS}
        form, identity = settings.conductance or options.conductance, bundle.identity
        if options.conductance == "hybrid":
            network = parameters.humidity_network
            scaling = parameters.scaling.soil_moisture_mean, parameters.scaling.soil_moisture_std
    if form == "hybrid" and network is None:
        what = "model is not given" if settings.model is None else f"{settings.model} has none"
        raise ConfigurationError(
            f"conductance hybrid needs a trained network, but {what}; name a model of the form hybrid"
        )
    leaves = Leaves(
        **{
            name: _per_leaf(name, getattr(settings, name), found[name], settings.leaves)
            for name in PARAMETERS
        },
        humidity_network=network if form == "hybrid" else None,
        soil_moisture_mean=scaling[0],
        soil_moisture_std=scaling[1],
    )
    return BallBerryStepper(form, leaves, settings, identity)


def _per_leaf(name: str, given: float | list[float] | None, otherwise: object, leaves: int) -> Array:
    """Return one value per leaf."""
    values = np.asarray(otherwise if given is None else given, np.float64)
    if values.shape not in ((), (leaves,)):
        raise ConfigurationError(
            f"{name} has {values.size} values; one, or one for each of {leaves} leaves, is needed"
        )
    low, high = PARAMETERS[name].valid_range or (-np.inf, np.inf)
    if not ((values >= low) & (values <= high)).all():
        raise ConfigurationError(f"{name} is {values.tolist()}; it must be between {low:g} and {high:g}")
    return np.array(np.broadcast_to(values, leaves))
