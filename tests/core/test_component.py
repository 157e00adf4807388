"""What a component does around its model: values, amounts per update, parts of steps, errors, tensors, sizes."""

from __future__ import annotations

import sys
import threading
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from linear_reservoir import DAY, LinearReservoir
from numpy.typing import NDArray

from bmi_components.component import Component
from bmi_components.config import Settings
from bmi_components.errors import (
    ConfigurationError,
    DeviceError,
    ForcingError,
    GridError,
    StateError,
    TimeError,
    UnknownNameError,
    ValueShapeError,
)
from bmi_components.stepper import Aggregation, Stepper
from bmi_components.variables import Variable, variable

RAIN = "atmosphere_water__liquid_equivalent_precipitation_rate"
DEPTH = "land_surface_water__runoff_depth"
RUNOFF = "land_surface_water__runoff_volume_flux"

Opening = Callable[..., LinearReservoir]


@pytest.fixture
def reservoir(tmp_path: Path) -> Opening:
    def make(
        text: str = "residence_time: [5.0]\n", kind: type[LinearReservoir] = LinearReservoir
    ) -> LinearReservoir:
        path = tmp_path / "reservoir.yaml"
        path.write_text(text)
        component = kind()
        component.initialize(str(path))
        return component

    return make


class EchoStepper(Stepper):
    """Gives back the forcings it was stepped with; refuses one temperature in ``prepare``."""

    inputs = (variable("precipitation"), variable("temperature"))
    outputs = tuple(
        Variable(f"echo__{kind}", "1", kind, kind)
        for kind in ("rain", "coldest", "warmest", "mean", "latest")
    )
    time_step = DAY
    size = 2
    aggregations: tuple[Aggregation, ...] = ("mean", "min", "max", "mean", "last")

    def prepare(self, inputs: Any, time: float, seconds: float) -> Any:
        rain, temperature = inputs[:2], inputs[2:]
        if (temperature == 13.0).any() and time >= DAY:
            raise ForcingError("13 degC is bad luck after the first day")
        return np.concatenate([rain, temperature, temperature, temperature, temperature])

    def step(self, forcings: Any, time: float, outputs: Any) -> Any:
        return forcings  # not the array that was offered: must be copied

    def initial_outputs(self, outputs: NDArray[np.float64]) -> None:
        outputs[:] = -1.0

    def read_state(self) -> dict[str, NDArray[Any]]:
        return {}

    def write_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        if state:
            raise StateError("an echo remembers nothing")


class Echo(Component):
    """Shows what the core makes of the inputs."""

    name = "Echo"

    def open(self, settings: Settings) -> Stepper:
        return EchoStepper()


@pytest.fixture
def echo(tmp_path: Path) -> Echo:
    (tmp_path / "echo.yaml").write_text("")
    component = Echo()
    component.initialize(str(tmp_path / "echo.yaml"))
    return component


def test_forcing_within_a_step_is_weighted_by_time_or_taken_at_its_extremes(echo: Echo) -> None:
    for hours, rain, temperature in ((6, 8.0, 4.0), (12, 0.0, -2.0), (6, 4.0, 7.0)):
        echo.set_value(RAIN, np.array([rain, 2.0 * rain]))
        echo.set_value("land_surface_air__temperature", np.array([temperature, temperature]))
        echo.update_until(echo.get_current_time() + hours * 3600.0)
    values = {name: echo.get_value_ptr(name)[0] for name in echo.get_output_var_names()}
    assert values["echo__rain"] == pytest.approx(3.0)
    assert echo.get_value_ptr("echo__rain")[1] == pytest.approx(6.0)
    assert values["echo__coldest"] == -2.0
    assert values["echo__warmest"] == 7.0
    assert values["echo__mean"] == pytest.approx(1.75)
    assert values["echo__latest"] == 7.0


@pytest.mark.parametrize("value", [0.1, 1.0 / 3.0, 1e-300, 12345.678901234567])
def test_a_constant_forcing_keeps_every_bit_however_the_step_is_cut(echo: Echo, value: float) -> None:
    echo.set_value(RAIN, np.full(2, value))
    echo.set_value("land_surface_air__temperature", np.full(2, 0.3))
    for end in np.cumsum([1.0, 3599.0, 7200.0, 0.25, 8000.75, 20_000.0, 47_599.0]):
        echo.update_until(float(end))
    assert echo.get_current_time() == DAY
    assert (echo.get_value_ptr("echo__rain") == value).all()
    assert (echo.get_value_ptr("echo__mean") == 0.3).all()


def test_before_the_first_complete_step_outputs_are_the_initial_ones(echo: Echo) -> None:
    echo.set_value(RAIN, np.ones(2))
    echo.set_value("land_surface_air__temperature", np.ones(2))
    echo.update_until(0.9 * DAY)
    assert (echo.get_value_ptr("echo__rain") == -1.0).all()


def test_a_refusal_amid_many_steps_leaves_the_component_where_it_got_to(echo: Echo) -> None:
    echo.set_value(RAIN, np.ones(2))
    echo.set_value("land_surface_air__temperature", np.full(2, 13.0))
    with pytest.raises(ForcingError, match="bad luck"):
        echo.update_until(5.5 * DAY)
    assert echo.get_current_time() == DAY
    echo.set_value("land_surface_air__temperature", np.full(2, 12.0))
    echo.update()
    assert echo.get_current_time() == 2 * DAY


def test_a_forcing_error_names_the_variable_the_catchment_the_value_and_what_would_be_right(
    reservoir: Opening,
) -> None:
    model = reservoir("residence_time: [5.0, 6.0, 7.0]\n")
    model.set_value(RAIN, np.array([1.0, -3.0, 2.0]))
    with pytest.raises(
        ForcingError, match=r"Linear reservoir.*precipitation_rate.*is -3 mm d-1 at catchment 1.*at least 0"
    ):
        model.update()
    model.set_value(RAIN, np.ma.masked_array([1.0, 1.0, 9.0], [False, False, True]))
    with pytest.raises(ForcingError, match=r"missing \(NaN or never set\) at catchment 2"):
        model.update()


def test_many_catchments_are_checked_like_few(reservoir: Opening) -> None:
    model = reservoir(f"residence_time: {[5.0] * 1000}\n")
    rain = np.ones(1000)
    model.set_value(RAIN, rain)
    model.update()
    for bad in (np.nan, np.inf, -0.5):
        rain[777] = bad
        model.set_value(RAIN, rain)
        with pytest.raises(ForcingError, match="at catchment 777"):
            model.update()


def test_runoff_depth_is_the_rate_reported_over_the_update_times_its_seconds(reservoir: Opening) -> None:
    model = reservoir()
    model.set_value(RAIN, np.array([10.0]))
    depth, runoff = model.get_value_ptr(DEPTH), model.get_value_ptr(RUNOFF)
    model.update()
    assert depth[0] == pytest.approx(runoff[0] / 1000.0, rel=1e-14)
    first = runoff[0]
    model.update_until(1.25 * DAY)
    assert depth[0] == pytest.approx(0.25 * first / 1000.0, rel=1e-14)
    model.update_until(3.5 * DAY)  # the rest of day 2, all of day 3, half of day 4 at day 3's rate
    days = reservoir()
    days.set_value(RAIN, np.array([10.0]))
    rates = []
    for _ in range(3):
        days.update()
        rates.append(days.get_value_ptr(RUNOFF)[0])
    assert depth[0] == pytest.approx((0.75 * rates[1] + 1.5 * rates[2]) / 1000.0, rel=1e-13)


def test_hourly_depths_add_up_to_what_the_days_released(reservoir: Opening) -> None:
    for mode in ("hold", "estimate"):
        hourly = reservoir(f"residence_time: [5.0]\npartial_step: {mode}\n")
        daily = reservoir()
        random = np.random.default_rng(1)
        released, given, last_day = 0.0, 0.0, []
        for _ in range(20):
            rain = random.gamma(0.5, 10.0, 24)
            for value in rain:
                hourly.set_value(RAIN, [value])
                hourly.update_until(hourly.get_current_time() + 3600.0)
                depth = hourly.get_value_ptr(DEPTH)[0]
                assert depth >= 0.0
                given += depth
            daily.set_value(RAIN, [rain.mean()])
            daily.update()
            released += daily.get_value_ptr(DEPTH)[0]
            last_day.append(daily.get_value_ptr(DEPTH)[0])
            assert hourly.get_value_ptr(RUNOFF)[0] == pytest.approx(daily.get_value_ptr(RUNOFF)[0], rel=1e-9)
        if mode == "hold":  # the last day is still to be given, but for its last hour
            assert given == pytest.approx(released - 23.0 / 24.0 * last_day[-1], rel=1e-9)
        else:
            assert given == pytest.approx(released, rel=1e-9)


def test_an_estimate_follows_the_forcing_so_far_and_leaves_the_state_alone(reservoir: Opening) -> None:
    model, other = reservoir("residence_time: [5.0]\npartial_step: estimate\n"), reservoir()
    model.set_value(RAIN, [24.0])
    other.set_value(RAIN, [24.0])
    other.update()
    model.update_until(3600.0)
    assert model.get_value_ptr(RUNOFF)[0] == other.get_value_ptr(RUNOFF)[0]
    model.set_value(RAIN, [0.0])
    model.update_until(DAY)
    dry = reservoir()
    dry.set_value(RAIN, [1.0])
    dry.update()
    assert model.get_value_ptr(RUNOFF)[0] == pytest.approx(dry.get_value_ptr(RUNOFF)[0], rel=1e-12)


def test_setting_an_output_is_refused_because_it_would_do_nothing(reservoir: Opening) -> None:
    model = reservoir()
    for action in (
        lambda: model.set_value(RUNOFF, np.zeros(1)),
        lambda: model.set_value_at_indices(RUNOFF, np.zeros(1, dtype=int), np.zeros(1)),
        lambda: model.set_tensor(RUNOFF, np.zeros(1)),
    ):
        with pytest.raises(UnknownNameError, match="is an output"):
            action()


def test_a_misspelt_name_is_answered_with_the_nearest(reservoir: Opening) -> None:
    model = reservoir()
    with pytest.raises(UnknownNameError, match=f"did you mean '{RUNOFF}'"):
        model.get_value_ptr(RUNOFF + "s")
    with pytest.raises(UnknownNameError, match="did you mean 'residence_time'"):
        model.set_value("residencetime", 1.0)


def test_parameters_take_one_value_for_all_or_one_each(reservoir: Opening) -> None:
    model = reservoir("residence_time: [5.0, 6.0]\n")
    name = "residence_time"
    assert (model.get_var_units(name), model.get_var_grid(name), model.get_var_location(name)) == (
        "d",
        0,
        "face",
    )
    assert model.get_var_nbytes(name) == 16
    model.set_value(name, 7)
    assert model.get_value(name, np.empty(2)).tolist() == [7.0, 7.0]
    model.set_value_at_indices(name, np.array([1]), np.array([8.0]))
    assert model.get_value_at_indices(name, np.empty(1), np.array([1])).tolist() == [8.0]
    pointer = model.get_value_ptr(name)
    with pytest.raises(ValueError, match="read-only"):
        pointer[0] = 1.0
    for bad, error in (
        ([1.0, 2.0, 3.0], ValueShapeError),
        (-1.0, ConfigurationError),
        (np.nan, ConfigurationError),
    ):
        with pytest.raises(error):
            model.set_value(name, bad)
    assert model.get_value_ptr(name).tolist() == [7.0, 8.0]


def test_a_destination_that_would_lose_digits_is_refused(reservoir: Opening) -> None:
    model = reservoir()
    model.get_value(RUNOFF, np.zeros(1, dtype=np.float32))
    for dest in (np.zeros(1, dtype=np.int64), [0.0], np.zeros((1, 1)), None):
        with pytest.raises(ValueShapeError):
            model.get_value(RUNOFF, dest)  # type: ignore[arg-type]
    with pytest.raises(ValueShapeError):
        model.get_value_at_indices(RUNOFF, np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int32))
    with pytest.raises(ValueShapeError):
        model.get_value_at_indices(RUNOFF, np.zeros(2), np.zeros(1, dtype=np.int32))


def test_a_failed_initialize_leaves_the_open_run_as_it_was(reservoir: Opening, tmp_path: Path) -> None:
    model = reservoir()
    model.set_value(RAIN, [3.0])
    model.update()
    (tmp_path / "wrong.yaml").write_text("residence_times: [1.0]\n")
    for wrong in ("wrong.yaml", "absent.yaml"):
        with pytest.raises(ConfigurationError):
            model.initialize(str(tmp_path / wrong))
    assert model.get_current_time() == DAY
    model.update()


def test_the_configured_period_ends_the_run(reservoir: Opening) -> None:
    model = reservoir("residence_time: [5.0]\nstart_time: 2020/01/01 00\nend_time: 2020-01-02 12:00:00\n")
    assert model.get_end_time() == 1.5 * DAY
    model.set_value(RAIN, [3.0])
    model.update()
    with pytest.raises(TimeError, match="beyond the end"):
        model.update()
    model.update_until(1.5 * DAY)


def test_a_configured_state_is_where_a_run_starts(reservoir: Opening, tmp_path: Path) -> None:
    model = reservoir()
    model.set_value(RAIN, [30.0])
    model.update_until(1.5 * DAY)
    model.save_state(tmp_path / "warm.safetensors")
    warm = reservoir("residence_time: [5.0]\ninitial_state: warm.safetensors\n")
    assert warm.get_current_time() == 0.0
    model.update_until(3.5 * DAY)
    warm.update_until(2.0 * DAY)
    for name in model.get_output_var_names():
        assert warm.get_value_ptr(name).tobytes() == model.get_value_ptr(name).tobytes()
    model.load_state(tmp_path / "warm.safetensors", restore_clock=True)
    assert model.get_current_time() == 1.5 * DAY
    with pytest.raises(StateError, match="holds 1 catchments"):
        reservoir("residence_time: [5.0, 6.0]\ninitial_state: warm.safetensors\n")


def test_both_forms_of_nextgens_saved_states_hold_the_same(reservoir: Opening) -> None:
    model, other = reservoir(), reservoir()
    model.set_value(RAIN, [30.0])
    model.update()
    for prefix, size_type in (("ngen::", "int64"), ("", "uint64")):
        assert model.get_var_type(f"{prefix}serialization_size") == size_type
        assert model.get_var_units(f"{prefix}serialization_size") == "bytes"
        assert model.get_var_nbytes(f"{prefix}serialization_state") == 0
        model.set_value(f"{prefix}serialization_create", np.ones(1, dtype=np.int32))
        size = int(model.get_value_ptr(f"{prefix}serialization_size")[0])
        assert size == model.get_var_nbytes(f"{prefix}serialization_state")
        state = model.get_value_ptr(f"{prefix}serialization_state").copy()
        model.set_value(f"{prefix}serialization_free", np.ones(1, dtype=np.int32))
        assert model.get_var_nbytes(f"{prefix}serialization_state") == 0
        other.set_value(f"{prefix}serialization_size", np.array([size], dtype=size_type))
        assert other.get_var_nbytes(f"{prefix}serialization_state") == size
        other.set_value(f"{prefix}serialization_state", state)
        assert other.get_value_ptr(RUNOFF)[0] == model.get_value_ptr(RUNOFF)[0]
        for function in (model.get_var_grid, model.get_var_location):
            with pytest.raises(UnknownNameError):
                function(f"{prefix}serialization_state")
    assert model.get_var_units("ngen::serialization_create") == "ngen::trigger"
    assert model.get_var_units("ngen::serialization_state") == "ngen::opaque"
    assert model.get_value_ptr("serialization_create").tolist() == [
        size
    ]  # the older form of the second protocol
    other.set_value("ngen::serialization_size", [3])
    with pytest.raises(StateError, match="announced"):
        other.set_value("ngen::serialization_state", state)
    model.set_value("reset_time", np.ones(1, dtype=np.int32))
    assert model.get_current_time() == 0.0


def test_the_mass_balance_lives_and_closes(reservoir: Opening) -> None:
    model = reservoir("residence_time: [5.0, 50.0]\n")
    gain = model.get_value_ptr("ngen::mass_in")
    assert (gain.shape, gain.dtype, model.get_var_units("ngen::mass_in")) == ((1,), np.float64, "m")
    model.set_value(RAIN, [10.0, 30.0])
    model.update()
    assert gain[0] == pytest.approx(0.02)
    rest = sum(model.get_value_ptr(f"ngen::mass_{term}")[0] for term in ("out", "stored", "leaked"))
    assert rest == pytest.approx(gain[0], rel=1e-12)
    with pytest.raises(UnknownNameError):
        model.set_value("ngen::mass_in", [0.0])


def test_a_model_that_keeps_no_balance_has_no_mass_variables(echo: Echo) -> None:
    with pytest.raises(UnknownNameError):
        echo.get_var_type("ngen::mass_in")


def test_a_mesh_has_no_shape_and_no_height_and_a_scalar_no_dimensions(reservoir: Opening) -> None:
    one, many = reservoir(), reservoir("residence_time: [5.0, 6.0]\n")
    shape = np.full(1, 7)
    assert one.get_grid_shape(0, shape) is shape
    assert shape[0] == 7
    for ask in (
        many.get_grid_shape,
        many.get_grid_spacing,
        many.get_grid_origin,
        many.get_grid_z,
        one.get_grid_z,
    ):
        with pytest.raises(GridError):
            ask(0, np.zeros(2))
    with pytest.raises(ValueShapeError):
        many.get_grid_x(0, np.zeros(2))


def test_calls_may_come_from_any_thread(reservoir: Opening) -> None:
    model = reservoir()
    model.set_value(RAIN, [3.0])
    for _ in range(3):
        worker = threading.Thread(target=model.update)
        worker.start()
        worker.join()
    assert model.get_current_time() == 3 * DAY


def test_thousands_of_components_are_small_and_do_not_grow(reservoir: Opening) -> None:
    first = reservoir()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        crowd = [reservoir() for _ in range(100)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(crowd)
        for model in (first, *crowd):
            model.set_value(RAIN, [3.0])
            model.update()
        stepped = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            for model in crowd:
                model.update()
        grown = tracemalloc.get_traced_memory()[0] - stepped
    finally:
        tracemalloc.stop()
    assert each < 15_000
    assert grown < 100 * len(crowd)


def test_the_core_imports_neither_torch_nor_jax() -> None:
    import subprocess

    code = (
        "import sys, bmi_components, bmi_components.component, bmi_components.testing\n"
        "raise SystemExit(any(name in sys.modules for name in ('torch', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestTorch:
    """A component on a PyTorch device."""

    @pytest.fixture
    def model(self, reservoir: Opening) -> Any:
        pytest.importorskip("torch")
        sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
        try:
            from framework_reservoirs import TorchReservoir
        finally:
            sys.path.pop(0)
        return reservoir("residence_time: [5.0, 6.0]\n", TorchReservoir)

    def test_outputs_come_down_when_they_are_read_and_not_before(self, model: Any) -> None:
        pointer = model.get_value_ptr(RUNOFF)
        model.set_value(RAIN, [10.0, 20.0])
        model.update()
        assert pointer.tolist() == [0.0, 0.0]
        values = model.get_value(RUNOFF, np.empty(2))
        assert pointer.tolist() == values.tolist() != [0.0, 0.0]
        assert model.get_value_ptr(RUNOFF) is pointer

    def test_tensors_pass_without_the_host_and_are_copies(self, model: Any) -> None:
        import torch

        rain = torch.tensor([10.0, 20.0], dtype=torch.float32, requires_grad=True)
        model.set_tensor(RAIN, rain)
        with torch.no_grad():
            rain.add_(100.0)
        assert model.get_value_ptr(RAIN).tolist() == [10.0, 20.0]
        model.update()
        runoff = torch.from_dlpack(model.get_tensor(RUNOFF))
        assert runoff.tolist() == model.get_value_ptr(RUNOFF).tolist()
        assert model.get_tensor(DEPTH).tolist() == model.get_value_ptr(DEPTH).tolist()
        assert model.get_tensor(DEPTH).tolist() == pytest.approx((runoff / 1000.0).tolist())
        kept = runoff.clone()
        model.set_value(RAIN, [0.0, 0.0])
        assert model.get_tensor(RAIN).tolist() == [0.0, 0.0]
        model.update()
        assert torch.equal(runoff, kept)

    def test_impossible_and_misshapen_tensors_are_refused(self, model: Any) -> None:
        import torch

        model.set_tensor(RAIN, np.array([1.0, 2.0]))
        with pytest.raises(ForcingError, match="catchment 1"):
            model.set_tensor(RAIN, torch.tensor([1.0, float("nan")]))
        for bad in (torch.ones(3), torch.ones(2, dtype=torch.bool), "rain"):
            with pytest.raises(ValueShapeError):
                model.set_tensor(RAIN, bad)
        assert model.get_value_ptr(RAIN).tolist() == [1.0, 2.0]

    def test_one_thread_is_used_unless_more_are_configured(self, model: Any) -> None:
        import torch

        assert torch.get_num_threads() == 1

    def test_an_absent_device_is_told(self, reservoir: Opening, model: Any) -> None:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has the device")
        with pytest.raises(DeviceError, match="no device 'cuda'"):
            reservoir("residence_time: [5.0]\ndevice: cuda\n", type(model))


def test_host_components_lend_and_take_tensors_too(reservoir: Opening) -> None:
    torch = pytest.importorskip("torch")
    model = reservoir("residence_time: [5.0, 6.0]\n")
    model.set_tensor(RAIN, torch.tensor([1.0, 2.0]))
    model.update()
    runoff = torch.from_dlpack(model.get_tensor(RUNOFF))
    assert runoff.tolist() == model.get_value_ptr(RUNOFF).tolist()
    runoff[0] = 9.0
    assert model.get_value_ptr(RUNOFF)[0] == 9.0  # the live array itself


def test_require_device_names_what_there_is() -> None:
    from bmi_components.buffers import require_device

    pytest.importorskip("torch")
    require_device("torch", "cpu")
    for bad in ("cuda:97", "tpu", "cuda:x", "gpu"):
        with pytest.raises(DeviceError, match=f"{bad}.*there is cpu"):
            require_device("torch", bad)
    with pytest.raises(DeviceError):
        require_device("numpy", "cuda")
