"""Which level-2 node each vertex belongs to, from chunks and representative points alone.

The way of cortical-tools (1.1), with its weak places repaired: vertices on the walls of chunks follow the surface that
they are part of, not the order of the nodes; a node whose point lies in no component and near none gets none; a
component that nothing speaks for stays without a node, whatever its neighbours in other chunks have; and all chunks
are worked on at once, so that the time grows with the mesh, not with its number of chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ..._types import BoolArray, IdArray
from ..._wire.meshes import ChunkGrid, Faces, Vertices
from ...errors import MissingDependency
from ._labels import spread

Floats = npt.NDArray[np.float64]

INSIDE: Final = 0.1
"""The winding number above which a point counts as inside a surface, which is open where the chunk ends."""
TRIANGLES_AT_ONCE: Final = 1 << 14
"""Whose solid angles are made together: few enough for the caches of a processor."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for the nodes of an object.

    Parameters
    ----------
    nodes, points
        Level-2 nodes and a point in each, (k,) and (k, 3) nm; NaN where none is known.
    max_distance
        The farthest, nm, that a component without a point may be from what has a node already.
    ratio_better
        Where two nodes come into question for it, the nearer one must be so many times as near.
    """

    nodes: IdArray
    points: Floats
    max_distance: float = 500.0
    ratio_better: float = 0.5


def label_by_shape(mesh: tuple[Vertices, Faces], evidence: Evidence, grid: ChunkGrid, hops: int) -> IdArray:
    """Give each vertex of a mesh, (n, 3) nm and (m, 3), a node; 0 where none can be told."""
    vertices, faces = mesh
    chunk, wall = grid.chunks_at(vertices)
    component, count = _components(faces, chunk, wall)
    home = np.full(count + 1, -1)  # the last one, number -1, stands for vertices on walls
    home[component] = np.where(wall, -1, chunk)
    known, inverse, nodes = np.unique(grid.chunks_of(evidence.nodes), return_inverse=True, return_counts=True)
    sole = np.zeros(len(known) + 1, np.int64)
    sole[inverse] = evidence.nodes
    place = np.searchsorted(known, home)
    at_home = np.append(known, -2)[place] == home
    alone = at_home & (np.append(nodes, 0)[place] == 1)
    owner = np.where(alone, sole[place], 0)
    crowded = at_home & ~alone
    if crowded.any():
        pairs = _pairs(np.flatnonzero(crowded), place, inverse)
        _share(owner, pairs, inverse, _Surfaces(vertices, faces, component), evidence)
    labels = owner[component]
    return spread(labels, faces, hops, closed=(labels == 0) & crowded[component])


def _components(faces: Faces, chunk: IdArray, wall: BoolArray) -> tuple[IdArray, int]:
    """Number of the connected piece within its chunk that each vertex is part of, -1 on walls; how many there are."""
    sparse, csgraph, _, _ = _scipy()
    n, home = len(chunk), np.where(wall, -1, chunk)
    corners = [np.ascontiguousarray(faces[:, k]).astype(np.int32) for k in range(3)]
    at = [home[corner] for corner in corners]
    inner = [(at[k] == at[k - 2]) & (at[k] >= 0) for k in range(3)]
    inner[2] &= ~(inner[0] & inner[1])  # the third side of a triangle tells nothing new
    a = np.concatenate([corners[k][inner[k]] for k in range(3)])
    b = np.concatenate([corners[k - 2][inner[k]] for k in range(3)])
    graph = sparse.coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n)).tocsr()
    found = csgraph.connected_components(graph, directed=False)[1]
    used = np.bincount(found[~wall], minlength=n) > 0
    number = np.cumsum(used) - 1
    return np.where(wall, -1, number[found]), int(used.sum())


class _Surfaces:
    """A mesh and its components: of each vertex, and of each triangle."""

    def __init__(self, vertices: Vertices, faces: Faces, component: IdArray) -> None:
        self.vertices = vertices
        self.component = component
        # a triangle is of the component of its corners off the walls
        corner = np.maximum(np.maximum(component[faces[:, 0]], component[faces[:, 1]]), component[faces[:, 2]])
        order = np.argsort(corner, kind="stable")
        self.corners = vertices.T[:, faces[order].T]
        """(3 axes, 3 corners, m), component by component."""
        self.begin = np.searchsorted(corner[order], np.arange(component.max(initial=-1) + 2))
        """Where the triangles of each component begin."""

    def boxes(self) -> tuple[Floats, Floats]:
        """Lowest and highest corner of each component, (k, 3); inside out for one without triangles."""
        filled = np.flatnonzero(np.diff(self.begin))
        low, high = np.full((len(self.begin) - 1, 3), np.inf), np.full((len(self.begin) - 1, 3), -np.inf)
        low[filled] = np.minimum.reduceat(self.corners.min(axis=1), self.begin[filled], axis=1).T
        high[filled] = np.maximum.reduceat(self.corners.max(axis=1), self.begin[filled], axis=1).T
        return low, high


def _share(
    owner: IdArray, pairs: tuple[IdArray, IdArray], chunk: IdArray, surfaces: _Surfaces, evidence: Evidence
) -> None:
    """Give components of chunks with several nodes to them: one to one where points lie inside, then by nearness.

    ``pairs`` are components and rows of nodes, chunk by chunk; ``chunk`` is that of each node.
    """
    assign, (piece, node) = _scipy()[2], pairs
    score = _scores(surfaces, pairs, evidence)
    for start, stop in _groups(chunk[node]):
        rows, row = np.unique(piece[start:stop], return_inverse=True)
        columns, column = np.unique(node[start:stop], return_inverse=True)
        matrix = np.zeros((len(rows), len(columns)))
        matrix[row, column] = score[start:stop]
        taken, given = assign(matrix, maximize=True)
        good = matrix[taken, given] > 0
        owner[rows[taken[good]]] = evidence.nodes[columns[given[good]]]
        if good.any() and not owner[rows].all():
            _adopt(owner, rows, surfaces, evidence)


def _scores(surfaces: _Surfaces, pairs: tuple[IdArray, IdArray], evidence: Evidence) -> Floats:
    """How much speaks for each pair of a component and a node: 0 where nothing does."""
    piece, node = pairs
    low, high = surfaces.boxes()
    points = evidence.points[node]
    beside = np.maximum(np.maximum(low[piece] - points, points - high[piece]), 0)
    near = np.flatnonzero((beside**2).sum(axis=1) <= evidence.max_distance**2)  # an unknown point is near none
    inside, away = _winding_and_distance(surfaces, piece[near], points[near])
    score = np.zeros(len(piece))
    score[near] = np.minimum(inside, 1) + 0.2 * np.exp(-away / evidence.max_distance)
    score[near[(inside < INSIDE) & (away > evidence.max_distance)]] = 0
    return score


def _pairs(pieces: IdArray, place: IdArray, chunk: IdArray) -> tuple[IdArray, IdArray]:
    """Each component with the row of each node of its chunk, chunk by chunk."""
    pieces = pieces[np.argsort(place[pieces], kind="stable")]
    by_chunk = np.argsort(chunk, kind="stable")
    begin = np.searchsorted(chunk[by_chunk], place[pieces])
    many = np.searchsorted(chunk[by_chunk], place[pieces], side="right") - begin
    return np.repeat(pieces, many), by_chunk[_ranges(begin, many)]


def _ranges(begin: IdArray, many: IdArray) -> IdArray:
    """``begin[k], begin[k] + 1, ...``, ``many[k]`` of them, for each k."""
    return np.arange(many.sum()) + np.repeat(begin - np.cumsum(many) + many, many)


def _groups(keys: IdArray) -> list[tuple[int, int]]:
    """Where runs of equal keys begin and end."""
    edges = np.flatnonzero(np.diff(keys)) + 1
    return list(pairwise([0, *edges.tolist(), len(keys)]))


def _winding_and_distance(surfaces: _Surfaces, piece: IdArray, points: Floats) -> tuple[Floats, Floats]:
    """How often components turn around points, 1 inside and 0 outside, and how far (nm) their nearest corner is.

    (k,) each, of (k,) components with triangles and (k, 3) points. The sum of the triangles' solid angles (van Oosterom
    and Strackee 1983).
    """
    angle, nearest = np.zeros(len(piece)), np.full(len(piece), np.inf)
    spots = points.astype(np.float32)
    for row, (start, stop) in enumerate(zip(surfaces.begin[piece], surfaces.begin[piece + 1], strict=True)):
        for first in range(start, stop, TRIANGLES_AT_ONCE):
            some = surfaces.corners[:, :, first : min(stop, first + TRIANGLES_AT_ONCE)] - spots[row][:, None, None]
            a, b, c = some[:, 0], some[:, 1], some[:, 2]
            lengths = np.sqrt(_dot(some, some))
            la, lb, lc = lengths
            volume = a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2])
            volume += a[2] * (b[0] * c[1] - b[1] * c[0])
            width = la * lb * lc + _dot(a, b) * lc + _dot(b, c) * la + _dot(c, a) * lb
            angle[row] += np.arctan2(volume, width).sum(dtype=np.float64)
            nearest[row] = min(nearest[row], lengths.min())
    return np.abs(angle) / (2 * np.pi), nearest


def _dot(a: Vertices, b: Vertices) -> Vertices:
    product: Vertices = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _adopt(owner: IdArray, rows: IdArray, surfaces: _Surfaces, evidence: Evidence) -> None:
    """Give components without a node the one of the nearest component that has one, the nearest first."""
    tree_type = _scipy()[3]
    of = {int(row): surfaces.vertices[surfaces.component == row] for row in rows}
    settled = [int(row) for row in rows if owner[row]]
    waiting = {int(row) for row in rows if not owner[row]}
    gaps: dict[int, dict[int, float]] = {row: {} for row in waiting}
    while waiting and settled:
        for row in settled:
            tree, name = tree_type(of[row]), int(owner[row])
            for other in waiting:
                gap = float(tree.query(of[other], distance_upper_bound=evidence.max_distance)[0].min())
                gaps[other][name] = min(gap, gaps[other].get(name, np.inf))
        settled = []
        for other in sorted(waiting, key=lambda row: min(gaps[row].values(), default=np.inf)):
            (best, name), *rest = sorted((gap, name) for name, gap in gaps[other].items())
            if best < evidence.max_distance and (not rest or best < evidence.ratio_better * rest[0][0]):
                owner[other] = name
                settled.append(other)
        waiting -= set(settled)


def _scipy() -> tuple[Any, ...]:
    try:
        from scipy import sparse
        from scipy.optimize import linear_sum_assignment
        from scipy.sparse import csgraph
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise MissingDependency("scipy", "mesh", "labels by geometry") from error
    return sparse, csgraph, linear_sum_assignment, cKDTree
