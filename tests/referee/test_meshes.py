"""cloud-volume as referee: the unmodified CloudVolume gets from a sandbox just the meshes that the client gets."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cortexclient import CortexClient
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.static_meshes import add_flat_segmentation
from cortexclient.sandbox.worlds.examples_page import ROOTS

from .peers import imported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", params=[2, 4], ids=["layer 2", "layer 4"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """One whose fragments are all of layer 2, and one that has larger ones."""
    world = World.default()
    world.graph.info["mesh_metadata"] = {"max_meshed_layer": request.param}
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def volume(sandbox: Sandbox) -> Any:
    cloudvolume = imported("cloudvolume")
    table = sandbox.world.datastacks[sandbox.spec.datastack].segmentation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return cloudvolume.CloudVolume(
            f"graphene://{sandbox.url}/segmentation/table/{table}",
            use_https=True,
            secrets={"token": sandbox.token},
            progress=False,
        )


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Iterator[CortexClient]:
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        yield client


def same(ours: Any, theirs: Any) -> None:
    for mesh in (ours, theirs):
        assert (mesh.vertices.dtype, mesh.faces.dtype) == (np.float32, np.uint32)
    assert sorted(ours.vertices.tolist()) == sorted(theirs.vertices.tolist())
    corners = [sorted(mesh.vertices[mesh.faces].reshape(-1, 9).tolist()) for mesh in (ours, theirs)]
    assert corners[0] == corners[1]


def test_roots_and_level2_nodes(sandbox: Sandbox, volume: Any, client: CortexClient) -> None:
    graph = sandbox.world.graph
    roots = graph.root_ids()[:1500]
    _, owner = graph.leaves_of(roots, 2)
    largest = roots[np.argsort(-np.bincount(owner), kind="stable")][:10].tolist()
    ids = [*ROOTS, *largest, *graph.leaves(ROOTS[0], 2)[:2].tolist()]
    ours = client.mesh.get_meshes(ids)
    theirs = volume.mesh.get(ids)
    assert ours.status() == {"ok": len(ids)}
    for node in ids:
        same(ours[node], theirs[node])


def test_bounds(sandbox: Sandbox, volume: Any, client: CortexClient) -> None:
    from cloudvolume import Bbox

    layout = sandbox.world.graph.layout
    nodes = sandbox.world.graph.leaves(ROOTS[0], 2)
    low = layout.voxel_offset + layout.chunk(nodes[:3]).min(axis=0) * layout.chunk_size
    high = low + 2 * np.array(layout.chunk_size)
    ours = client.mesh.get_mesh(ROOTS[0], bounds=tuple(zip(low.tolist(), high.tolist(), strict=True)))
    same(ours, volume.mesh.get(ROOTS[0], bounding_box=Bbox(low, high))[ROOTS[0]])


def test_the_store_is_good_enough_for_its_other_calls(sandbox: Sandbox, volume: Any) -> None:
    meshes, graph = sandbox.world.meshes, sandbox.world.graph
    roots = graph.root_ids()[:300]
    initial = int(roots[graph.created(roots) == graph.created_ms][0])
    for root in (initial, ROOTS[0]):
        node = int(meshes.pieces(root, 2)[0])
        assert volume.mesh.exists([node])[node] is not None
        assert len(volume.mesh.get(node, bypass=True)[node].faces) > 0


def test_what_is_printed(volume: Any, client: CortexClient, capfd: pytest.CaptureFixture[str]) -> None:
    client.mesh.get_mesh(ROOTS[1])
    assert capfd.readouterr() == ("", "")
    volume.mesh.get(ROOTS[1])
    assert "deduplication not currently supported" in capfd.readouterr().out, "the peer is no longer noisy"


@pytest.mark.parametrize("kind", ["legacy", "multilod", "multilod-sharded"])
def test_static_meshes(kind: Any) -> None:
    """Flat segmentations, in each layout and at each level of detail."""
    world = World.default()
    add_flat_segmentation(world, "flat/v117", ROOTS, kind)
    with Sandbox(world) as sandbox, CortexClient(sandbox.spec, token=sandbox.token) as client:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            address = f"precomputed://{sandbox.url}/storage/flat/v117"
            volume = imported("cloudvolume").CloudVolume(address, use_https=True, progress=False)
        for lod in range(1 if kind == "legacy" else 3):
            ours = client.mesh.get_meshes(ROOTS, source="static", lod=lod)
            for root in ROOTS:
                options: dict[str, Any] = {"fuse": False} if kind == "legacy" else {"lod": lod}
                same(ours[root], volume.mesh.get(root, **options)[root])


def test_labels(sandbox: Sandbox, client: CortexClient) -> None:
    """cortical-tools' labels, by geometry, against ours by geometry and by fragments, on the same mesh."""
    imported("gpytoolbox")
    mesh_vertex = imported("cortical_tools.mesh_vertex")
    cave = imported("caveclient").CAVEclient(
        sandbox.spec.datastack, server_address=sandbox.url, auth_token=sandbox.token, write_server_cache=False
    )
    for root in ROOTS[:2]:
        mesh = client.mesh.get_mesh(root)
        assigner = mesh_vertex.VertexAssigner(root, cave, mesh.vertices, mesh.faces)
        solo = assigner.process_chunk_dataframe_solo()
        several = [
            row
            for _, rows in assigner.chunk_df_multi.groupby("chunk_number")
            for row in assigner.process_multicomponent_chunk(rows, mesh.vertices, mesh.faces, None)
        ]
        theirs = np.zeros(len(mesh.vertices), np.int64)
        for row in [*solo, *several]:
            theirs[row["vertex_mask"]] = assigner.chunk_df["l2id"].loc[row["l2id_idx"]]
        told = theirs != 0
        assert told.mean() > 0.9
        for method in ("fragments", "geometry"):
            ours = client.mesh.compute_vertex_to_l2_mapping(root, mesh.vertices, mesh.faces, method=method)
            assert (ours[told] == theirs[told]).mean() > 0.97, "only vertices on walls may differ"
