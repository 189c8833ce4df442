"""Meshes of flat segmentations: every layout, every level, and what may be wrong with the files."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient
from cortexclient.errors import CortexUsageError, DecodeError, NotFoundError, TooLarge
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.static_meshes import COARSE, add_flat_segmentation
from cortexclient.sandbox.worlds.examples_page import ROOTS

from .conftest import client_of

pytest.importorskip("cloudvolume", reason="meshes are cloudvolume.Mesh objects")
DracoPy = pytest.importorskip("DracoPy")
KINDS = ["legacy", "multilod", "multilod-sharded"]
FOLDER = "flat/v117/mesh"
FILES = {
    "legacy": [f"{ROOTS[0]}:0:1", f"{ROOTS[0]}:0"],
    "multilod": [f"{ROOTS[0]}.index", f"{ROOTS[0]}"],
    "multilod-sharded": ["0.shard"],
}
"""What of each layout may be damaged."""
Change = Callable[[bytes], bytes]


def cases(*ends: str) -> Any:
    """Each of these files in the layout that has it."""
    there = [(kind, end) for kind, files in FILES.items() for end in files if end in ends]
    return pytest.mark.parametrize(("static", "end"), there, indirect=["static"])


@pytest.fixture(scope="module", params=KINDS)
def static(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    world = World.default()
    add_flat_segmentation(world, "flat/v117", ROOTS[:2], request.param)
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
async def client(flavour: str, static: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    static.counters.reset()
    async with client_of(flavour, static) as client:
        yield client


def sides(mesh: Any) -> np.ndarray:
    """Its triangles in an order of their own, (m, 9)."""
    rows = np.asarray(mesh.vertices)[mesh.faces].reshape(-1, 9)
    return rows[np.lexsort(rows.T)]


def levels(sandbox: Sandbox) -> int:
    return 3 if any(name.endswith((".index", ".shard")) for name in sandbox.world.files) else 1


async def test_the_same_surface_as_from_the_graph(client: AsyncCortexClient, static: Sandbox) -> None:
    mesh = await client.mesh.get_mesh(ROOTS[0], source="static")
    asked = static.counters.snapshot().services
    assert set(asked) <= {"storage", "info"}, "the graph is not asked"
    exact = await client.mesh.get_mesh(ROOTS[0], source="graphene")
    assert (mesh.vertices.dtype, mesh.faces.dtype, mesh.segid) == (np.float32, np.uint32, ROOTS[0])
    assert len(mesh.faces) == len(exact.faces)
    middles = [np.sort(found.vertices[found.faces].mean(axis=1), axis=0) for found in (mesh, exact)]
    assert np.abs(middles[0] - middles[1]).max() < 2, "cells end on walls, the graph's fragments within a step of them"


async def test_levels_of_detail(client: AsyncCortexClient, static: Sandbox) -> None:
    found = [await client.mesh.get_mesh(ROOTS[0], lod=lod) for lod in range(levels(static)) if lod]
    sizes = [len((await client.mesh.get_mesh(ROOTS[0])).faces), *(len(mesh.faces) for mesh in found)]
    assert sizes == sorted(set(sizes), reverse=True)
    coarsest = await client.mesh.get_mesh(ROOTS[0], lod=-1)
    assert len(coarsest.faces) == sizes[-1]
    exact = await client.mesh.get_mesh(ROOTS[0], source="graphene")
    reach = 2 * COARSE * 2 ** len(sizes)
    assert (np.abs(coarsest.vertices.min(axis=0) - exact.vertices.min(axis=0)) < reach).all()
    with pytest.raises(NotFoundError, match="lod=7"):
        await client.mesh.get_mesh(ROOTS[0], lod=7)


async def test_auto_takes_the_graph_for_what_no_segmentation_holds(client: AsyncCortexClient, static: Sandbox) -> None:
    meshes = await client.mesh.get_meshes([ROOTS[2], ROOTS[0], 5])
    assert list(meshes) == [ROOTS[2], ROOTS[0]]
    assert meshes.status() == {"ok": 2, "NotFoundError": 1}
    routes = static.counters.snapshot().routes
    assert routes["GET /meshing/api/v1/table/{table}/manifest/{node_id}:0"].requests == 1
    assert (await client.mesh.mesh_exists([ROOTS[2], 5, ROOTS[0]])).tolist() == [True, False, True]
    only = await client.mesh.mesh_exists([ROOTS[2], 5, ROOTS[0]], source="static")
    assert only.tolist() == [False, False, True]
    with pytest.raises(NotFoundError, match="no static segmentation"):
        await client.mesh.get_mesh(ROOTS[2], source="static")


async def test_what_cannot_be_meant(client: AsyncCortexClient, static: Sandbox) -> None:
    box = ((0, 9), (0, 9), (0, 9))
    for wrong in ({"source": "bucket"}, {"source": "graphene", "lod": 1}, {"source": "static", "bounds": box},
                  {"lod": 1, "bounds": box}):  # fmt: skip
        with pytest.raises(CortexUsageError):
            await client.mesh.get_mesh(ROOTS[0], **wrong)
    async with client_of("async", static) as other:
        other._session = replace(other._session, spec=replace(static.spec, static_meshes=()))
        other._wire(other._session)
        with pytest.raises(CortexUsageError, match="DatasetSpec"):
            await other.mesh.get_mesh(ROOTS[0], source="static")


async def test_a_mesh_that_is_too_large_is_refused(client: AsyncCortexClient) -> None:
    with pytest.raises(TooLarge, match="above max_bytes=100"):
        await client.mesh.get_mesh(ROOTS[0], max_bytes=100)


async def test_a_stream_of_them(client: AsyncCortexClient) -> None:
    arrived = {}
    async with client.mesh.stream_meshes(ROOTS, bytes_at_once=1) as outcomes:
        async for outcome in outcomes:
            arrived[outcome.id] = outcome.unwrap()
    assert set(arrived) == set(ROOTS)


@pytest.fixture
def damaged(static: Sandbox) -> Iterator[Callable[[str, Change | None], None]]:
    """Changes the first file whose name ends so, or takes it away; all is well again afterwards."""
    whole = dict(static.world.files)

    def damage(end: str, change: Change | None) -> None:
        name = next(name for name in whole if name.startswith(FOLDER) and name.endswith(end))
        if change is None:
            del static.world.files[name]
        else:
            static.world.files[name] = change(whole[name])

    yield damage
    static.world.files.clear()
    static.world.files |= whole


@cases(f"{ROOTS[0]}:0:1", f"{ROOTS[0]}")
async def test_a_fragment_that_is_not_there(client: AsyncCortexClient, damaged: Any, end: str) -> None:
    damaged(end, None)
    with pytest.raises(NotFoundError, match="missing"):
        await client.mesh.get_mesh(ROOTS[0])
    if end.endswith(":0:1"):
        mesh = await client.mesh.get_mesh(ROOTS[0], allow_missing=True)
        assert mesh.missing_fragments == [end]
        assert len(mesh.faces)


@cases(*(end for files in FILES.values() for end in files))
@pytest.mark.parametrize("keep", [0, 3, 100])
async def test_files_that_are_cut_short(client: AsyncCortexClient, damaged: Any, end: str, keep: int) -> None:
    damaged(end, lambda data: data[:keep])
    with pytest.raises((DecodeError, NotFoundError)):
        await client.mesh.get_mesh(ROOTS[0], source="static")
    if end != "0.shard":
        assert (await client.mesh.get_mesh(ROOTS[1], source="static")).segid == ROOTS[1]


@cases("0.shard")
async def test_a_shard_index_gone_wrong(client: AsyncCortexClient, damaged: Any, end: str) -> None:
    damaged(end, lambda data: struct.pack("<4Q", 900, 100, 900, 100) + data[32:])
    with pytest.raises(DecodeError, match="shard's index is wrong"):
        await client.mesh.get_mesh(ROOTS[0], source="static")


@cases("0.shard")
async def test_a_shard_index_that_points_elsewhere(client: AsyncCortexClient, damaged: Any, end: str) -> None:
    damaged(end, lambda data: struct.pack("<4Q", 0, 48, 0, 48) + data[32:])
    with pytest.raises(NotFoundError, match="no static segmentation"):
        await client.mesh.get_mesh(ROOTS[0], source="static")


async def test_an_unknown_kind_of_meshes(client: AsyncCortexClient, damaged: Any) -> None:
    damaged("/info", lambda data: b'{"@type": "a new one"}')
    with pytest.raises(DecodeError, match="unknown kind"):
        await client.mesh.get_mesh(ROOTS[0])


async def test_a_packed_shard(flavour: str) -> None:
    """Indices and values may be gzip."""
    from cloudvolume.datasource.precomputed.sharding import ShardingSpecification

    world = World.default()
    add_flat_segmentation(world, "flat/v117", ROOTS[:2], "multilod")
    files = {name: world.files[f"{FOLDER}/{name}"] for root in ROOTS[:2] for name in (f"{root}", f"{root}.index")}
    spec = {
        "@type": "neuroglancer_uint64_sharded_v1", "preshift_bits": 2, "hash": "murmurhash3_x86_128",
        "minishard_bits": 3, "shard_bits": 5, "minishard_index_encoding": "gzip", "data_encoding": "raw",
    }  # fmt: skip
    both = {root: files[f"{root}"] + files[f"{root}.index"] for root in ROOTS[:2]}
    sizes = {root: len(files[f"{root}.index"]) for root in ROOTS[:2]}
    written = ShardingSpecification.from_dict(spec).synthesize_shards(both, data_offset=sizes)
    for name in [name for name in world.files if name.startswith(FOLDER)]:
        del world.files[name]
    info = {"@type": "neuroglancer_multilod_draco", "vertex_quantization_bits": 16, "sharding": spec,
            "transform": [2, 0, 0, 100, 0, 1, 0, 0, 0, 0, 1, 0], "lod_scale_multiplier": 1.0}  # fmt: skip
    world.files[f"{FOLDER}/info"] = json.dumps(info).encode()
    world.files |= {f"{FOLDER}/{name}": data for name, data in written.items()}
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            for root in ROOTS[:2]:
                mesh = await client.mesh.get_mesh(root, source="static")
                exact = await client.mesh.get_mesh(root, source="graphene")
                assert len(mesh.faces) == len(exact.faces)
                assert abs(mesh.vertices[:, 0].max() - (2 * exact.vertices[:, 0].max() + 100)) < 4
                assert abs(mesh.vertices[:, 1].max() - exact.vertices[:, 1].max()) < 2
            assert not (await client.mesh.mesh_exists([ROOTS[2]], source="static")).any()


async def test_they_are_there_after_saving(tmp_path: Path) -> None:
    world = World.default()
    add_flat_segmentation(world, "flat/v117", ROOTS[:1], "multilod")
    world.save(tmp_path)
    again = World.load(tmp_path)
    assert again.files == world.files
    assert again.datastacks == world.datastacks
    with Sandbox(again) as sandbox:
        assert sandbox.spec.static_meshes == ("gs://flat/v117",)


async def test_the_real_mesh(shared_data: Path) -> None:
    """1.4 million triangles of pinky100, as the world of real neurons has it."""
    from cortexclient.sandbox.worlds.minnie65 import REAL_MESH, publish_real_mesh

    recorded = (shared_data / "neurons" / f"pinky100_{REAL_MESH}" / "mesh.drc").read_bytes()
    world = World.default()
    publish_real_mesh(world, shared_data)
    with Sandbox(world) as sandbox:
        async with client_of("async", sandbox) as client:
            mesh = await client.mesh.get_mesh(REAL_MESH)
    drawn = DracoPy.decode(recorded)
    assert (mesh.vertices.shape, mesh.faces.shape) == ((681_420, 3), (1_361_352, 3))
    assert np.array_equal(mesh.vertices, drawn.points)
    assert np.array_equal(mesh.faces, drawn.faces)
