"""The parameters of the HBV family: symbol, meaning, unit, bounds and source, in the one table that all else reads."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["GAGE_ROUTING", "PARAMETERS", "UNIT_ROUTING", "Parameter", "parameter"]

BERGSTROM = "Bergström 1992; bounds of Feng et al. 2022"
SONG_2024 = "Song et al. 2024"
SONG_2025 = "Song et al. 2025"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One calibrated quantity of the model; a network's output u in [0, 1] means ``lower + u (upper - lower)``."""

    symbol: str
    meaning: str
    units: str
    lower: float
    upper: float
    source: str = BERGSTROM

    @property
    def published_name(self) -> str:
        """The name in the published code and checkpoints, ``parBETA`` for BETA."""
        return f"par{self.symbol}"


PARAMETERS: dict[str, Parameter] = {
    p.symbol: p
    for p in (
        Parameter("BETA", "shape of the recharge curve", "1", 1.0, 6.0),
        Parameter("FC", "field capacity of the soil", "mm", 50.0, 1000.0),
        Parameter("K0", "recession of quickflow from the upper zone", "d-1", 0.05, 0.9),
        Parameter("K1", "recession of interflow from the upper zone", "d-1", 0.01, 0.5),
        Parameter("K2", "recession of baseflow from the lower zone", "d-1", 0.001, 0.2),
        Parameter(
            "LP",
            "soil moisture, as a fraction of FC, above which evapotranspiration is potential",
            "1",
            0.2,
            1.0,
        ),
        Parameter("PERC", "largest percolation from upper to lower zone", "mm d-1", 0.0, 10.0),
        Parameter("UZL", "storage of the upper zone above which quickflow starts", "mm", 0.0, 100.0),
        Parameter("TT", "threshold temperature of snowfall and of melt", "degC", -2.5, 2.5),
        Parameter("CFMAX", "degree-day factor of melt", "mm degC-1 d-1", 0.5, 10.0),
        Parameter("CFR", "refreezing, as a fraction of CFMAX", "1", 0.0, 0.1),
        Parameter("CWH", "liquid water that the snowpack holds, as a fraction of it", "1", 0.0, 0.2),
        Parameter("BETAET", "shape of the evapotranspiration reduction", "1", 0.3, 5.0, "Feng et al. 2022"),
        Parameter("C", "capillary rise from the lower zone to the soil", "d-1", 0.0, 1.0, SONG_2024),
        Parameter(
            "RT", "largest lateral exchange with the regional groundwater", "mm d-1", 0.0, 20.0, SONG_2025
        ),
        Parameter(
            "AC", "upstream area at which lateral exchange changes sign", "km2", 0.0, 2500.0, SONG_2025
        ),
        Parameter("F0", "infiltration capacity of dry soil", "mm d-1", 120.0, 2880.0, SONG_2025),
        Parameter("FMIN", "infiltration capacity of wet soil, as a fraction of F0", "1", 0.0, 1.0, SONG_2025),
        Parameter("ALPHA", "shape of the infiltration capacity", "1", 0.5, 5.0, SONG_2025),
        Parameter("KS", "recession of the infiltration-excess cascade", "d-1", 0.05, 10.0, SONG_2025),
    )
}
"""Every physical parameter, in the order of the networks' outputs."""

_HOURLY_21 = {
    "K0": Parameter("K0", PARAMETERS["K0"].meaning, "d-1", 0.05, 12.0, SONG_2025),
    "ALPHA": Parameter("ALPHA", "spatial shape of the infiltration capacity", "1", 0.5, 1.0, SONG_2025),
}

UNIT_ROUTING = (
    Parameter("route_a", "shape of the unit hydrograph, less 0.1", "1", 0.0, 2.9),
    Parameter("route_b", "time scale of the unit hydrograph, less 0.5", "d", 0.0, 6.5),
)
"""Gamma unit hydrograph of one catchment, in steps of the model."""

GAGE_ROUTING = (
    Parameter("route_a", "shape of the unit hydrograph, less 0.1", "1", 0.0, 5.0, SONG_2025),
    Parameter("route_b", "time scale of the unit hydrograph, less 0.5", "h", 0.0, 12.0, SONG_2025),
    Parameter("route_tau", "travel time from the unit to the gauge", "h", 0.0, 48.0, SONG_2025),
)
"""Lagged gamma unit hydrograph from a unit to a gauge downstream (hourly models)."""


def parameter(symbol: str, physics: str) -> Parameter:
    """Return the parameter as one variant of the physics bounds it ("2.1-hourly" widens K0 and narrows ALPHA)."""
    if physics == "2.1-hourly" and symbol in _HOURLY_21:
        return _HOURLY_21[symbol]
    return PARAMETERS[symbol]
