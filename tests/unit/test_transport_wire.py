"""The transport on real sockets: broken connections, cut bodies, limits, deadlines, and what is spelled on the wire."""

from __future__ import annotations

import asyncio
import gzip
import logging
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import httpx
import pytest
from tests.patience import HANG

from cortexclient import errors
from cortexclient._transport import TokenSource, Transport
from cortexclient._wire.endpoints import Endpoint
from cortexclient.config import Limits, RetryPolicy, Timeouts

TRIES = 3
QUICK = RetryPolicy(attempts=TRIES, base=0.001, cap=0.002, deadline=20.0)
GET = Endpoint(service="chunkedgraph", name="get", method="GET", path="/get")
POST = Endpoint(service="chunkedgraph", name="post", method="POST", path="/post")
WRITE = Endpoint(service="state", name="write", method="POST", path="/write", idempotent=False)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


@dataclass
class Connection:
    """One connection, from the server's side."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    served: int = 0

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Act = Callable[[Connection], Awaitable[None]]
"""What the server does with one request; afterwards the connection stays open unless the act closed it."""


@dataclass
class RawServer:
    """Plays one act per request; once the script is over, a good answer."""

    script: list[Act] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    busy: int = 0
    most_busy: int = 0
    origin: str = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        connection = Connection(self.connections, reader, writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                self.busy += 1
                self.most_busy = max(self.most_busy, self.busy)
                act = self.script.pop(0) if self.script else answer(OK)
                try:
                    await act(connection)
                finally:
                    self.busy -= 1
                connection.served += 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def until_closed(self) -> None:
        await until(lambda: self.open == 0)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for it, and a moment more for what is already on the wire."""
    async with asyncio.timeout(HANG):
        while not condition():
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.02)


def answer(data: bytes, *, then: Callable[[Connection], object] | None = None, delay: float = 0.0) -> Act:
    async def act(connection: Connection) -> None:
        await asyncio.sleep(delay)
        await connection.write(data)
        if then is not None:
            await asyncio.sleep(0.02)  # let the bytes arrive before the end does
            then(connection)

    return act


def fin(connection: Connection) -> None:
    connection.writer.close()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


PACKED = gzip.compress(b"good" * 1000)
CUT: dict[str, Act] = {
    "reset before the answer": answer(b"", then=Connection.reset),
    "closed before the answer": answer(b"", then=fin),
    "closed inside the headers": answer(OK[:20], then=fin),
    "reset inside the body": answer(OK[:-2], then=Connection.reset),
    "body shorter than its length": answer(OK[:-2], then=fin),
    "chunked body without its end": answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n", then=fin
    ),
    "gzip cut, with the right length": answer(whole(PACKED[:-9], "Content-Encoding: gzip")),
    "gzip cut in its trailer": answer(whole(PACKED[:-2], "Content-Encoding: gzip")),
    "no HTTP at all": answer(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", then=fin),
}


@pytest.fixture
async def server() -> AsyncIterator[RawServer]:
    raw = RawServer()
    listening = await asyncio.start_server(raw, "127.0.0.1", 0)
    raw.origin = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield raw
    listening.close()
    await listening.wait_closed()


@pytest.fixture(params=["over aiohttp", "over httpx"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    """Ours, and the same on a client of the user's own with httpx's transport."""
    given = httpx.AsyncClient() if request.param == "over httpx" else None
    transport = Transport(retry=QUICK, http_client=given)
    yield transport
    await transport.aclose()
    if given is not None:
        await given.aclose()


@pytest.fixture
async def pooled() -> AsyncIterator[Transport]:
    transport = Transport(retry=QUICK)
    yield transport
    await transport.aclose()


@pytest.mark.parametrize("act", CUT.values(), ids=CUT)
@pytest.mark.parametrize("endpoint", [GET, POST], ids=lambda endpoint: endpoint.name)
async def test_a_read_that_breaks_is_tried_again(
    server: RawServer, transport: Transport, endpoint: Endpoint, act: Act
) -> None:
    server.script = [act]
    assert (await transport.send(endpoint, server.origin, body=b"12345678")).body == b"good"
    assert len(server.requests) == 2
    assert transport.stats.retries == 1


@pytest.mark.parametrize("act", CUT.values(), ids=CUT)
@pytest.mark.parametrize("endpoint", [GET, POST, WRITE], ids=lambda endpoint: endpoint.name)
async def test_what_breaks_every_time_is_an_error_after_so_many_requests_on_the_wire(
    server: RawServer, transport: Transport, endpoint: Endpoint, act: Act
) -> None:
    """A write is on the wire once; and nobody below the retry policy sends a read again on its own."""
    server.script = [act] * 10
    with pytest.raises((errors.ConnectError, errors.DecodeError)) as caught:
        await transport.send(endpoint, server.origin, body=b"12345678", ids=[7])
    assert len(server.requests) == (TRIES if endpoint.idempotent else 1)
    assert getattr(caught.value, "sent", True)
    assert (caught.value.ids, caught.value.endpoint) == ((7,), str(endpoint))


@pytest.mark.parametrize("act", CUT.values(), ids=CUT)
async def test_an_object_that_breaks(server: RawServer, transport: Transport, act: Act) -> None:
    """Objects take a shorter way down; it must not change what a failure means."""
    server.script = [act]
    assert (await transport.get_url(f"{server.origin}/object")).body == b"good"
    assert (len(server.requests), transport.stats.retries) == (2, 1)
    server.script = [act] * 10
    with pytest.raises((errors.ConnectError, errors.DecodeError)) as caught:
        await transport.get_url(f"{server.origin}/object", range=(0, 4))
    assert len(server.requests) == 2 + TRIES
    assert getattr(caught.value, "sent", True)


async def test_an_object_store_that_refuses_connections(transport: Transport) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/object"
    with pytest.raises(errors.ConnectError) as caught:
        await transport.get_url(url)
    assert not caught.value.sent
    assert transport.stats.requests == TRIES


async def test_an_object_that_never_comes(server: RawServer) -> None:
    transport = Transport(retry=RetryPolicy(attempts=1), timeouts=Timeouts(read=0.05))
    server.script = [_hang(OK[:-2])]
    with pytest.raises(errors.DeadlineExceeded, match="silence"):
        await transport.get_url(f"{server.origin}/object")
    await transport.aclose()


@pytest.mark.parametrize("endpoint", [GET, POST, WRITE], ids=lambda endpoint: endpoint.name)
async def test_a_refused_connection_was_never_sent_and_is_always_tried_again(
    transport: Transport, endpoint: Endpoint
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        origin = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(errors.ConnectError) as caught:
        await transport.send(endpoint, origin)
    assert not caught.value.sent
    assert transport.stats.requests == TRIES
    assert isinstance(caught.value.__cause__, httpx.HTTPError)


@pytest.mark.parametrize("endpoint", [GET, POST, WRITE], ids=lambda endpoint: endpoint.name)
async def test_a_kept_connection_that_has_gone_stale(
    server: RawServer, transport: Transport, endpoint: Endpoint
) -> None:
    """The server closes an idle connection as the next request comes in: a read goes again, a write must not."""
    server.script = [answer(OK), answer(b"", then=Connection.reset)]
    await transport.send(GET, server.origin)
    if endpoint.idempotent:
        assert (await transport.send(endpoint, server.origin)).body == b"good"
        assert (len(server.requests), server.connections) == (3, 2)
    else:
        with pytest.raises(errors.ConnectError) as caught:
            await transport.send(endpoint, server.origin)
        assert caught.value.sent
        assert (len(server.requests), server.connections) == (2, 1)


async def test_an_idle_connection_closed_by_the_server_is_not_used_again(
    server: RawServer, transport: Transport
) -> None:
    server.script = [answer(OK, then=fin)]
    await transport.send(WRITE, server.origin)
    await server.until_closed()
    assert (await transport.send(WRITE, server.origin)).body == b"good"
    assert len(server.requests) == 2


async def test_connections_are_kept(server: RawServer, transport: Transport) -> None:
    for _ in range(20):
        await transport.send(POST, server.origin, body=b"x")
    assert server.connections == 1
    await transport.aclose()


async def test_no_more_in_flight_than_the_limit(server: RawServer) -> None:
    transport = Transport(limits=Limits(in_flight=6), retry=QUICK)
    server.script = [answer(OK, delay=0.005) for _ in range(100)]
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(100)))
    assert server.most_busy == transport.stats.peak["chunkedgraph"] == 6
    assert server.connections <= 6
    await transport.aclose()
    await server.until_closed()


async def test_services_have_their_own_limits(server: RawServer) -> None:
    transport = Transport(limits=Limits(in_flight=2, storage_in_flight=5, per_service={"state": 1}), retry=QUICK)
    server.script = [answer(OK, delay=0.005) for _ in range(60)]
    asks: list[Awaitable[object]] = []
    for _ in range(20):
        asks += [transport.send(POST, server.origin), transport.send(WRITE, server.origin)]
        asks += [transport.get_url(f"{server.origin}/object")]
    await asyncio.gather(*asks)
    assert transport.stats.peak == {"chunkedgraph": 2, "state": 1, "storage": 5}
    await transport.aclose()


async def test_an_overloaded_service_is_asked_by_fewer_at_once(server: RawServer) -> None:
    """A 503 halves what is in flight; good answers bring it back."""
    transport = Transport(limits=Limits(in_flight=8), retry=QUICK)
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(20)))
    server.script = [answer(whole(b"", status="503 Busy"))]
    await transport.send(POST, server.origin)
    server.most_busy = 0
    server.script = [answer(OK, delay=0.01) for _ in range(8)]
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(8)))
    assert server.most_busy <= 5
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(60)))
    server.most_busy = 0
    server.script = [answer(OK, delay=0.01) for _ in range(16)]
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(16)))
    assert server.most_busy == 8
    await transport.aclose()


async def test_a_429_shuts_the_service_for_everybody(server: RawServer) -> None:
    transport = Transport(retry=QUICK)
    server.script = [answer(whole(b"", "Retry-After: 0.2", status="429 Slow down"))]
    first = asyncio.create_task(transport.send(POST, server.origin))
    await until(lambda: bool(server.requests))
    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(3)), first)
    assert asyncio.get_running_loop().time() - started > 0.15
    assert len(server.requests) == 5
    await transport.aclose()


@pytest.mark.parametrize("start", [b"", OK[:-2]], ids=["before the answer", "inside the body"])
async def test_cancelling_leaves_no_connection_and_no_place_taken(
    server: RawServer, transport: Transport, start: bytes
) -> None:
    """Four are under way (the gate's slow start), the others wait for a place."""
    server.script = [_hang(start) for _ in range(40)]
    tasks = [asyncio.create_task(transport.send(POST, server.origin)) for _ in range(40)]
    await until(lambda: server.busy == 4)
    for task in reversed(tasks):
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    await server.until_closed()
    server.script = []
    replies = await asyncio.gather(*(transport.send(POST, server.origin) for _ in range(20)))
    assert [reply.body for reply in replies] == [b"good"] * 20


def _hang(start: bytes) -> Act:
    async def act(connection: Connection) -> None:
        await connection.write(start)
        await connection.reader.read()  # until the client goes away
        connection.writer.close()

    return act


async def test_the_deadline_ends_a_body_that_trickles(server: RawServer) -> None:
    """The read timeout is for one silence; only the deadline bounds a body that never quite stops."""

    async def trickle(connection: Connection) -> None:
        await connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not connection.writer.is_closing():
            await connection.write(b"x")
            await asyncio.sleep(0.02)

    transport = Transport(retry=RetryPolicy(deadline=0.3), timeouts=Timeouts(read=0.2))
    server.script = [trickle] * 5
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.DeadlineExceeded, match=r"0\.3 s") as caught:
        await transport.send(GET, server.origin, ids=[1, 2])
    assert caught.value.ids == (1, 2)
    assert isinstance(caught.value, TimeoutError)
    assert 0.25 < asyncio.get_running_loop().time() - started < 20, "as long as the body takes"
    assert len(server.requests) == 1
    await server.until_closed()
    await transport.aclose()


@pytest.mark.parametrize(("endpoint", "tries"), [(GET, TRIES), (WRITE, 1)])
async def test_silence_ends_a_try(server: RawServer, endpoint: Endpoint, tries: int) -> None:
    transport = Transport(retry=QUICK, timeouts=Timeouts(read=0.05))
    server.script = [_hang(b"")] * 5
    with pytest.raises(errors.DeadlineExceeded, match="silence"):
        await transport.send(endpoint, server.origin)
    assert len(server.requests) == tries
    await transport.aclose()


async def test_long_header_lines_are_read(server: RawServer, transport: Transport) -> None:
    names = ",".join(f"column_{number}" for number in range(3_000))
    server.script = [answer(whole(b"good", f"column_names: {names}"))]
    assert len(names) > 30_000
    assert (await transport.send(GET, server.origin)).headers["column_names"] == names


async def test_no_cookie_is_sent_back(server: RawServer, transport: Transport) -> None:
    origin = server.origin.replace("127.0.0.1", "localhost")  # jars take no cookies from bare addresses
    server.script = [answer(whole(b"good", "Set-Cookie: session=abc; Path=/"))]
    for _ in range(2):
        await transport.send(GET, origin)
    assert b"cookie" not in server.requests[1].lower()


async def test_a_get_may_have_a_body(server: RawServer, transport: Transport) -> None:
    await transport.send(GET, server.origin, body=b'{"node_ids":[1]}')
    assert server.requests[0].startswith(b"GET /get HTTP/1.1\r\n")
    assert server.requests[0].endswith(b'\r\n\r\n{"node_ids":[1]}')


async def test_headers_are_ours_alone(server: RawServer, pooled: Transport) -> None:
    await pooled.send(POST, server.origin, body=b"x")
    names = sorted(line.split(b":")[0].decode().lower() for line in server.requests[0].split(b"\r\n")[1:-2])
    expected = {"host", "accept", "accept-encoding", "user-agent", "x-requested-with", "content-length", "content-type"}
    assert set(names) == expected
    assert len(names) == len(expected)


async def test_a_signed_url_is_sent_as_it_is_spelled(server: RawServer, pooled: Transport) -> None:
    target = "/b/o%2Fx?X-Sig=a%2Fb%3D%3D&e=1+2&t=%7E~&c=A%3aB"
    await pooled.get_url(server.origin + target)
    assert server.requests[0].startswith(f"GET {target} HTTP/1.1\r\n".encode())


async def test_objects_come_whole_or_in_part(server: RawServer, pooled: Transport) -> None:
    url = f"{server.origin}/bucket/object"
    part = whole(b"2345", "Content-Range: bytes 2-5/10", status="206 Partial Content")
    server.script = [
        answer(whole(PACKED, "Content-Encoding: gzip")),
        answer(part),
        answer(whole(b"0123456789")),
        answer(part),
        answer(whole(b"<Error/>", status="404 Not Found")),
    ]
    assert (await pooled.get_url(url)).body == b"good" * 1000
    assert (await pooled.get_url(url, range=(2, 6))).body == b"2345"
    assert b"range: bytes=2-5\r\n" in server.requests[1].lower()
    assert (await pooled.get_url(url, range=(2, 6))).body == b"2345"
    with pytest.raises(errors.DecodeError, match="4 bytes for the range"):
        await pooled.get_url(url, range=(2, 7))
    with pytest.raises(errors.NotFoundError, match="/bucket/object"):
        await pooled.get_url(f"{url}?signature=secret")


async def test_an_object_is_asked_for_without_the_token(server: RawServer) -> None:
    transport = Transport(token=TokenSource("secret"), retry=QUICK)
    transport.trust(server.origin)
    await transport.send(POST, server.origin)
    await transport.get_url(f"{server.origin}/bucket/object")
    assert [b"secret" in request for request in server.requests] == [True, False]
    await transport.aclose()


@pytest.mark.parametrize("url", ["no address", "ftp://127.0.0.1/object", "http://[::1/object"])
async def test_an_object_at_an_impossible_address(pooled: Transport, url: str) -> None:
    with pytest.raises(errors.CortexUsageError, match="not an address"):
        await pooled.get_url(url)


async def test_a_signature_is_in_no_message(server: RawServer, pooled: Transport) -> None:
    server.script = [answer(b"", then=fin)] * TRIES
    with pytest.raises(errors.ConnectError) as caught:
        await pooled.get_url(f"{server.origin}/o?signature=secret")
    assert "secret" not in f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"


async def test_closing_ends_what_is_under_way(server: RawServer) -> None:
    """Those before the answer, inside the body, asleep before the next try, and still waiting for a place."""
    busy = whole(b"", "Retry-After: 30", status="503 Busy")
    server.script = [answer(OK), _hang(b""), _hang(OK[:-1]), answer(busy)]
    transport = Transport()
    await transport.send(GET, server.origin)
    tasks = [asyncio.create_task(transport.send(GET, server.origin)) for _ in range(40)]
    await until(lambda: server.busy == 2 and transport.stats.retries == 1)
    tasks = [task for task in tasks if not task.done()]
    assert len(tasks) > 10
    started = asyncio.get_running_loop().time()
    await transport.aclose()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, errors.CortexUsageError)
        assert "closed" in str(outcome)
    assert asyncio.get_running_loop().time() - started < 5
    await server.until_closed()


async def test_the_token_is_in_no_log_record_of_the_libraries(
    server: RawServer, transport: Transport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = "marker0123456789abcdef"
    transport.token = TokenSource(marker)
    transport.trust(server.origin)
    server.script = [answer(b"", then=fin), answer(b"SSH-2.0\r\n\r\n", then=fin), answer(whole(b"no", status="400 No"))]
    with pytest.raises(errors.ServerRefusedError):
        await transport.send(GET, server.origin)
    assert all(marker.encode() in request for request in server.requests)
    assert len(server.requests) == 3
    assert not _mentions(marker, caplog.records)


def _mentions(marker: str, records: Iterable[logging.LogRecord]) -> list[str]:
    texts = (f"{record.getMessage()} {record.__dict__!r}" for record in records)
    return [text for text in texts if marker in text]


async def test_statistics_count_what_travelled(server: RawServer, pooled: Transport) -> None:
    server.script = [answer(whole(PACKED, "Content-Encoding: gzip")), answer(b"", then=fin)]
    await pooled.send(POST, server.origin, body=b"12345")
    before = pooled.stats.snapshot()
    await pooled.send(POST, server.origin, body=b"12345")
    assert (before.requests, before.retries, before.bytes_out, before.bytes_in) == (1, 0, 5, len(PACKED))
    now = pooled.stats
    assert (now.requests, now.retries, now.bytes_out, now.bytes_in) == (3, 1, 15, len(PACKED) + 4)
    assert before.peak == {"chunkedgraph": 1}
