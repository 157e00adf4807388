"""From a StreamflowLSTM configuration to a stepper: models, inputs and their units, attributes, memories, spin-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from bmi_components.buffers import require_device
from bmi_components.catchments import Catchment, Site, attribute_table, read_catchments
from bmi_components.errors import BundleError, ConfigurationError
from bmi_components.forcing.record import read_record
from bmi_components.importers import load_model
from bmi_components.importers.finding import find_folder
from bmi_components.lstm.memory import (
    Carried,
    Cell,
    Lagged,
    Memory,
    MultiTimescale,
    PackedCell,
    TorchCell,
    Windowed,
)
from bmi_components.lstm.multi_timescale import MultiTimescaleNetwork
from bmi_components.lstm.networks import KINDS
from bmi_components.lstm.recurrent import RecurrentNetwork
from bmi_components.lstm.settings import StreamflowLSTMSettings
from bmi_components.lstm.stepper import (
    CompiledStreamflowStepper,
    Member,
    SharedNetwork,
    StreamflowStepper,
    attribute_tensor,
    can_be_compiled,
    shared_network,
)
from bmi_components.runoff import OutputVariable, runoff_outputs
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.units import converter, convertible
from bmi_components.variables import CATALOGUE, Variable, variable

__all__ = ["open_stepper"]

Vector = NDArray[np.float64]

DAY = 86_400.0
OBSERVED = "observed_runoff_rate"


def open_stepper(settings: StreamflowLSTMSettings) -> StreamflowStepper:
    """Load the models, shared within the process, and bind them to the configured catchments.

    Raises
    ------
    ConfigurationError
        If the catchments, attributes, units or the spin-up do not fit the models, or the models each other.
    BundleError
        If a model is absent, damaged or of another kind.
    DeviceError
        If the device is not there.
    """
    torch.set_num_threads(settings.threads)
    require_device("torch", settings.device)
    catchments = read_catchments(settings.catchments, settings.catchments_file)
    bundles = [_load(folder, settings) for folder in settings.models]
    time_step = _common_time_step(bundles, settings.models)
    quantities = _inputs(bundles, settings, time_step)
    site = Site.of(catchments)
    needed = _needed_attributes(bundles)
    table = attribute_table(catchments, needed)
    attributes = {quantity.name: table[:, column] for column, quantity in enumerate(needed)}

    members, feeds_back = [], False
    for bundle in bundles:
        units = tuple(quantities[_symbol(bundle, name)].units for name in (q.name for q in bundle.inputs))
        shared = shared_network(bundle, settings.dtype, settings.device, units)
        rows = {q.name: list(quantities).index(_symbol(bundle, q.name)) for q in bundle.inputs}
        networks = _networks(shared)
        feeds_back = feeds_back or any(network.feedback for network in networks)
        members.append((shared, networks, rows))
    inputs = list(quantities.values())
    if feeds_back:
        inputs.append(variable(OBSERVED))
    like = torch.zeros(
        len(inputs), len(catchments), dtype=getattr(torch, settings.dtype), device=settings.device
    )
    bound = []
    for shared, networks, rows in members:
        to_mm_per_day = _runoff_factor(shared.bundle, site)
        memory = _memory(shared, networks, rows, attributes, to_mm_per_day, settings, like)
        bound.append(Member(shared, networks, memory, torch.from_numpy(to_mm_per_day).to(like)))
    compiled = settings.device == "cpu" and can_be_compiled(bound)
    stepper = (CompiledStreamflowStepper if compiled else StreamflowStepper)(
        bound,
        inputs,
        attributes,
        {q.name: Variable(q.name, q.units, q.name, "static attribute of the catchment") for q in needed},
        _outputs(settings, bound, site),
        site,
        settings.negative_runoff == "zero",
        settings.device,
        settings.dtype,
    )
    if settings.spin_up is not None:
        stepper.spin_up(_record(settings, inputs, catchments, time_step))
    return stepper


def _load(folder: Path, settings: StreamflowLSTMSettings) -> TrainedModel:
    places = () if settings.model_path is None else (settings.model_path,)
    bundle = load_model(find_folder(folder, places), **msgspec.structs.asdict(settings.run_folder))
    if bundle.kind not in KINDS:
        raise BundleError(
            f"{folder}: this holds a model of kind {bundle.kind!r}; StreamflowLSTM needs {' or '.join(KINDS)}"
        )
    return bundle


def _common_time_step(bundles: Sequence[TrainedModel], folders: Sequence[Path]) -> float:
    steps = {bundle.time_step: folder for bundle, folder in zip(bundles, folders, strict=True)}
    if len(steps) > 1:
        listed = ", ".join(f"{folder.name} {step:g} s" for step, folder in steps.items())
        raise ConfigurationError(f"models: an ensemble needs models of one time step, not {listed}")
    return bundles[0].time_step


def _runoff_factor(bundle: TrainedModel, site: Site) -> Vector:
    """Return what turns a model's target into mm d-1, ``[catchment]``; streamflow in m3 s-1 is spread over the area."""
    target = bundle.outputs[0]
    if convertible(target.units, "mm d-1"):
        return np.full(site.area.shape, converter(target.units, "mm d-1").scale)
    if not np.isfinite(site.area).all():
        raise ConfigurationError(
            f"a model gives {target.name} in {target.units}: the area of every catchment is needed, give area_km2"
        )
    return converter(target.units, "m3 s-1").scale * 86.4 / site.area


def _symbol(bundle: TrainedModel, name: str) -> str:
    """Return what quantity an input is: its symbol in the catalogue.

    Where that is not known, or where the model reads the same quantity from two products, it is the input's own name.
    """
    known: Mapping[str, str] = bundle.hyperparameters.get("quantities", {})
    symbol = known.get(name, name)
    return name if list(known.values()).count(symbol) > 1 else symbol


def _inputs(
    bundles: Sequence[TrainedModel], settings: StreamflowLSTMSettings, time_step: float
) -> dict[str, Variable]:
    """Return what the component is fed by symbol: the quantities of all models, each once."""
    found: dict[str, Variable] = {}
    for bundle in bundles:
        for quantity in bundle.inputs:
            symbol = _symbol(bundle, quantity.name)
            if symbol in found:
                continue
            if symbol not in CATALOGUE:
                found[symbol] = Variable(
                    symbol, quantity.units, symbol, f"input of {bundle.kind} by its own name"
                )
            elif symbol == "precipitation" and (settings.inputs == "nextgen" or time_step < DAY):
                found[symbol] = variable(symbol, "mm h-1")
            elif settings.inputs == "nextgen" and CATALOGUE[symbol].units == "degC":
                found[symbol] = variable(symbol, "K")
            else:
                found[symbol] = variable(symbol)
    return found


def _needed_attributes(bundles: Sequence[TrainedModel]) -> list[NamedUnits]:
    found: dict[str, NamedUnits] = {}
    for bundle in bundles:
        for quantity in bundle.attributes:
            found.setdefault(quantity.name, quantity)
    return list(found.values())


def _networks(shared: SharedNetwork) -> tuple[RecurrentNetwork, ...]:
    network = shared.network
    return (network.slow, network.fast) if isinstance(network, MultiTimescaleNetwork) else (network,)


def _memory(
    shared: SharedNetwork,
    networks: tuple[RecurrentNetwork, ...],
    rows: Mapping[str, int],
    attributes: Mapping[str, Vector],
    to_mm_per_day: Vector,
    settings: StreamflowLSTMSettings,
    like: torch.Tensor,
) -> Memory:
    """Return the memory of one model as ``state_mode`` wants it."""
    cells = [_cell(shared, network, rows, attributes, to_mm_per_day, like) for network in networks]
    window = settings.state_mode == "window"
    whole = shared.network
    if isinstance(whole, MultiTimescaleNetwork):
        _check_midnight(settings)
        slow, fast = cells
        sizes = (whole.ratio, whole.slow_window, whole.fast_window)
        return MultiTimescale(slow, fast, whole.transfer, *sizes, not window, like)
    memory: Memory = Carried(cells[0])
    if window:
        length = shared.bundle.hyperparameters.get("sequence_length")
        if length is None:
            raise ConfigurationError(
                "state_mode: 'window' needs a model that was trained on sequences of a known length, as "
                "neuralhydrology's are; this one carries its state"
            )
        memory = Windowed(cells[0], int(length), like)
    return Lagged(memory, networks[0].feedback, like) if networks[0].feedback > 1 else memory


def _cell(
    shared: SharedNetwork,
    network: RecurrentNetwork,
    rows: Mapping[str, int],
    attributes: Mapping[str, Vector],
    to_mm_per_day: Vector,
    like: torch.Tensor,
) -> Cell:
    own = attribute_tensor(network, attributes, like.shape[1])
    index = torch.tensor([rows[name] for name in network.forcing_names], device=like.device)
    packed = shared.packed(network)
    if packed is not None:
        return PackedCell(network, packed, own, index)
    scale, offset = (torch.from_numpy(v).to(like)[:, None] for v in shared.scale_and_offset(network))
    return TorchCell(network, own, index, scale, offset, 1.0 / torch.from_numpy(to_mm_per_day).to(like))


def _check_midnight(settings: StreamflowLSTMSettings) -> None:
    start = settings.start_time
    if start is not None and (start.hour, start.minute, start.second) != (0, 0, 0):
        raise ConfigurationError(
            f"start_time is {start}; a model of two timescales starts at 00:00, the beginning of a day"
        )


def _outputs(settings: StreamflowLSTMSettings, members: Sequence[Member], site: Site) -> list[OutputVariable]:
    outputs = runoff_outputs("runoff", settings.runoff_units, site.area)
    heads = {network.head for member in members for network in member.networks}
    if len(members) > 1 or heads & {"gmm", "cmal", "umal"}:
        outputs.append(OutputVariable(variable("runoff_spread"), "spread"))
    if any(len(member.networks) > 1 for member in members):
        outputs.append(OutputVariable(variable("daily_runoff_rate"), "daily_runoff"))
    return outputs


def _record(
    settings: StreamflowLSTMSettings,
    inputs: Sequence[Variable],
    catchments: Sequence[Catchment],
    time_step: float,
) -> Vector:
    """Read the record before the start, ``[time, input, catchment]``; nobody observed runoff in it."""
    assert settings.spin_up is not None
    given = [v for v in inputs if v.symbol != OBSERVED]
    _, rows = read_record(
        settings.spin_up, given, [c.record_id or c.id for c in catchments], time_step, "spin_up"
    )
    if len(given) < len(inputs):
        rows = np.concatenate([rows, np.full((len(rows), 1, len(catchments)), np.nan)], axis=1)
    return rows
