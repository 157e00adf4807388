"""The command line: ``bmi-components run | train | evaluate | import | flux | canveg | ...``, one module each."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from bmi_components import __version__
from bmi_components.errors import BmiComponentsError

__all__ = ["main"]

_SUBCOMMANDS = {
    "run": "run",
    "train": "train",
    "evaluate": "evaluate",
    "import": "import_",
    "flux": "flux",
    "fourdvarnet": "fourdvarnet",
    "canveg": "canveg",
    "nextgen": "nextgen",
}
"""Subcommand and the module of this package that adds it; none of them loads a framework before it runs."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 2 for a user's mistake, 130 after Control-C."""
    parser = argparse.ArgumentParser(
        prog="bmi-components",
        description="Differentiable hydrology and land-surface models as BMI components.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in _SUBCOMMANDS.values():
        importlib.import_module(f"bmi_components.cli.{module}").add_parser(subparsers)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.func(chosen))
    except BmiComponentsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
