"""The water balance of the HBV family, one step of one component: pure functions, a process each.

Every argument is a tensor of one shape (any shape: the physics is elementwise) and every store is in mm, every flux
in mm d-1, temperature in degC; ``dt`` is the step in days. The order of operations is part of the model: each process
sees the stores as the one before left them.

Sources: HBV, Bergström (1992); δHBV 1.0, Feng et al. (2022); 1.1p, Song et al. (2024); 2.0 and its hourly forms, Song
et al. (2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bmi_components.hbv.parameters import Parameter, parameter

__all__ = ["FORCINGS", "INITIAL_STORE", "SMALLEST_STORE", "VARIANTS", "Physics", "physics_variant"]

SMALLEST_STORE = 1e-5
"""Floor of the stores that a power or a division needs to be positive, mm."""

INITIAL_STORE = 1e-3
"""What every store holds before the first step, mm."""

HIGH_ELEVATION = 2000.0
"""Above this elevation 2.x fixes the threshold temperature, m."""

HIGH_ELEVATION_THRESHOLD = 4.0
"""The threshold temperature of high catchments, degC."""

LARGE_BASIN = 2500.0
"""Upstream area from which lateral exchange only adds water, km2."""

Values = Mapping[str, Tensor]
StepFunction = Callable[[Values, Values, Values, Values, float], tuple[dict[str, Tensor], dict[str, Tensor]]]


# Processes ------------------------------------------------------------------------------------------------------------


def snow(
    snowpack: Tensor, meltwater: Tensor, forcing: Values, TT: Tensor, p: Values, dt: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Degree-day snow with refreezing and retention.

    Returns the snowpack and the meltwater in it [mm], and rain, melt and outflow to the soil [mm d-1].
    """
    precipitation, temperature = forcing["precipitation"], forcing["temperature"]
    none = torch.zeros_like(precipitation)
    warm = temperature >= TT
    rain = torch.where(warm, precipitation, none)
    snowfall = torch.where(warm, none, precipitation)
    snowpack = snowpack + snowfall * dt

    melt = torch.minimum(torch.clamp(p["CFMAX"] * (temperature - TT), min=0.0) * dt, snowpack)
    meltwater = meltwater + melt
    snowpack = snowpack - melt

    refrozen = torch.minimum(torch.clamp(p["CFR"] * p["CFMAX"] * (TT - temperature), min=0.0) * dt, meltwater)
    snowpack = snowpack + refrozen
    meltwater = meltwater - refrozen

    to_soil = torch.clamp((meltwater - p["CWH"] * snowpack) / dt, min=0.0)
    meltwater = meltwater - to_soil * dt
    return snowpack, meltwater, rain, melt / dt, to_soil


def wetness(soil_moisture: Tensor, p: Values) -> Tensor:
    """Fraction of the infiltrating water that recharges the upper zone: (SM/FC)^BETA, at most 1."""
    return torch.clamp((soil_moisture / p["FC"]) ** p["BETA"], min=0.0, max=1.0)


def overflow(soil_moisture: Tensor, p: Values, dt: float) -> tuple[Tensor, Tensor]:
    """Soil moisture capped at field capacity, and the excess [mm d-1]."""
    excess = torch.clamp((soil_moisture - p["FC"]) / dt, min=0.0)
    return soil_moisture - excess * dt, excess


def evapotranspiration(
    soil_moisture: Tensor, potential: Tensor, p: Values, dt: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Soil moisture after actual evapotranspiration.

    Returns the soil moisture [mm], the actual evapotranspiration [mm d-1], its ratio to the potential one, and the
    water that the floor of the store made up [mm d-1]. Without BETAET (1.0 with static parameters) the reduction is
    linear.
    """
    dryness = soil_moisture / (p["LP"] * p["FC"])
    if "BETAET" in p:
        dryness = dryness ** p["BETAET"]
    factor = torch.clamp(dryness, min=0.0, max=1.0)
    actual = torch.minimum(soil_moisture, potential * factor * dt) / dt
    left = soil_moisture - actual * dt
    soil_moisture = torch.clamp(left, min=SMALLEST_STORE)
    return soil_moisture, actual, factor, (soil_moisture - left) / dt


def capillary_rise(
    soil_moisture: Tensor, lower_zone: Tensor, p: Values, dt: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Soil moisture and lower zone after capillary rise [mm], the rise and what the floors made up [mm d-1]."""
    deficit = 1.0 - torch.clamp(soil_moisture / p["FC"], max=1.0)
    rise = torch.minimum(lower_zone, p["C"] * lower_zone * deficit * dt) / dt
    wetter = torch.clamp(soil_moisture + rise * dt, min=SMALLEST_STORE)
    left = lower_zone - rise * dt
    lower_zone = torch.clamp(left, min=SMALLEST_STORE)
    made_up = (wetter - (soil_moisture + rise * dt) + lower_zone - left) / dt
    return wetter, lower_zone, rise, made_up


def upper_zone_flow(
    upper_zone: Tensor, recharge: Tensor, p: Values, dt: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Upper zone after percolation, quickflow and interflow (in this order), and the three fluxes [mm d-1]."""
    upper_zone = upper_zone + recharge * dt
    percolation = torch.minimum(upper_zone, p["PERC"] * dt) / dt
    upper_zone = upper_zone - percolation * dt
    quickflow = p["K0"] * torch.clamp(upper_zone - p["UZL"], min=0.0)
    upper_zone = upper_zone - quickflow * dt
    interflow = p["K1"] * upper_zone
    return upper_zone - interflow * dt, percolation, quickflow, interflow


def lateral_exchange(
    lower_zone: Tensor, upstream_area: Tensor, p: Values, dt: float
) -> tuple[Tensor, Tensor]:
    """Lower zone after exchange with the regional groundwater, and the water it gained [mm d-1].

    Small basins lose water to, large ones gain water from their neighbours; it does not conserve mass, by design.
    """
    small = p["RT"] * torch.clamp((upstream_area - p["AC"]) / 1000.0, min=-1.0, max=1.0)
    large = p["RT"] * torch.exp(torch.clamp(-(upstream_area - LARGE_BASIN) / 50.0, min=-10.0, max=0.0))
    exchange = torch.where(upstream_area < LARGE_BASIN, small, large)
    changed = torch.clamp(lower_zone + exchange * dt, min=SMALLEST_STORE)
    return changed, (changed - lower_zone) / dt


def threshold_temperature(p: Values, elevation: Tensor) -> Tensor:
    """TT, fixed at 4 degC from 2000 m upward (2.x)."""
    return torch.where(elevation >= HIGH_ELEVATION, HIGH_ELEVATION_THRESHOLD, p["TT"])


# Steps ----------------------------------------------------------------------------------------------------------------


def _soil_and_zones(
    soil: Tensor, stores: Values, p: Values, forcing: Values, site: Values, recharge: Tensor, dt: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Everything below the infiltration: from the soil's overflow to baseflow."""
    lower = stores["lower_zone"]
    soil, excess = overflow(soil, p, dt)
    soil, actual, factor, made_up = evapotranspiration(soil, forcing["potential_evapotranspiration"], p, dt)
    fluxes = {
        "evapotranspiration": actual,
        "evaporation_factor": factor,
        "recharge": recharge,
        "excess": excess,
    }
    if "C" in p:
        soil, lower, fluxes["capillary_rise"], floors = capillary_rise(soil, lower, p, dt)
        made_up = made_up + floors
    upper, percolation, quickflow, interflow = upper_zone_flow(stores["upper_zone"], recharge + excess, p, dt)
    lower = lower + percolation * dt
    if "RT" in p:
        lower, fluxes["lateral_exchange"] = lateral_exchange(lower, site["upstream_area"], p, dt)
    baseflow = p["K2"] * lower
    lower = lower - baseflow * dt
    fluxes |= {
        "percolation": percolation,
        "quickflow": quickflow,
        "interflow": interflow,
        "baseflow": baseflow,
    }
    fluxes["made_up"] = made_up
    return {"soil_moisture": soil, "upper_zone": upper, "lower_zone": lower}, fluxes


def step_daily(
    stores: Values, p: Values, forcing: Values, site: Values, dt: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One day of HBV 1.0, 1.1p (with C) and 2.0 (with RT, AC and the elevation rule)."""
    TT = threshold_temperature(p, site["elevation"]) if "RT" in p else p["TT"]
    snowpack, meltwater, rain, melt, to_soil = snow(
        stores["snowpack"], stores["meltwater"], forcing, TT, p, dt
    )
    recharge = (rain + to_soil) * wetness(stores["soil_moisture"], p)
    soil = stores["soil_moisture"] + (rain + to_soil - recharge) * dt
    below, fluxes = _soil_and_zones(soil, stores, p, forcing, site, recharge, dt)
    return {"snowpack": snowpack, "meltwater": meltwater, **below}, {
        "melt": melt,
        "to_soil": to_soil,
        **fluxes,
    }


def _floored(stores: Values) -> tuple[dict[str, Tensor], Tensor]:
    """Stores at or above their floors (0 for snow), and the water that this made up [mm]: the hourly models' guard."""
    floored = {
        name: torch.clamp(store, min=0.0 if name in ("snowpack", "meltwater") else SMALLEST_STORE)
        for name, store in stores.items()
    }
    made_up = torch.zeros_like(stores["snowpack"])
    for name, store in stores.items():
        made_up = made_up + (floored[name] - store)
    return floored, made_up


def step_hourly_horton(
    stores: Values, p: Values, forcing: Values, site: Values, dt: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One hour of HBV 2.0: infiltration limited by a Horton-like capacity that falls as the soil wets."""
    stores, floors = _floored(stores)
    TT = threshold_temperature(p, site["elevation"])
    snowpack, meltwater, rain, melt, to_soil = snow(
        stores["snowpack"], stores["meltwater"], forcing, TT, p, dt
    )
    water = rain + to_soil
    saturation = torch.clamp(stores["soil_moisture"] / p["FC"], min=0.0, max=0.99)
    smallest = p["FMIN"] * p["F0"]
    capacity = smallest + (p["F0"] - smallest) * (1.0 - saturation) ** p["ALPHA"]
    infiltration = torch.minimum(water, capacity)
    infiltration_excess = torch.clamp(water - capacity, min=0.0)
    recharge = infiltration * wetness(stores["soil_moisture"], p)
    soil = stores["soil_moisture"] + (infiltration - recharge) * dt
    below, fluxes = _soil_and_zones(soil, stores, p, forcing, site, recharge, dt)
    fluxes["infiltration_excess_flow"] = infiltration_excess
    fluxes["made_up"] = fluxes["made_up"] + floors / dt
    return {"snowpack": snowpack, "meltwater": meltwater, **below}, {
        "melt": melt,
        "to_soil": to_soil,
        **fluxes,
    }


def step_hourly_cascade(
    stores: Values, p: Values, forcing: Values, site: Values, dt: float
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One hour of HBV 2.1: infiltration excess from the unsaturated part, through two linear reservoirs (Nash).

    The reference rounds this block to float32 even in a float64 run; here it has the precision of the rest.
    """
    stores, floors = _floored(stores)
    TT = threshold_temperature(p, site["elevation"])
    snowpack, meltwater, rain, melt, to_soil = snow(
        stores["snowpack"], stores["meltwater"], forcing, TT, p, dt
    )
    water = rain + to_soil
    moisture = stores["soil_moisture"]
    saturated = torch.clamp(
        torch.clamp(moisture / p["FC"], min=0.0, max=1.0 - 1e-4) ** p["BETA"], min=0.0, max=1.0
    )
    unsaturated = 1.0 - saturated
    recharge = water * saturated
    depth = torch.clamp((water / p["F0"]) ** (1.0 / p["ALPHA"]), min=0.0, max=1.0)
    infiltrating = p["F0"] * depth ** (p["ALPHA"] + 1.0) / (p["ALPHA"] + 1.0)
    infiltration_excess = torch.clamp(unsaturated * (water * depth - infiltrating), min=0.0)
    soil = moisture + torch.clamp(water * unsaturated - infiltration_excess, min=0.0) * dt
    below, fluxes = _soil_and_zones(soil, stores, p, forcing, site, recharge, dt)

    recession = 2.0 * p["KS"]
    first = stores["excess_first"] + infiltration_excess * dt
    between = torch.minimum(recession * first * dt, first) / dt
    second = stores["excess_second"] + between * dt
    outflow = torch.minimum(recession * second * dt, second) / dt
    below |= {"excess_first": first - between * dt, "excess_second": second - outflow * dt}
    fluxes["infiltration_excess_flow"] = outflow
    fluxes["made_up"] = fluxes["made_up"] + floors / dt
    return {"snowpack": snowpack, "meltwater": meltwater, **below}, {
        "melt": melt,
        "to_soil": to_soil,
        **fluxes,
    }


# Variants -------------------------------------------------------------------------------------------------------------

_STORES = ("snowpack", "meltwater", "soil_moisture", "upper_zone", "lower_zone")
_FLUXES = (
    "melt",
    "to_soil",
    "evapotranspiration",
    "evaporation_factor",
    "recharge",
    "excess",
    "capillary_rise",
    "lateral_exchange",
    "percolation",
    "quickflow",
    "interflow",
    "baseflow",
    "infiltration_excess_flow",
    "made_up",
)
_BASIC = ("BETA", "FC", "K0", "K1", "K2", "LP", "PERC", "UZL", "TT", "CFMAX", "CFR", "CWH")
_DAILY_20 = (*_BASIC, "BETAET", "C", "RT", "AC")

FORCINGS = ("precipitation", "temperature", "potential_evapotranspiration")
"""What every variant is driven by: mm d-1, degC, mm d-1."""


@dataclass(frozen=True)
class Physics:
    """One variant of the family: its step function and what goes in and out of it."""

    name: str
    step: StepFunction
    parameters: tuple[str, ...]
    time_step: float
    """Seconds."""
    dynamic: tuple[str, ...] = ("BETA", "K0", "BETAET")
    """The parameters that the published models let vary with time."""
    stores: tuple[str, ...] = _STORES
    sites: tuple[str, ...] = ()
    """Constants of a catchment that the equations use: elevation [m], upstream area [km2]."""
    routing_length: int = 15
    """Steps of the unit hydrograph."""
    absent: frozenset[str] = field(default_factory=frozenset)

    @property
    def fluxes(self) -> tuple[str, ...]:
        """The fluxes that ``step`` returns, in mm d-1."""
        return tuple(name for name in _FLUXES if name not in self.absent)

    @property
    def runoff(self) -> tuple[str, ...]:
        """The fluxes whose sum is runoff."""
        return tuple(
            f for f in self.fluxes if f in ("quickflow", "interflow", "baseflow", "infiltration_excess_flow")
        )

    @property
    def dt(self) -> float:
        """The step in days."""
        return self.time_step / 86400.0

    def bounds(self) -> tuple[Parameter, ...]:
        """The variant's parameters with their bounds."""
        return tuple(parameter(symbol, self.name) for symbol in self.parameters)


VARIANTS: dict[str, Physics] = {
    v.name: v
    for v in (
        Physics(
            "1.0",
            step_daily,
            _BASIC,
            86400.0,
            dynamic=("BETA", "BETAET"),
            absent=frozenset({"capillary_rise", "lateral_exchange", "infiltration_excess_flow"}),
        ),
        Physics(
            "1.1p",
            step_daily,
            (*_BASIC, "BETAET", "C"),
            86400.0,
            absent=frozenset({"lateral_exchange", "infiltration_excess_flow"}),
        ),
        Physics(
            "2.0",
            step_daily,
            _DAILY_20,
            86400.0,
            sites=("elevation", "upstream_area"),
            absent=frozenset({"infiltration_excess_flow"}),
        ),
        Physics(
            "2.0-hourly",
            step_hourly_horton,
            (*_DAILY_20, "F0", "FMIN", "ALPHA"),
            3600.0,
            sites=("elevation", "upstream_area"),
            routing_length=72,
        ),
        Physics(
            "2.1-hourly",
            step_hourly_cascade,
            (*_DAILY_20, "F0", "ALPHA", "KS"),
            3600.0,
            stores=(*_STORES, "excess_first", "excess_second"),
            sites=("elevation", "upstream_area"),
            routing_length=72,
        ),
    )
}
"""The variants by name: 1.0, 1.1p, 2.0 (daily), 2.0-hourly, 2.1-hourly."""


def physics_variant(name: str, dynamic: tuple[str, ...]) -> Physics:
    """Return a variant with the given dynamic parameters.

    1.0 has BETAET only when it is dynamic (Feng et al. 2022); the others always have theirs.

    Raises
    ------
    KeyError
        If there is no such variant, or it lacks one of the parameters.
    """
    variant = VARIANTS[name]
    parameters = (*_BASIC, "BETAET") if name == "1.0" and "BETAET" in dynamic else variant.parameters
    for symbol in dynamic:
        if symbol not in parameters:
            raise KeyError(symbol)
    ordered = tuple(s for s in parameters if s in dynamic)
    return Physics(
        name,
        variant.step,
        parameters,
        variant.time_step,
        ordered,
        variant.stores,
        variant.sites,
        variant.routing_length,
        variant.absent,
    )
