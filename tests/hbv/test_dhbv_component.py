"""DeltaHBV through BMI: equal to the model, exact in its water, at home in NextGen's files, clear about mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hbv_bundles import LUMPED, attributes_of, configuration, make_model, write_bundle

from bmi_components import DeltaHBV
from bmi_components.errors import (
    BmiComponentsError,
    BundleError,
    ConfigurationError,
    DeviceError,
    ForcingError,
)
from bmi_components.trained_model import TrainedModel

P = "atmosphere_water__liquid_equivalent_precipitation_rate"
T = "land_surface_air__temperature"
PET = "land_surface_water__potential_evaporation_volume_flux"
RUNOFF_RATE = "land_surface_water__runoff_volume_flux"
RUNOFF_DEPTH = "land_surface_water__runoff_depth"
STREAMFLOW = "channel_exit_water_x-section__volume_flow_rate"
STORAGE = "land_water__volume-per-area_storage_density"
EXCHANGE = "groundwater__lateral-exchange_volume_flux"
ET = "land_surface_water__evapotranspiration_volume_flux"
AORC = {
    P: 2e-5,
    T: 12.0,
    "atmosphere_air_water~vapor__relative_saturation": 0.006,
    "land_surface_radiation~incoming~longwave__energy_flux": 310.0,
    "land_surface_radiation~incoming~shortwave__energy_flux": 180.0,
    "land_surface_air__pressure": 98_000.0,
    "land_surface_wind__x_component_of_velocity": 2.0,
    "land_surface_wind__y_component_of_velocity": -1.0,
}


def weather(days: int, catchments: int, seed: int = 1) -> np.ndarray:
    """Days ``[time, catchment, 3]`` of rain, snow, warmth and drought."""
    rng = np.random.default_rng(seed)
    rain = rng.gamma(0.4, 9.0, (days, catchments)) * (rng.random((days, catchments)) < 0.5)
    season = -np.cos(2 * np.pi * np.arange(days) / 365.0)[:, None]
    temperature = 6.0 + 14.0 * season + rng.normal(0, 3, (days, catchments))
    return np.stack([rain, temperature, np.clip(2.0 + 2.0 * season, 0.1, None) + 0.0 * rain], axis=-1)


def initialized(path: Path) -> DeltaHBV:
    component = DeltaHBV()
    component.initialize(str(path))
    return component


def advance(component: DeltaHBV, forcing: np.ndarray) -> None:
    """Set ``[catchment, 3]`` and update."""
    for name, column in zip((P, T, PET), forcing.T, strict=True):
        component.set_value(name, np.ascontiguousarray(column))
    component.update()


def value(component: DeltaHBV, name: str) -> np.ndarray:
    size = component.get_var_nbytes(name) // component.get_var_itemsize(name)
    return component.get_value(name, np.empty(size))


def climatology_record() -> torch.Tensor:
    from bmi_components.hbv.opening import DAYS_OF_MONTHS

    p = [3, 3, 3, 2, 2, 1, 1, 1, 2, 3, 3, 3]
    t = [-5, -3, 0, 5, 10, 15, 17, 16, 12, 8, 2, -2]
    e = [0.1, 0.2, 1, 2, 3, 4, 4, 3, 2, 1, 0.5, 0.1]
    return torch.tensor(np.repeat(np.stack([p, t, e], 1), DAYS_OF_MONTHS, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("physics", ["1.0", "1.1p", "2.0"])
def test_component_equals_the_model(tmp_path: Path, physics: str, dtype: str) -> None:
    areas = (12.5, 3000.0, 700.0)
    component = initialized(configuration(tmp_path, physics, areas, f"dtype: {dtype}\n"))
    precision = getattr(torch, dtype)
    model = make_model(physics).to(precision)
    names = attributes_of(physics)
    attributes = torch.tensor([[0.5 + 0.3 * i] * len(names) for i in range(3)], dtype=precision)
    if "uparea" in names:
        attributes[:, names.index("uparea")] = torch.tensor(areas)
        attributes[:, names.index("meanelevation")] = torch.tensor([300.0, 1200.0, 2100.0])
    forcing = weather(60, 3)
    with torch.no_grad():
        if physics == "2.0":
            catchments = model.bind(attributes, None)
        else:
            record = climatology_record()[:, None].expand(-1, 3, -1).to(precision)
            catchments, _ = model.warm_up(record, attributes)
        series = torch.tensor(forcing, dtype=precision)
        _, outputs = model.simulate(model.initial_state(3), series, catchments)
    expected = outputs[:, 0].numpy()
    # The batch multiplies matrices in another order than the steps: rounding of the float type, through the recursion.
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    for day, simulated in zip(forcing, expected, strict=True):
        advance(component, day)
        np.testing.assert_allclose(value(component, RUNOFF_RATE), simulated, rtol=tolerance, atol=tolerance)
        depth = value(component, RUNOFF_RATE) / 1e3
        np.testing.assert_allclose(value(component, RUNOFF_DEPTH), depth, rtol=1e-12)
        np.testing.assert_allclose(
            value(component, STREAMFLOW), depth * np.array(areas) * 1e6 / 86400, rtol=1e-12
        )


def test_one_catchment_and_many_agree(tmp_path: Path) -> None:
    """The matrix-vector kernel of one catchment and the matrix product of many do the same arithmetic."""
    (tmp_path / "many").mkdir()
    (tmp_path / "one").mkdir()
    many = initialized(configuration(tmp_path / "many", "1.1p", (12.5, 700.0)))
    one = initialized(configuration(tmp_path / "one", "1.1p", (12.5,)))
    for day in weather(40, 2):
        advance(many, day)
        advance(one, day[:1])
        np.testing.assert_allclose(
            value(one, RUNOFF_RATE)[0], value(many, RUNOFF_RATE)[0], rtol=2e-5, atol=1e-6
        )


@pytest.mark.parametrize("physics", ["1.0", "1.1p", "2.0"])
def test_water_in_is_water_out_and_stored(tmp_path: Path, physics: str) -> None:
    component = initialized(configuration(tmp_path, physics, (12.5, 2600.0), "dtype: float64\n"))
    forcing = weather(400, 2)
    runoff, evaporation, total_exchange = np.zeros(2), np.zeros(2), np.zeros(2)
    before = value(component, STORAGE)
    for day in forcing:
        advance(component, day)
        if physics == "2.0":
            total_exchange += value(component, EXCHANGE)
        runoff += value(component, RUNOFF_RATE)
        evaporation += value(component, ET)
    storage = value(component, STORAGE)
    exchange = total_exchange if physics == "2.0" else 0.0
    np.testing.assert_allclose(
        forcing[:, :, 0].sum(0) + exchange - runoff - evaporation, storage - before, atol=400 * 3e-5
    )
    stepper = component._run.stepper
    came, left, stored, lost = stepper.balance()
    np.testing.assert_allclose(came - left - stored - lost, 0.0, atol=1e-9)
    np.testing.assert_allclose(left, runoff + evaporation, rtol=1e-12)
    np.testing.assert_allclose(came, forcing[:, :, 0].sum(0) + 5e-3, rtol=1e-12)
    if physics != "2.0":
        # Without lateral exchange only the floors of the stores make up water: less than one floor a day.
        assert np.all(np.abs(lost) < 400 * 3e-5)


def test_the_storage_after_a_warm_up_includes_the_water_under_way(tmp_path: Path) -> None:
    record = tmp_path / "record.csv"
    days = weather(200, 1)[:, 0]
    dates = np.arange("2000-01-01", "2000-07-19", dtype="datetime64[D]")
    lines = ["time,catchment,precipitation [mm d-1],temperature [degC],potential_evapotranspiration [mm d-1]"]
    lines += [f"{date},c0,{p},{t},{e}" for date, (p, t, e) in zip(dates, days.tolist(), strict=True)]
    record.write_text("\n".join(lines) + "\n")
    warm_up = "start_time: 2000-07-19\nwarm_up: {kind: csv, path: record.csv}\n"
    component = initialized(configuration(tmp_path, "1.1p", (12.5,), warm_up))
    before = value(component, STORAGE)
    forcing = weather(1, 1, 5)[0]
    advance(component, forcing)
    left = value(component, RUNOFF_RATE) + value(component, ET)
    np.testing.assert_allclose(value(component, STORAGE), before + forcing[:, 0] - left, rtol=1e-6)


def test_water_under_way_survives_a_restart(tmp_path: Path) -> None:
    """The published component forgets it: 91 % of the water was lost."""
    path = configuration(tmp_path, "2.0", (12.5,))
    whole, first = initialized(path), initialized(path)
    forcing = weather(60, 1)
    for day in forcing[:30]:
        advance(whole, day)
        advance(first, day)
    first.save_state(tmp_path / "state")
    path.write_text(path.read_text() + "initial_state: state\n")
    second = initialized(path)
    for day in forcing[30:]:
        advance(whole, day)
        advance(second, day)
        for name in whole.get_output_var_names():
            assert value(second, name) == value(whole, name), name


def test_device_path_equals_compiled_path(tmp_path: Path) -> None:
    """``cpu:0`` runs the torch operations that a GPU would; ``cpu`` the compiled loops."""
    path = configuration(tmp_path, "2.0", (12.5, 2600.0, 40.0))
    compiled = initialized(path)
    path.write_text(path.read_text() + "device: cpu:0\n")
    torch_ops = initialized(path)
    for day in weather(40, 3):
        advance(compiled, day)
        advance(torch_ops, day)
        for name in compiled.get_output_var_names():
            np.testing.assert_allclose(
                value(torch_ops, name), value(compiled, name), rtol=5e-5, atol=1e-5, err_msg=name
            )
    assert torch_ops.get_tensor(RUNOFF_RATE).shape == (3,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_gpu_equals_cpu(tmp_path: Path) -> None:
    path = configuration(tmp_path, "2.0", (12.5, 2600.0, 40.0))
    host = initialized(path)
    path.write_text(path.read_text() + "device: cuda\n")
    gpu = initialized(path)
    for day in weather(40, 3):
        advance(host, day)
        advance(gpu, day)
        np.testing.assert_allclose(value(gpu, RUNOFF_RATE), value(host, RUNOFF_RATE), rtol=1e-4, atol=1e-5)


# Parameters -----------------------------------------------------------------------------------------------------------


def test_a_parameter_set_by_name_stays_and_acts(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    free, held = initialized(path), initialized(path)
    held.set_value("parK2", np.array([0.2]))
    held.set_value("parBETA", np.array([1.0]))  # a dynamic parameter stops varying
    for day in weather(30, 1):
        advance(free, day)
        advance(held, day)
    assert held.get_value("parBETA", np.empty(1))[0] == pytest.approx(1.0)
    assert held.get_value("parK2", np.empty(1))[0] == pytest.approx(0.2)
    assert value(held, RUNOFF_RATE) != value(free, RUNOFF_RATE)
    assert "parK2" not in held.get_input_var_names()


def test_a_parameter_held_in_the_configuration_is_held_from_the_start(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    by_name = initialized(configuration(tmp_path, "1.1p", (12.5,)))
    by_name.set_value("parFC", np.array([250.0]))
    configured = initialized(configuration(tmp_path / "set", "1.1p", (12.5,), "parameters: {parFC: 250.0}\n"))
    for day in weather(20, 1):
        advance(by_name, day)
        advance(configured, day)
    assert value(by_name, RUNOFF_RATE) == value(configured, RUNOFF_RATE)


def test_an_attribute_set_late_acts_as_if_it_had_been_configured(tmp_path: Path) -> None:
    path = configuration(tmp_path, "2.0", (12.5,))
    late = initialized(path)
    late.set_value("Porosity", np.array([2.5]))
    path.write_text(path.read_text().replace("Porosity: 0.5", "Porosity: 2.5"))
    early = initialized(path)
    for day in weather(20, 1):
        advance(late, day)
        advance(early, day)
        assert value(late, RUNOFF_RATE) == value(early, RUNOFF_RATE)


# NextGen --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "physics", "model", "step"),
    [
        ("dhbv2_daily_cat-1555522.yml", "2.0", "dhbv_2", 86400.0),
        ("dhbv2_cat-1555522.yml", "2.1-hourly", "dhbv_2_mts", 3600.0),
    ],
)
def test_nextgen_in_a_box_files_run_as_they_are(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
    physics: str,
    model: str,
    step: float,
) -> None:
    write_bundle(tmp_path / model, physics)
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(tmp_path))
    component = initialized(shared_data / "nextgen" / "configs" / file)
    assert set(component.get_input_var_names()) == set(AORC)
    assert component.get_time_step() == step
    assert component.get_var_units(RUNOFF_RATE) == "m h-1"
    total = 0.0
    for hour in range(1, 49):
        for name, constant in AORC.items():
            swing = 6.0 * np.sin(hour / 24 * 2 * np.pi) if name == T else 0.0
            component.set_value(name, np.array([constant + swing]))
        component.update_until(3600.0 * hour)
        depth = value(component, RUNOFF_DEPTH)[0]
        assert np.isfinite(depth), "no zeros for a year, no NaN on the first day"
        total += depth
    came, left, stored, lost = component._run.stepper.balance()[:, 0]
    assert came == pytest.approx(
        48 * 3600 * AORC[P] + 5e-3 + (2e-3 if physics == "2.1-hourly" else 0), rel=1e-5
    )
    assert came - left - stored - lost == pytest.approx(0.0, abs=1e-3)
    assert total > 0.0


def test_a_daily_model_behind_hours_gives_the_days_water_within_the_day(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published component is 23 hours late; here the depths of a day's hours add up to that day's runoff."""
    write_bundle(tmp_path / "dhbv_2", "2.0")
    monkeypatch.setenv("BMI_COMPONENTS_MODEL_PATH", str(tmp_path))
    component = initialized(shared_data / "nextgen" / "configs" / "dhbv2_daily_cat-1555522.yml")
    rng = np.random.default_rng(0)
    for day in range(5):
        depth, runoff = 0.0, 0.0
        for hour in range(24):
            for name, constant in AORC.items():
                change = {P: rng.gamma(0.3, 3e-4), T: 12 * np.sin(hour / 4)}.get(name, 0.0)
                component.set_value(name, np.array([constant + change]))
            component.update_until(86400.0 * day + 3600.0 * (hour + 1))
            depth += value(component, RUNOFF_DEPTH)[0]
            runoff += value(component, RUNOFF_RATE)[0]  # m h-1, NextGen's main output for these files
        whole = component._run.stepper
        days_runoff = whole._values[whole.shared.rows.index("streamflow")][0] / 1e3
        assert depth == pytest.approx(days_runoff, rel=1e-6)
        assert runoff == pytest.approx(depth, rel=1e-9)


# Mistakes -------------------------------------------------------------------------------------------------------------


def change(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("p_mean: 0.5, ", "", ConfigurationError, ("c0", "p_mean", "missing")),
        ("p_mean: 0.5", "p_mean: .nan", ConfigurationError, ("c0", "p_mean", "nan")),
        ("model: model", "model: nowhere", BundleError, ("nowhere",)),
        ("model: model", "modle: model", ConfigurationError, ("modle", "model")),
        ("climatology", "climatologie", ConfigurationError, ("climatologie", "climatology")),
        ("[3, 3, 3, 2,", "[3, 3, 2,", ConfigurationError, ("precipitation", "12")),
        ("model: model\n", "model: model\ndevice: cuda:99\n", DeviceError, ("cuda:99",)),
        ("model: model\n", "model: model\ndtype: float16\n", ConfigurationError, ("float16", "float32")),
        ("model: model\n", "model: model\nparameters: {parFC: 5.0}\n", ConfigurationError, ("parFC", "50")),
        ("model: model\n", "model: model\nparameters: {parRT: 5.0}\n", ConfigurationError, ("parRT",)),
        ("model: model\n", "model: model\ninputs: nextgen\n", ConfigurationError, ("penman_monteith",)),
        (
            "model: model\n",
            "model: model\npotential_evapotranspiration: hargreaves\n",
            ConfigurationError,
            ("hargreaves", "start_time"),
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_one_clear_error(
    tmp_path: Path, old: str, new: str, error: type[BmiComponentsError], words: tuple[str, ...]
) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    good = path.read_text()
    change(path, old, new)
    component = DeltaHBV()
    with pytest.raises(error) as raised:
        component.initialize(str(path))
    for word in words:
        assert word in str(raised.value)
    path.write_text(good)
    component.initialize(str(path))
    advance(component, weather(1, 1)[0])


def test_a_1x_model_says_what_its_static_parameters_are_read_from(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    path.write_text(path.read_text().partition("climatology")[0])
    with pytest.raises(ConfigurationError, match=r"warm_up.*climatology"):
        initialized(path)


def test_a_bundle_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    other = TrainedModel.load(tmp_path / "model")
    fields = {name: getattr(other, name) for name in TrainedModel.__dataclass_fields__}
    TrainedModel(**(fields | {"kind": "streamflow_lstm"})).save(tmp_path / "lstm")
    change(path, "model: model", "model: lstm")
    with pytest.raises(BundleError, match="streamflow_lstm"):
        initialized(path)


def test_impossible_forcing_stops_before_the_state_changes(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    component, untouched = initialized(path), initialized(path)
    days = weather(10, 1)
    for day in days[:5]:
        advance(component, day)
        advance(untouched, day)
    for wrong in (np.nan, np.inf, -1.0):
        with pytest.raises(ForcingError, match="precipitation"):
            advance(component, np.array([[wrong, 5.0, 1.0]]))
    for day in days[5:]:
        advance(component, day)
        advance(untouched, day)
    assert value(component, RUNOFF_RATE) == value(untouched, RUNOFF_RATE)


def test_ten_components_share_one_set_of_weights(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (12.5,))
    shared = {id(initialized(path)._run.stepper.shared) for _ in range(10)}
    assert len(shared) == 1
    assert len(LUMPED) == 2
