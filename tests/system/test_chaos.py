"""Bulk jobs in the worst of weathers: the same answers as on a calm day, one outcome for every id, nothing done twice.

All is seeded, and bounded in time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polars.testing import assert_frame_equal
from tests import chaos
from tests.patience import HANG, until

from cortexclient import BulkJob, CortexClient, Limits, RetryPolicy
from cortexclient.bulk import attempts
from cortexclient.errors import AuthError
from cortexclient.sandbox import Faults, Sandbox, SandboxProcess, World

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and forks of POSIX")

REFUSALS = "429:{0}%,429-retry-after:{0}%,500:{0}%,502:{0}%,503:{0}%,504:{0}%"
BREAKS = "reset:{0}%,reset-body:{0}%,truncated:{0}%,short:{0}%,truncated-gzip:{0}%,slow:{0}%"
PATIENT = RetryPolicy(base=0.01, cap=0.05, call_share=1.0)
SMALL = Limits(batch={"roots_binary": 10, "root_timestamps": 20, "valid_nodes": 20})
"""So that there are enough requests to fail."""
TASKS = {
    "get_roots": 40,
    "root_id_to_cell_id": 60,
    "cell_id_to_root_id": 100,
    "root_lifetimes": 60,
    "update_roots": 60,
    "query_synapses": 8,
    "synapse_edges": 8,
    "get_l2data": 8,
    "get_skeletons": 4,
    "get_meshes": 6,
}
"""And the ids in a part."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(attempts, "LONGEST_PAUSE", 0.2)


@pytest.fixture(scope="module")
def server(world: World) -> Iterator[Sandbox]:
    with Sandbox(world) as sandbox:
        yield sandbox


@pytest.fixture
def stormy(server: Sandbox) -> Iterator[Sandbox]:
    """A server that may be treated badly; afterwards it is well again."""
    yield server
    server.faults = ""
    server.weather.latency = server.weather.clock_skew = 0.0


@pytest.fixture(scope="module")
def ids(world: World) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    rows = world.annotations.frozen("nucleus_detection_v0", world.version()).to_pandas()
    cells = np.unique(rows["pt_root_id"].to_numpy())[1:41]
    roots = rng.choice(world.graph.root_ids(), 500)
    unknown = roots[:5] + 2**40
    asked = dict.fromkeys(TASKS, np.concatenate([cells, unknown[:1]]))
    asked |= dict.fromkeys(("root_id_to_cell_id", "update_roots"), np.concatenate([roots, unknown, roots[:9]]))
    return asked | {
        "root_lifetimes": np.concatenate([roots, unknown]),
        "cell_id_to_root_id": rows["id"].to_numpy()[:800],
        "get_roots": rows["pt_supervoxel_id"].to_numpy()[:1_000],
        "get_meshes": cells[:10],
    }


Calm = Callable[[str], BulkJob]


@pytest.fixture(scope="module")
def calm(server: Sandbox, ids: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """The job of a task as it is on a calm day, at an instant of its own."""
    made: dict[str, BulkJob] = {}

    def job(name: str) -> BulkJob:
        if name not in made:
            with CortexClient(server.spec, token=server.token) as client:
                one = BulkJob(
                    name, ids[name], tmp_path_factory.mktemp("calm") / name, client=client, part_size=TASKS[name]
                )
                assert one.run().complete
                made[name] = one
        return made[name]

    return job


def copy_of(calm: BulkJob, folder: Path, client: Any = None) -> BulkJob:
    """The same job, of which nothing is done."""
    folder.mkdir()
    for name in ("job.json", "ids.parquet"):
        (folder / name).write_bytes((calm.folder / name).read_bytes())
    return BulkJob.open(folder, client=client)


def check_same(job: BulkJob, calm: BulkJob) -> None:
    """Everything is there, once, and the same as on a calm day."""
    found = job.verify()
    assert found.ok, found
    assert (found.status.ok, found.status.failed) == (calm.status().ok, calm.status().failed)
    ours, theirs = (one.scan().collect() for one in (job, calm))
    assert_frame_equal(ours, theirs, check_row_order=False, check_column_order=False)
    kinds = [one.failures()[["id", "error"]].sort_values("id").to_numpy().tolist() for one in (job, calm)]
    assert kinds[0] == kinds[1]
    for folder in ("swc", "draco"):
        names = [sorted(path.name for path in (one.folder / folder).glob("*")) for one in (job, calm)]
        assert names[0] == names[1]
        assert all((job.folder / folder / n).read_bytes() == (calm.folder / folder / n).read_bytes() for n in names[0])


# -- weather ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "share", "name"),
    [
        *((REFUSALS, 3, name) for name in TASKS),
        *((BREAKS, 3, name) for name in TASKS),
        *((kinds, 1, name) for kinds in (REFUSALS, BREAKS) for name in ("get_roots", "root_id_to_cell_id")),
    ],
)
def test_faults(stormy: Sandbox, calm: Calm, tmp_path: Path, kinds: str, share: int, name: str) -> None:
    """Six kinds at once, so that 6 or 18 of a hundred requests fail; no id is given up for it."""
    expected = calm(name)
    stormy.faults = Faults(kinds.format(share), retry_after=0.05, slow_seconds=0.1, seed=3)
    with CortexClient(stormy.spec, token=stormy.token, retry=PATIENT, limits=SMALL) as client:
        job = copy_of(expected, tmp_path / "job", client)
        assert job.run().complete
        assert stormy.faults.dealt
        check_same(job, expected)


@pytest.mark.parametrize("name", ["get_roots", "root_lifetimes", "root_id_to_cell_id", "query_synapses"])
def test_poison(stormy: Sandbox, calm: Calm, ids: dict[str, np.ndarray], tmp_path: Path, name: str) -> None:
    expected, poison = calm(name), ids[name][[3, 17]]
    stormy.faults = Faults(REFUSALS.format(1), poison=poison.tolist(), retry_after=0.05, seed=5)
    with CortexClient(stormy.spec, token=stormy.token, retry=PATIENT) as client:
        job = copy_of(expected, tmp_path / "job", client)
        assert job.run().complete
        assert job.verify().ok
        assert set(job.failures()["id"]) - set(expected.failures()["id"]) <= set(poison.tolist())
        stormy.faults = ""
        job.retry_failed()
        check_same(job, expected)


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_clock_that_is_wrong(stormy: Sandbox, calm: Calm, tmp_path: Path, skew: float) -> None:
    stormy.weather.clock_skew = skew
    for name in ("get_roots", "root_id_to_cell_id", "root_lifetimes"):
        with CortexClient(stormy.spec, token=stormy.token, retry=PATIENT) as client:
            job = copy_of(calm(name), tmp_path / name, client)
            assert job.run().complete
            check_same(job, calm(name))


def test_a_server_that_comes_and_goes(stormy: Sandbox, calm: Calm, tmp_path: Path) -> None:
    """It breaks all connections and refuses others for a while, twice."""
    expected = calm("get_roots")
    stormy.weather.latency = 0.05
    with CortexClient(stormy.spec, token=stormy.token, retry=PATIENT) as client:
        job = copy_of(expected, tmp_path / "job", client)
        downs: list[threading.Thread] = []

        def shake(now: Any) -> None:
            if now.done > 300 * len(downs) and len(downs) < 2:
                downs.append(threading.Thread(target=stormy.restart, args=(1.0,)))
                downs[-1].start()

        try:
            assert job.run(progress=shake).complete
        finally:
            for down in downs:
                down.join()
        assert len(downs) == 2
        check_same(job, expected)


def test_a_token_that_expires(world: World, calm: Calm, tmp_path: Path) -> None:
    expected = calm("get_roots")
    with Sandbox(world) as sandbox:
        with CortexClient(sandbox.spec, token=sandbox.token) as client:
            job = copy_of(expected, tmp_path / "job", client)
            with pytest.raises(AuthError):
                job.run(progress=lambda now: sandbox.expire_token() if now.done else None)
        assert 0 < job.status().done < job.status().parts
        with CortexClient(sandbox.spec, token=sandbox.issue_token()) as client:
            job = BulkJob.open(job.folder, client=client)
            assert job.resume().complete
            check_same(job, expected)


# -- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def processes() -> Any:
    """Processes that have everything loaded when they start, and share nothing with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.chaos"])
    return context


@contextmanager
def started(processes: Any, target: Callable[..., None], *arguments: Any) -> Iterator[Any]:
    process = processes.Process(target=target, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()
        process.close()


def env(sandbox: Any) -> dict[str, str]:
    return {"CORTEXCLIENT_SERVER": sandbox.url, "CORTEXCLIENT_TOKEN": sandbox.token}


def stamps(job: BulkJob) -> dict[int, tuple[int, int]]:
    """What tells a part that was written again."""
    done = [k for k in range(job.spec.parts) if job.ledger.is_done(k)]
    return {k: (stat.st_ino, stat.st_mtime_ns) for k in done if (stat := job.ledger.part(k).stat())}


@pytest.mark.parametrize("name", ["get_roots", "get_skeletons"])
def test_kill_9_at_any_moment(stormy: Sandbox, calm: Calm, processes: Any, tmp_path: Path, name: str) -> None:
    """Ten times in all: what was done stays done, and is not done again."""
    dice = random.Random(name)
    expected = calm(name)
    job = copy_of(expected, tmp_path / "job")
    stormy.weather.latency = 0.1
    before: dict[int, tuple[int, int]] = {}
    for at_work in (False, True, True, False, True):
        with started(processes, chaos.resume, job.folder, env(stormy)) as process:
            while at_work and process.is_alive() and stamps(job) == before:
                time.sleep(0.002)
            time.sleep(dice.uniform(0.0, 0.1 if at_work else 0.5))
            process.kill()  # which does not mind if it has just ended
        now = stamps(job)
        assert before.items() <= now.items(), "a part that was done was written again"
        assert len(now) > len(before) or not at_work or len(now) == job.spec.parts
        before = now
        assert not job.verify().damaged
    stormy.weather.latency = 0.0
    with started(processes, chaos.resume, job.folder, env(stormy)) as process:
        process.join(HANG)
        assert process.exitcode == 0
    assert before.items() <= stamps(job).items()
    assert not list(job.folder.rglob(".*.tmp"))
    check_same(job, expected)


def binds(reserved: socket.socket, port: int) -> bool:
    with contextlib.suppress(OSError):  # as long as whoever was killed listens
        reserved.bind(("127.0.0.1", port))
    return bool(reserved.getsockname()[1])


def test_kill_9_of_the_server(world: World, calm: Calm, tmp_path: Path) -> None:
    """And another one in its place, on the same port."""
    expected = calm("root_id_to_cell_id")
    with SandboxProcess(latency="30ms") as first, CortexClient(first.spec, token=first.token, retry=PATIENT) as client:
        job = copy_of(expected, tmp_path / "job", client)
        killed: list[float] = []

        def kill(now: Any) -> None:
            if now.done and not killed:
                killed.append(time.monotonic())
                os.kill(first.pid, signal.SIGKILL)

        runner = threading.Thread(target=job.run, kwargs={"progress": kill})
        runner.start()
        until(lambda: killed)
        port = int(first.url.rpartition(":")[2])
        with socket.socket() as reserved:  # nobody else gets the port meanwhile
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            until(lambda: binds(reserved, port))
            with SandboxProcess(port=port):
                runner.join(HANG)
                assert not runner.is_alive()
    check_same(job, expected)


def test_a_full_disk(server: Sandbox, calm: Calm, processes: Any, tmp_path: Path) -> None:
    """The kernel refuses what is larger than a limit, as it does where a disk is full."""
    expected = calm("get_meshes")
    job = copy_of(expected, tmp_path / "job")
    large = max(path.stat().st_size for path in (expected.folder / "draco").iterdir())
    assert large > chaos.FILE_LIMIT
    with started(processes, chaos.resume, job.folder, env(server), True) as process:
        process.join(HANG)
        assert process.exitcode == 5
    assert not job.verify().damaged
    assert job.status().done < job.status().parts
    with started(processes, chaos.resume, job.folder, env(server)) as process:
        process.join(HANG)
        assert process.exitcode == 0
    check_same(job, expected)


def test_a_damaged_part(server: Sandbox, calm: Calm, processes: Any, tmp_path: Path) -> None:
    expected = calm("query_synapses")
    job = copy_of(expected, tmp_path / "job")
    for exit_code in (0, 0):
        with started(processes, chaos.resume, job.folder, env(server)) as process:
            process.join(HANG)
            assert process.exitcode == exit_code
        check_same(job, expected)
        part = job.ledger.part(2)
        body = bytearray(part.read_bytes())
        body[len(body) // 2] ^= 0x10
        part.write_bytes(body)
        assert [*job.verify().damaged] == [2]


def test_two_jobs_on_one_folder(stormy: Sandbox, calm: Calm, processes: Any, tmp_path: Path) -> None:
    """One does it, the other is told that it is being done."""
    expected = calm("get_roots")
    job = copy_of(expected, tmp_path / "job")
    stormy.weather.latency = 0.05
    with started(processes, chaos.resume, job.folder, env(stormy)) as one:
        while not job.status().done:
            time.sleep(0.01)
        with started(processes, chaos.resume, job.folder, env(stormy)) as other:
            one.join(HANG)
            other.join(HANG)
            assert (one.exitcode, other.exitcode) == (0, 4)
    check_same(job, expected)


def test_parts_by_several_processes(stormy: Sandbox, calm: Calm, processes: Any, tmp_path: Path) -> None:
    """Two tasks of an array job from both ends; a third one is killed in the middle."""
    expected = calm("get_roots")
    job = copy_of(expected, tmp_path / "job")
    stormy.weather.latency = 0.02
    order = [*range(job.spec.parts)]
    with (
        started(processes, chaos.do_parts, job.folder, env(stormy), order) as one,
        started(processes, chaos.do_parts, job.folder, env(stormy), order[::-1]) as other,
        started(processes, chaos.do_parts, job.folder, env(stormy), [4, 3, 5]) as third,
    ):
        third.join(0.4)
        third.kill()
        one.join(HANG)
        other.join(HANG)
        assert (one.exitcode, other.exitcode) == (0, 0)
    for k in job.parts_to_do():  # of the one that was killed while the others passed by
        with started(processes, chaos.do_parts, job.folder, env(stormy), [k]) as process:
            process.join(HANG)
    check_same(job, expected)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_every_way_to_start_a_process(
    server: Sandbox, calm: Calm, ids: dict[str, np.ndarray], tmp_path: Path, method: str
) -> None:
    """From a process whose own client has been at work. (All others here come from a fork server.)"""
    if method == "fork" and sys.version_info >= (3, 12):
        pytest.skip("Python warns of forks of processes with threads")
    expected = calm("get_roots")
    with CortexClient(server.spec, token=server.token) as client:
        client.get_roots(ids["get_roots"][:3])
        job = copy_of(expected, tmp_path / "job", client)
        context = multiprocessing.get_context(method)
        with started(context, chaos.do_parts, job.folder, env(server), [0, 1]) as process:
            process.join(HANG)
            assert process.exitcode == 0
        assert job.status().done == 2
        assert job.resume().complete
        check_same(job, expected)
