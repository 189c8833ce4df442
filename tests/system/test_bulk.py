"""Bulk jobs: the answers of the client, part by part; begun, stopped, resumed, verified."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from cortexclient import (
    AsyncBulkJob,
    AsyncCortexClient,
    BulkJob,
    CortexClient,
    CortexError,
    CortexUsageError,
    RetryPolicy,
)
from cortexclient.bulk.ledger import Manifest
from cortexclient.bulk.tasks import TASKS
from cortexclient.errors import AuthError, ConnectError
from cortexclient.sandbox import Faults, Sandbox, World
from cortexclient.skeletons import Skeleton

rng = np.random.default_rng(0)
UNKNOWN = 864691135000000001


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
def client(server: Sandbox) -> Iterator[CortexClient]:
    with CortexClient(server.spec, token=server.token) as client:
        yield client


@pytest.fixture(scope="module")
def ids(world: World) -> dict[str, np.ndarray]:
    """By task: the ids to ask, some of them more than once, some unknown."""
    roots, nuclei = world.graph.root_ids(), world.annotations.frozen("nucleus_detection_v0", world.version())
    current = np.unique(nuclei["pt_root_id"].to_numpy())[1:61]
    some = rng.permutation(np.concatenate([rng.choice(roots, 300), [UNKNOWN], roots[:20], roots[:20]]))
    asked = dict.fromkeys(TASKS, np.concatenate([current, [UNKNOWN], current[:3]]))
    asked |= dict.fromkeys(("root_id_to_cell_id", "root_lifetimes", "update_roots"), some)
    return asked | {
        "cell_id_to_root_id": nuclei["id"].to_numpy()[:500],
        "get_roots": nuclei["pt_supervoxel_id"].to_numpy()[:500],
    }


def done(job: BulkJob) -> BulkJob:
    assert job.run().complete
    found = job.verify()
    assert found.ok, found
    return job


# -- what it answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.one_row_each])
def test_look_ups_are_those_of_the_client(
    client: CortexClient, ids: dict[str, np.ndarray], name: str, tmp_path: Path
) -> None:
    asked, detail = ids[name], {"detail": True} if "_to_" in name else {}
    job = done(BulkJob(name, asked, tmp_path / "job", client=client, part_size=70))
    frozen = client.at(version=job.spec.version) if job.spec.version else client.at(timestamp=job.spec.timestamp)
    failed = job.failures()["id"].tolist()
    assert failed == ([UNKNOWN] if name == "root_lifetimes" else [])
    good = np.setdiff1d(asked, failed)
    direct = getattr(frozen, name)(good, **detail)
    rows = job.scan().collect().to_pandas()
    if name == "get_roots":
        assert rows.to_numpy().tolist() == np.column_stack([good, direct]).tolist()
    else:
        assert rows.iloc[:, 0].tolist() == good.tolist()
        for column in set(rows.columns[1:]) - {"alternatives"}:
            pd.testing.assert_series_equal(rows[column], direct.reset_index()[column], check_dtype=False)
    assert job.status().ok == len(good)
    assert job.status().ok + job.status().failed == len(np.unique(asked))


def unordered(frame: pd.DataFrame, *keys: str) -> pd.DataFrame:
    return frame.sort_values(list(keys)).reset_index(drop=True)


def test_synapses_come_once_each_though_the_parts_overlap(
    client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path
) -> None:
    cells = ids["query_synapses"]
    job = done(BulkJob("query_synapses", cells, tmp_path / "both", client=client, part_size=9))
    frozen, rows = client.at(version=job.spec.version), job.scan().collect().to_pandas()
    assert rows["id"].is_unique
    expected = frozen.query_synapses(cells)
    pd.testing.assert_frame_equal(unordered(rows, "id"), unordered(expected, "id"), check_dtype=False)
    edges = done(BulkJob("synapse_edges", cells, tmp_path / "edges", client=client, part_size=9))
    keys = ("pre_pt_root_id", "post_pt_root_id")
    pd.testing.assert_frame_equal(
        unordered(edges.scan().collect().to_pandas(), *keys), unordered(frozen.synapse_edges(cells), *keys)
    )
    inputs = done(BulkJob("query_synapses", cells, tmp_path / "in", client=client, part_size=9, options={"pre": False}))
    assert len(inputs.scan().collect()) == len(frozen.query_synapses(cells, pre=False))


def test_level_2_data_of_roots_and_of_chunks(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    root = int(ids["get_l2data"][0])
    chunks = client.get_l2_ids(root)
    options = {"attributes": ["size_nm3"]}
    job = done(BulkJob("get_l2data", [root, *chunks], tmp_path / "job", client=client, part_size=5, options=options))
    rows = job.scan().collect().to_pandas()
    of_root = rows[rows["id"] == root].set_index("l2_id")["size_nm3"]
    assert sorted(of_root.index) == sorted(chunks.tolist())
    of_chunks = rows[rows["id"] != root].set_index("l2_id")["size_nm3"]
    pd.testing.assert_series_equal(of_root.sort_index(), of_chunks.sort_index())


def test_skeletons_as_files_and_as_rows(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    cells = ids["get_skeletons"]
    swc = done(BulkJob("get_skeletons", cells, tmp_path / "swc", client=client, part_size=25))
    rows = done(BulkJob("get_skeletons", cells, tmp_path / "rows", client=client, part_size=25, sink="parquet"))
    assert swc.failures()["id"].tolist() == rows.failures()["id"].tolist() == [UNKNOWN]
    assert swc.failures()["error"].tolist() == ["NotFoundError"]
    listed = swc.scan().collect().to_pandas().set_index("root_id")
    assert listed.index.is_unique
    assert {path.stem for path in (swc.folder / "swc").iterdir()} == {*map(str, listed.index)}
    table = rows.scan().collect()
    for row in table.iter_rows(named=True):
        skeleton: Skeleton = client.skeleton.get_skeleton(row["root_id"])
        assert (swc.folder / listed.loc[row["root_id"], "file"]).read_text() == skeleton.to_swc()
        assert np.column_stack([row["x"], row["y"], row["z"]]).tolist() == skeleton.vertices.tolist()
        assert row["parent"] == skeleton.parents().tolist()
    assert set(table["root_id"]) == set(listed.index)


def test_meshes_as_draco_files(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    draco = pytest.importorskip("DracoPy")
    job = done(BulkJob("get_meshes", ids["get_meshes"][:6], tmp_path / "job", client=client))
    assert len(list((job.folder / "draco").iterdir())) == 6
    for row in job.scan().collect().iter_rows(named=True):
        mesh, read = client.mesh.get_mesh(row["root_id"]), draco.decode((job.folder / row["file"]).read_bytes())
        assert len(read.faces) == len(mesh.faces)
        drawn = ((mesh.vertices, mesh.faces), (read.points, read.faces))
        corners = [np.sort(vertices[faces].reshape(-1, 3), axis=0) for vertices, faces in drawn]
        assert np.abs(corners[0] - corners[1]).max() <= 0.51, "in steps of a nanometre"


# -- the same job ----------------------------------------------------------------------------------------------------


def test_the_instant_is_frozen(server: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    then = datetime(2022, 1, 1, tzinfo=UTC)
    with CortexClient(server.spec, token=server.token, timestamp=then) as pinned, CortexClient(server.spec) as now:
        BulkJob("get_roots", ids["get_roots"], tmp_path, client=pinned, part_size=200).create()
        with server.env():
            job = done(BulkJob.open(tmp_path))  # by somebody else
        assert job.spec.timestamp == then
        assert job.scan().collect()["root_id"].to_list() == pinned.get_roots(np.unique(ids["get_roots"])).tolist()
        other = BulkJob("get_roots", ids["get_roots"], tmp_path, client=now.at(timestamp=datetime.now(UTC)))
        with pytest.raises(CortexUsageError, match="another job"):
            other.run()


@pytest.mark.parametrize(
    "change", [{"task": "root_lifetimes"}, {"ids": [1, 2]}, {"options": {"stop_layer": 3}}, {"part_size": 7}]
)
def test_another_job_in_the_folder_is_refused(
    client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path, change: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"task": "get_roots", "ids": ids["get_roots"]}
    BulkJob(**asked, out=tmp_path, client=client).create()
    assert BulkJob(**asked, out=tmp_path, client=client).run().complete  # the same again is no other
    with pytest.raises(CortexUsageError, match="holds another job"):
        BulkJob(**asked | change, out=tmp_path, client=client).run()


def test_a_folder_without_a_job(tmp_path: Path, client: CortexClient) -> None:
    with pytest.raises(CortexUsageError, match="holds no job"):
        BulkJob.open(tmp_path)
    with pytest.raises(CortexUsageError, match="holds no job"):
        BulkJob("get_roots", [1], tmp_path / "other", client=client).resume()
    with pytest.raises(CortexUsageError, match="needs client="):
        BulkJob("get_roots", [1], tmp_path)
    assert not (tmp_path / "other").exists()


def test_a_job_of_no_ids(client: CortexClient, tmp_path: Path) -> None:
    job = done(BulkJob("get_roots", [], tmp_path, client=client))
    assert job.status().complete
    assert len(job.scan().collect()) == 0
    assert len(job.failures()) == 0


def test_failed_ids_are_asked_again(server: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    poison = sorted({*ids["get_roots"][10:13].tolist()})
    with Sandbox(server.world) as sandbox, CortexClient(sandbox.spec, token=sandbox.token) as client:
        sandbox.faults = Faults(poison=poison)
        job = done(BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=100))
        failures = job.failures()
        assert failures["id"].tolist() == poison
        assert set(failures["error"]) == {"ServerError"}
        assert set(failures["status"]) == {500}
        first = failures["attempts"].tolist()
        assert job.retry_failed().failed == len(poison)
        assert (job.failures()["attempts"] > first).all()
        sandbox.faults = ""
        assert job.retry_failed().failed == 0
        assert job.verify().ok
        frozen = client.at(timestamp=job.spec.timestamp)
        assert job.scan().collect()["root_id"].to_list() == frozen.get_roots(np.unique(ids["get_roots"])).tolist()
        assert not list(job.folder.glob("failed-*"))


def test_a_damaged_part_is_named_and_made_again(
    client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path
) -> None:
    job = done(BulkJob("get_skeletons", ids["get_skeletons"], tmp_path, client=client, part_size=20))
    before = job.scan().collect()
    victim = tmp_path / before["file"][30]
    victim.write_text(victim.read_text().replace("1", "2", 1))
    part = tmp_path / "part-000002.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    found = job.verify()
    assert not found.ok
    assert sorted(found.damaged) == [1, 2]
    assert victim.name in str(found)
    assert "part-000002.parquet is damaged" in str(found)
    assert job.resume().mended == (1, 2)
    assert job.verify().ok
    assert job.scan().collect().sort("root_id").equals(before.sort("root_id"))


def test_lost_ids_are_noticed(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    job = done(BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=100))
    from pyarrow import parquet

    path = tmp_path / "ids.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    assert "ids.parquet is damaged" in str(job.verify())
    with pytest.raises(CortexError, match=r"ids.parquet is damaged"):
        job.resume()
    rows = parquet.read_table(tmp_path / "part-000001.parquet")
    job.ledger.commit(1, rows.slice(1), job.ledger.failures(1), Manifest(100, 0, 99))
    parquet.write_table(pa.table({"id": np.unique(ids["get_roots"])}), path, row_group_size=100)
    assert "part 1: its rows are not those of its ids" in str(job.verify())


# -- who writes, and how it stops ------------------------------------------------------------------------------------


def test_a_second_writer_is_refused(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    job = BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=100)
    job.create()
    refused: list[str] = []

    def look(_: object) -> None:
        for attempt in (job.ledger.written_alone(), job.ledger.part_written(0)):
            with pytest.raises(CortexUsageError, match="being written by another process") as caught, attempt:
                pass
            refused.append(str(caught.value))

    assert job.run(progress=look).complete
    assert refused
    with job.ledger.part_written(1):
        with pytest.raises(CortexUsageError, match="being written"):
            job.resume()
        with pytest.raises(CortexUsageError, match="being written"):
            job.run_part(1)
        assert job.run_part(0).ok == 100  # it is done


def once(tell: Callable[[], object]) -> Callable[[Any], None]:
    """Called with progress: tells when the first ids are done."""
    told: list[object] = []

    def look(now: Any) -> None:
        if now.done and not told:
            told.append(now)
            tell()

    return look


def end_this() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_drains(sandbox: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        job = BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=20)
        before = signal.getsignal(signal.SIGTERM)
        status = job.run(progress=once(end_this))
        assert 0 < status.done < status.parts
        assert signal.getsignal(signal.SIGTERM) == before
        assert not job.verify().damaged
        assert job.resume().complete
        assert job.verify().ok


async def test_sigterm_drains_the_other_face_too(sandbox: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    async with AsyncCortexClient(sandbox.spec, token=sandbox.token) as client:
        job = AsyncBulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=20)
        status = await job.run(progress=once(end_this))
        assert 0 < status.done < status.parts
        assert (await job.resume()).complete
        assert job.verify().ok


def test_parts_in_hand_are_dropped_after_a_while(
    sandbox: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortexclient.bulk.job.GRACE", 0.05)
    with CortexClient(sandbox.spec, token=sandbox.token) as client:
        job = BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=50)
        job.create()
        sandbox.weather.latency = 30

        timer = threading.Timer(0.3, job.drain)
        timer.start()
        assert job.run().done == 0
        timer.join()
        sandbox.weather.latency = 0
        assert job.resume().complete


def test_an_expired_token_stops_the_job_and_loses_nothing(
    world: World, ids: dict[str, np.ndarray], tmp_path: Path
) -> None:
    with Sandbox(world) as sandbox:
        client = CortexClient(sandbox.spec, token=sandbox.token)
        job = BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=20)
        with pytest.raises(AuthError):
            job.run(progress=once(sandbox.expire_token))
        client.close()
        assert 0 < job.status().done < job.status().parts
        with CortexClient(sandbox.spec, token=sandbox.issue_token()) as client:
            job = BulkJob.open(tmp_path, client=client)
            assert job.resume().complete
            assert job.verify().ok


def test_a_service_that_stays_away_stops_the_job(
    server: Sandbox, ids: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with CortexClient(server.spec, token=server.token) as client:
        BulkJob("get_roots", ids["get_roots"], tmp_path, client=client, part_size=200).create()
    monkeypatch.setattr("cortexclient.bulk.attempts.FIRST_PAUSE", 0.02)
    impatient = RetryPolicy(attempts=2, base=0.01)
    with CortexClient(server.spec, server="http://127.0.0.1:9", token="x", retry=impatient) as nowhere:
        job = BulkJob.open(tmp_path, client=nowhere, patience=0.1)
        with pytest.raises(ConnectError) as caught:
            job.resume()
        assert any("resume" in note for note in caught.value.__notes__)
        assert job.status().done == 0


# -- faces -----------------------------------------------------------------------------------------------------------


def test_both_faces_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, Callable[..., Any]]:
        return {name: m for name, m in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}

    ours, theirs = public(BulkJob), public(AsyncBulkJob)
    assert set(ours) - set(theirs) == {"client_share", "run_on"}
    assert set(theirs) <= set(ours)
    for name, method in theirs.items():
        assert [*inspect.signature(method).parameters.values()] == [*inspect.signature(ours[name]).parameters.values()]
        assert inspect.getdoc(ours[name])
        assert (inspect.getdoc(method) or "").partition("\n")[0] == (inspect.getdoc(ours[name]) or "").partition("\n")[
            0
        ]
    assert not any(map(inspect.iscoroutinefunction, ours.values()))


async def test_each_face_has_its_client(server: Sandbox, client: CortexClient, tmp_path: Path) -> None:
    async with AsyncCortexClient(server.spec, token=server.token) as other:
        with pytest.raises(CortexUsageError, match="AsyncBulkJob is the other"):
            BulkJob("get_roots", [1], tmp_path, client=other).run()  # type: ignore[arg-type]
        with pytest.raises(CortexUsageError, match="BulkJob is the other"):
            await AsyncBulkJob("get_roots", [1], tmp_path, client=client).run()  # type: ignore[arg-type]


def test_a_plan_sends_and_writes_nothing(client: CortexClient, ids: dict[str, np.ndarray], tmp_path: Path) -> None:
    job = BulkJob("root_id_to_cell_id", ids["root_id_to_cell_id"], tmp_path / "new", client=client, part_size=100)
    plan = job.plan()
    assert client.stats.requests == 0
    assert not job.folder.exists()
    assert (plan.parts, plan.done, plan.ids) == (4, 0, len(np.unique(ids["root_id_to_cell_id"])))
    assert plan.estimate
    assert plan.estimate.most.requests > 0
    job.run()
    assert job.plan().ids == 0
    assert "0 ids to ask" in str(job.plan())
