"""From a CanVeg configuration to a stepper: model, sites, parameters, and what becomes an input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.buffers import require_device
from bmi_components.canveg.bundle import KIND, unpack
from bmi_components.canveg.dispersion import dispersion_matrix, read_dispersion_matrix
from bmi_components.canveg.inputs import CLEARANCE, SLOW, monthly_table, published_inputs
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters, default_parameters
from bmi_components.canveg.program import Constants
from bmi_components.canveg.settings import CanVegSettings, CanVegSite, Constant
from bmi_components.canveg.stepper import CanVegStepper, Setup
from bmi_components.catchments import Catchment, read_catchments
from bmi_components.errors import ConfigurationError
from bmi_components.importers.finding import find_folder
from bmi_components.jax_devices import start_jax
from bmi_components.jax_precision import jax_precision
from bmi_components.trained_model import TrainedModel
from bmi_components.variables import variable

__all__ = ["open_stepper"]

Array = NDArray[Any]

STEPS = {"half_hourly": 1800.0, "hourly": 3600.0}

PUBLISHED_RATIO = 2.0
"""Top of the published dispersion matrices over canopy height."""


class _Model(NamedTuple):
    """A model before it is bound to sites; a site, and a dispersion matrix, only if it was trained."""

    options: Options
    parameters: Parameters
    site: Site | None
    dispersion: Array | None
    identity: str


def open_stepper(settings: CanVegSettings) -> CanVegStepper:
    """Read the model, shared within the process, and bind it to the configured sites.

    Raises
    ------
    ConfigurationError
        If sites, parameters or quantities are missing, contradict each other or are impossible.
    BundleError
        If the model is absent, damaged or of another kind.
    DeviceError
        If the device is not there.
    """
    start_jax(settings.threads)
    require_device("jax", settings.device)
    if settings.start_time is None:
        raise ConfigurationError("start_time: the sun's position follows from it; say when the run starts")
    model = _model(settings)
    sites = _sites(settings, model.site)
    options = model.options
    if settings.time_step is not None:
        options = msgspec.structs.replace(options, time_step=STEPS[settings.time_step])
    if options.time_step not in STEPS.values():
        raise ConfigurationError(f"time_step is {options.time_step:g} s; 1800 or 3600 is possible")
    slow = {symbol: _quantity(symbol, settings, sites, model.site) for symbol in SLOW}
    heights = slow["canopy_height"]
    place = _place(sites, model.site, heights)
    given = [symbol for symbol, values in slow.items() if values is None]
    nextgen = settings.inputs == "nextgen"
    friction = settings.friction_velocity or ("profile" if nextgen else "input")
    inputs = published_inputs(nextgen, settings.longwave == "input", friction == "input", given)
    constants = Constants(
        place,
        _parameters(model.parameters, settings.parameters, sites),
        tuple(values for values in slow.values() if values is not None),
    )
    return CanVegStepper(
        Setup(
            options,
            inputs,
            tuple(symbol for symbol in SLOW if symbol not in given),
            settings.profiles,
            tuple(site.id for site in sites),
            settings.start_time,
            _offsets(settings, sites, model.site),
            settings.dtype,
            settings.device,
        ),
        constants,
        _dispersion(settings, model, place, heights),
        model.identity,
    )


@cache
def _trained(bundle: TrainedModel) -> _Model:
    options, site, parameters, dispersion = unpack(bundle)
    return _Model(options, parameters, site, dispersion, bundle.identity)


def _model(settings: CanVegSettings) -> _Model:
    """Return the trained model, or one of the table's parameters."""
    if settings.model is None:
        return _Model(settings.options or Options(), _defaults(), None, None, "")
    if settings.options is not None:
        raise ConfigurationError("options: those of the trained model hold; leave 'options' or 'model' out")
    return _trained(TrainedModel.load(find_folder(settings.model), KIND))


@cache
def _defaults() -> Parameters:
    with jax_precision("float64"):  # JAX would compile a conversion for each shape
        found: Parameters = jax.tree.map(np.asarray, default_parameters(dtype=np.float64))
    return found


# --- sites -----------------------------------------------------------------------------------------------------------


def _sites(settings: CanVegSettings, trained: Site | None) -> tuple[CanVegSite, ...]:
    """Return the configured sites, or as many as the model was trained for."""
    if settings.sites and settings.sites_file is not None:
        raise ConfigurationError("give the sites either as 'sites' or as 'sites_file'")
    if settings.sites_file is not None:
        return tuple(_of_table(row, settings.sites_file) for row in read_catchments((), settings.sites_file))
    if not settings.sites and trained is not None:
        count = max(np.size(value) for value in trained)
        return tuple(CanVegSite(id="site" if count == 1 else f"site {i + 1}") for i in range(count))
    if not settings.sites:
        raise ConfigurationError(
            "sites: a canopy needs a place; give id, latitude, longitude and canopy_height"
        )
    ids = [site.id for site in settings.sites]
    if len(set(ids)) < len(ids):
        raise ConfigurationError(f"sites: an id is there twice ({', '.join(ids)}); ids must differ")
    return settings.sites


def _of_table(row: Catchment, table: Path) -> CanVegSite:
    """Return a site of a line of the table: its keys, and parameters."""
    keys = set(CanVegSite.__struct_fields__) - {"id", "parameters"}
    parameters = {name: value for name, value in row.attributes.items() if name not in keys}
    known = {row.name for row in TABLE}
    for name in parameters:
        if name not in known:
            raise ConfigurationError(
                f"{table}: the column {name!r} is neither a key of a site nor a parameter"
            )
    own = {name: value for name, value in row.attributes.items() if name in keys}
    return CanVegSite(id=row.id, latitude=row.latitude, longitude=row.longitude, parameters=parameters, **own)


def _per_site(
    name: str, sites: Sequence[CanVegSite], trained: Site | None, default: float | None = None
) -> NDArray[np.float64]:
    """Return a number of each site, ``[site]``: its own, the trained model's, or a default."""
    values = [getattr(site, name) for site in sites]
    if any(value is None for value in values):
        if trained is not None:
            others = np.broadcast_to(np.asarray(getattr(trained, name), np.float64), len(sites)).tolist()
        elif default is None:
            absent = next(site.id for site, value in zip(sites, values, strict=True) if value is None)
            raise ConfigurationError(f"site {absent}: {name} is missing")
        else:
            others = [default] * len(sites)
        values = [other if value is None else value for value, other in zip(values, others, strict=True)]
    return np.array(values, dtype=np.float64)


def _place(sites: Sequence[CanVegSite], trained: Site | None, heights: Array | None) -> Site:
    """Return what the model knows of the places, each ``[site]`` (a scalar of one site)."""
    latitude, longitude = _per_site("latitude", sites, trained), _per_site("longitude", sites, trained)
    measurement = _per_site("measurement_height", sites, trained, math.nan)
    depth = _per_site("soil_depth", sites, trained, 0.15)
    for site, north, east, height, bottom in zip(sites, latitude, longitude, measurement, depth, strict=True):
        if not (-90.0 <= north <= 90.0 and -180.0 <= east <= 360.0):
            raise ConfigurationError(
                f"site {site.id}: latitude {north:g}, longitude {east:g} is not on the globe"
            )
        if not 0.0 < bottom < 10.0:
            raise ConfigurationError(
                f"site {site.id}: soil_depth is {bottom:g} m; a depth of decimetres is needed"
            )
        if height <= 0.0:
            raise ConfigurationError(
                f"site {site.id}: measurement_height is {height:g} m; it must be above the canopy"
            )
    if heights is not None:
        tallest = heights.max(axis=0)
        for site, top, height in zip(sites, tallest, measurement, strict=True):
            if height <= top:
                raise ConfigurationError(
                    f"site {site.id}: measurement_height is {height:g} m, the canopy {top:g} m high; measurements must "
                    "be above the canopy"
                )
    shape = () if len(sites) == 1 else (len(sites),)
    values = [
        value.reshape(shape)
        for value in (latitude, longitude, _time_zones(sites, trained), measurement, depth)
    ]
    return Site(values[0], values[1], values[2], np.zeros(shape), values[3], values[4])


def _time_zones(sites: Sequence[CanVegSite], trained: Site | None) -> NDArray[np.float64]:
    """Return hours ahead of UTC, ``[site]``: configured, those of the longitude, or the trained model's."""
    longitude = _per_site("longitude", sites, trained)
    zones = np.round(longitude / 15.0)
    if trained is not None and all(site.longitude is None for site in sites):
        zones = np.broadcast_to(np.asarray(trained.time_zone, np.float64), len(sites)).copy()
    for index, site in enumerate(sites):
        if site.utc_offset is not None:
            if abs(site.utc_offset) > 14.0:
                raise ConfigurationError(
                    f"site {site.id}: utc_offset is {site.utc_offset:g}; -14 to 14 h is possible"
                )
            zones[index] = site.utc_offset
    return zones


def _offsets(settings: CanVegSettings, sites: Sequence[CanVegSite], trained: Site | None) -> tuple[int, ...]:
    """Return by how much local standard time is ahead of the run's clock at each site, s."""
    if settings.clock == "local":
        return (0,) * len(sites)
    return tuple(round(3600.0 * zone) for zone in _time_zones(sites, trained))


# --- quantities and parameters ---------------------------------------------------------------------------------------


def _quantity(
    symbol: str, settings: CanVegSettings, sites: Sequence[CanVegSite], trained: Site | None
) -> NDArray[np.float64] | None:
    """Return a slow quantity, ``[month, site]``; None: it is an input."""
    common = getattr(settings, symbol)
    own = [getattr(site, symbol) for site in sites]
    if common == "input":
        named = [site.id for site, value in zip(sites, own, strict=True) if value is not None]
        # what a site says of itself goes before the default, not before what the user wrote
        if named and len(named) == len(sites):
            common = None
        elif named:
            raise ConfigurationError(
                f"site {named[0]}: {symbol} is an input of all sites; give it for every site, or for none"
            )
        else:
            return None
    if common is None and symbol == "canopy_height" and trained is not None:
        heights = np.broadcast_to(np.asarray(trained.canopy_height, np.float64), len(sites)).tolist()
        own = [height if value is None else value for value, height in zip(own, heights, strict=True)]
    values = [common if value is None else value for value in own]
    low, high = variable(symbol).valid_range or (-math.inf, math.inf)
    if symbol == "canopy_height":
        low = 0.01
    for site, value in zip(sites, values, strict=True):
        if value is None:
            raise ConfigurationError(
                f"site {site.id}: {symbol} is missing: give a number, twelve, or 'input'"
            )
        _check_range(f"site {site.id}: {symbol}", value, low, high, variable(symbol).units)
    return monthly_table(values)


def _check_range(what: str, value: Constant, low: float, high: float, units: str) -> None:
    for number in np.atleast_1d(value):
        if not low <= number <= high:
            raise ConfigurationError(f"{what} is {number:g}; {low:g} to {high:g} {units} is possible")


def _parameters(model: Parameters, common: Mapping[str, float], sites: Sequence[CanVegSite]) -> Parameters:
    """Return the model's parameters with the configured ones: ``[site]``, or scalars of one site."""
    names = {row.name: row.name for row in TABLE} | {row.published_name: row.name for row in TABLE}
    shape = () if len(sites) == 1 else (len(sites),)
    changed: dict[str, Any] = {}
    for row in TABLE:
        value = np.asarray(getattr(model, row.name), np.float64)
        if value.size not in (1, len(sites)):
            raise ConfigurationError(
                f"sites: the model was trained for {value.size} sites, the configuration has {len(sites)}"
            )
        changed[row.name] = np.broadcast_to(value.reshape(-1), len(sites)).copy()
    for place, given in (
        ("parameters", common),
        *((f"site {site.id}: parameters", site.parameters) for site in sites),
    ):
        for name, number in given.items():
            if name not in names or not name:
                raise ConfigurationError(
                    f"{place}: there is no parameter {name!r}; there are {', '.join(changed)}"
                )
            if not math.isfinite(number):
                raise ConfigurationError(f"{place}: {name} is {number}; a finite number is needed")
    for name, number in common.items():
        changed[names[name]][:] = number
    for index, site in enumerate(sites):
        for name, number in site.parameters.items():
            changed[names[name]][index] = number
    return model._replace(**{name: value.reshape(shape) for name, value in changed.items()})


def _dispersion(settings: CanVegSettings, model: _Model, place: Site, heights: Array | None) -> Array:
    """Return the dispersion matrix of all sites, ``[row, layer]``, or where they differ ``[site, row, layer]``."""
    layers, above = model.options.layers, model.options.atmosphere_layers
    if settings.dispersion is not None:
        matrix: Array = read_dispersion_matrix(settings.dispersion, layers, above)
        return matrix
    if model.dispersion is not None:
        return model.dispersion
    if model.options.mode == "reference" or heights is None:
        ratios = [PUBLISHED_RATIO]
    else:
        canopy = heights.mean(axis=0)
        measurement = np.broadcast_to(np.asarray(place.measurement_height), canopy.shape)
        top = np.where(np.isnan(measurement), canopy + CLEARANCE, measurement)
        ratios = [float(f"{ratio:.3g}") for ratio in top / canopy]
    if len(set(ratios)) == 1:
        return np.asarray(dispersion_matrix(layers, above, measurement_height_ratio=ratios[0]))
    return np.stack([dispersion_matrix(layers, above, measurement_height_ratio=ratio) for ratio in ratios])
