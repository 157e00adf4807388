"""What eWaterCycle asks of a model by its documented interface, and eWaterCycle itself where it is installed."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cftime import num2pydate
from hypothesis import given
from hypothesis import strategies as st

import bmi_components
from bmi_components import ewatercycle
from bmi_components.errors import ConfigurationError, GridError, UnknownNameError, ValueShapeError
from bmi_components.ewatercycle import LatitudeLongitudeGrid, for_ewatercycle
from bmi_components.testing import run_bmi_tester

PERIOD = "start_time: 1995-10-01\nend_time: 1995-10-08\n"
START = datetime.datetime(1995, 10, 1)
CATCHMENTS = [(40.0, -90.0), (41.0, -91.0), (42.0, -92.0)]
"""Latitude and longitude of the catchments of ``hbv_bundles``: on the grid, 42 degrees are the last row and -92 the
first column."""
CELLS = [2, 4, 6]
RAIN = "atmosphere_water__liquid_equivalent_precipitation_rate"

Vector = np.ndarray[Any, Any]


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    pytest.importorskip("torch")
    from hbv_bundles import configuration

    return str(configuration(tmp_path, "2.0", areas=(12.5, 300.0, 4.0), extra=PERIOD))


def opened(config_file: str | Path) -> Any:
    model = ewatercycle.DeltaHBV()
    model.initialize(str(config_file))
    return model


def field(model: Any, name: str) -> Vector:
    return model.get_value(name, np.empty(model.get_var_nbytes(name) // model.get_var_itemsize(name)))


def date(model: Any, what: str = "current") -> datetime.datetime:
    """Ask for a time as eWaterCycle does (``time_as_datetime``, ``end_time_as_datetime``)."""
    answer: datetime.datetime = num2pydate(getattr(model, f"get_{what}_time")(), model.get_time_units())
    return answer


def latlon_grid(model: Any, name: str) -> tuple[Vector, Vector, Vector]:
    """Ask for latitudes, longitudes and shape as eWaterCycle does (``get_latlon_grid``)."""
    grid = model.get_var_grid(name)
    shape = model.get_grid_shape(grid, np.empty(model.get_grid_rank(grid), dtype=np.int64))
    longitude = model.get_grid_x(grid, np.empty(shape[-1]))
    return model.get_grid_y(grid, np.empty(shape[-2])), longitude, shape


def drive(model: Any, day: int) -> None:
    """Set each input to a field whose values differ between cells."""
    for name in model.get_input_var_names():
        size = model.get_var_nbytes(name) // 8
        values = np.random.default_rng(day).uniform(1.0, 9.0, 9)
        model.set_value(name, values if size == 9 else values[CELLS])


# Time ----------------------------------------------------------------------------------------------------------


def test_times_are_dates_and_the_run_ends(config_file: str) -> None:
    model = opened(config_file)
    assert model.get_time_units() == "seconds since 1995-10-01 00:00:00"
    assert date(model, "start") == date(model) == START
    assert date(model, "end") == START + datetime.timedelta(days=7)
    days = 0
    while model.get_current_time() < model.get_end_time():
        drive(model, days)
        model.update()
        days += 1
        assert date(model) == START + datetime.timedelta(days=days)
    assert days == 7


@pytest.mark.parametrize(("keys", "absent"), [("", "start_time and end_time"), (PERIOD[:23], "end_time")])
def test_a_configuration_without_dates_is_refused(tmp_path: Path, keys: str, absent: str) -> None:
    path = tmp_path / "lorenz.yaml"
    path.write_text(f"state: [[8.0, 0.0, 30.0]]\n{keys}")
    with pytest.raises(ConfigurationError, match=f"{path.name}: {absent} missing"):
        ewatercycle.Lorenz63().initialize(str(path))


def test_an_end_amid_a_step_is_refused_and_an_open_run_goes_on(config_file: str) -> None:
    model = opened(config_file)
    drive(model, 0)
    model.update()
    amid = Path(config_file).with_name("amid.yaml")
    text = Path(config_file).read_text().replace("1995-10-08", "1996-10-08 12:00").replace("1995", "1994")
    amid.write_text(text)
    with pytest.raises(ConfigurationError, match="not whole steps of 86400 s after start_time"):
        model.initialize(str(amid))
    assert date(model) == START + datetime.timedelta(days=1)


def test_before_initialize_and_after_finalize_there_is_no_calendar(config_file: str) -> None:
    model = opened(config_file)
    model.finalize()
    for nothing_open in (model, ewatercycle.DeltaHBV()):
        with pytest.raises(bmi_components.errors.TimeError, match="get_time_units needs initialize"):
            nothing_open.get_time_units()


# Latitudes and longitudes --------------------------------------------------------------------------------------


def test_the_grid_has_the_catchments_latitudes_and_longitudes(config_file: str) -> None:
    model = opened(config_file)
    for name in (*model.get_input_var_names(), *model.get_output_var_names()):
        latitude, longitude, shape = latlon_grid(model, name)
        np.testing.assert_array_equal(latitude, [40.0, 41.0, 42.0])
        np.testing.assert_array_equal(longitude, [-92.0, -91.0, -90.0])
        assert tuple(shape) == (3, 3)
        assert model.get_var_location(name) == "node"
        assert field(model, name).size == model.get_grid_size(model.get_var_grid(name)) == 9
    assert model.get_grid_type(0) == "rectilinear"
    with pytest.raises(GridError, match="rectilinear: it has no spacing"):
        model.get_grid_spacing(0, np.empty(2))


def test_values_are_the_components_own_and_nan_between_catchments(config_file: str) -> None:
    model, plain = opened(config_file), bmi_components.DeltaHBV()
    plain.initialize(config_file)
    for day in range(3):
        for component in (model, plain):
            drive(component, day)
            component.update()
    for name in (*plain.get_input_var_names(), *plain.get_output_var_names()):
        values, own = field(model, name), field(plain, name)
        np.testing.assert_array_equal(values[CELLS], own)
        assert np.isnan(np.delete(values, CELLS)).all()
        at = model.get_value_at_indices(name, np.empty(3), np.array([6, 0, 2]))
        np.testing.assert_array_equal(at, [own[2], np.nan, own[0]])


def test_a_map_of_values_is_taken_and_empty_cells_are_not_looked_at(config_file: str) -> None:
    model = opened(config_file)
    day = np.full((3, 3), np.nan)
    day.ravel()[CELLS] = 1.0, 2.0, 3.0
    model.set_value(RAIN, day)
    np.testing.assert_array_equal(field(model, RAIN), day.ravel())
    model.set_value_at_indices(RAIN, np.array([6, 2]), np.array([30.0, 10.0]))
    np.testing.assert_array_equal(field(model, RAIN)[CELLS], [10.0, 2.0, 30.0])
    model.set_value("parFC", np.where(np.isnan(day), np.nan, 100.0 + day))
    np.testing.assert_array_equal(field(model, "parFC")[CELLS], [101.0, 102.0, 103.0])


def test_what_has_no_place_is_refused(config_file: str) -> None:
    model = opened(config_file)
    with pytest.raises(ValueShapeError, match="no catchment lies at latitude 40, longitude -92"):
        model.set_value_at_indices(RAIN, np.array([2, 0]), np.ones(2))
    with pytest.raises(ValueShapeError, match="between 0 and 8"):
        model.set_value_at_indices(RAIN, np.array([9]), np.ones(1))
    with pytest.raises(ValueShapeError, match="whole numbers"):
        model.set_value_at_indices(RAIN, np.array([0.5]), np.ones(1))
    with pytest.raises(ValueShapeError, match="9 values, 3 latitudes by 3 longitudes, not 3"):
        model.set_value(RAIN, np.ones(3))
    with pytest.raises(ValueShapeError, match="array of 9 elements"):
        model.get_value(RAIN, np.empty(3))
    with pytest.raises(ValueShapeError, match="array of 1 elements"):
        model.get_value_at_indices(RAIN, np.empty(3), np.array([2]))
    with pytest.raises(GridError, match="use get_value"):
        model.get_value_ptr(RAIN)
    with pytest.raises(UnknownNameError, match="did you mean"):
        model.get_value(RAIN[:-1], np.empty(9))


def test_one_catchment_is_a_grid_of_one_cell(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from hbv_bundles import configuration

    model = opened(configuration(tmp_path, "2.0", extra=PERIOD))
    latitude, longitude, shape = latlon_grid(model, RAIN)
    assert (latitude[0], longitude[0], *shape) == (40.0, -90.0, 1, 1)
    model.get_value_ptr(RAIN)[0] = 2.5
    assert field(model, RAIN) == 2.5


def test_catchments_at_one_place_are_refused(config_file: str) -> None:
    path = Path(config_file)
    path.write_text(path.read_text().replace("latitude: 42, longitude: -92", "latitude: 40, longitude: -90"))
    with pytest.raises(ConfigurationError, match="catchments number 0 and 2 both lie at latitude 40"):
        opened(path)


def test_without_places_there_are_dates_and_no_map(tmp_path: Path) -> None:
    path = tmp_path / "lorenz.yaml"
    path.write_text("state: [[8.0, 0.0, 30.0]]\nstart_time: 2000-01-01\nend_time: 2000-01-01 00:00:01\n")
    model = ewatercycle.Lorenz63()
    model.initialize(str(path))
    for _ in range(100):
        model.update()
    assert date(model) == datetime.datetime(2000, 1, 1, 0, 0, 1)
    assert model.get_value_ptr(model.get_output_var_names()[0]).size == 1
    with pytest.raises(GridError, match="no latitudes and longitudes"):
        latlon_grid(model, model.get_output_var_names()[0])


@given(
    places=st.lists(
        st.tuples(st.integers(-90, 90), st.integers(-180, 180)), min_size=1, max_size=30, unique=True
    )
)
def test_any_places_keep_their_coordinates(places: list[tuple[int, int]]) -> None:
    latitude, longitude = np.array(places, dtype=np.float64).T
    grid = LatitudeLongitudeGrid(longitude, latitude)
    row, column = np.divmod(grid.cells, grid.longitude.size)
    np.testing.assert_array_equal(grid.latitude[row], latitude)
    np.testing.assert_array_equal(grid.longitude[column], longitude)
    np.testing.assert_array_equal(grid.places_at(grid.cells), np.arange(len(places)))
    for axis in (grid.latitude, grid.longitude):
        assert (np.diff(axis) > 0.0).all()


# The same component --------------------------------------------------------------------------------------------


def test_states_fit_both(config_file: str, tmp_path: Path) -> None:
    model, plain = opened(config_file), bmi_components.DeltaHBV()
    plain.initialize(config_file)
    drive(model, 0)
    model.update()
    model.save_state(tmp_path / "state")
    plain.load_state(tmp_path / "state", restore_clock=True)
    for component in (model, plain):
        drive(component, 1)
        component.update()
    for name in plain.get_output_var_names():
        np.testing.assert_array_equal(field(model, name)[CELLS], field(plain, name))


def test_every_component_is_there_by_name() -> None:
    assert ewatercycle.DeltaHBV is for_ewatercycle(bmi_components.DeltaHBV)
    assert issubclass(ewatercycle.StreamflowLSTM, bmi_components.StreamflowLSTM)
    for name in ("Stepper", "couple", "DeltaHVB"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
            getattr(ewatercycle, name)


def test_it_passes_bmi_tester(config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "adapted.py").write_text(  # bmi-tester looks into a module without asking it
        "from bmi_components import ewatercycle\nDeltaHBV = ewatercycle.DeltaHBV\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "All tests passed" in run_bmi_tester("adapted:DeltaHBV", config_file)


# Through eWaterCycle's own layers ------------------------------------------------------------------------------


def test_a_container_serves_it(config_file: str, tmp_path: Path) -> None:
    """eWaterCycle runs models in containers that serve grpc4bmi, and asks without destinations."""
    from bmi_server import Server
    from grpc4bmi.bmi_memoized import MemoizedBmi
    from grpc4bmi.bmi_optionaldest import OptionalDestBmi

    with Server("bmi_components.ewatercycle.DeltaHBV", tmp_path / "server.log") as remote:
        asked = OptionalDestBmi(MemoizedBmi(remote))
        asked.initialize(config_file)
        assert date(asked, "end") == START + datetime.timedelta(days=7)
        np.testing.assert_array_equal(asked.get_grid_shape(0), [3, 3])
        np.testing.assert_array_equal(asked.get_grid_x(0), [-92.0, -91.0, -90.0])
        np.testing.assert_array_equal(asked.get_grid_y(0), [40.0, 41.0, 42.0])
        drive(asked, 0)
        asked.update()
        model = opened(config_file)
        drive(model, 0)
        model.update()
        for name in model.get_output_var_names():
            np.testing.assert_array_equal(asked.get_value(name), field(model, name))
        np.testing.assert_array_equal(asked.get_value_at_indices(RAIN, np.array([4])), field(model, RAIN)[4])


def test_ewatercycle_runs_it(config_file: str, tmp_path: Path) -> None:
    base = pytest.importorskip("ewatercycle.base.model", exc_type=ImportError)
    model = base.LocalModel(bmi_class=ewatercycle.DeltaHBV)
    settings = bmi_components.config.read_yaml(config_file)
    settings["model"] = str(Path(config_file).parent / "model")
    cfg_file, _ = model.setup(cfg_dir=str(tmp_path / "run"), **settings)
    model.initialize(cfg_file)
    assert (model.start_time_as_isostr, model.end_time_as_isostr) == (
        "1995-10-01T00:00:00Z",
        "1995-10-08T00:00:00Z",
    )
    latitude, longitude = np.array(CATCHMENTS).T
    runoff = model.output_var_names[0]
    while model.time < model.end_time:
        drive(model.bmi, 0)
        model.set_value_at_coords(RAIN, lat=latitude, lon=longitude, values=np.array([1.0, 2.0, 3.0]))
        model.update()
        values = model.get_value(runoff)
        np.testing.assert_array_equal(
            model.get_value_at_coords(runoff, lat=latitude, lon=longitude), values[CELLS]
        )
        drawn = model.get_value_as_xarray(runoff)
        assert drawn.dims == ("time", "latitude", "longitude")
        assert drawn.attrs["units"] == model.var_units(runoff)
        for place, value in zip(CATCHMENTS, values[CELLS], strict=True):
            assert drawn.sel(latitude=place[0], longitude=place[1]).item() == value
    assert model.time_as_isostr == "1995-10-08T00:00:00Z"
    model.finalize()
