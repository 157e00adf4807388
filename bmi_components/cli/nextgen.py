"""`bmi-components nextgen`: write, check and run realizations of NextGen."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

__all__ = ["add_parser", "check", "configure", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand and its own subcommands to the command line."""
    parser = subparsers.add_parser(
        "nextgen",
        help="write, check and run realizations of NextGen",
        description="From a hydrofabric, attributes, forcing and a trained model to a run, with ngen or without it.",
    )
    tasks = parser.add_subparsers(dest="task", metavar="TASK", required=True)
    _add_configure(tasks)
    _add_check(tasks)
    _add_run(tasks)


def _common(task: argparse.ArgumentParser) -> None:
    task.add_argument("realization", type=Path, metavar="REALIZATION.json", help="the realization")
    task.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="folder in which ngen is started, from which its paths count; without it the first of the working "
        "directory, the realization's folder and the one above from which the forcing is found",
    )
    task.add_argument(
        "--hydrofabric",
        type=Path,
        metavar="FILE",
        help="catchments as GeoJSON or GeoPackage; without it what 'configure' noted in the realization",
    )
    task.add_argument("--catchments", metavar="IDS", help="some catchments only: cat-27,cat-52")


def _add_configure(tasks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    task = tasks.add_parser(
        "configure",
        help="write a realization and one configuration per catchment",
        description="Write a realization and one BMI configuration per catchment into a new folder, after checking "
        "that the model's inputs and attributes are all there in units that convert. Nothing is written if not.",
    )
    task.add_argument(
        "hydrofabric", type=Path, metavar="HYDROFABRIC", help="catchments: GeoJSON or GeoPackage"
    )
    task.add_argument(
        "--model",
        type=Path,
        required=True,
        action="append",
        metavar="DIR",
        help="trained model: a bundle, a δMG model folder, a neuralhydrology run; several are an ensemble (LSTM)",
    )
    task.add_argument(
        "--forcing",
        type=Path,
        required=True,
        metavar="PATH",
        help="NextGen's netCDF file, or a folder of one csv file per catchment",
    )
    task.add_argument(
        "--attributes",
        type=Path,
        metavar="FILE",
        help="CSV, Parquet or GeoPackage; without it the hydrofabric's own attributes",
    )
    task.add_argument(
        "--attribute",
        action="append",
        default=[],
        metavar="NAME=COLUMN[*FACTOR]",
        help="column of an attribute that is called or measured otherwise: elev_mean=mean.elevation*0.01",
    )
    task.add_argument(
        "--value",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="an attribute, or what CanVeg and FluxLSTM ask of a catchment, for all that have no column of it; twelve "
        "numbers are January to December: leaf_area_index=1,1,1.5,2.5,3.5,4,4,4,3.5,2.5,1.5,1",
    )
    task.add_argument("--output", type=Path, required=True, metavar="DIR", help="the folder to make")
    task.add_argument("--catchments", metavar="IDS", help="some catchments only: cat-27,cat-52")
    task.add_argument("--start", metavar="DATE", help="first step; without it the forcing's first")
    task.add_argument("--end", metavar="DATE", help="last step; without it the forcing's last")
    task.add_argument(
        "--pet",
        choices=("penman_monteith", "penman_monteith_daily", "hargreaves", "oudin"),
        help="potential evapotranspiration: for δHBV penman_monteith without it; for an LSTM that takes it oudin or "
        "penman_monteith, which a module of its own then gives",
    )
    task.add_argument(
        "--climatology",
        type=Path,
        metavar="FILE.yaml",
        help="monthly mean precipitation, temperature and potential evapotranspiration (mm d-1, degC), which δHBV 1.x "
        "takes its parameters from",
    )
    task.add_argument(
        "--spin-up",
        action="store_true",
        help="let the models take in the forcing before --start (δHBV: its warm-up; LSTM: its spin-up)",
    )
    task.add_argument(
        "--precipitation-units",
        metavar="UNITS",
        help="of precip_rate, where the forcing neither says nor shows it by APCP_surface",
    )
    task.add_argument("--no-mass-balance", action="store_true", help="do not ask ngen to check δHBV's water")
    task.set_defaults(func=configure)


def _add_check(tasks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    task = tasks.add_parser(
        "check",
        help="check a realization before ngen does",
        description="Open every model, connect every input, and say what ngen would stumble over, with the fix.",
    )
    _common(task)
    task.add_argument(
        "--ngen",
        type=Path,
        metavar="BINARY",
        help="ngen, to compare the Python and NumPy that it was built with (default: ngen on PATH)",
    )
    task.set_defaults(func=check)


def _add_run(tasks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    task = tasks.add_parser(
        "run",
        help="run a realization without ngen",
        description="Run a realization of Python modules in this process, many catchments at once, and write what ngen "
        "writes: cat-*.csv, and nex-*_output.csv where the hydrofabric is given. Control-C saves and stops.",
    )
    _common(task)
    task.add_argument("--processes", type=int, default=1, metavar="N", help="worker processes")
    task.add_argument("--scheduler", metavar="ADDRESS", help="Dask scheduler to send the parts to, instead")
    task.add_argument("--netcdf", type=Path, metavar="FILE.nc", help="also one netCDF file of all catchments")
    task.add_argument("--resume", action="store_true", help="continue an interrupted run")
    task.add_argument("--one-each", action="store_true", help="one object per catchment, as in ngen: slow")
    task.add_argument("--quiet", action="store_true", help="show no progress bar")
    task.set_defaults(func=run)


def _ids(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def configure(arguments: argparse.Namespace) -> int:
    """Write a realization; return 0."""
    from bmi_components.nextgen.configure import Request, configure_realization

    request = Request(
        hydrofabric=arguments.hydrofabric,
        models=tuple(arguments.model),
        forcing=arguments.forcing,
        output=arguments.output,
        attributes=arguments.attributes,
        attribute_columns=tuple(arguments.attribute),
        values=tuple(arguments.value),
        catchments=_ids(arguments.catchments),
        start=arguments.start,
        end=arguments.end,
        evapotranspiration=arguments.pet,
        climatology=arguments.climatology,
        precipitation_units=arguments.precipitation_units,
        spin_up=arguments.spin_up,
        mass_balance=not arguments.no_mass_balance,
    )
    made = configure_realization(request)
    for warning in made.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{made.realization} ({made.catchments} catchments)")
    print(f"without ngen: bmi-components nextgen run {made.realization}")
    print(f"with ngen:    {made.command}")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Check a realization; return 0, or 2 if ngen would fail or give wrong numbers."""
    from bmi_components.nextgen.check import check_realization, find_folder

    path, hydrofabric, ngen = (
        None if p is None else p.resolve()
        for p in (arguments.realization, arguments.hydrofabric, arguments.ngen)
    )
    assert path is not None
    folder = find_folder(path, arguments.folder)
    with contextlib.chdir(folder):
        findings = check_realization(
            path, hydrofabric=hydrofabric, catchments=_ids(arguments.catchments), ngen=ngen
        )
    for finding in findings:
        print(f"{finding.level}: {finding.message}", file=sys.stderr)
    errors = sum(finding.level == "error" for finding in findings)
    warnings = sum(finding.level == "warning" for finding in findings)
    print(f"{arguments.realization}: {errors} errors, {warnings} warnings (paths from {folder})")
    return 2 if errors else 0


def run(arguments: argparse.Namespace) -> int:
    """Run a realization; return 0 when it is complete and 130 when it was interrupted."""
    from bmi_components.nextgen.check import find_folder
    from bmi_components.nextgen.run import run_realization
    from bmi_components.training.interrupts import gentle_interrupts

    path = arguments.realization.resolve()
    folder = find_folder(path, arguments.folder)
    hydrofabric, netcdf = (
        None if p is None else p.resolve() for p in (arguments.hydrofabric, arguments.netcdf)
    )
    with contextlib.chdir(folder), gentle_interrupts() as received:
        result = run_realization(
            path,
            hydrofabric=hydrofabric,
            catchments=_ids(arguments.catchments),
            processes=arguments.processes,
            scheduler=arguments.scheduler,
            netcdf=netcdf,
            resume=arguments.resume,
            batch=not arguments.one_each,
            progress=not arguments.quiet,
            stop=lambda: bool(received),
        )
        root = result.root.resolve()
    for note in result.notes:
        print(f"warning: {note}", file=sys.stderr)
    if not result.complete:
        print("stopped; --resume goes on from there")
        return 130
    print(f"results: {root} ({result.catchments} catchments, {result.nexuses} nexuses)")
    if result.netcdf is not None:
        print(f"netCDF: {result.netcdf}")
    return 0
