"""The info service: what a datastack is made of and where its servers are."""

from __future__ import annotations

from typing import Any

from .._wire import endpoints, json
from ._base import Service


class AsyncInfo(Service):
    """Datastack records, with caveclient's method names (``InfoServiceClient``)."""

    async def get_datastacks(self) -> list[str]:
        """List the datastacks that the token may see, sorted by name.

        Examples
        --------
        >>> await client.info.get_datastacks()
        ['minnie65_phase3_v1', 'minnie65_public']
        """
        return sorted(json.decode_as((await self._session.send(endpoints.DATASTACKS)).body, list))

    async def get_datastack_info(self) -> dict[str, Any]:
        """Fetch the record of the datastack (cached for a few minutes).

        Returns
        -------
        dict
            ``local_server``, ``segmentation_source``, ``synapse_table``, ``aligned_volume`` (a dict) and so on;
            resolutions in nm.

        Examples
        --------
        >>> record = await client.info.get_datastack_info()
        >>> record["synapse_table"], record["soma_table"]
        ('synapses_pni_2', 'nucleus_detection_v0')
        """
        return dict(await self._session.record())

    async def local_server(self) -> str:
        """Address of the server that holds this datastack's graph and tables.

        Examples
        --------
        >>> await client.info.local_server()
        'http://127.0.0.1:...'
        """
        return str((await self._session.record())["local_server"])

    async def image_source(self) -> str:
        """Cloudpath of the EM images.

        Examples
        --------
        >>> await client.info.image_source()
        'precomputed://gs://minnie65_phase3/em'
        """
        return str((await self._session.record())["aligned_volume"]["image_source"])

    async def segmentation_source(self) -> str:
        """Cloudpath of the segmentation (``graphene://...``).

        Examples
        --------
        >>> await client.info.segmentation_source()
        'graphene://...'
        """
        return str((await self._session.record())["segmentation_source"])

    async def viewer_site(self) -> str | None:
        """Address of the Neuroglancer that this datastack is shown in.

        Examples
        --------
        >>> await client.info.viewer_site()
        'https://spelunker.cave-explorer.org/'
        """
        site = (await self._session.record()).get("viewer_site")
        return None if site is None else str(site)

    async def viewer_resolution(self) -> tuple[float, float, float]:
        """Voxel size of the viewer: x, y, z in nm.

        Examples
        --------
        >>> await client.info.viewer_resolution()
        (4.0, 4.0, 40.0)
        """
        record = await self._session.record()
        x, y, z = (float(record[f"viewer_resolution_{axis}"]) for axis in "xyz")
        return x, y, z

    async def get_image_mirrors(self) -> list[dict[str, Any]]:
        """List the image sources of the datastack: ``name``, ``image_source``, ``description`` and so on.

        Examples
        --------
        >>> [mirror["image_source"] for mirror in await client.info.get_image_mirrors()]
        ['precomputed://gs://minnie65_phase3/em']
        """
        return json.decode_as((await self._session.send(endpoints.IMAGE_MIRRORS)).body, list)

    async def get_image_mirror_names(self) -> list[str]:
        """List the names of the datastack's image sources.

        Examples
        --------
        >>> await client.info.get_image_mirror_names()
        ['default']
        """
        return [str(mirror["name"]) for mirror in await self.get_image_mirrors()]

    async def get_datastacks_by_aligned_volume(self, aligned_volume: str) -> list[str]:
        """List the datastacks on an aligned volume, sorted by name.

        Examples
        --------
        >>> await client.info.get_datastacks_by_aligned_volume("minnie65_phase3")
        ['minnie65_phase3_v1', 'minnie65_public']
        """
        reply = await self._session.send(endpoints.VOLUME_DATASTACKS, {"aligned_volume": aligned_volume})
        return sorted(json.decode_as(reply.body, list))

    async def get_aligned_volume_info_by_id(self, aligned_volume_id: int) -> dict[str, Any]:
        """Name, description and image source of any aligned volume, by its number.

        Examples
        --------
        >>> (await client.info.get_aligned_volume_info_by_id(1))["name"]
        'minnie65_phase3'
        """
        reply = await self._session.send(endpoints.ALIGNED_VOLUME_BY_ID, {"id": int(aligned_volume_id)})
        return json.decode_as(reply.body, dict)

    async def aligned_volume_name(self) -> str:
        """Name of the datastack's aligned volume.

        Examples
        --------
        >>> await client.info.aligned_volume_name()
        'minnie65_phase3'
        """
        return str((await self._session.record())["aligned_volume"]["name"])

    async def aligned_volume_id(self) -> int:
        """Number of the datastack's aligned volume.

        Examples
        --------
        >>> await client.info.aligned_volume_id()
        1
        """
        return int((await self._session.record())["aligned_volume"]["id"])

    async def get_aligned_volumes(self) -> list[str]:
        """List the aligned volumes that the token may see, sorted by name.

        Examples
        --------
        >>> await client.info.get_aligned_volumes()
        ['minnie65_phase3']
        """
        return sorted(json.decode_as((await self._session.send(endpoints.ALIGNED_VOLUMES)).body, list))

    async def get_aligned_volume_info(self) -> dict[str, Any]:
        """Name, description and image source of the datastack's aligned volume.

        Examples
        --------
        >>> (await client.info.get_aligned_volume_info())["name"]
        'minnie65_phase3'
        """
        return dict((await self._session.record())["aligned_volume"])
