"""What nodes are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._fanout import running
from ..._types import IdArray, Ids
from ..._wire import binary, endpoints, json
from ...errors import CortexUsageError, IncompatibleServerError
from ...ids import as_ids, batches, layer_of, unique_ids
from ...progress import ProgressLike
from ._base import GraphService
from ._batched import by_id

Bounds = Sequence[Sequence[int]] | npt.NDArray[np.integer]
"""``[[xmin, xmax], [ymin, ymax], [zmin, zmax]]`` in voxels of the graph's resolution."""


def _bounds_query(bounds: Bounds | None, stop_layer: int | None) -> dict[str, str]:
    query = {} if stop_layer is None else {"stop_layer": str(stop_layer)}
    if bounds is not None:
        box = np.asarray(bounds)
        if box.shape != (3, 2) or box.dtype.kind not in "iu" or (box < 0).any():
            raise CortexUsageError(
                f"bounds={bounds!r}: give [[xmin, xmax], [ymin, ymax], [zmin, zmax]] as integers from 0 up, in voxels"
            )
        query["bounds"] = "_".join(f"{low}-{high}" for low, high in box)
    return query


class Structure(GraphService):
    """Leaves, children, and the graph of level-2 chunks."""

    async def get_leaves(
        self,
        root_id: int,
        bounds: Bounds | None = None,
        stop_layer: int | None = None,
        *,
        timeout: float | None = None,
    ) -> IdArray:
        """List the supervoxels of a node or, with ``stop_layer``, its descendants of that layer.

        Parameters
        ----------
        root_id
            Any node above the supervoxels, retired ones included.
        bounds
            Only chunks that this box touches: ``[[xmin, xmax], [ymin, ymax], [zmin, zmax]]`` in voxels.
        stop_layer
            Exactly this layer; branches that skip it contribute nothing. 2 is always complete.

        Returns
        -------
        (n,) int64
            In no particular order; empty for an unknown id.

        Examples
        --------
        >>> (await client.chunkedgraph.get_leaves(864691134885645050, stop_layer=2))[:2]
        array([187425570575876221, 187425570642985060])
        """
        query = _bounds_query(bounds, stop_layer)
        with running(timeout, None, None):
            one = int(as_ids(root_id, "root_id")[0])
            reply = await self._session.send(endpoints.LEAVES, {"id": one}, query=query, ids=(one,))
        return json.decode_id_list(reply.body, "leaf_ids")

    async def get_leaves_many(
        self,
        root_ids: Ids,
        bounds: Bounds | None = None,
        stop_layer: int | None = None,
        *,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> dict[int, IdArray]:
        """List the supervoxels (or descendants of ``stop_layer``) of many roots, everywhere or within ``bounds``.

        Returns
        -------
        dict of (m,) int64
            One entry for each distinct id, in the order of the input; empty arrays for unknown ids and supervoxels.

        Examples
        --------
        >>> found = await client.chunkedgraph.get_leaves_many([864691134885645050, 7], stop_layer=2)
        >>> {root: len(leaves) for root, leaves in found.items()}
        {864691134885645050: 6, 7: 0}
        """
        asked = as_ids(root_ids, "root_ids")
        unique, _ = unique_ids(asked)  # the service fails on a repeated id
        query = _bounds_query(bounds, stop_layer)

        async def call(chunk: IdArray) -> dict[int, IdArray]:
            if len(chunk) == 1:
                return {int(chunk[0]): await self.get_leaves(int(chunk[0]), bounds, stop_layer)}
            body = json.encode({"node_ids": chunk})
            reply = await self._session.send(endpoints.LEAVES_MANY, query=query, body=body, ids=chunk)
            return json.decode_id_lists(reply.body)

        # one request for each but level-2 nodes: the service's leaves_many gives inner nodes that two of its ids share
        # (a root and its predecessor, say) to one of them only, and nothing shows it (PyChunkedGraph 2.21)
        level2 = layer_of(unique) == 2
        chunks = batches(unique[~level2], 1) + batches(unique[level2], self._session.batch(endpoints.LEAVES_MANY))
        with running(timeout, progress, len(unique)) as reporter:
            found = await self._ask(endpoints.LEAVES_MANY, chunks, call, by_id, reporter)
        return {i: found.get(i, np.empty(0, np.int64)) for i in dict.fromkeys(asked.tolist())}

    async def get_children(self, node_id: int, *, timeout: float | None = None) -> IdArray:
        """List the nodes one step down the tree (which may skip layers).

        Returns
        -------
        (n,) int64
            Empty for a supervoxel and for an unknown id.

        Examples
        --------
        >>> await client.chunkedgraph.get_children(864691134885645050)
        array([548242885888180229])
        """
        with running(timeout, None, None):
            one = int(as_ids(node_id, "node_id")[0])
            reply = await self._session.send(endpoints.CHILDREN, {"id": one}, ids=(one,))
        return json.decode_id_list(reply.body, "children_ids")

    async def level2_chunk_graph(
        self, root_id: int, bounds: Bounds | None = None, *, timeout: float | None = None
    ) -> IdArray:
        """List the edges between the level-2 chunks of a root.

        Parameters
        ----------
        bounds
            Only chunks that this box touches: ``[[xmin, xmax], [ymin, ymax], [zmin, zmax]]`` in voxels.

        Returns
        -------
        (n, 2) int64
            Each edge once, the smaller id first, in ascending order. A chunk without neighbours is in no edge:
            ``get_leaves(root_id, stop_layer=2)`` lists all chunks. The graph of a retired root may lack edges where it
            was edited (the service joins far ends by the parents of today).

        Examples
        --------
        >>> await client.chunkedgraph.level2_chunk_graph(864691134885645050)
        array([[187425570575876221, 187425570642985060],
               [187425570642985060, 187495939387162945],
               [187495870667686061, 187495939387162945],
               [187495939387162945, 187496008106639457],
               [187495939387162945, 187566308131340349]])
        """
        one = int(as_ids(root_id, "root_id")[0])
        with running(timeout, None, None):
            reply = await self._session.send(
                endpoints.LEVEL2_GRAPH, {"id": one}, query=_bounds_query(bounds, None), ids=(one,)
            )
        if bounds is not None and reply.headers.get("used-bounds", "").lower() != "true":
            raise IncompatibleServerError("bounds= needs chunkedgraph >= 2.15: this server ignored them")
        edges = json.decode(reply.body)["edge_graph"]
        return np.array(edges, np.int64).reshape(-1, 2)

    async def get_subgraph(
        self, root_id: int, bounds: Bounds, *, timeout: float | None = None
    ) -> tuple[IdArray, npt.NDArray[np.float64], npt.NDArray[np.int32]]:
        """List the edges between the supervoxels of a root in a box.

        Returns
        -------
        edges, affinities, areas
            (n, 2) int64, (n,) float64 (infinite across chunks), (n,) int32 voxels. Edges between chunks come in both
            directions.

        Examples
        --------
        >>> box = [[0, 400_000], [0, 400_000], [0, 30_000]]
        >>> edges, affinities, areas = await client.chunkedgraph.get_subgraph(864691134885645050, box)
        >>> edges.shape, areas.shape
        ((16, 2), (16,))
        """
        one = int(as_ids(root_id, "root_id")[0])
        with running(timeout, None, None):
            reply = await self._session.send(
                endpoints.SUBGRAPH, {"id": one}, query=_bounds_query(bounds, None), ids=(one,)
            )
        found = json.decode_lenient(reply.body)
        edges = np.array(found["nodes"], np.int64).reshape(-1, 2)
        return edges, np.array(found["affinities"], np.float64), np.array(found["areas"], np.int32)

    async def find_path(
        self,
        root_id: int,
        src_pt: Sequence[float] | npt.NDArray[np.number],
        dst_pt: Sequence[float] | npt.NDArray[np.number],
        precision_mode: bool = False,
        *,
        timeout: float | None = None,
    ) -> tuple[npt.NDArray[np.float64], IdArray, IdArray]:
        """Find a way through the level-2 chunks of a root from one point to another.

        Parameters
        ----------
        src_pt, dst_pt
            x, y, z in nm; each must lie on the root or very near it.
        precision_mode
            Use the chunks' representative points, which takes longer, instead of their centres.

        Returns
        -------
        centroids, l2_path, failed
            (n, 3) nm, (n,) int64 level-2 ids, and the ids for which there was no representative point.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> points = (await client.get_l2data(l2_ids, ["rep_coord_nm"])).to_numpy()
        >>> centroids, path, failed = await client.chunkedgraph.find_path(864691134885645050, points[0], points[-1])
        >>> len(path) == len(centroids), len(failed)
        (True, 0)
        """
        one = int(as_ids(root_id, "root_id")[0])
        ends = [[one, *(float(value) for value in point)] for point in (src_pt, dst_pt)]
        with running(timeout, None, None):
            query = {"precision_mode": str(precision_mode)}
            reply = await self._session.send(endpoints.FIND_PATH, query=query, body=json.encode(ends), ids=(one,))
        found = json.decode(reply.body)
        centroids = np.array(found["centroids_list"], np.float64).reshape(-1, 3)
        return centroids, np.array(found["l2_path"], np.int64), np.array(found["failed_l2_ids"], np.int64)

    async def get_minimal_covering_nodes(self, node_ids: Ids, *, timeout: float | None = None) -> IdArray:
        """Cover the supervoxels of some nodes with the fewest nodes of any layer, exactly.

        Returns
        -------
        (m,) int64
            Sorted.

        Examples
        --------
        >>> l2_ids = await client.get_l2_ids(864691134885645050)
        >>> await client.chunkedgraph.get_minimal_covering_nodes(l2_ids)
        array([864691134885645050])
        """
        asked = as_ids(node_ids, "node_ids")
        if not len(asked):  # which the service refuses
            return asked
        with running(timeout, None, None):
            body = json.encode({"node_ids": asked})
            reply = await self._session.send(
                endpoints.MINIMAL_COVERING_NODES, query={"as_array": "True"}, body=body, ids=asked
            )
        return np.sort(binary.decode_ids(reply.body, len(reply.body) // 8))

    async def get_contact_sites(
        self, root_id: int, bounds: Bounds, calc_partners: bool = False, *, timeout: float | None = None
    ) -> dict[int, list[Any]]:
        """List the contacts of a root with others in a box.

        Returns
        -------
        dict
            Contact areas by partner root (``calc_partners``), else by running number. The current service fails on this
            call (PyChunkedGraph 2.21): expect a :class:`ServerError` until it is mended.

        Examples
        --------
        >>> from cortexclient.errors import ServerError
        >>> box = [[0, 400_000], [0, 400_000], [0, 30_000]]
        >>> try:
        ...     sites = await client.chunkedgraph.get_contact_sites(864691134885645050, box)
        ... except ServerError as error:
        ...     print("the service failed")
        the service failed
        """
        one = int(as_ids(root_id, "root_id")[0])
        query = _bounds_query(bounds, None) | {"partners": str(calc_partners)}
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.CONTACT_SITES, {"id": one}, query=query, ids=(one,))
        return {int(key): areas for key, areas in json.decode(reply.body).items()}
