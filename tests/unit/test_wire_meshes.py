"""Manifests and welding, against cloud-volume's own stitching."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexclient._wire.meshes import Fragment, MeshSource, decode, join, parse_manifest, runs, weld
from cortexclient.errors import DecodeError

TABLE = {
    "graph": {"n_layers": 12, "chunk_size": [64, 64, 16], "spatial_bit_masks": {"2": 10}},
    "chunks_start_at_voxel_offset": True,
    "mesh_metadata": {"uniform_draco_grid_size": 3, "max_meshed_layer": 4},
    "scales": [{"resolution": [8, 8, 40], "voxel_offset": [5, 7, 9], "chunk_sizes": [[64, 64, 16]]}],
}
SHARDED = MeshSource.read(TABLE, "http://store/meshes", {"mip": 0, "sharding": {"2": {}}})
LAYER2, LAYER3 = 2 << 56, 3 << 56


def manifest(*names: str, nodes: Any = None) -> bytes:
    return json.dumps({"fragments": names} | ({"seg_ids": nodes} if nodes else {})).encode()


def test_a_manifest() -> None:
    found = parse_manifest(
        manifest("~2/344-0.shard:224659:442", "", "187:0:9-10_7-8_1-2", nodes=[LAYER2 + 9, 5, 187]), SHARDED
    )
    assert found == [
        Fragment(LAYER2 + 9, "initial/2/344-0.shard", 224659, 225101),
        Fragment(187, "dynamic/187:0:9-10_7-8_1-2", 0, 0),
    ]


def test_old_datasets_keep_fragments_in_the_folder_itself() -> None:
    source = MeshSource.read(TABLE, "http://store/meshes", {})
    assert parse_manifest(manifest("187:0:9-10_7-8_1-2"), source) == [Fragment(187, "187:0:9-10_7-8_1-2", 0, 0)]


def test_an_empty_manifest() -> None:
    assert parse_manifest(manifest(), SHARDED) == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"fragments": 5}', manifest("~5:2:7:9-0.shard:1"), manifest("../../etc/passwd"),
     manifest("1:0:2-3_4-5_6-7", nodes=[1, 2])],
)  # fmt: skip
def test_what_is_no_manifest(body: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_manifest(body, SHARDED)


@pytest.mark.parametrize("missing", ["graph", "scales"])
def test_an_info_without_geometry(missing: str) -> None:
    table = {key: value for key, value in TABLE.items() if key not in (missing, "mesh_metadata")}
    with pytest.raises(DecodeError, match="does not describe its meshes"):
        MeshSource.read(table, "http://store/meshes", {})


def test_neighbours_travel_together() -> None:
    a, b, c = (Fragment(k, "s.shard", 100 * k, 100 * k + 100) for k in range(3))
    far, other = Fragment(3, "s.shard", 900, 950), Fragment(4, "t.shard", 300, 400)
    whole = Fragment(5, "dynamic/x", 0, 0), Fragment(6, "dynamic/y", 0, 0)
    found = runs([c, other, far, a, b, *whole], most=1000)
    assert sorted((run.path, run.start, run.stop, len(run.fragments)) for run in found) == [
        ("dynamic/x", 0, 0, 1), ("dynamic/y", 0, 0, 1), ("s.shard", 0, 300, 3), ("s.shard", 900, 950, 1),
        ("t.shard", 300, 400, 1),
    ]  # fmt: skip
    body = bytes(k for k in range(3) for _ in range(100))
    run = next(run for run in found if run.stop == 300)
    assert dict(run.cut(body)) == {f: bytes([k]) * 100 for k, f in enumerate((a, b, c))}
    assert [run.stop - run.start for run in runs([a, b, c], most=200)] == [200, 100]


@pytest.mark.parametrize("data", [b"", b"DRACO", b"DRACO\x02\x02\x01\x01\x00", b"<Error/>"])
def test_what_is_no_draco_file(data: bytes) -> None:
    pytest.importorskip("DracoPy")
    with pytest.raises(DecodeError):
        decode(data)


def theirs(parts: Any, nodes: Any, source: MeshSource) -> Any:
    """What cloud-volume makes of the same fragments (its stitching, step by step)."""
    cloudvolume = pytest.importorskip("cloudvolume")
    from cloudvolume.mesh import is_draco_chunk_aligned

    grid = source.grids[nodes[0] >> 56]
    masks = [
        is_draco_chunk_aligned(vertices - source.offset, source.chunk * 2 ** ((node >> 56) - 2), draco_grid_size=grid)
        for (vertices, _), node in zip(parts, nodes, strict=True)
    ]
    whole = cloudvolume.Mesh.concatenate(*(cloudvolume.Mesh(*part) for part in parts))
    return whole.deduplicate_vertices(np.concatenate(masks))


def same(parts: Any, nodes: Any, source: MeshSource) -> None:
    (vertices, faces), peer = weld(join(parts), nodes, source), theirs(parts, nodes, source)
    assert sorted(vertices.tolist()) == sorted(peer.vertices.tolist())
    assert sorted(vertices[faces].reshape(-1, 9).tolist()) == sorted(peer.vertices[peer.faces].reshape(-1, 9).tolist())


@given(data=st.data(), step=st.sampled_from([3.0, 1.5, 2.9]), layers=st.sampled_from([(2, 2, 2), (2, 3, 2), (3, 4, 2)]))
def test_welding_is_that_of_cloud_volume(data: Any, step: float, layers: tuple[int, ...]) -> None:
    """Few places, so that all kinds of coincidences occur; at 2.9 the vertices lie off the lattice."""
    places = st.tuples(*[st.integers(0, 3)] * 3)
    parts = []
    for _ in layers:
        vertices = np.array(data.draw(st.lists(places, min_size=3, max_size=12)), np.float64) * step
        vertices += SHARDED.offset + np.array([510 if step == 3.0 else 511, 1023, 639])
        corner = st.integers(0, len(vertices) - 1)
        faces = data.draw(st.lists(st.tuples(corner, corner, corner), min_size=1, max_size=8))
        parts.append((vertices.astype(np.float32), np.array(faces, np.uint32)))
    same(parts, [layer << 56 for layer in layers], SHARDED)


def test_a_span_beyond_the_packed_bits() -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    far = square + np.float32(3 * 2**21)
    face = np.array([[0, 1, 2]], np.uint32)
    same([(square, face), (far, face), (square, face)], [LAYER2] * 3, SHARDED)


def test_the_real_fragments(shared_data: Path) -> None:
    """Of the pinky100 dataset, quantized on a lattice of 21 nm."""
    folder = shared_data / "meshes" / "graphene_draco"
    files = sorted(folder.glob("*.drc"))
    parts = [decode(file.read_bytes()) for file in files]
    info = {entry["key"]: entry for entry in json.loads((folder / "index.json").read_text())}
    for file, (vertices, faces) in zip(files, parts, strict=True):
        entry = info[file.stem.replace("__", ":")]
        assert (len(vertices), len(faces)) == (entry["n_vertices"], entry["n_faces"])
        assert vertices.min(axis=0).tolist() == entry["min"]
    table = TABLE | {
        "mesh_metadata": {"uniform_draco_grid_size": 21, "max_meshed_layer": 2},
        "scales": [{"resolution": [32, 32, 40], "voxel_offset": [0, 0, 0], "chunk_sizes": [[128, 128, 128]]}],
    }
    source = MeshSource.read(table, "", {"mip": 0})
    nodes = [LAYER2] * len(parts)
    same(parts, nodes, source)
    assert len(weld(join(parts), nodes, source)[0]) < sum(len(vertices) for vertices, _ in parts)
