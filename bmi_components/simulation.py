"""A run from a configuration file: forcing goes in through BMI, results come out into a netCDF file."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import hashlib
import importlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import msgspec
import netCDF4
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from tqdm import tqdm

import bmi_components
from bmi_components.component import Component
from bmi_components.config import convert, parse_time, read_yaml
from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError
from bmi_components.forcing.readers import read_forcing, source_of
from bmi_components.forcing.series import Forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.output import Column, RunFile
from bmi_components.units import converter, convertible
from bmi_components.variables import CATALOGUE, Variable

__all__ = [
    "OutputSettings",
    "Plan",
    "RunSettings",
    "Simulation",
    "load_component_class",
    "read_plan",
    "water_balance_table",
]

Array = NDArray[np.float64]

CHUNK_VALUES = 2_000_000
"""Values of one variable that are collected before they are written."""
TOTAL = "water_storage"
STORES = ("snow_water_equivalent", "soil_moisture", "upper_zone_storage", "lower_zone_storage")
"""Symbols of outputs that are water held per area."""
CHECKPOINT_SECONDS = 30.0
"""How often a running simulation saves what it needs to be resumed after a kill."""


class OutputSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """What a run leaves behind."""

    folder: Annotated[
        str | None,
        Meta(
            description="Folder for the results, from the working directory; output/<configuration> without it."
        ),
    ] = None
    variables: Annotated[
        list[str] | None, Meta(description="Outputs to write, by symbol or Standard Name; without it all.")
    ] = None
    precision: Annotated[
        Literal["float32", "float64"], Meta(description="Type of the numbers in the netCDF file.")
    ] = "float32"
    plot: Annotated[bool, Meta(description="Draw a hydrograph.")] = True
    csv: Annotated[bool, Meta(description="Also write one csv file per catchment.")] = False


class RunSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """The section ``run`` of a configuration file: what `bmi-components run` does with the component."""

    component: Annotated[
        str,
        Meta(
            description="Class: a public name of this package (DeltaHBV) or the path of your own (package.Class)."
        ),
    ] = "DeltaHBV"
    config: Annotated[
        Path | None, Meta(description="Configuration of the component, where it is not the file itself.")
    ] = None
    forcing: Annotated[ForcingSource | None, Meta(description="Where the forcing comes from.")] = None
    start: Annotated[
        str | None, Meta(description="First date; without it start_time, or else where the forcing starts.")
    ] = None
    end: Annotated[str | None, Meta(description="Last date, included; without it the forcing's last.")] = None
    observations: Annotated[
        ForcingSource | None,
        Meta(description="Observed runoff (runoff_rate, mm d-1 or alike) to draw beside the simulated."),
    ] = None
    output: Annotated[OutputSettings, Meta(description="What is written, and where.")] = OutputSettings()


@dataclass(frozen=True)
class Plan:
    """A run whose settings are read and valid, before any data are."""

    component: type[Component]
    config: Path
    forcing: ForcingSource
    start: str | None
    end: str | None
    observations: ForcingSource | None
    output: OutputSettings
    results: Path


def read_plan(
    path: Path,
    *,
    component: str | None = None,
    forcing: Path | None = None,
    start: str | None = None,
    end: str | None = None,
    folder: str | None = None,
) -> Plan:
    """Read the section ``run`` of a configuration file; what is given here takes its place.

    Raises
    ------
    ConfigurationError
        If the file, the section or the component's class is absent or wrong.
    """
    values = read_yaml(path)
    section = values.get("run")
    if section is None:
        section = {}
    if not isinstance(section, dict):
        raise ConfigurationError(f"{path}: the key 'run' must hold keys and values")
    settings = convert(section, RunSettings, path)
    source = source_of(forcing) if forcing is not None else settings.forcing
    if source is None:
        raise ConfigurationError(f"{path}: no forcing; say it under 'run: forcing:' or with --forcing")
    config = settings.config or path
    target = Path(folder or settings.output.folder or Path("output") / path.stem)
    return Plan(
        component=load_component_class(component or settings.component),
        config=config,
        forcing=source,
        start=start or settings.start,
        end=end or settings.end,
        observations=settings.observations,
        output=settings.output,
        results=target / f"{path.stem}.nc",
    )


def load_component_class(name: str) -> type[Component]:
    """Return a component's class by its public name or its dotted path.

    Raises
    ------
    ConfigurationError
        If there is no such class, or it is not a component.
    """
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module or "bmi_components"), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"there is no component {name!r} ({error})") from None
    if not (isinstance(found, type) and issubclass(found, Component)):
        raise ConfigurationError(f"{name!r} is not a component (a subclass of bmi_components.Component)")
    return found


class Simulation:
    """One component stepped from the start of a plan to its end, and the file that it writes.

    Reading the forcing and initializing the component happen here, so that every mistake shows before the first
    step.

    Parameters
    ----------
    plan
        From `read_plan`.
    initial_state
        State to start from, saved by ``save_state`` of this or another period; the configuration's own otherwise.

    Raises
    ------
    BmiComponentsError
        Whatever is wrong with the configuration, the trained model or the forcing.
    """

    def __init__(self, plan: Plan, initial_state: Path | None = None) -> None:
        self.plan = plan
        values = read_yaml(plan.config)
        self.component = plan.component()
        self.component.initialize(str(plan.config))
        self._started_from = b""
        if initial_state is not None:
            self.component.load_state(initial_state)
            self._started_from = initial_state.read_bytes()
        self.inputs = _variables(self.component, self.component.get_input_var_names())
        outputs = _variables(self.component, self.component.get_output_var_names())
        places = _configured_catchments(values, plan.config)
        start, end = _period(plan, values)
        self.forcing = _read(plan, self.inputs, tuple(places), self.component, start, end)
        self.step_seconds, self.rows_per_step = _steps(self.forcing, self.component)
        self.steps = self.forcing.time.size // self.rows_per_step
        self.observed = _observations(plan, self.forcing, self.step_seconds)
        self.outputs = _selected(outputs, plan.output.variables)
        # All water in one number says more than the stores that happen to be published.
        self.stores = [v for v in outputs if v.symbol == TOTAL] or [v for v in outputs if v.symbol in STORES]
        self._places = places
        self._done = 0

    @property
    def position(self) -> str:
        """Where the simulation is, in words."""
        return f"step {self._done} of {self.steps}"

    @property
    def checkpoint(self) -> Path:
        """State of the component from which an interrupted run resumes."""
        return self.plan.results.with_suffix(".state")

    def run(self, *, resume: bool = False, progress: bool = True, save_state: Path | None = None) -> bool:
        """Step to the end; return whether it was reached (False: interrupted, and saved to be resumed).

        ``save_state`` names a file for the state at the end, from which another period may start.

        Raises
        ------
        StateError
            If ``resume`` and there is nothing that could be resumed.
        """
        time_axis = self.forcing.time[:: self.rows_per_step]
        with RunFile(
            self.plan.results,
            time=time_axis,
            time_step=self.step_seconds,
            catchments=self.forcing.catchments,
            columns=self._columns(),
            attributes=self._attributes(),
            per_catchment=self._per_catchment(),
            precision=self.plan.output.precision,
            resume=resume,
        ) as file:
            if resume:
                self.component.load_state(self.checkpoint, restore_clock=True)
                self._done = round(self.component.get_current_time() / self.step_seconds)
            else:
                self.checkpoint.unlink(missing_ok=True)
                self._write_known(file)
            with _stop_requests() as stop, _progress_bar(self.steps, self._done, progress) as bar:
                for chunk in self._chunks():
                    values = self._step_through(chunk, stop, bar)
                    file.write(chunk.start, values)
                    if self._done < self.steps:
                        self.component.save_state(self.checkpoint)
                    if stop.is_set():
                        return False
            if save_state is not None:
                self.component.save_state(save_state)
            file.write_per_catchment("final_storage", self._stored())
            file.complete()
        self.checkpoint.unlink(missing_ok=True)
        return True

    def closure(self) -> str | None:
        """Return what the component's own account of its water says, where it keeps one."""
        try:
            terms = [
                float(self.component.get_value_ptr(f"ngen::mass_{term}")[0])
                for term in ("in", "out", "stored", "leaked")
            ]
        except UnknownNameError:
            return None
        into, out, stored, leaked = terms
        return (
            f"water of the whole run, as the component counts it: {1000 * into:.2f} mm in, {1000 * out:.2f} mm out, "
            f"{1000 * stored:.2f} mm stored, {1000 * leaked:.2f} mm leaked, "
            f"{1000 * (into - out - stored - leaked):.2g} mm unaccounted for"
        )

    # ---------------------------------------------------------------- stepping

    def _chunks(self) -> Iterator[range]:
        size = max(1, min(1024, CHUNK_VALUES // max(1, len(self.forcing.catchments))))
        while self._done < self.steps:
            yield range(self._done, min(self._done + size, self.steps))

    def _step_through(self, chunk: range, stop: threading.Event, bar: tqdm[Any]) -> dict[str, Array]:
        """Step through a chunk, or as far as a stop request or the time for a checkpoint lets it."""
        component, forcing = self.component, self.forcing
        size = len(forcing.catchments)
        results = {v.symbol: np.empty((len(chunk), size)) for v in self.outputs}
        amounts = [v for v in self.outputs if v.per_update and self.rows_per_step > 1]
        part = np.empty(size)
        whole_steps = float(forcing.time_step) == component.get_time_step()
        deadline = time.monotonic() + CHECKPOINT_SECONDS
        written = 0
        for step in chunk:
            totals = {v.symbol: np.zeros(size) for v in amounts}
            for row in range(step * self.rows_per_step, (step + 1) * self.rows_per_step):
                for v in self.inputs:
                    component.set_value(v.name, forcing.values[v.symbol][row])
                if whole_steps:
                    component.update()
                else:
                    component.update_until(float((row + 1) * forcing.time_step))
                for v in amounts:
                    totals[v.symbol] += component.get_value(v.name, part)
            for v in self.outputs:
                component.get_value(v.name, results[v.symbol][written])
            for symbol, total in totals.items():
                results[symbol][written] = total
            written += 1
            self._done = step + 1
            bar.update()
            if stop.is_set() or time.monotonic() > deadline:
                break
        return {symbol: values[:written] for symbol, values in results.items()}

    # ---------------------------------------------------------------- what the file says

    def _columns(self) -> list[Column]:
        inputs = [Column(v, "mean") for v in self.inputs]
        observed = [Column(v, "mean") for v in self.observed]
        outputs = [
            Column(v, "sum" if v.per_update else "end" if v.symbol in (TOTAL, *STORES) else "mean")
            for v in self.outputs
        ]
        return [*inputs, *observed, *outputs]

    def _write_known(self, file: RunFile) -> None:
        """Write what is known before the first step: the forcing as means over the steps, and observations."""
        shape = (self.steps, self.rows_per_step, len(self.forcing.catchments))
        file.write(
            0, {v.symbol: self.forcing.values[v.symbol].reshape(shape).mean(axis=1) for v in self.inputs}
        )
        file.write(0, {v.symbol: values for v, values in self.observed.items()})

    def _per_catchment(self) -> dict[str, tuple[Array, str, str]]:
        known = {
            "latitude": ("degrees_north", "latitude"),
            "longitude": ("degrees_east", "longitude"),
            "area_km2": ("km2", "catchment area"),
        }
        found = {}
        for key, (units, meaning) in known.items():
            values = [self._places.get(name, {}).get(key) for name in self.forcing.catchments]
            if values and all(isinstance(value, (int, float)) for value in values):
                found[key] = (np.array(values, dtype=np.float64), units, meaning)
        stored = self._stored()
        found["initial_storage"] = (stored, "mm", "water in all stores before the first step")
        found["final_storage"] = (
            np.full(stored.size, np.nan),
            "mm",
            "water in all stores after the last step",
        )
        return found

    def _stored(self) -> Array:
        """Return the water in all stores now, mm, ``[catchment]``."""
        total = np.zeros(len(self.forcing.catchments))
        for v in self.stores:
            total += converter(v.units, "mm")(self.component.get_value(v.name, np.empty(total.size)))
        return total

    def _attributes(self) -> dict[str, str]:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        name = self.component.get_component_name()
        text = self.plan.config.read_text(encoding="utf-8")
        digest = hashlib.sha256(
            f"{type(self.component).__name__}\n{text}\n{self.forcing.catchments}".encode()
        )
        digest.update(self.forcing.time.tobytes())
        for v in self.inputs:
            digest.update(np.ascontiguousarray(self.forcing.values[v.symbol]).tobytes())
        digest.update(repr([c.variable.symbol for c in self._columns()]).encode())
        digest.update(self._started_from)
        return {
            "title": f"{name} on {self.forcing.source}",
            "source": f"bmi_components {bmi_components.__version__}, component {name}",
            "history": f"{now}: bmi-components run {self.plan.config.name}",
            "forcing": self.forcing.source,
            "configuration": text,
            "run_identity": digest.hexdigest(),
        }


def water_balance_table(results: Path) -> str:
    """Return a table of the mean water balance of each catchment in a results file, mm per year.

    The residual is precipitation minus evapotranspiration, runoff and the gain of storage. Where a component does not
    publish all its water in one number, what its published stores leave out is in the residual. A component that knows
    neither stores nor evapotranspiration has no balance: precipitation, runoff and their difference are told.
    """
    with netCDF4.Dataset(results) as file:
        steps = file["time_bounds"][:]
        seconds = converter(file["time"].units.partition(" since ")[0], "s")(
            float(steps[-1, 1] - steps[0, 0])
        )
        years = seconds / (365.25 * 86_400.0)

        def mean(symbol: str, per: str = "1") -> Array | None:
            units = f"({file[symbol].units}) / ({per})" if symbol in file.variables else ""
            if not units or not convertible(units, "mm d-1"):
                return None
            to_rate = converter(units, "mm d-1")
            return np.asarray(
                to_rate(np.ma.filled(file[symbol][:].astype(np.float64), np.nan).mean(axis=0)) * 365.25
            )

        rain, evaporation, runoff = (mean(s) for s in ("precipitation", "evapotranspiration", "runoff_rate"))
        if runoff is None:  # a rate in m3 s-1
            runoff = mean("runoff_depth", f"{seconds / len(steps)} s")
        stored = np.any(file["initial_storage"][:]) or np.any(file["final_storage"][:])
        gain = np.asarray(file["final_storage"][:] - file["initial_storage"][:], dtype=np.float64) / years
        names = [str(name) for name in file["catchment"][:]]
    columns: list[tuple[str, Array]] = [
        (label, values)
        for label, values in (("P", rain), ("ET", evaporation), ("Q", runoff), ("dS", gain))
        if values is not None
    ]
    if rain is not None and runoff is not None and evaporation is None and not stored:
        columns = [("P", rain), ("Q", runoff), ("P - Q", rain - runoff)]
    elif rain is not None and runoff is not None:
        lost = evaporation if evaporation is not None else np.zeros_like(rain)
        columns.append(("residual", rain - lost - runoff - gain))
    width = max(9, *(len(name) for name in names))
    shown = list(range(len(names))) if len(names) <= 20 else [*range(10), *range(len(names) - 10, len(names))]
    lines = [f"{'catchment':<{width}}" + "".join(f"{label:>10}" for label, _ in columns) + "   mm per year"]
    for position, index in enumerate(shown):
        if position and index != shown[position - 1] + 1:
            lines.append(f"... {len(names) - len(shown)} more")
        lines.append(f"{names[index]:<{width}}" + "".join(f"{values[index]:>10.1f}" for _, values in columns))
    return "\n".join(lines)


# --- from configuration to data --------------------------------------------------------------------------------------


def _variables(component: Component, names: Sequence[str]) -> list[Variable]:
    """Return what the component says of its variables."""
    return [component.variables[name] for name in names]


def _selected(outputs: Sequence[Variable], wanted: Sequence[str] | None) -> list[Variable]:
    """Return the outputs to write."""
    on_catchments = [v for v in outputs if v.grid == "catchment"]
    if wanted is None:
        return on_catchments
    index = {key: v for v in on_catchments for key in (v.symbol, v.name)}
    for name in wanted:
        if name not in index:
            raise UnknownNameError(
                f"output: the component has no output {name!r}; it has {', '.join(v.symbol for v in on_catchments)}"
            )
    return [index[name] for name in wanted]


def _configured_catchments(values: Mapping[str, Any], path: Path) -> dict[str, dict[str, Any]]:
    """Return what the configuration says of its catchments, by identifier and in its order; {} if nothing."""
    file_name = values.get("catchments_file", values.get("sites_file"))
    if isinstance(file_name, str):
        table = path.parent / Path(file_name).expanduser()
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["id"]: {k: _number(v) for k, v in row.items() if k != "id"} for row in rows}
    listed = values.get("catchments", values.get("towers", values.get("sites")))
    if isinstance(listed, list):
        return {str(entry["id"]): entry for entry in listed if isinstance(entry, dict) and "id" in entry}
    for key in ("catchment_id", "basin_id"):  # NextGen's files
        if key in values:
            return {str(values[key]): dict(values)}
    return {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _period(plan: Plan, values: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the run's first and last date, which agree with the component's calendar if it has one."""
    calendar = values.get("start_time")
    if calendar is None:
        return plan.start, plan.end
    start = plan.start or plan.forcing.start or str(calendar)
    if _date(start) != _date(str(calendar)):
        raise ConfigurationError(
            f"{plan.config}: the component's start_time is {calendar}, but the run starts at {start}; they must agree"
        )
    return start, plan.end


def _date(text: str) -> datetime.datetime:
    try:
        return parse_time(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _read(
    plan: Plan,
    inputs: Sequence[Variable],
    catchments: tuple[str, ...],
    component: Component,
    start: str | None,
    end: str | None,
) -> Forcing:
    """Read the forcing of the component's catchments, in its order."""
    source = plan.forcing
    size = component.get_var_nbytes(inputs[0].name) // component.get_var_itemsize(inputs[0].name)
    if source.catchments is None and catchments and (size > 1 or source.kind == "sample"):
        source = msgspec.structs.replace(source, catchments=list(catchments))
    forcing = read_forcing(source, inputs, start=start, end=end)
    if size == 1 < len(forcing.catchments) and catchments and set(catchments) <= set(forcing.catchments):
        forcing = forcing.select(catchments)
    if len(forcing.catchments) != size:
        raise ForcingError(
            f"{forcing.source}: it has {len(forcing.catchments)} catchments, the component {size}; "
            "choose with 'catchments' under 'forcing'"
        )
    if size > 1 and catchments and forcing.catchments != catchments:
        raise ForcingError(
            f"{forcing.source}: its catchments ({forcing.catchments[0]}, ...) are not those of the component "
            f"({catchments[0]}, ...) in the same order"
        )
    return forcing


def _steps(forcing: Forcing, component: Component) -> tuple[int, int]:
    """Return the seconds of a step in the results, and how many rows of forcing it takes."""
    model = round(component.get_time_step())
    longer, shorter = max(model, forcing.time_step), min(model, forcing.time_step)
    if longer % shorter:
        raise ForcingError(
            f"{forcing.source}: its steps of {forcing.time_step} s and the component's of {model} s do not fit"
        )
    rows = longer // forcing.time_step
    if forcing.time.size % rows:
        raise ForcingError(
            f"{forcing.source}: {forcing.time.size} rows of {forcing.time_step} s end amid a step of {model} s"
        )
    return longer, rows


def _observations(plan: Plan, forcing: Forcing, step_seconds: int) -> dict[Variable, Array]:
    """Read observed runoff for the steps of the run; gaps stay NaN."""
    if plan.observations is None:
        return {}
    runoff = dataclasses.replace(CATALOGUE["runoff_rate"], nan_is_data=True)
    source = plan.observations
    if source.catchments is None:
        source = msgspec.structs.replace(source, catchments=list(forcing.catchments))
    first, last = (
        str(t).replace("T", " ") for t in (forcing.time[0], forcing.end - np.timedelta64(step_seconds, "s"))
    )
    observed = read_forcing(source, [runoff], start=first, end=last).aggregate(step_seconds)
    target = Variable("observed_runoff", runoff.units, "observed_runoff", "Observed runoff", nan_is_data=True)
    return {target: observed.values[runoff.symbol]}


# --- while it runs ---------------------------------------------------------------------------------------------------


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Turn Control-C and SIGTERM into a request that is met between steps; a second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress_bar(total: int, done: int, show: bool) -> Iterator[Any]:
    with tqdm(total=total, initial=done, unit=" steps", disable=not show, dynamic_ncols=True) as bar:
        yield bar
