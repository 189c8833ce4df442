"""Skeletons from the service's bucket, past the service: one file each, under a token that the service hands out."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np

from ..._fanout import FATAL, fan_out
from ..._types import IdArray
from ..._wire import endpoints, json
from ..._wire import skeletons as wire
from ...config import STORAGE
from ...errors import CortexError, DecodeError, ServerRefusedError
from ...skeletons import Skeleton
from .._base import MINUTES, Session
from ._bulk import Hand, decoded

USED: Final = 0.9
"""Share of a token's life after which it is renewed."""
TOKENS: Final = 3
"""Tokens that one file is tried with: one may end, or be taken back, while the request is under way."""


@dataclass(frozen=True, slots=True)
class Pass:
    """What opens the bucket, until when, and where the file of a root lies in it; without a token it stays shut."""

    until: float
    """UNIX seconds after which the service is asked again."""
    token: str = ""
    bucket: str = ""
    path_template: str = ""

    @classmethod
    def read(cls, body: bytes) -> Pass:
        """From the service's answer; an expiry without time zone is UTC (SkeletonService 0.23.11)."""
        told, now = json.decode(body), time.time()
        try:
            until = math.inf
            if told["expiry"]:
                ends = datetime.fromisoformat(told["expiry"])
                ends = ends if ends.tzinfo else ends.replace(tzinfo=UTC)
                until = now + USED * (ends.timestamp() - now)
            return cls(until, str(told["token"]), str(told["bucket"]), str(told["path_template"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DecodeError(f"a token to the bucket was promised ({error!r})") from error


class Bucket:
    """The files of the service's bucket, as far as it opens to us."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key = ("skeleton bucket", session.server, session.spec.datastack)
        self._workers = max(1, session.limits.of(STORAGE) // session.limits.of("skeleton"))

    async def opens(self) -> bool:
        """Whether the service hands out tokens (older ones do not, nor do those without a Google account)."""
        return bool((await self._pass()).token)

    async def fetch(self, ids: IdArray, hand: Hand) -> IdArray:
        """Hand out the skeletons whose files are there, or cannot be read; the ids to ask the service for."""
        absent: list[int] = []

        async def one(root_id: int) -> None:
            found = await self._skeleton(root_id)
            if isinstance(found, DecodeError):  # an accident on the way, perhaps
                found = await self._skeleton(root_id)
            if found is None:
                absent.append(root_id)
            else:
                await hand(root_id, found)

        await fan_out(ids.tolist(), one, self._workers)
        return np.array(absent, np.int64)

    async def _skeleton(self, root_id: int) -> Skeleton | DecodeError | None:
        body = await self._read(root_id)
        return None if body is None else await decoded(wire.decode_h5, body, root_id)

    async def _read(self, root_id: int) -> bytes | None:
        """A file; None if it cannot be had here, for whatever reason."""
        session = self._session
        for _ in range(TOKENS):
            key = await self._pass()
            if not key.token:
                break
            url = session.private_object_url(key.bucket, key.path_template.format(rid=root_id))
            headers = {"Authorization": f"Bearer {key.token}"}
            try:
                return (await session.transport.get_url(url, headers=headers, query={"alt": "media"})).body
            except FATAL:
                raise
            except CortexError as error:
                if not isinstance(error, ServerRefusedError) or error.status != 401:
                    break
            await self._drop(key)
        return None

    async def _pass(self) -> Pass:
        """The token at hand, or a new one."""
        cache = self._session.cache
        key = await cache.get(self._key, self._ask)
        if time.time() < key.until:
            return key
        await self._drop(key)
        return await cache.get(self._key, self._ask)

    async def _ask(self) -> Pass:
        try:
            body = json.encode({"verbose_level": 0})
            return Pass.read((await self._session.send(endpoints.SKELETON_TOKEN, body=body)).body)
        except FATAL:
            raise
        except CortexError:
            return Pass(until=time.time() + 5 * MINUTES)

    async def _drop(self, key: Pass) -> None:
        """Forget a token, unless somebody else has renewed it already."""
        if self._session.cache.peek(self._key) is key:
            await self._session.cache.forget(self._key)
