"""Readers of forcing files: netCDF, csv and NextGen's forms of both become one checked ``Forcing``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import ConfigurationError, ForcingError, UnitsError, UnknownNameError
from bmi_components.forcing import nextgen
from bmi_components.forcing.evaporation import add_potential_evapotranspiration
from bmi_components.forcing.flux_forcing import flux_tower_table, tower_files
from bmi_components.forcing.sample_tower import with_tower_variables
from bmi_components.forcing.sample_weather import CATCHMENTS, daily_weather, hourly_weather, sample
from bmi_components.forcing.series import (
    DAY,
    Forcing,
    Times,
    catchment_columns,
    last_moment,
    moment,
    regular_step,
)
from bmi_components.forcing.source import ForcingSource
from bmi_components.forcing.table import CsvFile, Table, csv_header, open_netcdf, read_csv, stack_csv
from bmi_components.units import converter, convertible
from bmi_components.variables import CATALOGUE, Variable

__all__ = ["ForcingSource", "read_forcing", "source_of"]

_SECONDS = {"1 hour": 3_600, "1 day": DAY}


def source_of(path: str | Path) -> ForcingSource:
    """Return the source that a bare path means: by its suffix, and NextGen's files by what is inside.

    Raises
    ------
    ConfigurationError
        If the suffix is none that we read, or a YAML description is wrong.
    ForcingError
        If a netCDF file is absent or damaged.
    """
    source = ForcingSource.of_path(path)
    described = Path(path).suffix.lower() in (".yaml", ".yml")
    if not described and source.path is not None and nextgen.is_nextgen(source.path):
        return msgspec.structs.replace(source, kind="nextgen")
    return source


def read_forcing(
    source: ForcingSource | str | Path,
    variables: Sequence[Variable],
    *,
    start: str | None = None,
    end: str | None = None,
) -> Forcing:
    """Read (or generate) the forcing that a model needs.

    Parameters
    ----------
    source
        The settings, or just a path.
    variables
        What is needed, in the units in which it is needed. A column is found by ``source.columns``, else by the
        variable's Standard Name or symbol, else (``nextgen``) by NextGen's names.
    start, end
        Period, both included; without them all there is (``sample`` needs both).

    Returns
    -------
    Forcing
        Values by symbol, ``float64 [time, catchment]``, in the units of ``variables``.

    Raises
    ------
    ForcingError
        If a file is absent or damaged, a column or a value is missing, times are irregular, or the period is not
        covered.
    UnitsError
        If a column's units are unknown or do not convert.
    UnknownNameError
        If a catchment or a name under ``columns`` does not exist.
    """
    settings = source if isinstance(source, ForcingSource) else source_of(source)
    start, end = start or settings.start, end or settings.end
    derive = settings.potential_evapotranspiration == "oudin" and settings.kind != "sample"
    derived = [v for v in variables if derive and v.symbol == "potential_evapotranspiration"]
    wanted = [v for v in variables if v not in derived]
    if derived and not any(v.symbol == "temperature" for v in wanted):
        wanted.append(CATALOGUE["temperature"])
    if settings.kind == "sample":
        forcing = _generate(settings, wanted, start, end)
    else:
        with _open(settings) as table:
            forcing = _extract(table, settings, wanted, start, end)
    for target in derived:
        if settings.latitude is None:
            raise ConfigurationError(
                f"{forcing.source}: 'potential_evapotranspiration: oudin' needs 'latitude' beside it"
            )
        forcing = add_potential_evapotranspiration(forcing, target, settings.latitude)
    if settings.time_step is not None:
        forcing = forcing.aggregate(_SECONDS[settings.time_step])
    return forcing


def _generate(
    settings: ForcingSource, variables: Sequence[Variable], start: str | None, end: str | None
) -> Forcing:
    """Make sample weather for sample catchments."""
    if start is None or end is None:
        raise ConfigurationError("sample weather needs a period: say start and end")
    if settings.path is not None:
        raise ConfigurationError("forcing of kind sample is generated; it has no path")
    places = CATCHMENTS if settings.catchments is None else sample(settings.catchments)
    make = hourly_weather if settings.time_step == "1 hour" else daily_weather
    weather = make(start, end, seed=settings.seed, catchments=places)
    if settings.time_step == "1 hour" and any(v.symbol not in weather.values for v in variables):
        weather = with_tower_variables(weather)
    made = {v.symbol: v for v in weather.variables}
    for v in variables:
        if v.symbol not in made:
            raise ForcingError(
                f"{weather.source} has no {v.symbol}; it has {', '.join(made)}"
                + (
                    ""
                    if settings.time_step
                    else "; with 'time_step: 1 hour' also radiation, humidity, wind, soil and snow"
                )
            )
    return Forcing(
        time=weather.time,
        time_step=weather.time_step,
        catchments=weather.catchments,
        variables=tuple(variables),
        values={
            v.symbol: converter(made[v.symbol].units, v.units)(weather.values[v.symbol]) for v in variables
        },
        source=weather.source,
    )


@contextmanager
def _open(settings: ForcingSource) -> Iterator[Table]:
    path = settings.path
    if path is None:
        raise ConfigurationError(f"forcing of kind {settings.kind} needs a path")
    if settings.kind == "flux_tower":
        yield _flux_tower_table(path, settings)
        return
    if settings.kind != "csv" and not path.exists():
        raise ForcingError(f"there is no forcing file or folder {path}")
    if settings.kind == "nextgen" and path.is_file() and path.suffix.lower() != ".csv":
        with nextgen.netcdf_table(path) as table:
            yield table
    elif settings.kind == "nextgen":
        yield nextgen.csv_table(path, settings.catchments)
    elif settings.kind == "csv":
        yield _csv_table(path, settings)
    else:
        with open_netcdf(path) as dataset:
            yield _netcdf_table(dataset, path, settings)


def _extract(
    table: Table,
    settings: ForcingSource,
    variables: Sequence[Variable],
    start: str | None,
    end: str | None,
) -> Forcing:
    """Find the columns, read the period and convert to the wanted units."""
    aliases = _by_symbol(settings.columns)
    found = {v.symbol: _column(v, table, aliases, settings) for v in variables}
    for column in settings.units:
        if column not in table.units:
            raise ForcingError(f"{table.source}: 'units' speaks of a column {column!r}, which is not in it")
    step = regular_step(table.time, table.source)
    rows = _rows(table.time, step, start, end, table.source)
    catchments = tuple(settings.catchments) if settings.catchments is not None else table.catchments
    columns = catchment_columns(table.catchments, catchments, table.source)
    values = {}
    for v in variables:
        column = found[v.symbol]
        try:
            raw = table.read(column, rows, columns)
        except (RuntimeError, OSError) as error:
            raise ForcingError(
                f"{table.source}: {column!r} cannot be read, the file is damaged ({error})"
            ) from None
        units = _units(column, table, settings)
        values[v.symbol] = _convert(raw, units, v, step, f"{table.source}: column {column!r}")
    if settings.kind == "nextgen" and found.get("precipitation", "APCP_surface") != "APCP_surface":
        precipitation = next(v for v in variables if v.symbol == "precipitation")
        _agree_with_depths(table, rows, columns, values["precipitation"], precipitation, step)
    return Forcing(
        time=table.time[rows],
        time_step=step,
        catchments=catchments,
        variables=tuple(variables),
        values=values,
        source=table.source,
    )


def _by_symbol(columns: Mapping[str, str]) -> dict[str, str]:
    """Return the user's columns by our symbol, whichever of the two names they used."""
    symbols = {v.name: symbol for symbol, v in CATALOGUE.items()}
    aliases = {}
    for name, column in columns.items():
        symbol = symbols.get(name, name)
        if symbol not in CATALOGUE:
            raise UnknownNameError(
                f"'columns' speaks of {name!r}, which is no variable of ours; write its symbol"
            )
        aliases[symbol] = column
    return aliases


def _column(variable: Variable, table: Table, aliases: Mapping[str, str], settings: ForcingSource) -> str:
    """Return the name of the column that holds a variable."""
    if variable.symbol in aliases:
        chosen = aliases[variable.symbol]
        if chosen in table.units:
            return chosen
        raise ForcingError(
            f"{table.source}: there is no column {chosen!r} for {variable.symbol}; it has {', '.join(table.units)}"
        )
    for candidate in (variable.name, variable.symbol):
        if candidate in table.units:
            return candidate
    if settings.kind == "nextgen":
        for name in nextgen.NAMES:
            if name.symbol == variable.symbol:
                for candidate in (*name.columns, name.standard_name):
                    known = candidate in nextgen.DOCUMENTED_UNITS or candidate in settings.units
                    if candidate in table.units and (known or table.units[candidate] is not None):
                        return candidate
        if variable.symbol == "precipitation" and "precip_rate" in table.units:
            raise UnitsError(
                f"{table.source}: precip_rate has no units, and files of this kind hold mm s-1 or m s-1; say which: "
                "units: {precip_rate: mm s-1}"
            )
    raise ForcingError(
        f"{table.source}: there is no column for {variable.symbol} ({variable.name}); it has "
        f"{', '.join(table.units)}; say which one is it: columns: {{{variable.symbol}: ...}}"
    )


def _units(column: str, table: Table, settings: ForcingSource) -> str:
    declared = settings.units.get(column) or table.units[column]
    if declared is None and settings.kind == "nextgen":
        declared = nextgen.DOCUMENTED_UNITS.get(column)
    if declared is None:
        raise UnitsError(
            f"{table.source}: column {column!r} declares no units; write them into the header, {column} (unit), "
            f"or into the configuration, units: {{{column}: ...}}"
        )
    return declared


def _convert(
    values: NDArray[np.float64], units: str, variable: Variable, step: int, where: str
) -> NDArray[np.float64]:
    """Convert to the variable's units; of water, 1 kg m-2 is 1 mm, and an amount per step is a rate.

    Raises
    ------
    UnitsError
        If the units do not convert.
    """
    attempts = [(units, 1.0)]
    if convertible(variable.units, "mm s-1"):
        attempts += [(f"({units}) / ({step} s)", 1.0)]
        attempts += [(f"({units}) / (kg m-2) mm", 1.0), (f"({units}) / (kg m-2) mm / ({step} s)", 1.0)]
    for attempt, factor in attempts:
        if convertible(attempt, variable.units):
            return np.asarray(converter(attempt, variable.units)(values) * factor, dtype=np.float64)
    try:
        converter(units, variable.units)
    except UnitsError as error:
        raise UnitsError(f"{where}: {error}") from None
    raise UnitsError(f"{where}: units {units!r} do not convert to {variable.units!r}")


def _rows(time: Times, step: int, start: str | None, end: str | None, source: str) -> slice:
    """Return the rows of a period."""
    first = time[0] if start is None else moment(start)
    last = time[-1] if end is None else last_moment(end, step)
    if first < time[0] or last > time[-1]:
        raise ForcingError(
            f"{source}: it covers {time[0]} to {time[-1]}; the period asked for is {first} to {last}"
        )
    if last < first:
        raise ForcingError(f"the period ends ({last}) before it starts ({first})")
    return slice(int(np.searchsorted(time, first)), int(np.searchsorted(time, last, side="right")))


def _agree_with_depths(
    table: Table,
    rows: slice,
    columns: Sequence[int],
    rates: NDArray[np.float64],
    precipitation: Variable,
    step: int,
) -> None:
    """Check NextGen's precipitation rates against the depths beside them: a wrong unit is a factor of 1000."""
    if "APCP_surface" not in table.units:
        return
    depths = np.nansum(table.read("APCP_surface", rows, columns))
    summed = float(np.nansum(converter(precipitation.units, "mm s-1")(rates))) * step
    if depths > 0.0 and not 0.5 < summed / depths < 2.0:
        raise UnitsError(
            f"{table.source}: precip_rate adds up to {summed:g} mm, APCP_surface to {depths:g} mm; "
            "the units of precip_rate are wrong, or choose a column: columns: {precipitation: APCP_surface}"
        )


def _flux_tower_table(path: Path, settings: ForcingSource) -> Table:
    """Read one tower's file or folder, or those of a pattern."""
    if "{catchment}" not in str(path):
        return flux_tower_table(tower_files(path), str(path))
    found = _matches(path)
    names = settings.catchments if settings.catchments is not None else list(found)
    absent = [name for name in names if name not in found]
    if absent or not names:
        raise ForcingError(f"{path}: there is no file or folder for {absent[0] if absent else 'any tower'}")
    return flux_tower_table({name: tower_files(found[name]) for name in names}, str(path))


# --- csv ---------------------------------------------------------------------------------------------------------


def _csv_table(path: Path, settings: ForcingSource) -> Table:
    """Read a file, a folder of files, or the files of a pattern."""
    if "{catchment}" in str(path):
        return _csv_files(_matches(path), settings, str(path))
    if path.is_dir():
        return _csv_files({file.stem: file for file in sorted(path.glob("*.csv"))}, settings, str(path))
    label = settings.catchment
    if label is None and "catchment" in csv_header(path):
        label = "catchment"
    file = read_csv(path, settings.time, label)
    if file.labels is None:
        return stack_csv({path.stem: file}, str(path))
    return _long_table(file)


def _csv_files(files: Mapping[str, Path], settings: ForcingSource, source: str) -> Table:
    names = settings.catchments if settings.catchments is not None else list(files)
    if not names:
        raise ForcingError(f"there is no csv file at {source}")
    absent = [name for name in names if name not in files]
    if absent:
        raise UnknownNameError(f"{source}: there is no file for catchment {absent[0]!r}")
    return stack_csv({name: read_csv(files[name], settings.time) for name in names}, source)


def _matches(pattern: Path) -> dict[str, Path]:
    """Return the files of a pattern by what stands in the place of ``{catchment}`` in their names."""
    if "{catchment}" not in pattern.name:
        raise ConfigurationError(f"{pattern}: {{catchment}} must stand in the file's name, not in a folder's")
    before, _, after = pattern.name.partition("{catchment}")
    expression = re.compile(re.escape(before) + "(.+)" + re.escape(after))
    found = {}
    for file in sorted(pattern.parent.glob("*")):
        match = expression.fullmatch(file.name)
        if match:
            found[match.group(1)] = file
    return found


def _long_table(file: CsvFile) -> Table:
    """Turn rows labelled with their catchment into one column per catchment."""
    assert file.labels is not None
    names = tuple(dict.fromkeys(str(name) for name in file.labels))
    parts = {}
    for name in names:
        rows = file.labels == name
        parts[name] = CsvFile(
            path=file.path,
            time=file.time[rows],
            units=file.units,
            numbers={column: values[rows] for column, values in file.numbers.items()},
            labels=None,
        )
    return stack_csv(parts, str(file.path))


# --- netCDF ------------------------------------------------------------------------------------------------------


def _netcdf_table(dataset: netCDF4.Dataset, path: Path, settings: ForcingSource) -> Table:
    """Describe a netCDF file whose data variables have a time dimension and, for many catchments, one other."""
    time_variable = _time_variable(dataset, path, settings.time)
    time_dimension = time_variable.dimensions[0]
    data = {
        name: variable
        for name, variable in dataset.variables.items()
        if time_dimension in variable.dimensions
        and variable is not time_variable
        and variable.dtype is not str
        and np.issubdtype(variable.dtype, np.number)
        and len(_others(dataset, variable, time_dimension)) <= 1
    }
    others = {d for v in data.values() for d in _others(dataset, v, time_dimension)}
    if len(others) > 1:
        raise ForcingError(
            f"{path}: its variables lie on several dimensions beside time ({', '.join(sorted(others))}); "
            "one for the catchments is expected"
        )
    dimension = others.pop() if others else None
    names = (path.stem,) if dimension is None else _identifiers(dataset, dimension, path, settings.catchment)

    def read(column: str, rows: slice, columns: Sequence[int]) -> NDArray[np.float64]:
        variable = data[column]
        index = tuple(
            rows if d == time_dimension else slice(None) if d == dimension else 0 for d in variable.dimensions
        )
        values = np.ma.filled(np.ma.asarray(variable[index]).astype(np.float64), np.nan)
        if values.ndim == 1:
            return np.repeat(values[:, np.newaxis], len(columns), axis=1)
        if variable.dimensions.index(time_dimension) > variable.dimensions.index(str(dimension)):
            values = values.T
        return np.ascontiguousarray(values[:, list(columns)])

    return Table(
        source=str(path),
        time=_decode_times(time_variable, path),
        catchments=names,
        units={name: getattr(variable, "units", None) for name, variable in data.items()},
        read=read,
    )


def _others(dataset: netCDF4.Dataset, variable: netCDF4.Variable[Any], time_dimension: str) -> list[str]:
    """Return the dimensions beside time that have more than one element, or are named like catchments."""
    rest = [d for d in variable.dimensions if d != time_dimension]
    long = [d for d in rest if dataset.dimensions[d].size > 1]
    return long or [d for d in rest if d in dataset.variables][:1]


def _time_variable(dataset: netCDF4.Dataset, path: Path, name: str | None) -> netCDF4.Variable[Any]:
    if name is not None:
        if name not in dataset.variables:
            raise ForcingError(
                f"{path}: there is no variable {name!r}; there are {', '.join(dataset.variables)}"
            )
        return dataset.variables[name]
    candidates = [
        variable
        for variable in dataset.variables.values()
        if variable.ndim == 1 and " since " in str(getattr(variable, "units", ""))
    ]
    coordinates = [v for v in candidates if v.name == v.dimensions[0]] or candidates
    if len(coordinates) != 1:
        found = ", ".join(v.name for v in coordinates) or "none"
        raise ForcingError(
            f"{path}: one variable with units such as 'days since 1990-01-01' is expected as time, found: {found}; "
            "name it with 'time:'"
        )
    return coordinates[0]


def _decode_times(variable: netCDF4.Variable[Any], path: Path) -> Times:
    counts = variable[:]
    if np.ma.is_masked(counts):
        raise ForcingError(f"{path}: a time is missing in the variable {variable.name}")
    try:
        moments = netCDF4.num2date(
            counts,
            variable.units,
            getattr(variable, "calendar", "standard"),
            only_use_cftime_datetimes=False,
            only_use_python_datetimes=True,
        )
    except (ValueError, OverflowError) as error:
        raise ForcingError(f"{path}: the times in {variable.name} cannot be understood ({error})") from None
    microseconds = np.array(moments, dtype="datetime64[us]").astype(np.int64)
    return np.asarray(np.rint(microseconds / 1e6).astype(np.int64).astype("datetime64[s]"))


def _identifiers(dataset: netCDF4.Dataset, dimension: str, path: Path, name: str | None) -> tuple[str, ...]:
    """Read the catchments' names from the variable that holds them."""
    if name is None:
        along = [v for v in dataset.variables.values() if v.dimensions[:1] == (dimension,)]
        texts = [v for v in along if v.dtype is str or v.dtype.kind == "S"]
        chosen = [v for v in along if v.name == dimension]
        chosen = chosen or [v for v in texts if getattr(v, "cf_role", "") == "timeseries_id"] or texts
        if len(chosen) != 1:
            raise ForcingError(
                f"{path}: which variable names the catchments along {dimension!r}? Say it with 'catchment:' "
                f"(variables: {', '.join(dataset.variables)})"
            )
        variable = chosen[0]
    elif name in dataset.variables:
        variable = dataset[name]
    else:
        raise ForcingError(f"{path}: there is no variable {name!r}; there are {', '.join(dataset.variables)}")
    values = variable[:]
    if values.ndim == 2:
        values = netCDF4.chartostring(values)
    return tuple(str(value).strip() for value in values)
