"""Parameters as training moves them: anywhere on the real line, and yet within their bounds.

A parameter with bounds is ``lower + (upper - lower) * sigmoid(x)``, and where the bounds lie more than a factor of ten
apart the same of its logarithm. Whatever its units, a step of 1 in x is a step of some tenth of its range, so that one
learning rate serves all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.options import Options
from bmi_components.canveg.parameters import TABLE, Parameters
from bmi_components.errors import ConfigurationError

__all__ = ["Bounds", "Free", "Transforms", "choose_transforms"]

Array = Any

Free = dict[str, dict[str, Any]]
"""What training moves: ``{"parameters": {name: x}, "networks": {name: Network}}``."""

DECADES = 10.0
"""Bounds further apart than by this factor are spaced logarithmically."""

EDGE = 0.01
"""Share of its range by which a starting value keeps away from its bounds, where it could hardly move."""


class Bounds(NamedTuple):
    """Of a parameter, in its units."""

    lower: float
    upper: float

    @property
    def logarithmic(self) -> bool:
        """Whether the parameter moves by factors rather than by differences."""
        return self.lower > 0.0 and self.upper > DECADES * self.lower

    def inside(self, free: Array) -> Array:
        """Return the parameter of any number."""
        share = jax.nn.sigmoid(free)
        if self.logarithmic:
            return self.lower * jnp.exp(math.log(self.upper / self.lower) * share)
        return self.lower + (self.upper - self.lower) * share

    def free(self, value: Array) -> Array:
        """Return the number of a parameter; of one beyond a bound, or nearly at it, of a value just within."""
        value = np.clip(np.asarray(value, np.float64), self.lower, self.upper)
        if self.logarithmic:
            share = np.log(value / self.lower) / math.log(self.upper / self.lower)
        else:
            share = (value - self.lower) / (self.upper - self.lower)
        share = np.clip(share, EDGE, 1.0 - EDGE)
        return np.log(share / (1.0 - share))


class Transforms(NamedTuple):
    """Which parameters and networks are trained, and how they are bounded.

    Attributes
    ----------
    bounds
        By name of parameter.
    networks
        Names of networks, whose weights move freely.
    """

    bounds: Mapping[str, Bounds]
    networks: tuple[str, ...]

    def free(self, parameters: Parameters) -> Free:
        """Return what training moves, of the parameters that it starts from."""
        kind = jnp.asarray(parameters.clumping).dtype
        return {
            "parameters": {
                name: jnp.asarray(bounds.free(getattr(parameters, name)), kind)
                for name, bounds in self.bounds.items()
            },
            "networks": {
                name: jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), getattr(parameters, name))
                for name in self.networks
            },
        }

    def parameters(self, free: Free, others: Parameters) -> Parameters:
        """Return the parameters; ``others`` gives those that are not trained."""
        moved = {name: bounds.inside(free["parameters"][name]) for name, bounds in self.bounds.items()}
        return others._replace(**moved, **free["networks"])


def choose_transforms(
    options: Options,
    trained: Sequence[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
) -> Transforms:
    """Choose what is trained.

    Parameters
    ----------
    options
        Say which networks the model has; these are trained, and the slope of the chosen conductance.
    trained
        Names of parameters, ours or the published ones; None: those that the table marks.
    bounds
        ``{name: (lower, upper)}`` in place of the table's.

    Raises
    ------
    ConfigurationError
        If a name is not in the table, bounds are missing or not in order.
    """
    rows = {row.name: row for row in TABLE}
    known = {name: name for name in rows} | {
        row.published_name: row.name for row in TABLE if row.published_name
    }
    own = {}
    for name, (lower, upper) in (bounds or {}).items():
        if name not in known:
            raise ConfigurationError(f"bounds: there is no parameter {name!r}; there are {', '.join(rows)}")
        if not -math.inf < lower < upper < math.inf:
            raise ConfigurationError(f"bounds: {name}: [{lower:g}, {upper:g}]; the lower bound must be first")
        own[known[name]] = Bounds(float(lower), float(upper))
    names = [row.name for row in TABLE if row.trained or row.name in own] if trained is None else []
    for name in trained or ():
        if name not in known:
            raise ConfigurationError(f"trained: there is no parameter {name!r}; there are {', '.join(rows)}")
        names.append(known[name])
    if trained is None and options.conductance == "medlyn":
        names = ["medlyn_slope" if name == "conductance_slope" else name for name in names]
    chosen = {}
    for name in dict.fromkeys(names):
        lower_bound, upper_bound = rows[name].lower, rows[name].upper
        if name in own:
            chosen[name] = own[name]
        elif lower_bound is None or upper_bound is None:
            raise ConfigurationError(f"trained: {name} has no bounds; give them as bounds: {{{name}: [..]}}")
        else:
            chosen[name] = Bounds(lower_bound, upper_bound)
    networks = (
        *(("humidity_network",) if options.conductance == "hybrid" else ()),
        *(("respiration_network",) if options.soil_respiration == "network" else ()),
    )
    return Transforms(chosen, networks)
