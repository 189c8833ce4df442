"""How many requests one service gets at once."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from types import TracebackType

SLOW_START = 4
SAME_TROUBLE = 1.0
"""Seconds within which refusals count as one: those that were under way together come back together."""


class Gate:
    """Admits at most ``limit`` requests at a time to one service, in the order they came, fewer while it is in trouble.

    It starts narrow and doubles with each round of good answers, so that a service which scales up has time to. A 429
    or 503 halves it, and shuts it for as long as the server asks (these services drain a busy pod, so driving on makes
    them vanish); from then on it widens by one a round.

    No library limiter: those whose width can be changed cost each request a turn of the event loop.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.width = min(limit, SLOW_START)
        self.in_flight = 0
        self.peak = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._good = 0
        self._narrowed_at = -math.inf
        self._shut_until = -math.inf

    async def __aenter__(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        self._admit()
        try:
            if not turn.done():
                await turn
            while (wait := self._shut_until - time.monotonic()) > 0:  # noqa: ASYNC110 (a time, not an event)
                await asyncio.sleep(wait)
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._leave()
            turn.cancel()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _admit(self) -> None:
        while self._queue and self.in_flight < self.width:
            turn = self._queue.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                self.in_flight += 1
                self.peak = max(self.peak, self.in_flight)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._admit()

    def widen(self) -> None:
        """Count a good answer, and admit one more at once if that was enough of them."""
        if self.width >= self.limit:
            return
        self._good += 1
        if self._good >= self.width or self._narrowed_at == -math.inf:
            self._good = 0
            self.width += 1
            self._admit()

    def narrow(self, seconds: float) -> None:
        """Admit half as many at once, and nobody for ``seconds``."""
        now = time.monotonic()
        if now - self._narrowed_at >= SAME_TROUBLE:
            self.width = max(1, self.width // 2)
            self._good = 0
            self._narrowed_at = now
        self._shut_until = max(self._shut_until, now + seconds)
