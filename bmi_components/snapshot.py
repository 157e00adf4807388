"""A component's state as bytes: safetensors (never pickle) with a checksum and the identity of its owner."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from bmi_components.errors import StateError

__all__ = ["Snapshot"]

_FORMAT = "bmi_components.state"
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a component remembers, by name, and whose memory it is.

    Attributes
    ----------
    component
        Name of the component class.
    identity
        Which model it was (``Stepper.identity``): a state does not fit another one.
    size
        Number of catchments.
    time
        Seconds since the start at which it was taken.
    arrays
        The state, by name.
    """

    component: str
    identity: str
    size: int
    time: float
    arrays: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """Serialise; equal snapshots give equal bytes."""
        arrays = {name: np.ascontiguousarray(self.arrays[name]) for name in sorted(self.arrays)}
        labels = {
            "version": _VERSION,
            "component": self.component,
            "identity": self.identity,
            "size": str(self.size),
            "time": self.time.hex(),
        }
        labels["sha256"] = _digest(labels, arrays)
        # One entry, since safetensors writes several in random order.
        return bytes(safetensors.numpy.save(arrays, metadata={_FORMAT: json.dumps(labels)}))

    @classmethod
    def from_bytes(cls, data: bytes, source: str) -> Snapshot:
        """Read what ``to_bytes`` wrote; ``source`` names it in errors.

        Raises
        ------
        StateError
            If the bytes are not a whole, undamaged state.
        """
        try:
            arrays = safetensors.numpy.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            entry = (header.get("__metadata__") or {}).get(_FORMAT)
            labels = None if entry is None else json.loads(entry)
        except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError):
            raise StateError(
                f"{source} is not a saved state, or is damaged: it is not a whole safetensors file"
            ) from None
        if not isinstance(labels, dict):
            raise StateError(f"{source} is a safetensors file, but not a state saved by a component")
        if labels.get("version") != _VERSION:
            raise StateError(
                f"{source} has format version {labels.get('version')!r}; this program reads version {_VERSION!r}"
            )
        checksum = labels.pop("sha256", "")
        if checksum != _digest(labels, dict(sorted(arrays.items()))):
            raise StateError(f"{source} is damaged: its content does not match its checksum")
        return cls(
            component=labels["component"],
            identity=labels["identity"],
            size=int(labels["size"]),
            time=float.fromhex(labels["time"]),
            arrays=arrays,
        )

    def save(self, path: str | Path) -> None:
        """Write to a file, all or nothing."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(self.to_bytes())
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path) -> Snapshot:
        """Read a file that ``save`` wrote.

        Raises
        ------
        StateError
            If it is absent, unreadable or not a whole, undamaged state.
        """
        try:
            data = Path(path).read_bytes()
        except FileNotFoundError:
            raise StateError(f"there is no saved state at {path}") from None
        except OSError as error:
            raise StateError(f"the saved state {path} cannot be read ({error})") from None
        return cls.from_bytes(data, str(path))

    def check_owner(self, component: str, identity: str, size: int, source: str) -> None:
        """Refuse a state that belongs to somebody else.

        Raises
        ------
        StateError
            If it was taken from another component, model or number of catchments.
        """
        if self.component != component:
            raise StateError(f"{source} is the state of a {self.component}, not of a {component}")
        if self.size != size:
            raise StateError(f"{source} holds {self.size} catchments; this component has {size}")
        if self.identity != identity:
            raise StateError(
                f"{source} was saved with the model {self.identity!r}; this component runs {identity!r}"
            )


def _digest(labels: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 over everything that a snapshot says."""
    total = hashlib.sha256(json.dumps(dict(sorted(labels.items()))).encode())
    for name, array in arrays.items():
        total.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
