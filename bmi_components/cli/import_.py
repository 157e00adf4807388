"""``bmi-components import``: turn another project's trained model into a bundle."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bmi_components.trained_model import TrainedModel

__all__ = ["add_parser", "run"]

FORMATS = {
    "deltamg": "δMG model folder: a .pt checkpoint, normalization_statistics.json and config.yaml",
    "jaxcanveg": "JAX-CanVeg folder: an .eqx file and configs.json",
    "neuralhydrology": "neuralhydrology run folder: model_epoch*.pt, train_data and config.yml",
}
"""What can be imported."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("import", help="turn another project's trained model into a bundle")
    formats = parser.add_subparsers(dest="format", metavar="FORMAT", required=True)
    for name, source in FORMATS.items():
        one = formats.add_parser(name, help=source, description=f"Import a {source}.")
        one.add_argument("source", metavar="FOLDER", type=Path, help=source)
        one.add_argument("bundle", metavar="BUNDLE", type=Path, help="folder of the bundle to be written")
        one.add_argument("--licence", help="licence of the weights, as their authors state it")
        one.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
        one.set_defaults(func=run)
        if name == "neuralhydrology":
            _add_options_of_runs(one)


def _add_options_of_runs(parser: argparse.ArgumentParser) -> None:
    """Add what a neuralhydrology run folder may leave open."""
    parser.add_argument("--epoch", type=int, help="epoch of the weights (default: the highest)")
    parser.add_argument("--target", help="target variable, of several (default: the first)")
    parser.add_argument("--time-step", type=float, metavar="SECONDS", help="length of a step")
    for option, value in (("units", "UNITS"), ("quantity", "VARIABLE")):
        parser.add_argument(
            f"--{option}",
            action="append",
            default=[],
            type=_pair,
            metavar=f"NAME={value}",
            help=f"{option} of an input{', attribute or target' if option == 'units' else ''}; may be repeated",
        )


def _pair(text: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE")
    return name, value


def run(arguments: argparse.Namespace) -> int:
    """Import one model and print what was found.

    Raises
    ------
    BundleError
        If the source cannot be used or the bundle cannot be written.
    """
    from bmi_components.importers import import_deltamg, import_jaxcanveg, import_neuralhydrology

    if arguments.format == "neuralhydrology":
        model = import_neuralhydrology(
            arguments.source,
            epoch=arguments.epoch,
            target=arguments.target,
            units=dict(arguments.units),
            quantities=dict(arguments.quantity),
            time_step=arguments.time_step,
        )
    elif arguments.format == "jaxcanveg":
        model = import_jaxcanveg(arguments.source)
    else:
        model = import_deltamg(arguments.source)
    if arguments.licence:
        model = replace(model, licence=arguments.licence)
    card = _card(model, arguments.source)
    folder = model.save(arguments.bundle, card=card, overwrite=arguments.overwrite)
    print(card)
    print(f"Written to {folder}")
    return 0


def _card(model: TrainedModel, source: Path) -> str:
    """Describe an imported model in Markdown."""
    count = sum(array.size for array in model.weights.values())
    lines = [
        f"# {source.name}",
        "",
        f"A {model.kind} model, imported from a {model.provenance['imported_from']}.",
        "",
    ]
    facts = {
        "checkpoint": f"{model.provenance['checkpoint']} (epoch {model.provenance['epoch']})",
        "time step": f"{model.time_step:g} s",
        "inputs": ", ".join(f"{quantity.name} [{quantity.units}]" for quantity in model.inputs),
        "attributes": ", ".join(quantity.name for quantity in model.attributes),
        "weights": f"{count:,} numbers",
        "licence": model.licence,
        **{key.replace("_", " "): value for key, value in model.hyperparameters.items()},
    }
    lines += [f"- {key}: {value}" for key, value in facts.items()]
    if model.provenance["attributes_of_unknown_units"]:
        unknown = ", ".join(model.provenance["attributes_of_unknown_units"])
        lines += [
            "",
            f"The units of these attributes are not known, and are those of the training data: {unknown}.",
        ]
    return "\n".join(lines)
