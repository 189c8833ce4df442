"""How many requests one service gets at once."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

SLOW_START = 4


class Gate:
    """Admits at most ``limit`` requests at a time to one service, and fewer while the service is in trouble.

    It starts small and opens by one with each good answer, so that a service which scales up has time to; a 503 halves
    it (these services drain a busy pod, so driving on makes them vanish); a 429 shuts it for as long as the server
    asks.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.width = min(limit, SLOW_START)
        self.in_flight = 0
        self.peak = 0
        self._slots = asyncio.Semaphore(self.width)
        self._owed = 0  # slots to swallow when they come back, because the gate was narrowed meanwhile
        self._shut_until = 0.0

    async def __aenter__(self) -> None:
        await self._slots.acquire()
        try:
            while (wait := self._shut_until - time.monotonic()) > 0:  # noqa: ASYNC110 (a time, not an event)
                await asyncio.sleep(wait)  # again: meanwhile it may have been shut for longer
        except BaseException:
            self._give_back()
            raise
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.in_flight -= 1
        self._give_back()

    def _give_back(self) -> None:
        if self._owed:
            self._owed -= 1
        else:
            self._slots.release()

    def widen(self) -> None:
        """One more at once, after a good answer."""
        if self.width < self.limit:
            self.width += 1
            self._give_back()

    def halve(self) -> None:
        """Half as many at once, after a 503."""
        fewer = self.width // 2
        self.width -= fewer
        self._owed += fewer

    def shut(self, seconds: float) -> None:
        """Let nobody in for a while, after a 429."""
        self._shut_until = max(self._shut_until, time.monotonic() + seconds)
