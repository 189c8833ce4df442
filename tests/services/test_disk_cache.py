"""What a client keeps on disk, another one has without a request."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from cortexclient import AsyncCortexClient, CortexClient, Limits
from cortexclient.mapping import _annotations
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.worlds.examples_page import ROOTS

from .conftest import client_of


def requests(sandbox: Sandbox) -> int:
    total: int = sandbox.counters.snapshot().total.requests
    return total


async def test_skeletons_and_fragments_come_from_disk(
    flavour: str, sandbox: Sandbox, world: World, tmp_path: Path
) -> None:
    async with client_of(flavour, sandbox, cache_dir=tmp_path) as client:
        roots = (await client.cell_id_to_root_id([264898, 262893]))["root_id"].to_list()
        skeletons = await client.skeleton.get_skeletons(roots)
        mesh = await client.mesh.get_mesh(roots[0])
        info = await client.cache.info()
        assert info.disk.entries > 2
        assert info.disk.problem is None
    async with client_of(flavour, sandbox, cache_dir=str(tmp_path)) as client:
        again = await client.skeleton.get_skeletons(roots)
        same = await client.mesh.get_mesh(roots[0])
        stats, disk = client.stats, (await client.cache.info()).disk
    assert disk.hits > 2
    assert "storage" not in stats.peak or stats.peak["storage"] <= 1, "only the bucket's description"
    for root in roots:
        for name in ("vertices", "edges", "radius", "compartment", "lvl2_ids", "mesh_to_skel_map"):
            ours, theirs = getattr(again[root], name), getattr(skeletons[root], name)
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
            assert not ours.flags.writeable
        assert again[root].meta == skeletons[root].meta
        assert (again[root].root, again[root].root_id) == (skeletons[root].root, root)
    np.testing.assert_array_equal(same.vertices, mesh.vertices)
    np.testing.assert_array_equal(same.faces, mesh.faces)


async def test_calls_at_once_share_what_is_looked_for_on_disk(
    flavour: str, sandbox: Sandbox, world: World, tmp_path: Path
) -> None:
    root = ROOTS[0]
    async with client_of(flavour, sandbox, cache_dir=tmp_path) as client:
        sandbox.counters.reset()
        meshes = await asyncio.gather(*[client.mesh.get_mesh(root) for _ in range(4)])
        routes = sandbox.counters.snapshot().routes
    assert len({len(mesh.faces) for mesh in meshes}) == 1
    asked = routes["GET /storage/{bucket}/{path:path}"].requests
    assert asked <= len(world.meshes.pieces(root, 2)) + 1, "each fragment once, and the folder's info"


async def test_tables_of_a_version_come_from_disk(
    flavour: str, sandbox: Sandbox, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_annotations, "WHOLE_FROM", 0)
    roots = world.graph.root_ids()[:200]
    counts, frames = [], []
    for _ in range(2):
        before = requests(sandbox)
        async with client_of(flavour, sandbox, cache_dir=tmp_path) as client:
            frames.append(await client.root_id_to_cell_id(roots, detail=True))
        counts.append(requests(sandbox) - before)
    assert frames[0].equals(frames[1])
    assert counts[1] < counts[0]


async def test_clear_forgets_memory_and_disk(flavour: str, sandbox: Sandbox, tmp_path: Path) -> None:
    async with client_of(flavour, sandbox, cache_dir=tmp_path) as client:
        await client.version_timestamp(1412)
        assert (await client.cache.info()).disk.entries == 1
        await client.cache.clear(disk=False)
        info = await client.cache.info()
        assert (info.entries, info.disk.entries) == (0, 1)
        await client.cache.clear()
        info = await client.cache.info()
        assert (info.entries, info.disk.entries) == (0, 0)
        assert str(tmp_path) in repr(client.cache)


async def test_without_a_folder_nothing_is_written(
    flavour: str, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(flavour, sandbox) as client:
        await client.version_timestamp(1412)
        info = await client.cache.info()
        assert info.disk is None
        assert info.entries > 0
        await client.cache.clear()
        assert (await client.cache.info()).entries == 0
    monkeypatch.setenv("CORTEXCLIENT_CACHE", str(tmp_path))
    async with client_of(flavour, sandbox, limits=Limits(disk_bytes=1000)) as client:
        await client.version_timestamp(1412)
        disk = (await client.cache.info()).disk
        assert (disk.path.parent, disk.max_bytes, disk.entries) == (tmp_path, 1000, 1)


@pytest.mark.parametrize("kind", [AsyncCortexClient, CortexClient])
def test_building_a_client_touches_no_file(kind: type, sandboxes: dict[str, Sandbox], tmp_path: Path) -> None:
    client = kind(sandboxes["async"].spec, cache_dir=tmp_path / "later")
    assert not (tmp_path / "later").exists()
    assert "later" in repr(client.cache)
