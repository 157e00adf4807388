"""An ensemble as one batched instance: members with perturbed forcing and parameters, stepped together."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import xarray
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.catchments import read_catchments
from bmi_components.component import Component
from bmi_components.errors import ConfigurationError, UnknownNameError, ValueShapeError
from bmi_components.variables import Variable

__all__ = ["Ensemble", "Perturbation"]

Array = NDArray[np.float64]

BLOCK = 256
"""Steps whose forcing is perturbed at once."""


@dataclass(frozen=True)
class Perturbation:
    """How a quantity differs from member to member.

    What comes out is kept within the quantity's valid range (precipitation stays at 0 or above, a parameter in its
    bounds).

    Attributes
    ----------
    spread
        Standard deviation: in units of the quantity where it is added, of the logarithm where it multiplies.
    kind
        "multiply": by a log-normal factor of mean 1; "add": a normal amount of mean 0.
    memory
        Of forcing: time over which the noise forgets itself, s (first-order autoregression); 0: each step is drawn
        anew; infinity: one draw for the whole run.
    everywhere_alike
        Whether the catchments of a member share their noise.
    about
        Of a parameter: the value to perturb; None: the one that it has.
    """

    spread: float
    kind: Literal["multiply", "add"] = "multiply"
    memory: float = 0.0
    everywhere_alike: bool = False
    about: float | None = None

    def __post_init__(self) -> None:
        if not (self.spread >= 0.0 and self.memory >= 0.0 and self.kind in ("multiply", "add")):
            raise ConfigurationError(
                f"{self}: spread and memory must not be negative, and kind be 'multiply' or 'add'"
            )

    def apply(self, values: Array, noise: Array, variable: Variable) -> Array:
        """Return the perturbed values; ``noise`` is standard normal."""
        if self.kind == "multiply":
            changed = values * np.exp(self.spread * noise - 0.5 * self.spread**2)
        else:
            changed = values + self.spread * noise
        return changed if variable.valid_range is None else np.clip(changed, *variable.valid_range)


class Ensemble:
    """``members`` copies of a configuration with n catchments as one component with members x n.

    A member's noise depends on the seed, its number and the name of the quantity, and on nothing else: member 3 is the
    same of 5 and of 500, and the same if the run is cut and resumed.

    Parameters
    ----------
    component
        Class of the component.
    config
        Its configuration file.
    members
        How many.
    perturbations
        By symbol or name: of inputs, and of parameters or attributes, which are drawn once.
    seed
        Of the noise.
    elements
        Key of the configuration that lists the catchments, if it is neither ``catchments`` (or
        ``catchments_file``) nor ``towers`` or ``sites``.

    Attributes
    ----------
    component
        The batched instance: element ``member * n + catchment``. It can be coupled, saved and restored like any other.
    parameters
        The perturbed ones as they were set, ``[member, catchment]``.
    members, catchments
        How many.

    Raises
    ------
    ConfigurationError
        If the configuration is wrong, or does not say what is to be repeated.
    UnknownNameError
        If there is no such input or parameter.
    """

    def __init__(
        self,
        component: type[Component],
        config: str | Path,
        members: int,
        perturbations: Mapping[str, Perturbation],
        *,
        seed: int = 0,
        elements: str | None = None,
    ) -> None:
        if members < 1:
            raise ConfigurationError(f"an ensemble has at least one member, not {members}")
        self.members, self._seed = members, seed
        self.component = _repeating(component, members, elements)()
        self.component.initialize(str(config))
        names = self.component.get_input_var_names()
        self._inputs = {name: self.component.variables[name] for name in names}
        size = self.component.get_var_nbytes(names[0]) // self.component.get_var_itemsize(names[0])
        self.catchments = size // members
        self._forcing: dict[str, Perturbation] = {}
        self.parameters: dict[str, Array] = {}
        for name, perturbation in perturbations.items():
            known = [n for n, v in self._inputs.items() if name in (n, v.symbol)]
            if known:
                self._forcing[known[0]] = perturbation
            else:
                self.parameters[name] = self._perturb_parameter(name, perturbation)
        self._noise: dict[str, list[_Noise]] = {}
        self._drawn = 0

    def _perturb_parameter(self, name: str, perturbation: Perturbation) -> Array:
        parameters = self.component.settable_parameters()
        if name not in parameters:
            raise UnknownNameError(
                f"there is no input or parameter {name!r}; there are "
                f"{', '.join([v.symbol for v in self._inputs.values()] + list(parameters))}"
            )
        variable = parameters[name]
        values = np.array(self.component.get_value_ptr(name)).reshape(self.members, self.catchments)
        if perturbation.about is not None:
            values[:] = perturbation.about
        low, high = variable.valid_range or (-np.inf, np.inf)
        if not bool(((values >= low) & (values <= high)).all()):
            raise ConfigurationError(
                f"{name} has no value of its own between {low:g} and {high:g} to perturb; say one as 'about'"
            )
        noise = np.stack([self._noise_of(name, perturbation, k).draw(1)[0] for k in range(self.members)])
        changed = perturbation.apply(values, noise, variable)
        self.component.set_value(name, changed.reshape(-1))
        return changed

    def _noise_of(self, name: str, perturbation: Perturbation, member: int) -> _Noise:
        step = self.component.get_time_step()
        return _Noise([self._seed, member, zlib.crc32(name.encode())], perturbation, step, self.catchments)

    def perturbed(self, forcing: Mapping[str, Any]) -> dict[str, Array]:
        """Return the members' forcing of the component's coming steps.

        Parameters
        ----------
        forcing
            Some or all inputs by symbol or name, ``[step, catchment]`` or ``[step]``, the same for all members.

        Returns
        -------
        dict
            By name, ``[step, member, catchment]``.

        Raises
        ------
        UnknownNameError
            If there is no such input.
        ValueShapeError
            If the arrays are not of one length, or not of the configured catchments.
        """
        return self._perturbed(self._read(forcing))

    def _perturbed(self, series: Mapping[str, Array]) -> dict[str, Array]:
        steps = len(next(iter(series.values())))
        first = round(self.component.get_current_time() / self.component.get_time_step())
        if not self._noise or first < self._drawn:
            self._noise = {
                name: [self._noise_of(self._inputs[name].symbol, p, k) for k in range(self.members)]
                for name, p in self._forcing.items()
            }
            self._drawn = 0
        noise = {}
        for name, generators in self._noise.items():
            for generator in generators:
                generator.draw(first - self._drawn)  # steps that were taken without it
            noise[name] = np.stack([generator.draw(steps) for generator in generators], axis=1)
        self._drawn = first + steps
        shape = (steps, self.members, self.catchments)
        return {
            name: self._forcing[name].apply(values[:, None], noise[name], self._inputs[name])
            if name in noise
            else np.broadcast_to(values[:, None], shape)
            for name, values in series.items()
        }

    def _read(self, forcing: Mapping[str, Any]) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for given, values in forcing.items():
            known = [name for name, v in self._inputs.items() if given in (name, v.symbol)]
            if not known:
                symbols = ", ".join(v.symbol for v in self._inputs.values())
                raise UnknownNameError(f"the component has no input {given!r}; its inputs are {symbols}")
            table = np.asarray(values, np.float64)
            table = table.reshape(len(table), -1)
            if table.shape[1] != self.catchments:
                raise ValueShapeError(
                    f"the forcing {given!r} has {table.shape[1]} columns; {self.catchments} are needed"
                )
            found[known[0]] = table
        lengths = {
            given: len(found_values) for given, found_values in zip(forcing, found.values(), strict=True)
        }
        if len(set(lengths.values())) != 1:
            raise ValueShapeError(f"the forcing must be arrays of one length, not of {lengths}")
        return found

    def run(
        self, forcing: Mapping[str, Any], record: Iterable[str], *, progress: bool = True
    ) -> xarray.Dataset:
        """Step all members through forcing.

        Parameters
        ----------
        forcing
            The inputs by symbol or name, ``[step, catchment]`` or ``[step]``, unperturbed.
        record
            Outputs to keep, by symbol or name.
        progress
            Show a progress bar.

        Returns
        -------
        xarray.Dataset
            Each output by symbol, ``[member, time, catchment]``; the time is the end of the step, s.

        Raises
        ------
        UnknownNameError, ValueShapeError
            As `perturbed`, or if there is no such output.
        ForcingError
            If a value is missing or impossible; the steps before it have been taken.
        """
        component = self.component
        series = self._read(forcing)
        outputs = [self._output(name) for name in record]
        steps = len(next(iter(series.values())))
        kept = {v.symbol: np.empty((steps, self.members, self.catchments)) for v in outputs}
        times = np.empty(steps)
        with tqdm(total=steps, unit=" steps", disable=not progress) as bar:
            for begin in range(0, steps, BLOCK):
                block = self._perturbed({name: v[begin : begin + BLOCK] for name, v in series.items()})
                for row in range(min(BLOCK, steps - begin)):
                    for name, values in block.items():
                        component.set_value(name, np.ascontiguousarray(values[row]).reshape(-1))
                    component.update()
                    times[begin + row] = component.get_current_time()
                    for v in outputs:
                        component.get_value(v.name, kept[v.symbol][begin + row].reshape(-1))
                    bar.update()
        return xarray.Dataset(
            {
                v.symbol: (
                    ("member", "time", "catchment"),
                    kept[v.symbol].transpose(1, 0, 2),
                    {"units": v.units, "standard_name": v.name},
                )
                for v in outputs
            },
            coords={"time": ("time", times, {"units": "s"})},
        )

    def _output(self, name: str) -> Variable:
        outputs = [self.component.variables[n] for n in self.component.get_output_var_names()]
        on_catchments = [v for v in outputs if v.grid == "catchment"]
        for v in on_catchments:
            if name in (v.name, v.symbol):
                return v
        raise UnknownNameError(
            f"the component has no output {name!r}; it has {', '.join(v.symbol for v in on_catchments)}"
        )


class _Noise:
    """Standard normal noise of one member: first-order autoregression, ``[step, catchment]``."""

    def __init__(
        self, seed: list[int], perturbation: Perturbation, time_step: float, catchments: int
    ) -> None:
        self._generator = np.random.default_rng(seed)
        memory = perturbation.memory
        self._kept = float(np.exp(-time_step / memory)) if memory > 0.0 else 0.0
        self._width = 1 if perturbation.everywhere_alike else catchments
        self._catchments = catchments
        self._last: Array | None = None

    def draw(self, steps: int) -> Array:
        """Return the noise of the next steps."""
        rows = np.empty((steps, self._width))
        fresh = self._generator.standard_normal((steps, self._width))
        for row, new in zip(rows, fresh, strict=True):
            if self._last is None:
                self._last = new
            else:
                self._last = self._kept * self._last + np.sqrt(1.0 - self._kept**2) * new
            row[:] = self._last
        return np.broadcast_to(rows, (steps, self._catchments))


def _repeating(component: type[Component], members: int, elements: str | None) -> type[Component]:
    """Return the component with every catchment as often as there are members."""

    def read_settings(self: Component, path: Path) -> Any:
        return _repeated(component.read_settings(self, path), members, elements, path)

    # Of the same name, so that states fit a component with as many catchments.
    return type(
        component.__name__, (component,), {"read_settings": read_settings, "__doc__": component.__doc__}
    )


def _repeated(settings: Any, members: int, elements: str | None, path: Path) -> Any:
    """Return settings that list every catchment once per member, all of the first member first."""
    changes: dict[str, Any] = {}
    keys = [elements] if elements else ["catchments", "towers", "sites"]
    key = next((key for key in keys if hasattr(settings, key)), None)
    if key is None:
        raise ConfigurationError(
            f"{path}: it has no key {' or '.join(keys)} to repeat; say as 'elements' which key lists the catchments"
        )
    listed = getattr(settings, key)
    if key == "catchments" and getattr(settings, "catchments_file", None) is not None:
        listed = read_catchments(listed, settings.catchments_file)
        changes["catchments_file"] = None
    if not isinstance(listed, (list, tuple)) or not listed:
        raise ConfigurationError(
            f"{path}: {key} is {listed!r}; to repeat it a list is needed, in the file itself"
        )
    changes[key] = type(listed)(_named(entry, k) for k in range(members) for entry in listed)
    return msgspec.structs.replace(settings, **changes)


def _named(entry: Any, member: int) -> Any:
    """Return an entry with an identifier of its own, that still finds its records."""
    if not hasattr(entry, "id"):
        return entry
    changes = {"id": f"{entry.id} member {member}"}
    if hasattr(entry, "record_id"):
        changes["record_id"] = entry.record_id or entry.id
    return msgspec.structs.replace(entry, **changes)
