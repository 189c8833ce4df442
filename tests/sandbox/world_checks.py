"""What must hold in any world, checked the long way round."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from cortexclient.sandbox.graph import Graph
from cortexclient.sandbox.tables import to_us
from cortexclient.sandbox.world import World
from cortexclient.sandbox.worlds.forest import components


def assert_one_root_each(graph: Graph, times: Iterable[int]) -> None:
    """At each time (ms) the living roots' leaves are all supervoxels, none of them twice, and climbing agrees."""
    nodes = np.unique(graph.cells.node)
    supervoxels = nodes[graph.layout.layer(nodes) == 1]
    roots = graph.root_ids()
    created, retired = graph.created(roots), graph.retired(roots)
    for time in times:
        alive = roots[(created <= time) & (time < retired)]
        leaves, owner = graph.leaves_of(alive)
        order = np.argsort(leaves)
        assert np.array_equal(leaves[order], supervoxels)
        assert np.array_equal(alive[owner[order]], graph.roots(supervoxels, time))


def assert_contiguous(graph: Graph) -> None:
    """A root ends when its successors begin; only initial roots have no predecessor; no lifetime is empty."""
    time = np.array([graph.operations[o].time_ms for o in graph.lineage.operation_id.tolist()])
    assert np.array_equal(graph.retired(graph.lineage.former), time)
    assert np.array_equal(graph.created(graph.lineage.new), time)
    roots = graph.root_ids()
    born_of_edits = graph.created(roots) > graph.created_ms
    assert set(roots[born_of_edits].tolist()) == set(graph.lineage.new.tolist())
    assert (graph.created(roots) < graph.retired(roots)).all()


def assert_nested(graph: Graph) -> None:
    """Parents are above their children and their chunks hold those of their children."""
    layout, cells = graph.layout, graph.cells
    below, above = layout.layer(cells.node), layout.layer(cells.parent)
    assert (above > below).all()
    shift = np.maximum(above - 2, 0) - np.maximum(below - 2, 0)
    inner = above < layout.n_layers
    assert np.array_equal(layout.chunk(cells.parent)[inner], (layout.chunk(cells.node) >> shift[:, None])[inner])
    assert (layout.segment(cells.node) > 0).all()


def assert_in_volume(graph: Graph) -> None:
    """Every supervoxel's chunk lies in the volume."""
    nodes = np.unique(graph.cells.node)
    chunk = graph.layout.chunk(nodes[graph.layout.layer(nodes) == 1])
    assert (chunk >= 0).all()
    assert (chunk * graph.layout.chunk_size < np.array(graph.layout.volume_size)).all()


def assert_points_placed(world: World) -> None:
    """Every bound point's supervoxel exists and lies in the chunk that the position is in."""
    layout = world.graph.layout
    for table in world.tables.values():
        for point in table.bound_points:
            rows = table.rows.filter(pl.col(f"{point}_supervoxel_id") != 0)
            at = rows.select(f"{point}_position_{axis}" for axis in "xyz").to_numpy()
            voxels = at * np.array(table.voxel_resolution) // np.array(layout.resolution)
            supervoxels = rows[f"{point}_supervoxel_id"].to_numpy()
            assert np.array_equal(layout.chunk_at(voxels.astype(np.int64)), layout.chunk(supervoxels))
            assert world.graph.exists(supervoxels).all()


def level2_edges(graph: Graph, root: int) -> set[tuple[int, int]]:
    """Pairs of level-2 nodes of a root that supervoxel edges join, by the raw edges and cells."""
    supervoxels = graph.leaves(root)
    inside = np.isin(graph.edges.a, supervoxels) & np.isin(graph.edges.b, supervoxels)
    time = int(graph.created([root])[0])
    a, b = (graph.parents(ends[inside], time) for ends in (graph.edges.a, graph.edges.b))
    return {(min(pair), max(pair)) for pair in zip(a.tolist(), b.tolist(), strict=True) if pair[0] != pair[1]}


def assert_connected(graph: Graph, root: int) -> None:
    """The level-2 graph of a root is in one piece."""
    nodes = graph.leaves(root, 2)
    ends = np.searchsorted(nodes, np.array(sorted(level2_edges(graph, root)), np.int64).reshape(-1, 2))
    assert not components(len(nodes), ends[:, 0], ends[:, 1]).any()


def assert_same_world(a: World, b: World) -> None:
    for left, right in (
        (a.graph.cells, b.graph.cells),
        (a.graph.lineage, b.graph.lineage),
        (a.graph.edges, b.graph.edges),
    ):
        for column in left.__dataclass_fields__:
            assert np.array_equal(getattr(left, column), getattr(right, column))
            assert getattr(left, column).dtype == getattr(right, column).dtype
    assert a.graph.operations == b.graph.operations
    assert a.graph.layout == b.graph.layout
    assert (a.graph.table, a.graph.created_ms) == (b.graph.table, b.graph.created_ms)
    assert (a.name, a.seed, a.notes, a.datastacks) == (b.name, b.seed, b.notes, b.datastacks)
    assert [vars(v) for v in a.versions] == [vars(v) for v in b.versions]
    assert [vars(v) for v in a.views.values()] == [vars(v) for v in b.views.values()]
    assert list(a.tables) == list(b.tables)
    for name, table in a.tables.items():
        other = vars(b.tables[name])
        assert_frame_equal(table.rows, other["rows"])
        assert {k: v for k, v in vars(table).items() if k != "rows"} == {k: v for k, v in other.items() if k != "rows"}
        assert to_us(table.modified) == to_us(b.tables[name].modified)
