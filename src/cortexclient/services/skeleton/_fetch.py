"""How many skeletons arrive: from the bucket in small chunks at once; the missing are queued once and waited for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np
from anyio.streams.memory import MemoryObjectSendStream

from ..._fanout import FATAL, fan_out, first_error, running
from ..._isolate import Isolation
from ..._types import BoolArray, IdArray
from ..._wire import endpoints, json
from ..._wire import skeletons as wire
from ...errors import CortexError, DeadlineExceeded, DecodeError, NotFoundError, ServerRefusedError
from ...ids import batches, layer_of
from ...progress import ProgressLike, Reporter
from ...results import Outcome
from ...skeletons import Skeleton
from .._base import Session, segmentation_table

AHEAD: Final = 50
"""Outcomes that may wait for a slow reader."""
FIRST_LOOK, LONGEST_LOOK, LOOK_FACTOR = 1.0, 30.0, 1.5
"""Seconds between two looks whether queued skeletons are there: the service makes one in about a minute, and allows 100
looks a minute."""
PATIENCE: Final = 900.0
"""Seconds without any progress after which a queue is given up, where the caller named no time-out."""
IN_THREAD: Final = 2_000_000
"""Hexadecimal characters beyond which a skeleton is decoded in a thread, not to hold up the event loop."""

Refusals = Callable[[], Awaitable[IdArray]]


@asynccontextmanager
async def outcomes(
    session: Session,
    ids: IdArray,
    refusals: Refusals,
    *,
    generate: bool,
    progress: ProgressLike,
    timeout: float | None,
) -> AsyncIterator[AsyncIterator[Outcome[Skeleton]]]:
    """One outcome for each distinct id, as they arrive; within ``timeout`` seconds, or as `DeadlineExceeded`."""
    distinct = np.array(list(dict.fromkeys(ids.tolist())), np.int64)
    send, receive = anyio.create_memory_object_stream[Outcome[Skeleton]](AHEAD)
    with running(None, progress, len(distinct)) as reporter:
        fetch = Fetch(session, refusals, send, reporter, set(distinct.tolist()))
        with first_error():
            async with anyio.create_task_group() as group, receive:
                group.start_soon(fetch.run, distinct, generate, timeout)
                yield receive
                group.cancel_scope.cancel()


@dataclass(slots=True)
class Fetch:
    """The work of one call. ``left`` are the ids without an outcome."""

    session: Session
    refusals: Refusals
    send: MemoryObjectSendStream[Outcome[Skeleton]]
    reporter: Reporter
    left: set[int]

    async def run(self, ids: IdArray, generate: bool, timeout: float | None) -> None:
        """Produce an outcome for each id, then close the stream."""
        async with self.send:
            with anyio.move_on_after(timeout) as scope:
                await self._produce(ids, generate)
            if scope.cancelled_caught:
                text = f"no skeleton within timeout={timeout:g} seconds: if it is being made, ask again later"
                await self._fail(np.array(sorted(self.left), np.int64), DeadlineExceeded, text)

    async def _produce(self, ids: IdArray, generate: bool) -> None:
        missing = await self._from_bucket(await self._roots_among(ids))
        if not len(missing):
            return
        if not generate:
            text = "there is no skeleton yet: generate=True has the service make one"
            await self._fail(missing, NotFoundError, text)
            return
        await self._wait_for(await self._makeable(missing))

    # -- outcomes ----------------------------------------------------------------------------------------------------

    async def _done(self, outcome: Outcome[Skeleton]) -> None:
        self.left.discard(outcome.id)
        self.reporter.add(done=outcome.ok, failed=not outcome.ok)
        await self.send.send(outcome)

    async def _fail(self, ids: IdArray, kind: type[CortexError], text: str, **where: Any) -> None:
        for i in ids.tolist():
            await self._done(Outcome(i, error=kind(text, ids=[i], **where)))

    # -- what can be had ---------------------------------------------------------------------------------------------

    async def _roots_among(self, ids: IdArray) -> IdArray:
        """The ids of the roots' layer; it costs no request of its own, since the graph's description is cached."""

        async def load() -> int:
            return int(json.decode((await self.session.send(endpoints.SEGMENTATION_INFO)).body)["graph"]["n_layers"])

        key = ("n_layers", self.session.server, self.session.spec.datastack)
        top: int = await self.session.cache.get(key, load)
        good: BoolArray = layer_of(ids) == top
        await self._fail(ids[~good], NotFoundError, f"no root: those are of layer {top}")
        return ids[good]

    async def _makeable(self, missing: IdArray) -> IdArray:
        """What the service can make a skeleton of. Queueing anything else would end on its list of refused roots."""
        session, record = self.session, await self.session.record()
        tables = json.decode((await session.send(endpoints.L2_TABLES)).body)
        if segmentation_table(record) not in tables:
            text = f"{session.spec.datastack} has no level-2 cache, of which skeletons are made"
            await self._fail(missing, NotFoundError, text)
            return missing[:0]
        missing = await self._without_refused(missing)

        async def valid(chunk: IdArray) -> IdArray:
            body = json.encode({"node_ids": chunk})
            reply = await session.send(endpoints.VALID_NODES, query={"start_timestamp": "0"}, body=body, ids=chunk)
            return json.decode_id_list(reply.body, "valid_roots")

        chunks = batches(missing, session.batch(endpoints.VALID_NODES))
        known = await fan_out(chunks, valid, session.limits.of("chunkedgraph"))
        good = np.isin(missing, np.concatenate(known)) if known else np.zeros(0, np.bool_)
        await self._fail(missing[~good], NotFoundError, "there is no such root")
        return missing[good]

    async def _without_refused(self, ids: IdArray) -> IdArray:
        refused = np.isin(ids, await self.refusals())
        text = "the skeleton service refuses this root: it is on its list of those it could not make"
        endpoint = str(endpoints.SKELETON_REFUSALS)
        await self._fail(ids[refused], ServerRefusedError, text, status=400, endpoint=endpoint)
        return ids[~refused]

    # -- the bucket --------------------------------------------------------------------------------------------------

    async def _from_bucket(self, ids: IdArray) -> IdArray:
        """Hand out what is cached here or there; the ids for which the service has nothing."""
        session = self.session
        known = np.array([session.cache.holds(self._key(i)) for i in ids.tolist()], np.bool_)
        for i in ids[known].tolist():
            skeleton: Skeleton = await session.cache.get(self._key(i), partial(self._single, i))
            await self._done(Outcome(i, value=skeleton))
        asked, workers = ids[~known], session.limits.of("skeleton")
        size = _balanced(len(asked), session.batch(endpoints.SKELETONS_CACHED), workers)
        absent = await fan_out(batches(asked, size), self._chunk, workers)
        return np.concatenate(absent) if absent else asked

    async def _chunk(self, ids: IdArray) -> IdArray:
        isolation = Isolation(self._ask)
        try:
            await isolation.ask(ids)
        except FATAL:
            raise
        except CortexError as error:
            rest = np.array([i for i in ids.tolist() if i in self.left], np.int64)
            if isinstance(error, DecodeError) and len(rest) > 1:  # one skeleton may have spoiled the whole reply
                return np.concatenate([await self._chunk(half) for half in np.array_split(rest, 2)])
            for i in rest.tolist():
                await self._done(Outcome(i, error=error))
            return ids[:0]
        for i, reason in isolation.errors.items():
            await self._done(Outcome(i, error=reason))
        return np.concatenate([ids[:0], *(absent for _, absent in isolation.found)])

    async def _ask(self, ids: IdArray) -> IdArray:
        """Hand out the skeletons of one request; the ids it has nothing about."""
        # the reply leaves out what is not there, and says nothing of why
        body = json.encode({"root_ids": ids, "generate_missing": False, "verbose_level": 0})
        found = wire.decode_bulk((await self.session.send(endpoints.SKELETONS_CACHED, body=body, ids=ids)).body)
        for i in ids.tolist():
            if i in found:
                await self._decoded(i, found.pop(i))
        return np.array([i for i in ids.tolist() if i in self.left], np.int64)

    async def _decoded(self, root_id: int, text: str) -> None:
        try:
            if len(text) > IN_THREAD:
                skeleton = await anyio.to_thread.run_sync(wire.decode_hex, text, root_id)
            else:
                skeleton = wire.decode_hex(text, root_id)
        except DecodeError as error:
            await self._done(Outcome(root_id, error=error))
            return

        async def load() -> Skeleton:
            return skeleton

        await self.session.cache.get(self._key(root_id), load)
        await self._done(Outcome(root_id, value=skeleton))

    async def _single(self, root_id: int) -> Skeleton:
        """One that has left our cache just now."""
        body = json.encode({"root_ids": [root_id], "generate_missing": False, "verbose_level": 0})
        reply = await self.session.send(endpoints.SKELETONS_CACHED, body=body, ids=(root_id,))
        found = wire.decode_bulk(reply.body)
        if root_id not in found:
            raise NotFoundError("the service does not have its skeleton any more", ids=[root_id])
        return wire.decode_hex(found[root_id], root_id)

    def _key(self, root_id: int) -> tuple[object, ...]:
        return ("skeleton", self.session.server, self.session.spec.datastack, root_id)

    # -- the queue ---------------------------------------------------------------------------------------------------

    async def _wait_for(self, ids: IdArray) -> None:
        """Queue skeletons, and look after them at growing intervals until each is there, refused, or given up."""
        if not len(ids):
            return
        await queue(self.session, ids)
        delay, progress_at = FIRST_LOOK, time.monotonic()
        while len(ids):
            await anyio.sleep(delay)
            there = await exist(self.session, ids)
            if there.any():
                await self._from_bucket(ids[there])
                progress_at = time.monotonic()
            ids = np.array([i for i in ids.tolist() if i in self.left], np.int64)
            ids = await self._without_refused(ids) if len(ids) else ids
            if time.monotonic() - progress_at > PATIENCE:
                text = f"queued, and not made within {PATIENCE:g} seconds: ask again later"
                await self._fail(ids, DeadlineExceeded, text)
                return
            delay = min(delay * LOOK_FACTOR, LONGEST_LOOK)


def _balanced(n: int, most: int, workers: int) -> int:
    """A chunk size of at most ``most`` that fills whole waves of workers."""
    waves = -(-n // (most * workers))
    return max(1, -(-n // max(1, waves * workers)))


async def queue(session: Session, ids: IdArray) -> float:
    """Have skeletons made; the service's guess of the seconds."""

    async def one(chunk: IdArray) -> float:
        body = json.encode({"root_ids": chunk, "skeleton_version": 4, "verbose_level": 0})
        return float(json.decode((await session.send(endpoints.SKELETONS_GENERATE, body=body, ids=chunk)).body))

    return sum(await fan_out(batches(ids, session.batch(endpoints.SKELETONS_GENERATE)), one, workers=2))


async def exist(session: Session, ids: IdArray) -> BoolArray:
    """Whether the service has each of some distinct ids."""

    async def one(chunk: IdArray) -> BoolArray:
        body = json.encode({"root_ids": chunk, "skeleton_version": 4, "verbose_level": 0})
        found = json.decode((await session.send(endpoints.SKELETONS_EXIST, body=body, ids=chunk)).body)
        if isinstance(found, bool):  # the service's answer about a single id
            return np.full(len(chunk), found)
        if not isinstance(found, dict) or any(str(i) not in found for i in chunk.tolist()):
            raise DecodeError(
                "an answer about each id was promised", ids=chunk, endpoint=str(endpoints.SKELETONS_EXIST)
            )
        return np.array([found[str(i)] for i in chunk.tolist()], np.bool_)

    workers = session.limits.of("skeleton")
    parts = await fan_out(batches(ids, session.batch(endpoints.SKELETONS_EXIST)), one, workers)
    return np.concatenate(parts) if parts else np.zeros(0, np.bool_)
