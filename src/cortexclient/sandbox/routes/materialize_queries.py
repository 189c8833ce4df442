"""Queries on frozen tables and views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from .. import costs
from ..calls import Call, Reply
from ..queries import (
    Answer,
    Refused,
    Source,
    filtered,
    joined,
    matching,
    output,
    output_names,
    refuse_single_column,
    sample,
    select,
    selected,
    table_source,
    view_source,
)
from ..query_body import JOIN_QUERY, TABLE_QUERY
from .materialize_protocol import (
    Rendering,
    body_of,
    flag,
    notice,
    query_of,
    query_reply,
    readable_table,
    refuse_expired,
    refuse_other_tables,
    row_limit,
    sample_size,
    version_of,
)

if TYPE_CHECKING:
    from ..world import World

SELECT_COLUMNS_DEPRECATED = (
    "Select_columns is deprecated for join queries, please use select_column_map a dictionary which is more explicit "
    "about what columns to select from what tables. This query result will attempt to select the first column it finds "
    "of this name in any table, but if there are more than one such column it will not select both. Upgrade caveclient "
    "to >=5.0.0 ."
)
SUFFIXES_DEPRECATED = "Suffixes is deprecated for join queries, please use suffix_map, a dictionary of table to suffix."


def table_query(world: World, call: Call) -> Reply:
    """``version/V/table/T/query``."""
    version = version_of(world, call)
    body = body_of(call, TABLE_QUERY)
    table = readable_table(world, call, call.params["table"], version)
    source = table_source(world.annotations, table.name, version)
    if not (call.strict and version.is_merged):  # the alias that is sampled is not the one that is read
        source = _sampled(world, call, source)
    return _single(world, call, source, body, notice(table.name, table.notice_text))


def view_query(world: World, call: Call) -> Reply:
    """``version/V/views/W/query``."""
    version = version_of(world, call)
    body = body_of(call, TABLE_QUERY)
    view = world.views.get(call.params["view"])
    if view is None:
        raise Refused("No row was found for one()", 404)
    refuse_expired(version, view.name)
    source = view_source(world.annotations, view.name, version)
    return _single(world, call, source, body, notice(view.name, view.notice_text))


def _single(world: World, call: Call, source: Source, body: Mapping[str, Any], notices: Sequence[str]) -> Reply:
    """Answer a query on one table or view."""
    query = query_of(call, body)
    refuse_other_tables(query, [source.name])
    columns = select(source, body.get("select_columns"), strict=call.strict)
    limit = row_limit(world, query, source.name)
    names = {source.name: {column: column for column in columns}}
    resolution = query.resolution or source.resolution
    numbers = matching(source, query)
    counted = flag(call, "count")
    if counted:
        rows = source.frame.height if numbers is None else len(numbers)
        frame = pl.DataFrame({"count": [max(rows - query.offset, 0)]})
    else:
        part = slice(query.offset, query.offset + limit)
        kept = [name for column in columns for name in source.parts(column)] or source.frame.columns[:1]
        frame = source.frame.select(kept)[part if numbers is None else numbers[part]]
        frame = frame.select(output(source, names[source.name], resolution))
    rendering = Rendering(
        warnings=[*_truncation(frame.height, limit), *notices],
        price=_price(frame.height),
        view=source.view,
        counted=counted,
    )
    return query_reply(call, Answer(frame, names, resolution), rendering)


def join_query(world: World, call: Call) -> Reply:
    """``version/V/query``: an inner join of two tables."""
    version = version_of(world, call)
    body = body_of(call, JOIN_QUERY)
    pairs = body["tables"]
    names = [name for name, _ in pairs]
    tables = [readable_table(world, call, name, version) for name in names]
    if len(set(names)) != 2 or len(names) != 2:
        raise Refused(f"Don't know how to join {names}: two different tables are needed")
    query = query_of(call, body)
    refuse_other_tables(query, names)
    sources = [table_source(world.annotations, name, version) for name in names]
    sources[0] = _sampled(world, call, sources[0])
    for source, (_, key) in zip(sources, pairs, strict=True):
        if key not in source.columns:
            raise Refused(repr(key))
    selections, deprecations = _join_selections(sources, body, strict=call.strict)
    suffixes = body.get("suffix_map", dict(zip(names, body.get("suffixes", ()), strict=False)))
    if "suffixes" in body:
        deprecations.append(SUFFIXES_DEPRECATED)
    outputs = output_names(selections, suffixes)
    limit = row_limit(world, query, " JOIN ".join(names))
    resolution = query.resolution or sources[-1].resolution
    rows = joined([(s, filtered(s, query)) for s in sources], [(*pairs[0], *pairs[1])])
    frame = rows.slice(query.offset, limit).select(_join_output(selections, outputs, resolution))
    notices = [text for table in tables for text in notice(table.name, table.notice_text)]
    warnings = [*notices, *deprecations, *_truncation(frame.height, limit)]
    return query_reply(call, Answer(frame, outputs, resolution), Rendering(warnings, _price(frame.height)))


def _join_selections(
    sources: Sequence[Source], body: Mapping[str, Any], *, strict: bool
) -> tuple[list[tuple[Source, list[str]]], list[str]]:
    """The columns of each table of a join, blocks in alphabetical order; and warnings of deprecated forms.

    (On the real server the blocks come in the order of an unordered set.)
    """
    ordered = sorted(sources, key=lambda source: source.name)
    if "select_column_map" in body:
        wanted = {name: list(columns) for name, columns in body["select_column_map"].items() if columns}
        by_name = {source.name: source for source in sources}
        for name, columns in wanted.items():
            for column in columns:
                if name not in by_name or column not in by_name[name].columns:
                    raise Refused(f"column {column} not found in {name}", 400, aborted=True)
        deprecations = []
    elif "select_columns" in body:
        wanted = {source.name: [] for source in sources}
        for column in body["select_columns"]:
            holder = next((source for source in sources if column in source.columns), None)
            if holder is None:
                raise Refused(f"column {column} not found in any of the referenced tables", 400, aborted=True)
            wanted[holder.name].append(column)
        deprecations = [SELECT_COLUMNS_DEPRECATED]
    else:
        return [(source, list(source.columns)) for source in ordered], []
    selections = [(source, selected(source, wanted[source.name])) for source in ordered if wanted.get(source.name)]
    if strict:
        refuse_single_column(selections)
    return selections, deprecations


def _join_output(
    selections: Sequence[tuple[Source, Sequence[str]]],
    outputs: Mapping[str, Mapping[str, str]],
    resolution: Sequence[float],
) -> list[pl.Expr]:
    """The columns of a join's answer; ``superceded_id`` is named in the header, but never sent."""
    columns = []
    for source, _ in selections:
        names = {column: name for column, name in outputs[source.name].items() if column != "superceded_id"}
        columns += output(source, names, resolution, prefix=f"{source.name}.")
    return columns


def _sampled(world: World, call: Call, source: Source) -> Source:
    """The source cut to a random sample, if one is asked for."""
    size = sample_size(call)
    if not size:
        return source
    return replace(source, frame=sample(source.frame, size, world.seed + call.now_ms), index=None)


def _truncation(rows: int, limit: int) -> list[str]:
    """The warning that an answer may be cut off; it comes also when it just happens to have as many rows."""
    return [f'201 - "Limited query to {limit} rows'] if rows == limit else []


def _price(rows: int) -> float:
    return costs.TABLE_QUERY + rows * costs.TABLE_QUERY_PER_ROW
