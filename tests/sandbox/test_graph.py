"""The columnar node table, against the recorded node rows and against a walk over plain lists."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortexclient.sandbox.graph import NEVER, Cells, Graph, Layout, Lineage, Operation
from cortexclient.sandbox.worlds.toy_graph import toy_graph

LAYOUT = Layout(
    n_layers=5,
    spatial_bits={1: 3, 2: 3, 3: 2, 4: 1, 5: 1},
    chunk_size=(16, 16, 8),
    resolution=(8, 8, 40),
    voxel_offset=(100, 50, 0),
    volume_size=(128, 128, 64),
)


class TestLayout:
    @pytest.mark.parametrize(
        ("node", "layer", "chunk", "segment"),
        [
            (864691135217871271, 12, (0, 0, 0), 6762736039),
            (97557743795364048, 1, (362, 388, 18), 188624),
            (151733086944494680, 2, (108, 263, 19), 1112),
        ],
    )
    def test_reads_and_writes_ids_of_minnie65(
        self, node: int, layer: int, chunk: tuple[int, int, int], segment: int
    ) -> None:
        layout = Layout.minnie65()
        assert layout.layer(node) == layer
        assert layout.chunk(node).tolist() == list(chunk)
        assert layout.segment(node) == segment
        assert layout.make(layer, np.array(chunk), segment) == node

    def test_foreign_ids_have_a_layer_too(self) -> None:
        assert LAYOUT.layer(np.array([2**64 - 1, 0, 7], np.uint64)).tolist() == [255, 0, 0]

    def test_finds_the_chunk_of_a_voxel(self) -> None:
        assert LAYOUT.chunk_at([[100, 50, 0], [131, 66, 7], [132, 82, 8]]).tolist() == [[0, 0, 0], [1, 1, 0], [2, 2, 1]]
        assert LAYOUT.chunk_at([132, 82, 16], layer=3).tolist() == [1, 1, 1]


@pytest.fixture(scope="module")
def record(shared_data: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((shared_data / "pcg_toy" / "graph.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def graph(shared_data: Path) -> Graph:
    return toy_graph(shared_data)


class TestToy:
    """Every node row of the recorded graph."""

    def test_current_roots(self, graph: Graph, record: dict[str, Any]) -> None:
        supervoxels = [s["id"] for s in record["supervoxels"]]
        assert graph.roots(supervoxels, graph.newest_ms).tolist() == [s["current_root"] for s in record["supervoxels"]]

    def test_every_row(self, graph: Graph, record: dict[str, Any]) -> None:
        for row in record["nodes"]:
            node = [row["id"]]
            assert graph.exists(node).all()
            assert graph.children(row["id"]).tolist() == sorted(row.get("children", []))
            assert graph.created(node)[0] == (round(row["created"] * 1000) if "created" in row else NEVER)
            new = row.get("new_parents", [[[], NEVER / 1000]])[0]
            former = row.get("former_parents", [[[], 0]])[0]
            assert graph.retired(node)[0] == (round(new[1] * 1000) if new[0] else NEVER)
            assert sorted(graph.successors(node)[0].tolist()) == sorted(new[0])
            assert sorted(graph.predecessors(node)[0].tolist()) == sorted(former[0])
            for parent, written in row.get("parents", []):
                assert graph.parents(node, round(written * 1000))[0] == parent

    def test_roots_that_ever_were(self, graph: Graph, record: dict[str, Any]) -> None:
        roots = sorted(row["id"] for row in record["nodes"] if row["layer"] == 6)
        assert graph.root_ids().tolist() == roots
        assert graph.is_root(roots).all()

    def test_retired_nodes_climb_to_retired_roots(self, graph: Graph) -> None:
        retired = graph.root_ids()[graph.retired(graph.root_ids()) != NEVER]
        level2, _ = graph.leaves_of(retired, 2)
        reached = graph.roots(level2, NEVER)
        assert (graph.retired(reached) != NEVER).any()
        assert (graph.roots(retired, NEVER) == retired).all()

    def test_unknown_ids(self, graph: Graph) -> None:
        unknown = [0, 5, -1, 432345564228567615, 72268906496077777]
        assert not graph.exists(unknown).any()
        assert not graph.roots(unknown, NEVER).any()
        assert (graph.created(unknown) == NEVER).all()
        assert len(graph.leaves(432345564228567615, 6)) == 0


NODES = {
    layer: [int(LAYOUT.make(layer, np.array([0, 0, 0]), segment)) for segment in range(1, 5)] for layer in range(1, 6)
}
POOL = [node for nodes in NODES.values() for node in nodes]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Cells (node, parent, time). All children of a node come with it; a node has one parent at a time."""
    born = {node: draw(st.integers(0, 12)) for node in POOL}
    pairs = [(low, high) for low in range(1, 5) for high in range(low + 1, 6)]
    cell = st.sampled_from(pairs).flatmap(
        lambda pair: st.tuples(st.sampled_from(NODES[pair[0]]), st.sampled_from(NODES[pair[1]]))
    )
    drawn = draw(st.lists(cell, max_size=40, unique_by=lambda row: (row[0], born[row[1]])))
    return [(node, parent, born[parent]) for node, parent in drawn]


def build(cells: list[tuple[int, int, int]], split_at: int) -> Graph:
    """A graph whose cells from ``split_at`` on were appended at run time, one edit for each time."""

    def columns(rows: list[tuple[int, int, int]]) -> Cells:
        return Cells(*np.array(rows, np.int64).reshape(-1, 3).T.copy())

    graph = Graph(
        LAYOUT,
        table="t",
        created_ms=0,
        cells=columns([cell for cell in cells if cell[2] < split_at]),
        lineage=Lineage.empty(),
        operations=[],
    )
    for number, when in enumerate(sorted({cell[2] for cell in cells if cell[2] >= split_at}), 1):
        edit = columns([cell for cell in cells if cell[2] == when])
        graph.append(Operation(number, when, "1", "merge"), edit, Lineage.empty())
    return graph


def walked(cells: list[tuple[int, int, int]], node: int, time_ms: int, stop_layer: int) -> int:
    """The ancestor of a node, by looking at every cell for every step."""
    if not any(node in (child, parent) for child, parent, _ in cells):
        return 0
    while node >> 56 < stop_layer:
        above = [(when, parent) for child, parent, when in cells if child == node and when <= time_ms]
        if not above:
            return 0
        node = max(above)[1]
    return node


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 13), st.integers(-1, 13), st.integers(1, 5))
def test_climb_equals_a_walk_over_the_cells(
    cells: list[tuple[int, int, int]], split_at: int, time_ms: int, stop_layer: int
) -> None:
    graph = build(cells, split_at)
    assert graph.roots(POOL, time_ms, stop_layer).tolist() == [walked(cells, n, time_ms, stop_layer) for n in POOL]


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, 13), st.integers(0, 13), st.integers(0, 13))
def test_facts_about_nodes_equal_those_of_the_cells(
    cells: list[tuple[int, int, int]], split_at: int, start: int, end: int
) -> None:
    graph = build(cells, split_at)
    for node in POOL:
        below = [(when, child) for child, parent, when in cells if parent == node]
        own = [when for child, _, when in cells if child == node]
        created = min(below)[0] if below else NEVER
        assert graph.created([node])[0] == created
        assert graph.exists([node])[0] == bool(below or own)
        assert sorted(graph.children(node).tolist()) == sorted(child for _, child in below)
        assert graph.written([node], start, end)[0] == any(start <= when < end for when in [created, *own])


def test_lineage_and_lifetimes_across_blocks() -> None:
    first, second, third, fourth = (int(LAYOUT.make(5, np.array([0, 0, 0]), n)) for n in (1, 2, 3, 4))
    leaf = NODES[1][0]
    graph = Graph(
        LAYOUT,
        table="t",
        created_ms=10,
        cells=Cells(*(np.array(c, np.int64) for c in ([leaf, leaf], [first, second], [10, 20]))),
        lineage=Lineage(*(np.array([c], np.int64) for c in (first, second, 7))),
        operations=[Operation(7, 20, "1", "split")],
    )
    edit = Cells(*(np.array(c, np.int64) for c in ([leaf, NODES[1][1]], [third, fourth], [30, 30])))
    made = Lineage(*(np.array(c, np.int64) for c in ([second, second], [third, fourth], [8, 8])))
    graph.append(Operation(8, 30, "1", "split", roots=(third, fourth)), edit, made)
    assert graph.retired([first, second, third]).tolist() == [20, 30, NEVER]
    assert graph.retired_by([first, second, third]).tolist() == [7, 8, 0]
    assert graph.predecessors([third, second])[0].tolist() in ([second, first], [first, second])
    assert sorted(graph.successors([second])[0].tolist()) == [third, fourth]
    assert graph.root_ids().tolist() == [first, second, third, fourth]
    assert [int(graph.roots([leaf], t)[0]) for t in (9, 10, 19, 20, 29, 30)] == [0, first, first, second, second, third]
    assert graph.newest_ms == 30


def test_looks_up_thousands_of_ids_in_milliseconds_in_a_graph_of_millions() -> None:
    """5 million cells; the bounds are of this thread's CPU time, which a busy machine does not take."""
    layout, rng = Layout.minnie65(), np.random.default_rng(0)
    lowest = current = np.unique(
        layout.make(1, rng.integers(0, 700, (1_000_000, 3)), rng.integers(1, 1 << 20, 1_000_000))
    )
    columns = []
    for layer in range(2, 13):
        parents = layout.make(layer, np.zeros(3, np.int64), np.arange(1, max(len(current) * 6 // 10, 500_000) + 1))
        chosen = parents[np.sort(rng.integers(0, len(parents), len(current)))]
        columns.append((current, chosen, np.zeros(len(current), np.int64)))
        moved = rng.integers(0, len(current), 200_000)
        when = rng.integers(1, 10**11, len(moved))
        columns.append((current[moved], rng.choice(chosen, len(moved)), when))
        current = np.unique(chosen)
    cells = Cells(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    start = time.thread_time()
    graph = Graph(layout, table="t", created_ms=0, cells=cells, lineage=Lineage.empty(), operations=[])
    assert time.thread_time() - start < 20
    asked = rng.choice(lowest, 2000)
    fastest = min(_seconds(graph, asked) for _ in range(5))
    assert fastest < 0.05


def _seconds(graph: Graph, asked: Any) -> float:
    start = time.thread_time()
    assert graph.roots(asked, 5 * 10**10).all()
    return time.thread_time() - start
