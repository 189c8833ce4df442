"""The disk cache: several processes, killed at any moment, damaged, full; a value is right or missing, never wrong."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cortexclient._transport import disk as disk_module
from cortexclient._transport.cache import Cache
from cortexclient._transport.disk import RAW, Codec, DiskCache, _name

NUMBER = Codec[int](lambda value: str(value).encode(), lambda data: int(data.decode()))


async def test_what_one_keeps_another_one_finds(tmp_path: Path) -> None:
    one, other = DiskCache(tmp_path / "new" / "folder", 1000), DiskCache(tmp_path / "new" / "folder", 1000)
    assert await one.get(("a", 1), RAW) is None
    await one.put(("a", 1), b"value", RAW)
    assert await other.get(("a", 1), RAW) == (b"value",)
    assert await other.get(("a", "1"), RAW) is None, "a number is no text"
    info = await other.info()
    assert (info.entries, info.bytes, info.hits, info.misses, info.problem) == (1, 5, 1, 1, None)
    await other.clear()
    assert await one.get(("a", 1), RAW) is None
    assert (await one.info()).entries == 0


async def test_the_longest_unused_leaves_when_the_bytes_are_spent(tmp_path: Path) -> None:
    now = [0.0]
    disk = DiskCache(tmp_path, 3_000, clock=lambda: now[0])
    for number in range(30):
        now[0] += 10_000
        await disk.put(number, bytes(100), RAW)
        assert await disk.get(0, RAW) is not None, "used again and again"
    await disk.put("more", bytes(100), RAW)
    info = await disk.info()
    assert info.bytes <= 3_000
    assert info.bytes == 100 * info.entries >= 2_000
    assert await disk.get("more", RAW) is not None
    assert await disk.get(1, RAW) is None
    await disk.put("larger than all", bytes(3_001), RAW)
    assert await disk.get("larger than all", RAW) is None


async def test_a_value_that_was_damaged_is_missing(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 1 << 20)
    await disk.put("k", b"right", RAW)
    with sqlite3.connect(disk.path) as file:
        file.execute("UPDATE entries SET value = ?", (b"wrong",))
    file.close()
    assert await disk.get("k", RAW) is None
    await disk.put("k", b"right", RAW)
    assert await disk.get("k", RAW) == (b"right",)


async def test_a_value_that_cannot_be_read_is_loaded_again(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 1 << 20)
    await disk.put("k", b"no number", RAW)
    assert await disk.get("k", NUMBER) is None
    await disk.put("k", 7, NUMBER)
    assert await disk.get("k", NUMBER) == (7,)


@pytest.mark.parametrize("trouble", ["another kind of file", "a folder", "a file for a folder", "cut off"])
async def test_trouble_with_the_file_fails_no_call(tmp_path: Path, trouble: str) -> None:
    disk = DiskCache(tmp_path / "cache", 1 << 20)
    if trouble == "a file for a folder":
        disk.folder.write_text("in the way")
    else:
        disk.folder.mkdir()
    if trouble == "a folder":
        disk.path.mkdir()
    if trouble == "another kind of file":
        disk.path.write_bytes(b"something else" * 1000)
    if trouble == "cut off":
        first = DiskCache(disk.folder, 1 << 20)
        for number in range(100):
            await first.put(number, bytes(1000), RAW)
        with sqlite3.connect(first.path) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file.close()
        del first
        os.truncate(disk.path, disk.path.stat().st_size // 2)
    cache = Cache(1000, disk)
    for number in range(3):
        assert await cache.get(("k", number), _giving(number), codec=NUMBER) == number
    info = await disk.info()
    assert info.problem


async def test_memory_first_then_disk_then_the_server(tmp_path: Path) -> None:
    first, second = (Cache(1000, DiskCache(tmp_path, 1 << 20)) for _ in range(2))
    assert await first.get("k", _giving(1), codec=NUMBER) == 1
    assert await second.get("k", _giving(2), codec=NUMBER) == 1
    assert await second.get("k", _giving(3), codec=NUMBER) == 1
    assert second.info().hits == 1
    second.clear()
    assert await second.recall("k", NUMBER) == 1
    assert second.holds("k")
    assert await second.recall("volatile", NUMBER) is None
    await second.keep("volatile", 5, ttl=60)
    assert await first.recall("volatile", NUMBER) is None, "what has no codec may change"
    await second.keep("kept", 6, codec=NUMBER)
    assert await first.recall("kept", NUMBER) == 6
    await first.forget("kept")
    assert await Cache(1000, DiskCache(tmp_path, 1 << 20)).recall("kept", NUMBER) is None


async def test_copies_and_pickles_open_the_same_file(tmp_path: Path) -> None:
    cache = Cache(1000, DiskCache(tmp_path, 1 << 20))
    await cache.keep("k", 1, codec=NUMBER)
    for twin in (copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert twin.disk is not cache.disk
        assert await twin.recall("k", NUMBER) == 1


def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 1 << 20)
    disk._put(b"k", b"parent")
    child = os.fork()
    if not child:  # without the event loop, which is the parent's
        disk._put(b"child", b"value")
        os._exit(0 if disk._get(b"child") == b"value" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert disk._get(b"child") == b"value"


async def test_cancelled_calls_leave_it_usable(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 1 << 20)
    tasks = [asyncio.create_task(disk.put(number, bytes(1000), RAW)) for number in range(50)]
    await asyncio.sleep(0.002)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await disk.put("after", b"value", RAW)
    assert await disk.get("after", RAW) == (b"value",)
    assert (await disk.info()).problem is None


async def test_calls_at_once_do_not_meet_in_a_statement(tmp_path: Path) -> None:
    """Threads that share a connection can: sqlite3 keeps prepared statements by their text, and calls that misuse."""
    disk = DiskCache(tmp_path, 1 << 30)

    async def use(number: int) -> None:
        await disk.put(number, bytes(number), RAW)
        assert await disk.get(number, RAW) == (bytes(number),)

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        await asyncio.gather(*(use(number) for number in range(2_000)))
    finally:
        sys.setswitchinterval(usual)
    info = await disk.info()
    assert (info.entries, info.misses, info.problem) == (2_000, 0, None)


async def test_threads_that_write_stand_in_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine: nobody looks in vain for the whole time that others may take."""
    monkeypatch.setattr(disk_module, "LOCK_SECONDS", 0.0)
    disk = DiskCache(tmp_path, 1 << 30)
    await asyncio.gather(*(disk.put(number, bytes(1_000), RAW) for number in range(300)))
    await asyncio.gather(*(disk.forget(number) for number in range(100)))
    info = await disk.info()
    assert (info.entries, info.problem) == (200, None)


WRITER = """
import asyncio, sys
from pathlib import Path
from cortexclient._transport.disk import Codec, DiskCache

RAW = Codec(str.encode, bytes.decode)

async def main():
    disk, first = DiskCache(Path(sys.argv[1]), 2_000_000), int(sys.argv[2])
    await disk.put("ready", "", RAW)
    print("ready", flush=True)
    for number in range(first, first + 100_000):
        await disk.put(number % 500, (str(number % 500) * 20_000)[: 10_000 + number % 500], RAW)

asyncio.run(main())
"""


def test_killed_writers_leave_no_wrong_value(tmp_path: Path) -> None:
    """Two processes write under the same keys; each is killed at some moment, and others go on."""
    for turn in range(2):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(turn * 40 + 13 * n)], stdout=-1)
            for n in range(2)
        ]
        for writer in writers:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
        for number, writer in enumerate(writers):
            time.sleep(0.05 + 0.03 * ((turn + number) % 3))
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        disk, right = DiskCache(tmp_path, 2_000_000), 0
        for number in range(500):
            found = disk._get(_name(number))
            assert found is None or found == (str(number) * 20_000)[: 10_000 + number].encode()
            right += found is not None
        info = asyncio.run(disk.info())
        assert right > 20
        assert info.problem is None
        assert info.bytes <= 2_000_000 + 2 * 10_500, "those that were killed had no time to clear up"
        with disk._file() as file:
            assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert file.execute("SELECT COUNT(*), SUM(size) FROM entries").fetchone() == (info.entries, info.bytes)


def _giving(value: int):  # type: ignore[no-untyped-def]
    async def load() -> int:
        return value

    return load
