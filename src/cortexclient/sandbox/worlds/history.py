"""What happened to the objects of a world, recorded in columns, and the chunkedgraph that follows from it.

Vocabulary: a **patch** is the part of an object that lies in one chunk and is held together by one level-2 node; the
supervoxels of a patch never part. An edit that touches a patch gives it a new level-2 node. A **state** is an object
between two edits, and so one root.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..graph import NEVER, Cells, Edges, Graph, Layout, Lineage, Operation
from ..layout import Ids, as_ids
from .forest import Members, grow, rank

STRIDE: Final = {1: 1009, 2: 31}
"""Mean distance of made segment ids within a chunk, by layer (real ones go up to 800,000 and 3,300)."""

FIRST_COUNTER: Final = 11_500_000
COUNTERS: Final = 1 << 24
"""The segment id of a root is ``counter * 256 + bucket``; the real counters of minnie65 lie between 1.1e7 and 3.4e7."""


class Rows:
    """Integer columns that grow together; what is added is known by its row numbers."""

    def __init__(self, *names: str) -> None:
        self._parts: dict[str, list[Ids]] = {name: [] for name in names}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, **columns: npt.ArrayLike) -> Ids:
        """Append rows (scalars are repeated) and return their numbers."""
        arrays = np.broadcast_arrays(*(as_ids(columns[name]) for name in self._parts))
        for parts, array in zip(self._parts.values(), arrays, strict=True):
            parts.append(array.ravel())
        self._count += arrays[0].size
        return np.arange(self._count - arrays[0].size, self._count)

    def __getitem__(self, name: str) -> Ids:
        parts = self._parts[name]
        if len(parts) != 1:
            parts[:] = [np.concatenate(parts) if parts else np.empty(0, np.int64)]
        return parts[0]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The graph that a history leads to, and which ids its patches, level-2 nodes and states were given.

    ``anchor`` is the first supervoxel of each patch; ``began`` and ``ended`` are the lifetime of each state,
    ``[began, ended)`` in ms, `NEVER` where it lasts.
    """

    graph: Graph
    supervoxel: Ids
    anchor: Ids
    root: Ids
    began: Ids
    ended: Ids


class History:
    """The record. Columns named ``id`` hold ids that are given beforehand, 0 where one is to be made.

    ``contacts`` are pairs of patches that touch, for ever; ``links`` are pairs of rows of ``members`` that are
    connected (see `forest.Members`).

    Parameters
    ----------
    layout
        Geometry of the ids.
    created_ms
        When the initial objects were written.
    first_segment
        Lowest segment id of what is made here, so that it cannot collide with ids that are given.
    """

    def __init__(self, layout: Layout, created_ms: int, first_segment: int = 1) -> None:
        self.layout = layout
        self.created_ms = created_ms
        self.first_segment = first_segment
        self.patches = Rows("chunk")
        self.supervoxels = Rows("patch", "id")
        self.level2 = Rows("patch", "time", "id")
        self.states = Rows("time", "id")
        self.members = Rows("state", "level2")
        self.links = Rows("a", "b")
        self.contacts = Rows("a", "b")
        self.operations = Rows("time", "merge", "user", "a", "b", "new", "other")
        self.lineage = Rows("former", "new", "operation")

    def grow_patches(self, chunk: npt.NDArray[np.int64], supervoxels: Ids | int) -> Ids:
        """New patches in chunks (n, 3), each of so many supervoxels; returns their numbers."""
        patches = self.patches.add(chunk=self.layout.make(2, chunk, 0))
        self.supervoxels.add(patch=np.repeat(patches, supervoxels), id=0)
        return patches

    def chunk(self, patches: Ids) -> npt.NDArray[np.int64]:
        """Chunk coordinates of patches, (n, 3)."""
        return self.layout.chunk(self.patches["chunk"][patches])

    def edit(self, time: Ids, *, merge: bool, user: Ids, at: tuple[Ids, Ids], new: Ids, other: Ids | int = -1) -> Ids:
        """Log one operation per row, between the patches ``at``; it made the states ``new`` and, if not -1, ``other``.

        Returns the operations' numbers.
        """
        return self.operations.add(time=time, merge=int(merge), user=user, a=at[0], b=at[1], new=new, other=other)

    def lifetimes(self) -> tuple[Ids, Ids]:
        """When each state began and ended, ms; `NEVER` where it lasts."""
        ended = np.full(len(self.states), NEVER)
        ended[self.lineage["former"]] = self.operations["time"][self.lineage["operation"]]
        return self.states["time"], ended

    def outcome(
        self,
        rng: np.random.Generator,
        *,
        table: str,
        taken: npt.ArrayLike = (),
    ) -> Outcome:
        """Give every id that is still to be made and build the graph.

        Parameters
        ----------
        rng
            Draws the ids.
        table
            The graph's name.
        taken
            Root ids that must not be drawn.
        """
        supervoxel = self._made(1, self.supervoxels["patch"], self.supervoxels["id"], rng)
        level2 = self._made(2, self.level2["patch"], self.level2["id"], rng)
        root = _drawn(self.states["id"], self.layout, np.asarray(taken, np.int64), rng)
        began, ended = self.lifetimes()
        links = self.links["a"], self.links["b"]
        members = Members(self.members["state"], level2[self.members["level2"]], links)
        order = np.argsort(self.supervoxels["patch"], kind="stable")
        first = np.searchsorted(self.supervoxels["patch"][order], np.arange(len(self.patches)))
        anchor = supervoxel[order[first]]
        operation = self._operation_ids(rng)
        lineage = Lineage(root[self.lineage["former"]], root[self.lineage["new"]], operation[self.lineage["operation"]])
        graph = Graph(
            self.layout,
            table=table,
            created_ms=self.created_ms,
            cells=self._leaf_cells(supervoxel[order], first, level2)
            + grow(self.layout, members, time_ms=began, root=root, first_segment=self.first_segment),
            lineage=lineage,
            operations=self._log(operation, root, anchor),
            edges=self._edges(supervoxel[order], anchor, rng),
        )
        return Outcome(graph, supervoxel, anchor, root, began, ended)

    def _made(self, layer: int, patch: Ids, given: Ids, rng: np.random.Generator) -> Ids:
        ids = given.copy()
        new = np.flatnonzero(given == 0)
        chunk = self.patches["chunk"][patch[new]]
        stride = STRIDE[layer]
        segment = self.first_segment + rank(chunk) * stride + rng.integers(0, stride, len(new))
        ids[new] = self.layout.make(layer, self.layout.chunk(chunk), segment)
        return ids

    def _leaf_cells(self, supervoxel: Ids, first: Ids, level2: Ids) -> Cells:
        """Parent cells of the supervoxels, which are sorted by patch; those of a patch start at ``first``."""
        patch = self.level2["patch"]
        count = np.diff(first, append=len(supervoxel))[patch]
        ends = np.cumsum(count)
        rows = np.arange(int(count.sum())) + np.repeat(first[patch] - (ends - count), count)
        return Cells(supervoxel[rows], np.repeat(level2, count), np.repeat(self.level2["time"], count))

    def _operation_ids(self, rng: np.random.Generator) -> Ids:
        """Ids that grow with time; every tenth or so is missing, as refused edits use up ids too."""
        order = np.argsort(self.operations["time"], kind="stable")
        ids = np.empty(len(order), np.int64)
        ids[order] = np.cumsum(1 + (rng.random(len(order)) < 0.1))
        return ids

    def _log(self, operation: Ids, root: Ids, anchor: Ids) -> Iterable[Operation]:
        rows = self.operations
        columns: list[list[Any]] = [
            operation.tolist(),
            rows["time"].tolist(),
            rows["user"].tolist(),
            rows["merge"].tolist(),
            list(zip(root[rows["new"]].tolist(), root[rows["other"]].tolist(), strict=True)),
            anchor[rows["a"]].tolist(),
            anchor[rows["b"]].tolist(),
            self._centres(rows["a"]),
            self._centres(rows["b"]),
        ]
        alone = (rows["other"] < 0).tolist()
        for row, one in zip(zip(*columns, strict=True), alone, strict=True):
            yield _operation(row, roots=row[4][:1] if one else row[4])

    def _centres(self, patches: Ids) -> list[tuple[int, int, int]]:
        """Voxel in the middle of each patch's chunk."""
        size = np.asarray(self.layout.chunk_size)
        return [tuple(p) for p in (self.layout.voxel_offset + self.chunk(patches) * size + size // 2).tolist()]

    def _edges(self, supervoxel: Ids, anchor: Ids, rng: np.random.Generator) -> Edges:
        """Edges between the anchors of patches in contact, and along the supervoxels within a patch."""
        patch = np.sort(self.supervoxels["patch"], kind="stable")
        same = np.flatnonzero(patch[1:] == patch[:-1])
        a = np.concatenate([anchor[self.contacts["a"]], supervoxel[same]])
        b = np.concatenate([anchor[self.contacts["b"]], supervoxel[same + 1]])
        affinity = rng.uniform(0.3, 1.0, len(a)).astype(np.float32)
        area = rng.integers(20, 2_000, len(a)).astype(np.int32)
        return Edges(a, b, affinity, area, np.ones(len(a), bool))


def _operation(row: tuple[Any, ...], roots: tuple[int, ...]) -> Operation:
    number, time, user, merge, _, source, sink, source_at, sink_at = row
    edge = ((source, sink),)
    return Operation(
        id=number,
        time_ms=time,
        user=str(user),
        kind="merge" if merge else "split",
        roots=roots,
        added_edges=edge if merge else (),
        removed_edges=() if merge else edge,
        source_ids=() if merge else (source,),
        sink_ids=() if merge else (sink,),
        source_coords=(source_at,),
        sink_coords=(sink_at,),
        bb_offset=None if merge else (240, 240, 24),
    )


def _drawn(given: Ids, layout: Layout, taken: Ids, rng: np.random.Generator) -> Ids:
    """Root ids for the states that have none: distinct, and without any relation to time, as the real ones."""
    roots = given.copy()
    new = np.flatnonzero(given == 0)
    taken = np.concatenate([taken, given[given != 0]])
    # an odd factor makes this a permutation: no counter can occur twice
    start, factor = int(rng.integers(COUNTERS)), int(rng.integers(COUNTERS // 2)) * 2 + 1
    counter = FIRST_COUNTER + (start + np.arange(len(new) + len(taken)) * factor) % COUNTERS
    bucket = rng.integers(0, 256, len(counter))
    ids = layout.make(layout.n_layers, np.zeros((len(counter), 3), np.int64), counter * 256 + bucket)
    free = ids[~np.isin(ids, taken)] if len(taken) else ids
    roots[new] = free[: len(new)]
    return roots
