"""The HTTP clients underneath, and one exchange with them."""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncGenerator, Iterable, Mapping

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport
from isal import igzip

HEADER_BYTES = 1 << 20
"""Longest header line that is read: materialization's ``column_names`` passes aiohttp's default of 8,190 bytes."""
KEEP_ALIVE = 30.0
"""Seconds that an idle connection is kept; the servers' proxies close theirs after 60 and more."""

READ_BYTES = 1 << 18
"""Most of a body that is read at once: what asyncio takes from a socket in one go."""


class _NoCookies(httpx.Cookies):
    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none: the servers know us by the token, and looking for cookies is a tenth of what httpx costs."""


class _Client(httpx.AsyncClient):
    cookies = _NoCookies()  # type: ignore[override]


Answer = tuple[int, dict[str, str], bytes]
"""Status, headers (lower-case names; repeated lines joined by ``", "``), the body as it came."""


@functools.cache
def tls_context() -> ssl.SSLContext:
    """One for the process: making it costs 20 ms. It honours SSL_CERT_FILE and SSL_CERT_DIR."""
    return httpx.create_ssl_context()


class _Transport(AiohttpTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Let the body be read in as large pieces as come: the bridge's 16 kB are a third of what receiving costs."""
        response = await super().handle_async_request(request)
        response.stream.CHUNK_SIZE = READ_BYTES  # type: ignore[union-attr]
        return response


class PooledClient(_Client):
    """An httpx client over aiohttp's pool, whose cost per request does not grow with its connections.

    The pool has no limit of its own: the gates are the limit. Proxies of the environment are not used: whoever needs
    one passes an ``http_client`` of their own.
    """

    def __init__(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE, ssl=tls_context())
        self.pool = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
        )
        # aiohttp sends an idempotent request again by itself when the connection breaks, behind the retry policy's back
        self.pool._retry_connection = False  # noqa: SLF001
        super().__init__(transport=_Transport(client=self.pool, verify=tls_context()))


def verbatim_client(connections: int) -> httpx.AsyncClient:
    """Make a client with httpx's own transport, for signed URLs: aiohttp spells the query anew."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return _Client(transport=httpx.AsyncHTTPTransport(verify=tls_context(), limits=limits))


async def kept_open(client: httpx.AsyncClient) -> AsyncGenerator[None]:
    """Close the client with this generator, as event loops do with all of theirs when they end."""
    try:
        yield
    finally:
        await client.aclose()


@functools.lru_cache(maxsize=512)
def parsed(url: str) -> httpx.URL:
    """Parse once: many requests differ in their body alone."""
    return httpx.URL(url)


async def exchange(client: httpx.AsyncClient, request: httpx.Request) -> Answer:
    """Send once and read the whole body, as it came."""
    try:
        response = await client.send(request, stream=True, follow_redirects=False)
    except aiohttp.ClientResponseError as error:
        raise _not_http(error) from None
    try:
        # the stream itself: httpx's own decoders take a gzip body without its end for a whole one
        chunks = [chunk async for chunk in response.stream]  # type: ignore[union-attr]
    finally:
        await response.aclose()
    body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    return response.status_code, _plain_headers(response.headers.raw), body


async def fetch(
    pool: aiohttp.ClientSession, url: str, headers: Mapping[str, str], timeout: aiohttp.ClientTimeout
) -> Answer:
    """GET once below httpx, whose objects cost 0.17 of 0.24 ms: meshes take ten thousand small requests."""
    try:
        async with pool.get(url, headers=headers, timeout=timeout, allow_redirects=False) as response:
            return response.status, _plain_headers(response.raw_headers), await response.read()
    except aiohttp.ClientResponseError as error:
        raise _not_http(error) from None


def _not_http(error: aiohttp.ClientResponseError) -> httpx.RemoteProtocolError:
    """Without aiohttp's error in the chain of causes: its repr shows the request's headers, and so the token."""
    return httpx.RemoteProtocolError(f"not HTTP: {error.message}")


def _plain_headers(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in raw:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def gunzip(body: bytes) -> bytes:
    """Unpack, and insist on the end.

    Raises
    ------
    EOFError
        The body ends before its last gzip member does.
    OSError
        It is no gzip, or its checksum is wrong.
    """
    unpacked: bytes = igzip.decompress(body)  # type: ignore[no-untyped-call]
    return unpacked
