"""A realization checked before ngen does: all that would abort it or make its numbers wrong, each with its fix."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bmi_components.errors import BmiComponentsError, ConfigurationError
from bmi_components.nextgen.forcing import open_forcing
from bmi_components.nextgen.realization import CSV, Realization, StateParams, read_realization
from bmi_components.nextgen.run import catchments_of, cut_into_parts, read_fabric
from bmi_components.nextgen.states import load_states, save_states
from bmi_components.nextgen.stepping import FormulationRun
from bmi_components.nextgen.verify import Finding, verify

__all__ = ["check_realization", "find_folder"]


def find_folder(realization: Path, folder: Path | None = None) -> Path:
    """Return the folder from which a realization's paths count: where ngen is to be started.

    The one given, or the first of the working directory, the realization's folder and the one above it (NextGen In A
    Box keeps realizations in ``config/``) from which forcing and configurations are found.
    """
    if folder is not None:
        if not folder.is_dir():
            raise ConfigurationError(f"--folder: there is no folder {folder}")
        return folder.resolve()
    here = Path.cwd()
    content = read_realization(realization)
    for place in (here, realization.parent, realization.parent.parent):
        if _finds_all(place, content):
            return place.resolve()
    return here


def _finds_all(place: Path, content: Realization) -> bool:
    """Whether forcing and configurations are found from a folder."""
    if content.forcing is not None and not (place / content.forcing.path).exists():
        return False
    modules = content.formulation.modules if content.formulation is not None else ()
    patterns = (str(place / module.init_config.replace("{{id}}", "*")) for module in modules)
    return all(any(True for _ in glob.iglob(pattern)) for pattern in patterns)


def check_realization(
    path: Path,
    *,
    hydrofabric: Path | None = None,
    catchments: Sequence[str] | None = None,
    ngen: Path | None = None,
) -> list[Finding]:
    """Check a realization from the working directory, as ngen would run it.

    Parameters
    ----------
    path
        The realization.
    hydrofabric
        GeoJSON or GeoPackage of the catchments.
    catchments
        Only these.
    ngen
        ngen's binary, which tells the versions it was built with; without it the one on ``PATH``, if any.

    Returns
    -------
    list of Finding
        Errors first; empty if all is well.
    """
    findings: list[Finding] = list(_environment(ngen))
    try:
        realization = read_realization(path)
        findings += [Finding("warning", f"{path.name}: {text}") for text in realization.warnings]
        findings += _opened(realization, hydrofabric, catchments)
    except BmiComponentsError as error:
        findings.append(Finding("error", str(error)))
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda finding: finding.level)


def _opened(
    realization: Realization, hydrofabric: Path | None, wanted: Sequence[str] | None
) -> Iterator[Finding]:
    """Open every formulation on its catchments, and check what is open."""
    fabric = read_fabric(realization, hydrofabric)
    names = catchments_of(realization, fabric, wanted)
    if not fabric:
        yield Finding(
            "warning",
            "no hydrofabric is given, so areas and nexuses are not checked; give it with --hydrofabric",
        )
    for name in names:
        divide = fabric.get(name)
        if divide is not None and not (divide.area_km2 and divide.area_km2 > 0.0):
            yield Finding(
                "error", f"hydrofabric: {name} has no areasqkm; ngen needs it to make flow of depth"
            )
        if divide is not None and divide.nexus is None:
            yield Finding(
                "error", f"hydrofabric: {name} has no toid, the nexus into which ngen sends its water"
            )
    yield from _files(realization, len(names))
    for part in cut_into_parts(realization, names, 1):
        formulation, forcing_params = realization.of(part[0])
        divides = {name: fabric[name] for name in part} if fabric else {}
        try:
            with (
                open_forcing(forcing_params, part, realization.start, realization.last) as forcing,
                tempfile.TemporaryDirectory() as scratch,
            ):
                states = realization.states
                run = FormulationRun(
                    formulation, part, divides, forcing, Path(scratch), batch=states == StateParams()
                )
                yield from verify(run, realization)
                if states.load is not None:
                    load_states(run, Path(states.load))
                if states.save is not None:
                    save_states(run, Path(scratch) / "states")
                run.finalize()
        except BmiComponentsError as error:
            yield Finding("error", str(error))
        if forcing_params.provider == CSV and realization.steps > 366 * 24:
            yield Finding(
                "warning",
                f"{forcing_params.place}: ngen searches csv files from the top for every value, which grows slow over "
                f"{realization.steps} steps; give it the forcing as netCDF",
            )


def _files(realization: Realization, count: int) -> Iterator[Finding]:
    """Ngen keeps one csv file per catchment open."""
    try:
        import resource
    except ImportError:  # Windows, where ngen does not run either
        return
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    output = realization.output
    if output.catchment and not output.per_formulation and count + 50 > soft:
        yield Finding(
            "warning",
            f"ngen keeps a file open for each of {count} catchments, and this shell allows {soft}; raise it (ulimit -n "
            f'{2 * count + 100}) or write "output": {{"catchment": {{"grouping": "per_formulation"}}}}',
        )


# --- Python and NumPy ------------------------------------------------------------------------------------------------


def _environment(ngen: Path | None) -> Iterator[Finding]:
    """Ngen starts only with the very Python and NumPy that it was built with."""
    python, numpy = platform.python_version(), np.__version__
    if ngen is not None and not ngen.is_file():
        yield Finding("error", f"--ngen: there is no {ngen}")
        return
    found = ngen or (Path(path) if (path := shutil.which("ngen")) else None)
    versions = None if found is None else built_with(found)
    if found is not None and versions is None:
        yield Finding(
            "warning",
            f"{found} does not say which Python and NumPy it was built with; compare 'ngen --info' with Python "
            f"{python} and NumPy {numpy}",
        )
    if versions is not None:
        for what, theirs, ours, fix in (
            (
                "Python",
                versions[0],
                python,
                f"make the environment with Python {versions[0]}, or build ngen anew",
            ),
            (
                "NumPy",
                versions[1],
                numpy,
                f"pip install numpy=={versions[1]}, or build ngen anew in this one",
            ),
        ):
            if theirs != ours:
                yield Finding(
                    "error", f"{found} was built with {what} {theirs}; this environment has {ours}: {fix}"
                )
    elif found is None and int(numpy.partition(".")[0]) >= 2:
        yield Finding(
            "warning",
            f"this environment has NumPy {numpy}, which stock ngen refuses (below 2 is needed, and the very version "
            "that it was built with): pip install 'numpy<2', or name the binary with --ngen to compare",
        )
    first = shutil.which("python3")
    if sys.prefix != sys.base_prefix and first is not None and not _within(Path(first), Path(sys.prefix)):
        yield Finding(
            "warning",
            f"the first python3 on PATH is {first}, and ngen imports packages from there rather than from "
            f'{sys.prefix}: export PATH="{sys.prefix}{os.sep}bin:$PATH"',
        )


def _within(file: Path, folder: Path) -> bool:
    return folder in file.absolute().parents


def built_with(ngen: Path) -> tuple[str, str] | None:
    """Return the versions of Python and NumPy in the build summary that ngen holds (``ngen --info``)."""
    content = ngen.read_bytes()
    python = re.search(rb"\bPython:\s+Version: (\d+\.\d+\.\d+\w*)", content)
    numpy = re.search(rb"NumPy Version: (\d+\.\d+\.\d+\w*)", content)
    if python is None or numpy is None:
        return None
    return python[1].decode(), numpy[1].decode()
