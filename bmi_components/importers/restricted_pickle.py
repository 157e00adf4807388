"""Statistics out of pickled pandas and xarray objects, without unpickling them: nothing from the file is executed.

A pickle is a small program that names functions to call. Here every name stands for an inert record that only keeps
what it is given; names outside numpy, pandas and xarray are refused. The numbers are then read out of the records.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import BundleError

__all__ = ["read_pickled_statistics"]

LARGEST_FILE = 16 * 2**20
"""Bytes; scalers have some thousands."""

LIBRARIES = ("numpy", "pandas", "xarray")
"""Whose objects are recorded."""

HARMLESS = {
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "slice"),
    ("builtins", "object"),
    ("collections", "OrderedDict"),
    ("copyreg", "_reconstructor"),
}
"""Other names that pickles of these objects hold; they are recorded, too."""

PLAIN_TYPE = re.compile(r"[<>|=]?[biuf][1248]|[<>|=]?U[1-9]\d{0,4}")
"""Types of arrays that are read from bytes."""


class _Record:
    """Stands for an object of another library: its name, the arguments it was made with, its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *arguments: Any) -> _Record:
        record = super().__new__(cls)
        record.arguments = arguments
        return record

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Take an item of an ordered mapping."""
        if not isinstance(self.state, dict):
            self.state = {}
        self.state[key] = value


@functools.lru_cache(maxsize=256)
def _record_of(module: str, name: str) -> type[_Record]:
    return type("_Named", (_Record,), {"name": f"{module}.{name}"})


def _encoded(text: str, encoding: str) -> bytes:
    """Undo what pickles of protocol 2 do to bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding!r}")
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """Makes records of whatever it meets."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a record's type for a known name."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        if (module, name) == ("_codecs", "encode"):
            return _encoded
        if module.split(".")[0] in LIBRARIES or (module, name) in HARMLESS:
            return _record_of(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no statistics need")

    def persistent_load(self, pid: Any) -> Any:
        """Refuse references to something outside the file."""
        raise pickle.UnpicklingError("it refers to something outside the file")


def read_pickled_statistics(path: Path) -> dict[str, dict[str, float]]:
    """Read a pickled mapping of pandas Series and xarray Datasets of single numbers.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict
        ``{key: {variable: number}}``.

    Raises
    ------
    BundleError
        If the file cannot be read, is damaged, names anything but parts of numpy, pandas and xarray, or does not hold
        such a mapping.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise BundleError(f"{path}: the file is too large to hold statistics of a training data set")
        content = _Reader(io.BytesIO(path.read_bytes())).load()
    except OSError as error:
        raise BundleError(f"{path}: the file cannot be read: {error.strerror}") from error
    except BundleError:
        raise
    except pickle.UnpicklingError as error:
        raise BundleError(f"{path}: the pickle is not read: {error}; save the statistics as YAML") from error
    except Exception as error:  # a damaged pickle fails anywhere in the reader
        raise BundleError(f"{path}: the pickle is damaged ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path}: the pickle holds no mapping of statistics")
    try:
        return {str(key): _numbers(value) for key, value in content.items() if not _is_empty(value)}
    except (_UnreadableError, ValueError, TypeError, OverflowError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: the statistics in the pickle cannot be read: {error}") from error


class _UnreadableError(Exception):
    """What was found is not what was looked for."""


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, (dict, list, tuple)) and not value)


def _numbers(value: Any) -> dict[str, float]:
    """Return the numbers by name in a mapping, a Series or a Dataset."""
    if isinstance(value, Mapping):
        return {str(name): _one_number(entry) for name, entry in value.items()}
    if not isinstance(value, _Record):
        raise _UnreadableError(f"a {type(value).__name__} is where a Series or a Dataset should be")
    for node in _nodes(value):
        if isinstance(node, dict) and "_variables" in node:
            variables = node["_variables"]
            if isinstance(variables, _Record):
                variables = variables.state
            if not isinstance(variables, dict):
                raise _UnreadableError("the Dataset's variables are no mapping")
            return {str(name): _one_number(variable) for name, variable in variables.items()}
    return _series(value)


def _series(record: _Record) -> dict[str, float]:
    """Return a Series: whatever its layout, it holds one array of names and one of numbers."""
    names: list[str] | None = None
    values: NDArray[np.float64] | None = None
    for array in _arrays(record):
        flat = array.ravel()
        if flat.dtype.kind in "fiu":
            values = flat.astype(np.float64) if values is None else values
        elif flat.size and all(isinstance(item, str) for item in flat):
            names = [str(item) for item in flat] if names is None else names
        elif flat.size and all(isinstance(item, (int, float)) for item in flat):
            values = flat.astype(np.float64) if values is None else values
    if names is None or values is None or len(names) != len(values):
        raise _UnreadableError("a Series has no names and numbers that belong together")
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _one_number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    for array in _arrays(value):
        if array.size == 1 and array.dtype.kind in "fiu":
            return float(array.reshape(())[()])
    raise _UnreadableError("a variable is not a single number")


def _nodes(value: Any) -> Iterator[Any]:
    """Yield everything inside, each thing once, in the order of the file."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        if isinstance(node, (_Record, dict, list, tuple)):
            seen.add(id(node))
        yield node
        inside: list[Any] = []
        if isinstance(node, _Record):
            inside = [*node.arguments, node.state]
        elif isinstance(node, dict):
            inside = list(node.values())
        elif isinstance(node, (list, tuple)):
            inside = list(node)
        waiting.extend(reversed(inside))


def _arrays(value: Any) -> Iterator[NDArray[Any]]:
    """Yield the arrays inside."""
    for node in _nodes(value):
        if isinstance(node, _Record):
            array = _array(node)
            if array is not None:
                yield array


def _array(record: _Record) -> NDArray[Any] | None:
    """Return what numpy would have made of a record; None if it is no array."""
    library, _, kind = record.name.partition(".")
    if library != "numpy":
        return None
    kind = kind.rpartition(".")[2]
    if kind == "scalar" and len(record.arguments) == 2:
        dtype, data = record.arguments
        return _from_bytes(data, dtype, (), "C")
    if kind == "_frombuffer" and len(record.arguments) == 4:
        data, dtype, shape, order = record.arguments
        return _from_bytes(data, dtype, shape, order)
    if kind in ("_reconstruct", "ndarray") and isinstance(record.state, tuple) and len(record.state) >= 4:
        shape, dtype, fortran, data = record.state[-4:]
        order = "F" if fortran else "C"
        if isinstance(data, list):
            array = np.empty(len(data), object)
            array[:] = data
            return array.reshape(_shape(shape), order="F" if fortran else "C")
        return _from_bytes(data, dtype, shape, order)
    return None


def _shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(isinstance(size, int) and size >= 0 for size in shape):
        raise _UnreadableError("an array has no proper shape")
    return shape


def _from_bytes(data: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Record) or not dtype.arguments:
        raise _UnreadableError("an array has no bytes or no type")
    state = dtype.state
    byte_order = state[1] if isinstance(state, tuple) and len(state) > 1 and isinstance(state[1], str) else ""
    name = f"{byte_order}{dtype.arguments[0]}"
    if not PLAIN_TYPE.fullmatch(name):
        raise _UnreadableError(f"an array is of type {name!r}")
    flat = np.frombuffer(data, np.dtype(name))
    return flat.reshape(_shape(shape), order="F" if order == "F" else "C")
