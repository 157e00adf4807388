"""A canopy of one line per flux with CanVeg's interface: what evaluation and sensitivity should find is known."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bmi_components.canveg.fluxes import Fluxes, Profiles, State
from bmi_components.canveg.forcing import Forcing
from bmi_components.canveg.options import Options, Site
from bmi_components.canveg.parameters import Parameters, default_parameters

SITE = Site(38.1, -121.5, -8.0, 0.8, 5.0)
MEMORY = 0.9
"""Share of the soil's temperature that a step keeps."""


class StandIn:
    """Latent heat grows with the conductance slope, carbon uptake with light; the soil remembers its temperature."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.options, self.site = Options(), SITE
        self.parameters = default_parameters() if parameters is None else parameters
        self.time_step = self.options.time_step
        self.dtype = jnp.asarray(self.parameters.clumping).dtype

    def initial_state(self, sites: int) -> State:
        return State(jnp.full((sites, 1), 290.0), jnp.zeros(sites))

    def simulate(
        self, forcing: Forcing, state: State | None = None, parameters: Any = None
    ) -> tuple[Fluxes, State]:
        sites = jnp.shape(forcing.shortwave)[1]
        state = self.initial_state(sites) if state is None else state
        return _simulate(self.parameters if parameters is None else parameters, forcing, state)


def _warm(soil: Any, air: Any) -> tuple[Any, Any]:
    soil = MEMORY * soil + (1.0 - MEMORY) * (air + 273.15)
    return soil, soil


@jax.jit
def _simulate(p: Parameters, forcing: Forcing, state: State) -> tuple[Fluxes, State]:
    last, soil = jax.lax.scan(_warm, state.temperature[:, 0], forcing.air_temperature)
    radiation = 0.8 * forcing.shortwave * p.leaf_emissivity - 60.0
    latent = 0.02 * p.conductance_slope**1.5 * forcing.shortwave * forcing.leaf_area_index
    ground = 2.0 * (soil - 290.0)
    uptake = 0.002 * p.maximum_carboxylation**0.5 * forcing.shortwave
    respiration = p.respiration_base * p.respiration_q10 ** ((soil - 283.15) / 10.0)
    nothing = jnp.zeros_like(latent)
    values = dict.fromkeys(Fluxes._fields, nothing) | {
        "latent_heat": latent,
        "sensible_heat": radiation - ground - latent,
        "net_radiation": radiation + nothing,
        "soil_heat": ground + nothing,
        "net_ecosystem_exchange": respiration - uptake,
        "gross_primary_production": uptake + nothing,
        "soil_respiration": respiration + nothing,
        "converged": nothing + 1.0,
        "profiles": Profiles(*(nothing[..., None] for _ in Profiles._fields)),
    }
    return Fluxes(**values), State(last[:, None], jnp.ones_like(state.started))
