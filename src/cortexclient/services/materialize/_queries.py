"""Rows of tables, joins and views, frozen and live, under caveclient's method names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from ..._fanout import fan_out, running
from ..._types import Ids, When
from ...errors import CortexUsageError
from ...frames import to_pandas
from ...ids import as_ids
from .._base import check_aware
from ._answer import chosen
from ._catalogue import Catalogue
from ._filters import NOT_IN, Filters, wire_filters
from ._row_query import RowQuery
from ._rows import Rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


class Queries(Catalogue):
    """Frozen and live rows, always whole."""

    @property
    def _rows(self) -> Rows:
        return Rows(self._session, self)

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
        timestamp: When | None = None,
        merge_reference: bool = True,
        split: bool = True,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query one table at a version or at any instant.

        Parameters
        ----------
        table
            Its name.
        select_columns
            Default: all; the answer has exactly these, in this order. A point is named by its stem (``pt_position``).
        offset, limit
            Skip and cap rows. The servers keep no order between calls: do not page with them.
        split_positions
            Points as three columns ``_x, _y, _z`` instead of one of (3,) arrays.
        desired_resolution
            Unit of the points in nm per axis; default: the table's own voxels. Fractions are kept.
        materialization_version, timestamp
            A version, or an instant (aware) at which the live tables are asked. Default: what the client is pinned to,
            else the newest version.
        merge_reference
            Join a reference table with the table that it refers to: its own columns keep their names, those of the
            other table that both have get ``_ref`` (in ``client.tables`` it is the other way round). Filters are about
            the table's own columns. False: its own columns only.
        split
            Ask in parts where the server's row cap cuts the answer; False: raise.
        **filters
            See :class:`Filters`.

        Returns
        -------
        DataFrame
            Ids int64. The first columns of a table are always ``id, created, superceded_id, valid`` (null where the
            server does not tell them), supervoxels and roots come last. ``attrs`` tell ``table_name``,
            ``materialization_version`` or ``timestamp``, ``dataframe_resolution`` (nm) and ``filters``.

        Raises
        ------
        TruncatedResult
            If rows are missing that could not be had by asking in parts (``.partial`` holds what came).
        NotFoundError
            If there is no such table or version.

        Examples
        --------
        >>> columns = ["id", "pt_root_id"]
        >>> wanted = {"id": [264898, 262893]}
        >>> await client.materialize.query_table("nucleus_detection_v0", select_columns=columns, filter_in_dict=wanted)
               id          pt_root_id
        0  262893  864691131820236620
        1  264898  864691134885645050
        """
        with running(timeout, None, None):
            when = await self._rows.when(materialization_version, timestamp)
            query = RowQuery(table, when, wire_filters(filters, table), offset=offset, limit=limit)
            base = (await self._rows.described(table, when)).get("reference_table") if merge_reference else None
            if base:
                suffixes = {table: "", base: "_ref"}
                query = replace(query, joins=((table, "target_id", base, "id"),), suffixes=suffixes)
                query, desired_resolution = await self._rows.on_grid(query, desired_resolution, base)
            elif select_columns is not None:
                query = replace(query, select={table: list(select_columns)})
            found, attrs = await self._rows.fetch(query, desired_resolution, split=split)
            if base and select_columns is not None:
                found = chosen(found, select_columns)
        return framed(found, attrs, split_positions)

    async def join_query(
        self,
        tables: Sequence[Sequence[str]],
        *,
        select_columns: Mapping[str, Sequence[str]] | None = None,
        suffixes: Mapping[str, str] | Sequence[str] | None = None,
        offset: int | None = None,
        limit: int | None = None,
        split_positions: bool = False,
        desired_resolution: Sequence[float] | None = None,
        materialization_version: int | None = None,
        split: bool = True,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Join two tables of a version: the pairs of rows in which two columns are equal.

        What is not explained here is as for :meth:`query_table`.

        Parameters
        ----------
        tables
            ``[[table, column], [table, column]]``.
        select_columns
            ``{table: [columns]}``; a table that is not named gives none.
        suffixes
            What is put behind names that both tables have: by table, or in their order. Default: ``x``, ``y``.
        desired_resolution
            Default: the voxels of the second table, for all points.
        **filters
            By table and column: ``filter_equal_dict={table: {column: value}}``.

        Returns
        -------
        DataFrame
            As for :meth:`query_table`; of two tables, ``superceded_id`` of neither.

        Examples
        --------
        >>> pair = [["aibs_metamodel_celltypes_v661", "target_id"], ["nucleus_detection_v0", "id"]]
        >>> joined = await client.materialize.join_query(pair, suffixes=["_type", "_nucleus"])
        >>> [column for column in joined if column.endswith("_type")]
        ['id_type', 'created_type', 'valid_type', 'cell_type']
        """
        if len(tables) != 2 or any(isinstance(pair, str) or len(pair) != 2 for pair in tables):
            raise CortexUsageError(f"two tables are joined by [[table, column], [table, column]], not {tables!r}")
        (first, column), (second, other) = tables
        named = (
            suffixes if isinstance(suffixes, Mapping) else dict(zip((first, second), suffixes or "xy", strict=False))
        )
        with running(timeout, None, None):
            when = await self._rows.when(materialization_version, None)
            select = None if select_columns is None else {name: list(c) for name, c in select_columns.items()}
            joins = ((first, column, second, other),)
            query = RowQuery(first, when, wire_filters(filters), joins, named, select, offset, limit)
            query, desired_resolution = await self._rows.on_grid(query, desired_resolution, second)
            found, attrs = await self._rows.fetch(query, desired_resolution, split=split)
        return framed(found, attrs | {"tables": [first, second]}, split_positions)

    async def synapse_query(
        self,
        pre_ids: Ids | None = None,
        post_ids: Ids | None = None,
        *,
        bounding_box: Sequence[Sequence[float]] | None = None,
        bounding_box_column: str = "post_pt_position",
        timestamp: When | None = None,
        remove_autapses: bool = True,
        include_zeros: bool = True,
        limit: int | None = None,
        offset: int | None = None,
        split_positions: bool = False,
        desired_resolution: Sequence[float] | None = None,
        materialization_version: int | None = None,
        synapse_table: str | None = None,
        timeout: float | None = None,
    ) -> pd.DataFrame:
        """Find synapses by their presynaptic and postsynaptic roots, both of which must match where both are given.

        What is not explained here is as for :meth:`query_table`.

        Parameters
        ----------
        bounding_box, bounding_box_column
            Only synapses with this point in this box (voxels of the table).
        remove_autapses
            Leave out synapses of a root with itself.
        include_zeros
            Keep synapses with a side outside the segmentation (root 0).
        synapse_table
            Default: that of the datastack.

        Returns
        -------
        DataFrame
            The columns of the synapse table.

        Examples
        --------
        >>> inputs = await client.materialize.synapse_query(post_ids=864691134885645050)
        >>> inputs["pre_pt_root_id"].nunique(), len(inputs)
        (47, 51)
        """
        chosen: dict[str, Any] = {"pre_pt_root_id": pre_ids, "post_pt_root_id": post_ids}
        wanted = {column: as_ids(ids, column) for column, ids in chosen.items() if ids is not None}
        filters: dict[str, Any] = {"filter_in_dict": wanted}
        if not include_zeros:
            filters["filter_out_dict"] = {column: [0] for column in chosen}
        if bounding_box is not None:
            filters["filter_spatial_dict"] = {bounding_box_column: bounding_box}
        frame = await self.query_table(
            synapse_table or await self._rows.synapse_table(),
            offset=offset,
            limit=limit,
            split_positions=split_positions,
            desired_resolution=desired_resolution,
            materialization_version=materialization_version,
            timestamp=timestamp,
            merge_reference=False,
            timeout=timeout,
            **filters,
        )
        if remove_autapses:
            frame = frame[frame["pre_pt_root_id"] != frame["post_pt_root_id"]].reset_index(drop=True)
        frame.attrs["remove_autapses"] = remove_autapses
        return frame

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
        split: bool = True,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query one view of a version; parameters, result and errors as in :meth:`query_table`.

        Examples
        --------
        >>> wanted = {"id": [264898, 262893]}
        >>> found = await client.materialize.query_view("nucleus_detection_lookup_v1", filter_in_dict=wanted)
        >>> found["pt_root_id"].to_list()
        [864691131820236620, 864691134885645050]
        """
        with running(timeout, None, None):
            when = await self._rows.when(materialization_version, None)
            select = None if select_columns is None else {view_name: list(select_columns)}
            query = RowQuery(
                view_name, when, wire_filters(filters, view_name), select=select, offset=offset, limit=limit, view=True
            )
            found, attrs = await self._rows.fetch(query, desired_resolution, split=split)
        return framed(found, attrs, split_positions)

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
        split: bool = True,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> pd.DataFrame:
        """Query a table as it was at any instant, rows and root ids alike.

        What is not explained here is as for :meth:`query_table`.

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
        allow_missing_lookups
            Leave out rows whose supervoxels were not looked up yet, instead of failing.
        allow_invalid_root_ids
            Leave out filter ids that were no current roots at ``timestamp``, instead of failing.

        Returns
        -------
        DataFrame
            ``attrs`` tell ``timestamp``.

        Examples
        --------
        >>> wanted = {"id": [264898, 262893]}
        >>> now = await client.materialize.live_live_query("nucleus_detection_v0", client.now(), filter_in_dict=wanted)
        >>> now["pt_root_id"].to_list()
        [864691131820236620, 864691134885645050]
        """
        query = RowQuery(
            table,
            check_aware(timestamp),
            wire_filters(filters, table),
            tuple((a, b, c, d) for a, b, c, d in joins),
            suffixes or {},
            None if select_columns is None else {name: list(columns) for name, columns in select_columns.items()},
            offset,
            limit,
            flags=live_flags(allow_missing_lookups, allow_invalid_root_ids),
        )
        with running(timeout, None, None):
            query, desired_resolution = await self._rows.on_grid(query, desired_resolution, table)
            found, attrs = await self._rows.fetch(query, desired_resolution, split=split)
        return framed(found, attrs, split_positions)

    async def query_count(
        self,
        table: str,
        *,
        materialization_version: int | None = None,
        timeout: float | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Count the rows that a query of a table would return; filters are as for :meth:`query_table`.

        Examples
        --------
        >>> await client.materialize.query_count(
        ...     "proofreading_status_and_strategy", filter_equal_dict={"status_axon": True}
        ... )
        15
        """
        with running(timeout, None, None):
            when = int((await self.queryable(materialization_version))["version"])
            query = RowQuery(table, when, wire_filters(filters, table))
            if NOT_IN in query.filters:  # which the server ignores when it counts, too
                rows, _ = await self._rows.fetch(replace(query, select={table: ["id"]}))
                return rows.num_rows
            return sum(await fan_out(query.by_lists(), self._rows.count, self._session.limits.of("materialize")))

    async def fetch_complete(
        self, table: str, columns: Sequence[str], version: int, **filters: Unpack[Filters]
    ) -> pa.Table:
        """Fetch some columns of all rows that match, ``id`` first, in no order; filters as for :meth:`query_table`.

        Examples
        --------
        >>> columns = ["id", "pt_root_id"]
        >>> table = await client.materialize.fetch_complete("nucleus_detection_v0", columns, 1412)
        >>> table.column_names, table.num_rows
        (['id', 'pt_root_id'], 1991)
        """
        select = list(dict.fromkeys(["id", *columns]))
        found, _ = await self._rows.fetch(
            RowQuery(table, version, wire_filters(filters, table), select={table: select})
        )
        return found


def live_flags(allow_missing_lookups: bool, allow_invalid_root_ids: bool) -> dict[str, str]:
    """The switches of a live query as it sends them."""
    flags = {"allow_missing_lookups": allow_missing_lookups, "allow_invalid_root_ids": allow_invalid_root_ids}
    return {name: str(value) for name, value in flags.items()}


def framed(found: pa.Table, attrs: Mapping[str, Any], split_positions: bool) -> pd.DataFrame:
    """The pandas face of an answer."""
    frame = to_pandas(found, split_positions)
    frame.attrs.update(attrs)
    return frame
