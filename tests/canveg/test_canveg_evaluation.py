"""Evaluation at a tower: only observed steps count, conditions cover them, and what is written can be read."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from canopy_stand_in import StandIn
from small_tower import make_fluxes, make_forcing

from bmi_components.canveg import evaluation
from bmi_components.canveg.evaluation import evaluate, markdown, score, simulate_tower, write_evaluations
from bmi_components.canveg.model import CanVeg
from bmi_components.canveg.targets import CONDITIONS, TARGETS, conditions
from bmi_components.canveg.tower import read_fluxes, read_forcing, split_blocks
from bmi_components.canveg.tower_files import open_bundle
from bmi_components.errors import ForcingError
from bmi_components.jax_precision import jax_precision


def test_scores_are_those_of_the_observed_steps() -> None:
    forcing = make_forcing()
    judged = evaluate(StandIn(), forcing, make_fluxes(forcing, latent_heat=10.0))
    scores = judged.scores["latent_heat"]["all"]
    assert scores.steps == len(forcing) * 4 // 5
    assert scores.rmse == pytest.approx(10.0, rel=1e-5)
    assert scores.bias == pytest.approx(-10.0, rel=1e-5)
    assert scores.r2 == pytest.approx(1.0, abs=1e-9)
    known = np.isfinite(judged.observed.latent_heat)
    variance = np.var(judged.observed.latent_heat[known])
    assert scores.nse == pytest.approx(1.0 - 100.0 / variance, abs=1e-5)
    mean = judged.observed.latent_heat[known].mean()
    assert scores.kge == pytest.approx(1.0 - 10.0 / mean, abs=1e-5)
    assert judged.scores["net_radiation"]["all"].nse == pytest.approx(1.0, abs=1e-9)
    assert judged.unconverged == 0.0


def test_what_was_not_observed_does_not_count() -> None:
    forcing = make_forcing()
    observed = make_fluxes(forcing)
    part = split_blocks(forcing.time, {"train": 3, "test": 2})["test"]
    judged = evaluate(StandIn(), forcing, observed, part=part)
    known = np.isfinite(observed.latent_heat) & part
    assert judged.scores["latent_heat"]["all"].steps == known.sum()
    absurd = replace(observed, latent_heat=np.where(part, observed.latent_heat, 1e9))
    again = evaluate(StandIn(), forcing, absurd, part=part)
    assert repr(again.scores) == repr(judged.scores)  # a NaN is not equal to itself
    with pytest.raises(ForcingError, match="no flux was observed"):
        evaluate(StandIn(), forcing, observed, part=np.zeros(len(forcing), bool))
    with pytest.raises(ForcingError, match=r"the part is \[3\]"):
        evaluate(StandIn(), forcing, observed, part=np.zeros(3, bool))


def test_a_flux_that_a_tower_lacks_has_no_scores() -> None:
    forcing = make_forcing(4)
    observed = make_fluxes(forcing)
    without = replace(observed, soil_heat=np.full(len(forcing), np.nan))
    judged = evaluate(StandIn(), forcing, without)
    assert set(judged.scores) == set(TARGETS) - {"soil_heat"}
    assert judged.observed_closure is None
    assert judged.simulated_closure is not None
    assert judged.simulated_closure.steps == len(forcing)


def test_few_steps_give_no_score() -> None:
    nothing = score(np.array([1.0, 2.0]), np.array([np.nan, 3.0]))
    assert nothing.steps == 1
    assert np.isnan(nothing.nse)
    constant = score(np.array([1.0, 2.0]), np.array([3.0, 3.0]))
    assert np.isnan(constant.nse)
    assert constant.bias == -1.5


def test_conditions_cover_the_period() -> None:
    forcing = make_forcing()
    masks = conditions(forcing)
    assert tuple(masks) == CONDITIONS
    assert masks["all"].all()
    assert (masks["day"] != masks["night"]).all()
    assert (masks["dry soil"] != masks["wet soil"]).all()
    assert masks["dry soil"].mean() == pytest.approx(0.5, abs=0.01)
    moisture = forcing.forcing.soil_moisture
    assert moisture[masks["dry soil"]].max() < moisture[masks["wet soil"]].min()
    assert forcing.forcing.shortwave[masks["night"]].max() <= 10.0


def test_the_state_is_handed_from_one_part_of_a_run_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    forcing = make_forcing(3)
    whole = simulate_tower(StandIn(), forcing, ("soil_heat",))["soil_heat"]
    monkeypatch.setattr(evaluation, "CHUNK", 50)
    np.testing.assert_allclose(
        simulate_tower(StandIn(), forcing, ("soil_heat",))["soil_heat"], whole, atol=1e-3
    )


def test_a_closed_model_is_found_closed() -> None:
    forcing = make_forcing()
    judged = evaluate(StandIn(), forcing, make_fluxes(forcing, sensible_heat=-20.0))
    assert judged.simulated_closure is not None
    assert judged.observed_closure is not None
    assert judged.simulated_closure.ratio == pytest.approx(1.0, abs=1e-5)
    assert judged.simulated_closure.slope == pytest.approx(1.0, abs=1e-5)
    assert judged.observed_closure.imbalance == pytest.approx(20.0, abs=1e-3)
    assert judged.observed_closure.ratio < 1.0


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    forcing = make_forcing()
    observed = make_fluxes(forcing, latent_heat=5.0, net_ecosystem_exchange=1.0)
    observed = replace(observed, soil_heat=np.full(len(forcing), np.nan))
    both = [evaluate(StandIn(), forcing, observed, name=name) for name in ("corrected", "reference")]
    write_evaluations(both, tmp_path)
    for figure in ("series", "days", "diurnal_cycle", "scatter", "energy_balance"):
        assert (tmp_path / f"{figure}.png").stat().st_size > 10_000, figure
    with (tmp_path / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 4 * len(CONDITIONS)
    assert float(rows[0]["rmse"]) == pytest.approx(5.0, rel=1e-4)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["models"]["reference"]["scores"]["latent_heat"]["all"]["bias"] == pytest.approx(
        -5.0, abs=1e-3
    )
    assert summary["observed_closure"] is None
    assert "| reference | NEE | " in (tmp_path / "scores.md").read_text(encoding="utf-8")
    with (tmp_path / "fluxes.csv").open(encoding="utf-8") as file:
        series = list(csv.DictReader(file))
    assert len(series) == len(forcing)
    assert series[3]["observed latent_heat"] == ""
    assert float(series[24]["corrected latent_heat"]) > 50.0


def test_tables_say_what_they_hold_for() -> None:
    forcing = make_forcing(3)
    text = markdown([evaluate(StandIn(), forcing, make_fluxes(forcing))])
    assert text.startswith("US-Xxx, 2020-07-01T00:00:00 to 2020-07-04T00:00:00: observed steps only.")
    assert "converged" not in text


def test_a_year_of_a_real_tower_is_judged(shared_data: Path) -> None:
    folder = shared_data / "fluxtower" / "US-Whs"
    forcing = read_forcing(folder / "US-Whs-forcings-test.csv.gz")
    judged = evaluate(StandIn(), forcing, read_fluxes(folder / "US-Whs-fluxes-test.csv.gz"))
    assert set(judged.scores) == set(TARGETS)
    assert judged.scores["net_radiation"]["all"].nse > 0.8
    assert judged.observed_closure is not None
    assert 0.6 < judged.observed_closure.ratio < 1.2


def test_a_published_model_gets_the_scores_of_its_golden_run(shared_data: Path) -> None:
    name, steps = "Hybrid-1L-0.5", 96
    tower = shared_data / "fluxtower" / "US-Bi1"
    forcing = read_forcing(tower / "US-Bi1-forcings-test.csv.gz").select(slice(0, steps))
    observed = read_fluxes(tower / "US-Bi1-fluxes-test.csv.gz", interpolate_gaps=True)
    with jax_precision("float64"):
        bundle = open_bundle(shared_data / "checkpoints" / "jax_canveg" / "US-Bi1" / name)
        judged = evaluate(CanVeg.from_bundle(bundle), forcing, observed, name=name)
    golden = np.load(shared_data / "golden" / "canveg" / f"US-Bi1_{name}_f64.npz")
    theirs = np.load(shared_data / "golden" / "canveg" / "US-Bi1_forcing_obs.npz")
    for flux, simulated, measured in (
        ("latent_heat", "LE", "LE"),
        ("sensible_heat", "H", "H"),
        ("net_radiation", "rnet", "rnet"),
        ("soil_heat", "gsoil", "gsoil"),
        ("net_ecosystem_exchange", "NEE", "Fco2"),
    ):
        error = golden[f"can.{simulated}"][:steps] - theirs[f"obs.{measured}"][:steps]
        scores = judged.scores[flux]["all"]
        assert scores.rmse == pytest.approx(np.sqrt(np.mean(error**2)), rel=1e-7), flux
        assert scores.bias == pytest.approx(error.mean(), rel=1e-6, abs=1e-8), flux
