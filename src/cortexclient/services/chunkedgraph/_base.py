"""What the graph is, as it describes itself."""

from __future__ import annotations

from typing import Any

from ..._wire import endpoints, json
from .._base import segmentation_table
from ._batched import BatchedService


class GraphService(BatchedService):
    """Name, address, layers and resolution of the graph."""

    async def table_name(self) -> str:
        """Name of the graph's table, the last part of the segmentation source.

        Examples
        --------
        >>> await client.chunkedgraph.table_name()
        'minnie65_public'
        """
        return segmentation_table(await self._session.record())

    async def cloudvolume_path(self) -> str:
        """Address of the segmentation for cloud-volume (``graphene://...``).

        Examples
        --------
        >>> await client.chunkedgraph.cloudvolume_path()
        'graphene://...'
        """
        record = await self._session.record()
        return f"graphene://{record['local_server']}/segmentation/api/v1/{segmentation_table(record)}"

    async def segmentation_info(self) -> dict[str, Any]:
        """Fetch the graph's own description: layers, chunk size, bits of the ids, resolution (cached).

        Returns
        -------
        dict
            As the service sends it: ``graph`` (``n_layers``, ``chunk_size``, ``spatial_bit_masks``), ``scales`` ...

        Examples
        --------
        >>> info = await client.chunkedgraph.segmentation_info()
        >>> info["graph"]["n_layers"], info["graph"]["chunk_size"]
        (12, [256, 256, 512])
        """

        async def load() -> dict[str, Any]:
            return json.decode_as((await self._session.send(endpoints.SEGMENTATION_INFO)).body, dict)

        session = self._session
        key = ("segmentation_info", session.server, session.spec.datastack)
        info: dict[str, Any] = await session.cache.get(key, load)
        return info

    async def _n_layers(self) -> int:
        return int((await self.segmentation_info())["graph"]["n_layers"])

    async def base_resolution(self) -> tuple[float, float, float]:
        """Voxel size of the graph: x, y, z in nm.

        Examples
        --------
        >>> await client.chunkedgraph.base_resolution()
        (8.0, 8.0, 40.0)
        """
        x, y, z = (float(value) for value in (await self.segmentation_info())["scales"][0]["resolution"])
        return x, y, z
