"""Heat in a column of soil under snow: a BMI model of somebody else's, which knows nothing of bmi_components.

Conduction, rho c dT/dt = d/dz (k dT/dz), in 20 layers of 10 cm; no heat passes the bottom, and snow insulates the top.
"""

import json
from typing import Any

import bmipy
import numpy as np
from numpy.typing import NDArray

AIR, SNOW, SOIL = "land_surface_air__temperature", "snowpack__liquid-equivalent_depth", "soil__temperature"
UNITS = {AIR: "K", SNOW: "m", SOIL: "K"}
THICKNESS = 0.1
"""Of a layer, m."""
CONDUCTIVITY, OF_SNOW = 1.2, 0.2
"""W m-1 K-1; snow of 300 kg m-3."""
CAPACITY = 2.5e6
"""J m-3 K-1, moist soil."""


class SoilHeat(bmipy.Bmi):
    """Steps by the hour, counts time in hours and temperature in kelvin."""

    def initialize(self, config_file: str) -> None:
        """Read the first temperature of all layers, degC, and their number."""
        with open(config_file) as file:
            settings = json.load(file)
        start = np.full(settings.get("layers", 20), settings["temperature"] + 273.15)
        self.values = {AIR: start[:1].copy(), SNOW: np.zeros(1), SOIL: start}
        self.time = 0.0

    def update(self) -> None:
        """Step an hour, explicitly."""
        soil = self.values[SOIL]
        # A metre of water is 3.3 m of snow.
        resistance = THICKNESS / 2 / CONDUCTIVITY + self.values[SNOW][0] / 0.3 / OF_SNOW
        down = np.concatenate(
            [
                (self.values[AIR] - soil[0]) / resistance,
                CONDUCTIVITY * (soil[:-1] - soil[1:]) / THICKNESS,
                np.zeros(1),
            ]
        )
        soil += 3600.0 * (down[:-1] - down[1:]) / (CAPACITY * THICKNESS)
        self.time += 1.0

    def update_until(self, time: float) -> None:
        """Step whole hours."""
        while self.time < time:
            self.update()

    def finalize(self) -> None:
        """Nothing is open."""

    def get_component_name(self) -> str:
        """Return the name."""
        return "heat in soil"

    def get_input_item_count(self) -> int:
        """Return how many inputs there are."""
        return 2

    def get_output_item_count(self) -> int:
        """Return how many outputs there are."""
        return 1

    def get_input_var_names(self) -> Any:
        """Return the inputs' names."""
        return (AIR, SNOW)

    def get_output_var_names(self) -> Any:
        """Return the outputs' names."""
        return (SOIL,)

    def get_var_grid(self, name: str) -> int:
        """Return 1, the layers, or 0, the surface."""
        return int(name == SOIL)

    def get_var_type(self, name: str) -> str:
        """Return the data type."""
        return str(self.values[name].dtype)

    def get_var_units(self, name: str) -> str:
        """Return the units."""
        return UNITS[name]

    def get_var_itemsize(self, name: str) -> int:
        """Return the bytes of an element."""
        return self.values[name].itemsize

    def get_var_nbytes(self, name: str) -> int:
        """Return the bytes of all elements."""
        return self.values[name].nbytes

    def get_var_location(self, name: str) -> str:
        """Return where on the grid the values are."""
        return "node"

    def get_current_time(self) -> float:
        """Return the hours since the start."""
        return self.time

    def get_start_time(self) -> float:
        """Return 0."""
        return 0.0

    def get_end_time(self) -> float:
        """Return a time that is never reached."""
        return 1e9

    def get_time_units(self) -> str:
        """Return hours."""
        return "h"

    def get_time_step(self) -> float:
        """Return one hour."""
        return 1.0

    def get_value(self, name: str, dest: NDArray[Any]) -> NDArray[Any]:
        """Copy the values."""
        dest[:] = self.values[name]
        return dest

    def get_value_ptr(self, name: str) -> NDArray[Any]:
        """Return the values themselves."""
        return self.values[name]

    def get_value_at_indices(self, name: str, dest: NDArray[Any], inds: NDArray[Any]) -> NDArray[Any]:
        """Copy some of the values."""
        dest[:] = self.values[name][inds]
        return dest

    def set_value(self, name: str, src: NDArray[Any]) -> None:
        """Set the values."""
        self.values[name][:] = src

    def set_value_at_indices(self, name: str, inds: NDArray[Any], src: NDArray[Any]) -> None:
        """Set some of the values."""
        self.values[name][inds] = src

    def get_grid_rank(self, grid: int) -> int:
        """Return the number of dimensions."""
        return grid

    def get_grid_size(self, grid: int) -> int:
        """Return the number of nodes."""
        return self.values[SOIL].size if grid else 1

    def get_grid_type(self, grid: int) -> str:
        """Return the kind of grid."""
        return "uniform_rectilinear" if grid else "scalar"

    def get_grid_shape(self, grid: int, shape: NDArray[Any]) -> NDArray[Any]:
        """Give the number of layers."""
        shape[:] = self.values[SOIL].size
        return shape

    def get_grid_spacing(self, grid: int, spacing: NDArray[Any]) -> NDArray[Any]:
        """Give the thickness of a layer, m."""
        spacing[:] = THICKNESS
        return spacing

    def get_grid_origin(self, grid: int, origin: NDArray[Any]) -> NDArray[Any]:
        """Give the depth of the uppermost layer's middle, m."""
        origin[:] = THICKNESS / 2
        return origin

    def _none(self, *arguments: Any) -> Any:
        raise NotImplementedError("a uniform grid of one dimension has no such thing")

    get_grid_x = get_grid_y = get_grid_z = get_grid_node_count = get_grid_edge_count = _none
    get_grid_face_count = get_grid_edge_nodes = get_grid_face_edges = get_grid_face_nodes = _none
    get_grid_nodes_per_face = _none
