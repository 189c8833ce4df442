"""Meshes against the sandbox's own fragments: whole, in order, one bad id by itself, and whatever goes wrong told."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient
from cortexclient._wire.meshes import Fragment, MeshSource
from cortexclient.config import RetryPolicy
from cortexclient.errors import (
    CortexError,
    CortexUsageError,
    DecodeError,
    MissingDependency,
    NotFoundError,
    TooLarge,
    UnavailableError,
)
from cortexclient.sandbox import Faults, Sandbox, World
from cortexclient.sandbox.worlds.examples_page import ROOTS
from cortexclient.services.mesh import _meshes
from cortexclient.services.mesh._assembly import Assembly
from cortexclient.services.mesh._bytes import GROWTH, ByteGate

from .conftest import client_of

pytest.importorskip("cloudvolume", reason="meshes are cloudvolume.Mesh objects")
DracoPy = pytest.importorskip("DracoPy")
QUICK = RetryPolicy(attempts=2, base=0.01)


@pytest.fixture(autouse=True)
def fair_weather(sandbox: Sandbox) -> Iterator[None]:
    sandbox.faults = ""
    sandbox.counters.reset()
    yield
    sandbox.faults = ""
    sandbox.world.meshes.omitted.clear()


@pytest.fixture(scope="module")
def initial(world: World) -> list[int]:
    """Some roots whose fragments lie in shards, the largest ones first."""
    roots = world.graph.root_ids()[:1500]
    roots = roots[world.graph.created(roots) == world.graph.created_ms]
    _, owner = world.graph.leaves_of(roots, 2)
    return roots[np.argsort(-np.bincount(owner), kind="stable")][:12].tolist()


def triangles(world: World, node: int) -> list[Any]:
    """The triangles of all fragments of a node, as sorted corners."""
    corners = []
    for piece in world.meshes.pieces(node, 2).tolist():
        mesh = DracoPy.decode(world.meshes.fragment(piece))
        corners.append(mesh.points[mesh.faces].reshape(-1, 9))
    return sorted(np.concatenate(corners).tolist())


def check(mesh: Any, world: World, node: int) -> None:
    assert mesh.segid == node
    assert (mesh.vertices.dtype, mesh.faces.dtype) == (np.float32, np.uint32)
    assert sorted(mesh.vertices[mesh.faces].reshape(-1, 9).tolist()) == triangles(world, node)
    if node in world.graph.root_ids():
        edges = np.concatenate([mesh.faces[:, [k, (k + 1) % 3]] for k in range(3)])
        there = set(map(tuple, edges.tolist()))
        assert there == {(b, a) for a, b in there}, "a seam is open"
    assert mesh.missing_fragments == []


async def test_one_mesh(client: AsyncCortexClient, world: World, initial: list[int]) -> None:
    for root in (ROOTS[0], initial[0]):
        check(await client.mesh.get_mesh(root), world, root)


async def test_many_in_input_order_and_each_fragment_once(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int]
) -> None:
    ids = [initial[3], ROOTS[0], *initial[:3], initial[3]]
    meshes = await client.mesh.get_meshes(np.array(ids))
    assert list(meshes) == list(dict.fromkeys(ids))
    for root, mesh in meshes.items():
        check(mesh, world, root)
    asked = len({piece for root in ids for piece in world.meshes.pieces(root, 2).tolist()})
    routes = sandbox.counters.snapshot().routes
    assert routes["GET /storage/{bucket}/{path:path}"].requests <= asked + 1  # the folder's info is one more
    sandbox.counters.reset()
    again = await client.mesh.get_meshes(ids)
    assert [len(m.faces) for m in again.values()] == [len(m.faces) for m in meshes.values()]
    assert "GET /storage/{bucket}/{path:path}" not in sandbox.counters.snapshot().routes, "fragments are kept"


async def test_a_level2_node_has_a_mesh(client: AsyncCortexClient, world: World) -> None:
    node = int(world.graph.leaves(ROOTS[0], 2)[0])
    check(await client.mesh.get_mesh(node), world, node)


async def test_bad_ids_spoil_only_themselves(client: AsyncCortexClient, world: World) -> None:
    supervoxel = int(world.graph.leaves(ROOTS[0])[0])
    ids = [supervoxel, ROOTS[0], ROOTS[0] + 1, 5, 0, -3]
    meshes = await client.mesh.get_meshes(ids)
    assert list(meshes) == [ROOTS[0]]
    assert meshes.status() == {"ok": 1, "NotFoundError": 5}
    assert meshes.errors[supervoxel].ids == (supervoxel,)
    with pytest.raises(NotFoundError, match="lists no fragments"):
        await client.mesh.get_mesh(ROOTS[0] + 1)
    assert (await client.mesh.mesh_exists([*ids, ROOTS[0]])).tolist() == [False, True, False, False, False, False, True]


async def test_a_root_whose_manifest_lists_nothing(client: AsyncCortexClient, world: World) -> None:
    """It is there, but nobody has made its mesh yet; so is a level-2 node of it."""
    nodes = world.meshes.pieces(ROOTS[1], 2).tolist()
    world.meshes.omitted.update(nodes)
    ids = [ROOTS[1], nodes[0], ROOTS[0], ROOTS[1]]
    meshes = await client.mesh.get_meshes(ids)
    assert list(meshes) == [ROOTS[0]]
    assert {root: error.ids for root, error in meshes.errors.items()} == {root: (root,) for root in ids[:2]}
    assert all(isinstance(error, NotFoundError) for error in meshes.errors.values())
    assert (await client.mesh.mesh_exists(ids)).tolist() == [False, False, True, False]
    for method in ("fragments", "geometry"):
        with pytest.raises(NotFoundError, match="lists no fragments"):
            await client.mesh.compute_vertex_to_l2_mapping(ROOTS[1], method=method)


async def test_nothing_asked_is_nothing_sent(client: AsyncCortexClient, sandbox: Sandbox) -> None:
    assert len(await client.mesh.get_meshes([])) == 0
    assert sandbox.counters.snapshot().total.requests == 0


async def test_bounds(client: AsyncCortexClient, world: World, initial: list[int]) -> None:
    layout, nodes = world.graph.layout, world.graph.leaves(initial[0], 2)
    low = layout.voxel_offset + layout.chunk(nodes[0]) * layout.chunk_size
    bounds = tuple((a, a + size) for a, size in zip(low.tolist(), layout.chunk_size, strict=True))
    mesh = await client.mesh.get_mesh(initial[0], bounds=bounds)
    same = nodes[(layout.chunk(nodes) == layout.chunk(nodes[0])).all(axis=1)].tolist()
    expected = sorted(row for node in same for row in triangles(world, node))
    assert sorted(mesh.vertices[mesh.faces].reshape(-1, 9).tolist()) == expected
    with pytest.raises(NotFoundError, match="within these bounds"):
        await client.mesh.get_mesh(initial[0], bounds=((0, 1), (0, 1), (0, 1)))


@pytest.mark.parametrize(
    "options", [{"lod": 1}, {"max_bytes": 0}, {"bounds": ((0, 1), (0, 1))}, {"bounds": ((5, 5), (0, 1), (0, 1))}]
)
async def test_options_that_make_no_sense(client: AsyncCortexClient, options: dict[str, Any]) -> None:
    with pytest.raises(CortexUsageError):
        await client.mesh.get_meshes([ROOTS[0]], **options)


async def test_a_mesh_that_is_too_large_is_refused_before_it_is_fetched(
    client: AsyncCortexClient, sandbox: Sandbox, initial: list[int]
) -> None:
    await client.mesh.mesh_exists(initial[0])
    sandbox.counters.reset()
    with pytest.raises(TooLarge, match="above max_bytes=100"):
        await client.mesh.get_mesh(initial[0], max_bytes=100)
    assert list(sandbox.counters.snapshot().routes) == ["GET /meshing/api/v1/table/{table}/manifest/{node_id}:0"]


async def test_stream(client: AsyncCortexClient, world: World, initial: list[int]) -> None:
    ids = [*initial, 5]
    arrived = {}
    async with client.mesh.stream_meshes(ids, bytes_at_once=1) as outcomes:
        async for outcome in outcomes:
            arrived[outcome.id] = outcome
    assert sorted(arrived) == sorted(ids)
    assert not arrived[5].ok
    for root in initial:
        check(arrived[root].unwrap(), world, root)


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The gates of the streams that begin, each with the most that it has let in, and for how many."""
    made: list[Any] = []

    class Watched(ByteGate):
        def __init__(self, limit: int) -> None:
            super().__init__(limit)
            self.most, self.holders = 0, 0
            made.append(self)

        async def take(self, count: int) -> None:
            await super().take(count)
            self.most, self.holders = max(self.most, self.held), self.holders + 1

    monkeypatch.setattr(_meshes, "ByteGate", Watched)
    return made


async def test_meshes_that_wait_to_be_read_count(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int], gates: list[Any]
) -> None:
    sizes = {root: m.vertices.nbytes + m.faces.nbytes for root, m in (await client.mesh.get_meshes(initial)).items()}
    lost = world.meshes.pieces(ROOTS[0], 2)[0]
    sandbox.faults = Faults("404", only=f"dynamic/{lost}")
    async with client.mesh.stream_meshes([*initial, ROOTS[0], 5]) as outcomes:
        arrived = []
        async for outcome in outcomes:
            async with asyncio.timeout(20):  # the others are made while nobody reads
                while gates[0].holders < len(initial) + 1:
                    await asyncio.sleep(0.01)
            arrived.append(outcome)
            unread = sorted(sizes[root] for root in set(initial) - {one.id for one in arrived})
            assert gates[0].held >= sum(unread[:-1]), "one may be on its way to the reader"
    assert sorted(one.id for one in arrived) == sorted([*initial, ROOTS[0], 5])
    assert sorted(one.id for one in arrived if not one.ok) == [5, ROOTS[0]]
    assert gates[0].held == 0, "what failed gives back too"


async def test_a_stream_never_holds_more_than_its_limit(
    client: AsyncCortexClient, initial: list[int], gates: list[Any]
) -> None:
    async with client.mesh.stream_meshes(initial[:1], bytes_at_once=1) as outcomes:
        assert [outcome.ok async for outcome in outcomes] == [True]
    largest = gates[0].most
    assert largest > 1, "one alone may hold any amount"
    async with client.mesh.stream_meshes(initial, bytes_at_once=2 * largest) as outcomes:
        assert [outcome.ok async for outcome in outcomes] == [True] * len(initial)
    assert largest < gates[1].most <= 2 * largest
    assert (gates[1].holders, gates[1].held) == (len(initial), 0)


def test_what_is_reserved_for_a_mesh_is_enough(world: World, initial: list[int]) -> None:
    """Measured, without Draco's own memory, for a mesh of many fragments."""
    nodes = [node for root in initial for node in world.meshes.pieces(root, 2).tolist()]
    data = {Fragment(node, str(node), 0, 0): world.meshes.fragment(node) for node in nodes}
    scale = {"chunk_sizes": [[256, 256, 512]], "resolution": [8, 8, 40]}
    graph = {"chunk_size": [256, 256, 512], "n_layers": 12, "spatial_bit_masks": {"2": 10}}
    source = MeshSource.read({"scales": [scale], "graph": graph}, "", {})

    def make() -> None:
        assembly = Assembly(initial[0], list(data), source)
        assert assembly.take(data) == []
        assert len(assembly.mesh().faces) > 0

    make()  # loads the libraries
    tracemalloc.start()
    try:
        make()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < GROWTH * sum(map(len, data.values()))


async def test_a_stream_may_be_left_early(client: AsyncCortexClient, initial: list[int]) -> None:
    async with client.mesh.stream_meshes(initial) as outcomes:
        async for outcome in outcomes:
            assert outcome.ok
            break
    assert (await client.mesh.get_mesh(initial[0])).segid == initial[0]


async def test_a_fragment_that_is_not_there_is_told(client: AsyncCortexClient, sandbox: Sandbox, world: World) -> None:
    pieces = world.meshes.pieces(ROOTS[0], 2).tolist()
    sandbox.faults = Faults("404", only=f"dynamic/{pieces[0]}")
    meshes = await client.mesh.get_meshes([ROOTS[0], ROOTS[1]])
    assert list(meshes) == [ROOTS[1]]
    error = meshes.errors[ROOTS[0]]
    assert isinstance(error, NotFoundError)
    assert f"1 of {len(pieces)} fragments are missing" in str(error)
    assert world.meshes.dynamic_name(pieces[0]) in str(error)
    mesh = await client.mesh.get_mesh(ROOTS[0], allow_missing=True)
    assert mesh.missing_fragments == [f"dynamic/{world.meshes.dynamic_name(pieces[0])}"]
    lost = len(DracoPy.decode(world.meshes.fragment(pieces[0])).faces)
    assert len(mesh.faces) == len(error.partial.faces) == len(triangles(world, ROOTS[0])) - lost
    sandbox.faults = ""
    check(await client.mesh.get_mesh(ROOTS[0]), world, ROOTS[0])


async def test_nothing_is_left_of_a_mesh(client: AsyncCortexClient, sandbox: Sandbox) -> None:
    sandbox.faults = Faults("404", only="/dynamic/")
    with pytest.raises(NotFoundError, match="fragments are missing"):
        await client.mesh.get_mesh(ROOTS[0], allow_missing=True)


@pytest.mark.parametrize("which", ["dynamic", "initial"])
async def test_a_fragment_cut_short_is_fetched_again(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int], which: str
) -> None:
    root = ROOTS[0] if which == "dynamic" else initial[0]
    sandbox.faults = Faults("short", only=f"/{which}/", times=1)
    check(await client.mesh.get_mesh(root), world, root)
    assert sandbox.faults.dealt == 1


@pytest.mark.parametrize("which", ["dynamic", "initial"])
async def test_fragments_that_stay_short_are_told_and_not_kept(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int], which: str
) -> None:
    root = ROOTS[0] if which == "dynamic" else initial[0]
    sandbox.faults = Faults("short", only=f"/{which}/")
    with pytest.raises(DecodeError, match="missing or broken"):
        await client.mesh.get_mesh(root)
    sandbox.faults = ""
    check(await client.mesh.get_mesh(root), world, root)


async def test_a_manifest_that_points_beside_its_fragment_is_found_out(
    client: AsyncCortexClient, world: World, initial: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = world.meshes.place
    monkeypatch.setattr(world.meshes, "place", lambda node: (real(node)[0] + 7, real(node)[1]))
    with pytest.raises(DecodeError, match="missing or broken"):
        await client.mesh.get_mesh(initial[0])
    monkeypatch.setattr(world.meshes, "place", lambda node: (10**9, 50))
    with pytest.raises(CortexError, match="missing or broken"):
        await client.mesh.get_mesh(initial[0])


async def test_it_survives_a_bad_day(flavour: str, sandbox: Sandbox, world: World, initial: list[int]) -> None:
    async with client_of(flavour, sandbox, retry=RetryPolicy(base=0.01)) as client:
        sandbox.faults = Faults("503:10%,reset:5%,truncated:5%,429:5%", only="/storage|/meshing", seed=3)
        meshes = await client.mesh.get_meshes(initial)
        sandbox.faults = ""
    assert meshes.status() == {"ok": len(initial)}
    for root, mesh in meshes.items():
        check(mesh, world, root)


async def test_a_store_that_is_down_fails_each_mesh(flavour: str, sandbox: Sandbox, initial: list[int]) -> None:
    async with client_of(flavour, sandbox, retry=QUICK) as client:
        await client.mesh.mesh_exists(initial[0])
        sandbox.faults = Faults("503", only="/storage")
        meshes = await client.mesh.get_meshes(initial[:2])
    assert len(meshes.errors) == 2
    assert all(isinstance(error, UnavailableError) for error in meshes.errors.values())


async def test_without_cloud_volume_the_pip_line_is_told(
    client: AsyncCortexClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cloudvolume", None)
    with pytest.raises(MissingDependency, match=r"cortexclient\[mesh\]"):
        await client.mesh.get_mesh(ROOTS[0])


# -- labels ----------------------------------------------------------------------------------------------------------


def owners(world: World, root: int) -> dict[tuple[float, ...], set[int]]:
    """The nodes that have a vertex at each place."""
    found: dict[tuple[float, ...], set[int]] = {}
    for node in world.meshes.pieces(root, 2).tolist():
        for place in DracoPy.decode(world.meshes.fragment(node)).points.tolist():
            found.setdefault(tuple(place), set()).add(node)
    return found


async def test_every_vertex_has_its_level2_node(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int]
) -> None:
    for root in (ROOTS[0], initial[0]):
        mesh = await client.mesh.get_mesh(root)
        sandbox.counters.reset()
        labels = await client.mesh.compute_vertex_to_l2_mapping(root)
        assert "GET /storage/{bucket}/{path:path}" not in sandbox.counters.snapshot().routes
        truth = owners(world, root)
        assert (labels.dtype, len(labels)) == (np.int64, len(mesh.vertices))
        assert all(label in truth[tuple(v)] for v, label in zip(mesh.vertices.tolist(), labels.tolist(), strict=True))
        assert set(labels.tolist()) == set(world.graph.leaves(root, 2).tolist())


async def test_labels_of_a_mesh_of_ones_own(client: AsyncCortexClient, initial: list[int]) -> None:
    root = initial[0]
    mesh = await client.mesh.get_mesh(root)
    exact = await client.mesh.compute_vertex_to_l2_mapping(root)
    order = np.random.default_rng(0).permutation(len(mesh.vertices))
    back = np.argsort(order)
    mine = await client.mesh.compute_vertex_to_l2_mapping(root, mesh.vertices[order], back[mesh.faces])
    assert np.array_equal(mine, exact[order])
    moved = mesh.vertices.copy()
    moved[::10] += 0.5  # as a simplified mesh has them: in no fragment, but next to some that are
    near = await client.mesh.compute_vertex_to_l2_mapping(root, moved, mesh.faces)
    assert (near != 0).all()
    assert (near == exact).mean() > 0.98
    assert (await client.mesh.compute_vertex_to_l2_mapping(root, moved, mesh.faces, hop_limit=0) == 0)[::10].all()


async def test_labels_of_some_nodes_only(client: AsyncCortexClient, world: World) -> None:
    level2 = world.graph.leaves(ROOTS[0], 2)
    exact = await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0])
    some = await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0], lvl2_ids=level2[:2])
    assert set(some.tolist()) == {0, *level2[:2].tolist()}
    assert np.array_equal(some[np.isin(exact, level2[:2])], exact[np.isin(exact, level2[:2])])


async def test_labels_of_half_a_mesh_are_refused(client: AsyncCortexClient, sandbox: Sandbox, world: World) -> None:
    sandbox.faults = Faults("404", only=f"dynamic/{world.meshes.pieces(ROOTS[0], 2)[0]}")
    with pytest.raises(NotFoundError, match="fragments are missing"):
        await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0])
    with pytest.raises(CortexUsageError, match="or neither"):
        await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0], np.zeros((3, 3)))


def true_share(labels: Any, mesh: Any, truth: dict[tuple[float, ...], set[int]]) -> float:
    pairs = zip(mesh.vertices.tolist(), labels.tolist(), strict=True)
    return float(np.mean([one in truth[tuple(place)] for place, one in pairs]))


async def test_labels_by_geometry(
    client: AsyncCortexClient, sandbox: Sandbox, world: World, initial: list[int]
) -> None:
    for root in (*ROOTS, *initial[:5]):
        mesh = await client.mesh.get_mesh(root)
        labels = await client.mesh.compute_vertex_to_l2_mapping(root, method="geometry")
        assert (labels.dtype, len(labels)) == (np.int64, len(mesh.vertices))
        assert true_share(labels, mesh, owners(world, root)) >= 0.995
    sandbox.counters.reset()
    level2 = world.graph.leaves(root, 2)
    points = world.level2.points(level2)
    mine = await client.mesh.compute_vertex_to_l2_mapping(
        root, mesh.vertices, mesh.faces, level2, points, 500, 0.5, None, False, -1, method="geometry"
    )
    assert np.array_equal(mine, labels)
    assert sandbox.counters.snapshot().total.requests == 0, "all was given"


@pytest.mark.parametrize("options", [
    {"method": "guess"}, {"cloudvolume_fallback": True}, {"return_assigner": True}, {"lvl2_pts": [[1.0, 2, 3]]},
    {"lvl2_ids": [1 << 57], "lvl2_pts": [[1.0, 2]]}, {"faces": np.zeros((0, 3))},
])  # fmt: skip
async def test_labels_that_cannot_be_meant(client: AsyncCortexClient, options: dict[str, Any]) -> None:
    with pytest.raises(CortexUsageError):
        await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0], **options)


async def test_labels_take_more_arguments_for_the_mesh(client: AsyncCortexClient) -> None:
    with pytest.raises(TooLarge, match="above max_bytes=100"):
        await client.mesh.compute_vertex_to_l2_mapping(ROOTS[0], mesh_kwargs={"max_bytes": 100})
