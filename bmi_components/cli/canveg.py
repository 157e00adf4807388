"""`bmi-components canveg`: train a canopy model at flux towers, judge it, and see what its fluxes depend on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bmi_components.errors import ConfigurationError

if TYPE_CHECKING:
    from bmi_components.canveg.model import CanVeg
    from bmi_components.canveg.tower import TowerFluxes, TowerForcing

__all__ = ["add_parser", "run"]

_MODEL = "bundle, run folder with one, or folder (or .eqx file) of JAX-CanVeg"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its own subcommands to the command line."""
    parser = subparsers.add_parser(
        "canveg",
        help="train and judge canopy models at flux towers",
        description="CanVeg: exchange of water, heat and carbon between a canopy of many layers and the air.",
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    train = tasks.add_parser(
        "train",
        help="train a model",
        description="Train as a recipe says, or a JSON configuration of JAX-CanVeg. Control-C saves and stops; "
        "--resume goes on from there, and after a kill from the last checkpoint. Writes bundle/, which the CanVeg "
        "component takes.",
    )
    train.add_argument(
        "recipe",
        type=Path,
        metavar="RECIPE",
        help="YAML recipe, or JSON configuration: towers, model, and how",
    )
    train.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    train.add_argument("--output", type=Path, metavar="DIR", help="the run's folder, instead of the recipe's")
    evaluate = tasks.add_parser(
        "evaluate",
        help="compare simulated with observed fluxes",
        description="Simulate a tower with one or several models and score latent, sensible and soil heat, net "
        "radiation and net ecosystem exchange over observed steps: RMSE, NSE, KGE, squared correlation and bias, also "
        "by day and night and over dry and wet soil. Writes tables, series and figures.",
    )
    evaluate.add_argument("models", type=Path, nargs="+", metavar="MODEL", help=_MODEL)
    evaluate.add_argument("--fluxes", type=Path, metavar="FILE", help="csv file of observed fluxes")
    evaluate.add_argument(
        "--as-published",
        action="store_true",
        help="bridge gaps in observations by straight lines, as the published scores do",
    )
    evaluate.add_argument(
        "--blocks",
        metavar="NAME=DAYS,...",
        help="lengths of blocks of days that take turns, such as train=10,validation=3,test=5; judged is 'test'",
    )
    evaluate.add_argument("--gap", type=float, default=1.0, metavar="DAYS", help="between blocks (1)")
    sensitivity = tasks.add_parser(
        "sensitivity",
        help="what fluxes depend on",
        description="Exact derivatives and elasticities of mean fluxes to every parameter and forcing, and with "
        "--sobol Sobol indices over the parameters' bounds. Writes tables and figures.",
    )
    sensitivity.add_argument("model", type=Path, metavar="MODEL", help=_MODEL)
    sensitivity.add_argument(
        "--by-step",
        action="store_true",
        help="also of latent heat and NEE of each step to the trained parameters",
    )
    sensitivity.add_argument(
        "--sobol",
        type=int,
        metavar="SAMPLES",
        help="base samples of Sobol indices, a power of two (needs SALib)",
    )
    sensitivity.add_argument(
        "--sobol-days",
        type=int,
        default=1,
        metavar="DAYS",
        help="days, the first of the period, that they see (1)",
    )
    for task in (evaluate, sensitivity):
        task.add_argument("--forcing", type=Path, metavar="FILE", help="csv file of a tower's forcing")
        task.add_argument(
            "--config",
            type=Path,
            metavar="FILE",
            help="what names the files: a recipe, whose test is judged, or a JSON configuration of JAX-CanVeg; absent: "
            "the configuration beside a published model",
        )
        task.add_argument(
            "--part",
            choices=("test", "training"),
            default="test",
            help="of the configuration (test)",
        )
        task.add_argument(
            "--data",
            type=Path,
            metavar="DIR",
            help="folder in which the configuration's files are looked for too",
        )
        task.add_argument(
            "--period", metavar="FIRST..LAST", help="days, such as 2020-07-01..2020-07-31; absent: all"
        )
        task.add_argument(
            "--mode",
            choices=("corrected", "reference", "both") if task is evaluate else ("corrected", "reference"),
            help="run the parameters in this mode of the model; absent: in the model's own",
        )
        task.add_argument(
            "--dtype", choices=("float32", "float64"), default="float64", help="precision (float64)"
        )
        task.add_argument(
            "--out",
            type=Path,
            metavar="DIR",
            help=f"where results go (output/canveg_{task.prog.split()[-1]})",
        )
    for task in (train, evaluate, sensitivity):
        task.add_argument("--quiet", action="store_true", help="show no progress bar")
        task.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Do the task; return 0 when it is complete and 130 when it was interrupted."""
    return {"train": _train, "evaluate": _evaluate, "sensitivity": _sensitivity}[arguments.task](arguments)


def _train(arguments: argparse.Namespace) -> int:
    from bmi_components.canveg.training import train_from_recipe

    bundle = train_from_recipe(
        arguments.recipe, output=arguments.output, resume=arguments.resume, progress=not arguments.quiet
    )
    if bundle is None:
        print("stopped; --resume goes on from there", file=sys.stderr)
        return 130
    print(f"trained model: {bundle}")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from bmi_components.canveg.evaluation import evaluate, markdown, write_evaluations
    from bmi_components.canveg.model import CanVeg
    from bmi_components.canveg.tower import common_period, split_blocks
    from bmi_components.canveg.tower_files import open_bundle, read_blocks
    from bmi_components.jax_precision import jax_precision

    forcing, fluxes = _tower(arguments, arguments.models[0], observed=True)
    assert fluxes is not None
    forcing, fluxes = common_period(forcing, fluxes)
    part = None
    if blocks := read_blocks(arguments.blocks):
        if "test" not in blocks:
            raise ConfigurationError("--blocks: one of the blocks must be 'test', which is judged")
        part = split_blocks(forcing.time, blocks, gap=arguments.gap)["test"]
    modes = ("reference", "corrected") if arguments.mode == "both" else (arguments.mode,)
    with jax_precision(arguments.dtype):
        models = {
            name: CanVeg.from_bundle(open_bundle(path)) for name, path in _named(arguments.models).items()
        }
        judged = [
            evaluate(
                _in_mode(model, mode),
                forcing,
                fluxes,
                name=name if len(modes) == 1 else f"{name}, {mode}",
                part=part,
                progress=not arguments.quiet,
            )
            for name, model in models.items()
            for mode in modes
        ]
    folder = arguments.out or Path("output/canveg_evaluate")
    write_evaluations(judged, folder)
    print(markdown(judged))
    print(f"written to {folder}")
    return 0


def _sensitivity(arguments: argparse.Namespace) -> int:
    from bmi_components.canveg.model import CanVeg
    from bmi_components.canveg.sensitivity import (
        derivatives,
        derivatives_by_step,
        sobol_indices,
        write_derivatives,
        write_derivatives_by_step,
        write_sobol_indices,
    )
    from bmi_components.canveg.tower_files import open_bundle
    from bmi_components.jax_precision import jax_precision

    forcing, _ = _tower(arguments, arguments.model, observed=False)
    folder = arguments.out or Path("output/canveg_sensitivity")
    progress = not arguments.quiet
    with jax_precision(arguments.dtype):
        model = _in_mode(CanVeg.from_bundle(open_bundle(arguments.model)), arguments.mode)
        found = derivatives(model, forcing, progress=progress)
        write_derivatives(found, folder)
        if arguments.by_step:
            write_derivatives_by_step(derivatives_by_step(model, forcing, progress=progress), folder)
        if arguments.sobol is not None:
            days = slice(0, arguments.sobol_days * 86_400 // forcing.step)
            indices = sobol_indices(model, forcing.select(days), samples=arguments.sobol, progress=progress)
            write_sobol_indices(indices, folder)
    for output, row in zip(found.outputs, found.elasticity, strict=True):
        order = sorted(range(row.size), key=lambda i: -abs(row[i]) if row[i] == row[i] else 0.0)[:5]
        print(f"{output}: " + ", ".join(f"{found.inputs[i]} {row[i]:+.3g}" for i in order))
    print(f"elasticities of means (percent per percent), the five largest; written to {folder}")
    return 0


def _tower(
    arguments: argparse.Namespace, model: Path, *, observed: bool
) -> tuple[TowerForcing, TowerFluxes | None]:
    """Read the files that the options name, or those of the configuration; what is not judged is a gap."""
    from bmi_components.canveg.tower import read_fluxes, read_forcing
    from bmi_components.canveg.tower_files import cut, find_configuration, published_files

    wanted = ("forcing", "fluxes") if observed else ("forcing",)
    files = {name: getattr(arguments, name) for name in wanted}
    if None in files.values():
        configuration = arguments.config or find_configuration(model)
        if configuration is None:
            options = " and ".join(f"--{name}" for name in wanted)
            raise ConfigurationError(f"which tower? Give {options}, or --config")
        if configuration.suffix != ".json":
            tower, fluxes = _tower_of_recipe(configuration, arguments.part)
            return cut(tower, arguments.period), fluxes
        named = published_files(configuration, arguments.part, arguments.data)
        files = {name: files[name] or path for name, path in zip(wanted, named, strict=False)}
    tower = cut(read_forcing(files["forcing"]), arguments.period)
    if not observed:
        return tower, None
    return tower, read_fluxes(files["fluxes"], interpolate_gaps=arguments.as_published)


def _tower_of_recipe(recipe: Path, part: str) -> tuple[TowerForcing, TowerFluxes]:
    """Read the record of a recipe's test, or of its training, with only that part's observations."""
    from bmi_components.canveg.recipe import load_recipe
    from bmi_components.canveg.record import read_data

    data = read_data(load_recipe(recipe))
    if part == "training":
        return data.forcing, data.fluxes.where(data.parts["train"])
    return data.test_forcing, data.test_fluxes if data.test is None else data.test_fluxes.where(data.test)


def _in_mode(model: CanVeg, mode: str | None) -> CanVeg:
    """Return the model in another mode, with its own site and parameters."""
    import msgspec

    if mode is None or mode == model.options.mode:
        return model
    options = msgspec.structs.replace(model.options, mode=mode, quirks=None)
    return type(model)(options, model.site, model.parameters, model.dispersion)


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    """Return models by name: the folder's, or for a run's own "bundle" folder that of the run."""
    named = {}
    for path in paths:
        folder = path.resolve()
        if folder.suffix == ".eqx" or folder.name == "bundle":
            folder = folder.parent
        if folder.name in named:
            raise ConfigurationError(
                f"two of the models are called {folder.name!r}; rename a folder to tell them apart"
            )
        named[folder.name] = path
    return named
