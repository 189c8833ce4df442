"""The id mapping, computed the slow and obvious way: what every faster route must agree with.

It walks the world's raw facts (parent cells and annotation rows) in plain Python and uses neither the look-ups of
`Graph` nor `Tables` nor any server route.

The rules
---------
*Reference rows.* The answer is given for the rows of one version: created by its time and not deleted by then.

*Effective points.* The points of a cell are those of its valid backup rows if it has any, else that of its main row. So
a backup replaces the main point even if the backup lies outside the segmentation, as in the datastack's own look-up
view. A cell exists only if its main row does: backups of a deleted nucleus count for nothing. A point with supervoxel 0
is no point.

*Root to cell.* The supervoxels of a root never change, so no time is needed: a root owns the points whose supervoxel is
one of its leaves.

- not an id of the roots' layer, or no root of the graph at any time: -1, ``invalid``
- it owns effective points of one cell: that cell, ``ok``, source ``backup`` or ``main``
- of several cells: -1, ``multiple``
- of none, but main points that backups replaced: of one cell, that cell, ``ok``, source ``main_replaced``;
  of several, -1, ``multiple``
- none at all: -1, ``none``

*Cell to root.* The roots, at the version's time or at another one that is asked, of the cell's effective points.

- no such cell, or no point of it has a root: -1, ``none``
- one distinct root: that root, ``ok``, source ``backup`` or ``main``
- several (backups on different objects): -1, ``multiple``

Going from a root to its cell and back leads to the same root, at a time when that root was alive, wherever both answers
are positive and the first is not ``main_replaced``.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple

from cortexclient.sandbox.world import World

Status = Literal["ok", "none", "multiple", "invalid"]


class Answer(NamedTuple):
    id: int
    status: Status
    source: str | None = None


MAIN, BACKUPS = "nucleus_detection_v0", "nucleus_alternative_points"

_oracles: dict[int, Oracle] = {}


def oracle_root_to_cell(world: World, root_id: int, version: int | None = None) -> Answer:
    """The cell of a root, for the annotations of a version (the newest valid one if not given)."""
    return oracle_for(world).root_to_cell(root_id, version_us(world, version))


def oracle_cell_to_root(
    world: World, cell_id: int, version: int | None = None, time_ms: int | None = None, live: bool = False
) -> Answer:
    """The root of a cell at a version, or at another time.

    ``live`` takes the annotations of ``time_ms`` too, instead of the version's.
    """
    reference_us = version_us(world, version)
    at_ms = reference_us // 1000 if time_ms is None else time_ms
    return oracle_for(world).cell_to_root(cell_id, at_ms * 1000 if live else reference_us, at_ms)


def version_us(world: World, version: int | None) -> int:
    return world.version(version).time_us


def oracle_for(world: World) -> Oracle:
    """One oracle per world and number of its operations: edits make a new one."""
    known = _oracles.get(id(world))
    if known is None or known.world is not world or known.operations != len(world.graph.operations):
        known = _oracles[id(world)] = Oracle(world)
    return known


class Oracle:
    """All facts of a world in dictionaries."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.operations = len(world.graph.operations)
        self.parents: dict[int, list[tuple[int, int]]] = defaultdict(list)
        self.children: dict[int, set[int]] = defaultdict(set)
        cells = world.graph.cells
        for node, parent, time in zip(cells.node.tolist(), cells.parent.tolist(), cells.time_ms.tolist(), strict=True):
            self.parents[node].append((time, parent))
            self.children[parent].add(node)
        self.root_layer = world.graph.layout.n_layers
        self._points: dict[int, Points] = {}

    def layer(self, node: int) -> int:
        return node >> self.world.graph.layout.layer_shift

    def root_at(self, supervoxel: int, time_ms: int) -> int:
        """Climb by the newest parent cell that is not younger than the time; 0 if the climb ends below a root."""
        node = supervoxel
        while self.layer(node) != self.root_layer:
            written = [cell for cell in self.parents.get(node, ()) if cell[0] <= time_ms]
            if not written:
                return 0
            node = max(written)[1]
        return node

    def supervoxels(self, node: int) -> set[int]:
        if self.layer(node) == 1:
            return {node}
        return set().union(*(self.supervoxels(child) for child in self.children.get(node, ())))

    def points(self, annotations_us: int) -> Points:
        if annotations_us not in self._points:
            self._points[annotations_us] = Points(self.world, annotations_us)
        return self._points[annotations_us]

    def root_to_cell(self, root: int, annotations_us: int) -> Answer:
        if self.layer(root) != self.root_layer or root not in self.children:
            return Answer(-1, "invalid")
        supervoxels, points = self.supervoxels(root), self.points(annotations_us)
        owned = set().union(*(points.effective_at.get(s, set()) for s in supervoxels))
        if owned:
            return only(owned, points.source)
        replaced = set().union(*(points.replaced_at.get(s, set()) for s in supervoxels))
        return only(replaced, lambda _: "main_replaced")

    def cell_to_root(self, cell: int, annotations_us: int, time_ms: int) -> Answer:
        points = self.points(annotations_us)
        roots = {self.root_at(s, time_ms) for s in points.of_cell.get(cell, ()) if s != 0} - {0}
        return only(roots, lambda _: points.source(cell))


class Points:
    """The points of all cells for the rows of one instant."""

    def __init__(self, world: World, time_us: int) -> None:
        main = {row["id"]: row["pt_supervoxel_id"] or 0 for row in rows_alive(world, MAIN, time_us)}
        self.backups: dict[int, list[int]] = defaultdict(list)
        for row in rows_alive(world, BACKUPS, time_us):
            if row["target_id"] in main:
                self.backups[row["target_id"]].append(row["pt_supervoxel_id"] or 0)
        self.of_cell = {cell: self.backups.get(cell, [supervoxel]) for cell, supervoxel in main.items()}
        self.effective_at: dict[int, set[int]] = defaultdict(set)
        for cell, supervoxels in self.of_cell.items():
            for supervoxel in supervoxels:
                self.effective_at[supervoxel].add(cell)
        self.replaced_at: dict[int, set[int]] = defaultdict(set)
        for cell in self.backups:
            self.replaced_at[main[cell]].add(cell)

    def source(self, cell: int) -> str:
        return "backup" if cell in self.backups else "main"


def rows_alive(world: World, table: str, time_us: int) -> list[dict[str, Any]]:
    """Rows of a table that were there at an instant; none if the world has no such table."""
    if table not in world.tables:
        return []
    time = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).replace(tzinfo=None)
    rows = world.tables[table].rows.iter_rows(named=True)
    return [
        row
        for row in rows
        if row["created"] <= time and (row["valid"] if row["deleted"] is None else row["deleted"] > time)
    ]


def only(found: set[int], source: Any) -> Answer:
    if not found:
        return Answer(-1, "none")
    if len(found) > 1:
        return Answer(-1, "multiple")
    (one,) = found
    return Answer(one, "ok", source(one))
