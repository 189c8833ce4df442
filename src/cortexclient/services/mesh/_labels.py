"""Which level-2 node each vertex of a mesh belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._types import BoolArray, IdArray
from ..._wire.meshes import Faces, Vertices


def label_by_place(vertices: Vertices, parts: Sequence[tuple[Vertices, int]]) -> IdArray:
    """Give each vertex the node whose fragment has a vertex at the very same place; 0 where none has.

    Of a vertex on a seam, which both fragments have, it is the node that comes first.
    """
    places = np.concatenate([part for part, _ in parts]) if parts else np.empty((0, 3), np.float32)
    nodes = np.repeat(np.array([node for _, node in parts], np.int64), [len(part) for part, _ in parts])
    known, row = np.unique(_as_rows(places), return_index=True)
    wanted = _as_rows(vertices)
    if not len(known):
        return np.zeros(len(wanted), np.int64)
    found = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[found] == wanted, nodes[row[found]], 0)


def spread(labels: IdArray, faces: Faces, hops: int, closed: BoolArray | None = None) -> IdArray:
    """Hand labels on along edges to vertices that have none, at most ``hops`` edges far; ``closed`` ones take none.

    The fewest hops win; among neighbours equally far the larger id does.
    """
    labels = labels.copy()
    open_ = (labels == 0) if closed is None else (labels == 0) & ~closed
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = edges[open_[edges[:, 1]]]
    for _ in range(hops):
        edges = edges[labels[edges[:, 1]] == 0]
        front = edges[labels[edges[:, 0]] != 0]
        if not len(front):
            break
        np.maximum.at(labels, front[:, 1], labels[front[:, 0]])
    return labels


def _as_rows(points: Vertices) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Each point as one value that can be compared, bit by bit; minus zero is zero."""
    rows = np.ascontiguousarray(points + np.float32(0), np.float32)
    return rows.view([("x", np.float32), ("y", np.float32), ("z", np.float32)]).reshape(-1)
