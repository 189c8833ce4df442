"""Who goes next: plans of chunks, and a fixed number of workers over one iterator.

Knows no HTTP and no service. A task for each id would cost 55 us and all the memory at once; a worker that pulls the
next chunk costs 1.3 us.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from operator import length_hint
from types import TracebackType
from typing import Any, TypeVar

import anyio

from ._budget import BudgetScope
from ._types import IdArray
from .errors import AuthError, CortexError, CortexUsageError, DeadlineExceeded
from .ids import batches
from .progress import ProgressLike, Reporter
from .results import Outcome, Results, Stream

T = TypeVar("T")
R = TypeVar("R")

RAMP = 4
"""Requests that the first waves of a call are short of, modulo a wave: a service's gate starts at four and doubles."""


def plan(unique: IdArray, batch: int, workers: int) -> list[IdArray]:
    """Which ids travel together: balanced chunks of at most ``batch``, as few as may be, or whole waves of the workers.

    Parameters
    ----------
    unique
        Distinct ids.
    """
    wanted = math.ceil(len(unique) / batch)
    if wanted > workers:  # whole waves: a last one with a single chunk would double the time
        ramp = RAMP if workers > RAMP else 0
        wanted = math.ceil((wanted + ramp) / workers) * workers - ramp
    size = math.ceil(len(unique) / max(wanted, 1))
    return batches(unique, max(size, 1))


async def fan_out(items: Iterable[T], call: Callable[[T], Awaitable[R]], workers: int) -> list[R]:
    """Call for each item, ``workers`` at a time; results in the order of the items.

    The first error ends all others and is raised as it is; its ``partial`` holds the results that had arrived.
    """
    done: dict[int, R] = {}
    queue = enumerate(items)

    async def work() -> None:
        for position, item in queue:
            done[position] = await call(item)

    try:
        with first_error():
            async with anyio.create_task_group() as group:
                for _ in range(min(workers, length_hint(items, workers))):
                    group.start_soon(work)
    except CortexError as error:
        error.partial = [done[position] for position in sorted(done)]
        raise
    return [done[position] for position in range(len(done))]


async def in_turn(items: Iterable[T], call: Callable[[T], Awaitable[None]], slots: asyncio.Semaphore) -> None:
    """Call for each item, as many at a time as there are free ``slots``, for which other calls compete.

    The first error ends all others and is raised as it is. Where sixteen meshes fetch at once, sixteen times all
    workers of a service would wait at its gate: thousands of tasks, which the garbage collector visits again and again.
    """

    async def one(item: T) -> None:
        await call(item)

    with first_error():
        async with asyncio.TaskGroup() as group:
            for item in items:
                await slots.acquire()
                # not at the task's end: one that is cancelled before it began never gets there
                group.create_task(one(item)).add_done_callback(lambda _: slots.release())


async def together(*calls: Callable[[], Awaitable[R]]) -> list[R]:
    """Make some calls at once; results in the order given."""
    return await fan_out(calls, lambda call: call(), workers=len(calls))


@contextmanager
def first_error() -> Iterator[None]:
    """Raise the first error of a task group as itself: callers catch ``NotFoundError``, not a group that holds one."""
    try:
        yield
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from first.__cause__


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """End the block after ``seconds`` with :class:`DeadlineExceeded`; None waits as long as it takes."""
    if seconds is None:
        yield
        return
    if seconds <= 0:
        raise CortexUsageError(f"timeout={seconds}: must be above zero seconds")
    with anyio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineExceeded(f"not done within timeout={seconds:g} seconds: allow more, or ask for fewer ids")


class running:  # noqa: N801 (reads as a verb)
    """The edge of every public many-call: its deadline, its progress, and its budget of retries.

    No generator: ten thousand calls may stand here at once, and each object that a call holds is one more for the
    garbage collector to visit.
    """

    __slots__ = ("_budget", "_deadline", "_reporter")

    def __init__(self, timeout: float | None, progress: ProgressLike, total: int | None) -> None:
        self._reporter = Reporter(progress, total)
        self._budget = BudgetScope()
        self._deadline = None if timeout is None else deadline(timeout)

    def __enter__(self) -> Reporter:
        if self._deadline is not None:
            self._deadline.__enter__()
        self._budget.__enter__()
        return self._reporter

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._budget.__exit__()
        try:
            return None if self._deadline is None else self._deadline.__exit__(kind, error, traceback)
        finally:
            self._reporter.__exit__(kind, error, traceback)


FATAL = (AuthError, CortexUsageError)
"""Errors that would hit every id alike: they end a collecting call at once."""


async def collect(
    ids: IdArray,
    call: Callable[[int], Awaitable[T]],
    *,
    workers: int,
    progress: ProgressLike = None,
    timeout: float | None = None,
) -> Results[T]:
    """Call for each distinct id; one bad id spoils only itself."""
    async with _outcomes(ids, call, workers, progress, timeout) as outcomes:
        arrived = {outcome.id: outcome async for outcome in outcomes}
    return Results([arrived[i] for i in dict.fromkeys(ids.tolist())])


def stream(
    ids: IdArray,
    call: Callable[[int], Awaitable[T]],
    *,
    workers: int,
    progress: ProgressLike = None,
    timeout: float | None = None,
) -> Stream[T]:
    """Call for each distinct id; hand out each outcome as it arrives, at most twice ``workers`` ahead of the reader."""
    return Stream(lambda: _outcomes(ids, call, workers, progress, timeout))


@asynccontextmanager
async def _outcomes(
    ids: IdArray,
    call: Callable[[int], Awaitable[T]],
    workers: int,
    progress: ProgressLike,
    timeout: float | None,
) -> AsyncIterator[AsyncIterator[Outcome[T]]]:
    distinct = list(dict.fromkeys(ids.tolist()))
    queue = iter(distinct)
    send, receive = anyio.create_memory_object_stream[Outcome[T]](workers)

    async def outcome_of(one: int) -> Outcome[T]:
        try:
            return Outcome(one, value=await call(one))
        except FATAL:
            raise
        except CortexError as error:
            return Outcome(one, error=error)

    with running(timeout, progress, len(distinct)) as reporter, first_error():
        async with anyio.create_task_group() as group, receive:

            async def work(out: Any) -> None:
                async with out:
                    for one in queue:
                        outcome = await outcome_of(one)
                        reporter.add(done=outcome.ok, failed=not outcome.ok)
                        await out.send(outcome)

            async with send:
                for _ in range(workers):
                    group.start_soon(work, send.clone())
            yield receive
            group.cancel_scope.cancel()
