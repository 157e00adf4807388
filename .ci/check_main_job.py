"""Look at what the README's first command left in a folder: CF netCDF with water in it, and a hydrograph."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import xarray

STREAMFLOW = "channel_exit_water_x-section__volume_flow_rate"
YEARS = 3
CATCHMENTS = 2
PIXELS = 800


def standing_for(dataset: xarray.Dataset, name: str) -> xarray.DataArray:
    """Return the variable that a CSDMS Standard Name stands for, under that name or as an attribute."""
    found = [v for key, v in dataset.data_vars.items() if name in (key, *v.attrs.values())]
    assert len(found) == 1, f"{len(found)} variables stand for {name}; there are {list(dataset.data_vars)}"
    return found[0]


def main(folder: Path) -> None:
    """Check; an AssertionError says what is wrong."""
    written = [path for path in folder.rglob("*") if path.is_file() and "configs" not in path.parts]
    (results,) = [path for path in written if path.suffix == ".nc"]
    with xarray.open_dataset(results) as dataset:
        assert dataset.attrs["Conventions"].startswith("CF-"), dataset.attrs
        streamflow = standing_for(dataset, STREAMFLOW)
        catchments = streamflow.size // dataset.sizes["time"]
        days = np.ptp(dataset["time"].values) / np.timedelta64(1, "D")
        assert days >= YEARS * 365 - 1, f"{days} days are less than {YEARS} years"
        assert catchments >= CATCHMENTS, f"{catchments} catchments"
        assert bool(np.isfinite(streamflow).all() & (streamflow >= 0).all() & (streamflow.max() > 0))
        bounds = dataset["time"].encoding.get("bounds", dataset["time"].attrs.get("bounds"))
        for variable in dataset.data_vars.values():
            assert (
                variable.name == bounds
                or variable.ndim == 0
                or "units" in variable.attrs
                or variable.dtype.kind in "OSU"
            ), variable.name
    pictures = [path for path in written if path.suffix == ".png"]
    assert pictures, "no hydrograph"
    for picture in pictures:
        header = picture.read_bytes()[:24]
        width, height = struct.unpack(">II", header[16:24])
        assert header.startswith(b"\x89PNG")
        assert width >= PIXELS
        assert height >= PIXELS // 2
    print(f"{results.name}: {catchments} catchments, {days:.0f} days; {', '.join(p.name for p in pictures)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
