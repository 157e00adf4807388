"""Variational data assimilation with a learned prior and a learned solver (4DVarNet, Fablet et al. 2021), in JAX."""
