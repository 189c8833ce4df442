"""How tests wait: for events, never for a while."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cortexclient.sandbox import Sandbox

HANG: Final = 300.0
"""Seconds after which something hangs. Nothing is measured by it: the machine may be as busy as it likes."""


def until(happened: Callable[[], object]) -> None:
    """Wait, in a thread, until something is so."""
    deadline = time.monotonic() + HANG
    while not happened():
        assert time.monotonic() < deadline, "it never happens"
        time.sleep(0.002)


async def until_so(happened: Callable[[], object]) -> None:
    """Wait, on a loop, until something is so."""
    async with asyncio.timeout(HANG):
        while not happened():
            await asyncio.sleep(0.002)


@contextmanager
def held(sandbox: Sandbox) -> Iterator[Callable[[int], Any]]:
    """Requests come in, and none is answered before the block ends; gives what waits until so many are in.

    It holds them before their service's workers, so that any number may come in.
    """
    app, go = sandbox.asgi, threading.Event()
    answer = app._answer

    async def later(*arguments: Any) -> Any:
        while not go.is_set():
            await asyncio.sleep(0.002)
        return await answer(*arguments)

    app._answer = later  # type: ignore[method-assign]
    try:
        yield lambda number: until_so(lambda: sandbox.counters.snapshot().total.in_flight >= number)
    finally:
        go.set()
        app._answer = answer  # type: ignore[method-assign]
