"""Where roots come from and where they went."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np

from ..._fanout import fan_out, running
from ..._types import IdArray, Ids, When
from ..._wire import endpoints, json
from ...errors import DecodeError, NotFoundError, ServerError
from ...ids import as_ids, batches, unique_ids
from ...progress import ProgressLike
from .._base import check_aware, epoch
from ._lookups import Lookups

LINEAGE_GRAPH = {"directed": True, "multigraph": False, "graph": {}}
"""The head of a networkx node-link document."""


class History(Lookups):
    """Lineage, and the instants of the graph."""

    async def get_lineage_graph(
        self,
        root_ids: Ids,
        timestamp_past: When | None = None,
        timestamp_future: When | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Follow roots through their edits, backwards and forwards.

        Parameters
        ----------
        root_ids
            Roots. The lineages of all of them are merged into one graph.
        timestamp_past, timestamp_future
            How far to walk; the edits that cross a limit are still in the graph. Default: all the way.

        Returns
        -------
        dict
            Node-link form of networkx: ``nodes`` (``id``, ``timestamp`` of creation in UNIX seconds, ``operation_id``
            of the operation that *retired* it, absent for current roots) and ``links`` (``source``, the older, and
            ``target``). Sorted by id. ``networkx.node_link_graph(graph, edges="links")`` makes a DiGraph of it.

        Raises
        ------
        NotFoundError
            Naming the ids that do not exist.
        """
        unique, _ = unique_ids(as_ids(root_ids, "root_ids"))
        query = {}
        if timestamp_past is not None:
            query["timestamp_past"] = epoch(check_aware(timestamp_past, "timestamp_past"))
        if timestamp_future is not None or self._pinned:
            query["timestamp_future"] = epoch((await self._session.snapshot(timestamp_future)).timestamp)
        with running(timeout, progress, len(unique)) as reporter:

            async def one(chunk: IdArray) -> dict[str, Any]:
                graph = await self._lineage(chunk, query)
                reporter.add(len(chunk))
                return graph

            chunks = batches(unique, self._session.batch(endpoints.LINEAGE_GRAPH))
            graphs = await fan_out(chunks, one, self._session.limits.of(endpoints.LINEAGE_GRAPH.service))
        nodes = {node["id"]: node for graph in graphs for node in graph["nodes"]}
        links = {(link["source"], link["target"]) for graph in graphs for link in graph["links"]}
        return LINEAGE_GRAPH | {
            "nodes": [nodes[i] for i in sorted(nodes)],
            "links": [{"source": source, "target": target} for source, target in sorted(links)],
        }

    @property
    def _pinned(self) -> bool:
        return self._session.version is not None or self._session.timestamp is not None

    async def _lineage(self, chunk: IdArray, query: dict[str, str]) -> dict[str, Any]:
        try:
            reply = await self._session.send(
                endpoints.LINEAGE_GRAPH, query=query, body=json.encode({"root_ids": chunk}), ids=chunk
            )
        except ServerError as error:
            missing = await self._unknown(chunk)
            if not len(missing):
                raise
            raise NotFoundError(
                "these ids have no lineage: they are no roots of the graph",
                ids=missing,
                endpoint=str(endpoints.LINEAGE_GRAPH),
            ) from error
        graph = json.decode(reply.body)
        if not isinstance(graph, dict) or "nodes" not in graph or "links" not in graph:
            raise DecodeError("the reply is no node-link graph", endpoint=str(endpoints.LINEAGE_GRAPH))
        return graph

    async def get_latest_roots(
        self, root_id: int, timestamp: When | None = None, *, timeout: float | None = None
    ) -> IdArray:
        """List the roots that a root turned into, as of an instant (or, for an earlier instant, came from).

        Returns
        -------
        (n,) int64
            Sorted. A current root answers with itself. Merges and splits bring in siblings: use
            :meth:`suggest_latest_roots` for the one that holds most of the old cell.
        """
        with running(timeout, None, None):
            when = (await self._session.snapshot(timestamp)).timestamp
            born = (await self.get_root_timestamps(root_id))[0].to_pydatetime()
            past, future = min(born, when), max(born, when)
            graph = await self.get_lineage_graph(root_id, past, future)
        horizon = future.timestamp() if born <= when else past.timestamp()
        if born <= when:
            alive = {node["id"] for node in graph["nodes"] if node["timestamp"] <= horizon}
            gone = {link["source"] for link in graph["links"] if link["target"] in alive}
        else:
            alive = {node["id"] for node in graph["nodes"]}
            gone = {link["target"] for link in graph["links"]}
        return np.array(sorted(alive - gone), np.int64)

    async def get_past_ids(
        self, root_ids: Ids, timestamp_past: When, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> dict[int, IdArray]:
        """List, for each root, the roots at a past instant that it has supervoxels of.

        Returns
        -------
        dict of (m,) int64
            One entry for each distinct id, in the order of the input; the id itself where it was current already.
        """
        asked = as_ids(root_ids, "root_ids")
        unique, _ = unique_ids(asked)
        query = {"timestamp_past": epoch(check_aware(timestamp_past, "timestamp_past"))}
        with running(timeout, progress, len(unique)) as reporter:

            async def one(chunk: IdArray) -> dict[int, IdArray]:
                body = json.encode({"root_ids": chunk})
                reply = await self._session.send(endpoints.PAST_ID_MAPPING, query=query, body=body, ids=chunk)
                reporter.add(len(chunk))
                return json.decode_id_lists(json.encode(json.decode(reply.body)["past_id_map"]))

            chunks = batches(unique, self._session.batch(endpoints.PAST_ID_MAPPING))
            parts = await fan_out(chunks, one, self._session.limits.of(endpoints.PAST_ID_MAPPING.service))
        merged = {key: past for part in parts for key, past in part.items()}
        return {i: merged[i] for i in dict.fromkeys(asked.tolist())}

    async def get_oldest_timestamp(self, *, timeout: float | None = None) -> datetime:
        """Tell since when the graph answers: the first edit less half a second (aware UTC)."""
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.OLDEST_TIMESTAMP)
        return datetime.fromisoformat(json.decode(reply.body)["iso"])
