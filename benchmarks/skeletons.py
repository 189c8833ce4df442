"""Skeletons that are there, as arrays, against the unmodified caveclient: its loop, and its best bulk route.

All answers are compared, number by number, before any ratio is printed. The skeletons are random trees of the size of a
real neuron's (3,600 vertices, 5,000 level-2 chunks: about 110 kB packed). caveclient's loop is measured on fewer ids,
and scaled. Beside the seconds: CPU of the client for each skeleton, against the bare decoding of the same bytes.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cortexclient import AsyncCortexClient
from cortexclient._wire.skeletons import decode_hex
from cortexclient.sandbox import SandboxProcess, World
from cortexclient.sandbox.skeleton_formats import flatdict, packed
from cortexclient.sandbox.skeletons import Shapes

from .peer import COMPARED, Array, Peer, digest
from .report import keep

OPTIONS: dict[str, Any] = {"latency": "20ms", "service_times": True}
DATASTACK = "minnie65_public"
VERTICES, CHUNKS = 3_600, 5_000
LOOPED = 20
"""Ids of a round that caveclient's loop is asked for."""
BARE = 100


def run(rounds: int = 5, skeletons: int = 1_000, vertices: int = VERTICES) -> None:
    """Measure each route ``rounds`` times, in random order."""
    world = make_world(skeletons, vertices)
    ids = world.shapes.skeletons["root_id"].to_numpy()
    taken: dict[str, list[dict[str, float]]] = {"ours": [], "get_skeleton": [], "fetch_skeletons": []}
    with SandboxProcess(world, **OPTIONS) as sandbox, Peer("caveclient", sandbox.url, sandbox.token, DATASTACK) as peer:
        asyncio.run(_ours(ids, sandbox))  # the sandbox packs each skeleton once, and keeps it
        for _ in range(rounds):
            for route in random.sample(list(taken), len(taken)):
                asked = ids[:LOOPED] if route == "get_skeleton" else ids
                sandbox.counters.reset()
                digests, told = asyncio.run(_ours(asked, sandbox)) if route == "ours" else peer.call(route, asked)
                _compare(route, asked, digests, world)
                told = {name: told[name] / len(asked) for name in ("seconds", "cpu")}
                requests = sandbox.counters.snapshot().total.requests
                taken[route].append(told | {"requests": requests / len(asked) * len(ids)})
    bare = _bare(world, ids[:BARE])
    setting = OPTIONS | {"skeletons": len(ids), "vertices": vertices, "workers": 16, "rounds": rounds}
    keep("skeletons", "cached skeletons as arrays", setting | {"looped": LOOPED}, _rows(taken, bare, len(ids)))


def _rows(taken: dict[str, list[dict[str, float]]], bare: float, n: int) -> list[dict[str, Any]]:
    middle = {
        route: {name: statistics.median(told[name] for told in rounds) for name in rounds[0]}
        for route, rounds in taken.items()
    }
    return [
        {
            "route": route,
            "s_for_all": told["seconds"] * n,
            "ratio": told["seconds"] / middle["ours"]["seconds"],
            "cpu_ms_each": told["cpu"] * 1e3,
            "bare_decode_ms": bare * 1e3,
            "cpu_over_bare": told["cpu"] / bare,
            "requests": told["requests"],
        }
        for route, told in middle.items()
    ]


async def _ours(ids: Array, sandbox: SandboxProcess) -> tuple[Array, dict[str, float]]:
    async with AsyncCortexClient(sandbox.spec, server=sandbox.url, token=sandbox.token) as client:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        found = await client.skeleton.get_skeletons(ids)
        told = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        found.raise_if_failed()
        return np.stack([_digest(found[i]) for i in ids.tolist()]), told


def _digest(skeleton: Any) -> Array:
    return digest(**{name: getattr(skeleton, name) for name in COMPARED})


def _compare(route: str, ids: Array, digests: Array, world: World) -> None:
    for root_id, got in zip(ids.tolist(), digests, strict=True):
        true = world.skeletons.get(root_id)
        expected = digest(
            vertices=true.vertices,
            edges=true.edges,
            radius=true.radius,
            mesh_to_skel_map=true.vertex_of,
            lvl2_ids=true.level2,
            compartment=true.compartment,
        )
        if not np.array_equal(got, expected):
            raise SystemExit(f"{route}: the skeleton of {root_id} is not the world's: no ratio")


def _bare(world: World, ids: Array) -> float:
    """CPU seconds to decode one skeleton, the least of three goes over some."""
    texts = [(i, packed(flatdict(world.skeletons.get(i), DATASTACK, 4)).hex()) for i in ids.tolist()]
    goes = []
    for _ in range(3):
        begun = time.process_time()
        for root_id, text in texts:
            decode_hex(text, root_id)
        goes.append(time.process_time() - begun)
    return min(goes) / len(texts)


def make_world(skeletons: int, vertices: int, seed: int = 7) -> World:
    """A synthetic world in which some current roots have recorded skeletons of a given size."""
    world = World.synthesize(seed=seed, nuclei=skeletons, edits=skeletons // 2)
    roots = world.graph.root_ids()
    roots = roots[world.skeletons.cached(roots, 0)][:skeletons]
    rng = np.random.default_rng(seed)
    n, m = vertices, vertices * CHUNKS // VERTICES
    trees = [_tree(rng, n) for _ in roots]
    owner = np.repeat(roots, n)
    place = np.concatenate([points for points, _ in trees])
    kind = np.where(np.arange(n) == 0, 1, np.where(np.arange(n) < n // 2, 2, 3))
    child = np.arange(1, n)
    world.shapes = Shapes(
        skeletons=pl.DataFrame({"root_id": roots, "root": np.zeros(len(roots), np.int64)}),
        vertices=pl.DataFrame(
            {"root_id": owner}
            | dict(zip("xyz", place.T, strict=True))
            | {"radius": rng.uniform(50, 500, len(owner)), "compartment": np.tile(kind, len(roots))}
        ),
        edges=pl.DataFrame(
            {
                "root_id": np.repeat(roots, n - 1),
                "a": np.tile(child, len(roots)),
                "b": np.concatenate([parent[1:] for _, parent in trees]),
            }
        ),
        members=pl.DataFrame(
            {
                "root_id": np.repeat(roots, m),
                "level2": (2 << 56) + rng.permutation(len(roots) * m).astype(np.int64) * 1_000_003,
                "vertex": np.tile(np.sort(np.append(np.arange(n), rng.integers(0, n, m - n))), len(roots)),
            }
        ),
    )
    del world.skeletons  # it has read the shapes before there were any
    return world


def _tree(rng: np.random.Generator, n: int) -> tuple[npt.NDArray[np.float64], Array]:
    """Points on the voxel grid (n, 3) nm, and the parent of each: mostly the one before, at times any earlier one."""
    before = np.arange(n) - 1
    parent = np.where(rng.random(n) < 0.02, rng.integers(0, np.maximum(np.arange(n), 1)), before)
    parent[0] = -1
    steps = rng.integers(-60, 61, (n, 3)) * [8.0, 8.0, 40.0]
    return 700_000.0 + np.cumsum(steps, axis=0), parent
