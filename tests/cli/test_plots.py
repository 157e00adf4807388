"""The hydrograph shows what a run has, and says so in its legend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray
from matplotlib import pyplot
from matplotlib.figure import Figure

from bmi_components.forcing.sample_weather import daily_weather
from bmi_components.plots import hydrograph


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: (figures.append(self), Path(path).touch()))
    return figures


def results(days: int, **others: np.ndarray) -> xarray.Dataset:
    weather = daily_weather("1995-10-01", "1999-12-31").select()
    rain = weather.values["precipitation"][:days]
    data = {"precipitation": rain * 1.0, "runoff_rate": rain * 0.5, **others}
    units = {"snow_water_equivalent": "mm"}
    return xarray.Dataset(
        {name: (("time", "catchment"), v, {"units": units.get(name, "mm d-1")}) for name, v in data.items()},
        coords={"time": weather.time[:days].astype("datetime64[ns]"), "catchment": list(weather.catchments)},
        attrs={"title": "A run"},
    )


def texts(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def test_it_draws_what_there_is(drawn: list[Figure], tmp_path: Path) -> None:
    hydrograph(results(400), tmp_path / "a.png")
    assert texts(drawn[0]) == ["simulated streamflow", "precipitation"]
    full = results(400, observed_runoff=np.full((400, 6), np.nan), snow_water_equivalent=np.ones((400, 6)))
    full["observed_runoff"][10:, :] = full["runoff_rate"][10:, :]
    hydrograph(full, tmp_path / "b.png", ["oceanic-hills"])
    assert texts(drawn[1]) == ["observed streamflow", "simulated streamflow", "precipitation", "snow"]
    assert drawn[1].axes[0].get_title(loc="left") == "oceanic-hills   NSE 1.00"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_precipitation_hangs_from_the_top_and_streamflow_stands_below(
    drawn: list[Figure], tmp_path: Path
) -> None:
    hydrograph(results(1500), tmp_path / "a.png", ["snowy-forest"])
    flow, rain = drawn[0].axes
    assert rain.get_ylim()[0] > rain.get_ylim()[1] == 0.0
    assert flow.get_ylim()[0] == 0.0
    years = [label.get_text() for label in flow.get_xticklabels()]
    assert {"1996", "1997", "1998", "1999"} <= set(years)


def test_it_leaves_nothing_open_and_writes_a_picture(tmp_path: Path) -> None:
    before = pyplot.get_fignums()
    path = hydrograph(results(60), tmp_path / "deep" / "a.png", ["snowy-forest"])
    assert path.read_bytes().startswith(b"\x89PNG")
    assert pyplot.get_fignums() == before
