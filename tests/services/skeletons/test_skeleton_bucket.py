"""Skeletons from the service's bucket: the same ones, under tokens that end, from files that are damaged or missing."""

from __future__ import annotations

import json
import time
import types
from dataclasses import replace
from typing import Any

import anyio
import numpy as np
import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient, Limits
from cortexclient._outbox import AHEAD
from cortexclient.errors import CortexUsageError, DecodeError, MissingDependency, NotFoundError
from cortexclient.sandbox import Faults, Sandbox, World, costs
from cortexclient.sandbox.routes import skeletoncache
from cortexclient.sandbox.skeleton_formats import flatdict
from cortexclient.services.skeleton import _bucket, _fetch

from ..conftest import client_of

pytest.importorskip("h5py")
ARRAYS = ("vertices", "edges", "radius", "compartment", "lvl2_ids", "mesh_to_skel_map")


def requests(server: Sandbox, part: str) -> int:
    routes = server.counters.snapshot().routes
    return sum(counts.requests for route, counts in routes.items() if part in route)


async def test_the_bucket_has_the_same_skeletons_as_the_service(
    flavour: str, server: Sandbox, cached: list[int]
) -> None:
    found = {}
    for method in ("service", "bucket"):
        async with client_of(flavour, server) as client:
            server.counters.reset()
            found[method] = await client.skeleton.get_skeletons(cached[:200], method=method)  # type: ignore[arg-type]
            assert list(found[method]) == cached[:200]
            bulk, files = (requests(server, part) for part in ("get_cached_skeletons", "/o/"))
            assert (bulk, files) == ((16, 0) if method == "service" else (0, 200))
            assert requests(server, "get_skeleton_token") == (method == "bucket")
    for root, one in found["service"].items():
        other = found["bucket"][root]
        assert (one.root, one.meta) == (other.root, other.meta)
        for name in ARRAYS:
            mine, theirs = getattr(one, name), getattr(other, name)
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
            assert not theirs.flags.writeable


async def test_what_the_bucket_lacks_is_asked_for_and_made(
    client: AsyncCortexClient, cached: list[int], missing: list[int]
) -> None:
    asked = [cached[0], missing[0], cached[1] + 1]
    results = await client.skeleton.get_skeletons(asked, method="bucket", timeout=HANG)
    assert list(results) == asked[:2]
    assert isinstance(results.errors[cached[1] + 1], NotFoundError)


async def test_a_token_that_ends_in_mid_run_is_renewed(
    client: AsyncCortexClient, server: Sandbox, own_world: World, cached: list[int]
) -> None:
    arrived = []
    revoked = 0
    async with client.skeleton.stream_skeletons(cached[:300], method="bucket") as outcomes:
        async for outcome in outcomes:
            arrived.append(outcome)
            # the second one ends only after it was handed out; reading runs at most some hundred files ahead
            if len(arrived) >= 20 and revoked < 2 and requests(server, "get_skeleton_token") > revoked:
                own_world.skeletons.passes.revoke()
                revoked += 1
    assert sorted(outcome.id for outcome in arrived if outcome.ok) == sorted(cached[:300])
    assert requests(server, "get_cached_skeletons") == 0
    assert 3 <= requests(server, "get_skeleton_token") <= 5  # shared by all who were refused


async def test_tokens_are_renewed_before_they_end(
    client: AsyncCortexClient, server: Sandbox, own_world: World, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = 0.0
    clock = types.SimpleNamespace(time=lambda: time.time() + ahead)
    monkeypatch.setattr(_bucket, "time", clock)
    for number in range(3):
        ahead = server.weather.clock_skew = 0.95 * own_world.skeletons.passes.seconds * number
        await client.skeleton.get_skeletons(cached[20 * number :][:20], method="bucket")
        assert requests(server, "get_skeleton_token") == number + 1
    server.weather.clock_skew = 0.0
    assert requests(server, "get_cached_skeletons") == 0
    assert 401 not in server.counters.snapshot().total.statuses


async def test_a_bucket_that_shuts_for_good_leaves_the_service(
    client: AsyncCortexClient, server: Sandbox, own_world: World, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_world.skeletons.passes, "open", lambda token, now_ms: False)
    results = await client.skeleton.get_skeletons(cached[:10], method="bucket")
    assert list(results) == cached[:10]
    assert requests(server, "get_cached_skeletons") == 10


@pytest.mark.parametrize("damage", ["gzip", "h5", "text", "other root"])
async def test_a_damaged_file_spoils_only_its_root(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    from isal import igzip

    whole, bad = skeletoncache._stored, cached[4]

    def damaged(store: Any, root_id: int, datastack: str) -> bytes:
        body = whole(store, cached[5] if damage == "other root" and root_id == bad else root_id, datastack)
        if root_id != bad or damage == "other root":
            return body
        if damage == "gzip":
            return body[: len(body) // 2]
        return b"no file at all" if damage == "text" else igzip.compress(igzip.decompress(body)[:-2000])

    monkeypatch.setattr(skeletoncache, "_stored", damaged)
    results = await client.skeleton.get_skeletons(cached[:40], method="bucket")
    assert list(results.errors) == [bad]
    assert isinstance(results.errors[bad], DecodeError)
    assert results.errors[bad].ids == (bad,)
    assert len(results) == 39


async def test_a_file_that_was_cut_on_its_way_is_read_again(
    client: AsyncCortexClient, server: Sandbox, cached: list[int]
) -> None:
    server.faults = Faults("short", only="/o/", times=3)
    results = await client.skeleton.get_skeletons(cached[:20], method="bucket")
    assert list(results) == cached[:20]
    assert requests(server, "/o/") == 23


async def test_a_service_without_an_account_keeps_its_bucket_shut(flavour: str, cached: list[int]) -> None:
    with Sandbox(World.default(), strict=True) as sandbox:
        async with client_of(flavour, sandbox) as client:
            for some in (cached[:30], cached[30:60]):
                assert list(await client.skeleton.get_skeletons(some, method="bucket")) == some
        tries = requests(sandbox, "get_skeleton_token")
    assert tries == 2  # an unexplained 500 is tried twice; and never again


async def test_an_older_service_is_asked_in_its_own_way(flavour: str, cached: list[int]) -> None:
    world = World.default()
    world.skeletons.service_version = "0.22.4"
    roots = world.graph.root_ids()
    old = int(roots[~world.skeletons.cached(roots, 2**50)][0])
    asked = [*cached[:60], old, cached[0] + 1]
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            found = await client.skeleton.get_skeletons(asked, timeout=HANG)
            again = await client.skeleton.get_skeletons(cached[60:90], method="bucket")
        refused = requests(sandbox, "get_cached_skeletons")
    assert list(found) == [*cached[:60], old]
    assert isinstance(found.errors[cached[0] + 1], NotFoundError)
    assert found[old].vertices.tolist() == world.skeletons.get(old).vertices.tolist()
    assert list(again) == cached[60:90]
    assert refused <= 16  # those of the first wave


async def test_the_bucket_is_taken_where_the_service_is_slow(
    flavour: str, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service takes 0.2 / 16 seconds for each, with as many requests at once as it answers."""
    asked, files = cached[:48], {}
    monkeypatch.setattr(costs, "SKELETON_READ", 0.2)
    for of_a_file in (0.003, 1.0):
        monkeypatch.setattr(_fetch, "BUCKET_SECONDS", of_a_file)
        with Sandbox(World.default(), service_times=True) as sandbox:
            async with client_of(flavour, sandbox, limits=Limits(batch={"cached": 1})) as client:
                assert list(await client.skeleton.get_skeletons(asked)) == asked
            files[of_a_file] = requests(sandbox, "/o/")
    assert files == {0.003: 32, 1.0: 0}  # all but the first wave, or none


async def test_without_h5py_the_service_does(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"cortexclient\[skeleton\]"):
        await client.skeleton.get_skeletons(cached[:3], method="bucket")
    assert len(await client.skeleton.get_skeletons(cached[:3])) == 3
    with pytest.raises(CortexUsageError, match="'auto', 'service' or 'bucket'"):
        await client.skeleton.get_skeletons(cached[:3], method="gcs")  # type: ignore[arg-type]


async def test_older_versions_lack_the_level_2_ids(
    client: AsyncCortexClient, own_world: World, cached: list[int]
) -> None:
    expected = own_world.skeletons.get(cached[0])
    for version, resolved in {-1: 4, 0: 2, 1: 1, 2: 2, 3: 3, 4: 4}.items():
        found = await client.skeleton.get_skeleton(cached[0], skeleton_version=version)
        told = json.loads(flatdict(expected, "minnie65_public", resolved))
        assert found.meta == told["meta"]
        assert found.lvl2_ids.tolist() == told.get("lvl2_ids", [])
        assert found.compartment.tolist() == told["compartment"]
        assert found.vertices.tolist() == told["vertices"]
        if resolved != 4:
            with pytest.raises(CortexUsageError, match="names no level-2 chunks"):
                found.to_meshwork()
    for version in (5, -2, 99):
        with pytest.raises(CortexUsageError, match="-1, 0, 1, 2, 3, 4"):
            await client.skeleton.get_skeleton(cached[0], skeleton_version=version)


async def test_a_stub_is_refused_with_its_reason(
    client: AsyncCortexClient, own_world: World, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = own_world.skeletons.get
    bad = next(i for i in cached if len(whole(i).level2) > 3)
    stub = replace(
        whole(bad),
        vertices=np.zeros((1, 3)),
        edges=np.zeros((0, 2), np.int64),
        root=0,
        radius=np.ones(1),
        compartment=np.ones(1, np.int64),
        vertex_of=np.zeros(len(whole(bad).level2), np.int64),
    )
    monkeypatch.setattr(own_world.skeletons, "get", lambda root_id: stub if root_id == bad else whole(root_id))
    skeletoncache._body.cache_clear()
    skeletoncache._stored.cache_clear()
    try:
        for method in ("service", "bucket"):
            found = await client.skeleton.get_skeletons([cached[0], bad], method=method)  # type: ignore[arg-type]
            assert f"one vertex for all of its {len(stub.level2)} level-2 chunks" in str(found.errors[bad])
            assert list(found) == [i for i in (cached[0],) if i != bad]
    finally:
        skeletoncache._body.cache_clear()
        skeletoncache._stored.cache_clear()


async def test_a_slow_reader_slows_the_fetch(client: AsyncCortexClient, server: Sandbox, cached: list[int]) -> None:
    asked = cached[:500]
    async with client.skeleton.stream_skeletons(asked, method="bucket") as outcomes:
        arrived = [(await anext(outcomes)).id for _ in range(5)]
        before = -1
        while before != (before := requests(server, "/o/")):
            await anyio.sleep(0.2)
        # read, waiting (in the blocking client twice), in the workers' hands
        assert before <= 5 + 2 * AHEAD + Limits().storage_in_flight + 16 < len(asked)
        arrived += [outcome.id async for outcome in outcomes]
    assert sorted(arrived) == sorted(asked)


async def test_skeletons_are_ensured_without_being_fetched(flavour: str, cached: list[int]) -> None:
    world = World.default()
    store, roots = world.skeletons, world.graph.root_ids()
    retired = [int(i) for i in roots[~store.cached(roots, 2**50)]]
    store.seconds, level2 = 0.5, int(world.graph.leaves(cached[0], 2)[0])
    store.refused.add(retired[1])
    store.stuck.add(retired[2])
    asked = [cached[0], retired[0], retired[1], retired[2], level2, cached[0] + 1, cached[0]]
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            for seconds in (2.5, 25, 250):  # on a busy machine what can be made needs more than the first
                found = await client.ensure_skeletons(asked, timeout=seconds)
                if "made" in found.values():
                    break
        assert requests(sandbox, "get_cached_skeletons") == requests(sandbox, "/o/") == 0
    assert dict(found) == {cached[0]: "there", retired[0]: "made"}
    kinds = {i: type(error).__name__ for i, error in found.errors.items()}
    assert kinds == {
        retired[1]: "ServerRefusedError",
        retired[2]: "DeadlineExceeded",
        level2: "NotFoundError",
        cached[0] + 1: "NotFoundError",
    }
