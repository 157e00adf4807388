"""Draw how the three forms of stomatal conductance answer to dry air: `leaf_conductance.py FIGURE [CANOPY]`.

CANOPY is a trained canopy model of the hybrid form (a bundle, or a folder of JAX-CanVeg) for the third panel.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from bmi_components.ball_berry.model import Leaves, leaf_conductance
from bmi_components.canveg.bundle import unpack
from bmi_components.importers import load_model

AIR_TEMPERATURE = 25.0  # degC
SATURATION = 0.6108 * np.exp(17.27 * AIR_TEMPERATURE / (AIR_TEMPERATURE + 237.3))  # kPa
ASSIMILATION, CO2 = 12.0, 360.0  # umol m-2 s-1, umol mol-1 at the leaf's surface
HUMIDITY = np.linspace(0.1, 0.99, 90)
STEPS = 4  # curves per panel


def curves(form: str, leaves: Leaves, last: np.ndarray) -> np.ndarray:
    """Return conductance at `HUMIDITY`, mol m-2 s-1."""
    many = np.ones_like(HUMIDITY)
    return np.asarray(leaf_conductance(form, leaves, np.stack([ASSIMILATION * many, CO2 * many, *last])))


def draw(path: Path, canopy: Path | None = None) -> Path:
    """Draw a panel for each form."""
    figure, panels = plt.subplots(
        1, 2 if canopy is None else 3, figsize=(11, 3.4), sharey=True, layout="constrained"
    )
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, STEPS))
    for slope, colour in zip((5.0, 8.17, 12.0, 16.0), shades, strict=True):
        found = curves("ball_berry", Leaves(slope, 0.02, 0.0), [HUMIDITY])
        panels[0].plot(HUMIDITY, found, color=colour, label=f"m = {slope:g}")
    deficit = SATURATION * (1.0 - HUMIDITY)
    for slope, colour in zip((1.5, 3.0, 4.5, 6.0), shades, strict=True):
        found = curves("medlyn", Leaves(0.0, 0.02, slope), [deficit])
        panels[1].plot(HUMIDITY, found, color=colour, label=f"g₁ = {slope:g} kPa$^{{0.5}}$")
    panels[0].set_title("ball_berry")
    panels[1].set_title("medlyn")
    if canopy is not None:
        _, _, trained, _ = unpack(load_model(canopy, "canveg"))
        leaves = Leaves(
            trained.conductance_slope,
            trained.conductance_intercept,
            0.0,
            trained.humidity_network,
            trained.scaling.soil_moisture_mean,
            trained.scaling.soil_moisture_std,
        )
        low, high = float(trained.scaling.soil_moisture_minimum), float(trained.scaling.soil_moisture_maximum)
        for moisture, colour in zip(np.linspace(low, high, STEPS), shades, strict=True):
            found = curves("hybrid", leaves, [HUMIDITY, np.full_like(HUMIDITY, moisture)])
            panels[2].plot(HUMIDITY, found, color=colour, label=f"θ = {moisture:.2f} m³ m⁻³")
        panels[2].set_title(f"hybrid, m = {float(trained.conductance_slope):.1f}")
    panels[0].set_ylabel("conductance (mol m⁻² s⁻¹)")
    for panel in panels:
        panel.set_xlabel(f"relative humidity at the leaf, {AIR_TEMPERATURE:g} °C")
        panel.set_ylim(0.0, 0.7)
        panel.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
