"""A canopy's evaporation (CanVeg, hourly, JAX) drives a basin's flow (δHBV, daily, PyTorch), and gradients come back.

    python docs/examples/canopy_and_basin.py canopy_and_basin.png

Run from the root of the repository. Weather is generated; the tower's forest and the basin are invented.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from bmi_components import CanVeg, DeltaHBV, couple
from bmi_components.coupling import Coupling
from bmi_components.forcing.readers import ForcingSource, read_forcing
from bmi_components.training.plots import save_figure

DAY = 86_400.0
START, DAYS = "1998-05-01", 153
PLACE = "temperate-mountains"

CANOPY = f"""
options: {{layers: 1, atmosphere_layers: 10}}
parameters: {{maximum_carboxylation: 60.0, maximum_electron_transport: 110.0, conductance_intercept: 0.01}}
time_step: hourly
start_time: {START}
sites:
  - {{id: {PLACE}, latitude: 38.0, longitude: -80.0, canopy_height: 20.0, measurement_height: 30.0}}
friction_velocity: profile
longwave: input
profiles: false
"""
BASIN = """
model: {model}
dtype: float64
catchments_file: {file}
start_time: {start}
warm_up: {{kind: sample, catchments: [{place}], start: 1996-05-01, end: 1998-04-30}}
"""


def canopy_and_basin(days: int = DAYS, repository: Path = Path()) -> tuple[Coupling, Any]:
    """Return the pair with so many days of weather, and the daily weather."""
    header, *rows = (repository / "configs/sample_catchments.csv").read_text().splitlines()
    canopy, basin = CanVeg(), DeltaHBV()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "canopy.yaml").write_text(CANOPY)
        (folder / "place.csv").write_text(
            "\n".join([header, *(row for row in rows if row.startswith(PLACE))])
        )
        model = (repository / "models/dhbv11p").resolve()
        (folder / "basin.yaml").write_text(
            BASIN.format(model=model, file=folder / "place.csv", start=START, place=PLACE)
        )
        canopy.initialize(str(folder / "canopy.yaml"))
        basin.initialize(str(folder / "basin.yaml"))

    def weather(component: CanVeg | DeltaHBV, step: str) -> Any:
        source = ForcingSource(kind="sample", time_step=step, catchments=(PLACE,))  # type: ignore[arg-type]
        inputs = [component.variables[name] for name in component.get_input_var_names()]
        return read_forcing(source, inputs, start=START, end="1998-12-31")

    by_hour, by_day = weather(canopy, "1 hour"), weather(basin, "1 day")
    feeds = {f"canopy:{symbol}": values[: 24 * days] for symbol, values in by_hour.values.items()}
    feeds |= {f"basin:{symbol}": by_day.values[symbol][:days] for symbol in ("precipitation", "temperature")}
    pair = couple(
        {"canopy": canopy, "basin": basin},
        links=["canopy:evapotranspiration -> basin:potential_evapotranspiration"],
        feeds=feeds,
    )
    return pair, by_day


def flow(pair: Coupling, parameters: dict[str, Tensor], days: int = DAYS) -> Tensor:
    """Return the basin's daily runoff, mm d-1."""
    return pair.simulate(days * DAY, ["basin:runoff_rate"], parameters)["basin:runoff_rate"]


def main(figure: str | None = None) -> None:
    """Print what the summer's runoff depends on, step the pair, and draw it."""
    pair, by_day = canopy_and_basin()
    varied = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in {
            "canopy:conductance_slope": 8.17,
            "canopy:maximum_carboxylation": 60.0,
            "canopy:leaf_length": 0.04,
        }.items()
    }
    runoff = flow(pair, varied).sum()
    runoff.backward()
    print(f"runoff of {DAYS} days: {runoff.item():.1f} mm")
    for name, value in varied.items():
        assert value.grad is not None
        print(f"  {name}: {value.grad.item():+.3g} mm per unit")
    run = pair.run(
        DAYS * DAY,
        ["canopy:evapotranspiration", "basin:runoff_rate", "basin:evapotranspiration"],
        progress=False,
    )
    print(f"the same, stepped: {float(run['basin.runoff_rate'].sum()):.1f} mm")
    if figure:
        draw(run, by_day, figure)


def draw(run: Any, by_day: Any, figure: str) -> None:
    """Draw rain, both evaporations and runoff by day."""
    evaporation = run["canopy.evapotranspiration"].values.reshape(-1, 24).mean(axis=1) * DAY
    days = by_day.time[: len(evaporation)]
    drawn = Figure(figsize=(8.0, 5.0), layout="constrained")
    above, below = drawn.subplots(2, 1, sharex=True)
    above.plot(days, evaporation, color="tab:green", label="canopy, CanVeg: the basin's demand")
    above.plot(days, run["basin.evapotranspiration"].values[:, 0], color="tab:orange", label="basin, δHBV")
    above.set_ylabel("evapotranspiration (mm d⁻¹)")
    above.legend(frameon=False)
    below.bar(days, by_day.values["precipitation"][: len(days), 0], color="tab:blue", alpha=0.4, label="rain")
    below.plot(days, run["basin.runoff_rate"].values[:, 0], color="black", label="runoff")
    below.set_ylabel("mm d⁻¹")
    below.legend(frameon=False)
    save_figure(drawn, Path(figure))


if __name__ == "__main__":
    main(*sys.argv[1:])
