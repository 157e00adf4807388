"""The modules of a formulation as objects: one for all catchments where their configurations let it, else one each."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.errors import BmiComponentsError, ConfigurationError
from bmi_components.nextgen.hydrofabric import Divide
from bmi_components.nextgen.kinds import hint_about
from bmi_components.nextgen.realization import STEP, MassBalanceParams, ModuleParams

__all__ = ["PLACES", "BalanceCheck", "Module", "load_class", "open_module"]

Array = NDArray[np.float64]

PLACES = ("catchments", "sites", "towers")
"""Settings that list what a component is bound to: where they hold one, many components can become one."""
MASS = ("ngen::mass_in", "ngen::mass_out", "ngen::mass_stored", "ngen::mass_leaked")
_FIRST = np.zeros(1, dtype=np.int32)


@dataclass
class Instance:
    """One object and the catchments it computes."""

    model: Any
    members: NDArray[np.intp]
    names: tuple[str, ...]

    def advance(self) -> None:
        """Step by an hour as ngen does: ``update`` where that is the model's step, else ``update_until``."""
        model = self.model
        if float(model.get_time_step()) == STEP:
            model.update()
        else:
            model.update_until(float(model.get_current_time()) + STEP)

    def read(self, name: str, into: Array) -> None:
        """Copy an output, one value per catchment; of arrays the first element, as ngen does."""
        if self.members.size == 1:
            one = np.empty(1)
            self.model.get_value_at_indices(name, one, _FIRST)
            into[self.members] = one
        else:
            into[self.members] = self.model.get_value_ptr(name)

    def explain(self, error: Exception, what: str) -> BmiComponentsError:
        """Return an error of ours that names the catchment."""
        if not isinstance(error, BmiComponentsError):
            who = self.names[0] if len(self.names) == 1 else "the catchments"
            return ConfigurationError(f"{what}: the module of {who} raised {type(error).__name__}: {error}")
        text = str(error)
        if len(self.names) == 1:
            return type(error)(f"{self.names[0]}, {what}: {text}")

        def named(found: re.Match[str]) -> str:
            index = int(found[1])
            return self.names[index] if index < len(self.names) else found[0]

        return type(error)(f"{what}: " + re.sub(r"catchment (\d+)(?![\w-])", named, text))


@dataclass
class Module:
    """One module of a formulation over some catchments.

    Attributes
    ----------
    params
        What the realization says.
    instances
        The objects.
    size
        Number of catchments.
    inputs, outputs
        Names.
    units
        By name.
    settings
        What a component of this package is configured with, by catchment; empty for others.
    values
        Outputs after the latest step, ``[catchment]`` by name.
    """

    params: ModuleParams
    instances: list[Instance]
    size: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    units: Mapping[str, str]
    settings: Mapping[str, Any]
    values: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.values = {name: np.zeros(self.size) for name in self.outputs}
        self.refresh()

    def step(self, inputs: Mapping[str, Array], when: str) -> None:
        """Set the inputs, ``[catchment]`` by name, advance by an hour, and read the outputs."""
        for instance in self.instances:
            try:
                for name, values in inputs.items():
                    instance.model.set_value(name, values[instance.members])
                instance.advance()
            except Exception as error:
                raise instance.explain(error, when) from error
        self.refresh()

    def mass(self) -> Array:
        """Return the cumulative balance of every catchment, ``[in, out, stored, leaked; catchment]``, m."""
        terms = np.empty((4, self.size))
        for instance in self.instances:
            if instance.members.size == 1:
                terms[:, instance.members[0]] = [float(instance.model.get_value_ptr(n)[0]) for n in MASS]
            else:
                terms[:, instance.members] = _balance_of(instance.model)() * 1e-3  # from mm
        return terms

    def save(self, folder: Path) -> None:
        """Save the state of every object."""
        for number, instance in enumerate(self.instances):
            instance.model.save_state(folder / f"{number}.state")

    def load(self, folder: Path) -> None:
        """Go on from saved states."""
        for number, instance in enumerate(self.instances):
            instance.model.load_state(folder / f"{number}.state", restore_clock=True)
        self.refresh()

    @property
    def keeps_balance(self) -> bool:
        """Whether the module speaks ngen's mass balance protocol."""
        return all(_keeps_balance(instance.model) for instance in self.instances)

    @property
    def can_be_saved(self) -> bool:
        """Whether every object is one of ours, whose state can be saved."""
        return all(isinstance(instance.model, Component) for instance in self.instances)

    def finalize(self) -> None:
        """End the run."""
        for instance in self.instances:
            instance.model.finalize()

    def refresh(self) -> None:
        """Read the outputs as they are now."""
        for name, values in self.values.items():
            for instance in self.instances:
                instance.read(name, values)


def load_class(params: ModuleParams) -> type[Any]:
    """Import the class that ``python_type`` names.

    Raises
    ------
    ConfigurationError
        If there is none, or importing it fails.
    """
    key = f"{params.place}.python_type"
    module, _, name = params.python_type.rpartition(".")
    if not module:
        raise ConfigurationError(f"{key} is {params.python_type!r}; ngen needs module.Class")
    if params.module_path is not None:
        if not Path(params.module_path).is_dir():
            raise ConfigurationError(f"{params.place}.module_path: there is no folder {params.module_path}")
        if params.module_path not in sys.path:
            sys.path.append(params.module_path)
    try:
        found = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigurationError(f"{key}: {module} cannot be imported by this Python ({error})") from None
    except AttributeError:
        raise ConfigurationError(f"{key}: there is no class {name!r} in {module}") from None
    if not isinstance(found, type):
        raise ConfigurationError(f"{key}: {params.python_type} is not a class")
    return found


def open_module(
    params: ModuleParams,
    catchments: Sequence[str],
    divides: Mapping[str, Divide],
    scratch: Path,
    *,
    batch: bool,
) -> Module:
    """Make and initialize the objects of a module.

    Parameters
    ----------
    params
        What the realization says.
    catchments
        The catchments, in order.
    divides
        What the hydrofabric knows of them, for ``model_params``.
    scratch
        Folder for the joint configurations of batched objects.
    batch
        Whether one object may compute several catchments.

    Raises
    ------
    BmiComponentsError
        If the class, a configuration or a parameter is wrong.
    """
    kind = load_class(params)
    configs = {name: Path(params.init_config.replace("{{id}}", name)).absolute() for name in catchments}
    for name, path in configs.items():
        if not path.exists() or path.is_dir():  # /dev/null is how realizations say "none"
            raise ConfigurationError(
                f"{params.place}.init_config: there is no {path}, the configuration of {name}; ngen looks from the "
                "folder in which it is started"
            )
    settings = _read_settings(kind, configs) if issubclass(kind, Component) else {}
    if batch and settings:
        groups = _groups(kind, params, catchments, configs, settings, scratch)
    else:
        groups = [((index,), None, configs[name]) for index, name in enumerate(catchments)]
    instances = []
    for members, model, config in groups:
        instance = Instance(
            model or kind(), np.array(members, dtype=np.intp), tuple(catchments[i] for i in members)
        )
        try:
            if model is None:
                instance.model.initialize(str(config))
            _set_params(instance, params, divides)
        except Exception as error:
            raise instance.explain(error, params.place) from error
        instances.append(instance)
    return _checked(params, instances, len(catchments), settings)


def _checked(
    params: ModuleParams, instances: list[Instance], size: int, settings: Mapping[str, Any]
) -> Module:
    first = instances[0].model
    inputs = tuple(str(name) for name in first.get_input_var_names())
    outputs = tuple(str(name) for name in first.get_output_var_names())
    for instance in instances[1:]:
        model = instance.model
        if (tuple(model.get_input_var_names()), tuple(model.get_output_var_names())) != (inputs, outputs):
            raise ConfigurationError(
                f"{params.place}: the module of {instance.names[0]} has other variables than that of "
                f"{instances[0].names[0]}; configurations of one formulation must agree in them"
            )
    if str(first.get_time_units()) not in ("s", "sec", "second", "seconds"):
        raise ConfigurationError(
            f"{params.place}: {params.python_type} counts time in {first.get_time_units()!r}; seconds are needed here"
        )
    units = {name: str(first.get_var_units(name)) for name in (*inputs, *outputs)}
    for name in inputs:
        if _items(first, name) != len(instances[0].names):
            raise ConfigurationError(
                f"{params.place}: the input {name!r} is an array; arrays between modules run only in ngen"
                + hint_about(params.python_type)
            )
    return Module(params, instances, size, inputs, outputs, units, settings)


def _items(model: Any, name: str) -> int:
    return int(model.get_var_nbytes(name)) // int(model.get_var_itemsize(name))


def _set_params(instance: Instance, params: ModuleParams, divides: Mapping[str, Divide]) -> None:
    """Set ``model_params`` after ``initialize``, as ngen does; what it skips with a warning is skipped here too."""
    for name, value in params.model_params.items():
        if isinstance(value, Mapping) and value.get("source") == "hydrofabric":
            key = str(value.get("from", name))
            known = [divides[c].properties.get(key) if c in divides else None for c in instance.names]
            if any(item is None for item in known):
                raise ConfigurationError(
                    f"{params.place}.model_params.{name}: the hydrofabric has no number {key!r} for "
                    f"{instance.names[known.index(None)]}"
                )
            values = np.array(known, dtype=np.float64)
        elif isinstance(value, (int, float, list)) and not isinstance(value, bool):
            values = np.atleast_1d(np.asarray(value, dtype=np.float64))
            if values.size == 1:
                values = np.repeat(values, len(instance.names))
        else:
            continue
        instance.model.set_value(name, values)


# --- one object for many catchments ----------------------------------------------------------------------------------


def _read_settings(kind: type[Component], configs: Mapping[str, Path]) -> dict[str, Any]:
    """Read the configuration of every catchment."""
    reader = kind()
    settings = {}
    for name, path in configs.items():
        try:
            settings[name] = reader.read_settings(path)
        except BmiComponentsError as error:
            raise type(error)(f"{name}: {error}") from error
    return settings


def _groups(
    kind: type[Component],
    params: ModuleParams,
    catchments: Sequence[str],
    configs: Mapping[str, Path],
    settings: Mapping[str, Any],
    scratch: Path,
) -> list[tuple[tuple[int, ...], Any, Path]]:
    """Put catchments together whose configurations differ in nothing but the catchment: members, object, file.

    There is no object yet for a catchment that stays alone.
    """
    alike: dict[bytes, list[tuple[int, Any]]] = {}
    for index, name in enumerate(catchments):
        own = settings[name]
        alike.setdefault(_fingerprint(own) or name.encode(), []).append((index, own))
    groups: list[tuple[tuple[int, ...], Any, Path]] = []
    for number, members in enumerate(alike.values()):
        indices = tuple(index for index, _ in members)
        config = scratch / f"{kind.__name__}-{number}.yaml"
        model = _joint_model(kind, members, config, params.mass_balance is not None)
        if model is not None:
            groups.append((indices, model, config))
        else:
            groups += [((index,), None, configs[catchments[index]]) for index in indices]
    return groups


def _place_key(settings: Any) -> str | None:
    """Return which setting holds the one catchment of a configuration."""
    for key in PLACES:
        held = getattr(settings, key, None)
        if isinstance(held, tuple) and len(held) == 1:
            return key
    return None


def _fingerprint(settings: Any) -> bytes | None:
    """Return what must be equal for two configurations to become one; None if this one stands alone."""
    key = _place_key(settings)
    if key is None or getattr(settings, "initial_state", None) is not None:
        return None
    (place,) = getattr(settings, key)
    # What is published depends on what is known of a place: its area and coordinates, a canopy's leaf area.
    known = {name: getattr(place, name) is None for name in place.__struct_fields__}
    rest = _plain(settings) | {key: known}
    return json.dumps(rest, sort_keys=True).encode()


def _joint_model(
    kind: type[Component], members: Sequence[tuple[int, Any]], path: Path, with_balance: bool
) -> Component | None:
    """Make one object of several catchments from a joint configuration, which is written (JSON is YAML).

    None if there is but one catchment, if a variable does not have one value for each, or if the balance of each is
    wanted and the object does not know it.
    """
    if len(members) == 1:
        return None
    first = members[0][1]
    key = _place_key(first)
    assert key is not None
    content = _plain(first) | {key: [_plain(getattr(settings, key)[0]) for _, settings in members]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    model = kind()
    try:
        model.initialize(str(path))
    except BmiComponentsError:
        return None  # one object each will say which catchment is wrong
    names = (*model.get_input_var_names(), *model.get_output_var_names())
    if any(_items(model, name) != len(members) for name in names):
        return None
    if with_balance and _keeps_balance(model) and _balance_of(model) is None:
        return None
    return model


def _plain(settings: Any) -> dict[str, Any]:
    """Return settings as they would stand in a file; what has its default is left out."""
    plain: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    kind: type[msgspec.Struct] = type(settings)
    optional = _none_by_default(kind)
    return {key: value for key, value in plain.items() if value is not None or key not in optional}


@functools.lru_cache(maxsize=64)
def _none_by_default(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(f.encode_name for f in msgspec.structs.fields(kind) if f.default is None)


def _keeps_balance(model: Any) -> bool:
    """Whether a module speaks ngen's mass balance protocol."""
    try:
        return all(str(model.get_var_type(name)) == "float64" for name in MASS)
    except Exception:  # whatever a module of somebody else's raises for a name that it does not know
        return False


def _balance_of(model: Component) -> Any:
    """Return what gives the balance by catchment, mm ``[4, catchment]``, where the model keeps one."""
    return getattr(model._open_run("mass balance").stepper, "balance", None)


@dataclasses.dataclass
class BalanceCheck:
    """ngen's check of a module's mass balance."""

    module: Module
    params: MassBalanceParams
    catchments: Sequence[str]
    violations: int = 0
    first: str = ""

    def after(self, step: int, when: str) -> None:
        """Check after a step.

        Raises
        ------
        ConfigurationError
            If the balance does not close and the realization says that this is fatal.
        """
        if self.params.frequency <= 0 or step % self.params.frequency:
            return
        into, out, stored, leaked = self.module.mass()
        residual = into - out - stored - leaked
        wrong = ~(np.abs(residual) <= self.params.tolerance)  # NaN too
        if not wrong.any():
            return
        index = int(np.flatnonzero(wrong)[0])
        text = (
            f"mass balance of {self.module.params.model_type_name} in {self.catchments[index]} at {when}: "
            f"{residual[index]:.3g} m unaccounted for, more than the tolerance of {self.params.tolerance:g} m"
        )
        if self.params.fatal:
            raise ConfigurationError(text)
        self.violations += int(wrong.sum())
        self.first = self.first or text
