"""Labels by geometry, on shapes whose answer is plain; each of cortical-tools' weak places is one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cortexclient._wire.meshes import ChunkGrid
from cortexclient.services.mesh._geometry import Evidence, label_by_shape
from cortexclient.services.mesh._labels import spread

pytest.importorskip("scipy")
GRID = ChunkGrid(np.full(3, 1000.0), np.zeros(3), bits=10, pitch=2.0)


def node(x: int, segment: int) -> int:
    """A level-2 node in chunk (x, 0, 0)."""
    return (2 << 56) | (x << 46) | segment


def box(low: Any, high: Any, n: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """A closed box of n x n squares a side, looking outwards."""
    corners = np.stack(np.meshgrid(*[np.arange(n + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    number = np.arange((n + 1) ** 3).reshape([n + 1] * 3)
    quads = []
    for axis in range(3):
        for side in (0, n):
            grid = np.moveaxis(number, axis, 0)[side]
            grid = grid.T if (axis == 1) == (side == n) else grid
            quads.append(np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], -1).reshape(-1, 4))
    quad = np.concatenate(quads)
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    used, faces = np.unique(faces, return_inverse=True)
    places = np.array(low) + corners[used] / n * (np.array(high) - low)
    return places.astype(np.float32), faces.reshape(-1, 3).astype(np.uint32)


def together(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *(len(v) for v, _ in parts)])
    faces = [f + np.uint32(s) for (_, f), s in zip(parts, starts, strict=False)]
    return np.concatenate([v for v, _ in parts]), np.concatenate(faces)


def labels(mesh: Any, *points: tuple[int, Any], hops: int = 50, **options: float) -> list[set[int]]:
    """The labels of each part of a mesh of boxes."""
    nodes, where = np.array([n for n, _ in points]), np.array([p for _, p in points], np.float64)
    found = label_by_shape(mesh, Evidence(nodes, where, **options), GRID, hops)
    return [set(part.tolist()) for part in np.split(found, len(found) // 218)]


A, B = node(0, 1), node(0, 2)
LEFT, RIGHT = box([100, 100, 100], [300, 300, 300]), box([600, 100, 100], [800, 300, 300])


def test_a_box_has_218_vertices_and_looks_outwards() -> None:
    vertices, faces = LEFT
    a, b, c = (vertices[faces[:, k]] - 200 for k in range(3))
    assert len(vertices) == 218
    assert np.isclose((np.cross(a, b) * c).sum() / 6, 200**3)


def test_points_inside_decide() -> None:
    assert labels(together(LEFT, RIGHT), (B, [700, 200, 200]), (A, [200, 200, 200])) == [{A}, {B}]


def test_the_order_of_the_nodes_does_not() -> None:
    assert labels(together(LEFT, RIGHT), (A, [200, 200, 200]), (B, [700, 200, 200])) == [{A}, {B}]


def test_a_point_outside_goes_to_what_is_near() -> None:
    """A point beside a thin sheet: its winding number says nothing."""
    assert labels(together(LEFT, RIGHT), (B, [820, 200, 200]), (A, [90, 200, 200])) == [{A}, {B}]


def test_a_node_without_a_surface_takes_none_from_others() -> None:
    mesh = together(LEFT, RIGHT)
    assert labels(mesh, (A, [200, 200, 200]), (B, [700, 200, 200]), (node(0, 3), [200, 200, 990])) == [{A}, {B}]
    unknown = (A, [200, 200, 200]), (B, [np.nan] * 3)
    assert labels(mesh, *unknown, max_distance=200) == [{A}, {0}], "far from all, so nobody's"


def test_a_piece_without_a_point_follows_its_neighbour() -> None:
    crumb = box([330, 100, 100], [380, 150, 150])
    ids = (A, [200, 200, 200]), (B, [700, 200, 200])
    assert labels(together(LEFT, RIGHT, crumb), *ids) == [{A}, {B}, {A}]
    assert labels(together(LEFT, RIGHT, crumb), *ids, max_distance=20) == [{A}, {B}, {0}]
    between = box([430, 100, 100], [470, 150, 150])
    assert labels(together(LEFT, RIGHT, between), *ids) == [{A}, {B}, {0}], "as near to the one as to the other"
    bridge = box([400, 100, 100], [440, 150, 150])
    assert labels(together(LEFT, RIGHT, crumb, bridge), *ids) == [{A}, {B}, {A}, {A}], "one leads to the next"


def test_walls_follow_their_surface() -> None:
    """Vertices on the wall between two chunks: cortical-tools gives them to the node that comes last."""
    ends, begins = box([900, 0, 0], [1000, 90, 90]), box([1000, 500, 0], [1100, 590, 90])
    points = (A, [950, 45, 45]), (node(1, 1), [1050, 545, 45])
    assert labels(together(ends, begins), *points) == labels(together(ends, begins), *points[::-1])
    assert labels(together(ends, begins), *points) == [{A}, {node(1, 1)}]


def test_a_chunk_without_nodes_takes_labels_along_the_surface() -> None:
    """As a simplified mesh may have it, whose vertices moved a little."""
    across = box([900, 0, 0], [1200, 90, 90])
    assert labels(across, (A, [950, 45, 45])) == [{A}]
    assert labels(across, (A, [950, 45, 45]), hops=0) == [{A, 0}]


def test_nothing_at_all() -> None:
    nothing = np.empty((0, 3), np.float32), np.empty((0, 3), np.uint32)
    nobody = Evidence(np.empty(0, np.int64), np.empty((0, 3)))
    assert label_by_shape(nothing, nobody, GRID, 50).tolist() == []
    assert set(label_by_shape(LEFT, nobody, GRID, 50).tolist()) == {0}


def test_spreading_takes_as_many_hops_as_it_may() -> None:
    chain = np.array([[k, k + 1, k + 1] for k in range(9)])
    first = np.array([7, *[0] * 9])
    assert spread(first, chain, 4).tolist() == [7] * 5 + [0] * 5
    assert spread(first, chain, 100).tolist() == [7] * 10
    shut = np.arange(10) == 3
    assert spread(first, chain, 100, closed=shut).tolist() == [7] * 3 + [0] * 7


def test_triangles_in_several_portions_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large component does not fit in one."""
    monkeypatch.setattr("cortexclient.services.mesh._geometry.TRIANGLES_AT_ONCE", 50)
    assert labels(together(LEFT, RIGHT), (B, [700, 200, 200]), (A, [200, 200, 200])) == [{A}, {B}]
    assert labels(together(LEFT, RIGHT), (B, [820, 200, 200]), (A, [90, 200, 200])) == [{A}, {B}]


def test_a_vertex_without_triangles_takes_no_node_from_a_surface() -> None:
    """It may come first, and lie where a node's point is."""
    vertices, faces = together(LEFT, RIGHT)
    lonely = np.float32([[210, 200, 200]]), np.zeros((0, 3), np.uint32)
    evidence = Evidence(np.array([A, B]), np.array([[210.0, 200, 200], [700, 200, 200]]))
    found = label_by_shape(together(lonely, (vertices, faces)), evidence, GRID, 50)
    assert [set(part.tolist()) for part in np.split(found[1:], 2)] == [{A}, {B}]


def test_a_point_beside_all_surfaces_is_nobodys() -> None:
    far = (A, [200, 200, 200]), (B, [700, 900, 900])
    assert labels(together(LEFT, RIGHT), *far, max_distance=300) == [{A}, {0}]
    assert labels(together(LEFT, RIGHT), *far, max_distance=1000) == [{A}, {B}]
