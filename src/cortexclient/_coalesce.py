"""Small calls that are made at the same time share their requests.

Ten thousand tasks that ask about one id each would cost ten thousand requests. What they ask meets here first: all that
is asked under one key within a moment travels as one call, and each gets its own part of the answer.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import anyio
import numpy as np

from ._budget import BudgetScope
from ._types import IdArray
from .errors import CortexError
from .ids import unique_ids

FEW = 100
"""Calls about more ids than this make requests that are worth sending by themselves."""
TICK = 0.002
"""Seconds that a call waits for others while some are under way. With none, it waits only for what is made at once."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answers about some ids, and why there is none about others."""

    values: Any
    """One for each id in the order asked; anything that an integer array can index."""
    errors: Mapping[int, CortexError] = field(default_factory=dict)


Load = Callable[[IdArray], Awaitable[Found]]


@dataclass(slots=True)
class _Batch:
    """What is asked under one key, and who waits for it."""

    load: Load
    waiting: dict[asyncio.Future[Found], IdArray] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class Coalescer:
    """Joins calls that are made at the same time; serves one event loop."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: dict[Hashable, _Batch] = {}
        self._flying: set[asyncio.Task[None] | None] = set()
        self._now: datetime | None = None

    def now(self) -> datetime:
        """The current time, the same for all calls of a moment: calls about different instants cannot be joined."""
        loop = self._running_loop()
        if self._now is None:
            self._now = datetime.now(UTC)
            loop.call_later(TICK, self._forget_now)
        return self._now

    async def ask(self, key: Hashable, ids: IdArray, load: Load) -> Found:
        """Ask together with whoever else asks under ``key`` now.

        Parameters
        ----------
        key
            All that the answer depends on but the ids.
        ids
            Distinct ids.
        load
            Answers any ids, sorted and distinct.

        Returns
        -------
        Found
            The part about ``ids``. Errors of other callers' ids are not in it.

        Raises
        ------
        CortexError
            What ``load`` raises, each caller an error of their own.
        """
        loop = self._running_loop()
        batch = self._open.get(key)
        if batch is None:
            batch = self._open[key] = _Batch(load)
            if self._flying:
                loop.call_later(TICK, self._send, key)
            else:
                loop.call_soon(self._send, key)
        turn: asyncio.Future[Found] = loop.create_future()
        batch.waiting[turn] = ids
        try:
            return await turn
        finally:
            del batch.waiting[turn]
            if batch.task is not None and not batch.waiting and not batch.task.done():  # the last one to give up
                batch.task.cancel()
                with anyio.CancelScope(shield=True):  # a deadline that is over would end this wait too
                    await asyncio.wait([batch.task])

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # what an ended loop left behind never comes back
            self._loop, self._now = loop, None
            self._open.clear()
            self._flying.clear()
        return loop

    def _forget_now(self) -> None:
        self._now = None

    def _send(self, key: Hashable) -> None:
        batch = self._open.pop(key)
        if batch.waiting:
            batch.task = asyncio.ensure_future(self._answer(batch))
            self._flying.add(batch.task)
            batch.task.add_done_callback(self._flying.discard)

    async def _answer(self, batch: _Batch) -> None:
        asked, _ = unique_ids(np.concatenate(list(batch.waiting.values())))
        try:
            with BudgetScope(own=True):
                found = await batch.load(asked)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is raised where somebody waits)
            for turn in batch.waiting:
                if not turn.done():
                    turn.set_exception(_own(error))
                    turn.exception()  # seen: one who is cancelled just now must not be reported as never told
            return
        finally:
            self._flying.discard(batch.task)  # now: one who asks next shall not wait for this one
        for turn, ids in batch.waiting.items():
            if not turn.done():
                turn.set_result(_part(found, asked, ids))


def _part(found: Found, asked: IdArray, ids: IdArray) -> Found:
    errors = {i: _own(found.errors[i]) for i in ids.tolist() if i in found.errors} if found.errors else {}
    return Found(found.values[np.searchsorted(asked, ids)], errors)


def _own(error: Any) -> Any:
    """A copy for one caller: raising one object in many tasks would mix up their tracebacks and notes."""
    if not isinstance(error, CortexError):
        return error
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    twin.__dict__["__notes__"] = [*getattr(error, "__notes__", ())]
    return twin
