"""What a route handler is given and what it gives back.

A handler is a plain function ``(world, call) -> Reply``: no sockets, no sleeping, no global state. The server
around it (:mod:`cortexclient.sandbox.app`) authenticates, waits for a worker, sleeps the price and plays the weather.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .world import World

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """One request, already read and authenticated.

    ``query`` keeps the last value of each name. ``now_ms`` is the server's clock in UTC milliseconds since the epoch;
    handlers never read a clock of their own. ``origin`` is scheme and host as the client spelled them. ``timed`` tells
    whether prices are waited for; if not, nothing takes time.

    Examples
    --------
    >>> call = Call("GET", "/info/health", {}, {}, {}, b"", now_ms=0, origin="http://here")
    >>> call.user_id
    0
    """

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    now_ms: int
    origin: str
    user_id: int = 0
    strict: bool = False
    timed: bool = False

    def json(self) -> Any:
        """The body as JSON, whatever the Content-Type says (caveclient often sends none).

        Examples
        --------
        >>> call = Call("POST", "/q", {}, {}, {}, b'{"node_ids": [7]}', now_ms=0, origin="http://here")
        >>> call.json()
        {'node_ids': [7]}
        """
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``price`` is the service time in seconds that the real server would have spent.

    Examples
    --------
    >>> Reply(b"{}", price=0.002).status
    200
    """

    body: bytes = b""
    status: int = 200
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    price: float = 0.0


Handler = Callable[["World", Call], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of a service's table. ``path`` is in Starlette's notation (``/table/{table}/roots_binary``).

    Examples
    --------
    >>> def health(world, call):
    ...     return Reply(b'"ok"')
    >>> Route(("GET",), "/census/health", health).permission
    'view'
    """

    methods: tuple[str, ...]
    path: str
    handler: Handler
    permission: str | None = "view"
    resource: str | None = None
    """The path parameter naming what is protected (``table``, ``datastack``, ``aligned_volume``); None: any login."""
    rate: Callable[[World, Call], str] | None = None
    """What a call is put behind the path if calls of this route are not all counted at one rate."""


@dataclass(frozen=True, slots=True)
class RouteTable:
    """The routes of one CAVE service; requests of one service share its workers.

    The services answer their own failures differently, so each table says how:

    - ``on_error`` makes the answer of an exception that a handler let through (None: Flask-RESTX's plain 500);
    - ``wrong_method`` answers a known path asked with another method (None: Flask's HTML page, status 405);
    - ``gzips``: 2xx bodies are compressed whenever the client accepts gzip, as the chunkedgraph does; a reply that
      names its own Content-Encoding is left alone.

    Examples
    --------
    >>> def health(world, call):
    ...     return Reply(b'"ok"')
    >>> table = RouteTable("census", (Route(("GET",), "/census/health", health),))
    >>> table.service, len(table.routes)
    ('census', 1)
    """

    service: str
    routes: tuple[Route, ...] = field(default=())
    on_error: Callable[[Call, Exception], Reply] | None = None
    wrong_method: Callable[[Call], Reply] | None = None
    gzips: bool = False
