"""`bmi-components evaluate`: score trained models on gauged catchments."""

from __future__ import annotations

import argparse
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from bmi_components.errors import ConfigurationError

if TYPE_CHECKING:
    from bmi_components.trained_model import TrainedModel

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score trained models on gauged catchments",
        description="Simulate a period with one or several trained models and write, for each, metrics.csv (a row per "
        "gauge), summary.json (medians) and figures: distribution and map of the NSE, hydrographs. With several "
        "models, nse_cdf.png and kge_cdf.png beside them compare all.",
    )
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="folder of a trained model")
    parser.add_argument(
        "data", type=Path, metavar="DATA", help="folder with timeseries.nc and attributes.csv"
    )
    parser.add_argument(
        "--period",
        metavar="FIRST..LAST",
        help="days to score, such as 1995-10-01..2010-09-30; absent: the test period of the model's recipe",
    )
    parser.add_argument(
        "--gauges",
        nargs="+",
        metavar="GAUGE",
        help="names of gauges, or 'held-out' for those that the model was not trained on; absent: all",
    )
    parser.add_argument(
        "--warm-up", type=int, default=365, metavar="DAYS", help="days before the period (365)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("output/evaluation"), metavar="DIR", help="where results go"
    )
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluate every bundle and print the medians."""
    from bmi_components.forcing.caravan import read_caravan
    from bmi_components.trained_model import TrainedModel
    from bmi_components.training.evaluation import evaluate, write_evaluation
    from bmi_components.training.models import load_model
    from bmi_components.training.plots import plot_skill_cdf

    if arguments.warm_up < 0:
        raise ConfigurationError(f"--warm-up is {arguments.warm_up}; a number of days from 0 on is needed")
    bundles = {_name(path): TrainedModel.load(path) for path in arguments.bundles}
    if len(bundles) < len(arguments.bundles):
        raise ConfigurationError(
            "two of the bundles have the same folder name; rename one to tell them apart"
        )
    scores = {}
    for name, bundle in bundles.items():
        model = load_model(bundle)
        dataset = read_caravan(arguments.data, model.forcing_names, model.attribute_names)
        if arguments.gauges is not None:
            dataset = dataset.select(dataset.positions(_gauges(arguments.gauges, bundle, name)))
        evaluation = evaluate(model, dataset, _period(arguments.period, bundle, name), arguments.warm_up)
        folder = arguments.out / name if len(bundles) > 1 else arguments.out
        write_evaluation(evaluation, folder, name)
        scores[name] = evaluation.metrics
        medians = evaluation.medians()
        print(
            f"{name}: {dataset.size} gauges, median NSE {medians['nse']:.3f}, KGE {medians['kge']:.3f}, "
            f"percent bias {medians['pbias']:+.1f}, low flows {medians['flv']:+.1f} %, "
            f"high flows {medians['fhv']:+.1f} % -> {folder}"
        )
    if len(bundles) > 1:
        for metric in ("nse", "kge"):
            plot_skill_cdf(
                arguments.out / f"{metric}_cdf.png",
                {name: metrics[metric] for name, metrics in scores.items()},
                metric.upper(),
            )
    return 0


def _name(path: Path) -> str:
    """Name of a bundle: its folder, or for a run's own "bundle" folder that of the run."""
    resolved = path.resolve()
    return resolved.parent.name if resolved.name == "bundle" else resolved.name


def _period(text: str | None, bundle: TrainedModel, name: str) -> tuple[str, str]:
    """Period as asked for, or the one that the bundle was made to be tested on."""
    if text is None:
        period = bundle.provenance.get("test_period")
        if period is None:
            raise ConfigurationError(f"{name}: the bundle records no test period; give --period FIRST..LAST")
        return str(period[0]), str(period[1])
    first, _, last = text.partition("..")
    try:
        return date.fromisoformat(first).isoformat(), date.fromisoformat(last).isoformat()
    except ValueError as error:
        raise ConfigurationError(
            f"--period is {text!r}; FIRST..LAST such as 1995-10-01..2010-09-30 is needed"
        ) from error


def _gauges(wanted: list[str], bundle: TrainedModel, name: str) -> list[str]:
    """Gauges as asked for, or those that training left out."""
    if wanted != ["held-out"]:
        return wanted
    held_out = bundle.provenance.get("trained_on", {}).get("held_out_gauges", [])
    if not held_out:
        raise ConfigurationError(f"{name}: no gauges were held out when this model was trained")
    return [str(gauge) for gauge in held_out]
