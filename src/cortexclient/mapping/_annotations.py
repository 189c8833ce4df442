"""The rows that say where cells are, of one version or of one live instant."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from .._fanout import fan_out
from .._transport.disk import Codec
from .._types import IdArray
from ..errors import CortexUsageError, NotFoundError, ServerError, ServerRefusedError
from ..services._base import Session
from ..services.materialize import AsyncMaterialize

ROWS = {"cell": pl.Int64, "supervoxel": pl.Int64, "root": pl.Int64}
WHOLE_FROM = 20_000
"""From this many ids on, a whole table costs less than a filtered query, and it serves all later calls."""
LIVE_SECONDS = 60.0
"""How long live rows at one instant are kept: late entries may still be added to them."""


def _written(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_ipc(file, compression="zstd")
    return file.getvalue()


FRAMES = Codec[pl.DataFrame](_written, lambda data: pl.read_ipc(io.BytesIO(data)).select(*ROWS))


@dataclass(frozen=True, slots=True)
class Annotations:
    """Main and backup points as one version froze them, or as they were at one live instant.

    All rows come as ``cell, supervoxel, root``, where root is the one at ``time``.
    """

    session: Session
    materialize: AsyncMaterialize
    time: datetime
    version: int | None
    filterable: bool
    """Whether single rows can be asked for by their age: a merged version has no ``created`` column, a live query
    costs the same whether it returns one row or all."""

    @property
    def time_ms(self) -> int:
        """The instant in ms, floored as the servers do."""
        return int(self.time.timestamp() * 1000)

    async def backups(self) -> pl.DataFrame:
        """All rows of all backup tables (some thousands, kept); none of those that the version does not show."""
        names = self.session.spec.backup_tables
        parts = await fan_out(names, self._backups_in, len(names))
        return pl.concat([pl.DataFrame(schema=ROWS), *parts])

    async def _backups_in(self, table: str) -> pl.DataFrame:
        try:
            return await self._whole(table, "target_id")
        except NotFoundError:  # asking costs nothing but where there is none; a list of tables would cost a request
            return pl.DataFrame(schema=ROWS)

    async def mains(self) -> pl.DataFrame:
        """All rows of the main table (kept)."""
        return await self._whole(self._main_table(), "id")

    async def mains_on(self, roots: IdArray) -> pl.DataFrame:
        """Rows of the main table on these roots."""
        if not len(roots):
            return pl.DataFrame(schema=ROWS)
        return await self._mains_where("pt_root_id", "root", roots)

    async def mains_of(self, cells: IdArray) -> pl.DataFrame:
        """Rows of the main table for these cells."""
        if not len(cells):
            return pl.DataFrame(schema=ROWS)
        return await self._mains_where("id", "cell", cells)

    async def _mains_where(self, column: str, ours: str, ids: IdArray) -> pl.DataFrame:
        if not self.takes_whole(ids):
            try:
                return await self._frozen(self._main_table(), "id", filter_in_dict={column: ids})
            except (ServerError, ServerRefusedError) as error:
                if error.status > 500:
                    raise
        # also where the server chokes on one of the ids: no id is named in asking for the whole table
        return (await self.mains()).filter(pl.col(ours).is_in(pl.Series(ids).implode()))

    async def mains_since(self, when: datetime) -> pl.DataFrame:
        """Rows of the main table that were created after ``when`` (kept)."""
        created = {"created": when.replace(tzinfo=None).isoformat()}

        async def load() -> pl.DataFrame:
            return await self._frozen(self._main_table(), "id", filter_greater_dict=created)

        return await self.kept(("mains_since", when), load)

    def takes_whole(self, ids: IdArray) -> bool:
        """Whether the whole main table serves better than a filtered query: it is here, or many ids are asked."""
        return not self.filterable or len(ids) >= WHOLE_FROM or self.is_whole()

    def is_whole(self) -> bool:
        """Whether the whole main table is here."""
        return self.session.cache.holds((*self.key, self._main_table()))

    def _main_table(self) -> str:
        table = self.session.spec.nucleus_table
        if table is None:
            raise CortexUsageError(
                f"dataset {self.session.spec.name!r} names no table of cells: "
                "give DatasetSpec(nucleus_table=..., backup_tables=...)"
            )
        return table

    @property
    def key(self) -> tuple[Hashable, ...]:
        """What these annotations are, in few words."""
        return ("annotations", self.session.server, self.session.spec.datastack, self.version or self.time)

    async def _whole(self, table: str, cell_column: str) -> pl.DataFrame:
        async def load() -> pl.DataFrame:
            if self.version is None:
                return await self._live(table, cell_column)
            return await self._frozen(table, cell_column)

        return await self.kept((table,), load, codec=None if self.version is None else FRAMES)

    async def kept(
        self,
        key: tuple[Any, ...],
        load: Callable[[], Awaitable[pl.DataFrame]],
        codec: Codec[pl.DataFrame] | None = None,
    ) -> pl.DataFrame:
        """Load something that follows from these annotations once: for ever if they are frozen.

        With a ``codec`` it follows from nothing else, and is kept on disk too.
        """
        ttl = None if self.version is not None else LIVE_SECONDS
        frame: pl.DataFrame = await self.session.cache.get(
            (*self.key, *key), load, ttl=ttl, size=lambda rows: int(rows.estimated_size()), codec=codec
        )
        return frame

    async def _frozen(self, table: str, cell_column: str, **filters: Any) -> pl.DataFrame:
        columns = [cell_column, "pt_supervoxel_id", "pt_root_id"]
        found = await self.materialize.fetch_complete(table, columns, int(self.version or 0), **filters)
        return _rows(pl.DataFrame(found), cell_column)

    async def _live(self, table: str, cell_column: str) -> pl.DataFrame:
        columns = list(dict.fromkeys(["id", cell_column, "pt_supervoxel_id", "pt_root_id"]))
        found = await self.materialize.live_live_query(
            table, self.time, select_columns={table: columns}, split_positions=True, allow_missing_lookups=True
        )
        return _rows(pl.from_pandas(found), cell_column)


def _rows(found: pl.DataFrame, cell_column: str) -> pl.DataFrame:
    names = (cell_column, "pt_supervoxel_id", "pt_root_id")
    return found.select(
        pl.col(name).cast(kind).alias(new) for name, (new, kind) in zip(names, ROWS.items(), strict=True)
    ).drop_nulls()


def ids_of(frame: pl.DataFrame, column: str) -> IdArray:
    """One column as a sorted array of distinct ids."""
    return frame[column].unique().sort().to_numpy().astype(np.int64)
