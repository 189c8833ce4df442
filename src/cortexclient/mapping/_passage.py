"""Whether a point passed through a root, told by the edits alone.

A point's roots over time form a path through the lineage. Where it lay at one version and at the next is known from
their tables; if every path between those two roots leads through a third, the point lay on that one as well, and if
none does, it did not. Only where the edits leave both open (a split whose parts were merged again) must the graph be
asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from .._types import IdArray
from ..services.chunkedgraph import AsyncChunkedGraph

Way = tuple[int, int, int]
"""A root that a point lay on before, the root in question, and one that it lay on after."""


async def passages(
    graph: AsyncChunkedGraph, befores: IdArray, ways: Iterable[Way], until: datetime
) -> dict[Way, bool | None]:
    """Tell for each way whether it leads through the root in question; None where the edits leave it open.

    Parameters
    ----------
    befores
        The distinct first roots of all ways.
    ways
        What is asked; the last root of each was current at ``until``.
    """
    document = await graph.get_lineage_graph(befores, until, until)  # forwards only: they are all older than that
    later: dict[int, list[int]] = defaultdict(list)
    for link in document["links"]:
        later[link["source"]].append(link["target"])
    known = {node["id"] for node in document["nodes"]}
    return {way: _passes(later, *way) if way[0] in known else None for way in ways}


def _passes(later: Mapping[int, list[int]], before: int, root: int, after: int) -> bool | None:
    if root not in _reach(later, before):
        return False
    return None if after in _reach(later, before, without=root) else True


def _reach(later: Mapping[int, list[int]], origin: int, without: int | None = None) -> set[int]:
    reached, queue = {origin}, [origin]
    while queue:
        fresh = [node for node in later.get(queue.pop(), ()) if node not in reached and node != without]
        reached.update(fresh)
        queue += fresh
    return reached
