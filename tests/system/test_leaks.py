"""Nothing is left behind: no task, no thread, no connection, however a call ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.patience import HANG, until, until_so

from cortexclient import AsyncCortexClient, CortexClient, CortexError, RetryPolicy
from cortexclient.sandbox import Faults, Sandbox, World

QUICK = RetryPolicy(base=0.005, cap=0.02)
Act = Callable[[AsyncCortexClient, np.ndarray], Awaitable[Any]]


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, latency=0.005) as sandbox:
        yield sandbox


def sockets() -> int:
    """Open sockets of this process."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("open files are counted in /proc, which is not here")
    count = 0
    for number in folder.iterdir():
        with suppress(OSError):
            count += number.readlink().name.startswith("socket:")
    return count


async def settled(count: Callable[[], int], expected: int) -> int:
    """A count, once it has come down to what is expected, or stays above: the server closes its ends a little later."""
    with contextlib.suppress(TimeoutError):
        await until_so(lambda: count() <= expected)
    return count()


async def at_rest(count: Callable[[], int]) -> int:
    """A count that has not changed for a while: the server may still be closing its ends of earlier connections."""
    seen = [count()]
    while len(seen) < 100 and (len(seen) < 5 or len(set(seen[-5:])) > 1):
        await asyncio.sleep(0.02)
        seen.append(count())
    return seen[-1]


async def calm(client: AsyncCortexClient, roots: np.ndarray) -> None:
    await client.chunkedgraph.get_root_timestamps(roots)
    await client.root_id_to_cell_id(roots[:500])


async def failing(client: AsyncCortexClient, roots: np.ndarray) -> None:
    with pytest.raises(CortexError):
        await client.chunkedgraph.get_root_timestamps(np.append(roots, roots[-1] + 12_345))


async def late(client: AsyncCortexClient, roots: np.ndarray) -> None:
    with pytest.raises(TimeoutError):
        await client.root_id_to_cell_id(roots, timeout=0.005)


async def cancelled(client: AsyncCortexClient, roots: np.ndarray) -> None:
    tasks = [asyncio.create_task(client.is_latest_roots(int(root))) for root in roots[:2_000]]
    tasks.append(asyncio.create_task(client.update_roots(roots)))
    await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def abandoned(client: AsyncCortexClient, roots: np.ndarray) -> None:
    tasks = [asyncio.create_task(client.get_latest_roots(int(root))) for root in roots[:50]]
    await asyncio.sleep(0.02)
    await client.aclose()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, CortexError | np.ndarray) for outcome in outcomes)


@pytest.mark.parametrize("act", [calm, failing, late, cancelled, abandoned])
@pytest.mark.parametrize("weather", ["", "503:5%,reset:3%,truncated:3%"])
async def test_nothing_is_left_behind(served: Sandbox, world: World, act: Act, weather: str) -> None:
    roots = np.sort(world.graph.root_ids())[:4_000]
    served.faults = Faults(weather, seed=4)
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    before = await at_rest(sockets)
    async with AsyncCortexClient(served.spec, token=served.token, retry=QUICK) as client:
        await act(client, roots)
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - tasks == set(), "while the client is still open"
    assert await settled(sockets, before) <= before
    assert set(threading.enumerate()) - threads == set()
    served.faults = ""  # type: ignore[assignment]


UNCLOSED = """
import asyncio, sys
from cortexclient import AsyncCortexClient
from cortexclient.sandbox import Sandbox

async def main(sandbox):
    client = AsyncCortexClient(sandbox.spec, token=sandbox.token)
    print(await client.materialize.get_versions())

with Sandbox() as sandbox:
    asyncio.run(main(sandbox))
"""


def test_a_program_may_end_without_closing_its_client() -> None:
    program = [sys.executable, "-X", "dev", "-W", "default", "-c", UNCLOSED]
    done = subprocess.run(program, capture_output=True, text=True, timeout=HANG, check=True)
    assert done.stdout.startswith("[")
    assert "unclosed" not in done.stderr.lower()


async def test_failures_hold_no_memory(served: Sandbox, world: World) -> None:
    """Errors carry ids and answers; none of them may be kept by the client."""
    roots = np.sort(world.graph.root_ids())[:500]
    ids = np.append(roots, roots[-1] + 12_345)
    pin = datetime.now(UTC)  # another address for each call would fill the caches of addresses
    async with AsyncCortexClient(served.spec, token=served.token, timestamp=pin) as client:
        graph = client.chunkedgraph

        async def fail(times: int) -> int:
            for _ in range(times):
                with suppress(CortexError):
                    await graph.get_root_timestamps(ids)
                await asyncio.gather(*(graph.get_root_timestamps(int(i)) for i in ids[-3:]), return_exceptions=True)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            warm = await fail(15)
            later = await fail(30)
        finally:
            tracemalloc.stop()
    assert later - warm < 30 * ids.nbytes / 2, "other threads of the tests come and go, too"


def test_the_blocking_client_leaves_its_one_thread_alone(served: Sandbox, world: World) -> None:
    roots = np.sort(world.graph.root_ids())[:300]
    with CortexClient(served.spec, token=served.token) as client:
        client.get_roots(roots[:3])
    threads, before = set(threading.enumerate()), sockets()
    for _ in range(5):
        with CortexClient(served.spec, token=served.token) as client:
            client.is_latest_roots(roots)
            with suppress(TimeoutError):
                client.root_id_to_cell_id(roots, timeout=0.005)
    assert set(threading.enumerate()) - threads == set()
    until(lambda: sockets() <= before)
