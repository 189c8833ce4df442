"""Edits: the recorded ones made again, and random ones against a union of sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.lattice import CREATED_MS, lattice

from cortexclient.sandbox.edges import Edges
from cortexclient.sandbox.edits import EditRefusedError
from cortexclient.sandbox.graph import NEVER, Cells, Graph, Lineage, Operation
from cortexclient.sandbox.mincut import source_side
from cortexclient.sandbox.worlds.toy_graph import toy_graph


def partition(graph: Graph, time_ms: int = NEVER) -> list[list[int]]:
    """Supervoxels by root."""
    cells = graph.cells
    supervoxels = np.unique(cells.node[graph.layout.layer(cells.node) == 1])
    roots = graph.roots(supervoxels, time_ms)
    return sorted(supervoxels[roots == root].tolist() for root in np.unique(roots))


def written(graph: Graph, time_ms: int) -> list[int]:
    """Nodes made at a time, roots without their ids (those are drawn at random): how many of each layer."""
    made = np.unique(graph.cells.parent[graph.cells.time_ms == time_ms])
    return np.bincount(graph.layout.layer(made), minlength=7).tolist()


def undirected(operation: Operation) -> set[tuple[int, int]]:
    return {(min(edge), max(edge)) for edge in operation.removed_edges}


class TestRecordedEdits:
    """The toy's nineteen operations, made again by the sandbox on the toy's first state."""

    @pytest.fixture
    def recorded(self, shared_data: Path) -> Graph:
        return toy_graph(shared_data)

    @pytest.fixture
    def graph(self, recorded: Graph) -> Graph:
        cells = recorded.cells
        first = cells.time_ms == recorded.created_ms
        return Graph(
            recorded.layout,
            table=recorded.table,
            created_ms=recorded.created_ms,
            cells=Cells(cells.node[first], cells.parent[first], cells.time_ms[first]),
            lineage=Lineage.empty(),
            operations=[],
            edges=recorded.edges,
        )

    def repeat(self, graph: Graph, wanted: Operation) -> Operation | None:
        when, points = wanted.time_ms, (wanted.source_coords, wanted.sink_coords)
        if wanted.kind == "merge":
            (edge,) = wanted.added_edges
            return graph.merge(*edge, time_ms=when, source_coords=points[0], sink_coords=points[1])
        if wanted.kind == "split":
            ids = (wanted.source_ids, wanted.sink_ids)
            return graph.split(*ids, time_ms=when, source_coords=points[0], sink_coords=points[1])
        if wanted.kind == "undo":
            return graph.undo(wanted.undo_operation_id or 0, time_ms=when)
        return graph.redo(wanted.redo_operation_id or 0, time_ms=when)

    def test_same_objects_same_tree(self, graph: Graph, recorded: Graph) -> None:
        for number, wanted in sorted(recorded.operations.items()):
            if wanted.status:
                with pytest.raises(EditRefusedError, match="must belong to different objects"):
                    self.repeat(graph, wanted)
                assert graph.operations[number].status == 1
                continue
            made = self.repeat(graph, wanted)
            assert made is not None
            assert (made.id, made.kind, made.time_ms) == (number, wanted.kind, wanted.time_ms)
            assert undirected(made) == undirected(wanted)
            assert made.added_edges == wanted.added_edges
            assert partition(graph, wanted.time_ms) == partition(recorded, wanted.time_ms)
            assert written(graph, wanted.time_ms) == written(recorded, wanted.time_ms)
        level2 = [np.unique(g.cells.parent[g.layout.layer(g.cells.parent) == 2]).tolist() for g in (graph, recorded)]
        assert level2[0] == level2[1]
        assert len(graph.cells.node) == len(recorded.cells.node)

    def test_an_undone_operation_cannot_be_undone_again(self, recorded: Graph) -> None:
        assert recorded.undo(8) is None
        assert recorded.redo(7) is None
        with pytest.raises(KeyError):
            recorded.undo(999)

    def test_refusals_change_nothing(self, recorded: Graph) -> None:
        before, cells = partition(recorded), len(recorded.cells.node)
        roots = recorded.roots(np.concatenate(before), NEVER)
        a, b = before[0][0], before[0][-1]
        other = next(objects[0] for objects in before[1:])
        for edit in (
            lambda: recorded.merge(a, a),
            lambda: recorded.merge(a, b),
            lambda: recorded.merge(a, 72057594037999999),
            lambda: recorded.split([a], [other]),
            lambda: recorded.split([a], [a, b]),
        ):
            with pytest.raises(EditRefusedError):
                edit()
        assert len(recorded.cells.node) == cells
        assert recorded.roots(np.concatenate(before), NEVER).tolist() == roots.tolist()


def check_tree(graph: Graph, time_ms: int) -> None:
    """One parent for each node, children of one layer below where there are several, in the chunk of their parent."""
    roots = graph.root_ids()
    current = roots[(graph.created(roots) <= time_ms) & (graph.retired(roots) > time_ms)]
    nodes = current
    held = []
    while len(nodes):
        kids, owner = graph.children_of(nodes)
        above = nodes[owner]
        assert (graph.parents(kids, time_ms) == above).all()
        layer, parent_layer = graph.layout.layer(kids), graph.layout.layer(above)
        crowded = np.bincount(owner)[owner] > 1
        assert (layer[crowded] == parent_layer[crowded] - 1).all()
        shift = parent_layer - np.maximum(layer, 2)
        inner = (parent_layer > 2) & (parent_layer < 5)
        assert (graph.layout.chunk(kids)[inner] >> shift[inner, None] == graph.layout.chunk(above)[inner]).all()
        held += kids[layer == 1].tolist()
        nodes = kids[layer > 1]
    assert sorted(held) == sorted(s for group in partition(graph, time_ms) for s in group)
    assert len(held) == len(set(held))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_edits_keep_the_objects_right(data: st.DataObject) -> None:
    graph = lattice()
    supervoxels = [node for group in partition(graph) for node in group]
    objects = {node: {node} for node in supervoxels}
    snapshots = []
    for step in range(data.draw(st.integers(1, 12))):
        a, b = (data.draw(st.sampled_from(supervoxels)) for _ in range(2))
        former = sorted({int(root) for root in graph.roots([a, b], NEVER)})
        try:
            if data.draw(st.booleans()):
                made = graph.merge(a, b, time_ms=CREATED_MS + 100 + step)
                joined = objects[a] | objects[b]
                objects |= dict.fromkeys(joined, joined)
            else:
                made = graph.split([a], [b], time_ms=CREATED_MS + 100 + step)
                pieces = [set(graph.leaves(root).tolist()) for root in made.roots]
                assert set().union(*pieces) == objects[a]
                assert sum(map(len, pieces)) == len(objects[a])
                assert not any({a, b} <= piece for piece in pieces)
                objects |= {node: piece for piece in pieces for node in piece}
        except EditRefusedError:
            continue
        assert sorted(graph.predecessors(made.roots[:1])[0].tolist()) == former
        assert (graph.retired(former) == made.time_ms).all()
        snapshots.append((made.time_ms, partition(graph, made.time_ms)))
        assert snapshots[-1][1] == sorted(map(sorted, {id(o): o for o in objects.values()}.values()))
        check_tree(graph, made.time_ms)
    for time_ms, seen in snapshots:
        assert partition(graph, time_ms) == seen


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_undo_brings_the_objects_back_under_new_ids(data: st.DataObject) -> None:
    graph = lattice()
    supervoxels = [node for group in partition(graph) for node in group]
    made = None
    for _ in range(data.draw(st.integers(1, 6))):
        before = partition(graph)
        a, b = (data.draw(st.sampled_from(supervoxels)) for _ in range(2))
        try:
            made = graph.merge(a, b, time_ms=0)
        except EditRefusedError:
            continue
        after = partition(graph)
        undone = graph.undo(made.id, time_ms=0)
        assert undone is not None
        assert partition(graph) == before
        assert not set(undone.roots) & set(graph.predecessors(made.roots)[0].tolist())
        assert graph.undo(made.id, time_ms=0) is None
        assert graph.redo(made.id, time_ms=0) is not None
        assert partition(graph) == after
        check_tree(graph, NEVER - 1)


class TestCut:
    def edges(self, *rows: tuple[int, int, float]) -> Edges:
        a, b, affinity = zip(*rows, strict=True)
        n = len(rows)
        return Edges(np.array(a), np.array(b), np.array(affinity, np.float32), np.ones(n, np.int32), np.ones(n, bool))

    def test_cuts_where_it_is_cheapest(self) -> None:
        edges = self.edges((1, 2, 0.9), (2, 3, 0.2), (3, 4, 0.8), (1, 5, 0.9), (5, 3, 0.1))
        assert source_side(edges, [1], [4]) == {1, 2, 5}

    def test_follows_all_routes(self) -> None:
        edges = self.edges((1, 2, 1.0), (1, 3, 1.0), (2, 4, 0.4), (3, 4, 0.4), (4, 5, 0.9))
        assert source_side(edges, [1], [5]) == {1, 2, 3}

    def test_never_cuts_infinite_edges(self) -> None:
        edges = self.edges((1, 2, np.inf), (2, 3, 0.5))
        assert source_side(edges, [1], [3]) == {1, 2}
        assert 2 in source_side(edges, [1], [2])
