"""Surfaces of level-2 nodes: a ball in the node's chunk, and a tube to each place where the object goes on.

The tube to a neighbour ends open on the chunk's face, in a ring that follows from the two supervoxels that touch there
and from nothing else: the fragments of both sides have the same vertices on it, bit by bit, as all vertices lie on one
lattice. Welded, the fragments of an object are one closed surface.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from .layout import Ids

Points = npt.NDArray[np.float64]
Lattice = npt.NDArray[np.int64]

SIDE: Final = 3
"""Quads along one side of the hole that a tube leaves in the ball."""
LOOP: Final = 4 * SIDE
"""Vertices of a ring."""
STEP: Final = 250.0
"""Nanometres between the rings of a tube."""
MOST_RINGS: Final = 24
LEAST_RADIUS: Final = 15
"""Of a ball, in steps of the lattice; one whose point is nearer to a face is moved away from it."""


@dataclass(frozen=True, slots=True)
class Surface:
    """Vertices in steps of the lattice, (n, 3) int64, and triangles, (m, 3), that look outwards."""

    vertices: Lattice
    faces: Ids

    @classmethod
    def join(cls, parts: list[Surface]) -> Surface:
        """All parts as one, their equal vertices merged."""
        first = np.cumsum([0, *(len(part.vertices) for part in parts)])
        faces = np.concatenate([part.faces + start for part, start in zip(parts, first, strict=False)])
        vertices, number = np.unique(np.concatenate([part.vertices for part in parts]), axis=0, return_inverse=True)
        return cls(vertices, number.reshape(-1)[faces])


@dataclass(frozen=True, slots=True)
class Portals:
    """Where an object leaves a chunk: ``face`` (``2 * axis + side``), and its ring there, (d, LOOP, 3) int64."""

    face: Ids
    ring: Lattice


def portals(pairs: Ids, step: Ids, low: Points, size: Points, grid: int) -> Portals:
    """Make the openings of one node.

    Parameters
    ----------
    pairs
        (d, 2) supervoxels that touch across a face: our own, and the neighbour's.
    step
        (d, 3): on which side of our chunk the neighbour's is; one of the three is 1 or -1.
    low, size
        The chunk's lowest corner and its size, nm.
    grid
        Pitch of the lattice, nm.
    """
    axis = np.abs(step).argmax(axis=1)
    side = (step[np.arange(len(step)), axis] > 0).astype(np.int64)
    # the same on both sides of the face: the pair in order, and the axes in order
    u, v = (axis + 1) % 3, (axis + 2) % 3
    random = _fractions(np.sort(pairs, axis=1))
    radius = size.min() * (0.03 + 0.05 * random[:, 0])
    at = [low[k] + size[k] * (0.2 + 0.6 * random[:, n]) for n, k in ((1, u), (2, v))]
    angle = np.deg2rad(90 / SIDE * np.arange(LOOP) - 135)
    rows = np.arange(len(pairs))
    ring = np.zeros((len(pairs), LOOP, 3), np.int64)
    ring[rows, :, u] = np.rint((at[0][:, None] + radius[:, None] * np.cos(angle)) / grid)
    ring[rows, :, v] = np.rint((at[1][:, None] + radius[:, None] * np.sin(angle)) / grid)
    ring[rows, :, axis] = np.rint((low[axis] + side * size[axis]) / grid)[:, None]
    # seen from the lower side of a face the two axes change places, and the ring runs the other way
    backwards = -np.arange(LOOP) % LOOP
    ring[side == 0] = ring[side == 0][:, backwards]
    return Portals(2 * axis + side, ring)


def surface(point: Points, low: Points, size: Points, openings: Portals, grid: int) -> Surface:
    """The surface of one node around ``point``, in the chunk of ``size`` from ``low`` on; all in nm."""
    least = LEAST_RADIUS * grid
    middle = np.clip(point, low + least, low + size - least)
    radius = min(0.12 * size.min(), 0.95 * np.minimum(middle - low, low + size - middle).min())
    slots = int(np.ceil(np.sqrt(np.bincount(openings.face, minlength=6).max())))
    corners, numbers, quads = _box(slots * (SIDE + 1) + 1)
    ball = middle + radius * corners
    solid = np.ones(quads.shape[:3], bool)
    points, faces, first = [np.rint(ball / grid).astype(np.int64)], [], len(ball)
    taken = [0] * 6
    for face, ring in zip(openings.face.tolist(), openings.ring, strict=True):
        i, j = (1 + (SIDE + 1) * k for k in divmod(taken[face], slots))
        taken[face] += 1
        solid[face, i : i + SIDE, j : j + SIDE] = False
        start = numbers[face][_outline(i, j)]
        rings = _rings(ball[start], ring, grid)
        loops = np.vstack([start, first + np.arange(rings.size // 3).reshape(-1, LOOP)])
        faces.append(_between(loops))
        points.append(rings.reshape(-1, 3))
        first += rings.size // 3
    faces.append(_triangles(quads[solid]))
    used, triangles = np.unique(np.concatenate(faces), return_inverse=True)
    return Surface(np.concatenate(points)[used], triangles.reshape(-1, 3))


def _rings(start: Points, end: Lattice, grid: int) -> Lattice:
    """The rings of a tube after its first, (r, LOOP, 3): straight from ``start`` (nm) to ``end``, which is the last."""
    length = float(np.linalg.norm(start.mean(axis=0) - end.mean(axis=0) * grid))
    count = min(max(2, round(length / STEP)), MOST_RINGS)
    share = np.arange(1, count + 1)[:, None, None] / count
    rings = np.rint((start * (1 - share) + end * grid * share) / grid).astype(np.int64)
    rings[-1] = end
    return rings


def _between(loops: Ids) -> Ids:
    """Triangles between consecutive loops, (r, LOOP)."""
    after = np.roll(loops, -1, axis=1)
    quads = np.stack([loops[:-1], after[:-1], after[1:], loops[1:]], axis=-1)
    return _triangles(quads.reshape(-1, 4))


def _triangles(quads: Ids) -> Ids:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def _outline(i: int, j: int) -> tuple[Ids, Ids]:
    """Grid positions around a hole of SIDE x SIDE quads, counterclockwise from its lowest corner."""
    there, full, none = np.arange(SIDE), np.full(SIDE, SIDE), np.zeros(SIDE, np.int64)
    return (
        i + np.concatenate([there, full, SIDE - there, none]),
        j + np.concatenate([none, there, full, SIDE - there]),
    )


@functools.cache
def _box(n: int) -> tuple[Points, tuple[Ids, ...], Ids]:
    """A ball made of a cube with ``n`` x ``n`` quads on each face.

    Returns
    -------
    points on the unit sphere; for each face the vertex numbers of its grid, (n + 1, n + 1); the quads, (6, n, n, 4).
    """
    corners = np.stack(np.meshgrid(*[np.arange(n + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    outside = ((corners == 0) | (corners == n)).any(axis=1)
    number = np.full(len(corners), -1, np.int64)
    number[outside] = np.arange(outside.sum())
    cube = number.reshape([n + 1] * 3)
    grids: list[Ids] = []
    quads: list[Ids] = []
    for face in range(6):
        axis, side = divmod(face, 2)
        grid: Ids = np.moveaxis(cube, axis, 0)[n * side]
        # the axes that are left are in order; u x v must look outwards
        if (axis == 1) == (side == 1):
            grid = grid.T
        grids.append(grid)
        quads.append(np.stack([grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]], axis=-1))
    centred = corners[outside] * (2 / n) - 1
    return centred / np.linalg.norm(centred, axis=1, keepdims=True), tuple(grids), np.stack(quads)


def _fractions(pairs: Ids) -> Points:
    """Three numbers in [0, 1) for each pair of ids, always the same ones (SplitMix64 of both)."""
    a, b = pairs.astype(np.uint64).T
    steps = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = _mixed(_mixed(a) ^ b)[:, None] + steps
    return np.asarray(_mixed(z) >> np.uint64(11), np.float64) / 2.0**53


def _mixed(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
