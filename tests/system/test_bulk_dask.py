"""The parts of a job on a Dask cluster: the files of a local run, whatever happens to the workers."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from cortexclient import BulkJob, CortexClient, CortexUsageError, Limits
from cortexclient.cli import main
from cortexclient.errors import AuthError
from cortexclient.sandbox import Faults, Sandbox, World
from cortexclient.sandbox.auth import GOOD_TOKEN

distributed = pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,  # two workers take five seconds to start, and one more is killed
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning:distributed"),
]


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Sandbox]:
    with Sandbox(world, latency=0.02) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def dask(server: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers on this machine, each a process; they find the token in their environment, and no dashboard."""
    with (
        server.env(),
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            local_directory=str(tmp_path_factory.mktemp("dask")),
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def client(server: Sandbox) -> Iterator[CortexClient]:
    with CortexClient(server.spec, token=server.token, limits=Limits(in_flight=4)) as client:
        yield client


@pytest.fixture(scope="module")
def supervoxels(world: World) -> np.ndarray:
    rows = world.annotations.frozen("nucleus_detection_v0", world.version())
    return rows["pt_supervoxel_id"].unique().to_numpy()[:1_500]


def test_two_workers_make_the_files_of_a_local_run(
    server: Sandbox, dask: Any, client: CortexClient, supervoxels: np.ndarray, tmp_path: Path
) -> None:
    local = BulkJob("get_roots", supervoxels, tmp_path / "local", client=client, part_size=100)
    assert local.run().complete
    (tmp_path / "dask").mkdir()
    for name in ("job.json", "ids.parquet"):
        (tmp_path / "dask" / name).write_bytes((local.folder / name).read_bytes())
    server.counters.reset()
    job = BulkJob.open(tmp_path / "dask", client=client)
    assert job.run_on(dask).complete
    assert job.verify().ok
    for k in range(job.spec.parts):
        assert job.ledger.part(k).read_bytes() == local.ledger.part(k).read_bytes()
    assert server.counters.snapshot().services["chunkedgraph"].peak <= 4, "the limit of all workers together"
    assert job.run_on(dask.scheduler.address).mended == ()  # nothing to do, by its address
    with job.led(), pytest.raises(CortexUsageError, match="being written"):
        job.run_on(dask)


def test_the_command_line_hands_the_parts_to_a_cluster(
    server: Sandbox,
    dask: Any,
    client: CortexClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    roots = server.world.graph.root_ids()[:60]
    ids, out = tmp_path / "roots.txt", tmp_path / "cells"
    ids.write_text("\n".join(map(str, roots)))
    options = ["map", "root-to-cell", ids, "-o", out, "--part-size", 20, "--dask", dask.scheduler.address]
    monkeypatch.setattr("sys.argv", ["cortexclient", *map(str, options)])
    with server.env(), pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    job = BulkJob.open(out, client=client)
    assert f"{job.status()}: {out}" in capsys.readouterr().out
    assert job.verify().ok
    assert job.spec.parts == 3
    assert job.spec.version is not None
    expected = client.at(version=job.spec.version).root_id_to_cell_id(np.sort(roots))
    found = job.scan().select("root_id", "cell_id").collect()
    assert_frame_equal(found, pl.from_pandas(expected.reset_index()))


def test_a_worker_that_is_killed_loses_nothing(
    server: Sandbox,
    dask: Any,
    client: CortexClient,
    supervoxels: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", server.token)  # for the one that is started in its place
    server.faults = Faults("503:2%", seed=1)
    job = BulkJob("get_roots", supervoxels, tmp_path, client=client, part_size=50)
    killed: list[int] = []

    def kill(now: Any) -> None:
        if now.done and not killed:
            killed.extend(dask.run(os.getpid).values())
            os.kill(killed[0], signal.SIGKILL)

    status = job.run_on(dask, progress=kill)
    server.faults = ""
    assert killed
    assert status.complete
    assert job.verify().ok
    expected = client.at(timestamp=job.spec.timestamp).get_roots(supervoxels)
    rows = job.scan().collect()
    assert_frame_equal(rows, pl.DataFrame({"supervoxel_id": supervoxels, "root_id": expected}))


def test_an_error_on_a_worker_is_raised_here(dask: Any, supervoxels: np.ndarray, tmp_path: Path) -> None:
    # the workers' environment names the other server: the one of the spec counts for more
    with Sandbox() as other, CortexClient(other.spec, token=other.issue_token()) as client:
        job = BulkJob("get_roots", supervoxels, tmp_path, client=client, part_size=500)
        job.create()
        other.expire_token(GOOD_TOKEN)  # which the workers have: the one that was given here does not travel
        with pytest.raises(AuthError):
            job.run_on(dask)
        for _ in range(100):  # until the other worker has let go of its part
            with contextlib.suppress(CortexUsageError):
                assert job.run().complete
                break
            time.sleep(0.1)
        assert job.verify().ok
