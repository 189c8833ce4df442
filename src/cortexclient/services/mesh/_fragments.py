"""Fetching fragments: each once, neighbours in one request, those of other meshes shared."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from ..._fanout import in_turn
from ..._wire import endpoints, json
from ..._wire.meshes import Fragment, MeshSource, Run, parse_manifest, runs
from ...config import STORAGE
from ...errors import CortexError, DecodeError, MissingPermission, NotFoundError, ServerRefusedError
from .._base import MINUTES, Session

MOST_BYTES: Final = 8 << 20
"""Of one request for neighbouring fragments."""

ABSENT: Final = (NotFoundError, MissingPermission, ServerRefusedError)
"""How stores say that there is no such object (403 where nobody may list the bucket) or no such range."""

Flight = asyncio.Future[bytes | CortexError | None]
"""A fragment on its way; None: whoever fetched it was called off."""


@dataclass(slots=True)
class Fetched:
    """What became of each fragment."""

    data: dict[Fragment, bytes] = field(default_factory=dict)
    lost: dict[Fragment, CortexError] = field(default_factory=dict)


class FragmentStore:
    """The mesh bucket of one segmentation, as its graph knows it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._flights: dict[Hashable, Flight] = {}
        self._slots = asyncio.Semaphore(session.limits.of(STORAGE))

    async def source(self) -> MeshSource:
        """Where the fragments are (cached)."""
        session = self._session

        async def load_table() -> dict[str, Any]:
            return json.decode_as((await session.send(endpoints.SEGMENTATION_INFO)).body, dict)

        async def load() -> MeshSource:
            key = ("segmentation_info", session.server, session.spec.datastack)
            table = await session.cache.get(key, load_table)
            if "data_dir" not in table:
                raise NotFoundError(f"{session.spec.datastack} has no meshes: its segmentation names no data_dir")
            folder = f"{session.object_url(str(table['data_dir'])).rstrip('/')}/{table.get('mesh', 'mesh')}"
            try:
                info = json.decode((await session.transport.get_url(f"{folder}/info")).body)
            except ABSENT:  # as for old datasets, whose fragments lie in no shards
                info = {}
            return MeshSource.read(table, folder, info)

        key = ("mesh_source", session.server, session.spec.datastack)
        source: MeshSource = await session.cache.get(key, load, ttl=5 * MINUTES, size=lambda _: 1000)
        return source

    async def manifest(self, node: int, start_layer: int, bounds: str | None = None) -> list[Fragment]:
        """The fragments of a node; they are of ``start_layer`` or below."""
        query = {"verify": "true", "return_seg_ids": "true", "start_layer": str(start_layer)}
        query |= {"bounds": bounds} if bounds else {}
        reply = await self._session.send(endpoints.MESH_MANIFEST, {"id": node}, query=query, ids=(node,))
        return parse_manifest(reply.body, await self.source())

    async def fetch(self, fragments: Iterable[Fragment]) -> Fetched:
        """The bytes of each fragment: kept ones, ones that somebody else is fetching, and the rest in few requests.

        Raises
        ------
        CortexError
            The store does not answer. Fragments that it does not have are in ``lost``.
        """
        folder = (await self.source()).folder
        fetched, waiting = Fetched(), list(dict.fromkeys(fragments))
        while waiting:
            fresh, shared = self._claim(folder, waiting, fetched)
            await self._fetch_fresh(folder, fresh, fetched)
            if shared:
                await asyncio.wait(shared.values())
            for fragment, flight in shared.items():
                _settle(fetched, fragment, flight.result())
            waiting = [fragment for fragment, flight in shared.items() if flight.result() is None]  # called off there
        return fetched

    def _claim(
        self, folder: str, fragments: list[Fragment], fetched: Fetched
    ) -> tuple[list[Fragment], dict[Fragment, Flight]]:
        """Take what is in memory; tell what is to be fetched here (others shall wait for it), and elsewhere already.

        It does not wait for anything: between looking and claiming nobody else may claim.
        """
        fresh, shared = [], {}
        loop, pieces = asyncio.get_running_loop(), self._session.cache.pieces
        for fragment in fragments:
            key = (folder, *fragment[1:])
            if flight := self._flights.get(key):
                shared[fragment] = flight
            elif (kept := pieces.peek(key)) is not None:
                fetched.data[fragment] = kept
            else:
                fresh.append(fragment)
                self._flights[key] = loop.create_future()
        return fresh, shared

    async def _fetch_fresh(self, folder: str, fragments: list[Fragment], fetched: Fetched) -> None:
        pieces = self._session.cache.pieces

        def settle(fragment: Fragment, result: bytes | CortexError) -> None:
            _settle(fetched, fragment, result)
            self._flights.pop((folder, *fragment[1:])).set_result(result)

        async def fetch(run: Run) -> None:
            found = await self._get_run(folder, run)
            await pieces.keep({(folder, *f[1:]): data for f, data in found.items() if isinstance(data, bytes)})
            for fragment, result in found.items():
                settle(fragment, result)

        try:
            kept = await pieces.load((folder, *fragment[1:]) for fragment in fragments)
            missing = []
            for fragment in fragments:
                if (data := kept.get((folder, *fragment[1:]))) is not None:
                    settle(fragment, data)
                else:
                    missing.append(fragment)
            await in_turn(runs(missing, MOST_BYTES), fetch, self._slots)
        finally:
            for fragment in fragments:
                if flight := self._flights.pop((folder, *fragment[1:]), None):
                    flight.set_result(None)

    async def _get_run(self, folder: str, run: Run) -> dict[Fragment, bytes | CortexError]:
        """The fragments of a run, or why they are not there."""
        try:
            return dict(run.cut(await self._get(folder, run)))
        except (*ABSENT, DecodeError) as error:
            # one bad place must not spoil its neighbours; a short answer may have been an accident
            again = isinstance(error, DecodeError) or len(run.fragments) > 1
            return {f: await self._get_alone(folder, f) if again else error for f in run.fragments}

    async def _get_alone(self, folder: str, fragment: Fragment) -> bytes | CortexError:
        try:
            return await self._get(folder, Run(fragment.path, fragment.start, fragment.stop, (fragment,)))
        except (*ABSENT, DecodeError) as error:
            return error

    async def _get(self, folder: str, run: Run) -> bytes:
        span = (run.start, run.stop) if run.stop else None
        return (await self._session.transport.get_url(f"{folder}/{run.path}", range=span)).body

    async def forget(self, fragments: Iterable[Fragment]) -> None:
        """Do not keep fragments that cannot be read."""
        folder = (await self.source()).folder
        await self._session.cache.pieces.forget((folder, *fragment[1:]) for fragment in fragments)


def _settle(fetched: Fetched, fragment: Fragment, result: bytes | CortexError | None) -> None:
    if isinstance(result, CortexError):
        fetched.lost[fragment] = result
    elif result is not None:
        fetched.data[fragment] = result
