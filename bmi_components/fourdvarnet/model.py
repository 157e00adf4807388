"""FourDVarNet as its users see it: observations in physical units with NaN where there are none in, analyses out.

The model is pure: it holds settings and weights, and remembers nothing from one analysis to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from bmi_components.errors import BundleError, ConfigurationError, ValueShapeError
from bmi_components.fourdvarnet import modulation as lstm
from bmi_components.fourdvarnet.modulation import ModulationSettings
from bmi_components.fourdvarnet.observations import ObservationProtocol
from bmi_components.fourdvarnet.priors import PriorSettings, TwoScaleSettings, coarsest, make_prior
from bmi_components.fourdvarnet.solver import (
    Differentiation,
    Solution,
    SolverSettings,
    first_guess,
    initial_weights,
    solve,
    solve_by_descent,
)
from bmi_components.trained_model import NamedUnits, TrainedModel

__all__ = ["KIND", "WINDOWS_AT_ONCE", "Analysis", "FourDVarNet", "FourDVarNetHyperparameters", "load_model"]

KIND = "fourdvarnet"
"""Kind of the bundles."""

WINDOWS_AT_ONCE = 8
"""Windows that are solved together; more at once do not fit a core's cache and take longer each."""


class FourDVarNetHyperparameters(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What the bundle of a 4DVarNet says beside its components, their units and their standardisation.

    Attributes
    ----------
    window
        Steps of a window.
    prior, modulation, solver
        The parts of the algorithm.
    observations
        How the windows were observed that it was trained on; empty: not known.
    system
        Name of the system that made the truth, where it is one of ours.
    """

    window: int = 200
    prior: PriorSettings = TwoScaleSettings()
    modulation: ModulationSettings = ModulationSettings()
    solver: SolverSettings = SolverSettings()
    observations: tuple[ObservationProtocol, ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        for name, multiple in (
            ("prior", coarsest(self.prior)),
            ("modulation.patch", self.modulation.patch),
        ):
            if self.window < 2 or self.window % multiple:
                raise ValueError(
                    f"window is {self.window}; {name} needs at least 2 steps and a multiple of {multiple}"
                )


class Analysis(NamedTuple):
    """Analyses of windows.

    Attributes
    ----------
    trajectory
        In physical units, ``[window, time, component]``.
    cost
        Variational cost of each trajectory (of standardised values), ``[window]``.
    costs
        Cost before each iteration, ``[window, iteration]``.
    iterates
        Trajectories after each iteration in physical units, ``[window, iteration, time, component]``, or None.
    """

    trajectory: Array
    cost: Array
    costs: Array
    iterates: Array | None


class FourDVarNet:
    """A learned prior and a learned solver for windows of a fixed length.

    Parameters
    ----------
    hyperparameters
        Sizes and options.
    components
        Names and units of the state's components, in order.
    normalisation
        ``{name: {"mean": ..., "std": ...}}`` of each component.
    time_step
        Length of a step, s (of a dimensionless system: its unit of time counts as a second).
    parameters
        ``{"prior": ..., "modulation": ..., "weights": ...}``, arrays of one floating-point type; `create` draws them.

    Raises
    ------
    ConfigurationError
        If the parts do not fit together.
    """

    def __init__(
        self,
        hyperparameters: FourDVarNetHyperparameters,
        components: Sequence[NamedUnits],
        normalisation: Mapping[str, Mapping[str, float]],
        time_step: float,
        parameters: dict[str, Any],
    ) -> None:
        self.hyperparameters = hyperparameters
        self.components = tuple(components)
        self.time_step = time_step
        absent = [component.name for component in self.components if component.name not in normalisation]
        if absent:
            raise ConfigurationError(f"fourdvarnet: the normalisation has no mean and std of {absent[0]!r}")
        self.mean, self.std = (
            np.array([normalisation[component.name][key] for component in self.components])
            for key in ("mean", "std")
        )
        self.prior = make_prior(hyperparameters.prior, self.mean, self.std)
        self.parameters = parameters
        self._jitted = jax.jit(self.analyse, static_argnames=("iterations", "keep_iterates"))

    @classmethod
    def create(
        cls,
        hyperparameters: FourDVarNetHyperparameters,
        components: Sequence[NamedUnits],
        normalisation: Mapping[str, Mapping[str, float]],
        time_step: float,
        *,
        seed: int = 0,
        dtype: Any = jnp.float32,
    ) -> FourDVarNet:
        """Make a model with random weights.

        Parameters
        ----------
        hyperparameters, components, normalisation, time_step
            As for the class.
        seed
            Of the weights.
        dtype
            Of the weights and all arithmetic; float64 needs JAX's 64-bit mode.
        """
        model = cls(hyperparameters, components, normalisation, time_step, {})
        # compiled as a whole, since compiling each small operation for itself takes longer
        model.parameters = jax.jit(partial(model._draw, dtype=dtype))(jax.random.key(seed))
        return model

    @classmethod
    def from_bundle(cls, bundle: TrainedModel) -> FourDVarNet:
        """Bring a bundle to life.

        Raises
        ------
        BundleError
            If it is of another kind, or its description and weights do not fit together.
        """
        if bundle.kind != KIND:
            raise BundleError(f"this bundle holds a model of kind {bundle.kind!r}; {KIND!r} is needed here")
        try:
            hyperparameters = msgspec.convert(dict(bundle.hyperparameters), FourDVarNetHyperparameters)
            model = cls(hyperparameters, bundle.outputs, bundle.normalisation, bundle.time_step, {})
        except (msgspec.ValidationError, ConfigurationError) as error:
            raise BundleError(f"the bundle does not describe a 4DVarNet: {error}") from error
        names = flatten(jax.eval_shape(partial(model._draw, dtype=jnp.float32), jax.random.key(0)))
        for name in sorted(set(names) ^ set(bundle.weights)):
            word = "lacks" if name in names else "has an unknown"
            raise BundleError(f"the bundle {word} weight {name!r}")
        for name, array in names.items():
            if bundle.weights[name].shape != array.shape:
                raise BundleError(
                    f"weight {name!r} has shape {bundle.weights[name].shape}; its settings need {array.shape}"
                )
        model.parameters = unflatten({name: jnp.asarray(bundle.weights[name]) for name in names})
        return model

    def _draw(self, key: Array, dtype: Any) -> dict[str, Any]:
        """Draw weights."""
        settings = self.hyperparameters
        first, second = jax.random.split(key)
        return {
            "prior": self.prior.initial_parameters(first, dtype),
            "modulation": lstm.initial_parameters(
                settings.modulation, settings.window, len(self.components), second, dtype
            ),
            "weights": initial_weights(settings.solver, dtype),
        }

    def to_bundle(self, provenance: Mapping[str, Any] | None = None, licence: str = "") -> TrainedModel:
        """Return the model as a bundle, to be saved."""
        return TrainedModel(
            kind=KIND,
            hyperparameters=msgspec.to_builtins(self.hyperparameters),
            inputs=self.components,
            attributes=(),
            outputs=self.components,
            normalisation={
                component.name: {"mean": float(mean), "std": float(std)}
                for component, mean, std in zip(self.components, self.mean, self.std, strict=True)
            },
            time_step=self.time_step,
            provenance=provenance or {},
            licence=licence,
            weights={name: np.asarray(array) for name, array in flatten(self.parameters).items()},
        )

    @property
    def dtype(self) -> Any:
        """Floating-point type of the weights and of all arithmetic."""
        return jax.tree.leaves(self.parameters)[0].dtype

    def solve(
        self,
        observations: ArrayLike,
        start: ArrayLike | None = None,
        iterations: int | None = None,
        *,
        keep_iterates: bool = False,
    ) -> Analysis:
        """Analyse windows; compiled once per number of windows, iterations and ``keep_iterates``.

        Parameters
        ----------
        observations
            ``[window, time, component]`` in physical units, NaN where there is none.
        start
            Where the iterations start, of the same shape; None: from the observations, as the settings say.
        iterations
            How many; None: as many as trained with. With 0 the analysis is the start.
        keep_iterates
            Whether the analysis holds the trajectory after each iteration.

        Raises
        ------
        ValueShapeError
            If an array has another shape.
        """
        expected = ("window", self.hyperparameters.window, len(self.components))
        for name, array in (("observations", observations), ("start", start)):
            if array is not None and (np.ndim(array) != 3 or np.shape(array)[1:] != expected[1:]):
                raise ValueShapeError(
                    f"{name} has shape {np.shape(array)}; [{', '.join(map(str, expected))}] is needed"
                )
        if start is not None and np.shape(start) != np.shape(observations):
            raise ValueShapeError(
                f"start has {np.shape(start)[0]} windows, observations {np.shape(observations)[0]}"
            )
        analysis: Analysis = self._jitted(
            self.parameters, observations, start, iterations=iterations, keep_iterates=keep_iterates
        )
        return analysis

    def analyse(
        self,
        parameters: dict[str, Any],
        observations: ArrayLike,
        start: ArrayLike | None = None,
        *,
        iterations: int | None = None,
        keep_iterates: bool = False,
    ) -> Analysis:
        """Do what `solve` does as a pure function of the parameters too: to be compiled, mapped or differentiated."""
        seen = self.standardised(observations)
        if start is None:
            begin = jax.vmap(partial(first_guess, self.hyperparameters.solver))(seen)
        else:
            begin = self.standardised(start)
        run = partial(self.solve_window, parameters, iterations=iterations, keep_iterates=keep_iterates)
        solution = _in_parts(run, seen, begin)
        iterates = None if solution.iterates is None else self.physical(solution.iterates)
        return Analysis(self.physical(solution.trajectory), solution.cost, solution.costs, iterates)

    def solve_window(
        self,
        parameters: dict[str, Any],
        observations: Array,
        start: Array,
        *,
        iterations: int | None = None,
        differentiation: Differentiation = "unrolled",
        keep_iterates: bool = False,
    ) -> Solution:
        """Solve one window ``[time, component]`` of standardised values; see `solver.solve`."""
        settings = self.hyperparameters
        return solve(
            self.prior,
            settings.modulation,
            settings.solver,
            parameters,
            observations,
            start,
            iterations=iterations,
            differentiation=differentiation,
            keep_iterates=keep_iterates,
        )

    def descend(self, observations: ArrayLike, iterations: int, rate: float) -> Analysis:
        """Bring the same cost down by plain gradient steps of a fixed length, to compare with `solve`.

        Parameters
        ----------
        observations
            ``[window, time, component]`` in physical units, NaN where there is none.
        iterations, rate
            See `bmi_components.fourdvarnet.solver.solve_by_descent`.
        """
        settings = self.hyperparameters.solver
        run = partial(solve_by_descent, self.prior, settings, iterations=iterations, rate=rate)

        @jax.jit
        def descend(parameters: dict[str, Any], observations: Array) -> Solution:
            begin = jax.vmap(partial(first_guess, settings))(observations)
            return _in_parts(partial(run, parameters), observations, begin)

        solution = descend(self.parameters, self.standardised(observations))
        return Analysis(self.physical(solution.trajectory), solution.cost, solution.costs, None)

    def standardised(self, values: ArrayLike) -> Array:
        """Return ``values`` [..., component] in physical units as (value - mean) / std of each component."""
        dtype = self.dtype
        mean, std = jnp.asarray(self.mean, dtype), jnp.asarray(self.std, dtype)
        return (jnp.asarray(values, dtype) - mean) / std

    def physical(self, values: Array) -> Array:
        """Undo `standardised`."""
        return values * jnp.asarray(self.std, values.dtype) + jnp.asarray(self.mean, values.dtype)


def load_model(bundle: TrainedModel | str | Path) -> FourDVarNet:
    """Return the model of a bundle, or of the folder that holds one.

    Raises
    ------
    BundleError
        If it is absent, damaged, of another kind, or its parts do not fit together.
    """
    if not isinstance(bundle, TrainedModel):
        bundle = TrainedModel.load(bundle, KIND)
    return FourDVarNet.from_bundle(bundle)


def _in_parts(run: Callable[[Array, Array], Solution], *windows: Array) -> Solution:
    """Solve windows ``[window, ...]`` a few at a time, the last ones in company of copies of the last."""
    count = windows[0].shape[0]
    solve_part = jax.vmap(run)
    if count <= WINDOWS_AT_ONCE:
        return solve_part(*windows)
    parts = -(-count // WINDOWS_AT_ONCE)
    filler = ((0, parts * WINDOWS_AT_ONCE - count),)

    def split(array: Array) -> Array:
        full = jnp.pad(array, filler + ((0, 0),) * (array.ndim - 1), mode="edge")
        return full.reshape(parts, WINDOWS_AT_ONCE, *array.shape[1:])

    solved: Solution = jax.lax.map(lambda part: solve_part(*part), tuple(split(array) for array in windows))
    joined: Solution = jax.tree.map(lambda array: array.reshape(-1, *array.shape[2:])[:count], solved)
    return joined


def statistics(states: NDArray[np.float64], names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of each component of ``states`` [..., component]."""
    flat = states.reshape(-1, states.shape[-1])
    return {
        name: {"mean": float(mean), "std": float(std)}
        for name, mean, std in zip(names, flat.mean(axis=0), flat.std(axis=0), strict=True)
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the arrays of nested mappings by names like ``prior/fine/conv_in``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}/") if isinstance(value, Mapping) else {name: value}
    return flat


def unflatten(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Undo `flatten`; a mapping without arrays comes back empty only if it is one of a model's three."""
    tree: dict[str, Any] = {"prior": {}, "modulation": {}, "weights": {}}
    for name, array in arrays.items():
        *groups, last = name.split("/")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        branch[last] = array
    return tree
