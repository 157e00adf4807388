"""`bmi-components fourdvarnet`: train a 4DVarNet as a recipe says, and compare it with other assimilation methods."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its own subcommands to the command line."""
    parser = subparsers.add_parser(
        "fourdvarnet",
        help="train and judge a learned variational assimilation",
        description="4DVarNet: a learned prior and a learned solver that turn windows of observations into analyses.",
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    train = tasks.add_parser(
        "train",
        help="train a model",
        description="Train as a recipe says. Control-C saves and stops; --resume goes on from there, and after a kill "
        "from the last checkpoint. Writes bundle/, which the FourDVarNet component takes.",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    evaluate = tasks.add_parser(
        "evaluate",
        help="compare a trained model with other methods",
        description="Analyse the recipe's test windows with the model and, the first of them, by linear interpolation, "
        "gradient descent, an ensemble Kalman smoother and strong-constraint 4DVar. Writes scores and figures.",
    )
    evaluate.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="the trained model, instead of the one in the run's folder",
    )
    for task in (train, evaluate):
        task.add_argument(
            "recipe",
            type=Path,
            metavar="RECIPE.yaml",
            help="which system, how observed, which model, and how it learns",
        )
        task.add_argument(
            "--output", type=Path, metavar="DIR", help="the run's folder, instead of the recipe's"
        )
        task.add_argument("--quiet", action="store_true", help="show no progress bar")
        task.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the task; return 0 when it is complete and 130 when it was interrupted."""
    import msgspec

    from bmi_components.fourdvarnet.recipe import load_recipe

    recipe = load_recipe(arguments.recipe)
    if arguments.output is not None:
        recipe = msgspec.structs.replace(recipe, output=str(arguments.output))
    progress = not arguments.quiet
    if arguments.task == "train":
        from bmi_components.fourdvarnet.training import BUNDLE, Trainer

        trainer = Trainer(recipe)
        if not trainer.run(resume=arguments.resume, progress=progress):
            print(
                f"stopped after iteration {trainer.iteration} of {recipe.training.iterations}; "
                "--resume goes on from there",
                file=sys.stderr,
            )
            return 130
        print(f"trained model: {trainer.folder / BUNDLE}")
        return 0
    from bmi_components.fourdvarnet.evaluation import compare, markdown, write_comparison
    from bmi_components.fourdvarnet.model import load_model

    folder = Path(recipe.output)
    comparison = compare(recipe, load_model(arguments.bundle or folder / "bundle"), progress=progress)
    write_comparison(comparison, folder / "evaluation")
    print(markdown(comparison))
    print(f"written to {folder / 'evaluation'}")
    return 0
