"""Fluxes by networks and trees with the memory of past days: data path, models, training and component (after DLFM)."""
