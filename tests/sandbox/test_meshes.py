"""Fragments fit together, and the meshing service and the object store hand them out as the real ones do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.meshes import MINISHARD_BITS, PRESHIFT_BITS, lattice_pitch
from cortexclient.sandbox.surfaces import Surface
from cortexclient.sandbox.worlds.examples_page import ROOTS

DracoPy = pytest.importorskip("DracoPy")
EDITED = ROOTS[0]


@pytest.fixture(scope="module")
def world() -> World:
    return World.default()


@pytest.fixture(scope="module")
def sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def untouched(world: World) -> int:
    """The largest root of the initial graph among the first ones."""
    roots = world.graph.root_ids()[:2000]
    initial = roots[world.graph.created(roots) == world.graph.created_ms]
    _, owner = world.graph.leaves_of(initial, 2)
    return int(initial[np.bincount(owner).argmax()])


def get(sandbox: Sandbox, path: str, **headers: str) -> httpx.Response:
    headers |= {"Authorization": f"Bearer {sandbox.token}"}
    return httpx.get(f"{sandbox.url}{path}", headers=headers)


def manifest(sandbox: Sandbox, node: int, query: str = "", body: Any = None) -> dict[str, Any]:
    url = f"{sandbox.url}/meshing/api/v1/table/minnie65_public/manifest/{node}:0?{query}"
    headers = {"Authorization": f"Bearer {sandbox.token}"}
    return dict(httpx.request("GET", url, json=body, headers=headers).raise_for_status().json())


def decoded(world: World, data: bytes) -> Surface:
    mesh = DracoPy.decode(data)
    steps = mesh.points / world.meshes.pitch
    assert np.array_equal(steps, np.rint(steps)), "a vertex is off the lattice"
    return Surface(steps.astype(np.int64), mesh.faces.astype(np.int64))


def directed_edges(surface: Surface) -> Any:
    return np.concatenate([surface.faces[:, [k, (k + 1) % 3]] for k in range(3)])


@pytest.mark.parametrize(
    ("resolution", "chunk", "pitch"), [((8, 8, 40), (256, 256, 512), 3), ((32, 32, 40), (64, 64, 512), 21)]
)
def test_the_lattice_is_that_of_the_real_datasets(resolution: Any, chunk: Any, pitch: int) -> None:
    assert lattice_pitch(np.array(resolution), np.array(chunk)) == pitch


@pytest.mark.parametrize("which", ["edited", "untouched"])
def test_the_fragments_of_a_root_are_one_closed_surface(world: World, untouched: int, which: str) -> None:
    root = EDITED if which == "edited" else untouched
    nodes = world.meshes.pieces(root, 12)
    assert sorted(nodes.tolist()) == world.graph.leaves(root, 2).tolist()
    whole = Surface.join([decoded(world, world.meshes.fragment(node)) for node in nodes.tolist()])
    edges = directed_edges(whole)
    there = set(map(tuple, edges.tolist()))
    assert len(there) == len(edges), "two triangles run along an edge in the same direction"
    assert all((b, a) in there for a, b in there), "there is a hole"
    corners = whole.vertices[whole.faces].astype(float)
    assert np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() > 0, "inside out"


def test_a_surface_is_around_the_point_of_the_level2_cache(world: World, untouched: int) -> None:
    nodes = world.graph.leaves(untouched, 2)
    points = world.level2.points(nodes)
    for node, point in zip(nodes.tolist(), points, strict=True):
        vertices = decoded(world, world.meshes.fragment(node)).vertices * world.meshes.pitch
        assert np.linalg.norm(vertices - point, axis=1).min() < 400


def test_an_edit_makes_new_fragments_of_the_nodes_that_it_touches_and_of_no_others() -> None:
    world = World.default()
    root = EDITED
    before = {node: world.meshes.fragment(node) for node in world.meshes.pieces(root, 12).tolist()}
    level2 = world.graph.leaves(root, 2)
    supervoxels = world.graph.leaves(root)
    edges = world.graph.edges_within(supervoxels, 2**62)
    apart = world.graph.layout.chunk(edges.a) != world.graph.layout.chunk(edges.b)
    a, b = edges.a[apart.any(axis=1)][0], edges.b[apart.any(axis=1)][0]
    operation = world.graph.split([int(a)], [int(b)])
    after = {node for new in operation.roots for node in world.meshes.pieces(new, 12).tolist()}
    kept = after & set(level2.tolist())
    assert kept
    assert after - kept
    assert not any(world.meshes.is_initial(np.array(sorted(after - kept))))
    assert all(world.meshes.fragment(node) == before[node] for node in kept)
    for new in operation.roots:
        parts = [decoded(world, world.meshes.fragment(node)) for node in world.meshes.pieces(new, 12).tolist()]
        edges = directed_edges(Surface.join(parts))
        assert set(map(tuple, edges.tolist())) == {(b, a) for a, b in edges.tolist()}


def test_fragments_of_higher_layers_hold_those_below(world: World, untouched: int) -> None:
    graph = World.default().graph
    graph.info["mesh_metadata"] = {"max_meshed_layer": 5}
    meshes = World("minnie65", 0, graph).meshes
    nodes = meshes.pieces(untouched, 12)
    assert 2 < max(graph.layout.layer(nodes)) <= 5
    whole = Surface.join([decoded(world, meshes.fragment(node)) for node in nodes.tolist()])
    parts = [decoded(world, world.meshes.fragment(node)) for node in graph.leaves(untouched, 2).tolist()]
    assert len(whole.vertices) == len(Surface.join(parts).vertices)
    assert len(whole.faces) == sum(len(part.faces) for part in parts)
    assert meshes.pieces(untouched, 2).tolist() == world.meshes.pieces(untouched, 2).tolist()


def test_manifests_name_initial_and_dynamic_fragments(sandbox: Sandbox, world: World, untouched: int) -> None:
    found = manifest(sandbox, untouched, "verify=True&return_seg_ids=1")
    assert sorted(found["seg_ids"]) == world.graph.leaves(untouched, 2).tolist()
    for name, node in zip(found["fragments"], found["seg_ids"], strict=True):
        path, offset, size = name.removeprefix("~").split(":")
        first, last = int(offset), int(offset) + int(size) - 1
        reply = get(sandbox, f"/storage/minnie3_v1/graphene_meshes/initial/{path}", Range=f"bytes={first}-{last}")
        assert reply.status_code == 206
        assert reply.content == world.meshes.fragment(node)
    edited = manifest(sandbox, EDITED, "verify=True&return_seg_ids=1")
    for name, node in zip(edited["fragments"], edited["seg_ids"], strict=True):
        assert name.startswith(f"{node}:0:")
        reply = get(sandbox, f"/storage/minnie3_v1/graphene_meshes/dynamic/{name}")
        assert reply.content == world.meshes.fragment(node)


def test_unverified_manifests_say_where_to_look(sandbox: Sandbox, world: World, untouched: int) -> None:
    found = manifest(sandbox, untouched, "verify=false&return_seg_ids=true&prepend_seg_ids=true")
    for name, node in zip(found["fragments"], found["seg_ids"], strict=True):
        chunk = node - int(world.graph.layout.segment(node))
        minishard = (node >> PRESHIFT_BITS) % 2**MINISHARD_BITS
        file = world.meshes.shard_name(node).partition("/")[2]
        assert name == f"~{node}:~{node}:2:{chunk}:{file}:{minishard}"


def test_manifests_of_what_has_no_mesh_are_empty(sandbox: Sandbox, world: World) -> None:
    supervoxel = int(world.graph.leaves(EDITED)[0])
    for node in (supervoxel, EDITED + 1, 5):
        assert manifest(sandbox, node, "verify=true&return_seg_ids=true") == {"fragments": [], "seg_ids": []}
    level2 = int(world.graph.leaves(EDITED, 2)[0])
    assert manifest(sandbox, level2, "return_seg_ids=true", {"start_layer": 2})["seg_ids"] == [level2]


def test_bounds_select_the_chunks_that_they_overlap(sandbox: Sandbox, world: World, untouched: int) -> None:
    layout, nodes = world.graph.layout, world.graph.leaves(untouched, 2)
    low = layout.voxel_offset + layout.chunk(nodes[0]) * layout.chunk_size
    box = "_".join(f"{a + 10}-{a + 20}" for a in low.tolist())
    found = manifest(sandbox, untouched, f"return_seg_ids=1&bounds={box}", {"start_layer": 2})
    same = (layout.chunk(nodes) == layout.chunk(nodes[0])).all(axis=1)
    assert sorted(found["seg_ids"]) == nodes[same].tolist()


def test_the_store_serves_whole_objects_and_ranges(sandbox: Sandbox, world: World) -> None:
    world.files["some-bucket/folder/object"] = bytes(range(200))
    path = "/storage/some-bucket/folder/object"
    assert httpx.get(sandbox.url + path).content == bytes(range(200)), "no token is needed"
    head = httpx.head(sandbox.url + path)
    assert (head.headers["content-length"], head.content) == ("200", b"")
    for asked, first, last in (("0-9", 0, 9), ("190-", 190, 199), ("-5", 195, 199), ("198-400", 198, 199)):
        reply = get(sandbox, path, Range=f"bytes={asked}")
        assert (reply.status_code, reply.content) == (206, bytes(range(first, last + 1)))
        assert reply.headers["content-range"] == f"bytes {first}-{last}/200"
    assert get(sandbox, path, Range="bytes=200-210").status_code == 416
    for missing in ("/storage/some-bucket/other", "/storage/minnie3_v1/graphene_meshes/dynamic/x", "/storage/b/c"):
        assert get(sandbox, missing).status_code == 404


@pytest.mark.parametrize("path", ["initial/2/5-0.shard", "initial/9/5-0.shard", "initial/2/x.shard", "dynamic/5:0:0-1"])
def test_the_mesh_folder_holds_nothing_else(sandbox: Sandbox, path: str) -> None:
    assert get(sandbox, f"/storage/minnie3_v1/graphene_meshes/{path}").status_code == 404


def test_an_aborted_download_harms_nobody(sandbox: Sandbox, world: World) -> None:
    world.files["some-bucket/large"] = bytes(20 << 20)
    with httpx.stream("GET", f"{sandbox.url}/storage/some-bucket/large") as reply:
        assert reply.status_code == 200
    assert get(sandbox, "/info/health").json() == "healthy"


def test_the_service_says_what_it_is(sandbox: Sandbox) -> None:
    assert get(sandbox, "/meshing/api/versions").json() == [0, 1]
    assert get(sandbox, "/meshing/api/v1/").text == "PyChunkedGraph Meshing v2.21.1"
