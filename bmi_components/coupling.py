"""Coupling in one process: components of different steps, units and grids, stepped in order and linked by variables."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import bmipy
import numpy as np
import xarray
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.buffers import numbers
from bmi_components.errors import ConfigurationError, TimeError, UnitsError, UnknownNameError, ValueShapeError
from bmi_components.snapshot import Snapshot
from bmi_components.units import Conversion, converter

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Coupling", "Feed", "Link", "Plan", "PlannedLink", "couple"]

Array = NDArray[np.float64]
How = Literal["mean", "sum", "latest"]
Feed = Callable[[float], Any]
"""Gives the values of an input for the step that begins at a time, s since the start."""

ROUNDING = 1e-6
"""Seconds by which the clocks of components may differ and still mean the same time."""


@dataclass(frozen=True)
class Link:
    """A variable of one component that feeds an input of another.

    Attributes
    ----------
    source, target
        ``component:variable``; the variable by its name or, of a component of this package, by its symbol.
    how
        What the target's step gets of the source's steps within it: their "mean" (by time; rates and states), their
        "sum" (amounts per step, such as runoff depth in m), or the "latest" value.
    weights
        Map between grids, ``[target element, source element]``; None: the same number of elements, or one for all.
    """

    source: str
    target: str
    how: How = "mean"
    weights: NDArray[Any] | None = None

    @classmethod
    def of(cls, link: Link | str) -> Link:
        """Read ``source:variable -> target:variable``.

        Raises
        ------
        ConfigurationError
            If it is not of that form.
        """
        if isinstance(link, Link):
            return link
        source, arrow, target = (part.strip() for part in link.partition("->"))
        if not (source and arrow and target):
            raise ConfigurationError(f"a link is written 'component:output -> component:input', not {link!r}")
        return cls(source, target)


@dataclass
class _Bound:
    """A link between two components that exist."""

    source: str
    output: str
    target: str
    input: str
    how: How
    convert: Conversion
    weights: NDArray[Any] | None
    segments: list[tuple[float, float, Any]] = field(default_factory=list)
    """When, from and to, the source gave what."""

    def shares(self, begin: float, end: float) -> list[tuple[Any, float]]:
        """Return what the target's step takes: values of the source's steps, each with its factor; none, nothing."""
        self.segments = [s for s in self.segments if s[1] > begin + ROUNDING] or self.segments[-1:]
        parts = [
            (values, min(end, last) - max(begin, first), last - first)
            for first, last, values in self.segments
            if min(end, last) - max(begin, first) > ROUNDING
        ]
        if self.how == "latest" or not parts:  # also where the source is behind: what it said last
            return [(values, 1.0) for _, _, values in self.segments[-1:]]
        if self.how == "sum":
            return [(values, within / length) for values, within, length in parts]
        covered = sum(within for _, within, _ in parts)
        return [(values, within / covered) for values, within, _ in parts]

    def values(self, begin: float, end: float) -> Any:
        """Return what the target's step gets, in its units, on its grid; None if the source never gave anything."""
        shares = self.shares(begin, end)
        return self.delivered(sum(values * factor for values, factor in shares)) if shares else None

    def delivered(self, values: Any) -> Any:
        """Return what the source gave in the target's units and on its grid."""
        values = self.convert(values)
        return values if self.weights is None else self.weights @ np.asarray(_host(values))


@dataclass(frozen=True)
class PlannedLink:
    """What a link will carry.

    Attributes
    ----------
    bound
        The link.
    past
        What the source has given already, oldest first, ``[element]`` each.
    shares
        For each step of the target the rows that it takes, each with its factor: row 0 is the oldest of ``past``, the
        source's coming steps follow.
    """

    bound: _Bound
    past: Sequence[Any]
    shares: Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class Plan:
    """The steps up to a time: when those of each component begin, s, and what the links will carry."""

    begins: Mapping[str, Sequence[float]]
    links: Sequence[PlannedLink]


def couple(
    components: Mapping[str, bmipy.Bmi],
    links: Iterable[Link | str] = (),
    feeds: Mapping[str, Feed | NDArray[Any]] | None = None,
) -> Coupling:
    """Link initialized components into one model.

    Parameters
    ----------
    components
        By name, in the order in which they are stepped. A link from an earlier to a later component carries the values
        of the same time; one from a later to an earlier component those of the time before.
    links
        `Link`s, or texts ``a:output -> b:input``.
    feeds
        Values of inputs from outside, by ``component:variable``: a function of the time, or an array
        ``[step, element]`` with a row for each step of the component.

    Raises
    ------
    ConfigurationError
        If a component is not there or not initialized, an input is fed twice, or a variable is no output or input.
    UnitsError
        If the units of a link do not convert.
    ValueShapeError
        If the grids of a link differ and nothing says how one becomes the other.
    """
    return Coupling(components, [Link.of(link) for link in links], feeds or {})


class Coupling:
    """Linked components; made by `couple`.

    Attributes
    ----------
    components
        By name, in order.
    """

    def __init__(
        self,
        components: Mapping[str, bmipy.Bmi],
        links: Sequence[Link],
        feeds: Mapping[str, Feed | NDArray[Any]],
    ) -> None:
        self.components = dict(components)
        self._order = {name: position for position, name in enumerate(components)}
        self._seconds = {name: converter(c.get_time_units(), "s").scale for name, c in components.items()}
        self._links = [self._bind(link) for link in links]
        self._timetable: tuple[Any, dict[str, list[float]], list[list[list[tuple[int, float]]]]] | None = None
        self._feeds: dict[str, list[tuple[str, Feed]]] = {name: [] for name in components}
        for where, feed in feeds.items():
            name, variable = self.find(where, "input")
            self._feeds[name].append((variable, feed if callable(feed) else self._rows(name, variable, feed)))
        fed = [(link.target, link.input) for link in self._links]
        fed += [(name, variable) for name, found in self._feeds.items() for variable, _ in found]
        for name, variable in fed:
            if fed.count((name, variable)) > 1:
                raise ConfigurationError(f"the input {name}:{variable} is fed more than once")

    # Binding --------------------------------------------------------------------------------------

    def find(self, where: str, kind: Literal["input", "output"]) -> tuple[str, str]:
        """Return component and variable of ``component:variable``.

        Raises
        ------
        ConfigurationError
            If there is no such component.
        UnknownNameError
            If the component has no such input or output.
        """
        name, colon, variable = where.partition(":")
        if not colon or name not in self.components:
            raise ConfigurationError(
                f"{where!r} is not written 'component:variable' with one of the components {', '.join(self.components)}"
            )
        component = self.components[name]
        names = component.get_input_var_names() if kind == "input" else component.get_output_var_names()
        if variable in names:
            return name, variable
        known = getattr(component, "variables", {})
        for candidate in names:
            if candidate in known and known[candidate].symbol == variable:
                return name, candidate
        raise UnknownNameError(f"{name} has no {kind} {variable!r}; its {kind}s are {', '.join(names)}")

    def _bind(self, link: Link) -> _Bound:
        source, output = self.find(link.source, "output")
        target, given = self.find(link.target, "input")
        giver, taker = self.components[source], self.components[target]
        try:
            convert = converter(giver.get_var_units(output), taker.get_var_units(given))
        except UnitsError as error:
            raise UnitsError(f"{link.source} -> {link.target}: {error}") from error
        here, there = _size(giver, output), _size(taker, given)
        weights = link.weights
        if weights is None and here == 1 and there > 1:
            weights = np.ones((there, 1))
        if weights is not None and weights.shape != (there, here):
            raise ValueShapeError(
                f"{link.source} -> {link.target}: weights have shape {weights.shape}; ({there}, {here}) is needed"
            )
        if weights is None and here != there:
            raise ValueShapeError(
                f"{link.source} has {here} elements and {link.target} {there}; give weights [{there}, {here}]"
            )
        return _Bound(source, output, target, given, link.how, convert, weights)

    def _rows(self, name: str, variable: str, rows: Any) -> Feed:
        """Return a feed from an array with a row for each step."""
        table = np.asarray(rows, np.float64)
        size = _size(self.components[name], variable)
        table = table.reshape(len(table), -1)
        if table.shape[1] != size:
            raise ValueShapeError(
                f"the feed of {name}:{variable} has {table.shape[1]} columns; {size} are needed"
            )
        step = self._step(name)
        begin = self._time(name)

        def feed(time: float) -> Array:
            row = round((time - begin) / step)
            if not 0 <= row < len(table):
                raise TimeError(
                    f"the feed of {name}:{variable} ends after {len(table)} steps, before {time:g} s"
                )
            values: Array = table[row]
            return values

        return feed

    # Time -----------------------------------------------------------------------------------------

    def _time(self, name: str) -> float:
        return self.components[name].get_current_time() * self._seconds[name]

    def _step(self, name: str) -> float:
        return self.components[name].get_time_step() * self._seconds[name]

    @property
    def time(self) -> float:
        """Time that every component has reached, s."""
        return min(self._times().values())

    # Running --------------------------------------------------------------------------------------

    def advance(self, name: str) -> None:
        """Step one component with what its links and feeds say."""
        component, begin = self.components[name], self._time(name)
        end = begin + self._step(name)
        for link in self._links:
            if link.target == name:
                values = link.values(begin, end)
                if values is None:  # a source that comes later and has not been stepped yet
                    values = link.delivered(_get(self.components[link.source], link.output))
                _set(component, link.input, values)
        for variable, feed in self._feeds[name]:
            _set(component, variable, numbers(feed(begin), f"{name}:{variable}").astype(np.float64))
        component.update()
        for link in self._links:
            if link.source == name:
                link.segments.append((begin, end, _get(component, link.output)))

    def _next(self, until: float, times: Mapping[str, float]) -> str | None:
        """Return who is to step next: the one furthest behind of those that have what they need."""
        best: str | None = None
        earliest = np.inf
        for name, position in self._order.items():
            begin = times[name]
            end = begin + self._step(name)
            if end > until + ROUNDING or begin >= earliest - ROUNDING:
                continue
            waits = any(
                link.target == name
                and self._order[link.source] < position
                and times[link.source] < end - ROUNDING
                and times[link.source] + self._step(link.source) <= until + ROUNDING
                for link in self._links
            )
            if not waits:
                best, earliest = name, begin
        return best

    def _times(self) -> dict[str, float]:
        return {name: self._time(name) for name in self.components}

    def run(self, until: float, record: Iterable[str] = (), *, progress: bool = True) -> xarray.Dataset:
        """Step all components up to a time.

        Parameters
        ----------
        until
            Seconds since the start; a component whose step would pass it stops before it.
        record
            Outputs to keep, ``component:variable``.
        progress
            Show a progress bar.

        Returns
        -------
        xarray.Dataset
            A variable ``component.symbol`` (or its name) for each output kept, ``[time of the component, element]``;
            the time is the end of the step, s.
        """
        wanted: dict[str, list[str]] = {name: [] for name in self.components}
        for where in record:
            name, variable = self.find(where, "output")
            wanted[name].append(variable)
        times: dict[str, list[float]] = {name: [] for name in self.components}
        kept: dict[tuple[str, str], list[Array]] = {(n, v): [] for n, found in wanted.items() for v in found}
        begin = self.time
        with tqdm(total=round(until - begin), unit="s", unit_scale=True, disable=not progress) as bar:
            while (following := self._next(until, self._times())) is not None:
                name = following
                self.advance(name)
                times[name].append(self._time(name))
                for variable in wanted[name]:
                    kept[name, variable].append(_host(_get(self.components[name], variable)))
                bar.update(round(self.time - begin) - bar.n)
        return self._dataset(times, kept)

    # States ---------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Save all that the components and links remember to one file, all or nothing.

        Raises
        ------
        StateError
            If a component is not one of this package's and cannot be saved.
        """
        from bmi_components.coupling_state import snapshot_of

        snapshot_of(self).save(path)

    def restore(self, path: str | Path, *, warm_start: bool = False) -> None:
        """Continue bit for bit from a file that `save` wrote, in a coupling of the same components and links.

        The clocks go on from where they stood, so that feeds and `run` mean the same times as before. With
        ``warm_start`` the state begins another period: the moment of saving (`time` then) becomes the time now, and
        a component that was ahead of it stays as far ahead.

        Raises
        ------
        StateError
            If the file is absent, damaged or of another coupling; nothing has changed.
        """
        from bmi_components.coupling_state import restore_coupling

        restore_coupling(self, Snapshot.load(path), str(path), warm_start)

    @property
    def identity(self) -> str:
        """Which components and links these are, in words."""
        members = [f"{name}: {type(component).__name__}" for name, component in self.components.items()]
        links = [f"{x.source}:{x.output} -> {x.target}:{x.input} ({x.how})" for x in self._links]
        return "; ".join([*members, *links])

    def under_way(self) -> list[list[tuple[float, float, Array]]]:
        """Return for each link when, from and to, its source gave what that may still be needed."""
        return [[(first, last, _host(values)) for first, last, values in x.segments] for x in self._links]

    def put_under_way(self, segments: Sequence[Sequence[tuple[float, float, Any]]]) -> None:
        """Take `under_way` back."""
        for link, kept in zip(self._links, segments, strict=True):
            example = _get(self.components[link.source], link.output)
            link.segments = [(first, last, _like(example, values)) for first, last, values in kept]

    # Gradients ------------------------------------------------------------------------------------

    def simulate(
        self,
        until: float,
        record: Iterable[str],
        parameters: Mapping[str, Any] | None = None,
        feeds: Mapping[str, Any] | None = None,
    ) -> dict[str, Tensor]:
        """Return what `run` would record, as a differentiable function of parameters and feeds; nothing is stepped.

        Every component must offer ``differentiable()``; those of PyTorch and of JAX can be mixed, and the result
        belongs to PyTorch. It starts from where the components stand; their states are taken as given.

        Parameters
        ----------
        until
            As in `run`.
        record
            Outputs to return, ``component:variable``.
        parameters
            Values, by ``component:parameter``, of the component's shape or one number: PyTorch tensors that may require
            gradients, or anything that is an array. Parameters that are not given are as in the component.
        feeds
            Inputs from now on, ``[step, element]``, in place of what the coupling feeds: tensors that may require
            gradients, or arrays.

        Returns
        -------
        dict
            By the names in ``record``, float64 ``[step, element]``.

        Raises
        ------
        ConfigurationError
            If a component cannot be differentiated, or a parameter is out of its bounds.
        UnknownNameError, ValueShapeError
            If there is no such output, parameter or input, or a value has another shape.
        ForcingError
            If an input is missing or impossible.
        TimeError
            If a component stands amid a step or a feed ends too early.
        """
        from bmi_components.coupling_gradients import simulate

        return simulate(self, until, record, parameters or {}, feeds or {})

    def plan(self, until: float) -> Plan:
        """Return the steps that `run` would take and what the links would carry, without taking any."""
        # Before its first step a source gives what it shows.
        pasts = [
            [_host(values) for *_, values in x.segments] or [_host(_get(self.components[x.source], x.output))]
            for x in self._links
        ]
        known = [[(first, last, row) for row, (first, last, _) in enumerate(x.segments)] for x in self._links]
        # Calibration asks for the same period again and again.
        asked = (until, self._times(), known)
        if self._timetable is None or self._timetable[0] != asked:
            self._timetable = (asked, *self._schedule(until, known))
        _, begins, shares = self._timetable
        return Plan(begins, [PlannedLink(*parts) for parts in zip(self._links, pasts, shares, strict=True)])

    def _schedule(
        self, until: float, known: Sequence[Sequence[tuple[float, float, int]]]
    ) -> tuple[dict[str, list[float]], list[list[list[tuple[int, float]]]]]:
        """Go through the steps with the numbers of rows in the place of values; return `Plan`'s begins and shares."""
        times = self._times()
        begins: dict[str, list[float]] = {name: [] for name in self.components}
        links = [replace(link, segments=list(rows)) for link, rows in zip(self._links, known, strict=True)]
        shares: list[list[list[tuple[int, float]]]] = [[] for _ in links]
        while (name := self._next(until, times)) is not None:
            begin = times[name]
            end = begin + self._step(name)
            for link, found in zip(links, shares, strict=True):
                if link.target == name:
                    found.append(link.shares(begin, end) or [(0, 1.0)])
            for link, rows in zip(links, known, strict=True):
                if link.source == name:
                    link.segments.append((begin, end, max(1, len(rows)) + len(begins[name])))
            begins[name].append(begin)
            times[name] = end
        return begins, shares

    def fed(self, name: str, variable: str, begins: Sequence[float]) -> Array | None:
        """Return what is fed to an input at steps that begin then, ``[step, element]``; None if nothing feeds it."""
        for known, feed in self._feeds[name]:
            if known == variable:
                where, size = f"{name}:{variable}", _size(self.components[name], variable)
                table = np.empty((len(begins), size))
                for row, begin in zip(table, begins, strict=True):
                    given = feed(begin)
                    if not isinstance(given, np.ndarray) or given.dtype != np.float64:
                        given = numbers(given, where)
                    if given.size != size:
                        raise ValueShapeError(
                            f"the feed of {where} gives {given.size} values; {size} are needed"
                        )
                    row[:] = given.reshape(-1)
                return table
        return None

    def _dataset(
        self, times: Mapping[str, list[float]], kept: Mapping[tuple[str, str], list[Array]]
    ) -> xarray.Dataset:
        dataset = xarray.Dataset()
        for (name, variable), rows in kept.items():
            component = self.components[name]
            known = getattr(component, "variables", {})
            short = known[variable].symbol if variable in known else variable
            size = _size(component, variable)
            values = np.array(rows).reshape(len(rows), size)
            time = f"time_of_{name}"
            dataset[f"{name}.{short}"] = xarray.DataArray(
                values,
                dims=(time, f"element_of_{name}_{component.get_var_grid(variable)}"),
                coords={time: (time, np.array(times[name]), {"units": "s"})},
                attrs={"units": component.get_var_units(variable), "standard_name": variable},
            )
        return dataset


def _size(component: bmipy.Bmi, name: str) -> int:
    return component.get_var_nbytes(name) // component.get_var_itemsize(name)


def _get(component: Any, name: str) -> Any:
    """Return a copy of a variable's values, where the component lives."""
    if hasattr(component, "get_tensor"):
        values = component.get_tensor(name)
        return values.copy() if isinstance(values, np.ndarray) else values
    return component.get_value(name, np.empty(_size(component, name), component.get_var_type(name)))


def _set(component: Any, name: str, values: Any) -> None:
    """Set an input, without passing through the host where both sides can."""
    if hasattr(component, "set_tensor") and not isinstance(values, np.ndarray):
        component.set_tensor(name, values)
    else:
        component.set_value(name, np.ascontiguousarray(_host(values)))


def _like(example: Any, values: Any) -> Any:
    """Return a NumPy array as an array of the example's framework, on its device."""
    if isinstance(example, np.ndarray):
        return values
    if hasattr(example, "detach"):
        return importlib.import_module("torch").from_numpy(values.copy()).to(example)
    return importlib.import_module("jax").device_put(values, example.sharding)


def _host(values: Any) -> Array:
    """Return values as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array: Array = np.asarray(values)
    return array
