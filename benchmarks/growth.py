"""How look-ups grow: with the number of ids, and with the number of requests at once.

The sandbox takes as long as the real service (3 ms and 0.35 ms for each distinct id, 16 workers) behind 20 ms of
latency. ``bound`` is what these allow: all workers busy, or all requests under way. Every answer is compared with the
world before a rate is given.

Roots to cells take three routes: a new client, which asks the servers; the same client once more, which knows; and a
`CellIndex`, which never asks. Ten million ids repeat those roots that the world has: ``distinct`` tells how many. The
index is written from the world's own truth, since what is measured is asking it, not building it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from cortexclient import AsyncCortexClient, CellIndex, Limits
from cortexclient._wire.endpoints import ROOTS_BINARY
from cortexclient.mapping import _index
from cortexclient.sandbox import SandboxProcess, World

from . import mapping, populations
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
    cells_options: dict[str, Any] = populations.WORLD,
    asked: Sequence[int] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000),
) -> None:
    """Measure all curves."""
    _look_ups(rounds, world_options, counts, in_flight, ids)
    world = World.synthesize(**cells_options)
    setting = {"rounds": rounds, "latency_s": LATENCY, "service_times": True, "workers": WORKERS}
    with SandboxProcess(world, latency=LATENCY, service_times=True, workers=WORKERS) as sandbox:
        rows = list(_roots_to_cells(world, sandbox, asked, rounds))
    keep("growth", "roots to cells by number of ids", setting | {"world": cells_options}, rows)


def _look_ups(
    rounds: int, world_options: dict[str, Any], counts: Sequence[int], in_flight: Sequence[int], ids: int
) -> None:
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
    _insist(found, truth)
    return taken


COLD, WARM, INDEX = "a new client: the servers", "the same client again", "an index of roots and cells"
MOST_COLD = 100_000
"""Distinct roots that a new client is asked about: a million more would take the servers a quarter of an hour."""


def _roots_to_cells(
    world: World, sandbox: SandboxProcess, asked: Sequence[int], rounds: int
) -> Iterator[dict[str, Any]]:
    """Translate current and former roots that hold a nucleus, by each route as far as it is feasible."""
    rng = np.random.default_rng(0)
    roots = rng.permutation(world.graph.root_ids())
    roots = roots[populations.alive_at_versions(world, roots).any(1)][:MOST_COLD]
    cells = mapping.truth(world, roots)
    with tempfile.TemporaryDirectory() as folder:
        _write_index(Path(folder), roots, cells)
        _by_each_route(sandbox, folder, roots, roots[:100], cells[:100])  # loads what is loaded at first use
        for n in asked:
            places = np.arange(n) if n <= len(roots) else rng.integers(0, len(roots), n)
            ids, truth = roots[places], cells[places]
            taken = [_by_each_route(sandbox, folder, roots, ids, truth) for _ in range(rounds)]
            for route in taken[0]:
                seconds = statistics.median(one[route] for one in taken)
                distinct = min(n, len(roots))
                yield {"route": route, "ids": n, "distinct": distinct, "seconds": seconds, "ids_per_s": n / seconds}


def _by_each_route(sandbox: SandboxProcess, folder: str, roots: Ids, ids: Ids, truth: Ids) -> dict[str, float]:
    """Seconds of each route; a new client is not timed where ids repeat."""
    taken = asyncio.run(_by_client(sandbox, roots, ids, truth))
    begun = time.perf_counter()
    found = CellIndex(folder).root_to_cell(ids)["cell_id"].to_numpy()
    taken[INDEX] = time.perf_counter() - begun
    _insist(found, truth)
    return taken


async def _by_client(sandbox: SandboxProcess, roots: Ids, ids: Ids, truth: Ids) -> dict[str, float]:
    taken = {}
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        if len(ids) > len(roots):
            await client.root_id_to_cell_id(roots)
        for route in (WARM,) if len(ids) > len(roots) else (COLD, WARM):
            begun = time.perf_counter()
            found = (await client.root_id_to_cell_id(ids))["cell_id"].to_numpy()
            taken[route] = time.perf_counter() - begun
            _insist(found, truth)
    return taken


def _write_index(folder: Path, roots: Ids, cells: Ids) -> None:
    """All roots, be it as those of no cell."""
    columns = {"root": roots, "cell": cells, "start": roots * 0, "end": roots * 0 + 1, "source": ["main"] * len(roots)}
    status = np.where(cells < 0, "none", "ok")
    rows = pl.DataFrame(columns | {"status": status, "n_matches": cells >= 0}, schema_overrides=_index.ROWS)
    layer = int(roots[0]) >> 56
    _index.write(folder, _index.Facts("http://nowhere", "made_up", 1, datetime(2026, 1, 1, tzinfo=UTC), layer), rows)


def _insist(found: Ids, truth: Ids) -> None:
    if not np.array_equal(found, truth):
        raise SystemExit("an answer is not what the world says: no figures")
