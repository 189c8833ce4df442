"""The live query as MaterializationEngine 5.26 computes it, step by step, for strict mode.

1. The frozen tables are queried with the root ids that the asked ones had at the version's time (their whole lineage,
   which may be too many); ``limit`` applies there already.
2. If the principal table was written to since, the live tables are queried for the rows created or deleted in between,
   without root filters, again with ``limit``. Edits of the *other* tables of a join go unnoticed.
3. New rows come first, then the frozen ones that were not deleted; all get their root ids of the time asked.
4. The filters by value are applied once more, which leaves a gapped index in the body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ..graph import Graph
from ..queries import Query, Refused, filtered, joined, prefixed
from ..tables import Ids, Mask, Table, from_us
from .materialize_live_request import NO_DELETION, ROOT_ID, ROW, LiveQuery, LiveRows, only, truncation

if TYPE_CHECKING:
    from ..world import World

Selection = Mapping[str, list[str]] | None


def follow_the_server(world: World, live: LiveQuery, selection: Selection) -> LiveRows:
    """The rows that the real server answers with."""
    table = world.tables[live.tables[0]]
    written_since = table.modified > from_us(min(live.base.time_us, live.time_us))
    if written_since and live.time_us == live.base.time_us:
        raise Refused("do not use live live query to query a materialized timestamp", 400, aborted=True)
    if table.rows.is_empty():
        raise Refused(f"This query on table {table.name} returned no results", 400, aborted=True)
    nothing = pl.DataFrame(schema=dict.fromkeys(live.tables, pl.Int64))
    frozen = _frozen_rows(world, live) if table.name in live.base.tables else nothing
    new = _new_rows(world, live, selection) if written_since else nothing
    kept = frozen.filter(pl.Series(table.alive(live.time_us)[frozen[table.name].to_numpy()]))
    rows = _refreshed(world, live, pl.concat([new, kept]), new.height)
    return replace(rows, shows_deleted=not (written_since and frozen.is_empty()))


def _frozen_rows(world: World, live: LiveQuery) -> pl.DataFrame:
    """Row numbers, one column for each table, of what the version answers.

    Only the principal table's rows must be valid: split tables also hold what was deleted before the version.
    """
    time_us, merged = live.base.time_us, live.base.is_merged
    masks = {
        name: world.tables[name].alive(time_us)
        if merged or name == live.tables[0]
        else _written_by(world.tables[name], "created", time_us)
        for name in live.tables
    }
    found = _matching(world, live, masks, time_us, _translated(world.graph, live))
    if found.height == live.limit:
        live.warnings.append(truncation(live.limit))
    return found


def _new_rows(world: World, live: LiveQuery, selection: Selection) -> pl.DataFrame:
    """Row numbers of what the version does not have, but the time asked does."""
    principal = world.tables[live.tables[0]]
    if selection is not None and "id" not in selection.get(principal.name, ()):
        raise Refused("'id'")
    early, late = sorted((live.base.time_us, live.time_us))
    changed = [
        _written_by(principal, column, late) & ~_written_by(principal, column, early)
        for column in ("created", "deleted")
    ]
    masks = {name: np.ones(world.tables[name].rows.height, np.bool_) for name in live.tables}
    masks[principal.name] = changed[0] | changed[1]
    found = _matching(
        world, live, masks, live.time_us, only(live.query, lambda _, column: not column.endswith(ROOT_ID))
    )
    if found.height == live.limit:
        live.warnings.append(truncation(live.limit, indent=4))
    known = found.filter(pl.Series(_is_looked_up(principal)[found[principal.name].to_numpy()]))
    live.refuse_missing(found.height - known.height)
    new = principal.alive(live.time_us) & ~principal.alive(live.base.time_us)
    return known.filter(pl.Series(new[known[principal.name].to_numpy()]))


def _matching(world: World, live: LiveQuery, masks: Mapping[str, Mask], time_us: int, query: Query) -> pl.DataFrame:
    """Row numbers of the joined rows that pass a query at a time, cut to offset and limit."""
    sides = []
    for name in live.tables:
        numbers = np.flatnonzero(masks[name])
        rows = world.annotations.state(name, numbers, time_us, live.base).rows
        source = live.source(world.annotations, name, rows.with_columns(NO_DELETION, pl.Series(ROW, numbers)))
        sides.append((source, filtered(source, query)))
    found = joined(sides, live.keys).select(pl.col(f"{name}.{ROW}").alias(name) for name in live.tables)
    return found.slice(live.query.offset, live.limit)


def _refreshed(world: World, live: LiveQuery, numbers: pl.DataFrame, new: int) -> LiveRows:
    """The rows with their root ids at the time asked, filtered once more."""
    again = only(live.query, lambda kind, _: kind not in ("filter_spatial_dict", "filter_regex_dict"))
    frames, passed, looked_up = [], [], 0
    for name in live.tables:
        state = world.annotations.state(name, numbers[name].to_numpy(), live.time_us, live.base)
        looked_up += len(state.looked_up)
        unknown = pl.int_range(pl.len()) < new  # validity of rows that the version does not have
        rows = state.rows.with_row_index(ROW).with_columns(NO_DELETION, pl.when(~unknown).then("valid").alias("valid"))
        frames.append(prefixed(name, rows))
        passed.append(filtered(live.source(world.annotations, name, rows), again)[ROW].to_numpy())
    frame = pl.concat(frames, how="horizontal")
    if not any(columns for by_table in again.filters.values() for columns in by_table.values()):
        return LiveRows(frame, looked_up=looked_up)
    index = reduce(np.intersect1d, passed).astype(np.int64)
    return LiveRows(frame[index], index, looked_up)


def _translated(graph: Graph, live: LiveQuery) -> Query:
    """The query with its root ids replaced by those of the version's time."""
    filters = only(live.query, lambda _, column: not column.endswith(ROOT_ID)).filters
    inclusive: dict[str, dict[str, Any]] = {t: dict(c) for t, c in filters.get("filter_in_dict", {}).items()}
    for kind in ("filter_in_dict", "filter_equal_dict"):
        for table, by_column in live.query.filters.get(kind, {}).items():
            for column, value in by_column.items():
                if column.endswith(ROOT_ID):
                    given = np.array(value if isinstance(value, list) else [value], np.int64)
                    lineage = _lineage_at(graph, given, live.base.time_us // 1000)
                    inclusive.setdefault(table, {})[column] = lineage.tolist()
    return replace(live.query, filters={**filters, "filter_in_dict": inclusive})


def _lineage_at(graph: Graph, roots: Ids, time_ms: int) -> Ids:
    """Ancestors or descendants of root ids that were current at a time."""
    found = [np.empty(0, np.int64)]
    while len(roots):
        later, earlier = graph.created(roots) > time_ms, graph.retired(roots) <= time_ms
        found.append(roots[~later & ~earlier])
        relatives = graph.predecessors(roots[later])[0], graph.successors(roots[earlier])[0]
        roots = np.unique(np.concatenate(relatives))
    return np.unique(np.concatenate(found))


def _written_by(table: Table, column: str, time_us: int) -> Mask:
    """Which rows were created (or deleted) by a time."""
    return table.rows.select(pl.col(column).fill_null(from_us(2**53)) <= from_us(time_us)).to_series().to_numpy()


def _is_looked_up(table: Table) -> Mask:
    """Which rows have all their supervoxels."""
    known = [table.rows[f"{point}_supervoxel_id"].is_not_null().to_numpy() for point in table.bound_points]
    return reduce(np.logical_and, known, np.ones(table.rows.height, np.bool_))
