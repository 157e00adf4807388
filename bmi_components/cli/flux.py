"""`bmi-components flux`: train, tune, compare and explain models of daily carbon fluxes at flux towers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bmi_components.lstm.flux.runs import Run

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its own subcommands to the command line."""
    parser = subparsers.add_parser(
        "flux",
        help="train and judge models of carbon fluxes at flux towers",
        description="Daily net ecosystem exchange from a window of days at flux towers. After Control-C or a kill the "
        "same command goes on where it stopped; what one command has fitted serves the others.",
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    for name, summary, description in (
        (
            "train",
            "choose, fit and judge a model",
            "Cross-validate the candidates if there are several, fit the best one several times and judge it on the "
            "years kept for evaluation. Writes tables, figures and bundle/, which the FluxLSTM component takes.",
        ),
        ("tune", "only cross-validate the candidates", "Cross-validate the candidates of the recipe's grid."),
        (
            "importance",
            "how much the past matters",
            "Skill by sequence length on the same prediction days, and the variance of the prediction's slope by input "
            "and lag on evaluation data.",
        ),
        (
            "compare",
            "models and climatology on years not seen",
            "Predict every year, or month, by the models under the recipe's 'compare' and by the day-of-year "
            "climatology, none of which has seen it.",
        ),
    ):
        task = tasks.add_parser(name, help=summary, description=description)
        task.add_argument(
            "recipe", type=Path, metavar="RECIPE.yaml", help="which towers, which model, and how"
        )
        task.add_argument(
            "--output", type=Path, metavar="DIR", help="the run's folder, instead of the recipe's"
        )
        task.add_argument("--quiet", action="store_true", help="show no progress bar")
        if name == "importance":
            task.add_argument(
                "--only", choices=("sequence", "variables"), help="one of the two kinds of importance"
            )
        task.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the task; return 0 when it is complete and 130 when it was interrupted."""
    import msgspec

    from bmi_components.lstm.flux.recipe import load_recipe
    from bmi_components.lstm.flux.runs import Run
    from bmi_components.lstm.flux.training import Interrupted
    from bmi_components.training.interrupts import gentle_interrupts

    recipe = load_recipe(arguments.recipe)
    if arguments.output is not None:
        recipe = msgspec.structs.replace(recipe, output=str(arguments.output))
    tasks: dict[str, Callable[[Run, argparse.Namespace], str]] = {
        "train": _train,
        "tune": _tune,
        "importance": _importance,
        "compare": _compare,
    }
    with gentle_interrupts() as interrupts:
        one = Run(recipe, progress=not arguments.quiet, interrupts=interrupts)
        for tower in one.towers:
            for note in tower.notes:
                print(f"note: {note}", file=sys.stderr)
        try:
            with one:
                text = tasks[arguments.task](one, arguments)
        except Interrupted:
            print("stopped; the same command goes on from there", file=sys.stderr)
            return 130
    print(text)
    print(f"written to {one.folder}")
    return 0


def _train(run: Run, arguments: argparse.Namespace) -> str:
    from bmi_components.lstm.flux.evaluation import train_test_eval
    from bmi_components.lstm.flux.results import write_training

    return write_training(run, train_test_eval(run))


def _tune(run: Run, arguments: argparse.Namespace) -> str:
    from bmi_components.lstm.flux.results import write_tuning
    from bmi_components.lstm.flux.tuning import tune

    return write_tuning(run, tune(run))


def _importance(run: Run, arguments: argparse.Namespace) -> str:
    from bmi_components.lstm.flux.evaluation import train_test_eval
    from bmi_components.lstm.flux.importance import sequence_importance, variable_importance
    from bmi_components.lstm.flux.models import load_model
    from bmi_components.lstm.flux.results import write_importance

    judged = train_test_eval(run)
    sequence = variable = None
    if arguments.only != "sequence":
        variable = variable_importance(load_model(judged.bundle), judged.evaluation)
    if arguments.only != "variables":
        sequence = sequence_importance(run, judged.settings)
    write_importance(run, sequence, variable)
    return "importance of the past: sequence_importance*, variable_importance*"


def _compare(run: Run, arguments: argparse.Namespace) -> str:
    from bmi_components.lstm.flux.comparison import compare
    from bmi_components.lstm.flux.results import write_comparison

    return write_comparison(run, compare(run))
