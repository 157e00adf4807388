"""Training and evaluation of the package's models on gauged catchments."""
