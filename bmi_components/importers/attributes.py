"""Units of the catchment attributes that published models are trained with."""

__all__ = ["ATTRIBUTE_UNITS"]

ATTRIBUTE_UNITS = {
    # CAMELS (Addor et al. 2017)
    **dict.fromkeys(("p_mean", "pet_mean"), "mm d-1"),
    **dict.fromkeys(("high_prec_freq", "low_prec_freq"), "d yr-1"),
    **dict.fromkeys(("high_prec_dur", "low_prec_dur"), "d"),
    **dict.fromkeys(("p_seasonality", "frac_snow", "frac_forest", "lai_max", "lai_diff", "gvf_max"), "1"),
    **dict.fromkeys(("gvf_diff", "dom_land_cover_frac", "dom_land_cover", "soil_porosity"), "1"),
    **dict.fromkeys(("geol_1st_class", "glim_1st_class_frac", "geol_2nd_class", "glim_2nd_class_frac"), "1"),
    **dict.fromkeys(("carbonate_rocks_frac", "geol_porosity", "geol_permeability", "aridity"), "1"),
    **dict.fromkeys(("elev_mean", "root_depth_50", "soil_depth_pelletier", "soil_depth_statsgo"), "m"),
    **dict.fromkeys(("sand_frac", "silt_frac", "clay_frac"), "percent"),
    "slope_mean": "m km-1",
    "area_gages2": "km2",
    "soil_conductivity": "cm h-1",
    "max_water_content": "m",
    # MERIT unit basins and the NextGen hydrofabric (Song et al. 2025); permeability is log10 of m2
    **dict.fromkeys(("meanP", "ETPOT_Hargr"), "mm yr-1"),
    **dict.fromkeys(("NDVI", "FW", "glaciers", "permafrost", "permeability", "Porosity"), "1"),
    **dict.fromkeys(("seasonality_P", "seasonality_PET", "snow_fraction", "snowfall_fraction"), "1"),
    **dict.fromkeys((f"SoilGrids1km_{part}" for part in ("sand", "clay", "silt")), "percent"),
    **dict.fromkeys((f"HWSD_{part}" for part in ("clay", "gravel", "sand", "silt")), "percent"),
    **dict.fromkeys((f"T_{part}" for part in ("clay", "gravel", "sand", "silt")), "percent"),
    **dict.fromkeys(("uparea", "catchsize"), "km2"),
    "meanslope": "degree",
    "meanelevation": "m",
    "meanTa": "degC",
    "lengthkm": "km",
}
"""Units of the attributes that published models use."""
