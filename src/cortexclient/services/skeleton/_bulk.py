"""Skeletons from the service, many in one reply."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

import anyio.to_thread
import numpy as np

from ..._fanout import FATAL, fan_out
from ..._isolate import Isolation
from ..._types import BoolArray, IdArray
from ..._wire import endpoints, json
from ..._wire import skeletons as wire
from ...errors import CortexError, DecodeError, NotFoundError
from ...ids import batches
from ...skeletons import Skeleton
from .._base import MINUTES, Session

IN_THREAD: Final = 1_000_000
"""Bytes (or hexadecimal digits) beyond which a skeleton is decoded in a thread, not to hold up the event loop."""

Packed = TypeVar("Packed", str, bytes)
Hand = Callable[[int, Skeleton | CortexError], Awaitable[None]]
"""What takes a skeleton, or the reason why there is none."""


async def decoded(decode: Callable[[Packed, int], Skeleton], body: Packed, root_id: int) -> Skeleton | DecodeError:
    """A skeleton, or why it cannot be read."""
    try:
        if len(body) > IN_THREAD:
            return await anyio.to_thread.run_sync(decode, body, root_id)
        return decode(body, root_id)
    except DecodeError as error:
        return error


class BulkReplies:
    """The service's own way out.

    Attributes
    ----------
    seconds_each
        What a skeleton takes while all of the service's workers are busy; the least that was seen.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._workers = session.limits.of("skeleton")
        self.seconds_each = math.inf

    async def fetch(self, ids: IdArray, hand: Hand) -> IdArray:
        """Hand out what is there, and why what should be there cannot be had; the ids that the service has nothing of.

        A reply that cannot be read, or a failing request, is asked for again in halves until the guilty id is found.
        """
        isolation = Isolation(partial(self._ask, hand))
        try:
            await isolation.ask(ids)
        except FATAL:
            raise
        except CortexError as error:
            answered = np.concatenate([ids[:0], *(part for part, _ in isolation.found), list(isolation.errors)])
            rest = ids[~np.isin(ids, answered)]
            if isinstance(error, DecodeError) and len(rest) > 1:
                for half in np.array_split(rest, 2):
                    isolation.found.append((half, await self.fetch(half, hand)))
            else:
                for i in rest.tolist():
                    await hand(i, error)
        for i, reason in isolation.errors.items():
            await hand(i, reason)
        return np.concatenate([ids[:0], *(absent for _, absent in isolation.found)])

    async def _ask(self, hand: Hand, ids: IdArray) -> IdArray:
        """Hand out the skeletons of one request; the ids it says nothing about."""
        session = self._session
        old = ("old skeleton service", session.server, session.spec.datastack)
        if session.cache.peek(old):
            return await self._one_by_one(hand, ids)
        body = json.encode({"root_ids": ids, "generate_missing": False, "verbose_level": 0})
        begun = time.monotonic()
        try:  # the reply itself is not kept: what waits for a slow reader is large enough
            found = wire.decode_bulk((await session.send(endpoints.SKELETONS_CACHED, body=body, ids=ids)).body)
        except NotFoundError:  # (services before 0.23.9 have no such route; the others name no id in this way)
            await session.cache.keep(old, True, ttl=5 * MINUTES)
            return await self._one_by_one(hand, ids)
        self.seconds_each = min(self.seconds_each, (time.monotonic() - begun) / len(ids) / self._workers)
        absent = []
        for i in ids.tolist():
            if i in found:
                await hand(i, await decoded(wire.decode_hex, found.pop(i), i))
            else:
                absent.append(i)
        return np.array(absent, np.int64)

    async def _one_by_one(self, hand: Hand, ids: IdArray) -> IdArray:
        """As older services allow: ask which are there (a request for another one would wait until it is made)."""
        there = await exist(self._session, ids)
        for i in ids[there].tolist():
            try:
                reply = await self._session.send(endpoints.SKELETON, {"root": i}, ids=(i,))
            except FATAL:
                raise
            except CortexError as error:
                await hand(i, error)
            else:
                await hand(i, await decoded(wire.decode_flatdict, reply.body, i))
        return ids[~there]


async def exist(session: Session, ids: IdArray) -> BoolArray:
    """Whether the service has each of some distinct ids."""

    async def one(chunk: IdArray) -> BoolArray:
        body = json.encode({"root_ids": chunk, "skeleton_version": 4, "verbose_level": 0})
        found = json.decode((await session.send(endpoints.SKELETONS_EXIST, body=body, ids=chunk)).body)
        if isinstance(found, bool):  # the service's answer about a single id
            return np.full(len(chunk), found)
        if not isinstance(found, dict) or any(type(found.get(str(i))) is not bool for i in chunk.tolist()):
            raise DecodeError(
                "an answer about each id was promised", ids=chunk, endpoint=str(endpoints.SKELETONS_EXIST)
            )
        return np.array([found[str(i)] for i in chunk.tolist()], np.bool_)

    workers = session.limits.of("skeleton")
    parts = await fan_out(batches(ids, session.batch(endpoints.SKELETONS_EXIST)), one, workers)
    return np.concatenate(parts) if parts else np.zeros(0, np.bool_)
