"""The transport over a mocked HTTP library: what it asks, what it makes of the answers, whom it shows the token to."""

from __future__ import annotations

import asyncio
import copyreg
import gzip
import logging
import pickle
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
import respx

from cortexclient import errors
from cortexclient._transport import TokenSource, Transport
from cortexclient._wire.endpoints import Endpoint
from cortexclient.config import RetryPolicy

SERVER = "https://cave.example.org"
LOCAL = "https://local.example.org"
MARKER = "marker0123456789abcdef"
QUICK = RetryPolicy(attempts=4, base=0.001, cap=0.002)
GET = Endpoint(service="info", name="get", method="GET", path="/info/{name}", expects="application/json")
POST = Endpoint(service="chunkedgraph", name="post", method="POST", path="/graph/{table}/roots", content_type="x/y")
WRITE = Endpoint(service="state", name="write", method="POST", path="/state", idempotent=False)
ARROW = Endpoint(service="materialize", name="query", method="POST", path="/query", accept_encoding="zstd")


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(retry=QUICK, token=TokenSource(MARKER))
    transport.trust(SERVER)
    transport.trust(LOCAL, SERVER)
    yield transport
    await transport.aclose()


@pytest.fixture
def web() -> AsyncIterator[respx.MockRouter]:
    with respx.mock(using="httpx", assert_all_called=False) as router:
        yield router


async def test_the_request_is_the_endpoints(transport: Transport, web: respx.MockRouter) -> None:
    route = web.post(url__startswith=LOCAL).respond(200, content=b"ok")
    reply = await transport.send(POST, LOCAL, path={"table": "a/b c"}, query={"t": "1.5", "s": "ä&="}, body=b"ids")
    request = route.calls.last.request
    assert str(request.url) == f"{LOCAL}/graph/a%2Fb%20c/roots?t=1.5&s=%C3%A4%26%3D"
    assert request.content == b"ids"
    assert request.headers["content-type"] == "x/y"
    assert request.headers["accept-encoding"] == "gzip"
    assert request.headers["user-agent"].startswith("cortexclient")
    assert "cookie" not in request.headers
    assert (reply.status, reply.body) == (200, b"ok")


async def test_reply_headers_are_lower_case_and_repeated_lines_joined(
    transport: Transport, web: respx.MockRouter
) -> None:
    lines = [("Warning", "one"), ("X-Total", "5"), ("warning", "two"), ("Content-Type", "application/json")]
    web.get(f"{SERVER}/info/x").mock(httpx.Response(200, headers=lines, content=b"{}"))
    headers = (await transport.send(GET, SERVER, path={"name": "x"})).headers
    assert headers["warning"] == "one, two"
    assert headers["x-total"] == "5"


async def test_an_endpoint_asks_for_its_own_coding(transport: Transport, web: respx.MockRouter) -> None:
    route = web.post(f"{SERVER}/query").respond(200, content=b"arrow")
    await transport.send(ARROW, SERVER, body=b"{}")
    assert route.calls.last.request.headers["accept-encoding"] == "zstd"


async def test_gzip_is_unpacked_and_checked_for_its_end(transport: Transport, web: respx.MockRouter) -> None:
    packed = gzip.compress(b"a" * 10_000) + gzip.compress(b"b" * 10)
    headers = {"content-encoding": "gzip"}
    whole = httpx.Response(200, headers=headers, stream=httpx.ByteStream(packed))
    cut = httpx.Response(200, headers=headers, stream=httpx.ByteStream(packed[:-4]))
    route = web.post(f"{SERVER}/query").mock(side_effect=[cut, whole])
    assert (await transport.send(ARROW, SERVER)).body == b"a" * 10_000 + b"b" * 10
    assert route.call_count == 2
    route.mock(side_effect=[cut] * 4)
    with pytest.raises(errors.DecodeError, match="cut short"):
        await transport.send(ARROW, SERVER)


async def test_a_large_body_is_unpacked_in_a_thread(transport: Transport, web: respx.MockRouter) -> None:
    data = bytes(range(256)) * 8192
    packed = gzip.compress(data, compresslevel=0)
    answer = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(packed))
    web.post(f"{SERVER}/query").mock(answer)
    assert (await transport.send(ARROW, SERVER)).body == data
    assert transport.stats.bytes_in == len(packed) > 1 << 20


async def test_an_unasked_coding_is_an_error(transport: Transport, web: respx.MockRouter) -> None:
    answer = httpx.Response(200, headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"xx"))
    web.post(f"{SERVER}/query").mock(answer)
    with pytest.raises(errors.DecodeError, match="br"):
        await transport.send(ARROW, SERVER)


async def test_another_content_type_than_promised_is_an_error(transport: Transport, web: respx.MockRouter) -> None:
    web.get(f"{SERVER}/info/x").respond(200, content=b"<html>maintenance", headers={"content-type": "text/html"})
    with pytest.raises(errors.DecodeError, match=r"text/html.*<html>maintenance"):
        await transport.send(GET, SERVER, path={"name": "x"})
    assert transport.stats.requests == 1


@pytest.mark.parametrize(("code", "tries"), [(503, 4), (502, 4), (504, 4), (500, 2), (501, 1), (400, 1), (404, 1)])
async def test_statuses_are_tried_as_often_as_they_deserve(
    transport: Transport, web: respx.MockRouter, code: int, tries: int
) -> None:
    route = web.post(f"{SERVER}/query").respond(code)
    with pytest.raises(errors.CortexError) as caught:
        await transport.send(ARROW, SERVER, ids=[1, 2])
    assert route.call_count == tries
    assert (caught.value.ids, caught.value.endpoint) == ((1, 2), "materialize/query")


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
async def test_a_write_is_sent_once(transport: Transport, web: respx.MockRouter, code: int) -> None:
    route = web.post(f"{SERVER}/state").respond(code, headers={"retry-after": "0"})
    with pytest.raises(errors.UnavailableError):
        await transport.send(WRITE, SERVER, body=b"{}")
    assert route.call_count == 1


async def test_a_rate_limit_is_waited_out(transport: Transport, web: respx.MockRouter) -> None:
    limited = httpx.Response(429, headers={"retry-after": "0.05"})
    web.post(f"{SERVER}/query").mock(side_effect=[limited, limited, httpx.Response(200, content=b"at last")])
    started = asyncio.get_running_loop().time()
    assert (await transport.send(ARROW, SERVER)).body == b"at last"
    assert asyncio.get_running_loop().time() - started >= 0.1
    stats = transport.stats.snapshot()
    assert (stats.requests, stats.retries) == (3, 2)
    assert stats.waited >= 0.1


async def test_a_redirect_is_never_followed(transport: Transport, web: respx.MockRouter) -> None:
    elsewhere = web.get("https://evil.example.org/").respond(200)
    web.get(f"{SERVER}/info/x").respond(302, headers={"location": "https://evil.example.org/"})
    with pytest.raises(errors.ServerRefusedError, match="redirects are not followed"):
        await transport.send(GET, SERVER, path={"name": "x"})
    assert not elsewhere.called


async def test_the_token_goes_to_trusted_origins_alone(transport: Transport, web: respx.MockRouter) -> None:
    web.route().respond(200, content=b"{}", headers={"content-type": "application/json"})
    for origin in (SERVER, LOCAL, f"{LOCAL}/prefix"):
        await transport.send(GET, origin, path={"name": "x"})
        assert web.calls.last.request.headers["authorization"] == f"Bearer {MARKER}"
    for origin in ("https://other.example.org", f"{SERVER}:8443", "http://cave.example.org"):
        await transport.send(GET, origin, path={"name": "x"})
        assert MARKER not in str(web.calls.last.request.headers.raw)
        assert web.calls.last.request.headers["x-requested-with"] == "XMLHttpRequest"
    await transport.get_url(f"{SERVER}/bucket/object?signature=1")
    assert MARKER not in str(web.calls.last.request.headers.raw)


async def test_without_a_token_a_401_is_asked_for_instead_of_a_login_page(web: respx.MockRouter) -> None:
    route = web.get(f"{SERVER}/info/x").respond(401, json={"error": "no_token", "message": "-"})
    transport = Transport()
    transport.trust(SERVER)
    with pytest.raises(errors.MissingToken, match="came from nowhere"):
        await transport.send(GET, SERVER, path={"name": "x"})
    assert route.calls.last.request.headers["x-requested-with"] == "XMLHttpRequest"
    await transport.aclose()


async def test_a_token_saved_after_a_refusal_is_found(web: respx.MockRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = httpx.Response(401, json={"error": "no_token"})
    good = httpx.Response(200, json={})
    route = web.get(f"{SERVER}/info/x").mock(side_effect=[refused, good])
    transport = Transport()
    transport.trust(SERVER)
    with pytest.raises(errors.MissingToken):
        await transport.send(GET, SERVER, path={"name": "x"})
    monkeypatch.setenv("CORTEXCLIENT_TOKEN", "saved")
    await transport.send(GET, SERVER, path={"name": "x"})
    assert route.calls.last.request.headers["authorization"] == "Bearer saved"
    await transport.aclose()


@pytest.fixture(params=["plain", "tblib"])
def pickled_causes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Under Dask, tblib has errors pickled with all that led to them."""
    before = dict(copyreg.dispatch_table)
    if request.param == "tblib":
        pytest.importorskip("tblib.pickling_support", reason="comes with the extra dask").install()
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


@pytest.mark.usefixtures("pickled_causes")
async def test_the_token_appears_nowhere(
    transport: Transport, web: respx.MockRouter, caplog: pytest.LogCaptureFixture
) -> None:
    """No log record, representation, pickle, message, note or cause holds it, whatever the server answers."""
    caplog.set_level(logging.DEBUG)
    seen = [repr(transport), repr(vars(transport)), str(vars(transport))]
    echo = {"error": "invalid_token", "message": f"Bearer {MARKER} is bad", "data": {"tos_form_url": f"x?{MARKER}"}}
    for code in (302, 400, 401, 403, 404, 429, 500, 503):
        web.get(f"{SERVER}/info/x").respond(code, json=echo, headers={"location": f"https://x/authorize?{MARKER}"})
        with pytest.raises(errors.CortexError) as caught:
            await transport.send(GET, SERVER, path={"name": "x"})
        seen += _all_text(caught.value)
    web.get(f"{SERVER}/info/x").respond(200, content=f"<html>{MARKER}".encode())
    with pytest.raises(errors.DecodeError) as undecoded:
        await transport.send(GET, SERVER, path={"name": "x"})
    seen += _all_text(undecoded.value)
    web.get(f"{SERVER}/info/x").mock(side_effect=httpx.ReadError)
    with pytest.raises(errors.ConnectError) as broken:
        await transport.send(GET, SERVER, path={"name": "x"})
    seen += _all_text(broken.value)
    seen += [record.getMessage() + repr(record.__dict__) for record in caplog.records]
    assert len(seen) > 20
    assert not [text for text in seen if MARKER in text]


def _all_text(error: BaseException) -> list[str]:
    chain = [*traceback.format_exception(error), repr(error), str(error), repr(vars(error))]
    return [*chain, pickle.dumps(error).decode("latin-1"), repr(error.__cause__)]


async def test_a_users_own_client_is_used_and_left_open() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"name": "x"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), follow_redirects=True) as client:
        transport = Transport(http_client=client)
        assert (await transport.send(GET, SERVER, path={"name": "x"})).body == b'{"name":"x"}'
        assert (await transport.get_url("https://store.example.org/o?sig=1")).status == 200
        await transport.aclose()
        assert not client.is_closed
    assert len(asked) == 2


async def test_a_closed_transport_refuses(transport: Transport, web: respx.MockRouter) -> None:
    web.get(f"{SERVER}/info/x").respond(200, json={})
    await transport.send(GET, SERVER, path={"name": "x"})
    await transport.aclose()
    await transport.aclose()
    with pytest.raises(errors.CortexUsageError, match="closed"):
        await transport.send(GET, SERVER, path={"name": "x"})


def test_another_event_loop_is_refused_with_the_remedy() -> None:
    transport = Transport(http_client=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))

    async def ask() -> None:
        await transport.send(POST, SERVER, path={"table": "t"})

    asyncio.run(ask())
    with pytest.raises(errors.CortexUsageError, match="build a client there"):
        asyncio.run(ask())
    asyncio.run(transport.aclose())  # its loop is gone, and so are its connections
    with pytest.raises(errors.CortexUsageError, match="closed"):
        asyncio.run(ask())


def test_closing_belongs_to_the_same_loop() -> None:
    transport = Transport(http_client=httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
    with asyncio.Runner() as runner:
        runner.run(transport.send(POST, SERVER, path={"table": "t"}))
        with asyncio.Runner() as other, pytest.raises(errors.CortexUsageError, match="close this client in"):
            other.run(transport.aclose())
        runner.run(transport.aclose())


@pytest.mark.parametrize("origin", ["cave.example.org", "", "ftp://cave.example.org", "http://cave.example.org:port"])
async def test_what_is_no_address_is_said_so(transport: Transport, origin: str) -> None:
    with pytest.raises(errors.CortexUsageError):
        await transport.send(POST, origin, path={"table": "t"})


def test_building_one_loads_no_http_library() -> None:
    code = (
        "import sys; from cortexclient._transport import Cache, TokenSource, Transport\n"
        "Transport(token=TokenSource('x')).trust('https://a.org'); Cache()\n"
        "heavy = ('httpx', 'aiohttp', 'tenacity', 'aiocache', 'anyio', 'pandas', 'polars')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
