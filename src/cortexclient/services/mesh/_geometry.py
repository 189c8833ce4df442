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
FAR: Final = 1e12
"""Where unknown points are, nm: outside and away from everything."""
PAIRS_AT_ONCE: Final = 1 << 21
"""Triangles times points whose solid angles are in memory together."""


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
    component = _components(faces, chunk, wall)
    corner = component[faces].max(axis=1, initial=-1)  # a triangle is of the component of its corners off the walls
    first = np.unique(component, return_index=True)[1][int((component < 0).any()) :]
    home = np.append(chunk[first], -1)  # the last one, number -1, stands for vertices on walls
    known, inverse, count = np.unique(grid.chunks_of(evidence.nodes), return_inverse=True, return_counts=True)
    sole = np.zeros(len(known) + 1, np.int64)
    sole[inverse] = evidence.nodes
    place = np.searchsorted(known, home)
    at_home = np.append(known, -2)[place] == home
    alone = at_home & (np.append(count, 0)[place] == 1)
    owner = np.where(alone, sole[place], 0)
    crowded = at_home & ~alone
    if crowded.any():
        pairs = _pairs(np.flatnonzero(crowded), place, inverse)
        _share(owner, pairs, inverse, _Surfaces(vertices, faces, component, corner), evidence)
    labels = owner[component]
    return spread(labels, faces, hops, closed=(labels == 0) & crowded[component])


def _components(faces: Faces, chunk: IdArray, wall: BoolArray) -> IdArray:
    """Number of the connected piece within its chunk that each vertex is part of, -1 for those on walls."""
    sparse, csgraph, _, _ = _scipy()
    n = len(chunk)
    edges = faces[:, [0, 1, 1, 2]].reshape(-1, 2).astype(np.int64)
    edges = np.concatenate([edges, faces[:, [2, 0]].astype(np.int64)])
    inner = ~wall[edges].any(axis=1) & (chunk[edges[:, 0]] == chunk[edges[:, 1]])
    a, b = edges[inner].T
    graph = sparse.coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n)).tocsr()
    found = csgraph.connected_components(graph, directed=False)[1].astype(np.int64)
    found[wall] = -1
    used, number = np.unique(found, return_inverse=True)
    return np.asarray(number.reshape(-1) - (used[:1] == -1).sum(), np.int64)


@dataclass(frozen=True, slots=True)
class _Surfaces:
    """A mesh and its components: of each vertex, and of each triangle."""

    vertices: Vertices
    faces: Faces
    component: IdArray
    corner: IdArray


def _share(
    owner: IdArray, pairs: tuple[IdArray, IdArray], chunk: IdArray, surfaces: _Surfaces, evidence: Evidence
) -> None:
    """Give components of chunks with several nodes to them: one to one where points lie inside, then by nearness.

    ``pairs`` are components and rows of nodes, chunk by chunk; ``chunk`` is that of each node.
    """
    assign, (piece, node) = _scipy()[2], pairs
    points = np.nan_to_num(evidence.points, nan=FAR)
    inside, away = np.abs(_winding(surfaces, points, pairs)), _distance(surfaces, points, pairs)
    score = np.minimum(inside, 1) + 0.2 * np.exp(-away / evidence.max_distance)
    score = np.where((inside >= INSIDE) | (away <= evidence.max_distance), score, 0)
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


def _winding(surfaces: _Surfaces, points: Floats, pairs: tuple[IdArray, IdArray]) -> Floats:
    """How often each component turns around each point: about 1 inside, 0 outside (van Oosterom and Strackee 1983)."""
    piece, node = pairs
    face, pair = _members(surfaces.corner, piece)
    total = np.zeros(len(piece))
    for start in range(0, len(face), PAIRS_AT_ONCE):
        some, whose = face[start : start + PAIRS_AT_ONCE], pair[start : start + PAIRS_AT_ONCE]
        corners = surfaces.vertices[surfaces.faces[some]] - points[node[whose], None]
        a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
        la, lb, lc = (np.sqrt(np.einsum("ij,ij->i", x, x)) for x in (a, b, c))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", x, y) * z for x, y, z in ((a, b, lc), (b, c, la), (c, a, lb))]
        angle = np.arctan2(volume, la * lb * lc + dots[0] + dots[1] + dots[2])
        total += np.bincount(whose, angle, len(piece))
    return total / (2 * np.pi)


def _distance(surfaces: _Surfaces, points: Floats, pairs: tuple[IdArray, IdArray]) -> Floats:
    """From each point to the nearest vertex of each component, nm."""
    piece, node = pairs
    vertex, pair = _members(surfaces.component, piece)
    nearest = np.full(len(piece), np.inf)
    for start in range(0, len(vertex), PAIRS_AT_ONCE):
        some, whose = vertex[start : start + PAIRS_AT_ONCE], pair[start : start + PAIRS_AT_ONCE]
        gap = surfaces.vertices[some] - points[node[whose]]
        np.minimum.at(nearest, whose, np.einsum("ij,ij->i", gap, gap))
    return np.asarray(np.sqrt(nearest))


def _members(component: IdArray, piece: IdArray) -> tuple[IdArray, IdArray]:
    """The things (vertices, triangles) of each pair's component, and the pair's row."""
    order = np.argsort(component, kind="stable")
    ordered = component[order]
    low, high = np.searchsorted(ordered, piece), np.searchsorted(ordered, piece, side="right")
    many = high - low
    return order[_ranges(low, many)], np.repeat(np.arange(len(piece)), many)


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
