"""Chunkedgraph: edits over HTTP, the preview of a split, and the locks that keep edits of one object apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import costs
from ..calls import Call, Reply
from ..edits import EditRefusedError, find_cut
from ..graph import Graph, Operation
from ..layout import Ids
from .chunkedgraph_points import Point, parse_points, supervoxels_at
from .chunkedgraph_protocol import ChunkedGraphError, json_reply, malformed, open_graph, wire

if TYPE_CHECKING:
    from ..world import World

LOCK_WAIT_S = 3.5
"""An edit tries seven times, every half second, to lock the roots it is about."""


def split_preview(world: World, call: Call) -> Reply:
    """On which side of a split the supervoxels near it would end up."""
    graph, call = open_graph(world, call)
    sources, sinks = _sides(call)
    source_ids, sink_ids = (supervoxels_at(graph, call, side).tolist() for side in (sources, sinks))
    voxels = tuple(point.voxel(graph) for point in sources + sinks)
    try:
        cut = find_cut(graph, source_ids, sink_ids, voxels)
    except EditRefusedError as error:
        raise ChunkedGraphError(400, str(error)) from error
    parts = [wire(part) for part in (cut.source_side, cut.sink_side)]
    answer = {"supervoxel_connected_components": parts, "illegal_split": False}
    return json_reply(call, answer, price=costs.SUBGRAPH_PER_LEAF * sum(map(len, parts)))


def supervoxel_lookup(world: World, call: Call) -> Reply:
    """The supervoxels that points mean (a JSON list; the shape of the answer is assumed)."""
    graph, call = open_graph(world, call)
    with malformed("the body"):
        points = parse_points(call.json())
    return json_reply(call, wire(supervoxels_at(graph, call, points)), price=costs.NODE_READ_PER_ID * len(points))


def merge(world: World, call: Call) -> Reply:
    """Join the objects of two points."""
    graph, call = open_graph(world, call, edit=True)
    with malformed("the body"):
        points = parse_points(call.json())
    if len(points) != 2:
        raise ChunkedGraphError(400, "a merge needs two points", crash="")
    source, sink = supervoxels_at(graph, call, points).tolist()
    coords = [(point.voxel(graph),) for point in points]

    def edit() -> Operation:
        return graph.merge(
            source,
            sink,
            user=str(call.user_id),
            time_ms=call.now_ms,
            source_coords=coords[0],
            sink_coords=coords[1],
        )

    return _edited(graph, call, np.array([source, sink], np.int64), edit)


def split(world: World, call: Call) -> Reply:
    """Part two groups of points of one object."""
    graph, call = open_graph(world, call, edit=True)
    sources, sinks = _sides(call)
    source_ids, sink_ids = (supervoxels_at(graph, call, side).tolist() for side in (sources, sinks))

    def edit() -> Operation:
        return graph.split(
            source_ids,
            sink_ids,
            user=str(call.user_id),
            time_ms=call.now_ms,
            source_coords=tuple(point.voxel(graph) for point in sources),
            sink_coords=tuple(point.voxel(graph) for point in sinks),
        )

    return _edited(graph, call, np.array(source_ids + sink_ids, np.int64), edit)


def undo(world: World, call: Call) -> Reply:
    """Take back an operation; one that stands undone is answered without an operation id."""
    return _repeat(world, call, Graph.undo)


def redo(world: World, call: Call) -> Reply:
    """Do an undone operation again."""
    return _repeat(world, call, Graph.redo)


def _repeat(world: World, call: Call, method: Callable[..., Operation | None]) -> Reply:
    graph, call = open_graph(world, call, edit=True)
    with malformed("the body"):
        number = int(call.json()["operation_id"])
    if number not in graph.operations:
        raise ChunkedGraphError(404, f"there is no operation {number}", crash=str(number))
    target = graph.operations[number]
    ends = np.array(target.added_edges + target.removed_edges, np.int64).ravel()
    return _edited(graph, call, ends, lambda: method(graph, number, user=str(call.user_id), time_ms=call.now_ms))


def _edited(graph: Graph, call: Call, supervoxels: Ids, edit: Callable[[], Operation | None]) -> Reply:
    """Lock the objects for as long as the edit takes, edit, and answer."""
    roots = graph.roots(supervoxels, call.now_ms).tolist()
    if any(graph.locked_until.get(root, 0) > call.now_ms for root in roots):
        raise ChunkedGraphError(500, "Could not acquire root lock", price=LOCK_WAIT_S)
    try:
        operation = edit()
    except EditRefusedError as error:
        raise ChunkedGraphError(400, str(error), price=costs.EDIT) from error
    answer: dict[str, Any] = {"operation_id": None, "new_root_ids": []}
    if operation is not None:
        answer = {"operation_id": operation.id, "new_root_ids": wire(operation.roots)}
        if call.timed:
            until = call.now_ms + round(costs.EDIT * 1000)
            graph.locked_until |= dict.fromkeys([*roots, *operation.roots], until)
    return json_reply(call, answer, price=costs.EDIT)


def _sides(call: Call) -> tuple[list[Point], list[Point]]:
    with malformed("the body"):
        body = call.json()
        return parse_points(body["sources"]), parse_points(body["sinks"])
