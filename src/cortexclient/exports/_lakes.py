"""Delta Lakes as lazy frames: opened, pruned, points as columns."""

from __future__ import annotations

import asyncio
import tempfile
import warnings
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import orjson

from .._types import IdArray
from ..errors import CortexUsageError, MissingDependency
from ..services._base import ExportPlace
from ._listing import Export
from ._points import split_binary
from ._stores import Bucket, options, telling

if TYPE_CHECKING:
    import polars as pl

Wanted = Mapping[str, IdArray]
"""Ids by column."""


def choose(lakes: list[Export], ordering: str | None, wanted: Wanted) -> Export:
    """The lake that is sorted by what is asked for, else the smallest.

    Raises
    ------
    CortexUsageError
        There is no such ordering.
    """
    names = [lake.ordering for lake in lakes]
    if ordering is not None and ordering not in names:
        raise CortexUsageError(f"{lakes[0].name} has no ordering {ordering!r}, but {', '.join(sorted(names))}")
    fitting = [lake for lake in lakes if lake.ordering == ordering or (ordering is None and lake.ordering in wanted)]
    return min(fitting or lakes, key=lambda lake: lake.bytes)


async def read_log(bucket: Bucket, lake: Export) -> dict[str, bytes]:
    """Read the log of a lake: all of it where a token is needed, which deltalake cannot show, else the last commit.

    A server's export ends with the log of its tidying up; one that failed half-way is a readable, partial lake.
    """
    log = sorted(await bucket.objects(f"{lake.path}/_delta_log"), key=itemgetter("path"))
    commits = [item for item in log if item["path"].endswith(".json")]
    wanted = log if is_gated(bucket) else commits[-1:]
    parts = await asyncio.gather(*(bucket.read(item["path"], item["size"]) for item in wanted))
    found = dict(zip([item["path"] for item in wanted], parts, strict=True))
    lines = found[commits[-1]["path"]].splitlines() if commits else []
    told = [orjson.loads(line).get("commitInfo", {}).get("operation") for line in lines if line]
    if "WRITE" in told:
        warnings.warn(
            f"{lake.url} was written to last, not tidied up: the export is unfinished or failed, rows may lack",
            stacklevel=2,
        )
    return found


def is_gated(bucket: Bucket) -> bool:
    """Whether a token must be shown."""
    return bucket.place.credentials is not None and bucket.root.scheme == "gs"


def scan(bucket: Bucket, lake: Export, log: Mapping[str, bytes], wanted: Wanted) -> pl.LazyFrame:
    """The rows of a lake, less those that the ids leave out. No data file is read; it blocks nevertheless."""
    try:
        import deltalake
    except ImportError as error:
        raise MissingDependency("deltalake", "exports", "a Delta Lake") from error
    if lake.root.scheme in ("http", "https"):
        text = f"{lake.url}: a Delta Lake cannot be read from a web page; name its bucket (gs://, s3://)"
        raise CortexUsageError(text)
    import polars as pl

    settings = options(lake.root)
    address = lake.url if lake.root.scheme != "file" else f"{lake.root.prefix}/{lake.path}"
    with telling(lake.url):
        if is_gated(bucket):
            frame = _gated(bucket, lake, log, wanted)
        else:
            table = deltalake.DeltaTable(address, storage_options=settings)
            frame = pl.scan_delta(table, storage_options=settings, credential_provider=None)
        schema = frame.collect_schema()
    return split_binary(having(frame, schema, wanted, lake.name), schema)


def having(frame: pl.LazyFrame, schema: pl.Schema, wanted: Wanted, name: str) -> pl.LazyFrame:
    """Only the rows that hold one of the ids in each of the columns."""
    import polars as pl

    if missing := [column for column in wanted if column not in schema]:
        raise CortexUsageError(f"{name} has no column {missing[0]!r}, but {', '.join(schema)}")
    for column, ids in wanted.items():
        frame = frame.filter(pl.col(column).is_in(ids.tolist()))  # of a Series polars prunes no files
    return frame


def _gated(bucket: Bucket, lake: Export, log: Mapping[str, bytes], wanted: Wanted) -> pl.LazyFrame:
    """A lake behind a token: deltalake reads a copy of the log, polars the files that are left after pruning."""
    import polars as pl
    from deltalake import DeltaTable

    with tempfile.TemporaryDirectory(prefix="delta-log-") as folder:
        for path, data in log.items():
            copy = Path(folder, path.removeprefix(f"{lake.path}/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
        table = DeltaTable(folder)
        files = pl.DataFrame(table.get_add_actions(flatten=True))
        partitions = table.metadata().partition_columns
        schema = pl.Schema(table.schema().to_arrow())
    kept = _pruned(files, wanted)
    if kept.is_empty():
        return pl.LazyFrame(schema=schema)
    return pl.scan_parquet(
        [lake.root.child(f"{lake.path}/{unquote(path)}") for path in kept["path"]],
        hive_schema={name: kind for name, kind in schema.items() if name in partitions},
        hive_partitioning=True,
        storage_options={key: value for key, value in options(lake.root).items() if key != "google_skip_signature"},
        credential_provider=_bearer(bucket.place),
    ).select(schema.names())


def _pruned(files: pl.DataFrame, wanted: Wanted) -> pl.DataFrame:
    """The files that may hold any of the ids, by the least and the greatest value of each."""
    for name, ids in wanted.items():
        if f"min.{name}" not in files.columns:
            continue
        ordered = np.sort(ids)
        least, most = (files[f"{end}.{name}"].cast(int) for end in ("min", "max"))
        first = np.searchsorted(ordered, least.fill_null(np.iinfo(np.int64).min).to_numpy())
        behind = np.searchsorted(ordered, most.fill_null(np.iinfo(np.int64).max).to_numpy(), side="right")
        files = files.filter(behind > first)
    return files


def _bearer(place: ExportPlace) -> Any:
    """The user's function, as polars wants it."""
    credentials = place.credentials

    def ask() -> tuple[dict[str, str], int | None]:
        token, expires = credentials()  # type: ignore[misc]
        return {"bearer_token": token}, None if expires is None else int(expires.timestamp())

    return ask
