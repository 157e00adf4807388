"""The canopy model as its users see it: a step, a series, gradients; settings and parameters, and no memory."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bmi_components.canveg.bundle import KIND, pack, unpack
from bmi_components.canveg.coupled import solve_coupled
from bmi_components.canveg.fluxes import Fluxes, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.mixing import Mixing, make_mixing
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters
from bmi_components.canveg.published import solve_published
from bmi_components.canveg.settled import compiled
from bmi_components.canveg.surroundings import surroundings
from bmi_components.errors import ConfigurationError, ValueShapeError
from bmi_components.trained_model import TrainedModel

__all__ = ["KIND", "STEPS_AT_ONCE", "CanVeg", "initial_state", "load_model", "run_step"]

Array = Any

STEPS_AT_ONCE = 48
"""Steps of 50 layers that are solved side by side; more do not fit a core's cache and take longer each."""

MOST_STEPS_AT_ONCE = 512
"""Steps of a few layers that are solved side by side: all iterate as often as the slowest needs."""


def run(
    options: Options,
    site: Site,
    parameters: Parameters,
    mixing: Mixing,
    forcing: Forcing,
    state: State,
) -> tuple[State, tuple[Fluxes, Array]]:
    """Make some steps, solved side by side.

    Parameters
    ----------
    options
        Forms and numerics.
    site, parameters
        Leaves are scalars or ``[site]``.
    mixing
        Of the air.
    forcing
        Fields ``[time, site]``.
    state
        Before the first step.

    Returns
    -------
    state
        After the last step.
    fluxes
        ``[time, site]``, profiles ``[time, site, layer]``.
    temperatures
        `State.temperature` after each step, ``[time, site, node]``.
    """
    around = surroundings(options, site, parameters, forcing)
    given = options, site, parameters, mixing, around, state.temperature, state.started
    if options.kept().fixed_iterations:
        fluxes, temperatures = solve_published(*given)
    else:
        fluxes, temperatures = solve_coupled(*given)
    return State(temperatures[-1], jnp.ones_like(state.started)), (fluxes, temperatures)


def initial_state(options: Options, sites: int, dtype: Any) -> State:
    """Return what is remembered before the first step: nothing."""
    nodes = options.iterations if options.kept().fixed_iterations else options.soil_layers
    return State(jnp.zeros((sites, nodes), dtype), jnp.zeros(sites, dtype))


def run_step(
    options: Options,
    site: Site,
    parameters: Parameters,
    mixing: Mixing,
    forcing: Forcing,
    state: State,
) -> tuple[State, Fluxes]:
    """Make one step; forcing fields ``[site]``. For the rest see `run`."""
    one = jax.tree.map(lambda x: x[None], forcing)
    after, (fluxes, _) = run(options, site, parameters, mixing, one, state)
    return after, jax.tree.map(lambda x: x[0], fluxes)


@cache
def _compiled(function: Any, leaves: int) -> Any:
    """Return a compiled function, made with its first use since JAX's device is not settled before."""
    return compiled(function, leaves, static_argnums=0)


class CanVeg:
    """A canopy of layers over a soil, after Jiang et al. (2025) and Baldocchi's CanVeg.

    Parameters
    ----------
    options
        Forms of the processes, layers, numerics; what is compiled is shared by all models with the same.
    site
        Where it stands; scalars or ``[site]``.
    parameters
        Scalars or ``[site]``; one floating-point type, in which everything is computed.
    dispersion
        ``[layers + atmosphere layers, layers]``, s m-1 at a friction velocity of 1 m s-1.

    Raises
    ------
    ConfigurationError
        If the dispersion matrix does not fit the layers, or leaves of the corrected mode give off more light than they
        get (as those of some published models do).
    """

    def __init__(self, options: Options, site: Site, parameters: Parameters, dispersion: Array) -> None:
        expected = (options.layers + options.atmosphere_layers, options.layers)
        if tuple(np.shape(dispersion)) != expected:
            raise ConfigurationError(
                f"canveg: the dispersion matrix has shape {tuple(np.shape(dispersion))}; {options.layers} layers and "
                f"{options.atmosphere_layers} above them need {expected}"
            )
        if not options.kept().single_shortwave_sweep:
            _check_leaves(parameters)
        self.options = options
        self.parameters = jax.tree.map(jnp.asarray, parameters)
        self.dtype = self.parameters.clumping.dtype
        self.site: Site = jax.tree.map(lambda leaf: jnp.asarray(leaf, self.dtype), site)
        self.dispersion: Array = jnp.asarray(dispersion, self.dtype)
        self.mixing: Mixing = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, self.dtype), make_mixing(np.asarray(dispersion))
        )

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> CanVeg:
        """Bring a bundle to life.

        Raises
        ------
        BundleError
            If it is of another kind, or its description and weights do not fit together.
        """
        options, site, parameters, dispersion = unpack(bundle)
        kind = jnp.zeros(0).dtype
        return cls(options, site, jax.tree.map(lambda leaf: jnp.asarray(leaf, kind), parameters), dispersion)

    def to_bundle(self, provenance: dict[str, Any] | None = None, licence: str = "") -> TrainedModel:
        """Return the model as a bundle, to be saved."""
        return pack(self.options, self.site, self.parameters, self.dispersion, provenance or {}, licence)

    @property
    def time_step(self) -> float:
        """Length of a step, s."""
        return self.options.time_step

    def initial_state(self, sites: int = 1) -> State:
        """Return what is remembered before the first step: nothing."""
        return initial_state(self.options, sites, self.dtype)

    def step(self, state: State, forcing: Forcing) -> tuple[State, Fluxes]:
        """Make one step of all sites.

        Parameters
        ----------
        state
            Before the step.
        forcing
            Fields ``[site]``.

        Returns
        -------
        state
            After it.
        fluxes
            Fields ``[site]``, profiles ``[site, layer]``.
        """
        forcing = self._typed(forcing)
        make = _compiled(run_step, forcing.air_temperature.size * self.options.layers)
        made: tuple[State, Fluxes] = make(
            self.options, self.site, self.parameters, self.mixing, forcing, state
        )
        return made

    def simulate(
        self, forcing: Forcing, state: State | None = None, parameters: Parameters | None = None
    ) -> tuple[Fluxes, State]:
        """Make all steps of a series; differentiable by forcing, state and parameters.

        Parameters
        ----------
        forcing
            Fields ``[time, site]``.
        state
            Before the first step; None: nothing is remembered.
        parameters
            Instead of the model's own.

        Returns
        -------
        fluxes
            Fields ``[time, site]``, profiles ``[time, site, layer]``.
        state
            After the last step.

        Raises
        ------
        ValueShapeError
            If the forcing has another shape or no steps.
        """
        traced = _traced((forcing, state, parameters, self.site))
        # NumPy takes arrays apart and joins them without a compiled program for each
        xp: Any = jnp if traced or jax.default_backend() != "cpu" else np
        forcing = self._typed(forcing, xp)
        shape = forcing.air_temperature.shape
        if len(shape) != 2 or not shape[0] or any(field.shape != shape for field in forcing):
            raise ValueShapeError(
                f"canveg: forcing fields have shapes {sorted({str(f.shape) for f in forcing})}; all need [time, site]"
            )
        steps, sites = shape
        state = self.initial_state(sites) if state is None else state
        parameters = self.parameters if parameters is None else parameters
        together = min(MOST_STEPS_AT_ONCE, STEPS_AT_ONCE * 50 // self.options.layers)
        size = max(1, min(steps, -(-together // sites)))
        chunks = -(-steps // size)
        # the last piece is filled up with its last step, so that all have one shape and are compiled once
        filling = chunks * size - steps
        filled = jax.tree.map(
            lambda x: xp.concatenate([x, xp.repeat(x[-1:], filling, axis=0)]).reshape(chunks, size, sites),
            forcing,
        )
        make = run if traced else _compiled(run, size * sites * self.options.layers)

        def piece(before: State, part: Forcing) -> tuple[State, tuple[Fluxes, Array]]:
            made: tuple[State, tuple[Fluxes, Array]] = make(
                self.options, self.site, parameters, self.mixing, part, before
            )
            return made

        if traced:
            _, found = jax.lax.scan(piece, state, filled)
            found = jax.tree.map(lambda x: x.reshape(chunks * size, *x.shape[2:])[:steps], found)
        else:  # pieces one by one need no compilation for each length of a series
            pieces, before = [], state
            for index in range(chunks):
                before, part = piece(before, Forcing(*(field[index] for field in filled)))
                pieces.append(part)
            found = jax.tree.map(lambda *parts: xp.concatenate(parts)[:steps], *pieces)
        fluxes, temperatures = found
        after = State(jnp.asarray(temperatures[-1]), jnp.ones_like(state.started))
        return jax.tree.map(jnp.asarray, fluxes), after

    def _typed(self, forcing: Forcing, xp: Any = jnp) -> Forcing:
        """Return the forcing in the model's floating-point type."""
        return Forcing(*(xp.asarray(field, self.dtype) for field in forcing))


def _traced(values: Any) -> bool:
    """Return whether JAX derives, maps or compiles what is computed with some values."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def _check_leaves(parameters: Parameters) -> None:
    """Refuse leaves that reflect and let through more light than falls on them."""
    for band in ("par", "nir"):
        reflectance, transmittance = f"{band}_reflectance", f"{band}_transmittance"
        values = getattr(parameters, reflectance), getattr(parameters, transmittance)
        if any(isinstance(value, jax.core.Tracer) for value in values):
            continue
        worst = float(np.max(np.asarray(values[0]) + np.asarray(values[1])))
        if worst >= 1.0:
            raise ConfigurationError(
                f"canveg: {reflectance} and {transmittance} add up to {worst:.3g}; the corrected mode needs less "
                "than 1 (mode reference takes such parameters)"
            )


def load_model(bundle: TrainedModel | Path | str) -> CanVeg:
    """Return the model of a bundle or of its folder.

    Raises
    ------
    BundleError
        If it is absent, damaged or of another kind.
    """
    return CanVeg.from_bundle(
        bundle if isinstance(bundle, TrainedModel) else TrainedModel.load(Path(bundle), KIND)
    )
