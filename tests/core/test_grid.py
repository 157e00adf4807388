"""One catchment is a scalar; many are a mesh of separate triangles around the catchments' places."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bmi_components.grid import Grid


@given(st.integers(2, 400))
def test_the_mesh_is_valid_and_its_faces_lie_around_their_catchments(size: int) -> None:
    grid = Grid(size)
    x, y = grid.node_coordinates()
    nodes, edges = grid.face_nodes().reshape(size, 3), grid.edge_nodes().reshape(-1, 2)
    assert sorted(nodes.ravel()) == list(range(grid.node_count))
    middle_x, middle_y = grid.middles()
    np.testing.assert_allclose(x[nodes].mean(axis=1), middle_x, atol=1e-12)
    np.testing.assert_allclose(y[nodes].mean(axis=1), middle_y, atol=1e-12)
    areas = (x[nodes[:, 1]] - x[nodes[:, 0]]) * (y[nodes[:, 2]] - y[nodes[:, 0]]) - (
        x[nodes[:, 2]] - x[nodes[:, 0]]
    ) * (y[nodes[:, 1]] - y[nodes[:, 0]])
    assert (areas > 0.0).all()  # counter-clockwise
    for face, around in enumerate(grid.face_edges().reshape(size, 3)):
        assert set(edges[around].ravel()) == set(nodes[face])
    assert len(set(zip(middle_x, middle_y, strict=True))) == size
    np.testing.assert_array_equal(grid.nodes_per_face(), 3)


def test_configured_places_are_where_the_faces_are() -> None:
    longitude, latitude = np.array([-95.6, 8.5, 9.0]), np.array([39.1, 47.4, 47.4])
    x, y = Grid(3, longitude, latitude).node_coordinates()
    np.testing.assert_allclose(x.reshape(3, 3).mean(axis=1), longitude)
    np.testing.assert_allclose(y.reshape(3, 3).mean(axis=1), latitude)


def test_places_that_coincide_still_make_faces() -> None:
    x, _ = Grid(2, np.zeros(2), np.zeros(2)).node_coordinates()
    assert np.ptp(x[:3]) > 0.0


def test_one_catchment_is_a_scalar() -> None:
    grid = Grid(1, np.array([8.5]), np.array([47.4]))
    assert (grid.kind, grid.rank, grid.location) == ("scalar", 0, "node")
    assert (grid.node_count, grid.edge_count, grid.face_count) == (1, 0, 0)
    assert grid.node_coordinates()[0] == pytest.approx([8.5])
