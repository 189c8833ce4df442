"""What cannot change, kept on disk: one SQLite file, for several processes at once, bounded by bytes.

SQLite's write-ahead log is what makes it safe: a process that is killed in the middle of a write leaves the last whole
state behind, readers never wait for writers, and writers wait for each other. Values are bytes; nothing is pickled, so
that a file from elsewhere can at worst be wrong, and each value is kept with its digest, so that a damaged one is
missing instead.

A cache must never fail a call: what goes wrong with the file (no room, no permission, another kind of file) makes
values missing, and is told by `DiskCache.info`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

FORMAT: Final = 1
"""Of all that is kept: what another number wrote is in another file. It goes up when a codec changes."""
LARGEST: Final = 500 << 20
"""Bytes of the largest value; SQLite's own bound is twice that."""
LOCK_SECONDS: Final = 5.0
"""How long to wait for another process's write."""
TOUCH_SECONDS: Final = 3600
"""A use is written down if the last one was so long ago: reading shall not cost a write each time."""
ROOM: Final = 0.9
"""Share of the bound that is left when entries have to go."""

TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries
    (key BLOB PRIMARY KEY, digest BLOB NOT NULL, value BLOB NOT NULL, size INTEGER NOT NULL, used REAL NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON entries (used);
CREATE TABLE IF NOT EXISTS totals (one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER, bytes INTEGER);
INSERT OR IGNORE INTO totals VALUES (1, 0, 0);
CREATE TRIGGER IF NOT EXISTS came AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS went AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - OLD.size; END;
"""
FORGET: Final = "DELETE FROM entries WHERE key = ?"


class Codec(NamedTuple, Generic[T]):
    """How a kind of value is written down. ``decode`` may raise anything on bytes that ``encode`` did not make."""

    encode: Callable[[T], bytes]
    decode: Callable[[bytes], T]


RAW: Final = Codec[bytes](bytes, bytes)


@dataclass(frozen=True, slots=True)
class DiskInfo:
    """What the file holds, for all processes that use it, and how it served this one."""

    path: Path
    entries: int
    bytes: int
    max_bytes: int
    hits: int
    misses: int
    problem: str | None
    """What last went wrong with it; values are missing then, and no call fails."""


class DiskCache:
    """Bytes by key in a file of ``folder``, the longest unused leaving first.

    Parameters
    ----------
    folder
        Where the file is; made at the first use. On a disk of this machine: the log needs memory that processes share.
    max_bytes
        Of all values together.
    clock
        Seconds since the epoch.
    """

    def __init__(self, folder: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._clock = clock
        self._own()
        self._hits = self._misses = 0
        self._problem: str | None = None

    def __getstate__(self) -> tuple[Path, int]:
        """The place: a copy or a pickle opens the file anew."""
        return self.folder, self.max_bytes

    def __setstate__(self, state: tuple[Path, int]) -> None:
        DiskCache.__init__(self, *state)

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / f"cortexclient-{FORMAT}.sqlite"

    async def get(self, key: Hashable, codec: Codec[T]) -> tuple[T] | None:
        """The value under ``key``, in a tuple, if there is one that can be read."""
        found = await self.get_all([key], codec)
        return (found[key],) if found else None

    async def get_all(self, keys: Iterable[Hashable], codec: Codec[T]) -> dict[Hashable, T]:
        """The values that there are and that can be read, with one visit to a thread."""
        wanted, found = list(keys), {}
        data = await self._safely(self._get_all, [_name(key) for key in wanted]) or []
        for key, body in zip(wanted, data, strict=False):
            if body is None:
                continue
            try:
                found[key] = codec.decode(body)
            except Exception:  # noqa: BLE001 (whatever it is, the value is loaded again)
                await self.forget(key)
        self._hits += len(found)
        self._misses += len(wanted) - len(found)
        return found

    async def put(self, key: Hashable, value: T, codec: Codec[T]) -> None:
        """Keep a value; one that is there already stays."""
        await self.put_all({key: value}, codec)

    async def put_all(self, values: Mapping[Hashable, T], codec: Codec[T]) -> None:
        """Keep values, with one visit to a thread; those that are there already stay."""
        await self._safely(self._put_all, [(_name(key), codec.encode(value)) for key, value in values.items()])

    async def forget(self, key: Hashable) -> None:
        """Drop a value that turned out to be bad."""
        await self._safely(self._forget, _name(key))

    async def clear(self) -> None:
        """Drop everything, for all processes, and give the room back."""
        await self._safely(self._clear)

    async def info(self) -> DiskInfo:
        """Counts so far."""
        entries, size = await self._safely(self._totals) or (0, 0)
        return DiskInfo(self.path, entries, size, self.max_bytes, self._hits, self._misses, self._problem)

    async def _safely(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except (sqlite3.Error, OSError) as error:
            self._problem = f"{type(error).__name__}: {error}"
            return None

    # -- in threads: each is one statement, or several that may be interrupted anywhere --------------------------------

    def _get_all(self, names: list[bytes]) -> list[bytes | None]:
        return [self._get(name) for name in names]

    def _put_all(self, values: list[tuple[bytes, bytes]]) -> None:
        for name, value in values:
            self._put(name, value)

    def _get(self, name: bytes) -> bytes | None:
        now = self._clock()
        with self._file() as file:
            row = file.execute("SELECT digest, value, used FROM entries WHERE key = ?", (name,)).fetchone()
            if row is None:
                return None
            digest, value, used = row
            if digest != _digest(name, value):
                with self._writing:
                    file.execute(FORGET, (name,))
                return None
            if now - used > TOUCH_SECONDS:
                with self._writing:
                    file.execute("UPDATE entries SET used = ? WHERE key = ?", (now, name))
            return bytes(value)

    def _put(self, name: bytes, value: bytes) -> None:
        if len(value) > min(self.max_bytes, LARGEST):
            return
        row = (name, _digest(name, value), value, len(value), self._clock())
        with self._file() as file, self._writing:
            file.execute("INSERT OR IGNORE INTO entries VALUES (?, ?, ?, ?, ?)", row)
            bound = self.max_bytes
            while file.execute("SELECT bytes FROM totals").fetchone()[0] > bound:
                bound = int(self.max_bytes * ROOM)
                oldest = "DELETE FROM entries WHERE key IN (SELECT key FROM entries ORDER BY used LIMIT 8)"
                if not file.execute(oldest).rowcount:
                    return

    def _forget(self, name: bytes) -> None:
        with self._file() as file, self._writing:
            file.execute(FORGET, (name,))

    def _clear(self) -> None:
        with self._file() as file, self._writing:
            file.execute("DELETE FROM entries")
            file.execute("VACUUM")

    def _totals(self) -> tuple[int, int]:
        with self._file() as file:
            entries, size = file.execute("SELECT entries, bytes FROM totals").fetchone()
        return entries, size

    @contextmanager
    def _file(self) -> Iterator[sqlite3.Connection]:
        """A connection for this thread alone: threads that share one can meet in the same prepared statement."""
        if self._owner != os.getpid():  # a forked child must not use its parent's
            self._own()
        idle = self._idle
        try:
            file = idle.pop()
        except IndexError:
            with self._writing:  # a new file takes its journal mode from one connection; others would find it locked
                file = self._open()
        try:
            yield file
        except BaseException:
            file.close()
            raise
        idle.append(file)

    def _own(self) -> None:
        self._idle: list[sqlite3.Connection] = []
        # threads of one process stand in line; SQLite lets writers look again and again, and some never get their turn
        self._owner, self._writing = os.getpid(), threading.Lock()
        weakref.finalize(self, _close, self._idle, self._owner)

    def _open(self) -> sqlite3.Connection:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = sqlite3.connect(self.path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            file.execute("PRAGMA journal_mode = WAL")
            file.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last values, and breaks none
            file.execute(f"PRAGMA journal_size_limit = {64 << 20}")
            file.executescript(TABLES)
        except sqlite3.Error:
            file.close()
            raise
        return file


def _close(idle: list[sqlite3.Connection], owner: int) -> None:
    while idle and owner == os.getpid():
        idle.pop().close()


def _name(key: Hashable) -> bytes:
    """A key as the file has it: keys are tuples of texts, numbers and instants, whose repr says all."""
    return hashlib.blake2b(repr(key).encode(), digest_size=20).digest()


def _digest(name: bytes, value: Any) -> bytes:
    return hashlib.blake2b(name + value, digest_size=16).digest()
