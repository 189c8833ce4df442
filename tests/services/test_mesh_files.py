"""Meshes as files: whole or not there, whatever happens while they are written."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient
from cortexclient.errors import CortexError, CortexUsageError
from cortexclient.sandbox import Sandbox
from cortexclient.sandbox.worlds.examples_page import ROOTS

pytest.importorskip("cloudvolume", reason="meshes are cloudvolume.Mesh objects")
DracoPy = pytest.importorskip("DracoPy")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty one; the temporary folder itself holds HOME."""
    (tmp_path / "meshes").mkdir()
    return tmp_path / "meshes"


def sides(vertices: Any, faces: Any) -> list[Any]:
    """The triangles with their orientation, whichever corner each begins with."""
    corners = np.asarray(vertices)[np.asarray(faces)].tolist()
    return sorted(min([a, b, c], [b, c, a], [c, a, b]) for a, b, c in corners)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_ply_and_draco_hold_the_mesh(client: AsyncCortexClient, folder: Path) -> None:
    trimesh = pytest.importorskip("trimesh")
    mesh = await client.mesh.get_mesh(ROOTS[0])
    saved = await client.mesh.save_meshes([ROOTS[0], 5, ROOTS[0]], folder / "new")
    assert dict(saved) == {ROOTS[0]: folder / "new" / f"{ROOTS[0]}.ply"}
    assert saved.status() == {"ok": 1, "NotFoundError": 1}
    ply = trimesh.load(saved[ROOTS[0]], process=False)
    assert np.array_equal(ply.vertices, mesh.vertices)
    assert np.array_equal(ply.faces, mesh.faces)
    saved = await client.mesh.save_meshes(ROOTS, folder, "draco")
    assert list(saved.values()) == [folder / f"{root}.drc" for root in ROOTS]
    drawn = DracoPy.decode(saved[ROOTS[0]].read_bytes())
    assert sides(drawn.points, drawn.faces) == sides(mesh.vertices, mesh.faces)
    assert 4 * saved[ROOTS[0]].stat().st_size < (folder / "new" / f"{ROOTS[0]}.ply").stat().st_size


async def test_what_is_there_is_not_fetched_again(client: AsyncCortexClient, sandbox: Sandbox, folder: Path) -> None:
    await client.mesh.save_meshes(ROOTS[:2], folder)
    (folder / f"{ROOTS[1]}.ply").write_bytes(b"mine")
    sandbox.counters.reset()
    saved = await client.mesh.save_meshes(ROOTS[:2], folder)
    assert sandbox.counters.snapshot().total.requests == 0
    assert saved[ROOTS[1]].read_bytes() == b"mine"
    saved = await client.mesh.save_meshes(ROOTS[:2], folder, overwrite=True)
    assert saved[ROOTS[1]].read_bytes() != b"mine"


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file grows beyond this, as if the disk were full: the kernel cuts the write off."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_write_that_is_cut_off_leaves_nothing(client: AsyncCortexClient, folder: Path) -> None:
    await client.mesh.get_meshes(ROOTS)
    with largest_file(2_000):
        saved = await client.mesh.save_meshes(ROOTS, folder)
    assert saved.status() == {"ok": 0, "CortexError": 3}
    assert all(error.ids == (root,) for root, error in saved.errors.items())
    assert names(folder) == set()
    saved = await client.mesh.save_meshes(ROOTS, folder)
    assert saved.status() == {"ok": 3}


async def test_a_full_disk_ends_the_fetching_and_keeps_what_is_whole(
    client: AsyncCortexClient, sandbox: Sandbox, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = sandbox.world.graph.root_ids()[:60].tolist()
    await client.mesh.save_meshes(roots[:3], folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    sandbox.counters.reset()
    saved = await client.mesh.save_meshes(roots, folder)
    assert list(saved) == roots[:3]
    assert len(saved.errors) == 57
    assert all("No space left on device" in str(error) for error in saved.errors.values())
    manifests = sandbox.counters.snapshot().routes["GET /meshing/api/v1/table/{table}/manifest/{node_id}:0"]
    assert manifests.requests < 57, "nothing more is fetched once the disk is full"
    assert names(folder) == {f"{root}.ply" for root in roots[:3]}


async def test_a_folder_that_cannot_be_made(client: AsyncCortexClient, folder: Path) -> None:
    (folder / "file").write_text("in the way")
    saved = await client.mesh.save_meshes(ROOTS[:1], folder / "file" / "meshes")
    assert isinstance(saved.errors[ROOTS[0]], CortexError)
    assert "was not written" in str(saved.errors[ROOTS[0]])


async def test_an_unknown_format(client: AsyncCortexClient, folder: Path) -> None:
    with pytest.raises(CortexUsageError, match="file_format='obj'"):
        await client.mesh.save_meshes(ROOTS, folder, "obj")
