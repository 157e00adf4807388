"""Coupling in one process: components of different steps, units and grids, stepped in order and linked by variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import bmipy
import numpy as np
import xarray
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.buffers import numbers
from bmi_components.errors import ConfigurationError, TimeError, UnitsError, UnknownNameError, ValueShapeError
from bmi_components.units import Conversion, converter

__all__ = ["Coupling", "Feed", "Link", "couple"]

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

    def values(self, begin: float, end: float) -> Any:
        """Return what the target's step gets, in its units, on its grid; None if the source never gave anything."""
        self.segments = [s for s in self.segments if s[1] > begin + ROUNDING] or self.segments[-1:]
        if not self.segments:
            return None
        if self.how == "latest":
            found = self.segments[-1][2]
        else:
            parts = [
                (values, min(end, last) - max(begin, first), last - first)
                for first, last, values in self.segments
                if min(end, last) - max(begin, first) > ROUNDING
            ]
            if not parts:  # the source is behind: what it said last
                found = self.segments[-1][2]
            elif self.how == "sum":
                found = sum(values * (within / length) for values, within, length in parts)
            else:
                covered = sum(within for _, within, _ in parts)
                found = sum(values * (within / covered) for values, within, _ in parts)
        found = self.convert(found)
        if self.weights is not None:
            found = self.weights @ np.asarray(_host(found))
        return found


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
        self._feeds: dict[str, list[tuple[str, Feed]]] = {name: [] for name in components}
        for where, feed in feeds.items():
            name, variable = self._find(where, "input")
            self._feeds[name].append((variable, feed if callable(feed) else self._rows(name, variable, feed)))
        fed = [(link.target, link.input) for link in self._links]
        fed += [(name, variable) for name, found in self._feeds.items() for variable, _ in found]
        for name, variable in fed:
            if fed.count((name, variable)) > 1:
                raise ConfigurationError(f"the input {name}:{variable} is fed more than once")

    # Binding --------------------------------------------------------------------------------------

    def _find(self, where: str, kind: Literal["input", "output"]) -> tuple[str, str]:
        """Return component and variable of ``component:variable``."""
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
        source, output = self._find(link.source, "output")
        target, given = self._find(link.target, "input")
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
        return min(self._time(name) for name in self.components)

    # Running --------------------------------------------------------------------------------------

    def advance(self, name: str) -> None:
        """Step one component with what its links and feeds say."""
        component, begin = self.components[name], self._time(name)
        end = begin + self._step(name)
        for link in self._links:
            if link.target == name:
                values = link.values(begin, end)
                if values is None:  # a source that comes later and has not been stepped yet
                    source = self.components[link.source]
                    values = link.convert(_get(source, link.output))
                    values = values if link.weights is None else link.weights @ np.asarray(_host(values))
                _set(component, link.input, values)
        for variable, feed in self._feeds[name]:
            _set(component, variable, numbers(feed(begin), f"{name}:{variable}").astype(np.float64))
        component.update()
        for link in self._links:
            if link.source == name:
                link.segments.append((begin, end, _get(component, link.output)))

    def _next(self, until: float) -> str | None:
        """Return who is to step next: the one furthest behind of those that have what they need."""
        best: str | None = None
        earliest = np.inf
        for name, position in self._order.items():
            begin = self._time(name)
            end = begin + self._step(name)
            if end > until + ROUNDING or begin >= earliest - ROUNDING:
                continue
            waits = any(
                link.target == name
                and self._order[link.source] < position
                and self._time(link.source) < end - ROUNDING
                and self._time(link.source) + self._step(link.source) <= until + ROUNDING
                for link in self._links
            )
            if not waits:
                best, earliest = name, begin
        return best

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
            name, variable = self._find(where, "output")
            wanted[name].append(variable)
        times: dict[str, list[float]] = {name: [] for name in self.components}
        kept: dict[tuple[str, str], list[Array]] = {(n, v): [] for n, found in wanted.items() for v in found}
        begin = self.time
        with tqdm(total=round(until - begin), unit="s", unit_scale=True, disable=not progress) as bar:
            while (following := self._next(until)) is not None:
                name = following
                self.advance(name)
                times[name].append(self._time(name))
                for variable in wanted[name]:
                    kept[name, variable].append(_host(_get(self.components[name], variable)))
                bar.update(round(self.time - begin) - bar.n)
        return self._dataset(times, kept)

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


def _host(values: Any) -> Array:
    """Return values as a NumPy array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    array: Array = np.asarray(values)
    return array
