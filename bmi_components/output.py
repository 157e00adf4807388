"""A run's results on disk: CF-1.8 netCDF, written as the run goes and given its name when it is whole; csv from it."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal

import netCDF4
import numpy as np
from numpy.typing import NDArray

from bmi_components.errors import StateError
from bmi_components.forcing.series import Times
from bmi_components.variables import Variable

__all__ = ["CF_STANDARD_NAMES", "Column", "RunFile", "write_csv"]

CF_STANDARD_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "precipitation": "lwe_precipitation_rate",
        "temperature": "air_temperature",
        "specific_humidity": "specific_humidity",
        "pressure": "surface_air_pressure",
        "shortwave": "surface_downwelling_shortwave_flux_in_air",
        "longwave": "surface_downwelling_longwave_flux_in_air",
        "wind_x": "eastward_wind",
        "wind_y": "northward_wind",
        "streamflow": "water_volume_transport_in_river_channel",
        "evapotranspiration": "lwe_water_evaporation_rate",
        "snow_water_equivalent": "lwe_thickness_of_surface_snow_amount",
    }
)
"""CF standard names of the variables that have one with the same meaning and dimensions."""

_EPOCH = np.datetime64("1970-01-01T00:00:00", "s")

When = Literal["mean", "sum", "end"]


@dataclass(frozen=True, slots=True)
class Column:
    """A variable in the file, and whether its value is the step's mean, its sum, or the state at the step's end."""

    variable: Variable
    when: When


class RunFile:
    """A CF netCDF file of a run, ``[time, catchment]``, that appears under its name only when it is complete.

    Until then it is ``<name>.partial``, to which a resumed run goes on writing.

    Parameters
    ----------
    path
        The file to make; an existing one is replaced when this one is complete.
    time, time_step
        Start of each step, ``datetime64[s] [time]``, and its length in seconds.
    catchments
        Identifiers.
    columns
        What is written.
    attributes
        Global attributes: title, source, history and whatever tells where it came from.
    per_catchment
        Further variables of one number per catchment, such as latitude: ``{name: (values, units, meaning)}``.
    precision
        Type of the numbers in the file.
    resume
        Go on with the partial file of an interrupted run instead of starting afresh.

    Raises
    ------
    StateError
        If ``resume`` and there is no partial file, it is damaged, or it is of another run.
    """

    def __init__(
        self,
        path: Path,
        *,
        time: Times,
        time_step: int,
        catchments: Sequence[str],
        columns: Sequence[Column],
        attributes: Mapping[str, str],
        per_catchment: Mapping[str, tuple[NDArray[np.float64], str, str]] = MappingProxyType({}),
        precision: Literal["float32", "float64"] = "float32",
        resume: bool = False,
    ) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")
        self.columns = tuple(columns)
        if resume:
            self._file = self._reopen(attributes["run_identity"])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = netCDF4.Dataset(self.partial, "w")
            self._describe(time, time_step, catchments, attributes, per_catchment)
            for column in columns:
                self._add(column, precision, time.size, len(catchments))
            self._file.sync()

    def write(self, row: int, values: Mapping[str, NDArray[np.float64]]) -> None:
        """Write steps from ``row`` on, ``[steps, catchment]`` by symbol, and hand them to the disk."""
        for symbol, array in values.items():
            self._file[symbol][row : row + array.shape[0]] = array
        self._file.sync()

    def write_per_catchment(self, name: str, values: NDArray[np.float64]) -> None:
        """Fill in a variable of one number per catchment."""
        self._file[name][:] = values

    def close(self) -> None:
        """Close an unfinished file, leaving it as it is: partial."""
        if self._file.isopen():
            self._file.close()

    def complete(self) -> None:
        """Close the file and give it its name."""
        self._file.close()
        os.replace(self.partial, self.path)

    def __enter__(self) -> RunFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _reopen(self, identity: str) -> netCDF4.Dataset:
        if not self.partial.is_file():
            raise StateError(f"there is no interrupted run to resume: {self.partial} is not there")
        try:
            file = netCDF4.Dataset(self.partial, "a")
        except (OSError, RuntimeError) as error:
            raise StateError(
                f"{self.partial} is damaged ({error}); start the run afresh, without --resume"
            ) from None
        if getattr(file, "run_identity", "") != identity:
            file.close()
            raise StateError(
                f"{self.partial} is of a run with another configuration, forcing or period; start afresh, "
                "without --resume"
            )
        return file

    def _describe(
        self,
        time: Times,
        time_step: int,
        catchments: Sequence[str],
        attributes: Mapping[str, str],
        per_catchment: Mapping[str, tuple[NDArray[np.float64], str, str]],
    ) -> None:
        file = self._file
        file.setncatts({"Conventions": "CF-1.8", "featureType": "timeSeries", **attributes})
        file.createDimension("time", time.size)
        file.createDimension("catchment", len(catchments))
        file.createDimension("bound", 2)
        first = time[0]
        unit, seconds = ("days", 86_400) if time_step % 86_400 == 0 else ("seconds", 1)
        counts = (time - first).astype(np.int64) // seconds
        stamp = str(first).replace("T", " ")
        axis = file.createVariable("time", "i8", ("time",))
        axis.setncatts(
            {
                "standard_name": "time",
                "long_name": "start of the step",
                "units": f"{unit} since {stamp}",
                "calendar": "standard",
                "axis": "T",
                "bounds": "time_bounds",
            }
        )
        axis[:] = counts
        bounds = file.createVariable("time_bounds", "i8", ("time", "bound"))
        bounds[:] = np.stack([counts, counts + time_step // seconds], axis=1)
        names = file.createVariable("catchment", str, ("catchment",))
        names.setncatts({"long_name": "catchment", "cf_role": "timeseries_id"})
        names[:] = np.array(list(catchments), dtype=object)
        for name, (values, units, meaning) in per_catchment.items():
            data = file.createVariable(name, "f8", ("catchment",))
            data.setncatts({"units": units, "long_name": meaning})
            if name in ("latitude", "longitude"):
                data.standard_name = name
            data[:] = values

    def _add(self, column: Column, precision: str, steps: int, size: int) -> None:
        """Create a data variable, compressed in chunks of about a million values at most."""
        variable = column.variable
        chunk = max(1, min(steps, 1_000_000 // size, 1024))
        data = self._file.createVariable(
            variable.symbol,
            precision,
            ("time", "catchment"),
            zlib=True,
            complevel=1,
            shuffle=True,
            chunksizes=(chunk, size),
            fill_value=np.nan,
        )
        data.setncatts({"long_name": variable.description, "units": variable.units})
        if variable.name != variable.symbol:
            data.csdms_name = variable.name
        if variable.symbol in CF_STANDARD_NAMES:
            data.standard_name = CF_STANDARD_NAMES[variable.symbol]
        if column.when == "end":
            data.comment = "state at the end of the step"
        else:
            data.cell_methods = f"time: {column.when}"
        places = [name for name in ("latitude", "longitude") if name in self._file.variables]
        if places:
            data.coordinates = " ".join(places)


def write_csv(results: Path, folder: Path) -> list[Path]:
    """Write the results of a run as one csv file per catchment, which ``kind: csv`` forcing can read again.

    Parameters
    ----------
    results
        netCDF file of a run.
    folder
        Where ``<catchment>.csv`` go; header ``time,name (unit),...``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with netCDF4.Dataset(results) as file:
        moments = netCDF4.num2date(
            file["time"][:],
            file["time"].units,
            only_use_cftime_datetimes=False,
            only_use_python_datetimes=True,
        )
        stamps = np.array(moments, dtype="datetime64[s]")
        daily = (stamps == stamps.astype("datetime64[D]")).all()
        texts = [str(t.astype("datetime64[D]")) if daily else str(t).replace("T", " ") for t in stamps]
        names = [name for name, data in file.variables.items() if data.dimensions == ("time", "catchment")]
        header = ["time", *(f"{name} ({file[name].units})" for name in names)]
        for index, catchment in enumerate(file["catchment"][:]):
            columns: list[Any] = [np.ma.filled(file[name][:, index], np.nan).tolist() for name in names]
            target = folder / f"{catchment}.csv"
            temporary = target.with_name(target.name + ".partial")
            with open(temporary, "w", newline="", encoding="utf-8") as out:
                writer = csv.writer(out)
                writer.writerow(header)
                writer.writerows(
                    [text, *("" if value != value else f"{value:.7g}" for value in row)]
                    for text, row in zip(texts, zip(*columns, strict=True), strict=True)
                )
            os.replace(temporary, target)
            written.append(target)
    return written
