"""How good simulated fluxes are at a tower: over observed steps, by day and night, over dry and wet soil."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bmi_components.canveg import plots
from bmi_components.canveg.fluxes import Fluxes, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.targets import CONDITIONS, TARGETS, conditions
from bmi_components.canveg.tower import TowerFluxes, TowerForcing, common_period
from bmi_components.errors import ForcingError
from bmi_components.training.files import write_whole
from bmi_components.training.metrics import METRICS

__all__ = [
    "Canopy",
    "Closure",
    "Evaluation",
    "Scores",
    "evaluate",
    "markdown",
    "score",
    "simulate_tower",
    "write_evaluations",
]

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

CHUNK = 1488
"""Steps that are simulated at once: a month of half-hours."""


class Canopy(Protocol):
    """What evaluation and sensitivity need of a model, see `CanVeg`."""

    def simulate(
        self, forcing: Forcing, state: State | None = None, parameters: Any = None
    ) -> tuple[Fluxes, State]:
        """Simulate ``[time, site]``."""


@dataclass(frozen=True)
class Scores:
    """Agreement of one flux over the observed steps of one condition; NaN where these do not define a score.

    Attributes
    ----------
    steps
        How many were observed.
    rmse, bias
        Root mean squared error and mean of simulated less observed, in the flux's units.
    nse, kge, r2
        Nash-Sutcliffe and Kling-Gupta efficiency, squared correlation. KGE divides by the observed mean, which for net
        ecosystem exchange is near zero: there it says nothing.
    observed_mean
        In the flux's units.
    """

    steps: int
    rmse: float
    nse: float
    kge: float
    r2: float
    bias: float
    observed_mean: float


@dataclass(frozen=True)
class Closure:
    """How far turbulent fluxes, LE + H, make up the available energy, Rn - G.

    Attributes
    ----------
    steps
        Steps at which all four were observed (or are simulated).
    ratio
        Sum of LE + H over sum of Rn - G.
    slope
        Of the regression of LE + H on Rn - G.
    imbalance
        Mean of Rn - G - LE - H, W m-2.
    """

    steps: int
    ratio: float
    slope: float
    imbalance: float


@dataclass(frozen=True)
class Evaluation:
    """What a model did at a tower, and how well.

    Attributes
    ----------
    name
        Of the model.
    forcing, observed
        Of the period; steps that are not judged are gaps in ``observed``.
    simulated
        ``[time]`` by field of `Fluxes`: the targets and gross primary production.
    scores
        ``{flux: {condition: scores}}``, see `conditions`.
    observed_closure, simulated_closure
        Over the steps that were observed; None where one of the four fluxes is missing.
    unconverged
        Share of steps that the model flagged as not converged.
    """

    name: str
    forcing: TowerForcing
    observed: TowerFluxes
    simulated: Mapping[str, Array]
    scores: Mapping[str, Mapping[str, Scores]]
    observed_closure: Closure | None
    simulated_closure: Closure | None
    unconverged: float


def evaluate(
    model: Canopy,
    forcing: TowerForcing,
    fluxes: TowerFluxes,
    *,
    name: str = "CanVeg",
    part: Mask | None = None,
    progress: bool = False,
) -> Evaluation:
    """Simulate a tower and judge the fluxes over observed steps.

    Parameters
    ----------
    model
        For one site.
    forcing, fluxes
        Their common period is simulated, from the model's initial state on.
    name
        Of the model, for tables and figures.
    part
        Steps of the common period that are judged, such as a part of `split_blocks`; None: all.
    progress
        Whether to show a bar.

    Raises
    ------
    ForcingError
        If there is no common period, or nothing was observed in it.
    """
    forcing, observed = common_period(forcing, fluxes)
    if part is not None:
        if part.shape != forcing.time.shape:
            raise ForcingError(f"{forcing.site}: the part is {list(part.shape)}, the period [{len(forcing)}]")
        observed = observed.where(part)
    simulated = simulate_tower(
        model, forcing, (*TARGETS, "gross_primary_production", "converged"), name=name, progress=progress
    )
    converged = simulated.pop("converged")
    seen = conditions(forcing)
    scores = {
        flux: {
            condition: score(simulated[flux][mask], getattr(observed, flux)[mask])
            for condition, mask in seen.items()
        }
        for flux in TARGETS
        if np.isfinite(getattr(observed, flux)).any() and np.isfinite(simulated[flux]).any()
    }
    if not scores:
        raise ForcingError(
            f"{forcing.site}: no flux was observed from {forcing.time[0]} to {forcing.time[-1]}"
        )
    measured = {flux: getattr(observed, flux) for flux in TARGETS}
    balance = ("latent_heat", "sensible_heat", "net_radiation", "soil_heat")
    complete: Mask = np.all(np.isfinite([measured[flux] for flux in balance]), axis=0)
    # without such steps the model's closure over all of them is still worth knowing
    judged: Mask = complete if complete.any() else np.ones_like(complete)
    return Evaluation(
        name=name,
        forcing=forcing,
        observed=observed,
        simulated=simulated,
        scores=scores,
        observed_closure=_closure(measured, complete),
        simulated_closure=_closure(simulated, judged),
        unconverged=float(np.mean(converged < 0.5)),
    )


def simulate_tower(
    model: Canopy,
    forcing: TowerForcing,
    outputs: Sequence[str],
    *,
    name: str = "CanVeg",
    progress: bool = False,
) -> dict[str, Array]:
    """Simulate one tower, a month at a time, and return some fields of `Fluxes`, float64 ``[time]`` each."""
    pieces: dict[str, list[Array]] = {output: [] for output in outputs}
    state: State | None = None
    starts = range(0, len(forcing), CHUNK)
    for start in tqdm(starts, desc=f"{forcing.site}, {name}", unit="month", disable=not progress):
        one = forcing.select(slice(start, start + CHUNK)).forcing
        fluxes, state = model.simulate(Forcing(*(values[:, None] for values in one)), state)
        for output, piece in pieces.items():
            piece.append(np.asarray(getattr(fluxes, output), np.float64)[:, 0])
    return {output: np.concatenate(piece) for output, piece in pieces.items()}


def score(simulated: Array, observed: Array) -> Scores:
    """Score one series ``[time]`` over the steps that were observed."""
    known = np.isfinite(observed)
    s, o = simulated[known], observed[known]
    if o.size < 2:
        return Scores(int(o.size), *(6 * (np.nan,)))
    return Scores(
        steps=int(o.size),
        rmse=METRICS["rmse"](s, o),
        nse=METRICS["nse"](s, o),
        kge=METRICS["kge"](s, o),
        r2=METRICS["corr"](s, o) ** 2,
        bias=float(np.mean(s - o)),
        observed_mean=float(np.mean(o)),
    )


def _closure(fluxes: Mapping[str, Array], steps: Mask) -> Closure | None:
    turbulent = (fluxes["latent_heat"] + fluxes["sensible_heat"])[steps]
    available = (fluxes["net_radiation"] - fluxes["soil_heat"])[steps]
    if not np.isfinite(turbulent).any() or not np.isfinite(available).any():
        return None
    spread = available - available.mean()
    return Closure(
        steps=int(steps.sum()),
        ratio=float(turbulent.sum() / available.sum()),
        slope=float((spread * turbulent).sum() / (spread**2).sum()),
        imbalance=float(np.mean(available - turbulent)),
    )


def markdown(evaluations: Sequence[Evaluation]) -> str:
    """Return tables of scores: all steps with every score, then efficiency and error by condition, then closure."""
    site = evaluations[0].forcing
    end = site.time[-1] + np.timedelta64(site.step, "s")
    lines = [
        f"{site.site}, {site.time[0]} to {end}: observed steps only. Dry and wet soil: the drier and the wetter half "
        "of the period. KGE of NEE is divided by a mean near zero and says nothing.",
        "",
    ]
    lines += _table(
        ["model", "flux", "steps", "RMSE", "NSE", "KGE", "r²", "bias", "observed mean", "units"],
        [
            [
                one.name,
                TARGETS[flux].symbol,
                str(s.steps),
                f"{s.rmse:.2f}",
                f"{s.nse:.3f}",
                f"{s.kge:.3f}",
                f"{s.r2:.3f}",
                f"{s.bias:+.2f}",
                f"{s.observed_mean:.2f}",
                TARGETS[flux].units,
            ]
            for one in evaluations
            for flux, by_condition in one.scores.items()
            for s in (by_condition["all"],)
        ],
    )
    names = CONDITIONS[1:]
    lines += ["", "NSE (RMSE) by condition:", ""]
    lines += _table(
        ["model", "flux", *names],
        [
            [
                one.name,
                TARGETS[flux].symbol,
                *(f"{by_condition[c].nse:.2f} ({by_condition[c].rmse:.2f})" for c in names),
            ]
            for one in evaluations
            for flux, by_condition in one.scores.items()
        ],
    )
    closures = [("observed", evaluations[0].observed_closure)]
    closures += [(one.name, one.simulated_closure) for one in evaluations]
    lines += ["", "Energy balance, LE + H against Rn - G:", ""]
    lines += _table(
        ["", "steps", "ratio", "slope", "imbalance (W m⁻²)"],
        [
            [name, str(c.steps), f"{c.ratio:.3f}", f"{c.slope:.3f}", f"{c.imbalance:+.2f}"]
            for name, c in closures
            if c is not None
        ],
    )
    for one in evaluations:
        if one.unconverged > 0.0:
            lines += ["", f"{one.name}: {one.unconverged:.2%} of the steps are flagged as not converged."]
    return "\n".join(lines) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]


def write_evaluations(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Write what models did at one tower over one period.

    ``scores.csv`` (a row per model, flux and condition), ``scores.md``, ``summary.json``, ``fluxes.csv`` (observed and
    simulated at each step), and the figures ``series.png``, ``days.png``, ``diurnal_cycle.png``, ``scatter.png`` and
    ``energy_balance.png``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["model", "flux", "condition", *Scores.__dataclass_fields__])
    for one in evaluations:
        for flux, by_condition in one.scores.items():
            for condition, scores in by_condition.items():
                values = (f"{value:.6g}" for value in asdict(scores).values())
                writer.writerow([one.name, flux, condition, *values])
    write_whole(folder / "scores.csv", text.getvalue())
    write_whole(folder / "scores.md", markdown(evaluations))
    write_whole(folder / "summary.json", json.dumps(_summary(evaluations), indent=2) + "\n")
    write_whole(folder / "fluxes.csv", _series(evaluations))
    plots.plot_series(folder / "series.png", evaluations)
    plots.plot_days(folder / "days.png", evaluations)
    plots.plot_diurnal_cycle(folder / "diurnal_cycle.png", evaluations)
    plots.plot_scatter(folder / "scatter.png", evaluations)
    plots.plot_energy_balance(folder / "energy_balance.png", evaluations)


def _summary(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    first = evaluations[0].forcing
    return {
        "site": first.site,
        "period": [str(first.time[0]), str(first.time[-1])],
        "models": {
            one.name: {
                "scores": {
                    flux: {c: _finite(asdict(scores)) for c, scores in by_condition.items()}
                    for flux, by_condition in one.scores.items()
                },
                "closure": None if one.simulated_closure is None else _finite(asdict(one.simulated_closure)),
                "unconverged": one.unconverged,
            }
            for one in evaluations
        },
        "observed_closure": None
        if evaluations[0].observed_closure is None
        else _finite(asdict(evaluations[0].observed_closure)),
    }


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return numbers rounded for people; JSON knows no NaN."""
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in values.items()}


def _series(evaluations: Sequence[Evaluation]) -> str:
    observed = evaluations[0].observed
    columns = {f"observed {flux}": getattr(observed, flux) for flux in TARGETS}
    for one in evaluations:
        columns |= {f"{one.name} {flux}": values for flux, values in one.simulated.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["TIMESTAMP_START", *columns])
    for time, *values in zip(observed.time.astype(str), *columns.values(), strict=True):
        writer.writerow([time, *("" if np.isnan(value) else f"{value:.6g}" for value in values)])
    return text.getvalue()
