"""Everything that a coupling remembers, in one file: its components' states and what its links have under way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import StateError
from bmi_components.snapshot import Snapshot

if TYPE_CHECKING:
    from bmi_components.coupling import Coupling

__all__ = ["restore_coupling", "snapshot_of"]

OWNER = "Coupling"


def snapshot_of(coupling: Coupling) -> Snapshot:
    """Copy a coupling's memory; each component's state is in it as the bytes of its own snapshot.

    Raises
    ------
    StateError
        If a component cannot be saved.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name, component in coupling.components.items():
        if not hasattr(component, "snapshot"):
            raise StateError(
                f"{name}: a {type(component).__name__} cannot be saved; components of this package's Component can"
            )
        arrays[f"components/{name}"] = np.frombuffer(component.snapshot().to_bytes(), np.uint8)
    for number, segments in enumerate(coupling.under_way()):
        arrays[f"links/{number}/times"] = np.array([s[:2] for s in segments], np.float64).reshape(-1, 2)
        for row, (_, _, values) in enumerate(segments):
            arrays[f"links/{number}/values/{row}"] = values
    return Snapshot(OWNER, coupling.identity, len(coupling.components), coupling.time, arrays)


def restore_coupling(coupling: Coupling, snapshot: Snapshot, source: str, warm_start: bool) -> None:
    """Take back what `snapshot_of` copied, or nothing.

    Raises
    ------
    StateError
        If it is not this coupling's.
    """
    if snapshot.component != OWNER:
        raise StateError(f"{source} is the state of a {snapshot.component}, not of a coupling")
    if snapshot.identity != coupling.identity:
        raise StateError(
            f"{source} was saved by another coupling ({snapshot.identity}); this one is {coupling.identity}"
        )
    shift = coupling.time - snapshot.time if warm_start else 0.0
    members = {name: _member(snapshot.arrays, name, shift, source) for name in coupling.components}
    segments = [
        _segments(snapshot.arrays, number, shift, source) for number in range(len(coupling.under_way()))
    ]
    components: Mapping[str, Any] = coupling.components
    before = {name: component.snapshot() for name, component in components.items()}
    changed: list[str] = []
    try:
        for name, component in components.items():
            component.restore(members[name], f"{source} ({name})", restore_clock=True)
            changed.append(name)
    except StateError:
        for name in changed:
            components[name].restore(before[name], "the state before", restore_clock=True)
        raise
    coupling.put_under_way(segments)


def _member(arrays: Mapping[str, NDArray[Any]], name: str, shift: float, source: str) -> Snapshot:
    data = arrays.get(f"components/{name}")
    if data is None:
        raise StateError(f"{source} does not hold the state of {name}")
    member = Snapshot.from_bytes(data.tobytes(), f"{source} ({name})")
    return dataclasses.replace(member, time=member.time + shift)


def _segments(
    arrays: Mapping[str, NDArray[Any]], number: int, shift: float, source: str
) -> list[tuple[float, float, Any]]:
    times = arrays.get(f"links/{number}/times")
    rows = (
        None if times is None else [arrays.get(f"links/{number}/values/{row}") for row in range(len(times))]
    )
    if times is None or rows is None or any(row is None for row in rows):
        raise StateError(f"{source} does not hold what the link {number} carries")
    return [
        (float(first) + shift, float(last) + shift, row)
        for (first, last), row in zip(times, rows, strict=True)
    ]
