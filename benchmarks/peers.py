"""Throw-away environments with the peers, outside the repository and its dependencies; nothing of theirs is copied.

Run ``python benchmarks/peers.py hbv`` or ``lstm`` to make one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

__all__ = ["HBV", "LSTM", "Environment"]

TORCH = ("torch==2.13.0",)


@dataclass(frozen=True)
class Environment:
    """An environment and what is installed there.

    Attributes
    ----------
    name
        Of its folder.
    installed
        Arguments of ``pip install``, one call after the other.
    probe
        Code that runs there if the peers can be imported.
    otherwise
        What a user can do where pip cannot install something.
    """

    name: str
    installed: tuple[tuple[str, ...], ...]
    probe: str
    otherwise: str = ""

    def default_folder(self) -> Path:
        """Return where the environment lies unless told otherwise."""
        cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        return Path(cache) / "bmi_components_peers" / self.name

    def interpreter(self, folder: Path) -> Path | None:
        """Return the environment's Python if the peers can be imported there."""
        python = folder / "bin" / "python"
        if not python.exists():
            return None
        silent = os.environ | {"NGEN_SILENT": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            [python, "-c", self.probe], env=silent, stdin=subprocess.DEVNULL, capture_output=True
        )
        return python if done.returncode == 0 else None

    def create(self, folder: Path) -> Path:
        """Make the environment, or complete one that was begun, and return its Python.

        Raises
        ------
        RuntimeError
            If the peers cannot be installed.
        """
        found = self.interpreter(folder)
        if found is not None:
            return found
        print(f"Making the peers' environment in {folder}; the first time takes minutes.", file=sys.stderr)
        python = folder / "bin" / "python"
        if not python.exists():
            venv.create(folder, with_pip=True)
        for arguments in self.installed:
            done = subprocess.run([python, "-m", "pip", "install", "--quiet", *arguments], stdout=sys.stderr)
            if done.returncode != 0:
                raise RuntimeError(
                    f"pip could not install {' '.join(arguments)} into {folder}{self.otherwise}"
                )
        found = self.interpreter(folder)
        if found is None:
            raise RuntimeError(f"the peers were installed into {folder} but cannot be imported")
        return found


HBV = Environment(
    name="hbv",
    installed=(
        TORCH,
        # What they import; what they only declare (hydra, ipykernel) is left out.
        (
            *("numpy", "platformdirs", "tqdm", "pandas", "matplotlib", "scipy", "scikit-learn", "geopandas"),
            *("pydantic", "omegaconf", "pyyaml", "xarray", "zarr"),
        ),
        ("--no-deps", "hydrodl2==1.4.0", "dmg==1.5.0", "pykan"),
    ),
    probe="import hydrodl2; from dmg.models.delta_models import DplModel",
)
"""dmg and hydrodl2, whose licences are for non-commercial use."""

LSTM = Environment(
    name="lstm",
    installed=(
        TORCH,
        ("numpy", "pandas", "pyyaml", "bmipy"),
        # Its own list of requirements names a package that is not the one it imports.
        ("--no-deps", "git+https://github.com/NOAA-OWP/lstm@b6fdbfb"),
    ),
    probe="from lstm.bmi_lstm import EnsembleMember, bmi_LSTM",
    otherwise=" (from a clone of that repository, its folder lstm can also be copied among the site-packages there)",
)
"""NOAA-OWP/lstm 1.1.0, the LSTM of NextGen: a work of the US Government under the text of the Apache licence 2.0."""


def main() -> None:
    known = {environment.name: environment for environment in (HBV, LSTM)}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=known)
    parser.add_argument("--folder", type=Path, help="where; in the user's cache unless given")
    arguments = parser.parse_args()
    environment = known[arguments.benchmark]
    try:
        print(environment.create(arguments.folder or environment.default_folder()))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
