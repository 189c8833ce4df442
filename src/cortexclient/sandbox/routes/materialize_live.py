"""The live query: what a table, or a join of tables, holds at any time.

The real server starts from a frozen version, translates root ids to its time, refreshes the root ids of what it finds,
and adds and removes the rows that were written in between. The answer here is simply the state at the time asked, which
is what that procedure is after. In strict mode the procedure itself is followed, with its gaps (`materialize_replica`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from .. import costs
from ..calls import Call, Reply
from ..layout import unique_ids
from ..queries import Answer, Source, filtered, joined, output, sample
from ..query_body import LIVE_QUERY
from ..tables import Ids, from_us
from .materialize_live_request import (
    NO_DELETION,
    ROOT_ID,
    ROW,
    LiveQuery,
    LiveRows,
    chosen_names,
    only,
    truncation,
    understood,
)
from .materialize_protocol import Rendering, body_of, query_reply, sample_size
from .materialize_replica import follow_the_server

if TYPE_CHECKING:
    from ..world import World

FEW_ROOTS: Final = 100
"""Roots of a filter whose rows are found by their supervoxels; of more, all rows are gone through."""
BOOKKEEPING: Final = ("valid", "deleted", "superceded_id")


def live_query(world: World, call: Call) -> Reply:
    """``datastack/DS/query``."""
    body = body_of(call, LIVE_QUERY)
    live = understood(world, call, body)
    selection = body.get("select_columns")
    sources = {name: _without_rows(world, live, name) for name in live.tables}
    names = chosen_names(sources, live, selection, strict=call.strict)
    if call.strict:
        found = follow_the_server(world, live, selection)
    else:
        found = _state_at_the_time(world, live, sample_size(call), world.seed + call.now_ms)
    resolution = live.query.resolution or sources[live.tables[0]].resolution
    columns: list[pl.Expr] = []
    for name, renamed in names.items():
        shown = {c: n for c, n in renamed.items() if c != "deleted" or found.shows_deleted}
        columns += output(sources[name], shown, resolution, prefix=f"{name}.")
    rendering = Rendering(live.warnings, _price(live, found), index=found.index)
    return query_reply(call, Answer(found.frame.select(columns), names, resolution), rendering)


def _without_rows(world: World, live: LiveQuery, name: str) -> Source:
    rows = world.annotations.state(name, np.empty(0, np.int64), live.time_us, live.base).rows
    return live.source(world.annotations, name, rows.with_columns(NO_DELETION))


def _state_at_the_time(world: World, live: LiveQuery, sampled: int | None, seed: int) -> LiveRows:
    """The rows that are there at the time asked, each with its root ids of that time."""
    annotations = world.annotations
    sides, looked_up = [], {}
    for name in live.tables:
        state = annotations.state(name, _row_numbers(world, live, name), live.time_us, live.base)
        looked_up[name] = state.looked_up
        rows = state.rows.with_columns(NO_DELETION)
        source = live.source(annotations, name, rows)
        sides.append((source, filtered(source, only(live.query, lambda _, column: not _is_fixed(column)))))
    if sampled:
        sides[0] = (sides[0][0], sample(sides[0][1], sampled, seed))
    frame = joined(sides, live.keys)
    points = [f"{n}.{p}_supervoxel_id" for n in live.tables for p in world.tables[n].bound_points]
    known = frame.drop_nulls(points) if points else frame
    live.refuse_missing(frame.height - known.height)
    frame = known.slice(live.query.offset, live.limit)
    if frame.height == live.limit:
        live.warnings.append(truncation(live.limit))
    return LiveRows(frame, looked_up=_count_looked_up(world, frame, looked_up))


def _is_fixed(column: str) -> bool:
    """Whether a column's values never change, so that filters on it may be applied to the stored rows."""
    return not column.endswith(ROOT_ID) and column not in BOOKKEEPING


def _row_numbers(world: World, live: LiveQuery, name: str) -> Ids:
    """Numbers of the rows that are alive at the time and pass the filters on fixed columns.

    Rows that are newer than the version come first, as they do on the real server.
    """
    table = world.tables[name]
    rows, alive = table.rows.with_row_index(ROW), pl.Series(table.alive(live.time_us))
    listed = _rows_on_roots(world, live, name)
    rows = rows.filter(alive) if listed is None else rows[listed].filter(alive[listed])
    source = live.source(world.annotations, name, rows)
    passed = filtered(source, only(live.query, lambda _, column: _is_fixed(column)))
    old = passed["created"] <= from_us(live.base.time_us)
    return np.concatenate([passed.filter(mask)[ROW].to_numpy() for mask in (~old, old)]).astype(np.int64)


def _rows_on_roots(world: World, live: LiveQuery, name: str) -> Ids | None:
    """Numbers of the rows that lie on the roots that a filter names, ascending; None where no filter names a few.

    Roots of filters are current at the time, and their supervoxels never change: these are fewer than all rows', each
    of whose roots would have to be found.
    """
    for kind in ("filter_in_dict", "filter_equal_dict"):
        for column, value in live.query.filters.get(kind, {}).get(name, {}).items():
            point = column.removesuffix(f"_{ROOT_ID}")
            roots = value if isinstance(value, list) else [value]
            if point in world.tables[name].bound_points and column != point and len(roots) <= FEW_ROOTS:
                supervoxels, _ = world.graph.leaves_of([int(root) for root in roots if root is not None])
                return world.annotations.rows_by_supervoxel(name, point).find(supervoxels)
    return None


def _count_looked_up(world: World, frame: pl.DataFrame, looked_up: Mapping[str, Ids]) -> int:
    """How many supervoxels of the answer the server would have had to look up."""
    found = [
        np.isin(unique_ids(frame[f"{name}.{point}_supervoxel_id"].drop_nulls().to_numpy()), ids, assume_unique=True)
        for name, ids in looked_up.items()
        for point in world.tables[name].bound_points
    ]
    return sum(int(there.sum()) for there in found)


def _price(live: LiveQuery, found: LiveRows) -> float:
    """Service time: the rows, the look-ups, and the lineage of the root ids in filters."""
    roots = sum(
        len(value) if isinstance(value, list) else 1
        for by_table in live.query.filters.values()
        for by_column in by_table.values()
        for column, value in by_column.items()
        if column.endswith(ROOT_ID)
    )
    return (
        costs.LIVE_QUERY
        + found.frame.height * costs.LIVE_QUERY_PER_ROW
        + found.looked_up * costs.ROOT_LOOKUP_PER_ID
        + roots * costs.LINEAGE_PER_NODE
    )
