"""Ten thousand tasks that ask about one id each, and the handful of requests that they cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from tests.patience import held

from cortexclient import AsyncCortexClient, CortexClient, NotFoundError, _coalesce
from cortexclient.sandbox import Faults, Sandbox, World


@pytest.fixture
async def open_client(sandboxes: dict[str, Sandbox]) -> AsyncIterator[AsyncCortexClient]:
    sandbox = sandboxes["async"]
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        yield client


@pytest.fixture(scope="module")
def supervoxels(world: World) -> np.ndarray:
    cells = world.graph.cells.node
    return np.unique(cells[world.graph.layout.layer(cells) == 1])


async def requests_of(client: AsyncCortexClient, call: Any) -> tuple[Any, int]:
    before = client.stats.requests
    answer = await call
    return answer, client.stats.requests - before


async def test_ten_thousand_single_look_ups_cost_a_handful_of_requests(
    open_client: AsyncCortexClient, supervoxels: np.ndarray
) -> None:
    ids = np.resize(supervoxels, 10_000)
    graph = open_client.chunkedgraph
    one_by_one, requests = await requests_of(open_client, asyncio.gather(*(graph.get_root_id(int(i)) for i in ids)))
    assert requests <= 2 + 10
    assert one_by_one == (await graph.get_roots(ids)).tolist()


@pytest.mark.parametrize(
    "call", ["is_latest_roots", "latest_valid_timestamp", "root_lifetimes", "get_roots", "is_valid_nodes"]
)
async def test_all_look_ups_of_one_id_are_joined(open_client: AsyncCortexClient, world: World, call: str) -> None:
    roots = world.graph.root_ids()[:1_000]
    method = getattr(open_client, call, None) or getattr(open_client.chunkedgraph, call)
    whole = await method(roots)
    single, requests = await requests_of(open_client, asyncio.gather(*(method(int(root)) for root in roots)))
    assert requests <= 4
    if call == "root_lifetimes":
        import pandas as pd

        together = pd.concat(single)
        assert together["start"].tolist() == whole["start"].tolist()
        assert together["is_latest"].tolist() == whole["is_latest"].tolist()
    elif call != "latest_valid_timestamp":  # (of a current root: just now)
        assert [part[0] for part in single] == whole.tolist()


async def test_pinned_and_other_instants_stay_apart(open_client: AsyncCortexClient, world: World) -> None:
    supervoxel = int(world.graph.cells.node.min())
    versions = await open_client.materialize.get_versions()
    views = [open_client.at(version=version) for version in versions]
    answers = await asyncio.gather(*(view.get_roots(supervoxel) for view in views for _ in range(20)))
    for version, some in zip(versions, np.array_split(np.concatenate(answers), len(versions)), strict=True):
        truth = await open_client.get_roots(supervoxel, await open_client.version_timestamp(version))
        assert set(some.tolist()) == {int(truth[0])}


async def test_only_those_who_asked_for_the_unknown_fail(open_client: AsyncCortexClient, world: World) -> None:
    roots = world.graph.root_ids()[:50].tolist()
    unknown = max(world.graph.root_ids().tolist()) + 7_777
    answers = await asyncio.gather(
        *(open_client.chunkedgraph.get_root_timestamps(i) for i in [*roots, unknown]), return_exceptions=True
    )
    assert all(len(answer) == 1 for answer in answers[:-1])
    assert isinstance(answers[-1], NotFoundError)
    assert answers[-1].ids == (unknown,)


async def test_one_who_gives_up_harms_nobody(world: World, supervoxels: np.ndarray) -> None:
    with Sandbox(world) as sandbox:
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            await client.chunkedgraph.segmentation_info()
            with held(sandbox) as asked:
                tasks = [asyncio.create_task(client.get_roots(int(i))) for i in supervoxels[:100]]
                await asked(1)
                for task in tasks[::2]:
                    task.cancel()
                await asyncio.wait(tasks[::2])
            answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
    assert all(answer[0] > 0 for answer in answers[1::2])


async def test_a_deadline_of_one_is_its_own(world: World, supervoxels: np.ndarray) -> None:
    with Sandbox(world, latency=0.1) as sandbox:
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            await client.chunkedgraph.segmentation_info()
            hasty, patient = await asyncio.gather(
                client.get_roots(int(supervoxels[0]), timeout=0.03),
                client.get_roots(int(supervoxels[1])),
                return_exceptions=True,
            )
    assert isinstance(hasty, TimeoutError)
    assert patient[0] > 0


async def test_a_poisoned_id_fails_for_its_own_caller(world: World) -> None:
    roots = world.graph.root_ids()[:200].tolist()
    with Sandbox(world, faults=Faults(poison=[roots[77]])) as sandbox:
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            answers = await asyncio.gather(*(client.is_latest_roots(i) for i in roots), return_exceptions=True)
    failed = [i for i, answer in zip(roots, answers, strict=True) if isinstance(answer, Exception)]
    assert failed == [roots[77]]


def test_threads_of_the_blocking_client_share_requests_too(
    world: World, supervoxels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    monkeypatch.setattr(_coalesce, "TICK", 0.2)  # within which the threads of a busy machine ask
    with Sandbox(world, latency=0.02) as sandbox, CortexClient(sandbox.spec, token=sandbox.token) as client:
        client.chunkedgraph.segmentation_info()
        before = client.stats.requests
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: int(client.get_roots(int(i))[0]), supervoxels[:64]))
        requests = client.stats.requests - before
        assert answers == client.get_roots(supervoxels[:64]).tolist()
    assert requests < 64 / 2
