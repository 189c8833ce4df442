"""Skeletons that are there, as arrays, against the unmodified caveclient: its loop, its bulk route, its bucket route.

All answers are compared, number by number, before any ratio is printed. The skeletons are random trees of the size of a
real neuron's (3,600 vertices, 5,000 level-2 chunks: about 110 kB packed). caveclient's loops are measured on fewer ids,
and scaled; the storage host that is written into its code is replaced in its process, so that its bucket route
(``gcs``) can be measured at all. Beside the seconds: CPU of the client for each skeleton, against the bare decoding of
the same bytes, JSON or HDF5.

Last, a process that streams many skeletons and keeps none: its peak memory.
"""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from cortexclient import AsyncCortexClient, get_spec
from cortexclient._wire.skeletons import decode_h5, decode_hex
from cortexclient.sandbox import SandboxProcess, World
from cortexclient.sandbox.skeleton_formats import flatdict, h5, packed
from cortexclient.sandbox.skeletons import Shapes

from .meshes import _peak_mb
from .peer import COMPARED, Array, Peer, digest
from .report import keep

OPTIONS: dict[str, Any] = {"latency": "20ms", "service_times": True}
DATASTACK = "minnie65_public"
VERTICES, CHUNKS = 3_600, 5_000
LOOPED = {"get_skeleton": 20, "gcs": 60}
"""Ids of a round that caveclient's loops are asked for."""
OURS = {"service": "service", "bucket": "bucket"}
"""Our own ways, by their method."""
BARE = 100
SEED = 7


def run(rounds: int = 5, skeletons: int = 1_000, vertices: int = VERTICES, streamed: int = 20_000) -> None:
    """Measure each route ``rounds`` times, in random order; then the memory of a stream."""
    world = make_world(skeletons, vertices)
    ids = world.shapes.skeletons["root_id"].to_numpy()
    routes = ("service", "bucket", "get_skeleton", "fetch_skeletons", "gcs")
    taken: dict[str, list[dict[str, float]]] = {route: [] for route in routes}
    with SandboxProcess(world, **OPTIONS) as sandbox, Peer("caveclient", sandbox.url, sandbox.token, DATASTACK) as peer:
        for method in OURS:
            asyncio.run(_ours(ids, sandbox, method))  # the sandbox packs each skeleton once, and keeps it
        for _ in range(rounds):
            for route in random.sample(routes, len(routes)):
                asked = ids[: LOOPED.get(route, len(ids))]
                sandbox.counters.reset()
                digests, told = asyncio.run(_ours(asked, sandbox, route)) if route in OURS else peer.call(route, asked)
                _compare(route, asked, digests, world)
                told = {name: told[name] / len(asked) for name in ("seconds", "cpu")}
                requests = sandbox.counters.snapshot().total.requests
                taken[route].append(told | {"requests": requests / len(asked) * len(ids)})
    bare = _bare(world, ids[:BARE])
    setting = OPTIONS | {
        "skeletons": len(ids),
        "vertices": vertices,
        "workers": 16,
        "rounds": rounds,
        "world": "random",
    }
    looped = {f"{route} looped": n for route, n in LOOPED.items()}
    keep("skeletons", "cached skeletons as arrays", setting | looped, _rows(taken, bare, len(ids)))
    limit = {"skeletons": streamed, "vertices": vertices, "limit_mb": 500}
    keep("skeletons", "streamed", limit, [_streamed(world, streamed, method) for method in OURS])


def _rows(taken: dict[str, list[dict[str, float]]], bare: dict[str, float], n: int) -> list[dict[str, Any]]:
    middle = {
        route: {name: statistics.median(told[name] for told in rounds) for name in rounds[0]}
        for route, rounds in taken.items()
    }
    return [
        {
            "route": f"ours, {route}" if route in OURS else f"caveclient {route}",
            "s_for_all": told["seconds"] * n,
            "over_our_service": told["seconds"] / middle["service"]["seconds"],
            "over_our_bucket": told["seconds"] / middle["bucket"]["seconds"],
            "cpu_ms_each": told["cpu"] * 1e3,
            "bare_decode_ms": bare[_form(route)] * 1e3,
            "cpu_over_bare": told["cpu"] / bare[_form(route)],
            "requests": told["requests"],
        }
        for route, told in middle.items()
    ]


def _form(route: str) -> str:
    return "bucket" if route in ("bucket", "gcs") else "service"


async def _ours(ids: Array, sandbox: SandboxProcess, method: str) -> tuple[Array, dict[str, float]]:
    async with AsyncCortexClient(sandbox.spec, server=sandbox.url, token=sandbox.token) as client:
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        found = await client.skeleton.get_skeletons(ids, method=method)  # type: ignore[arg-type]
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


def _bare(world: World, ids: Array) -> dict[str, float]:
    """CPU seconds to decode one skeleton, the least of three goes over some, of each form."""
    some = [(i, world.skeletons.get(i)) for i in ids.tolist()]
    texts = [(i, packed(flatdict(skeleton, DATASTACK, 4)).hex()) for i, skeleton in some]
    files = [(i, packed(h5(skeleton, DATASTACK))) for i, skeleton in some]
    return {"service": _least(decode_hex, texts), "bucket": _least(decode_h5, files)}


def _least(decode: Callable[[Any, int], Any], bodies: Sequence[tuple[int, Any]]) -> float:
    goes = []
    for _ in range(3):
        begun = time.process_time()
        for root_id, body in bodies:
            decode(body, root_id)
        goes.append(time.process_time() - begun)
    return min(goes) / len(bodies)


def _streamed(world: World, skeletons: int, method: str) -> dict[str, Any]:
    """Memory of a process that streams skeletons and keeps none; the same come again, with nothing cached."""
    ids = ",".join(map(str, world.shapes.skeletons["root_id"].to_list()))
    with SandboxProcess(world) as sandbox:
        command = [sys.executable, "-m", "benchmarks.skeletons", sandbox.url, sandbox.token, str(skeletons), method]
        told = subprocess.run(command, input=ids, capture_output=True, text=True, check=True).stdout.splitlines()
    if len(told) != 1:
        raise SystemExit(f"somebody wrote to standard output: {told[:3]}")
    count, base, tenth, peak, seconds = map(float, told[0].split())
    return {
        "method": method,
        "skeletons": int(count),
        "seconds": seconds,
        "base_mb": base,
        "above_after_a_tenth_mb": tenth - base,
        "above_at_the_end_mb": peak - base,
    }


def _stream(url: str, token: str, skeletons: int, method: str) -> None:
    spec = replace(get_spec("minnie_public"), server=url)
    ids = [int(i) for i in sys.stdin.read().split(",")]

    async def read() -> tuple[int, float]:
        count, tenth = 0, 0.0
        async with AsyncCortexClient(spec, server=url, token=token) as client:
            await client.skeleton.get_skeletons(ids[:1], method=method)  # type: ignore[arg-type]
            while count < skeletons:
                client._session.cache.clear()  # as if they were others; it fills up to its bound each time
                async with client.skeleton.stream_skeletons(ids, method=method) as outcomes:  # type: ignore[arg-type]
                    async for outcome in outcomes:
                        count += len(outcome.unwrap().vertices) > 0
                tenth = tenth or (_peak_mb() if count >= skeletons / 10 else 0.0)
        return count, tenth

    base, begun = _peak_mb(), time.perf_counter()
    count, tenth = asyncio.run(read())
    print(count, base, tenth, _peak_mb(), time.perf_counter() - begun)


def make_world(skeletons: int, vertices: int, seed: int = SEED) -> World:
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


if __name__ == "__main__":
    _stream(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
