"""One outcome for each id of a call, handed to its reader as they come, within the call's time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
import numpy as np

from ._fanout import first_error, running
from ._types import IdArray
from .errors import CortexError, CortexUsageError, DeadlineExceeded
from .progress import ProgressLike, Reporter
from .results import Outcome

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectSendStream  # loads half of anyio, which is lazy otherwise

T = TypeVar("T")

AHEAD: Final = 50
"""Outcomes that may wait for a slow reader; beyond, those who fetch wait too."""


@dataclass(slots=True)
class Outbox(Generic[T]):
    """Where a call puts its outcomes. ``left`` are the ids that have none yet."""

    send: MemoryObjectSendStream[Outcome[T]]
    reporter: Reporter
    left: set[int]

    async def done(self, root_id: int, value: T) -> None:
        """Hand out a value, as soon as the reader has room for it."""
        await self._hand(Outcome(root_id, value=value))

    async def failed(self, root_id: int, error: CortexError) -> None:
        """Hand out an error."""
        await self._hand(Outcome(root_id, error=error))

    async def fail(self, ids: IdArray, kind: type[CortexError], text: str, **where: Any) -> None:
        """Hand out an error of its own for each id."""
        for i in ids.tolist():
            await self.failed(i, kind(text, ids=[i], **where))

    def open(self, ids: IdArray) -> IdArray:
        """Those of some ids that have no outcome yet."""
        return np.array([i for i in ids.tolist() if i in self.left], np.int64)

    async def _hand(self, outcome: Outcome[T]) -> None:
        self.left.discard(outcome.id)
        self.reporter.add(done=outcome.ok, failed=not outcome.ok)
        await self.send.send(outcome)


Work = Callable[[Outbox[T], IdArray], Awaitable[None]]


@asynccontextmanager
async def outcomes(
    ids: IdArray, work: Work[T], *, progress: ProgressLike, timeout: float | None
) -> AsyncIterator[AsyncIterator[Outcome[T]]]:
    """What ``work`` says of each distinct id, as it says it; `DeadlineExceeded` for what is left after ``timeout``."""
    if timeout is not None and timeout <= 0:
        raise CortexUsageError(f"timeout={timeout}: must be above zero seconds")
    distinct = np.array(list(dict.fromkeys(ids.tolist())), np.int64)
    send, receive = anyio.create_memory_object_stream[Outcome[T]](AHEAD)
    with running(None, progress, len(distinct)) as reporter, first_error():
        outbox = Outbox(send, reporter, set(distinct.tolist()))

        async def run() -> None:
            async with send:
                with anyio.move_on_after(timeout) as scope:
                    await work(outbox, distinct)
                if scope.cancelled_caught:
                    text = f"not there within timeout={timeout:g} seconds: if it is being made, ask again later"
                    await outbox.fail(outbox.open(distinct), DeadlineExceeded, text)

        async with anyio.create_task_group() as group, receive:
            group.start_soon(run)
            yield receive
            group.cancel_scope.cancel()
