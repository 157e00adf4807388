"""What ngen would get wrong about an open formulation: units, types, clocks, attributes that no model has seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from bmi_components.errors import BmiComponentsError, UnitsError
from bmi_components.forcing.nextgen import NAMES
from bmi_components.importers import load_model
from bmi_components.importers.finding import find_folder
from bmi_components.nextgen.attributes import outside_training
from bmi_components.nextgen.forcing import FrameworkForcing, precipitation_units
from bmi_components.nextgen.modules import PLACES, Module
from bmi_components.nextgen.realization import STEP, Realization
from bmi_components.nextgen.stepping import FormulationRun, to_metres
from bmi_components.trained_model import TrainedModel
from bmi_components.units import convertible

__all__ = ["Finding", "first_error", "verify", "verify_forcing"]

INPUT_TYPES = {("float64", 8), ("float", 8), ("float32", 4), ("float", 4), ("int", 8), ("int", 4)}
OUTPUT_TYPES = {("float64", 8), ("float", 8), ("float32", 4), ("int", 8)}
WATER = ("mm s-1", "kg m-2 s-1", "kg m-2", "m3 s-1")


@dataclass(frozen=True)
class Finding:
    """One thing that a check has found: an error stops ngen or makes its numbers wrong."""

    level: Literal["error", "warning"]
    message: str


def verify(run: FormulationRun, realization: Realization) -> Iterator[Finding]:
    """Check an open formulation for what opening it does not refuse."""
    for note in run.notes:
        yield Finding("warning", note)
    yield from _main_output(run)
    yield from verify_forcing(run.forcing, run.needed)
    for module in run.modules:
        yield from _types(module)
        yield from _clocks(module, realization)
        yield from _configurations(module, realization)


def _main_output(run: FormulationRun) -> Iterator[Finding]:
    units = run.main_units
    if to_metres(units) is not None:
        return
    where = f"{run.formulation.place}.main_output_variable: {run.formulation.main_output_variable} is in {units!r}"
    if any(convertible(units, water) for water in WATER):
        depth = "land_surface_water__runoff_depth"
        has_depth = any(depth in module.outputs for module in run.modules)
        yield Finding(
            "error",
            f"{where}, and ngen takes the number for metres per hour; "
            + (f"name {depth}" if has_depth else "name an output in m per step"),
        )
    else:
        yield Finding(
            "warning", f"{where}: it is no water, so what ngen writes for nexuses means nothing; pass it over"
        )


def verify_forcing(forcing: FrameworkForcing, needed: Sequence[str]) -> Iterator[Finding]:
    """Check that precipitation without declared units is what ngen takes it for."""
    rates = {column for name in NAMES if name.units is None for column in (*name.columns, name.standard_name)}
    for column in needed:
        if column not in rates or forcing.table.units[column]:
            continue
        try:
            units = precipitation_units(forcing, column)
        except UnitsError as error:
            yield Finding("error", str(error))
            continue
        source = forcing.table.source
        if units is None:
            yield Finding(
                "warning",
                f"{source}: {column} declares no units and nothing shows them; ngen takes it for mm s-1. Declare them",
            )
        elif units != "mm s-1":
            yield Finding(
                "error",
                f"{source}: {column} declares no units and adds up to APCP_surface in {units}, but ngen takes it for "
                f"mm s-1. Declare them: in netCDF the attribute units = {units!r}, in csv the header "
                f"'{column} ({units})'",
            )


def _types(module: Module) -> Iterator[Finding]:
    """Types that ngen's Python adapter can pass; others abort it."""
    model = module.instances[0].model
    for names, allowed, right in (
        (module.inputs, INPUT_TYPES, "float64 or float32"),
        (module.outputs, OUTPUT_TYPES, "float64 or float32"),
    ):
        for name in names:
            kind = str(model.get_var_type(name)), int(model.get_var_itemsize(name))
            if kind not in allowed:
                yield Finding(
                    "error",
                    f"{module.params.place}: {name} is of type {kind[0]!r} ({kind[1]} bytes), which aborts ngen; "
                    f"get_var_type must say {right}",
                )


def _clocks(module: Module, realization: Realization) -> Iterator[Finding]:
    end = min(float(instance.model.get_end_time()) for instance in module.instances)
    if not module.params.allow_exceed_end_time and end < realization.steps * STEP:
        yield Finding(
            "error",
            f"{module.params.place}: the module ends after {end:g} s, the run after {realization.steps * STEP} s, and "
            'ngen stops there; set "allow_exceed_end_time": true or a later end_time in its configuration',
        )


def _configurations(module: Module, realization: Realization) -> Iterator[Finding]:
    """Check what components of this package are configured with: dates, names, and attributes."""
    params = module.params
    attributes: dict[str, Mapping[str, float]] = {}
    models: dict[str, TrainedModel] = {}
    dates: dict[Any, str] = {}
    for name, settings in module.settings.items():
        listed: Sequence[Any] = next((held for key in PLACES if (held := getattr(settings, key, ()))), ())
        if len(listed) == 1 and listed[0].id != name and "{{id}}" in params.init_config:
            yield Finding(
                "warning",
                f"{params.init_config.replace('{{id}}', name)}: it is the configuration of {listed[0].id}, and {name} "
                "reads it; is it a copy?",
            )
        if len(listed) == 1 and hasattr(listed[0], "attributes"):
            attributes[name] = listed[0].attributes
            # Components that are equations alone have neither.
            for folder in getattr(settings, "models", None) or (getattr(settings, "model", None),):
                if folder is not None and str(folder) not in models:
                    models[str(folder)] = _model(folder, settings)
        if settings.start_time is not None:
            dates.setdefault(settings.start_time, name)
    for date, name in dates.items():
        if np.datetime64(date, "s") != realization.start:
            yield Finding(
                "error",
                f"{params.init_config.replace('{{id}}', name)}: start_time is {date}, the realization's "
                f"{str(realization.start).replace('T', ' ')}; the component's calendar would be off; write the latter",
            )
    for model in models.values():
        for sentence in outside_training(model, attributes):
            yield Finding("warning", f"{params.place}: {sentence}")


def _model(folder: Path, settings: Any) -> TrainedModel:
    options = getattr(settings, "run_folder", None)
    places = () if getattr(settings, "model_path", None) is None else (settings.model_path,)
    return load_model(
        find_folder(folder, places), **(msgspec.structs.asdict(options) if options is not None else {})
    )


def first_error(findings: Iterator[Finding]) -> None:
    """Raise what must not be run.

    Raises
    ------
    BmiComponentsError
        The first error among them.
    """
    for finding in findings:
        if finding.level == "error":
            raise BmiComponentsError(finding.message)
