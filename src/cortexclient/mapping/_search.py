"""The three routes from a root to its points, cheapest first.

1. A frozen table at version V *is* a supervoxel to root look-up at V's instant that somebody has already paid for: ask
   every valid version which of its rows lie on these roots.
2. Points that V's tables do not hold (made later) are looked up at V's instant. Then V is *complete*: a root that was
   current at that instant and has no point there has none at all.
3. A root that lived only between versions: its points lie on its descendants at the next version (or its ancestors at
   the last), so the lineage names the few supervoxels worth looking up, at the fewest instants that meet all lifetimes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from .._fanout import fan_out, together
from .._types import IdArray
from ..progress import Reporter
from ..services.chunkedgraph import AsyncChunkedGraph
from ._annotations import ROWS, Annotations, ids_of
from ._lineage import relatives_at
from ._stabbing import Times, stab
from ._verdict import ANSWERS, judge, points_of, without_cell

FEW = 100
"""Up to this many ids, one request more is worse than one round trip more: the newest version is asked first, alone."""

SEEN = {**ROWS, "at": pl.Int64}
"""Rows of annotations on a root, and the instant (ms) at which they were seen there."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When roots were current: half-open intervals in ms."""

    roots: IdArray
    start: Times
    end: Times

    def where(self, mask: npt.NDArray[np.bool_]) -> Lifetimes:
        """Keep some of them."""
        return Lifetimes(self.roots[mask], self.start[mask], self.end[mask])


def on_roots(rows: pl.DataFrame, roots: IdArray) -> pl.DataFrame:
    """Keep the rows that lie on these roots."""
    return rows.filter(pl.col("root").is_in(pl.Series(roots).implode()))


class RootSearch:
    """One question: which cells these roots hold, by one set of reference annotations.

    Parameters
    ----------
    graph
        The chunkedgraph service.
    frozen
        The annotations that may be asked, newest first; the first is the reference, which says where cells are.
    """

    def __init__(self, graph: AsyncChunkedGraph, frozen: Sequence[Annotations]) -> None:
        self._graph = graph
        self._frozen = frozen
        self._reference = frozen[0]

    async def answer(self, roots: IdArray, reporter: Reporter) -> pl.DataFrame:
        """Give one row of `ANSWERS` for each root (distinct, all of the layer of roots)."""
        alone = len(roots) <= FEW or self._reference.takes_whole(roots)
        waves = [self._frozen[:1], self._frozen[1:]] if alone else [self._frozen]
        found = pl.DataFrame(schema=ANSWERS)
        for wave in waves:
            missing = np.setdiff1d(roots, found["root"].to_numpy())
            if len(missing):
                found = pl.concat([found, await self._on_versions(wave, missing)])
        missing = np.setdiff1d(roots, found["root"].to_numpy())
        reporter.add(len(roots) - len(missing))
        if len(missing):
            found = pl.concat([found, *await self._without_version(missing)])
            reporter.add(len(missing))
        return found

    async def _on_versions(self, versions: Sequence[Annotations], roots: IdArray) -> pl.DataFrame:
        """Answer the roots on which one of these versions sees a point."""
        seen = await fan_out(versions, lambda version: self._see(version, roots), workers=max(len(versions), 1))
        return await self._judge(pl.concat([pl.DataFrame(schema=SEEN), *seen]))

    async def _see(self, version: Annotations, roots: IdArray) -> pl.DataFrame:
        """Routes 1 and 2 for one version: the rows on these roots at its instant."""
        parts = await together(lambda: version.mains_on(roots), version.backups, lambda: self._late(version))
        rows = on_roots(pl.concat(parts), roots)
        return rows.with_columns(pl.lit(version.time_ms, pl.Int64).alias("at"))

    async def _late(self, version: Annotations) -> pl.DataFrame:
        """Reference points that the version does not hold, on their roots at its instant."""
        reference = self._reference
        if version is reference:
            return pl.DataFrame(schema=ROWS)

        async def load() -> pl.DataFrame:
            if reference.is_whole() and version.is_whole():
                mains = (await reference.mains()).join(await version.mains(), on="supervoxel", how="anti")
            else:
                mains = await reference.mains_since(version.time)
            backups = (await reference.backups()).join(await version.backups(), on="supervoxel", how="anti")
            late = pl.concat([mains, backups]).filter(pl.col("supervoxel") != 0)
            roots = await self._graph.get_roots(late["supervoxel"].to_numpy(), version.time)
            return late.with_columns(pl.Series("root", roots, pl.Int64))

        return await reference.kept(("late", version.time), load)

    async def _judge(self, seen: pl.DataFrame) -> pl.DataFrame:
        """Answer from rows of any version, by what the reference says of their cells."""
        mains = await self._reference.mains_of(ids_of(seen, "cell"))
        points = points_of(mains, await self._reference.backups())
        return judge(seen.select("root", "supervoxel", "at"), points)

    async def _without_version(self, roots: IdArray) -> list[pl.DataFrame]:
        """Answer roots on which no version saw a point."""
        lives, invalid = await self._lifetimes(roots)
        instants = np.array([version.time_ms for version in self._frozen])
        met = (lives.start[:, None] <= instants) & (instants < lives.end[:, None])
        decided: npt.NDArray[np.bool_] = np.any(met, axis=1)
        at = instants[met.argmax(axis=1)][decided].tolist()
        answers = [without_cell(invalid, "invalid"), without_cell(lives.roots[decided], "none", at)]
        if not decided.all():
            answers.append(await self._between_versions(lives.where(~decided)))
        return answers

    async def _lifetimes(self, roots: IdArray) -> tuple[Lifetimes, IdArray]:
        """Lifetimes of the roots that exist, and the ids that do not (or whose times make no sense)."""
        exists = await self._graph.is_valid_nodes(roots)
        known = roots[exists]
        start, end = await self._graph.lifetimes_ms(known)
        now = int(datetime.now(UTC).timestamp() * 1000)
        sane = np.logical_and(start < end, start <= now)
        lives = Lifetimes(known, start, end).where(sane)
        return lives, np.concatenate([roots[~exists], known[~sane]])

    async def _between_versions(self, lives: Lifetimes) -> pl.DataFrame:
        """Route 3: candidates from the relatives at the nearest version, verified at an instant of each root's life."""
        instants, which = stab(lives.start, lives.end)
        candidates = await self._candidates(lives)
        frame = pl.DataFrame({"root": lives.roots, "at": instants[which]}, schema={"root": pl.Int64, "at": pl.Int64})
        asked = candidates.select("origin", "cell", "supervoxel").join(frame, left_on="origin", right_on="root")

        async def verify(group: pl.DataFrame) -> pl.DataFrame:
            rows = group.select("cell", "supervoxel", "at").unique()
            moment = datetime.fromtimestamp(int(rows["at"][0]) / 1000, UTC)
            roots = await self._graph.get_roots(rows["supervoxel"].to_numpy(), moment)
            return rows.select("cell", "supervoxel", pl.Series("root", roots, pl.Int64), "at")

        groups = asked.partition_by("at")
        verified = await fan_out(groups, verify, workers=max(len(groups), 1))
        answered = await self._judge(on_roots(pl.concat([pl.DataFrame(schema=SEEN), *verified]), lives.roots))
        rest = ~np.isin(lives.roots, answered["root"].to_numpy())
        return pl.concat([answered, without_cell(lives.roots[rest], "none", instants[which][rest].tolist())])

    async def _candidates(self, lives: Lifetimes) -> pl.DataFrame:
        """Rows that may lie on each root (``origin``): those on its relatives at the nearest version."""
        times = np.array([version.time_ms for version in self._frozen])[::-1]  # ascending
        following = np.searchsorted(times, lives.end)
        nearest = np.where(following < len(times), following, len(times) - 1)

        async def of_version(position: int) -> pl.DataFrame:
            version = self._frozen[len(times) - 1 - position]
            group = lives.where(nearest == position)
            relatives = await relatives_at(self._graph, group.roots, version.time)
            seen = await self._see(version, ids_of(relatives, "root"))
            return relatives.join(seen, on="root")

        parts = await fan_out(np.unique(nearest).tolist(), of_version, workers=max(len(times), 1))
        return pl.concat(parts)
