"""The translation where the server fails for single ids: each spoils its own outcome, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.oracle import oracle_for, oracle_root_to_cell

from cortexclient import AsyncCortexClient, RetryPolicy
from cortexclient.sandbox import Faults, Sandbox, World

from .conftest import client_of

QUICK = RetryPolicy(base=0.001, cap=0.002)


@pytest.fixture(scope="module")
def world() -> World:
    return World.synthesize(seed=11, nuclei=80, edits=400, fragments=40, backups=20)


@pytest.fixture(scope="module")
def good(world: World) -> Iterator[pd.DataFrame]:
    """The answers of a server without faults, for all roots that ever were."""

    async def ask() -> pd.DataFrame:
        with Sandbox(world) as sandbox:
            async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
                return await client.root_id_to_cell_id(world.graph.root_ids(), detail=True)

    return asyncio.run(ask())


async def answers(flavour: str, world: World, faults: Faults, ids: Any) -> pd.DataFrame:
    with Sandbox(world, faults=faults) as sandbox:
        async with client_of(flavour, sandbox, retry=QUICK) as client:
            return await client.root_id_to_cell_id(ids, detail=True)


@pytest.mark.parametrize("only", [None, "valid_nodes", "root_timestamps", "lineage"])
async def test_a_poisoned_root_spoils_its_own_outcome(
    flavour: str, world: World, good: pd.DataFrame, only: str | None
) -> None:
    between = good.index[(good["status"] == "none")]
    bad = {int(between[0]), int(between[len(between) // 2]), int(between[-1])}
    found = await answers(flavour, world, Faults(poison=bad, only=only), good.index.to_numpy())
    spoiled = set(found.index[found["status"] == "unresolved"])
    assert spoiled <= bad
    if only in (None, "valid_nodes", "root_timestamps"):
        assert spoiled == bad
    others = good.index[~good.index.isin(spoiled)]
    pd.testing.assert_frame_equal(found.loc[others], good.loc[others])
    assert (found.loc[list(spoiled), "cell_id"] == -1).all()


async def test_a_poisoned_supervoxel_spoils_only_roots_that_may_hold_it(
    flavour: str, world: World, good: pd.DataFrame
) -> None:
    """Every wrong guess would be a wrong answer: what is not unresolved must be as before."""
    mains = world.tables["nucleus_detection_v0"].rows
    spoilt = 0
    for supervoxel in mains["pt_supervoxel_id"].to_list()[:12]:
        found = await answers(flavour, world, Faults(poison=[supervoxel], only="roots_binary"), good.index.to_numpy())
        sure = found["status"] != "unresolved"
        pd.testing.assert_frame_equal(found[sure], good[sure])
        assert (~sure).sum() < 0.2 * len(good)
        spoilt += int((~sure).sum())
    assert spoilt > 0


async def test_a_poisoned_root_that_a_table_knows_is_answered(flavour: str, world: World, good: pd.DataFrame) -> None:
    version = world.version()
    known = good.index[
        (good["status"] == "ok") & (good["timestamp"] == pd.Timestamp(version.time_us // 1000, unit="ms", tz="UTC"))
    ]
    bad = int(known[0])
    found = await answers(flavour, world, Faults(poison=[bad]), good.index[:50].union([bad]))
    assert found["status"][bad] == "ok"
    assert found["cell_id"][bad] == oracle_root_to_cell(world, bad).id


async def test_unresolved_is_not_remembered(flavour: str, world: World, good: pd.DataFrame) -> None:
    ids = good.index.to_numpy()
    bad = int(good.index[good["status"] == "none"][3])
    with Sandbox(world, faults=Faults(poison=[bad])) as sandbox:
        async with client_of(flavour, sandbox, retry=QUICK) as client:
            assert (await client.root_id_to_cell_id(ids, detail=True))["status"][bad] == "unresolved"
            sandbox.faults = ""  # type: ignore[assignment]
            again = await client.root_id_to_cell_id(ids, detail=True)
    # asked alone, it is met at another instant of its life
    pd.testing.assert_frame_equal(again.drop(columns="timestamp"), good.drop(columns="timestamp"))


async def test_the_other_way_round(flavour: str, world: World) -> None:
    oracle = oracle_for(world)
    mains = world.tables["nucleus_detection_v0"].rows
    cells = mains["id"].to_list()
    when = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        milliseconds=(world.graph.created_ms + world.graph.newest_ms) // 2
    )
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox, retry=QUICK) as client:
            whole = await client.cell_id_to_root_id(cells, timestamp=when, detail=True)
            row = next(
                row
                for row in mains.iter_rows(named=True)
                if whole["source"].get(row["id"]) == "main" and whole["status"][row["id"]] == "ok"
            )
            sandbox.faults = Faults(poison=[row["pt_supervoxel_id"]], only="roots_binary")
            found = await client.cell_id_to_root_id(cells, timestamp=when, detail=True)
    spoiled = found.index[found["status"] == "unresolved"].tolist()
    same = mains.filter(mains["pt_supervoxel_id"] == row["pt_supervoxel_id"])["id"].to_list()
    assert row["id"] in spoiled
    assert set(spoiled) <= set(same) | {*found.index[found["source"] == "backup"]}
    assert (found.loc[spoiled, "root_id"] == -1).all()
    rest = found.index.difference(spoiled)
    pd.testing.assert_frame_equal(found.loc[rest], whole.loc[rest])
    assert whole["root_id"][row["id"]] == oracle.root_at(row["pt_supervoxel_id"], int(when.timestamp() * 1000))


# -- many calls about one id each --------------------------------------------------------------------------------------


async def test_single_translations_are_joined(world: World, good: pd.DataFrame) -> None:
    ids = good.index.to_numpy()
    with Sandbox(world) as sandbox:
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            single = await asyncio.gather(*(client.root_id_to_cell_id(int(i), detail=True) for i in ids))
            requests = client.stats.requests
            back = await asyncio.gather(*(client.cell_id_to_root_id(cell) for cell in range(1, 81)))
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            whole = await client.root_id_to_cell_id(ids, detail=True)
            assert requests <= client.stats.requests
            assert np.concatenate([part["root_id"] for part in back]).tolist() == (
                (await client.cell_id_to_root_id(range(1, 81)))["root_id"].tolist()
            )
    pd.testing.assert_frame_equal(pd.concat(single), whole)


async def test_single_live_translations_are_joined(world: World, good: pd.DataFrame) -> None:
    ids = good.index[:200]
    with Sandbox(world) as sandbox:
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            single = await asyncio.gather(*(client.root_id_to_cell_id(int(i), live=True) for i in ids))
            requests = client.stats.requests
        async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
            whole = await client.root_id_to_cell_id(ids, live=True)
            assert requests <= client.stats.requests
    assert [frame["cell_id"].iloc[0] for frame in single] == whole["cell_id"].tolist()
