"""How many requests one service gets at once, and how soon those of one kind may follow each other.

A `Gate` bounds how many are under way at a service. A `Bucket` bounds how many of one category leave in a minute. Every
request stands in line for both with a `Place`, and leaves only when it has a place and a token: a category that has to
wait holds no place that another one could use.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections import deque
from types import TracebackType
from typing import Final, Self

from .reply import TransportStats

SLOW_START: Final = 4
SAME_TROUBLE: Final = 1.0
"""Seconds within which 503s count as one: those that were under way together come back together."""
MINUTE: Final = 60.0
"""The period of the services' limits, whose requests may come all at once."""
CUT: Final = 0.8
"""What a refusal leaves of a rate."""
MARGIN: Final = 0.96
"""How near to a limit that the service names its requests are sent: clocks and latencies differ a little."""
TOLD: Final = re.compile(rb"(\d+) per (?:(\d+) )?(second|minute|hour|day)")
"""How the services' limiter (flask-limiter) words its refusal: ``ratelimit exceeded 300 per 1 minute``."""
SECONDS: Final = {b"second": 1, b"minute": 60, b"hour": 3600, b"day": 86400}


def told_rate(body: bytes) -> float | None:
    """Requests a second that a refusal says are allowed, if it does."""
    found = TOLD.search(body)
    return int(found[1]) / (int(found[2] or 1) * SECONDS[found[3]]) if found and int(found[1]) else None


class Bucket:
    """Tokens for the requests of one category at one host, refilled evenly; one minute's worth to begin with.

    A refusal that names the limit teaches it; any other one cuts the rate, which takes a minute to grow back. After a
    refusal no more than a second's worth comes at once. A second one in a row shuts the bucket for a while: the minute
    that the service counts in must pass. Times are those of the caller's clock.

    Parameters
    ----------
    name
        The category, for the statistics.
    per_minute
        The most that is ever sent; None: as much as the service takes.
    pause
        Seconds that it is shut after a second refusal in a row, where the service does not say how long.
    """

    def __init__(self, name: str, per_minute: float | None, stats: TransportStats, pause: float = 15.0) -> None:
        self.name = name
        self.ceiling = math.inf if per_minute is None else per_minute / MINUTE
        self.rate = self.ceiling
        self._stats = stats
        self._pause = pause
        self._size = self._tokens = max(1.0, self.rate * MINUTE)
        self._filled_at = -math.inf
        self._opens_at = -math.inf
        self._refused_at = -math.inf
        self._good = True
        self._held_since: float | None = None
        self._show()

    def wait(self, now: float) -> float:
        """Seconds until one more request may leave; 0 or less: now."""
        shut = self._opens_at - now
        if self.rate == math.inf:
            return shut
        self._fill(now)
        return max(shut, (1 - self._tokens) / self.rate)

    def take(self, now: float) -> None:
        """Let one leave. One that cannot wait (another try of a broken request) leaves a debt."""
        self._tokens -= 1
        if self._held_since is not None:
            self._stats.held_back[self.name] = self._stats.held_back.get(self.name, 0.0) + now - self._held_since
            self._held_since = None

    def hold(self, now: float) -> None:
        """Note that requests wait for nothing but this bucket."""
        if self._held_since is None:
            self._held_since = now

    def answered(self, sent_at: float) -> None:
        """Take note of a good answer to a request that left at ``sent_at``."""
        self._good = self._good or sent_at > self._refused_at

    def refuse(self, now: float, sent_at: float, after: float | None, told: float | None) -> None:
        """Take note of a refusal (429), of a request that left at ``sent_at``; ``told`` is the rate that it names."""
        self._stats.refused[self.name] = self._stats.refused.get(self.name, 0) + 1
        shut = after or 0.0
        if sent_at > self._refused_at:  # those that were under way already at the last refusal tell nothing new
            if told is not None:
                self.ceiling = min(self.ceiling, told * MARGIN)
            if told is not None and told * MARGIN < self.rate:
                self.rate = self.ceiling
            elif self.rate < math.inf and self._good:
                self.rate *= CUT
            if after is None and not self._good:
                shut = self._pause
            self._good, self._refused_at = False, now
            self._show()
        self._opens_at = max(self._opens_at, now + shut)
        if self.rate < math.inf:  # what the service had to give at once is spent
            self._size, self._tokens, self._filled_at = max(1.0, self.rate), min(self._tokens, 0.0), now

    def _fill(self, now: float) -> None:
        since = min(now - self._filled_at, MINUTE)
        if since <= 0:
            return
        self._filled_at = now
        self._tokens = min(self._size, self._tokens + since * self.rate)
        if self.rate < self.ceiling:
            self.rate = min(self.ceiling, self.rate + since * self.ceiling * (1 - CUT) / MINUTE)
            self._show()

    def _show(self) -> None:
        if self.rate < math.inf:
            self._stats.per_minute[self.name] = self.rate * MINUTE


class _Pace:
    """How long a service takes for one kind of request, and how long it usually does, on a logarithmic scale.

    ``usual`` is the least that the smoothed time has been. It rises only while the service is sent little: what is slow
    then is slow by nature, and not because requests queue. A twentieth of a second is noise.
    """

    NOISE, SMOOTH, RISE, TWICE = 0.05, 1 / 32, 1 / 64, math.log(2)

    __slots__ = ("_recent", "_usual")

    def __init__(self) -> None:
        self._recent = self._usual = math.nan

    def labours(self, seconds: float, *, sent_little: bool) -> bool:
        """Take note of an answer; tell whether they take more than twice as long as usual."""
        level = math.log(seconds + self.NOISE)
        if math.isnan(self._recent):
            self._recent = self._usual = level
        self._recent += (level - self._recent) * self.SMOOTH
        self._usual = min(self._usual + self.RISE if sent_little else self._usual, self._recent)
        return self._recent > self._usual + self.TWICE


class Gate:
    """Admits at most ``limit`` requests at a time to one service, fewer while it is in trouble.

    It starts narrow and doubles with each round of good answers, so that a service which scales up has time to. A 503
    halves it, and shuts it for as long as the server asks (these services drain a busy pod, so driving on makes them
    vanish); from then on it widens by one a round. While answers take twice as long as usual it narrows by one a round,
    though never below where it started: more at once would only queue there.

    Within a category requests leave in the order they came; categories take turns.

    No library limiter: those whose width can be changed cost each request a turn of the event loop, and none waits for
    a place and a rate together.
    """

    def __init__(self, name: str, limit: int, stats: TransportStats) -> None:
        self.name = name
        self.limit = limit
        self.width = min(limit, SLOW_START)
        self.in_flight = 0
        self.peak = 0
        self._stats = stats
        self._lines: dict[Bucket, deque[asyncio.Future[None]]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._paces: dict[tuple[str, int], _Pace] = {}
        self._round = 0
        self._narrowed_at = -math.inf
        self._opens_at = -math.inf
        self._starting = True
        self._resize(self.width)

    async def enter(self, bucket: Bucket, *, first: bool = False) -> None:
        """Wait for a place and a token; ``first``: before those who wait already."""
        now = time.monotonic()
        if bucket not in self._lines and self.in_flight < self.width and self._wait(bucket, now) <= 0:
            self._let_in(bucket, now)
            return
        turn = asyncio.get_running_loop().create_future()
        line = self._lines.setdefault(bucket, deque())
        (line.appendleft if first else line.append)(turn)
        self._admit()
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave()
            turn.cancel()
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        if self._lines:
            self._admit()

    def answered(self, kind: str, size: int, seconds: float) -> None:
        """Count a good answer of some bytes to that kind of request: a round of them moves the width by one."""
        like = kind, size.bit_length() >> 1  # what is four times as large may well take longer
        pace = self._paces.get(like)
        if pace is None:
            pace = self._paces[like] = _Pace()
        labours = pace.labours(seconds, sent_little=self.width <= SLOW_START)
        self._starting = self._starting and not labours
        self._round += 1
        if self._round < self.width and not self._starting:
            return
        self._round = 0
        if labours:
            self._resize(max(self.width - 1, min(self.width, SLOW_START)))
        elif self.width < self.limit:
            self._resize(self.width + 1)

    def narrow(self, seconds: float) -> None:
        """Admit half as many at once, and nobody for ``seconds``."""
        now = time.monotonic()
        if now - self._narrowed_at >= SAME_TROUBLE:
            self._round, self._narrowed_at, self._starting = 0, now, False
            self._resize(max(1, self.width // 2))
        self._opens_at = max(self._opens_at, now + seconds)

    def _resize(self, width: int) -> None:
        self.width = self._stats.width[self.name] = width
        if self._lines:
            self._admit()

    def _wait(self, bucket: Bucket, now: float) -> float:
        wait = bucket.wait(now)
        if wait > 0:
            bucket.hold(now)
        return max(wait, self._opens_at - now)

    def _let_in(self, bucket: Bucket, now: float) -> None:
        bucket.take(now)
        self.in_flight += 1
        if self.in_flight > self.peak:
            self.peak = self._stats.peak[self.name] = self.in_flight

    def _admit(self) -> None:
        """Let in whoever may go, the lines in turn, and look again when the next one may."""
        now, soonest = time.monotonic(), math.inf
        turns = deque(self._lines)
        while turns and self.in_flight < self.width:
            bucket = turns.popleft()
            line = self._lines[bucket]
            while line and line[0].cancelled():
                line.popleft()
            if line and (wait := self._wait(bucket, now)) > 0:
                soonest = min(soonest, wait)
                continue
            del self._lines[bucket]
            if line:
                line.popleft().set_result(None)
                self._let_in(bucket, now)
                self._lines[bucket] = line  # behind the others
                turns.append(bucket)
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if soonest < math.inf:
            self._alarm = asyncio.get_running_loop().call_later(soonest, self._admit)


class Place:
    """One request's place at a gate, for all its tries."""

    __slots__ = ("_bucket", "_gate", "_held", "_kind", "_paid", "_sent_at")

    def __init__(self, gate: Gate, bucket: Bucket, kind: str) -> None:
        self._gate = gate
        self._bucket = bucket
        self._kind = kind
        self._held = self._paid = False
        self._sent_at = 0.0

    async def __aenter__(self) -> Self:
        await self._gate.enter(self._bucket)
        self._held = self._paid = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._gate.leave()

    async def ready(self) -> None:
        """Wait until the next try may leave."""
        if not self._held:
            await self._gate.enter(self._bucket, first=True)
            self._held = self._paid = True
        now = time.monotonic()
        if not self._paid:
            self._bucket.take(now)
        self._paid, self._sent_at = False, now

    def answered(self, size: int) -> None:
        """Take note of a good answer of some bytes."""
        self._bucket.answered(self._sent_at)
        self._gate.answered(self._kind, size, time.monotonic() - self._sent_at)

    def refused(self, after: float | None, body: bytes) -> None:
        """Take note of a 429; the place goes to somebody of another category while this one waits for its rate."""
        self._bucket.refuse(time.monotonic(), self._sent_at, after, told_rate(body))
        if self._bucket.rate == math.inf:  # nothing else would slow it down
            self._gate.narrow(0.0)
        self._held = False
        self._gate.leave()

    def overloaded(self, after: float | None) -> None:
        """Take note of a 503."""
        self._gate.narrow(after or 0.0)
