"""From a DeltaHBV configuration to a stepper: model, attributes, driver, warm-up and published outputs."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.buffers import require_device
from bmi_components.catchments import Catchment, Site, attribute_table, read_catchments
from bmi_components.errors import ConfigurationError
from bmi_components.forcing.record import read_record
from bmi_components.hbv.driver import SECONDS_PER_DAY, Driver, make_driver
from bmi_components.hbv.physics import FORCINGS
from bmi_components.hbv.settings import Climatology, DeltaHBVSettings, WarmUp
from bmi_components.hbv.stepper import (
    DeviceHBVStepper,
    HBVStepper,
    HostHBVStepper,
    shared_model,
)
from bmi_components.importers import load_model
from bmi_components.importers.finding import find_folder
from bmi_components.runoff import OutputVariable, runoff_outputs
from bmi_components.trained_model import TrainedModel
from bmi_components.variables import variable

Vector = NDArray[np.float64]

__all__ = ["open_stepper"]

DAYS_OF_MONTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

_STORES_AND_FLUXES = {
    "evapotranspiration": "evapotranspiration",
    "snow_water_equivalent": "snowpack",
    "snow_melt": "melt",
    "soil_moisture": "soil_moisture",
    "upper_zone_storage": "upper_zone",
    "lower_zone_storage": "lower_zone",
    "quickflow": "quickflow",
    "interflow": "interflow",
    "baseflow": "baseflow",
    "recharge": "recharge",
    "water_storage": "storage",
}
"""Published outputs, by symbol, and what the model calls them; their units are the model's."""


def open_stepper(settings: DeltaHBVSettings) -> HBVStepper:
    """Load the model, shared within the process, and bind it to the configured catchments.

    Raises
    ------
    ConfigurationError
        If the catchments, attributes, parameters or the way to potential evapotranspiration do not fit the model.
    BundleError
        If the model is absent, damaged or of another kind.
    DeviceError
        If the device is not there.
    """
    torch.set_num_threads(settings.threads)
    catchments = read_catchments(settings.catchments, settings.catchments_file)
    bundle = load_model(find_folder(settings.model), "hbv")
    on_host = settings.device == "cpu"
    require_device("torch", settings.device)
    shared = shared_model(bundle, settings.dtype, settings.device)
    site = Site.of(catchments)
    how = (
        settings.potential_evapotranspiration,
        settings.inputs == "nextgen",
        bundle.time_step,
        site.latitude,
        settings.start_time,
    )
    driver = make_driver(*how)
    stepper = (HostHBVStepper if on_host else DeviceHBVStepper)(
        shared,
        attribute_table(catchments, bundle.attributes),
        site,
        driver if on_host else make_driver(*how, settings.device),
        _outputs(settings, site, "lateral_exchange" in shared.names),
        _record(settings, bundle, catchments, driver),
        keep_state=settings.warm_up is not None and settings.warm_up.keep_state,
        tensor_driver=partial(make_driver, *how, settings.device),
    )
    for name, value in settings.parameters.items():
        known = stepper.parameters.get(name)
        if known is None or name in shared.model.attribute_names:
            raise ConfigurationError(f"parameters: the model has no physical parameter {name!r}")
        low, high = known.valid_range or (-np.inf, np.inf)
        if not low <= value <= high:
            raise ConfigurationError(
                f"parameters: {name} is {value}; {low} to {high} {known.units} is possible"
            )
        stepper.set_parameter(name, np.full(stepper.size, value))
    return stepper


def _outputs(settings: DeltaHBVSettings, site: Site, exchanges_water: bool) -> list[OutputVariable]:
    """Return what is published: with these, rain and storage a caller can close the water balance."""
    outputs = runoff_outputs("streamflow", settings.runoff_units, site.area)
    published = dict(_STORES_AND_FLUXES)
    if exchanges_water:
        published["lateral_exchange"] = "lateral_exchange"
    outputs += [OutputVariable(variable(symbol), source) for symbol, source in published.items()]
    if settings.partial_step == "estimate":
        # Behind NextGen's hours the flows of a day in parts must add up to the day.
        outputs = [
            replace(o, variable=replace(o.variable, mean_over_update=True))
            if o.variable.symbol in ("runoff_rate", "streamflow")
            else o
            for o in outputs
        ]
    return outputs


def _record(
    settings: DeltaHBVSettings, bundle: TrainedModel, catchments: Sequence[Catchment], driver: Driver
) -> Callable[[], Vector] | None:
    """Return what gives the weather before the start, ``[time, catchment, 3]``: a record, or a year of means."""
    if settings.warm_up is not None and settings.climatology is not None:
        raise ConfigurationError("give either 'warm_up' or 'climatology', not both")
    if settings.warm_up is not None:
        ids = [c.record_id or c.id for c in catchments]
        record = _read_warm_up(settings.warm_up, driver, ids, bundle.time_step, settings.start_time)
        return lambda: record
    if settings.climatology is not None:
        return partial(_year_of_means, settings.climatology, bundle.time_step, len(catchments))
    if bundle.hyperparameters.get("network") == "lstm":
        raise ConfigurationError(
            "this model reads its static parameters out of weather: give 'warm_up' (a record) or 'climatology' "
            "(monthly means)"
        )
    return None


def _year_of_means(climatology: Climatology, time_step: float, catchments: int) -> Vector:
    year = np.stack([np.repeat(getattr(climatology, name), DAYS_OF_MONTHS) for name in FORCINGS], axis=1)
    steps = np.repeat(year, int(SECONDS_PER_DAY / time_step), axis=0)
    return np.repeat(steps[:, None, :], catchments, axis=1)


def _read_warm_up(
    warm_up: WarmUp,
    driver: Driver,
    ids: Sequence[str],
    time_step: float,
    start_time: datetime.datetime | None,
) -> Vector:
    """Read a record of the component's inputs and turn it into the model's forcing, ``[time, catchment, 3]``."""
    prepare, forcing = driver.prepare, driver.forcing
    moments, rows = read_record(
        warm_up, driver.inputs, ids, time_step, "warm_up", prepare, driver.aggregations
    )
    if forcing is not None:
        if start_time is None:
            raise ConfigurationError("warm_up: start_time is needed to know the dates of the record")
        times = (moments - np.datetime64(start_time.replace(tzinfo=None), "s")).astype(float)
        rows = np.stack([forcing(row, time) for row, time in zip(rows, times, strict=True)])
    return rows.transpose(0, 2, 1)
