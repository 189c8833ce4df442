"""The mesh service: manifests, fragments, and the meshes that they make."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import numpy as np

from ..._fanout import collect, fan_out, running, stream
from ..._types import BoolArray, Ids
from ..._wire.meshes import Fragment
from ...errors import CortexUsageError, NotFoundError
from ...ids import LAYER_SHIFT, as_ids
from ...progress import ProgressLike
from ...results import Outcome, Results, Stream
from .._base import Service, Session
from ._assembly import Assembly, Bounds, Source, Wish, refuse_above
from ._bytes import GROWTH, USUAL_FRAGMENT, ByteGate, Reserve
from ._files import FileFormat, MeshFiles
from ._fragments import FragmentStore
from ._static import StaticMesh, StaticMeshes

AT_ONCE: Final = 16
"""Meshes under way."""

BYTES_AT_ONCE: Final = 512 << 20
"""Bytes of meshes under way, nearly."""

MAKERS: Final = 2
"""Threads that decode and weld: one keeps up with the loop. The allocator keeps what each of them has freed."""


class MeshCalls(Service):
    """Meshes of roots and of level-2 nodes.

    Each distinct fragment is fetched once, neighbours in one request, and kept, so that meshes of a cell before and
    after an edit share what they have in common.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._store = FragmentStore(session)
        self._static = StaticMeshes(session)

    @cached_property
    def _threads(self) -> anyio.CapacityLimiter:  # building a client shall not load what anyio needs for it
        return anyio.CapacityLimiter(MAKERS)

    async def get_mesh(
        self,
        root_id: int,
        *,
        source: Source = "auto",
        lod: int | None = None,
        bounds: Bounds | None = None,
        max_bytes: int | None = None,
        allow_missing: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Fetch the mesh of one object.

        Parameters
        ----------
        root_id
            A root of any age, or a level-2 node.
        source
            ``"graphene"``: from the graph, as every root has one. ``"static"``: from the dataset's flat segmentations
            (``DatasetSpec.static_meshes``), in which only the roots of one version are, but with a few requests each
            and, some of them, at several levels of detail. ``"auto"``: static if the dataset has such and they hold
            the object, else from the graph.
        lod
            Level of detail, 0 (the default) is the finest, -1 the coarsest. Meshes of the graph have just one, 0.
        bounds
            ``((x0, x1), (y0, y1), (z0, z1))`` in voxels of the graph: only chunks that overlap. From the graph only.
        max_bytes
            Refuse meshes whose fragments are larger together (packed; a neuron has 1 to 20 MB).
        allow_missing
            Make the mesh of what there is; ``mesh.missing_fragments`` names the rest.
        timeout
            Seconds for the whole call.

        Returns
        -------
        cloudvolume.Mesh
            ``vertices`` (n, 3) float32 in nm, ``faces`` (m, 3) uint32, ``segid``; the vertices and triangles that
            cloud-volume gives, in the order of the manifest.

        Raises
        ------
        NotFoundError
            The object has no mesh, or fragments of it are not where the manifest says (they are named; ``partial`` is
            the mesh without them).
        DecodeError
            Fragments cannot be read; as above.
        TooLarge
            The mesh is larger than ``max_bytes``.

        Examples
        --------
        >>> mesh = await client.mesh.get_mesh(864691134885645050)
        >>> mesh.vertices.shape[1], mesh.vertices.dtype
        (3, dtype('float32'))
        """
        wish = Wish.of(source, lod, bounds, max_bytes, allow_missing)
        with running(timeout, None, 1):
            return await self._mesh(int(as_ids(root_id, "root_id")[0]), wish)

    async def get_meshes(
        self,
        root_ids: Ids,
        *,
        source: Source = "auto",
        lod: int | None = None,
        bounds: Bounds | None = None,
        max_bytes: int | None = None,
        allow_missing: bool = False,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Results[Any]:
        """Fetch the meshes of many objects; one bad id spoils only itself.

        Parameters
        ----------
        root_ids
            Of any age; an id that comes twice is fetched once.
        source, lod, bounds, max_bytes, allow_missing
            As for :meth:`get_mesh`, for each of them.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        Results
            A mapping of root id to ``cloudvolume.Mesh`` in input order; ``errors`` tells why the others failed. All
            meshes are in memory at once: :meth:`stream_meshes` hands them over one by one.

        Examples
        --------
        >>> meshes = await client.mesh.get_meshes([864691134885645050, 7])
        >>> meshes.status()
        {'ok': 1, 'NotFoundError': 1}
        """
        wish, ids = Wish.of(source, lod, bounds, max_bytes, allow_missing), as_ids(root_ids, "root_ids")
        return await collect(
            ids, lambda one: self._mesh(one, wish), workers=AT_ONCE, progress=progress, timeout=timeout
        )

    def stream_meshes(
        self,
        root_ids: Ids,
        *,
        source: Source = "auto",
        lod: int | None = None,
        bounds: Bounds | None = None,
        max_bytes: int | None = None,
        allow_missing: bool = False,
        bytes_at_once: int = BYTES_AT_ONCE,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Stream[Any]:
        """Fetch the meshes of many objects and hand out each as it is done, in bounded memory.

        Parameters
        ----------
        root_ids, source, lod, bounds, max_bytes, allow_missing, progress, timeout
            As for :meth:`get_meshes`.
        bytes_at_once
            Start no further mesh while those under way, and those that wait to be read, take more memory than this.

        Examples
        --------
        >>> async with client.mesh.stream_meshes([864691134885645050, 7]) as outcomes:
        ...     sorted([(outcome.id, outcome.ok) async for outcome in outcomes])
        [(7, False), (864691134885645050, True)]
        """
        wish, ids = Wish.of(source, lod, bounds, max_bytes, allow_missing), as_ids(root_ids, "root_ids")

        @asynccontextmanager
        async def opened() -> AsyncIterator[AsyncIterator[Outcome[Any]]]:
            gate = ByteGate(bytes_at_once)
            held: dict[int, int] = {}

            async def one(root: int) -> Any:
                return await self._mesh(root, wish, lambda count: _hold(gate, held, root, count))

            async def read(outcomes: AsyncIterator[Outcome[Any]]) -> AsyncIterator[Outcome[Any]]:
                async for outcome in outcomes:
                    await gate.give(held.pop(outcome.id, 0))
                    yield outcome

            async with stream(ids, one, workers=AT_ONCE, progress=progress, timeout=timeout) as outcomes:
                yield read(outcomes)

        return Stream(opened, ahead=1)  # what a pump has taken counts no more

    async def mesh_exists(
        self,
        root_ids: Ids,
        *,
        source: Source = "auto",
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> BoolArray:
        """Tell which objects have a mesh; nothing of it is fetched.

        Parameters
        ----------
        root_ids
            Roots of any age, or level-2 nodes.
        source
            As for :meth:`get_mesh`.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        (n,) bool, in input order: False for unknown ids too.

        Examples
        --------
        >>> await client.mesh.mesh_exists([864691134885645050, 7])
        array([ True, False])
        """
        ids, wish = as_ids(root_ids, "root_ids"), Wish.of(source, None, None, None, allow_missing=False)
        distinct = list(dict.fromkeys(ids.tolist()))
        with running(timeout, progress, len(distinct)) as reporter:

            async def one(node: int) -> bool:
                found = await self._has_static(node, wish) or (wish.source != "static" and await self._has_graph(node))
                reporter.add(1)
                return found

            flags = await fan_out(distinct, one, self._session.limits.of("meshing"))
        there = dict(zip(distinct, flags, strict=True))
        return np.array([there[node] for node in ids.tolist()], np.bool_)

    async def save_meshes(
        self,
        root_ids: Ids,
        folder: str | Path,
        file_format: FileFormat = "ply",
        *,
        overwrite: bool = False,
        source: Source = "auto",
        lod: int | None = None,
        max_bytes: int | None = None,
        allow_missing: bool = False,
        bytes_at_once: int = BYTES_AT_ONCE,
        progress: ProgressLike = None,
        timeout: float | None = None,
    ) -> Results[Path]:
        """Fetch the meshes of many objects into files, one each, in bounded memory.

        Parameters
        ----------
        root_ids
            Of any age; an id that comes twice is fetched once.
        folder
            Where to; made if it is not there. The files are called ``<root id>.ply`` or ``.drc``.
        file_format
            ``"ply"`` (binary), or ``"draco"``, a tenth of its size, with vertices on whole nanometres (those of the
            graph are). Of a file, trimesh makes every other format.
        overwrite
            Fetch meshes again whose file is there. A file that is there is whole: it gets its name when it is done.
        source, lod, max_bytes, allow_missing, bytes_at_once, progress, timeout
            As for :meth:`stream_meshes`.

        Returns
        -------
        Results of pathlib.Path
            In input order. Once a file cannot be written (the disk is full, say) nothing more is fetched: its error
            is that of all ids that are left.

        Examples
        --------
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> saved = await client.mesh.save_meshes([864691134885645050], folder)
        >>> saved[864691134885645050].name
        '864691134885645050.ply'
        """
        wish, ids = Wish.of(source, lod, None, max_bytes, allow_missing), as_ids(root_ids, "root_ids")
        gate, files = ByteGate(bytes_at_once), MeshFiles(Path(folder), file_format)

        async def one(root: int) -> Path:
            if not overwrite and files.path(root).exists():
                return files.path(root)
            files.check(root)
            held: dict[int, int] = {}
            try:
                mesh = await self._mesh(root, wish, lambda count: _hold(gate, held, root, count))
                return await asyncio.to_thread(files.write, root, mesh)
            finally:
                await gate.give(held.pop(root, 0))

        return await collect(ids, one, workers=AT_ONCE, progress=progress, timeout=timeout)

    # -- one mesh ----------------------------------------------------------------------------------------------------

    async def _has_static(self, node: int, wish: Wish) -> bool:
        return self._from_static(wish) and await self._static.exists(node)

    async def _has_graph(self, node: int) -> bool:
        layer = node >> LAYER_SHIFT
        top = (await self._store.source()).top_layer
        return layer >= 2 and bool(await self._store.manifest(node, min(layer, top)))

    def _from_static(self, wish: Wish) -> bool:
        if wish.source == "static" and not self._static.places:
            raise CortexUsageError(
                f"{self._session.spec.name} names no static meshes: DatasetSpec(static_meshes=('gs://...',)) does"
            )
        return wish.source != "graphene" and bool(self._static.places)

    async def _mesh(self, node: int, wish: Wish, reserve: Reserve | None = None) -> Any:
        made: Assembly | StaticMesh | None = None
        if self._from_static(wish):
            made = await self._static.fetch(node, wish, reserve)
        if made is None:
            if wish.source == "static":
                raise NotFoundError("no static segmentation of this dataset holds the object", ids=(node,))
            made = await self._fetch(node, wish, reserve)
        mesh = await anyio.to_thread.run_sync(made.mesh, limiter=self._threads)
        if reserve and mesh is not None:
            await reserve(mesh.vertices.nbytes + mesh.faces.nbytes)
        if made.missing and not (wish.allow_missing and mesh is not None):
            raise made.incomplete(mesh)
        return mesh

    async def _fetch(self, node: int, wish: Wish, reserve: Reserve | None = None) -> Assembly:
        """All fragments of a node, decoded; what could not be had is in ``missing``."""
        source, layer = await self._store.source(), node >> LAYER_SHIFT
        if layer < 2:
            raise NotFoundError(
                "supervoxels have no meshes of their own; ask for the root or the level-2 node", ids=(node,)
            )
        top = min(layer, source.top_layer, *([wish.start_layer] if wish.start_layer else []))
        fragments = await self._store.manifest(node, 2 if wish.bounds else top, wish.bounds)
        if not fragments:
            where = " within these bounds" if wish.bounds else ""
            raise NotFoundError(f"there is no mesh{where}: the manifest lists no fragments", ids=(node,))
        size = sum(f.stop - f.start or USUAL_FRAGMENT for f in fragments)
        refuse_above(wish.max_bytes, size, len(fragments), node)
        if reserve:
            await reserve(size * GROWTH)
        assembly = Assembly(node, list(dict.fromkeys(fragments)), source)
        wanted: Iterable[Fragment] = assembly.fragments
        for _ in range(2):  # a fragment that cannot be read may have been cut short on its way: once more
            fetched = await self._store.fetch(wanted)
            assembly.missing |= fetched.lost
            wanted = await anyio.to_thread.run_sync(assembly.take, fetched.data, limiter=self._threads)
            if not wanted:
                break
            await self._store.forget(wanted)
        return assembly


async def _hold(gate: ByteGate, held: dict[int, int], root: int, count: int) -> None:
    """Take bytes for a root; a second count replaces the first."""
    before = held.pop(root, None)
    if before is None:
        await gate.take(count)
    else:
        await gate.give(before - count)
    held[root] = count
