"""One question about rows, and how it is cut into smaller ones."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._types import IdArray
from ..._wire import endpoints
from ..._wire.endpoints import Endpoint
from ...errors import CortexUsageError
from ._filters import AT_LEAST, BELOW, IN, NOT_IN, WireFilters

LIST_BATCH = 10_000
"""Values that one request's list filter carries at most: some 200 kB."""
FILL = 0.5
"""How full a part is planned to be, as a share of the row cap: sizes are guesses, and a part that overflows is lost,
which costs more than one request more does."""
LIST_FILL = 0.7
"""The same of parts of a list: how many rows each value has was seen in the answer that did not fit."""
UNSEEN = 0.5
"""The share of rows that is dealt out evenly among the values of a list, as the rows that were seen may be of one
corner of the table."""
UNCOUNTED_PARTS = 8
"""Into so many parts a list is cut of which only is known that it does not fit."""
FINER = 8
"""Points are asked in units so much finer than needed where tables differ: the server cuts fractions off."""


@dataclass(frozen=True)
class RowQuery:
    """Rows of a table, of a view, or of an inner join of tables, at a version or an instant."""

    name: str
    """The table or view; of a join the table whose rows are followed up."""
    when: int | datetime
    """A version, or an instant for the live tables (aware UTC)."""
    filters: WireFilters = field(default_factory=dict)
    joins: tuple[tuple[str, str, str, str], ...] = ()
    """``(table, column, table, column)``, the first one naming ``name`` first."""
    suffixes: Mapping[str, str] = field(default_factory=dict)
    select: Mapping[str, Sequence[str]] | None = None
    """Columns by table; None: all."""
    offset: int | None = None
    limit: int | None = None
    view: bool = False
    grid: tuple[float, ...] | None = None
    """Of a join of tables of several resolutions: the nm per axis of which all of their points are multiples."""
    flags: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise CortexUsageError(f"limit={self.limit}: must be above zero (leave it out for all rows)")
        if self.offset is not None and self.offset < 0:
            raise CortexUsageError(f"offset={self.offset}: must not be below zero")
        if self.select is not None and not any(self.select.values()):
            raise CortexUsageError("select_columns names no column: leave it out for all of them")

    @property
    def tables(self) -> list[str]:
        """All tables of the query, the principal one first."""
        return list(dict.fromkeys([self.name, *(table for join in self.joins for table in (join[0], join[2]))]))

    @property
    def columns(self) -> set[tuple[str, str]]:
        """Table and name of all columns that the query names."""
        filtered = {(t, c) for by_table in self.filters.values() for t, columns in by_table.items() for c in columns}
        selected = {(table, column) for table, columns in (self.select or {}).items() for column in columns}
        keys = {side for join in self.joins for side in (join[:2], join[2:])}
        return filtered | selected | keys

    @property
    def live(self) -> bool:
        """Whether the live tables are asked."""
        return isinstance(self.when, datetime)

    @property
    def countable(self) -> bool:
        """Whether the server can count the rows (it ignores the wish for joins and live queries)."""
        return not (self.live or self.joins)

    @property
    def endpoint(self) -> Endpoint:
        """Where it goes."""
        if self.live:
            return endpoints.LIVE_QUERY
        if self.joins:
            return endpoints.JOIN_QUERY
        return endpoints.VIEW_QUERY if self.view else endpoints.TABLE_QUERY

    @property
    def path(self) -> dict[str, str | int]:
        """What the endpoint's path needs."""
        return {} if isinstance(self.when, datetime) else {"version": self.when, "name": self.name}

    def body(self) -> dict[str, Any]:
        """The request's body."""
        resolution = None if self.grid is None else [axis / FINER for axis in self.grid]
        values = {"offset": self.offset, "limit": self.limit, "desired_resolution": resolution}
        body: dict[str, Any] = {key: value for key, value in values.items() if value is not None} | dict(self.filters)
        wanted = self._sent_selection()
        if isinstance(self.when, datetime):
            body |= {"table": self.name, "timestamp": self.when.isoformat()}
            body |= {"join_tables": [list(join) for join in self.joins], "suffixes": dict(self.suffixes)}
            return body if wanted is None else body | {"select_columns": wanted}
        if self.joins:
            (first, column, second, other), *_ = self.joins
            body |= {"tables": [[first, column], [second, other]], "suffix_map": dict(self.suffixes)}
            return body if wanted is None else body | {"select_column_map": wanted}
        return body if wanted is None else body | {"select_columns": wanted[self.name]}

    def _sent_selection(self) -> dict[str, list[str]] | None:
        """What is selected on the wire: the server fails to select one single column, and parts are told by ``id``."""
        if self.select is None or (self.view and len(self.select[self.name]) < 2):
            return None
        always = [] if self.view else ["id"]
        excluded = self.filters.get(NOT_IN, {})  # which is applied here
        sent = {
            table: list(dict.fromkeys([*always, *columns, *excluded.get(table, ())]))
            for table, columns in self.select.items()
        }
        if sum(map(len, sent.values())) == 1:
            sent[self.name].append("valid")
        return sent

    def where(self, kind: str, column: str, value: Any, table: str | None = None) -> RowQuery:
        """The same with one more condition (or another value for one)."""
        table = table or self.name
        by_table = self.filters.get(kind, {})
        columns = {**by_table.get(table, {}), column: value}
        return replace(self, filters={**self.filters, kind: {**by_table, table: columns}})

    def longest_list(self) -> tuple[str, str, Any] | None:
        """Table, column and values of the longest list filter."""
        lists = [
            (table, column, values)
            for table, columns in self.filters.get(IN, {}).items()
            for column, values in columns.items()
        ]
        return max(lists, key=lambda item: len(item[2]), default=None)

    def by_lists(self, most: int = LIST_BATCH) -> list[RowQuery]:
        """Cut list filters until none has more than ``most`` values."""
        longest = self.longest_list()
        if longest is None or len(longest[2]) <= most:
            return [self]
        table, column, values = longest
        wanted = math.ceil(len(values) / most)
        edges = [len(values) * i // wanted for i in range(wanted + 1)]
        cut = [self.where(IN, column, values[low:high], table) for low, high in pairwise(edges)]
        return [part for one in cut for part in one.by_lists(most)]

    def dealt(self, parts: int, seen: Mapping[Any, int]) -> list[RowQuery]:
        """Cut the longest list filter into parts of about as many rows each; itself if it has no two values.

        Parameters
        ----------
        seen
            How many rows of some values came in an answer that had not all of them.
        """
        table, column, values = self.longest_list() or ("", "", ())
        wanted = min(len(values), parts)
        if wanted < 2:
            return [self]
        plain = values.tolist() if isinstance(values, np.ndarray) else values
        counts = np.array([seen.get(value, 0) for value in plain], np.float64)
        shares = UNSEEN / len(plain) + (1 - UNSEEN) * counts / max(counts.sum(), 1)
        hands = deal(shares, wanted)
        return [self.where(IN, column, [plain[at] for at in sorted(hand)], table) for hand in hands]

    def by_range(self, column: str, edges: Sequence[int]) -> list[RowQuery]:
        """Cut at values of an integer column: below the first edge, from there to the next, ... from the last on.

        The parts have no row in common: edges outside of the query's own range are left out.
        """
        low, high = (self.filters.get(kind, {}).get(self.name, {}).get(column) for kind in (AT_LEAST, BELOW))
        bounds = [None, *(e for e in edges if (low is None or e > low) and (high is None or e < high)), None]
        parts = []
        for low, high in pairwise(bounds):
            part = self if low is None else self.where(AT_LEAST, column, low)
            parts.append(part if high is None else part.where(BELOW, column, high))
        return parts


def deal(weights: npt.NDArray[np.float64], hands: int) -> list[list[int]]:
    """Positions dealt out so that all hands weigh about the same: the heaviest first, each to the lightest hand."""
    loads = [(0.0, hand) for hand in range(hands)]
    dealt: list[list[int]] = [[] for _ in range(hands)]
    for position in np.argsort(-weights, kind="stable").tolist():
        load, hand = loads[0]
        dealt[hand].append(position)
        heapq.heapreplace(loads, (load + weights[position], hand))
    return dealt


def list_parts(rows: int | None, cap: int) -> int:
    """Into how many parts to cut a list that has so many rows; None: more than fit."""
    return UNCOUNTED_PARTS if rows is None else max(2, math.ceil(rows / (LIST_FILL * cap)))


def edges_within(seen: IdArray, inside: int | None, above: int | None) -> list[int]:
    """Where to cut a range of ids of which some rows are known.

    Parameters
    ----------
    seen
        Sorted ids of the rows that a capped answer had: the lowest ones, or any.
    inside, above
        How many rows there are up to the highest of those, and beyond; None: not known.
    """
    low, high, cap = int(seen[0]), int(seen[-1]), len(seen)
    if inside is None or above is None:
        span = high - low + 1
        edges = [int(seen[cap // 2]), high + 1, high + 1 + span, high + 1 + 3 * span]
    else:
        within = math.ceil(inside / (FILL * cap))
        edges = [int(seen[cap * i // within]) for i in range(1, within)]
        beyond = math.ceil(above / (FILL * cap))
        width = max(1, round((high - low + 1) * FILL))
        edges += [high + 1 + width * i for i in range(beyond)]
    return sorted({edge for edge in edges if edge > low})


def split_column(found: Mapping[str, npt.NDArray[Any]]) -> str | None:
    """The integer column to cut a view by: ``id``, or whichever tells the most rows apart."""
    distinct = {column: len(np.unique(values)) for column, values in found.items()}
    best = max(distinct, key=lambda column: (column == "id", distinct[column]), default=None)
    return best if best is not None and distinct[best] > 1 else None
