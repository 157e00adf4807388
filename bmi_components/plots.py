"""Figures of a run: precipitation from above, streamflow below it, and the stores that explain it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bmi_components.units import converter, convertible

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["date_axis", "hydrograph"]

Array = NDArray[np.float64]

MOST_CATCHMENTS = 6
"""Catchments in one figure; more would not be readable."""

RAIN, SIMULATED, OBSERVED = "#4a7fb0", "#c0392b", "#222222"
STORES = {
    "snow_water_equivalent": ("snow", "#5dade2"),
    "soil_moisture": ("soil", "#a0703c"),
    "upper_zone_storage": ("upper zone", "#7fb069"),
    "lower_zone_storage": ("lower zone (groundwater)", "#34495e"),
}
"""Stores that are drawn: label and colour."""


def hydrograph(results: Path | xarray.Dataset, path: Path, catchments: Sequence[str] | None = None) -> Path:
    """Draw precipitation, streamflow and stores of a run.

    Per catchment, two panels on a common time axis: precipitation as bars from the top and streamflow as a line
    from the bottom (both mm d-1, so that they compare), observed streamflow too where there is some; below it the
    stores (mm).

    Parameters
    ----------
    results
        netCDF file of a run, or the data set read from it.
    path
        The figure to write; its suffix says the format.
    catchments
        Which ones to draw; without it the first six.

    Returns
    -------
    Path
        ``path``.
    """
    import xarray

    if isinstance(results, Path):
        with xarray.open_dataset(results) as dataset:
            return hydrograph(dataset, path, catchments)
    dataset = results
    everyone = [str(name) for name in dataset["catchment"].values]
    drawn = list(catchments) if catchments is not None else everyone[:MOST_CATCHMENTS]
    series = [_series(dataset, everyone.index(name), name) for name in drawn]

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure of its own with its own canvas: no pyplot, so nothing global and nothing to close.
    figure = Figure(figsize=(14.0, 1.1 + 3.3 * len(series)), layout="constrained")
    FigureCanvasAgg(figure)
    _draw(figure, series, str(dataset.attrs.get("title", "")), len(everyone))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
    figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)
    return path


@dataclass(frozen=True)
class _Series:
    """What is drawn of one catchment, mm d-1 and mm, each ``[time]``; None where the run has no such thing."""

    name: str
    time: NDArray[np.datetime64]
    rain: Array | None
    runoff: Array | None
    observed: Array | None
    stores: dict[str, Array]


def _series(dataset: xarray.Dataset, index: int, name: str) -> _Series:
    def values(symbol: str, units: str) -> Array | None:
        if symbol not in dataset:
            return None
        data = dataset[symbol]
        declared = str(data.attrs["units"])
        if not convertible(declared, units):
            return None
        return np.asarray(converter(declared, units)(data.values[:, index].astype(np.float64)))

    runoff = values("runoff_rate", "mm d-1")
    if runoff is None and (depth := values("runoff_depth", "mm")) is not None:  # a rate in m3 s-1
        begin, end = dataset["time_bounds"].values[0]
        runoff = depth * (np.timedelta64(1, "D") / (end - begin))
    stores = {symbol: values(symbol, "mm") for symbol in STORES}
    return _Series(
        name=name,
        time=dataset["time"].values,
        rain=values("precipitation", "mm d-1"),
        runoff=runoff,
        observed=values("observed_runoff", "mm d-1"),
        stores={symbol: store for symbol, store in stores.items() if store is not None},
    )


def _draw(figure: Figure, series: Sequence[_Series], title: str, total: int) -> None:
    """Fill the figure: two rows per catchment, one legend for all at the top."""
    stored = any(one.stores for one in series)
    heights = [2.1, 1.0] if stored else [2.1]
    axes = figure.subplots(
        len(heights) * len(series), 1, sharex=True, squeeze=False, height_ratios=heights * len(series)
    )[:, 0]
    handles: dict[str, Any] = {}
    for position, one in enumerate(series):
        flow = axes[position * len(heights)]
        handles |= _draw_flow(flow, one)
        if stored:
            handles |= _draw_stores(axes[position * len(heights) + 1], one)
    date_axis(axes[-1], series[0].time)
    axes[0].legend(
        list(handles.values()),
        list(handles),
        loc="lower right",
        bbox_to_anchor=(1.0, 1.12),
        ncols=len(handles),
        frameon=False,
        columnspacing=1.4,
    )
    more = f"   ({len(series)} of {total} catchments)" if total > len(series) else ""
    figure.suptitle(title + more, fontsize=13, x=0.01, ha="left")


def _draw_flow(axes: Axes, one: _Series) -> dict[str, Any]:
    """Draw streamflow from the bottom, precipitation from the top."""
    handles: dict[str, Any] = {}
    highest = 1e-6
    if one.observed is not None:
        (handles["observed streamflow"],) = axes.plot(
            one.time, one.observed, color=OBSERVED, lw=0.8, zorder=3
        )
        highest = max(highest, float(np.nanmax(one.observed, initial=0.0)))
    if one.runoff is not None:
        (handles["simulated streamflow"],) = axes.plot(
            one.time, one.runoff, color=SIMULATED, lw=1.0, zorder=4
        )
        highest = max(highest, float(np.nanmax(one.runoff)))
    axes.set_ylim(0.0, 1.55 * highest)  # room above for the rain
    axes.set_yticks(_ticks(highest))
    axes.set_ylabel("streamflow\n[mm d$^{-1}$]", color=SIMULATED, loc="bottom")
    axes.set_title(one.name + _skill(one), loc="left", fontsize=11, weight="bold", pad=4.0)
    if one.rain is not None:
        top = axes.twinx()
        handles["precipitation"] = top.fill_between(
            one.time, one.rain, step="post", color=RAIN, alpha=0.75, lw=0.0, zorder=1
        )
        most = max(float(one.rain.max()), 1.0)
        top.set_ylim(2.6 * most, 0.0)
        top.set_yticks(_ticks(most))
        top.set_ylabel("precipitation\n[mm d$^{-1}$]", color=RAIN, loc="top")
        axes.set_zorder(top.get_zorder() + 1)
        axes.patch.set_visible(False)
    axes.grid(axis="x", color="0.9", lw=0.8)
    return handles


def _draw_stores(axes: Axes, one: _Series) -> dict[str, Any]:
    """Draw the stores as lines, the snow filled."""
    handles: dict[str, Any] = {}
    for symbol, store in one.stores.items():
        label, colour = STORES[symbol]
        if symbol == "snow_water_equivalent":
            handles[label] = axes.fill_between(one.time, store, color=colour, alpha=0.6, lw=0.0)
        else:
            (handles[label],) = axes.plot(one.time, store, color=colour, lw=1.0)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("stores\n[mm]")
    axes.grid(axis="x", color="0.9", lw=0.8)
    return handles


def _ticks(highest: float) -> list[float]:
    """Return a few round numbers up to the highest value: the rest of the axis belongs to the other quantity."""
    from matplotlib.ticker import MaxNLocator

    return [float(tick) for tick in MaxNLocator(4).tick_values(0.0, highest) if 0.0 <= tick <= highest]


def _skill(one: _Series) -> str:
    """Return the Nash-Sutcliffe efficiency where there are observations."""
    if one.observed is None or one.runoff is None:
        return ""
    both = np.isfinite(one.observed) & np.isfinite(one.runoff)
    if both.sum() < 2:
        return ""
    observed, simulated = one.observed[both], one.runoff[both]
    spread = float(((observed - observed.mean()) ** 2).sum())
    return f"   NSE {1.0 - float(((observed - simulated) ** 2).sum()) / spread:.2f}" if spread > 0.0 else ""


def date_axis(axes: Axes, time: NDArray[np.datetime64]) -> None:
    """Label years where there are several, months where there are few."""
    from matplotlib import dates

    make: Any = dates  # matplotlib leaves these classes untyped
    axes.set_xlim(time[0], time[-1])
    years = float((time[-1] - time[0]) / np.timedelta64(1, "D")) / 365.25
    if years > 2.5:
        axes.xaxis.set_major_locator(make.YearLocator(1 if years <= 16 else 5))
        axes.xaxis.set_major_formatter(make.DateFormatter("%Y"))
        if years <= 16:
            axes.xaxis.set_minor_locator(make.MonthLocator((4, 7, 10)))
    else:
        locator = make.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(make.ConciseDateFormatter(locator))
