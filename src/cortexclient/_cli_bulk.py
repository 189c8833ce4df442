"""``cortexclient skeletons``, ``meshes``, ``synapses``, ``jobs``: bulk jobs from the shell."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._transport.reply import TransportStats
from .errors import CortexUsageError

if TYPE_CHECKING:
    from . import CortexClient
    from .bulk.blocking import BulkJob
    from .bulk.report import JobStatus
    from .progress import Progress

STOPPED = 143
"""Exit status of a job that was told to stop, as of any program that SIGTERM ends."""
QUIET_SECONDS = 30.0
"""Between two lines of progress in a log."""

Ids = Annotated[Path, typer.Argument(help="A .parquet or .csv file, or one id per line.", exists=True, dir_okay=False)]
Folder = Annotated[Path, typer.Argument(help="The folder of a job.", exists=True, file_okay=False)]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the answers go.")]
Column = Annotated[str | None, typer.Option(help="Column of the ids; needed where there are several.")]
Dataset = Annotated[str, typer.Option(help="Name of a dataset or datastack.")]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="One server for all services; default: $CORTEXCLIENT_SERVER, else the dataset's own."
    ),
]
Version = Annotated[int | None, typer.Option(help="Materialization version; default: the newest.")]
Timestamp = Annotated[str | None, typer.Option(metavar="ISO", help="An instant with its time zone.")]
PartSize = Annotated[int | None, typer.Option(help="Ids in a part; default: what suits the task.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the job that is in the folder.")]
Plan = Annotated[bool, typer.Option("--plan", help="Say what is to be done, and do nothing.")]
Dask = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Have the workers of this Dask scheduler do the parts.")
]
Workers = Annotated[int, typer.Option(help="How many tasks share the servers.", envvar="SLURM_ARRAY_TASK_COUNT", min=1)]

jobs = typer.Typer(no_args_is_help=True, help="Bulk jobs: create, run and check them.")


def instant(text: str | None) -> datetime | None:
    """Read an ISO time."""
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise CortexUsageError(f"--timestamp {text!r} is no ISO time: write 2024-06-05T10:10:00+00:00") from error


def skeletons(
    ids: Ids,
    *,
    out: Out,
    sink: Annotated[str, typer.Option(help="swc: a file for each cell; parquet: a row for each.")] = "swc",
    generate: Annotated[bool, typer.Option(help="Have missing ones made, and wait for them.")] = True,
    column: Column = None,
    dataset: Dataset = "minnie_public",
    server: Server = None,
    part_size: PartSize = None,
    resume: Resume = False,
    plan: Plan = False,
    dask: Dask = None,
) -> None:
    """Fetch the skeletons of many cells: a folder of SWC files, or a Parquet table."""
    client = _client(dataset, server)
    more = {"options": {"generate": generate}, "sink": sink, "column": column, "part_size": part_size}
    begin(_job("get_skeletons", ids, out, client, **more), client, resume=resume, plan=plan, dask=dask)


def meshes(
    ids: Ids,
    *,
    out: Out,
    max_bytes: Annotated[int | None, typer.Option(help="Leave out meshes that are larger (packed).")] = None,
    column: Column = None,
    dataset: Dataset = "minnie_public",
    server: Server = None,
    part_size: PartSize = None,
    resume: Resume = False,
    plan: Plan = False,
    dask: Dask = None,
) -> None:
    """Fetch the meshes of many cells: a folder of Draco files."""
    options = {"max_bytes": max_bytes} if max_bytes else {}
    client = _client(dataset, server)
    job = _job("get_meshes", ids, out, client, options=options, column=column, part_size=part_size)
    begin(job, client, resume=resume, plan=plan, dask=dask)


class Side(StrEnum):
    """Which synapses of a cell."""

    PRE = "pre"
    POST = "post"
    BOTH = "both"


def synapses(
    ids: Ids,
    *,
    out: Out,
    side: Annotated[Side, typer.Option(help="Those that the cells make, those that they receive, or both.")] = (
        Side.BOTH
    ),
    edges: Annotated[bool, typer.Option("--edges", help="Count them between pairs of cells.")] = False,
    column: Column = None,
    dataset: Dataset = "minnie_public",
    server: Server = None,
    version: Version = None,
    timestamp: Timestamp = None,
    part_size: PartSize = None,
    resume: Resume = False,
    plan: Plan = False,
    dask: Dask = None,
) -> None:
    """Fetch the synapses of many cells, each once, as Parquet."""
    options = {} if side == Side.BOTH else {"pre": side == Side.PRE, "post": side == Side.POST}
    client = _client(dataset, server, version, timestamp)
    task = "synapse_edges" if edges else "query_synapses"
    job = _job(task, ids, out, client, options=options, column=column, part_size=part_size)
    begin(job, client, resume=resume, plan=plan, dask=dask)


@jobs.command()
def create(
    task: Annotated[str, typer.Argument(help="A method of the client, such as root_id_to_cell_id.")],
    ids: Ids,
    *,
    out: Out,
    sink: Annotated[str | None, typer.Option(help="parquet, swc or draco; default: the task's own.")] = None,
    column: Column = None,
    dataset: Dataset = "minnie_public",
    server: Server = None,
    version: Version = None,
    timestamp: Timestamp = None,
    part_size: PartSize = None,
) -> None:
    """Freeze a job without running it: its parts are then for `jobs run`, on any number of machines."""
    client = _client(dataset, server, version, timestamp)
    status = _job(task, ids, out, client, sink=sink, column=column, part_size=part_size).create()
    typer.echo(f"{status}: parts 0 to {status.parts - 1}")


@jobs.command(name="run")
def run_job(
    folder: Folder,
    *,
    part: Annotated[
        int | None, typer.Option(metavar="K", help="Do this part only.", envvar="SLURM_ARRAY_TASK_ID", min=0)
    ] = None,
    workers: Workers = 1,
    plan: Plan = False,
    dask: Dask = None,
) -> None:
    """Go on with a job: with all that is not done, or with one part (for the array jobs of a scheduler)."""
    from . import BulkJob

    job = BulkJob.open(folder)
    if part is None or plan or dask:
        carry_out(job, lambda progress: job.resume(progress=progress), plan=plan, dask=dask)
        return
    made = job.run_part(part, workers=workers)
    typer.echo(f"part {part}: {made.ok:,} ok, {made.failed:,} failed, {made.rows:,} rows")
    if not job.ledger.is_done(part):
        raise typer.Exit(STOPPED)


@jobs.command()
def retry(folder: Folder) -> None:
    """Ask once more about the ids that failed."""
    from . import BulkJob

    job = BulkJob.open(folder)
    carry_out(job, lambda progress: job.retry_failed(progress=progress))


@jobs.command()
def status(folder: Folder) -> None:
    """Say how far a job is. Exit status 1: something is still to be done."""
    from . import BulkJob

    job = BulkJob.open(folder)
    now = job.status()
    typer.echo(now)
    if now.failed:
        for kind, count in job.failures()["error"].value_counts().items():
            typer.echo(f"  {count:,} {kind}")
    if not now.complete:
        raise typer.Exit(1)


@jobs.command()
def verify(folder: Folder) -> None:
    """Check that every id has exactly one outcome and every file is whole. Exit status 1: they are not."""
    from . import BulkJob

    found = BulkJob.open(folder).verify()
    typer.echo(found)
    if not found.ok:
        raise typer.Exit(1)


# -- running ---------------------------------------------------------------------------------------------------------


def _client(dataset: str, server: str | None, version: int | None = None, timestamp: str | None = None) -> CortexClient:
    from . import CortexClient

    return CortexClient(dataset, server=server, version=version, timestamp=instant(timestamp))


def _job(task: str, ids: Path, out: Path, client: CortexClient, **more: Any) -> BulkJob:
    from . import BulkJob

    return BulkJob(task, ids, out, client=client, **more)


def begin(job: BulkJob, client: CortexClient, *, resume: bool, plan: bool, dask: str | None) -> None:
    """Begin a job, or go on with it if that is wanted."""
    if job.ledger.exists and not (resume or plan):
        raise CortexUsageError(f"{job.folder} holds a job already: --resume goes on with it")
    if resume and not job.ledger.exists:
        raise CortexUsageError(f"{job.folder} holds no job to go on with: leave --resume out to begin one")
    carry_out(job, lambda progress: job.run(progress=progress), plan=plan, dask=dask, client=client)


def carry_out(
    job: BulkJob,
    work: Callable[[Callable[[Progress], object]], JobStatus],
    *,
    plan: bool = False,
    dask: str | None = None,
    client: CortexClient | None = None,
) -> None:
    """Do what there is to do, tell about it, and end with the exit status that fits."""
    if plan:
        typer.echo(job.plan())
        return
    line = ProgressLine(client)
    now = job.run_on(dask, progress=line) if dask else work(line)
    line.end()
    typer.echo(f"{now}: {job.folder}")
    if now.failed:
        typer.echo(f"why they failed: {job.folder}/failed-*.parquet; `cortexclient jobs retry {job.folder}` asks again")
    if not now.complete:
        typer.echo(f"stopped; `cortexclient jobs run {job.folder}` goes on")
        raise typer.Exit(STOPPED)


class ProgressLine:
    """Progress on stderr: one line that is written over in a terminal, a line now and then in a log."""

    def __init__(self, client: CortexClient | None) -> None:
        self._client = client
        self._is_terminal = sys.stderr.isatty()
        self._told = time.monotonic()
        self._stats = TransportStats()

    def __call__(self, now: Progress) -> None:
        if not self._is_terminal and time.monotonic() - self._told < QUIET_SECONDS:
            return
        self._told = time.monotonic()
        text = describe(now) + self._throttle()
        sys.stderr.write(f"\r{text:<100}" if self._is_terminal else f"{text}\n")
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line as it is."""
        if self._is_terminal:
            sys.stderr.write("\n")

    def _throttle(self) -> str:
        if self._client is None:
            return ""
        before, now = self._stats, self._client.stats
        self._stats = now
        return throttle(before, now)


def throttle(before: TransportStats, now: TransportStats) -> str:
    """What has held requests up in the meantime."""
    rates = [name for name, seconds in now.held_back.items() if seconds > before.held_back.get(name, 0.0)]
    reasons = [f"the rate of {name} ({now.per_minute[name]:,.0f} a minute)" for name in rates if name in now.per_minute]
    if now.waited > before.waited:
        reasons.append(f"{now.retries - before.retries:,} retries")
    return f", held up by {' and '.join(reasons)}" if reasons else ""


def describe(now: Progress) -> str:
    """Count, rate, failures and time to go."""
    finished = now.done + now.failed
    rate = finished / now.seconds if now.seconds else 0.0
    total = f"/{now.total:,}" if now.total is not None else ""
    failed = f", {now.failed:,} failed" if now.failed else ""
    left = ""
    if now.total and finished and finished < now.total:
        left = f", {timedelta(seconds=round((now.total - finished) / rate))} to go"
    return f"{finished:,}{total} ids{failed}, {rate:,.0f} ids/s{left}"
