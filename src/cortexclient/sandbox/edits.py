"""Merge, split, undo and redo, as the real service does them: nodes are never changed, only replaced.

An edit gives new ids to the level-2 nodes it touches and to all that lies above them (`cortexclient.sandbox.regrow`),
retires the old roots and logs an operation. Undo and redo are edits of their own and make new ids too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from .edges import Edges
from .layout import Ids
from .mincut import source_side
from .nodes import NEVER, Lineage
from .operations import Operation, Pairs, Points
from .regrow import Growth, Part, regrow
from .worlds.forest import components

if TYPE_CHECKING:
    from .graph import Graph

MAX_CHUNKS_APART: Final = 3
"""Supervoxels to be merged may lie this many chunks apart, by the largest of the three differences."""
PADDING: Final = (240, 240, 24)
"""Voxels around the points of a split within which it may cut."""


class EditRefusedError(ValueError):
    """The edit cannot be made; the graph is unchanged.

    ``logged`` tells whether it was noticed so late that an operation id was used up for it.
    """

    def __init__(self, message: str, *, logged: bool = False) -> None:
        super().__init__(message)
        self.logged = logged


@dataclass(frozen=True, slots=True)
class Cut:
    """A way to split: the supervoxels near the points, by the side they would go to, and the edges to remove."""

    source_side: list[int]
    sink_side: list[int]
    removed: Pairs


def merge(
    graph: Graph,
    source: int,
    sink: int,
    *,
    user: str,
    time_ms: int,
    source_coords: Points = (),
    sink_coords: Points = (),
) -> Operation:
    """Join the objects of two supervoxels by a new edge.

    Raises
    ------
    EditRefusedError
        The supervoxels are the same, in one object already, unknown, or too far apart.
    """
    if source == sink:
        raise EditRefusedError("Requested operation contains at least one self-loop.")
    apart = np.abs(np.diff(graph.layout.chunk([source, sink]), axis=0)).max()
    if apart > MAX_CHUNKS_APART:
        raise EditRefusedError(
            f"Chebyshev distance between merge points exceeded allowed maximum ({MAX_CHUNKS_APART} chunks)."
        )
    return _join(
        graph,
        Operation(
            id=_next_id(graph),
            time_ms=_after_all(graph, time_ms),
            user=user,
            kind="merge",
            added_edges=((source, sink),),
            source_coords=source_coords,
            sink_coords=sink_coords,
        ),
    )


def split(
    graph: Graph,
    sources: Sequence[int],
    sinks: Sequence[int],
    *,
    user: str,
    time_ms: int,
    source_coords: Points = (),
    sink_coords: Points = (),
) -> Operation:
    """Part two groups of supervoxels of one object by the cheapest cut near the points.

    The result can still be a single object, if another way round joins the sides outside of the box that was looked at.

    Raises
    ------
    EditRefusedError
        The supervoxels are not in one object, or no cut parts them.
    """
    cut = find_cut(graph, sources, sinks, source_coords + sink_coords)
    return _part(
        graph,
        Operation(
            id=_next_id(graph),
            time_ms=_after_all(graph, time_ms),
            user=user,
            kind="split",
            removed_edges=cut.removed,
            source_ids=tuple(sources),
            sink_ids=tuple(sinks),
            source_coords=source_coords,
            sink_coords=sink_coords,
            bb_offset=PADDING,
        ),
    )


def find_cut(graph: Graph, sources: Sequence[int], sinks: Sequence[int], points: Points) -> Cut:
    """The cut that `split` would make. Points are absolute voxels; without any, the whole object may be cut."""
    root = _one_root(graph, [*sources, *sinks])
    if set(sources) & set(sinks):
        raise EditRefusedError("A supervoxel is both source and sink.")
    near = np.union1d(_near(graph, graph.leaves(root), points), [*sources, *sinks])
    edges = graph.edges_within(near, NEVER)
    label = _labels(near, edges)
    if label[sources[0]] not in {label[sink] for sink in sinks}:
        raise EditRefusedError(
            "Sinks and sources are not connected through the local graph. "
            "Please try a different set of vertices to perform the mincut."
        )
    kept = source_side(edges, sources, sinks)
    if kept & set(sinks):
        raise EditRefusedError("Sources and sinks are joined by edges that cannot be cut.")
    crossing = [(a, b) for a, b in _pairs(edges) if (a in kept) != (b in kept)]
    touched = {label[node] for node in (*sources, *sinks)}
    local = [node for node in near.tolist() if label[node] in touched]
    return Cut([n for n in local if n in kept], [n for n in local if n not in kept], tuple(crossing))


def undo(graph: Graph, operation_id: int, *, user: str, time_ms: int) -> Operation | None:
    """Take back an operation; None if it stands undone already.

    Raises
    ------
    LookupError
        There is no such operation.
    """
    target = graph.operations[operation_id]
    return _invert(graph, target, user, time_ms, removes=target.is_merge, undo_operation_id=operation_id)


def redo(graph: Graph, operation_id: int, *, user: str, time_ms: int) -> Operation | None:
    """Do an undone operation again; None if it is in force."""
    target = graph.operations[operation_id]
    return _invert(graph, target, user, time_ms, removes=not target.is_merge, redo_operation_id=operation_id)


def _invert(
    graph: Graph,
    target: Operation,
    user: str,
    time_ms: int,
    *,
    removes: bool,
    undo_operation_id: int | None = None,
    redo_operation_id: int | None = None,
) -> Operation | None:
    edges = target.added_edges or target.removed_edges
    ends = np.unique(np.array(edges, np.int64))
    active = set(_pairs(graph.edges_within(ends, NEVER)))
    in_force = all((min(edge), max(edge)) in active for edge in edges)
    if target.status or in_force != removes:
        return None
    request = Operation(
        id=_next_id(graph),
        time_ms=_after_all(graph, time_ms),
        user=user,
        kind="undo" if undo_operation_id else "redo",
        added_edges=() if removes else edges,
        removed_edges=edges if removes else (),
        undo_operation_id=undo_operation_id,
        redo_operation_id=redo_operation_id,
    )
    return _part(graph, request) if removes else _join(graph, request)


def _join(graph: Graph, request: Operation) -> Operation:
    """Add the request's edges and replace the objects that they join by one."""
    ends = np.unique(np.array(request.added_edges, np.int64))
    roots = _roots(graph, ends)
    if len(roots) < 2:
        graph.log(replace(request, status=1))
        raise EditRefusedError("Supervoxels must belong to different objects.", logged=True)
    level2 = dict(zip(ends.tolist(), graph.parents(ends, NEVER).tolist(), strict=True))
    touching = defaultdict[int, set[tuple[int, int]]](set)
    for a, b in request.added_edges:
        touching[level2[a]].add((a, b))
        touching[level2[b]].add((a, b))
    old = _with_ancestors(graph, touching)
    growth = Growth(graph, request.time_ms)
    fresh = []
    for chunk, nodes in _by_chunk(graph, touching):
        for joined in _groups_sharing(nodes, touching):
            children, _ = graph.children_of(joined)
            above = frozenset(graph.parents(joined, NEVER).tolist())
            edges = frozenset(edge for node in joined for edge in touching[node])
            fresh.append(Part(growth.make(2, chunk, children.tolist()), 0, above, edges))
    return _write(graph, request, roots, regrow(growth, fresh, old, lambda _: 0), growth)


def _part(graph: Graph, request: Operation) -> Operation:
    """Remove the request's edges and replace their object by what is left connected."""
    ends = np.unique(np.array(request.removed_edges, np.int64))
    root = _one_root(graph, ends)
    supervoxels = graph.leaves(root)
    side = _sides(graph, supervoxels, request.removed_edges)
    level2 = graph.parents(supervoxels, NEVER)
    touched = set(graph.parents(ends, NEVER).tolist()) | _mixed(level2, side)
    old, side_of = _with_ancestors(graph, touched), dict(zip(level2.tolist(), side.tolist(), strict=True))
    nodes = level2
    while (nodes := graph.parents(nodes, NEVER)).any():
        side_of |= dict(zip(nodes.tolist(), side.tolist(), strict=True))
        old |= _mixed(nodes, side)
    growth = Growth(graph, request.time_ms)
    fresh = []
    for node in sorted(touched):
        chunk = tuple(graph.layout.chunk(node).tolist())
        above = frozenset(graph.parents([node], NEVER).tolist())
        members, sides = supervoxels[level2 == node], side[level2 == node]
        fresh += [
            Part(growth.make(2, chunk, members[sides == s].tolist()), s, above) for s in np.unique(sides).tolist()
        ]
    return _write(graph, request, [root], regrow(growth, fresh, old, side_of.__getitem__), growth)


def _write(graph: Graph, request: Operation, old: list[int], new: list[int], growth: Growth) -> Operation:
    operation = replace(request, roots=tuple(new))
    former, made = (grid.ravel() for grid in np.meshgrid(old, new, indexing="ij"))
    lineage = Lineage(former, made, np.full(len(former), operation.id, np.int64))
    graph.append(operation, growth.cells, lineage)
    return operation


def _sides(graph: Graph, supervoxels: Ids, removed: Pairs) -> Ids:
    """Which piece each supervoxel belongs to without the removed edges: 0, 1, ...

    Pieces that no removed edge ends in were never connected by edges at all; they stay with the first piece.
    """
    edges = graph.edges_within(supervoxels, NEVER)
    gone = {(min(edge), max(edge)) for edge in removed}
    kept = edges[np.array([pair not in gone for pair in _pairs(edges)], bool)]
    label = components(len(supervoxels), *(np.searchsorted(supervoxels, end) for end in (kept.a, kept.b)))
    ends = np.searchsorted(supervoxels, np.array([end for edge in removed for end in edge], np.int64))
    pieces = dict.fromkeys(label[ends].tolist())
    number = {piece: n for n, piece in enumerate(pieces)}
    return np.array([number.get(piece, 0) for piece in label.tolist()], np.int64)


def _mixed(nodes: Ids, side: Ids) -> set[int]:
    """Nodes that hold supervoxels of more than one side."""
    pairs = np.unique(np.stack([nodes, side], axis=1), axis=0)[:, 0]
    return set(pairs[1:][np.diff(pairs) == 0].tolist()) - {0}


def _with_ancestors(graph: Graph, nodes: Iterable[int]) -> set[int]:
    found = set(nodes)
    front = np.array(sorted(found), np.int64)
    while len(front):
        front = np.unique(graph.parents(front, NEVER))
        front = front[front != 0]
        found.update(front.tolist())
    return found


def _roots(graph: Graph, supervoxels: Collection[int] | Ids) -> list[int]:
    """The current roots of supervoxels, each once."""
    ids = np.array(list(supervoxels), np.int64)
    roots = graph.roots(ids, NEVER)
    if not roots.all() or (graph.layout.layer(ids) != 1).any():
        raise EditRefusedError(f"not supervoxels of this graph: {ids[(roots == 0)].tolist()}")
    return [int(root) for root in np.unique(roots)]


def _one_root(graph: Graph, supervoxels: Collection[int] | Ids) -> int:
    roots = _roots(graph, supervoxels)
    if len(roots) != 1:
        raise EditRefusedError("Supervoxels must belong to the same object.")
    return roots[0]


def _near(graph: Graph, supervoxels: Ids, points: Points) -> Ids:
    if not points:
        return supervoxels
    padding = np.array(PADDING)
    chunk = graph.layout.chunk(supervoxels)
    low = graph.layout.chunk_at(np.min(points, axis=0) - padding)
    high = graph.layout.chunk_at(np.max(points, axis=0) + padding)
    return supervoxels[((low <= chunk) & (chunk <= high)).all(axis=1)]


def _labels(supervoxels: Ids, edges: Edges) -> dict[int, int]:
    label = components(len(supervoxels), *(np.searchsorted(supervoxels, end) for end in (edges.a, edges.b)))
    return dict(zip(supervoxels.tolist(), label.tolist(), strict=True))


def _by_chunk(graph: Graph, nodes: Iterable[int]) -> Iterator[tuple[tuple[int, ...], list[int]]]:
    found = defaultdict[tuple[int, ...], list[int]](list)
    for node in sorted(nodes):
        found[tuple(graph.layout.chunk(node).tolist())].append(node)
    yield from found.items()


def _groups_sharing(nodes: list[int], touching: dict[int, set[tuple[int, int]]]) -> list[list[int]]:
    """Level-2 nodes of one chunk, together if a new edge joins them."""
    groups: list[list[int]] = []
    for node in nodes:
        near = [group for group in groups if any(touching[node] & touching[other] for other in group)]
        groups = [group for group in groups if group not in near] + [[*(n for group in near for n in group), node]]
    return groups


def _pairs(edges: Edges) -> list[tuple[int, int]]:
    return list(zip(edges.a.tolist(), edges.b.tolist(), strict=True))


def _next_id(graph: Graph) -> int:
    return max(graph.operations, default=0) + 1


def _after_all(graph: Graph, time_ms: int) -> int:
    """A time for a new edit: never at or before that of another one."""
    return max(time_ms, graph.newest_ms + 1)
