"""Limits, retries, HTTP, status, error: how one request runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import aiohttp
import httpx

from ..config import STORAGE, Limits, RetryPolicy, Timeouts
from ..errors import CortexError, CortexUsageError, RateLimited
from . import clients, failures
from .failures import Asked
from .limits import Bucket, Gate, Place
from .reply import Reply, TransportStats
from .retry import Retrier

UNPACK_IN_THREAD = 1 << 20
"""Packed bytes above which a body is unpacked in a thread: below, it holds the loop for less than 10 ms."""

PAUSE = 0.75
"""Share of the longest wait between tries for which a category is shut that is refused twice: six tries of a request
then outlast the minute that the services' limits are counted in."""

CLOSED = "the client was closed while this request was under way"


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One request, ready to be sent any number of times."""

    asked: Asked
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    verbatim: bool = False
    """Leave the URL as it is spelled."""
    light: bool = False
    """A bare GET, of which there may be thousands."""


class Engine:
    """Runs calls on one event loop. It alone knows the HTTP library."""

    def __init__(
        self,
        limits: Limits,
        policy: RetryPolicy,
        timeouts: Timeouts,
        stats: TransportStats,
        given: httpx.AsyncClient | None,
    ) -> None:
        self._limits = limits
        self._policy = policy
        # waiting for a connection is no failure: the gates see to it that there are enough
        timeout = {"connect": timeouts.connect, "read": timeouts.read, "write": timeouts.write, "pool": None}
        self._extensions = {"timeout": timeout}
        self._timeout = aiohttp.ClientTimeout(sock_connect=timeouts.connect, sock_read=timeouts.read)
        self._stats = stats
        self._given = given
        self._clients: dict[bool, httpx.AsyncClient] = {}
        self._keepers: list[AsyncGenerator[None]] = []
        self._gates: dict[str, Gate] = {}
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._retrier = Retrier(policy, self._count_wait)
        self._running: set[asyncio.Timeout] = set()
        self._closed = False

    async def run(self, call: Call) -> Reply:
        """The whole reply. A request that waits for its next try keeps its place, unless it came too fast."""
        if self._closed:
            raise CortexUsageError(CLOSED)
        deadline = asyncio.timeout(None)  # begins to run once the gate has let the request in
        self._running.add(deadline)
        try:
            async with deadline:
                return await self._run(call, deadline)
        except (CortexError, TimeoutError) as error:
            if self._closed:
                raise CortexUsageError(CLOSED) from error
            if isinstance(error, CortexError):
                raise
            raise failures.out_of_time(call.asked, self._policy.deadline) from error
        finally:
            self._running.discard(deadline)

    async def _run(self, call: Call, deadline: asyncio.Timeout) -> Reply:
        async with self._place(call.asked) as place:
            if self._closed:
                raise CortexUsageError(CLOSED)
            deadline.reschedule(asyncio.get_running_loop().time() + self._policy.deadline)
            return await self._retrier(self._attempt, place, call)

    def _place(self, asked: Asked) -> Place:
        endpoint = asked.endpoint
        gate = self._gates.get(endpoint.service)
        if gate is None:
            gate = self._gates[endpoint.service] = Gate(
                endpoint.service, self._limits.of(endpoint.service), self._stats
            )
        # whatever the charts do not limit shares one bucket for each service, which is empty only after a refusal
        key = (asked.origin, endpoint.category) if endpoint.category else ("", endpoint.service)
        bucket = self._buckets.get(key)
        if bucket is None:
            per_minute = (self._limits.per_minute or {}).get(key[1])
            bucket = self._buckets[key] = Bucket(key[1], per_minute, self._stats, PAUSE * self._policy.cap)
        return Place(gate, bucket, endpoint.name)

    async def aclose(self) -> None:
        """End what is under way, and close the connections that were made here."""
        self._closed = True
        for deadline in self._running:
            if not deadline.expired():
                deadline.reschedule(0)
        for keeper in self._keepers:
            await keeper.aclose()

    async def _attempt(self, place: Place, call: Call) -> Reply:
        await place.ready()
        status, headers, packed = await self._exchange(call)
        if 200 <= status < 300:
            body = await _unpacked(call.asked, headers, packed)
            place.answered(len(packed))
            return Reply(status, headers, body)
        body = _readable(headers, packed)
        failure = failures.from_status(call.asked, status, headers, body, self._policy.server_error_attempts)
        if isinstance(failure.error, RateLimited):
            place.refused(failure.after, body)
        elif status == 503:
            place.overloaded(failure.after)
        raise failure

    async def _exchange(self, call: Call) -> clients.Answer:
        self._stats.requests += 1
        self._stats.bytes_out += len(call.body or b"")
        try:
            answer = await self._send(call)
        except Exception as error:
            failure = failures.from_exception(call.asked, error)
            if failure is None:
                raise
            raise failure from failures.without_request(error)
        self._stats.bytes_in += len(answer[2])
        return answer

    async def _send(self, call: Call) -> clients.Answer:
        client = await self._client(call.verbatim)
        if call.light and isinstance(client, clients.PooledClient):
            return await clients.fetch(client.pool, call.url, call.headers, self._timeout)
        request = httpx.Request(
            call.asked.endpoint.method,
            clients.parsed(call.url),
            headers=call.headers,
            content=call.body,
            extensions=self._extensions,
        )
        return await clients.exchange(client, request)

    async def _client(self, verbatim: bool) -> httpx.AsyncClient:
        client = self._given or self._clients.get(verbatim)
        if client is None:
            client = clients.verbatim_client(self._limits.of(STORAGE)) if verbatim else clients.PooledClient()
            self._clients[verbatim] = client
            keeper = clients.kept_open(client)
            await anext(keeper)
            self._keepers.append(keeper)
        return client

    def _count_wait(self, seconds: float) -> None:
        self._stats.retries += 1
        self._stats.waited += seconds


def _readable(headers: dict[str, str], packed: bytes) -> bytes:
    """The body of an error, which is worth showing even if it is broken."""
    if headers.get("content-encoding") == "gzip":
        with contextlib.suppress(EOFError, OSError, ValueError):
            return clients.gunzip(packed)
    return packed


async def _unpacked(asked: Asked, headers: dict[str, str], packed: bytes) -> bytes:
    """The body without its gzip, checked for its end both ways."""
    length = headers.get("content-length")
    if length is not None and length != str(len(packed)):
        raise failures.cut_short(asked, f"{len(packed):,} of {length} bytes")
    coding = headers.get("content-encoding", "identity")
    if coding == "identity":
        return packed
    if coding != "gzip":
        raise failures.wrong_coding(asked, coding)
    try:
        if len(packed) < UNPACK_IN_THREAD:
            return clients.gunzip(packed)
        return await asyncio.to_thread(clients.gunzip, packed)
    except (EOFError, OSError, ValueError) as error:
        raise failures.cut_short(asked, f"gzip: {error}") from error
