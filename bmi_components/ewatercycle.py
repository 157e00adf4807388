"""Components as eWaterCycle asks for them: a calendar and an end, and values on latitudes and longitudes."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.buffers import numbers
from bmi_components.component import Component
from bmi_components.errors import ConfigurationError, GridError, UnknownNameError, ValueShapeError
from bmi_components.grid import Grid

if TYPE_CHECKING:
    import datetime

    from bmi_components.stepper import Stepper

__all__ = ["LatitudeLongitudeGrid", "for_ewatercycle"]


@functools.cache
def for_ewatercycle(component: type[Component]) -> type[Component]:
    """Return a subclass of a component that answers eWaterCycle's questions; the model and its numbers are the same.

    The components of this package are there by name already: ``bmi_components.ewatercycle.DeltaHBV``.

    * Times stay seconds since the start, and their units say since when: ``"seconds since 1995-10-01 00:00:00"``.
      The configuration must have ``start_time`` and ``end_time``, a whole number of steps apart.
    * Where every catchment has a latitude and a longitude, values lie on a rectilinear grid whose rows are the
      distinct latitudes and whose columns are the distinct longitudes, from low to high. Cells without a catchment are
      NaN when they are read, and not looked at when all values are set.
    * States that either saves fit the other.

    Interface: ``eWaterCycleModel`` of eWaterCycle 2.5 (``time_as_datetime``, ``get_latlon_grid``,
    ``get_value_as_xarray``, ``get_value_at_coords``).
    """
    return type(
        component.__name__,
        (_ForEWaterCycle, component),
        {
            "__module__": __name__,
            "__doc__": f"``{component.__name__}`` for eWaterCycle: see ``for_ewatercycle``.",
        },
    )


def __getattr__(name: str) -> type[Component]:
    """Resolve a component of this package by name: what ``run-bmi-server`` and ``bmi_class`` name."""
    import bmi_components

    found = getattr(bmi_components, name) if name in bmi_components.__all__ else None
    if isinstance(found, type) and issubclass(found, Component) and found is not Component:
        return for_ewatercycle(found)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class LatitudeLongitudeGrid(Grid):
    """The distinct latitudes and longitudes of places, and the cell of each place among them.

    Attributes
    ----------
    latitude, longitude
        Rows and columns, degrees, from low to high, ``[row]`` and ``[column]``.
    cells
        Flat index of each place, ``[place]``.
    """

    __slots__ = ("cells", "latitude", "longitude")

    def __init__(self, longitude: NDArray[np.float64], latitude: NDArray[np.float64]) -> None:
        super().__init__(longitude.size, longitude, latitude)
        self.latitude, row = np.unique(latitude, return_inverse=True)
        self.longitude, column = np.unique(longitude, return_inverse=True)
        self.cells = row * self.longitude.size + column
        cell, counts = np.unique(self.cells, return_counts=True)
        if (counts > 1).any():
            first, second = np.flatnonzero(self.cells == cell[counts > 1][0])[:2]
            raise ConfigurationError(
                f"catchments number {first} and {second} both lie at latitude {latitude[first]:g}, longitude "
                f"{longitude[first]:g}; on eWaterCycle's grid each needs a place of its own"
            )

    @property
    def kind(self) -> str:
        """BMI grid type."""
        return "rectilinear"

    @property
    def location(self) -> str:
        """BMI location of the values."""
        return "node"

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return 2

    @property
    def node_count(self) -> int:
        """Number of cells, with and without a place."""
        return self.latitude.size * self.longitude.size

    @property
    def edge_count(self) -> int:
        """None: a rectilinear grid follows from its coordinates."""
        return 0

    @property
    def face_count(self) -> int:
        """None: a rectilinear grid follows from its coordinates."""
        return 0

    @property
    def is_the_places(self) -> bool:
        """Whether the cells are the places, in the same order."""
        return self.node_count == self.size and bool((np.diff(self.cells) > 0).all())

    def node_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Longitudes of the columns and latitudes of the rows."""
        return self.longitude, self.latitude

    def checked(self, inds: Any) -> NDArray[np.intp]:
        """Return indices of cells as an array.

        Raises
        ------
        ValueShapeError
            If they are not whole numbers in one dimension, or not of cells.
        """
        cells = np.asarray(inds)
        if cells.ndim != 1 or (cells.size and cells.dtype.kind not in "iu"):
            raise ValueShapeError("the indices of cells must be whole numbers in one dimension")
        if cells.size and (cells.min() < 0 or cells.max() >= self.node_count):
            raise ValueShapeError(f"the indices of cells must be between 0 and {self.node_count - 1}")
        return cells.astype(np.intp)

    def places_at(self, inds: Any) -> NDArray[np.intp]:
        """Return the place in each of these cells.

        Raises
        ------
        ValueShapeError
            If an index is not that of a cell with a place.
        """
        cells = self.checked(inds)
        place_in = dict(zip(self.cells.tolist(), range(self.size), strict=True))
        for cell in cells.tolist():
            if cell not in place_in:
                row, column = divmod(cell, self.longitude.size)
                raise ValueShapeError(
                    f"no catchment lies at latitude {self.latitude[row]:g}, longitude {self.longitude[column]:g}; "
                    "give the coordinates of a catchment"
                )
        return np.array([place_in[cell] for cell in cells.tolist()], dtype=np.intp)


class _ForEWaterCycle(Component):
    """What differs from a component; always in front of a concrete one, see ``for_ewatercycle``."""

    # What ``initialize`` is about to say, and what it said: the date of time 0, and the places where all are known.
    _opening: tuple[datetime.datetime, LatitudeLongitudeGrid | None] | None = None
    _opened: tuple[datetime.datetime, LatitudeLongitudeGrid | None] | None = None

    # ---------------------------------------------------------------- control

    def read_settings(self, path: Path) -> Any:
        """Read the configuration, which must say when the run starts and ends."""
        settings = super().read_settings(path)
        absent = [key for key in ("start_time", "end_time") if getattr(settings, key) is None]
        if absent:
            raise ConfigurationError(
                f"{path}: {' and '.join(absent)} missing: eWaterCycle tells time by date and runs up to an end"
            )
        return settings

    def open(self, settings: Any) -> Stepper:
        """Open the model, and note the date of its time 0 and where its catchments lie."""
        stepper = super().open(settings)  # type: ignore[safe-super]  # the concrete component's
        steps = settings.duration / stepper.time_step
        if not math.isclose(steps, round(steps), rel_tol=1e-12):
            raise ConfigurationError(
                f"end_time {settings.end_time} is not whole steps of {stepper.time_step:g} s after start_time "
                f"{settings.start_time}: eWaterCycle would step beyond it"
            )
        places = None if stepper.coordinates is None else LatitudeLongitudeGrid(*stepper.coordinates)
        self._opening = settings.start_time, places
        return stepper

    def initialize(self, config_file: str) -> None:
        """Read the configuration, open the model, and stand at its start date; on an error nothing has changed."""
        try:
            super().initialize(config_file)
            self._opened = self._opening
        finally:
            self._opening = None

    def finalize(self) -> None:
        """Let go of the model and all arrays; may be called at any time, any number of times."""
        super().finalize()
        self._opened = None

    # ---------------------------------------------------------------- time

    def get_time_units(self) -> str:
        """Return the units of time with the start date, after the CF conventions."""
        if self._opened is None:
            self._not_ready("get_time_units")
        return f"seconds since {self._opened[0].isoformat(sep=' ')}"

    # ---------------------------------------------------------------- values

    def get_var_location(self, name: str) -> str:
        """Return the grid element that carries a variable."""
        return super().get_var_location(name) if self._places_of(name) is None else "node"

    def get_var_nbytes(self, name: str) -> int:
        """Return the bytes of all elements."""
        places = self._places_of(name)
        return super().get_var_nbytes(name) if places is None else 8 * places.node_count

    def get_value_ptr(self, name: str) -> NDArray[Any]:
        """Return the live array of a variable that lies on no map, or on one without empty cells.

        Raises
        ------
        GridError
            If there are cells without a catchment, or in another order: no array holds their values.
        """
        places = self._places_of(name)
        if places is not None and not places.is_the_places:
            raise GridError(
                f"{name!r} is not one array on the grid of latitudes and longitudes; use get_value"
            )
        return super().get_value_ptr(name)

    def get_value(self, name: str, dest: NDArray[Any]) -> NDArray[Any]:
        """Copy a variable's values into ``dest`` and return it; NaN where no catchment lies."""
        places = self._places_of(name)
        if places is None:
            return super().get_value(name, dest)
        if not isinstance(dest, np.ndarray) or dest.shape != (places.node_count,) or dest.dtype.kind != "f":
            raise ValueShapeError(
                f"{name!r} needs a one-dimensional float64 array of {places.node_count} elements"
            )
        dest.fill(np.nan)
        dest[places.cells] = super().get_value_ptr(name)
        return dest

    def get_value_at_indices(self, name: str, dest: NDArray[Any], inds: NDArray[Any]) -> NDArray[Any]:
        """Copy the values of these cells into ``dest`` and return it; NaN where no catchment lies."""
        places = self._places_of(name)
        if places is None:
            return super().get_value_at_indices(name, dest, inds)
        cells = places.checked(inds)
        if not isinstance(dest, np.ndarray) or dest.shape != cells.shape or dest.dtype.kind != "f":
            raise ValueShapeError(f"{name!r} needs a one-dimensional float64 array of {cells.size} elements")
        dest[:] = self.get_value(name, np.empty(places.node_count))[cells]
        return dest

    def set_value(self, name: str, src: NDArray[Any]) -> None:
        """Set an input, a parameter or a static attribute, one value per cell; empty cells are not looked at."""
        places = self._places_of(name)
        if places is not None:
            given = numbers(src.reshape(-1) if isinstance(src, np.ndarray) else src, repr(name))
            if given.size != places.node_count:
                raise ValueShapeError(
                    f"{name!r} takes {places.node_count} values, {places.latitude.size} latitudes by "
                    f"{places.longitude.size} longitudes, not {given.size}"
                )
            src = given[places.cells]
        super().set_value(name, src)

    def set_value_at_indices(self, name: str, inds: NDArray[Any], src: NDArray[Any]) -> None:
        """Set an input, a parameter or a static attribute of the catchments in these cells."""
        places = self._places_of(name)
        super().set_value_at_indices(name, inds if places is None else places.places_at(inds), src)

    # ---------------------------------------------------------------- grids

    def get_grid_shape(self, grid: int, shape: NDArray[Any]) -> NDArray[Any]:
        """Fill ``shape`` with the number of latitudes and of longitudes."""
        on = self._grid(grid)
        if not isinstance(on, LatitudeLongitudeGrid):
            raise GridError(
                f"the grid {grid} has no latitudes and longitudes; the configuration gives them with each catchment"
            )
        shape[:2] = on.latitude.size, on.longitude.size
        return shape

    def _grid(self, grid: int) -> Grid:
        on = super()._grid(grid)
        places = self._opened[1] if self._opened is not None else None
        return on if grid != 0 or places is None else places

    def _only_scalar(self, grid: int, values: NDArray[Any], what: str) -> NDArray[Any]:
        if isinstance(self._grid(grid), LatitudeLongitudeGrid):
            raise GridError(
                f"the grid {grid} is rectilinear: it has no {what}, but latitudes (y) and longitudes (x)"
            )
        return super()._only_scalar(grid, values, what)

    def _places_of(self, name: str) -> LatitudeLongitudeGrid | None:
        """Return the map that carries a variable, if one does."""
        if self._opened is None or self._opened[1] is None:
            return None
        try:
            return self._opened[1] if self.get_var_grid(name) == 0 else None
        except UnknownNameError:  # hidden and on no grid, or nothing: the component says which
            return None
