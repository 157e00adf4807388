"""A throw-away environment with the peers, dmg 1.5.0 and hydrodl2 1.4.0, outside the repository and its dependencies.

Run ``python benchmarks/peers.py`` to make it. Their licences are for non-commercial use; nothing of theirs is copied.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

PEERS = ("hydrodl2==1.4.0", "dmg==1.5.0")
REQUIREMENTS = (
    *("numpy", "platformdirs", "tqdm", "pandas", "matplotlib", "scipy", "scikit-learn", "geopandas"),
    *("pydantic", "omegaconf", "pyyaml", "xarray", "zarr"),
)
"""What they import; what they only declare (hydra, ipykernel) is left out."""
WITHOUT_REQUIREMENTS = (*PEERS, "pykan")


def default_folder() -> Path:
    """Return where the environment lies unless told otherwise."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "bmi_components_peers"


def interpreter(folder: Path) -> Path | None:
    """Return the environment's Python if the peers can be imported there."""
    python = folder / "bin" / "python"
    if not python.exists():
        return None
    code = "import hydrodl2; from dmg.models.delta_models import DplModel"
    silent = os.environ | {"NGEN_SILENT": "1", "PYTHONPATH": ""}
    done = subprocess.run([python, "-c", code], env=silent, stdin=subprocess.DEVNULL, capture_output=True)
    return python if done.returncode == 0 else None


def create(folder: Path) -> Path:
    """Make the environment, or complete one that was begun, and return its Python.

    Raises
    ------
    RuntimeError
        If the peers cannot be installed.
    """
    found = interpreter(folder)
    if found is not None:
        return found
    print(f"Making the peers' environment in {folder}; the first time takes minutes.", file=sys.stderr)
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    for arguments in (("torch==2.13.0",), REQUIREMENTS, ("--no-deps", *WITHOUT_REQUIREMENTS)):
        done = subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], stdout=sys.stderr)
        if done.returncode != 0:
            raise RuntimeError(f"pip could not install {' '.join(arguments)} into {folder}")
    found = interpreter(folder)
    if found is None:
        raise RuntimeError(f"the peers were installed into {folder} but cannot be imported")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=default_folder(), help="default: %(default)s")
    print(create(parser.parse_args().folder))


if __name__ == "__main__":
    main()
