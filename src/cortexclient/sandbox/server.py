"""A sandbox: one world behind a real HTTP server on loopback, in this process.

The server takes 0.05 to 0.07 ms of CPU for a small request, login and routing included: 18,000 ``info/health`` a second
on one core (CPython 3.11 on a 2-core virtual machine, 16 connections, the client in another process). With its handler
a root look-up takes 0.2 ms for one id and 2.6 ms for 2,000 (a graph of 20,000 cells). ``benchmarks/sandbox_server.py``
measures it. In the client's own process both share one interpreter: benchmarks use `SandboxProcess`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .address import Address, dataset_spec
from .app import WORKERS, App
from .auth import GOOD_TOKEN
from .counters import Counters
from .faults import Faults
from .limits import RateLimits
from .listener import HOST, Listener
from .weather import Weather
from .world import World

if TYPE_CHECKING:
    from ..datasets.spec import DatasetSpec


class Sandbox(Address):
    """A local CAVE server.

    Opened with ``with`` or ``async with``, or by `start` and `stop`. It listens on 127.0.0.1 only.

    Parameters
    ----------
    world
        What it serves; the small synthetic world by default.
    strict
        Answer as the real servers do to the byte, their documented defects included. Otherwise those that hurt users
        are repaired: true 4xx codes, exclusion filters that exclude.
    port
        0: a free one, kept over `restart`.
    latency
        Round trip in seconds.
    bandwidth
        Bytes per second of all answers together; None: no limit.
    service_times
        Whether each request holds a worker as long as the real service would (see :mod:`cortexclient.sandbox.costs`).
    workers
        Requests that one service works on at once.
    limits
        ``"none"``, ``"charts"`` (the services' rate limits; 429 without Retry-After, as they answer),
        ``"charts-retry-after"``, or a :class:`~cortexclient.sandbox.limits.RateLimits`.
    faults
        What goes wrong: ``"503:2%,reset:1%"`` or a :class:`~cortexclient.sandbox.faults.Faults`.
    clock_skew
        Seconds by which the server's clock is ahead.

    Examples
    --------
    >>> with Sandbox(latency=0.02, faults="503:2%") as sandbox, sandbox.env():
    ...     with CortexClient("minnie_public") as client:
    ...         client.info.get_datastacks()
    ['minnie65_phase3_v1', 'minnie65_public']
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        strict: bool = False,
        port: int = 0,
        latency: float = 0.0,
        bandwidth: float | None = None,
        service_times: bool = False,
        workers: int = WORKERS,
        limits: str | RateLimits = "none",
        faults: str | Faults = "",
        clock_skew: float = 0.0,
    ) -> None:
        self.world = world or World.default()
        self.token = GOOD_TOKEN
        self.asgi = App(
            self.world,
            strict=strict,
            workers=workers,
            weather=Weather(latency, bandwidth, clock_skew, service_times),
            faults=_faults(faults),
            limits=RateLimits.parse(limits) if isinstance(limits, str) else limits,
        )
        self._listener = Listener(self.asgi, port)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT``; the port is known once the sandbox has started.

        Examples
        --------
        >>> sandbox.url
        'http://127.0.0.1:...'
        """
        return f"http://{HOST}:{self._listener.port}"

    @property
    def spec(self) -> DatasetSpec:
        """The dataset for a client of this package: the world's first datastack at this address.

        Examples
        --------
        >>> sandbox.spec.datastack
        'minnie65_public'
        """
        return dataset_spec(self.world, self.url, limits=self.asgi.limits)

    @property
    def weather(self) -> Weather:
        """Latency, bandwidth, clock and service times; its fields may be changed at any time.

        Examples
        --------
        >>> sandbox.weather.latency = 0.02
        >>> sandbox.weather.latency = 0.0
        """
        return self.asgi.weather

    @property
    def faults(self) -> Faults:
        """What goes wrong from the next request on; may be replaced at any time, also by text.

        Examples
        --------
        >>> sandbox.faults = "503:2%,reset:1%"
        >>> sandbox.faults.rates
        {'503': 0.02, 'reset': 0.01}
        >>> sandbox.faults = ""
        """
        return self.asgi.faults

    @faults.setter
    def faults(self, faults: str | Faults) -> None:
        self.asgi.faults = _faults(faults)

    @property
    def counters(self) -> Counters:
        """What it has seen: ``counters.snapshot()``, ``counters.reset()``.

        Examples
        --------
        >>> sandbox.counters.reset()
        >>> current = await client.is_latest_roots(roots)
        >>> sandbox.counters.snapshot().total.requests > 0
        True
        """
        return self.asgi.counters

    def expire_token(self, token: str | None = None) -> None:
        """From now on ``token`` (the sandbox's own by default) is answered with 401.

        Examples
        --------
        >>> with Sandbox(world) as sandbox, sandbox.env(), CortexClient("minnie_public") as client:
        ...     sandbox.expire_token()
        ...     try:
        ...         client.info.get_datastacks()
        ...     except AuthError as error:
        ...         print(type(error).__name__)
        InvalidToken
        """
        self.asgi.accounts.expire(token or self.token)

    def issue_token(self) -> str:
        """A new token that may do everything; it becomes the sandbox's own.

        Examples
        --------
        >>> with Sandbox(world) as sandbox:
        ...     sandbox.issue_token() == sandbox.token
        True
        """
        self.token = self.asgi.accounts.issue()
        return self.token

    def start(self) -> Self:
        """Listen; returns when connections are accepted.

        Examples
        --------
        >>> sandbox = Sandbox(world).start()
        >>> sandbox.url
        'http://127.0.0.1:...'
        >>> sandbox.stop()
        """
        self._listener.start()
        return self

    def stop(self) -> None:
        """Break all connections and free the port.

        Examples
        --------
        >>> sandbox = Sandbox(world).start()
        >>> sandbox.stop()
        """
        self._listener.stop()

    def restart(self, down: float = 0.0) -> None:
        """Break all connections, refuse new ones for ``down`` seconds, come back on the same port.

        Examples
        --------
        >>> with Sandbox(world) as sandbox:
        ...     before = sandbox.url
        ...     sandbox.restart(down=0.05)
        ...     sandbox.url == before
        True
        """
        with self.refusing():
            time.sleep(down)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Break all connections and refuse new ones for the time of a ``with`` block.

        Examples
        --------
        >>> with Sandbox(world) as sandbox, sandbox.env(), CortexClient("minnie_public") as client:
        ...     with sandbox.refusing():
        ...         client.diagnose(timeout=0.5).ok
        False
        """
        self.stop()
        self._listener.reserve()
        try:
            yield
        finally:
            self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)


def _faults(faults: str | Faults) -> Faults:
    return Faults(faults) if isinstance(faults, str) else faults
