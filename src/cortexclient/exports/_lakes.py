"""Delta Lakes as lazy frames: opened, pruned, points as columns; everything here blocks."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
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
from ._stores import options, telling

if TYPE_CHECKING:
    import polars as pl
    from obstore.store import ObjectStore

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


def scan(store: ObjectStore, lake: Export, place: ExportPlace, wanted: Wanted) -> pl.LazyFrame:
    """The rows of a lake, less those that the ids leave out. Of the files only the log is read."""
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
        log = _log(store, lake)
        if place.credentials and lake.root.scheme == "gs":
            frame = _gated(store, lake, log, place, wanted)
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


def _log(store: ObjectStore, lake: Export) -> list[str]:
    """Names of the files of a lake's log.

    A server's export ends with the log of its tidying up; one that failed half-way is a readable, partial lake.
    """
    import obstore

    log = sorted(item["path"] for item in obstore.list(store, f"{lake.path}/_delta_log").collect())
    commits = [path for path in log if path.endswith(".json")]
    lines = bytes(obstore.get(store, commits[-1]).bytes()).splitlines() if commits else []
    told = [orjson.loads(line).get("commitInfo", {}).get("operation") for line in lines if line]
    if "WRITE" in told:
        warnings.warn(
            f"{lake.url} was written to last, not tidied up: the export is unfinished or failed, rows may lack",
            stacklevel=2,
        )
    return log


def _gated(store: ObjectStore, lake: Export, log: list[str], place: ExportPlace, wanted: Wanted) -> pl.LazyFrame:
    """A lake behind a token, which deltalake cannot show: its log is copied, its files are left to polars."""
    import obstore
    import polars as pl
    from deltalake import DeltaTable

    with tempfile.TemporaryDirectory(prefix="delta-log-") as folder:
        for path in log:
            copy = Path(folder, path.removeprefix(f"{lake.path}/"))
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(obstore.get(store, path).bytes())
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
        credential_provider=_bearer(place),
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
