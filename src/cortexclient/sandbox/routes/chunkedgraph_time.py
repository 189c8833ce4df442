"""Chunkedgraph: when nodes lived, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .. import costs
from ..calls import Call, Reply
from ..graph import NEVER, Graph
from ..layout import Ids
from .chunkedgraph_protocol import (
    ChunkedGraphError,
    binary_ids,
    body_ids,
    distinct,
    flag,
    json_reply,
    moment,
    node_id,
    open_graph,
    seconds,
    timestamp_ms,
    timestamp_s,
    wire,
)

if TYPE_CHECKING:
    from ..world import World

Seconds = npt.NDArray[np.float64]
Step = Callable[[Ids], tuple[Ids, Ids]]
FIRST_OPERATIONS: Final = 100
"""The service looks for the oldest operation among ids below this only."""


def root_timestamps(world: World, call: Call) -> Reply:
    """When each node was created; with ``latest`` the last moment, up to ``timestamp``, at which it was current."""
    graph, call = open_graph(world, call)
    ids = binary_ids(call) if flag(call, "is_binary") else body_ids(call)
    if not ids.ndim and call.strict:
        raise ChunkedGraphError(400, "", crash="len() of unsized object")
    ids = np.atleast_1d(ids)
    times = _last_valid(graph, call, ids) if flag(call, "latest") else _created(graph, ids)
    return json_reply(call, {"timestamp": times}, price=costs.NODE_READ_PER_ID * distinct(ids))


def _created(graph: Graph, ids: Ids) -> Seconds:
    """Creation times in seconds. One unknown id among known ones fails them all; if none is known the list is empty."""
    created = graph.created(ids)
    unknown = ids[created == NEVER]
    if len(unknown) == len(ids):
        return np.empty(0)
    if len(unknown):
        raise ChunkedGraphError(404, f"unknown node_ids: {wire(unknown).tolist()}", crash=str(wire(unknown)[0]))
    return seconds(created)


def _last_valid(graph: Graph, call: Call, ids: Ids) -> Seconds:
    created, retired, time_ms = graph.created(ids), graph.retired(ids), timestamp_ms(call)
    unborn = ids[created >= time_ms]
    if len(unborn):
        message = f"node_ids that are unknown or do not exist yet: {wire(unborn).tolist()}"
        raise ChunkedGraphError(404, message, crash="pop from an empty deque")
    return np.where(retired < time_ms, seconds(retired), timestamp_s(call))


def is_latest_roots(world: World, call: Call) -> Reply:
    """Whether each node was current just before a time: here, unlike in look-ups of roots, the time is exclusive."""
    graph, call = open_graph(world, call)
    ids, time_ms = np.atleast_1d(body_ids(call)), timestamp_ms(call)
    latest = (graph.created(ids) < time_ms) & (graph.retired(ids) >= time_ms)
    return json_reply(call, {"is_latest": latest}, price=costs.NODE_READ_PER_ID * distinct(ids))


def oldest_timestamp(world: World, call: Call) -> Reply:
    """Half a second before the first operation. A graph without any answers its creation, where the service dies."""
    graph, call = open_graph(world, call)
    times = [o.time_ms for o in graph.operations.values() if o.id < FIRST_OPERATIONS or not call.strict]
    if not times and call.strict:
        raise ChunkedGraphError(404, "", crash="'NoneType' object has no attribute 'isoformat'")
    oldest = moment(min(times) - 500 if times else graph.created_ms)
    return json_reply(call, {"iso": oldest.isoformat(call.query.get("delimiter", " "))}, price=costs.NODE_READ_PER_ID)


def last_edit(world: World, call: Call) -> Reply:
    """When the newest edit in the history of a root was made; always a crash in the service."""
    graph, call = open_graph(world, call)
    if call.strict:
        raise ChunkedGraphError(400, "", crash="'float' object has no attribute 'isoformat'")
    node = checked_root(graph, call)
    return json_reply(call, {"iso": moment(int(graph.created([node])[0])).isoformat(" ")})


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Roots and who replaced whom: ``nodes`` and ``links`` (former, new) in the order they were met."""

    nodes: list[int]
    links: list[tuple[int, int]]

    def ends(self, column: int) -> list[int]:
        """Nodes that are never in ``column`` of a link: 1 gives the sources of the graph, 0 its sinks."""
        inner = {link[column] for link in self.links}
        return [node for node in self.nodes if node not in inner]


def trace(
    graph: Graph, roots: Iterable[int], *, past_s: float | None = None, future_s: float | None = None
) -> LineageGraph:
    """The lineage of roots: backwards through former roots, forwards through new ones, never sideways.

    A root is walked past unless it was created before ``past_s`` or after ``future_s`` respectively; so the first step
    beyond each limit is still there. None: do not walk in that direction at all.
    """
    start = list(dict.fromkeys(roots))
    past = [] if past_s is None else _walk(graph, start, graph.predecessors, lambda created: created >= past_s)
    future = [] if future_s is None else _walk(graph, start, graph.successors, lambda created: created <= future_s)
    links = dict.fromkeys(past + [(former, new) for new, former in future])
    nodes = dict.fromkeys(start + [met for met, _ in past] + [met for met, _ in future])
    return LineageGraph(list(nodes), list(links))


def _walk(graph: Graph, start: list[int], step: Step, within: Callable[[Seconds], Any]) -> list[tuple[int, int]]:
    """Walk the lineage breadth first, only beyond roots whose creation is ``within`` limits: (met, coming from)."""
    front, seen, met = np.array(start, np.int64), set(start), list[tuple[int, int]]()
    while len(front):
        front = front[within(seconds(graph.created(front)))]
        found, owner = step(front)
        met += zip(found.tolist(), front[owner].tolist(), strict=True)
        fresh = [node for node in dict.fromkeys(found.tolist()) if node not in seen]
        seen.update(fresh)
        front = np.array(fresh, np.int64)
    return met


def lineage_graph_multiple(world: World, call: Call) -> Reply:
    """The lineage of many roots as node-link JSON."""
    graph, call = open_graph(world, call)
    ids = np.atleast_1d(body_ids(call, "root_ids"))
    unknown = ids[~graph.exists(ids)]
    if len(unknown):
        raise ChunkedGraphError(404, f"unknown root_ids: {wire(unknown).tolist()}", crash=str(wire(unknown)[0]))
    if (graph.layout.layer(ids) == 1).any():
        crash = (
            "_Attribute(key=b'children', family_id='0', "
            "serializer=<pychunkedgraph.graph.utils.serializers.NumPyArray object at 0x7f0000000000>)"
        )
        raise ChunkedGraphError(400, "supervoxels have no lineage", crash=crash)
    return _lineage_reply(graph, call, ids)


def lineage_graph(world: World, call: Call) -> Reply:
    """The lineage of one root as node-link JSON."""
    graph, call = open_graph(world, call)
    return _lineage_reply(graph, call, np.array([checked_root(graph, call)], np.int64))


def _lineage_reply(graph: Graph, call: Call, ids: Ids) -> Reply:
    past, future = timestamp_s(call, "timestamp_past", 0.0), timestamp_s(call, "timestamp_future")
    found = trace(graph, ids.tolist(), past_s=past, future_s=future)
    nodes = np.array(found.nodes, np.int64)
    records: list[dict[str, Any]] = [
        {"id": node, "timestamp": created} | ({"operation_id": operation} if operation else {})
        for node, created, operation in zip(
            wire(nodes), seconds(graph.created(nodes)).tolist(), graph.retired_by(nodes), strict=True
        )
    ]
    links = [{"source": a, "target": b} for a, b in wire(found.links).reshape(-1, 2)]
    answer = {"directed": True, "graph": {}, "links": links, "multigraph": False, "nodes": records}
    return json_reply(call, answer, price=costs.LINEAGE_PER_NODE * len(nodes))


def checked_root(graph: Graph, call: Call) -> int:
    """The root id in the path."""
    node = node_id(call, "root_id")
    refuse_non_roots(graph, np.array([node], np.int64))
    return node


def refuse_non_roots(graph: Graph, ids: Ids) -> None:
    """Refuse ids that are not of the roots' layer, and roots that never were."""
    for node, layer, known in zip(wire(ids).tolist(), graph.layout.layer(ids), graph.exists(ids), strict=True):
        if layer != graph.layout.n_layers:
            raise ChunkedGraphError(400, f"{node} is no root", crash=f"{node} is no root")
        if not known:
            raise ChunkedGraphError(404, f"unknown root {node}", crash=str(node))


def past_id_mapping(world: World, call: Call) -> Reply:
    """What each root consisted of at ``timestamp_past``, and of which past ids a single root is left today."""
    graph, call = open_graph(world, call)
    ids = np.atleast_1d(body_ids(call, "root_ids"))
    past_s = timestamp_s(call, "timestamp_past", 0.0)
    if not len(ids) and call.strict:
        raise ChunkedGraphError(400, "", crash="need at least one array to concatenate")
    refuse_non_roots(graph, ids)
    past: dict[str, Any] = {}
    future: dict[str, Any] = {}
    for root, key in zip(ids.tolist(), wire(ids), strict=True):
        sources = trace(graph, [root], past_s=past_s).ends(1)
        past[str(key)] = wire(sources)
        for source in sources:
            # timestamp_future is never looked at: the service's test for it is the wrong way round
            heirs = trace(graph, [source], future_s=call.now_ms / 1000).ends(0)
            if len(heirs) == 1:
                future[str(wire([source])[0])] = wire(heirs)[0]
    answer = {"past_id_map": past, "future_id_map": future}
    return json_reply(call, answer, price=costs.LINEAGE_PER_NODE * sum(map(len, past.values())))


def delta_roots(world: World, call: Call) -> Reply:
    """Roots made and roots replaced by the operations logged between two times, both inclusive.

    Roots that both came and went in between are in both lists; an old root is listed once for each of its successors.
    """
    graph, call = open_graph(world, call)
    if "timestamp_past" not in call.query:
        raise ChunkedGraphError(400, "Timestamp parameter timestamp_past is mandatory")
    start, end = timestamp_ms(call, "timestamp_past"), timestamp_ms(call, "timestamp_future")
    logged = sorted(o.id for o in graph.operations.values() if start <= o.logged_ms <= end)
    new = np.array([root for number in logged for root in graph.operations[number].roots], np.int64)
    old, _ = graph.predecessors(new)
    return json_reply(call, {"new_roots": wire(new), "old_roots": wire(old)}, price=costs.NODE_READ_PER_ID * len(new))
