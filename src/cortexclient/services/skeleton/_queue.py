"""Skeletons that are not there yet: queued once, and looked after until they are made, refused, or given up."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
import numpy as np

from ..._fanout import fan_out
from ..._outbox import Outbox
from ..._types import BoolArray, IdArray
from ..._wire import endpoints, json
from ...errors import DeadlineExceeded, DecodeError, NotFoundError, ServerRefusedError
from ...ids import batches, layer_of
from .._base import Session, segmentation_table
from ._bulk import exist

FIRST_LOOK, LONGEST_LOOK, LOOK_FACTOR = 1.0, 30.0, 1.5
"""Seconds between two looks whether queued skeletons are there: the service makes one in about a minute, and allows 100
looks a minute."""
PATIENCE: Final = 900.0
"""Seconds without any progress after which a queue is given up, where the caller named no time-out."""

Refusals = Callable[[], Awaitable[IdArray]]


class Queue:
    """What the service is asked to make for one call; what it cannot make is told in the call's outbox."""

    def __init__(self, session: Session, refusals: Refusals, outbox: Outbox[Any]) -> None:
        self._session, self._refusals, self._outbox = session, refusals, outbox

    async def roots_among(self, ids: IdArray) -> IdArray:
        """The ids of the roots' layer; it costs no request of its own, since the graph's description is cached."""
        session = self._session

        async def load() -> dict[str, Any]:
            return json.decode_as((await session.send(endpoints.SEGMENTATION_INFO)).body, dict)

        info = await session.cache.get(("segmentation_info", session.server, session.spec.datastack), load)
        top = int(info["graph"]["n_layers"])
        good: BoolArray = layer_of(ids) == top
        await self._outbox.fail(ids[~good], NotFoundError, f"no root: those are of layer {top}")
        return ids[good]

    async def make(self, missing: IdArray, arrived: Callable[[IdArray], Awaitable[None]]) -> None:
        """Have skeletons made, and say of which it is there as soon as they are."""
        ids = await self._makeable(missing)
        if not len(ids):
            return
        await queue(self._session, ids)
        delay, progress_at = FIRST_LOOK, time.monotonic()
        while len(ids):
            await anyio.sleep(delay)
            there = await exist(self._session, ids)
            if there.any():
                await arrived(ids[there])
                progress_at = time.monotonic()
            ids = self._outbox.open(ids)
            ids = await self._without_refused(ids) if len(ids) else ids
            if time.monotonic() - progress_at > PATIENCE:
                text = f"queued, and not made within {PATIENCE:g} seconds: ask again later"
                await self._outbox.fail(ids, DeadlineExceeded, text)
                return
            delay = min(delay * LOOK_FACTOR, LONGEST_LOOK)

    async def _makeable(self, missing: IdArray) -> IdArray:
        """What the service can make a skeleton of. Queueing anything else would end on its list of refused roots."""
        session = self._session
        if not await self._has_level2():
            text = f"{session.spec.datastack} has no level-2 cache, of which skeletons are made"
            await self._outbox.fail(missing, NotFoundError, text)
            return missing[:0]
        missing = await self._without_refused(missing)

        async def valid(chunk: IdArray) -> IdArray:
            body = json.encode({"node_ids": chunk})
            reply = await session.send(endpoints.VALID_NODES, query={"start_timestamp": "0"}, body=body, ids=chunk)
            return json.decode_id_list(reply.body, "valid_roots")

        chunks = batches(missing, session.batch(endpoints.VALID_NODES))
        known = await fan_out(chunks, valid, session.limits.of("chunkedgraph"))
        good = np.isin(missing, np.concatenate(known)) if known else np.zeros(0, np.bool_)
        await self._outbox.fail(missing[~good], NotFoundError, "there is no such root")
        return missing[good]

    async def _has_level2(self) -> bool:
        """Deployments too old to tell have no cache."""
        try:
            tables = json.decode_as((await self._session.send(endpoints.L2_TABLES)).body, dict)
        except NotFoundError:
            return False
        return segmentation_table(await self._session.record()) in tables

    async def _without_refused(self, ids: IdArray) -> IdArray:
        refused = np.isin(ids, await self._refusals())
        text = "the skeleton service refuses this root: it is on its list of those it could not make"
        endpoint = str(endpoints.SKELETON_REFUSALS)
        await self._outbox.fail(ids[refused], ServerRefusedError, text, status=400, endpoint=endpoint)
        return ids[~refused]


async def queue(session: Session, ids: IdArray) -> float:
    """Have skeletons made; the service's guess of the seconds."""

    async def one(chunk: IdArray) -> float:
        body = json.encode({"root_ids": chunk, "skeleton_version": 4, "verbose_level": 0})
        seconds = json.decode((await session.send(endpoints.SKELETONS_GENERATE, body=body, ids=chunk)).body)
        if not isinstance(seconds, int | float):
            raise DecodeError(f"seconds were promised: {seconds!r:.60}", ids=chunk)
        return float(seconds)

    return sum(await fan_out(batches(ids, session.batch(endpoints.SKELETONS_GENERATE)), one, workers=2))
