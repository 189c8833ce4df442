"""Skeletons, level-2 data and states by both clients, compared with what the world itself holds."""

from __future__ import annotations

import contextlib
import gzip
import json
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from tests.patience import HANG

from cortexclient import AsyncCortexClient
from cortexclient.errors import (
    CortexUsageError,
    DeadlineExceeded,
    DecodeError,
    InvalidToken,
    NotFoundError,
    ServerRefusedError,
)
from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.routes import skeletoncache

from ..conftest import client_of

CURRENT = 864691134885645050


def assert_same(found: Any, world: World) -> None:
    expected = world.skeletons.get(found.root_id)
    assert found.vertices.tolist() == expected.vertices.tolist()
    assert found.edges.tolist() == expected.edges.tolist()
    assert found.lvl2_ids.tolist() == expected.level2.tolist()
    assert found.mesh_to_skel_map.tolist() == expected.vertex_of.tolist()
    assert found.radius.tolist() == expected.radius.tolist()
    assert found.compartment.tolist() == expected.compartment.tolist()
    assert found.root == expected.root


async def test_one_skeleton(client: AsyncCortexClient, own_world: World) -> None:
    assert_same(await client.skeleton.get_skeleton(CURRENT), own_world)


async def test_many_come_in_chunks_once_each_and_are_kept(
    client: AsyncCortexClient, server: Sandbox, own_world: World, cached: list[int]
) -> None:
    ids = [*cached[:300], *cached[:7]]
    await client.skeleton.get_version()
    server.counters.reset()
    results = await client.skeleton.get_skeletons(ids)
    assert list(results) == cached[:300]
    assert not results.errors
    for skeleton in results.values():
        assert_same(skeleton, own_world)
    counts = server.counters.snapshot()
    assert counts.services["skeleton"].requests == 16  # one wave, and nothing was asked for a single id
    again = await client.skeleton.get_skeletons(ids)
    assert all(again[i] is results[i] for i in results) or list(again) == list(results)
    assert server.counters.snapshot().services["skeleton"].requests == 16


async def test_one_bad_id_among_a_thousand_spoils_only_itself(
    client: AsyncCortexClient, own_world: World, cached: list[int]
) -> None:
    level2, supervoxel = (int(own_world.graph.leaves(CURRENT, layer)[0]) for layer in (2, 1))
    for bad in (supervoxel, level2, CURRENT + 1, 0):
        ids = [*cached[:500], bad, *cached[500:999]]
        results = await client.skeleton.get_skeletons(ids)
        assert list(results.errors) == [bad]
        assert isinstance(results.errors[bad], NotFoundError)
        assert len(results) == 999
        assert bad not in own_world.skeletons.refusals(2**50), "what is no root must not be queued"


async def test_missing_ones_are_made_and_waited_for(
    client: AsyncCortexClient, own_world: World, missing: list[int]
) -> None:
    own_world.skeletons.seconds = 0.5
    results = await client.skeleton.get_skeletons([CURRENT, *missing[:3]])
    assert not results.errors
    for skeleton in results.values():
        assert_same(skeleton, own_world)


async def test_what_is_not_made_is_named(client: AsyncCortexClient, missing: list[int]) -> None:
    results = await client.skeleton.get_skeletons([CURRENT, missing[0]], generate=False)
    assert list(results) == [CURRENT]
    assert isinstance(results.errors[missing[0]], NotFoundError)


async def test_refused_roots_are_told_without_waiting(
    client: AsyncCortexClient, own_world: World, missing: list[int]
) -> None:
    own_world.skeletons.refused.add(missing[1])
    results = await client.skeleton.get_skeletons([missing[1], CURRENT], timeout=HANG)
    assert list(results) == [CURRENT]
    assert isinstance(results.errors[missing[1]], ServerRefusedError)
    assert missing[1] in (await client.skeleton.get_refusal_list()).tolist()


async def test_a_skeleton_that_is_never_finished_ends_with_the_deadline(
    client: AsyncCortexClient, own_world: World, missing: list[int]
) -> None:
    own_world.skeletons.stuck.add(missing[2])
    for seconds in (1.5, 15, 150):  # on a busy machine the other one needs more than the first
        results = await client.skeleton.get_skeletons([missing[2], CURRENT], timeout=seconds)
        if CURRENT in results:
            break
    assert list(results) == [CURRENT]
    assert isinstance(results.errors[missing[2]], DeadlineExceeded)


async def test_streams_give_one_outcome_for_each_id(client: AsyncCortexClient, cached: list[int]) -> None:
    async with client.skeleton.stream_skeletons([*cached[:60], 5]) as outcomes:
        arrived = [outcome async for outcome in outcomes]
    assert sorted(outcome.id for outcome in arrived) == sorted([*cached[:60], 5])
    assert [outcome.id for outcome in arrived if not outcome.ok] == [5]


async def test_a_stream_may_be_left_early(client: AsyncCortexClient, cached: list[int]) -> None:
    async with client.skeleton.stream_skeletons(cached) as outcomes:
        async for _ in outcomes:
            break
    assert_same(await client.skeleton.get_skeleton(CURRENT), World.default())


async def test_no_ids_no_outcomes(client: AsyncCortexClient) -> None:
    assert len(await client.skeleton.get_skeletons([])) == 0
    assert await client.skeletons_exist([]) == {}


async def test_damaged_bodies_spoil_only_their_root(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, bad = skeletoncache._hex, {cached[3]: "half", cached[4]: "null", cached[5]: "text", cached[6]: "other"}

    def damaged(store: Any, root_id: int, *args: Any) -> str:
        text = whole(store, root_id, *args)
        match bad.get(root_id):
            case "half":
                return text[: len(text) // 2]
            case "null":
                return b"null".hex()
            case "text":
                return "async"
            case "other":
                return gzip.compress(gzip.decompress(bytes.fromhex(text))[:-30]).hex()
        return text

    monkeypatch.setattr(skeletoncache, "_hex", damaged)
    results = await client.skeleton.get_skeletons(cached[:40])
    assert set(results.errors) == set(bad)
    assert all(isinstance(error, DecodeError) for error in results.errors.values())
    assert len(results) == 36


async def test_a_reply_that_is_cut_off_is_taken_apart(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = skeletoncache.orjson.dumps

    def cut(answer: dict[str, str]) -> bytes:
        body = whole(answer)
        return body[:-40] if str(cached[9]) in answer else body

    monkeypatch.setattr(skeletoncache, "orjson", SimpleNamespace(dumps=cut))
    results = await client.skeleton.get_skeletons(cached[:40])
    assert list(results.errors) == [cached[9]]
    assert isinstance(results.errors[cached[9]], DecodeError)


async def test_a_bad_token_ends_the_call_at_once(flavour: str, server: Sandbox) -> None:
    async with client_of(flavour, server, token="nobody") as stranger:
        with pytest.raises(InvalidToken):
            await stranger.skeleton.get_skeletons([CURRENT, 5])


async def test_a_root_that_breaks_the_service_is_found(
    client: AsyncCortexClient, cached: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = skeletoncache._hex

    def breaking(store: Any, root_id: int, *args: Any) -> str:
        if root_id == cached[7]:
            raise RuntimeError("poison")
        return whole(store, root_id, *args)

    monkeypatch.setattr(skeletoncache, "_hex", breaking)
    results = await client.skeleton.get_skeletons(cached[:40])
    assert list(results.errors) == [cached[7]]
    assert len(results) == 39


async def test_without_a_level_2_cache_nothing_is_made(flavour: str) -> None:
    world = World.default()
    world.without_level2 = frozenset(stack.segmentation for stack in world.datastacks.values())
    roots = world.graph.root_ids()
    old = int(roots[~world.skeletons.cached(roots, 0)][0])
    with Sandbox(world) as sandbox:
        async with client_of(flavour, sandbox) as client:
            assert not await client.l2cache.has_cache()
            results = await client.skeleton.get_skeletons([old, CURRENT])
            assert list(results) == [CURRENT]
            assert "no level-2 cache" in str(results.errors[old])


async def test_what_the_service_tells(client: AsyncCortexClient, cached: list[int], missing: list[int]) -> None:
    assert await client.skeleton.get_version() == "0.23.11"
    assert await client.skeleton.get_versions() == (-1, 0, 1, 2, 3, 4)
    ids = [missing[5], CURRENT, CURRENT, cached[0]]
    assert await client.skeletons_exist(ids) == {missing[5]: False, CURRENT: True, cached[0]: True}
    assert await client.skeletons_exist(CURRENT) == {CURRENT: True}
    info = await client.skeleton.get_precomputed_skeleton_info(4)
    assert [attribute["id"] for attribute in info["vertex_attributes"]] == ["radius", "compartment"]
    assert await client.skeleton.generate_bulk_skeletons_async([CURRENT]) == 0
    contents = await client.skeleton.get_cache_contents([CURRENT], limit=1)
    assert set(contents) == {"num_found", "files"}


async def test_level_2_data(client: AsyncCortexClient, own_world: World) -> None:
    level2 = np.concatenate([own_world.graph.leaves(int(i), 2) for i in own_world.graph.root_ids()[-1500:]])
    gone = int(level2[0])
    own_world.level2.missing.add(gone)
    frame = await client.get_l2data(np.append(level2, level2[:2]))
    assert frame.index.tolist() == list(dict.fromkeys(level2.tolist()))
    assert frame.index.name == "l2_id"
    assert frame.loc[gone].isna().all()
    points = own_world.level2.points(frame.index.to_numpy())
    good = frame.index != gone
    columns = [f"rep_coord_nm_{axis}" for axis in "xyz"]
    assert frame.loc[good, columns].to_numpy().tolist() == points[good].tolist()
    small = good & (frame["size_nm3"] < 10_000_000)
    assert frame.loc[small, "pca_0_x"].isna().all()
    assert frame.loc[good & ~small, "pca_0_x"].notna().all()
    records = await client.l2cache.get_l2data(level2[:2], attributes=["size_nm3"])
    assert records == {gone: {}, int(level2[1]): {"size_nm3": frame.loc[level2[1], "size_nm3"]}}
    assert await client.l2cache.has_cache()
    assert "pca_val" in await client.l2cache.attributes()
    assert sorted((await client.get_l2_ids(CURRENT)).tolist()) == own_world.graph.leaves(CURRENT, 2).tolist()
    with pytest.raises(CortexUsageError, match="layer 2"):
        await client.get_l2data([CURRENT])


async def test_states(client: AsyncCortexClient) -> None:
    number = await client.upload_state_json({"layers": [{"segments": [str(CURRENT)]}]})
    assert await client.get_state_json(number) == {"layers": [{"segments": [str(CURRENT)]}]}
    with pytest.raises(NotFoundError):
        await client.get_state_json(7)


async def test_the_link_in_a_notebook_asks_nobody(client: AsyncCortexClient, server: Sandbox) -> None:
    blocking = getattr(client, "_blocking", client)
    server.counters.reset()
    bundle = blocking._repr_mimebundle_()
    assert bundle["text/plain"] == repr(blocking)
    assert bundle["text/html"].startswith('<a href="https://spelunker.cave-explorer.org/"')
    assert server.counters.snapshot().total.requests == 0
    record = await client.get_datastack_info()
    assert record["segmentation_source"].rpartition("/")[2] in blocking._repr_html_()
    assert blocking._repr_html_().startswith(f'<a href="{record["viewer_site"]}')


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
async def test_synapses_become_a_layer_of_points(client: AsyncCortexClient, own_world: World) -> None:
    pytest.importorskip("nglui")
    for split in (True, False):
        rows = await client.query_synapses([CURRENT], split_positions=split)
        link = await client.neuroglancer_url(root_ids=[CURRENT], annotations=rows)
        state = json.loads(unquote(link.partition("#!")[2]))
        layer = next(layer for layer in state["layers"] if layer["type"] == "annotation")
        assert layer["name"] == "synapses"
        columns = [f"ctr_pt_position_{axis}" for axis in "xyz"]
        points = rows[columns].to_numpy() if split else np.vstack(rows["ctr_pt_position"].to_numpy())
        shown = {item["description"]: item for item in layer["annotations"]}
        assert list(shown) == [str(i) for i in rows["id"]]
        found = np.array([item["point"] for item in shown.values()])
        (source,) = layer["source"]
        unit = np.array([metres for metres, _ in source["transform"]["outputDimensions"].values()]) * 1e9
        np.testing.assert_allclose(found * unit, points)
        segments = {i for item in shown.values() for ends in item["segments"] for i in ends}
        assert segments == {str(i) for column in ("pre", "post") for i in rows[f"{column}_pt_root_id"]}
    assert '"annotation"' not in unquote(await client.neuroglancer_url(annotations=rows[:0]))
    with pytest.raises(CortexUsageError, match="dataframe_resolution"):
        await client.neuroglancer_url(annotations=pd.DataFrame(rows.to_dict()))
    with pytest.raises(CortexUsageError, match="ctr_pt_position"):
        await client.neuroglancer_url(annotations=rows[["id"]])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
async def test_neuroglancer_links(client: AsyncCortexClient, server: Sandbox) -> None:
    pytest.importorskip("nglui")
    await client.get_datastack_info()
    server.counters.reset()
    link = await client.neuroglancer_url(root_ids=[CURRENT], target_url="https://viewer.test/")
    assert link.startswith("https://viewer.test/#!")
    assert f'"segments":["{CURRENT}"]' in unquote(link)
    assert server.counters.snapshot().total.requests == 0
    short = await client.neuroglancer_url(root_ids=[CURRENT], shorten=True)
    state = await client.get_state_json(int(short.rpartition("/")[2]))
    segments = [layer["segments"] for layer in state["layers"] if layer["type"] == "segmentation"]
    assert segments == [[str(CURRENT)]]
    with contextlib.suppress(NotFoundError):
        await client.get_state_json(1)
