"""How many bytes of meshes may be under way at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

GROWTH: Final = 40
"""What a byte of a fragment takes in memory while its mesh is made: decoded, welded, and on the way between."""

USUAL_FRAGMENT: Final = 4_096
"""Bytes of a fragment whose size the manifest does not tell."""

Reserve = Callable[[int], Awaitable[None]]
"""Holds so many bytes for a mesh, in place of those that it held before; waits for them the first time."""


class ByteGate:
    """Lets holders in while what they hold stays below a limit; one alone may hold any amount.

    Objects are not alike: a blood vessel has a thousand times the mesh of a small neuron, so a bound on their number
    bounds nothing.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._changed = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait until ``count`` more fit."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self.held or self.held + count <= self.limit)
            self.held += count

    async def give(self, count: int) -> None:
        """Give back, or take a little more without waiting if ``count`` is negative."""
        async with self._changed:
            self.held -= count
            self._changed.notify_all()
