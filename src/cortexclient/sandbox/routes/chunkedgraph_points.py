"""Chunkedgraph: which supervoxel a point means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..calls import Call
from ..graph import Graph
from ..layout import Ids
from .chunkedgraph_protocol import ChunkedGraphError, parse_ids

SEARCH_VOXELS: Final = (10, 67)
"""How far around a point the service looks for a supervoxel of the right object, in x and y: at first, at last."""


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


def supervoxels_at(graph: Graph, call: Call, points: list[Point]) -> Ids:
    """The supervoxel that each point means: the node itself if it is one, else one of its leaves near the position.

    The sandbox stores no image of the segmentation, so a leaf is near if its chunk holds the position; of several the
    one with the lowest id is taken. The real service reads the voxels around the position, and dies if that takes it
    out of the volume.
    """
    return np.array([_supervoxel_at(graph, call, point) for point in points], np.int64)


def _supervoxel_at(graph: Graph, call: Call, point: Point) -> int:
    layout, node = graph.layout, np.array([point.node], np.int64)
    if layout.layer(node)[0] == 1:
        return point.node
    voxel = np.array(point.voxel(graph))
    if call.strict:
        _stay_inside(graph, point, voxel, SEARCH_VOXELS[0])
    here = graph.nodes_in_chunk(int(layout.make(2, layout.chunk_at(voxel), 0)))
    held, _ = graph.children_of(here[graph.roots(here, call.now_ms, int(layout.layer(node)[0])) == point.node])
    if len(held):
        return int(held.min())
    _stay_inside(graph, point, voxel, SEARCH_VOXELS[1])
    raise ChunkedGraphError(400, f"Could not determine supervoxel ID for coordinates {point.nm}.")


def _stay_inside(graph: Graph, point: Point, voxel: Ids, radius: int) -> None:
    """Refuse a point if a search around it would leave the volume."""
    low = np.array(graph.layout.voxel_offset)
    high = low + graph.layout.volume_size
    for axis in (0, 1):
        for edge in (voxel[axis] - radius, voxel[axis] + radius):
            if not low[axis] <= edge <= high[axis]:
                crash = f"Value {edge} cannot be outside of inclusive range {low[axis]} to {high[axis]}"
                message = f"nothing of {point.node} was found at {point.nm}, near the volume's edge"
                raise ChunkedGraphError(400, message, crash=crash)
