"""How root look-ups grow: with the number of ids, and with the number of requests at once.

The sandbox takes as long as the real service (3 ms and 0.35 ms for each distinct id, 16 workers) behind 20 ms of
latency. ``bound`` is what these allow: all workers busy, or all requests under way. Every answer is compared with the
world before a rate is given.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cortexclient import AsyncCortexClient, Limits
from cortexclient._wire.endpoints import ROOTS_BINARY
from cortexclient.sandbox import SandboxProcess, World

from .graph import Ids
from .report import keep

WORLD: dict[str, Any] = {"seed": 1, "nuclei": 50_000, "edits": 20_000, "fragments": 620_000, "synapses": 1}
WORKERS = 16
LATENCY = 0.02


def run(
    rounds: int = 3,
    world_options: dict[str, Any] = WORLD,
    counts: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000),
    in_flight: Sequence[int] = (1, 4, 16, 64, 256),
    ids: int = 32_000,
) -> None:
    """Measure both curves."""
    world = World.synthesize(**world_options)
    nodes = world.graph.cells.node
    supervoxels = np.random.default_rng(0).permutation(np.unique(nodes[world.graph.layout.layer(nodes) == 1]))
    truth = world.graph.roots(supervoxels, world.graph.newest_ms)
    setting = {"rounds": rounds, "latency_s": LATENCY, "service_times": True, "workers": WORKERS}
    with SandboxProcess(world, latency=LATENCY, service_times=True, workers=WORKERS) as sandbox:
        rows = [_row(sandbox, supervoxels[:n], truth[:n], Limits(), rounds) for n in counts]
        keep("growth", "root look-ups by number of ids", setting, rows)
        rows = [_row(sandbox, supervoxels[:ids], truth[:ids], _limits(n), rounds) for n in in_flight]
        keep("growth", "root look-ups by requests at once", setting | {"ids_in_a_request": BATCH}, rows)


BATCH = 100
"""Ids in a request where the number at once is varied: enough requests for 256."""


def _limits(n: int) -> Limits:
    return Limits(in_flight=n, batch={ROOTS_BINARY.name: BATCH})


def _row(sandbox: SandboxProcess, ids: Ids, truth: Ids, limits: Limits, rounds: int) -> dict[str, Any]:
    seconds = statistics.median(asyncio.run(_seconds(sandbox, ids, truth, limits)) for _ in range(rounds))
    batch = limits.batch.get(ROOTS_BINARY.name, ROOTS_BINARY.batch or 1)
    batches, at_once = -(-len(ids) // batch), limits.of("chunkedgraph")
    held = ROOTS_BINARY.price + ROOTS_BINARY.price_per_id * len(ids) / batches
    bound = max(batches * (LATENCY + held) / at_once, batches * held / WORKERS, LATENCY + held)
    return {
        "ids": len(ids),
        "in_flight": at_once,
        "seconds": seconds,
        "ids_per_s": len(ids) / seconds,
        "bound_s": bound,
        "of_bound": bound / seconds,
    }


async def _seconds(sandbox: SandboxProcess, ids: Ids, truth: Ids, limits: Limits) -> float:
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token, limits=limits) as client:
        await client.is_latest_roots(range(1, 20_000))  # opens connections, and the gate
        begun = time.perf_counter()
        found = await client.get_roots(ids)
        taken = time.perf_counter() - begun
    if not np.array_equal(found, truth):
        raise SystemExit("an answer is not what the world says: no figures")
    return taken
