"""Meshes of many neurons against the unmodified cloud-volume (which cortical-tools' get_meshes calls), answers first.

Two layouts of the same number of fragments: ``apart``, where no two of them lie side by side in a shard, and
``fours``, where each neuron has four in each chunk it passes, side by side. The peer takes minutes for what takes
seconds, so it runs on fewer neurons and is scaled; the table says on how many.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cortexclient import AsyncCortexClient
from cortexclient.sandbox import Datastack, SandboxProcess, World
from cortexclient.sandbox.graph import Cells, Edges, Graph, Layout, Lineage

from .peer import Peer
from .report import keep

Ids = npt.NDArray[np.int64]
LAYOUTS = {"apart": 1, "fours": 4}
"""Fragments of a neuron in each chunk that it passes."""
CREATED_MS = 1_590_758_803_761
LATENCY = "20ms"


def world_of(neurons: int, fragments: int, per_chunk: int) -> World:
    """Neurons that run along x, each through chunks of its own, in ``per_chunk`` parallel strands."""
    layout = Layout.minnie65()
    chunks = fragments // per_chunk
    neuron, x, strand = np.meshgrid(np.arange(neurons), np.arange(chunks), np.arange(per_chunk), indexing="ij")
    chunk = np.stack([100 + x, 50 + neuron // 20, 1 + neuron % 20], axis=-1)
    supervoxel = layout.make(1, chunk, 1 + strand)
    level2 = layout.make(2, chunk, 1 + strand)
    root = layout.make(12, np.zeros(3, np.int64), 256 * (1 + neuron[:, :1, :1]))
    node, parent = np.stack([supervoxel, level2]), np.stack([level2, np.broadcast_to(root, level2.shape)])
    a, b = supervoxel[:, :-1].reshape(-1), supervoxel[:, 1:].reshape(-1)
    none = np.empty(0, np.int64)
    graph = Graph(
        layout,
        table="minnie3_v1",
        created_ms=CREATED_MS,
        cells=Cells(node.reshape(-1), parent.reshape(-1), np.full(node.size, CREATED_MS)),
        lineage=Lineage(none, none, none),
        operations=(),
        edges=Edges(a, b, np.ones(len(a), np.float32), np.ones(len(a), np.int32), np.ones(len(a), bool)),
    )
    stack = Datastack("minnie65_public", "minnie65_phase3", "minnie3_v1")
    return World("minnie65", 0, graph, datastacks={stack.name: stack})


def digest(mesh: Any) -> int:
    """One number for the vertices and the triangles of a mesh, whatever their order."""
    corners = mesh.vertices[mesh.faces].reshape(-1, 9).astype(np.int64)
    parts = (np.asarray(mesh.vertices, np.int64), corners)
    ordered = b"".join(part[np.lexsort(part.T)].tobytes() for part in parts)
    return int.from_bytes(hashlib.blake2b(ordered, digest_size=7).digest())


def run(rounds: int = 3, neurons: int = 50, fragments: int = 200, peer_neurons: int = 6, streamed: int = 1000) -> None:
    """Measure both layouts, then the memory of a stream."""
    setting = {"latency": LATENCY, "neurons": neurons, "fragments": fragments, "peer_neurons": peer_neurons}
    rows = [_layout(name, rounds, neurons, fragments, peer_neurons) for name in LAYOUTS]
    keep("meshes", "against cloud-volume", setting | {"rounds": rounds}, rows)
    keep("meshes", "streamed", {"meshes": streamed, "fragments": fragments}, [_streamed(streamed, fragments)])


def _layout(name: str, rounds: int, neurons: int, fragments: int, peer_neurons: int) -> dict[str, Any]:
    world = world_of(neurons, fragments, LAYOUTS[name])
    roots, some = world.graph.root_ids(), world.graph.root_ids()[:peer_neurons]
    with SandboxProcess(world, latency=LATENCY) as sandbox:
        first = _in_process(sandbox, roots, digests=True)  # the sandbox makes its fragments
        with Peer("cloud-volume", sandbox.url, sandbox.token, "minnie65_public") as peer:
            peer.call("get_meshes", roots[:1])
            sandbox.counters.reset()
            theirs, taken = peer.call("get_meshes", some)
            asked = sandbox.counters.snapshot().total.requests
        if theirs.tolist() != first["digests"][: len(some)]:
            raise SystemExit("the peer's meshes differ from ours: no ratio is worth printing")
        sandbox.counters.reset()
        ours = [_in_process(sandbox, roots) for _ in range(rounds)]
        requests = sandbox.counters.snapshot().total.requests / rounds
    seconds, cpu = (statistics.median(item[key] for item in ours) for key in ("seconds", "cpu"))
    scale, bare = neurons / len(some), _bare_decode(world, roots)
    return {
        "layout": name,
        "ours_s": seconds,
        "peer_s": taken["seconds"] * scale,
        "ratio": taken["seconds"] * scale / seconds,
        "requests": requests,
        "peer_requests": asked * scale,
        "ours_cpu_s": cpu,
        "peer_cpu_s": taken["cpu"] * scale,
        "cpu_ratio": taken["cpu"] * scale / cpu,
        "bare_decode_s": bare,
        "cpu_budget_s": 2.5 * bare + 0.35e-3 * requests,
        "mb_packed": sum(len(world.meshes.fragment(n)) for n in world.graph.leaves(int(roots[0]), 2).tolist())
        * neurons
        / 1e6,
    }


def _bare_decode(world: World, roots: Ids, sample: int = 5) -> float:
    """CPU seconds of DracoPy alone for all fragments, from those of some neurons."""
    import DracoPy

    data = [world.meshes.fragment(n) for root in roots[:sample] for n in world.graph.leaves(int(root), 2).tolist()]
    times = []
    for _ in range(3):
        begun = time.process_time()
        for body in data:
            mesh = DracoPy.decode(body)
            mesh.points, mesh.faces  # noqa: B018 (arrays are made when asked for)
        times.append(time.process_time() - begun)
    return min(times) * len(roots) / len(roots[:sample])


def _in_process(sandbox: SandboxProcess, roots: Ids, digests: bool = False) -> dict[str, Any]:
    """Ours, in a fresh client whose libraries are loaded."""

    async def measure() -> dict[str, Any]:
        import cloudvolume  # noqa: F401 (loaded before the clock starts)

        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            await client.mesh.mesh_exists(roots[:1])
            wall, cpu = time.perf_counter(), time.process_time()
            meshes = (await client.mesh.get_meshes(roots)).raise_if_failed()
            told = {"seconds": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            return told | {"digests": [digest(meshes[root]) for root in roots.tolist()] if digests else []}

    return asyncio.run(measure())


def _streamed(meshes: int, fragments: int) -> dict[str, Any]:
    """Peak memory of a process that streams meshes and keeps none, its cache full of fragments of other neurons."""
    world = world_of(50, fragments, 4)
    with SandboxProcess(world) as sandbox:
        told = subprocess.run(
            [sys.executable, "-m", "benchmarks.meshes", sandbox.url, sandbox.token, str(meshes)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    if len(told) != 1:
        raise SystemExit(f"somebody wrote to standard output: {told[:3]}")
    count, base, peak, limit, seconds = map(float, told[0].split())
    return {"meshes": int(count), "seconds": seconds, "base_mb": base, "peak_mb": peak, "limit_mb": limit}


def _stream(url: str, token: str, meshes: int, limit: int = 128 << 20) -> None:
    import cloudvolume  # noqa: F401

    from cortexclient import get_spec

    spec = replace(get_spec("minnie_public"), server=url)
    roots = [int(256 * (1 + k)) + (12 << 56) for k in range(50)]

    async def read() -> int:
        count = 0
        async with AsyncCortexClient(spec, token=token) as client:
            while count < meshes:
                await _forget(client)
                async with client.mesh.stream_meshes(roots, bytes_at_once=limit) as outcomes:
                    async for outcome in outcomes:
                        count += len(outcome.unwrap().faces) > 0
        return count

    base, begun = _peak_mb(), time.perf_counter()
    count = asyncio.run(read())
    print(count, base, _peak_mb(), limit / 2**20, time.perf_counter() - begun)


async def _forget(client: AsyncCortexClient) -> None:
    """As if other neurons had come before: none of these is kept, and what is kept is all that may be."""
    client._session.cache.clear()
    pieces = client._session.cache.pieces
    await pieces.keep({("other", n): os.urandom(2000) for n in range(pieces.max_bytes // 2000)})


def _peak_mb() -> float:
    """Of this process alone, from the kernel (Linux): getrusage counts what its parent had too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    _stream(sys.argv[1], sys.argv[2], int(sys.argv[3]))
