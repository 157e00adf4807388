"""From a FluxLSTM configuration to a stepper: model, published variables, rules of the day, record before the start."""

from __future__ import annotations

import datetime
import sys
from dataclasses import replace
from functools import cache
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.buffers import require_device
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.forcing.flux_conventions import symbol_of
from bmi_components.forcing.readers import read_forcing
from bmi_components.importers.finding import find_folder
from bmi_components.lstm.flux.columns import CARBON, Conversions, column_variable, input_variables
from bmi_components.lstm.flux.daily import DAY_OF_YEAR, DailyRules
from bmi_components.lstm.flux.models import KIND, FluxModel, load_model
from bmi_components.lstm.flux.settings import FluxLSTMSettings
from bmi_components.lstm.flux.stepper import DayMaker, FluxStepper, Published
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.units import converter, convertible
from bmi_components.variables import variable

__all__ = ["open_stepper"]

STEPS = {"half_hourly": 1_800, "hourly": 3_600}
STATISTICS = ("_rolling_var", "_rolling_avg")
LIGHT = {
    "ppfd": NamedUnits("PPFD_IN", "umol m-2 s-1"),
    "shortwave": NamedUnits("SW_IN", "W m-2"),
}
FRICTION_VELOCITY = NamedUnits("USTAR", "m s-1")


@cache
def shared_model(bundle: TrainedModel) -> FluxModel:
    """Return the model of a bundle, made once per process."""
    return load_model(bundle)


def open_stepper(settings: FluxLSTMSettings) -> FluxStepper:
    """Load the model, shared within the process, and bind it to the configured towers.

    Raises
    ------
    ConfigurationError
        If the model cannot be fed as configured, or start_time is missing, does not fit the steps or the record.
    BundleError
        If the model is absent, damaged or of another kind.
    """
    require_device("numpy", settings.device)
    if settings.dtype != "float32":
        raise ConfigurationError(
            f"dtype: flux models compute in float32, as they were trained, not in {settings.dtype}"
        )
    bundle = TrainedModel.load(find_folder(settings.model), KIND)
    model = shared_model(bundle)
    if (torch := sys.modules.get("torch")) is not None:  # it came with the model, if the model needs it
        torch.set_num_threads(settings.threads)
    rules = _rules(model)
    if settings.longest_gap is not None:
        rules = msgspec.structs.replace(rules, interpolate=settings.longest_gap)
    columns = _columns(bundle, rules, settings)
    names = [column.name for column in columns]
    inputs = input_variables(columns)
    start = _start(settings, model)
    day_maker = None
    if settings.inputs != "daily":
        light = _position(columns, LIGHT[rules.daylight].name) if rules.daylight in LIGHT else None
        friction = _position(columns, FRICTION_VELOCITY.name) if rules.ustar == "drop" else None
        step = STEPS[settings.inputs]
        day_maker = DayMaker(names, model.input_names, rules, step, light, friction)
    ids = [tower.id for tower in settings.towers]
    if len(set(ids)) < len(ids):
        raise ConfigurationError(f"towers: an id is there twice ({', '.join(ids)}); ids must differ")
    stepper = FluxStepper(
        model,
        rules,
        inputs,
        Conversions.between([v.units for v in inputs], [column.units for column in columns]),
        _published(bundle.outputs[0], rules, {v.name for v in inputs}),
        len(ids),
        start,
        day_maker,
        settings.missing_day == "hold",
        _coordinates(settings),
    )
    if settings.warm_up is not None:
        _warm_up(stepper, settings, [tower.record_id or tower.id for tower in settings.towers])
    return stepper


def _rules(model: FluxModel) -> DailyRules:
    """Return the rules of the training; where they leave daylight to the data, the model's own radiation tells it."""
    try:
        rules = msgspec.convert(dict(model.hyperparameters.daily), DailyRules)
    except msgspec.ValidationError as error:
        raise BundleError(
            f"the bundle's rules for days (hyperparameters: daily) are not ours: {error}"
        ) from error
    if rules.daylight != "auto":
        return rules
    read = {symbol_of(name) for name in model.input_names}
    light: Literal["ppfd", "shortwave"] = (
        "shortwave" if "shortwave" in read and "photosynthetic_photon_flux" not in read else "ppfd"
    )
    return msgspec.structs.replace(rules, daylight=light)


def _columns(bundle: TrainedModel, rules: DailyRules, settings: FluxLSTMSettings) -> list[NamedUnits]:
    """Return what has to be given: the model's own columns, and what the rules need to make days of them."""
    columns = [
        column
        for column in bundle.inputs
        if column.name != DAY_OF_YEAR and not column.name.endswith(STATISTICS)
    ]
    if settings.inputs == "daily":
        if rules.statistics_days is not None:
            raise ConfigurationError(
                "inputs: this model reads statistics of half-hours over many days; say half_hourly (or hourly)"
            )
        return columns
    needed = [LIGHT[rules.daylight]] if rules.daylight in LIGHT else []
    needed += [FRICTION_VELOCITY] if rules.ustar == "drop" else []
    present = {symbol_of(column.name) for column in columns}
    return columns + [column for column in needed if symbol_of(column.name) not in present]


def _position(columns: list[NamedUnits], name: str) -> int:
    """Where the column is that measures what ``name`` does."""
    names = [column.name for column in columns]
    if name in names:
        return names.index(name)
    return next(i for i, column in enumerate(columns) if symbol_of(column.name) == symbol_of(name))


def _start(settings: FluxLSTMSettings, model: FluxModel) -> np.datetime64:
    """Return the date and time of time 0 at the towers; midnight of an arbitrary day where none is configured."""
    clock = _clock(settings)
    if clock is None:
        if DAY_OF_YEAR in model.input_names:
            raise ConfigurationError(
                "start_time: this model reads the day of the year; say when the run starts"
            )
        return np.datetime64("2000-01-01T00:00:00", "s")
    start = clock + np.timedelta64(round(settings.utc_offset * 3600), "s")
    step = STEPS.get(settings.inputs, 86_400)
    if start.astype(np.int64) % step:
        what = "midnight" if step == 86_400 else f"a multiple of {step} s after midnight"
        raise ConfigurationError(
            f"start_time: {settings.inputs} inputs begin at {what} in the towers' standard time, not at {start} "
            "(utc_offset says how far it is ahead of start_time)"
        )
    return np.datetime64(start)


def _clock(settings: FluxLSTMSettings) -> np.datetime64 | None:
    """Return start_time without a time zone, in UTC if it has one."""
    moment = settings.start_time
    if moment is not None and moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
    return None if moment is None else np.datetime64(moment, "s")


def _published(target: NamedUnits, rules: DailyRules, taken: set[str]) -> Published:
    """Return the outputs: the target, beside exchange also production, and the count of valid days.

    Production as mass per day is published only where the target is a mean over whole days: the mean over the hours of
    daylight is a rate and, times a day, no day's sum.
    """
    per_day = convertible(target.units, "g m-2 d-1")
    if symbol_of(target.name) == "net_ecosystem_exchange":
        exchange = variable("net_ecosystem_exchange")
        factor = 1.0 / CARBON * converter(target.units, "g m-2 d-1").scale if per_day else None
        factor = converter(target.units, exchange.units).scale if factor is None else factor
        outputs = [exchange, variable("net_ecosystem_production_rate")]
        factors = [factor, -factor]
        if per_day or (rules.daylight == "none" and rules.peak_hours is None):
            outputs.append(variable("net_ecosystem_production"))
            factors.append(-factor * CARBON)
    else:
        outputs = [column_variable(target).with_units(target.units)]
        factors = [1.0]
    repeated = [output.name for output in outputs if output.name in taken]
    if repeated:
        raise BundleError(f"the model reads what it predicts ({repeated[0]}); such a model cannot be stepped")
    known_later = tuple(replace(output, nan_is_data=True) for output in outputs)
    return Published((*known_later, variable("valid_days")), np.array(factors))


def _coordinates(
    settings: FluxLSTMSettings,
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Longitude and latitude, where all towers have them."""
    places = [(tower.longitude, tower.latitude) for tower in settings.towers]
    if any(value is None for place in places for value in place):
        return None
    longitude, latitude = np.array(places, dtype=np.float64).T
    return longitude.copy(), latitude.copy()


def _warm_up(stepper: FluxStepper, settings: FluxLSTMSettings, ids: list[str]) -> None:
    """Fill the window from a record that ends where the run starts."""
    start = _clock(settings)
    assert settings.warm_up is not None
    if start is None:
        raise ConfigurationError(
            "warm_up: start_time is needed to know which part of the record comes before it"
        )
    record = read_forcing(settings.warm_up, stepper.inputs)
    names = list(dict.fromkeys(ids))  # members of an ensemble share their tower's
    if len(names) > 1 or len(record.catchments) > 1:
        record = record.select(names)
    if record.time_step != stepper.time_step:
        raise ConfigurationError(
            f"warm_up: the record has steps of {record.time_step} s, the component's inputs of {stepper.time_step:g} s"
        )
    before = np.flatnonzero(record.time < start)
    if before.size == 0 or record.time[before[-1]] + np.timedelta64(record.time_step, "s") != start:
        raise ConfigurationError(
            f"warm_up: the record covers {record.time[0]} to {record.end}; it must reach up to start_time, {start}"
        )
    columns = [names.index(name) for name in ids]
    stepper.absorb_record(
        np.stack([record.values[v.symbol][before][:, columns] for v in stepper.inputs], axis=1),
        [float((moment - start).astype(np.int64)) for moment in record.time[before]],
    )
