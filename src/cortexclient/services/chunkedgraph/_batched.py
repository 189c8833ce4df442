"""How the chunkedgraph is asked about many ids: in batches, joined where they are small, apart where they fail."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..._coalesce import FEW, Found
from ..._fanout import fan_out, plan
from ..._isolate import Isolation, raise_spoiled
from ..._types import BoolArray, IdArray
from ..._wire import endpoints, json
from ..._wire.endpoints import Endpoint
from ...errors import CortexError, NotFoundError, ServerError, ServerRefusedError
from ...ids import batches, layer_of, unique_ids
from ...progress import Reporter
from .._base import Service, Session

T = TypeVar("T")
Values = npt.NDArray[Any]
Parts = list[tuple[IdArray, T]]
"""Ids, and what was answered about them."""

ALL_TIMES = {"start_timestamp": "0"}
"""For valid_nodes, in whose words a node is valid if anything was written about it since."""
FAIL_FOR_UNKNOWN = (
    endpoints.ROOT_TIMESTAMPS,
    endpoints.LINEAGE_GRAPH,
    endpoints.PAST_ID_MAPPING,
    endpoints.TABULAR_CHANGE_LOG,
)
"""One id that does not exist makes them fail, most often with a bare 500."""


class BatchedService(Service):
    """Calls about many nodes of the graph.

    Parameters
    ----------
    spared
        Takes the errors of single ids, which then fail no call: their answers are 0, False or missing.
    """

    def __init__(self, session: Session, spared: dict[int, CortexError] | None = None) -> None:
        super().__init__(session)
        self._spared = spared

    async def _map(
        self,
        endpoint: Endpoint,
        query: Mapping[str, str],
        ids: IdArray,
        call: Callable[[IdArray, Mapping[str, str]], Awaitable[Values]],
        *,
        dtype: npt.DTypeLike = np.int64,
        reporter: Reporter | None = None,
    ) -> Values:
        """Ask for one value of each distinct id; in the order of ``ids``.

        Calls about few ids travel together with others like them.
        """
        unique, inverse = unique_ids(ids)
        load = partial(self._load, endpoint, query, call, dtype)
        if 0 < len(unique) <= FEW:
            found = await self._session.coalescer.ask((endpoint.name, *query.items()), unique, load)
            if reporter:
                reporter.add(len(unique) - len(found.errors), len(found.errors))
        else:
            found = await load(unique, reporter)
        if found.errors:
            good = ~np.isin(unique, list(found.errors))
            self._settle(found.errors, _by_id([(unique[good], found.values[good])]))
        return found.values[inverse]  # type: ignore[no-any-return]

    async def _load(  # noqa: PLR0917 (filled in from the left)
        self,
        endpoint: Endpoint,
        query: Mapping[str, str],
        call: Callable[[IdArray, Mapping[str, str]], Awaitable[Values]],
        dtype: npt.DTypeLike,
        unique: IdArray,
        reporter: Reporter | None = None,
    ) -> Found:
        session = self._session
        chunks = plan(unique, session.batch(endpoint), session.limits.of(endpoint.service))
        isolation = await self._isolated(endpoint, chunks, lambda chunk: call(chunk, query), _by_id, reporter)
        values = np.zeros(len(unique), dtype)
        for ids, answers in isolation.found:
            values[np.searchsorted(unique, ids)] = answers
        return Found(values, isolation.errors)

    async def _each(
        self,
        endpoint: Endpoint,
        ids: IdArray,
        call: Callable[[IdArray], Awaitable[dict[int, T]]],
        reporter: Reporter | None = None,
    ) -> dict[int, T]:
        """Ask for something of each distinct id; in the order of ``ids``."""
        chunks = batches(unique_ids(ids)[0], self._session.batch(endpoint))
        found = await self._ask(endpoint, chunks, call, by_id, reporter)
        return {i: found[i] for i in dict.fromkeys(ids.tolist()) if i in found}

    async def _ask(
        self,
        endpoint: Endpoint,
        chunks: Iterable[IdArray],
        call: Callable[[IdArray], Awaitable[T]],
        join: Callable[[Parts[T]], T],
        reporter: Reporter | None = None,
    ) -> T:
        """Ask for something about batches of ids, and join it."""
        isolation = await self._isolated(endpoint, chunks, call, join, reporter)
        if isolation.errors:
            self._settle(isolation.errors, join(isolation.found))
        return join(isolation.found)

    async def _isolated(
        self,
        endpoint: Endpoint,
        chunks: Iterable[IdArray],
        call: Callable[[IdArray], Awaitable[T]],
        join: Callable[[Parts[T]], object],
        reporter: Reporter | None,
    ) -> Isolation[T]:
        """All batches, smaller ones where the server fails; an error that is about no ids keeps what was found."""

        async def explain(ids: IdArray) -> NotFoundError | None:
            return await self._unknown_among(ids, endpoint)

        isolation = Isolation(call, explain if endpoint in FAIL_FOR_UNKNOWN else None)

        async def one(chunk: IdArray) -> None:
            await isolation.ask(chunk)
            if reporter:
                failed = int(np.isin(chunk, list(isolation.errors)).sum()) if isolation.errors else 0
                reporter.add(len(chunk) - failed, failed)

        try:
            await fan_out(chunks, one, self._session.limits.of(endpoint.service))
        except CortexError as error:
            error.partial = join(isolation.found)
            raise
        return isolation

    def _settle(self, errors: Mapping[int, CortexError], partial: object) -> None:
        if self._spared is None:
            raise_spoiled(errors, partial)
        self._spared.update(errors)

    async def _existing(self, ids: IdArray) -> BoolArray:
        """Whether each id names a node of the graph. Ids below one are not worth asking."""
        asked, _ = unique_ids(ids[ids > 0])
        known = asked[await self._map(endpoints.VALID_NODES, ALL_TIMES, asked, self._valid, dtype=np.bool_)]
        return np.isin(ids, known)

    async def _valid(self, chunk: IdArray, query: Mapping[str, str]) -> BoolArray:
        # the service wants a GET with a body
        body = json.encode({"node_ids": chunk})
        reply = await self._session.send(endpoints.VALID_NODES, query=query, body=body, ids=chunk)
        return np.isin(chunk, json.decode_id_list(reply.body, "valid_roots"))

    async def _unknown_among(self, ids: IdArray, endpoint: Endpoint) -> NotFoundError | None:
        """The error about those ids that ``endpoint`` cannot know; None if there are none, or nobody can tell."""
        try:
            exists = await self._valid(ids, ALL_TIMES)
        except (NotFoundError, ServerError, ServerRefusedError):
            return None
        missing = ids[~exists | (layer_of(ids) < 2)]
        return no_such_nodes(missing, endpoint) if len(missing) else None


def no_such_nodes(ids: IdArray, endpoint: Endpoint) -> NotFoundError:
    """Make the error about ids that are not there."""
    text = (
        "the graph has no such nodes above its supervoxels (client.chunkedgraph.is_valid_nodes tells which ids exist)"
    )
    return NotFoundError(text, ids=ids, endpoint=str(endpoint))


def _by_id(found: Parts[Values]) -> dict[int, Any]:
    return {i: value for ids, values in found for i, value in zip(ids.tolist(), values.tolist(), strict=True)}


def by_id(found: Parts[dict[int, T]]) -> dict[int, T]:
    """Join answers that are given by id."""
    return {i: value for _, values in found for i, value in values.items()}
