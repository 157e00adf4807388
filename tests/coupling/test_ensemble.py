"""Members stepped together are what each would be on its own, and their noise has the law that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coupled_pairs import weather
from flux_bundles import flux_configuration
from hbv_bundles import configuration
from hypothesis import given
from hypothesis import strategies as st
from linear_reservoir import LinearReservoir
from streamflow_bundles import configuration as streamflow_configuration

from bmi_components.component import Component
from bmi_components.ensemble import Ensemble, Perturbation
from bmi_components.errors import ConfigurationError, ForcingError, UnknownNameError, ValueShapeError
from bmi_components.forcing.sample_weather import CATCHMENTS
from bmi_components.fourdvarnet.forecast import Lorenz63
from bmi_components.hbv.component import DeltaHBV
from bmi_components.lstm.component import StreamflowLSTM
from bmi_components.lstm.flux.component import FluxLSTM
from bmi_components.variables import variable

DAY = 86_400.0
SAMPLE = [place.id for place in CATCHMENTS[:2]]


def hbv_forcing(days: int) -> dict[str, Any]:
    _, daily = weather(days)
    return {**daily, "potential_evapotranspiration": np.full((days, 2), 2.0)}


def alone(
    component: type[Component], path: Path, ensemble: Ensemble, member: int, forcing: Any, output: str
) -> Any:
    """Run one member as a component of its own, with the forcing and parameters that it had."""
    single = component()
    single.initialize(str(path))
    for name, values in ensemble.parameters.items():
        single.set_value(name, values[member])
    rows = []
    steps = len(next(iter(forcing.values())))
    for step in range(steps):
        for name, values in forcing.items():
            single.set_value(name, np.array(values[step, member]))
        single.update()
        rows.append(np.array(single.get_value_ptr(output)))
    return np.array(rows)


def assert_members_are_their_own(
    component: type[Component],
    path: Path,
    forcing: dict[str, Any],
    perturbations: dict[str, Perturbation],
    output: str,
    rtol: float = 1e-9,
) -> None:
    ensemble = Ensemble(component, path, 3, perturbations, seed=5)
    found = ensemble.run(forcing, [output], progress=False)[output]
    assert found.dims == ("member", "time", "catchment")
    given = Ensemble(component, path, 3, perturbations, seed=5).perturbed(forcing)
    for member in range(3):
        expected = alone(component, path, ensemble, member, given, found.attrs["standard_name"])
        np.testing.assert_allclose(found[member], expected, rtol=rtol, atol=1e-12)
    assert (found.std("member") > 0).any()


PERTURBED = {
    "precipitation": Perturbation(0.4, memory=3 * DAY),
    "temperature": Perturbation(1.5, "add", everywhere_alike=True),
    "parFC": Perturbation(0.3),
    "parBETA": Perturbation(0.5, "add", about=2.5),
    "aridity": Perturbation(0.2),
}


def test_a_member_is_the_component_on_its_own(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (40.0, 900.0), "dtype: float64\n")
    assert_members_are_their_own(DeltaHBV, path, hbv_forcing(300), PERTURBED, "runoff_rate")


def test_members_share_the_record_of_their_catchment(tmp_path: Path) -> None:
    record = "dtype: float64\nwarm_up: {kind: sample, start: 1994-10-01, end: 1995-09-30}\n"
    path = configuration(tmp_path, "1.1p", (40.0, 900.0), record)
    path.write_text(
        path.read_text().replace("id: c0", f"id: {SAMPLE[0]}").replace("id: c1", f"id: {SAMPLE[1]}")
    )
    rain = {"precipitation": Perturbation(0.4)}
    assert_members_are_their_own(DeltaHBV, path, hbv_forcing(20), rain, "soil_moisture")


def test_streamflow_networks_are_repeated(tmp_path: Path) -> None:
    path = streamflow_configuration(tmp_path, ("lstm",), 2, "dtype: float64\n")
    rng = np.random.default_rng(0)
    forcing = {
        "precipitation": rng.gamma(0.2, 1.0, (40, 2)),
        "temperature": 12.0 + rng.normal(0, 4, (40, 2)),
    }
    perturbations = {"precipitation": Perturbation(0.4), "elev_mean": Perturbation(50.0, "add")}
    assert_members_are_their_own(StreamflowLSTM, path, forcing, perturbations, "runoff_rate")


def test_towers_are_repeated(tmp_path: Path) -> None:
    path = flux_configuration(tmp_path, "start_time: 2010-06-01\n", ("US-One", "US-Two"), days=2)
    ensemble = Ensemble(FluxLSTM, path, 3, {"net_radiation": Perturbation(20.0, "add")})
    inputs = [ensemble.component.variables[name] for name in ensemble.component.get_input_var_names()]
    forcing = {v.symbol: np.random.default_rng(1).uniform(0.0, 40.0, (12, 2)) for v in inputs}
    output = ensemble.component.variables[ensemble.component.get_output_var_names()[0]].symbol
    # the network computes in single precision
    perturbations = {"net_radiation": Perturbation(20.0, "add")}
    assert_members_are_their_own(FluxLSTM, path, forcing, perturbations, output, rtol=1e-6)


def test_a_table_of_catchments_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("id,p_mean,aridity\na,1.0,0.5\nb,2.0,0.7\n")
    path = configuration(tmp_path, "1.1p", (1.0,), "dtype: float64\n")
    lines = path.read_text().splitlines()
    first = lines.index("catchments:")
    path.write_text("\n".join([*lines[:first], "catchments_file: places.csv", *lines[first + 2 :]]))
    assert_members_are_their_own(
        DeltaHBV, path, hbv_forcing(20), {"precipitation": Perturbation(0.4)}, "runoff_rate"
    )


def test_any_list_of_elements_is_repeated(tmp_path: Path) -> None:
    (tmp_path / "lorenz.yaml").write_text("state: [[1.0, 2.0, 20.0], [5.0, 5.0, 25.0]]\n")
    ensemble = Ensemble(
        Lorenz63, tmp_path / "lorenz.yaml", 4, {"rho": Perturbation(0.5, "add")}, elements="state"
    )
    nothing = {f"analysed_{name}": np.full((10, 2), np.nan) for name in ("x", "y", "z")}
    found = ensemble.run(nothing, ["x"], progress=False)["x"]
    assert found.shape == (4, 10, 2)
    path = tmp_path / "reservoir.yaml"
    path.write_text("residence_time: [5.0, 3.0]\n")
    with pytest.raises(ConfigurationError, match="say as 'elements'"):
        Ensemble(LinearReservoir, path, 4, {})
    again = Ensemble(LinearReservoir, path, 4, {}, elements="residence_time")
    assert again.component.get_value_ptr("residence_time").tolist() == [5.0, 3.0] * 4


def reservoirs(folder: Path, members: int, seed: int = 1, **changes: Any) -> Ensemble:
    (folder / "reservoir.yaml").write_text("residence_time: [5.0, 3.0]\n")
    perturbations = {"precipitation": Perturbation(0.5, **changes), "residence_time": Perturbation(0.2)}
    return Ensemble(
        LinearReservoir,
        folder / "reservoir.yaml",
        members,
        perturbations,
        seed=seed,
        elements="residence_time",
    )


RAIN = {"precipitation": np.random.default_rng(0).gamma(0.4, 8.0, (600, 2))}


def test_a_member_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = reservoirs(tmp_path, 2).run(RAIN, ["runoff_rate"], progress=False)["runoff_rate"]
    many = reservoirs(tmp_path, 9).run(RAIN, ["runoff_rate"], progress=False)["runoff_rate"]
    np.testing.assert_array_equal(few, many[:2])
    other = reservoirs(tmp_path, 2, seed=2).run(RAIN, ["runoff_rate"], progress=False)["runoff_rate"]
    assert not np.isclose(few, other).any()


@pytest.mark.parametrize("memory", [0.0, 5 * DAY, np.inf])
def test_a_run_in_parts_is_the_run_at_once(memory: float, tmp_path: Path) -> None:
    whole = reservoirs(tmp_path, 3, memory=memory).run(RAIN, ["runoff_rate"], progress=False)
    first = reservoirs(tmp_path, 3, memory=memory)
    start = first.run({"precipitation": RAIN["precipitation"][:301]}, ["runoff_rate"], progress=False)
    first.component.save_state(tmp_path / "ensemble.state")
    second = reservoirs(tmp_path, 3, memory=memory)
    second.component.load_state(tmp_path / "ensemble.state", restore_clock=True)
    rest = second.run({"precipitation": RAIN["precipitation"][301:]}, ["runoff_rate"], progress=False)
    joined = np.concatenate([start["runoff_rate"], rest["runoff_rate"]], axis=1)
    np.testing.assert_array_equal(joined, whole["runoff_rate"])
    np.testing.assert_array_equal(rest["time"], whole["time"][301:])


def test_the_noise_has_the_law_that_was_asked_for(tmp_path: Path) -> None:
    rain = {"precipitation": np.full((2000, 2), 4.0)}
    given = next(iter(reservoirs(tmp_path, 200, memory=4 * DAY).perturbed(rain).values()))
    logarithm = np.log(given / 4.0)
    assert given.mean() == pytest.approx(4.0, rel=0.01)
    assert logarithm.std() == pytest.approx(0.5, rel=0.01)
    flat = (logarithm - logarithm.mean()) / logarithm.std()
    assert (flat[:-4] * flat[4:]).mean() == pytest.approx(np.exp(-1.0), abs=0.01)
    assert abs((flat[..., 0] * flat[..., 1]).mean()) < 0.02
    alike = next(iter(reservoirs(tmp_path, 3, everywhere_alike=True).perturbed(rain).values()))
    np.testing.assert_array_equal(alike[..., 0], alike[..., 1])
    assert reservoirs(tmp_path, 400).parameters["residence_time"].mean(0) == pytest.approx(
        [5.0, 3.0], rel=0.04
    )


@given(
    st.floats(0.0, 20.0), st.floats(0.0, 300.0), st.sampled_from(["multiply", "add"]), st.floats(-8.0, 8.0)
)
def test_what_comes_out_is_possible(spread: float, rain: float, kind: Any, noise: float) -> None:
    changed = Perturbation(spread, kind).apply(np.array([rain]), np.array([noise]), variable("precipitation"))
    assert (changed >= 0.0).all()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = configuration(tmp_path, "1.1p", (40.0, 900.0))
    with pytest.raises(UnknownNameError, match="no input or parameter 'rain'; there are precipitation"):
        Ensemble(DeltaHBV, path, 2, {"rain": Perturbation(0.1)})
    with pytest.raises(ConfigurationError, match="parBETA has no value of its own between 1 and 6"):
        Ensemble(DeltaHBV, path, 2, {"parBETA": Perturbation(0.1)})
    with pytest.raises(ConfigurationError, match="at least one member"):
        Ensemble(DeltaHBV, path, 0, {})
    with pytest.raises(ConfigurationError, match="must not be negative"):
        Perturbation(-1.0)
    ensemble = Ensemble(DeltaHBV, path, 2, {})
    with pytest.raises(ValueShapeError, match="3 columns; 2 are needed"):
        ensemble.run({"precipitation": np.ones((5, 3))}, ["runoff_rate"])
    with pytest.raises(ValueShapeError, match="one length"):
        ensemble.run({"precipitation": np.ones((5, 2)), "temperature": np.ones((4, 2))}, ["runoff_rate"])
    with pytest.raises(UnknownNameError, match="no output 'runof'"):
        ensemble.run({"precipitation": np.ones((5, 2))}, ["runof"])
    with pytest.raises(ForcingError, match="missing"):
        ensemble.run({"precipitation": np.ones((5, 2))}, ["runoff_rate"], progress=False)
