"""What fluxes depend on: exact derivatives to parameters and forcing, Sobol indices over the parameters' bounds."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.canveg import plots
from bmi_components.canveg.fluxes import Fluxes, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.parameters import TABLE, Parameters
from bmi_components.canveg.settled import compiled
from bmi_components.canveg.targets import TARGETS
from bmi_components.canveg.tower import TowerForcing
from bmi_components.errors import ConfigurationError
from bmi_components.training.files import write_whole

__all__ = [
    "OUTPUTS",
    "Derivatives",
    "SobolIndices",
    "StepDerivatives",
    "derivatives",
    "derivatives_by_step",
    "sobol_indices",
    "write_derivatives",
    "write_derivatives_by_step",
    "write_sobol_indices",
]

Array = NDArray[np.float64]

OUTPUTS = (*TARGETS, "gross_primary_production")
"""Fluxes whose means are looked at."""

CHUNK = 480
"""Steps whose derivatives are taken at once: ten days of half-hours bound the memory."""

FORCINGS = {
    "air_temperature": ("degC", 273.15),
    "shortwave": ("W m-2", 0.0),
    "vapour_pressure": ("kPa", 0.0),
    "wind_speed": ("m s-1", 0.0),
    "co2": ("umol mol-1", 0.0),
    "pressure": ("kPa", 0.0),
    "friction_velocity": ("m s-1", 0.0),
    "soil_temperature": ("degC", 273.15),
    "soil_moisture": ("m3 m-3", 0.0),
    "leaf_area_index": ("m2 m-2", 0.0),
    "canopy_height": ("m", 0.0),
    "longwave": ("W m-2", 0.0),
}
"""Units, and what makes a value absolute: one percent of a temperature is one of kelvins."""


class DifferentiableCanopy(Protocol):
    """What sensitivity needs of a model, see `CanVeg`."""

    parameters: Parameters

    def initial_state(self, sites: int) -> State:
        """Return the state before the first step."""

    def simulate(
        self, forcing: Forcing, state: State | None = None, parameters: Any = None
    ) -> tuple[Fluxes, State]:
        """Simulate ``[time, site]``, differentiably."""


@dataclass(frozen=True)
class Derivatives:
    """Exact derivatives of mean fluxes over a period.

    Attributes
    ----------
    site, steps
        Where, and how many steps.
    outputs, inputs
        Names of the fluxes; of the parameters and then of the forcings.
    units
        Of the inputs.
    mean
        Of the fluxes, ``[output]``.
    value
        Of the parameters; the mean of each forcing, ``[input]``.
    derivative
        ``[output, input]``: per unit of a parameter; of a forcing that is shifted by the same amount at every step.
    elasticity
        ``[output, input]``: percent of the mean flux per percent of the input, of a forcing at every step
        (temperatures in K). Of a flux whose mean is near zero, such as soil heat, it is large and says little.
    """

    site: str
    steps: int
    outputs: tuple[str, ...]
    inputs: tuple[str, ...]
    units: tuple[str, ...]
    mean: Array
    value: Array
    derivative: Array
    elasticity: Array


def derivatives(
    model: DifferentiableCanopy,
    forcing: TowerForcing,
    *,
    outputs: Sequence[str] = OUTPUTS,
    parameters: Sequence[str] | None = None,
    progress: bool = False,
) -> Derivatives:
    """Differentiate mean fluxes to every parameter and every forcing, backwards through the whole period.

    The run is repeated ten days at a time from the last to the first, each with the sensitivity of what follows to
    the state that it leaves: exact for periods of any length, in the memory of ten days.

    Parameters
    ----------
    model
        For one site.
    forcing
        Of the period; the run begins with the model's initial state.
    outputs
        Fields of `Fluxes`.
    parameters
        Names in the table of parameters; None: all.
    progress
        Whether to show a bar.

    Raises
    ------
    ConfigurationError
        If an output or a parameter is not known.
    """
    all_names = [row.name for row in TABLE]
    outputs = _known(outputs, Fluxes._fields, "flux")
    chosen = _known(all_names if parameters is None else parameters, all_names, "parameter")
    kind = _floating(model)
    values = {name: jnp.asarray(getattr(model.parameters, name), kind) for name in chosen}

    def run(values: dict[str, Any], air: Forcing, state: State) -> tuple[Any, State]:
        fluxes, last = model.simulate(air, state, model.parameters._replace(**values))
        return jnp.stack([jnp.sum(getattr(fluxes, name)) for name in outputs]), last

    @compiled
    def backwards(
        air: Forcing, state: State, weights: Any, later: State
    ) -> tuple[dict[str, Any], Forcing, State]:
        _, pull = jax.vjp(run, values, air, state)
        found: tuple[dict[str, Any], Forcing, State] = pull((weights, later))
        return found

    parts = [
        Forcing(*(jnp.asarray(one[start : start + CHUNK, None], kind) for one in forcing.forcing))
        for start in range(0, len(forcing), CHUNK)
    ]
    states = [model.initial_state(1)]
    total = np.zeros(len(outputs))
    slope = np.zeros((len(outputs), len(chosen)))
    shift, stretch = np.zeros((2, len(outputs), len(FORCINGS)))
    runs = (1 + len(outputs)) * len(parts)
    with tqdm(total=runs, desc=f"{forcing.site}, derivatives", unit="run", disable=not progress) as bar:
        for part in parts:
            sums, last = run(values, part, states[-1])
            total += np.asarray(sums, np.float64)
            states.append(last)
            bar.update()
        # flux by flux: all at once would take as long, and longer to compile
        for i, weights in enumerate(np.eye(len(outputs))):
            later = jax.tree.map(jnp.zeros_like, states[-1])
            for part, state in zip(reversed(parts), reversed(states[:-1]), strict=True):
                by_parameter, by_forcing, later = backwards(part, state, jnp.asarray(weights, kind), later)
                slope[i] += [np.asarray(by_parameter[name], np.float64).sum() for name in chosen]
                for j, (name, (_, zero)) in enumerate(FORCINGS.items()):
                    gradient = np.asarray(getattr(by_forcing, name), np.float64)
                    absolute = np.nan_to_num(np.asarray(getattr(part, name), np.float64)) + zero
                    shift[i, j] += gradient.sum()
                    stretch[i, j] += (gradient * absolute).sum()
                bar.update()
    mean = total / len(forcing)
    value = np.array([float(np.mean(np.asarray(values[name], np.float64))) for name in chosen])
    derivative = np.concatenate((slope, shift), axis=1) / len(forcing)
    relative = np.concatenate((slope * value, stretch), axis=1)
    averages = [float(np.mean(getattr(forcing.forcing, name))) for name in FORCINGS]
    units = {row.name: row.units for row in TABLE}
    with np.errstate(divide="ignore", invalid="ignore"):
        elasticity = relative / len(forcing) / mean[:, None]
    return Derivatives(
        site=forcing.site,
        steps=len(forcing),
        outputs=outputs,
        inputs=(*chosen, *FORCINGS),
        units=(*(units[name] for name in chosen), *(unit for unit, _ in FORCINGS.values())),
        mean=mean,
        value=np.array([*value, *averages]),
        derivative=derivative,
        elasticity=elasticity,
    )


@dataclass(frozen=True)
class StepDerivatives:
    """Exact derivatives of the fluxes of each step to parameters.

    Attributes
    ----------
    site, time
        Where, and the start of each step.
    outputs, parameters
        Names.
    value
        Of the parameters, ``[parameter]``.
    flux
        ``[time, output]``.
    derivative
        ``[time, output, parameter]``: of a parameter that is changed for the whole run, so that it counts what the
        state remembers.
    """

    site: str
    time: NDArray[np.datetime64]
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    value: Array
    flux: Array
    derivative: Array


def derivatives_by_step(
    model: DifferentiableCanopy,
    forcing: TowerForcing,
    *,
    outputs: Sequence[str] = ("latent_heat", "net_ecosystem_exchange"),
    parameters: Sequence[str] | None = None,
    progress: bool = False,
) -> StepDerivatives:
    """Differentiate the fluxes of each step to parameters, forwards with the run: one more run per parameter.

    Parameters
    ----------
    model, forcing, outputs, progress
        As for `derivatives`.
    parameters
        Names in the table of parameters; None: those that are trained.

    Raises
    ------
    ConfigurationError
        If an output or a parameter is not known.
    """
    outputs = _known(outputs, Fluxes._fields, "flux")
    wanted = [row.name for row in TABLE if row.trained] if parameters is None else parameters
    chosen = _known(wanted, [row.name for row in TABLE], "parameter")
    kind = _floating(model)
    values = jnp.stack([jnp.mean(jnp.asarray(getattr(model.parameters, name), kind)) for name in chosen])

    def run(values: Any, air: Forcing, state: State) -> tuple[Any, State]:
        changed = model.parameters._replace(**dict(zip(chosen, values, strict=True)))
        fluxes, last = model.simulate(air, state, changed)
        return jnp.stack([getattr(fluxes, name)[:, 0] for name in outputs], axis=-1), last

    @compiled
    def along(air: Forcing, state: State, direction: Any, moved: State) -> tuple[Any, Any]:
        found: tuple[Any, Any] = jax.jvp(lambda v, s: run(v, air, s), (values, state), (direction, moved))
        return found

    directions = np.eye(len(chosen))
    state = model.initial_state(1)
    moved = [jax.tree.map(jnp.zeros_like, state) for _ in chosen]
    fluxes, found = [], []
    starts = range(0, len(forcing), CHUNK)
    with tqdm(
        total=len(starts) * len(chosen), desc=f"{forcing.site}, by step", unit="run", disable=not progress
    ) as bar:
        for start in starts:
            air = Forcing(*(jnp.asarray(one[start : start + CHUNK, None], kind) for one in forcing.forcing))
            tangents, before = [], state
            for index, direction in enumerate(directions):
                (flux, state), (tangent, moved[index]) = along(
                    air, before, jnp.asarray(direction, kind), moved[index]
                )
                tangents.append(np.asarray(tangent, np.float64))
                bar.update()
            fluxes.append(np.asarray(flux, np.float64))
            found.append(np.stack(tangents, axis=-1))
    return StepDerivatives(
        site=forcing.site,
        time=forcing.time,
        outputs=outputs,
        parameters=chosen,
        value=np.asarray(values, np.float64),
        flux=np.concatenate(fluxes),
        derivative=np.concatenate(found),
    )


@dataclass(frozen=True)
class SobolIndices:
    """Shares of the variance of mean fluxes that parameters make within their bounds (Sobol 2001).

    Attributes
    ----------
    site, steps, runs
        Where, how many steps, how many sets of parameters.
    outputs, parameters
        Names.
    first, total
        Share of a parameter alone, and together with others, ``[output, parameter]``; NaN where a flux does not vary.
    first_confidence, total_confidence
        Half widths of 95 % intervals.
    """

    site: str
    steps: int
    runs: int
    outputs: tuple[str, ...]
    parameters: tuple[str, ...]
    first: Array
    total: Array
    first_confidence: Array
    total_confidence: Array


def sobol_indices(
    model: DifferentiableCanopy,
    forcing: TowerForcing,
    *,
    outputs: Sequence[str] = OUTPUTS,
    parameters: Sequence[str] | None = None,
    samples: int = 64,
    batch: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> SobolIndices:
    """Estimate Sobol indices of mean fluxes over a short period, by SALib.

    Takes ``samples * (parameters + 2)`` runs, ``batch`` of them at once as sites of one model.

    Parameters
    ----------
    model
        For one site.
    forcing
        Of a few days.
    outputs
        Fields of `Fluxes`.
    parameters
        Names in the table of parameters, with bounds; None: those that are trained.
    samples
        Base samples, a power of two.
    batch
        Sets of parameters that run together.
    seed
        Of the samples and of the confidence intervals.
    progress
        Whether to show a bar.

    Raises
    ------
    ConfigurationError
        If SALib is not there, a name is not known, a parameter has no bounds, or ``samples`` is no power of two.
    """
    try:
        from SALib.analyze import sobol as analysis
        from SALib.sample import sobol as sampling
    except ImportError as error:
        raise ConfigurationError(
            "Sobol indices need the package SALib: install bmi_components[sensitivity]"
        ) from error
    if samples < 2 or samples & (samples - 1):
        raise ConfigurationError(f"samples is {samples}; a power of two from 2 on is needed")
    rows = {row.name: row for row in TABLE}
    outputs = _known(outputs, Fluxes._fields, "flux")
    wanted = parameters if parameters is not None else [row.name for row in TABLE if row.trained]
    names = _known(wanted, rows, "parameter")
    for name in names:
        if rows[name].lower is None or rows[name].upper is None:
            raise ConfigurationError(f"the parameter {name!r} has no bounds, so it has no Sobol index")
    problem = {
        "num_vars": len(names),
        "names": list(names),
        "bounds": [[rows[name].lower, rows[name].upper] for name in names],
    }
    sets: Array = sampling.sample(problem, samples, calc_second_order=False, seed=seed)
    kind = _floating(model)

    @compiled
    def means(points: Any) -> Any:
        changed = {name: points[:, column] for column, name in enumerate(names)}
        air = Forcing(
            *(
                jnp.broadcast_to(jnp.asarray(one, kind)[:, None], (len(forcing), batch))
                for one in forcing.forcing
            )
        )
        fluxes, _ = model.simulate(air, model.initial_state(batch), model.parameters._replace(**changed))
        return jnp.stack([jnp.mean(getattr(fluxes, name), axis=0) for name in outputs], axis=1)

    found = np.empty((len(sets), len(outputs)))
    starts = range(0, len(sets), batch)
    for start in tqdm(starts, desc=f"{forcing.site}, Sobol indices", unit="batch", disable=not progress):
        points = sets[start : start + batch]
        filled = np.concatenate((points, np.repeat(points[-1:], batch - len(points), axis=0)))
        found[start : start + len(points)] = np.asarray(means(jnp.asarray(filled, kind)))[: len(points)]
    shape = (len(outputs), len(names))
    table = {key: np.full(shape, np.nan) for key in ("S1", "ST", "S1_conf", "ST_conf")}
    for position in range(len(outputs)):
        if np.ptp(found[:, position]) > 0.0:
            one = analysis.analyze(problem, found[:, position], calc_second_order=False, seed=seed)
            for key, values in table.items():
                values[position] = one[key]
    return SobolIndices(
        site=forcing.site,
        steps=len(forcing),
        runs=len(sets),
        outputs=outputs,
        parameters=names,
        first=table["S1"],
        total=table["ST"],
        first_confidence=table["S1_conf"],
        total_confidence=table["ST_conf"],
    )


def write_derivatives(found: Derivatives, folder: Path) -> None:
    """Write ``derivatives.csv`` (a row per flux and input) and the figure ``elasticities.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        (output, name, unit, found.value[j], found.mean[i], found.derivative[i, j], found.elasticity[i, j])
        for i, output in enumerate(found.outputs)
        for j, (name, unit) in enumerate(zip(found.inputs, found.units, strict=True))
    ]
    header = ("flux", "input", "units", "value", "mean_flux", "derivative", "elasticity")
    write_whole(folder / "derivatives.csv", _csv(header, rows))
    plots.plot_elasticities(
        folder / "elasticities.png",
        found.inputs,
        dict(zip(found.outputs, found.elasticity, strict=True)),
        f"{found.site}, means over {found.steps} steps",
    )


def write_derivatives_by_step(found: StepDerivatives, folder: Path) -> None:
    """Write ``derivatives_by_step.csv`` (a row per step) and the figure ``sensitivity_by_hour.png``.

    The figure shows by hour of the day how much a flux changes with a parameter that grows by a hundredth.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(o, p) for o in found.outputs for p in found.parameters]
    rows: list[tuple[str | float, ...]] = [
        (str(time), *flux, *row.reshape(-1))
        for time, flux, row in zip(found.time, found.flux, found.derivative, strict=True)
    ]
    header = ("TIMESTAMP_START", *found.outputs, *(f"d {output} / d {name}" for output, name in pairs))
    write_whole(folder / "derivatives_by_step.csv", _csv(header, rows))
    clock = (found.time - found.time.astype("datetime64[D]")).astype("timedelta64[h]").astype(np.int64)
    hours = np.unique(clock)
    scaled = 0.01 * found.derivative * found.value
    plots.plot_sensitivity_by_hour(
        folder / "sensitivity_by_hour.png",
        hours,
        found.parameters,
        {
            output: np.stack([scaled[clock == hour, i].mean(axis=0) for hour in hours], axis=1)
            for i, output in enumerate(found.outputs)
        },
        f"{found.site}, {found.time[0]} to {found.time[-1]}: change by 1 % more of a parameter",
    )


def write_sobol_indices(found: SobolIndices, folder: Path) -> None:
    """Write ``sobol.csv`` (a row per flux and parameter) and the figure ``sobol.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = (found.first, found.first_confidence, found.total, found.total_confidence)
    rows = [
        (output, name, *(values[i, j] for values in columns))
        for i, output in enumerate(found.outputs)
        for j, name in enumerate(found.parameters)
    ]
    header = ("flux", "parameter", "first", "first_confidence", "total", "total_confidence")
    write_whole(folder / "sobol.csv", _csv(header, rows))
    varying = [i for i, values in enumerate(found.total) if np.isfinite(values).all()]
    if varying:
        first, total, confidence = (
            {found.outputs[i]: values[i] for i in varying}
            for values in (found.first, found.total, found.total_confidence)
        )
        title = f"{found.site}, means over {found.steps} steps, {found.runs} runs"
        plots.plot_sobol(folder / "sobol.png", found.parameters, first, total, confidence, title)


def _csv(header: Sequence[str], rows: Sequence[tuple[str | float, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([cell if isinstance(cell, str) else f"{cell:.8g}" for cell in row])
    return text.getvalue()


def _known(names: Sequence[str], all_names: Any, what: str) -> tuple[str, ...]:
    for name in names:
        if name not in all_names:
            raise ConfigurationError(f"there is no {what} {name!r}; there are {', '.join(all_names)}")
    return tuple(names)


def _floating(model: DifferentiableCanopy) -> Any:
    """Return the floating-point type that the model computes in."""
    return jnp.asarray(model.parameters.clumping).dtype
