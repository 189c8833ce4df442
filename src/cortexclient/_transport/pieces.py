"""Small values that never change and come by the ten thousand: plain bytes, in memory and on disk.

The cache of answers spends 30 us on each value, a tenth of what a fragment of a mesh costs in all; and a stream of
meshes would drive everything else out of it. So these have a cache of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING

from .disk import RAW

if TYPE_CHECKING:
    from cachetools import LRUCache

    from .disk import DiskCache


class Pieces:
    """Bytes by key, the longest unused leaving first.

    Parameters
    ----------
    max_bytes
        How much to keep in memory.
    disk
        Keeps all of them, for other processes and times.

    Attributes
    ----------
    hits, misses
        How often `peek` found a value.
    """

    def __init__(self, max_bytes: int, disk: DiskCache | None = None) -> None:
        self.max_bytes = max_bytes
        self.hits = self.misses = 0
        self._disk = disk
        self._kept: LRUCache[Hashable, bytes] | None = None

    def __len__(self) -> int:
        return 0 if self._kept is None else len(self._kept)

    @property
    def held(self) -> int:
        """Bytes that those in memory take."""
        return 0 if self._kept is None else int(self._kept.currsize)

    def clear(self) -> None:
        """Forget all that is in memory."""
        self._kept = None

    def peek(self, key: Hashable) -> bytes | None:
        """The value in memory, if it is there."""
        kept = None if self._kept is None else self._kept.get(key)
        if kept is None:
            self.misses += 1
        else:
            self.hits += 1
        return kept

    async def load(self, keys: Iterable[Hashable]) -> dict[Hashable, bytes]:
        """Those that are on disk, which are in memory from now on."""
        if self._disk is None:
            return {}
        found = await self._disk.get_all(keys, RAW)
        self._remember(found)
        return found

    async def keep(self, values: Mapping[Hashable, bytes]) -> None:
        """Keep values that were loaded elsewhere."""
        self._remember(values)
        if self._disk is not None and values:
            await self._disk.put_all(values, RAW)

    async def forget(self, keys: Iterable[Hashable]) -> None:
        """Drop values that turned out to be bad."""
        for key in keys:
            if self._kept is not None:
                self._kept.pop(key, None)
            if self._disk is not None:
                await self._disk.forget(key)

    def _remember(self, values: Mapping[Hashable, bytes]) -> None:
        if self._kept is None:
            from cachetools import LRUCache

            self._kept = LRUCache(self.max_bytes, getsizeof=sys.getsizeof)
        for key, value in values.items():
            if sys.getsizeof(value) <= self.max_bytes:  # a larger one is passed on and not kept
                self._kept[key] = value
