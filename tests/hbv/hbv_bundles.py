"""Small untrained HBV bundles, and configurations that use them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bmi_components.hbv.model import DeltaHBV
from bmi_components.hbv.physics import FORCINGS

LUMPED = ("p_mean", "aridity")
UNIT = (
    *("aridity", "meanP", "ETPOT_Hargr", "NDVI", "FW", "meanslope", "SoilGrids1km_sand", "SoilGrids1km_clay"),
    *("SoilGrids1km_silt", "glaciers", "HWSD_clay", "HWSD_gravel", "HWSD_sand", "HWSD_silt", "meanelevation"),
    *("meanTa", "permafrost", "permeability", "seasonality_P", "seasonality_PET", "snow_fraction"),
    *("snowfall_fraction", "T_clay", "T_gravel", "T_sand", "T_silt", "Porosity", "uparea"),
)
SMALL = {"hidden": 8, "components": 4, "mlp_hidden": 8, "mlp_layers": 1}

SIZES: dict[str, dict[str, Any]] = {
    "1.0": {"physics": "1.0", "log_transformed": ["precipitation"]},
    "1.1p": {"physics": "1.1p"},
    "2.0": {"physics": "2.0", "network": "lstm_mlp"},
    "2.0-hourly": {"physics": "2.0-hourly", "network": "lstm_mlp"},
    "2.1-hourly": {"physics": "2.1-hourly", "network": "lstm_mlp", "routing": False},
}

CLIMATOLOGY = """climatology:
  precipitation: [3, 3, 3, 2, 2, 1, 1, 1, 2, 3, 3, 3]
  temperature: [-5, -3, 0, 5, 10, 15, 17, 16, 12, 8, 2, -2]
  potential_evapotranspiration: [0.1, 0.2, 1, 2, 3, 4, 4, 3, 2, 1, 0.5, 0.1]
"""


def attributes_of(physics: str) -> tuple[str, ...]:
    return LUMPED if physics.startswith("1") else UNIT


def make_model(physics: str, seed: int = 0, **changes: Any) -> DeltaHBV:
    names = attributes_of(physics)
    normalisation = {name: {"mean": 1.0, "std": 3.0} for name in (*FORCINGS, *names)}
    sizes = SMALL | SIZES[physics] | changes
    return DeltaHBV.create(sizes, FORCINGS, names, normalisation, seed).eval()


def write_bundle(folder: Path, physics: str, **changes: Any) -> Path:
    return make_model(physics, **changes).to_bundle(licence="none: random weights").save(folder)


def catchment_lines(physics: str, areas: Sequence[float]) -> str:
    """YAML of some catchments that differ."""
    lines = ["catchments:"]
    for i, area in enumerate(areas):
        values = dict.fromkeys(attributes_of(physics), 0.5 + 0.3 * i)
        values |= {
            name: v for name, v in (("uparea", area), ("meanelevation", 300.0 + 900 * i)) if name in values
        }
        text = ", ".join(f"{name}: {value}" for name, value in values.items())
        lines.append(
            f"  - {{id: c{i}, area_km2: {area}, latitude: {40 + i}, longitude: {-90 - i}, attributes: {{{text}}}}}"
        )
    return "\n".join(lines) + "\n"


def configuration(
    folder: Path, physics: str, areas: Sequence[float] = (12.5,), extra: str = "", **changes: Any
) -> Path:
    """Write a bundle and a configuration beside it; return the latter's path."""
    write_bundle(folder / "model", physics, **changes)
    text = "model: model\n" + catchment_lines(physics, areas) + extra
    if physics.startswith("1") and "warm_up" not in extra:
        text += CLIMATOLOGY
    path = folder / "dhbv.yaml"
    path.write_text(text, encoding="utf-8")
    return path
