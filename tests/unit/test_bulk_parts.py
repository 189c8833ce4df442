"""What a job is made of: ids in blocks, files that are whole or not there, locks, attempts."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from cortexclient import AsyncCortexClient, CortexClient
from cortexclient.bulk import attempts, dask, locks, sources
from cortexclient.bulk.attempts import persist, spared
from cortexclient.bulk.ledger import FAILED, Ledger, Manifest
from cortexclient.bulk.locks import locked
from cortexclient.bulk.sinks import in_order
from cortexclient.bulk.sources import blocks, digest_of, distinct
from cortexclient.bulk.spec import JobSpec
from cortexclient.bulk.tasks import TASKS, find_task
from cortexclient.datasets.spec import MINNIE_PUBLIC
from cortexclient.errors import (
    ConnectError,
    CortexError,
    CortexUsageError,
    InvalidToken,
    NotFoundError,
    ServerError,
    ServerRefusedError,
)
from cortexclient.services.mesh import AsyncMesh

BIG = 2**53
IDS = [BIG + 1, 5, BIG + 3, 5, 864691135858491438]


def joined(source: Any, column: str | None = None) -> list[int]:
    return [i for part in blocks(source, column, "root_id") for i in part.tolist()]


# -- ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [list, tuple, np.array, pd.Series, pl.Series, iter, lambda ids: map(str, ids), pa.array]
)
def test_ids_come_from_anything(kind: Callable[[list[int]], Any]) -> None:
    assert joined(kind(IDS)) == IDS


def test_ids_come_from_files(tmp_path: Path) -> None:
    frame = pd.DataFrame({"weight": 0.5, "root_id": IDS})
    frame.to_csv(tmp_path / "ids.csv", index=False)
    frame.astype({"root_id": "uint64"}).to_parquet(tmp_path / "ids.parquet")
    (tmp_path / "ids.txt").write_text("\n".join(map(str, IDS)))
    for name in ("ids.csv", "ids.parquet", "ids.txt"):
        assert joined(tmp_path / name) == joined(str(tmp_path / name)) == IDS
    with pytest.raises(CortexUsageError, match="no column 'cell'"):
        joined(tmp_path / "ids.csv", "cell")
    with pytest.raises(CortexUsageError, match="floats"):
        joined(tmp_path / "ids.parquet", "weight")
    with pytest.raises(CortexUsageError, match="no file"):
        joined("ids-of-nobody.csv")


def test_an_iterator_is_read_in_blocks() -> None:
    taken = 0

    def many() -> Iterator[int]:
        nonlocal taken
        for i in range(200_000):
            taken = i
            yield i

    found = blocks(many(), None, "root_id")
    assert next(found).tolist() == list(range(taken + 1))
    assert taken < 65_536


@given(st.lists(st.lists(st.integers(-9, 9), max_size=9)))
def test_every_id_is_asked_once(parts: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PILE", 3)
        found = distinct(np.array(part, np.int64) for part in parts)
    assert found.tolist() == sorted({i for part in parts for i in part})
    assert found.dtype == np.int64


# -- the ledger ------------------------------------------------------------------------------------------------------


def spec_of(ids: np.ndarray) -> JobSpec:
    fields: dict[str, Any] = {
        "task": "get_roots",
        "options": {"stop_layer": 2},
        "sink": "parquet",
        "part_size": 2,
        "dataset": MINNIE_PUBLIC,
        "server": None,
        "version": None,
        "timestamp": pd.Timestamp("2024-01-01", tz="UTC").to_pydatetime(),
        "count": len(ids),
        "digest": digest_of(ids),
    }
    return JobSpec(**fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    ledger.create(np.array(IDS), spec_of(np.array(IDS)))
    return ledger


ROWS = pa.table({"supervoxel_id": IDS[:2], "root_id": [7, 8]})
NONE = FAILED.empty_table()


def test_the_ledger_knows_its_ids_and_what_it_is(ledger: Ledger) -> None:
    spec = ledger.spec()
    assert (spec.count, spec.parts) == (5, 3)
    assert [ledger.ids(k).tolist() for k in range(3)] == [IDS[:2], IDS[2:4], IDS[4:]]
    assert ledger.all_ids().tolist() == IDS
    ledger.check_ids()
    assert JobSpec.from_json(spec.to_json(), "x") == spec


def test_a_changed_job_is_refused(ledger: Ledger) -> None:
    path = ledger.path / "job.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"part_size": 3}))
    with pytest.raises(CortexError, match="was changed"):
        ledger.spec()
    path.write_text(json.dumps(content | {"format": 2}))
    with pytest.raises(CortexError, match="format 2"):
        ledger.spec()
    path.write_text("{")
    with pytest.raises(CortexError, match="damaged"):
        ledger.spec()


def test_another_question_is_another_job(ledger: Ledger) -> None:
    spec = ledger.spec()
    spec.refuse_other({"task": "get_roots", "options": {"stop_layer": 2}}, "here")
    with pytest.raises(CortexUsageError, match=r"here holds another job \(version None, not 5\)"):
        spec.refuse_other({"task": "get_roots", "version": 5}, "here")


def test_a_part_is_there_or_not(ledger: Ledger) -> None:
    assert not ledger.is_done(0)
    ledger.commit(0, ROWS, NONE, Manifest(2, 0, 2))
    assert ledger.is_done(0)
    assert ledger.damage(0) is None
    assert parquet.read_table(ledger.part(0)).equals(ROWS)
    assert not list(ledger.path.glob(".*.tmp"))


@pytest.mark.parametrize("harm", ["flip", "cut", "unlink", "no manifest", "stray failures", "bad manifest"])
def test_damage_is_seen(ledger: Ledger, harm: str) -> None:
    ledger.commit(0, ROWS, NONE, Manifest(2, 0, 2))
    part, manifest = ledger.part(0), ledger.path / "part-000000.json"
    body = part.read_bytes()
    if harm == "flip":
        part.write_bytes(body[:50] + bytes([body[50] ^ 1]) + body[51:])
    elif harm == "cut":
        part.write_bytes(body[:-1])
    elif harm == "unlink":
        part.unlink()
    elif harm == "no manifest":
        manifest.unlink()
    elif harm == "bad manifest":
        manifest.write_text('{"ok": 2}')
    else:
        parquet.write_table(NONE, ledger.failed(0))
    assert ledger.damage(0)


def test_what_cannot_be_written_leaves_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("cortexclient.bulk.ledger.os.fsync", full)
        with pytest.raises(CortexError, match="No space left on device"):
            ledger.commit(0, ROWS, NONE, Manifest(2, 0, 2))
    assert not ledger.is_done(0)
    assert not list(ledger.path.glob(".*.tmp"))


# -- locks -----------------------------------------------------------------------------------------------------------


HOLDER = """
import pathlib, sys
from cortexclient.bulk.locks import locked
with locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CortexUsageError, match=f"another process .pid {holder.pid} on"), locked(path, shared=True):
            pass
        holder.kill()
    with locked(path, shared=True), locked(path, shared=True), pytest.raises(CortexUsageError), locked(path):
        pass
    with locked(path):
        pass


def test_who_waited_for_a_lock_that_was_removed_locks_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / ".part-000000.lock"
    take = locks._take

    def late(handle: int, shared: bool) -> None:
        monkeypatch.setattr(locks, "_take", take)
        path.unlink()  # the last holder ends between our opening the file and our locking it
        take(handle, shared)

    monkeypatch.setattr(locks, "_take", late)
    with locked(path), pytest.raises(CortexUsageError, match=f"pid {os.getpid()}"), locked(path):
        pass


def test_a_lock_is_free_at_once_though_a_child_has_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that is being made has all files of its parent, until it becomes another program."""
    opened, copies = locks._opened, []

    def inherited(path: Path, shared: bool) -> int:
        handle = opened(path, shared)
        copies.append(os.dup(handle))
        return handle

    monkeypatch.setattr(locks, "_opened", inherited)
    for _ in range(2):
        with locked(tmp_path / ".lock"):
            pass
    for copy in copies:
        os.close(copy)


def test_a_refusal_names_no_earlier_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with locked(path):
        pass
    with locked(path, shared=True), pytest.raises(CortexUsageError, match="another process: wait"), locked(path):
        pass


class Windows:
    """What ``msvcrt`` has for locks: whole regions, from where the file stands, for one handle alone."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self) -> None:
        self.held: dict[tuple[int, int], int] = {}

    def locking(self, handle: int, how: int, size: int) -> None:
        region = os.fstat(handle).st_ino, os.lseek(handle, 0, os.SEEK_CUR)
        assert size == 1
        if how == self.LK_UNLCK:
            assert self.held.pop(region) == handle
        elif self.held.setdefault(region, handle) != handle:
            raise PermissionError(13, "Permission denied")


def test_locks_of_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = Windows()
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", system)
    path = tmp_path / ".lock"
    for first, second in ((False, False), (True, True)):  # there are no shared ones
        with (
            locked(path, shared=first),
            pytest.raises(CortexUsageError, match="being written"),
            locked(path, shared=second),
        ):
            pass
        assert not system.held
    with locked(path), pytest.raises(CortexUsageError, match=f"pid {os.getpid()} on"), locked(path):
        pass


def test_a_part_is_done_though_windows_keeps_its_lock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, f"The process cannot access {path}: it is being used by another process")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", kept)
        with ledger.part_written(0):
            pass
    with ledger.part_written(0):
        pass
    assert not list(ledger.path.glob(".part-*.lock"))


def test_threads_of_a_worker_share_one_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps to the share of the whole worker."""
    made: list[object] = []
    second = threading.Barrier(2)

    def slowly(settings: bytes) -> object:
        made.append(settings)
        with contextlib.suppress(threading.BrokenBarrierError):
            second.wait(0.2)
        return pickle.loads(settings)

    monkeypatch.setattr(dask, "pickle", types.SimpleNamespace(loads=slowly))
    settings = pickle.dumps(CortexClient("v1dd"))
    with ThreadPoolExecutor(4) as threads:
        clients = {*threads.map(dask._client_here, [settings] * 4)}
    dask._unpacked.cache_clear()
    assert len(made) == len(clients) == 1


# -- attempts --------------------------------------------------------------------------------------------------------


class Asked:
    """A service that fails for some ids; counts the calls."""

    def __init__(self, bad: dict[int, CortexError]) -> None:
        self.bad, self.calls, self.rows = bad, 0, []

    async def __call__(self, ids: np.ndarray) -> pa.Table:
        self.calls += 1
        for i in ids.tolist():
            if i in self.bad:
                raise self.bad[i]
        return pa.table({"id": ids})

    async def spared(self, ids: list[int]) -> dict[int, CortexError]:
        return await spared(self, np.array(ids), self.rows.append)

    @property
    def answered(self) -> list[int]:
        return sorted(i for rows in self.rows for i in rows["id"].to_pylist())


@pytest.mark.parametrize(
    ("error", "most"),
    [
        (ServerError("500", status=500), 21),
        (ServerRefusedError("400", status=400), 21),
        (NotFoundError("no", ids=[77]), 3),
        (ServerError("500", status=500, ids=range(60, 90)), 15),
    ],
)
async def test_what_spoils_a_call_is_set_aside(error: CortexError, most: int) -> None:
    service = Asked({77: error})
    assert await service.spared([*range(1_000)]) == {77: error}
    assert service.answered == [i for i in range(1_000) if i != 77]
    assert service.calls <= most


async def test_a_service_that_is_away_is_the_error_of_all() -> None:
    away = ConnectError("away")
    assert await Asked({5: away}).spared([4, 5, 6]) == dict.fromkeys([4, 5, 6], away)


@pytest.mark.parametrize("error", [InvalidToken("no"), CortexUsageError("no"), NotFoundError("no such version")])
async def test_what_hits_every_id_alike_is_raised(error: CortexError) -> None:
    service = Asked(dict.fromkeys(range(1_000), error))
    with pytest.raises(type(error)):
        await service.spared([*range(1_000)])
    assert service.calls < 40


async def test_persistence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(attempts, "LONGEST_PAUSE", 0.001)
    calls: list[list[int]] = []
    away, bad = ConnectError("away"), NotFoundError("none")

    async def attempt(ids: np.ndarray) -> dict[int, CortexError]:
        calls.append(ids.tolist())
        if len(calls) < 6:  # at first for all of them
            return dict.fromkeys(ids.tolist(), away)
        return {i: bad if i == 1 else away for i in ids.tolist() if i < 3}

    outcomes = await persist(attempt, np.arange(9), patience=0.1)
    assert calls[:6] == [list(range(9))] * 6
    assert calls[6:] == []  # six attempts are enough for the few
    assert outcomes.errors == {0: away, 1: bad, 2: away}
    table = outcomes.table({1: 4}).to_pydict()
    assert table["id"] == [0, 1, 2]
    assert table["error"] == ["ConnectError", "NotFoundError", "ConnectError"]
    assert table["attempts"] == [6, 10, 6]

    async def never(ids: np.ndarray) -> dict[int, CortexError]:
        return dict.fromkeys(ids.tolist(), away)

    with pytest.raises(ConnectError) as caught:
        await persist(never, np.arange(9), patience=0.002)
    assert "resume" in str(caught.value.__notes__)


def test_rows_stand_in_the_order_of_the_ids() -> None:
    rows = pa.table({"id": [BIG + 3, BIG + 1, BIG + 2], "x": [3, 1, 2]})
    assert in_order(rows, "id").to_pydict() == {"id": [BIG + 1, BIG + 2, BIG + 3], "x": [1, 2, 3]}


# -- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_is_named_like_its_call() -> None:
    for name, task in TASKS.items():
        assert hasattr(AsyncCortexClient, name) or hasattr(AsyncMesh, name)
        assert (task.ask is None) != (task.stream is None)


@pytest.mark.parametrize(
    ("name", "options", "sink", "why"),
    [
        ("get_root", {}, None, "did you mean 'get_roots'"),
        ("get_roots", {"stop": 2}, None, "its options: stop_layer"),
        ("root_lifetimes", {"timestamp": "now"}, None, "its instant is that of the client"),
        ("get_meshes", {}, "swc", "choose of draco"),
    ],
)
def test_a_task_that_there_is_not(name: str, options: dict[str, Any], sink: str | None, why: str) -> None:
    with pytest.raises(CortexUsageError, match=why):
        find_task(name, options, sink)
