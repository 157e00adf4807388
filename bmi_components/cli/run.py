"""`bmi-components run`: step a component through forcing and write netCDF, a hydrograph and a water balance."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_parser", "run"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand to the command line."""
    parser = subparsers.add_parser(
        "run",
        help="run a component on forcing",
        description="Step a component through forcing as the 'run' section of its configuration says. Writes CF "
        "netCDF and a hydrograph, and prints the water balance. Control-C saves and stops; --resume goes on.",
    )
    parser.add_argument(
        "config",
        type=Path,
        metavar="CONFIG.yaml",
        help="configuration of the component, with a section 'run'",
    )
    parser.add_argument("--component", metavar="NAME", help="component class, instead of the configuration's")
    parser.add_argument(
        "--forcing",
        type=Path,
        metavar="PATH",
        help="netCDF file, csv file or folder, or .yaml description, instead of the configuration's forcing",
    )
    parser.add_argument("--start", metavar="DATE", help="first date")
    parser.add_argument("--end", metavar="DATE", help="last date, included")
    parser.add_argument(
        "--output", metavar="DIR", help="folder for the results (default: output/<configuration>)"
    )
    parser.add_argument(
        "--initial-state",
        type=Path,
        metavar="FILE",
        help="saved state to start from, also of another period, instead of the configuration's",
    )
    parser.add_argument(
        "--save-state", type=Path, metavar="FILE", help="save the state at the end of the run"
    )
    parser.add_argument("--csv", action="store_true", help="also write one csv file per catchment")
    parser.add_argument("--no-plot", action="store_true", help="draw no hydrograph")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    parser.set_defaults(func=run)


def run(arguments: argparse.Namespace) -> int:
    """Run; return 0 when the run is complete and 130 when it was interrupted."""
    from bmi_components.series_figure import means_table, series_figure
    from bmi_components.simulation import Simulation, read_plan, water_balance_table

    plan = read_plan(
        arguments.config,
        component=arguments.component,
        forcing=arguments.forcing,
        start=arguments.start,
        end=arguments.end,
        folder=arguments.output,
    )
    simulation = Simulation(plan, arguments.initial_state)
    if not simulation.run(
        resume=arguments.resume, progress=not arguments.quiet, save_state=arguments.save_state
    ):
        print(f"stopped at {simulation.position}; --resume goes on from there")
        return 130
    outputs = [v.symbol for v in simulation.outputs]
    has_runoff = "runoff_rate" in outputs
    print(water_balance_table(plan.results) if has_runoff else means_table(plan.results, outputs))
    closure = simulation.closure()
    if closure is not None:
        print(closure)
    print(f"results: {plan.results}")
    if plan.output.plot and not arguments.no_plot:
        picture = plan.results.with_suffix(".png")
        if has_runoff:
            from bmi_components.plots import hydrograph

            print(f"hydrograph: {hydrograph(plan.results, picture)}")
        else:
            print(f"figure: {series_figure(plan.results, picture, outputs)}")
    if plan.output.csv or arguments.csv:
        from bmi_components.output import write_csv

        written = write_csv(plan.results, plan.results.parent / "csv")
        print(f"csv: {written[0].parent} ({len(written)} catchments)")
    return 0
