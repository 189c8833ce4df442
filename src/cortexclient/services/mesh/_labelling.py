"""Which level-2 node each vertex belongs to: the call, and what it fetches."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Protocol

import numpy as np

from ..._fanout import running
from ..._types import IdArray, Ids
from ..._wire.meshes import Faces, Vertices
from ...errors import CortexUsageError
from ...ids import as_ids
from .._base import Session
from ._assembly import Wish
from ._geometry import Evidence, Floats, label_by_shape
from ._labels import label_by_place, spread
from ._meshes import MeshCalls

HOPS: Final = 50
"""How far labels are handed on along edges, unless the caller says otherwise."""


class Level2(Protocol):
    """Who knows where level-2 nodes are."""

    async def get_l2data(self, l2_ids: Ids, attributes: list[str]) -> Mapping[int, Mapping[str, Any]]:
        """Records with ``rep_coord_nm``, by id."""


class AsyncMesh(MeshCalls):
    """Meshes of roots (and of level-2 nodes), whole or not at all.

    Each distinct fragment is fetched once, neighbours in one request, and kept, so that meshes of a cell before and
    after an edit share what they have in common.
    """

    def __init__(self, session: Session, level2: Level2) -> None:
        super().__init__(session)
        self._level2 = level2

    async def compute_vertex_to_l2_mapping(  # noqa: PLR0917 (cortical-tools' signature)
        self,
        root_id: int,
        vertices: Vertices | None = None,
        faces: Faces | None = None,
        lvl2_ids: Ids | None = None,
        lvl2_pts: Floats | None = None,
        max_distance: float = 500,
        ratio_better: float = 0.5,
        hop_limit: int | None = None,
        cloudvolume_fallback: bool = False,
        n_jobs: int = -1,  # noqa: ARG002
        return_assigner: bool = False,
        mesh_kwargs: Mapping[str, Any] | None = None,
        *,
        method: Literal["fragments", "geometry"] = "fragments",
        timeout: float | None = None,
    ) -> IdArray:
        """Tell which level-2 node each vertex of a mesh belongs to.

        Parameters
        ----------
        root_id
            A root of any age.
        vertices, faces
            Its mesh, if you have it: (n, 3) nm and (m, 3). Default: that of :meth:`get_mesh`, vertex by vertex.
        lvl2_ids
            Give no other nodes than these. Default: all of the root that have a mesh.
        lvl2_pts
            For the geometric method: a point in each of ``lvl2_ids``, (k, 3) nm. Default: those of the level-2 cache.
        max_distance, ratio_better
            For the geometric method: how far (nm) a piece without a point of its own may be from one that has a node,
            and how much nearer than to the next node's, as a ratio.
        hop_limit
            A vertex that is in no fragment, or on the wall of a chunk, takes the label of the nearest vertex that has
            one, at most so many edges away. Default: 50.
        cloudvolume_fallback, n_jobs, return_assigner
            Those of cortical-tools, so that its calls work here. True is refused for the first and the last: the
            fragments are exact where it reads voxels, and the mesh is :meth:`get_mesh`'s. All runs in one thread.
        mesh_kwargs
            More arguments for :meth:`get_mesh`, if the mesh is fetched.
        method
            ``"fragments"``: each vertex is found, bit by bit, in the fragments of level-2 nodes that the mesh is made
            of; nothing is guessed. ``"geometry"``: from chunks, the surface's pieces in each, and points inside, as
            cortical-tools does (1.1); for servers that do not have the fragments of level 2.
        timeout
            Seconds for the whole call.

        Returns
        -------
        (n,) int64: level-2 ids in the order of the vertices; 0 where there is none. A vertex on the seam between two
        nodes belongs to both, and gets one of them.

        Raises
        ------
        NotFoundError, DecodeError
            As for :meth:`get_mesh`: labels of half a mesh would be wrong.

        Examples
        --------
        >>> mesh = await client.mesh.get_mesh(864691134885645050)
        >>> labels = await client.mesh.compute_vertex_to_l2_mapping(864691134885645050, mesh.vertices, mesh.faces)
        >>> len(labels) == len(mesh.vertices)
        True
        """
        if (vertices is None) != (faces is None):
            raise CortexUsageError("give vertices and faces, or neither: labels are handed on along the faces")
        wanted = None if lvl2_ids is None else as_ids(lvl2_ids, "lvl2_ids")
        if cloudvolume_fallback or return_assigner:
            raise CortexUsageError("no cloudvolume_fallback, no assigner: method='fragments' is exact without voxels")
        if lvl2_pts is not None and (wanted is None or np.shape(lvl2_pts) != (len(wanted), 3)):
            raise CortexUsageError("lvl2_pts are (k, 3) nm, one point for each of lvl2_ids")
        if method not in ("fragments", "geometry"):
            raise CortexUsageError(f"method={method!r}: must be fragments or geometry")
        node, hops = int(as_ids(root_id, "root_id")[0]), HOPS if hop_limit is None else hop_limit
        with running(timeout, None, 1):
            if vertices is None or faces is None:
                mesh = await self.get_mesh(node, **{"source": "graphene", **(mesh_kwargs or {})})
                vertices, faces = mesh.vertices, mesh.faces
            shape = np.asarray(vertices, np.float32).reshape(-1, 3), np.asarray(faces, np.uint32).reshape(-1, 3)
            if method == "fragments":
                return await self._labels_by_fragments(node, shape, wanted, hops)
            evidence = await self._evidence(
                node, wanted, None if lvl2_pts is None else np.asarray(lvl2_pts, np.float64)
            )
            evidence = replace(evidence, max_distance=max_distance, ratio_better=ratio_better)
            grid = (await self._store.source()).graph
            return await asyncio.to_thread(label_by_shape, shape, evidence, grid, hops)

    async def _labels_by_fragments(
        self, node: int, shape: tuple[Vertices, Faces], wanted: IdArray | None, hops: int
    ) -> IdArray:
        assembly = await self._fetch(node, Wish(start_layer=2))
        if assembly.missing:
            raise assembly.incomplete(None)
        parts = [(part, owner) for owner, part in assembly.vertices() if wanted is None or owner in wanted]
        pitch = (await self._store.source()).graph.pitch
        labels = await asyncio.to_thread(label_by_place, shape[0], parts, pitch)
        return await asyncio.to_thread(spread, labels, shape[1], hops) if wanted is None else labels

    async def _evidence(self, node: int, nodes: IdArray | None, points: Floats | None) -> Evidence:
        if nodes is None:
            fragments = await self._store.manifest(node, 2)
            nodes = np.array(sorted({fragment.node for fragment in fragments}), np.int64)
        if points is None:
            records = await self._level2.get_l2data(nodes, ["rep_coord_nm"])
            nowhere = [np.nan] * 3
            points = np.array([records[n].get("rep_coord_nm", nowhere) for n in nodes.tolist()], np.float64)
        return Evidence(nodes, points.reshape(-1, 3))
