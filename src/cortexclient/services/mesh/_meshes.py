"""The mesh service: manifests, fragments, and the meshes that they make."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from ..._fanout import collect, fan_out, running, stream
from ..._types import BoolArray, IdArray, Ids
from ..._wire.meshes import Faces, Fragment, MeshSource, Vertices, Welded, decode, weld
from ...errors import CortexError, CortexUsageError, DecodeError, MissingDependency, NotFoundError
from ...ids import LAYER_SHIFT, as_ids
from ...progress import ProgressLike
from ...results import Outcome, Results, Stream
from .._base import Service, Session
from ._bytes import ByteGate
from ._fragments import FragmentStore
from ._labels import label_by_place, spread

AT_ONCE: Final = 16
"""Meshes under way."""

BYTES_AT_ONCE: Final = 512 << 20
"""Bytes of meshes under way, nearly."""

GROWTH: Final = 40
"""What a byte of a fragment takes in memory while its mesh is made: decoded, welded, and on the way between."""

USUAL_FRAGMENT: Final = 4_096
"""Bytes of a fragment whose size the manifest does not tell."""

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Part = tuple[Vertices, Faces]


@dataclass(frozen=True, slots=True)
class Wish:
    """What of a mesh is wanted."""

    bounds: str | None = None
    max_bytes: int | None = None
    allow_missing: bool = False
    start_layer: int | None = None


class Assembly:
    """The fragments of one mesh on their way into it: the ledger of what was asked, what came, what is missing."""

    def __init__(self, node: int, fragments: list[Fragment], source: MeshSource) -> None:
        self.node = node
        self.fragments = fragments
        self.missing: dict[Fragment, CortexError] = {}
        self._source = source
        self._parts: dict[Fragment, Part] = {}

    def take(self, data: dict[Fragment, bytes]) -> list[Fragment]:
        """Decode fragments; those that cannot be read are told."""
        broken = []
        for fragment, body in data.items():
            try:
                self._parts[fragment] = decode(body)
            except DecodeError as error:
                self.missing[fragment] = error
                broken.append(fragment)
            else:
                self.missing.pop(fragment, None)
        return broken

    @property
    def decoded(self) -> list[Fragment]:
        """What is there, in the order of the manifest."""
        return [fragment for fragment in self.fragments if fragment in self._parts]

    def vertices(self) -> list[tuple[Fragment, Vertices]]:
        """Each decoded fragment with its vertices."""
        return [(fragment, self._parts[fragment][0]) for fragment in self.decoded]

    def weld(self) -> Welded | None:
        """The mesh of what is there; None if nothing is."""
        there = self.decoded
        if not there:
            return None
        return weld([self._parts[f] for f in there], [f.node or self.node for f in there], self._source)


class AsyncMesh(Service):
    """Meshes of roots (and of level-2 nodes), whole or not at all.

    Each distinct fragment is fetched once, neighbours in one request, and kept, so that meshes of a cell before and
    after an edit share what they have in common.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._store = FragmentStore(session)

    async def get_mesh(
        self,
        root_id: int,
        *,
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
        lod
            Level of detail; meshes of the graph have just one, 0.
        bounds
            ``((x0, x1), (y0, y1), (z0, z1))`` in voxels of the graph: only chunks that overlap.
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
        CortexError
            The mesh is larger than ``max_bytes``.
        """
        wish = _wish(lod, bounds, max_bytes, allow_missing)
        with running(timeout, None, 1):
            return await self._mesh(int(as_ids(root_id, "root_id")[0]), wish)

    async def get_meshes(
        self,
        root_ids: Ids,
        *,
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
        lod, bounds, max_bytes, allow_missing
            As for :meth:`get_mesh`, for each of them.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        Results
            A mapping of root id to ``cloudvolume.Mesh`` in input order; ``errors`` tells why the others failed. All
            meshes are in memory at once: :meth:`stream_meshes` hands them over one by one.
        """
        wish, ids = _wish(lod, bounds, max_bytes, allow_missing), as_ids(root_ids, "root_ids")
        return await collect(
            ids, lambda one: self._mesh(one, wish), workers=AT_ONCE, progress=progress, timeout=timeout
        )

    def stream_meshes(
        self,
        root_ids: Ids,
        *,
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
        root_ids, lod, bounds, max_bytes, allow_missing, progress, timeout
            As for :meth:`get_meshes`.
        bytes_at_once
            Start no further mesh while those under way, and those that wait to be read, take more memory than this.
        """
        wish, ids = _wish(lod, bounds, max_bytes, allow_missing), as_ids(root_ids, "root_ids")

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

        return Stream(opened)

    async def mesh_exists(
        self, root_ids: Ids, *, progress: ProgressLike = None, timeout: float | None = None
    ) -> BoolArray:
        """Tell which objects have a mesh; nothing of it is fetched.

        Parameters
        ----------
        root_ids
            Roots of any age, or level-2 nodes.
        progress, timeout
            See :class:`~cortexclient.Progress`; seconds for the whole call.

        Returns
        -------
        (n,) bool, in input order: False for unknown ids too.
        """
        ids = as_ids(root_ids, "root_ids")
        distinct = list(dict.fromkeys(ids.tolist()))
        with running(timeout, progress, len(distinct)) as reporter:
            top = (await self._store.source()).top_layer

            async def one(node: int) -> bool:
                layer = node >> LAYER_SHIFT
                found = layer >= 2 and bool(await self._store.manifest(node, min(layer, top)))
                reporter.add(1)
                return found

            flags = await fan_out(distinct, one, self._session.limits.of("meshing"))
        there = dict(zip(distinct, flags, strict=True))
        return np.array([there[node] for node in ids.tolist()], np.bool_)

    async def compute_vertex_to_l2_mapping(
        self,
        root_id: int,
        vertices: Vertices | None = None,
        faces: Faces | None = None,
        lvl2_ids: Ids | None = None,
        *,
        hop_limit: int = 50,
        timeout: float | None = None,
    ) -> IdArray:
        """Tell which level-2 node each vertex of a mesh belongs to, from the fragments that it is made of.

        Parameters
        ----------
        root_id
            A root of any age.
        vertices, faces
            Its mesh, if you have it: (n, 3) nm and (m, 3). Default: that of :meth:`get_mesh`, vertex by vertex.
        lvl2_ids
            Give no other nodes than these. Default: all of the root.
        hop_limit
            A vertex that is in no level-2 fragment (of a simplified mesh, say) takes the label of the nearest vertex
            that is, at most so many edges away.
        timeout
            Seconds for the whole call.

        Returns
        -------
        (n,) int64: level-2 ids in the order of the vertices; 0 where there is none. A vertex on the seam between two
        nodes belongs to both, and gets one of them.

        Notes
        -----
        Nothing is guessed from geometry: fragments of level-2 nodes are fetched (they are those of the mesh itself
        where the dataset has no larger ones), and a vertex is found in them by its place, bit by bit.

        Raises
        ------
        NotFoundError, DecodeError
            As for :meth:`get_mesh`: labels of half a mesh would be wrong.
        """
        if (vertices is None) != (faces is None):
            raise CortexUsageError("give vertices and faces, or neither: labels are handed on along the faces")
        node = int(as_ids(root_id, "root_id")[0])
        with running(timeout, None, 1):
            if vertices is None or faces is None:
                mesh = await self._mesh(node, Wish())
                vertices, faces = mesh.vertices, mesh.faces
            assembly = await self._fetch(node, Wish(start_layer=2))
            if assembly.missing:
                raise _incomplete(assembly, None)
            kept = None if lvl2_ids is None else set(as_ids(lvl2_ids, "lvl2_ids").tolist())
            parts = [(v, f.node) for f, v in assembly.vertices() if kept is None or f.node in kept]
            places, corners = np.asarray(vertices, np.float32), np.asarray(faces)
            labels = await asyncio.to_thread(label_by_place, places, parts)
            return await asyncio.to_thread(spread, labels, corners, hop_limit) if kept is None else labels

    # -- one mesh ----------------------------------------------------------------------------------------------------

    async def _mesh(self, node: int, wish: Wish, reserve: Callable[[int], Any] | None = None) -> Any:
        assembly = await self._fetch(node, wish, reserve)
        mesh = await asyncio.to_thread(_cloudvolume_mesh, assembly)
        if reserve and mesh is not None:
            await reserve(mesh.vertices.nbytes + mesh.faces.nbytes)
        if assembly.missing and not (wish.allow_missing and mesh is not None):
            raise _incomplete(assembly, mesh)
        return mesh

    async def _fetch(self, node: int, wish: Wish, reserve: Callable[[int], Any] | None = None) -> Assembly:
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
        if wish.max_bytes is not None and size > wish.max_bytes:
            message = f"the mesh has {len(fragments):,} fragments of {size:,} bytes, above max_bytes={wish.max_bytes:,}"
            raise CortexError(message, ids=(node,))
        if reserve:
            await reserve(size * GROWTH)
        assembly = Assembly(node, list(dict.fromkeys(fragments)), source)
        wanted: Iterable[Fragment] = assembly.fragments
        for _ in range(2):  # a fragment that cannot be read may have been cut short on its way: once more
            fetched = await self._store.fetch(wanted)
            assembly.missing |= fetched.lost
            wanted = await asyncio.to_thread(assembly.take, fetched.data)
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


def _wish(lod: int | None, bounds: Bounds | None, max_bytes: int | None, allow_missing: bool) -> Wish:
    if lod not in (None, 0):
        raise CortexUsageError(f"lod={lod}: meshes of the graph have one level of detail, 0")
    if max_bytes is not None and max_bytes <= 0:
        raise CortexUsageError(f"max_bytes={max_bytes}: must be above zero")
    wish = Wish(max_bytes=max_bytes, allow_missing=allow_missing)
    if bounds is None:
        return wish
    box = np.asarray(bounds)
    if box.shape != (3, 2) or box.dtype.kind not in "iu" or (box[:, 0] >= box[:, 1]).any():
        raise CortexUsageError("bounds are ((x0, x1), (y0, y1), (z0, z1)) in whole voxels, each from low to high")
    return replace(wish, bounds="_".join(f"{low}-{high}" for low, high in box.tolist()))


def _cloudvolume_mesh(assembly: Assembly) -> Any:
    """What the fragments make, as cloud-volume's Mesh; None if there are none."""
    welded = assembly.weld()
    if welded is None:
        return None
    mesh = _mesh_type()(welded.vertices, welded.faces, segid=assembly.node, encoding_type="draco")
    mesh.missing_fragments = [fragment.path for fragment in assembly.missing]
    return mesh


def _mesh_type() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from cloudvolume import Mesh
    except ImportError as error:
        raise MissingDependency("cloud-volume", "mesh", "client.mesh") from error
    return Mesh


def _incomplete(assembly: Assembly, mesh: Any) -> CortexError:
    names = ", ".join(f"{f.path} [{f.start}, {f.stop})" if f.stop else f.path for f in list(assembly.missing)[:3])
    first = next(iter(assembly.missing.values()))
    kind = DecodeError if isinstance(first, DecodeError) else NotFoundError
    error = kind(
        f"{len(assembly.missing):,} of {len(assembly.fragments):,} fragments are missing or broken ({names}): "
        "allow_missing=True makes the mesh of the others",
        ids=(assembly.node,),
    )
    error.partial = mesh
    error.__cause__ = first
    return error
