"""Meshes of very different sizes together: forty small neurons, and one a thousand times as large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient
from cortexclient.errors import TooLarge
from cortexclient.sandbox import Datastack, Sandbox, World
from cortexclient.sandbox.graph import Cells, Edges, Graph, Layout, Lineage
from cortexclient.services.mesh import _meshes
from cortexclient.services.mesh._bytes import ByteGate

from .conftest import client_of

pytest.importorskip("cloudvolume", reason="meshes are cloudvolume.Mesh objects")
CREATED_MS = 1_590_758_803_761
LENGTHS = [1] * 20 + [1000] + [1] * 20
"""Fragments of each neuron."""
LIMIT = 200_000
"""Bytes for some small meshes, and by far not for the large one."""


def world_of(lengths: list[int]) -> World:
    """Neurons that run along x, of one supervoxel a chunk."""
    layout = Layout.minnie65()
    neuron = np.repeat(np.arange(len(lengths)), lengths)
    along = np.concatenate([np.arange(length) for length in lengths])
    chunk = np.stack([100 + along % 250, 50 + along // 250, 1 + neuron], axis=-1)
    supervoxel, level2 = (layout.make(layer, chunk, np.ones_like(neuron)) for layer in (1, 2))
    root = layout.make(12, np.zeros((len(neuron), 3), np.int64), 256 * (1 + neuron))
    same = np.flatnonzero(np.diff(neuron) == 0)
    a, b, none = supervoxel[same], supervoxel[same + 1], np.empty(0, np.int64)
    nodes, parents = np.concatenate([supervoxel, level2]), np.concatenate([level2, root])
    graph = Graph(
        layout,
        table="minnie3_v1",
        created_ms=CREATED_MS,
        cells=Cells(nodes, parents, np.full(len(nodes), CREATED_MS)),
        lineage=Lineage(none, none, none),
        operations=(),
        edges=Edges(a, b, np.ones(len(a), np.float32), np.ones(len(a), np.int32), np.ones(len(a), bool)),
    )
    stack = Datastack("minnie65_public", "minnie65_phase3", "minnie3_v1")
    return World("minnie65", 0, graph, datastacks={stack.name: stack})


@pytest.fixture(scope="module")
def uneven() -> Iterator[Sandbox]:
    with Sandbox(world_of(LENGTHS)) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def roots(uneven: Sandbox) -> list[int]:
    """In the order of ``LENGTHS``."""
    return uneven.world.graph.root_ids().tolist()


@pytest.fixture
async def client(flavour: str, uneven: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    async with client_of(flavour, uneven) as client:
        yield client


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[WatchedGate]:
    """Those that the streams of a test made."""
    made: list[WatchedGate] = []
    monkeypatch.setattr(_meshes, "ByteGate", lambda limit: made.append(WatchedGate(limit)) or made[-1])
    return made


class WatchedGate(ByteGate):
    """Remembers what went through."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.taken: list[tuple[int, int]] = []
        """Bytes that somebody took, and those that all held then."""

    async def take(self, count: int) -> None:
        await super().take(count)
        self.taken.append((count, self.held))


async def test_small_ones_overtake_a_large_one_that_waits_for_room() -> None:
    gate = ByteGate(100)
    await gate.take(60)
    large = asyncio.create_task(gate.take(1_000))
    await asyncio.sleep(0)
    await asyncio.wait_for(gate.take(40), HANG)
    assert not large.done()
    await gate.give(60)
    await gate.give(40)
    await asyncio.wait_for(large, HANG)
    assert gate.held == 1_000


async def test_one_is_a_thousand_times_as_large(
    client: AsyncCortexClient, roots: list[int], gates: list[WatchedGate]
) -> None:
    large, arrived = roots[20], {}
    async with client.mesh.stream_meshes(roots, bytes_at_once=LIMIT) as outcomes:
        async for outcome in outcomes:
            arrived[outcome.id] = outcome.unwrap()
    assert set(arrived) == set(roots)
    vertices = {root: len(mesh.vertices) for root, mesh in arrived.items()}
    assert vertices[large] > 1_000 * np.median(list(vertices.values()))
    (gate,) = gates
    assert max(taken for taken, _ in gate.taken) > 20 * LIMIT
    assert all(held <= LIMIT or held == taken for taken, held in gate.taken), "too much under way"
    assert gate.held == 0


async def test_the_large_one_first(client: AsyncCortexClient, roots: list[int], gates: list[WatchedGate]) -> None:
    """It goes alone, and the others after it."""
    ids = [roots[20], *roots[:20]]
    async with client.mesh.stream_meshes(ids, bytes_at_once=LIMIT) as outcomes:
        arrived = [outcome.unwrap().segid async for outcome in outcomes]
    assert sorted(arrived) == sorted(ids)
    assert all(held <= LIMIT or held == taken for taken, held in gates[0].taken)


async def test_the_large_one_can_be_refused(client: AsyncCortexClient, uneven: Sandbox, roots: list[int]) -> None:
    large = roots[20]
    small = [root for root in roots if root != large]
    uneven.counters.reset()
    meshes = await client.mesh.get_meshes(roots, max_bytes=20_000)
    assert list(meshes) == small
    (error,) = meshes.errors.values()
    assert isinstance(error, TooLarge)
    assert error.ids == (large,)
    assert "1,000 fragments" in str(error)
    assert "above max_bytes=20,000: allow more, or take the part within bounds=" in str(error)
    routes = uneven.counters.snapshot().routes
    assert routes["GET /storage/{bucket}/{path:path}"].requests <= len(small) + 1, "nothing of it is fetched"
    async with client.mesh.stream_meshes(roots, max_bytes=20_000, bytes_at_once=LIMIT) as outcomes:
        told = {outcome.id: outcome.error async for outcome in outcomes}
    assert {root for root, error in told.items() if error is None} == set(small)
    assert isinstance(told[large], TooLarge)
