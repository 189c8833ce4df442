"""Synapses of many roots: complete, each once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from ._fanout import fan_out, running
from ._types import IdArray, Ids, When
from .errors import CortexError, CortexUsageError
from .frames import to_pandas
from .ids import as_ids
from .progress import ProgressLike
from .services._base import Session
from .services.materialize import AsyncMaterialize
from .services.materialize._answer import Part, finished, joined
from .services.materialize._filters import wire_filters
from .services.materialize._queries import framed
from .services.materialize._row_query import RowQuery
from .services.materialize._rows import Rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

PRE, POST = "pre_pt_root_id", "post_pt_root_id"
EDGES = {PRE: "int64", POST: "int64", "n_synapses": "int64", "sum_size": "float64"}


@dataclass(frozen=True)
class Synapses:
    """Where the synapses of a dataset are asked for."""

    session: Session
    materialize: AsyncMaterialize

    @property
    def _rows(self) -> Rows:
        return Rows(self.session, self.materialize)

    async def query(
        self,
        root_ids: Ids,
        pre: bool,
        post: bool,
        *,
        version: int | None,
        timestamp: When | None,
        live: bool,
        remove_autapses: bool,
        reference_tables: Sequence[str],
        suffixes: Mapping[str, str] | None,
        synapse_table: str | None,
        desired_resolution: Sequence[float] | None,
        split_positions: bool,
        progress: ProgressLike,
        timeout: float | None,
    ) -> pd.DataFrame:
        """See :meth:`cortexclient.AsyncCortexClient.query_synapses`."""
        roots = as_ids(root_ids, "root_ids")
        with running(timeout, progress, None) as reporter:
            sides = await self._sides(
                roots,
                pre=pre,
                post=post,
                version=version,
                timestamp=timestamp,
                live=live,
                synapse_table=synapse_table,
            )

            async def fetch(number: int) -> tuple[pa.Table, dict[str, Any]]:
                sift = _sieve(roots, second=number > 0, remove_autapses=remove_autapses)
                return await self._rows.fetch(
                    sides[number], desired_resolution, told=lambda rows: reporter.add(done=rows), sift=sift
                )

            try:
                found = await fan_out(range(len(sides)), fetch, 2)
            except CortexError as error:
                error.partial = _partial(error.partial, split_positions)
                raise
            attrs = found[0][1]
            table = joined([rows for rows, _ in found])
            for name in reference_tables:
                suffix = (suffixes or {}).get(name, f"_{name}")
                table = await self._with_reference(table, name, suffix, sides[0].when, desired_resolution)
        return framed(table, attrs | {"remove_autapses": remove_autapses}, split_positions)

    async def edges(
        self,
        root_ids: Ids,
        pre: bool,
        post: bool,
        *,
        version: int | None,
        timestamp: When | None,
        live: bool,
        remove_autapses: bool,
        synapse_table: str | None,
        progress: ProgressLike,
        timeout: float | None,
    ) -> pd.DataFrame:
        """See :meth:`cortexclient.AsyncCortexClient.synapse_edges`."""
        roots = as_ids(root_ids, "root_ids")
        sums: list[pa.Table] = []
        with running(timeout, progress, None) as reporter:
            sides = await self._sides(
                roots,
                pre=pre,
                post=post,
                version=version,
                timestamp=timestamp,
                live=live,
                synapse_table=synapse_table,
            )
            columns = [PRE, POST, "size"]

            async def fetch(number: int) -> None:
                side = replace(sides[number], select={sides[number].name: columns})
                sift = _sieve(roots, second=number > 0, remove_autapses=remove_autapses)

                async def add(part: Part) -> None:
                    rows = finished(part, side, None)
                    reporter.add(done=rows.num_rows)
                    sums.append(_summed(sift(rows)))

                await self._rows.each_part(side, add)

            await fan_out(range(len(sides)), fetch, 2)
        return _edge_frame(sums)

    async def _sides(
        self,
        roots: IdArray,
        *,
        pre: bool,
        post: bool,
        version: int | None,
        timestamp: When | None,
        live: bool,
        synapse_table: str | None,
    ) -> list[RowQuery]:
        """One query for each side."""
        if not pre and not post:
            raise CortexUsageError("pre=False, post=False: which synapses, then?")
        if live and version is not None:
            raise CortexUsageError("give a version or live=True, not both: a version is an instant")
        when = await self._rows.when(version, timestamp or (datetime.now(UTC) if live else None))
        name = synapse_table or await self._rows.synapse_table()
        columns = [column for column, wanted in ((PRE, pre), (POST, post)) if wanted]
        return [RowQuery(name, when, wire_filters({"filter_in_dict": {column: roots}}, name)) for column in columns]

    async def _with_reference(
        self, table: pa.Table, name: str, suffix: str, when: int | datetime, desired: Sequence[float] | None
    ) -> pa.Table:
        """Add the columns of a reference table's rows about these synapses; null where there is none."""
        import polars as pl

        ids = table.column("id").to_numpy()
        query = RowQuery(name, when, wire_filters({"filter_in_dict": {"target_id": ids}}, name))
        found, _ = await self._rows.fetch(query, desired)
        rows = pl.DataFrame(pl.from_arrow(table))
        about = pl.DataFrame(pl.from_arrow(found))
        merged = rows.join(about, left_on="id", right_on="target_id", how="left", suffix=suffix, maintain_order="left")
        return merged.to_arrow()


def _sieve(roots: IdArray, *, second: bool, remove_autapses: bool) -> Callable[[pa.Table], pa.Table]:
    """Which rows of a side to keep: of the second one not those of the first, whose other end is asked for too."""
    asked = np.sort(roots)

    def sift(rows: pa.Table) -> pa.Table:
        import pyarrow as pa

        if not rows.num_rows:
            return rows
        # a row without a root (-1, -2) is no autapse, and none of those asked for
        columns: list[Any] = [rows.column(PRE), rows.column(POST)]
        pre, post = (column.fill_null(none).to_numpy() for column, none in zip(columns, (-1, -2), strict=True))
        kept = pre != post if remove_autapses else np.ones(len(pre), np.bool_)
        if second:
            at = np.searchsorted(asked, pre).clip(max=len(asked) - 1)
            kept &= asked[at] != pre
        return rows if kept.all() else rows.filter(pa.array(kept))

    return sift


def _summed(rows: pa.Table) -> pa.Table:
    return rows.group_by([PRE, POST]).aggregate([("size", "count", _all()), ("size", "sum")])


def _all() -> Any:
    import pyarrow.compute as pc

    return pc.CountOptions(mode="all")


def _edge_frame(sums: list[pa.Table]) -> pd.DataFrame:
    total = joined(sums).group_by([PRE, POST]).aggregate([("size_count", "sum"), ("size_sum", "sum")])
    total = total.rename_columns(list(EDGES)).sort_by([(PRE, "ascending"), (POST, "ascending")])
    return to_pandas(total).astype(EDGES)


def _partial(partial: Any, split_positions: bool) -> pd.DataFrame | None:
    """What had come when a side failed: of the other one, if it was done, else of that one."""
    tables = [item[0] for item in partial] if isinstance(partial, list) else [partial]
    tables = [table for table in tables if table is not None]
    return to_pandas(joined(tables), split_positions) if tables else None
