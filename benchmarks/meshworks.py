"""Cells with synapses as Meshworks, against the loop over the unmodified ``pcg_skel.get_meshwork_from_client``.

The answers are compared, part by part, before any ratio is printed. First 200 current cells of a synthetic world, all
different: small ones, whose time is that of their requests. Then the 84 real neurons of minnie65 (where
``../shared/data`` is), of 6,900 level-2 chunks and 3,700 synapses each, asked again by fresh clients, one after the
other, until there are enough; a few of them were current at no version, and need live queries. The peer's loop is
measured on some of the cells, and scaled. Beside the seconds: the CPU of this process, and how much of it builds
Meshworks of what has been fetched.
"""

from __future__ import annotations

import asyncio
import gc
import os
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from cortexclient import AsyncCortexClient
from cortexclient.morphology import Parts
from cortexclient.morphology._cells import _meshwork
from cortexclient.sandbox import SandboxProcess, World

from .peer import Array, Peer, meshwork_digest
from .report import keep

OPTIONS: dict[str, Any] = {"latency": "20ms", "service_times": True}
DATASTACK = "minnie65_public"
SYNTHETIC: dict[str, Any] = {"seed": 7, "nuclei": 1_200, "edits": 1_200, "synapses": 120_000}
DATA = Path(os.environ.get("CORTEXCLIENT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))


def run(rounds: int = 3, cells: int = 200, looped: int = 10) -> None:
    """Measure current cells of a synthetic world, then the real neurons where they are."""
    warnings.simplefilter("ignore")  # meshparty's, of its own dependencies
    _measure("synthetic cells", World.synthesize(**SYNTHETIC), rounds, cells, looped)
    if DATA.is_dir():
        _measure("real neurons", World.from_minnie65(DATA), rounds, cells, looped)


def _measure(name: str, world: World, rounds: int, cells: int, looped: int) -> None:
    """Ours and the peer's loop in turn."""
    ids = _cells(world)[:cells]
    sample = np.random.default_rng(0).permutation(ids)[:looped]
    ours: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    with SandboxProcess(world, **OPTIONS) as sandbox, Peer("pcg_skel", sandbox.url, sandbox.token, DATASTACK) as peer:
        expected, _ = peer.call("meshworks", sample)  # which also loads what it needs once
        asyncio.run(_compare(sandbox, ids, sample, expected))
        for _ in range(rounds):
            sandbox.counters.reset()
            ours.append(_ours(sandbox, ids, cells) | _counted(sandbox))
            sandbox.counters.reset()
            theirs.append(peer.call("meshworks", sample)[1] | _counted(sandbox))
        build = asyncio.run(_building(sandbox, ids))
    mine, other = _row("ours", ours, 1.0, cells), _row("pcg_skel", theirs, cells / len(sample), cells)
    mine["building_cpu_ms_each"], other["building_cpu_ms_each"] = build * 1e3, "all of it"
    for row in (mine, other):
        row["ratio"] = row["s_for_all"] / mine["s_for_all"]
    setting = OPTIONS | {"cells": cells, "distinct": len(ids), "looped": len(sample), "rounds": rounds}
    keep("skeletons", f"Meshworks with synapses, {name}", setting | {"seed": world.seed}, [mine, other])


def _row(name: str, rounds: list[dict[str, float]], scale: float, cells: int) -> dict[str, Any]:
    middle = {key: statistics.median(told[key] for told in rounds) * scale for key in ("seconds", "cpu", "requests")}
    return {
        "who": name,
        "s_for_all": middle["seconds"],
        "cpu_ms_each": middle["cpu"] / cells * 1e3,
        "requests": middle["requests"],
    }


def _counted(sandbox: SandboxProcess) -> dict[str, float]:
    return {"requests": float(sandbox.counters.snapshot().total.requests)}


def _client(sandbox: SandboxProcess) -> AsyncCortexClient:
    return AsyncCortexClient(sandbox.spec, server=sandbox.url, token=sandbox.token)


def _ours(sandbox: SandboxProcess, ids: Array, cells: int) -> dict[str, float]:
    """All cells, each distinct one by a client that has none of it yet."""

    async def some(asked: Array) -> None:
        async with _client(sandbox) as client:
            (await client.get_skeletons(asked, synapses=True)).raise_if_failed()

    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for begun in range(0, cells, len(ids)):
        asyncio.run(some(ids[: cells - begun]))
    return {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


async def _compare(sandbox: SandboxProcess, ids: Array, sample: Array, expected: Array) -> None:
    async with _client(sandbox) as client:
        found = (await client.get_skeletons(ids, synapses=True)).raise_if_failed()
    for root_id, wanted in zip(sample.tolist(), expected, strict=True):
        if not np.array_equal(meshwork_digest(found[root_id]), wanted):
            raise SystemExit(f"the Meshwork of {root_id} is not the one that pcg_skel builds: no ratio")


async def _building(sandbox: SandboxProcess, ids: Array, most: int = 25) -> float:
    """CPU seconds to build one Meshwork of what has been fetched."""
    parts = Parts(synapses=True)
    async with _client(sandbox) as client:
        skeletons = list((await client.skeleton.get_skeletons(ids[:most])).values())
        fetched = await client._morphology._fetch(skeletons, parts)
    begun = time.process_time()
    for skeleton in skeletons:
        _meshwork(skeleton, parts, fetched, None)
    return (time.process_time() - begun) / len(skeletons)


def _cells(world: World) -> Array:
    recorded = world.shapes.skeletons["root_id"].to_numpy()
    if len(recorded):
        return recorded
    roots = world.graph.root_ids()
    roots = roots[world.skeletons.cached(roots, 0)]
    _, owner = world.graph.leaves_of(roots, 2)
    return roots[np.bincount(owner, minlength=len(roots)) > 5]  # the peer fails for cells of one vertex
