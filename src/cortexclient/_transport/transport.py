"""The face of the transport: an endpoint goes in, a whole reply comes out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from .._types import IdArray
from .._wire.endpoints import Endpoint
from ..config import STORAGE, Limits, RetryPolicy, Timeouts
from ..errors import CortexUsageError, InvalidToken, MissingToken
from . import failures
from .auth import Token, TokenSource, origin_of
from .failures import Asked
from .reply import Reply, TransportStats

if TYPE_CHECKING:
    import httpx

    from .engine import Engine

BASIC = {"Accept": "*/*", "User-Agent": "cortexclient"}
"""The headers of every request."""
OBJECT = Endpoint(service=STORAGE, name="object", method="GET", path="")


class Transport:
    """Sends requests: bounded per service, tried again where that is safe, whole or not at all.

    Parameters
    ----------
    limits, retry, timeouts
        How many at once, how stubborn, how patient.
    token
        Where to find the token. It is shown only to origins named to `trust`.
    http_client
        A client of the user's own, used for everything and never closed here (for a proxy, say).

    Notes
    -----
    Building one does no I/O and loads no HTTP library. It belongs to the event loop of its first request. Proxies of
    the environment (HTTPS_PROXY) are not used: a client of the user's own can have one, but httpx's pool under it gets
    slow above some 16 requests at once.
    """

    def __init__(
        self,
        *,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        timeouts: Timeouts = Timeouts(),  # noqa: B008
        token: TokenSource | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        self.stats = TransportStats()
        self._settings = (limits, retry, timeouts, self.stats, http_client)
        self.token = token or TokenSource()
        self._trusted: dict[str, str] = {}
        self._access: dict[tuple[str, str, str | None], tuple[httpx.Headers, str, Token | None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Engine | None = None
        self._closed = False

    def __getstate__(self) -> dict[str, Any]:
        """The settings: a copy or a pickle has connections of its own (and a pickle looks its token up)."""
        limits, retry, timeouts, _, http_client = self._settings
        if http_client is not None:
            raise CortexUsageError(
                "a client over an http_client of yours can be neither copied nor used in another process: its "
                "connections belong to this one. Build the client there"
            )
        return {"limits": limits, "retry": retry, "timeouts": timeouts, "token": self.token}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        Transport.__init__(self, **settings)

    def unopened(self, limits: Limits) -> Transport:
        """The same settings but for the limits, with connections of its own."""
        return Transport(**{**self.__getstate__(), "limits": limits})

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    @property
    def retry(self) -> RetryPolicy:
        """How stubborn requests are."""
        return self._settings[1]

    @property
    def timeouts(self) -> Timeouts:
        """How much silence ends a try."""
        return self._settings[2]

    def trust(self, origin: str, server: str | None = None) -> None:
        """Allow the token of ``server`` (by default the origin's own) to be sent to ``origin``."""
        known, owner = origin_of(origin), origin_of(server or origin)
        if self._trusted.get(known) == owner:
            return
        self._trusted[known] = owner
        self._access.clear()

    async def send(
        self,
        endpoint: Endpoint,
        origin: str,
        *,
        path: Mapping[str, str | int] = {},
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        ids: Sequence[int] | IdArray = (),
    ) -> Reply:
        """Ask an endpoint of the server at ``origin``.

        Parameters
        ----------
        endpoint
            The row of the endpoints' table.
        origin
            ``scheme://host[:port]``, perhaps with a path in front of the endpoint's.
        path
            Values for the names in the endpoint's path.
        query
            The query string, in order.
        body
            The request's body.
        ids
            What the request is about; only for messages.

        Raises
        ------
        CortexError
            See `cortexclient.errors`; the HTTP library's exception, if there is one, is its cause.
        """
        from .engine import Call

        engine = self._ready()
        headers, source, token = self._access_to(endpoint, origin)
        asked = Asked(endpoint, origin, source, token, ids)
        try:
            reply = await engine.run(Call(asked, _url(endpoint, origin, path, query), headers, body))
        except (MissingToken, InvalidToken):
            self.token.forget()
            self._access.clear()
            raise
        if not reply.headers.get("content-type", "").startswith(endpoint.expects):
            raise failures.wrong_type(asked, reply.headers.get("content-type", ""), reply.body)
        return reply

    async def get_url(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        range: tuple[int, int] | None = None,  # noqa: A002 (the header's own name)
        query: Mapping[str, str] | None = None,
    ) -> Reply:
        """Fetch an object from an object store, without a token of ours.

        Parameters
        ----------
        url
            Where it is. One with a query (a signed URL) is sent as it is spelled.
        headers
            More request headers.
        range
            Bytes ``[start, stop)`` of the object; exactly these come back.
        query
            Parameters that mean the same however they are spelled.

        Raises
        ------
        NotFoundError
            There is no such object.
        CortexError
            As for `send`.
        """
        from .engine import Call

        engine = self._ready()
        shown = url.partition("?")[0]
        more = {**BASIC, "Accept-Encoding": "identity" if range else "gzip", **(headers or {})}
        if range:
            more["Range"] = f"bytes={range[0]}-{range[1] - 1}"
        asked, signed = Asked(OBJECT, shown, "nowhere, as none is sent to object stores"), shown != url
        url = f"{url}?{urlencode(query)}" if query else url
        reply = await engine.run(Call(asked, url, more, verbatim=signed, light=not signed))
        return _cut_out(asked, reply, *range) if range else reply

    async def aclose(self) -> None:
        """Close all connections that were made here. Closing twice is fine."""
        loop, engine = self._loop, self._engine
        alive = loop is not None and not loop.is_closed()  # connections do not outlive their loop
        if alive and loop is not asyncio.get_running_loop():
            raise CortexUsageError("close this client in the event loop of its first request")
        self._closed, self._engine = True, None
        if alive and engine is not None:
            await engine.aclose()

    def _ready(self) -> Engine:
        if self._closed:
            raise CortexUsageError("this client is closed: build another one")
        loop = asyncio.get_running_loop()
        if self._engine is None:
            from .engine import Engine

            self._engine = Engine(*self._settings)
            self._loop = loop
        if self._loop is not loop:
            raise CortexUsageError(
                "this client belongs to the event loop of its first request, and this is another one: build a client "
                "there (asyncio.run makes a new loop each time)"
            )
        return self._engine

    def _access_to(self, endpoint: Endpoint, origin: str) -> tuple[httpx.Headers, str, Token | None]:
        """The request's headers, where their token came from, and the token."""
        key = (origin, endpoint.accept_encoding, endpoint.content_type)
        access = self._access.get(key)
        if access is None:
            server = self._trusted.get(origin_of(origin))
            token = self.token.find(server) if server else None
            more = {"Accept-Encoding": endpoint.accept_encoding}
            if endpoint.content_type:
                more["Content-Type"] = endpoint.content_type
            if token is not None:
                more["Authorization"] = f"Bearer {token.value}"
            else:
                more["X-Requested-With"] = "XMLHttpRequest"  # a 401 that says why, instead of a login page
            source = self.token.describe(server) if server else "nowhere, as this server is not the datastack's"
            access = self._access[key] = _headers(more), source, token
        return access


def _url(endpoint: Endpoint, origin: str, path: Mapping[str, str | int], query: Mapping[str, str] | None) -> str:
    quoted = {name: quote(str(value), safe="") for name, value in path.items()}
    url = origin.rstrip("/") + endpoint.path.format_map(quoted)
    return f"{url}?{urlencode(query)}" if query else url


def _headers(more: Mapping[str, str]) -> httpx.Headers:
    import httpx

    return httpx.Headers(BASIC | dict(more))


def _cut_out(asked: Asked, reply: Reply, start: int, stop: int) -> Reply:
    """The bytes asked for: a store that knows no ranges sends all of them."""
    body = reply.body if reply.status == 206 else reply.body[start:stop]
    if len(body) != stop - start:
        raise failures.wrong_range(asked, start, stop, len(body))
    return Reply(reply.status, reply.headers, body)
