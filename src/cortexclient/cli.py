"""``cortexclient``: the command line. Heavy modules are loaded by the command that needs them."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._cli_auth import auth
from .errors import CortexError, CortexUsageError

if TYPE_CHECKING:
    import pandas as pd

    from ._types import IdArray

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(auth, name="auth")


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
    ids: Annotated[
        Path, typer.Argument(help="A .parquet or .csv file, or one id per line.", exists=True, dir_okay=False)
    ],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT.parquet", help="Where the answers go.")],
    column: Annotated[str | None, typer.Option(help="Column of the ids; needed where there are several.")] = None,
    dataset: Annotated[str, typer.Option(help="Name of a dataset or datastack.")] = "minnie_public",
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="One server for all services; default: $CORTEXCLIENT_SERVER.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Materialization version; default: the newest.")] = None,
    timestamp: Annotated[str | None, typer.Option(metavar="ISO", help="An instant with its time zone.")] = None,
    detail: Annotated[bool, typer.Option("--detail", help="Say why: status, timestamp, source, n_matches.")] = False,
) -> None:
    """Translate a file of root ids to cell ids, or back; -1: none, or several.

    The token is taken from $CORTEXCLIENT_TOKEN or CAVE's secret files.
    """
    from . import AsyncCortexClient

    asked = read_ids(ids, column, direction.column)
    when = {"version": version, "timestamp": _instant(timestamp)}

    async def ask() -> tuple[pd.DataFrame, int]:
        async with AsyncCortexClient(dataset, server=server) as client:
            call = getattr(client, direction.method)
            return await call(asked, detail=True, progress=sys.stderr.isatty(), **when), client.stats.requests

    frame, requests = asyncio.run(ask())
    counts = ", ".join(f"{n:,} {status}" for status, n in frame["status"].value_counts().items())
    write(frame if detail else frame.iloc[:, :1], out)
    typer.echo(f"{len(frame):,} ids ({counts}), version {frame.attrs['version']}, {requests:,} requests: {out}")


def _instant(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError as error:
        raise CortexUsageError(f"--timestamp {text!r} is no ISO time: write 2024-06-05T10:10:00+00:00") from error


def read_ids(path: Path, column: str | None, usual: str) -> IdArray:
    """Read a file of ids, as exact integers.

    Parameters
    ----------
    path
        ``.parquet``, ``.csv`` with a header, anything else: one id per line.
    column
        Which column; None: the only one, or the one called ``usual``.

    Returns
    -------
    (n,) int64
    """
    from .ids import as_ids

    if path.suffix not in {".parquet", ".csv"}:
        return as_ids(path.read_text().split(), f"the ids of {path}")
    import pyarrow as pa

    try:
        found = (_parquet_column if path.suffix == ".parquet" else _csv_column)(path, column, usual)
    except pa.ArrowInvalid as error:
        raise CortexUsageError(f"{path} cannot be read: {error}") from error
    return as_ids(found, f"the ids of {path}")


def _parquet_column(path: Path, column: str | None, usual: str) -> Any:
    from pyarrow import parquet

    name = _chosen(parquet.read_schema(path).names, column, usual, path)
    return parquet.read_table(path, columns=[name])[name]


def _csv_column(path: Path, column: str | None, usual: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    with csv.open_csv(path) as reader:
        name = _chosen(reader.schema.names, column, usual, path)
    # typed before it is parsed: a column that is guessed may become floats
    return csv.read_csv(
        path, convert_options=csv.ConvertOptions(include_columns=[name], column_types={name: pa.int64()})
    )[name]


def _chosen(names: list[str], wanted: str | None, usual: str, path: Path) -> str:
    if wanted is None:
        wanted = names[0] if len(names) == 1 else usual
    if wanted not in names:
        raise CortexUsageError(f"{path} has no column {wanted!r}: give --column one of {', '.join(names)}")
    return wanted


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame with its index as Parquet."""
    import pyarrow as pa
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pandas(frame.reset_index(), preserve_index=False), path)
