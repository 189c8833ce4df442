"""An ASGI application on a port of loopback: uvicorn's HTTP protocol in a thread with an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .weather import TRANSPORT, Receive, Scope, Send

HOST: Final = "127.0.0.1"
KEEP_ALIVE: Final = 75
"""Seconds that an idle connection is kept (nginx's default; uvicorn's 5 s would close under a client that pauses)."""
BACKLOG: Final = 2048
START_TIMEOUT: Final = 30.0

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class _Protocol(HttpToolsProtocol):
    """Hands the transport on with each request, so that a fault can break the connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.access_log = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][TRANSPORT] = self.transport


class Listener:
    """Serves ``app`` on ``127.0.0.1:port`` from `start` to `stop`; port 0 takes a free one, and keeps it.

    `uvicorn.Server` is not used: it installs signal handlers, polls ten times a second, and when it stops it waits for
    requests in flight. Here stopping is immediate and breaks every connection, as a crash does.
    """

    def __init__(self, app: ASGIApp, port: int = 0) -> None:
        self._app = app
        self.port = port
        self._reserved: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None

    def start(self) -> None:
        """Listen. Returns when connections are accepted.

        Raises
        ------
        OSError
            The port is taken.
        """
        listening, self._reserved = self._reserved or _bound(self.port), None
        self.port = listening.getsockname()[1]
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(listening, ready), name="cortexclient-sandbox", daemon=True
        )
        self._thread.start()
        ready.result(START_TIMEOUT)

    def stop(self) -> None:
        """Close the port and every connection, and wait for the thread. Harmless if it is not running."""
        if self._thread is None or self._loop is None or self._stopping is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()
        self._thread = self._loop = self._stopping = None

    def reserve(self) -> None:
        """Keep the port while it is not listened on: connections are refused, and no other process gets it."""
        self._reserved = _bound(self.port)

    def _run(self, listening: socket.socket, ready: Future[None]) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve(listening, ready))
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)
        finally:
            listening.close()

    async def _serve(self, listening: socket.socket, ready: Future[None]) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        config = uvicorn.Config(
            self._until_stopped,
            log_config=None,
            lifespan="off",
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
        )
        state = ServerState()
        server = await self._loop.create_server(lambda: _Protocol(config, state, {}), sock=listening, backlog=BACKLOG)
        ready.set_result(None)
        await self._stopping.wait()
        # whoever was accepted just now is let in first: a closed server leaves their sockets open (CPython 3.11)
        self._loop.remove_reader(listening)
        await asyncio.sleep(0)
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        in_flight = list(state.tasks)
        for task in in_flight:
            task.cancel()
        if in_flight:
            await asyncio.wait(in_flight)
        await server.wait_closed()

    async def _until_stopped(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            return  # the connection is gone already; uvicorn would log the cancellation as a failure


def _bound(port: int) -> socket.socket:
    # asyncio switches Nagle's algorithm off only if the protocol is named; with it each answer takes 40 ms
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((HOST, port))
    except OSError:
        bound.close()
        raise
    return bound
