"""NextGen from a hydrofabric to a run: realizations written, checked and run in one process without ngen."""
