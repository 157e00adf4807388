"""The canopy model CanVeg in JAX: leaves, air, soil and radiation of a canopy in layers, one module per process."""
