"""The memory cache: one load per key, nothing kept beyond its bytes or its time, no error kept at all."""

from __future__ import annotations

import asyncio
import copy
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import numpy as np
import pytest
from tests.patience import HANG

from cortexclient._transport.cache import Cache, size_of
from cortexclient._transport.disk import DiskCache


class Loader:
    """Counts its calls; waits until it is let go."""

    def __init__(self, value: object = "value", error: Exception | None = None) -> None:
        self.calls = 0
        self.cancelled = 0
        self.value = value
        self.error = error
        self.go = asyncio.Event()

    async def __call__(self) -> object:
        self.calls += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return self.value


def giving(value: object) -> Callable[[], Awaitable[object]]:
    async def load() -> object:
        return value

    return load


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_key_is_loaded_once_and_then_kept() -> None:
    cache, load = Cache(), Loader()
    load.go.set()
    assert [await cache.get(("a", 1), load) for _ in range(3)] == ["value"] * 3
    assert load.calls == 1
    assert (cache.info().hits, cache.info().misses, cache.info().entries) == (2, 1, 1)


async def test_none_is_a_value_like_any_other() -> None:
    cache, load = Cache(), Loader(value=None)
    load.go.set()
    assert await cache.get("k", load) is None
    assert await cache.get("k", load) is None
    assert load.calls == 1


async def test_those_who_ask_at_the_same_time_share_one_load() -> None:
    cache, load = Cache(), Loader()
    waiting = [asyncio.create_task(cache.get("k", load)) for _ in range(10)]
    await settle()
    load.go.set()
    assert await asyncio.gather(*waiting) == ["value"] * 10
    assert load.calls == 1


async def test_an_error_reaches_all_who_wait_and_is_not_kept() -> None:
    cache, load = Cache(), Loader(error=LookupError("no"))
    waiting = [asyncio.create_task(cache.get("k", load)) for _ in range(3)]
    await settle()
    load.go.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
    assert cache.info().entries == 0
    assert await cache.get("k", giving("better")) == "better"


async def test_one_who_gives_up_leaves_the_load_to_the_others() -> None:
    cache, load = Cache(), Loader()
    first, second = (asyncio.create_task(cache.get("k", load)) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    load.go.set()
    assert await second == "value"
    assert first.cancelled()
    assert (load.calls, load.cancelled) == (1, 0)


async def test_the_last_who_gives_up_calls_the_load_off() -> None:
    cache, load = Cache(), Loader()
    waiting = [asyncio.create_task(cache.get("k", load)) for _ in range(2)]
    await settle()
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert load.cancelled == 1
    assert await cache.get("k", giving("new")) == "new"


async def test_a_value_leaves_when_its_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cache, loop, ahead = Cache(), asyncio.get_running_loop(), 0.0
    clock = loop.time
    monkeypatch.setattr(loop, "time", lambda: clock() + ahead)
    assert await cache.get("k", giving(1), ttl=1_000.0) == 1
    assert await cache.get("k", giving(2), ttl=1_000.0) == 1
    ahead = 1_001.0
    await settle()
    assert await cache.get("k", giving(3)) == 3
    assert cache.info().entries == 1


async def test_the_longest_unused_leaves_when_the_bytes_are_spent() -> None:
    cache = Cache(max_bytes=300)
    for key in "abc":
        await cache.get(key, giving(key), size=lambda _: 100)
    await cache.get("a", giving("never"))
    await cache.get("d", giving("d"), size=lambda _: 100)
    assert await cache.get("a", giving("again"), size=lambda _: 100) == "a"
    assert cache.info().bytes == 300
    assert await cache.get("b", giving("again"), size=lambda _: 100) == "again"


async def test_a_value_larger_than_the_cache_is_passed_on_and_not_kept() -> None:
    cache = Cache(max_bytes=1000)
    assert await cache.get("small", giving(0)) == 0
    assert len(await cache.get("big", giving(bytes(2000)))) == 2000  # type: ignore[arg-type]
    assert cache.info().entries == 1


async def test_clear_forgets_what_is_under_way_too() -> None:
    cache, load = Cache(), Loader("old")
    waiting = asyncio.create_task(cache.get("k", load))
    await settle()
    cache.clear()
    load.go.set()
    assert await waiting == "old"
    assert await cache.get("k", giving("new")) == "new"
    assert cache.info().entries == 1


class Large:
    """Something that can be watched."""


async def test_clear_lets_go_of_values_whose_time_is_not_up() -> None:
    cache, large = Cache(), Large()
    watched = weakref.ref(large)
    await cache.get("volatile", giving(1), ttl=3600)
    await cache.keep("k", large)
    del large
    cache.clear()
    gc.collect()
    assert watched() is None


def test_the_size_counts_what_containers_hold() -> None:
    array = np.zeros(1000, np.int64)
    assert size_of(array) >= 8000
    assert size_of({"a": array, "b": [array]}) >= 16_000
    assert size_of(b"x" * 500) == sys.getsizeof(b"x" * 500)


@pytest.mark.parametrize("count", [2_000])
async def test_the_bound_holds_under_many_keys(count: int) -> None:
    cache = Cache(max_bytes=50_000)
    for number in range(count):
        await cache.get(("k", number), giving(bytes(100)))
    info = cache.info()
    assert info.bytes <= 50_000
    assert info.misses == count
    assert 200 < info.entries < 500


async def test_values_that_were_loaded_elsewhere() -> None:
    cache = Cache(max_bytes=250)
    assert await cache.recall("a") is None
    await cache.keep("a", b"x" * 100)
    assert await cache.recall("a") == b"x" * 100
    assert (cache.info().hits, cache.info().misses) == (1, 1)
    await cache.keep("b", b"y" * 200)
    assert await cache.recall("a") is None, "the longest unused leaves first"
    await cache.forget("b")
    await cache.forget("never there")
    assert await cache.recall("b") is None
    assert (cache.info().entries, cache.info().bytes) == (0, 0)


async def test_pieces_are_bounded_by_bytes_of_their_own() -> None:
    cache = Cache(max_bytes=1000, piece_bytes=10 * sys.getsizeof(bytes(100)))
    await cache.keep("table", bytes(500))
    for number in range(100):
        await cache.pieces.keep({("piece", number): bytes(100)})
        assert cache.pieces.peek(("piece", 0)) is not None, "used again and again, it stays"
    await cache.pieces.keep({"too large": bytes(5000)})
    assert cache.pieces.peek("too large") is None
    assert len(cache.pieces) == 10
    assert cache.pieces.held == cache.pieces.max_bytes
    assert await cache.recall("table") == bytes(500), "what comes by the thousand does not drive the rest out"
    info = cache.info()
    assert (info.entries, info.bytes) == (11, cache.pieces.max_bytes + sys.getsizeof(bytes(500)))
    await cache.pieces.forget([("piece", 99), "never there"])
    assert cache.pieces.peek(("piece", 99)) is None
    twin = copy.copy(cache)
    assert (twin.pieces.max_bytes, len(twin.pieces)) == (cache.pieces.max_bytes, 0)
    cache.clear()
    assert (cache.info().entries, cache.info().bytes) == (0, 0)


async def test_pieces_are_kept_on_disk(tmp_path: Path) -> None:
    first, second = (Cache(1000, DiskCache(tmp_path, 1 << 20)) for _ in range(2))
    await first.pieces.keep({"a": b"1", "b": b"2"})
    assert await second.pieces.load(["a", "x", "b"]) == {"a": b"1", "b": b"2"}
    assert second.pieces.peek("a") == b"1", "in memory from now on"
    assert second.disk is not None
    assert ((await second.disk.info()).hits, (await second.disk.info()).misses) == (2, 1)
    await second.pieces.forget(["a"])
    assert await Cache(1000, DiskCache(tmp_path, 1 << 20)).pieces.load(["a", "b"]) == {"b": b"2"}
    assert await Cache(1000).pieces.load(["a"]) == {}


async def test_a_deadline_that_is_over_leaves_no_load_behind() -> None:
    """A deadline cancels again whatever is awaited after it."""
    cache, before = Cache(), asyncio.all_tasks()
    ended: list[str] = []

    async def load() -> int:
        try:
            await asyncio.sleep(HANG)
        finally:
            for _ in range(5):  # closing takes some turns of the loop
                await asyncio.sleep(0)
            ended.append("closed")
        return 1

    with anyio.move_on_after(0.01):
        await cache.get("k", load)
    assert ended == ["closed"]
    assert asyncio.all_tasks() == before
