"""Chunkedgraph: which supervoxel a point means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..graph import Graph
from ..layout import Ids
from .chunkedgraph_protocol import ChunkedGraphError, parse_ids

SEARCH_VOXELS: Final = 67
"""How far around a point the service looks for a supervoxel of the right object, in x and y."""


@dataclass(frozen=True, slots=True)
class Point:
    """A node, and the position (nm) that says which of its supervoxels is meant."""

    node: int
    nm: tuple[float, float, float]

    def voxel(self, graph: Graph) -> tuple[int, int, int]:
        """The position in absolute voxels of the segmentation."""
        x, y, z = (int(c // r) for c, r in zip(self.nm, graph.layout.resolution, strict=True))
        return x, y, z


def parse_points(rows: list[Any]) -> list[Point]:
    """Read ``[[node, x, y, z], ...]``; positions in nanometres."""
    return [Point(int(parse_ids(node)), (float(x), float(y), float(z))) for node, x, y, z in rows]


def supervoxels_at(graph: Graph, points: list[Point], time_ms: int) -> Ids:
    """The supervoxel that each point means: the node itself if it is one, else one of its leaves near the position.

    The sandbox stores no image of the segmentation, so a leaf is near if its chunk holds the position; of several the
    one with the lowest id is taken. The real service reads the voxels around the position.
    """
    return np.array([_supervoxel_at(graph, point, time_ms) for point in points], np.int64)


def _supervoxel_at(graph: Graph, point: Point, time_ms: int) -> int:
    layout, node = graph.layout, np.array([point.node], np.int64)
    if layout.layer(node)[0] == 1:
        return point.node
    voxel = np.array(point.voxel(graph))
    here = graph.nodes_in_chunk(int(layout.make(2, layout.chunk_at(voxel), 0)))
    held, _ = graph.children_of(here[graph.roots(here, time_ms, int(layout.layer(node)[0])) == point.node])
    if len(held):
        return int(held.min())
    low, high = np.array(layout.voxel_offset), np.array(layout.voxel_offset) + layout.volume_size
    for axis in (0, 1):
        for edge in (voxel[axis] - SEARCH_VOXELS, voxel[axis] + SEARCH_VOXELS):
            if not low[axis] <= edge <= high[axis]:
                crash = f"Value {edge} cannot be outside of inclusive range {low[axis]} to {high[axis]}"
                raise ChunkedGraphError(
                    400, f"nothing of {point.node} at {point.nm}, near the volume's edge", crash=crash
                )
    raise ChunkedGraphError(400, f"Could not determine supervoxel ID for coordinates {point.nm}.")
