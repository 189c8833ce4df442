"""Under a limit of 300 queries a minute: how much of it is used, and how often is it passed?

Four ways to ask as much as the service will give, one after the other, each against a sandbox of its own with the
charts' limits. The minute is shortened on both sides, to three seconds: the server's clock runs 20 times as fast, and
the client's idea of a minute and its waits are scaled alike, so that six minutes take eighteen seconds. A latency of
20 ms then stands for 0.4 s. Requests and refusals are the server's own count. ``of_limit`` leaves out the first minute,
in which the service gives what it has saved up.

    python -m benchmarks limits
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from unittest import mock

import httpx
from httpx_aiohttp import AiohttpTransport

from cortexclient import AsyncCortexClient, Limits, RetryPolicy
from cortexclient._transport import limits
from cortexclient._wire import endpoints, json
from cortexclient.datasets.spec import CHARTS, polite
from cortexclient.errors import RateLimited
from cortexclient.sandbox import RateLimits, Sandbox, World

from .report import keep

SPEED = 20
"""How many times as fast as real ones minutes pass."""
AT_ONCE = 64
LIMIT = CHARTS["query"]
GOALS = "refused_share <= 0.01, of_limit >= 0.90 where the limit is known or learned"
Ask = Callable[[], Awaitable[bool]]
WAYS: dict[str, Limits | None] = {
    "preset (half)": polite(),
    "limit known": Limits(per_minute={"query": LIMIT}),
    "limit learned": Limits(per_minute={}),
    "naive gather": None,
}


@contextlib.contextmanager
def shorter_minutes() -> Iterator[None]:
    """The client's minute, as short as the server's."""
    seconds = {unit: value / SPEED for unit, value in limits.SECONDS.items()}
    with mock.patch.object(limits, "MINUTE", limits.MINUTE / SPEED), mock.patch.object(limits, "SECONDS", seconds):
        yield


@contextlib.asynccontextmanager
async def ours(sandbox: Sandbox, way: Limits) -> AsyncIterator[Ask]:
    retry = RetryPolicy(cap=RetryPolicy().cap / SPEED, base=RetryPolicy().base / SPEED)
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token, limits=way, retry=retry) as client:
        version = await client.most_recent_materialization_version()
        place = {"version": version, "name": client.spec.nucleus_table}
        body = json.encode({"limit": 1})

        async def ask() -> bool:
            try:
                await client._session.send(endpoints.TABLE_QUERY, place, query={"return_pyarrow": "True"}, body=body)
            except RateLimited:
                return False
            return True

        yield ask


@contextlib.asynccontextmanager
async def naive(sandbox: Sandbox) -> AsyncIterator[Ask]:
    """As it is often written: a refused one tries again a second later."""
    pool = AiohttpTransport(limits=httpx.Limits(max_connections=AT_ONCE))
    headers = {"Authorization": f"Bearer {sandbox.token}", "Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=sandbox.url, transport=pool, headers=headers, timeout=None) as client:
        place = {"version": sandbox.world.version().version, "name": sandbox.spec.nucleus_table}
        path = endpoints.TABLE_QUERY.path.format(datastack=sandbox.spec.datastack, **place)

        async def ask() -> bool:
            reply = await client.post(path, params={"return_pyarrow": "True"}, content=b'{"limit": 1}')
            if reply.status_code == 429:
                await asyncio.sleep(1 / SPEED)
            return reply.status_code == 200

        yield ask


async def drive(ask: Ask, seconds: float) -> list[float]:
    """When good answers came, of so many callers that always have more to ask."""
    begun, good = time.perf_counter(), list[float]()

    async def work() -> None:
        while True:
            if await ask():
                good.append(time.perf_counter() - begun)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return good


async def measure(world: World, name: str, minutes: float) -> dict[str, Any]:
    way, minute = WAYS[name], 60 / SPEED
    rates = RateLimits(clock=lambda: time.monotonic() * SPEED)
    with Sandbox(world, latency=0.02, limits=rates) as sandbox:
        async with naive(sandbox) if way is None else ours(sandbox, way) as ask:
            sandbox.counters.reset()
            good = await drive(ask, minutes * minute)
        counts = sandbox.counters.snapshot().total
    steady = sum(when >= minute for when in good) / (minutes - 1)
    refused = counts.statuses.get(429, 0)
    return {
        "way": name,
        "requests": counts.requests,
        "refused": refused,
        "refused_share": refused / counts.requests,
        "good": len(good),
        "of_limit": steady / LIMIT,
    }


def run(rounds: int = 1, minutes: float = 6.0) -> None:  # noqa: ARG001 (as all parts are called)
    """Measure each way once: a rate takes minutes to settle, and rounds are what those minutes are."""
    world = World.default()
    with shorter_minutes():
        rows = [asyncio.run(measure(world, name, minutes)) for name in WAYS]
    setting = {"limit_per_minute": LIMIT, "minutes": minutes, "a_minute_takes_s": 60 / SPEED, "latency_s": 0.02}
    keep("limits", "300 queries a minute", setting | {"callers": AT_ONCE, "goals": GOALS}, rows)
