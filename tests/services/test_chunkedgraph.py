"""The chunkedgraph service, against the world's raw facts."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.oracle import Oracle, oracle_for

from cortexclient import AsyncCortexClient, CortexUsageError, Limits, NotFoundError, Progress
from cortexclient.sandbox import Sandbox, World

from .conftest import client_of

NEVER = np.iinfo(np.int64).max


def instant(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=int(ms))


@pytest.fixture(scope="module")
def oracle(world: World) -> Oracle:
    return oracle_for(world)


@pytest.fixture(scope="module")
def facts(world: World, oracle: Oracle) -> SimpleNamespace:
    """Lifetimes and lineage in dictionaries, from the raw columns."""
    operations, lineage = world.graph.operations, world.graph.lineage
    born: dict[int, int] = {}
    for cells in oracle.parents.values():
        for time, parent in cells:
            born[parent] = min(time, born.get(parent, NEVER))
    died, former_of, new_of = {}, defaultdict(set), defaultdict(set)
    for former, new, operation in zip(
        *(c.tolist() for c in (lineage.former, lineage.new, lineage.operation_id)), strict=True
    ):
        died[former] = operations[operation].time_ms
        former_of[new].add(former)
        new_of[former].add(new)
    roots = sorted(node for node in born if oracle.layer(node) == oracle.root_layer)
    return SimpleNamespace(
        born=born,
        died=died,
        former_of=former_of,
        new_of=new_of,
        roots=roots,
        current=[root for root in roots if root not in died],
        retired=sorted(died),
        supervoxels=sorted(node for node in oracle.parents if oracle.layer(node) == 1),
        newest=max(died.values()),
    )


def some(ids: list[int], n: int, seed: int = 0) -> list[int]:
    return [int(i) for i in np.random.default_rng(seed).choice(np.array(ids), n, replace=False)]


# -- look-ups ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.4, 1.0])
async def test_roots_of_supervoxels(client: AsyncCortexClient, oracle: Oracle, facts: Any, fraction: float) -> None:
    oldest = min(facts.born.values())
    when = oldest + int(fraction * (facts.newest - oldest))
    asked = some(facts.supervoxels, 500)
    roots = await client.chunkedgraph.get_roots(asked, instant(when))
    assert roots.dtype == np.int64
    assert roots.tolist() == [oracle.root_at(s, when) for s in asked]


async def test_an_edit_counts_from_its_very_millisecond(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    root = facts.retired[0]
    supervoxel, end = min(oracle.supervoxels(root)), facts.died[root]
    before = await client.chunkedgraph.get_roots(supervoxel, instant(end - 1))
    then = await client.chunkedgraph.get_roots(supervoxel, instant(end))
    assert before.tolist() == [root]
    assert then.tolist() == [oracle.root_at(supervoxel, end)] != [root]


async def test_order_duplicates_and_the_unknown(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    first, second = some(facts.supervoxels, 2)
    unknown = max(facts.supervoxels) + 1
    roots = await client.get_roots([second, 0, first, unknown, second, -5, first])
    one, two = (oracle.root_at(s, facts.newest) for s in (first, second))
    assert roots.tolist() == [two, 0, one, 0, two, 0, one]


async def test_roots_answer_with_themselves(client: AsyncCortexClient, facts: Any) -> None:
    asked = [facts.retired[0], facts.current[0]]
    assert (await client.chunkedgraph.get_roots(asked)).tolist() == asked


async def test_level_2_nodes(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    asked = some(facts.supervoxels, 50)
    nodes = await client.chunkedgraph.get_roots(asked, instant(facts.newest), stop_layer=2)
    assert nodes.tolist() == [max(oracle.parents[s])[1] for s in asked]
    assert await client.chunkedgraph.get_root_id(asked[0], instant(facts.newest), level2=True) == nodes[0]


async def test_one_root(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    supervoxel = facts.supervoxels[7]
    assert await client.chunkedgraph.get_root_id(supervoxel) == oracle.root_at(supervoxel, facts.newest)
    with pytest.raises(NotFoundError) as caught:
        await client.chunkedgraph.get_root_id(max(facts.supervoxels) + 1)
    assert caught.value.ids == (max(facts.supervoxels) + 1,)


async def test_nothing_asked_is_nothing_answered(client: AsyncCortexClient) -> None:
    for answer in (await client.get_roots([]), await client.is_latest_roots([])):
        assert answer.shape == (0,)
    assert len(await client.root_lifetimes([])) == 0


@pytest.mark.parametrize("fraction", [0.3, 1.0])
async def test_who_is_latest(client: AsyncCortexClient, facts: Any, fraction: float) -> None:
    when = int(min(facts.born.values()) * (1 - fraction) + facts.newest * fraction)
    asked = some(facts.roots, 400) + facts.current[:3]
    latest = await client.chunkedgraph.is_latest_roots(asked, instant(when))
    # exclusive: what happens at that very millisecond has not happened yet
    assert latest.tolist() == [facts.born[r] < when <= facts.died.get(r, NEVER) for r in asked]
    assert latest.dtype == bool


async def test_at_the_time_of_an_edit_the_old_root_is_still_latest(client: AsyncCortexClient, facts: Any) -> None:
    root = facts.retired[5]
    end = facts.died[root]
    assert (await client.is_latest_roots(root, instant(end))).tolist() == [True]
    assert (await client.is_latest_roots(root, instant(end + 1))).tolist() == [False]


async def test_which_nodes_exist(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    level2 = oracle.parents[facts.supervoxels[0]][0][1]
    asked = [facts.retired[0], 12345, level2, facts.current[0], max(facts.roots) + 1, 0, facts.current[0]]
    known = await client.chunkedgraph.is_valid_nodes(asked)
    assert known.tolist() == [True, False, True, True, False, False, True]


async def test_when_roots_came_to_be(client: AsyncCortexClient, facts: Any) -> None:
    asked = some(facts.roots, 300)
    times = await client.chunkedgraph.get_root_timestamps(asked)
    assert str(times.tz) == "UTC"
    assert times.as_unit("ms").asi8.tolist() == [facts.born[r] for r in asked]


async def test_until_when_roots_were_valid(client: AsyncCortexClient, facts: Any) -> None:
    asked = some(facts.retired, 100)
    times = await client.latest_valid_timestamp(asked)
    assert times.as_unit("ms").asi8.tolist() == [facts.died[r] - 1 for r in asked]
    # each root answers for its own supervoxels at that instant
    assert (await client.is_latest_roots(asked[0], times[0].to_pydatetime())).tolist() == [True]


async def test_lifetimes(client: AsyncCortexClient, facts: Any) -> None:
    asked = [*some(facts.roots, 200), facts.current[0], facts.current[0]]
    frame = await client.root_lifetimes(asked)
    assert frame.index.tolist() == asked
    assert frame.index.name == "root_id"
    assert frame.index.dtype == np.int64
    assert frame["start"].dt.as_unit("ms").astype("int64").tolist() == [facts.born[r] for r in asked]
    assert frame["is_latest"].tolist() == [r not in facts.died for r in asked]
    ended = frame[~frame["is_latest"]]
    assert ended["end"].dt.as_unit("ms").astype("int64").tolist() == [facts.died[r] for r in ended.index]
    assert frame.loc[frame["is_latest"], "end"].isna().all()


async def test_a_root_that_does_not_exist_is_named(client: AsyncCortexClient, facts: Any) -> None:
    missing = max(facts.roots) + 1
    for call in (client.chunkedgraph.get_root_timestamps, client.root_lifetimes, client.chunkedgraph.get_lineage_graph):
        with pytest.raises(NotFoundError) as caught:
            await call([facts.current[0], missing])
        assert caught.value.ids == (missing,)


# -- structure ---------------------------------------------------------------------------------------------------------


async def test_leaves(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    root = facts.retired[3]
    assert sorted(await client.chunkedgraph.get_leaves(root)) == sorted(oracle.supervoxels(root))
    level2 = {max(t for t in oracle.parents[s] if t[0] < facts.died[root])[1] for s in oracle.supervoxels(root)}
    assert set((await client.chunkedgraph.get_leaves(root, stop_layer=2)).tolist()) == level2
    assert len(await client.chunkedgraph.get_leaves(max(facts.roots) + 1)) == 0


async def test_leaves_of_many(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    asked = some(facts.roots, 20)
    leaves = await client.chunkedgraph.get_leaves_many([*asked, asked[0]])
    assert list(leaves) == asked
    assert {root: set(found.tolist()) for root, found in leaves.items()} == {r: oracle.supervoxels(r) for r in asked}


async def test_children(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    root = facts.current[3]
    assert set((await client.chunkedgraph.get_children(root)).tolist()) == oracle.children[root]
    assert len(await client.chunkedgraph.get_children(facts.supervoxels[0])) == 0


@pytest.mark.parametrize("bounds", [[[0, 1]], [[0, 1], [0, 1]], [[0.5, 1], [0, 1], [0, 1]], [[-1, 1], [0, 1], [0, 1]]])
async def test_bounds_must_be_a_box(client: AsyncCortexClient, facts: Any, bounds: Any) -> None:
    with pytest.raises(CortexUsageError, match="xmin"):
        await client.chunkedgraph.get_leaves(facts.current[0], bounds=bounds)


# -- history -----------------------------------------------------------------------------------------------------------


def reach(start: int, edges: Any) -> set[int]:
    """Everything that can be reached."""
    found, waiting = {start}, [start]
    while waiting:
        new = edges.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def with_history(facts: Any) -> int:
    return max(facts.retired, key=lambda r: (len(reach(r, facts.former_of)) > 2, len(reach(r, facts.new_of))))


async def test_lineage_goes_both_ways(client: AsyncCortexClient, facts: Any) -> None:
    root = with_history(facts)
    graph = await client.chunkedgraph.get_lineage_graph(root)
    ids = [node["id"] for node in graph["nodes"]]
    assert set(ids) == reach(root, facts.former_of) | reach(root, facts.new_of)
    assert ids == sorted(ids)
    links = {(link["source"], link["target"]) for link in graph["links"]}
    assert links == {(a, b) for a in ids for b in facts.new_of.get(a, ()) if b in ids}
    times = {node["id"]: round(node["timestamp"] * 1000) for node in graph["nodes"]}
    assert times == {i: facts.born[i] for i in ids}


async def test_latest_and_original_roots(client: AsyncCortexClient, facts: Any) -> None:
    root = with_history(facts)
    latest = await client.get_latest_roots(root)
    assert latest.tolist() == sorted(reach(root, facts.new_of) - facts.died.keys())
    original = await client.chunkedgraph.get_original_roots(root)
    assert original.tolist() == sorted(reach(root, facts.former_of) - facts.former_of.keys())
    assert (await client.get_latest_roots(facts.current[0])).tolist() == [facts.current[0]]


async def test_the_best_successor_holds_most(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    root = with_history(facts)
    overlaps = await client.chunkedgraph.get_root_overlaps(root)
    assert set(overlaps.index) == {oracle.root_at(s, facts.newest) for s in oracle.supervoxels(root)}
    assert overlaps["fraction"].sum() == pytest.approx(1)
    assert overlaps["fraction"].is_monotonic_decreasing
    best = await client.suggest_latest_roots(root)
    assert best == overlaps.index[0]
    assert best not in facts.died


async def test_past_ids(client: AsyncCortexClient, facts: Any) -> None:
    asked = [with_history(facts), *some(facts.current, 10)]
    when = (min(facts.born.values()) + facts.newest) // 2
    past = await client.chunkedgraph.get_past_ids([*asked, asked[0]], instant(when))

    def alive(root: int) -> set[int]:
        if facts.born[root] <= when:
            return {root}
        return {r for r in reach(root, facts.former_of) if facts.born[r] <= when < facts.died[r]}

    assert list(past) == asked
    assert {root: set(ids.tolist()) for root, ids in past.items()} == {root: alive(root) for root in asked}


async def test_the_net_change_of_a_time(client: AsyncCortexClient, facts: Any) -> None:
    start, stop = facts.newest - 90 * 86_400_000, facts.newest
    expired, created = await client.chunkedgraph.get_delta_roots(instant(start), instant(stop))
    died = {r for r, t in facts.died.items() if start <= t <= stop}
    born = {r for r in facts.former_of if start <= facts.born[r] <= stop}
    assert expired.tolist() == sorted(died - born)
    assert created.tolist() == sorted(born - died)


async def test_the_log_of_a_root(client: AsyncCortexClient, world: World, facts: Any) -> None:
    root = with_history(facts)
    past = reach(root, facts.former_of)
    operations = {o.id: o for o in world.graph.operations.values() if past & set(o.roots)}
    log = (await client.chunkedgraph.get_tabular_change_log(root, filtered=False))[root]
    assert log["operation_id"].tolist() == sorted(operations)
    assert log["is_merge"].tolist() == [operations[i].kind == "merge" for i in log["operation_id"]]
    assert log["user_id"].tolist() == [operations[i].user for i in log["operation_id"]]
    total = await client.chunkedgraph.get_change_log(root, filtered=False)
    assert (total["n_mergers"], total["n_splits"]) == (log["is_merge"].sum(), (~log["is_merge"]).sum())
    details = await client.chunkedgraph.get_operation_details(log["operation_id"])
    assert {i: d["user"] for i, d in details.items()} == {i: operations[i].user for i in log["operation_id"]}


# -- how it is asked ---------------------------------------------------------------------------------------------------


async def test_a_pinned_client_answers_for_its_instant(client: AsyncCortexClient, oracle: Oracle, facts: Any) -> None:
    root = facts.retired[10]
    supervoxel, before = min(oracle.supervoxels(root)), facts.died[root] - 1
    pinned = client.at(timestamp=instant(before))
    assert (await pinned.get_roots(supervoxel)).tolist() == [root]
    assert (await client.get_roots(supervoxel)).tolist() == [oracle.root_at(supervoxel, facts.newest)]


async def test_many_ids_travel_in_batches(flavour: str, sandbox: Sandbox, oracle: Oracle, facts: Any) -> None:
    asked = some(facts.supervoxels, 1000)
    seen: list[Progress] = []
    async with client_of(flavour, sandbox, limits=Limits(batch={"roots_binary": 100})) as client:
        await client.chunkedgraph.segmentation_info()
        before = client.stats.requests
        roots = await client.get_roots(asked, instant(facts.newest), progress=seen.append)
        assert client.stats.requests - before >= 10
    assert roots.tolist() == [oracle.root_at(s, facts.newest) for s in asked]
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (1000, 1000, 0)


@pytest.mark.parametrize("ids", [[1.5], np.array([1e18]), "864691134885645050.0", [None]])
async def test_ids_are_exact_or_refused(client: AsyncCortexClient, ids: Any) -> None:
    with pytest.raises(CortexUsageError):
        await client.get_roots(ids)


async def test_a_time_without_zone_is_refused(client: AsyncCortexClient) -> None:
    with pytest.raises(CortexUsageError, match="time zone"):
        await client.get_roots([1], datetime(2024, 1, 1))  # noqa: DTZ001
