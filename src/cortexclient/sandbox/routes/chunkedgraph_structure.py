"""Chunkedgraph: how an object hangs together, and the geometry of the whole volume."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import costs
from ..calls import Call, Reply
from ..edges import Edges
from ..graph import Graph
from ..layout import Ids, Layout
from ..level2 import born, level2_graph
from .chunkedgraph_lookups import inside, parse_bounds
from .chunkedgraph_points import Point, parse_points, supervoxels_at
from .chunkedgraph_protocol import (
    ChunkedGraphError,
    flag,
    json_reply,
    malformed,
    node_id,
    open_graph,
    strict_json,
    wire,
)

if TYPE_CHECKING:
    from ..world import World


def info(world: World, call: Call) -> Reply:
    """The segmentation's ``info``: what a precomputed volume says, and the layout of the graph."""
    graph, call = open_graph(world, call)
    layout = graph.layout
    scale = {
        "key": "_".join(map(str, layout.resolution)),
        "resolution": layout.resolution,
        "size": layout.volume_size,
        "voxel_offset": layout.voxel_offset,
        "chunk_sizes": [[64, 64, 16]],
        "encoding": "compressed_segmentation",
        "compressed_segmentation_block_size": [8, 8, 8],
    }
    document = {
        "app": {"supported_api_versions": [0, 1]},
        "chunks_start_at_voxel_offset": True,
        "data_dir": "PATH",
        "data_type": "uint64",
        "graph": {
            "chunk_size": layout.chunk_size,
            "bounding_box": [2048, 2048, 512],
            "n_bits_for_layer_id": layout.layer_bits,
            "cv_mip": 0,
            "n_layers": layout.n_layers,
            "spatial_bit_masks": {str(layer): bits for layer, bits in layout.spatial_bits.items()},
        },
        "num_channels": 1,
        "scales": [scale],
        "sharded_mesh": True,
        "type": "segmentation",
        "verify_mesh": False,
    }
    document |= graph.info
    if "data_dir" not in graph.info:
        document |= world.meshes.table_info(f"{call.origin}/storage/{graph.table}")
    return json_reply(call, document)


def lvl2_graph(world: World, call: Call) -> Reply:
    """The level-2 graph of a node, within bounds if given; the header ``Used-Bounds`` says whether they were."""
    graph, call = open_graph(world, call)
    box = parse_bounds(call)
    pairs = level2_graph(graph, node_id(call))
    if box is not None:
        kept = inside(graph.layout, np.unique(pairs), box)
        pairs = pairs[np.isin(pairs, kept).all(axis=1)]
    headers = (("Used-Bounds", str(box is not None)),)
    price = costs.LEAVES_PER_ROOT + costs.NODE_READ_PER_ID * len(pairs)
    return json_reply(call, {"edge_graph": wire(pairs)}, headers=headers, price=price)


def subgraph(world: World, call: Call) -> Reply:
    """Supervoxel edges of a node; those between chunks in both directions, as both chunks' edge files hold them."""
    graph, call = open_graph(world, call)
    box, node = parse_bounds(call), node_id(call)
    found = graph.leaves(node) if graph.layout.layer(node) > 1 else np.empty(0, np.int64)
    supervoxels = inside(graph.layout, found, box)
    if not len(supervoxels) and call.strict:
        raise ChunkedGraphError(404, "", crash="index 0 is out of bounds for axis 0 with size 0")
    edges = both_directions(graph.layout, graph.edges_within(supervoxels, born(graph, node)))
    answer = {
        "nodes": np.stack([edges.a, edges.b], axis=1).tolist(),
        "affinities": edges.affinity.astype(np.float64).tolist(),
        "areas": edges.area.tolist(),
    }
    return Reply(strict_json(answer), price=costs.SUBGRAPH_PER_LEAF * len(supervoxels))


def both_directions(layout: Layout, edges: Edges) -> Edges:
    """Each edge as often as the edge files hold it: once within a chunk, in both directions between chunks."""
    apart = (layout.chunk(edges.a) != layout.chunk(edges.b)).any(axis=1)
    every = edges + edges[apart].reversed()
    return every[np.lexsort((every.b, every.a))]


def find_path(world: World, call: Call) -> Reply:
    """The shortest path over level-2 nodes between two points of one root, and the centres (nm) of their chunks.

    ``precision_mode`` asks for centres of meshes instead. The sandbox has none at this level, so every node of such a
    path is reported as failed, with the chunk's centre in its place; so does the service with nodes that have no mesh.
    """
    graph, call = open_graph(world, call)
    with malformed("the body"):
        points = parse_points(call.json())
    if len(points) != 2:
        raise ChunkedGraphError(400, "two points are needed", crash="")
    ends = supervoxels_at(graph, call, points)
    start, goal = (int(node) for node in graph.roots(ends, call.now_ms, 2))
    path = _shortest_path(level2_graph(graph, _common_root(graph, ends, points, call.now_ms)), start, goal)
    if call.strict and flag(call, "precision_mode"):
        raise ChunkedGraphError(400, "", crash="'mesh'")
    answer = {
        "centroids_list": chunk_centres(graph.layout, path),
        "failed_l2_ids": wire(path if flag(call, "precision_mode") else []),
        "l2_path": wire(path),
    }
    return json_reply(call, answer, price=costs.SUBGRAPH_PER_LEAF * len(path))


def _common_root(graph: Graph, ends: Ids, points: list[Point], now_ms: int) -> int:
    roots = graph.roots(ends, now_ms)
    if roots[0] != roots[1]:
        raise ChunkedGraphError(400, f"the points {[point.nm for point in points]} are not in the same object")
    return int(roots[0])


def _shortest_path(pairs: npt.NDArray[np.int64], start: int, goal: int) -> Ids:
    neighbours = defaultdict[int, list[int]](list)
    for a, b in pairs.tolist():
        neighbours[a].append(b)
        neighbours[b].append(a)
    came_from = {start: start}
    front = [start]
    while front and goal not in came_from:
        reached = {fresh: node for node in front for fresh in neighbours[node] if fresh not in came_from}
        came_from |= reached
        front = list(reached)
    if goal not in came_from:
        raise ChunkedGraphError(400, "no path joins the points", crash="")
    path = [goal]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return np.array(path[::-1], np.int64)


def chunk_centres(layout: Layout, nodes: Ids) -> npt.NDArray[np.float64]:
    """Centres of the nodes' chunks in nanometres, (n, 3). All nodes are of one layer."""
    size = layout.chunk_voxels(int(layout.layer(nodes[0])))
    voxels = np.array(layout.voxel_offset) + layout.chunk(nodes) * size + size // 2
    return np.asarray(voxels * np.array(layout.resolution), np.float64)
