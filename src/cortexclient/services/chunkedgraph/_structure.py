"""What nodes are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..._fanout import fan_out, running
from ..._types import IdArray, Ids
from ..._wire import endpoints, json
from ...errors import CortexUsageError
from ...ids import as_ids, batches, unique_ids
from ...progress import ProgressLike
from ._base import GraphService

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
    """Leaves and children."""

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
        """List the supervoxels (or descendants of ``stop_layer``) of many nodes.

        Returns
        -------
        dict of (m,) int64
            One entry for each distinct id, in the order of the input; empty arrays for unknown ids.
        """
        asked = as_ids(root_ids, "root_ids")
        query = _bounds_query(bounds, stop_layer)
        unique, _ = unique_ids(asked)  # the service fails on a repeated id
        chunks = batches(unique, self._session.batch(endpoints.LEAVES_MANY))
        with running(timeout, progress, len(unique)) as reporter:

            async def one(chunk: IdArray) -> dict[int, IdArray]:
                body = json.encode({"node_ids": chunk})
                reply = await self._session.send(endpoints.LEAVES_MANY, query=query, body=body, ids=chunk)
                reporter.add(len(chunk))
                return json.decode_id_lists(reply.body)

            parts = await fan_out(chunks, one, self._session.limits.of(endpoints.LEAVES_MANY.service))
        merged = {key: leaves for part in parts for key, leaves in part.items()}
        return {i: merged.get(i, np.empty(0, np.int64)) for i in dict.fromkeys(asked.tolist())}

    async def get_children(self, node_id: int, *, timeout: float | None = None) -> IdArray:
        """List the nodes one step down the tree (which may skip layers).

        Returns
        -------
        (n,) int64
            Empty for a supervoxel and for an unknown id.
        """
        with running(timeout, None, None):
            one = int(as_ids(node_id, "node_id")[0])
            reply = await self._session.send(endpoints.CHILDREN, {"id": one}, ids=(one,))
        return json.decode_id_list(reply.body, "children_ids")
