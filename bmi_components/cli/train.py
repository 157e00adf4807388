"""`bmi-components train`: train a model as a recipe says, or go on where a run stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line."""
    parser = subparsers.add_parser(
        "train",
        help="train a model on gauged catchments",
        description="Train a model as a recipe says. Control-C saves and stops; --resume goes on from there, "
        "and after a kill from the last checkpoint.",
    )
    parser.add_argument(
        "recipe", type=Path, metavar="RECIPE.yaml", help="what to train, on which data, and how"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="the run's folder, instead of the recipe's"
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Train; return 0 when the run is complete and 130 when it was interrupted."""
    import msgspec

    from bmi_components.training.recipe import load_recipe
    from bmi_components.training.trainer import BUNDLE, Trainer

    recipe = load_recipe(arguments.recipe)
    if arguments.output is not None:
        recipe = msgspec.structs.replace(recipe, output=str(arguments.output))
    trainer = Trainer(recipe)
    if not trainer.run(resume=arguments.resume, progress=not arguments.quiet):
        print(
            f"stopped after iteration {trainer.iteration} of {recipe.iterations}; --resume goes on from there",
            file=sys.stderr,
        )
        return 130
    print(f"trained model: {trainer.folder / BUNDLE}")
    return 0
