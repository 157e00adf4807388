"""Sensitivity: derivatives are those of the formula and of differences, Sobol indices those of the variances."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from canopy_stand_in import MEMORY, StandIn
from small_tower import make_forcing

from bmi_components.canveg import sensitivity
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.parameters import TABLE, default_parameters
from bmi_components.canveg.sensitivity import (
    derivatives,
    derivatives_by_step,
    sobol_indices,
    write_derivatives,
    write_derivatives_by_step,
    write_sobol_indices,
)
from bmi_components.errors import ConfigurationError


def mean_flux(model: StandIn, forcing: Forcing, flux: str, **values: float) -> float:
    air = Forcing(*(np.asarray(one)[:, None] for one in forcing))
    fluxes, _ = model.simulate(air, None, model.parameters._replace(**values))
    return float(np.mean(getattr(fluxes, flux), dtype=np.float64))


def test_derivatives_are_those_of_the_formula() -> None:
    forcing = make_forcing(3)
    found = derivatives(StandIn(), forcing)
    assert found.inputs[: len(TABLE)] == tuple(row.name for row in TABLE)
    i, j = found.outputs.index("latent_heat"), found.inputs.index("conductance_slope")
    assert found.elasticity[i, j] == pytest.approx(1.5, rel=1e-4)
    assert found.derivative[i, j] == pytest.approx(1.5 * found.mean[i] / 8.17, rel=1e-4)
    assert found.value[j] == pytest.approx(8.17)
    light = found.inputs.index("shortwave")
    assert found.elasticity[i, light] == pytest.approx(1.0, rel=1e-4)
    assert found.derivative[i, light] == pytest.approx(0.02 * 8.17**1.5 * 2.0, rel=1e-4)
    assert found.derivative[found.outputs.index("net_radiation"), found.inputs.index("leaf_emissivity")] == (
        pytest.approx(0.8 * found.value[light], rel=1e-4)
    )
    assert (found.derivative[:, found.inputs.index("oxygen")] == 0.0).all()
    assert np.isfinite(found.derivative).all()


def test_the_memory_of_the_soil_is_differentiated_through(monkeypatch: pytest.MonkeyPatch) -> None:
    forcing = make_forcing(2)
    with jax.enable_x64(True):
        model = StandIn(default_parameters())
        whole = derivatives(model, forcing)
        monkeypatch.setattr(sensitivity, "CHUNK", 17)
        parts = derivatives(model, forcing)
        np.testing.assert_allclose(parts.derivative, whole.derivative, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
        # a soil that starts at rest answers a warmer air by 1 - MEMORY^n of it after n steps
        steps = np.arange(1, len(forcing) + 1)
        expected = 2.0 * np.mean(1.0 - MEMORY**steps)
        i, j = whole.outputs.index("soil_heat"), whole.inputs.index("air_temperature")
        assert parts.derivative[i, j] == pytest.approx(expected, rel=1e-10)
        for flux, name in (
            ("net_ecosystem_exchange", "respiration_q10"),
            ("net_ecosystem_exchange", "maximum_carboxylation"),
            ("sensible_heat", "conductance_slope"),
        ):
            value = float(getattr(model.parameters, name))
            h = 1e-4 * value
            up, down = (mean_flux(model, forcing.forcing, flux, **{name: value + s * h}) for s in (1, -1))
            exact = parts.derivative[parts.outputs.index(flux), parts.inputs.index(name)]
            assert exact == pytest.approx((up - down) / (2.0 * h), rel=1e-6)


def test_outputs_and_parameters_can_be_chosen() -> None:
    forcing = make_forcing(1)
    found = derivatives(StandIn(), forcing, outputs=["latent_heat"], parameters=["quantum_yield"])
    assert found.derivative.shape == (1, 1 + len(sensitivity.FORCINGS))
    with pytest.raises(ConfigurationError, match="there is no flux 'evaporation'"):
        derivatives(StandIn(), forcing, outputs=["evaporation"])
    with pytest.raises(ConfigurationError, match="there is no parameter 'kball'"):
        derivatives(StandIn(), forcing, parameters=["kball"])


def test_derivatives_are_written(tmp_path: Path) -> None:
    found = derivatives(StandIn(), make_forcing(1))
    write_derivatives(found, tmp_path)
    with (tmp_path / "derivatives.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.outputs) * len(found.inputs)
    assert rows[0]["flux"] == "latent_heat"
    assert (tmp_path / "elasticities.png").stat().st_size > 10_000


def test_derivatives_of_steps_average_to_those_of_means(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    forcing = make_forcing(2)
    names = ["respiration_q10", "conductance_slope", "leaf_emissivity"]
    monkeypatch.setattr(sensitivity, "CHUNK", 40)
    outputs = ("latent_heat", "net_ecosystem_exchange")
    with jax.enable_x64(True):
        model = StandIn(default_parameters())
        steps = derivatives_by_step(model, forcing, outputs=outputs, parameters=names)
        means = derivatives(model, forcing, outputs=outputs, parameters=names)
    assert steps.derivative.shape == (len(forcing), 2, 3)
    np.testing.assert_allclose(steps.derivative.mean(axis=0), means.derivative[:, :3], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(steps.flux.mean(axis=0), means.mean, rtol=1e-12)
    np.testing.assert_allclose(
        steps.derivative[:, 0, 1], 1.5 * steps.flux[:, 0] / 8.17, rtol=1e-6, atol=1e-12
    )
    write_derivatives_by_step(steps, tmp_path)
    assert (tmp_path / "sensitivity_by_hour.png").stat().st_size > 10_000
    with (tmp_path / "derivatives_by_step.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(forcing)
    assert float(rows[24]["d latent_heat / d conductance_slope"]) > 1.0


# Sobol indices ----------------------------------------------------------------------------------------------


def test_sobol_indices_are_shares_of_variance(tmp_path: Path) -> None:
    pytest.importorskip("SALib")
    names = ["conductance_slope", "maximum_carboxylation", "leaf_emissivity"]
    forcing = make_forcing(1)
    outputs = ["latent_heat", "sensible_heat", "gross_primary_production", "stability"]
    found = sobol_indices(StandIn(), forcing, outputs=outputs, parameters=names, samples=256, batch=100)
    assert found.runs == 256 * 5
    np.testing.assert_allclose(found.total[0], [1.0, 0.0, 0.0], atol=0.02)
    np.testing.assert_allclose(found.first[2], [0.0, 1.0, 0.0], atol=0.02)
    # H is additive in the two, so that their shares follow from the variances over the bounds
    light = float(forcing.forcing.shortwave.mean())
    slope = np.linspace(1.0, 40.0, 100_001)
    variances = np.array([np.var(0.04 * light * slope**1.5), (0.8 * light * 0.099) ** 2 / 12.0])
    shares = variances / variances.sum()
    np.testing.assert_allclose(found.total[1, [0, 2]], shares, atol=0.02)
    assert (found.total_confidence[1] >= 0.0).all()
    assert np.isnan(found.total[3]).all()
    write_sobol_indices(found, tmp_path)
    assert (tmp_path / "sobol.png").stat().st_size > 5_000
    assert len((tmp_path / "sobol.csv").read_text(encoding="utf-8").splitlines()) == 1 + 4 * 3


def test_sobol_settings_that_cannot_be_are_a_sentence() -> None:
    pytest.importorskip("SALib")
    forcing = make_forcing(1)
    with pytest.raises(ConfigurationError, match="samples is 48; a power of two"):
        sobol_indices(StandIn(), forcing, samples=48)
    with pytest.raises(ConfigurationError, match="'oxygen' has no bounds"):
        sobol_indices(StandIn(), forcing, parameters=["oxygen"])


def test_an_absent_salib_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SALib.sample", None)
    monkeypatch.setitem(sys.modules, "SALib.analyze", None)
    with pytest.raises(ConfigurationError, match=r"install bmi_components\[sensitivity\]"):
        sobol_indices(StandIn(), make_forcing(1))
