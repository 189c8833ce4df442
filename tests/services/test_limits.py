"""A service that limits, and one that is sick: what becomes of the others, and what the client tells of it."""

from __future__ import annotations

import asyncio

from tests.patience import HANG, until_so

from cortexclient import Limits, RetryPolicy
from cortexclient.sandbox import Faults, RateLimits, Sandbox, World

from .conftest import client_of


async def test_what_limits_is_to_be_seen(flavour: str, world: World) -> None:
    with Sandbox(world, limits=RateLimits(scale=0.02)) as sandbox:  # six queries a minute, forty quick ones
        async with client_of(flavour, sandbox) as client:
            await client.materialize.get_tables(1412)
            stats = client.stats
    assert stats.per_minute["fast_query"] == 20
    assert stats.per_minute.keys() <= client.spec.limits.per_minute.keys()
    assert stats.width["materialize"] > 4, "good answers widen it"
    assert stats.refused == {}
    assert stats.peak["materialize"] >= 1


async def test_a_limit_that_nobody_knew_is_learned_from_the_first_refusal(flavour: str, world: World) -> None:
    def clock() -> float:
        """Stands still until the first refusal: however long the thirty take, the next one is too many."""
        return 60.0 if sandbox.counters.snapshot().total.statuses.get(429) else 0.0

    with Sandbox(world, limits=RateLimits(scale=0.1, clock=clock)) as sandbox:
        client = client_of(flavour, sandbox, limits=Limits(per_minute={}))
        async with client:
            table = client.spec.nucleus_table
            await asyncio.gather(
                *(client.materialize.query_table(table, limit=1, materialization_version=1412) for _ in range(31))
            )
            stats = client.stats
    assert stats.refused == {"query": 1}
    assert 28 < stats.per_minute["query"] < 30
    assert stats.held_back["query"] > 1
    assert "fast_query" not in stats.per_minute


async def test_a_sick_service_does_not_stop_the_others(flavour: str, world: World) -> None:
    with Sandbox(world, faults=Faults("503:100%", only="/materialize/")) as sandbox:
        stubborn = RetryPolicy(attempts=1_000_000, call_retries=1_000_000, base=0.05, cap=0.05, deadline=HANG)
        async with client_of(flavour, sandbox, retry=stubborn) as client:
            supervoxels = world.tables["nucleus_detection_v0"].rows["pt_supervoxel_id"][:50].to_list()
            sick = [asyncio.create_task(client.materialize.get_tables(1412)) for _ in range(20)]
            await until_so(lambda: client.stats.retries)
            for _ in range(20):
                await client.chunkedgraph.get_roots(supervoxels)
            assert not any(task.done() for task in sick)
            stats = client.stats
            sandbox.faults = ""
            assert all(await asyncio.gather(*sick))
    assert stats.width["materialize"] <= 2
    assert stats.width["chunkedgraph"] > 4
