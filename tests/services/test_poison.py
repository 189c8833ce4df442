"""One id that the server chokes on spoils one outcome: array-valued calls name it, and keep what was found."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cortexclient import AsyncCortexClient, CortexError, RetryPolicy
from cortexclient.errors import ServerError, ServerRefusedError, UnavailableError
from cortexclient.sandbox import Faults, Sandbox, World

from .conftest import client_of

QUICK = RetryPolicy(base=0.001, cap=0.002)
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def own_sandbox(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
async def sick(flavour: str, own_sandbox: Sandbox) -> AsyncIterator[AsyncCortexClient]:
    """A client of a server whose faults may be set."""
    own_sandbox.faults = ""  # type: ignore[assignment]
    async with client_of(flavour, own_sandbox, retry=QUICK) as client:
        yield client
    own_sandbox.faults = ""  # type: ignore[assignment]


@pytest.fixture(scope="module")
def roots(world: World) -> np.ndarray:
    return np.sort(world.graph.root_ids())


CALLS = ["get_root_timestamps", "is_latest_roots", "is_valid_nodes", "get_leaves_many", "get_lineage_graph", "roots"]


async def ask(client: AsyncCortexClient, call: str, ids: Any) -> Any:
    graph = client.chunkedgraph
    if call == "roots":
        return await graph.get_roots(ids)
    return await getattr(graph, call)(ids)


@pytest.mark.parametrize("call", CALLS)
async def test_the_guilty_are_named_and_the_rest_is_kept(
    sick: AsyncCortexClient, own_sandbox: Sandbox, roots: np.ndarray, call: str
) -> None:
    ids = roots[:300]
    whole = await ask(sick, call, ids)
    bad = {int(ids[7]), int(ids[150]), int(ids[299])}
    own_sandbox.faults = Faults(poison=bad)
    before = sick.stats.requests
    with pytest.raises(ServerError) as caught:
        await ask(sick, call, ids)
    assert set(caught.value.ids) == bad
    requests = sick.stats.requests - before
    alone = 300 if call == "get_leaves_many" else 4  # those are asked one by one
    assert requests <= alone + len(bad) * 2 * math.ceil(math.log2(300))
    partial = caught.value.partial
    if call == "get_lineage_graph":
        # a good root's lineage may name a bad one; only what was asked about the bad ones is missing
        assert {node["id"] for node in partial["nodes"]} >= set(ids.tolist()) - bad
        assert {node["id"] for node in partial["nodes"]} <= {node["id"] for node in whole["nodes"]}
    else:
        assert set(partial) == set(ids.tolist()) - bad
        if call == "get_leaves_many":
            assert all(sorted(partial[i]) == sorted(whole[i]) for i in partial)
        elif call != "get_root_timestamps":
            assert [partial[i] for i in ids.tolist() if i not in bad] == [
                value for i, value in zip(ids.tolist(), whole.tolist(), strict=True) if i not in bad
            ]


async def test_few_ids_are_told_apart_too(sick: AsyncCortexClient, own_sandbox: Sandbox, roots: np.ndarray) -> None:
    own_sandbox.faults = Faults(poison=[int(roots[3])])
    with pytest.raises(ServerError) as caught:
        await sick.is_latest_roots(roots[:10])
    assert caught.value.ids == (roots[3],)
    assert len(caught.value.partial) == 9


async def test_an_unexplained_500_is_tried_twice_and_then_taken_apart(
    sick: AsyncCortexClient, own_sandbox: Sandbox, roots: np.ndarray
) -> None:
    own_sandbox.faults = Faults("500", only="root_timestamps", times=2)
    times = await sick.chunkedgraph.get_root_timestamps(roots[:200])
    assert len(times) == 200


async def test_a_server_that_fails_always_is_not_asked_for_ever(
    sick: AsyncCortexClient, own_sandbox: Sandbox, roots: np.ndarray
) -> None:
    await sick.chunkedgraph.segmentation_info()
    own_sandbox.faults = Faults("500")
    before = sick.stats.requests
    with pytest.raises(ServerError) as caught:
        await sick.chunkedgraph.get_roots(roots[:400])
    assert len(caught.value.ids) == 400
    assert sick.stats.requests - before < 100


async def test_an_outage_fails_fast_and_keeps_what_was_found(
    sick: AsyncCortexClient, own_sandbox: Sandbox, roots: np.ndarray
) -> None:
    await sick.chunkedgraph.segmentation_info()
    own_sandbox.faults = Faults("503")
    with pytest.raises(UnavailableError) as caught:
        await sick.chunkedgraph.get_root_timestamps(np.tile(roots, 2)[:5_000])
    assert not isinstance(caught.value, ServerRefusedError)
    assert caught.value.partial == {}


async def test_unknown_ids_of_all_batches_are_named_at_once(sick: AsyncCortexClient, roots: np.ndarray) -> None:
    unknown = {int(roots[-1]) + 12_345, int(roots[0]) + 99_999_999, int(roots[-1]) + 5_000_001}
    ids = np.array([*roots, *unknown])
    with pytest.raises(CortexError) as caught:
        await sick.chunkedgraph.get_root_timestamps(ids)
    assert set(caught.value.ids) == unknown
    assert set(caught.value.partial) == set(roots.tolist())
