"""A realization and one configuration per catchment, written when everything that ngen will ask for is there."""

from __future__ import annotations

import json
import math
import re
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import chdir, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from bmi_components.config import parse_time, read_yaml
from bmi_components.errors import BmiComponentsError, ConfigurationError, ForcingError, UnitsError
from bmi_components.forcing.nextgen import NAMES
from bmi_components.importers import load_model
from bmi_components.nextgen.attributes import (
    Known,
    attributes_of,
    parse_constants,
    parse_sources,
    read_attributes,
)
from bmi_components.nextgen.canopies import CANOPY, FORCED, Canopies
from bmi_components.nextgen.forcing import (
    FrameworkForcing,
    csv_of,
    open_forcing,
    precipitation_units,
)
from bmi_components.nextgen.hydrofabric import Divide, is_geopackage, read_divides
from bmi_components.nextgen.kinds import COMPONENTS, MAIN_OUTPUTS, OUTPUTS, kind_of, new_component
from bmi_components.nextgen.realization import (
    CSV,
    NETCDF,
    STEP,
    ForcingParams,
    read_realization,
)
from bmi_components.nextgen.stepping import FormulationRun
from bmi_components.nextgen.verify import verify
from bmi_components.trained_model import TrainedModel
from bmi_components.units import convertible
from bmi_components.variables import variable

__all__ = ["Made", "Request", "configure_realization"]

FILE_PATTERN = ".*{{id}}([^0-9].*)?[.]csv"
"""A catchment's csv file by its name: cat-2 is not cat-27."""
FED = "potential_evapotranspiration"
"""Symbol of the input that PotentialEvapotranspiration supplies, and what the modules call it between them."""


@dataclass(frozen=True)
class Request:
    """What a realization is to be made of; see ``bmi-components nextgen configure --help``."""

    hydrofabric: Path
    models: tuple[Path, ...]
    forcing: Path
    output: Path
    attributes: Path | None = None
    attribute_columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    catchments: Sequence[str] | None = None
    start: str | None = None
    end: str | None = None
    evapotranspiration: str | None = None
    climatology: Path | None = None
    precipitation_units: str | None = None
    spin_up: bool = False
    mass_balance: bool = True


@dataclass(frozen=True)
class Made:
    """What has been written."""

    realization: Path
    catchments: int
    warnings: tuple[str, ...]
    command: str


def configure_realization(request: Request) -> Made:
    """Write a realization and its configurations: all of it, checked, or nothing.

    Raises
    ------
    BmiComponentsError
        Whatever is missing or does not fit: catchments, attributes, forcing, units.
    """
    target = request.output.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{target}: something is already there; choose another folder")
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.mkdir(parents=True)
    try:
        made = _Maker(request, temporary, target).make()
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise ConfigurationError(f"{target}: it cannot be written ({error})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return made


class _Maker:
    """Makes one realization in a folder that gets its name later."""

    def __init__(self, request: Request, folder: Path, target: Path) -> None:
        self.request, self.folder, self.target = request, folder, target
        self.warnings: list[str] = []

    def make(self) -> Made:
        request = self.request
        divides = read_divides(request.hydrofabric, request.catchments)
        models = [load_model(path) for path in request.models]
        kind = kind_of(models, request.models)
        self.check_options(kind)
        self.check_divides(divides)
        known = self.known(kind, divides, models)
        start, end = (None if d is None else _date(d) for d in (request.start, request.end))
        with open_forcing(_forcing_params(request.forcing), tuple(divides), start, end) as forcing:
            period = forcing.period
            if request.spin_up and forcing.first < 24:
                raise ConfigurationError(
                    f"--spin-up: {forcing.table.source} has {forcing.first} hours before the start; give a --start "
                    "that leaves it a day at least"
                )
            units = self.precipitation_units(forcing)
            own = self.own_texts(kind, divides, models, known, forcing)
        path = self.forcing_path(units, tuple(divides))
        self.write_configs(kind, self.settings(kind, period[0]) + self.spin_up(kind, path, period[0]), own)
        if kind == "lstm" and request.evapotranspiration is not None:
            places = {name: _catchment_text(divide, {}) for name, divide in divides.items()}
            self.write_configs("evapotranspiration", self.feeder_settings(period[0]), places)
        content = self.realization(kind, path, period, tuple(divides))
        file = self.folder / "realization.json"
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        self.check(file, divides)
        return Made(
            realization=_shown(self.target / "realization.json"),
            catchments=len(divides),
            warnings=tuple(dict.fromkeys(self.warnings)),
            command=self.command(tuple(divides)),
        )

    # ---------------------------------------------------------------- what goes in

    def check_divides(self, divides: Mapping[str, Divide]) -> None:
        where = self.request.hydrofabric
        for name, divide in divides.items():
            if divide.area_km2 is None or not divide.area_km2 > 0.0:
                raise ConfigurationError(
                    f"{where}: {name} has no areasqkm; ngen needs it to make flow of depth"
                )
            if divide.nexus is None:
                raise ConfigurationError(f"{where}: {name} has no toid, the nexus into which its water goes")

    def check_options(self, kind: str) -> None:
        """Refuse options that the component has no use for."""
        request = self.request
        name = COMPONENTS[kind]
        if request.climatology is not None and kind != "hbv":
            raise ConfigurationError("--climatology is for δHBV 1.x alone")
        if request.evapotranspiration is not None and kind not in ("hbv", "lstm"):
            raise ConfigurationError(f"--pet: {name} takes no potential evapotranspiration; leave it out")
        if request.spin_up and kind == "canveg":
            raise ConfigurationError(
                f"--spin-up: {name} takes no record before the start; give an earlier --start and pass the first days "
                "over"
            )

    def known(self, kind: str, divides: Mapping[str, Divide], models: Sequence[TrainedModel]) -> Known:
        """Return what is known of the catchments, and refuse columns and values that nothing asks for."""
        request = self.request
        table: Mapping[str, Mapping[str, float]] = {}
        where = str(request.attributes or request.hydrofabric)
        if request.attributes is not None:
            table = read_attributes(request.attributes)
        elif is_geopackage(request.hydrofabric):
            try:
                table = read_attributes(request.hydrofabric)
            except ConfigurationError:
                table = {}  # not every hydrofabric has attributes; what is missing is said below
        sources, constants = parse_sources(request.attribute_columns), parse_constants(request.values)
        asked = {attribute.name for model in models for attribute in model.attributes}
        asked |= set({"canveg": CANOPY, "flux": ("utc_offset",)}.get(kind, ()))
        for option, given in (("--attribute", sources), ("--value", constants)):
            for name in given:
                if name not in asked:
                    raise ConfigurationError(
                        f"{option} {name}: the model has no such attribute; it has {', '.join(sorted(asked))}"
                    )
        own = {name: divide.properties for name, divide in divides.items()}
        return Known(table, own, sources, constants, where)

    def own_texts(
        self,
        kind: str,
        divides: Mapping[str, Divide],
        models: Sequence[TrainedModel],
        known: Known,
        forcing: FrameworkForcing,
    ) -> dict[str, str]:
        """Return what is each catchment's own in its configuration."""
        if kind == "canveg":
            columns = forcing.table.units
            forced = [s for s in FORCED if s in columns or variable(s).name in columns]
            canopies = Canopies(models[0], known, forced)
            texts = {name: canopies.text(divide) for name, divide in divides.items()}
            self.configs(kind).mkdir(parents=True)
            canopies.write_matrices(self.configs(kind).parent)
            return texts
        if kind == "flux":
            return {name: _tower_text(divide, known) for name, divide in divides.items()}
        return {
            name: _catchment_text(divide, attributes_of(name, models, known))
            for name, divide in divides.items()
        }

    def precipitation_units(self, forcing: FrameworkForcing) -> str | None:
        """Return the units that the forcing's precip_rate lacks; None if it lacks none."""
        column = forcing.column("precip_rate")
        if column is None or forcing.table.units[column]:
            return None
        found = self.request.precipitation_units or precipitation_units(forcing, column)
        if found is None:
            raise UnitsError(
                f"{forcing.table.source}: {column} declares no units, and files of this kind hold mm s-1 or m s-1; say "
                "which with --precipitation-units"
            )
        if not convertible(found, "mm s-1"):
            raise UnitsError(f"--precipitation-units {found!r} do not convert to mm s-1")
        return None if found == "mm s-1" else found

    def forcing_path(self, units: str | None, catchments: tuple[str, ...]) -> str:
        """Return where the realization finds the forcing: as it is, or a copy that declares its units."""
        source = self.request.forcing.resolve()
        if units is None:
            return str(source)
        folder = self.folder / "forcings"
        folder.mkdir()
        if source.is_dir():
            for name in catchments:
                file = csv_of(source, _forcing_params(source), name)
                _declare_in_csv(file, folder / file.name, units)
            self.warnings.append(
                f"precip_rate of {source.name} declares no units and is in {units}, which ngen would take for mm s-1: "
                "a copy that says so is in forcings/"
            )
            return "./forcings"
        shutil.copyfile(source, folder / source.name)
        with closing(netCDF4.Dataset(folder / source.name, "a")) as copy:
            copy["precip_rate"].units = units
        self.warnings.append(
            f"precip_rate of {source.name} declares no units and is in {units}, which ngen would take for mm s-1: a "
            f"copy that says so is forcings/{source.name}"
        )
        return f"./forcings/{source.name}"

    # ---------------------------------------------------------------- what comes out

    def configs(self, kind: str) -> Path:
        """Return the folder of a component's configurations."""
        return self.folder / "config" / "cat_config" / kind

    def write_configs(self, kind: str, text: str, own: Mapping[str, str]) -> None:
        """Write a configuration per catchment: what all have in common, then its own."""
        self.configs(kind).mkdir(parents=True, exist_ok=True)
        for name, rest in own.items():
            (self.configs(kind) / f"{name}.yml").write_text(text + rest, encoding="utf-8")

    def feeder_settings(self, start: np.datetime64) -> str:
        """Return what the configurations of PotentialEvapotranspiration have in common."""
        method = self.request.evapotranspiration
        if method not in ("oudin", "penman_monteith"):
            raise ConfigurationError(
                f"--pet {method} is for δHBV, which computes it itself; an LSTM is fed oudin or penman_monteith"
            )
        return (
            "# Made by bmi-components nextgen configure.\n"
            f"method: {method}\nstart_time: {str(start).replace('T', ' ')}\n"
        )

    def settings(self, kind: str, start: np.datetime64) -> str:
        """Return what the configurations of all catchments have in common."""
        request = self.request
        folders = [str(path.resolve()) for path in request.models]
        lines = ["# Made by bmi-components nextgen configure."]
        lines.append(
            f"models: {json.dumps(folders)}" if kind == "lstm" else f"model: {json.dumps(folders[0])}"
        )
        if kind == "hbv":
            lines.append(f"potential_evapotranspiration: {request.evapotranspiration or 'penman_monteith'}")
        lines += {
            "flux": ["inputs: hourly", "missing_day: hold"],
            "canveg": ["inputs: nextgen", "time_step: hourly", "profiles: false"],
        }.get(kind, ["inputs: nextgen", "partial_step: estimate"])
        lines.append(f"start_time: {str(start).replace('T', ' ')}")
        if request.climatology is not None:
            lines.append(f"climatology: {json.dumps(read_yaml(request.climatology))}")
        return "\n".join(lines) + "\n"

    def spin_up(self, kind: str, forcing: str, start: np.datetime64) -> str:
        """Return the setting that lets the component take in the forcing before the start."""
        if not self.request.spin_up:
            return ""
        if kind == "lstm" and self.request.evapotranspiration is not None:
            raise ConfigurationError(
                "--spin-up: the record before the start lacks the potential evapotranspiration that --pet supplies "
                "from the start on; give one of them"
            )
        # A path in a configuration counts from its folder, config/cat_config/<kind>.
        path = forcing if Path(forcing).is_absolute() else f"../../../{forcing}"
        last = str(start - np.timedelta64(STEP, "s")).replace("T", " ")
        record = {"kind": "nextgen", "path": path, "end": last}
        return f"{'spin_up' if kind == 'lstm' else 'warm_up'}: {json.dumps(record)}\n"

    def realization(
        self,
        kind: str,
        forcing: str,
        period: tuple[np.datetime64, np.datetime64],
        catchments: tuple[str, ...],
    ) -> dict[str, Any]:
        """Return the realization's content, which names a source for every input of the component."""
        with chdir(self.folder), open_forcing(_forcing_params(Path(forcing)), catchments, *period) as opened:
            formulation = self.formulation(kind, catchments[0], opened)
        provider = {"path": forcing, "provider": NETCDF}
        if self.request.forcing.is_dir():
            provider = {"path": forcing, "provider": CSV, "file_pattern": FILE_PATTERN}
        start, end = (str(time).replace("T", " ") for time in period)
        return {
            "global": {"formulations": [formulation], "forcing": provider},
            "time": {"start_time": start, "end_time": end, "output_interval": 3600},
            "output_root": "./outputs",
            # ngen passes this over.
            "bmi_components": {
                "hydrofabric": str(self.request.hydrofabric.resolve()),
                "catchments": list(catchments),
            },
        }

    def formulation(self, kind: str, catchment: str, forcing: FrameworkForcing) -> dict[str, Any]:
        """Return the module that gives runoff, with the one that feeds it where the forcing does not."""
        feeder: dict[str, Any] | None = None
        if kind == "lstm" and self.request.evapotranspiration is not None:
            feeder = self.module("evapotranspiration", catchment, forcing)
        module = self.module(kind, catchment, forcing, fed=feeder is not None)
        if self.request.mass_balance and kind == "hbv":
            module["mass_balance"] = {"tolerance": 1e-5, "check": True, "fatal": False, "frequency": 1}
        if feeder is None:
            return {"name": "bmi_python", "params": module}
        both = {
            "name": "bmi_multi",
            "model_type_name": f"{feeder['model_type_name']}_{module['model_type_name']}",
            "init_config": "",
            "allow_exceed_end_time": True,
            "main_output_variable": module["main_output_variable"],
            "output_variables": [*module.pop("output_variables"), FED],
            "output_header_fields": [*module.pop("output_header_fields"), FED],
            "modules": [{"name": "bmi_python", "params": params} for params in (feeder, module)],
        }
        return {"name": "bmi_multi", "params": both}

    def module(
        self, kind: str, catchment: str, forcing: FrameworkForcing, *, fed: bool = False
    ) -> dict[str, Any]:
        """Return the parameters of one component; ``fed``: another module supplies potential evapotranspiration."""
        component = new_component(kind)
        component.initialize(str(self.configs(kind) / f"{catchment}.yml"))
        names = {
            variable.name: FED
            if fed and variable.symbol == FED
            else _source_of(variable.name, variable.symbol, variable.units, forcing)
            for variable in (component.variables[name] for name in component.get_input_var_names())
        }
        published = {component.variables[n].symbol: n for n in component.get_output_var_names()}
        if fed and FED not in names.values():
            raise ConfigurationError("--pet: these models take no potential evapotranspiration; leave it out")
        params: dict[str, Any] = {
            "name": "bmi_python",
            "python_type": f"bmi_components.{COMPONENTS[kind]}",
            "model_type_name": COMPONENTS[kind],
            "init_config": f"./config/cat_config/{kind}/{{{{id}}}}.yml",
            "allow_exceed_end_time": True,
            "main_output_variable": published[MAIN_OUTPUTS[kind]],
            "cache_input_variable_metadata": True,
            "variables_names_map": names,
        }
        if kind == "evapotranspiration":
            names[published[FED]] = FED
            return params
        outputs = [symbol for symbol in OUTPUTS[kind] if symbol in published]
        params["output_variables"] = [published[symbol] for symbol in outputs]
        params["output_header_fields"] = outputs
        return params

    def check(self, file: Path, divides: Mapping[str, Divide]) -> None:
        """Open the whole formulation as a run would, and stop at the first error."""
        realization = read_realization(file)
        formulation, forcing_params = realization.of(next(iter(divides)))
        names = tuple(divides)
        scratch = self.folder / "scratch"
        with (
            chdir(self.folder),
            open_forcing(forcing_params, names, realization.start, realization.last) as forcing,
        ):
            run = FormulationRun(formulation, names, divides, forcing, scratch)
            for finding in verify(run, realization):
                if finding.level == "error":
                    raise BmiComponentsError(finding.message)
                self.warnings.append(finding.message)
            run.finalize()
        shutil.rmtree(scratch, ignore_errors=True)

    def command(self, catchments: tuple[str, ...]) -> str:
        """Return how ngen is started."""
        fabric = self.request.hydrofabric.resolve()
        nexuses: Path | str = fabric
        if not is_geopackage(fabric):
            nexuses = next(iter(sorted(fabric.parent.glob("*nex*.geojson"))), "NEXUSES.geojson")
        chosen = "all" if self.request.catchments is None else ",".join(catchments)
        return f"cd {_shown(self.target)} && ngen {fabric} '{chosen}' {nexuses} 'all' realization.json"


def _shown(path: Path) -> Path:
    """Return a path as it is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _forcing_params(path: Path) -> ForcingParams:
    if not path.is_dir() and path.suffix.lower() == ".csv":
        raise ConfigurationError(f"--forcing {path}: give the folder of the csv files, one per catchment")
    return ForcingParams(
        path=str(path),
        provider=CSV if path.is_dir() else NETCDF,
        file_pattern=FILE_PATTERN if path.is_dir() else None,
        place="--forcing",
    )


def _declare_in_csv(source: Path, target: Path, units: str) -> None:
    """Copy a csv file with the unit of precip_rate in its header."""
    with open(source, encoding="utf-8") as file, open(target, "w", encoding="utf-8") as out:
        header = file.readline()
        out.write(re.sub(r"\bprecip_rate\b", f"precip_rate ({units})", header, count=1))
        shutil.copyfileobj(file, out)


def _catchment_text(divide: Divide, attributes: Mapping[str, float]) -> str:
    """Return what is a catchment's own in its configuration, JSON as YAML."""
    lines = ["catchments:", f"  - id: {json.dumps(divide.id)}", f"    area_km2: {divide.area_km2!r}"]
    if divide.latitude is not None and divide.longitude is not None:
        lines += [f"    latitude: {divide.latitude!r}", f"    longitude: {divide.longitude!r}"]
    lines.append("    attributes:" if attributes else "    attributes: {}")
    lines += [f"      {json.dumps(name)}: {value!r}" for name, value in attributes.items()]
    return "\n".join(lines) + "\n"


def _tower_text(divide: Divide, known: Known) -> str:
    """Return what is a catchment's own for FluxLSTM: its days begin at its midnight."""
    offset = known.number(divide.id, "utc_offset")
    if not math.isfinite(offset):
        if divide.longitude is None:
            raise known.lack(divide.id, ["utc_offset [h], and the hydrofabric does not know its longitude"])
        offset = float(round(divide.longitude / 15.0))
    lines = [f"utc_offset: {offset!r}", "towers:", f"  - id: {json.dumps(divide.id)}"]
    if divide.latitude is not None and divide.longitude is not None:
        lines += [f"    latitude: {divide.latitude!r}", f"    longitude: {divide.longitude!r}"]
    return "\n".join(lines) + "\n"


def _source_of(name: str, symbol: str, units: str, forcing: FrameworkForcing) -> str:
    """Return the column of the forcing that supplies an input, in units that convert.

    Raises
    ------
    UnitsError
        If the only column there is does not convert.
    ForcingError
        If there is none.
    """
    candidates = [column for known in NAMES if known.symbol == symbol for column in known.columns]
    present = [column for column in (*candidates, name, symbol) if column in forcing.table.units]
    for column in present:
        if convertible(forcing.units(column), units):
            return column
    if present:
        column = present[0]
        raise UnitsError(
            f"{forcing.table.source}: {column} is in {forcing.units(column)!r}, and the model takes {symbol} in "
            f"{units!r}; ngen converts by UDUNITS-2 alone, so the forcing needs it in units of that kind"
        )
    advice = "; NextGen's forcing has none: "
    advice += "let another component supply it (--pet oudin), or " if symbol == FED else ""
    advice += "add a column of that name, with its unit in the header (csv)"
    raise ForcingError(
        f"{forcing.table.source}: the model takes {symbol} [{units}], and there is no column "
        f"{' or '.join(dict.fromkeys((*candidates, symbol)))}{'' if candidates else advice}"
    )


def _date(text: str) -> np.datetime64:
    try:
        return np.datetime64(parse_time(text), "s")
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
