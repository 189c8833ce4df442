"""Between the handler and the client: distance, bandwidth, clocks, and connections that break."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

TRANSPORT: Final = "sandbox_transport"
"""Key in the scope's state under which the server puts the connection's transport."""
PIECE: Final = 1 << 18
"""Bytes that are handed to the connection at once: a larger body piles up in it, and moving the pile costs more."""
SLOW_PIECES: Final = 10


@dataclass
class Weather:
    """The conditions under which a sandbox answers; every field may be changed while it runs.

    Parameters
    ----------
    latency
        Round trip in seconds, slept before a request reaches a worker.
    bandwidth
        Bytes per second of the server's uplink, shared by all answers; None: no limit.
    clock_skew
        Seconds by which the server's clock is ahead of this machine's.
    service_times
        Whether a worker is held for the price of each request (see :mod:`cortexclient.sandbox.costs`).

    Examples
    --------
    >>> Weather(latency=0.02, service_times=True).latency
    0.02
    """

    latency: float = 0.0
    bandwidth: float | None = None
    clock_skew: float = 0.0
    service_times: bool = False
    _link_free_at: float = field(default=0.0, init=False, repr=False)

    def now_ms(self) -> int:
        """The server's clock, UTC milliseconds since the epoch.

        Examples
        --------
        >>> Weather(clock_skew=60).now_ms() > Weather().now_ms()
        True
        """
        return time.time_ns() // 1_000_000 + round(self.clock_skew * 1000)

    async def carry(self, size: int) -> None:
        """Wait until ``size`` more bytes have passed the uplink.

        Examples
        --------
        >>> await Weather(bandwidth=1e9).carry(1000)
        """
        if self.bandwidth is None:
            return
        now = time.monotonic()
        self._link_free_at = max(now, self._link_free_at) + size / self.bandwidth
        await asyncio.sleep(self._link_free_at - now)


class Connection:
    """One request's way back: sends an answer whole, or breaks it in the manner of a fault."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport: asyncio.Transport | None = scope.get("state", {}).get(TRANSPORT)
        self._receive = receive
        self._send = send

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send the whole answer as fast as the client takes it."""
        await self._start(status, headers, len(body))
        if len(body) <= PIECE:
            await self._send({"type": "http.response.body", "body": body})
            return
        for piece in _pieces(body, PIECE):
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def deliver(
        self, status: int, headers: Headers, body: bytes, *, fault: str | None, weather: Weather, slow_seconds: float
    ) -> None:
        """Send the answer through the weather, and through ``fault`` if there is one."""
        sent, declared = _cut(body, fault, gzipped=(b"content-encoding", b"gzip") in headers)
        await self._start(status, headers, declared)
        slow = fault == "slow"
        for piece in _pieces(sent, -(-len(sent) // SLOW_PIECES) if slow else PIECE):
            await weather.carry(len(piece))
            await asyncio.sleep(slow_seconds / SLOW_PIECES if slow else 0)
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        if len(sent) < declared:
            await self.break_off(reset=fault == "reset-body")
        else:
            await self._send({"type": "http.response.body", "body": b""})

    async def break_off(self, *, reset: bool) -> None:
        """End the connection without finishing the answer: with a TCP reset, or politely after what was sent.

        Raises
        ------
        ConnectionResetError
            In process, where there is no connection to break.
        """
        if self._transport is None:
            raise ConnectionResetError("the sandbox broke off this exchange")
        if reset:
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        else:
            self._transport.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _start(self, status: int, headers: Headers, length: int) -> None:
        headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})


def _cut(body: bytes, fault: str | None, *, gzipped: bool) -> tuple[bytes, int]:
    """What of an answer is sent, and the Content-Length that it claims."""
    half = body[: len(body) // 2]
    if fault == "short" or (fault == "truncated-gzip" and gzipped):
        return half, len(half)
    if fault in ("truncated", "truncated-gzip", "reset-body"):
        return half, len(body)
    return body, len(body)


def _pieces(body: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(body), max(size, 1)):
        yield body[start : start + size]
