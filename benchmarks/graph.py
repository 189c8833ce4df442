"""Look-ups in the chunkedgraph: against the unmodified caveclient, and against bare aiohttp.

``timestamps``: CPU time of the client process for the creation times of roots, in one call and in one call for each.
In one call ours sends ten requests at once where the peer sends one, which costs CPU and saves nine tenths of the time
that the real service would take.
``roots, costs on``: one call each; the sandbox takes as long as the real service (0.35 ms for each distinct id, 16
workers). ``roots, costs off``: how much of the rate of a bare aiohttp loop with the same batches and workers is left,
with sorting, deduplication, retries, checks and reassembly; the loop is given the ids in order, which the server
answers faster. All answers are compared with the world first.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import numpy as np
import numpy.typing as npt

from cortexclient import AsyncCortexClient
from cortexclient._wire.endpoints import ROOTS_BINARY
from cortexclient.sandbox import SandboxProcess, World

from .peer import Peer
from .report import keep

WORLD: dict[str, Any] = {"seed": 1, "nuclei": 50_000, "edits": 20_000, "fragments": 620_000, "synapses": 1}
WORKERS = 16
DATASTACK = "minnie65_public"
Ids = npt.NDArray[np.int64]
Ask = Callable[[AsyncCortexClient], Awaitable[Any]]


def run(
    rounds: int = 5,
    world_options: dict[str, Any] = WORLD,
    timestamps: int = 10_000,
    few: int = 50_000,
    many: int = 1_000_000,
) -> None:
    """Measure all three."""
    world = World.synthesize(**world_options)
    rng = np.random.default_rng(0)
    nodes = world.graph.cells.node
    supervoxels = rng.permutation(np.unique(nodes[world.graph.layout.layer(nodes) == 1]))
    roots = rng.permutation(world.graph.root_ids())[:timestamps]
    gc.collect()
    gc.freeze()  # the peer's process has no world either, for the garbage collector to walk through
    with SandboxProcess(world) as sandbox:
        keep(
            "graph",
            "timestamps",
            {"rounds": rounds, "goal": "cpu_ratio >= 8 for calls"},
            _timestamps(world, roots, sandbox, rounds),
        )
        rows = [asyncio.run(_against_bare(world, supervoxels[:many], sandbox, rounds))]
        keep("graph", "roots, costs off", {"rounds": rounds, "workers": WORKERS, "goal": "of_bare >= 0.6"}, rows)
    with SandboxProcess(world, service_times=True, workers=WORKERS) as sandbox:
        rows = [_with_costs(world, supervoxels[:few], sandbox, rounds)]
        keep("graph", "roots, costs on", {"rounds": rounds, "peer_rounds": 1, "goal": "ratio >= 10"}, rows)


async def _asked(sandbox: SandboxProcess, ask: Ask) -> tuple[Any, float, float]:
    """The answer of a warm client, and the seconds and CPU seconds that it took."""
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        await client.chunkedgraph.segmentation_info()
        await client.is_latest_roots(range(1, 20_000))  # opens connections
        wall, cpu = time.perf_counter(), time.process_time()
        answer = await ask(client)
        return answer, time.perf_counter() - wall, time.process_time() - cpu


def _timestamps(world: World, roots: Ids, sandbox: SandboxProcess, rounds: int) -> list[dict[str, Any]]:
    """CPU milliseconds for all ids; of the calls for each id the peer makes a tenth, times ten."""

    async def singly(client: AsyncCortexClient) -> list[Any]:
        graph = client.chunkedgraph
        return [part[0] for part in await asyncio.gather(*(graph.get_root_timestamps(int(i)) for i in roots))]

    truth, few = world.graph.created(roots), max(len(roots) // 10, 1)
    ways: dict[str, tuple[Ask, str, int]] = {
        "one call": (lambda client: client.chunkedgraph.get_root_timestamps(roots), "get_root_timestamps", len(roots)),
        "a call for each": (singly, "each_root_timestamp", few),
    }
    rows = []
    with Peer("caveclient", sandbox.url, sandbox.token, DATASTACK) as peer:
        for way, (ask, name, n) in ways.items():
            ours, theirs = [], []
            for _ in range(rounds):
                answer, _, cpu = asyncio.run(_asked(sandbox, ask))
                _same([round(when.timestamp() * 1000) for when in answer], truth)
                ours.append(cpu)
                answer, taken = peer.call(name, roots[:n])
                _same(answer, truth[:n])
                theirs.append(taken["cpu"] * len(roots) / n)
            mine, other = statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3
            rows.append(
                {"way": way, "ids": len(roots), "ours_cpu_ms": mine, "peer_cpu_ms": other, "cpu_ratio": other / mine}
            )
    return rows


def _with_costs(world: World, ids: Ids, sandbox: SandboxProcess, rounds: int) -> dict[str, Any]:
    truth, taken = world.graph.roots(ids, world.graph.newest_ms), []
    for _ in range(rounds):
        answer, wall, _ = asyncio.run(_asked(sandbox, lambda client: client.get_roots(ids)))
        _same(answer, truth)
        taken.append(wall)
    with Peer("caveclient", sandbox.url, sandbox.token, DATASTACK) as peer:
        answer, theirs = peer.call("get_roots", ids)
    _same(answer, truth)
    ours = statistics.median(taken)
    return {"ids": len(ids), "ours_s": ours, "peer_s": theirs["seconds"], "ratio": theirs["seconds"] / ours}


async def _against_bare(world: World, ids: Ids, sandbox: SandboxProcess, rounds: int) -> dict[str, Any]:
    truth, ordered = world.graph.roots(ids, world.graph.newest_ms), np.sort(ids)
    ours, bare, cpu, bare_cpu = [], [], [], []
    for turn in range(rounds):
        for mine in (True, False) if turn % 2 else (False, True):
            if mine:
                answer, wall, work = await _asked(sandbox, lambda client: client.get_roots(ids))
            else:
                answer, wall, work = await _bare(ordered, sandbox, world.graph.table)
                answer = answer[np.searchsorted(ordered, ids)]
            _same(answer, truth)
            (ours if mine else bare).append(wall)
            (cpu if mine else bare_cpu).append(work)
    rate = len(ids) / statistics.median(ours)
    return {
        "ids": len(ids),
        "ours_per_s": rate,
        "bare_per_s": len(ids) / statistics.median(bare),
        "of_bare": statistics.median(b / o for o, b in zip(ours, bare, strict=True)),
        "ours_cpu_s": statistics.median(cpu),
        "bare_cpu_s": statistics.median(bare_cpu),
    }


async def _bare(ids: Ids, sandbox: SandboxProcess, table: str) -> tuple[Ids, float, float]:
    """The least that aiohttp can do: the same batches, as many workers, no checks."""
    url = f"{sandbox.url}/segmentation/api/v1/table/{table}/roots_binary?timestamp={time.time()}"
    batch = ROOTS_BINARY.batch or 1
    found = np.empty(len(ids), np.int64)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {sandbox.token}"}) as session:

        async def work() -> None:
            for start in starts:
                async with session.post(url, data=ids[start : start + batch].tobytes()) as reply:
                    found[start : start + batch] = np.frombuffer(await reply.read(), np.int64)

        async with session.get(f"{sandbox.url}/info/health"):
            pass
        wall, cpu = time.perf_counter(), time.process_time()
        starts = iter(range(0, len(ids), batch))
        await asyncio.gather(*(work() for _ in range(WORKERS)))
        return found, time.perf_counter() - wall, time.process_time() - cpu


def _same(answer: Any, truth: Ids) -> None:
    if not np.array_equal(np.asarray(answer, np.int64), truth):
        raise SystemExit("an answer is not what the world says: no figures")
