"""The level-2 node of each vertex of one neuron, the mesh at hand: ours by both methods, and cortical-tools'.

An answer is right where the node that it names has a vertex at that place.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

import numpy as np

from cortexclient import AsyncCortexClient
from cortexclient.sandbox import SandboxProcess, World

from .meshes import LATENCY, LAYOUTS, world_of
from .peer import Peer
from .report import keep


def run(rounds: int = 3, fragments: int = 200) -> None:
    """Measure and keep, beside the figures of meshes."""
    setting = {"latency": LATENCY, "fragments": fragments, "rounds": rounds, "peer_jobs": 1}
    keep("meshes", "labels of vertices", setting, _labels(rounds, fragments))


def _labels(rounds: int, fragments: int) -> list[dict[str, Any]]:
    world = world_of(1, fragments, LAYOUTS["fours"])
    root = int(world.graph.root_ids()[0])
    with (
        SandboxProcess(world, latency=LATENCY) as sandbox,
        Peer("cortical-tools' meshes", sandbox.url, sandbox.token, "minnie65_public") as peer,
    ):
        vertices = len(peer.call("vertex_labels", np.array([root]))[0])
        found: dict[str, list[tuple[float, float]]] = {"fragments": [], "geometry": [], "cortical-tools": []}
        for _ in range(rounds):
            theirs, taken = peer.call("vertex_labels", np.array([root]))
            places, told = asyncio.run(_ours_labelled(sandbox, root))
            if len(places) != vertices:
                raise SystemExit("the peer's mesh differs from ours: no ratio is worth printing")
            told["cortical-tools"] = theirs, taken["seconds"]
            for method, (answer, seconds) in told.items():
                found[method].append((seconds, _right(world, root, places, answer)))
    peer_s = statistics.median(seconds for seconds, _ in found["cortical-tools"])
    return [
        {
            "method": method,
            "vertices": vertices,
            "s": statistics.median(seconds for seconds, _ in rows),
            "ratio": peer_s / statistics.median(seconds for seconds, _ in rows),
            "right": min(right for _, right in rows),
        }
        for method, rows in found.items()
    ]


async def _ours_labelled(sandbox: SandboxProcess, root: int) -> tuple[Any, dict[str, tuple[Any, float]]]:
    """Vertices in the order of x, y, z, and for each method their labels and its seconds.

    Each by a fresh client that, as the peer's, knows where meshes are and has none of their fragments.
    """
    import scipy.optimize
    import scipy.sparse.csgraph
    import scipy.spatial  # noqa: F401 (loaded before the clock starts, as the peer's are)

    told: dict[str, tuple[Any, float]] = {}
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        mesh = await client.mesh.get_mesh(root)
    order = np.lexsort(mesh.vertices.T[::-1])
    for method in ("fragments", "geometry"):
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            await client.mesh.mesh_exists(root)
            begun = time.perf_counter()
            answer = await client.mesh.compute_vertex_to_l2_mapping(root, mesh.vertices, mesh.faces, method=method)
            told[method] = answer[order], time.perf_counter() - begun
    return mesh.vertices[order], told


def _right(world: World, root: int, places: Any, labels: Any) -> float:
    """The share of vertices whose label is a node that has a vertex there."""
    import DracoPy

    owners: dict[tuple[float, ...], set[int]] = {}
    for node in world.meshes.pieces(root, 2).tolist():
        for place in DracoPy.decode(world.meshes.fragment(node)).points.tolist():
            owners.setdefault(tuple(place), set()).add(node)
    pairs = zip(places.tolist(), labels.tolist(), strict=True)
    return float(np.mean([label in owners[tuple(place)] for place, label in pairs]))
