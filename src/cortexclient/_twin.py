"""What the generated blocking classes are made of."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from . import _portal
from ._client import AsyncCortexClient
from ._client_tables import complete_at_once
from .errors import CortexError, CortexUsageError
from .links import client_as_html
from .results import Flow, Outcome
from .services._base import internal
from .tables._listing import Listing

A = TypeVar("A")
L = TypeVar("L", bound=Listing)
T = TypeVar("T")

LOOK_SECONDS = 2.0
"""How long showing or completing ``client.tables`` may take."""
AHEAD = 32
"""Outcomes of a stream that may wait for a slow reader."""


class Twin(Generic[A]):
    """The blocking face of an async object, which is found again in a forked child."""

    _find: Callable[[], A]
    _found: dict[int, A]
    """By generation of processes: a parent's stays its own."""

    @classmethod
    def _of(cls, find: Callable[[], A]) -> Self:
        twin = object.__new__(cls)
        twin._found = {_portal.generation(): find()}
        twin._find = find
        return twin

    @property
    def _inner(self) -> A:
        generation = _portal.generation()
        inner = self._found.get(generation)
        if inner is None:  # threads may find at once, and all must use the same: another's connections would be closed
            inner = self._found.setdefault(generation, self._find())
        return inner

    def __repr__(self) -> str:
        return repr(self._inner).replace(type(self._inner).__name__, type(self).__name__, 1)


class ClientTwin(Twin[AsyncCortexClient]):
    """A blocking client: it owns connections, and opens others in a forked child."""

    @classmethod
    @internal
    def of(cls, inner: AsyncCortexClient) -> Self:
        """The blocking face of an asynchronous client that nobody else uses."""
        twin = object.__new__(cls)
        twin._own(inner)
        return twin

    def _own(self, inner: AsyncCortexClient) -> None:
        self._found = {_portal.generation(): _closed_in_time(inner)}
        self._find = lambda: _closed_in_time(copy.copy(inner))
        complete_at_once(self)

    @classmethod
    def _of(cls, find: Callable[[], AsyncCortexClient]) -> Self:
        view = super()._of(find)
        complete_at_once(view)
        return view

    def close(self) -> None:
        """Close the connections, of all views of :meth:`at` too. A client that is left open closes by itself.

        Examples
        --------
        >>> client.close()
        >>> client.closed
        True
        """
        _portal.run(self._inner.aclose)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:  # noqa: ARG002
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _repr_html_(self) -> str:
        return client_as_html(repr(self), self._inner._session)  # noqa: SLF001 (its other face)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> AsyncCortexClient:
        return self._inner

    def __setstate__(self, inner: AsyncCortexClient) -> None:
        self._own(inner)


def _closed_in_time(inner: AsyncCortexClient) -> AsyncCortexClient:
    _portal.close_with(inner, inner._session.transport)  # noqa: SLF001 (its other face)
    return inner


class ListingTwin(Twin[L]):
    """A blocking list of tables: it may look for itself, once and not for long."""

    def _look(self) -> L:
        listing = self._inner
        if not listing._register.looked:  # noqa: SLF001 (its other face)
            importlib.import_module("cortexclient._transport.engine")  # the time is for servers, not for loading code
            with contextlib.suppress(CortexError):
                _portal.run(listing.load, timeout=LOOK_SECONDS)
        return listing

    def __dir__(self) -> list[str]:
        return [*object.__dir__(self), *self._look().names()]

    def __contains__(self, name: object) -> bool:
        return name in self._look()

    def __iter__(self) -> Iterator[str]:
        return iter(self._look())

    def __len__(self) -> int:
        return len(self._look())

    def __repr__(self) -> str:
        self._look()
        return super().__repr__()

    def _repr_html_(self) -> str:
        listing = self._look()
        return listing._repr_html_().replace(type(listing).__name__, type(self).__name__, 1)


class _End:
    """The last that a stream hands on: why it ended, None if it was read to its end."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class SyncFlow(Generic[T]):
    """Things as they arrive, in bounded memory: a plain loop will do.

    Leaving the loop early ends the fetching once nothing refers to the stream any more; inside ``with`` at once.
    """

    def __init__(self, stream: Flow[T], client: Twin[Any]) -> None:
        self._client = client  # whose connections close when it is forgotten
        self._pump = _Pump(stream)
        self._arrived: deque[T | _End] = deque()
        self._generation = _portal.generation()
        self._ended = False
        weakref.finalize(self, _portal.post, self._pump.cancel).atexit = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        if self._ended:
            raise StopIteration
        if self._generation != _portal.generation():
            raise CortexUsageError("this stream belongs to the process that made it: make one here")
        try:
            if not self._arrived:
                self._arrived.extend(_portal.run(self._pump.take))
        except BaseException:  # Ctrl-C
            self.close()
            raise
        item = self._arrived.popleft()
        if not isinstance(item, _End):
            return item
        self.close()
        raise item.error or StopIteration

    def close(self) -> None:
        """End the fetching and wait until it has ended.

        Examples
        --------
        >>> with CortexClient("minnie_public") as client:
        ...     outcomes = client.stream_skeletons(roots)
        ...     first = next(iter(outcomes))
        ...     outcomes.close()
        """
        if not self._ended and self._generation == _portal.generation():
            self._ended = True
            _portal.run(self._pump.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class SyncStream(SyncFlow[Outcome[T]]):
    """Outcomes as they arrive; see :class:`SyncFlow`.

    Examples
    --------
    >>> with CortexClient("minnie_public") as client:
    ...     for outcome in client.stream_skeletons([864691134885645050]):
    ...         print(outcome.id, outcome.ok)
    864691134885645050 True
    """


class SyncBatchStream(SyncFlow[Any]):
    """Rows of a query as they arrive, as Arrow record batches; see :class:`SyncFlow`."""


class _Pump(Generic[T]):
    """The one task that reads a stream: task groups must be left by the task that entered them."""

    def __init__(self, stream: Flow[T]) -> None:
        self._stream = stream
        self._ahead = stream._ahead or AHEAD  # noqa: SLF001 (nothing that users would ask for)
        self._task: asyncio.Task[None] | None = None
        self._arrived: list[T | _End] = []
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def take(self) -> list[T | _End]:
        """Everything that has arrived, at least one thing."""
        if self._task is None:
            self._task = asyncio.create_task(self._read())
        await self._news.wait()
        self._news.clear()
        self._room.set()
        taken, self._arrived = self._arrived, []
        return taken

    async def _read(self) -> None:
        end: BaseException | None = None
        try:
            async with self._stream as outcomes:
                async for outcome in outcomes:
                    self._add(outcome)
                    if len(self._arrived) >= self._ahead:
                        self._room.clear()
                        await self._room.wait()
        except Exception as error:  # noqa: BLE001 (it is raised where the stream is read)
            end = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        self._add(_End(end))

    def _add(self, item: T | _End) -> None:
        self._arrived.append(item)
        self._news.set()

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def aclose(self) -> None:
        self.cancel()
        if self._task is not None:
            await asyncio.wait([self._task])
