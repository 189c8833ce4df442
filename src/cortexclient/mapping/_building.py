"""Making an index of roots and cells, and keeping it up to date.

The points of the reference's nuclei lie on the reference's roots. A root that held one of them at any other time is an
ancestor or a descendant of those, so that their lineages name all candidates, and the translation answers for each.
After a time, only descendants of roots that were current then can have come to hold a nucleus.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from .._fanout import running, together
from .._types import IdArray, When
from ..errors import CortexUsageError
from ..progress import ProgressLike
from ..services._base import Session, check_aware
from ..services.chunkedgraph import AsyncChunkedGraph
from ..services.materialize import AsyncMaterialize
from ._annotations import ids_of
from ._index import ROWS, CellIndex, Facts, read, write
from ._mapper import IdMapper

FOREVER = np.iinfo(np.int64).max


class IndexBuilder:
    """Builds and refreshes indices of one dataset.

    Parameters
    ----------
    session
        The connection; a version that it is pinned to chooses the tables, and nothing else.
    """

    def __init__(self, session: Session) -> None:
        self._session = session.at(None, None)
        self._pinned = session.version
        self._materialize = AsyncMaterialize(self._session)
        self._graph = AsyncChunkedGraph(self._session)
        self._mapper = IdMapper(self._session, self._materialize, self._graph)

    async def build(
        self, folder: str | Path, version: int | None, progress: ProgressLike, timeout: float | None
    ) -> CellIndex:
        """See `AsyncCortexClient.build_cell_index`."""
        with running(timeout, None, None):
            now = datetime.now(UTC)
            reference = await self._mapper.reference(version or self._pinned)
            mains, backups = await together(reference.mains, reference.backups)
            held = ids_of(pl.concat([mains, backups]).filter(pl.col("root") != 0), "root")
            document = await self._graph.get_lineage_graph(held, timestamp_future=now)
            roots = _nodes(document)
            number = int(reference.version or 0)
            rows = await self._rows(np.union1d(roots, held), number, now, progress)
            layer = int((await self._graph.segmentation_info())["graph"]["n_layers"])
            facts = Facts(self._session.server, self._session.spec.datastack, number, now, layer)
            write(Path(folder), facts, rows)
        return CellIndex(folder)

    async def refresh(self, folder: str | Path, progress: ProgressLike, timeout: float | None) -> CellIndex:
        """See `AsyncCortexClient.refresh_cell_index`."""
        with running(timeout, None, None):
            facts, rows = read(Path(folder))
            self._check(facts)
            now = datetime.now(UTC)
            ended, _ = await self._graph.get_delta_roots(facts.until, now)
            current = rows.filter(pl.col("end").is_null())["root"].to_numpy()
            changed = np.intersect1d(current, ended)
            unsure = rows.filter(status="unresolved")["root"].to_numpy()
            again = np.union1d(changed, unsure)
            if len(changed):
                document = await self._graph.get_lineage_graph(changed, facts.until, now)
                known = rows["root"].to_numpy()
                again = np.union1d(again, np.setdiff1d(_nodes(document), known))
            fresh = await self._rows(again, facts.version, now, progress)
            kept = rows.filter(~pl.col("root").is_in(pl.Series(again).implode()))
            facts = Facts(facts.server, facts.datastack, facts.version, now, facts.root_layer)
            write(Path(folder), facts, pl.concat([kept, fresh]))
        return CellIndex(folder)

    def _check(self, facts: Facts) -> None:
        ours = (self._session.server, self._session.spec.datastack)
        if ours != (facts.server, facts.datastack):
            raise CortexUsageError(
                f"this is an index of {facts.datastack} at {facts.server}, and this client's are {ours[1]} at {ours[0]}"
            )

    async def _rows(self, roots: IdArray, version: int, now: datetime, progress: ProgressLike) -> pl.DataFrame:
        """Those of the candidates that held a nucleus."""
        answers = await self._mapper.root_id_to_cell_id(
            roots, version=version, timestamp=None, live=False, detail=True, progress=progress, timeout=None
        )
        answers = answers[answers["status"].isin(["ok", "multiple", "unresolved"])]
        held = answers.index.to_numpy()
        start, end = await self._graph.lifetimes_ms(held, now) if len(held) else (held, held)
        ends = pl.Series("end", np.where(end == FOREVER, 0, end), pl.Int64)
        return pl.DataFrame(
            {
                "root": held,
                "cell": answers["cell_id"].to_numpy(),
                "start": start,
                "end": ends.set(ends == 0, None),
                "status": answers["status"].to_list(),
                "source": [source if isinstance(source, str) else None for source in answers["source"]],
                "n_matches": answers["n_matches"].to_numpy(),
            },
            schema=ROWS,
        )

    async def changes(self, since: When | int, timeout: float | None) -> pd.DataFrame:
        """See `AsyncCortexClient.changes`."""
        with running(timeout, None, None):
            if isinstance(since, int):
                past = (await self._session.version_snapshot(since)).timestamp
            else:
                past = check_aware(since, "since")
            ended, begun = await self._graph.get_delta_roots(past, datetime.now(UTC))
            roots = np.concatenate([ended, begun])
            cells = await self._mapper.root_id_to_cell_id(
                roots, version=self._pinned, timestamp=None, live=False, detail=False, progress=None, timeout=None
            )
        cells.insert(0, "change", np.repeat(["ended", "began"], [len(ended), len(begun)]))
        return cells


def _nodes(document: dict[str, list[dict[str, int]]]) -> IdArray:
    return np.array([node["id"] for node in document["nodes"]], np.int64)
