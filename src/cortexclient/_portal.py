"""Where threads meet the event loop: the only file that knows both.

All blocking clients of a process share one background thread with one event loop. It starts at the first call, is
started anew in a forked child, and ends with the interpreter.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, Protocol, TypeVar

from .errors import CortexUsageError

P = ParamSpec("P")
T = TypeVar("T")

POLL = 0.5
"""Seconds between looks at the signals: on Windows a wait without end never sees Ctrl-C."""
CLEANUP = 5.0
"""Seconds that cancelled work may take to clean up before its thread goes on."""


def run(func: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call an async method on the background loop, and return or raise what it does.

    Whatever interrupts the wait (Ctrl-C) cancels the call, lets it clean up, and goes on its way.
    """
    background = _background or _start()
    if threading.current_thread() is background.thread:
        owner, name = type(getattr(func, "__self__", None)).__name__, func.__name__
        raise CortexUsageError(f"this would wait for itself: code on the event loop must `await` {owner}.{name}(...)")
    call = _Call(lambda: func(*args, **kwargs))
    try:
        background.post(call.start)
        while not call.done.wait(POLL):
            pass
    except BaseException:
        background.post(call.cancel)
        call.done.wait(CLEANUP)
        raise
    error, call.error = call.error, None
    if error is None:
        result: T = call.value
        return result
    try:
        raise SystemExit if background.ending else error  # the former ends a waiting thread without a word
    finally:
        del error  # whose traceback holds this frame


def post(callback: Callable[[], None]) -> None:
    """Have the loop call back soon, from any thread and without waiting; nothing happens where there is no loop."""
    if (background := _background) is not None:  # looked at once: another thread may end the interpreter just now
        background.post(callback)


def generation() -> int:
    """How many forks lie between the first process and this one: what was opened in another is not ours to use."""
    return _generation


class Closable(Protocol):
    """What holds connections."""

    async def aclose(self) -> None:
        """Close them."""


def close_with(owner: object, connections: Closable) -> None:
    """Close ``connections`` soon after nobody can reach ``owner`` any more, at the latest when the interpreter ends."""
    _open.add(connections)
    weakref.finalize(owner, _let_go, connections).atexit = False


def _let_go(connections: Closable) -> None:
    if connections in _open:  # a parent's are not
        _open.discard(connections)
        post(_Call(connections.aclose).start)


class _Call:
    """One call: made on the loop, waited for by a thread."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())
        self._task.add_done_callback(lambda _: self.done.set())

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        try:
            self.value = await self._work()
        except BaseException as error:  # noqa: BLE001 (a SystemExit is for the thread that waits, not for the loop)
            self.error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)


class _Background:
    """The thread and its loop.

    The thread's frame holds ``connections``, and that is what protects a parent from its forked child: both share one
    selector, and a connection that is collected in the child takes itself out of it. The frames of the parent's threads
    are never released in a child.
    """

    def __init__(self, connections: set[Closable]) -> None:
        self.connections = connections
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.post = self._loop.call_soon_threadsafe  # carries the caller's context variables
        self.thread = threading.Thread(target=self._serve, name="cortexclient", daemon=True)
        self.thread.start()

    @property
    def ending(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self.post(self._stop.set)
        self.thread.join(2 * CLEANUP)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLEANUP)
        for connections in list(self.connections):
            await connections.aclose()


_lock = threading.Lock()
_background: _Background | None = None
_open: set[Closable] = set()
_generation = 0


def _start() -> _Background:
    global _background  # noqa: PLW0603 (one for the process)
    with _lock:
        _background = _background or _Background(_open)
        return _background


@atexit.register
def _at_exit() -> None:
    global _background
    background, _background = _background, None
    if background is not None:
        background.stop()


def _in_child() -> None:
    global _lock, _background, _open, _generation  # noqa: PLW0603
    _lock, _background, _open = threading.Lock(), None, set()  # the lock too: another thread may have held it
    _generation += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
