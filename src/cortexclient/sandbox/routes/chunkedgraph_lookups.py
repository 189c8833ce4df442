"""Chunkedgraph: from nodes to their ancestors and their descendants."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .. import costs
from ..calls import Call, Reply
from ..graph import Graph
from ..layout import Ids, Layout, as_ids
from .chunkedgraph_protocol import (
    ChunkedGraphError,
    binary_ids,
    binary_reply,
    body_ids,
    distinct,
    flag,
    json_reply,
    malformed,
    moment,
    node_id,
    open_graph,
    parse_ids,
    timestamp_ms,
    wire,
)

if TYPE_CHECKING:
    from ..world import World


def roots_binary(world: World, call: Call) -> Reply:
    """Roots of many ids, uint64 in and out."""
    graph, call = open_graph(world, call)
    ids = binary_ids(call)
    return binary_reply(_roots(graph, call, ids), price=_lookup_price(graph, call, ids))


def roots(world: World, call: Call) -> Reply:
    """Roots of many ids, JSON in; JSON out unless ``as_binary=root_ids``."""
    graph, call = open_graph(world, call)
    ids = np.atleast_1d(body_ids(call))
    found, price = _roots(graph, call, ids), _lookup_price(graph, call, ids)
    if call.query.get("as_binary"):
        return binary_reply(found, price=price)
    return json_reply(call, {"root_ids": wire(found)}, price=price)


def root(world: World, call: Call) -> Reply:
    """The root of one id. Unlike the many-id routes this one refuses unknown ids, after a wait of half a second."""
    graph, call = open_graph(world, call)
    time_ms, node, text = timestamp_ms(call), node_id(call), call.query.get("stop_layer")
    try:
        stop = int(text) if text else graph.layout.n_layers
    except ValueError as error:
        raise ChunkedGraphError(400, f"stop_layer is not an integer {error}") from error
    found = climb(graph, np.array([node], np.int64), time_ms, stop)
    if graph.layout.layer(found)[0] < stop:
        message = f"Cannot find root id {wire([node])[0]}, {stop}, {moment(time_ms)}"
        raise ChunkedGraphError(404, message, crash=message, price=costs.ROOT_NOT_FOUND)
    return json_reply(call, {"root_id": wire(found)[0]}, price=_lookup_price(graph, call, found))


def legacy_root(world: World, call: Call) -> Reply:
    """API 0: the current root of the first id of a JSON list, binary."""
    with malformed("the body"):
        first = parse_ids(call.json()[:1])
    graph, call = open_graph(world, call)
    found = climb(graph, first, timestamp_ms(call), graph.layout.n_layers)
    return binary_reply(found, price=_lookup_price(graph, call, first))


def climb(graph: Graph, ids: Ids, time_ms: int, stop_layer: int, *, fail_to_zero: bool = True) -> Ids:
    """Climb as the service does, all ids one step at a time.

    In each step ids without a parent become 0, unless no id of that step has one: then the climb ends and they are
    returned as they are. So a request that knows nobody echoes its ids.
    """
    nodes = ids.copy()
    active = np.flatnonzero((graph.layout.layer(nodes) < stop_layer) & (nodes != 0))
    while len(active):
        parents = graph.parents(nodes[active], time_ms)
        if not parents.any():
            break
        if not fail_to_zero and not parents.all():
            raise ChunkedGraphError(404, "some ids have no root at that time", crash="")
        nodes[active] = parents
        active = active[(parents != 0) & (graph.layout.layer(parents) < stop_layer)]
    return nodes


def _roots(graph: Graph, call: Call, ids: Ids) -> Ids:
    if ids.ndim != 1:
        raise ChunkedGraphError(400, "ids must be a flat list", crash="len() of unsized object")
    time_ms, stop = timestamp_ms(call), _stop_layer(graph, call)
    # any text counts as true, "False" too: the service casts it with bool()
    fail_to_zero = bool(call.query.get("fail_to_zero", "true"))
    found = climb(graph, ids, time_ms, stop, fail_to_zero=fail_to_zero)
    if call.query.get("assert_roots") and (graph.layout.layer(found) < stop).any():
        message = "roots not found for some IDs"
        raise ChunkedGraphError(404, message, crash=message)
    return found


def _stop_layer(graph: Graph, call: Call) -> int:
    with malformed("stop_layer"):
        stop = int(call.query.get("stop_layer", 0))
    if stop > graph.layout.n_layers:
        raise ChunkedGraphError(400, f"stop_layer {stop} is above the roots' layer {graph.layout.n_layers}", crash="")
    return stop or graph.layout.n_layers


def _lookup_price(graph: Graph, call: Call, ids: Ids) -> float:
    """The price of a climb to the roots, or of the part of it that ``stop_layer`` leaves."""
    top = graph.layout.n_layers
    steps = max(_stop_layer(graph, call) - 1, 1) / (top - 1)
    return costs.ROOT_LOOKUP_PER_ID * steps * distinct(ids)


def leaves(world: World, call: Call) -> Reply:
    """Descendants of one node at ``stop_layer``, supervoxels by default."""
    graph, call = open_graph(world, call)
    found = _leaves_of_one(graph, call)
    return json_reply(call, {"leaf_ids": wire(found)}, price=_leaves_price(1, found))


def legacy_leaves(world: World, call: Call) -> Reply:
    """API 0: supervoxels of a node, binary."""
    graph, call = open_graph(world, call)
    found = _leaves_of_one(graph, call)
    return binary_reply(found, price=_leaves_price(1, found))


def _leaves_of_one(graph: Graph, call: Call) -> Ids:
    box = parse_bounds(call)
    node = node_id(call)
    if graph.layout.layer(node) < 2:
        return np.empty(0, np.int64)
    return inside(graph.layout, graph.leaves(node, _leaf_layer(call)), box)


def leaves_many(world: World, call: Call) -> Reply:
    """Leaves of many nodes: ``{id: leaves}``."""
    ids = np.atleast_1d(body_ids(call))
    graph, call = open_graph(world, call, ids=ids)
    box = parse_bounds(call)
    if call.strict and distinct(ids) < len(ids):
        raise ChunkedGraphError(400, "", crash="zero-dimensional arrays cannot be concatenated")
    found = (_leaves_as_served if call.strict else _leaves_of_each)(graph, ids, _leaf_layer(call))
    answer = {str(node % 2**64): wire(inside(graph.layout, part, box)) for node, part in found.items()}
    return json_reply(call, answer, price=sum(_leaves_price(1, part) for part in found.values()))


def _leaves_of_each(graph: Graph, ids: Ids, stop_layer: int) -> dict[int, Ids]:
    nodes = np.unique(ids)
    found, owner = graph.leaves_of(nodes, stop_layer)
    parts = np.split(found, np.searchsorted(owner, np.arange(1, len(nodes))))
    return dict(zip(nodes.tolist(), parts, strict=False))


def _leaves_as_served(graph: Graph, ids: Ids, stop_layer: int) -> dict[int, Ids]:
    """The service's own walk, in which an inner node belongs to one of the ids only, the last in the request.

    So of two ids that share parts of the tree (a root and its predecessor, say) the first is answered without them.
    """
    found = {node: [node] if graph.layout.layer(node) == stop_layer else [] for node in ids.tolist()}
    found = {node: own if graph.exists([node])[0] else [] for node, own in found.items()}
    belongs = dict(zip(found, found, strict=True))
    while belongs:
        kids, row = graph.children_of(list(belongs))
        whose = np.array(list(belongs.values()), np.int64)[row]
        layer = graph.layout.layer(kids)
        for kid, node in zip(kids[layer == stop_layer].tolist(), whose[layer == stop_layer].tolist(), strict=True):
            found[node].append(kid)
        belongs = dict(zip(kids[layer > stop_layer].tolist(), whose[layer > stop_layer].tolist(), strict=True))
    return {node: np.array(sorted(leaves), np.int64) for node, leaves in found.items()}


def _leaf_layer(call: Call) -> int:
    with malformed("stop_layer"):
        return max(int(call.query.get("stop_layer", 1)), 1)


def _leaves_price(n_roots: int, found: Ids) -> float:
    return costs.LEAVES_PER_ROOT * n_roots + costs.LEAVES_PER_LEAF * len(found)


def children(world: World, call: Call) -> Reply:
    """Children of one node."""
    graph, call = open_graph(world, call)
    return json_reply(call, {"children_ids": wire(graph.children(node_id(call)))}, price=costs.NODE_READ_PER_ID)


Bounds = npt.NDArray[np.int64]
"""Minimum and maximum in absolute voxels, shape (2, 3)."""


def parse_bounds(call: Call) -> Bounds | None:
    """``bounds=x0-x1_y0-y1_z0-z1`` of the query; None if absent."""
    text = call.query.get("bounds")
    if not text:
        return None
    with malformed("bounds (x0-x1_y0-y1_z0-z1 in whole voxels)"):
        box = np.array([part.split("-") for part in text.split("_")], dtype=int).T
        return box.reshape(2, 3)


def inside(layout: Layout, nodes: Ids, box: Bounds | None) -> Ids:
    """The nodes (of one layer) whose chunk overlaps the box."""
    if box is None or not len(nodes):
        return nodes
    size = layout.chunk_voxels(int(layout.layer(nodes[0])))
    low, high = box - np.array(layout.voxel_offset)
    chunk = layout.chunk(nodes)
    return as_ids(nodes[((chunk >= low // size) & (chunk < -(-high // size))).all(axis=1)])


def valid_nodes(world: World, call: Call) -> Reply:
    """Which ids exist, sorted: those about which anything was written in ``[start_timestamp, end_timestamp)``."""
    graph, call = open_graph(world, call)
    ids = np.unique(np.atleast_1d(body_ids(call)))
    start, end = timestamp_ms(call, "start_timestamp", 0.0), timestamp_ms(call, "end_timestamp")
    known = ids[graph.written(ids, start, end)]
    return json_reply(call, {"valid_roots": wire(known)}, price=costs.NODE_READ_PER_ID * len(ids))


def minimal_covering_nodes(world: World, call: Call) -> Reply:
    """The fewest nodes whose leaves are those of the given ids."""
    graph, call = open_graph(world, call)
    ids = np.unique(binary_ids(call) if flag(call, "is_binary") else np.atleast_1d(body_ids(call)))
    if not len(ids):
        crash = "zero-size array to reduction operation minimum which has no identity"
        raise ChunkedGraphError(400, "node_ids is empty", crash=crash)
    found = _cover(graph, ids, timestamp_ms(call))
    if call.strict and (graph.layout.layer(found) == graph.layout.n_layers).any():
        raise ChunkedGraphError(400, "", crash="need at least one array to concatenate")
    price = costs.ROOT_LOOKUP_PER_ID * len(ids)
    return binary_reply(found, price=price) if flag(call, "as_array") else json_reply(call, wire(found), price=price)


def _cover(graph: Graph, nodes: Ids, time_ms: int) -> Ids:
    """Replace complete sets of children by their parent, layer by layer."""
    for layer in range(2, graph.layout.n_layers + 1):
        parents = graph.parents(nodes, time_ms)
        due = np.unique(parents[graph.layout.layer(parents) == layer])
        kids, owner = graph.children_of(due)
        held = np.bincount(owner, np.isin(kids, nodes), minlength=len(due))
        complete = due[held == np.bincount(owner, minlength=len(due))]
        nodes = np.sort(np.concatenate([nodes[~np.isin(parents, complete)], complete]))
    return nodes


def l2_chunk_children(world: World, call: Call) -> Reply:
    """Level-2 nodes of a chunk and their supervoxels, as a flat list parent, child, parent, child."""
    pairs = _chunk_pairs(world, call)
    if call.strict and not flag(call, "as_array"):
        raise ChunkedGraphError(400, "", crash="Object of type bytes is not JSON serializable")
    return json_reply(call, {"l2_chunk_children": wire(pairs)}, price=costs.NODE_READ_PER_ID * len(pairs))


def l2_chunk_children_binary(world: World, call: Call) -> Reply:
    """The same as uint64; always flat, the server's alternative is a pickle."""
    pairs = _chunk_pairs(world, call)
    return binary_reply(pairs, price=costs.NODE_READ_PER_ID * len(pairs))


def _chunk_pairs(world: World, call: Call) -> Ids:
    graph, call = open_graph(world, call)
    chunk_id = node_id(call, "chunk_id")
    layer = int(graph.layout.layer(chunk_id))
    if layer != 2:
        message = f"This function only accepts level 2 chunks, the chunk requested is a level {layer} chunk"
        raise ChunkedGraphError(400, message, crash=message)
    nodes = graph.nodes_in_chunk(chunk_id)
    nodes = nodes[graph.created(nodes) <= timestamp_ms(call)]
    kids, owner = graph.children_of(nodes)
    return np.stack([nodes[owner], kids], axis=1).ravel()
