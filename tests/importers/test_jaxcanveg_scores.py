"""An imported model simulates what it did where it was trained: its published scores come out again."""

import numpy as np
import pytest

from bmi_components.canveg.model import load_model
from bmi_components.canveg.tower import read_fluxes, read_forcing
from bmi_components.importers import import_jaxcanveg
from bmi_components.jax_precision import jax_precision

PUBLISHED = {
    "LE": "latent_heat",
    "NEE": "net_ecosystem_exchange",
    "H": "sensible_heat",
    "Rn": "net_radiation",
    "G": "soil_heat",
}


def test_the_published_scores_of_two_years_come_out_again(shared_data):
    tower = shared_data / "fluxtower" / "US-Bi1"
    bundle = import_jaxcanveg(shared_data / "checkpoints" / "jax_canveg" / "US-Bi1" / "Hybrid-ML-0.5")
    forcing = read_forcing(tower / "US-Bi1-forcings.csv.gz")
    observed = read_fluxes(tower / "US-Bi1-fluxes.csv.gz", interpolate_gaps=True)
    assert (
        len(forcing) == bundle.provenance["steps_of_training"]
    )  # the test files lack the period's last third
    with jax_precision("float64"):
        simulated, _ = load_model(bundle).simulate(
            type(forcing.forcing)(*(np.asarray(field)[:, None] for field in forcing.forcing))
        )
    for name, flux in PUBLISHED.items():
        errors = np.asarray(getattr(simulated, flux))[:, 0] - getattr(observed, flux)
        published = bundle.provenance["published_scores"][f"{name}-train"]["rmse"]
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(published, abs=5e-5), name
