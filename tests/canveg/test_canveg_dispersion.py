"""The dispersion matrix is that of the random flight, agrees with published ones within their noise, and they load."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bmi_components.canveg import dispersion
from bmi_components.canveg.dispersion import (
    dispersion_matrix,
    read_dispersion_matrix,
    time_scale,
    velocity_deviation,
)
from bmi_components.canveg.flight_moments import mean_times
from bmi_components.canveg.random_flight import published_dispersion_matrix
from bmi_components.errors import BundleError, ConfigurationError

SITES = ("US-Bi1", "US-Me2", "US-Whs")
Array = Any


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Array:
    """Return the published matrices of 50 layers, ``[site, row, column]``."""
    folder = shared_data / "fluxtower" / "dij"
    return np.stack([read_dispersion_matrix(folder / f"Dij_{site}_50L.csv.gz", 50, 50) for site in SITES])


def middle(layers: int, atmosphere_layers: int, ratio: float) -> Array:
    """Return the heights of the middles of the layers, over canopy height."""
    edges = [*np.linspace(0.0, 1.0, layers + 1), *np.linspace(1.0, ratio, atmosphere_layers + 1)[1:]]
    return 0.5 * (np.array(edges[1:]) + np.array(edges[:-1]))


# ---------------------------------------------------------------- the published matrices


def test_generated_matrix_is_as_near_to_each_site_as_no_two_sites_are(published: Array) -> None:
    ours, scale = published_dispersion_matrix(50, 50), published.mean()
    between = min(np.abs(published[a] - published[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) / scale
    to_ours = np.abs(published - ours).mean(axis=(1, 2)) / scale
    assert between > 0.015
    # a matrix without noise is nearer to noisy ones than these to each other, by a root of two
    assert (to_ours < 0.8 * between).all(), (to_ours, between)
    # and nearer still to their mean: 1 / sqrt(6) of what two of them differ
    assert np.abs(published.mean(axis=0) - ours).mean() / scale < 0.43 * between


def test_no_part_of_the_generated_matrix_is_biased(published: Array) -> None:
    ours = published_dispersion_matrix(50, 50)
    assert abs(ours.sum() / published.mean(axis=0).sum() - 1.0) < 1e-3
    # blocks of ten rows and ten columns, in terms of how much sites differ in blocks of as many rows
    off = (ours - published).reshape(3, 10, 10, 5, 10).mean(axis=(2, 4))
    noise = np.sqrt(off.var(axis=0, ddof=1).mean(axis=1, keepdims=True) / len(SITES))
    chi = off.mean(axis=0) / noise
    assert np.sqrt((chi**2).mean()) < 1.5
    assert np.abs(chi).max() < 4.0
    assert (
        np.abs(off.mean(axis=0) / published.mean(axis=0).reshape(10, 10, 5, 10).mean(axis=(1, 3))).max()
        < 0.01
    )


@pytest.mark.parametrize("site", ["US-Bi1", "US-Whs"])
def test_one_layer_agrees_with_the_published_ones_where_steps_are_short(shared_data: Path, site: str) -> None:
    """From 4 to 15 canopy heights: below, time steps bias the published; above, it feels that its top absorbs."""
    theirs = read_dispersion_matrix(shared_data / "fluxtower" / "dij" / f"Dij_{site}_1L.csv.gz", 1, 50)
    ours = dispersion_matrix(1, 50, measurement_height_ratio=51.0)
    assert theirs.shape == ours.shape == (51, 1)
    # noise and bias are shares of the concentration, not of its differences
    np.testing.assert_allclose(theirs[4:14] - theirs[14], ours[4:14] - ours[14], atol=0.02 * theirs[4, 0])


def test_one_layer_is_the_published_one_of_each_tower(shared_data: Path) -> None:
    """Noise of a published element is a share of 0.5 % or so of the concentration, not of its differences."""
    folder = shared_data / "fluxtower" / "dij"
    # over low canopies all flights have left after 1000 s, over a forest they have not
    for site, height, highest in (("US-Bi1", None, 12.05), ("US-Whs", None, 12.05), ("US-Me2", 18.0, 7.95)):
        theirs = read_dispersion_matrix(folder / f"Dij_{site}_1L.csv.gz", 1, 50)
        ours = published_dispersion_matrix(1, 50, canopy_height=height)
        assert ours.shape == theirs.shape == (51, 1)
        assert theirs[0, 0] < highest
        assert np.abs(ours - theirs).mean() < 0.006 * theirs.mean(), site
        assert np.abs(ours - theirs).max() < 0.008 * theirs[0, 0], site
        assert ours.sum() == pytest.approx(theirs.sum(), rel=3e-3), site


def test_moments_of_the_flight_are_what_its_states_give_where_both_can_be_had() -> None:
    states = (
        published_dispersion_matrix(50, 50)[:, 49].reshape(2, 50).mean(axis=1)
    )  # of the highest thin layer
    moments = mean_times(1, 2)[:, 0]
    np.testing.assert_allclose(moments - moments[-1], states - states[-1], atol=0.008 * moments[0])


def test_flights_that_last_have_all_left() -> None:
    np.testing.assert_allclose(mean_times(1, 3, flight_time=200.0), mean_times(1, 3), rtol=1e-6)
    assert (mean_times(1, 3, flight_time=2.0) < mean_times(1, 3)).all()


def test_published_domains_that_cannot_be_worked_out_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="end at 5 canopy heights"):
        published_dispersion_matrix(25, 100)
    with pytest.raises(ConfigurationError, match="canopy_height is 0"):
        published_dispersion_matrix(1, 50, canopy_height=0.0)


# ---------------------------------------------------------------- the matrix of the model


def test_last_row_is_the_height_of_measurement() -> None:
    matrix = dispersion_matrix(50, 50, measurement_height_ratio=6.25)
    assert matrix.shape == (100, 50)
    assert (matrix[-1] == 0.0).all()
    assert (matrix[:-1] > 0.0).all()


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.floats(1.05, 60.0))
def test_concentration_falls_with_height_above_the_canopy(layers: int, above: int, ratio: float) -> None:
    matrix = dispersion_matrix(layers, above, measurement_height_ratio=ratio)
    assert np.isfinite(matrix).all()
    assert (np.diff(matrix[layers:], axis=0) < 0.0).all()
    assert (matrix[:layers] > matrix[layers]).all() or layers > 1


def test_far_from_sources_flux_follows_the_gradient() -> None:
    ratio, heights = 6.25, middle(50, 50, 6.25)
    matrix = dispersion_matrix(50, 50, measurement_height_ratio=ratio)
    between = 0.5 * (heights[1:] + heights[:-1])
    diffusivity = velocity_deviation(between) ** 2 * time_scale(between)
    np.testing.assert_allclose(diffusivity[between > 1.6], 0.4 * (between[between > 1.6] - 0.6), rtol=1e-12)
    flux = -np.diff(matrix, axis=0) / np.diff(heights)[:, None] * diffusivity[:, None]
    # the last row is the height of measurement rather than a layer
    flux, between = flux[:-1], between[:-1]
    np.testing.assert_allclose(flux[between > 2.5], 1.0, rtol=1e-2)
    np.testing.assert_allclose(flux[between > 5.0], 1.0, rtol=1e-3)
    # near them it does not: the top layer's own plume is still steep there, as Raupach's near field
    assert flux[52, 49] > 1.1


def test_height_of_measurement_adds_the_resistance_of_the_surface_layer() -> None:
    low, high = (dispersion_matrix(50, 50, measurement_height_ratio=ratio)[:50] for ratio in (2.0, 6.25))
    # integral of dz / (0.4 (z - 0.6))
    np.testing.assert_allclose(high - low, np.log((6.25 - 0.6) / (2.0 - 0.6)) / 0.4, rtol=1e-3)


def test_layers_answer_each_other_alike() -> None:
    """Flights are as likely backwards as forwards, so that a layer raises another as much as that raises it."""
    canopy = dispersion_matrix(50, 50)[:50]
    np.testing.assert_allclose(canopy, canopy.T, rtol=1e-9)


def test_thick_layers_are_means_of_thin_ones() -> None:
    thin = dispersion_matrix(50, 50, measurement_height_ratio=3.0)[:50]
    thick = dispersion_matrix(10, 50, measurement_height_ratio=3.0)[:10]
    np.testing.assert_allclose(thick, thin.reshape(10, 5, 10, 5).mean(axis=(1, 3)), rtol=1e-3)


def test_finer_cells_and_more_moments_change_little(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = dispersion_matrix(20, 20)
    monkeypatch.setattr(dispersion, "_MOMENT_PAIRS", 40)
    monkeypatch.setattr(dispersion, "_CANOPY_CELLS", 400)
    finer = dispersion_matrix.__wrapped__(20, 20)
    np.testing.assert_allclose(matrix[:-1], finer[:-1], rtol=5e-3)
    assert np.abs(matrix - finer).mean() < 5e-4 * finer.mean()


def test_times_in_boxes_are_those_of_particles_flown_one_by_one() -> None:
    """A random flight in small steps, independent of moments: dz = sigma v dt, dv = (sigma' - v / T) dt + noise."""
    random, step, particles = np.random.default_rng(1), 0.02, 40_000
    height = random.uniform(0.4, 0.6, particles)
    speed = random.standard_normal(particles)
    time, rise = np.zeros(15), velocity_deviation(1.0) - velocity_deviation(0.0)

    def drift() -> None:
        nonlocal height, speed
        height = height + 0.5 * step * velocity_deviation(height) * speed
        height, speed = np.abs(height), np.where(height < 0.0, -speed, speed)

    while height.size:
        time += step * np.bincount((height * 5.0).astype(int), minlength=15)
        drift()
        lift = 0.5 * step * np.where(height < 1.0, rise, 0.0)
        memory = np.exp(-step / time_scale(height))
        speed = (
            memory * (speed + lift) + np.sqrt(1.0 - memory**2) * random.standard_normal(height.size) + lift
        )
        drift()
        inside = height < 3.0
        height, speed = height[inside], speed[inside]
    flown = time / particles * 5.0
    expected = dispersion_matrix(5, 10, measurement_height_ratio=3.0)[:, 2]
    # what happens at the top is felt as a constant far below it
    np.testing.assert_allclose((expected - expected[7])[:7], (flown - flown[7])[:7], rtol=0.03, atol=0.03)


def test_matrix_is_the_same_each_time_and_cannot_be_changed_by_mistake() -> None:
    once = dispersion_matrix(7, 9)
    np.testing.assert_array_equal(once, dispersion_matrix.__wrapped__(7, 9))
    with pytest.raises(ValueError, match="read-only"):
        once[0, 0] = 1.0


@pytest.mark.parametrize("ratio", [1.0, 0.5, -2.0, float("nan"), float("inf")])
def test_measurement_must_be_above_the_canopy(ratio: float) -> None:
    with pytest.raises(ConfigurationError, match="above the canopy"):
        dispersion_matrix(5, 5, measurement_height_ratio=ratio)


@pytest.mark.parametrize(("layers", "above"), [(0, 5), (5, 0), (-1, 5)])
def test_there_must_be_layers(layers: int, above: int) -> None:
    with pytest.raises(ConfigurationError, match="at least one of each"):
        dispersion_matrix(layers, above)


# ---------------------------------------------------------------- reading


def test_plain_and_compressed_files_are_read(tmp_path: Path) -> None:
    text = "1.5,2.0\n0.5,0.25\n0.0,0.0\n"
    (tmp_path / "Dij.csv").write_text(text)
    with gzip.open(tmp_path / "Dij.csv.gz", "wt") as file:
        file.write(text)
    for name in ("Dij.csv", "Dij.csv.gz"):
        matrix = read_dispersion_matrix(tmp_path / name, 2, 1)
        np.testing.assert_array_equal(matrix, [[1.5, 2.0], [0.5, 0.25], [0.0, 0.0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3,4\n", "2 rows and 2 columns.*need 3 rows and 2 columns"),
        ("1,2\n3\n0,0\n", "not a table"),
        ("1,2\nthree,4\n0,0\n", "not a table"),
        ("1,2\nnan,4\n0,0\n", "not finite in row 2, column 1"),
    ],
)
def test_unfit_files_are_refused_with_what_would_be_right(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "Dij.csv"
    path.write_text(text)
    with pytest.raises(BundleError, match=message):
        read_dispersion_matrix(path, 2, 1)


def test_absent_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no dispersion matrix at"):
        read_dispersion_matrix(tmp_path / "Dij.csv", 2, 1)
    damaged = tmp_path / "Dij.csv.gz"
    damaged.write_bytes(gzip.compress(b"1,2\n3,4\n0,0\n" * 1000)[:40])
    with pytest.raises(BundleError, match="not a table"):
        read_dispersion_matrix(damaged, 2, 1)
