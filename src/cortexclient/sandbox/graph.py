"""The node table of a chunkedgraph: who is whose parent, since when.

Everything the service answers follows from three append-only facts, the same that the real service keeps in Bigtable:

- **parent cells** ``(node, parent, time)``: from ``time`` on, ``parent`` is the parent of ``node``;
- **lineage** ``(former root, new root, operation)``: the operation that retired one root and made the other;
- **operations**: the log of edits.

A node's children are the nodes that ever pointed at it, its creation time is the time of those cells, a root is retired
by the operation that lists it as former. All times are UTC milliseconds since the epoch, all ids int64.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from .edges import EdgeHistory, Edges
from .layout import Ids, Layout, as_ids
from .nodes import NEVER, Bools, Cells, Lineage, NodeTable
from .operations import Operation, Points

__all__ = ["NEVER", "Cells", "Edges", "Graph", "Layout", "Lineage", "Operation"]

FOLD_AT: Final = 200_000
"""Cells of later edits that are kept apart from the big block before both are sorted into one."""


class Graph:
    """A chunkedgraph's whole history, open to edits.

    The bulk lies in one immutable sorted block; edits made at run time in a second, small one, which wins where both
    have an answer because edits only ever append later times. It is folded in when it has grown.

    Parameters
    ----------
    layout
        Geometry of ids and chunks.
    table
        The graph's name, ``minnie3_v1`` for example.
    created_ms
        When the initial nodes were written.
    cells, lineage
        In any order.
    operations
        The edit log; every operation that ``lineage`` names must be there.
    edges
        Supervoxel edges; without them the graph answers no level-2 graph, subgraph, path or split.
    info
        Entries of the segmentation's ``info`` that differ from the default: where meshes lie, for example.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        table: str,
        created_ms: int,
        cells: Cells,
        lineage: Lineage,
        operations: Iterable[Operation],
        edges: Edges | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.layout = layout
        self.table = table
        self.created_ms = created_ms
        self.operations = {operation.id: operation for operation in operations}
        self.edges = edges if edges is not None else Edges.empty()
        self.info = dict(info or {})
        self.locked_until: dict[int, int] = {}
        """Root -> when the edit that is being made of it is through, ms; kept by the service, which locks roots."""
        self._edge_history: EdgeHistory | None = None
        self._base = self._block(cells, lineage)
        self.newest_ms = max(
            int(cells.time_ms.max(initial=0)), *(o.time_ms for o in self.operations.values()), created_ms
        )
        """When the latest change was written."""
        self._recent = self._block(Cells.empty(), Lineage.empty())

    def _block(self, cells: Cells, lineage: Lineage) -> NodeTable:
        operations = np.fromiter(self.operations, np.int64, len(self.operations))
        times = np.fromiter((o.time_ms for o in self.operations.values()), np.int64, len(operations))
        order = np.argsort(operations)
        rows = order[np.searchsorted(operations, lineage.operation_id, sorter=order)] if len(operations) else order
        return NodeTable(cells, lineage, times[rows])

    @property
    def _blocks(self) -> tuple[NodeTable, ...]:
        return (self._base, self._recent) if len(self._recent.cells.node) else (self._base,)

    @property
    def cells(self) -> Cells:
        """All parent cells."""
        return self._base.cells + self._recent.cells

    @property
    def lineage(self) -> Lineage:
        """The whole lineage."""
        return self._base.lineage + self._recent.lineage

    def append(self, operation: Operation, cells: Cells, lineage: Lineage) -> None:
        """Write one edit. Its cells must not be older than any that are there."""
        self.log(operation)
        cells, lineage = self._recent.cells + cells, self._recent.lineage + lineage
        if len(cells.node) > FOLD_AT:
            self._base = self._block(self._base.cells + cells, self._base.lineage + lineage)
            cells, lineage = Cells.empty(), Lineage.empty()
        self._recent = self._block(cells, lineage)

    def log(self, operation: Operation) -> None:
        """Write a log record alone, as for a refused edit."""
        self.operations[operation.id] = operation
        self.newest_ms = max(self.newest_ms, operation.time_ms)
        if self._edge_history is not None:
            self._edge_history.record(operation)

    def merge(
        self,
        source: int,
        sink: int,
        *,
        user: str = "1",
        time_ms: int | None = None,
        source_coords: Points = (),
        sink_coords: Points = (),
    ) -> Operation:
        """Join the objects of two supervoxels; ``operation.roots`` is the new root.

        Parameters
        ----------
        source, sink
            Supervoxels of different objects, at most three chunks apart.
        user
            Who does it.
        time_ms
            When, UTC milliseconds; now by default, and in any case after all other edits.
        source_coords, sink_coords
            For the log: points in absolute voxels.

        Raises
        ------
        cortexclient.sandbox.edits.EditRefusedError
            With the service's reason.
        """
        from . import edits

        when = _now_ms() if time_ms is None else time_ms
        return edits.merge(
            self, source, sink, user=user, time_ms=when, source_coords=source_coords, sink_coords=sink_coords
        )

    def split(
        self,
        sources: Sequence[int],
        sinks: Sequence[int],
        *,
        user: str = "1",
        time_ms: int | None = None,
        source_coords: Points = (),
        sink_coords: Points = (),
    ) -> Operation:
        """Part two groups of supervoxels of one object by the cheapest cut between them; see `merge`."""
        from . import edits

        when = _now_ms() if time_ms is None else time_ms
        return edits.split(
            self, sources, sinks, user=user, time_ms=when, source_coords=source_coords, sink_coords=sink_coords
        )

    def undo(self, operation_id: int, *, user: str = "1", time_ms: int | None = None) -> Operation | None:
        """Take back an operation by a new one; None if it stands undone already."""
        from . import edits

        return edits.undo(self, operation_id, user=user, time_ms=_now_ms() if time_ms is None else time_ms)

    def redo(self, operation_id: int, *, user: str = "1", time_ms: int | None = None) -> Operation | None:
        """Do an undone operation again; None if it is in force."""
        from . import edits

        return edits.redo(self, operation_id, user=user, time_ms=_now_ms() if time_ms is None else time_ms)

    def parents(self, ids: npt.ArrayLike, time_ms: int) -> Ids:
        """Parent of each id at a time, inclusive: a cell written at ``time_ms`` counts. 0 where there is none."""
        nodes = as_ids(ids)
        parents = self._base.parents(nodes, time_ms)
        for block in self._blocks[1:]:
            later = block.parents(nodes, time_ms)
            parents = np.where(later, later, parents)
        return parents

    def roots(self, ids: npt.ArrayLike, time_ms: int, stop_layer: int | None = None) -> Ids:
        """Climb from each id to its ancestor at a time.

        Parameters
        ----------
        ids
            (n,) ids of any layer.
        time_ms
            Inclusive.
        stop_layer
            The climb ends at the first ancestor of this layer or above (edges of the tree may skip layers);
            the roots' layer if not given.

        Returns
        -------
        (n,) int64, in input order: 0 where the id is unknown, or has no ancestor of that layer at that time. Known ids
        of ``stop_layer`` or above stand for themselves, retired or not; a retired lower node climbs to a retired root.
        """
        stop = stop_layer or self.layout.n_layers
        nodes = as_ids(ids).copy()
        climbing = self.layout.layer(nodes) < stop
        there = ~climbing
        nodes[there] = np.where(self.exists(nodes[there]), nodes[there], 0)
        active = np.flatnonzero(climbing)
        while len(active):
            nodes[active] = parents = self.parents(nodes[active], time_ms)
            active = active[(parents != 0) & (self.layout.layer(parents) < stop)]
        return nodes

    def exists(self, ids: npt.ArrayLike) -> Bools:
        """Whether each id is a node of the graph, at whatever time."""
        nodes = as_ids(ids)
        known: Bools = self.created(nodes) != NEVER
        for block in self._blocks:
            known |= block.has_cells(nodes)
        return known

    def created(self, ids: npt.ArrayLike) -> Ids:
        """Creation time of each id (the time of its children's cells), ms; `NEVER` for unknown ids and supervoxels."""
        nodes = as_ids(ids)
        return _earliest(block.by_parent.first(nodes, 1, NEVER) for block in self._blocks)

    def retired(self, ids: npt.ArrayLike) -> Ids:
        """When each root was retired by an edit, ms; `NEVER` for current roots and for what is no root."""
        nodes = as_ids(ids)
        return _earliest(block.by_former.first(nodes, 2, NEVER) for block in self._blocks)

    def retired_by(self, ids: npt.ArrayLike) -> Ids:
        """The operation that retired each root; 0 for current roots and for what is no root."""
        nodes = as_ids(ids)
        return as_ids(np.max([block.by_former.first(nodes, 1, 0) for block in self._blocks], axis=0))

    def written(self, ids: npt.ArrayLike, start_ms: int, end_ms: int) -> Bools:
        """Whether anything was written about each id in ``[start_ms, end_ms)``: creation, a new parent, retirement."""
        nodes = as_ids(ids)
        created, retired = self.created(nodes), self.retired(nodes)
        touched = ((start_ms <= created) & (created < end_ms)) | ((start_ms <= retired) & (retired < end_ms))
        for block in self._blocks:
            rows, owner = block.parent_cells(nodes)
            times = block.cells.time_ms[rows]
            touched[owner[(start_ms <= times) & (times < end_ms)]] = True
        return touched

    def children(self, node: int) -> Ids:
        """Children of one node, sorted; empty for supervoxels and unknown ids. They never change."""
        return self.children_of(np.array([node], np.int64))[0]

    def children_of(self, ids: npt.ArrayLike) -> tuple[Ids, Ids]:
        """Children of many nodes, and for each child the position in ``ids`` of its parent."""
        nodes = as_ids(ids)
        found = [(block.by_parent, *block.by_parent.rows(nodes)) for block in self._blocks]
        return np.concatenate([g.values[0][rows] for g, rows, _ in found]), np.concatenate([o for *_, o in found])

    def leaves(self, node: int, stop_layer: int = 1) -> Ids:
        """Descendants of exactly ``stop_layer``, sorted; the node itself if it is of that layer.

        Branches that skip the layer contribute nothing. Empty for unknown ids.
        """
        return self.leaves_of(np.array([node], np.int64), stop_layer)[0]

    def leaves_of(self, ids: npt.ArrayLike, stop_layer: int = 1) -> tuple[Ids, Ids]:
        """Leaves of many nodes (see `leaves`), and for each the position in ``ids`` of its ancestor; sorted by both."""
        nodes = as_ids(ids)
        owner = np.flatnonzero(self.exists(nodes))
        nodes = nodes[owner]
        found = []
        while len(nodes):
            layers = self.layout.layer(nodes)
            found.append((nodes[layers == stop_layer], owner[layers == stop_layer]))
            inner = layers > stop_layer
            owner = owner[inner]
            nodes, parent = self.children_of(nodes[inner])
            owner = owner[parent]
        leaves = np.concatenate([n for n, _ in found]) if found else nodes
        owners = np.concatenate([o for _, o in found]) if found else owner
        order = np.lexsort((leaves, owners))
        return leaves[order], owners[order]

    def successors(self, ids: npt.ArrayLike) -> tuple[Ids, Ids]:
        """The roots that replaced each root, and for each the position in ``ids`` of the root it replaced."""
        nodes = as_ids(ids)
        found = [(block.by_former, *block.by_former.rows(nodes)) for block in self._blocks]
        return np.concatenate([g.values[0][rows] for g, rows, _ in found]), np.concatenate([o for *_, o in found])

    def predecessors(self, ids: npt.ArrayLike) -> tuple[Ids, Ids]:
        """The roots that each root replaced, and for each the position in ``ids`` of its replacement."""
        nodes = as_ids(ids)
        found = [(block.by_new, *block.by_new.rows(nodes)) for block in self._blocks]
        return np.concatenate([g.values[0][rows] for g, rows, _ in found]), np.concatenate([o for *_, o in found])

    def edges_within(self, supervoxels: Ids, time_ms: int) -> Edges:
        """Active edges among ``supervoxels`` (sorted) at a time; see `EdgeHistory.within`."""
        return self._history().within(supervoxels, time_ms)

    def edges_touching(self, supervoxels: Ids, time_ms: int) -> Edges:
        """Active edges from ``supervoxels`` to wherever at a time; see `EdgeHistory.touching`."""
        return self._history().touching(supervoxels, time_ms)

    def _history(self) -> EdgeHistory:
        if self._edge_history is None:
            ordered = (self.operations[number] for number in sorted(self.operations))
            self._edge_history = EdgeHistory(self.edges, ordered)
        return self._edge_history

    def root_ids(self) -> Ids:
        """Every root that ever was, sorted."""
        return self._parents_from(self.layout.n_layers << self.layout.layer_shift, NEVER)

    def nodes_in_chunk(self, chunk_id: int) -> Ids:
        """Every node above layer 1 that a chunk ever held, sorted. A chunk's id is that of its segment 0."""
        return self._parents_from(chunk_id, chunk_id + self.layout.segments(chunk_id))

    def _parents_from(self, first: int, stop: int) -> Ids:
        keys = [block.by_parent.key for block in self._blocks]
        parents = np.sort(np.concatenate([key[slice(*np.searchsorted(key, [first, stop]))] for key in keys]))
        return as_ids(parents[np.diff(parents, prepend=0) != 0])

    def is_root(self, ids: npt.ArrayLike) -> Bools:
        """Whether each id is a root of the graph, current or retired."""
        nodes = as_ids(ids)
        roots: Bools = (self.layout.layer(nodes) == self.layout.n_layers) & (self.created(nodes) != NEVER)
        return roots


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _earliest(times: Iterable[Ids]) -> Ids:
    return as_ids(np.min(list(times), axis=0))
