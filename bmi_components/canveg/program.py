"""The step of a canopy model as one compiled program: shared within a process, kept on disk for the next."""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from numpy.typing import NDArray

from bmi_components.canveg.fluxes import Fluxes, Profiles, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.inputs import make_forcing
from bmi_components.canveg.mixing import Mixing
from bmi_components.canveg.model import initial_state, run_step
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import TABLE, Parameters
from bmi_components.canveg.settled import compiler_options
from bmi_components.canveg.thermodynamics import FREEZING, latent_heat_of_vaporisation
from bmi_components.jax_devices import jax_device
from bmi_components.jax_precision import jax_precision

__all__ = [
    "MEMORY",
    "Constants",
    "Memory",
    "Plan",
    "Program",
    "compiled",
    "initial_memory",
    "pack",
]

Array = Any


class Constants(NamedTuple):
    """What a run does not change, NumPy arrays; scalars, or one value per site.

    Attributes
    ----------
    site
        Measurement height NaN where it follows the canopy's.
    parameters
        Of the model.
    monthly
        Slow quantities, ``[month, site]``, in the order of `Plan.slow`.
    """

    site: Site
    parameters: Parameters
    monthly: tuple[Array, ...]


MEMORY = ("temperature", "started", "sensible_heat")
"""What the component remembers: the canopy's state, and for stability the latest sensible heat, W m-2."""

Memory = tuple[Array, Array, Array]


class Plan(NamedTuple):
    """All that a compiled program depends on.

    Attributes
    ----------
    options
        Of the model.
    inputs, slow
        Symbols of the inputs, and of the slow quantities that are constants or monthly.
    profiles
        Whether profiles by layer are published.
    sites
        How many.
    dtype, device
        Of the arithmetic.
    shapes, structure
        Of `Constants`.
    dispersion
        Shape of the dispersion matrix, ``[row, layer]``, or ``[site, row, layer]`` where sites differ.
    """

    options: Options
    inputs: tuple[str, ...]
    slow: tuple[str, ...]
    profiles: bool
    sites: int
    dtype: str
    device: str
    shapes: tuple[tuple[int, ...], ...]
    structure: Any
    dispersion: tuple[int, ...]


Program = Callable[[Array, tuple[Array, ...], Memory, Array, Array], tuple[Memory, Array]]
"""A step.

It takes the constants (end to end), the fields of `Mixing`, the memory, the inputs (end to end) and the time (day of
the year of all sites, then hour); it returns the new memory and the outputs (end to end).
"""


def pack(constants: Constants, dtype: str) -> NDArray[Any]:
    """Lay constants end to end: one argument is passed to a program much faster than sixty."""
    return np.concatenate([np.asarray(leaf, dtype).reshape(-1) for leaf in jax.tree.leaves(constants)])


@cache
def compiled(plan: Plan) -> Program:
    """Return the program of a plan, compiled once per process and kept on disk for other processes.

    Two things are kept: the program as JAX traced it, and (by JAX's own compilation cache) what it was compiled to.
    """
    kind, where = np.dtype(plan.dtype), jax.sharding.SingleDeviceSharding(jax_device(plan.device))
    array: Any = jax.ShapeDtypeStruct

    def shaped(*shape: int) -> Any:
        return array(shape, kind, sharding=where)

    *each, rows, layers = plan.dispersion
    square = shaped(*each, layers, layers)
    mixing = Mixing(shaped(*each, layers, rows), shaped(*each, layers), square, square)
    constants = shaped(sum(int(np.prod(shape)) for shape in plan.shapes))
    with jax_precision(plan.dtype), kept_programs() as folder:
        step = jax.jit(partial(advance, plan))
        memory = tuple(shaped(*part.shape) for part in jax.eval_shape(partial(initial_memory, plan)))
        inputs, time = shaped(len(plan.inputs) * plan.sites), shaped(2 * plan.sites)
        arguments = (constants, tuple(mixing), memory, inputs, time)
        if folder is not None:
            step = kept_trace(folder / f"{fingerprint(plan)}.jax", step, arguments)
        options: Any = compiler_options(jax_device(plan.device).platform, plan.sites * plan.options.layers)
        program: Program = step.lower(*arguments).compile(compiler_options=options)
        return program


def kept_trace(file: Path, function: Any, arguments: Any) -> Any:
    """Return a function as it was traced before, or trace it and keep that; reading takes a tenth of the time."""
    if file.is_file():
        with contextlib.suppress(Exception):  # of a damaged file, whatever JAX says of it
            return jax.jit(jax.export.deserialize(bytearray(file.read_bytes())).call)
    try:
        traced = jax.export.export(function)(*arguments)
        content = traced.serialize()
    except (
        ImportError,
        ValueError,
    ):  # without flatbuffers; of operations that JAX does not promise to read again
        return function
    with contextlib.suppress(OSError):
        part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
        part.write_bytes(content)
        part.replace(file)
    return jax.jit(traced.call)


def fingerprint(plan: Plan) -> str:
    """Return what changes with the plan, the code that is traced, JAX and the device."""
    home = Path(__file__).parent
    digest = hashlib.sha256(f"{jax.__version__} {jax_device(plan.device).device_kind} {plan!r}".encode())
    for source in sorted((*home.glob("*.py"), *(home.parent / "ball_berry").glob("*.py"))):
        digest.update(source.read_bytes())
    return digest.hexdigest()


def unpack(plan: Plan, flat: Array) -> Constants:
    """Undo `pack`."""
    leaves, start = [], 0
    for shape in plan.shapes:
        size = int(np.prod(shape))
        leaves.append(flat[start : start + size].reshape(shape))
        start += size
    result: Constants = jax.tree.unflatten(plan.structure, leaves)
    return result


def initial_memory(plan: Plan) -> Memory:
    """Return what is remembered before the first step."""
    kind = np.dtype(plan.dtype)
    return (*initial_state(plan.options, plan.sites, kind), jnp.zeros(plan.sites, kind))


def advance(
    plan: Plan,
    constants: Array,
    mixing: tuple[Array, ...],
    memory: Memory,
    inputs: Array,
    time: Array,
) -> tuple[Memory, Array]:
    """Advance by one step; see `Program`."""
    unpacked = unpack(plan, constants)
    temperature, started, sensible_heat = memory
    given = dict(zip(plan.inputs, inputs.reshape(-1, plan.sites), strict=True))
    monthly = dict(zip(plan.slow, unpacked.monthly, strict=True))
    day, hour = time.reshape(2, -1)
    forcing, height = make_forcing(
        given, monthly, (day, hour), unpacked.site.measurement_height, sensible_heat
    )
    site = unpacked.site._replace(canopy_height=forcing.canopy_height, measurement_height=height)
    canopy, fluxes = solve(
        plan.options,
        site,
        unpacked.parameters,
        Mixing(*mixing),
        State(temperature, started),
        forcing,
    )
    frozen = plan.options.kept().frozen_latent_heat
    rows = scalars(fluxes, given["temperature"], frozen_quirk=frozen)
    if plan.profiles:
        rows += profiles(fluxes.profiles)
    return (*canopy, fluxes.sensible_heat), jnp.concatenate(rows).astype(plan.dtype)


def solve(
    options: Options,
    site: Site,
    parameters: Parameters,
    mixing: Mixing,
    state: State,
    forcing: Forcing,
) -> tuple[State, Fluxes]:
    """Let the model take a step; where each site has a dispersion matrix of its own, each by itself."""
    if mixing.departures.ndim == 3:
        own = {row.name: getattr(parameters, row.name) for row in TABLE}

        def alone(mixing: Mixing, *of_site: Any) -> tuple[State, Fluxes]:
            place, values, state, forcing = jax.tree.map(lambda x: x[None], of_site)
            made = solve(
                options,
                place,
                parameters._replace(**values),
                mixing,
                state,
                forcing,
            )
            taken: tuple[State, Fluxes] = jax.tree.map(lambda x: x[0], made)
            return taken

        found: tuple[State, Fluxes] = jax.vmap(alone)(mixing, site, own, state, forcing)
        return found
    return run_step(options, site, parameters, mixing, forcing, state)


def scalars(fluxes: Fluxes, air_temperature: Array, *, frozen_quirk: bool) -> list[Array]:
    """Return the outputs of `names.SCALARS`, each ``[site]``; the depth as a rate, m s-1."""
    heat = latent_heat_of_vaporisation(air_temperature, frozen_quirk=frozen_quirk)
    evapotranspiration = fluxes.latent_heat / heat  # kg m-2 s-1, which is mm s-1
    return [
        evapotranspiration / 1000.0,
        evapotranspiration,
        fluxes.latent_heat,
        fluxes.sensible_heat,
        fluxes.soil_heat,
        fluxes.net_radiation,
        fluxes.net_ecosystem_exchange,
        fluxes.gross_primary_production,
        fluxes.canopy_conductance,
        fluxes.soil_respiration,
        fluxes.soil_surface_temperature - FREEZING,
        fluxes.converged,
    ]


def profiles(found: Profiles) -> list[Array]:
    """Return the outputs of `names.PROFILES`, each ``[layer * site]``."""
    converted = found._replace(
        air_temperature=found.air_temperature - FREEZING,
        vapour_pressure=found.vapour_pressure / 1000.0,
        sunlit_temperature=found.sunlit_temperature - FREEZING,
        shaded_temperature=found.shaded_temperature - FREEZING,
    )
    return [profile.T.reshape(-1) for profile in converted]


@contextmanager
def kept_programs() -> Iterator[Path | None]:
    """Keep what is compiled within on disk; the folder is given, or None where it cannot be written.

    Where the user has told JAX to keep compiled programs, JAX does as told. The folder is
    ``bmi_components/programs`` in ``XDG_CACHE_HOME`` (or ``~/.cache``). Afterwards JAX is as it was.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bmi_components" / "programs"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    config: Any = jax.config
    if config.jax_compilation_cache_dir is not None or not writable:
        yield folder if writable else None
        return
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(config, name) for name in settings}
    compilation_cache.reset_cache()
    for name, value in settings.items():
        config.update(name, value)
    try:
        yield folder
    finally:
        for name, value in before.items():
            config.update(name, value)
        compilation_cache.reset_cache()
