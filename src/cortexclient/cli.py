"""``cortexclient``: the command line. Heavy modules are loaded by the command that needs them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import _cli_bulk
from ._cli_auth import auth
from .errors import CortexError, CortexUsageError

if TYPE_CHECKING:
    import pandas as pd

    from ._types import IdArray

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(auth, name="auth")
app.add_typer(_cli_bulk.jobs, name="jobs")
for command in (_cli_bulk.skeletons, _cli_bulk.meshes, _cli_bulk.synapses):
    app.command()(command)


def main() -> None:
    """Run the command line; exit status 1: it failed, 2: it was asked wrongly."""
    try:
        app()
    except CortexError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(2 if isinstance(error, CortexUsageError) else 1)


def _show_version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Ask CAVE connectomics datasets, many ids at once."""


@app.command()
def demo(
    *,
    data: Annotated[
        Path | None, typer.Option(help="Folder of real minnie65 data; default: a synthetic world.", exists=True)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the answers.")] = Path("cortexclient-demo"),
) -> None:
    """Translate root ids of many epochs on a local server: no token, no network."""
    from ._demo import run

    if not run(data, out):
        raise typer.Exit(1)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox(context: typer.Context) -> None:
    """Run a local CAVE server until stopped; `cortexclient sandbox --help` lists its options."""
    from .sandbox.cli import sandbox as serve

    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(serve)
    command(args=context.args, prog_name=context.command_path)


class Direction(StrEnum):
    """What is translated into what."""

    ROOT_TO_CELL = "root-to-cell"
    CELL_TO_ROOT = "cell-to-root"

    @property
    def method(self) -> str:
        """The client's method."""
        return self.replace("root", "root_id").replace("cell", "cell_id").replace("-", "_")

    @property
    def column(self) -> str:
        """What a column of ids to be translated is called."""
        return self.method.partition("_to_")[0]


@app.command(name="map")
def translate(
    direction: Direction,
    ids: _cli_bulk.Ids,
    *,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="OUT.parquet|FOLDER", help="Where the answers go: a file, or the folder of a job."
        ),
    ],
    column: _cli_bulk.Column = None,
    dataset: _cli_bulk.Dataset = "minnie_public",
    server: _cli_bulk.Server = None,
    version: _cli_bulk.Version = None,
    timestamp: _cli_bulk.Timestamp = None,
    detail: Annotated[bool, typer.Option("--detail", help="Say why: status, timestamp, source, n_matches.")] = False,
    part_size: _cli_bulk.PartSize = None,
    resume: _cli_bulk.Resume = False,
    plan: _cli_bulk.Plan = False,
    dask: _cli_bulk.Dask = None,
) -> None:
    """Translate a file of root ids to cell ids, or back; -1: none, or several.

    Into a file, all at once; into a folder part by part, so that millions of ids can be resumed (with all details).
    The token is taken from $CORTEXCLIENT_TOKEN or CAVE's secret files.
    """
    from . import BulkJob, CortexClient

    when: dict[str, Any] = {"version": version, "timestamp": _cli_bulk.instant(timestamp)}
    if out.suffix != ".parquet" or plan or dask:
        client = CortexClient(dataset, server=server, **when)
        job = BulkJob(direction.method, ids, out, client=client, column=column, part_size=part_size)
        _cli_bulk.begin(job, client, resume=resume, plan=plan, dask=dask)
        return
    asked = read_ids(ids, column, direction.column)
    with CortexClient(dataset, server=server) as client:
        frame = getattr(client, direction.method)(asked, detail=True, progress=sys.stderr.isatty(), **when)
        requests = client.stats.requests
    counts = ", ".join(f"{n:,} {status}" for status, n in frame["status"].value_counts().items())
    write(frame if detail else frame.iloc[:, :1], out)
    typer.echo(f"{len(frame):,} ids ({counts}), version {frame.attrs['version']}, {requests:,} requests: {out}")


def read_ids(path: Path, column: str | None, usual: str) -> IdArray:
    """Read a file of ids, (n,) int64, exactly; see :func:`~cortexclient.bulk.sources.blocks`."""
    import numpy as np

    from .bulk.sources import blocks

    return np.concatenate([np.empty(0, np.int64), *blocks(path, column, usual)])


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame with its index as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), path)
