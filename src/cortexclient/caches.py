"""What a client remembers, in memory and on disk."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ._transport.cache import Cache, CacheInfo
from ._transport.disk import DiskCache
from .config import Limits
from .services._base import Session

VARIABLE = "CORTEXCLIENT_CACHE"
"""The environment's name for the folder, which exports are kept in too."""
PIECES = 0.125
"""Share of the memory for small values that come by the ten thousand: they are seldom asked for again, and must not
drive out the tables that everything else is looked up in."""


def cache_of(folder: str | Path | None, limits: Limits) -> Cache:
    """The caches of one client: on disk where a folder is named, here or by the environment."""
    named = folder or os.environ.get(VARIABLE)
    disk = DiskCache(Path(named).expanduser(), limits.disk_bytes) if named else None
    pieces = int(limits.memory_bytes * PIECES)
    return Cache(limits.memory_bytes - pieces, disk, piece_bytes=pieces)


class AsyncCaches:
    """What is remembered of answers that cannot change any more, and for some minutes of those that may."""

    def __init__(self, session: Session) -> None:
        self._cache = session.cache

    async def info(self) -> CacheInfo:
        """Tell what is kept, and how it has served.

        Returns
        -------
        CacheInfo
            ``entries``, ``bytes``, ``hits`` and ``misses`` of the memory; ``disk`` has the same of the file (with its
            ``path``, and the last ``problem`` with it), None where no folder is named.

        Examples
        --------
        >>> await client.chunkedgraph.base_resolution()
        (8.0, 8.0, 40.0)
        >>> (await client.cache.info()).entries > 0
        True
        """
        info = self._cache.info()
        return info if self._cache.disk is None else replace(info, disk=await self._cache.disk.info())

    async def clear(self, *, disk: bool = True) -> None:
        """Forget everything; what is asked next is fetched again.

        Parameters
        ----------
        disk
            Also what is on disk, for all processes that use the same folder.

        Examples
        --------
        >>> await client.cache.clear(disk=False)
        >>> (await client.cache.info()).entries
        0
        """
        self._cache.clear()
        if disk and self._cache.disk is not None:
            await self._cache.disk.clear()

    def __repr__(self) -> str:
        info = self._cache.info()
        place = "" if self._cache.disk is None else f", and {self._cache.disk.path}"
        return f"<{type(self).__name__}: {info.entries:,} entries, {info.bytes:,} bytes in memory{place}>"
