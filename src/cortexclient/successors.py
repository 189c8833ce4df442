"""What became of roots: which root holds an old one's material, and which version knows most of some roots."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ._coalesce import FEW, Found
from ._fanout import running
from ._types import IdArray, Ids, When
from .errors import CortexError
from .ids import as_ids, layer_of, unique_ids
from .mapping._lineage import relatives_at
from .mapping._verdict import status_of
from .progress import ProgressLike, Reporter
from .services._base import Session
from .services.chunkedgraph import AsyncChunkedGraph
from .services.materialize import AsyncMaterialize

if TYPE_CHECKING:
    import pandas as pd

ANSWERS: pl.Schema = pl.Schema(
    [
        ("root_id", pl.Int64),
        ("current_id", pl.Int64),
        ("confidence", pl.Float64),
        ("alternatives", pl.List(pl.Int64)),
        ("status", pl.String),
    ]
)
WHOLE = 1 - 1e-9
"""Shares are sums of fractions: all of a root may come out a little below one."""


async def update_roots(
    session: Session, root_ids: Ids, timestamp: When | None, *, progress: ProgressLike, timeout: float | None
) -> pd.DataFrame:
    """See `AsyncCortexClient.update_roots`."""
    import pandas as pd

    asked = as_ids(root_ids, "root_ids")
    unique, inverse = unique_ids(asked)
    with running(timeout, progress, len(unique)) as reporter:
        when = (await session.snapshot(timestamp)).timestamp

        async def load(roots: IdArray) -> Found:
            return Found(await _Update(session, when).of(roots))

        if 0 < len(unique) <= FEW:
            found = (await session.coalescer.ask(("update_roots", when), unique, load)).values
        else:
            found = await _Update(session, when, reporter).of(unique)
        reporter.add(len(unique) - reporter.done)
    rows = found[inverse]
    columns = {
        "current_id": rows["current_id"].to_numpy(),
        "confidence": rows["confidence"].to_numpy(),
        "alternatives": rows["alternatives"].to_list(),
        "status": rows["status"].to_list(),
    }
    frame = pd.DataFrame(columns, index=pd.Index(asked, name="root_id"))
    frame.attrs["timestamp"] = when.isoformat()
    return frame


class _Update:
    """One question: what these roots are at one instant."""

    def __init__(self, session: Session, when: datetime, reporter: Reporter | None = None) -> None:
        self._errors: dict[int, CortexError] = {}
        self._graph = AsyncChunkedGraph(session, self._errors)
        self._when = when
        self._reporter = reporter

    async def of(self, roots: IdArray) -> pl.DataFrame:
        """Answer roots (sorted, distinct): one row of `ANSWERS` each, in the same order."""
        top = int((await self._graph.segmentation_info())["graph"]["n_layers"])
        known = roots[layer_of(roots) == top]
        same = await self._are_current(known)
        moved = known[~same]
        moved = moved[await self._graph.is_valid_nodes(moved)]
        self._count(len(roots) - len(moved))
        sole = await self._sole_heirs(moved)
        self._count(len(sole))
        several = moved[~np.isin(moved, sole["root_id"].to_numpy())]
        shares = await self._graph.get_root_overlaps_many(several, self._when)
        found = pl.concat([_unchanged(known[same]), sole, _judged(shares)])
        answers = pl.DataFrame({"root_id": roots}).join(found, on="root_id", how="left", maintain_order="left")
        return answers.with_columns(
            pl.col("current_id").fill_null(-1),
            pl.col("confidence").fill_null(0.0),
            pl.col("alternatives").fill_null(pl.lit([], pl.List(pl.Int64))),
            pl.coalesce("status", pl.Series("status", [status_of(self._errors.get(root)) for root in roots.tolist()])),
        )

    async def _are_current(self, roots: IdArray) -> np.ndarray:
        # the service's is_latest is exclusive: ask a millisecond later
        return await self._graph.is_latest_roots(roots, self._when + timedelta(milliseconds=1))

    async def _sole_heirs(self, roots: IdArray) -> pl.DataFrame:
        """Answer those roots that edits lead to one root only: it holds all of them, and no chunk need be looked up."""
        heirs = await relatives_at(self._graph, roots, self._when)
        sole = heirs.filter(pl.len().over("origin") == 1)
        sole = sole.filter(pl.Series(await self._are_current(sole["root"].to_numpy()), dtype=pl.Boolean))
        return sole.select(
            root_id="origin",
            current_id="root",
            confidence=pl.lit(1.0),
            alternatives=pl.lit([], pl.List(pl.Int64)),
            status=pl.lit("updated"),
        )

    def _count(self, done: int) -> None:
        if self._reporter:
            self._reporter.add(done)


def _unchanged(roots: IdArray) -> pl.DataFrame:
    frame = pl.DataFrame({"root_id": roots, "current_id": roots}, schema={"root_id": pl.Int64, "current_id": pl.Int64})
    return frame.with_columns(
        confidence=pl.lit(1.0), alternatives=pl.lit([], pl.List(pl.Int64)), status=pl.lit("current")
    )


def _judged(shares: Mapping[int, Mapping[int, float]]) -> pl.DataFrame:
    """Answer roots by who holds how much of them; those of which something could not be looked up have no answer."""
    rows = []
    for root, held in shares.items():
        if sum(held.values()) < WHOLE or not (heirs := [heir for heir in held if heir]):
            continue
        best, *others = heirs
        rows.append((root, best, min(held[best], 1.0), others, "split" if others else "updated"))
    return pl.DataFrame(rows, schema=ANSWERS, orient="row")


async def best_version(
    graph: AsyncChunkedGraph, materialize: AsyncMaterialize, root_ids: Ids, *, timeout: float | None
) -> pd.DataFrame:
    """See `AsyncCortexClient.best_version`."""
    import pandas as pd

    unique, _ = unique_ids(as_ids(root_ids, "root_ids"))
    with running(timeout, None, None):
        versions = await materialize.get_versions_metadata()
        start, end = await graph.lifetimes_ms(unique)
    times = [int(item["time_stamp"].timestamp() * 1000) for item in versions]  # floored as the servers do
    current = [int(((start <= at) & (at < end)).sum()) for at in times]
    frame = pd.DataFrame(
        {
            "n_current": np.array(current, np.int64),
            "n_total": len(unique),
            "fraction": np.array(current) / max(len(unique), 1),
            "timestamp": pd.DatetimeIndex([item["time_stamp"] for item in versions], tz="UTC"),
        },
        index=pd.Index([item["version"] for item in versions], dtype="int64", name="version"),
    )
    return frame.sort_values(["n_current", "timestamp"], ascending=False)
