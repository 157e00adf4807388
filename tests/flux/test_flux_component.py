"""FluxLSTM: what it says day by day is what the data path and the model say of the whole record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from flux_bundles import INPUTS, RESOLVED, flux_bundle, flux_configuration
from synthetic_towers import synthetic_tower

from bmi_components import FluxLSTM
from bmi_components.errors import BmiComponentsError, BundleError, ConfigurationError, ForcingError
from bmi_components.lstm.flux.daily import DailyRules, DailyTable, daily_table
from bmi_components.lstm.flux.models import load_model
from bmi_components.lstm.flux.windows import windows
from bmi_components.trained_model import NamedUnits, TrainedModel
from bmi_components.units import converter
from bmi_components.variables import variable

EXCHANGE = variable("net_ecosystem_exchange").name
PRODUCTION = variable("net_ecosystem_production_rate").name
PRODUCTION_MASS = variable("net_ecosystem_production").name
VALID_DAYS = variable("valid_days").name
SYMBOLS = {
    "D_SNOW": "snow_depth",
    "P": "precipitation",
    "PPFD_IN": "photosynthetic_photon_flux",
    "NETRAD": "net_radiation",
    "USTAR": "friction_velocity",
}
START = "start_time: 2010-01-01\n"
WITH_DATE = {**INPUTS, "DOY": ("1", 0.0, 1.0)}


def opened(path: Path) -> FluxLSTM:
    component = FluxLSTM()
    component.initialize(str(path))
    return component


def run(
    component: FluxLSTM, columns: Mapping[str, np.ndarray], units: Mapping[str, str], names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Step through columns ``[time]`` or ``[time, tower]`` and return outputs ``[time, tower]``."""
    published = {}
    for name in names:
        v = variable(SYMBOLS[name])
        assert component.get_var_units(v.name) == v.units
        published[v.name] = converter(units[name], v.units)(columns[name])
    assert set(published) == set(component.get_input_var_names())
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in component.get_output_var_names()}
    for step in range(len(columns[names[0]])):
        for name, values in published.items():
            component.set_value(name, np.atleast_1d(values[step]))
        component.update()
        for name, values_so_far in outputs.items():
            values_so_far.append(component.get_value_ptr(name).copy())
    return {name: np.array(series) for name, series in outputs.items()}


def expected(days: DailyTable, /, **bundle: Any) -> np.ndarray:
    """What the model says of every window of the record that has all its inputs, NaN elsewhere, ``[day]``."""
    everywhere = replace(days, target=np.zeros(days.date.size))
    model = load_model(flux_bundle(**bundle))
    found = windows(everywhere, model.sequence_length)
    result = np.full(days.date.size, np.nan)
    result[np.searchsorted(days.date, found.date)] = model.predict(found.inputs)
    result[days.filled] = np.nan  # on the day itself nobody knows the day after
    return result


def expect_days(outputs: Mapping[str, np.ndarray], truth: np.ndarray, per_day: int = 1) -> None:
    days = outputs[EXCHANGE][per_day - 1 :: per_day, 0]
    assert np.isfinite(truth).sum() > 20
    np.testing.assert_allclose(days, truth, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(outputs[PRODUCTION], -outputs[EXCHANGE])


@pytest.mark.parametrize("interpolate", [0, 1, 3])
def test_daily_inputs_give_what_the_data_path_gives(tmp_path: Path, interpolate: int) -> None:
    table = synthetic_tower(days=400)
    rules = DailyRules(interpolate=0, day_of_year=True)
    observed = daily_table(table, rules)  # what a caller knows: days that are missing are missing
    whole = daily_table(table, DailyRules(interpolate=interpolate, day_of_year=True))
    bundle = {"inputs": WITH_DATE, "daily": {**RESOLVED, "interpolate": interpolate}}
    component = opened(flux_configuration(tmp_path, START, **bundle))
    assert component.get_time_step() == 86_400.0
    columns = {name: observed.inputs[:, i] for i, name in enumerate(INPUTS)}
    outputs = run(component, columns, table.units, tuple(INPUTS))
    expect_days(outputs, expected(whole, **bundle))
    assert (outputs[VALID_DAYS] <= 5).all()
    full = outputs[VALID_DAYS][:, 0] == 5
    np.testing.assert_array_equal(full, np.isfinite(outputs[EXCHANGE][:, 0]))


@pytest.mark.parametrize(
    ("rules", "extra_names"),
    [
        (DailyRules(), ()),
        (DailyRules(ustar="drop", day_of_year=True), ("USTAR",)),
        (DailyRules(daylight="none", least_valid=20), ()),
        (DailyRules(statistics_days=3), ()),
    ],
)
@pytest.mark.parametrize("first", ["2010-01-01T00:00", "2010-01-01T10:30"])
def test_half_hours_become_the_days_of_the_data_path(
    tmp_path: Path, rules: DailyRules, extra_names: tuple[str, ...], first: str
) -> None:
    table = synthetic_tower(days=60, first=first)
    daily = daily_table(table, rules)
    kept = np.isfinite(daily.inputs).all(axis=1)
    inputs = {
        name: (unit, float(column[kept].mean()), float(column[kept].std()) or 1.0)
        for name, unit, column in zip(daily.input_names, daily.input_units, daily.inputs.T, strict=True)
    }
    bundle = {"inputs": inputs, "daily": msgspec.to_builtins(daily.rules)}
    start = f"start_time: {first.replace('T', ' ')}\ninputs: half_hourly\n"
    component = opened(flux_configuration(tmp_path, start, **bundle))
    assert component.get_time_step() == 1_800.0
    outputs = run(component, table.columns, table.units, (*INPUTS, *extra_names))
    offset = int((table.time[0] - daily.date[0].astype("datetime64[s]")).astype(int)) // 1800
    days = {name: np.concatenate([np.full((offset, 1), np.nan), series]) for name, series in outputs.items()}
    truth = expected(daily, **bundle)
    whole_days = days[EXCHANGE][47::48, 0]
    np.testing.assert_allclose(whole_days, truth[: whole_days.size], rtol=1e-5, atol=1e-5)
    assert np.isfinite(truth).sum() > 20
    # within a day the outputs are those of the day before
    np.testing.assert_array_equal(days[EXCHANGE][48:95, 0], np.full(47, days[EXCHANGE][47, 0]))


def test_hourly_inputs_equal_hourly_data(tmp_path: Path) -> None:
    table = synthetic_tower(days=60, step=3600)
    daily = daily_table(table)
    component = opened(flux_configuration(tmp_path, START + "inputs: hourly\n"))
    assert component.get_time_step() == 3_600.0
    outputs = run(component, table.columns, table.units, tuple(INPUTS))
    expect_days(outputs, expected(daily), per_day=24)


def test_utc_offset_moves_midnight(tmp_path: Path) -> None:
    table = synthetic_tower(days=60)
    local = opened(flux_configuration(tmp_path, START + "inputs: half_hourly\n"))
    in_utc = flux_configuration(
        tmp_path, "start_time: 2010-01-01 08:00\nutc_offset: -8\ninputs: half_hourly\n"
    )
    first = run(local, table.columns, table.units, tuple(INPUTS))
    second = run(opened(in_utc), table.columns, table.units, tuple(INPUTS))
    for name, series in first.items():
        np.testing.assert_array_equal(series, second[name])


def test_many_towers_are_each_alone(tmp_path: Path) -> None:
    tables = [synthetic_tower(days=80, seed=seed) for seed in (1, 2, 3)]
    days = [daily_table(table, DailyRules(interpolate=0)) for table in tables]
    (tmp_path / "many").mkdir()
    (tmp_path / "one").mkdir()
    together = opened(flux_configuration(tmp_path / "many", START, ("A", "B", "C")))
    columns = {name: np.stack([d.inputs[:, i] for d in days], axis=1) for i, name in enumerate(INPUTS)}
    outputs = run(together, columns, tables[0].units, tuple(INPUTS))
    for tower in range(3):
        alone = opened(flux_configuration(tmp_path / "one", START))
        single = run(
            alone,
            {name: values[:, tower] for name, values in columns.items()},
            tables[0].units,
            tuple(INPUTS),
        )
        for name, series in single.items():
            np.testing.assert_allclose(outputs[name][:, tower], series[:, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("model", ["rnn", "ann", "xlstm_mixer", "random_forest"])
def test_every_model_steps_through_the_same_component(tmp_path: Path, model: str) -> None:
    table = synthetic_tower(days=120)
    days = daily_table(table, DailyRules(interpolate=0))
    component = opened(flux_configuration(tmp_path, START, model=model))
    columns = {name: days.inputs[:, i] for i, name in enumerate(INPUTS)}
    outputs = run(component, columns, table.units, tuple(INPUTS))
    expect_days(outputs, expected(daily_table(table), model=model))


def test_a_missing_day_can_be_held(tmp_path: Path) -> None:
    values = {name: np.full(12, INPUTS[name][1]) for name in INPUTS}
    for gap in (7, 9, 10):
        for series in values.values():
            series[gap] = np.nan
    units = {name: entry[0] for name, entry in INPUTS.items()}
    plain = run(opened(flux_configuration(tmp_path, START)), values, units, tuple(INPUTS))
    held = run(
        opened(flux_configuration(tmp_path, START + "missing_day: hold\n")), values, units, tuple(INPUTS)
    )
    finite = np.isfinite(plain[EXCHANGE][:, 0])
    np.testing.assert_array_equal(np.flatnonzero(finite), [4, 5, 6, 8])
    np.testing.assert_array_equal(np.flatnonzero(np.isfinite(held[EXCHANGE][:, 0])), [4, 5, 6, 7, 8, 9])
    # constant weather: holding it, and filling the gap afterwards, changes nothing
    np.testing.assert_allclose(held[EXCHANGE][4:10, 0], plain[EXCHANGE][4, 0], rtol=1e-6)
    np.testing.assert_array_equal(plain[VALID_DAYS][:, 0], [1, 2, 3, 4, 5, 5, 5, 4, 5, 4, 3, 3])


def test_a_configuration_may_bridge_longer_gaps_than_the_training(tmp_path: Path) -> None:
    values = {name: np.full(12, INPUTS[name][1]) for name in INPUTS}
    for series in values.values():
        series[6:8] = np.nan
    units = {name: entry[0] for name, entry in INPUTS.items()}
    finite = {}
    for gap in (1, 2):
        path = flux_configuration(tmp_path, f"{START}longest_gap: {gap}\n")
        outputs = run(opened(path), values, units, tuple(INPUTS))
        finite[gap] = np.flatnonzero(np.isfinite(outputs[EXCHANGE][:, 0])).tolist()
    assert finite == {1: [4, 5], 2: [4, 5, 8, 9, 10, 11]}


def test_production_is_published_as_mass_only_where_days_are_whole(tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], bool]] = [
        ("light", {}, False),
        ("all_hours", {"daily": {"daylight": "none"}}, True),
        ("daily_files", {"target": ("NEE_VUT_REF", "g m-2 d-1"), "daily": {"daylight": "none"}}, True),
    ]
    for name, bundle, whole in cases:
        (tmp_path / name).mkdir()
        component = opened(flux_configuration(tmp_path / name, START, days=1, **bundle))
        assert (PRODUCTION_MASS in component.get_output_var_names()) is whole
        assert component.get_output_var_names()[0] == EXCHANGE
        values = {column: np.array([INPUTS[column][1]]) for column in INPUTS}
        outputs = run(component, values, {n: e[0] for n, e in INPUTS.items()}, tuple(INPUTS))
        if whole:
            grams = outputs[PRODUCTION_MASS][0, 0]
            # 1 umol of carbon a second is 1.0377 g a day
            assert grams == pytest.approx(-1.0377 * outputs[EXCHANGE][0, 0], rel=1e-4)
        if name == "daily_files":
            mean_inputs = np.array([[[entry[1] for entry in INPUTS.values()]]], dtype=np.float32)
            assert grams == pytest.approx(-load_model(flux_bundle(days=1, **bundle)).predict(mean_inputs)[0])


def test_other_targets_have_their_own_name(tmp_path: Path) -> None:
    component = opened(flux_configuration(tmp_path, START, target=("LE_F_MDS", "W m-2")))
    assert component.get_output_var_names() == (variable("latent_heat").name, VALID_DAYS)


def test_columns_without_a_standard_name_keep_their_own(tmp_path: Path) -> None:
    inputs = {
        "SWC_1_1_1": ("percent", 20.0, 5.0),
        "SWC_1_2_1": ("percent", 20.0, 5.0),
        "WS_MAX": ("m s-1", 5.0, 2.0),
        "SWC_F": ("percent", 20.0, 5.0),
        "TA": ("degC", 10.0, 5.0),
    }
    component = opened(flux_configuration(tmp_path, START, inputs=inputs))
    names = component.get_input_var_names()
    assert names[0] == "flux-tower__column_SWC_1_1_1"
    assert names[2] == "flux-tower__column_WS_MAX"
    assert names[4] == variable("temperature").name
    assert component.get_var_units(names[0]) == "percent"


def test_a_saved_state_goes_on_amid_a_day(tmp_path: Path) -> None:
    table = synthetic_tower(days=40)
    path = flux_configuration(
        tmp_path, START + "inputs: half_hourly\n", daily={**RESOLVED, "statistics_days": None}
    )
    going, resumed = opened(path), opened(path)
    cut = 20 * 48 + 17
    first = {name: values[:cut] for name, values in table.columns.items()}
    rest = {name: values[cut:] for name, values in table.columns.items()}
    run(going, first, table.units, tuple(INPUTS))
    going.save_state(tmp_path / "state")
    resumed.load_state(tmp_path / "state", restore_clock=True)
    one, other = (run(c, rest, table.units, tuple(INPUTS)) for c in (going, resumed))
    for name, series in one.items():
        np.testing.assert_array_equal(series, other[name])


def test_infinite_and_impossible_inputs_are_refused_but_missing_ones_are_data(tmp_path: Path) -> None:
    component = opened(flux_configuration(tmp_path, START))
    component.update()  # nothing was set: a missing day
    assert np.isnan(component.get_value_ptr(EXCHANGE)[0])
    component.set_value(variable("photosynthetic_photon_flux").name, [np.inf])
    with pytest.raises(ForcingError, match="photosynthetically"):
        component.update()
    component.set_value(variable("photosynthetic_photon_flux").name, [9_000.0])
    with pytest.raises(ForcingError, match="between -522 and 5502"):
        component.update()


@pytest.mark.parametrize(
    ("extra", "bundle", "message"),
    [
        ("", {"inputs": WITH_DATE}, "start_time: this model reads the day of the year"),
        ("start_time: 2010-01-01 06:00\n", {}, "daily inputs begin at midnight"),
        (START + "utc_offset: 5.5\n", {}, "daily inputs begin at midnight"),
        ("start_time: 2010-01-01 00:10\ninputs: half_hourly\n", {}, "a multiple of 1800 s"),
        (START, {"daily": {"daylight": "ppfd", "statistics_days": 3}}, "statistics of half-hours"),
        (START + "device: cuda\n", {}, "there is no device 'cuda'"),
        (START + "dtype: float64\n", {}, "compute in float32"),
        ("warm_up: {kind: csv, path: x.csv}\n", {}, "warm_up: start_time is needed"),
    ],
)
def test_what_cannot_work_is_refused_at_the_start(
    tmp_path: Path, extra: str, bundle: dict[str, Any], message: str
) -> None:
    path = flux_configuration(tmp_path, extra, **bundle)
    with pytest.raises(BmiComponentsError, match=message):
        opened(path)


def test_wrong_bundles_and_towers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="id is there twice"):
        opened(flux_configuration(tmp_path, START, ("A", "A")))
    (tmp_path / "circular").mkdir()
    with pytest.raises(BundleError, match="reads what it predicts"):
        opened(flux_configuration(tmp_path / "circular", START, target=("PPFD_IN_F", "umol m-2 s-1")))
    (tmp_path / "rules").mkdir()
    with pytest.raises(BundleError, match="rules for days"):
        opened(flux_configuration(tmp_path / "rules", START, daily={"daylight": "moon"}))


def test_dlfms_windows_stepped_day_by_day_give_dlfms_fluxes(shared_data: Path, tmp_path: Path) -> None:
    golden = np.load(shared_data / "golden" / "lstm" / "dlfm_lstm_forward.npz", allow_pickle=False)
    names = [f"normalised_{name}" for name in golden["vars"]]  # its inputs are normalised already
    x = golden["X"].astype(float)  # [window, day, input]: each window is a tower of its own here
    TrainedModel(
        kind="flux",
        hyperparameters={
            "model": "lstm",
            "sequence_length": 31,
            "sizes": {"hidden": 8, "layers": 2, "readout_layer": "first"},
            "daily": RESOLVED,
        },
        inputs=tuple(NamedUnits(name, "1") for name in names),
        attributes=(),
        outputs=(NamedUnits("NEE_PI", "umol m-2 s-1"),),
        normalisation={name: {"mean": 0.0, "std": 1.0} for name in (*names, "NEE_PI")},
        time_step=86_400.0,
        provenance={},
        licence="",
        weights={name.removeprefix("w/"): golden[name] for name in golden if name.startswith("w/")},
    ).save(tmp_path / "flux_model")
    towers = tuple(f"window {i}" for i in range(len(x)))
    component = opened(flux_configuration(tmp_path, START, towers))
    for day in range(31):
        assert np.isnan(component.get_value_ptr(EXCHANGE)).all()
        for column, name in enumerate(component.get_input_var_names()):
            component.set_value(name, x[:, day, column])
        component.update()
    np.testing.assert_allclose(component.get_value_ptr(EXCHANGE), golden["y"][:, 0], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(component.get_value_ptr(VALID_DAYS), 31.0)
