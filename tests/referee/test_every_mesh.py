"""cloud-volume as referee of every neuron: the same vertices and the same triangles, world by world.

By default of some roots of each world, and of a piece of some real neurons. Of all of them (minutes), and of all real
neurons as a whole (hours: the peer sorts all vertices of a mesh, and a real neuron has thousands of fragments):

    CORTEXCLIENT_EVERY_NEURON=1 pytest -o faulthandler_timeout=0 --log-cli-level=INFO tests/referee/test_every_mesh.py
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cortexclient import CortexClient
from cortexclient.config import Timeouts
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.meshes import Meshes

from .peers import imported

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::ResourceWarning")
Ids = npt.NDArray[np.int64]

LOG = logging.getLogger(__name__)
EVERY_NEURON = bool(os.environ.get("CORTEXCLIENT_EVERY_NEURON"))
MOST = 40
"""Roots of each world, unless all are wanted."""
BATCH = 500
"""Roots whose meshes are in memory together."""
PEERS = 8
"""Threads that ask the peer, which sleeps through most of a small mesh."""
REACH = 3
"""How many chunks a piece of a real neuron reaches to each side."""
MIXERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)


def of_several_layers() -> World:
    world = World.synthesize(5, nuclei=40, edits=60)
    world.graph.info["mesh_metadata"] = {"max_meshed_layer": 4}
    return world


WORLDS: dict[str, Callable[[], World]] = {
    "default": World.default,
    "edited": lambda: World.synthesize(1, nuclei=40, edits=400, backups=16, versions=5, expired=2),
    "v1dd": lambda: World.synthesize(2, nuclei=120, edits=150, dataset="v1dd", versions=3, expired=1),
    "several layers": of_several_layers,
}


class Referee:
    """Both clients of one world, and what has been compared."""

    def __init__(self, sandbox: Sandbox) -> None:
        table = sandbox.world.datastacks[sandbox.spec.datastack].segmentation
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.volume = imported("cloudvolume").CloudVolume(
                f"graphene://{sandbox.url}/segmentation/table/{table}",
                use_https=True,
                secrets={"token": sandbox.token},
                progress=False,
            )
        # a sandbox makes fragments when it is first asked for a manifest: all of a large neuron's take it a while
        self.client = CortexClient(sandbox.spec, token=sandbox.token, timeouts=Timeouts(read=1800))
        self.meshes = self.vertices = self.triangles = 0

    def compare(self, roots: Ids, box: Any = None, *, threads: int = PEERS) -> None:
        """The meshes of roots; or what of them is in a box of voxels."""
        bounds = None if box is None else tuple(zip(box.minpt.tolist(), box.maxpt.tolist(), strict=True))
        with ThreadPoolExecutor(threads) as pool:
            for start in range(0, len(roots), BATCH):
                some = roots[start : start + BATCH].tolist()
                theirs = pool.map(lambda root: self.volume.mesh.get(root, bounding_box=box)[root], some)
                ours = self.client.mesh.get_meshes(some, source="graphene", bounds=bounds).raise_if_failed()
                for root, their in zip(some, theirs, strict=True):
                    self.same(root, ours[root], their)

    def same(self, root: int, ours: Any, theirs: Any) -> None:
        assert (ours.vertices.dtype, ours.faces.dtype) == (theirs.vertices.dtype, theirs.faces.dtype)
        for mine, other in zip(multisets(ours), multisets(theirs), strict=True):
            assert np.array_equal(mine, other), f"the mesh of {root} is not the peer's"
        self.meshes += 1
        self.vertices += len(ours.vertices)
        self.triangles += len(ours.faces)


def multisets(mesh: Any) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Numbers in order: one for each vertex, its place, and one for each triangle, 64 bits mixed of its corners."""
    places = mesh.vertices.astype(np.int64)
    assert np.array_equal(places, mesh.vertices), "vertices lie on whole nanometres"
    assert places.min(initial=0) >= 0
    assert places.max(initial=0) < 1 << 21
    keys = (places << [42, 21, 0]).sum(axis=1).astype(np.uint64)
    return np.sort(keys), np.sort((keys[mesh.faces] * MIXERS).sum(axis=1, dtype=np.uint64))


@contextmanager
def referee_of(world: World, name: str) -> Iterator[Referee]:
    begun = time.perf_counter()
    with Sandbox(world) as sandbox:
        referee = Referee(sandbox)
        with referee.client:
            yield referee
    took = time.perf_counter() - begun
    told = f"{referee.meshes:,} meshes, {referee.vertices:,} vertices, {referee.triangles:,} triangles are equal"
    LOG.info("%s: %s; %.0f s", name, told, took)


def some_of(roots: Ids, most: int = MOST) -> Ids:
    return roots if EVERY_NEURON else roots[:: max(1, len(roots) // most)]


@pytest.mark.parametrize("name", WORLDS)
def test_every_root_of_a_synthetic_world(name: str) -> None:
    """Of all times, large and small."""
    world = WORLDS[name]()
    with referee_of(world, name) as referee:
        referee.compare(some_of(world.graph.root_ids()))


def test_every_root_of_the_recorded_world(shared_data: Path) -> None:
    """The graph that was recorded from a real server; its meshes, which were not recorded, are the sandbox's."""
    world = World.from_toy(shared_data)
    del world.graph.info["data_dir"]
    with referee_of(world, "toy") as referee:
        referee.compare(some_of(world.graph.root_ids()))


@pytest.fixture(scope="module")
def real(shared_data: Path) -> World:
    return World.from_minnie65(shared_data)


def neurons_of(world: World) -> Ids:
    """The real ones, the smallest first."""
    roots = world.shapes.skeletons["root_id"].to_numpy()
    _, owner = world.graph.leaves_of(roots, 2)
    return roots[np.argsort(np.bincount(owner))]


def test_a_piece_of_every_real_neuron(real: World) -> None:
    """Its middle, some hundred fragments."""
    with referee_of(real, "real neurons, a piece of each") as referee:
        for root in some_of(neurons_of(real), 2).tolist():
            referee.compare(np.array([root]), middle_of(real, root), threads=1)


def test_every_real_neuron_as_a_whole(real: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tubes have few rings, else it would be a day: the peer sorts all vertices of a mesh."""
    if not EVERY_NEURON:
        pytest.skip("takes hours: CORTEXCLIENT_EVERY_NEURON=1 asks for it")
    monkeypatch.setattr("cortexclient.sandbox.surfaces.MOST_RINGS", 2)
    monkeypatch.setattr(real, "meshes", Meshes(real.graph, real.level2.points))
    with referee_of(real, "real neurons, whole") as referee:
        for root in neurons_of(real).tolist():
            begun = time.perf_counter()
            referee.compare(np.array([root]), threads=1)
            LOG.info("%s: %s vertices until now; %.0f s", root, referee.vertices, time.perf_counter() - begun)


def middle_of(world: World, root: int) -> Any:
    """The box of the chunks around one in the middle of a neuron, in voxels."""
    layout, nodes = world.graph.layout, world.graph.leaves(root, 2)
    chunks = layout.chunk(nodes)
    chunk = chunks[np.abs(chunks - np.median(chunks, axis=0)).sum(axis=1).argmin()]
    corners = (layout.voxel_offset + (chunk + step) * np.array(layout.chunk_size) for step in (-REACH, REACH + 1))
    return imported("cloudvolume").Bbox(*corners)
