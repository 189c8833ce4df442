"""What a query will send, before it is sent: its rows are counted, and the rest follows from how it would be cut."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..._fanout import fan_out
from ._filters import WireFilters
from ._row_query import FILL, LIST_BATCH, UNCOUNTED_PARTS, RowQuery, list_parts
from ._rows import Rows

DEFAULT_CAP = 200_000
"""Rows that a reply has at most where no cut one was seen yet (MaterializationEngine's own default; some have more)."""


@dataclass(frozen=True)
class Forecast:
    """Requests and rows of a query: at least, and at most if no part of it has to be cut twice."""

    least: int
    most: int
    rows: int
    """That match; where the server cannot count, no more than these."""
    least_rows: int
    """That travel, those of replies that were cut and asked for again in parts included."""
    most_rows: int
    bound_by: str

    def __add__(self, other: Forecast) -> Forecast:
        return Forecast(
            self.least + other.least,
            self.most + other.most,
            self.rows + other.rows,
            self.least_rows + other.least_rows,
            self.most_rows + other.most_rows,
            max(self.bound_by, other.bound_by, key=lambda text: "row cap" in text),
        )


async def forecast(rows: Rows, query: RowQuery, row_cap: int | None = None) -> Forecast:
    """Count the rows of a query (a request for each 10,000 values of its longest list) and foresee its parts."""
    cap = row_cap or rows.row_cap() or DEFAULT_CAP
    known = "" if row_cap or rows.row_cap() else ", not seen here yet"
    limit = f"the row cap ({cap:,} rows a reply{known})"
    parts = query.by_lists() if query.offset is None else [query]
    bounds = [await _countable(rows, part) for part in parts]
    distinct = {repr(bound.body()): bound for bound in bounds}  # without its list of roots each part is the same
    counts = dict(
        zip(
            distinct,
            await fan_out(distinct.values(), rows.count, rows.session.limits.of("materialize")),
            strict=True,
        )
    )
    found = [_of_part(part, counts[repr(bound.body())], cap, limit) for part, bound in zip(parts, bounds, strict=True)]
    total = sum(found[1:], found[0])
    return total if query.limit is None else _limited(total, query.limit, len(parts), cap)


async def _countable(rows: Rows, query: RowQuery) -> RowQuery:
    """A query that the server can count, whose rows are no fewer.

    Of a join, it is the principal table alone; of live tables, the newest version's without filters by root.
    """
    if query.countable:
        return query
    filters = {kind: {query.name: by[query.name]} for kind, by in query.filters.items() if query.name in by}
    if not isinstance(query.when, datetime):
        return replace(query, joins=(), suffixes={}, filters=filters)
    version = (await rows.catalogue.queryable())["version"]
    return replace(query, joins=(), suffixes={}, when=version, filters=_without_roots(filters), flags={})


def _without_roots(filters: WireFilters) -> WireFilters:
    kept: dict[str, Mapping[str, Mapping[str, Any]]] = {}
    for kind, by_table in filters.items():
        kept[kind] = {
            table: {column: value for column, value in columns.items() if not column.endswith("_root_id")}
            for table, columns in by_table.items()
        }
    return kept


def _of_part(query: RowQuery, n: int, cap: int, limit: str) -> Forecast:
    """What one request becomes for which the server has so many rows."""
    exact = query.countable
    if n < cap:
        return Forecast(1, 1, n, n, n, f"the values in a list ({LIST_BATCH:,})")
    if n == cap:  # a reply that is just full looks like one that was cut, so that its rows are counted
        return Forecast(2 if exact else 1, 2, n, n, n, limit)
    if query.offset is not None:  # which cannot be cut into parts
        return Forecast(2, 2, cap, cap, cap, limit)
    if not exact:
        levels = 1 + math.ceil(math.log(n / cap, UNCOUNTED_PARTS))
        most = 1 + UNCOUNTED_PARTS * math.ceil(n / cap) * levels
        return Forecast(1, most, n, cap, n * (1 + levels), limit)
    return _cut_once_or_twice(query, n, cap, limit)


def _cut_once_or_twice(query: RowQuery, n: int, cap: int, limit: str) -> Forecast:
    """The reply that is lost, the counts, the parts; and those of the parts that may have to be cut again."""
    _, _, values = query.longest_list() or ("", "", ())
    if len(values) > 1:
        parts = min(len(values), list_parts(n, cap))
        counts, fewest = 1, parts
    else:  # ranges of ids below and above the last one seen; of views the ids may be few
        ranges = max(2, math.ceil(n / (FILL * cap)))
        counts, fewest, parts = 2, 2 if query.view else ranges, ranges + 1
    overflowing = min(n // cap, parts)
    again = overflowing * (counts + 2) + math.ceil(n / (FILL * cap))
    lost = n + cap
    return Forecast(1 + counts + fewest, 1 + counts + parts + again, n, lost, lost + overflowing * cap, limit)


def _limited(all_rows: Forecast, limit: int, parts: int, cap: int) -> Forecast:
    """The same for a query that stops when it has enough."""
    most = parts if limit <= cap else all_rows.most
    rows = min(all_rows.rows, limit)
    bound_by = all_rows.bound_by if limit > cap else "limit="
    return Forecast(1, max(most, 1), rows, rows, min(all_rows.most_rows, limit * most), bound_by)
