"""Stomatal conductance of leaves in JAX: Ball-Berry, its hybrid with a network, and the optimal form of Medlyn."""
