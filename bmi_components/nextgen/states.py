"""States kept between runs: a realization's ``state_saving``, by the variables that ngen reads and sets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bmi_components.errors import ConfigurationError, StateError
from bmi_components.nextgen.modules import Instance
from bmi_components.nextgen.stepping import FormulationRun

__all__ = ["load_states", "save_states"]

PREFIXES = ("", "ngen::")
"""Of ngen's pull request 979, which ``state_saving`` is of, and of 957, whose bytes are the same."""


def save_states(run: FormulationRun, folder: Path) -> None:
    """Write the state of every catchment into a folder, a file each.

    Raises
    ------
    ConfigurationError
        If a module cannot give its state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, instance, place in _units(run):
        model, prefix = instance.model, _prefix(instance, place)
        model.set_value(f"{prefix}serialization_create", np.ones(1, dtype=np.int32))
        state = np.asarray(model.get_value_ptr(f"{prefix}serialization_state"))
        (folder / name).write_bytes(state.tobytes())
        model.set_value(f"{prefix}serialization_free", np.ones(1, dtype=np.int32))


def load_states(run: FormulationRun, folder: Path) -> None:
    """Let every module go on from the states in a folder; its clock stays at its start, as ngen needs it.

    Raises
    ------
    StateError
        If a state is not there, or does not fit.
    ConfigurationError
        If a module cannot take a state.
    """
    for name, instance, place in _units(run):
        prefix = _prefix(instance, place)
        file = folder / name
        try:
            state = np.frombuffer(file.read_bytes(), dtype=np.uint8)
        except OSError:
            raise StateError(
                f"state_saving: there is no {file}, from which {instance.names[0]} should go on; run what saves it "
                "first, or take the entry of direction 'load' out"
            ) from None
        try:
            instance.model.set_value(f"{prefix}serialization_size", np.array([state.size], dtype=np.int64))
            instance.model.set_value(f"{prefix}serialization_state", state.copy())
        except Exception as error:
            raise instance.explain(error, str(file)) from error
    for module in run.modules:
        module.refresh()


def _units(run: FormulationRun) -> Iterator[tuple[str, Instance, str]]:
    """Give every object with the name of its file: the catchment's, numbered where there are several modules."""
    for number, module in enumerate(run.modules):
        for instance in module.instances:
            (catchment,) = instance.names
            name = catchment if len(run.modules) == 1 else f"{catchment}.{number}"
            yield name, instance, module.params.place


def _prefix(instance: Instance, place: str) -> str:
    """Return how a module's protocol variables begin."""
    for prefix in PREFIXES:
        if _answers(instance.model, f"{prefix}serialization_state"):
            return prefix
    raise ConfigurationError(
        f"{place}: the module has no variable serialization_state, so its state cannot be kept; take state_saving out "
        "of the realization"
    )


def _answers(model: Any, name: str) -> bool:
    try:
        return bool(str(model.get_var_type(name)) == "uint8")
    except Exception:  # whatever a module of somebody else's raises for a name that it does not know
        return False
