"""The routes from a root to its points, cheapest first.

1. The reference's own tables: which of its rows lie on the roots. A root that was current at its instant is decided.
2. Many roots that were not: a frozen table at an older version V *is* a supervoxel to root look-up at V's instant that
   somebody has already paid for. Points that it may not hold (made later, or of another table) are looked up where they
   have moved since. Then V is *complete*: a root that was current at that instant and has no point there has none.
3. What is left: its points lie on its descendants at the next complete version (or its ancestors at the last), so the
   lineage names the few candidates. Where the edits between the versions leave a candidate no other way, that is the
   answer; the others are looked up, at the fewest instants that meet all lifetimes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from .._fanout import fan_out, together
from .._types import IdArray
from ..errors import CortexError, NotFoundError
from ..progress import Reporter
from ..services._base import Session
from ..services.chunkedgraph import AsyncChunkedGraph
from ._annotations import ROWS, Annotations, ids_of
from ._lineage import RELATIVES, relatives_at
from ._passage import passages
from ._stabbing import Times, stab
from ._verdict import in_doubt, judge, points_of, status_of, without_cell

SEEN = {**ROWS, "at": pl.Int64}
"""Rows of annotations on a root, and the instant (ms) at which they were seen there."""

MANY = 100
"""From this many roots on, the tables of all older versions cost the servers less than the roots' lineages."""

EPOCHS_AT_ONCE = 32
"""Instants that are looked at side by side: enough to keep a service's workers busy, whatever the transport lets
through.
"""

NO_IDS = np.empty(0, np.int64)

MET = {"root": pl.Int64, "at": pl.Int64}
"""An instant (ms) of each root's life."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """When roots were current: half-open intervals in ms."""

    roots: IdArray
    start: Times
    end: Times

    def where(self, mask: npt.NDArray[np.bool_]) -> Lifetimes:
        """Keep some of them."""
        return Lifetimes(self.roots[mask], self.start[mask], self.end[mask])


def on_roots(rows: pl.DataFrame, roots: IdArray, at: int) -> pl.DataFrame:
    """Keep the rows that lie on these roots, seen there at that instant."""
    kept = rows.filter(pl.col("root").is_in(pl.Series(roots).implode()))
    return kept.with_columns(pl.lit(at, pl.Int64).alias("at"))


class RootSearch:
    """One question: which cells these roots hold, by one set of reference annotations.

    Parameters
    ----------
    session
        The connection.
    reference
        The annotations that say where cells are.
    older
        Gives the annotations of the versions before it that may be asked as well; called where they are needed.

    Notes
    -----
    An id that the server fails for spoils the answers that depend on it, and no others: they are ``unresolved``.
    """

    def __init__(
        self, session: Session, reference: Annotations, older: Callable[[], Awaitable[Sequence[Annotations]]]
    ) -> None:
        self._errors: dict[int, CortexError] = {}
        self._doubtful: set[int] = set()
        # a client's pin chooses the tables; the roots that are asked may be younger
        self._graph = AsyncChunkedGraph(session.at(None, None), self._errors)
        self._reference = reference
        self._older = older
        self._versions = {reference.time_ms: reference}
        self._mains = pl.DataFrame(schema=ROWS)

    async def answer(self, roots: IdArray, reporter: Reporter) -> pl.DataFrame:
        """Give one row of `ANSWERS` for each root (distinct, all of the layer of roots)."""
        reference = self._reference
        seen = await self._rows(roots)
        left = np.setdiff1d(roots, ids_of(seen, "root"))
        # is_latest is exclusive: a root that is current a millisecond later was so at the instant
        current = await self._graph.is_latest_roots(left, reference.time + timedelta(milliseconds=1))
        here = np.setdiff1d(roots, left[~current])
        reporter.add(len(here))
        left = left[~current]
        on_older = await self._on_older(left) if len(left) >= MANY else pl.DataFrame(schema=SEEN)
        lives, invalid = await self._lifetimes(np.setdiff1d(left, ids_of(on_older, "root")))
        met = self._meet(lives)
        elsewhere = lives.where(~np.isin(lives.roots, met["root"].to_numpy()))
        stabbed = _stabbed(elsewhere)
        answers = await self._judge(pl.concat([seen, on_older, await self._elsewhere(elsewhere, stabbed)]))
        complete = pl.DataFrame({"root": here, "at": reference.time_ms}, schema=MET)
        on_versions = on_older.group_by("root").agg(pl.col("at").max())
        rest = pl.concat([complete, on_versions, met, stabbed]).join(answers, on="root", how="anti")
        reporter.add(len(roots) - reporter.done)
        nothing = without_cell(rest["root"].to_numpy(), "none", rest["at"].to_list())
        answered = pl.concat([answers, nothing, without_cell(invalid, "invalid")])
        return in_doubt(answered, "root", self._spoiled(np.setdiff1d(roots, ids_of(seen, "root"))))

    def _spoiled(self, roots: IdArray) -> dict[int, str]:
        """Those roots whose answer is in doubt, and their status."""
        failed = {root: status_of(self._errors[root]) for root in roots.tolist() if root in self._errors}
        return dict.fromkeys(self._doubtful.intersection(roots.tolist()), "unresolved") | failed

    async def _rows(self, roots: IdArray) -> pl.DataFrame:
        """Route 1: the reference's rows that lie on these roots."""
        mains, backups = await together(lambda: self._reference.mains_on(roots), self._reference.backups)
        self._mains = pl.concat([self._mains, mains]).unique("cell")
        return on_roots(pl.concat([mains, backups]), roots, self._reference.time_ms)

    async def _on_older(self, roots: IdArray) -> pl.DataFrame:
        """Route 2: rows that lay on these roots at any older version."""
        older = await self._older()

        async def mains_at(version: Annotations) -> pl.DataFrame | None:
            try:
                return on_roots(await version.mains_on(roots), roots, version.time_ms)
            except NotFoundError:  # from before the table was made
                return None

        mains = await fan_out(older, mains_at, workers=len(older))
        held = [version for version, rows in zip(older, mains, strict=True) if rows is not None]
        self._versions |= {version.time_ms: version for version in held}
        late = await fan_out(held, self._late_rows, workers=len(held))
        late = [on_roots(rows, roots, version.time_ms) for version, rows in zip(held, late, strict=True)]
        return pl.concat([pl.DataFrame(schema=SEEN), *(rows for rows in mains if rows is not None), *late])

    async def _rows_at(self, at: int, roots: IdArray) -> pl.DataFrame:
        """The reference points that lay on these roots, which were current at a complete version's instant."""
        version = self._versions[at]
        if version is self._reference:
            return await self._rows(roots)
        parts = await together(
            lambda: version.mains_on(roots), lambda: self._late_rows(version), self._reference.backups, self._recent
        )
        # what lies on them at any time lay there then
        return on_roots(pl.concat([part.select(*ROWS) for part in parts]), roots, at)

    async def _late_rows(self, version: Annotations) -> pl.DataFrame:
        """The reference points that its main table may not hold, on the roots that they have left since."""
        try:
            return await self._late(version)
        except _Lost as lost:
            holders = await relatives_at(self._graph, lost.roots, version.time)
            self._doubtful.update(holders["root"].to_list())
            return lost.rows

    async def _late(self, version: Annotations) -> pl.DataFrame:
        async def load() -> pl.DataFrame:
            # a root that was there already has not changed since
            moved = (await self._recent()).filter(pl.col("born") > version.time_ms)
            roots = await self._graph.get_roots(moved["supervoxel"].to_numpy(), version.time)
            rows = moved.select("cell", "supervoxel", pl.Series("root", roots, pl.Int64))
            lost = moved.filter(pl.col("supervoxel").is_in(list(self._errors)))
            if len(lost):
                raise _Lost(rows, ids_of(lost, "root"))
            return rows

        return await self._reference.kept(("late", version.time), load)

    async def _recent(self) -> pl.DataFrame:
        """Points that some main table may not hold, and when (``born``, ms) their roots came to be."""
        reference, oldest = self._reference, self._versions[min(self._versions)]

        async def mains() -> pl.DataFrame:
            if reference.filterable:
                return await reference.mains_since(oldest.time)
            return (await reference.mains()).join(await oldest.mains(), on=["cell", "supervoxel"], how="anti")

        async def load() -> pl.DataFrame:
            late, backups, before = await together(mains, reference.backups, oldest.backups)
            moved = backups.join(before, on=["cell", "supervoxel", "root"], how="anti")
            points = pl.concat([late, moved]).filter(pl.col("root") != 0)
            roots = points["root"].to_numpy()
            born = (await self._graph.get_root_timestamps(roots)).as_unit("ms").asi8
            born = np.where(np.isin(roots, list(self._errors)), np.iinfo(np.int64).max, born)  # must be looked up
            return points.with_columns(pl.Series("born", born, pl.Int64))

        return await reference.kept(("recent", oldest.time), load)

    async def _judge(self, seen: pl.DataFrame) -> pl.DataFrame:
        """Answer from rows of any instant, by what the reference says of their cells."""
        unknown = np.setdiff1d(ids_of(seen, "cell"), ids_of(self._mains, "cell"))
        mains = pl.concat([self._mains, await self._reference.mains_of(unknown)])
        points = points_of(mains, await self._reference.backups())
        return judge(seen.select("root", "supervoxel", "at"), points)

    def _meet(self, lives: Lifetimes) -> pl.DataFrame:
        """The newest complete version's instant in each life, ``root, at``; lives that meet none are left out."""
        instants = np.array(sorted(self._versions))
        last = np.searchsorted(instants, lives.end) - 1
        at = instants[last]
        met = (last >= 0) & (at >= lives.start)
        return pl.DataFrame({"root": lives.roots[met], "at": at[met]}, schema=MET)

    async def _lifetimes(self, roots: IdArray) -> tuple[Lifetimes, IdArray]:
        """Lifetimes of the roots that exist, and the ids that do not (or whose times make no sense)."""
        exists = await self._graph.is_valid_nodes(roots)
        known = roots[exists]
        now = int(datetime.now(UTC).timestamp() * 1000)
        start, end = await self._graph.lifetimes_ms(known)
        end = np.minimum(end, np.maximum(start, now) + 1)  # a current root is looked at now
        sane = start < end
        lives = Lifetimes(known, start, end).where(sane)
        return lives, np.concatenate([roots[~exists], known[~sane]])

    async def _elsewhere(self, lives: Lifetimes, stabbed: pl.DataFrame) -> pl.DataFrame:
        """Route 3: candidates from the relatives at the nearest version, verified at an instant of each life."""
        candidates = (await self._candidates(lives)).join(stabbed, left_on="origin", right_on="root")
        told = await self._told_by_edits(candidates)
        open_ = candidates.join(told, on=["origin", "supervoxel"], how="anti")
        certain = told.filter("passes").join(candidates, on=["origin", "supervoxel"])
        looked_up = await self._look_up(open_.select("cell", "supervoxel", "at").unique())
        self._doubtful.update(open_.filter(pl.col("supervoxel").is_in(list(self._errors)))["origin"].to_list())
        found = [certain.select("cell", "supervoxel", pl.col("origin").alias("root"), "at"), looked_up]
        return pl.concat(found).filter(pl.col("root").is_in(pl.Series(lives.roots).implode()))

    async def _look_up(self, points: pl.DataFrame) -> pl.DataFrame:
        """Put points ``cell, supervoxel, at`` on their roots, the instants side by side."""
        points = points.sort("at")
        instants, starts = np.unique(points["at"].to_numpy(), return_index=True)
        groups = zip(instants.tolist(), np.split(points["supervoxel"].to_numpy(), starts[1:]), strict=True)

        async def of_instant(group: tuple[int, IdArray]) -> IdArray:
            at, supervoxels = group
            return await self._graph.get_roots(supervoxels, datetime.fromtimestamp(at / 1000, UTC))

        found = await fan_out(list(groups) if len(points) else [], of_instant, workers=EPOCHS_AT_ONCE)
        return points.select("cell", "supervoxel", pl.Series("root", np.concatenate([*found, NO_IDS]), pl.Int64), "at")

    async def _told_by_edits(self, candidates: pl.DataFrame) -> pl.DataFrame:
        """Tell ``origin, supervoxel, passes`` of the candidates whose versions before and after leave no choice."""
        instants = np.array(sorted(self._versions))
        before = np.searchsorted(instants, candidates["at"].to_numpy(), side="right") - 1
        inside = (before >= 0) & (before < len(instants) - 1)
        gaps = candidates.with_columns(pl.Series("gap", before)).filter(inside).partition_by("gap")

        async def of_gap(gap: pl.DataFrame) -> pl.DataFrame:
            version, following = (self._versions[int(at)] for at in instants[gap["gap"][0] :][:2])
            cells = ids_of(gap, "cell")
            lay = pl.concat(await together(lambda: version.mains_of(cells), lambda: self._late_rows(version)))
            lay = lay.filter(pl.col("root") != 0).rename({"root": "before"}).unique()
            ways = (
                gap.join(lay, on=["cell", "supervoxel"]).select("origin", "supervoxel", "before", after="root").unique()
            )
            asked = list(ways.select("before", "origin", "after").iter_rows())
            told = await passages(self._graph, ids_of(ways, "before"), asked, following.time)
            passes = pl.Series("passes", [told[way] for way in asked], pl.Boolean)
            return ways.select("origin", "supervoxel", passes).drop_nulls()

        parts = await fan_out(gaps, of_gap, workers=len(gaps))
        return pl.concat(
            [pl.DataFrame(schema={"origin": pl.Int64, "supervoxel": pl.Int64, "passes": pl.Boolean}), *parts]
        )

    async def _candidates(self, lives: Lifetimes) -> pl.DataFrame:
        """Rows that may lie on each root (``origin``): those on its relatives at the nearest version."""
        instants = np.array(sorted(self._versions))
        nearest = instants[np.minimum(np.searchsorted(instants, lives.end), len(instants) - 1)]

        async def of_version(at: int) -> pl.DataFrame:
            group = lives.where(nearest == at)
            relatives = await relatives_at(self._graph, group.roots, self._versions[at].time)
            seen = await self._rows_at(at, ids_of(relatives, "root"))
            return relatives.join(seen.drop("at"), on="root")

        parts = await fan_out(np.unique(nearest).tolist(), of_version, workers=len(instants))
        return pl.concat([pl.DataFrame(schema={**RELATIVES, "cell": pl.Int64, "supervoxel": pl.Int64}), *parts])


class _Lost(Exception):
    """Some points could not be looked up: ``rows`` are without them, ``roots`` are where they are now.

    Raised, since what is raised is not kept.
    """

    def __init__(self, rows: pl.DataFrame, roots: IdArray) -> None:
        super().__init__()
        self.rows = rows
        self.roots = roots


def _stabbed(lives: Lifetimes) -> pl.DataFrame:
    """An instant in each life, ``root, at``, as few different ones as possible."""
    instants, which = stab(lives.start, lives.end)
    return pl.DataFrame({"root": lives.roots, "at": instants[which]}, schema=MET)
