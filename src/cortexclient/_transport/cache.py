"""A memory cache bounded by bytes, in which a key that is being fetched is fetched once, and a disk cache behind it."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .pieces import Pieces

if TYPE_CHECKING:
    from aiocache import SimpleMemoryCache

    from .disk import Codec, DiskCache, DiskInfo

T = TypeVar("T")


def size_of(value: Any) -> int:
    """Bytes that a value takes, nearly: arrays, Arrow tables and bytes by their data, containers by their contents."""
    if isinstance(value, Mapping):
        return sys.getsizeof(value) + sum(size_of(key) + size_of(item) for key, item in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return sys.getsizeof(value) + sum(map(size_of, value))
    return sys.getsizeof(value) + int(getattr(value, "nbytes", 0))


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What the cache holds, and how it has served.

    Examples
    --------
    >>> (await client.cache.info()).disk is None
    True
    """

    entries: int
    bytes: int
    hits: int
    """Answers without a request, those that shared one under way included."""
    misses: int
    """What was neither kept in memory nor under way."""
    disk: DiskInfo | None = None
    """The same of the file, where there is one."""


@dataclass(slots=True)
class _Flight:
    """A value on its way, and how many wait for it."""

    task: asyncio.Task[Any]
    waiting: int = 0


class Cache:
    """Keeps what was loaded, the longest unused leaving first; serves one event loop.

    Parameters
    ----------
    max_bytes
        How much to keep. A value larger than that is passed on and not kept.
    disk
        Keeps what is got or kept with a codec, for other processes and times. What has no codec may change.
    piece_bytes
        How much to keep of `pieces`.

    Attributes
    ----------
    pieces
        The small values among them, in a cache of their own over the same disk.
    """

    def __init__(
        self, max_bytes: int = 192 << 20, disk: DiskCache | None = None, *, piece_bytes: int = 64 << 20
    ) -> None:
        self.max_bytes = max_bytes
        self.disk = disk
        self.pieces = Pieces(piece_bytes, disk)
        self._hits = 0
        self._misses = 0
        self._flights: dict[Hashable, _Flight] = {}
        self._memory: SimpleMemoryCache | None = None
        self.clear()

    def __getstate__(self) -> tuple[int, DiskCache | None, int]:
        """The sizes and the disk: a copy or a pickle has nothing in memory."""
        return self.max_bytes, copy.copy(self.disk), self.pieces.max_bytes

    def __setstate__(self, state: tuple[int, DiskCache | None, int]) -> None:
        max_bytes, disk, piece_bytes = state
        Cache.__init__(self, max_bytes, disk, piece_bytes=piece_bytes)

    def clear(self) -> None:
        """Forget all that is in memory; what is under way arrives, but is not kept there."""
        if self._memory is not None:
            self._memory._cache.clear()  # noqa: SLF001 (its timers hold on to it until the last of them has run)
        self._memory = None
        self._sizes: OrderedDict[Hashable, int] = OrderedDict()
        self._bytes = 0
        self.pieces.clear()

    def info(self) -> CacheInfo:
        """Counts so far. A value whose time is up counts until its place is needed."""
        pieces = self.pieces
        return CacheInfo(
            len(self._sizes) + len(pieces),
            self._bytes + pieces.held,
            self._hits + pieces.hits,
            self._misses + pieces.misses,
        )

    def holds(self, key: Hashable) -> bool:
        """Whether a value is kept under ``key`` (its time may be up)."""
        return key in self._sizes

    def peek(self, key: Hashable) -> Any:
        """The value kept under ``key``, without loading or counting anything; None if there is none."""
        entry = self._memory._cache.get(key) if self._memory is not None else None  # noqa: SLF001 (has no such method)
        return None if entry is None else entry[0]

    async def get(
        self,
        key: Hashable,
        load: Callable[[], Awaitable[T]],
        ttl: float | None = None,
        size: Callable[[T], int] = size_of,
        codec: Codec[T] | None = None,
    ) -> T:
        """The value of ``key``: kept, on its way, or loaded now.

        Parameters
        ----------
        key
            A tuple that names all that the value depends on.
        load
            Called if nobody has the value. Its errors reach all who wait, and are not kept.
        ttl
            Seconds to keep it, above zero; None: for good.
        size
            The bytes of a value, if `size_of` does not know them.
        codec
            Given, the value can never change, and is looked for and kept on disk too.
        """
        memory = self._store()
        entry: tuple[T] | None = await self._kept(key)
        if entry is not None:
            return entry[0]
        flight = self._flights.get(key)
        if flight is None:
            self._misses += 1
            found = load if codec is None or self.disk is None else partial(_through, self.disk, key, load, codec)
            task = asyncio.ensure_future(self._load(memory, key, found, ttl, size))
            flight = self._flights[key] = _Flight(task)
        else:
            self._hits += 1
        value: T = await self._wait_for(key, flight)
        return value

    async def recall(self, key: Hashable, codec: Codec[Any] | None = None) -> Any:
        """The value that is kept under ``key``, else None: for callers that load many keys with one request."""
        entry: tuple[Any] | None = await self._kept(key) if key in self._sizes else None
        if entry is not None:
            return entry[0]
        self._misses += 1
        if codec is None or self.disk is None:
            return None
        entry = await self.disk.get(key, codec)
        if entry is None:
            return None
        await self._put(self._store(), key, entry[0], None, size_of(entry[0]))
        return entry[0]

    async def keep(self, key: Hashable, value: Any, ttl: float | None = None, codec: Codec[Any] | None = None) -> None:
        """Keep a value that was loaded elsewhere."""
        await self._put(self._store(), key, value, ttl, size_of(value))
        if codec is not None and self.disk is not None:
            await self.disk.put(key, value, codec)

    async def forget(self, key: Hashable) -> None:
        """Drop a value that turned out to be bad."""
        self._bytes -= self._sizes.pop(key, 0)
        await self._store().delete(key)
        if self.disk is not None:
            await self.disk.forget(key)

    async def _kept(self, key: Hashable) -> tuple[Any] | None:
        entry: tuple[Any] | None = await self._store().get(key)
        if entry is not None:
            self._hits += 1
            self._sizes.move_to_end(key)
        return entry

    async def _wait_for(self, key: Hashable, flight: _Flight) -> Any:
        """The value of a flight. One who gives up leaves it to the others; the last one calls it off."""
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._land(key, flight.task)
                import anyio

                flight.task.cancel()
                with anyio.CancelScope(shield=True):  # a deadline that is over would end this wait too
                    await asyncio.wait([flight.task])

    def _land(self, key: Hashable, task: asyncio.Task[Any] | None) -> None:
        if key in self._flights and self._flights[key].task is task:
            del self._flights[key]

    async def _load(
        self,
        memory: SimpleMemoryCache,
        key: Hashable,
        load: Callable[[], Awaitable[T]],
        ttl: float | None,
        size: Callable[[T], int],
    ) -> T:
        try:
            value = await load()
            await self._put(memory, key, value, ttl, size(value))
            return value
        finally:
            self._land(key, asyncio.current_task())

    async def _put(self, memory: SimpleMemoryCache, key: Hashable, value: Any, ttl: float | None, needed: int) -> None:
        cleared = self._memory is not memory
        if needed > self.max_bytes or cleared:
            return
        await memory.set(key, (value,), ttl=ttl)  # in a tuple: aiocache takes None for "not there"
        self._bytes += needed - self._sizes.pop(key, 0)
        self._sizes[key] = needed
        while self._bytes > self.max_bytes:
            oldest, freed = self._sizes.popitem(last=False)
            self._bytes -= freed
            await memory.delete(oldest)

    def _store(self) -> SimpleMemoryCache:
        if self._memory is None:
            from aiocache import SimpleMemoryCache

            self._memory = SimpleMemoryCache(key_builder=_as_it_is, timeout=None)
        return self._memory


async def _through(disk: DiskCache, key: Hashable, load: Callable[[], Awaitable[T]], codec: Codec[T]) -> T:
    """The value from disk, else loaded and kept there."""
    found = await disk.get(key, codec)
    if found is not None:
        return found[0]
    value = await load()
    await disk.put(key, value, codec)
    return value


def _as_it_is(key: Hashable, namespace: str | None) -> Hashable:  # noqa: ARG001 (aiocache's signature)
    return key
