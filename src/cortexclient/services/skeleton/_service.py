"""The methods of the skeleton service."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..._fanout import running
from ..._outbox import Work, outcomes
from ..._types import IdArray, Ids
from ..._wire import endpoints, json
from ..._wire import skeletons as wire
from ...errors import DecodeError
from ...ids import as_ids, unique_ids
from ...progress import ProgressLike
from ...results import Outcome, Results, Stream
from ...skeletons import Skeleton, check_version
from .._base import Service
from ._bulk import exist
from ._fetch import Fetch, Method, Presence, check_method, ensure
from ._queue import queue

T = TypeVar("T")


class AsyncSkeletons(Service):
    """Skeletons as plain arrays; method names follow caveclient's ``SkeletonClient`` where it has them.

    Only version 4 is stored by the service, and asked here: earlier versions are the same without the level-2 ids.
    """

    async def get_version(self) -> str:
        """Version of the service.

        Examples
        --------
        >>> await client.skeleton.get_version()
        '0.23.11'
        """
        return json.decode_as((await self._session.send(endpoints.SKELETON_VERSION)).body, str)

    async def get_versions(self) -> tuple[int, ...]:
        """Versions of skeletons that the service knows; -1 means the newest, 0 the one for Neuroglancer.

        Examples
        --------
        >>> await client.skeleton.get_versions()
        (-1, 0, 1, 2, 3, 4)
        """
        numbers = json.decode_as((await self._session.send(endpoints.SKELETON_VERSIONS)).body, list)
        if not all(isinstance(number, int) for number in numbers):
            raise DecodeError(f"the numbers of versions were promised: {numbers!r:.60}")
        return tuple(numbers)

    async def get_skeleton(
        self,
        root_id: int,
        *,
        skeleton_version: int = 4,
        generate: bool = True,
        method: Method = "auto",
        timeout: float | None = None,
    ) -> Skeleton:
        """Fetch one skeleton.

        Parameters
        ----------
        skeleton_version, method
            As for :meth:`get_skeletons`.
        generate
            If there is none yet, have it made, and wait for it (about a minute).
        timeout
            Seconds for the whole call.

        Raises
        ------
        NotFoundError
            No such root, or it has no skeleton and ``generate`` is off, or the skeleton is a stub: one vertex for
            several level-2 chunks.
        ServerRefusedError
            The service could not make one before, and does not try again.
        DeadlineExceeded
            It was not made in time; it may be there later.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> skeleton.vertices.shape, skeleton.root_id
        ((6, 3), 864691134885645050)
        """
        one = int(as_ids(root_id, "root_id")[0])
        found = await self.get_skeletons(
            [one], skeleton_version=skeleton_version, generate=generate, method=method, timeout=timeout
        )
        return found[one]

    async def get_skeletons(
        self,
        root_ids: Ids,
        *,
        skeleton_version: int = 4,
        generate: bool = True,
        method: Method = "auto",
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Results[Skeleton]:
        """Fetch many skeletons: those that are there in parallel chunks, the others made once and waited for.

        Parameters
        ----------
        skeleton_version
            4 (-1 means it, too); 3, 2 and 1 (0 means 2) are the same without ``lvl2_ids``.
        generate
            Have those made that are not there yet. Ids that are no roots and roots that the service refuses are sorted
            out before.
        method
            The way of what is there. ``"service"``: in its replies, of some skeletons each. ``"bucket"``: as files from
            its bucket, 128 at once, by a token that the service gives (needs h5py); what the bucket does not give comes
            from the service. ``"auto"``: the service, but the bucket for the rest of many once the first replies show
            that it will be faster.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call, after which the outcome of what is not
            there is a :class:`DeadlineExceeded`.

        Returns
        -------
        Results of Skeleton
            In input order; errors by id, as of :meth:`get_skeleton`.

        Examples
        --------
        >>> found = await client.skeleton.get_skeletons([864691134885645050, 7])
        >>> found.status()
        {'ok': 1, 'NotFoundError': 1}
        >>> len(found[864691134885645050].vertices)
        6
        """
        ids = as_ids(root_ids, "root_ids")
        stream = self.stream_skeletons(
            ids,
            skeleton_version=skeleton_version,
            generate=generate,
            method=method,
            progress=progress,
            timeout=timeout,
        )
        return await _collected(stream, ids)

    def stream_skeletons(
        self,
        root_ids: Ids,
        *,
        skeleton_version: int = 4,
        generate: bool = True,
        method: Method = "auto",
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Stream[Skeleton]:
        """Fetch many skeletons, handing out each outcome as it arrives, in bounded memory.

        Parameters
        ----------
        skeleton_version, generate, method, progress, timeout
            As for :meth:`get_skeletons`.

        Returns
        -------
        Stream of Skeleton
            ``async with`` it, then ``async for``; one outcome for each distinct id, in no particular order.

        Examples
        --------
        >>> async with client.skeleton.stream_skeletons([864691134885645050, 7]) as outcomes:
        ...     sorted([(outcome.id, outcome.ok) async for outcome in outcomes])
        [(7, False), (864691134885645050, True)]
        """
        ids, version = as_ids(root_ids, "root_ids"), check_version(skeleton_version)
        check_method(method)
        fetch = Fetch(self._session, self.get_refusal_list, generate=generate, method=method, version=version)
        return _stream(ids, fetch.run, progress, timeout)

    async def ensure_skeletons(
        self, root_ids: Ids, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> Results[Presence]:
        """Have those skeletons made that are not there yet, and wait until they are; none is fetched.

        Parameters
        ----------
        progress, timeout
            As for :meth:`get_skeletons`.

        Returns
        -------
        Results of str
            ``"there"`` (it was) or ``"made"``, in input order; errors by id, as of :meth:`get_skeleton`.

        Examples
        --------
        >>> ready = await client.skeleton.ensure_skeletons([864691134885645050])
        >>> ready.status()
        {'ok': 1}
        """
        ids = as_ids(root_ids, "root_ids")
        work: Work[Presence] = partial(ensure, self._session, self.get_refusal_list)
        return await _collected(_stream(ids, work, progress, timeout), ids)

    async def skeletons_exist(
        self, root_ids: Ids, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> dict[int, bool]:
        """Tell which roots have a skeleton that is there at once.

        Returns
        -------
        dict of bool
            One entry for each distinct id, in the order of the input.

        Examples
        --------
        >>> await client.skeleton.skeletons_exist([864691134885645050, 7])
        {864691134885645050: True, 7: False}
        """
        ids = as_ids(root_ids, "root_ids")
        unique, _ = unique_ids(ids)
        with running(timeout, progress, len(unique)) as reporter:
            found = dict(zip(unique.tolist(), (await exist(self._session, unique)).tolist(), strict=True))
            reporter.add(len(unique))
        return {i: found[i] for i in dict.fromkeys(ids.tolist())}

    async def generate_bulk_skeletons_async(self, root_ids: Ids, *, timeout: float | None = None) -> float:
        """Have skeletons made, without waiting for them.

        Ids that are no roots end on the service's list of refused ones: :meth:`get_skeletons` sorts them out before.

        Returns
        -------
        float
            Seconds until they are there, as the service guesses; 0 if all are there, or refused.

        Examples
        --------
        >>> await client.skeleton.generate_bulk_skeletons_async([864691134885645050])
        0.0
        """
        unique, _ = unique_ids(as_ids(root_ids, "root_ids"))
        with running(timeout, None, None):
            return await queue(self._session, unique)

    async def get_cache_contents(
        self, root_id_prefixes: Ids, limit: int = 0, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """List the skeletons that are there, by how the digits of their roots begin.

        Parameters
        ----------
        root_id_prefixes
            One or several.
        limit
            Most files to list; 0: all.

        Returns
        -------
        dict
            ``num_found`` (before the limit) and ``files`` (names).

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> (await client.skeleton.get_cache_contents(864691134885645050))["num_found"]
        1
        """
        prefixes = ",".join(map(str, as_ids(root_id_prefixes, "root_id_prefixes").tolist()))
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.SKELETON_CACHE, {"prefixes": prefixes, "limit": limit})
        found = json.decode_as(reply.body, dict)
        if not {"num_found", "files"} <= found.keys():
            raise DecodeError(f"a list of files was promised: {reply.body[:60]!r}")
        return found

    async def get_refusal_list(self, *, timeout: float | None = None) -> IdArray:
        """List the roots of this datastack of which the service makes no skeleton, since it failed before.

        Returns
        -------
        (n,) int64
            In the order of the service.

        Examples
        --------
        >>> await client.skeleton.get_refusal_list()
        array([], dtype=int64)
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.SKELETON_REFUSALS)
        header, *lines = wire.unpack(reply.body).decode(errors="replace").split() or [""]
        rows = [line.split(",") for line in lines]
        if header.upper() != "DATASTACK_NAME,ROOT_ID" or any(len(row) != 2 or not row[1].isdecimal() for row in rows):
            raise DecodeError(f"the refusal list is not a table of roots: {header[:60]}")
        return np.array([int(root) for _, root in rows], np.int64)

    async def get_precomputed_skeleton_info(
        self, skeleton_version: int = 4, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """Fetch Neuroglancer's description of the skeletons of a version.

        Examples
        --------
        >>> info = await client.skeleton.get_precomputed_skeleton_info()
        >>> info["@type"]
        'neuroglancer_skeletons'
        """
        with running(timeout, None, None):
            reply = await self._session.send(endpoints.SKELETON_INFO, {"version": skeleton_version})
        return json.decode_as(reply.body, dict)


def _stream(ids: IdArray, work: Work[T], progress: ProgressLike, timeout: float | None) -> Stream[T]:
    return Stream(lambda: outcomes(ids, work, progress=progress, timeout=timeout))


async def _collected(stream: Stream[T], ids: IdArray) -> Results[T]:
    async with stream as arriving:
        arrived: dict[int, Outcome[T]] = {outcome.id: outcome async for outcome in arriving}
    return Results([arrived[i] for i in dict.fromkeys(ids.tolist())])
