"""What can be asked of a world: ids of every kind, and the instants at which something changes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.oracle import BACKUPS, MAIN, Oracle, oracle_for, rows_alive

from cortexclient.sandbox import World
from cortexclient.sandbox.graph import NEVER

IdArray = npt.NDArray[np.int64]

UNKNOWN_SEGMENT = 2**31 - 7
"""A segment id that no node of these worlds has."""


def at_ms(milliseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(milliseconds))


def at_us(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))


class Lineage:
    """Who replaced whom, and when."""

    def __init__(self, graph: Any, oracle: Oracle) -> None:
        self.born: dict[int, int] = {}
        for parents in oracle.parents.values():
            for time_ms, parent in parents:
                self.born[parent] = min(time_ms, self.born.get(parent, time_ms))
        self.later: dict[int, set[int]] = defaultdict(set)
        self.earlier: dict[int, set[int]] = defaultdict(set)
        self.died: dict[int, int] = {}
        self.retired_by: dict[int, int] = {}
        columns = (graph.lineage.former.tolist(), graph.lineage.new.tolist(), graph.lineage.operation_id.tolist())
        for former, new, operation in zip(*columns, strict=True):
            self.later[former].add(new)
            self.earlier[new].add(former)
            self.retired_by[former] = operation
            self.died[former] = graph.operations[operation].time_ms

    def alive(self, root: int, time_ms: int) -> bool:
        return self.born[root] <= time_ms < self.died.get(root, time_ms + 1)

    def at(self, root: int, time_ms: int) -> list[int]:
        """The roots current at a time that edits connect a root with, forwards only or backwards only."""
        step = self.later if self.born[root] <= time_ms else self.earlier
        seen, front = {root}, [root]
        while front:
            fresh = step.get(front.pop(), set()) - seen
            seen |= fresh
            front += fresh
        return sorted(one for one in seen if self.alive(one, time_ms))

    def walk(
        self, root: int, step: dict[int, set[int]], within: Callable[[int], bool], *, swap: bool = False
    ) -> set[tuple[int, int]]:
        """The links (former, new) met when walking on from every root that is within a limit."""
        seen, front, links = {root}, [root], set[tuple[int, int]]()
        while front:
            one = front.pop()
            met = step.get(one, set()) if within(one) else set()
            links |= {(other, one) if swap else (one, other) for other in met}
            front += met - seen
            seen |= met
        return links

    def record(self, root: int) -> dict[str, Any]:
        """A node as the service describes it."""
        retired = {"operation_id": self.retired_by[root]} if root in self.retired_by else {}
        return {"id": root, "timestamp": self.born[root] / 1000} | retired


@dataclass(frozen=True)
class Facts:
    """A world as a questioner sees it. Whatever is drawn is drawn with the world's own seed."""

    world: World
    strict: bool
    """Whether its sandbox has the real servers' defects."""

    @property
    def name(self) -> str:
        return f"{self.world.name}-{self.world.seed}{'-strict' if self.strict else ''}"

    @property
    def graph(self) -> Any:
        return self.world.graph

    @property
    def top(self) -> int:
        """The layer of roots."""
        return self.graph.layout.n_layers

    @cached_property
    def oracle(self) -> Oracle:
        return oracle_for(self.world)

    @cached_property
    def lineage(self) -> Lineage:
        return Lineage(self.graph, self.oracle)

    def some(self, ids: IdArray, n: int, skip: int = 0) -> IdArray:
        """``n`` of these ids, the same each time; others with another ``skip``."""
        order = np.random.default_rng((self.world.seed, skip, len(ids))).permutation(len(ids))
        return ids[order[:n]]

    # -- nodes -------------------------------------------------------------------------------------------------------

    @cached_property
    def nodes(self) -> IdArray:
        cells = self.graph.cells
        return np.unique(np.concatenate([cells.node, cells.parent]))

    def of_layer(self, layer: int) -> IdArray:
        return self.nodes[self.graph.layout.layer(self.nodes) == layer]

    @cached_property
    def supervoxels(self) -> IdArray:
        return self.of_layer(1)

    @cached_property
    def level2(self) -> IdArray:
        return self.of_layer(2)

    @cached_property
    def middle(self) -> IdArray:
        layers = self.graph.layout.layer(self.nodes)
        return self.nodes[(layers > 2) & (layers < self.top)]

    @cached_property
    def roots(self) -> IdArray:
        return self.graph.root_ids()

    @cached_property
    def current(self) -> IdArray:
        return self.roots[self.graph.retired(self.roots) == NEVER]

    @cached_property
    def retired(self) -> IdArray:
        """Roots that an edit replaced, those that lived longest first."""
        gone = self.roots[self.graph.retired(self.roots) != NEVER]
        return gone[np.argsort(-(self.graph.retired(gone) - self.graph.created(gone)), kind="stable")]

    @cached_property
    def related(self) -> list[int]:
        """A retired root and those that replaced it, which have kept some of its level-2 nodes."""
        for root in self.retired.tolist():
            heirs = self.graph.successors([root])[0].tolist()
            if any(set(self.graph.leaves(root, 2)) & set(self.graph.leaves(heir, 2)) for heir in heirs):
                return [root, *heirs]
        raise LookupError("no edit left a level-2 node as it was")

    def unknown(self, layer: int, n: int = 1) -> IdArray:
        """Well-formed ids that name nothing."""
        segments = np.arange(UNKNOWN_SEGMENT - n, UNKNOWN_SEGMENT) % self.graph.layout.segments(
            int(self.of_layer(layer)[0])
        )
        return self.graph.layout.make(layer, np.zeros((n, 3), np.int64), segments)

    def leaves(self, root: int) -> IdArray:
        return np.array(sorted(self.oracle.supervoxels(int(root))), np.int64)

    def box(self, root: int) -> npt.NDArray[np.int64]:
        """Bounds around half of the chunks of a root, voxels, (3, 2)."""
        layout = self.graph.layout
        chunks = layout.chunk(self.leaves(root))
        low = chunks.min(0)
        high = np.maximum(low + 1, (low + chunks.max(0) + 1) // 2)
        size = np.asarray(layout.chunk_size)
        return np.stack([layout.voxel_offset + low * size, layout.voxel_offset + high * size], axis=1)

    # -- instants ----------------------------------------------------------------------------------------------------

    @cached_property
    def edits(self) -> list[int]:
        """Times of the edits, ms."""
        return sorted({int(self.graph.retired([root])[0]) for root in self.retired.tolist()})

    @cached_property
    def before(self) -> datetime:
        """Before there was anything."""
        return at_ms(self.graph.created_ms - 60_000)

    @cached_property
    def future(self) -> datetime:
        """A whole millisecond: lifetimes are kept in these."""
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)

    def instants(self) -> list[datetime]:
        """At, just before and just after edits and versions; between them; before all; in the future."""
        middle = self.edits[len(self.edits) // 2]
        versions = [at_us(version.time_us) for version in self.valid]
        return [
            at_ms(middle),
            at_ms(middle - 1),
            at_ms(middle) - timedelta(microseconds=1),
            at_ms(middle + 1),
            at_ms(self.edits[0]),
            at_ms(self.edits[0] - 1),
            at_ms((self.edits[0] + self.edits[-1]) // 2),
            *versions[:2],
            at_ms(self.graph.created_ms),
            self.before,
            self.future,
        ]

    def life(self, root: int) -> tuple[datetime, datetime]:
        """From when to when (exclusive) a retired root was current."""
        return at_ms(self.graph.created([root])[0]), at_ms(self.graph.retired([root])[0])

    # -- tables ------------------------------------------------------------------------------------------------------

    @cached_property
    def valid(self) -> list[Any]:
        """Versions that can be queried, oldest first."""
        first = next(iter(self.world.datastacks))
        return sorted((v for v in self.world.versions if v.valid and v.datastack == first), key=lambda v: v.time_us)

    @cached_property
    def expired(self) -> list[Any]:
        first = next(iter(self.world.datastacks))
        return [v for v in self.world.versions if not v.valid and v.datastack == first]

    @property
    def newest(self) -> int:
        return int(self.valid[-1].version)

    def table(self, *wanted: str) -> str:
        """The first of these tables that there is."""
        return next(name for name in wanted if name in self.world.tables)

    def rows(self, table: str, version: int | None = None) -> list[dict[str, Any]]:
        """The rows of a table at a version, as the oracle has them."""
        return rows_alive(self.world, table, self.world.version(version).time_us)

    @cached_property
    def _truths(self) -> dict[tuple[str, int], list[dict[str, Any]]]:
        return {}

    def truth(self, table: str, version: int) -> list[dict[str, Any]]:
        """The same with their root ids."""
        if (table, version) not in self._truths:
            self._truths[table, version] = self._truth(table, version)
        return self._truths[table, version]

    def _truth(self, table: str, version: int) -> list[dict[str, Any]]:
        return self.live_truth(table, self.world.version(version).time_us)

    def live_truth(self, table: str, time_us: int) -> list[dict[str, Any]]:
        """The rows of a table at any instant, with their root ids of that instant."""
        points = self.world.tables[table].bound_points
        return [
            row
            | {
                f"{point}_root_id": self.oracle.root_at(row[f"{point}_supervoxel_id"] or 0, time_us // 1000)
                for point in points
            }
            for row in rows_alive(self.world, table, time_us)
        ]

    @cached_property
    def cells(self) -> IdArray:
        return np.sort(self.world.tables[MAIN].rows["id"].to_numpy())

    @cached_property
    def backed(self) -> list[int]:
        """Cells that ever had a backup point."""
        return sorted(set(self.world.tables[BACKUPS].rows["target_id"].to_list()) & set(self.cells.tolist()))

    @cached_property
    def _points(self) -> dict[int, list[tuple[str, dict[str, Any]]]]:
        """All rows that ever had a point, by supervoxel."""
        found: dict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
        for table in (MAIN, BACKUPS):
            for row in self.world.tables[table].rows.iter_rows(named=True):
                found[row["pt_supervoxel_id"]].append((table, row))
        return found

    def rows_on(self, root: int) -> list[tuple[str, dict[str, Any]]]:
        """All rows of points that ever lay on a root, with the names of their tables."""
        return [found for leaf in self.leaves(root).tolist() for found in self._points.get(leaf, ())]

    def is_plain(self, root: int, among: IdArray) -> bool:
        """Whether all that ever lay on a root are main rows, of cells without backups, that were there all the while.

        That is from the first time at which one of the roots that are asked ends, after this one began.
        """
        ends = self.graph.retired(among)
        first = ends[ends > self.graph.created([root])[0] + 1].min()
        reference = self.world.version().time_us // 1000
        return all(
            table == MAIN
            and row["id"] not in self.backed
            and row["deleted"] is None
            and row["created"].replace(tzinfo=UTC) < at_ms(min(first, reference) - 1)
            for table, row in self.rows_on(root)
        )
