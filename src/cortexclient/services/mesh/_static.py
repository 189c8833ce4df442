"""Meshes of flat segmentations: one object, a few requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from ..._fanout import fan_out
from ..._wire import json
from ..._wire.meshes import Part, join
from ..._wire.static_meshes import LodManifest, Span, StaticSource, decode_fragment, fragment_names
from ...config import STORAGE
from ...errors import CortexError, DecodeError, NotFoundError
from .._base import MINUTES, Session
from ._assembly import Wish, cloudvolume_mesh, incomplete, refuse_above
from ._bytes import GROWTH, USUAL_FRAGMENT, Reserve
from ._fragments import ABSENT


@dataclass(slots=True)
class StaticMesh:
    """What was found of an object: its parts, and why others are missing."""

    node: int
    asked: int
    parts: list[Part]
    missing: dict[str, CortexError] = field(default_factory=dict)

    def mesh(self) -> Any:
        """What there is as cloud-volume's Mesh, its parts not welded, as by its ``fuse=False``; None if nothing is."""
        if not self.parts:
            return None
        vertices, faces, _ = join(self.parts)
        return cloudvolume_mesh((vertices, faces), self.node, list(self.missing))

    def incomplete(self, mesh: Any) -> CortexError:
        """The error that names what is missing."""
        return incomplete(self.node, self.asked, self.missing, mesh)


class StaticMeshes:
    """The flat segmentations that the dataset's spec names, the first that holds an object wins."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def places(self) -> tuple[str, ...]:
        """Where they are."""
        return self._session.spec.static_meshes

    async def fetch(self, node: int, wish: Wish, reserve: Reserve | None) -> StaticMesh | None:
        """The mesh of an object; None if no segmentation has it."""
        for place in self.places:
            source = await self._source(place)
            read = self._multilod if source.multilod else self._legacy
            found = await read(source, node, wish, reserve)
            if found is not None:
                return found
        return None

    async def exists(self, node: int) -> bool:
        """Whether a segmentation holds an object."""
        for place in self.places:
            source = await self._source(place)
            if source.shards is not None:
                there = await self._shard(source, node) is not None
            else:
                there = await self._get(source, f"{node}.index" if source.multilod else f"{node}:0") is not None
            if there:
                return True
        return False

    async def _source(self, place: str) -> StaticSource:
        session = self._session
        volume = session.object_url(place.removeprefix("precomputed://")).rstrip("/")

        async def load() -> StaticSource:
            info = json.decode((await session.transport.get_url(f"{volume}/info")).body)
            if "mesh" not in info:
                raise NotFoundError(f"{place} has no meshes: its info names no folder of them")
            folder = f"{volume}/{info['mesh']}"
            try:
                meshes = json.decode((await session.transport.get_url(f"{folder}/info")).body)
            except ABSENT:
                meshes = {}  # as old volumes, which are legacy ones
            return StaticSource.read(folder, meshes)

        key = ("static_meshes", volume)
        source: StaticSource = await session.cache.get(key, load, ttl=5 * MINUTES, size=lambda _: 1000)
        return source

    async def _get(self, source: StaticSource, name: str, span: Span | None = None) -> bytes | None:
        """An object, or a part of it; None if there is none."""
        try:
            return (await self._session.transport.get_url(f"{source.folder}/{name}", range=span)).body
        except ABSENT:
            return None

    async def _shard(self, source: StaticSource, node: int) -> tuple[str, Span] | None:
        """File and bytes of an object's value in the shards."""
        shards, cache = source.shards, self._session.cache
        if shards is None:
            return None
        name, row = await asyncio.to_thread(shards.place, node)

        async def load() -> bytes:
            told = await self._get(source, name, row)
            span = shards.minishard(told) if told is not None else None
            return (span and await self._get(source, name, span)) or b""

        index: bytes = await cache.get(("minishard", source.folder, name, row), load, ttl=5 * MINUTES)
        span = shards.value(index, node) if index else None
        return None if span is None else (name, span)

    async def _multilod(
        self, source: StaticSource, node: int, wish: Wish, reserve: Reserve | None
    ) -> StaticMesh | None:
        if source.shards is None:
            body, name, first = await self._get(source, f"{node}.index"), str(node), 0
        else:
            at = await self._shard(source, node)
            body = await self._get(source, *at) if at else None
            body = source.shards.unpacked(body) if body is not None else None
            name, first = (at[0], at[1][0]) if at else ("", 0)
        if body is None:
            return None
        manifest = LodManifest.read(body)
        if not -1 <= wish.lod < manifest.lods:
            raise NotFoundError(f"lod={wish.lod}: this mesh has levels 0 to {manifest.lods - 1}", ids=(node,))
        level = wish.lod % manifest.lods
        start, stop = manifest.span(level)
        refuse_above(wish.max_bytes, stop - start, len(manifest.sizes[level]), node)
        if reserve:
            await reserve((stop - start) * GROWTH)
        if source.shards is not None:
            first -= manifest.total  # fragments lie in front of their manifest
        if first < 0:
            raise DecodeError("the manifest's fragments would begin in front of their shard", ids=(node,))
        data = await self._get(source, name, (first + start, first + stop)) if stop > start else b""
        if data is None:
            raise NotFoundError(f"the fragments of the mesh are missing: {name}", ids=(node,))
        parts = await asyncio.to_thread(manifest.decode, data, level, source)
        if not parts:
            raise NotFoundError(f"level {level} of the mesh is empty", ids=(node,))
        return StaticMesh(node, len(parts), parts)

    async def _legacy(self, source: StaticSource, node: int, wish: Wish, reserve: Reserve | None) -> StaticMesh | None:
        body = await self._get(source, f"{node}:0")
        if body is None:
            return None
        if wish.lod not in (0, -1):
            raise NotFoundError(f"lod={wish.lod}: this mesh has one level of detail, 0", ids=(node,))
        names = list(dict.fromkeys(fragment_names(body)))
        missing: dict[str, CortexError] = {}
        size = 0
        if reserve:
            await reserve(len(names) * USUAL_FRAGMENT * GROWTH)

        async def one(name: str) -> Part | None:
            nonlocal size
            try:
                data = (await self._session.transport.get_url(f"{source.folder}/{name}")).body
                size += len(data)
                refuse_above(wish.max_bytes, size, len(names), node)
                return await asyncio.to_thread(decode_fragment, data, source)
            except (*ABSENT, DecodeError) as error:
                missing[name] = error
                return None

        parts = await fan_out(names, one, self._session.limits.of(STORAGE))
        return StaticMesh(node, len(names), [part for part in parts if part is not None], missing)
