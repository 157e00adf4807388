"""Realizations: NextGen's JSON file that says which models run on which catchments, with what forcing, for how long."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from bmi_components.config import parse_time
from bmi_components.errors import ConfigurationError

__all__ = [
    "STEP",
    "ForcingParams",
    "Formulation",
    "MassBalanceParams",
    "ModuleParams",
    "OutputParams",
    "Realization",
    "StateParams",
    "read_realization",
]

STEP = 3600
"""Seconds of a step: ngen steps catchments by the hour, whatever ``output_interval`` says."""

CSV, NETCDF = "CsvPerFeature", "NetCDF"

_PARAMS = {
    *("name", "model_type_name", "init_config", "main_output_variable", "python_type", "module_path"),
    *("variables_names_map", "model_params", "output_variables", "output_header_fields"),
    *("allow_exceed_end_time", "fixed_time_step", "cache_input_variable_metadata", "mass_balance"),
    *("uses_forcing_file", "forcing_file", "modules", "default_output_values", "serialization"),
    *("output_precision", "registration_function", "library_file"),
}
_TOP = {
    *("global", "catchments", "time", "output_root", "output", "routing", "layers", "bmi_components"),
    *("serialization", "state_saving", "remotes_enabled"),
}


@dataclass(frozen=True)
class MassBalanceParams:
    """How ngen checks a module's mass balance."""

    tolerance: float = 1e-16
    check: bool = True
    fatal: bool = False
    frequency: int = 1


@dataclass(frozen=True)
class ModuleParams:
    """One Python module of a formulation."""

    python_type: str
    init_config: str
    main_output_variable: str
    model_type_name: str
    names: Mapping[str, str]
    """Framework's name by the module's."""
    model_params: Mapping[str, Any]
    output_variables: tuple[str, ...] | None
    output_header_fields: tuple[str, ...] | None
    allow_exceed_end_time: bool
    module_path: str | None
    mass_balance: MassBalanceParams | None
    place: str
    """Where in the file it stands, for messages."""

    def alias(self, name: str) -> str:
        """Return what the framework calls a variable of the module."""
        return self.names.get(name, name)


@dataclass(frozen=True)
class Formulation:
    """What computes a catchment: one module, or several that feed each other (``bmi_multi``)."""

    modules: tuple[ModuleParams, ...]
    main_output_variable: str
    output_variables: tuple[str, ...] | None
    output_header_fields: tuple[str, ...] | None
    default_output_values: Mapping[str, float]
    multi: bool
    place: str


@dataclass(frozen=True)
class ForcingParams:
    """Where the forcing of a catchment is."""

    path: str
    provider: str
    file_pattern: str | None
    place: str


@dataclass(frozen=True)
class OutputParams:
    """What ngen leaves behind, and where."""

    root: str = "./"
    catchment: bool = True
    per_formulation: bool = False
    nexus: bool = True
    precision: int = 9


@dataclass(frozen=True)
class StateParams:
    """Folders of states: which ones a run starts from, and where it leaves its own."""

    load: str | None = None
    save: str | None = None


@dataclass(frozen=True)
class Realization:
    """A realization that has been read.

    Attributes
    ----------
    path
        The file.
    start, end
        First and last step's start.
    output_interval
        Seconds; only how far the last step may reach depends on it.
    formulation, forcing
        Of all catchments that have none of their own.
    own
        Formulation and forcing by catchment, where the file says so.
    states
        What ``state_saving`` says.
    hydrofabric, catchments
        What ``bmi-components nextgen configure`` noted down: the hydrofabric and which of its catchments to run.
    warnings
        Keys that ngen passes over and that look like a mistake.
    """

    path: Path
    start: np.datetime64
    end: np.datetime64
    output_interval: int
    formulation: Formulation | None
    forcing: ForcingParams | None
    own: Mapping[str, tuple[Formulation | None, ForcingParams | None]]
    output: OutputParams
    states: StateParams
    hydrofabric: str | None
    catchments: tuple[str, ...] | None
    warnings: tuple[str, ...]
    text: str

    @property
    def steps(self) -> int:
        """Number of hourly steps: both ends of the period are stepped."""
        seconds = int((self.end - self.start) / np.timedelta64(1, "s"))
        return seconds // self.output_interval * self.output_interval // STEP + 1

    @property
    def last(self) -> np.datetime64:
        """Start of the last step."""
        return self.start + np.timedelta64((self.steps - 1) * STEP, "s")

    def of(self, catchment: str) -> tuple[Formulation, ForcingParams]:
        """Return a catchment's formulation and forcing.

        Raises
        ------
        ConfigurationError
            If the file gives it none.
        """
        formulation, forcing = self.own.get(catchment, (None, None))
        formulation, forcing = formulation or self.formulation, forcing or self.forcing
        if formulation is None or forcing is None:
            what = "formulation" if formulation is None else "forcing"
            raise ConfigurationError(
                f"{self.path}: there is no {what} for {catchment}; give one under 'global' or 'catchments.{catchment}'"
            )
        return formulation, forcing


def read_realization(path: Path) -> Realization:
    """Read a realization.

    Raises
    ------
    ConfigurationError
        If the file is absent or not JSON, lacks what ngen needs, or asks for what only ngen can run.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=_no_key_twice)
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: there is no such realization") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: the realization cannot be read ({error})") from None
    except ValueError as error:
        raise ConfigurationError(f"{path}: not valid JSON: {error}") from None
    return _Reader(path).read(content, text)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    for key in keys:
        if keys.count(key) > 1:
            raise ValueError(f"the key {key!r} is given twice")
    return dict(pairs)


class _Reader:
    """Reads the parts of one file, and collects what looks odd."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.warnings: list[str] = []

    def read(self, content: Any, text: str) -> Realization:
        top = self.mapping(content, "the file")
        self.odd_keys(top, _TOP, "")
        if top.get("layers"):
            raise self.error("'layers' (domain-wide formulations) run only in ngen; take them out")
        formulation, forcing = self.block(top.get("global", {}), "global")
        own = {
            name: self.block(value, f"catchments.{name}")
            for name, value in self.mapping(top.get("catchments", {}), "catchments").items()
        }
        start, end, interval = self.period(top)
        note = self.mapping(top.get("bmi_components", {}), "bmi_components")
        return Realization(
            path=self.path,
            start=start,
            end=end,
            output_interval=interval,
            formulation=formulation,
            forcing=forcing,
            own=MappingProxyType(own),
            output=self.output(top),
            states=self.states(top),
            hydrofabric=note.get("hydrofabric"),
            catchments=tuple(note["catchments"]) if "catchments" in note else None,
            warnings=tuple(self.warnings),
            text=text,
        )

    def error(self, problem: str) -> ConfigurationError:
        return ConfigurationError(f"{self.path}: {problem}")

    def mapping(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.error(f"{place} must hold keys and values, not {value!r:.60}")
        return value

    def odd_keys(self, keys: Mapping[str, Any], known: set[str], place: str) -> None:
        for key in keys:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.8)
            if key not in known and close:
                self.warnings.append(f"{place}{key}: ngen passes this key over; did you mean {close[0]!r}?")

    def period(self, top: Mapping[str, Any]) -> tuple[np.datetime64, np.datetime64, int]:
        time = self.mapping(top.get("time"), "'time' (start_time, end_time, output_interval)")
        moments = []
        for key in ("start_time", "end_time"):
            if not isinstance(time.get(key), str):
                raise self.error(f"time.{key} is missing; write it as 2015-12-01 00:00:00")
            try:
                moments.append(np.datetime64(parse_time(time[key]), "s"))
            except ValueError as error:
                raise self.error(f"time.{key}: {error}") from None
        if moments[1] < moments[0]:
            raise self.error(f"time: the end ({moments[1]}) is before the start ({moments[0]})")
        interval = time.get("output_interval", STEP)
        if isinstance(interval, bool) or not isinstance(interval, int) or interval <= 0:
            raise self.error(
                f"time.output_interval is {interval!r}; it must be a whole number of seconds, 3600"
            )
        if interval != STEP:
            self.warnings.append(
                f"time.output_interval is {interval} s, but ngen steps and writes by the hour all the same; write 3600"
            )
        return moments[0], moments[1], interval

    def block(self, value: Any, place: str) -> tuple[Formulation | None, ForcingParams | None]:
        block = self.mapping(value, place)
        formulation = forcing = None
        if "formulations" in block:
            listed = block["formulations"]
            if not isinstance(listed, list) or len(listed) != 1:
                raise self.error(f"{place}.formulations must be a list of one formulation")
            formulation = self.formulation(listed[0], f"{place}.formulations[0]")
        if "forcing" in block:
            forcing = self.forcing(block["forcing"], f"{place}.forcing")
        return formulation, forcing

    def forcing(self, value: Any, place: str) -> ForcingParams:
        block = self.mapping(value, place)
        provider = block.get("provider", CSV)
        if provider not in (CSV, NETCDF):
            raise self.error(f"{place}.provider is {provider!r}; {CSV} and {NETCDF} can be run here")
        if not isinstance(block.get("path"), str):
            raise self.error(f"{place}.path is missing: the file or folder of the forcing")
        return ForcingParams(block["path"], provider, block.get("file_pattern"), place)

    def formulation(self, value: Any, place: str) -> Formulation:
        block = self.mapping(value, place)
        name = block.get("name")
        params = self.mapping(block.get("params"), f"{place}.params")
        where = f"{place}.params"
        if name == "bmi_python":
            module = self.module(params, where)
            return Formulation(
                (module,),
                module.main_output_variable,
                module.output_variables,
                module.output_header_fields,
                {},
                False,
                where,
            )
        if name != "bmi_multi":
            raise self.error(
                f"{place}.name is {name!r}; bmi_python and bmi_multi of Python modules can be run here, others only in "
                "ngen"
            )
        self.odd_keys(params, _PARAMS, f"{where}.")
        listed = params.get("modules")
        if not isinstance(listed, list) or not listed:
            raise self.error(f"{where}.modules must be a list of modules")
        modules = []
        for index, entry in enumerate(listed):
            inner = self.mapping(entry, f"{where}.modules[{index}]")
            if inner.get("name") != "bmi_python":
                raise self.error(
                    f"{where}.modules[{index}].name is {inner.get('name')!r}; only bmi_python can be run without ngen"
                )
            inside = f"{where}.modules[{index}].params"
            modules.append(self.module(self.mapping(inner.get("params"), inside), inside))
        defaults = {
            str(entry.get("name")): float(entry.get("value", 0.0))
            for entry in params.get("default_output_values", ())
        }
        outputs = self.names(params, "output_variables", where)
        return Formulation(
            modules=tuple(modules),
            main_output_variable=self.text(params, "main_output_variable", where),
            output_variables=outputs,
            output_header_fields=self.names(params, "output_header_fields", where),
            default_output_values=defaults,
            multi=True,
            place=where,
        )

    def module(self, params: Mapping[str, Any], place: str) -> ModuleParams:
        self.odd_keys(params, _PARAMS, f"{place}.")
        if params.get("uses_forcing_file") is True or params.get("forcing_file"):
            raise self.error(
                f"{place}: ngen no longer lets modules read their forcing; take out uses_forcing_file and forcing_file"
            )
        names = self.mapping(params.get("variables_names_map", {}), f"{place}.variables_names_map")
        model_params = self.mapping(params.get("model_params", {}), f"{place}.model_params")
        if "model_params" in params and not model_params:
            raise self.error(f"{place}.model_params is empty, which ngen cannot read; take it out")
        balance = None
        if "mass_balance" in params:
            block = self.mapping(params["mass_balance"], f"{place}.mass_balance")
            known = {"tolerance", "check", "fatal", "frequency"}
            self.odd_keys(block, known, f"{place}.mass_balance.")
            balance = MassBalanceParams(**{key: value for key, value in block.items() if key in known})
            if balance.frequency == -1:
                self.warnings.append(
                    f"{place}.mass_balance.frequency: -1 (at the end) never fires in ngen; write 1"
                )
        return ModuleParams(
            python_type=self.text(params, "python_type", place),
            init_config=self.text(params, "init_config", place),
            main_output_variable=self.text(params, "main_output_variable", place),
            model_type_name=self.text(params, "model_type_name", place),
            names=MappingProxyType({str(k): str(v) for k, v in names.items()}),
            model_params=MappingProxyType(model_params),
            output_variables=self.names(params, "output_variables", place),
            output_header_fields=self.names(params, "output_header_fields", place),
            allow_exceed_end_time=_truth(params.get("allow_exceed_end_time", False)),
            module_path=params.get("module_path"),
            mass_balance=balance if balance is not None and balance.check else None,
            place=place,
        )

    def text(self, params: Mapping[str, Any], key: str, place: str) -> str:
        value = params.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"{place}.{key} is missing; ngen requires it")
        return value

    def names(self, params: Mapping[str, Any], key: str, place: str) -> tuple[str, ...] | None:
        value = params.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.error(f"{place}.{key} must be a list of names")
        outputs: Sequence[str] = params.get("output_variables") or ()
        if key == "output_header_fields" and outputs and len(value) != len(outputs):
            self.warnings.append(
                f"{place}.output_header_fields: {len(value)} fields for {len(outputs)} output_variables; ngen then "
                "takes the variables' names"
            )
            return None
        return tuple(value)

    def states(self, top: Mapping[str, Any]) -> StateParams:
        """Read ``state_saving``, a list of what to save and to load (ngen's pull request 979)."""
        listed = top.get("state_saving", [])
        if not isinstance(listed, list):
            raise self.error("state_saving must be a list of entries: direction, label, path, type, when")
        folders: dict[str, str] = {}
        for index, item in enumerate(listed):
            place = f"state_saving[{index}]"
            entry = self.mapping(item, place)
            texts = {
                key: self.text(entry, key, place) for key in ("direction", "label", "path", "type", "when")
            }
            what = (texts["direction"], texts["type"], texts["when"])
            if what not in (("save", "FilePerUnit", "EndOfRun"), ("load", "FilePerUnit", "StartOfRun")):
                raise self.error(
                    f"{place}: direction, type and when are {', '.join(what)}; states are saved FilePerUnit at "
                    "EndOfRun and loaded FilePerUnit at StartOfRun"
                )
            if texts["direction"] in folders:
                raise self.error(f"{place}: there is more than one entry of direction {texts['direction']!r}")
            folders[texts["direction"]] = texts["path"]
        if folders:
            self.warnings.append(
                "state_saving is known to builds of ngen with pull request 979 alone; others pass it over and start "
                "cold"
            )
        if "serialization" in top:
            self.warnings.append(
                "serialization is known to builds of ngen with pull request 957 alone; 'nextgen run' reads state_saving"
            )
        return StateParams(**folders)

    def output(self, top: Mapping[str, Any]) -> OutputParams:
        block = self.mapping(top.get("output", {}), "output")
        catchment = self.mapping(block.get("catchment", {}), "output.catchment")
        nexus = self.mapping(block.get("nexus", {}), "output.nexus")
        return OutputParams(
            root=str(block.get("root", top.get("output_root", "./"))),
            catchment=_truth(catchment.get("enable", True)),
            per_formulation=catchment.get("grouping") == "per_formulation",
            nexus=_truth(nexus.get("enable", True)),
            precision=int(block.get("precision", 9)),
        )


def _truth(value: Any) -> bool:
    """Read a truth as ngen does, also where it is text."""
    return value in (True, 1, "true", "True", "1")
