"""A record of a component's inputs before its start, brought to the steps of its model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError
from bmi_components.forcing.readers import read_forcing
from bmi_components.forcing.source import ForcingSource
from bmi_components.stepper import Aggregation
from bmi_components.variables import Variable

__all__ = ["read_record"]

Vector = NDArray[np.float64]

_AGGREGATE: dict[str, Callable[..., Vector]] = {
    "mean": np.mean,
    "min": np.min,
    "max": np.max,
    "last": lambda values, axis: values[:, -1],
}


def read_record(
    source: ForcingSource,
    inputs: Sequence[Variable],
    catchments: Sequence[str],
    time_step: float,
    key: str,
    prepare: Callable[[Vector, float], Vector] | None = None,
    aggregations: Sequence[Aggregation] | None = None,
) -> tuple[NDArray[np.datetime64], Vector]:
    """Read a record of the inputs and aggregate it to steps of a model.

    Parameters
    ----------
    source
        Where the record is.
    inputs
        What the component is fed, in its units.
    catchments
        Identifiers, in the order of the component; one may occur several times.
    time_step
        Of the model, s.
    key
        The configuration's key, for errors.
    prepare
        From inputs ``[input, catchment]`` and the seconds of the record's step to forcings, ``[forcing, catchment]``.
    aggregations
        How each forcing becomes the step's value; None: each is averaged.

    Returns
    -------
    time
        Start of each step.
    values
        ``[step, forcing, catchment]``.

    Raises
    ------
    ConfigurationError
        If the record's steps do not make up the model's, or it is shorter than one of them.
    ForcingError
        If the record cannot be read.
    """
    names = list(dict.fromkeys(catchments))  # members of an ensemble share their catchment's
    record = read_forcing(source, inputs).select(names)
    parts = time_step / record.time_step
    if parts < 1 or parts != int(parts):
        raise ConfigurationError(
            f"{key}: the record has steps of {record.time_step} s, which do not make up the model's {time_step:g} s"
        )
    # Columns chosen from a file come transposed, and kernels take rows in one piece.
    rows = np.stack([record.values[v.symbol] for v in inputs], axis=1)
    rows = np.ascontiguousarray(rows[..., [names.index(name) for name in catchments]])
    if prepare is not None:
        rows = np.stack([prepare(row, float(record.time_step)) for row in rows])
    steps = len(rows) // int(parts)
    if steps == 0:
        raise ConfigurationError(f"{key}: the record is shorter than one step of the model ({time_step:g} s)")
    # A record that does not divide loses its oldest part, so that it ends where the run starts.
    oldest = len(rows) - steps * int(parts)
    rows = rows[oldest:].reshape(steps, int(parts), *rows.shape[1:])
    how = aggregations or ("mean",) * rows.shape[2]
    values = np.stack([_AGGREGATE[name](rows[:, :, i], 1) for i, name in enumerate(how)], axis=1)
    return record.time[oldest :: int(parts)], values
