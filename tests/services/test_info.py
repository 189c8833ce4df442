"""The info service."""

from __future__ import annotations

import pytest

from cortexclient import AsyncCortexClient, DatasetSpec, NotFoundError
from cortexclient.sandbox import Sandbox, World

from .conftest import client_of


async def test_datastacks_are_listed_by_name(client: AsyncCortexClient, world: World) -> None:
    assert await client.info.get_datastacks() == sorted(world.datastacks)


async def test_the_record_describes_the_datastack(client: AsyncCortexClient, world: World, sandbox: Sandbox) -> None:
    truth = world.datastacks[client.datastack_name]
    record = await client.info.get_datastack_info()
    assert record["aligned_volume"]["name"] == truth.aligned_volume == await client.info.aligned_volume_name()
    assert record["synapse_table"] == truth.synapse_table
    assert record["soma_table"] == truth.soma_table
    assert record["local_server"] == await client.info.local_server() == sandbox.url
    assert record == await client.get_datastack_info()


async def test_sources_and_resolution(client: AsyncCortexClient, world: World, sandbox: Sandbox) -> None:
    truth = world.datastacks[client.datastack_name]
    assert await client.info.viewer_resolution() == truth.viewer_resolution == await client.viewer_resolution()
    assert await client.info.viewer_site() == truth.viewer_site
    assert await client.info.image_source() == await client.image_source()
    segmentation = await client.info.segmentation_source()
    assert segmentation == f"graphene://{sandbox.url}/segmentation/table/{truth.segmentation}"
    assert segmentation == await client.segmentation_source()


async def test_aligned_volumes(client: AsyncCortexClient, world: World) -> None:
    own = world.datastacks[client.datastack_name].aligned_volume
    assert await client.info.get_aligned_volumes() == sorted({d.aligned_volume for d in world.datastacks.values()})
    assert (await client.info.get_aligned_volume_info())["name"] == own
    siblings = sorted(d.name for d in world.datastacks.values() if d.aligned_volume == own)
    assert await client.info.get_datastacks_by_aligned_volume(own) == siblings
    number = await client.info.aligned_volume_id()
    assert (await client.info.get_aligned_volume_info_by_id(number))["name"] == own


async def test_image_mirrors(client: AsyncCortexClient) -> None:
    mirrors = await client.info.get_image_mirrors()
    assert await client.info.get_image_mirror_names() == [mirror["name"] for mirror in mirrors]


async def test_the_record_is_asked_for_once(flavour: str, sandbox: Sandbox) -> None:
    async with client_of(flavour, sandbox) as client:
        await client.info.viewer_resolution()
        before = client.stats.requests
        await client.info.image_source()
        assert client.stats.requests == before == 1


async def test_an_unknown_datastack_is_not_found(flavour: str, sandbox: Sandbox) -> None:
    spec = DatasetSpec(name="nowhere", datastack="no_such_datastack", server=sandbox.url)
    made = type("Elsewhere", (), {"spec": spec, "token": sandbox.token})
    async with client_of(flavour, made) as client:  # type: ignore[arg-type]
        with pytest.raises(NotFoundError, match="no_such_datastack"):
            await client.info.get_datastack_info()
