"""What a live query asks, checked, and what its answer is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from ..calls import Call
from ..queries import Query, Refused, Source, model_columns, output_names, refuse_single_column, selected
from ..tables import Ids, Tables, Version, to_us
from .materialize_protocol import flag, owner_of, query_of, readable_table, refuse_other_tables, row_limit

if TYPE_CHECKING:
    from ..world import World

ROOT_ID: Final = "root_id"
ROW: Final = "__row"
"""Column of row numbers, to find back rows of a table after filters and joins."""
NO_DELETION: Final = pl.lit(None, pl.Datetime("us")).alias("deleted")
"""The column ``deleted`` of rows that are there."""
Key = tuple[str, str, str, str]


@dataclass
class LiveQuery:
    """A live query, understood.

    Parameters
    ----------
    tables
        The principal table first.
    keys
        ``(table, column, table, column)`` of each join.
    time_us
        The time asked, UTC.
    base
        The version to start from: the newest that is not after the time, else the oldest.
    allow_missing
        Whether rows without a supervoxel are left out instead of refused.
    warnings
        What the answer will warn of.
    """

    tables: tuple[str, ...]
    keys: tuple[Key, ...]
    time_us: int
    base: Version
    query: Query
    limit: int
    allow_missing: bool
    warnings: list[str] = field(default_factory=list)

    def source(self, annotations: Tables, name: str, frame: pl.DataFrame) -> Source:
        """Rows of one of the tables, with the columns of live answers: those of the version to start from.

        Split tables show ``deleted`` (null), but not ``valid``.
        """
        table = annotations.tables[name]
        columns = model_columns(table, merged=self.base.is_merged)
        if not self.base.is_merged:
            columns = tuple(c for c in columns if c not in ("valid", "superceded_id"))
        return Source(name, frame, columns, table.voxel_resolution)

    def refuse_missing(self, missing: int) -> None:
        """Refuse, or warn of, rows that have no supervoxel yet."""
        if not missing:
            return
        text = (
            f"There are {missing} annotations that need supervoxel lookups, wait till new annotation ingest is done "
            "or pick an less recent timestamp"
        )
        if not self.allow_missing:
            raise Refused(text, 406, aborted=True)
        self.warnings.append(text)


@dataclass(frozen=True)
class LiveRows:
    """Rows of a live answer, columns as ``table.column``.

    Parameters
    ----------
    index
        Labels of the rows where filters left gaps; None: 0, 1, 2...
    looked_up
        Number of supervoxels whose roots had to be looked up.
    shows_deleted
        Whether split tables show that column.
    """

    frame: pl.DataFrame
    index: Ids | None = None
    looked_up: int = 0
    shows_deleted: bool = True


def truncation(limit: int, indent: int = 8) -> str:
    """The warning that an answer may be cut off; the indent of the server's source is sent along."""
    gap = " " * (indent + 1)
    text = f"result has {limit} entries, which is equal or more{gap}than limit of {limit} "
    return text + "there may be more results which are not shown"


def understood(world: World, call: Call, body: Mapping[str, Any]) -> LiveQuery:
    """Read a checked body."""
    keys: tuple[Key, ...] = tuple((a, b, c, d) for a, b, c, d in body.get("join_tables", ()))
    joined = (name for left, _, right, _ in keys for name in (left, right))
    tables = tuple(dict.fromkeys((body["table"], *joined)))
    for name in tables:
        if name not in world.tables:
            raise Refused(f"No table named '{name}' exists.", 404)
        readable_table(world, call, name)
    query = replace(query_of(call, body), suffixes=body.get("suffixes", {}))
    refuse_other_tables(query, tables)
    if not query.limit:  # 0 means no limit here
        query.limit = None
    live = LiveQuery(
        tables=tables,
        keys=keys,
        time_us=to_us(body["timestamp"]),
        base=_base_version(world, call.params["datastack"], to_us(body["timestamp"])),
        query=query,
        limit=row_limit(world, query, tables[0]),
        allow_missing=flag(call, "allow_missing_lookups"),
    )
    _check_root_ids(world, live, allow_invalid=flag(call, "allow_invalid_root_ids"))
    return live


def _base_version(world: World, datastack: str, time_us: int) -> Version:
    """The version to start from; a public datastack is answered from its parent's, up to now."""
    own = [version for version in world.versions if version.datastack == datastack]
    if not own:
        raise Refused(f"datastack {datastack} has no versions", 404, aborted=True)
    owner = owner_of(world, own[0]).datastack
    valid = sorted((v for v in world.versions if v.datastack == owner and v.valid), key=lambda v: v.time_us)
    if not valid:
        raise Refused(f"No available versions of {owner}", 404, aborted=True)
    return next((v for v in reversed(valid) if v.time_us <= time_us), valid[0])


def only(query: Query, wanted: Callable[[str, str], bool]) -> Query:
    """The query with just the filters whose kind and column are wanted."""
    filters = {
        kind: {
            table: {column: value for column, value in by_column.items() if wanted(kind, column)}
            for table, by_column in by_table.items()
        }
        for kind, by_table in query.filters.items()
    }
    return replace(query, filters=filters)


def _check_root_ids(world: World, live: LiveQuery, *, allow_invalid: bool) -> None:
    """Refuse root ids in filters that are not current at the time asked, or drop them where that is allowed."""
    filters = {kind: {t: dict(columns) for t, columns in tables.items()} for kind, tables in live.query.filters.items()}
    for kind, by_table in filters.items():
        if kind not in ("filter_in_dict", "filter_equal_dict"):
            continue
        for by_column in by_table.values():
            for column in by_column.keys() & {c for c in by_column if c.endswith(ROOT_ID)}:
                given = by_column[column] if isinstance(by_column[column], list) else [by_column[column]]
                invalid = _not_current(world, given, live.time_us // 1000)
                if not invalid:
                    continue
                text = f"Some root_ids passed are not valid at the query timestamp: {invalid}"
                if not allow_invalid or len(invalid) == len(given):
                    raise Refused(text, 400, aborted=True)
                live.warnings.append(text)
                by_column[column] = [value for value in given if int(value) not in set(invalid)]
    live.query = replace(live.query, filters=filters)


def _not_current(world: World, given: list[Any], time_ms: int) -> list[int]:
    try:
        ids = np.array([int(value) for value in given if value is not None], np.int64)
    except (TypeError, ValueError, OverflowError):
        raise Refused(f"root ids must be integers, not {given!r}") from None
    graph = world.graph
    current = graph.is_root(ids) & (graph.created(ids) <= time_ms) & (graph.retired(ids) > time_ms)
    invalid: list[int] = ids[~current].tolist()
    return invalid


def chosen_names(
    sources: Mapping[str, Source], live: LiveQuery, selection: Mapping[str, list[str]] | None, *, strict: bool
) -> dict[str, dict[str, str]]:
    """Names of the columns in the answer, by table; blocks in alphabetical order."""
    chosen: list[tuple[Source, list[str]]] = []
    for name in sorted(live.tables):
        source = sources[name]
        if selection is None:
            chosen.append((source, list(source.columns)))
            continue
        for column in selection.get(name, ()):
            if column not in source.columns:
                raise Refused(f"{column} not in model or models for {name}")
        chosen.append((source, list(dict.fromkeys(selection.get(name, ())))))
    if strict and selection is not None:
        refuse_single_column([(source, selected(source, columns)) for source, columns in chosen])
    return output_names(chosen, live.query.suffixes)
