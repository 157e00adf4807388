"""The grids that carry the values: a scalar for one catchment, a mesh with one face per catchment for many."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["Grid"]

_CORNER_ANGLES = np.deg2rad([90.0, 210.0, 330.0])


class Grid:
    """One element is a ``scalar`` of rank 0; more are an ``unstructured`` mesh of one triangle per element.

    The triangles do not touch: catchments are places, not neighbours in a field. Frameworks draw and map them, and
    a triangle's middle is the catchment's place: its configured longitude and latitude, or else a spot on an
    index lattice (column, row). All arrays are made on request; a grid keeps nothing but its size.
    """

    __slots__ = ("_x", "_y", "size")

    def __init__(
        self, size: int, x: NDArray[np.float64] | None = None, y: NDArray[np.float64] | None = None
    ) -> None:
        self.size = size
        self._x = x
        self._y = y

    @property
    def kind(self) -> str:
        """BMI grid type."""
        return "scalar" if self.size == 1 else "unstructured"

    @property
    def location(self) -> str:
        """BMI location of the values."""
        return "node" if self.size == 1 else "face"

    @property
    def rank(self) -> int:
        """Number of dimensions of the space that the grid lies in."""
        return 0 if self.size == 1 else 2

    @property
    def node_count(self) -> int:
        """Number of nodes: three per face."""
        return 1 if self.size == 1 else 3 * self.size

    @property
    def edge_count(self) -> int:
        """Number of edges: three per face."""
        return 0 if self.size == 1 else 3 * self.size

    @property
    def face_count(self) -> int:
        """Number of faces: one per element."""
        return 0 if self.size == 1 else self.size

    def middles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """X and y of the elements, each ``[size]``."""
        if self._x is not None and self._y is not None:
            return self._x, self._y
        columns = math.ceil(math.sqrt(self.size))
        index = np.arange(self.size)
        return (index % columns).astype(np.float64), (index // columns).astype(np.float64)

    def node_coordinates(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """X and y of the nodes, each ``[node_count]``."""
        x, y = self.middles()
        if self.size == 1:
            return x, y
        extent = max(float(np.ptp(x)), float(np.ptp(y)), 1e-2)
        radius = 0.25 * extent / math.sqrt(self.size)
        return (
            (x[:, np.newaxis] + radius * np.cos(_CORNER_ANGLES)).ravel(),
            (y[:, np.newaxis] + radius * np.sin(_CORNER_ANGLES)).ravel(),
        )

    def edge_nodes(self) -> NDArray[np.int64]:
        """First and last node of each edge, ``[2 * edge_count]``."""
        first = np.arange(self.edge_count)
        last = first.reshape(-1, 3)[:, [1, 2, 0]].ravel() if first.size else first
        return np.column_stack([first, last]).ravel()

    def face_edges(self) -> NDArray[np.int64]:
        """Edges around each face, counter-clockwise, ``[3 * face_count]``."""
        return np.arange(3 * self.face_count)

    def face_nodes(self) -> NDArray[np.int64]:
        """Nodes around each face, counter-clockwise, ``[3 * face_count]``."""
        return np.arange(3 * self.face_count)

    def nodes_per_face(self) -> NDArray[np.int64]:
        """Number of nodes of each face, ``[face_count]``."""
        return np.full(self.face_count, 3, dtype=np.int64)
