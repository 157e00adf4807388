"""Static attributes by catchment from CSV, Parquet or a hydrofabric's own layer, and whether a model knows such."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bmi_components.errors import ConfigurationError
from bmi_components.nextgen.hydrofabric import is_geopackage, read_table
from bmi_components.trained_model import TrainedModel

__all__ = [
    "AttributeSource",
    "Known",
    "attributes_of",
    "outside_training",
    "parse_constants",
    "parse_sources",
    "read_attributes",
]

ID_COLUMNS = ("divide_id", "id", "catchment", "catchment_id", "basin_id", "cat_id", "gauge_id")
LAYERS = ("divide-attributes", "model-attributes")
FAR = 3.0
"""Standard deviations from the training catchments' mean beyond which an attribute is called unusual."""

Attributes = Mapping[str, Mapping[str, float]]
"""Values by catchment and column."""


@dataclass(frozen=True)
class AttributeSource:
    """The column that holds one attribute of a model, and the factor to the model's units."""

    column: str
    factor: float = 1.0


def parse_sources(pairs: Iterable[str]) -> dict[str, AttributeSource]:
    """Read ``attribute=column`` and ``attribute=column*0.01``.

    Raises
    ------
    ConfigurationError
        If one is of another form.
    """
    sources = {}
    for pair in pairs:
        found = re.fullmatch(r"\s*([^=]+?)\s*=\s*(.+?)\s*(?:\*\s*([-+.\deE]+))?\s*", pair)
        try:
            factor = float(found[3]) if found and found[3] else 1.0
        except ValueError:
            found = None
        if found is None:
            raise ConfigurationError(f"write attribute=column or attribute=column*factor, not {pair!r}")
        sources[found[1]] = AttributeSource(found[2], factor)
    return sources


def read_attributes(path: Path) -> dict[str, dict[str, float]]:
    """Read a table of attributes: CSV, Parquet (needs pyarrow) or the attribute layer of a GeoPackage.

    Raises
    ------
    ConfigurationError
        If the file is absent or unreadable, names no catchments, names one twice, or a column is no number.
    """
    if not path.is_file():
        raise ConfigurationError(f"{path}: there is no such table of attributes")
    if path.suffix.lower() in (".parquet", ".pq"):
        columns, rows = _parquet(path)
    elif is_geopackage(path):
        _, columns, rows = read_table(path, LAYERS)
    else:
        columns, rows = _csv(path)
    key = next((name for name in ID_COLUMNS if name in columns), None)
    if key is None:
        raise ConfigurationError(
            f"{path}: no column names the catchments; call it {' or '.join(ID_COLUMNS[:4])} (it has "
            f"{', '.join(columns[:12])})"
        )
    position = columns.index(key)
    table: dict[str, dict[str, float]] = {}
    for row in rows:
        name = str(row[position])
        if name in table:
            raise ConfigurationError(f"{path}: the catchment {name!r} is there twice; one row each is needed")
        table[name] = {c: _number(v) for c, v in zip(columns, row, strict=True) if c != key}
    return table


def _number(value: Any) -> float:
    """Return a cell as a number; text, blobs and gaps become NaN, which no model accepts."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _csv(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row and not row[0].startswith("#")]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: the table cannot be read ({error})") from None
    if not rows:
        raise ConfigurationError(f"{path}: the table is empty")
    header = [cell.strip() for cell in rows[0]]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise ConfigurationError(
                f"{path}: row {number} has {len(row)} cells, the header {len(header)}; is the file complete?"
            )
    return header, [tuple(cell.strip() for cell in row) for row in rows[1:]]


def _parquet(path: Path) -> tuple[list[str], list[tuple[Any, ...]]]:
    try:
        from pyarrow import parquet  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigurationError(
            f"{path}: reading Parquet needs pyarrow (pip install pyarrow); or give the table as CSV"
        ) from None
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: not a readable Parquet file ({error})") from None
    columns = [str(name) for name in table.column_names]
    return columns, list(zip(*(column.to_pylist() for column in table.columns), strict=True))


@dataclass(frozen=True)
class Known:
    """What is known of the catchments besides the weather.

    Attributes
    ----------
    table
        The attribute table.
    own
        The columns of the hydrofabric itself, by catchment.
    sources
        Columns, where they are not called like what they hold.
    constants
        What holds for every catchment that lacks a column: a number, or one for each month.
    where
        The table, for messages.
    """

    table: Attributes
    own: Attributes
    sources: Mapping[str, AttributeSource]
    constants: Mapping[str, tuple[float, ...]]
    where: str

    def number(self, catchment: str, name: str) -> float:
        """Return a number of a catchment; NaN if nothing tells it."""
        source = self.sources.get(name, AttributeSource(name))
        value = self._column(catchment, source.column) * source.factor
        constant = self.constants.get(name, ())
        return constant[0] if len(constant) == 1 and not math.isfinite(value) else value

    def monthly(self, catchment: str, name: str) -> float | list[float]:
        """Return a number or twelve; NaN if nothing tells them. Columns of months end in _1 to _12, or _01."""
        source = self.sources.get(name, AttributeSource(name))
        if not math.isfinite(self._column(catchment, source.column)):
            for digits in (1, 2):
                months = [
                    self._column(catchment, f"{source.column}_{month:0{digits}}") for month in range(1, 13)
                ]
                if all(map(math.isfinite, months)):
                    return [value * source.factor for value in months]
            if len(self.constants.get(name, ())) == 12:
                return list(self.constants[name])
        return self.number(catchment, name)

    def lack(self, catchment: str, missing: Sequence[str]) -> ConfigurationError:
        """Return the error that names what a catchment lacks."""
        known = "" if catchment in self.table else f"; {catchment} is not in it"
        row = {**self.own.get(catchment, {}), **self.table.get(catchment, {})}
        columns = ", ".join(list(row)[:40])
        return ConfigurationError(
            f"{self.where}: catchment {catchment} lacks {', '.join(missing)}{known}. Columns are {columns}; say which "
            "one it is with --attribute NAME=COLUMN (or NAME=COLUMN*FACTOR for other units), or give all catchments "
            "one value with --value NAME=NUMBER"
        )

    def _column(self, catchment: str, column: str) -> float:
        """Return a column of the table or else of the hydrofabric; NaN if neither has it."""
        own = self.own.get(catchment, {}).get(column, math.nan)
        return self.table.get(catchment, {}).get(column, own)


def parse_constants(pairs: Iterable[str]) -> dict[str, tuple[float, ...]]:
    """Read ``name=2.5``, or twelve numbers of the months: ``name=1,1,1.5,2.5,3.5,4,4,4,3.5,2.5,1.5,1``.

    Raises
    ------
    ConfigurationError
        If one is of another form.
    """
    constants = {}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            numbers = tuple(float(number) for number in text.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in (1, 12) or not name.strip() or not all(map(math.isfinite, numbers)):
            raise ConfigurationError(
                f"write name=number, or name= and twelve numbers for January to December, not {pair!r}"
            )
        constants[name.strip()] = numbers
    return constants


def attributes_of(catchment: str, models: Sequence[TrainedModel], known: Known) -> dict[str, float]:
    """Return the attributes of one catchment that some models, of an ensemble or one, read.

    Raises
    ------
    ConfigurationError
        If the catchment or an attribute is missing; all missing ones are named.
    """
    found: dict[str, float] = {}
    missing: list[str] = []
    for model in models:
        for attribute in model.attributes:
            value = known.number(catchment, attribute.name)
            if math.isfinite(value):
                found[attribute.name] = value
            elif f"{attribute.name} [{attribute.units}]" not in missing:
                missing.append(f"{attribute.name} [{attribute.units}]")
    if missing:
        raise known.lack(catchment, missing)
    return found


def outside_training(model: TrainedModel, catchments: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say which attributes are unlike those of the catchments that a model was trained on.

    A bundle keeps mean and standard deviation of its training catchments, not their extremes: an attribute more than
    `FAR` standard deviations from the mean is called unusual, one sentence for each attribute.
    """
    sentences = []
    for attribute in model.attributes:
        statistics = model.normalisation.get(attribute.name)
        if statistics is None:
            continue
        mean, std = statistics["mean"], statistics["std"]
        far = {
            name: values[attribute.name]
            for name, values in catchments.items()
            if attribute.name in values and abs(values[attribute.name] - mean) > FAR * std
        }
        if not far:
            continue
        worst = max(far, key=lambda name: abs(far[name] - mean))
        others = f" (and {len(far) - 1} more)" if len(far) > 1 else ""
        units = "" if attribute.units == "1" else f" {attribute.units}"
        sentences.append(
            f"attribute {attribute.name} of {worst}{others} is {far[worst]:g}{units}; the catchments that the model "
            f"was trained on had {mean:g} ± {std:g}. Right units? Then the model extrapolates"
        )
    return sentences
