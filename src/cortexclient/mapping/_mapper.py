"""Translation in both directions, and the frames that it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from .._coalesce import FEW, Found
from .._fanout import running, together
from .._types import IdArray, Ids, When
from ..errors import CortexError, CortexUsageError
from ..ids import as_ids, layer_of, unique_ids
from ..progress import ProgressLike, Reporter
from ..services._base import Session, check_aware
from ..services.chunkedgraph import AsyncChunkedGraph
from ..services.materialize import AsyncMaterialize
from ..services.materialize._versions import safe_to_ask
from ._annotations import Annotations
from ._search import RootSearch
from ._verdict import ANSWERS, REPLACED, in_doubt, points_of, roots_of_points, without_cell

if TYPE_CHECKING:
    import pandas as pd


class IdMapper:
    """Translates root ids to cell ids and back.

    Parameters
    ----------
    session, materialize, graph
        The connection, and the two services that know the answers.
    """

    def __init__(self, session: Session, materialize: AsyncMaterialize, graph: AsyncChunkedGraph) -> None:
        self._session = session
        self._materialize = materialize
        self._graph = graph

    async def root_id_to_cell_id(
        self,
        root_ids: Ids,
        *,
        version: int | None,
        timestamp: When | None,
        live: bool,
        detail: bool,
        progress: ProgressLike,
        timeout: float | None,
    ) -> pd.DataFrame:
        """See `AsyncCortexClient.root_id_to_cell_id`."""
        asked = as_ids(root_ids, "root_ids")
        unique, inverse = unique_ids(asked)
        with running(timeout, progress, len(unique)) as reporter:
            reference = await self._reference(version, timestamp, live)

            async def load(roots: IdArray, reporter: Reporter) -> pl.DataFrame:
                return _in_order(roots, "root", await self._answers(roots, reference, reporter))

            rows = await self._joined(("root_id_to_cell_id", *reference.key), unique, load, reporter)
        return _framed(rows[inverse], asked, ("root", "cell"), reference, detail)

    async def cell_id_to_root_id(
        self,
        cell_ids: Ids,
        *,
        timestamp: When | None,
        version: int | None,
        live: bool,
        detail: bool,
        progress: ProgressLike,
        timeout: float | None,
    ) -> pd.DataFrame:
        """See `AsyncCortexClient.cell_id_to_root_id`."""
        asked = as_ids(cell_ids, "cell_ids")
        unique, inverse = unique_ids(asked)
        with running(timeout, progress, len(unique)) as reporter:
            reference = await self._reference(version, timestamp if live else None, live)
            moved = None if live or timestamp is None else check_aware(timestamp)

            async def load(cells: IdArray, _: Reporter) -> pl.DataFrame:
                return _in_order(cells, "cell", await self._roots_of(cells, reference, moved))

            rows = await self._joined(("cell_id_to_root_id", moved, *reference.key), unique, load, reporter)
        return _framed(rows[inverse], asked, ("cell", "root"), reference, detail)

    async def _joined(
        self,
        key: tuple[Hashable, ...],
        ids: IdArray,
        load: Callable[[IdArray, Reporter], Awaitable[pl.DataFrame]],
        reporter: Reporter,
    ) -> pl.DataFrame:
        """One row for each id, in their order; calls about few ids travel together with others like them."""

        async def load_together(ids: IdArray) -> Found:
            return Found(await load(ids, Reporter(None, None)))

        if 0 < len(ids) <= FEW:
            rows: pl.DataFrame = (await self._session.coalescer.ask(key, ids, load_together)).values
        else:
            rows = await load(ids, reporter)
        reporter.add(len(ids) - reporter.done)
        return rows

    async def reference(self, version: int | None) -> Annotations:
        """The annotations of a version, by default of the newest one."""
        return await self._reference(version, None, live=False)

    async def _reference(self, version: int | None, timestamp: When | None, live: bool) -> Annotations:
        """The annotations that answer."""
        if version is not None and (live or timestamp is not None):
            raise CortexUsageError("give the version of the tables, or the instant of the live ones, not both")
        pinned = self._session.version is not None or version is not None
        if live or timestamp is not None or (self._session.timestamp is not None and not pinned):
            when = (await self._session.snapshot(timestamp)).timestamp
            # the live tables refuse to tell of an instant that is exactly a version's (MaterializationEngine 5.26)
            for item in await self._materialize.get_versions_metadata():
                if item["time_stamp"] == when:
                    return self._of_version(item)
            return Annotations(self._session, self._materialize, when, None, filterable=False)
        return self._of_version(await self._materialize.queryable(version))

    async def _older(self, reference: Annotations) -> list[Annotations]:
        """The annotations of older versions that may help."""
        return [
            self._of_version(item)
            for item in await self._materialize.get_versions_metadata()
            if item["time_stamp"] < reference.time and safe_to_ask(item)
        ]

    def _of_version(self, item: dict[str, Any]) -> Annotations:
        return Annotations(
            self._session, self._materialize, item["time_stamp"], item["version"], filterable=not item["is_merged"]
        )

    async def _answers(self, roots: IdArray, reference: Annotations, reporter: Reporter) -> pl.DataFrame:
        """Answer from what earlier calls found, and search for the rest."""
        known = await self._known(reference)
        answers = known.of(roots)
        fresh = np.setdiff1d(roots, answers["root"].to_numpy())
        reporter.add(len(answers))
        if not len(fresh):
            return answers
        top = int((await self._graph.segmentation_info())["graph"]["n_layers"])
        is_root = layer_of(fresh) == top
        found = without_cell(fresh[~is_root], "invalid")
        if is_root.any():
            search = RootSearch(self._session, reference, lambda: self._older(reference))
            found = pl.concat([found, await search.answer(fresh[is_root], reporter)])
        known.add(found)
        return pl.concat([answers, found])

    async def _known(self, reference: Annotations) -> Known:
        if reference.version is None:  # live tables may still change: every call asks again
            return Known()

        async def load() -> Known:
            return Known()

        session = self._session
        known: Known = await session.cache.get(
            ("known", session.server, session.spec.datastack, reference.version), load
        )
        return known

    async def _roots_of(self, cells: IdArray, reference: Annotations, moved: datetime | None) -> pl.DataFrame:
        """One row for each cell that has a point: ``cell, root, status, source, n_matches, at``."""
        mains, backups = await together(lambda: reference.mains_of(cells), reference.backups)
        backups = backups.filter(pl.col("cell").is_in(pl.Series(cells).implode()))
        rows = pl.concat([mains, backups])
        points = points_of(mains, backups).join(rows, on=["cell", "supervoxel"]).unique()
        if moved is None:
            return roots_of_points(points, reference.time_ms)
        errors: dict[int, CortexError] = {}
        roots = await AsyncChunkedGraph(self._session, errors).get_roots(points["supervoxel"].to_numpy(), moved)
        points = points.with_columns(pl.Series("root", roots, pl.Int64))
        lost = points.filter(pl.col("supervoxel").is_in(list(errors)) & (pl.col("source") != REPLACED))
        doubts = dict.fromkeys(lost["cell"].to_list(), "unresolved")
        return in_doubt(roots_of_points(points, int(moved.timestamp() * 1000)), "cell", doubts)


class Known:
    """Answers that cannot change any more, by root."""

    LIMIT = 10_000_000
    """Rows (about 0.5 GB): beyond it, all are forgotten and found again."""

    def __init__(self) -> None:
        self._frame = pl.DataFrame(schema=ANSWERS)

    def of(self, roots: IdArray) -> pl.DataFrame:
        """The answers there are for these roots."""
        return self._frame.join(pl.DataFrame({"root": roots}, schema={"root": pl.Int64}), on="root", how="semi")

    def add(self, answers: pl.DataFrame) -> None:
        """Keep answers; an id that does not exist today, or fails, may be answered tomorrow."""
        lasting = answers.filter(~pl.col("status").is_in(["invalid", "unresolved"]))
        room = len(self._frame) + len(lasting) <= self.LIMIT
        # another call may have found some of them meanwhile; no copy is made of those that are here
        fresh = lasting.join(self._frame, on="root", how="anti") if room else lasting
        self._frame = pl.concat([self._frame, fresh], rechunk=False) if room else fresh


def _in_order(ids: IdArray, column: str, answers: pl.DataFrame) -> pl.DataFrame:
    return pl.DataFrame({column: ids}, schema={column: pl.Int64}).join(
        answers, on=column, how="left", maintain_order="left"
    )


def _framed(
    rows: pl.DataFrame, asked: IdArray, kinds: tuple[str, str], reference: Annotations, detail: bool
) -> pd.DataFrame:
    """Make the public frame: ``asked`` as the index, -1 where there is no answer."""
    import pandas as pd

    given, wanted = kinds
    columns: dict[str, Any] = {f"{wanted}_id": rows[wanted].fill_null(-1).to_numpy().astype(np.int64)}
    if detail:
        columns["status"] = rows["status"].fill_null("none").to_list()
        columns["timestamp"] = pd.DatetimeIndex(rows["at"].cast(pl.Datetime("ms")).to_numpy(), tz="UTC")
        columns["source"] = rows["source"].to_pandas().array  # of one type, all null or not (pandas 3)
        columns["n_matches"] = rows["n_matches"].fill_null(0).to_numpy().astype(np.int64)
    frame = pd.DataFrame(columns, index=pd.Index(asked, name=f"{given}_id"))
    frame.attrs["version"] = reference.version
    frame.attrs["timestamp"] = reference.time.isoformat()
    return frame
