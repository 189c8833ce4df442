"""The cheapest set of edges that parts two groups of supervoxels."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

import numpy as np

from .edges import Edges


def source_side(edges: Edges, sources: Iterable[int], sinks: Iterable[int]) -> set[int]:
    """Supervoxels that stay with the sources after a minimum cut (Edmonds and Karp: shortest augmenting paths).

    Parameters
    ----------
    edges
        Undirected; the affinity is the cost of cutting. Edges of infinite affinity are never cut.
    sources, sinks
        Disjoint groups.

    Returns
    -------
    Every supervoxel that is still connected to a source. If sources and sinks cannot be parted, because infinite edges
    join them, a sink is among them.
    """
    residual: dict[int, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for a, b, affinity in zip(edges.a.tolist(), edges.b.tolist(), edges.affinity.tolist(), strict=True):
        residual[a][b] += affinity
        residual[b][a] += affinity
    goals = set(sinks)
    while True:
        came_from = _search(residual, sources, goals)
        end = next((goal for goal in goals if goal in came_from), None)
        if end is None:
            return set(came_from)
        path = [end]
        while (step := came_from[path[-1]]) is not None:
            path.append(step)
        hops = list(zip(path[1:], path[:-1], strict=True))
        flow = min(residual[a][b] for a, b in hops)
        if np.isinf(flow):
            return set(came_from)
        for a, b in hops:
            residual[a][b] -= flow
            residual[b][a] += flow


def _search(residual: dict[int, dict[int, float]], sources: Iterable[int], goals: set[int]) -> dict[int, int | None]:
    """Breadth first from the sources over what is not yet saturated: each node met, and where it was met from."""
    came_from: dict[int, int | None] = dict.fromkeys(sources)
    queue = deque(came_from)
    while queue:
        node = queue.popleft()
        if node in goals:
            break
        for neighbour, left in residual[node].items():
            if left > 0 and neighbour not in came_from:
                came_from[neighbour] = node
                queue.append(neighbour)
    return came_from
