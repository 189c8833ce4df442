"""Which level-2 node each vertex of a mesh belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..._types import BoolArray, IdArray
from ..._wire.meshes import Faces, Vertices, packed


def label_by_place(vertices: Vertices, parts: Sequence[tuple[Vertices, int]], pitch: float) -> IdArray:
    """Give each vertex the node whose fragment has a vertex at the very same place; 0 where none has.

    Of a vertex on a seam, which both fragments have, it is the node that comes first. ``pitch`` (nm) is that of the
    lattice on which the fragments' vertices lie.
    """
    if not parts:
        return np.zeros(len(vertices), np.int64)
    nodes = np.repeat(np.array([node for _, node in parts], np.int64), [len(part) for part, _ in parts])
    keys = packed(np.concatenate([*(part for part, _ in parts), vertices]), pitch)
    known, row = np.unique(keys[: len(nodes)], return_index=True)
    wanted = keys[len(nodes) :]
    found = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return np.where(known[found] == wanted, nodes[row[found]], 0)


def spread(labels: IdArray, faces: Faces, hops: int, closed: BoolArray | None = None) -> IdArray:
    """Hand labels on along edges to vertices that have none, at most ``hops`` edges far; ``closed`` ones take none.

    The fewest hops win; among neighbours equally far the larger id does.
    """
    labels = labels.copy()
    open_ = (labels == 0) if closed is None else (labels == 0) & ~closed
    touched = open_[faces[:, 0]] | open_[faces[:, 1]] | open_[faces[:, 2]]  # few: most vertices know their node
    edges = faces[touched][:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = edges[open_[edges[:, 1]]]
    for _ in range(hops):
        edges = edges[labels[edges[:, 1]] == 0]
        front = edges[labels[edges[:, 0]] != 0]
        if not len(front):
            break
        np.maximum.at(labels, front[:, 1], labels[front[:, 0]])
    return labels
