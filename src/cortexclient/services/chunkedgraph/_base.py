"""What the parts of the chunkedgraph service share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._fanout import Plan, fan_out
from ..._types import IdArray
from ..._wire import endpoints, json
from ..._wire.endpoints import Endpoint
from ...progress import Reporter
from .._base import Service, segmentation_table

Call = Callable[[IdArray], Awaitable[npt.NDArray[Any]]]


class GraphService(Service):
    """Batched calls about nodes of the graph."""

    async def _map(
        self, endpoint: Endpoint, ids: IdArray, call: Call, dtype: npt.DTypeLike, reporter: Reporter | None = None
    ) -> npt.NDArray[Any]:
        """Ask for each distinct id once, in parallel batches; answers in the order of ``ids``."""
        workers = self._session.limits.of(endpoint.service)
        plan = Plan.of(ids, self._session.batch(endpoint), workers)

        async def one(chunk: IdArray) -> npt.NDArray[Any]:
            answer = await call(chunk)
            if reporter:
                reporter.add(len(chunk))
            return answer

        return plan.spread(await fan_out(plan.chunks, one, workers), dtype)

    async def table_name(self) -> str:
        """Name of the graph's table, the last part of the segmentation source."""
        return segmentation_table(await self._session.record())

    async def cloudvolume_path(self) -> str:
        """Address of the segmentation for cloud-volume (``graphene://...``)."""
        record = await self._session.record()
        return f"graphene://{record['local_server']}/segmentation/api/v1/{segmentation_table(record)}"

    async def segmentation_info(self) -> dict[str, Any]:
        """Fetch the graph's own description: layers, chunk size, bits of the ids, resolution (cached).

        Returns
        -------
        dict
            As the service sends it: ``graph`` (``n_layers``, ``chunk_size``, ``spatial_bit_masks``), ``scales`` ...
        """

        async def load() -> dict[str, Any]:
            return dict(json.decode((await self._session.send(endpoints.SEGMENTATION_INFO)).body))

        session = self._session
        key = ("segmentation_info", session.server, session.spec.datastack)
        info: dict[str, Any] = await session.cache.get(key, load)
        return info

    async def _n_layers(self) -> int:
        return int((await self.segmentation_info())["graph"]["n_layers"])

    async def base_resolution(self) -> tuple[float, float, float]:
        """Voxel size of the graph: x, y, z in nm."""
        x, y, z = (float(value) for value in (await self.segmentation_info())["scales"][0]["resolution"])
        return x, y, z

    async def _existing(self, ids: IdArray) -> npt.NDArray[np.bool_]:
        """Whether each id names a node of the graph. Ids below one are not worth asking."""
        asked = np.unique(ids[ids > 0], return_inverse=True)[0]

        async def call(chunk: IdArray) -> npt.NDArray[np.bool_]:
            # the service wants a GET with a body; "valid" means: any cell written since the start time
            reply = await self._session.send(
                endpoints.VALID_NODES, query={"start_timestamp": "0"}, body=json.encode({"node_ids": chunk}), ids=chunk
            )
            return np.isin(chunk, json.decode_id_list(reply.body, "valid_roots"))

        known = asked[await self._map(endpoints.VALID_NODES, asked, call, np.bool_)]
        return np.isin(ids, known)
