"""Two hundred thousand ids in bad weather: every one has exactly one outcome, and the right one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cortexclient import AsyncCortexClient, Limits, RetryPolicy
from cortexclient.sandbox import Faults, Sandbox, World

N = 200_000
MIXED = "503:1%,429:0.5%,429-retry-after:0.5%,502:1%,reset:1%,truncated:1%"
"""Five requests of a hundred fail."""
PATIENT = RetryPolicy(base=0.01, cap=0.1)
SMALL = Limits(in_flight=16, batch={"roots_binary": 250, "root_timestamps": 500, "valid_nodes": 500})
"""Small batches, so that there are a thousand requests to fail."""


@pytest.fixture(scope="module")
def world() -> World:
    return World.synthesize(seed=3, nuclei=50_000, edits=1_000, fragments=160_000, synapses=1, backups=500, proofread=1)


@pytest.fixture(scope="module")
def stormy(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


def instant(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)


def check_weather(sandbox: Sandbox, client: AsyncCortexClient) -> None:
    """Enough faults of all kinds were met, and at no time were there more requests than allowed."""
    counts = sandbox.counters.snapshot()
    assert {503, 429, 502, 0} <= set(counts.total.statuses)
    assert client.stats.retries >= 10
    for service, tally in counts.services.items():
        assert tally.peak <= SMALL.in_flight, service
    assert max(client.stats.peak.values()) <= SMALL.in_flight


async def test_supervoxels_to_roots(world: World, stormy: Sandbox) -> None:
    nodes = world.graph.cells.node
    supervoxels = np.unique(nodes[world.graph.layout.layer(nodes) == 1])
    asked = np.random.default_rng(0).permutation(supervoxels)[:N]
    when = (world.graph.created_ms + world.graph.newest_ms) // 2
    stormy.counters.reset()
    stormy.faults = Faults(MIXED, retry_after=0.05, seed=1)
    async with AsyncCortexClient(stormy.spec, token=stormy.token, retry=PATIENT, limits=SMALL) as client:
        roots = await client.get_roots(asked, instant(when))
        check_weather(stormy, client)
    assert (roots == world.graph.roots(asked, when)).all()


async def test_roots_to_cells(world: World, stormy: Sandbox) -> None:
    roots = np.random.default_rng(1).permutation(world.graph.root_ids())[: N - 1_000]
    asked = np.concatenate([roots, roots[:1_000] + 2**40])  # and some that never were
    assert len(np.unique(asked)) == N

    async def translate(faults: Any) -> pd.DataFrame:
        stormy.counters.reset()
        stormy.faults = faults
        async with AsyncCortexClient(stormy.spec, token=stormy.token, retry=PATIENT, limits=SMALL) as client:
            found = await client.root_id_to_cell_id(asked, detail=True)
            if faults:
                check_weather(stormy, client)
            return found

    calm, found = await translate(""), await translate(Faults(MIXED, retry_after=0.05, seed=2))
    assert found.index.tolist() == asked.tolist()
    told = ["cell_id", "status", "source", "n_matches"]  # current roots were seen at two different times
    pd.testing.assert_frame_equal(found[told], calm[told])
    assert (found["status"].iloc[-1_000:] == "invalid").all()
    assert {"ok", "none", "invalid"} <= set(found["status"]) <= {"ok", "none", "multiple", "invalid"}
    assert found["cell_id"].iloc[:-1_000].tolist() == owners(world, roots).tolist()


def owners(world: World, roots: np.ndarray) -> pd.Series:
    """The cell of every root that owns one, by the rows of the newest version and the leaves of the roots."""
    version = world.version()
    mains = world.annotations.frozen("nucleus_detection_v0", version).to_pandas()
    backups = world.annotations.frozen("nucleus_alternative_points", version).to_pandas()
    replaced = mains["id"].isin(backups["target_id"])
    backups = backups[backups["target_id"].isin(mains["id"])].assign(id=lambda rows: rows["target_id"])
    supervoxels, owner = world.graph.leaves_of(roots)
    leaves = pd.DataFrame({"root": roots[owner], "pt_supervoxel_id": supervoxels})

    def only(rows: pd.DataFrame) -> pd.Series:
        held = leaves.merge(rows[rows["pt_supervoxel_id"] != 0], on="pt_supervoxel_id").groupby("root")["id"]
        return held.first().where(held.nunique() == 1, -1)

    effective, old = only(pd.concat([mains[~replaced], backups])), only(mains[replaced])
    found = pd.concat([effective, old[~old.index.isin(effective.index)]])
    return found.reindex(roots, fill_value=-1)


async def test_many_single_calls_in_bad_weather(world: World, stormy: Sandbox) -> None:
    roots = world.graph.root_ids()[:3_000]
    stormy.faults = Faults(MIXED, retry_after=0.05, seed=3)
    async with AsyncCortexClient(stormy.spec, token=stormy.token, retry=PATIENT, limits=SMALL) as client:
        found = await asyncio.gather(*(client.is_latest_roots(int(root)) for root in roots))
    truth = world.graph.retired(roots) > world.graph.newest_ms
    assert np.concatenate(found).tolist() == truth.tolist()
