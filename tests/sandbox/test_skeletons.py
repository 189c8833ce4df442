"""The skeleton service and the level-2 cache: raw answers, and what unmodified peers make of them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pytest
import requests
from tests.patience import HANG

from cortexclient.sandbox import Sandbox, World
from cortexclient.sandbox.graph import NEVER
from cortexclient.sandbox.skeletons import make_skeleton

REAL = 864691135101289504
CURRENT = 864691134885645050
DATASTACK = "minnie65_public"

peers = pytest.mark.filterwarnings(*(f"ignore::{kind}Warning" for kind in ("Deprecation", "Future", "User", "Runtime")))


@pytest.fixture(scope="module")
def minnie(shared_data: Path) -> Iterator[Sandbox]:
    with Sandbox(World.from_minnie65(shared_data)) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(World.default()) as sandbox:
        yield sandbox


def ask(sandbox: Sandbox, method: str, path: str, body: Any = None) -> requests.Response:
    url = f"{sandbox.url}/skeletoncache/api/v1/{DATASTACK}/{path}"
    return requests.request(method, url, json=body, headers={"Authorization": f"Bearer {sandbox.token}"}, timeout=HANG)


def retired_root(world: World) -> int:
    roots = world.graph.root_ids()
    newest = world.version().time_us // 1000
    return int(roots[world.graph.retired(roots) <= newest][0])


def test_made_skeletons_are_trees_over_all_level_2_nodes() -> None:
    world = World.default()
    roots = world.graph.root_ids()
    current = roots[world.graph.retired(roots) == NEVER][::200]
    for root in current.tolist():
        skeleton = make_skeleton(world.graph, world.level2, root)
        n = len(skeleton.vertices)
        assert len(skeleton.edges) == n - 1
        assert (skeleton.parents() >= 0).sum() == n - 1
        assert skeleton.level2.tolist() == world.graph.leaves(root, 2).tolist()
        assert set(skeleton.vertex_of.tolist()) == set(range(n))
        assert (skeleton.compartment == 1).nonzero()[0].tolist() == [skeleton.root]


def test_records_lie_in_the_chunk_of_their_node() -> None:
    world = World.default()
    level2 = world.graph.leaves(CURRENT, 2)
    layout = world.graph.layout
    voxels = world.level2.points(level2) / layout.resolution
    assert layout.chunk_at(voxels.astype(np.int64)).tolist() == layout.chunk(level2).tolist()


def test_what_is_computed_later_has_an_empty_record_at_first(sandbox: Sandbox) -> None:
    level2 = sandbox.world.graph.leaves(CURRENT, 2)
    sandbox.world.level2.missing.add(int(level2[0]))
    records = sandbox.world.level2.records(np.append(level2, 5), ["size_nm3", "pca"], 2**60)
    assert records[str(level2[0])] == {}
    assert records["5"] == {}
    assert records[str(level2[1])]["size_nm3"] > 0


def test_the_record_of_the_real_neuron_is_served(minnie: Sandbox, shared_data: Path) -> None:
    rows = pl.read_parquet(shared_data / "neurons" / str(REAL) / "l2_attributes.parquet")
    ids = rows["l2_id"].cast(pl.Int64).to_numpy()
    records = minnie.world.level2.records(np.sort(ids), ["size_nm3", "rep_coord_nm", "pca"], 2**60)
    for row in rows[::1000].iter_rows(named=True):
        record = records[str(row["l2_id"])]
        assert record["size_nm3"] == row["size_nm3"]
        assert record["rep_coord_nm"] == [row[f"rep_coord_nm_{axis}"] for axis in "xyz"]
        assert ("pca" in record) == row["has_pca"]


def test_a_missing_skeleton_is_queued_and_there_later(sandbox: Sandbox) -> None:
    root, store = retired_root(sandbox.world), sandbox.world.skeletons
    store.seconds = 0.3
    body = {"root_ids": [root]}
    assert ask(sandbox, "POST", "precomputed/skeleton/exists", body).json() is False
    assert ask(sandbox, "POST", "bulk/get_cached_skeletons/4/flatdict", body).json() == {}
    assert ask(sandbox, "POST", "bulk/gen_skeletons", body).json() == 60
    assert ask(sandbox, "POST", "precomputed/skeleton/exists", body).json() is False
    store.seconds = 0.0
    store._ready_ms[root] -= 300
    assert ask(sandbox, "POST", "precomputed/skeleton/exists", body).json() is True
    assert str(root) in ask(sandbox, "POST", "bulk/get_cached_skeletons/4/flatdict", body).json()
    listed = ask(sandbox, "GET", f"precomputed/skeleton/query_cache/4/{root}/0").json()
    assert listed == {
        "num_found": 1,
        "files": [f"skeleton__v4__rid-{root}__ds-{DATASTACK}__res-1x1x1__cs-True__cr-7500.h5.gz"],
    }


def test_one_that_is_never_finished_ends_at_the_proxy(sandbox: Sandbox) -> None:
    root = retired_root(sandbox.world)
    sandbox.world.skeletons.stuck.add(root)
    assert ask(sandbox, "GET", f"async/get_skeleton/4/{root}/flatdict").status_code == 504


def test_ids_that_are_no_roots_are_refused(sandbox: Sandbox) -> None:
    level2 = int(sandbox.world.graph.leaves(CURRENT, 2)[0])
    for bad, marker in ((level2, "invalid_layer_rid"), (CURRENT + 1, "invalid_rid")):
        reply = ask(sandbox, "GET", f"async/get_skeleton/4/{bad}/flatdict")
        assert (reply.status_code, list(reply.json())) == (400, ["Error"])
        assert ask(sandbox, "GET", f"bulk/get_skeletons/4/flatdict/False/{bad}").json() == {str(bad): marker}
        ask(sandbox, "POST", "bulk/gen_skeletons", {"root_ids": [bad]})
        text = gzip.decompress(ask(sandbox, "GET", "precomputed/skeleton/get_refusal_list").content).decode()
        assert f"{DATASTACK},{bad}\n" in text


def test_too_many_at_once(sandbox: Sandbox) -> None:
    reply = ask(sandbox, "POST", "bulk/get_cached_skeletons/4/flatdict", {"root_ids": list(range(501))})
    assert reply.status_code == 400
    assert reply.json() == {"Error": "Too many root IDs requested: 501. Maximum allowed is 500."}


def test_rates_are_those_of_the_charts() -> None:
    with Sandbox(World.default(), limits="charts") as sandbox:
        statuses = [ask(sandbox, "POST", "bulk/gen_skeletons", {"root_ids": [CURRENT]}).status_code for _ in range(11)]
    assert statuses == [200] * 10 + [429]


def test_missing_skeletons_have_a_rate_of_their_own() -> None:
    with Sandbox(World.default(), limits="charts") as sandbox:
        old = retired_root(sandbox.world)
        sandbox.world.skeletons.stuck.add(old)
        missing = [ask(sandbox, "GET", f"async/get_skeleton/4/{old}/none").status_code for _ in range(11)]
        there = [ask(sandbox, "GET", f"async/get_skeleton/4/{CURRENT}/none").status_code for _ in range(20)]
    assert missing == [200] * 10 + [429]
    assert there == [200] * 20


def test_the_bucket_opens_to_a_good_token_only(sandbox: Sandbox) -> None:
    told = ask(sandbox, "POST", "bulk/get_skeleton_token/4", {"verbose_level": 0}).json()
    assert set(told) == {"token", "token_type", "expiry", "bucket", "path_template"}
    store = f"{sandbox.url}/storage/download/storage/v1/b"

    def read(bucket: str, name: str, token: str) -> requests.Response:
        url = f"{store}/{bucket}/o/{quote(name, safe='')}?alt=media"
        return requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=HANG)

    name = told["path_template"].format(rid=CURRENT)
    assert name.endswith(f"/4/skeleton__v4__rid-{CURRENT}__ds-{DATASTACK}__res-1x1x1__cs-True__cr-7500.h5.gz")
    good = read(told["bucket"], name, told["token"])
    assert (good.status_code, good.headers["Content-Type"]) == (200, "application/octet-stream")
    assert good.content.startswith(b"\x1f\x8b")
    assert (
        read(told["bucket"], told["path_template"].format(rid=retired_root(sandbox.world)), told["token"]).status_code
        == 404
    )
    assert read("other", name, told["token"]).status_code == 404
    assert read(told["bucket"], name, sandbox.token).status_code == 401
    sandbox.world.skeletons.passes.revoke()
    gone = read(told["bucket"], name, told["token"])
    assert (gone.status_code, gone.json()["error"]["message"]) == (401, "Invalid Credentials")


def test_meshparty_reads_the_files(sandbox: Sandbox) -> None:
    skeleton_io = pytest.importorskip("meshparty.skeleton_io")
    body = ask(sandbox, "GET", f"async/get_skeleton/4/{CURRENT}/h5").content
    vertices, edges, meta, members, properties, root = skeleton_io.read_skeleton_h5_by_part(io.BytesIO(body))
    expected = sandbox.world.skeletons.get(CURRENT)
    assert vertices.tolist() == expected.vertices.tolist()
    assert edges.tolist() == expected.edges.tolist()
    assert members.tolist() == expected.vertex_of.tolist()
    assert properties == {"radius": expected.radius.tolist(), "compartment": expected.compartment.tolist()}
    assert (root, meta["root_id"]) == (expected.root, CURRENT)


@peers
def test_caveclient_reads_the_bucket_too(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its storage host is written into its code: it is sent here instead."""
    service = cave(sandbox).skeleton
    send = service.session.get

    def here(url: str, **options: Any) -> requests.Response:
        return send(url.replace("https://storage.googleapis.com", f"{sandbox.url}/storage"), **options)

    monkeypatch.setattr(service.session, "get", here)
    found = service.fetch_skeletons([CURRENT, retired_root(sandbox.world)], method="gcs")
    assert list(found) == [str(CURRENT)]
    expected = sandbox.world.skeletons.get(CURRENT)
    assert found[str(CURRENT)]["vertices"].tolist() == expected.vertices.tolist()
    assert found[str(CURRENT)]["lvl2_ids"].tolist() == expected.level2.tolist()
    assert found[str(CURRENT)]["radius"].tolist() == expected.radius.tolist()


def test_a_saved_world_keeps_its_shapes(shared_data: Path, tmp_path: Path) -> None:
    world = World.from_toy(shared_data)
    world.save(tmp_path)
    again = World.load(tmp_path)
    assert again.skeletons.refused == world.skeletons.refused
    for root in world.shapes.skeletons["root_id"].to_list():
        assert again.skeletons.get(root).vertices.tolist() == world.skeletons.get(root).vertices.tolist()


def cave(sandbox: Sandbox) -> Any:
    caveclient = pytest.importorskip("caveclient")
    return caveclient.CAVEclient(
        DATASTACK, server_address=sandbox.url, auth_token=sandbox.token, write_server_cache=False
    )


@peers
def test_caveclient_uses_all_of_it(sandbox: Sandbox) -> None:
    client, store = cave(sandbox), sandbox.world.skeletons
    expected = store.get(CURRENT)
    for version in (4, -1):
        found = client.skeleton.get_skeleton(CURRENT, skeleton_version=version)
        assert found["vertices"].tolist() == expected.vertices.tolist()
        assert found["lvl2_ids"].tolist() == expected.level2.tolist()
        assert found["root"] == expected.root
    table = client.skeleton.get_skeleton(CURRENT, output_format="swc")
    assert sorted(table["x"]) == sorted(np.round(expected.vertices[:, 0] / 1000, 3))
    old = retired_root(sandbox.world)
    assert client.skeleton.skeletons_exist(root_ids=[CURRENT, old]) == {CURRENT: True, old: False}
    assert client.skeleton.skeletons_exist(root_ids=CURRENT) is True
    fetched = client.skeleton.fetch_skeletons([CURRENT, old], method="server")
    assert list(fetched) == [str(CURRENT)]
    assert client.skeleton.generate_bulk_skeletons_async([old]) == 60
    assert list(client.skeleton.get_bulk_skeletons([old, CURRENT])) == [str(old), str(CURRENT)]
    assert client.skeleton.get_refusal_list().shape[1] == 2
    assert client.l2cache.has_cache()
    level2 = expected.level2
    frame = client.l2cache.get_l2data_table(level2)
    assert frame["rep_coord_nm_x"].tolist() == sandbox.world.level2.points(level2)[:, 0].tolist()


@peers
def test_caveclient_keeps_states(sandbox: Sandbox) -> None:
    client = cave(sandbox)
    number = client.state.upload_state_json({"layers": [1]})
    assert client.state.get_state_json(number) == {"layers": [1]}


@peers
def test_pcg_skel_rebuilds_real_neurons(minnie: Sandbox) -> None:
    pcg_skel = pytest.importorskip("pcg_skel")
    client = cave(minnie)
    for root in [864691134884871930, 864691135162310957]:
        neuron = pcg_skel.get_meshwork_from_client(root, client, synapses=True, restore_graph=True)
        expected = minnie.world.skeletons.get(root)
        assert neuron.skeleton.vertices.tolist() == expected.vertices.tolist()
        assert len(neuron.anno.pre_syn.df) > 0
        assert len(neuron.mesh.link_edges) > len(expected.level2) * 0.9
