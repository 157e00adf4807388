"""A figure of whatever a run gives: one panel per output, one line per place; and its means in a table."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["means_table", "series_figure"]

MOST_PLACES = 6
"""Lines in a panel; more would not be readable."""

COLOURS = ("#c0392b", "#2c6fbb", "#3b8f4d", "#b9770e", "#7d3c98", "#444444")


def series_figure(results: Path, path: Path, outputs: Sequence[str]) -> Path:
    """Draw the outputs of a run against time.

    Parameters
    ----------
    results
        netCDF file of a run.
    path
        The figure to write; its suffix says the format.
    outputs
        Symbols of the variables to draw, one panel each.

    Returns
    -------
    Path
        ``path``.
    """
    import xarray
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from bmi_components.plots import date_axis

    with xarray.open_dataset(results) as dataset:
        names = [str(name) for name in dataset["catchment"].values]
        time = dataset["time"].values
        figure = Figure(figsize=(14.0, 1.1 + 2.2 * len(outputs)), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(len(outputs), 1, sharex=True, squeeze=False)[:, 0]
        for axes, symbol in zip(panels, outputs, strict=True):
            data = dataset[symbol]
            for index, name in enumerate(names[:MOST_PLACES]):
                axes.plot(time, data.values[:, index], color=COLOURS[index], lw=1.0, label=name)
            axes.set_title(_sentence(str(data.attrs.get("long_name", symbol))), loc="left", fontsize=10)
            axes.set_ylabel(str(data.attrs["units"]))
            axes.grid(color="0.92", lw=0.8)
            if np.nanmin(data.values, initial=0.0) < 0.0:
                axes.axhline(0.0, color="0.4", lw=0.8)
        date_axis(panels[-1], time)
        panels[0].legend(
            loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=min(len(names), MOST_PLACES), frameon=False
        )
        more = f"   ({MOST_PLACES} of {len(names)})" if len(names) > MOST_PLACES else ""
        figure.suptitle(str(dataset.attrs.get("title", "")) + more, fontsize=13, x=0.01, ha="left")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}.partial{path.suffix}")
        figure.savefig(temporary, dpi=110)
    os.replace(temporary, path)
    return path


def means_table(results: Path, outputs: Sequence[str]) -> str:
    """Return a table of the mean, least and largest value of each output at each place, missing values left out."""
    import netCDF4

    with netCDF4.Dataset(results) as file:
        names = [str(name) for name in file["catchment"][:]]
        width = max(9, *(len(name) for name in names))
        lines = []
        for symbol in outputs:
            values = np.ma.filled(file[symbol][:].astype(np.float64), np.nan)
            lines.append(f"{symbol} ({file[symbol].units})")
            for name, series in zip(names[:20], values.T, strict=False):
                lines.append(f"  {name:<{width}}{_summary(series)}")
            if len(names) > 20:
                lines.append(f"  ... {len(names) - 20} more")
    return "\n".join(lines)


def _summary(series: NDArray[np.float64]) -> str:
    known = series[np.isfinite(series)]
    if not known.size:
        return "   no value"
    missing = series.size - known.size
    gaps = f"   {missing} of {series.size} steps without a value" if missing else ""
    return f"   mean {known.mean():.4g}   least {known.min():.4g}   largest {known.max():.4g}{gaps}"


def _sentence(text: str) -> str:
    return text if len(text) <= 110 else text[:107] + "..."
