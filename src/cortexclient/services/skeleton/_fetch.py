"""How many skeletons arrive: from our cache, from the cheaper one of two ways, and what is not there yet is made."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Final, Literal

import numpy as np

from ..._fanout import fan_out
from ..._outbox import Outbox
from ..._transport.disk import Codec
from ..._types import IdArray
from ..._wire import endpoints
from ..._wire.skeletons import from_archive, to_archive
from ...errors import CortexError, CortexUsageError, MissingDependency, NotFoundError
from ...ids import batches
from ...skeletons import Skeleton
from .._base import Session
from ._bucket import Bucket
from ._bulk import BulkReplies, Hand, exist
from ._queue import Queue, Refusals

SKELETONS: Final = Codec(to_archive, from_archive)

Method = Literal["auto", "service", "bucket"]
BUCKET_SECONDS: Final = 0.003
"""What a file of the bucket takes of our own CPU, which bounds that way (measured: 1.9 ms to decode, the rest HTTP)."""


def check_method(method: Method) -> None:
    """Refuse a way that there is not.

    Raises
    ------
    CortexUsageError, MissingDependency
        No such way; none without h5py.
    """
    if method not in ("auto", "service", "bucket"):
        raise CortexUsageError(f"method={method!r}: give 'auto', 'service' or 'bucket'")
    if method == "bucket" and find_spec("h5py") is None:
        raise MissingDependency("h5py", "skeleton", "method='bucket'")


class Sources:
    """What is there, by the cheaper way as far as that is known: the first replies of the service tell."""

    def __init__(self, session: Session, method: Method) -> None:
        self._method, self._bulk, self._bucket = method, BulkReplies(session), Bucket(session)

    async def fetch(self, ids: IdArray, hand: Hand) -> IdArray:
        """Hand out what is there; the ids of which there is nothing."""
        if await self._past_the_service():
            ids = await self._bucket.fetch(ids, hand)
        return await self._bulk.fetch(ids, hand) if len(ids) else ids

    async def _past_the_service(self) -> bool:
        if self._method == "auto":
            seen = self._bulk.seconds_each
            return BUCKET_SECONDS < seen < np.inf and find_spec("h5py") is not None and await self._bucket.opens()
        return self._method == "bucket"


class Fetch:
    """The work of one call.

    Parameters
    ----------
    refusals
        Lists the roots that the service refuses.
    generate
        Have those made that are not there.
    version
        Of the skeletons that are handed out.
    """

    def __init__(self, session: Session, refusals: Refusals, *, generate: bool, method: Method, version: int) -> None:
        self._session, self._refusals, self._generate, self._version = session, refusals, generate, version
        self._sources = Sources(session, method)

    async def run(self, outbox: Outbox[Skeleton], ids: IdArray) -> None:
        """Produce an outcome for each id."""
        queue = Queue(self._session, self._refusals, outbox)
        await self._there(outbox, await queue.roots_among(ids))
        missing = outbox.open(ids)
        if not len(missing):
            return
        if not self._generate:
            text = "there is no skeleton yet: generate=True has the service make one"
            await outbox.fail(missing, NotFoundError, text)
            return

        async def arrived(made: IdArray) -> None:
            await self._there(outbox, made)

        await queue.make(missing, arrived)

    async def _there(self, outbox: Outbox[Skeleton], ids: IdArray) -> None:
        """Hand out what is kept here, and what is there."""
        cache, asked = self._session.cache, []
        for i in ids.tolist():
            kept: Skeleton | None = await cache.recall(self._key(i), SKELETONS)
            if kept is None:
                asked.append(i)
            else:
                await outbox.done(i, kept.as_version(self._version))

        async def hand(root_id: int, found: Skeleton | CortexError) -> None:
            found = _without_stub(found)
            if isinstance(found, CortexError):
                await outbox.failed(root_id, found)
            else:
                await cache.keep(self._key(root_id), found, codec=SKELETONS)
                await outbox.done(root_id, found.as_version(self._version))

        async def fetch(chunk: IdArray) -> None:
            await self._sources.fetch(chunk, hand)

        workers = self._session.limits.of("skeleton")
        size = _balanced(len(asked), self._session.batch(endpoints.SKELETONS_CACHED), workers)
        await fan_out(batches(np.array(asked, np.int64), size), fetch, workers)

    def _key(self, root_id: int) -> tuple[object, ...]:
        return ("skeleton", self._session.server, self._session.spec.datastack, root_id)


def _without_stub(found: Skeleton | CortexError) -> Skeleton | CortexError:
    """Refuse what is no form: one vertex for several chunks (a cell of a single chunk has but one)."""
    if isinstance(found, CortexError) or len(found.vertices) > 1 or len(found.mesh_to_skel_map) <= 1:
        return found
    text = f"its skeleton is a stub: one vertex for all of its {len(found.mesh_to_skel_map):,} level-2 chunks"
    return NotFoundError(text, ids=[found.root_id])


def _balanced(n: int, most: int, workers: int) -> int:
    """A chunk size of at most ``most`` that fills whole waves of workers."""
    waves = -(-n // (most * workers))
    return max(1, -(-n // max(1, waves * workers)))


Presence = Literal["there", "made"]


async def ensure(session: Session, refusals: Refusals, outbox: Outbox[Presence], ids: IdArray) -> None:
    """Have those made that are not there, and fetch none."""
    queue = Queue(session, refusals, outbox)
    roots = await queue.roots_among(ids)
    there = await exist(session, roots)
    for i in roots[there].tolist():
        await outbox.done(i, "there")

    async def arrived(made: IdArray) -> None:
        for i in made.tolist():
            await outbox.done(i, "made")

    if not there.all():
        await queue.make(roots[~there], arrived)
