"""Rows of tables and views, frozen and live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import numpy as np

from ..._fanout import fan_out, running
from ..._transport import Reply
from ..._types import When
from ..._wire import arrow, endpoints, json
from ..._wire.endpoints import Endpoint
from ...errors import CortexUsageError, DecodeError, NotFoundError, ServerError, ServerRefusedError, TruncatedResult
from ...frames import to_pandas
from .._base import check_aware
from ._catalogue import Catalogue

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Filters(TypedDict, total=False):
    """caveclient's filters: each maps columns to what they must be. All conditions must hold."""

    filter_in_dict: Mapping[str, Any]
    """Column to a list of values. An empty list matches no row."""
    filter_out_dict: Mapping[str, Any]
    """Column to a list of values that it must not have."""
    filter_equal_dict: Mapping[str, Any]
    filter_greater_dict: Mapping[str, Any]
    filter_less_dict: Mapping[str, Any]
    filter_greater_equal_dict: Mapping[str, Any]
    filter_less_equal_dict: Mapping[str, Any]
    filter_spatial_dict: Mapping[str, Any]
    """Point to a box ``[[xmin, ymin, zmin], [xmax, ymax, zmax]]`` in the table's own voxels."""
    filter_regex_dict: Mapping[str, str]
    """String column to a PostgreSQL pattern, searched anywhere, case-sensitive."""


TRUNCATED = ("Limited query to", "more results which are not shown")
"""What the ``Warning`` header says when rows may be missing; nothing in the body does."""
EMPTY_TABLE = "returned no results"
"""How a live query on a table without any rows is refused (MaterializationEngine 5.26)."""


def _wire_filters(name: str, filters: Filters) -> dict[str, Any]:
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        raise CortexUsageError(
            f"no filter is called {', '.join(sorted(unknown))}; there are {', '.join(Filters.__annotations__)}"
        )
    given = cast(dict[str, Mapping[str, Any]], filters)
    renamed = {"filter_notin_dict" if key == "filter_out_dict" else key: value for key, value in given.items()}
    return {key: {name: {column: _plain(v) for column, v in value.items()}} for key, value in renamed.items() if value}


def _plain(value: Any) -> Any:
    """A filter value as JSON knows it: arrays, Series and sets become lists, exactly."""
    if isinstance(value, set | frozenset | range):
        return list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.isoformat() if hasattr(value, "isoformat") else value


class Queries(Catalogue):
    """Frozen and live rows."""

    async def query_table(
        self,
        table: str,
        *,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        split_positions: bool = False,
        desired_resolution: Sequence[float] | None = None,
        materialization_version: int | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query one table of a version.

        Parameters
        ----------
        table
            Its name. A reference table comes with its own columns only; join it by ``target_id``.
        select_columns
            Default: all. A point is named by its stem (``pt_position``).
        offset, limit
            Skip and cap rows. The servers keep no order between calls: do not page with them.
        split_positions
            Points as three columns ``_x, _y, _z`` instead of one of (3,) arrays.
        desired_resolution
            Unit of the points in nm per axis; default: the table's own voxels.
        materialization_version
            Default: the client's pinned version, else the newest.
        **filters
            See :class:`Filters`.

        Returns
        -------
        DataFrame
            Ids int64. ``attrs`` tell ``table_name``, ``materialization_version`` and ``dataframe_resolution`` (nm).

        Raises
        ------
        TruncatedResult
            If the server's row cap cut the answer (``.partial`` holds what came); narrow it, or give a ``limit``.
        NotFoundError
            If there is no such table or version.
        """
        body = _body(select_columns, offset, limit, desired_resolution)
        with running(timeout, None, None):
            version = await self._version(materialization_version)
            found, reply = await self._rows(endpoints.TABLE_QUERY, table, version, body, filters)
        return _framed(found, reply, split_positions, table_name=table, materialization_version=version)

    async def query_view(
        self,
        view_name: str,
        *,
        select_columns: Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        split_positions: bool = False,
        desired_resolution: Sequence[float] | None = None,
        materialization_version: int | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query one view of a version; parameters, result and errors as in :meth:`query_table`."""
        body = _body(select_columns, offset, limit, desired_resolution)
        with running(timeout, None, None):
            version = await self._version(materialization_version)
            found, reply = await self._rows(endpoints.VIEW_QUERY, view_name, version, body, filters)
        return _framed(found, reply, split_positions, table_name=view_name, materialization_version=version)

    async def live_live_query(
        self,
        table: str,
        timestamp: When,
        *,
        joins: Sequence[Sequence[str]] = (),
        suffixes: Mapping[str, str] | None = None,
        select_columns: Mapping[str, Sequence[str]] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        split_positions: bool = False,
        desired_resolution: Sequence[float] | None = None,
        allow_missing_lookups: bool = False,
        allow_invalid_root_ids: bool = False,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query a table as it was at any instant, rows and root ids alike.

        Parameters
        ----------
        table
            The principal table; filters are about its columns.
        timestamp
            The instant (aware).
        joins
            Inner joins: ``[[table1, column1, table2, column2], ...]``.
        suffixes
            Suffix for the columns of each joined table.
        select_columns
            ``{table: [columns]}``; every table of the query must then be named.
        offset, limit, split_positions, desired_resolution, filters
            As for :meth:`query_table`.
        allow_missing_lookups
            Leave out rows whose supervoxels were not looked up yet, instead of failing.
        allow_invalid_root_ids
            Leave out filter ids that were no current roots at ``timestamp``, instead of failing.

        Returns
        -------
        DataFrame
            As for :meth:`query_table`; ``attrs`` tell ``timestamp``.
        """
        when = check_aware(timestamp)
        body = _body(None, offset, limit, desired_resolution) | {
            "table": table,
            "timestamp": when.isoformat(),
            "join_tables": [list(join) for join in joins],
            "suffixes": dict(suffixes or {}),
        }
        if select_columns is not None:
            body["select_columns"] = {name: list(columns) for name, columns in select_columns.items()}
        query = {
            "allow_missing_lookups": str(allow_missing_lookups),
            "allow_invalid_root_ids": str(allow_invalid_root_ids),
        }
        attrs = {"table_name": table, "timestamp": when.isoformat()}
        with running(timeout, None, None):
            try:
                found, reply = await self._send_query(endpoints.LIVE_QUERY, body | _wire_filters(table, filters), query)
            except ServerRefusedError as error:
                if EMPTY_TABLE not in error.detail:
                    raise
                return _no_rows(body.get("select_columns", {}), attrs)
            found = _excluded(found, filters)
            if _may_be_cut(reply, found.num_rows, limit):
                raise _truncated(found, table)
        return _framed(found, reply, split_positions, **attrs)

    async def query_count(
        self,
        table: str,
        *,
        materialization_version: int | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Count the rows of a table that pass the filters, without fetching them."""
        with running(timeout, None, None):
            version = await self._version(materialization_version)
            return await self._count(endpoints.TABLE_QUERY, table, version, filters)

    async def _count(self, endpoint: Endpoint, name: str, version: int, filters: Filters) -> int:
        body = _wire_filters(name, filters)
        path: dict[str, str | int] = {"version": version, "name": name}
        found, _ = await self._send_query(endpoint, body, {"count": "True"}, path)
        return int(found.column("count")[0].as_py())

    async def _rows(
        self, endpoint: Endpoint, name: str, version: int, body: dict[str, Any], filters: Filters
    ) -> tuple[pa.Table, Reply]:
        """Send one query, and prove that its answer is whole unless the caller asked for a part."""
        wanted = body.get("select_columns")
        hidden = [column for column in filters.get("filter_out_dict", {}) if wanted and column not in wanted]
        if hidden:  # needed here to exclude by, not by the caller
            body = body | {"select_columns": [*body["select_columns"], *hidden]}
        try:
            found, reply = await self._send_query(
                endpoint, body | _wire_filters(name, filters), path={"version": version, "name": name}
            )
        except (NotFoundError, ServerError, ServerRefusedError) as error:
            await self._explain(name, version, error)
            raise
        # the warning also comes when the whole answer has exactly as many rows as the cap: count them
        cut = _may_be_cut(reply, found.num_rows, body.get("limit"))
        if cut and await self._count(endpoint, name, version, filters) != found.num_rows:
            raise _truncated(found, name)
        return _excluded(found, filters).drop_columns(hidden), reply

    async def _send_query(
        self,
        endpoint: Endpoint,
        body: dict[str, Any],
        query: Mapping[str, str] = {},
        path: Mapping[str, str | int] = {},
    ) -> tuple[pa.Table, Reply]:
        query = {"return_pyarrow": "True", "arrow_format": "True", "direct_sql_pandas": "True"} | dict(query)
        reply = await self._session.send(endpoint, path, query=query, body=json.encode(body))
        return arrow.decode_table(reply.body), reply

    async def fetch_complete(
        self, table: str, columns: Sequence[str], version: int, **filters: Unpack[Filters]
    ) -> pa.Table:
        """Fetch all rows that match the filters, however many, and prove it by the server's own count.

        Where the row cap cuts an answer, the range of ``id`` is halved until no part is cut; never by offset, since the
        servers keep no order between calls.

        Returns
        -------
        pyarrow.Table
            The selected columns, ``id`` first; in no particular order.
        """
        import pyarrow as pa

        select = list(dict.fromkeys(["id", *columns]))

        async def part(bounds: tuple[int | None, int | None]) -> list[pa.Table]:
            low, high = bounds
            try:
                found, _ = await self._rows(
                    endpoints.TABLE_QUERY, table, version, {"select_columns": select}, _within(filters, low, high)
                )
            except TruncatedResult as error:
                middle = int(np.median(error.partial.column("id").to_numpy()))
                if middle == low:
                    raise
                halves = await fan_out([(low, middle), (middle, high)], part, 2)
                return halves[0] + halves[1]
            return [found]

        return pa.concat_tables(await part((None, None))).select(select)


def _body(
    select: Sequence[str] | None, offset: int | None, limit: int | None, resolution: Sequence[float] | None
) -> dict[str, Any]:
    if limit is not None and limit <= 0:
        raise CortexUsageError(f"limit={limit}: must be above zero (leave it out for all rows)")
    values = {
        "select_columns": None if select is None else list(select),
        "offset": offset,
        "limit": limit,
        "desired_resolution": None if resolution is None else [float(value) for value in resolution],
    }
    return {key: value for key, value in values.items() if value is not None}


def _within(filters: Filters, low: int | None, high: int | None) -> Filters:
    """Add a range of row ids, low <= id < high, to the filters."""
    above = {} if low is None else {"id": low}
    below = {} if high is None else {"id": high}
    return Filters(
        **{
            **filters,
            "filter_greater_equal_dict": {**filters.get("filter_greater_equal_dict", {}), **above},
            "filter_less_dict": {**filters.get("filter_less_dict", {}), **below},
        }
    )


def _may_be_cut(reply: Reply, rows: int, limit: int | None) -> bool:
    """Whether rows may be missing that the caller did not do without."""
    warned = any(text in reply.headers.get("warning", "") for text in TRUNCATED)
    return warned and (limit is None or rows < limit)


def _truncated(found: pa.Table, name: str) -> TruncatedResult:
    error = TruncatedResult(
        f"the server stopped after {found.num_rows:,} rows of {name}: narrow the filters, or give a limit "
        "(.partial holds the rows that came)"
    )
    error.partial = found
    return error


def _excluded(found: pa.Table, filters: Filters) -> pa.Table:
    """Apply exclusion filters here too: the servers accept and ignore them (MaterializationEngine 5.26)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column, values in filters.get("filter_out_dict", {}).items():
        if column not in found.column_names:
            raise CortexUsageError(f"filter_out_dict names {column!r}, which is no column of the answer")
        listed = pa.array(_plain(values), found.schema.field(column).type)
        found = found.filter(pc.invert(pc.is_in(found.column(column), listed)))
    return found


def _no_rows(select: Mapping[str, Sequence[str]], attrs: Mapping[str, Any]) -> pd.DataFrame:
    """Stand in for the answer about a table without rows; its columns are unknown but for those that were named."""
    import pandas as pd

    frame = pd.DataFrame({column: [] for columns in select.values() for column in columns})
    frame.attrs.update(attrs)
    return frame


def _framed(found: pa.Table, reply: Reply, split_positions: bool, **attrs: Any) -> pd.DataFrame:
    frame = to_pandas(found, split_positions)
    text = reply.headers.get("dataframe_resolution")
    try:
        attrs["dataframe_resolution"] = None if text is None else [float(value) for value in text.split(",")]
    except ValueError as error:
        raise DecodeError(f"the header dataframe_resolution is no list of numbers: {text!r}") from error
    frame.attrs.update(attrs)
    return frame
