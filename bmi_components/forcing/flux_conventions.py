"""What the columns of flux tower files mean: AmeriFlux and FLUXNET names, the positions in them, and their units."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["CANVEG_UNITS", "columns_measuring", "columns_named", "own_name", "symbol_of", "units_of"]

_POSITION = re.compile(r"(_\d+_\d+_(\d+|A)|_\d+)$")
"""Horizontal, vertical and replicate index of an AmeriFlux variable, or the layer that a FLUXNET one belongs to."""

_CARBON_FLUXES = ("NEE", "NEP", "GPP", "RECO", "FC", "SC")

_UNITS = {
    **dict.fromkeys(_CARBON_FLUXES, "umol m-2 s-1"),
    **dict.fromkeys(("PPFD", "PPFD_IN", "PPFD_OUT", "PPFD_DIF", "PPFD_DIR", "APAR"), "umol m-2 s-1"),
    **dict.fromkeys(
        ("NETRAD", "SW", "LW", "LE", "H", "G", "SLE", "SH", "SG", "SB", "R_UVA", "R_UVB"), "W m-2"
    ),
    **dict.fromkeys(("TA", "TS", "T_SONIC", "T_CANOPY", "T_DP", "TBOLE", "TW"), "degC"),
    **dict.fromkeys(("RH", "SWC", "ALB", "FAPAR", "FIPAR", "LEAF_WET"), "percent"),
    **dict.fromkeys(("WS", "USTAR", "U_SIGMA", "V_SIGMA", "W_SIGMA"), "m s-1"),
    **dict.fromkeys(("MO_LENGTH", "WTD", "PBLH", "FETCH"), "m"),
    "WD": "degree",
    "WD_SIGMA": "degree",
    "D_SNOW": "cm",
    "VPD": "hPa",
    "PA": "kPa",
    "CO2": "umol mol-1",
    "H2O": "mmol mol-1",
    "CH4": "nmol mol-1",
    "FH2O": "mmol m-2 s-1",
    "FCH4": "nmol m-2 s-1",
    "TAU": "kg m-1 s-2",
    "LAI": "m2 m-2",
}
"""Units of half-hourly and hourly data by base name.

AmeriFlux, "Data Variables" (BASE), and FLUXNET2015 "FULLSET data product" (Pastorello et al. 2020, Sci. Data 7, 225).
"""

_AMOUNTS = ("P", "P_RAIN", "P_SNOW", "RUNOFF", "THROUGHFALL", "STEMFLOW")
"""Depths of water per interval, mm: a rate whose unit names the interval."""

_SYMBOLS = {
    "P": "precipitation",
    "TA": "temperature",
    "SW_IN": "shortwave",
    "LW_IN": "longwave",
    "PPFD_IN": "photosynthetic_photon_flux",
    "NETRAD": "net_radiation",
    "RH": "relative_humidity",
    "VPD": "vapour_pressure_deficit",
    "eair": "vapour_pressure",
    "PA": "pressure",
    "WS": "wind_speed",
    "WD": "wind_direction",
    "USTAR": "friction_velocity",
    "CO2": "carbon_dioxide",
    "D_SNOW": "snow_depth",
    "SWC": "soil_water_content",
    "TS": "soil_temperature",
    "LAI": "leaf_area_index",
    "veg_ht": "canopy_height",
    "Rsoil": "soil_respiration",
    "NEE": "net_ecosystem_exchange",
    "FC": "net_ecosystem_exchange",
    "GPP": "gross_primary_production",
    "LE": "latent_heat",
    "H": "sensible_heat",
    "G": "ground_heat",
}
"""Symbols of the catalogue of variables by base name."""

_PROCESSING = re.compile(r"\d+|A|F|PI|MDS|ERA|VUT|CUT|REF|NT|DT")
"""Words behind a base name that say how a value came about or where, but not that it is another quantity."""

CANVEG_UNITS = {"SWC": "m3 m-3", "eair": "kPa", "veg_ht": "m", "Rsoil": "umol m-2 s-1"}
"""Where the files distributed with JAX-CanVeg differ from FLUXNET, from which they are derived."""


def columns_named(name: str, columns: Iterable[str]) -> list[str]:
    """Return the columns that measure ``name``: itself if it is there, else all its positions in the file's order.

    ``SWC`` has the positions ``SWC_1_1_1`` and ``SWC_1_2_1``, but not ``SWC_F`` or ``SWC_1_1_1_QC``.
    """
    listed = list(columns)
    if name in listed:
        return [name]
    return [column for column in listed if _POSITION.sub("", column) == name]


def units_of(column: str, step: int) -> str:
    """Return the units of a column of an AmeriFlux or FLUXNET file; "1" for flags and names not in the conventions.

    Parameters
    ----------
    column
        Name in the file, such as ``TA_1_1_3`` or ``NEE_VUT_REF``.
    step
        Length of an interval, seconds. Daily files give carbon as mass per day.
    """
    words = column.split("_")
    if "QC" in words:
        return "1"
    for count in range(len(words), 0, -1):
        base = "_".join(words[:count])
        if base in _AMOUNTS:
            return "mm d-1" if step == 86_400 else f"mm ({step} s)-1"
        if base in _CARBON_FLUXES and step == 86_400:
            return "g m-2 d-1"
        if base in _UNITS:
            return _UNITS[base]
    return "1"


def symbol_of(column: str) -> str | None:
    """Return the catalogue's symbol of what a column measures; None where the catalogue has no such quantity.

    ``TA_F_MDS`` and ``TA_1_1_3`` are air temperature, but ``TA_F_QC`` is a flag and ``WS_MAX`` no mean.
    """
    words = column.split("_")
    for count in range(len(words), 0, -1):
        symbol = _SYMBOLS.get("_".join(words[:count]))
        if symbol is not None:
            return symbol if all(_PROCESSING.fullmatch(word) for word in words[count:]) else None
    return None


def columns_measuring(symbol: str, columns: Iterable[str]) -> list[str]:
    """Return the columns with a quantity of the catalogue: the gap-filled ones or, where there are none, the others.

    Of ``TA_F`` and ``TA_F_MDS`` the one with the shorter name is the product's final one.
    """
    found = [column for column in columns if symbol_of(column) == symbol]
    chosen = [column for column in found if "F" in column.split("_")] or found
    fewest = min((column.count("_") for column in chosen), default=0)
    return [column for column in chosen if column.count("_") == fewest]


def own_name(column: str) -> str:
    """Return a name in the form of a Standard Name for a column that measures nothing the catalogue has."""
    return f"flux-tower__column_{re.sub('[^A-Za-z0-9]+', '_', column).strip('_')}"
