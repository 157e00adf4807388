"""A realization run without ngen: in this process or several, batched over catchments, resumable after a kill.

The catchments are cut into parts of one formulation each. A part steps through the period and writes a netCDF file that
has its name only when it is whole, with the states of its models beside it from time to time; when all parts are there,
they become ngen's csv files and, if asked for, one netCDF file. A part that was finished is never run again.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import netCDF4
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import bmi_components
from bmi_components.errors import ConfigurationError, ForcingError, StateError
from bmi_components.nextgen.forcing import open_forcing
from bmi_components.nextgen.hydrofabric import Divide, read_divides
from bmi_components.nextgen.outputs import FLOW, netcdf_names, write_csv_files, write_netcdf
from bmi_components.nextgen.realization import (
    STEP,
    ForcingParams,
    Realization,
    StateParams,
    read_realization,
)
from bmi_components.nextgen.states import load_states, save_states
from bmi_components.nextgen.stepping import FormulationRun
from bmi_components.nextgen.verify import first_error, verify
from bmi_components.output import Column, RunFile
from bmi_components.simulation import CHECKPOINT_SECONDS, CHUNK_VALUES
from bmi_components.training.interrupts import gentle_interrupts
from bmi_components.variables import CATALOGUE, Variable

__all__ = [
    "Job",
    "RunResult",
    "catchments_of",
    "cut_into_parts",
    "read_fabric",
    "run_part",
    "run_realization",
]

Array = NDArray[np.float64]

WORK = ".nextgen_run"
"""Folder within the output folder for what is not finished."""
STOP = "stop"
"""File in it that tells workers to save and stop."""
PART = 2048
"""Most catchments of a part."""


@dataclass(frozen=True)
class Job:
    """One part of a run: everything that a worker, here or elsewhere, must know."""

    realization: str
    folder: str
    number: int
    catchments: tuple[str, ...]
    divides: tuple[Divide, ...]
    work: str
    batch: bool
    identity: str

    @property
    def results(self) -> Path:
        """The part's netCDF file, from the folder of the run."""
        return Path(self.work) / f"part-{self.number}.nc"

    @property
    def end_states(self) -> Path:
        """Folder of the states at the end, a file per catchment, where the realization keeps them."""
        return Path(self.work) / f"part-{self.number}.end"

    @property
    def notes(self) -> Path:
        """What is to be told about the part, JSON."""
        return Path(self.work) / f"part-{self.number}.notes"


@dataclass(frozen=True)
class RunResult:
    """What a run has left."""

    complete: bool
    root: Path
    catchments: int
    nexuses: int
    netcdf: Path | None
    notes: tuple[str, ...]


class _WorkerKilled(StateError):
    """A part was lost with its process; the others are there."""


# --- what is to be run -----------------------------------------------------------------------------------------------


def read_fabric(realization: Realization, hydrofabric: Path | None) -> dict[str, Divide]:
    """Read the hydrofabric that is given, or that ``configure`` noted in the realization; {} if there is neither."""
    if hydrofabric is None and realization.hydrofabric is not None:
        hydrofabric = Path(realization.hydrofabric)
    return {} if hydrofabric is None else read_divides(hydrofabric)


def catchments_of(
    realization: Realization, fabric: Mapping[str, Divide], ids: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the catchments to run: those asked for, those that ``configure`` noted, all of the hydrofabric.

    Without a hydrofabric they are those of the forcing, or of the realization itself.

    Raises
    ------
    ConfigurationError
        If there is none.
    """
    if ids is not None:
        for name in ids:
            if fabric and name not in fabric:
                raise ConfigurationError(f"there is no catchment {name!r} in the hydrofabric")
        return tuple(ids)
    if realization.catchments is not None:
        return realization.catchments
    if fabric:
        return tuple(fabric)
    if realization.own:
        return tuple(realization.own)
    names = _of_forcing(realization.forcing) if realization.forcing is not None else ()
    if not names:
        raise ConfigurationError(
            f"{realization.path}: it does not say which catchments to run; give the hydrofabric with --hydrofabric, or "
            "name them with --catchments"
        )
    return names


def _of_forcing(params: ForcingParams) -> tuple[str, ...]:
    path = Path(params.path)
    if path.is_file() and path.suffix.lower() != ".csv":
        with netCDF4.Dataset(path) as file:
            if "ids" in file.variables and file["ids"].ndim == 1:
                return tuple(str(name) for name in file["ids"][:])
    return ()


def cut_into_parts(
    realization: Realization, catchments: Sequence[str], processes: int
) -> list[tuple[str, ...]]:
    """Cut the catchments into parts that have formulation and forcing in common."""
    alike: dict[tuple[int, int], list[str]] = {}
    for name in catchments:
        formulation, forcing = realization.of(name)
        alike.setdefault((id(formulation), id(forcing)), []).append(name)
    size = max(1, min(PART, -(-len(catchments) // max(1, processes))))
    return [
        tuple(group[start : start + size]) for group in alike.values() for start in range(0, len(group), size)
    ]


# --- one part --------------------------------------------------------------------------------------------------------


def run_part(
    job: Job, progress: Callable[[int], None] | None = None, stop: Callable[[], bool] | None = None
) -> bool:
    """Run one part; return whether it was finished (False: stopped, to be resumed).

    Parameters
    ----------
    job
        The part.
    progress
        Told how many steps have been taken.
    stop
        Whether to stop after the step; without it a worker's own: interrupted, or told to by a file.
    """
    if Path.cwd() != Path(job.folder):
        os.chdir(job.folder)  # for good: a Dask worker may have other parts of the run in other threads
    with contextlib.ExitStack() as stack:
        stop = stop or stack.enter_context(_told_to_stop(Path(job.work) / STOP))
        if job.results.exists():
            return True
        realization = read_realization(Path(job.realization))
        formulation, forcing_params = realization.of(job.catchments[0])
        states = realization.states
        divides = {divide.id: divide for divide in job.divides}
        with open_forcing(forcing_params, job.catchments, realization.start, realization.last) as forcing:
            run = FormulationRun(
                formulation,
                job.catchments,
                divides,
                forcing,
                Path(job.work) / f"part-{job.number}.configs",
                # A state is kept by catchment, as ngen keeps it.
                batch=job.batch and states == StateParams(),
            )
            first_error(verify(run, realization))
            if states.load is not None:
                load_states(run, Path(states.load))
            return _Part(job, run, realization.steps, states.save is not None).run(progress, stop)


@contextlib.contextmanager
def _told_to_stop(file: Path) -> Iterator[Callable[[], bool]]:
    """Return what a worker asks: whether it has been interrupted, or the file is there."""
    with gentle_interrupts() as received:
        yield lambda: bool(received) or file.exists()


class _Part:
    """Steps one part through time, and keeps what it needs to go on after a kill."""

    def __init__(self, job: Job, run: FormulationRun, steps: int, keeps_states: bool) -> None:
        self.job, self.formulation, self.steps, self.keeps_states = job, run, steps, keeps_states
        self.names = netcdf_names([column.header for column in run.columns])
        self.states = Path(job.work) / f"part-{job.number}.states"

    def run(self, progress: Callable[[int], None] | None, stop: Callable[[], bool]) -> bool:
        """Step to the end, or to a stop."""
        formulation = self.formulation
        file, done = self._open()
        with file:
            if progress is not None and done:
                progress(done)
            while done < self.steps:
                values = self._chunk(done, progress, stop)
                file.write(done, values)
                done += len(values[FLOW])
                stopped = stop()
                if done < self.steps and formulation.can_be_saved:
                    self._save(done)
                if done < self.steps and stopped:
                    return False
            self._write_notes()
            if self.keeps_states:
                save_states(formulation, self.job.end_states)
            formulation.finalize()
            file.complete()
        shutil.rmtree(self.states, ignore_errors=True)
        shutil.rmtree(Path(self.job.work) / f"part-{self.job.number}.configs", ignore_errors=True)
        return True

    def _open(self) -> tuple[RunFile, int]:
        """Open the part's file, anew or where it was left, and the states that belong to it; return steps done."""
        partial = self.job.results.with_name(self.job.results.name + ".partial")
        saved = self._saved() if self.formulation.can_be_saved and partial.is_file() else None
        if saved is not None:
            done, folder = saved
            try:
                file = self._file(resume=True)
            except StateError:  # a kill amid writing damages a netCDF file; the part begins again
                pass
            else:
                self.formulation.load(folder)
                return file, done
        shutil.rmtree(self.states, ignore_errors=True)
        return self._file(resume=False), 0

    def _file(self, *, resume: bool) -> RunFile:
        job, forcing = self.job, self.formulation.forcing
        headers = [column.header for column in self.formulation.columns]
        return RunFile(
            job.results,
            time=forcing.period[0] + np.arange(self.steps) * np.timedelta64(STEP, "s"),
            time_step=STEP,
            catchments=job.catchments,
            columns=self._columns(),
            attributes={"run_identity": job.identity, "csv_headers": json.dumps(headers)},
            precision="float64",
            resume=resume,
        )

    def _chunk(
        self, start: int, progress: Callable[[int], None] | None, stop: Callable[[], bool]
    ) -> dict[str, Array]:
        """Take some steps, fewer when it is time to save."""
        formulation, forcing = self.formulation, self.formulation.forcing
        count = len(self.job.catchments)
        end = min(self.steps, start + max(1, min(1024, CHUNK_VALUES // count)))
        weather = {name: forcing.read(name, start, end) for name in formulation.needed}
        ahead = {
            name: self._ahead(name, start, end)
            for name in {column.forcing for column in formulation.columns}
            if name is not None
        }
        results = np.empty((len(formulation.columns), end - start, count))
        flow = np.empty((end - start, count))
        areas = np.array([d.area_km2 or np.nan for d in self.job.divides] or [np.nan] * count)
        deadline = time.monotonic() + CHECKPOINT_SECONDS
        row = 0
        for step in range(start, end):
            formulation.step(step - start, weather, step)
            for index, column in enumerate(formulation.columns):
                if column.forcing is not None:
                    results[index, row] = ahead[column.forcing][step - start]
                else:
                    results[index, row] = formulation.modules[column.module].values[column.output]
            depth = formulation.depth
            flow[row] = np.nan if depth is None else depth * (areas * 1e6) / STEP
            row += 1
            if progress is not None:
                progress(1)
            if stop() or time.monotonic() > deadline:
                break
        return {name: results[index, :row] for index, name in enumerate(self.names)} | {FLOW: flow[:row]}

    def _ahead(self, column: str, start: int, end: int) -> Array:
        """Return forcing one step ahead, which is what ngen writes beside a step."""
        forcing = self.formulation.forcing
        if forcing.first + end >= forcing.table.time.size:
            raise ForcingError(
                f"{forcing.table.source}: {column} is among the output_variables, and ngen writes it one step ahead; "
                "the forcing must go on for an hour after the last step, or take it out"
            )
        return forcing.read(column, start + 1, end + 1)

    def _columns(self) -> list[Column]:
        """Describe the columns of the part's file."""
        known = {variable.name: variable for variable in CATALOGUE.values()}
        columns = []
        for name, column in zip(self.names, self.formulation.columns, strict=True):
            source = column.output or column.forcing or ""
            variable = known.get(source)
            meaning = variable.description if variable is not None else source
            columns.append(Column(Variable(source, column.units or "1", name, meaning), "end"))
            if variable is not None and variable.per_update:
                columns[-1] = Column(columns[-1].variable, "sum")
        flow = Variable(FLOW, "m3 s-1", FLOW, "what the catchment gives to its nexus")
        return [*columns, Column(flow, "mean")]

    def _write_notes(self) -> None:
        """Keep what is to be told at the end."""
        notes = [
            f"{balance.first} ({balance.violations} such in all)"
            for balance in self.formulation.balances
            if balance.violations
        ]
        if self.formulation.depth is None:
            notes.append(
                f"the main output is in {self.formulation.main_units!r}, no water: no nexus files are written"
            )
        self.job.notes.write_text(json.dumps(notes), encoding="utf-8")

    def _save(self, done: int) -> None:
        """Save all states in a folder that has its name only when it is whole."""
        partial = self.states / "saving"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.formulation.save(partial)
        partial.rename(self.states / f"step-{done}")
        for older in self.states.glob("step-*"):
            if older.name != f"step-{done}":
                shutil.rmtree(older)

    def _saved(self) -> tuple[int, Path] | None:
        """Return the latest complete set of states."""
        found = {int(path.name.removeprefix("step-")): path for path in self.states.glob("step-*")}
        return (max(found), found[max(found)]) if found else None


# --- the whole run ---------------------------------------------------------------------------------------------------


def run_realization(
    path: Path,
    *,
    hydrofabric: Path | None = None,
    catchments: Sequence[str] | None = None,
    processes: int = 1,
    scheduler: str | None = None,
    netcdf: Path | None = None,
    resume: bool = False,
    batch: bool = True,
    progress: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Run a realization and write what ngen writes.

    Paths in the realization are relative to the working directory, as in ngen.

    Parameters
    ----------
    path
        The realization.
    hydrofabric
        GeoJSON or GeoPackage of the catchments; without it what ``configure`` noted, or none: then no nexus gets water.
    catchments
        Which to run; all without it.
    processes
        Worker processes; 1 is this one.
    scheduler
        Address of a Dask scheduler, instead of processes; its workers must see the same files.
    netcdf
        Where to write one netCDF file of all catchments besides.
    resume
        Go on with an interrupted run.
    batch
        One object for all catchments whose configurations allow it; otherwise one each, as in ngen.
    progress
        Show a bar.
    stop
        Asked after every step whether to stop, so that the run can be resumed.

    Raises
    ------
    BmiComponentsError
        Whatever is wrong with the realization, its models or its forcing.
    StateError
        If ``resume`` and there is nothing to resume.
    """
    realization = read_realization(path)
    fabric = read_fabric(realization, hydrofabric)
    names = catchments_of(realization, fabric, catchments)
    root = Path(realization.output.root)
    work = root / WORK
    identity = _identity(realization, names, fabric)
    parts = _parts(work, identity, realization, names, processes, resume)
    divides = [tuple(fabric[name] for name in part) if fabric else () for part in parts]
    jobs = [
        Job(str(path), str(Path.cwd()), number, part, divides[number], str(work), batch, identity)
        for number, part in enumerate(parts)
    ]
    try:
        complete = _run_jobs(jobs, realization.steps, processes, scheduler, progress, stop)
    except _WorkerKilled:  # what the others have saved is kept
        raise
    except BaseException:
        _leave_no_trace(jobs, work, root)
        raise
    if not complete:
        return RunResult(False, root, len(names), 0, None, ())
    results = [job.results for job in jobs]
    nexuses = write_csv_files(results, root, work, realization, fabric)
    if netcdf is not None:
        write_netcdf(results, netcdf, names, fabric, _attributes(realization, path))
    if realization.states.save is not None:
        _keep_states(jobs, Path(realization.states.save))
    notes = [note for job in jobs for note in json.loads(job.notes.read_text(encoding="utf-8"))]
    shutil.rmtree(work)
    return RunResult(True, root, len(names), nexuses, netcdf, tuple(dict.fromkeys(notes)))


def _keep_states(jobs: Sequence[Job], folder: Path) -> None:
    """Move the states at the end to where the realization wants them."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        for file in sorted(job.end_states.iterdir()):
            temporary = folder / f".{file.name}.partial"  # the folder may be on another file system
            shutil.copyfile(file, temporary)
            os.replace(temporary, folder / file.name)


def _leave_no_trace(jobs: Sequence[Job], work: Path, root: Path) -> None:
    """Take away the working folder of a run that failed before anything could be kept."""
    if not any(job.results.exists() for job in jobs) and not any(work.glob("*.states/step-*")):
        shutil.rmtree(work)
        with contextlib.suppress(OSError):  # not empty: it was there before
            root.rmdir()


def _identity(realization: Realization, names: Sequence[str], fabric: Mapping[str, Divide]) -> str:
    """Return a fingerprint of what a run depends on: the realization, its catchments, configurations and forcing."""
    digest = hashlib.sha256(realization.text.encode())
    files: set[Path] = set()
    for name in names:
        formulation, forcing = realization.of(name)
        divide = fabric.get(name)
        digest.update(
            f"{name}|{divide.area_km2 if divide else None}|{divide.nexus if divide else None}".encode()
        )
        files.add(Path(forcing.path))
        for module in formulation.modules:
            files.add(Path(module.init_config.replace("{{id}}", name)))
    if realization.states.load is not None and Path(realization.states.load).is_dir():
        files.add(Path(realization.states.load))
    for file in sorted(files):
        for member in sorted(file.iterdir()) if file.is_dir() else [file]:
            if member.is_file():
                status = member.stat()
                digest.update(f"{member}|{status.st_size}|{status.st_mtime_ns}".encode())
    return digest.hexdigest()


def _parts(
    work: Path,
    identity: str,
    realization: Realization,
    names: Sequence[str],
    processes: int,
    resume: bool,
) -> list[tuple[str, ...]]:
    """Return the parts of the run, those of an interrupted one if it is resumed."""
    manifest = work / "run.json"
    if resume:
        try:
            content = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise StateError(f"there is no interrupted run to resume in {work}") from None
        if content["identity"] != identity:
            raise StateError(
                f"{work} is of a run with another realization, configuration, forcing or other catchments; start "
                "afresh, without --resume"
            )
        (work / STOP).unlink(missing_ok=True)
        return [tuple(part) for part in content["parts"]]
    parts = cut_into_parts(realization, names, processes)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    temporary = manifest.with_name("run.json.partial")
    temporary.write_text(json.dumps({"identity": identity, "parts": parts}), encoding="utf-8")
    os.replace(temporary, manifest)
    return parts


def _run_jobs(
    jobs: Sequence[Job],
    steps: int,
    processes: int,
    scheduler: str | None,
    progress: bool,
    stop: Callable[[], bool],
) -> bool:
    """Run all parts; return whether all are finished."""
    total = steps if len(jobs) == 1 else len(jobs) * steps
    if scheduler is None and (processes == 1 or len(jobs) == 1):
        with tqdm(total=total, unit=" steps", disable=not progress, dynamic_ncols=True) as bar:
            return all(run_part(job, bar.update, stop) for job in jobs)
    with (
        _executor(processes, scheduler) as pool,
        tqdm(total=len(jobs), unit=" parts", disable=not progress, dynamic_ncols=True) as bar,
    ):
        waiting: set[Future[bool]] = {pool.submit(run_part, job) for job in jobs}
        failed: BaseException | None = None
        while waiting:
            finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in finished:
                if not future.cancelled():
                    failed = failed or future.exception()
                    bar.update(future.exception() is None)
            if waiting and (stop() or failed is not None):
                (Path(jobs[0].work) / STOP).touch()
                waiting = {future for future in waiting if not future.cancel()}
    if isinstance(failed, BrokenExecutor):
        raise _WorkerKilled("a worker was killed; what was finished is kept, and --resume goes on") from None
    if failed is not None:
        raise failed
    return all(job.results.exists() for job in jobs)


@contextlib.contextmanager
def _executor(processes: int, scheduler: str | None) -> Iterator[Executor]:
    if scheduler is None:
        # Not forked: PyTorch's threads do not survive that.
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            yield pool
        return
    try:
        from distributed import Client  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise ConfigurationError(
            "--scheduler needs Dask (pip install distributed); --processes works without"
        ) from None
    with Client(scheduler) as client:
        yield client.get_executor(pure=False)


def _attributes(realization: Realization, path: Path) -> dict[str, str]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "title": f"NextGen realization {path.name}",
        "source": f"bmi_components {bmi_components.__version__}",
        "history": f"{now}: bmi-components nextgen run {path.name}",
        "realization": realization.text,
        "run_identity": "",
    }
