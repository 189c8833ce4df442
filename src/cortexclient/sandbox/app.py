"""The sandbox as an ASGI application: from bytes to a :class:`Call`, from a :class:`Reply` to bytes.

One request's way: read the body, find the route, cross the distance (latency), meet a fault perhaps, show a token, pass
the rate limit, wait for one of the service's workers, run the handler, sleep its price while the worker is held, travel
back.

Handlers run on the event loop, one at a time, so that edits are atomic and the world needs no locks.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import zlib
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from isal import igzip

from . import control, costs, routes
from .auth import HTML, Accounts, permit
from .calls import Call, Reply, Route
from .counters import Counters, Entry, count_ids
from .faults import BREAKS, Faults
from .limits import RateLimits
from .router import Match, Router, WrongMethod
from .weather import Connection, Headers, Receive, Scope, Send, Weather

if TYPE_CHECKING:
    from .world import World

WORKERS: Final = 16
"""Requests that one pod of a service works on at once (PyChunkedGraph's chart)."""
CORS: Final = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-headers", b"*"),
    (b"access-control-expose-headers", b"WWW-Authenticate, column_names"),
)
logger = logging.getLogger(__name__)


class App:
    """One world behind HTTP.

    ``weather``, ``faults`` and ``limits`` may be replaced at any time, from any thread. The parameters are those of
    :class:`cortexclient.sandbox.Sandbox`.
    """

    def __init__(
        self,
        world: World,
        *,
        strict: bool = False,
        workers: int = WORKERS,
        weather: Weather | None = None,
        faults: Faults | None = None,
        limits: RateLimits | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        self.world = world
        self.strict = strict
        self.weather = weather or Weather()
        self.faults = faults or Faults()
        self.limits = limits
        self.accounts = accounts or Accounts()
        self.counters = Counters()
        self._workers: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(workers))
        self._router = Router(
            (routes.storage.gated(self.accounts), *routes.ALL, routes.auth.table(self.accounts), control.table(self))
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        body = await _read(receive)
        if body is None:
            return
        found = self._router.find(scope["method"], scope["path"])
        call = self._call(scope, body, found.params if isinstance(found, Match) else {})
        connection = Connection(scope, receive, send)
        if isinstance(found, Match) and found.table.service == control.SERVICE:
            reply = found.route.handler(self.world, call)
            await connection.answer(*_encode(reply, call, gzips=False))
            return
        service, route = _labels(found, call)
        with self.counters.request(service, route, ids=count_ids(call), bytes_in=len(body)) as entry:
            await self._exchange(found, call, connection, entry)

    async def _exchange(
        self, found: Match | WrongMethod | None, call: Call, connection: Connection, entry: Entry
    ) -> None:
        weather, faults = self.weather, self.faults
        if weather.latency:
            await asyncio.sleep(weather.latency)
        fault = faults.draw(call)
        if fault == "reset":
            entry.answer(0)
            await connection.break_off(reset=True)
            return
        reply = await self._answer(found, call) if fault is None or fault in BREAKS else faults.status(fault)
        status, headers, body = _encode(reply, call, gzips=isinstance(found, Match) and found.table.gzips)
        entry.answer(status, len(body), reply.price)
        if fault is None and weather.bandwidth is None:
            await connection.answer(status, headers, body)
            return
        await connection.deliver(status, headers, body, fault=fault, weather=weather, slow_seconds=faults.slow_seconds)

    async def _answer(self, found: Match | WrongMethod | None, call: Call) -> Reply:
        if not isinstance(found, Match):
            return _no_route(found, call)
        route, user_id = found.route, 0
        if route.permission is not None:
            user = self.accounts.identify(call)
            if isinstance(user, Reply):
                return user
            refusal = permit(self.world, user, route, call) or self._too_many(user.id, route, call)
            if refusal:
                return refusal
            user_id = user.id
        async with self._workers[found.table.service]:
            timed = self.weather.service_times
            call = replace(call, user_id=user_id, now_ms=self.weather.now_ms(), timed=timed)
            reply = self.faults.poisoned(call) or _run(self.world, found, call)
            if route.permission is not None and reply.price < costs.REQUEST:
                reply = replace(reply, price=costs.REQUEST)
            if timed:
                await asyncio.sleep(reply.price)
        return reply

    def _too_many(self, user_id: int, route: Route, call: Call) -> Reply | None:
        if self.limits is None:
            return None
        counted = route.path
        if route.rate is not None:
            counted += route.rate(self.world, replace(call, now_ms=self.weather.now_ms()))
        return self.limits.refuse(user_id, counted)

    def _call(self, scope: Scope, body: bytes, params: Mapping[str, str]) -> Call:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("content-encoding", "").lower() == "gzip":
            # what cannot be unpacked reaches the handler as it is, which answers as to any other nonsense
            with suppress(OSError, EOFError, zlib.error):
                body = gzip.decompress(body)
        query = scope["query_string"]
        return Call(
            method=scope["method"],
            path=scope["path"],
            params=params,
            query=dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
            headers=headers,
            body=body,
            now_ms=0,
            origin=f"{scope.get('scheme', 'http')}://{headers.get('host', 'localhost')}",
            strict=self.strict,
        )


async def _read(receive: Receive) -> bytes | None:
    """The whole request body; None if the client has gone."""
    pieces = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _labels(found: Match | WrongMethod | None, call: Call) -> tuple[str, str]:
    if isinstance(found, Match):
        return found.table.service, f"{call.method} {found.route.path}"
    return (found.table.service if found else "unknown"), f"{call.method} (no such route)"


def _run(world: World, found: Match, call: Call) -> Reply:
    try:
        return found.route.handler(world, call)
    except Exception as error:
        if found.table.on_error is not None:
            return found.table.on_error(call, error)
        logger.exception("%s %s failed", call.method, call.path)
        return Reply(b'{"message": "Internal Server Error"}\n', 500)


def _no_route(found: WrongMethod | None, call: Call) -> Reply:
    if found is None:
        return _page(
            "404 Not Found",
            "The requested URL was not found on the server. If you entered the URL manually please check your spelling "
            "and try again.",
        )
    allow = (("Allow", ", ".join((*found.allowed, "OPTIONS"))),)
    if call.method == "OPTIONS":
        return Reply(b"", 200, HTML, allow)
    if found.table.wrong_method is not None:
        return found.table.wrong_method(call)
    return _page("405 Method Not Allowed", "The method is not allowed for the requested URL.", *allow)


def _page(title: str, text: str, *headers: tuple[str, str]) -> Reply:
    """Werkzeug's error page."""
    body = f"<!doctype html>\n<html lang=en>\n<title>{title}</title>\n<h1>{title[4:]}</h1>\n<p>{text}</p>\n"
    return Reply(body.encode(), int(title[:3]), HTML, headers)


def _encode(reply: Reply, call: Call, *, gzips: bool) -> tuple[int, Headers, bytes]:
    headers: Headers = [(b"content-type", reply.content_type.encode("latin-1"))]
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers]
    if "origin" in call.headers:
        headers += CORS
    body = reply.body
    wanted = gzips and 200 <= reply.status < 300 and "gzip" in call.headers.get("accept-encoding", "").lower()
    if wanted and not any(name.lower() == b"content-encoding" for name, _ in headers):
        body = igzip.compress(body, 1, mtime=0)
        headers += ((b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding"))
    return reply.status, headers, body
