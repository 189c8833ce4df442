"""What the transport costs: ours against a bare httpx client over the same connection pool, in the same run.

Variants take turns, so that whatever else the machine does hits both; figures are medians over rounds. The bound of
``c`` requests in flight with a delay of ``d`` is ``c / d`` requests a second.

    python benchmarks/transport.py [--rounds 7] [--requests 3000]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import small_server

from cortexclient._transport import Transport
from cortexclient._transport.clients import pooled_client
from cortexclient._wire.endpoints import ROOTS_BINARY
from cortexclient.config import Limits

RESULTS = Path(__file__).parent / "results" / "transport.json"
DELAY = 0.02
BODY = bytes(64)
PATH = {"table": "minnie3_v1"}
QUERY = {"timestamp": "1709294400.123456"}
Ask = Callable[[], Awaitable[object]]


def bare(client: httpx.AsyncClient, origin: str) -> Ask:
    """The least that httpx can do: a prebuilt request, the body read whole."""
    url = httpx.URL(f"{origin}/segmentation/api/v1/table/minnie3_v1/roots_binary?timestamp=1709294400.123456")
    headers = httpx.Headers(
        {"Accept": "*/*", "Accept-Encoding": "gzip", "User-Agent": "bare", "Authorization": "Bearer x"}
    )
    extensions = {"timeout": {"connect": 10.0, "read": 120.0, "write": 60.0, "pool": None}}

    async def ask() -> object:
        return await client.send(httpx.Request("POST", url, headers=headers, content=BODY, extensions=extensions))

    return ask


def ours(transport: Transport, origin: str) -> Ask:
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


async def compare(origin: str, in_flight: int, rounds: int, requests: int) -> dict[str, float]:
    client = pooled_client()
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
    bound = in_flight / DELAY
    result = {"in_flight": in_flight, "bound_per_s": bound, "peak_in_flight": transport.stats.peak["chunkedgraph"]}
    for name, pairs in found.items():
        result[f"{name}_per_s"] = statistics.median(rate for rate, _ in pairs)
        result[f"{name}_cpu_ms"] = statistics.median(cpu for _, cpu in pairs)
    result["share_of_bound"] = result["ours_per_s"] / bound
    result["share_of_bare"] = statistics.median(
        mine / theirs for (mine, _), (theirs, _) in zip(found["ours"], found["bare"], strict=True)
    )
    result["added_cpu_ms"] = statistics.median(
        mine - theirs for (_, mine), (_, theirs) in zip(found["ours"], found["bare"], strict=True)
    )
    return {name: round(value, 4) for name, value in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=3000)
    options = parser.parse_args()
    with small_server.running(DELAY) as origin:
        results = [asyncio.run(compare(origin, c, options.rounds, options.requests)) for c in (16, 64)]
    for result in results:
        print(json.dumps(result, indent=1))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"delay_s": DELAY, "rounds": options.rounds, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
