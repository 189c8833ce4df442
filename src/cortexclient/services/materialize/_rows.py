"""Complete answers: a query is cut until no part hits the server's row cap, and the rows are counted.

One mechanism for everybody who wants rows. The servers keep no order between calls, so nothing is paged by offset.
"""

from __future__ import annotations

import ast
import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import numpy as np

from ..._fanout import fan_out
from ..._transport import Reply
from ..._types import When
from ..._wire import arrow, json
from ...errors import (
    CortexError,
    CortexUsageError,
    DecodeError,
    NotFoundError,
    ServerError,
    ServerRefusedError,
    TruncatedResult,
)
from ...frames import AXES
from .._base import Session, check_aware
from ._answer import Part, attributes, checked_unit, common_grid, finished, joined, no_column, resolution_of
from ._catalogue import Catalogue, explain
from ._filters import ABOVE
from ._row_query import FINER, RowQuery, edges_within, list_parts, split_column

if TYPE_CHECKING:
    import pyarrow as pa

TRUNCATED = ("Limited query to", "more results which are not shown")
"""What the ``Warning`` header says when rows may be missing; nothing in the body does."""
EMPTY_TABLE = "returned no results"
"""How a live query on a table without any rows is refused (MaterializationEngine 5.26)."""
THREADED = 1 << 20
"""Bodies from this size on are unpacked in a thread: smaller ones cost less than the way there."""


@dataclass(frozen=True)
class Rows:
    """Sends queries, cuts and counts them."""

    session: Session
    catalogue: Catalogue

    async def fetch(
        self,
        query: RowQuery,
        desired: Sequence[float] | None = None,
        *,
        split: bool = True,
        told: Callable[[int], object] | None = None,
        sift: Callable[[pa.Table], pa.Table] | None = None,
    ) -> tuple[pa.Table, dict[str, Any]]:
        """All rows of a query and what its frame tells of itself; an error's ``partial`` holds those that had come.

        Of each part that arrives, ``told`` is called with the number of rows, and ``sift`` says which ones to keep,
        before anything else is done to them.
        """
        checked_unit(desired)
        tables: list[pa.Table] = []
        units: list[tuple[float, ...] | None] = []

        async def keep(part: Part) -> None:
            table = part.table if sift is None else sift(part.table)
            tables.append(finished(replace(part, table=table), query, desired))
            units.append(resolution_of(part, desired))
            if told is not None:
                told(part.table.num_rows)

        try:
            await self.each_part(query, keep, split=split)
        except CortexError as error:
            error.partial = joined(tables) if tables else None
            raise
        return joined(tables), attributes(query, units[0])

    async def when(self, version: int | None, timestamp: When | None) -> int | datetime:
        """What a query is about: its own version or instant, else the client's, else the newest version.

        An instant that is exactly a version's is that version, of which the live tables refuse to tell.
        """
        if version is not None and timestamp is not None:
            raise CortexUsageError("give a version or a timestamp, not both: a version is an instant")
        pinned = self.session.timestamp if version is None else None
        if timestamp is None and pinned is None:
            return int((await self.catalogue.queryable(version))["version"])
        instant = check_aware(timestamp if timestamp is not None else pinned)  # type: ignore[arg-type]
        frozen = [v["version"] for v in await self.catalogue.get_versions_metadata() if v["time_stamp"] == instant]
        return int(frozen[0]) if frozen else instant

    async def on_grid(
        self, query: RowQuery, desired: Sequence[float] | None, default: str
    ) -> tuple[RowQuery, Sequence[float] | None]:
        """Ask the points of a join in a unit in which those of all its tables are whole numbers.

        Returns also the unit of the answer: the one that is wanted, else that of the table ``default``.
        """
        if not query.joins:
            return query, desired
        metadata = await asyncio.gather(*(self.described(name, query.when) for name in query.tables))
        resolutions = {name: item["voxel_resolution"] for name, item in zip(query.tables, metadata, strict=True)}
        return replace(query, grid=common_grid(resolutions.values())), desired or resolutions[default]

    async def synapse_table(self) -> str:
        """Name of the datastack's synapse table."""
        name = (await self.session.record()).get("synapse_table")
        if not name:
            raise CortexUsageError(f"{self.session.spec.datastack} names no synapse table: give synapse_table=")
        return str(name)

    async def described(self, table: str, when: int | datetime) -> dict[str, Any]:
        return await self.catalogue.get_table_metadata(table, when if isinstance(when, int) else None)

    async def _version(self) -> int:
        return self.session.version or await self.catalogue.most_recent_version()

    async def each_part(
        self,
        query: RowQuery,
        emit: Callable[[Part], Awaitable[None]],
        *,
        split: bool = True,
        workers: int | None = None,
    ) -> None:
        """Hand on all rows of a query, part by part as they arrive, in no particular order.

        Raises
        ------
        TruncatedResult
            The row cap was hit and ``split`` is False, or there is no column to cut by; or the parts do not add up to
            the rows that the server counts.
        """
        workers = workers or self.session.limits.of("materialize")
        await _Run(self, query, emit, split, workers).start()

    async def ask(self, query: RowQuery) -> Part:
        """Send one query as it is."""
        try:
            reply = await self._post(query)
        except ServerRefusedError as error:
            if not (query.live and EMPTY_TABLE in error.detail):
                await self._explain_query(query, error)
                raise
            return await self._empty(query)
        except (NotFoundError, ServerError) as error:
            await self._explain_query(query, error)
            raise
        with _naming(query):
            table = await _unpacked(reply)
            warned = any(text in reply.headers.get("warning", "") for text in TRUNCATED)
            # a limit of the caller's own is warned of in the same words
            cut = warned and (query.limit is None or table.num_rows < query.limit)
            part = Part(table, _resolution(reply, query), _names(reply), cut)
        if cut and not query.live:  # live rows are filtered once more when they have been cut
            await self.session.cache.keep(self._cap_key, table.num_rows)
        return part

    @property
    def _cap_key(self) -> tuple[str, ...]:
        return "row_cap", self.session.server, self.session.spec.datastack

    def row_cap(self) -> int | None:
        """How many rows a reply has at most, as the last one showed that was cut."""
        cap: int | None = self.session.cache.peek(self._cap_key)
        return cap

    async def count(self, query: RowQuery) -> int:
        """Count the rows of a query on one frozen table or view, without fetching them."""
        plain = replace(query, select=None, limit=None, grid=None)
        try:
            reply = await self._post(plain, {"count": "True"})
        except (NotFoundError, ServerError, ServerRefusedError) as error:
            await self._explain_query(query, error)
            raise
        with _naming(query):
            return int(arrow.decode_table(reply.body).column("count")[0].as_py())

    async def _post(self, query: RowQuery, extra: dict[str, str] = {}) -> Reply:  # noqa: B006 (never changed)
        options = {"return_pyarrow": "True", "arrow_format": "True", "direct_sql_pandas": "True"}
        options |= dict(query.flags) | extra
        return await self.session.send(query.endpoint, query.path, query=options, body=json.encode(query.body()))

    async def _explain_query(self, query: RowQuery, error: CortexError) -> None:
        """Raise a better error if a version, a table or a column is the reason of the failure, else return."""
        version = query.when if isinstance(query.when, int) else await self._version()
        for name in query.tables:
            await explain(self.catalogue, name, version, error)
        for table, column in sorted(query.columns):
            if (
                column in str(error)
                and (there := await self._columns(table, version, query.view))
                and column not in there
            ):
                raise no_column(table, column, there) from error

    async def _columns(self, table: str, version: int, view: bool) -> set[str]:
        """The columns of a table or view; none if they cannot be had."""
        try:
            return set((await self.ask(RowQuery(table, version, view=view, limit=1))).names.get(table, ()))
        except CortexError:
            return set()

    async def _empty(self, query: RowQuery) -> Part:
        """Stand in for a live answer of no rows, which the server refuses; the columns are the newest version's."""
        frozen = replace(query, when=await self._version(), filters={}, flags={}, limit=1)
        try:
            part = await self.ask(frozen)
        except CortexError:  # the table is younger than the version
            return Part(_no_rows(query), None, {})
        return replace(part, table=part.table.slice(0, 0), cut=False)


@dataclass
class _Run:
    """One query on its way to completeness."""

    rows: Rows
    query: RowQuery
    emit: Callable[[Part], Awaitable[None]]
    split: bool
    workers: int

    def __post_init__(self) -> None:
        self._slots = anyio.Semaphore(self.workers)  # nested fan-outs share it: so many answers are held at once
        self._got = 0

    async def start(self) -> None:
        parts = self.query.by_lists() if self.split and self.query.offset is None else [self.query]
        await fan_out(parts, self._part, self.workers)

    async def _part(self, query: RowQuery) -> int:
        """Fetch a part, in smaller ones where it does not fit; how many rows it had."""
        if self._enough():
            return 0
        async with self._slots:
            part = await self.rows.ask(query)
            if not part.cut:
                return await self._hand_on(part)
        return await self._divide(query, part)

    async def _divide(self, query: RowQuery, seen: Part) -> int:
        rows = seen.table.num_rows
        total = await self.rows.count(query) if query.countable else None
        if total == rows:  # the warning also comes when the whole answer has exactly as many rows as the cap
            return await self._hand_on(seen)
        parts = await self._smaller(query, seen, total) if self.split and query.offset is None and rows else []
        if len(parts) < 2:
            await self._hand_on(seen)
            raise truncated(seen, query, total)
        got = sum(await fan_out(parts, self._part, self.workers))
        if total is not None and got != total and not self._enough():
            raise TruncatedResult(f"the server counts {total:,} rows of {query.name}, but gave {got:,}")
        return got

    async def _smaller(self, query: RowQuery, seen: Part, total: int | None) -> list[RowQuery]:
        """Cut by the longest list of ids, else by ranges of an integer column."""
        by_list = query.dealt(list_parts(total, seen.table.num_rows), _rows_of_each(query, seen))
        if len(by_list) > 1:
            return by_list
        column, ids = _to_cut_by(query, seen)
        if column is None:
            return []
        above = await self.rows.count(query.where(ABOVE, column, int(ids[-1]))) if total is not None else None
        inside = total - above if total is not None and above is not None else None
        return query.by_range(column, edges_within(ids, inside, above))

    async def _hand_on(self, part: Part) -> int:
        rows = part.table.num_rows
        limit = self.query.limit
        if limit is not None and self._got + rows > limit:
            part = replace(part, table=part.table.slice(0, max(limit - self._got, 0)))
        self._got += rows
        await self.emit(part)
        return rows

    def _enough(self) -> bool:
        return self.query.limit is not None and self._got >= self.query.limit


def _rows_of_each(query: RowQuery, seen: Part) -> dict[Any, int]:
    """How many rows of each value of the longest list an answer has; nothing if it lacks that column."""
    table, column, _ = query.longest_list() or ("", "", ())
    name = seen.names.get(table, {}).get(column, column)
    if name not in seen.table.column_names:
        return {}
    counted = seen.table.column(name).value_counts()
    return dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_numpy().tolist(), strict=True))


def _to_cut_by(query: RowQuery, seen: Part) -> tuple[str | None, Any]:
    """The column whose ranges a query is cut into, and its sorted values so far."""
    import pyarrow as pa

    if query.view:
        integers = [f.name for f in seen.table.schema if f.type == pa.int64() and not f.name.endswith(AXES)]
        column = split_column({name: _values(seen.table, name) for name in integers})
        return column, None if column is None else _values(seen.table, column)
    name = seen.names.get(query.name, {}).get("id", "id")
    return "id", _values(seen.table, name)


def _values(table: pa.Table, column: str) -> Any:
    return np.sort(table.column(column).drop_null().to_numpy())


def truncated(seen: Part, query: RowQuery, total: int | None) -> TruncatedResult:
    """The error for an answer that stays cut."""
    of = "" if total is None else f" of {total:,}"
    why = "an offset cannot be cut into parts" if query.offset is not None else "narrow the filters, or give a limit"
    return TruncatedResult(
        f"the server stopped after {seen.table.num_rows:,}{of} rows of {query.name}: {why} (.partial holds them)"
    )


@contextmanager
def _naming(query: RowQuery) -> Iterator[None]:
    """Tell in an error about a reply whose reply it was."""
    try:
        yield
    except DecodeError as error:
        error.endpoint = str(query.endpoint)
        raise


async def _unpacked(reply: Reply) -> pa.Table:
    if len(reply.body) < THREADED:
        return arrow.decode_table(reply.body)
    return await anyio.to_thread.run_sync(arrow.decode_table, reply.body)


def _resolution(reply: Reply, query: RowQuery) -> tuple[float, ...] | None:
    text = reply.headers.get("dataframe_resolution")
    try:
        found = None if text is None else tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise DecodeError(f"the header dataframe_resolution is no list of numbers: {text!r}") from error
    if found is not None and len(found) != 3:
        raise DecodeError(f"the header dataframe_resolution has {len(found)} axes: {text!r}")
    return found if query.grid is None else tuple(axis / FINER for axis in query.grid)


def _names(reply: Reply) -> dict[str, dict[str, str]]:
    return _read_names(reply.headers.get("column_names", "{}"))


@functools.lru_cache
def _read_names(text: str) -> dict[str, dict[str, str]]:
    """The header ``column_names``, which is Python, not JSON; all parts of an answer have the same."""
    try:
        return dict(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError) as error:
        raise DecodeError(f"the header column_names cannot be read: {text[:80]!r}") from error


def _no_rows(query: RowQuery) -> pa.Table:
    import pyarrow as pa

    columns = ["id"] if query.select is None else [c for columns in query.select.values() for c in columns]
    return pa.table({column: pa.array([], pa.int64()) for column in dict.fromkeys(columns)})
