"""A component served by grpc4bmi is the component itself: the same metadata, numbers and errors through the wire."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bmipy
import numpy as np
import pytest
from bmi_server import Server  # before grpc4bmi: skips these tests where that is absent

import bmi_components

import grpc  # isort: skip
from grpc4bmi.bmi_grpc_client import BmiClient, RemoteException  # isort: skip


def dhbv(folder: Path) -> Path:
    from hbv_bundles import configuration

    return configuration(folder, "2.0", areas=(12.5, 300.0, 4.0))


def streamflow(folder: Path) -> Path:
    from streamflow_bundles import configuration

    return configuration(folder, ("lstm",))


def lorenz(folder: Path) -> Path:
    path = folder / "lorenz.yaml"
    path.write_text("state: [[8.0, 0.0, 30.0], [1.0, 1.0, 20.0]]\n")
    return path


@dataclass(frozen=True)
class Served:
    """A component behind a server, and the same beside it in this process, both initialized."""

    remote: BmiClient
    local: bmipy.Bmi
    config_file: str


COMPONENTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "DeltaHBV": (dhbv, "torch"),
    "StreamflowLSTM": (streamflow, "torch"),
    "Lorenz63": (lorenz, "numpy"),
}


@pytest.fixture(scope="module", params=COMPONENTS)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    write, framework = COMPONENTS[request.param]
    pytest.importorskip(framework)
    folder = tmp_path_factory.mktemp(request.param)
    config_file = str(write(folder))
    local: bmipy.Bmi = getattr(bmi_components, request.param)()
    with Server(f"bmi_components.{request.param}", folder / "server.log") as remote:
        yield Served(remote, local, config_file)


@pytest.fixture
def both(served: Served) -> Iterator[Served]:
    """Both at time 0; a server serves one run after another."""
    for component in (served.remote, served.local):
        component.initialize(served.config_file)
    yield served
    for component in (served.remote, served.local):
        component.finalize()


def names_of(component: bmipy.Bmi) -> tuple[str, ...]:
    return (*component.get_input_var_names(), *component.get_output_var_names())


def value(component: bmipy.Bmi, name: str) -> np.ndarray[Any, Any]:
    return component.get_value(name, np.empty(component.get_var_nbytes(name) // 8))


def drive(component: bmipy.Bmi, seed: int) -> None:
    """Set every input to plausible numbers that differ between catchments."""
    random = np.random.default_rng(seed)
    for name in component.get_input_var_names():
        size = component.get_var_nbytes(name) // 8
        component.set_value(name, random.uniform(1.0, 9.0, size))


# What a client asks --------------------------------------------------------------------------------------------


def test_metadata_are_the_same_through_the_wire(both: Served) -> None:
    for ask in [
        "component_name",
        "input_item_count",
        "output_item_count",
        "input_var_names",
        "output_var_names",
        "start_time",
        "current_time",
        "end_time",
        "time_step",
        "time_units",
    ]:
        assert getattr(both.remote, f"get_{ask}")() == getattr(both.local, f"get_{ask}")(), ask
    for name in names_of(both.local):
        for ask in ["grid", "type", "units", "itemsize", "nbytes", "location"]:
            asked = f"get_var_{ask}"
            assert getattr(both.remote, asked)(name) == getattr(both.local, asked)(name), (ask, name)


def test_grids_are_the_same_through_the_wire(both: Served) -> None:
    for grid in {both.local.get_var_grid(name) for name in names_of(both.local)}:
        counts = {}
        for ask in ["rank", "size", "type", "node_count", "edge_count", "face_count"]:
            counts[ask] = getattr(both.local, f"get_grid_{ask}")(grid)
            assert getattr(both.remote, f"get_grid_{ask}")(grid) == counts[ask], ask
        nodes, edges, faces = counts["node_count"], counts["edge_count"], counts["face_count"]
        for ask, size, dtype in (
            ("x", nodes, float),
            ("y", nodes, float),
            ("edge_nodes", 2 * edges, int),
            ("nodes_per_face", faces, int),
            ("face_nodes", 3 * faces, int),
            ("face_edges", 3 * faces, int),
        ):
            answers = [
                getattr(component, f"get_grid_{ask}")(grid, np.empty(size, dtype=dtype))
                for component in (both.remote, both.local)
            ]
            np.testing.assert_array_equal(*answers, err_msg=ask)


def test_numbers_are_the_same_through_the_wire(both: Served) -> None:
    step = both.local.get_time_step()
    for number in range(4):
        for component in (both.remote, both.local):
            drive(component, seed=number)
            component.update()
        for name in names_of(both.local):
            np.testing.assert_array_equal(value(both.remote, name), value(both.local, name), err_msg=name)
    # whole steps at once, and to the middle of one and on
    for time in (7 * step, 7.5 * step, 8 * step):
        for component in (both.remote, both.local):
            component.update_until(time)
            assert component.get_current_time() == time
        for name in both.local.get_output_var_names():
            answer = value(both.remote, name)
            np.testing.assert_array_equal(answer, value(both.local, name), err_msg=name)
            assert np.isfinite(answer).all()


def test_values_at_indices_are_the_same_through_the_wire(both: Served) -> None:
    for component in (both.remote, both.local):
        drive(component, seed=3)
    for name in both.local.get_input_var_names():
        size = both.local.get_var_nbytes(name) // 8
        last = np.array([size - 1])
        for component in (both.remote, both.local):
            component.set_value_at_indices(name, last, np.array([4.25]))
        np.testing.assert_array_equal(value(both.remote, name), value(both.local, name))
        backwards = np.arange(size)[::-1]
        answer = both.remote.get_value_at_indices(name, np.empty(size), backwards)
        np.testing.assert_array_equal(answer, value(both.local, name)[::-1])
        assert answer[0] == 4.25


def test_numbers_of_other_types_are_converted(both: Served) -> None:
    name = both.local.get_input_var_names()[0]
    size = both.local.get_var_nbytes(name) // 8
    for dtype in (np.int64, np.int32, np.float32):
        both.remote.set_value(name, np.full(size, 3, dtype=dtype))
        np.testing.assert_array_equal(value(both.remote, name), np.full(size, 3.0))


def test_a_server_serves_one_run_after_another(served: Served) -> None:
    runs = []
    for _ in range(2):
        served.remote.initialize(served.config_file)
        drive(served.remote, seed=1)
        served.remote.update()
        runs.append([value(served.remote, name) for name in served.remote.get_output_var_names()])
        served.remote.finalize()
    np.testing.assert_array_equal(*runs)


# What goes wrong -----------------------------------------------------------------------------------------------


def message_of(call: Callable[[], object]) -> str:
    """Return what an exception says to the user, of either side."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - its text is what is asked for
        call()
    if isinstance(caught.value, grpc.RpcError):
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        return str(caught.value.details())
    return str(caught.value)


def test_errors_arrive_word_for_word(both: Served) -> None:
    output = both.local.get_output_var_names()[0]
    first_input = both.local.get_input_var_names()[0]
    size = both.local.get_var_nbytes(first_input) // 8
    mistakes: list[tuple[str, tuple[Any, ...], str]] = [
        ("get_var_units", ("no_such",), "has no variable 'no_such'"),
        ("set_value", (output, np.ones(size)), "is an output"),
        ("set_value", (first_input, np.ones(size + 1)), f"takes {size} values, not {size + 1}"),
        ("set_value_at_indices", (first_input, np.array([size]), np.ones(1)), "must be between 0"),
        ("update_until", (-1.0,), "is in the past"),
        ("get_grid_type", (7,), "has no grid 7"),
        ("get_grid_z", (0, np.empty(1)), "has no z"),
    ]
    for function, arguments, says in mistakes:
        answers = [
            message_of(functools.partial(getattr(component, function), *arguments))
            for component in (both.remote, both.local)
        ]
        assert answers[0] == answers[1]
        assert says in answers[0]
    for component in (both.remote, both.local):
        drive(component, seed=0)
        component.update()  # what went wrong left the component usable
    assert both.remote.get_current_time() == both.local.get_time_step()


def test_missing_forcing_and_a_missing_file_are_named(served: Served, tmp_path: Path) -> None:
    assert "needs initialize(config_file) first" in message_of(served.remote.update)
    absent = str(tmp_path / "absent.yaml")
    assert message_of(lambda: served.remote.initialize(absent)) == (
        f"{absent}: there is no such configuration file"
    )
    assert "needs the path of a configuration file" in message_of(lambda: served.remote.initialize(None))
    served.remote.initialize(served.config_file)
    names = served.remote.get_input_var_names()
    if served.remote.get_component_name() != "Lorenz63":  # which goes its own way where nobody corrects it
        assert any(name in message_of(served.remote.update) for name in names)
        assert served.remote.get_current_time() == 0.0
    served.remote.finalize()


def test_with_debug_the_type_of_an_error_arrives_too(tmp_path: Path) -> None:
    with (
        Server("bmi_components.Lorenz63", tmp_path / "server.log", "--debug") as remote,
        pytest.raises(RemoteException, match=r"TimeError\('Lorenz63: update needs initialize"),
    ):
        remote.update()
    assert "Traceback" in (tmp_path / "server.log").read_text()
