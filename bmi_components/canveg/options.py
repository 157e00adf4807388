"""What is chosen once for a canopy model: its site, its layers, its forms of each process and the published quirks."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

__all__ = ["CORRECTED", "REFERENCE", "Mode", "Options", "Quirks", "Site"]

Array = Any

Mode = Literal["corrected", "reference"]


class Site(NamedTuple):
    """Where the canopy stands, scalars or one value per site.

    Attributes
    ----------
    latitude, longitude
        degrees, north and east.
    time_zone
        Hours ahead of UTC of the forcing's clock.
    canopy_height, measurement_height
        m.
    soil_depth
        Depth at which the forcing gives the soil temperature, m.
    """

    latitude: Array
    longitude: Array
    time_zone: Array
    canopy_height: Array
    measurement_height: Array
    soil_depth: Array = 0.15


class Quirks(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Properties of the published model (Jiang et al. 2025) that are physically or numerically wrong; True keeps one.

    Each can be switched for itself; ``mode: reference`` keeps all and ``mode: corrected`` none.
    """

    rounded_constants: Annotated[
        bool, Meta(description="Pi has six digits in the sun's and the leaves' angles and the cubic's roots.")
    ] = False
    sun_at_the_end: Annotated[
        bool,
        Meta(
            description="The sun stands where it does at the end of a step, half a step later than the light measured "
            "in it."
        ),
    ] = False
    frozen_latent_heat: Annotated[
        bool, Meta(description="Below 273 K the latent heat grows by 333 J kg-1 where 333,000 was meant.")
    ] = False
    visible_light_in_near_infrared: Annotated[
        bool, Meta(description="Scattered near infrared of the sky is computed from direct visible light.")
    ] = False
    light_lost_at_dusk: Annotated[
        bool,
        Meta(
            description="Light measured in a half-hour at whose end the sun is below the horizon is dropped."
        ),
    ] = False
    single_shortwave_sweep: Annotated[
        bool,
        Meta(
            description="PAR and near infrared are swept through the canopy once: reflected light never leaves a "
            "canopy of many layers, the albedo is near zero and up to 130 W m-2 are lost."
        ),
    ] = False
    inconsistent_leaf_balance: Annotated[
        bool,
        Meta(
            description="Latent heat and temperature of a leaf come from different linearisations (and, for leaves "
            "with stomata on both sides, one whose units do not agree), so that its energy is not closed."
        ),
    ] = False
    switched_limitation: Annotated[
        bool,
        Meta(
            description="Whether Rubisco or light limits is decided at 0.7 of the air's CO2, so that assimilation "
            "jumps; roots of the cubic are clipped."
        ),
    ] = False
    double_dark_respiration: Annotated[
        bool, Meta(description="Dark respiration is taken from assimilation that is net of it already.")
    ] = False
    missing_dark_respiration: Annotated[
        bool, Meta(description="Leaves' dark respiration is missing from the net ecosystem exchange.")
    ] = False
    tied_dark_respiration: Annotated[
        bool,
        Meta(
            description="Dark respiration follows from the carboxylation capacity; its own parameter, which training "
            "is told to adjust, counts for nothing."
        ),
    ] = False
    cold_oxygen_kinetics: Annotated[
        bool, Meta(description="The Michaelis constant of O2 does not depend on temperature.")
    ] = False
    co2_by_mass: Annotated[
        bool, Meta(description="The drawdown of CO2 in the canopy is 44/28.97 times too large.")
    ] = False
    neutral_soil_source: Annotated[
        bool,
        Meta(
            description="What the soil gives off is dispersed as in neutral air, unlike what leaves give off."
        ),
    ] = False
    folded_soil_stability: Annotated[
        bool, Meta(description="The stability factor of the soil's transfer folds back in very stable air.")
    ] = False
    poor_soil_conductivity: Annotated[
        bool, Meta(description="Water conducts heat as 0.25 (0.57 is right), organic matter as minerals.")
    ] = False
    forgetful_soil: Annotated[
        bool,
        Meta(
            description="The soil profile starts anew at each step and relaxes for 7.5 hours: no memory; its heat "
            "balance mixes temperatures of three heights and does not close."
        ),
    ] = False
    fixed_iterations: Annotated[
        bool, Meta(description="The coupled solution is left after a fixed number of relaxed iterations.")
    ] = False


CORRECTED = Quirks()
REFERENCE = Quirks(**dict.fromkeys(Quirks.__struct_fields__, True))


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Forms of the processes, numbers of layers and numerics: all that a compiled model depends on."""

    mode: Annotated[
        Mode,
        Meta(
            description="The mended model (corrected) or the published one with all its quirks (reference)."
        ),
    ] = "corrected"
    quirks: Annotated[
        Quirks | None, Meta(description="Single quirks instead of the mode's; only for comparisons.")
    ] = None
    layers: Annotated[int, Meta(ge=1, description="Layers of the canopy.")] = 50
    atmosphere_layers: Annotated[int, Meta(ge=1, description="Layers of air above the canopy.")] = 50
    soil_layers: Annotated[int, Meta(ge=3, description="Layers of the soil.")] = 10
    stomata: Annotated[
        Literal["hypostomatous", "amphistomatous"],
        Meta(description="Stomata on the lower side of leaves only, or on both."),
    ] = "hypostomatous"
    leaf_angles: Annotated[
        Literal["planophile", "spherical", "erectophile", "plagiophile", "extremophile", "uniform"],
        Meta(description="Distribution of the leaves' inclinations (de Wit 1965)."),
    ] = "spherical"
    conductance: Annotated[
        Literal["ball_berry", "hybrid", "medlyn"],
        Meta(
            description="Stomatal conductance by relative humidity (ball_berry), by a network of soil moisture and "
            "humidity in its place (hybrid), or by vapour pressure deficit (medlyn)."
        ),
    ] = "ball_berry"
    soil_respiration: Annotated[
        Literal["q10", "alfalfa", "network"],
        Meta(description="By temperature and moisture (q10), a fit to an alfalfa field, or a network."),
    ] = "q10"
    iterations: Annotated[
        int,
        Meta(
            ge=1, description="Iterations of the reference mode; at most as many in the corrected mode: 60."
        ),
    ] = 15
    time_step: Annotated[float, Meta(gt=0.0, description="s; 1800 or 3600.")] = 1800.0

    def kept(self) -> Quirks:
        """Return the quirks that are kept."""
        if self.quirks is not None:
            return self.quirks
        return REFERENCE if self.mode == "reference" else CORRECTED
