"""What became of roots, against the world's raw facts: supervoxels climbed one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from tests.oracle import Oracle, oracle_for

from cortexclient import AsyncCortexClient, CortexUsageError, NotFoundError, Progress
from cortexclient.sandbox import Faults, Sandbox, World

from .conftest import client_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def instant(ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=int(ms))


@pytest.fixture(scope="module")
def world() -> World:
    """Many edits on few cells, so that most roots have a history."""
    return World.synthesize(seed=5, nuclei=60, edits=500, fragments=60)


@pytest.fixture(scope="module")
def sandboxes(world: World) -> Iterator[dict[str, Sandbox]]:
    with Sandbox(world, strict=True) as strict, Sandbox(world) as repaired:
        yield {"async": strict, "sync": repaired}


@pytest.fixture(scope="module")
def oracle(world: World) -> Oracle:
    return oracle_for(world)


@pytest.fixture(scope="module")
def roots(world: World) -> list[int]:
    return sorted(world.graph.root_ids().tolist())


def shares(oracle: Oracle, root: int, time_ms: int) -> dict[int, float]:
    """Of the root's level-2 chunks, each split over its supervoxels, by the root they are on."""
    chunks, front = [], [root]
    while front:
        node = front.pop()
        if oracle.layer(node) == 2:
            chunks.append(node)
        else:
            front += oracle.children[node]
    held: dict[int, float] = defaultdict(float)
    for chunk in chunks:
        for supervoxel in oracle.children[chunk]:
            held[oracle.root_at(supervoxel, time_ms)] += 1 / len(oracle.children[chunk]) / len(chunks)
    return held


def heirs(world: World, root: int) -> set[int]:
    """Where edits lead from a root in the end."""
    lineage = world.graph.lineage
    later: dict[int, list[int]] = defaultdict(list)
    for former, new in zip(lineage.former.tolist(), lineage.new.tolist(), strict=True):
        later[former].append(new)
    seen, front = {root}, [root]
    while front:
        fresh = [node for node in later[front.pop()] if node not in seen]
        seen.update(fresh)
        front += fresh
    return {node for node in seen if not later[node]}


def check(row: Any, root: int, truth: dict[int, float]) -> None:
    best = max(truth.values())
    assert truth[row.current_id] == pytest.approx(best)
    assert row.confidence == pytest.approx(best)
    assert sorted(row.alternatives) == sorted(set(truth) - {row.current_id})
    assert [truth[i] for i in row.alternatives] == sorted((truth[i] for i in row.alternatives), reverse=True)
    assert row.status == ("current" if row.current_id == root else "split" if row.alternatives else "updated")


@pytest.mark.parametrize("share", [0.2, 0.6, 1.0])
async def test_every_root_of_all_times(
    client: AsyncCortexClient, world: World, oracle: Oracle, roots: list[int], share: float
) -> None:
    """Older ones are followed forwards, younger ones backwards."""
    start = world.graph.created_ms
    when = start + int(share * (world.graph.newest_ms - start))
    found = await client.update_roots(roots, instant(when))
    assert found.index.tolist() == roots
    assert found.dtypes.astype(str).to_dict()["current_id"] == "int64"
    for row in found.itertuples():
        check(row, row.Index, shares(oracle, row.Index, when))
    statuses = set(found["status"])
    assert statuses == {"current", "updated", "split"}
    current = await client.is_latest_roots(found["current_id"].to_numpy(), instant(when + 1))
    assert current.all()


async def test_now_is_the_default_and_a_pin_counts(client: AsyncCortexClient, world: World, roots: list[int]) -> None:
    some = roots[::7]
    now = await client.update_roots(some)
    then = await client.update_roots(some, instant(world.graph.newest_ms))
    assert now["current_id"].tolist() == then["current_id"].tolist()
    version = (await client.materialize.get_versions())[0]
    pinned = await client.at(version=version).update_roots(some)
    explicit = await client.update_roots(some, await client.version_timestamp(version))
    assert pinned["current_id"].tolist() == explicit["current_id"].tolist()
    assert pinned["current_id"].tolist() != now["current_id"].tolist()


async def test_chunks_are_looked_up_only_where_there_is_a_choice(
    client: AsyncCortexClient, sandbox: Sandbox, oracle: Oracle, world: World, roots: list[int]
) -> None:
    several = [root for root in roots if len(shares(oracle, root, world.graph.newest_ms)) > 1]
    sole = [root for root in world.graph.lineage.former.tolist() if len(heirs(world, root)) == 1][:200]
    looked_up = []
    for some in (sole, several[:20]):
        sandbox.counters.reset()
        await client.update_roots(some)
        routes = sandbox.counters.snapshot().routes
        looked_up.append(sum(tally.requests for route, tally in routes.items() if route.endswith("/leaves")))
    assert len(sole) > 50
    assert looked_up == [0, 20]


async def test_an_edit_counts_from_its_very_millisecond(
    client: AsyncCortexClient, oracle: Oracle, world: World
) -> None:
    lineage = world.graph.lineage
    root, operation = int(lineage.former[0]), world.graph.operations[int(lineage.operation_id[0])]
    before, then = [(await client.update_roots(root, instant(operation.time_ms + step))).iloc[0] for step in (-1, 0)]
    assert (before.current_id, before.status) == (root, "current")
    assert then.current_id != root
    assert then.current_id in shares(oracle, root, operation.time_ms)


async def test_order_duplicates_and_what_is_no_root(client: AsyncCortexClient, world: World, roots: list[int]) -> None:
    supervoxel = int(world.graph.cells.node.min())
    chunk = int((await client.chunkedgraph.get_leaves(roots[0], stop_layer=2))[0])
    unknown = roots[-1] + 12_345
    asked = [roots[3], unknown, supervoxel, roots[3], 0, chunk, -7]
    found = await client.update_roots(asked)
    assert found.index.tolist() == asked
    assert found["status"].tolist()[1:3] + found["status"].tolist()[4:] == ["invalid"] * 5
    assert found["current_id"].tolist()[1:3] == [-1, -1]
    assert found["confidence"].tolist()[1] == 0
    assert found["alternatives"].tolist()[1] == []
    assert found["current_id"].iloc[0] == found["current_id"].iloc[3] > 0


async def test_nothing_asked_and_nothing_there(client: AsyncCortexClient, world: World, roots: list[int]) -> None:
    assert len(await client.update_roots([])) == 0
    found = await client.update_roots(roots[:20], instant(world.graph.created_ms - 1000))
    assert set(found["status"]) == {"invalid"}
    with pytest.raises(CortexUsageError, match="time zone"):
        await client.update_roots(roots[:1], datetime(2024, 1, 1))  # noqa: DTZ001


async def test_one_poisoned_id_spoils_one_outcome(flavour: str, world: World, roots: list[int], oracle: Oracle) -> None:
    retired = [root for root in roots if len(shares(oracle, root, world.graph.newest_ms)) > 1]
    bad = retired[4]
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            good = await client.update_roots(roots)
            sandbox.faults = Faults(poison=[bad])
            found = await client.update_roots(roots)
    assert found["status"][bad] == "unresolved"
    assert found["current_id"][bad] == -1
    others = [root for root in roots if root != bad]
    assert found.loc[others, "current_id"].tolist() == good.loc[others, "current_id"].tolist()


async def test_calls_for_one_root_are_joined(sandboxes: dict[str, Sandbox], roots: list[int]) -> None:
    import asyncio

    sandbox = sandboxes["async"]
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        whole = await client.update_roots(roots[:300])
        many = client.stats.requests
        single = await asyncio.gather(*(client.update_roots(root) for root in roots[:300]))
        assert client.stats.requests - many <= many
    assert [frame["current_id"].iloc[0] for frame in single] == whole["current_id"].tolist()


async def test_progress_reaches_all(client: AsyncCortexClient, roots: list[int]) -> None:
    seen: list[Progress] = []
    await client.update_roots(roots, progress=seen.append)
    assert seen[-1].done == seen[-1].total == len(roots)


async def test_overlaps_of_many(client: AsyncCortexClient, oracle: Oracle, world: World, roots: list[int]) -> None:
    when = (world.graph.created_ms + world.graph.newest_ms) // 2
    some = roots[::11]
    found = await client.chunkedgraph.get_root_overlaps_many(some, instant(when))
    assert list(found) == some
    for root, held in found.items():
        assert held == pytest.approx(dict(shares(oracle, root, when)))
    with pytest.raises(NotFoundError) as caught:
        await client.chunkedgraph.get_root_overlaps_many([*some, roots[-1] + 12_345])
    assert caught.value.ids == (roots[-1] + 12_345,)
    assert set(caught.value.partial) == set(some)


# -- the best version --------------------------------------------------------------------------------------------------


async def test_the_best_version_knows_most_roots(client: AsyncCortexClient, world: World, oracle: Oracle) -> None:
    valid = sorted(
        (v for v in world.versions if v.valid and v.datastack == client.datastack_name), key=lambda v: v.version
    )
    then = valid[1].time_us // 1000
    supervoxels = [node for node in oracle.parents if oracle.layer(node) == 1]
    alive = sorted({oracle.root_at(supervoxel, then) for supervoxel in supervoxels} - {0})
    found = await client.best_version([*alive, alive[0]])
    assert found.index[0] == valid[1].version
    assert found["fraction"].iloc[0] == 1.0
    assert set(found["n_total"]) == {len(alive)}
    for version in valid:
        held = {oracle.root_at(supervoxel, version.time_us // 1000) for supervoxel in supervoxels}
        row = found.loc[version.version]
        assert row["n_current"] == len(held & set(alive))
        assert row["timestamp"].timestamp() == pytest.approx(version.time_us / 1e6)
    assert found["fraction"].is_monotonic_decreasing


async def test_of_equals_the_newest(client: AsyncCortexClient, world: World, oracle: Oracle) -> None:
    lineage = world.graph.lineage
    current = np.setdiff1d(world.graph.root_ids(), lineage.former)
    untouched = np.setdiff1d(current, lineage.new)[:5]
    found = await client.best_version(untouched)
    assert found["fraction"].tolist() == [1.0] * len(found)
    assert found.index.tolist() == sorted(found.index, reverse=True)


async def test_it_takes_lifetimes_alone(client: AsyncCortexClient, roots: list[int]) -> None:
    await client.materialize.get_versions()
    await client.chunkedgraph.table_name()
    before = client.stats.requests
    await client.best_version(roots[:500])
    assert client.stats.requests - before == 2


async def test_best_version_names_the_unknown(client: AsyncCortexClient, roots: list[int]) -> None:
    with pytest.raises(NotFoundError) as caught:
        await client.best_version([roots[0], roots[-1] + 12_345])
    assert caught.value.ids == (roots[-1] + 12_345,)
    assert set((await client.best_version([]))["n_current"]) == {0}
