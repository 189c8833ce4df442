"""Skeleton bodies: exact where they are whole, refused where they are not."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import numpy as np
import pytest

from cortexclient._wire import skeletons as wire
from cortexclient.errors import DecodeError

ROOT = 864691135101289504
BIG = 2**53 + 1
BODY: dict[str, Any] = {
    "meta": {"root_id": ROOT, "skeleton_version": 4},
    "edges": [[1, 0], [2, 1], [3, 1]],
    "mesh_to_skel_map": [0, 1, 2, 3, 3],
    "root": 0,
    "vertices": [[0.0, 0.0, 0.0], [1000.0, 0.0, 0.0], [1000.0, 2000.5, 0.0], [1000.0, 0.0, 3000.0]],
    "compartment": [1, 2, 2, 3],
    "radius": [100.0, 50.5, 1.0, 2.0],
    "lvl2_ids": [BIG, BIG + 1, BIG + 2, BIG + 3, BIG + 4],
}


def packed(**changes: Any) -> bytes:
    body = {key: value for key, value in (BODY | changes).items() if value is not None}
    return gzip.compress(json.dumps(body).encode(), mtime=0)


def test_all_arrays_are_exact() -> None:
    for body in (packed(), gzip.decompress(packed())):
        skeleton = wire.decode_flatdict(body, ROOT)
        assert skeleton.vertices.tolist() == BODY["vertices"]
        assert skeleton.edges.tolist() == BODY["edges"]
        assert skeleton.lvl2_ids.tolist() == BODY["lvl2_ids"]
        assert skeleton.mesh_to_skel_map.tolist() == BODY["mesh_to_skel_map"]
        assert skeleton.compartment.tolist() == BODY["compartment"]
        assert skeleton.radius.tolist() == BODY["radius"]
        assert skeleton.root == 0
        assert skeleton.meta["skeleton_version"] == 4
        dtypes = [skeleton.vertices.dtype, skeleton.edges.dtype, skeleton.lvl2_ids.dtype, skeleton.compartment.dtype]
        assert dtypes == [np.float64, np.int64, np.int64, np.int64]


def test_arrays_cannot_be_changed() -> None:
    skeleton = wire.decode_flatdict(packed(), ROOT)
    for array in (skeleton.vertices, skeleton.edges, skeleton.radius, skeleton.compartment, skeleton.lvl2_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_older_versions_lack_parts() -> None:
    skeleton = wire.decode_flatdict(packed(lvl2_ids=None, compartment=[1.0, 2.0, 2.0, 3.0]), ROOT)
    assert not len(skeleton.lvl2_ids)
    assert skeleton.compartment.tolist() == [1, 2, 2, 3]
    bare = wire.decode_flatdict(packed(compartment=None, radius=None), ROOT)
    assert not len(bare.compartment)
    assert np.isnan(bare.radius).all()


def test_a_single_vertex_is_a_skeleton() -> None:
    body = packed(
        vertices=[[1.0, 2.0, 3.0]], edges=[], mesh_to_skel_map=[0], compartment=[1], radius=[5.0], lvl2_ids=[9]
    )
    skeleton = wire.decode_flatdict(body, ROOT)
    assert skeleton.cable_length() == 0
    assert skeleton.to_swc() == "0 1 0.001 0.002 0.003 0.005 -1\n"


@pytest.mark.parametrize(
    "body",
    [
        packed()[:-1],
        packed()[:40],
        packed()[:-8] + b"\0" * 8,
        packed()[:30] + b"\xff\xff" + packed()[32:],
        b"\x1f\x8b",
        gzip.decompress(packed())[:-10],
        b"null",
        b"null\n",
        b"",
        b"{}",
        b"[1]",
        packed(edges=[[0, 4]]),
        packed(mesh_to_skel_map=[0, 1, 2, 3, 9]),
        packed(root=4),
        packed(root=-1),
        packed(radius=[1.0]),
        packed(compartment=[1]),
        packed(lvl2_ids=[1]),
        packed(vertices=[], edges=[]),
        packed(vertices=[[1.0, 2.0], [1.0, 2.0]]),
        packed(vertices="x"),
        packed(lvl2_ids=[-1] * 5),
        packed(lvl2_ids=[2**63] * 5),
        packed(meta={"root_id": ROOT + 1}),
    ],
)
def test_what_is_damaged_is_refused_with_its_root(body: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        wire.decode_flatdict(body, ROOT)
    assert caught.value.ids == (ROOT,)


def test_bulk_replies_keep_each_text_for_itself() -> None:
    body = json.dumps({str(ROOT): packed().hex(), "5": "async"}).encode()
    found = wire.decode_bulk(body)
    assert list(found) == [ROOT, 5]
    assert wire.decode_hex(found[ROOT], ROOT).root_id == ROOT
    with pytest.raises(DecodeError, match="async"):
        wire.decode_hex(found[5], 5)


@pytest.mark.parametrize("body", [b"null", b"[]", b'{"x": "00"}', b'{"5": 1}', b'{"5": "00"'])
def test_bulk_replies_that_are_none(body: bytes) -> None:
    with pytest.raises(DecodeError):
        wire.decode_bulk(body)


def test_lengths_and_swc() -> None:
    skeleton = wire.decode_flatdict(packed(), ROOT)
    assert skeleton.cable_length() == 1000 + 2000.5 + 3000
    assert skeleton.parents().tolist() == [-1, 0, 1, 1]
    rows = [line.split() for line in skeleton.to_swc().splitlines()]
    assert [row[6] for row in rows] == ["-1", "0", "1", "1"]
    assert rows[2][2:6] == ["1.000", "2.001", "0.000", "0.001"]


def test_vertices_that_hang_on_nothing_begin_trees_of_their_own() -> None:
    skeleton = wire.decode_flatdict(packed(edges=[[1, 0], [2, 3]]), ROOT)
    parents = [int(line.split()[6]) for line in skeleton.to_swc().splitlines()]
    assert all(above < row for row, above in enumerate(parents))
    assert len(parents) == 4


def test_showing_one_is_short() -> None:
    assert repr(wire.decode_flatdict(packed(), ROOT)) == f"Skeleton({ROOT}: 4 vertices, 6 um)"


def file_of(**changes: Any) -> bytes:
    """A file as meshparty writes it, with the service's level-2 ids."""
    h5py = pytest.importorskip("h5py")
    body = {key: value for key, value in (BODY | changes).items() if value is not None}
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        for name in {"vertices", "edges", "mesh_to_skel_map", "lvl2_ids"} & body.keys():
            values = np.array(body[name])
            file.create_dataset(name, data=values, compression="gzip" if values.size else None)
        if "root" in body:
            file["root"] = body["root"]
        if "meta" in body:
            file["meta"] = np.bytes_(json.dumps({"root_id": body["meta"]["root_id"]}).encode())
        for name in {"radius", "compartment"} & body.keys():
            file[f"vertex_properties/{name}"] = json.dumps(body[name])
    return gzip.compress(target.getvalue())


def test_files_give_the_same_as_json() -> None:
    expected = wire.decode_flatdict(packed(), ROOT)
    for body in (file_of(), gzip.decompress(file_of()), file_of(compartment=[1.0, 2.0, 2.0, 3.0])):
        found = wire.decode_h5(body, ROOT)
        for name in ("vertices", "edges", "radius", "compartment", "lvl2_ids", "mesh_to_skel_map"):
            mine, other = getattr(found, name), getattr(expected, name)
            assert (mine.tolist(), mine.dtype, mine.shape) == (other.tolist(), other.dtype, other.shape)
            assert not mine.flags.writeable
        assert (found.root, dict(found.meta)) == (expected.root, dict(expected.meta))


def test_files_may_lack_parts_too() -> None:
    found = wire.decode_h5(file_of(lvl2_ids=None, compartment=None, radius=None, meta=None), ROOT)
    assert not len(found.lvl2_ids)
    assert not len(found.compartment)
    assert np.isnan(found.radius).all()
    single = wire.decode_h5(
        file_of(
            vertices=[[1.0, 2.0, 3.0]],
            edges=np.zeros((0, 2), np.int64),
            mesh_to_skel_map=[0],
            compartment=[1],
            radius=[5.0],
            lvl2_ids=[9],
        ),
        ROOT,
    )
    assert single.edges.shape == (0, 2)


@pytest.mark.parametrize(
    "changes",
    [
        {"root": 4},
        {"root": None},
        {"vertices": None},
        {"mesh_to_skel_map": None},
        {"edges": [[0, 4]]},
        {"edges": [[0.5, 1.0]]},
        {"edges": [[-1, 1]]},
        {"radius": [1.0]},
        {"radius": "x"},
        {"lvl2_ids": [1]},
        {"lvl2_ids": np.full(5, 2**63, np.uint64)},
        {"vertices": [[1.0, 2.0], [1.0, 2.0]]},
        {"meta": {"root_id": ROOT + 1}},
    ],
)
def test_files_that_are_wrong_are_refused_with_their_root(changes: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        wire.decode_h5(file_of(**changes), ROOT)
    assert caught.value.ids == (ROOT,)


def test_files_that_are_cut_are_refused() -> None:
    whole = gzip.decompress(file_of())
    for length in (0, 5, 100, 2000, len(whole) // 2, len(whole) - 1):
        for body in (whole[:length], gzip.compress(whole[:length])):
            with pytest.raises(DecodeError):
                wire.decode_h5(body, ROOT)
