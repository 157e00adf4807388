"""The contract kit: what every component promises, checked from outside, for yours as for ours.

from bmi_components.testing import check_component, run_bmi_tester

def test_my_component(tmp_path):
    check_component(MyComponent, tmp_path / "config.yaml")
    run_bmi_tester("my_package:MyComponent", tmp_path / "config.yaml")
"""

from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bmipy
import numpy as np
from numpy.typing import NDArray

from bmi_components.ngen_adapter import ContractError, NgenAdapter
from bmi_components.units import converter
from bmi_components.variables import CATALOGUE

__all__ = ["ContractError", "NgenAdapter", "check_component", "run_bmi_tester", "sample_ranges"]

_STANDARD_NAME = re.compile(
    r"[a-z][a-zA-Z0-9]*(?:[-~_][a-zA-Z0-9]+)*__[a-z][a-zA-Z0-9]*(?:[-~_][a-zA-Z0-9]+)*\Z"
)

_USUAL: Mapping[str, tuple[float, float]] = {
    "precipitation": (0.0, 20.0),
    "temperature": (-5.0, 25.0),
    "potential_evapotranspiration": (0.0, 5.0),
    "specific_humidity": (0.002, 0.012),
    "pressure": (95_000.0, 102_000.0),
    "shortwave": (0.0, 500.0),
    "longwave": (250.0, 400.0),
    "wind_x": (-5.0, 5.0),
    "wind_y": (-5.0, 5.0),
    "vapour_pressure": (0.5, 2.0),
    "wind_speed": (1.0, 5.0),
    "friction_velocity": (0.1, 0.6),
    "carbon_dioxide": (380.0, 420.0),
    "leaf_area_index": (1.0, 4.0),
    "canopy_height": (1.0, 20.0),
    "soil_water_content": (0.1, 0.4),
    "soil_temperature": (5.0, 20.0),
    "net_assimilation": (1.0, 20.0),
    "leaf_relative_humidity": (0.3, 0.9),
    "leaf_carbon_dioxide": (300.0, 400.0),
    "photosynthetic_photon_flux": (0.0, 1_500.0),
    "snow_depth": (0.0, 0.1),
    "wind_direction": (0.0, 360.0),
    "relative_humidity": (30.0, 90.0),
    "observed_sea_surface_elevation": (-1.0, 1.0),
}
"""Everyday values by symbol, in the catalogue's units."""

Forcing = dict[str, NDArray[np.float64]]


def sample_ranges(component: bmipy.Bmi) -> dict[str, tuple[float, float]]:
    """Return everyday ranges for the inputs of an initialized component, in the component's units.

    A name that the catalogue does not have gets 0 to 1.
    """
    known = {entry.name: entry for entry in CATALOGUE.values()}
    ranges: dict[str, tuple[float, float]] = {}
    for name in component.get_input_var_names():
        entry = known.get(name)
        if entry is None or entry.symbol not in _USUAL:
            ranges[name] = (0.0, 1.0)
            continue
        convert = converter(entry.units, component.get_var_units(name))
        low, high = (convert(bound) for bound in _USUAL[entry.symbol])
        ranges[name] = (low, high)
    return ranges


def check_component(
    component: type[bmipy.Bmi],
    config_file: str | Path,
    *,
    forcing: Mapping[str, tuple[float, float]] | None = None,
    parameters: Mapping[str, float] | None = None,
    steps: int = 3,
    parts: int = 24,
    parts_tolerance: float = 0.0,
    mass_tolerance: float = 1e-9,
    seed: int = 0,
) -> None:
    """Check everything that a component promises to its callers.

    Parameters
    ----------
    component
        The class, constructed without arguments.
    config_file
        A configuration that it initializes from; the run must last ``4 * steps`` model steps.
    forcing
        Ranges of inputs that are to be drawn otherwise than ``sample_ranges`` does.
    parameters
        Unpublished parameters or attributes by name, each with a value to set it to, to be checked as well.
    steps
        Model steps of each comparison.
    parts
        Into how many parts one step is cut.
    parts_tolerance
        Relative difference allowed between a step cut into parts under constant inputs and the step in one; 0 means
        bit for bit. Raise it where the forcing within a step depends on the hour (an hourly evaporation formula).
    mass_tolerance
        Metres that the mass balance may be off, where the component has one.
    seed
        Of the random inputs.

    Raises
    ------
    ContractError
        With one sentence per broken promise.
    """
    name = getattr(component, "__name__", str(component))
    try:
        kit = _Kit(
            component,
            str(config_file),
            forcing or {},
            parameters or {},
            steps,
            parts,
            parts_tolerance,
            mass_tolerance,
            seed,
        )
    except Exception as error:
        raise ContractError(
            f"{name} does not open with sound variables: {type(error).__name__}: {error}"
        ) from error
    broken: list[str] = []
    for check in _CHECKS:
        try:
            check(kit)
        except ContractError as error:
            broken.append(str(error))
        except Exception as error:
            what = check.__name__.removeprefix("_check_").replace("_", " ")
            broken.append(f"{what}: {type(error).__name__} was raised: {error}")
    if broken:
        raise ContractError(
            f"{name} breaks {len(broken)} promise(s):\n" + "\n".join(f"- {sentence}" for sentence in broken)
        )


def run_bmi_tester(component: str, config_file: str | Path) -> str:
    """Run CSDMS's bmi-tester on ``package.module:Class`` in a process of its own and return its report.

    Raises
    ------
    ContractError
        If a test fails, or if bmi-tester would silently skip the tests of units (gimli.units 0.4 or later).
    """
    folder = Path(str(importlib.import_module("bmi_tester").__file__)).parent
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    # Its stage folders look for their conftest from a common root, and settings of enclosing projects leak in.
    environment["PYTEST_ADDOPTS"] = f"-c {os.devnull} --rootdir={folder} -p no:cacheprovider -rs"
    environment.pop("PYTEST_CURRENT_TEST", None)
    guard = (
        "from bmi_tester.api import WITH_GIMLI_UNITS, check_unit_is_valid as valid\n"
        "raise SystemExit(not (WITH_GIMLI_UNITS and valid('mm d-1') and not valid('no such unit')))"
    )
    if subprocess.run([sys.executable, "-c", guard], env=environment, check=False).returncode:
        raise ContractError("bmi-tester cannot check units here: install gimli.units>=0.3.2,<0.4")
    with tempfile.TemporaryDirectory() as stage:
        Path(stage, "config.yaml").write_bytes(Path(config_file).read_bytes())  # the stage must not be empty
        command = [sys.executable, "-m", "bmi_tester", component, "--root-dir", stage]
        command += ["--config-file", str(Path(config_file).resolve())]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    if done.returncode != 0 or "All tests passed" not in report:
        raise ContractError(f"bmi-tester fails {component} (exit code {done.returncode}):\n{report}")
    return report


class _Kit:
    """One component under test, with what the checks need again and again."""

    def __init__(
        self,
        component: type[bmipy.Bmi],
        config_file: str,
        forcing: Mapping[str, tuple[float, float]],
        parameters: Mapping[str, float],
        steps: int,
        parts: int,
        parts_tolerance: float,
        mass_tolerance: float,
        seed: int,
    ) -> None:
        self.component = component
        self.config_file = config_file
        self.parameters = parameters
        self.steps = steps
        self.parts = parts
        self.parts_tolerance = parts_tolerance
        self.mass_tolerance = mass_tolerance
        self.seed = seed
        model = self.open()
        self.inputs = tuple(model.get_input_var_names())
        self.outputs = tuple(model.get_output_var_names())
        self.ranges = {**sample_ranges(model), **forcing}
        self.sizes = {
            name: model.get_var_nbytes(name) // model.get_var_itemsize(name) for name in self.everything
        }
        self.time_step = float(model.get_time_step())
        model.finalize()

    @property
    def everything(self) -> tuple[str, ...]:
        """Names of all published variables."""
        return (*self.inputs, *self.outputs)

    def open(self) -> Any:
        """Return a new, initialized component."""
        model = self.component()
        model.initialize(self.config_file)
        return model

    def weather(self, count: int, seed: int = 0) -> list[Forcing]:
        """Draw inputs for so many intervals."""
        random = np.random.default_rng([self.seed, seed])
        return [
            {name: random.uniform(*self.ranges[name], self.sizes[name]) for name in self.inputs}
            for _ in range(count)
        ]

    def set(self, model: Any, forcing: Forcing) -> None:
        """Set all inputs."""
        for name, values in forcing.items():
            model.set_value(name, values)

    def read(self, model: Any, names: tuple[str, ...] | None = None) -> dict[str, NDArray[Any]]:
        """Copy values."""
        return {
            name: np.array(
                model.get_value(name, np.full(self.sizes[name], -7.0, dtype=model.get_var_type(name)))
            )
            for name in (self.outputs if names is None else names)
        }

    def run(self, model: Any, series: list[Forcing]) -> list[dict[str, NDArray[Any]]]:
        """Step through a series and return the outputs after each step."""
        results = []
        for forcing in series:
            self.set(model, forcing)
            model.update()
            results.append(self.read(model))
        return results

    def save(self, model: Any) -> NDArray[np.uint8]:
        """Take a saved state through BMI variables (NextGen's pull request 957)."""
        model.set_value("ngen::serialization_create", np.ones(1, dtype=np.int32))
        size = model.get_value("ngen::serialization_size", np.zeros(1, dtype=np.int64))
        state = np.array(model.get_value_ptr("ngen::serialization_state"))
        _promise(
            state.dtype == np.uint8 and state.shape == (int(size[0]),),
            "a saved state is as long as its size says",
        )
        model.set_value("ngen::serialization_free", np.ones(1, dtype=np.int32))
        return state

    def restore(self, model: Any, state: NDArray[np.uint8]) -> None:
        """Continue from a saved state."""
        model.set_value("ngen::serialization_size", np.array([state.size], dtype=np.int64))
        model.set_value("ngen::serialization_state", state.copy())


def _promise(kept: bool, sentence: str) -> None:
    if not kept:
        raise ContractError(f"broken promise: {sentence}")


def _refused(sentence: str, action: Callable[..., Any], *arguments: Any) -> None:
    """A call must raise an ordinary exception; not one that hints at a crash inside."""
    try:
        action(*arguments)
    except (AttributeError, SystemError, KeyboardInterrupt, SystemExit) as error:
        raise ContractError(f"broken promise: {sentence} (it crashed instead: {error!r})") from None
    except Exception:
        return
    raise ContractError(f"broken promise: {sentence} (nothing was raised)")


def _same(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], tolerance: float = 0.0
) -> str:
    """Return the first name whose values differ, or nothing."""
    for name, values in first.items():
        if tolerance == 0.0:
            if values.tobytes() != second[name].tobytes():
                return name
        elif not np.allclose(values, second[name], rtol=tolerance, atol=tolerance * 1e-3, equal_nan=True):
            return name
    return ""


def _promise_same(
    first: Mapping[str, NDArray[Any]],
    second: Mapping[str, NDArray[Any]],
    sentence: str,
    tolerance: float = 0.0,
) -> None:
    name = _same(first, second, tolerance)
    _promise(
        not name,
        f"{sentence}; {name!r} gives {second.get(name)} instead of {first.get(name)}" if name else "",
    )


# ---------------------------------------------------------------- the checks, one per group of BMI functions


def _check_life_cycle(kit: _Kit) -> None:
    model: Any = kit.component()
    _promise(isinstance(model, bmipy.Bmi), "a component is a bmipy.Bmi")
    _promise(
        isinstance(model.get_component_name(), str), "get_component_name is text, also before initialize"
    )
    model.finalize()
    _refused("update before initialize is an error", model.update)
    _refused("get_input_var_names before initialize is an error", model.get_input_var_names)
    _refused("an absent configuration file is an error", model.initialize, "no such file.yaml")
    model.initialize(kit.config_file)  # a failed initialize leaves a usable object
    series = kit.weather(2)
    first = kit.run(model, series)
    model.initialize(kit.config_file)
    again = kit.run(model, series)
    _promise(model.get_current_time() == 2 * kit.time_step, "initialize again starts at time 0 again")
    _promise_same(first[-1], again[-1], "initialize again starts from the same state")
    model.finalize()
    model.finalize()
    _refused("update after finalize is an error", model.update)


def _check_names(kit: _Kit) -> None:
    model = kit.open()
    for names, count in (
        (model.get_input_var_names(), model.get_input_item_count()),
        (model.get_output_var_names(), model.get_output_item_count()),
    ):
        _promise(
            isinstance(names, tuple) and all(type(name) is str for name in names), "names are a tuple of text"
        )
        _promise(type(count) is int and count == len(names), "the item count is the number of names")
    _promise(len(kit.outputs) > 0, "there is at least one output")
    _promise(len(set(kit.everything)) == len(kit.everything), "no name is used twice")
    for name in kit.everything:
        _promise(_STANDARD_NAME.match(name) is not None, f"{name!r} has the form of a CSDMS Standard Name")
        _promise("::" not in name, f"framework variables such as {name!r} are not published")


def _check_metadata(kit: _Kit) -> None:
    model = kit.open()
    for name in kit.everything:
        kind, itemsize, nbytes = (
            model.get_var_type(name),
            model.get_var_itemsize(name),
            model.get_var_nbytes(name),
        )
        _promise(
            (kind, itemsize) in (("float64", 8), ("float32", 4), ("int", 8)), f"NextGen can read {name!r}"
        )
        _promise(type(itemsize) is int and type(nbytes) is int, f"the sizes of {name!r} are Python ints")
        pointer = model.get_value_ptr(name)
        _promise(
            nbytes == pointer.nbytes and nbytes % itemsize == 0 and nbytes > 0,
            f"{name!r} has its {nbytes} bytes",
        )
        converter(model.get_var_units(name), model.get_var_units(name))
        grid, location = model.get_var_grid(name), model.get_var_location(name)
        _promise(type(grid) is int, f"the grid of {name!r} is an int")
        _promise(location in ("node", "edge", "face"), f"the location of {name!r} is node, edge or face")
        count = getattr(model, f"get_grid_{location}_count")(grid)
        _promise(count == pointer.size, f"{name!r} has one value per {location} of its grid: {count}")
    for function in ("type", "units", "itemsize", "nbytes", "grid", "location"):
        ask = getattr(model, f"get_var_{function}")
        _refused(f"get_var_{function} of an unknown name is an error", ask, "no_such__variable")


def _check_time(kit: _Kit) -> None:
    model = kit.open()
    times = [model.get_start_time(), model.get_current_time(), model.get_end_time(), model.get_time_step()]
    _promise(all(type(time) is float for time in times), "times are Python floats")
    _promise(times[0] == times[1] == 0.0, "the start time and the first current time are 0.0")
    _promise(times[2] > 0.0 and times[3] > 0.0, "the end time and the time step are positive")
    _promise(model.get_time_units() == "s", "time is in seconds")
    for index, forcing in enumerate(kit.weather(kit.steps)):
        kit.set(model, forcing)
        model.update()
        _promise(
            model.get_current_time() == (index + 1) * kit.time_step, "k updates take k time steps exactly"
        )


def _check_values(kit: _Kit) -> None:
    model = kit.open()
    (forcing,) = kit.weather(1)
    pointers = {name: model.get_value_ptr(name) for name in kit.everything}
    for name, pointer in pointers.items():
        good = pointer.ndim == 1 and pointer.flags.c_contiguous and pointer.flags.writeable
        _promise(good, f"get_value_ptr({name!r}) is one-dimensional, contiguous and writable")
    kit.set(model, forcing)
    model.update()
    for name, pointer in pointers.items():
        _promise(
            model.get_value_ptr(name) is pointer,
            f"get_value_ptr({name!r}) is the same array for the whole run",
        )
        dest = np.full(pointer.size, -7.0, dtype=pointer.dtype)
        _promise(model.get_value(name, dest) is dest, f"get_value({name!r}) returns dest")
        _promise(dest.tobytes() == pointer.tobytes(), f"get_value({name!r}) fills dest")
        inds = np.array([pointer.size - 1, 0], dtype=np.int32)
        dest = np.full(2, -7.0, dtype=pointer.dtype)
        _promise(
            model.get_value_at_indices(name, dest, inds) is dest,
            f"get_value_at_indices({name!r}) returns dest",
        )
        _promise(dest.tobytes() == pointer[inds].tobytes(), f"get_value_at_indices({name!r}) fills dest")
        outside = np.array([pointer.size], dtype=np.int32)
        one = np.zeros(1, dtype=pointer.dtype)
        _refused(f"an index outside {name!r} is an error", model.get_value_at_indices, name, one, outside)
        _refused(
            f"get_value({name!r}) into an array of another length is an error",
            model.get_value,
            name,
            np.zeros(pointer.size + 1),
        )
    for name in kit.inputs:
        _promise(pointers[name].tobytes() == forcing[name].tobytes(), f"set_value({name!r}) can be read back")
        before = pointers[name].copy()
        size = pointers[name].size
        for wrong in (
            np.zeros(size + 1),
            np.zeros(0),
            np.array(["rain"] * size),
            np.array([None] * size),
            "rain",
            None,
        ):
            _refused(
                f"set_value({name!r}) of {size + 1} values, of none, of text or of None is an error",
                model.set_value,
                name,
                wrong,
            )
        _promise(
            pointers[name].tobytes() == before.tobytes(), f"a refused set_value({name!r}) changes nothing"
        )
        model.set_value(name, before.astype(np.float32))
        model.set_value(name, list(before))
        _promise(pointers[name].tobytes() == before.tobytes(), f"set_value({name!r}) takes lists and float32")
        model.set_value_at_indices(name, np.array([size - 1], dtype=np.int32), before[-1:])
        _refused(
            f"set_value_at_indices outside {name!r} is an error",
            model.set_value_at_indices,
            name,
            np.array([size]),
            np.zeros(1),
        )
        own = before.copy()
        model.set_value(name, own)
        own += 1.0
        _promise(
            pointers[name].tobytes() == before.tobytes(),
            f"set_value({name!r}) copies: the caller's array is free",
        )
    _refused("set_value of an unknown name is an error", model.set_value, "no_such__variable", np.zeros(1))
    _refused("get_value_ptr of an unknown name is an error", model.get_value_ptr, "no_such__variable")


def _check_grids(kit: _Kit) -> None:
    model = kit.open()
    for grid in sorted({model.get_var_grid(name) for name in kit.everything}):
        rank, size, kind = model.get_grid_rank(grid), model.get_grid_size(grid), model.get_grid_type(grid)
        _promise(type(rank) is int and type(size) is int, f"rank and size of grid {grid} are Python ints")
        nodes, edges, faces = (
            getattr(model, f"get_grid_{part}_count")(grid) for part in ("node", "edge", "face")
        )
        _promise(kind in ("scalar", "unstructured"), f"grid {grid} is a scalar or unstructured")
        _promise(rank == (0 if kind == "scalar" else 2), f"the rank of grid {grid} is that of its type")
        if kind == "scalar":
            continue
        _promise(size == nodes, f"the size of the unstructured grid {grid} is its number of nodes")
        for axis in "xy":
            values = np.full(nodes, np.nan)
            _promise(
                getattr(model, f"get_grid_{axis}")(grid, values) is values,
                f"get_grid_{axis} returns its array",
            )
            _promise(bool(np.isfinite(values).all()), f"get_grid_{axis} fills its array with numbers")
        per_face = np.full(faces, -1, dtype=np.int32)
        _promise(
            model.get_grid_nodes_per_face(grid, per_face) is per_face,
            "get_grid_nodes_per_face returns its array",
        )
        _promise(bool((per_face >= 3).all()), "a face has at least three nodes")
        corners = int(per_face.sum())
        for what, length, limit in (
            ("edge_nodes", 2 * edges, nodes),
            ("face_edges", corners, edges),
            ("face_nodes", corners, nodes),
        ):
            members = np.full(length, -1, dtype=np.int32)
            _promise(
                getattr(model, f"get_grid_{what}")(grid, members) is members,
                f"get_grid_{what} returns its array",
            )
            _promise(
                bool(((members >= 0) & (members < limit)).all()),
                f"get_grid_{what} fills its array with indices",
            )
    _refused("an unknown grid is an error", model.get_grid_type, 99)


def _check_update_until(kit: _Kit) -> None:
    step, parts, tolerance = kit.time_step, kit.parts, kit.parts_tolerance
    (forcing,) = kit.weather(1)
    stepped, jumped, cut = kit.open(), kit.open(), kit.open()
    for model in (stepped, jumped, cut):
        kit.set(model, forcing)
    for _ in range(kit.steps):
        stepped.update()
    jumped.update_until(kit.steps * step)
    _promise(
        jumped.get_current_time() == kit.steps * step, "update_until reaches exactly the time it is given"
    )
    names = _reported_values(kit, stepped)
    _promise_same(
        kit.read(stepped, names),
        kit.read(jumped, names),
        "update_until over several steps equals as many updates",
    )
    for index in range(kit.steps * parts):
        # As NextGen computes times: the last one of each step is the step's end up to rounding.
        target = (index + 1) * step / parts
        cut.update_until(target)
        _promise(cut.get_current_time() == target, "update_until reaches exactly the time it is given")
    _promise_same(
        kit.read(stepped, names),
        kit.read(cut, names),
        f"a step cut into {parts} parts under constant inputs equals the step in one",
        tolerance,
    )
    cut.update_until(cut.get_current_time() + 0.3 * step)
    before = cut.get_current_time()
    cut.update()
    _promise(
        math.isclose(cut.get_current_time(), before + step, rel_tol=1e-15),
        "update amid a step takes one time step",
    )
    now = cut.get_current_time()
    for bad in (now - 1.0, -1.0, math.nan, math.inf):
        _refused(f"update_until to {bad} s from {now} s is an error", cut.update_until, bad)
    _promise(cut.get_current_time() == now, "a refused update_until leaves the time as it is")
    cut.update_until(now)
    _promise(cut.get_current_time() == now, "update_until to the present changes nothing")


def _reported_values(kit: _Kit, model: Any) -> tuple[str, ...]:
    """Outputs that are values at a time; amounts and means over an update depend on how time is cut."""
    return tuple(
        name
        for name in kit.outputs
        if not _says(model, name, "per_update") and not _says(model, name, "mean_over_update")
    )


def _check_bad_forcing(kit: _Kit) -> None:
    model = kit.open()
    if not kit.inputs:
        return
    series = kit.weather(2)
    expected = kit.run(kit.open(), series)
    kit.run(model, series[:1])
    state = kit.read(model)
    for name in kit.inputs:
        for bad in (np.nan, np.inf, -np.inf):
            kit.set(model, series[1])
            wrong = series[1][name].copy()
            wrong[-1] = bad
            model.set_value(name, wrong)
            if np.isnan(bad) and _nan_is_data(model, name):
                continue
            _refused(f"an update with {bad} in {name!r} is an error", model.update)
            _refused(
                f"an update_until with {bad} in {name!r} is an error",
                model.update_until,
                1.5 * kit.time_step,
            )
            _promise(model.get_current_time() == kit.time_step, "a refused update leaves the time as it is")
            _promise_same(state, kit.read(model), "a refused update leaves the outputs as they are")
    last = kit.run(model, series[1:])
    _promise_same(
        expected[-1], last[-1], "after refused updates the component goes on as if nothing had happened"
    )
    fresh = kit.open()
    if not all(_nan_is_data(fresh, name) for name in kit.inputs):
        _refused("an update before the inputs are set is an error", fresh.update)


def _nan_is_data(model: Any, name: str) -> bool:
    return _says(model, name, "nan_is_data")


def _says(model: Any, name: str, flag: str) -> bool:
    """What our components say about a variable; those of others say nothing, which means no."""
    return bool(getattr(getattr(model, "variables", {}).get(name), flag, False))


def _check_isolation(kit: _Kit) -> None:
    one, other = kit.weather(kit.steps, 1), kit.weather(kit.steps, 2)
    alone = [kit.run(kit.open(), one)[-1], kit.run(kit.open(), other)[-1]]
    first, second = kit.open(), kit.open()
    for forcings in zip(one, other, strict=True):
        for model, forcing in zip((first, second), forcings, strict=True):
            kit.set(model, forcing)
        first.update()
        second.update()
    _promise_same(alone[0], kit.read(first), "two components in one process do not touch each other")
    _promise_same(alone[1], kit.read(second), "two components in one process do not touch each other")


def _check_restart(kit: _Kit) -> None:
    before, after, other = kit.weather(kit.steps, 3), kit.weather(kit.steps, 4), kit.weather(kit.steps, 5)
    for part in (0.0, 0.4):
        going, restarted = kit.open(), kit.open()
        kit.run(going, before)
        kit.run(restarted, other)
        if part:
            kit.set(going, after[0])
            going.update_until((kit.steps + part) * kit.time_step)
            kit.set(restarted, other[0])
            restarted.update_until((kit.steps + part) * kit.time_step)
        now = kit.read(going)
        state = kit.save(going)
        _promise_same(now, kit.read(going), "saving a state changes nothing")
        kit.restore(restarted, state)
        where = "amid a step" if part else "after a step"
        _promise(
            restarted.get_current_time() == (kit.steps + part) * kit.time_step,
            "restoring a state leaves the clock",
        )
        _promise_same(now, kit.read(restarted), f"a state saved {where} restores the outputs")
        for forcing in after:
            for model in (going, restarted):
                kit.set(model, forcing)
                model.update()
            _promise_same(
                kit.read(going),
                kit.read(restarted),
                f"a run restarted {where} goes on bit for bit like the run itself",
            )
        damaged = state.copy()
        damaged[damaged.size // 2] ^= 1
        _refused("a damaged state is an error", kit.restore, restarted, damaged)
        _refused("a state that is cut short is an error", kit.restore, restarted, state[:-5])
        _promise_same(kit.read(going), kit.read(restarted), "a refused state changes nothing")
        kit.set(going, before[0])
        kit.set(restarted, before[0])
        going.update()
        restarted.update()
        _promise_same(kit.read(going), kit.read(restarted), "a refused state changes nothing")


def _check_parameters(kit: _Kit) -> None:
    model = kit.open()
    for name, value in kit.parameters.items():
        _promise(name not in kit.everything, f"the parameter {name!r} is not published")
        _promise(model.get_var_type(name) == "float64", f"the parameter {name!r} is float64")
        count = model.get_var_nbytes(name) // model.get_var_itemsize(name)
        converter(model.get_var_units(name), model.get_var_units(name))
        model.set_value(name, np.array([value]))
        values = model.get_value(name, np.zeros(count))
        _promise(
            bool(np.allclose(values, value, rtol=1e-6)),
            f"the parameter {name!r} can be set late and read back",
        )
        _refused(
            f"too many values for the parameter {name!r} are an error",
            model.set_value,
            name,
            np.zeros(count + 1),
        )
        _refused(
            f"NaN for the parameter {name!r} is an error",
            model.set_value,
            name,
            np.full(count, np.nan),
        )
    kit.run(model, kit.weather(1))


def _check_nextgen(kit: _Kit) -> None:
    # NextGen calls by the hour; of a model of much shorter steps, which nobody would run there, a few steps will do.
    call = 3600.0 if kit.time_step >= 60.0 else 4.0 * kit.time_step
    calls = 2 * math.ceil(max(kit.time_step, call) / call)
    probe = kit.open()
    try:
        balance = probe.get_var_type("ngen::mass_in") == "float64"
    except Exception:  # what NextGen does when it asks whether the protocol is supported
        balance = False
    for caching in (False, True):
        adapter = NgenAdapter(
            kit.component,
            kit.config_file,
            model_params=dict(kit.parameters),
            mass_balance=balance,
            cache_input_metadata=caching,
            time_step=call,
        )
        for forcing in kit.weather(calls, 6):
            for name, value in adapter.step(forcing).items():
                known_later = math.isnan(value) and _nan_is_data(adapter.model, name)
                _promise(
                    math.isfinite(value) or known_later,
                    f"{name!r} is a number after every hour in NextGen (it is {value})",
                )
            for name in adapter.output_names:
                adapter.array(name)
            if balance:
                gain, loss, stored, leaked = adapter.mass.values()
                error = gain - loss - stored - leaked
                _promise(
                    abs(error) <= kit.mass_tolerance, f"the mass balance closes (it is off by {error:g} m)"
                )
        adapter.finalize()


_CHECKS: tuple[Callable[[_Kit], None], ...] = (
    _check_life_cycle,
    _check_names,
    _check_metadata,
    _check_time,
    _check_values,
    _check_grids,
    _check_update_until,
    _check_bad_forcing,
    _check_isolation,
    _check_restart,
    _check_parameters,
    _check_nextgen,
)
