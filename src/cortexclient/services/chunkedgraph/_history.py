"""Where roots come from and where they went."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._fanout import running
from ..._types import IdArray, Ids, When
from ..._wire import endpoints, json
from ...errors import DecodeError
from ...ids import as_ids, batches, unique_ids
from ...progress import ProgressLike
from .._base import check_aware, epoch
from ._batched import Parts, no_such_nodes
from ._lookups import Lookups
from ._structure import Structure

if TYPE_CHECKING:
    import pandas as pd

LINEAGE_GRAPH = {"directed": True, "multigraph": False, "graph": {}}
"""The head of a networkx node-link document."""


def _joined(found: Parts[dict[str, Any]]) -> dict[str, Any]:
    nodes = {node["id"]: node for _, graph in found for node in graph["nodes"]}
    links = {(link["source"], link["target"]) for _, graph in found for link in graph["links"]}
    return LINEAGE_GRAPH | {
        "nodes": [nodes[i] for i in sorted(nodes)],
        "links": [{"source": source, "target": target} for source, target in sorted(links)],
    }


class History(Lookups, Structure):
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

        Examples
        --------
        >>> graph = await client.chunkedgraph.get_lineage_graph(864691134885645050)
        >>> len(graph["nodes"]), graph["links"][0]
        (19, {'source': 864691131410920796, 'target': 864691135265981601})
        """
        unique, _ = unique_ids(as_ids(root_ids, "root_ids"))
        query = {}
        if timestamp_past is not None:
            query["timestamp_past"] = epoch(check_aware(timestamp_past, "timestamp_past"))
        if timestamp_future is not None or self._pinned:
            query["timestamp_future"] = epoch((await self._session.snapshot(timestamp_future)).timestamp)
        with running(timeout, progress, len(unique)) as reporter:
            chunks = batches(unique, self._session.batch(endpoints.LINEAGE_GRAPH))
            ask = partial(self._lineage, query=query)
            return await self._ask(endpoints.LINEAGE_GRAPH, chunks, ask, _joined, reporter)

    @property
    def _pinned(self) -> bool:
        return self._session.version is not None or self._session.timestamp is not None

    async def _lineage(self, chunk: IdArray, query: dict[str, str]) -> dict[str, Any]:
        body = json.encode({"root_ids": chunk})
        reply = await self._session.send(endpoints.LINEAGE_GRAPH, query=query, body=body, ids=chunk)
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

        Examples
        --------
        >>> await client.chunkedgraph.get_latest_roots(864691135265981601)
        array([864691132428634148, 864691134885645050])
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

    async def get_original_roots(
        self, root_id: int, timestamp_past: When | None = None, *, timeout: float | None = None
    ) -> IdArray:
        """List the roots that a root was made of, as of an instant (default: the first ones).

        Returns
        -------
        (n,) int64
            Sorted. A root that was never edited answers with itself.

        Examples
        --------
        >>> await client.chunkedgraph.get_original_roots(864691134885645050)
        array([864691132634483202, 864691132704020302, 864691133604894754,
               864691135185292082, 864691135427325591])
        """
        with running(timeout, None, None):
            born = (await self.get_root_timestamps(root_id))[0].to_pydatetime()
            graph = await self.get_lineage_graph(root_id, timestamp_past, born)
        made = {link["target"] for link in graph["links"]}
        return np.array(sorted({node["id"] for node in graph["nodes"]} - made), np.int64)

    async def get_root_overlaps(
        self, root_id: int, timestamp: When | None = None, *, timeout: float | None = None
    ) -> pd.DataFrame:
        """Tell which roots hold the material of a root at a later instant, and how much of it.

        Parameters
        ----------
        root_id
            A root, retired or not.
        timestamp
            The instant; the roots are those current then.

        Returns
        -------
        DataFrame
            Index ``root_id``, column ``fraction`` (of the level-2 chunks), largest first; root 0 for what did not exist
            yet.

        Raises
        ------
        NotFoundError
            If there is no such root.

        Notes
        -----
        An edit replaces the level-2 nodes that it touches, and a replaced node climbs to a retired root for ever. Such
        nodes are counted by their supervoxels, which always lead to the root that is current.

        Examples
        --------
        >>> await client.chunkedgraph.get_root_overlaps(864691135265981601)
                            fraction
        root_id
        864691134885645050       0.8
        864691132428634148       0.2
        """
        import pandas as pd

        (shares,) = (await self.get_root_overlaps_many(root_id, timestamp, timeout=timeout)).values()
        index = pd.Index(np.fromiter(shares, np.int64, len(shares)), name="root_id")
        return pd.DataFrame({"fraction": list(shares.values())}, index)

    async def get_root_overlaps_many(
        self,
        root_ids: Ids,
        timestamp: When | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> dict[int, dict[int, float]]:
        """Tell which roots hold the material of each root at an instant; see :meth:`get_root_overlaps`.

        Returns
        -------
        dict of dict
            One entry for each distinct id, in the order of the input: fractions by root, largest first.

        Raises
        ------
        NotFoundError
            Naming the ids that do not exist.

        Notes
        -----
        One request for each id, then look-ups of all their level-2 chunks (0.35 ms each for the server): some 10,000
        for a large neuron, millions for a root that was once merged with half the dataset.
        `AsyncCortexClient.update_roots` asks for them only where the lineage leaves a choice.

        Examples
        --------
        >>> await client.chunkedgraph.get_root_overlaps_many([864691135265981601])
        {864691135265981601: {864691134885645050: 0.8, 864691132428634148: 0.2}}
        """
        asked = as_ids(root_ids, "root_ids")
        with running(timeout, progress, len(unique_ids(asked)[0])) as reporter:
            when = (await self._session.snapshot(timestamp)).timestamp
            chunks = await self.get_leaves_many(asked, stop_layer=2)
            missing = [one for one, nodes in chunks.items() if not len(nodes) and one not in (self._spared or ())]
            shares = await self._shares({one: nodes for one, nodes in chunks.items() if len(nodes)}, when)
            reporter.add(len(shares), len(missing))
        if missing:
            error = no_such_nodes(np.array(missing), endpoints.LEAVES)
            self._settle(dict.fromkeys(missing, error), shares)
        return shares

    async def _shares(self, chunks: Mapping[int, IdArray], when: datetime) -> dict[int, dict[int, float]]:
        """Which roots hold the level-2 nodes of each id, and how much of them."""
        import pandas as pd

        if not chunks:
            return {}
        nodes, place = unique_ids(np.concatenate(list(chunks.values())))
        roots = await self.get_roots(nodes, when)
        # is_latest is exclusive, get_roots inclusive: ask a millisecond later
        current = await self.is_latest_roots(roots, when + timedelta(milliseconds=1))
        pieces = await self.get_leaves_many(nodes[~current], stop_layer=1)
        supervoxels = np.concatenate([np.empty(0, np.int64), *pieces.values()])
        sizes = np.array([len(piece) for piece in pieces.values()], np.int64)
        held = pd.DataFrame(
            {
                "node": np.concatenate([np.flatnonzero(current), np.repeat(np.flatnonzero(~current), sizes)]),
                "root": np.concatenate([roots[current], await self.get_roots(supervoxels, when)]),
                "share": np.concatenate([np.ones(current.sum()), np.repeat(1 / np.maximum(sizes, 1), sizes)]),
            }
        )
        counts = [len(part) for part in chunks.values()]
        owner = pd.DataFrame({"owner": np.repeat(list(chunks), counts), "node": place, "n": np.repeat(counts, counts)})
        parts = owner.merge(held, on="node")
        sums = (parts["share"] / parts["n"]).groupby([parts["owner"], parts["root"]]).sum().reset_index(name="share")
        found: dict[int, dict[int, float]] = {one: {} for one in chunks}
        for one, root, share in sums.sort_values("share", ascending=False, kind="stable").itertuples(index=False):
            found[one][root] = share
        return found

    async def suggest_latest_roots(
        self, root_id: int, timestamp: When | None = None, *, timeout: float | None = None
    ) -> int:
        """Name the root that holds most of an old root's material at an instant; never a retired one.

        :meth:`get_root_overlaps` lists all of them with their shares.

        Examples
        --------
        >>> await client.chunkedgraph.suggest_latest_roots(864691135265981601)
        864691134885645050
        """
        overlaps = await self.get_root_overlaps(root_id, timestamp, timeout=timeout)
        return int(overlaps.index[0])

    async def get_past_ids(
        self, root_ids: Ids, timestamp_past: When, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> dict[int, IdArray]:
        """List, for each root, the roots of a past instant that it descends from.

        Returns
        -------
        dict of (m,) int64
            One entry for each distinct id, in the order of the input; the id itself where it was current already. An
            ancestor need not share supervoxels with its descendant: what they shared may have been split off between.

        Examples
        --------
        >>> frozen = await client.version_timestamp(117)
        >>> await client.chunkedgraph.get_past_ids([864691134885645050], frozen)
        {864691134885645050: array([864691135427325591, 864691132634483202, 864691135265981601])}
        """
        asked = as_ids(root_ids, "root_ids")
        unique, _ = unique_ids(asked)
        query = {"timestamp_past": epoch(check_aware(timestamp_past, "timestamp_past"))}
        with running(timeout, progress, len(unique)) as reporter:

            async def call(chunk: IdArray) -> dict[int, IdArray]:
                body = json.encode({"root_ids": chunk})
                reply = await self._session.send(endpoints.PAST_ID_MAPPING, query=query, body=body, ids=chunk)
                return json.decode_id_lists(json.encode(json.decode(reply.body)["past_id_map"]))

            return await self._each(endpoints.PAST_ID_MAPPING, asked, call, reporter)

    async def get_oldest_timestamp(self, *, timeout: float | None = None) -> datetime:
        """Tell since when the graph answers: the first edit less half a second (aware UTC).

        Examples
        --------
        >>> str(await client.chunkedgraph.get_oldest_timestamp())
        '2020-05-31 04:19:02.400000+00:00'
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.OLDEST_TIMESTAMP)
        return datetime.fromisoformat(json.decode(reply.body)["iso"])
