"""A formulation stepped over some catchments: who feeds whom, and what its csv files and nexuses get."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, UnitsError
from bmi_components.nextgen.forcing import FrameworkForcing
from bmi_components.nextgen.hydrofabric import Divide
from bmi_components.nextgen.kinds import hint_about
from bmi_components.nextgen.modules import BalanceCheck, Module, open_module
from bmi_components.nextgen.realization import STEP, Formulation
from bmi_components.units import Conversion, converter, convertible

__all__ = ["Column", "FormulationRun", "to_metres"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Feed:
    """What an input of a module gets: a column of the forcing, or an output of a module (by number)."""

    name: str
    column: str | None
    module: int
    output: str
    convert: Conversion
    initial: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of the csv files: its header, the units of its numbers, and where they come from."""

    header: str
    units: str
    forcing: str | None
    module: int
    output: str


def to_metres(units: str) -> Conversion | None:
    """Return the conversion of a main output to metres per step of an hour; None if ngen would get it wrong.

    A depth per update converts. A rate per hour, which ngen takes unconverted for a depth, is right by its number where
    it is in metres.
    """
    if convertible(units, "m"):
        return converter(units, "m")
    if convertible(f"({units}) ({STEP} s)", "m"):
        per_step = converter(f"({units}) ({STEP} s)", "m")
        return Conversion(1.0, 0.0) if abs(per_step.scale - 1.0) < 1e-12 else None
    return None


class FormulationRun:
    """The modules of a formulation for some catchments, connected.

    Parameters
    ----------
    formulation
        What the realization says.
    catchments, divides
        Which catchments, and what the hydrofabric knows of them.
    forcing
        Their forcing.
    scratch
        Folder for joint configurations.
    batch
        Whether one object may compute many catchments.

    Raises
    ------
    BmiComponentsError
        If a module cannot be opened, an input is not supplied or not in units that convert, or an output is not there.
    """

    def __init__(
        self,
        formulation: Formulation,
        catchments: Sequence[str],
        divides: Mapping[str, Divide],
        forcing: FrameworkForcing,
        scratch: Path,
        *,
        batch: bool = True,
    ) -> None:
        self.formulation = formulation
        self.catchments = tuple(catchments)
        self.forcing = forcing
        self.notes: list[str] = []
        self.modules = [
            open_module(params, catchments, divides, scratch / str(number), batch=batch)
            for number, params in enumerate(formulation.modules)
        ]
        self._providers = self._collect_outputs()
        self.feeds = [self._connect(number) for number in range(len(self.modules))]
        self._main = self._find(
            formulation.main_output_variable, f"{formulation.place}.main_output_variable", aliases=True
        )
        self.columns = self._columns()
        self.balances = self._balances()
        self._metres = to_metres(self.main_units)

    # ---------------------------------------------------------------- who feeds whom

    def _collect_outputs(self) -> dict[str, tuple[int, str]]:
        """Return module and output by the framework's name; names must be unique."""
        found: dict[str, tuple[int, str]] = {}
        for number, module in enumerate(self.modules):
            for name in module.outputs:
                alias = module.params.alias(name)
                if alias in found:
                    raise ConfigurationError(
                        f"{module.params.place}: the output {alias!r} is also one of an earlier module, which ngen "
                        "does not accept; give one of them another name in variables_names_map"
                    )
                if self.formulation.multi and self.forcing.column(alias) is not None:
                    raise ConfigurationError(
                        f"{module.params.place}: the output {alias!r} is called like a forcing, which ngen does not "
                        "accept; give it another name in variables_names_map"
                    )
                found[alias] = (number, name)
        return found

    def _connect(self, number: int) -> list[Feed]:
        """Find what supplies the inputs of a module: forcing first, then the modules' outputs."""
        module = self.modules[number]
        feeds = []
        for name in module.inputs:
            alias = module.params.alias(name)
            column = self.forcing.column(alias)
            source, output = (-1, "") if column is not None else self._providers.get(alias, (-1, ""))
            if column is None and (not output or (source == number and not self.formulation.multi)):
                raise ConfigurationError(
                    f"{module.params.place}: nothing supplies the input {name!r}"
                    + (f" (mapped to {alias!r})" if alias != name else "")
                    + f"; the forcing has {', '.join(self.forcing.table.units)}"
                    + (f", modules give {', '.join(self._providers)}" if self.formulation.multi else "")
                    + "; map it in variables_names_map"
                    + hint_about(module.params.python_type)
                )
            units = self.modules[source].units[output] if column is None else self.forcing.units(column)
            initial = self.formulation.default_output_values.get(alias) if source >= number else None
            convert = self._conversion(units, module.units[name], name, alias, module)
            feeds.append(Feed(name, column, source, output, convert, initial))
        return feeds

    def _conversion(self, units: str, wanted: str, name: str, alias: str, module: Module) -> Conversion:
        if wanted in ("", "none", "unitless", "dimensionless", "-"):
            return Conversion(1.0, 0.0)  # as ngen has it: no conversion wanted
        given = "1" if units in ("", "none", "unitless", "dimensionless", "-") else units
        try:
            return converter(given, wanted)
        except UnitsError as error:
            hint = ""
            if convertible(given, "kg m-2") or convertible(given, "kg m-2 s-1"):
                hint = "; to ngen mass per area is no depth: map precipitation to precip_rate"
            raise UnitsError(
                f"{module.params.place}: {alias!r} is in {units!r} and the input {name!r} in {wanted!r}; ngen would "
                f"pass the number unconverted ({error}){hint}"
            ) from None

    def _find(self, name: str, where: str, *, aliases: bool) -> tuple[int, str]:
        """Return module and output of a framework's (or module's own) name, later modules first."""
        if name in self._providers:
            return self._providers[name]
        for number in reversed(range(len(self.modules))):
            if aliases and name in self.modules[number].outputs:
                return number, name
        raise ConfigurationError(
            f"{where}: {name!r} is no output; there are {', '.join(dict.fromkeys(self._providers))}"
        )

    def _columns(self) -> list[Column]:
        """Return the columns of the csv files; by default the outputs of the last module."""
        formulation = self.formulation
        names, headers = formulation.output_variables, formulation.output_header_fields
        found: list[tuple[str | None, int, str]]
        last = len(self.modules) - 1
        if names is None and formulation.multi:
            params = self.modules[last].params
            names = params.output_variables or self.modules[last].outputs
            headers = params.output_header_fields
            found = [(None, *self._find(name, params.place, aliases=True)) for name in names]
        elif names is None:
            names = self.modules[0].outputs
            found = [(None, 0, name) for name in names]
        else:
            found = []
            where = f"{formulation.place}.output_variables"
            for name in names:
                column = self.forcing.column(name) if formulation.multi else None
                if column is not None and name not in self._providers:
                    found.append((column, -1, ""))
                    self.notes.append(
                        f"{where}: {name} is forcing, which ngen writes one step ahead of the time beside it"
                    )
                else:
                    found.append((None, *self._find(name, where, aliases=not formulation.multi)))
        if headers is None or len(headers) != len(names):
            headers = names
        return [
            Column(
                header,
                self.forcing.units(column) if column else self.modules[number].units[output],
                column,
                number,
                output,
            )
            for header, (column, number, output) in zip(headers, found, strict=True)
        ]

    def _balances(self) -> list[BalanceCheck]:
        checks = []
        for module in self.modules:
            if module.params.mass_balance is None:
                continue
            if module.keeps_balance:
                checks.append(BalanceCheck(module, module.params.mass_balance, self.catchments))
            else:
                self.notes.append(
                    f"{module.params.place}.mass_balance: {module.params.python_type} keeps no mass balance with this "
                    "model, so ngen checks nothing; take the block out"
                )
        return checks

    @property
    def main_units(self) -> str:
        """Units of the main output."""
        number, name = self._main
        return self.modules[number].units[name]

    # ---------------------------------------------------------------- stepping

    def step(self, row: int, weather: Mapping[str, Array], step: int) -> None:
        """Step every module by an hour.

        Parameters
        ----------
        row
            Of ``weather``.
        weather
            ``[row, catchment]`` by column, in the file's units.
        step
            Number of the step in the realization.
        """
        when = self.stamp(step)
        for number, module in enumerate(self.modules):
            inputs = {}
            for feed in self.feeds[number]:
                if feed.column is not None:
                    values = weather[feed.column][row]
                elif step == 0 and feed.initial is not None:
                    values = np.full(module.size, feed.initial)
                else:
                    values = self.modules[feed.module].values[feed.output]
                inputs[feed.name] = feed.convert(values)
            module.step(inputs, when)
        for balance in self.balances:
            balance.after(step, when)

    def stamp(self, step: int) -> str:
        """Return the time of a step as ngen writes it."""
        time = self.forcing.table.time[self.forcing.first] + np.timedelta64(step * STEP, "s")
        return str(time.astype("datetime64[s]")).replace("T", " ")

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns of the forcing that feed anything."""
        names = [feed.column for feeds in self.feeds for feed in feeds if feed.column is not None]
        return tuple(dict.fromkeys(names))

    @property
    def depth(self) -> Array | None:
        """Main output of the latest step as ngen takes it, m, ``[catchment]``; None if it is no depth of water."""
        number, name = self._main
        return None if self._metres is None else self._metres(self.modules[number].values[name])

    @property
    def can_be_saved(self) -> bool:
        """Whether a run can go on from saved states."""
        return all(module.can_be_saved for module in self.modules)

    def save(self, folder: Path) -> None:
        """Save all states to a folder."""
        for number, module in enumerate(self.modules):
            inner = folder / str(number)
            inner.mkdir(parents=True)
            module.save(inner)
        counts = [(balance.violations, balance.first) for balance in self.balances]
        (folder / "balances.json").write_text(json.dumps(counts), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Go on from a folder of states."""
        for number, module in enumerate(self.modules):
            module.load(folder / str(number))
        counts = json.loads((folder / "balances.json").read_text(encoding="utf-8"))
        for balance, (violations, first) in zip(self.balances, counts, strict=True):
            balance.violations, balance.first = violations, first

    def finalize(self) -> None:
        """End all modules."""
        for module in self.modules:
            module.finalize()
