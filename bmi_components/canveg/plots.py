"""Figures of simulated and observed fluxes: through the year, some days, the mean day, scatter, energy, sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bmi_components.canveg.targets import TARGETS, conditions
from bmi_components.plots import date_axis
from bmi_components.training.plots import COLOURS, GREY, save_figure, tidy

if TYPE_CHECKING:
    from bmi_components.canveg.evaluation import Evaluation

__all__ = [
    "plot_days",
    "plot_diurnal_cycle",
    "plot_elasticities",
    "plot_energy_balance",
    "plot_scatter",
    "plot_sensitivity_by_hour",
    "plot_series",
    "plot_sobol",
]

Array = NDArray[np.float64]
Evaluations = Sequence["Evaluation"]

DAYS = 10
"""Days of the close-up."""


def plot_series(path: Path, evaluations: Evaluations) -> None:
    """Draw daily means through the period, a panel per flux; days of which less than half was observed are gaps.

    Of a period of less than two days there is nothing to draw.
    """
    observed = evaluations[0].observed
    per_day = 86_400 // observed.step
    whole = len(observed) // per_day * per_day
    time = observed.time[:whole].reshape(-1, per_day)[:, 0]
    if time.size < 2:
        return
    _draw_series(
        path,
        evaluations,
        time,
        lambda values: _means(values[:whole].reshape(-1, per_day)),
        "daily means",
    )


def plot_days(path: Path, evaluations: Evaluations) -> None:
    """Draw every step of the ten days of the period that were observed best, the sunniest of these."""
    observed, forcing = evaluations[0].observed, evaluations[0].forcing
    fluxes = list(evaluations[0].scores)
    length = min(len(observed), DAYS * 86_400 // observed.step)
    seen = np.isfinite([getattr(observed, flux) for flux in fluxes]).sum(axis=0).astype(np.float64)
    light = forcing.forcing.shortwave / max(1.0, float(forcing.forcing.shortwave.sum()))
    total = np.concatenate(([0.0], np.cumsum(seen + light)))
    clock = observed.time - observed.time.astype("datetime64[D]")
    starts = np.flatnonzero(clock[: len(observed) - length + 1] == np.timedelta64(0, "s"))
    starts = starts if starts.size else np.array([0])
    first = int(starts[np.argmax(total[starts + length] - total[starts])])
    shown = slice(first, first + length)
    _draw_series(path, evaluations, observed.time[shown], lambda values: values[shown], "each step")


def _draw_series(
    path: Path, evaluations: Evaluations, time: NDArray[np.datetime64], select: Any, what: str
) -> None:
    fluxes = list(evaluations[0].scores)
    figure = Figure(figsize=(12, 1.9 * len(fluxes) + 0.7), layout="constrained")
    panels = np.atleast_1d(figure.subplots(len(fluxes), 1, sharex=True))
    for axes, flux in zip(panels, fluxes, strict=True):
        axes.plot(
            time,
            select(getattr(evaluations[0].observed, flux)),
            color="black",
            linewidth=1.0,
            marker=".",
            markersize=2.5,
            label="observed",
        )
        for one, colour in _coloured(evaluations):
            axes.plot(time, select(one.simulated[flux]), color=colour, linewidth=1.1, label=one.name)
        axes.axhline(0.0, color=GREY, linewidth=0.5)
        axes.set_ylabel(_label(flux))
        tidy(axes)
    date_axis(panels[-1], time)
    panels[0].legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(evaluations) + 1)
    panels[0].set_title(f"{evaluations[0].forcing.site}, {what}", loc="left", fontsize=10)
    save_figure(figure, path)


def plot_diurnal_cycle(path: Path, evaluations: Evaluations) -> None:
    """Draw the mean day of each flux, over the drier and the wetter half of the period; observed steps only.

    The band holds the middle half of the observed values.
    """
    first = evaluations[0]
    fluxes = list(first.scores)
    masks = conditions(first.forcing)
    clock = (first.observed.time - first.observed.time.astype("datetime64[D]")).astype("timedelta64[s]")
    hour = (clock.astype(np.float64) + first.observed.step / 2) / 3600.0
    hours = np.unique(hour)
    figure = Figure(figsize=(3.1 * len(fluxes), 5.2), layout="constrained")
    panels = figure.subplots(2, len(fluxes), sharex=True, sharey="col", squeeze=False)
    for row, condition in enumerate(("dry soil", "wet soil")):
        for axes, flux in zip(panels[row], fluxes, strict=True):
            observed = getattr(first.observed, flux)
            known = masks[condition] & np.isfinite(observed)
            groups = [known & (hour == h) for h in hours]
            low, high = (
                np.array([np.quantile(observed[g], q) if g.any() else np.nan for g in groups])
                for q in (0.25, 0.75)
            )
            axes.fill_between(hours, low, high, color="0.88", linewidth=0, label="observed, middle half")
            axes.plot(hours, _by_group(observed, groups), color="black", linewidth=1.5, label="observed")
            for one, colour in _coloured(evaluations):
                axes.plot(
                    hours, _by_group(one.simulated[flux], groups), color=colour, linewidth=1.5, label=one.name
                )
            axes.axhline(0.0, color=GREY, linewidth=0.5)
            axes.set_xlim(0, 24)
            axes.set_xticks(range(0, 25, 6))
            if row == 0:
                axes.set_title(_label(flux).replace("\n", " "), fontsize=9, loc="left")
            tidy(axes)
        panels[row][0].set_ylabel(condition)
    for axes in panels[-1]:
        axes.set_xlabel("hour, local standard time")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="outside upper right", ncols=len(labels))
    save_figure(figure, path)


def plot_scatter(path: Path, evaluations: Evaluations) -> None:
    """Draw simulated over observed values with the line of agreement: a row per model, a column per flux."""
    fluxes = list(evaluations[0].scores)
    figure = Figure(figsize=(3.0 * len(fluxes), 3.1 * len(evaluations)), layout="constrained")
    panels = figure.subplots(len(evaluations), len(fluxes), squeeze=False)
    for row, one in zip(panels, evaluations, strict=True):
        for axes, flux in zip(row, fluxes, strict=True):
            observed, simulated = getattr(one.observed, flux), one.simulated[flux]
            known = np.isfinite(observed) & np.isfinite(simulated)
            _cloud(axes, observed[known], simulated[known])
            if flux in one.scores:
                scores = one.scores[flux]["all"]
                axes.set_title(
                    f"{_symbol(flux)}: NSE {scores.nse:.2f}, r² {scores.r2:.2f}, bias {scores.bias:+.1f}",
                    fontsize=9,
                    loc="left",
                )
            axes.set_xlabel(f"observed ({_units(flux)})")
        row[0].set_ylabel(f"{one.name}, simulated")
    save_figure(figure, path)


def plot_energy_balance(path: Path, evaluations: Evaluations) -> None:
    """Draw LE + H over Rn - G, observed and as each model has it, over the same steps."""
    first = evaluations[0]
    balance = ("latent_heat", "sensible_heat", "net_radiation", "soil_heat")
    measured = {flux: getattr(first.observed, flux) for flux in balance}
    complete = np.isfinite(list(measured.values())).all(axis=0)
    drawn: list[tuple[str, Mapping[str, Array], Any]] = []
    if first.observed_closure is not None:
        drawn.append(("observed", measured, first.observed_closure))
    drawn += [(one.name, one.simulated, one.simulated_closure) for one in evaluations]
    if not complete.any():
        complete = np.ones_like(complete)
    figure = Figure(figsize=(3.7 * len(drawn), 3.7), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (name, fluxes, closure) in zip(panels, drawn, strict=True):
        available = (fluxes["net_radiation"] - fluxes["soil_heat"])[complete]
        turbulent = (fluxes["latent_heat"] + fluxes["sensible_heat"])[complete]
        known = np.isfinite(available) & np.isfinite(turbulent)
        _cloud(axes, available[known], turbulent[known])
        said = ""
        if closure is not None:
            lacking = round(closure.imbalance, 1) + 0.0  # no minus before a zero
            said = f"\nratio {closure.ratio:.2f}, slope {closure.slope:.2f}, imbalance {lacking:+.1f} W m⁻²"
        axes.set_title(name + said, fontsize=9, loc="left")
        axes.set_xlabel("Rn - G (W m⁻²)")
    panels[0].set_ylabel("LE + H (W m⁻²)")
    save_figure(figure, path)


def plot_elasticities(
    path: Path, names: Sequence[str], values: Mapping[str, Array], title: str, most: int = 24
) -> None:
    """Draw elasticities ``[input]`` by flux as bars, the inputs that matter most first.

    ``names`` are the inputs'; at most ``most`` are drawn.
    """
    table = np.array(list(values.values()))
    weight = np.where(np.isfinite(table), np.abs(table), 0.0)
    scale = np.maximum(weight.max(axis=1, keepdims=True), 1e-30)
    order = np.argsort(-(weight / scale).max(axis=0))[:most]
    order = order[(weight[:, order] > 0.0).any(axis=0)]
    if order.size == 0:
        return
    _bars(
        path,
        [names[i] for i in order],
        {k: v[order] for k, v in values.items()},
        {},
        title,
        "elasticity, %/%",
    )


def plot_sensitivity_by_hour(
    path: Path,
    hours: NDArray[np.int64],
    names: Sequence[str],
    values: Mapping[str, Array],
    title: str,
    most: int = 16,
) -> None:
    """Draw changes of fluxes ``[parameter, hour]`` as colours, a panel per flux, the largest first."""
    figure = Figure(
        figsize=(4.2 * len(values) + 2.0, 0.27 * min(most, len(names)) + 1.6), layout="constrained"
    )
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (flux, one) in zip(panels, values.items(), strict=True):
        order = np.argsort(-np.abs(one).mean(axis=1))[:most]
        largest = max(float(np.abs(one).max()), 1e-30)
        image = axes.imshow(one[order], aspect="auto", cmap="RdBu_r", vmin=-largest, vmax=largest)
        axes.set_yticks(np.arange(order.size), [names[i].replace("_", " ") for i in order], fontsize=8)
        shown = np.flatnonzero(hours % 6 == 0)
        axes.set_xticks(shown, [str(hours[i]) for i in shown])
        axes.set_xlabel("hour, local standard time")
        axes.set_title(_symbol(flux), loc="left", fontsize=10)
        figure.colorbar(image, ax=axes, label=_units(flux) if flux in TARGETS else "")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save_figure(figure, path)


def plot_sobol(
    path: Path,
    names: Sequence[str],
    first: Mapping[str, Array],
    total: Mapping[str, Array],
    confidence: Mapping[str, Array],
    title: str,
) -> None:
    """Draw total Sobol indices as bars with 95 % confidence, first-order ones as dots; by flux, ``[parameter]``."""
    order = np.argsort(-np.max(np.array(list(total.values())), axis=0))
    _bars(
        path,
        [names[i] for i in order],
        {k: v[order] for k, v in total.items()},
        {k: v[order] for k, v in confidence.items()},
        title,
        "Sobol index: total (bar), first order (dot)",
        {k: v[order] for k, v in first.items()},
    )


def _bars(
    path: Path,
    names: Sequence[str],
    values: Mapping[str, Array],
    errors: Mapping[str, Array],
    title: str,
    axis: str,
    dots: Mapping[str, Array] | None = None,
) -> None:
    figure = Figure(figsize=(3.0 * len(values) + 2.0, 0.24 * len(names) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(values), sharey=True, squeeze=False)[0]
    places = np.arange(len(names))[::-1]
    for position, (axes, (flux, one)) in enumerate(zip(panels, values.items(), strict=True)):
        axes.barh(
            places,
            np.where(np.isfinite(one), one, 0.0),
            color=COLOURS[position % len(COLOURS)],
            height=0.7,
            alpha=0.75,
            xerr=errors.get(flux),
            error_kw={"elinewidth": 0.8, "ecolor": GREY},
        )
        if dots is not None:
            axes.plot(dots[flux], places, "o", color="black", markersize=3.5)
        axes.axvline(0.0, color=GREY, linewidth=0.6)
        axes.set_title(_symbol(flux), fontsize=10, loc="left")
        axes.grid(axis="x", color="#dddddd", linewidth=0.5)
        axes.set_axisbelow(True)
        tidy(axes)
    panels[0].set_yticks(places, [name.replace("_", " ") for name in names], fontsize=8)
    figure.supxlabel(axis, fontsize=9)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    save_figure(figure, path)


def _cloud(axes: Axes, x: Array, y: Array) -> None:
    """Draw a dense cloud of points by their density, and the line on which both agree."""
    if x.size:
        low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
        axes.hexbin(
            x,
            y,
            gridsize=55,
            bins="log",
            mincnt=1,
            cmap="viridis",
            linewidths=0.1,
            extent=(low, high, low, high),
        )
        axes.plot([low, high], [low, high], color=COLOURS[1], linewidth=1.0)
    tidy(axes)


def _coloured(evaluations: Evaluations) -> list[tuple[Evaluation, str]]:
    return [(one, COLOURS[(i + 1) % len(COLOURS)]) for i, one in enumerate(evaluations)]


def _means(values: Array) -> Array:
    """Return means over the second axis where at least half is known, else NaN."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(2 * count >= values.shape[1], total / np.maximum(count, 1), np.nan)


def _by_group(values: Array, groups: Sequence[NDArray[np.bool_]]) -> Array:
    return np.array([values[group].mean() if group.any() else np.nan for group in groups])


def _symbol(flux: str) -> str:
    return TARGETS[flux].symbol if flux in TARGETS else flux.replace("_", " ")


def _units(flux: str) -> str:
    return TARGETS[flux].units


def _label(flux: str) -> str:
    return f"{_symbol(flux)}\n({_units(flux)})"
