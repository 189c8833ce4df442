"""Which roots hold the material of a root at another instant."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

import polars as pl

from .._types import IdArray
from ..services.chunkedgraph import AsyncChunkedGraph

RELATIVES = {"origin": pl.Int64, "root": pl.Int64}


async def relatives_at(graph: AsyncChunkedGraph, roots: IdArray, when: datetime) -> pl.DataFrame:
    """List the roots current at ``when`` that share supervoxels with each of ``roots`` (and perhaps some that do not).

    Roots that had retired by then are followed forwards through the edits, younger ones backwards.

    Returns
    -------
    DataFrame
        ``origin, root``.
    """
    # the service walks back from nodes created at or after timestamp_past, and on from those created at or before
    # timestamp_future: asking with both at ``when`` walks each root in the one direction that leads there
    document = await graph.get_lineage_graph(roots, when, when)
    created = {node["id"]: node["timestamp"] for node in document["nodes"]}
    instant = when.timestamp()
    alive = {node for node, born in created.items() if born <= instant}
    later: dict[int, list[int]] = defaultdict(list)
    earlier: dict[int, list[int]] = defaultdict(list)
    for link in document["links"]:
        earlier[link["target"]].append(link["source"])
        if link["target"] in alive:
            later[link["source"]].append(link["target"])
    found = [
        (origin, relative)
        for origin in roots.tolist()
        for relative in (_ends(origin, later) if origin in alive else _first_met(origin, earlier, alive))
    ]
    return pl.DataFrame(found, schema=RELATIVES, orient="row")


def _ends(origin: int, later: Mapping[int, list[int]]) -> set[int]:
    """Follow the edits forwards to where they end."""
    reached, queue = {origin}, [origin]
    while queue:
        fresh = [node for node in later.get(queue.pop(), ()) if node not in reached]
        reached.update(fresh)
        queue += fresh
    return {node for node in reached if not later.get(node)}


def _first_met(origin: int, earlier: Mapping[int, list[int]], alive: set[int]) -> set[int]:
    """Follow the edits backwards to the first roots that were there already."""
    reached, queue = {origin}, [origin]
    while queue:
        node = queue.pop()
        fresh = [] if node in alive else [parent for parent in earlier.get(node, ()) if parent not in reached]
        reached.update(fresh)
        queue += fresh
    return reached & alive
