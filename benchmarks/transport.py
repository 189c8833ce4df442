"""What the transport costs: ours against a bare httpx client over the same connection pool, in the same run.

Variants take turns, so that whatever else the machine does hits both; figures are medians over rounds. The bound of
``c`` requests in flight with a delay of ``d`` is ``c / d`` requests a second.

    python -m benchmarks.transport [--rounds 15] [--requests 1000]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from httpx_aiohttp import AiohttpTransport

from cortexclient._transport import Transport
from cortexclient._wire.endpoints import ROOTS_BINARY
from cortexclient.config import Limits

from . import small_server
from .report import keep

DELAY = 0.02
BODY = bytes(64)
PATH = {"table": "minnie3_v1"}
QUERY = {"timestamp": "1709294400.123456"}
GOALS = "of_bound >= 0.85 at 16, of_bare >= 0.80 at 64, added_cpu_ms <= 0.15"
Ask = Callable[[], Awaitable[object]]


def bare(client: httpx.AsyncClient, origin: str) -> Ask:
    """The least that httpx can do: a prebuilt request, the body read whole."""
    url = httpx.URL(f"{origin}/segmentation/api/v1/table/minnie3_v1/roots_binary?timestamp=1709294400.123456")
    headers = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "bare", "Authorization": "x"})
    extensions = {"timeout": {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": None}}

    async def ask() -> object:
        return await client.send(httpx.Request("POST", url, headers=headers, content=BODY, extensions=extensions))

    return ask


def ours(transport: Transport, origin: str) -> Ask:
    """The whole way: gate, retry policy, request, checks, reply."""

    async def ask() -> object:
        return await transport.send(ROOTS_BINARY, origin, path=PATH, query=QUERY, body=BODY)

    return ask


async def measure(ask: Ask, requests: int, in_flight: int) -> tuple[float, float]:
    """Requests a second, and milliseconds of CPU a request."""
    jobs = iter(range(requests))

    async def work() -> None:
        for _ in jobs:
            await ask()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return requests / (time.perf_counter() - wall), (time.process_time() - cpu) / requests * 1e3


async def compare(origin: str, in_flight: int, rounds: int, requests: int) -> dict[str, Any]:
    """One row of the table."""
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    client = httpx.AsyncClient(transport=AiohttpTransport(limits=limits))
    transport = Transport(limits=Limits(in_flight=in_flight))
    variants = {"bare": bare(client, origin), "ours": ours(transport, origin)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for ask in variants.values():
        await measure(ask, 200, in_flight)  # connections, and the gate's slow start
    for turn in range(rounds):
        for name in list(variants)[:: 1 if turn % 2 else -1]:
            found[name].append(await measure(variants[name], requests, in_flight))
    await client.aclose()
    await transport.aclose()
    pairs = list(zip(found["ours"], found["bare"], strict=True))
    rate = statistics.median(mine for mine, _ in found["ours"])
    return {
        "in_flight": in_flight,
        "peak_in_flight": transport.stats.peak["chunkedgraph"],
        "bare_per_s": statistics.median(theirs for theirs, _ in found["bare"]),
        "ours_per_s": rate,
        "of_bound": rate * DELAY / in_flight,
        "of_bare": statistics.median(mine / theirs for (mine, _), (theirs, _) in pairs),
        "bare_cpu_ms": statistics.median(cpu for _, cpu in found["bare"]),
        "ours_cpu_ms": statistics.median(cpu for _, cpu in found["ours"]),
        "added_cpu_ms": statistics.median(mine - theirs for (_, mine), (_, theirs) in pairs),
    }


def run(rounds: int = 15, requests: int = 1000) -> None:
    """Measure at the default limit of a service and at that of object stores."""
    with small_server.running(DELAY) as origin:
        rows = [asyncio.run(compare(origin, in_flight, rounds, requests)) for in_flight in (16, 64)]
    setting = {"delay_s": DELAY, "rounds": rounds, "requests": requests, "goals": GOALS}
    keep("foundation", "transport", setting, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    run(options.rounds, options.requests)
