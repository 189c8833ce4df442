"""A query of a table or view: what to ask is settled when it is made, how the rows come when it is sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import anyio

from .._costs import CostEstimate, Step, step
from .._fanout import fan_out, first_error, running
from .._types import When
from ..errors import CortexError, CortexUsageError
from ..frames import to_pandas
from ..progress import ProgressLike
from ..results import BatchStream
from ..services._base import check_aware
from ..services.materialize._answer import Part, chosen, finished
from ..services.materialize._filters import IN
from ..services.materialize._forecast import Forecast, forecast
from ..services.materialize._queries import framed, live_flags
from ..services.materialize._row_query import RowQuery
from ._fields import Info, conditions, not_found, row_bytes, unknown
from ._register import Register

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    import pyarrow as pa


BYTES_OF_AN_ID = 19
"""In JSON."""


@dataclass(frozen=True)
class Wish:
    """How an answer is wanted."""

    columns: Sequence[str] | None = None
    offset: int | None = None
    limit: int | None = None
    resolution: Sequence[float] | None = None
    version: int | None = None
    timestamp: When | None = None
    split: bool = True
    progress: ProgressLike = None
    timeout: float | None = None
    flags: Mapping[str, str] = field(default_factory=dict)


class AsyncViewQuery:
    """A query that is ready to be sent, as often as you like."""

    def __init__(self, register: Register, name: str, merge_reference: bool, arguments: Mapping[str, Any]) -> None:
        self._register = register
        self._name = name
        self._merge = merge_reference
        self._arguments = dict(arguments)
        if register.known is not None:
            self._conditions(register.known)

    async def query(
        self,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        desired_resolution: Sequence[float] | None = None,
        split_positions: bool = False,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        split: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch all rows that match.

        Parameters
        ----------
        select_columns
            Default: all; the answer has exactly these, in this order. A point is named by its stem (``pt_position``).
        offset, limit
            Skip and cap rows. The servers keep no order between calls: do not page with them.
        desired_resolution
            Unit of the points in nm per axis; default: the table's own voxels. Fractions are kept.
        split_positions
            Points as three columns ``_x, _y, _z`` instead of one of (3,) arrays.
        version, timestamp
            A materialization version, or an instant (aware) at which the live tables are asked. Default: what the
            client is pinned to, else the newest version.
        split
            Ask in parts where the server's row cap cuts the answer; False: raise.
        progress, timeout
            See :class:`~cortexclient.Progress` (rows, not ids); seconds for the whole call.

        Returns
        -------
        DataFrame
            Ids int64; the same columns in the same order at a version and at any instant. ``attrs`` tell
            ``table_name``, ``materialization_version`` or ``timestamp``, ``dataframe_resolution`` (of the points, nm),
            ``table_voxel_resolution`` and ``filters``.

        Raises
        ------
        NotFoundError
            If there is no such table; with the nearest names.
        CortexUsageError
            If there is no such column or filter, or a value does not fit.
        TruncatedResult
            If rows are missing that could not be had by asking in parts. ``.partial`` holds what came, as it does of
            every other error.

        Examples
        --------
        >>> checked = client.tables.proofreading_status_and_strategy(status_axon=True)
        >>> frame = await checked.query(["id", "valid_id"], version=1412)
        >>> frame.dtypes.to_dict()
        {'id': dtype('int64'), 'valid_id': dtype('int64')}
        """
        wish = Wish(select_columns, offset, limit, desired_resolution, version, timestamp, split, progress, timeout)
        return await self._framed(wish, split_positions)

    async def query_polars(
        self,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        desired_resolution: Sequence[float] | None = None,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        split: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pl.DataFrame:
        """Fetch all rows that match as a polars frame; points as ``_x, _y, _z``. See :meth:`query`.

        Examples
        --------
        >>> frame = await client.tables.nucleus_detection_v0(id=[264898, 262893]).query_polars(["id", "pt_root_id"])
        >>> frame.sort("id").rows()
        [(262893, 864691131820236620), (264898, 864691134885645050)]
        """
        import polars as pl

        found, _ = await self._fetched(
            Wish(select_columns, offset, limit, desired_resolution, version, timestamp, split, progress, timeout)
        )
        return pl.DataFrame(found)

    async def query_arrow(
        self,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        desired_resolution: Sequence[float] | None = None,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        split: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pa.Table:
        """Fetch all rows that match as an Arrow table, as they travel; points as ``_x, _y, _z``. See :meth:`query`.

        What ``attrs`` tell of a pandas frame stands as JSON under ``cortexclient`` in the schema's metadata.

        Examples
        --------
        >>> table = await client.tables.nucleus_detection_v0(id=[264898, 262893]).query_arrow(["id", "pt_position"])
        >>> table.column_names
        ['id', 'pt_position_x', 'pt_position_y', 'pt_position_z']
        """
        found, attrs = await self._fetched(
            Wish(select_columns, offset, limit, desired_resolution, version, timestamp, split, progress, timeout)
        )
        return found.replace_schema_metadata({"cortexclient": json.dumps(attrs)})

    def stream(
        self,
        select_columns: Sequence[str] | None = None,
        desired_resolution: Sequence[float] | None = None,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> BatchStream:
        """Hand out rows as they arrive, as Arrow record batches, in bounded memory and no order; see :meth:`query`.

        Examples
        --------
        >>> async with client.tables.nucleus_detection_v0().stream(["id"]) as batches:
        ...     sum([batch.num_rows async for batch in batches])
        1994
        """
        wish = Wish(
            select_columns,
            resolution=desired_resolution,
            version=version,
            timestamp=timestamp,
            progress=progress,
            timeout=timeout,
        )
        return BatchStream(lambda: self._batches(wish))

    async def count(
        self, version: int | None = None, timestamp: When | None = None, *, timeout: float | None = None
    ) -> int:
        """Count the rows that match, without fetching them.

        Joins and live tables, which the server cannot count, are counted by fetching the ids alone.

        Examples
        --------
        >>> await client.tables.proofreading_status_and_strategy(status_axon=True).count()
        15
        """
        with running(timeout, None, None):
            query, unit = await self._prepared(Wish(version=version, timestamp=timestamp))
            rows = self._register.rows
            if query.countable:
                workers = self._register.session.limits.of("materialize")
                return sum(await fan_out(query.by_lists(), rows.count, workers))
            ids = {name: ["id"] for name in query.tables}
            found, _ = await rows.fetch(replace(query, select=ids), unit)
        return int(found.num_rows)

    async def plan(
        self,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        *,
        version: int | None = None,
        timestamp: When | None = None,
        row_cap: int | None = None,
        timeout: float | None = None,
    ) -> CostEstimate:
        """Estimate what the query will cost, before any of its rows travels; parameters are those of :meth:`query`.

        What is sent to know it: a count of the rows for each 10,000 values of the longest list filter, and what any
        first query asks about the tables.

        Parameters
        ----------
        row_cap
            How many rows the server gives at once. Default: what an answer that was cut has shown, else 200,000.

        Returns
        -------
        CostEstimate
            Shows itself as a table: requests, bytes, seconds, and which limit binds. ``least`` and ``most`` are equal
            where no answer exceeds the row cap; else ``most`` holds if no part has to be cut twice. Joins and live
            tables, which the server cannot count, have ``rows`` at most: those of the table alone, and those of the
            newest version without filters by root.

        Examples
        --------
        >>> estimate = await client.tables.synapses_pni_2(pre_pt_root_id=864691134885645050).plan()
        >>> estimate.least.requests
        1
        """
        with running(timeout, None, None):
            wish = Wish(select_columns, offset, limit, version=version, timestamp=timestamp)
            query, _ = await self._prepared(wish)
            known = await self._register.load(query.when if isinstance(query.when, int) else None)
            expected = await forecast(self._register.rows, query, row_cap)
        infos = [info for info in self._infos(known) if info is not None]
        return self._estimate(query, expected, row_bytes(infos, select_columns))

    def _estimate(self, query: RowQuery, expected: Forecast, size: int) -> CostEstimate:
        """Price what is foreseen; a row takes ``size`` bytes."""
        listed = sum(len(values) for by in query.filters.get(IN, {}).values() for values in by.values())
        workers = self._register.session.limits.of(query.endpoint.service)

        def priced(what: str, requests: int, rows: int, *, sure: bool) -> Step:
            return step(
                what,
                query.endpoint,
                requests,
                rows,
                workers=workers,
                payload=rows * size + listed * BYTES_OF_AN_ID,
                sure=sure,
                packed_by=expected.bound_by,
            )

        first = priced(f"rows of {query.name}", expected.least, expected.least_rows, sure=True)
        more, rows = expected.most - expected.least, expected.most_rows - expected.least_rows
        again = (priced("parts of what is cut", more, rows, sure=False),) if more else ()
        return CostEstimate(repr(self), listed, listed, (first, *again), expected.rows)

    async def _fetched(self, wish: Wish) -> tuple[pa.Table, dict[str, Any]]:
        with running(wish.timeout, wish.progress, wish.limit) as reporter:
            query, unit = await self._prepared(wish)
            found, attrs = await self._register.rows.fetch(
                query, unit, split=wish.split, told=lambda rows: reporter.add(done=rows)
            )
        attrs["table_voxel_resolution"] = self._own_resolution(query)
        return (found if query.select else chosen(found, wish.columns)), attrs

    async def _framed(self, wish: Wish, split_positions: bool) -> pd.DataFrame:
        try:
            found, attrs = await self._fetched(wish)
        except CortexError as error:
            if error.partial is not None:
                error.partial = to_pandas(error.partial, split_positions)
            raise
        return framed(found, attrs, split_positions)

    async def _prepared(self, wish: Wish) -> tuple[RowQuery, Sequence[float] | None]:
        """The query for the server, and the unit of its points."""
        register = self._register
        when = await register.rows.when(wish.version, wish.timestamp)
        if register.views and isinstance(when, datetime):
            raise CortexUsageError("views are kept by versions alone: give version= instead of a timestamp")
        known = await register.load(when if isinstance(when, int) else None)
        info, base = self._infos(known)
        query = RowQuery(
            self._name,
            when,
            conditions(info, base, self._arguments),
            offset=wish.offset,
            limit=wish.limit,
            view=register.views,
            flags=wish.flags if isinstance(when, datetime) else {},
        )
        if base is None:
            _check_columns(info, wish.columns)
            select = None if wish.columns is None else {info.name: list(wish.columns)}
            return replace(query, select=select), wish.resolution
        joins = ((info.name, "target_id", base.name, "id"),)
        query = replace(query, joins=joins, suffixes={info.name: "_ref", base.name: ""})
        return await register.rows.on_grid(query, wish.resolution, base.name)

    @asynccontextmanager
    async def _batches(self, wish: Wish) -> AsyncIterator[AsyncIterator[pa.RecordBatch]]:
        workers = self._register.session.limits.of("materialize")
        with running(wish.timeout, wish.progress, None) as reporter, first_error():
            query, unit = await self._prepared(wish)
            send, receive = anyio.create_memory_object_stream[Any](workers)

            async def emit(part: Part) -> None:
                table = finished(part, query, unit)
                reporter.add(done=table.num_rows)
                for batch in (table if query.select else chosen(table, wish.columns)).to_batches():
                    await send.send(batch)

            async def fetch() -> None:
                async with send:
                    await self._register.rows.each_part(query, emit)

            async with anyio.create_task_group() as group, receive:
                group.start_soon(fetch)
                yield receive
                group.cancel_scope.cancel()

    def _infos(self, known: Mapping[str, Info]) -> tuple[Info, Info | None]:
        """What is known of the table, and of the one that it is joined with."""
        if self._name not in known:
            raise not_found(f"there is no {self._register.what[:-1]}", self._name, known)
        info = known[self._name]
        base = info.reference_table if self._merge else None
        return info, None if base is None else known.get(base, Info(base))

    def _conditions(self, known: Mapping[str, Info]) -> None:
        conditions(*self._infos(known), self._arguments)

    def _own_resolution(self, query: RowQuery) -> list[float] | None:
        info = (self._register.known or {}).get(query.name)
        return None if info is None or info.resolution is None else list(info.resolution)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={_short(value)}" for name, value in self._arguments.items() if value is not None)
        return f"<{type(self).__name__} {self._name}({given})>"


class AsyncTableQuery(AsyncViewQuery):
    """A query that is ready to be sent, as often as you like: at a version, or at any instant."""

    async def live_query(
        self,
        timestamp: When,
        offset: int | None = None,
        limit: int | None = None,
        desired_resolution: Sequence[float] | None = None,
        *,
        split_positions: bool = False,
        allow_missing_lookups: bool = False,
        allow_invalid_root_ids: bool = False,
        select_columns: Sequence[str] | None = None,
        split: bool = True,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Fetch all rows as they were at an instant (aware), root ids included; see :meth:`query`.

        Parameters
        ----------
        allow_missing_lookups
            Leave out rows whose supervoxels were not looked up yet, instead of failing.
        allow_invalid_root_ids
            Leave out filter ids that were no current roots at ``timestamp``, instead of failing.

        Examples
        --------
        >>> query = client.tables.nucleus_detection_v0(id=[264898, 262893])
        >>> now = await query.live_query(client.now(), select_columns=["id", "pt_root_id"])
        >>> sorted(now["id"])
        [262893, 264898]
        """
        wish = Wish(
            select_columns,
            offset,
            limit,
            desired_resolution,
            timestamp=check_aware(timestamp),
            split=split,
            progress=progress,
            timeout=timeout,
            flags=live_flags(allow_missing_lookups, allow_invalid_root_ids),
        )
        return await self._framed(wish, split_positions)


def _check_columns(info: Info, columns: Sequence[str] | None) -> None:
    if info.columns is not None:
        known = {*info.columns, "superceded_id"}
        for column in columns or ():
            if column not in known:
                raise unknown(f"{info.name} has no column", column, known)


def _short(value: Any) -> str:
    text = repr(value) if not hasattr(value, "__len__") or len(value) < 5 else f"[{len(value):,} values]"
    return text if len(text) < 60 else f"{text[:57]}..."
