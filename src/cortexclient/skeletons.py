"""A skeleton as plain arrays, and what it can be turned into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ._types import IdArray
from .errors import CortexUsageError, MissingDependency

Floats = npt.NDArray[np.float64]
AXON = 2
"""The compartment code of axons in SWC."""
VERSIONS = {-1: 4, 0: 2, 1: 1, 2: 2, 3: 3, 4: 4}
"""Versions of skeletons, and what -1 (the newest) and 0 (Neuroglancer's) stand for (SkeletonService 0.23)."""


def check_version(version: int) -> int:
    """The version that a number stands for.

    Raises
    ------
    CortexUsageError
        There is none.
    """
    if version not in VERSIONS:
        raise CortexUsageError(f"skeleton_version={version}: there are {', '.join(map(str, VERSIONS))}")
    return VERSIONS[version]


@dataclass(frozen=True, slots=True, eq=False)
class Skeleton:
    """One cell as a tree, and the level-2 chunks that it was made of.

    The arrays are read-only, since the client's cache shares them: copy what you want to change.

    Attributes
    ----------
    root_id
        The cell.
    vertices
        (n, 3) float64, nm.
    edges
        (n - 1, 2) int64, pairs of vertices; the direction means nothing.
    root
        The vertex at the soma, if there is one.
    radius
        (n,) float64, nm.
    compartment
        (n,) int64, SWC codes: 1 soma (the root only), 2 axon, 3 dendrite, 4 apical; empty where the service knows none.
    lvl2_ids
        (m,) int64, the level-2 chunks.
    mesh_to_skel_map
        (m,) int64, the vertex that each level-2 chunk belongs to.
    meta
        How it was made, as the service tells it.

    Examples
    --------
    >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
    >>> skeleton
    Skeleton(864691134885645050: 6 vertices, 55 um)
    """

    root_id: int
    vertices: Floats
    edges: IdArray
    root: int
    radius: Floats
    compartment: IdArray
    lvl2_ids: IdArray
    mesh_to_skel_map: IdArray
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> skeleton.nbytes
        416
        """
        arrays = (self.vertices, self.edges, self.radius, self.compartment, self.lvl2_ids, self.mesh_to_skel_map)
        return sum(array.nbytes for array in arrays)

    def as_version(self, version: int) -> Skeleton:
        """The same as another version has it: all but 4 lack the level-2 ids (SkeletonService 0.23.11).

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> len(skeleton.as_version(2).lvl2_ids)
        0
        """
        if version == 4:
            return self
        return replace(self, lvl2_ids=self.lvl2_ids[:0], meta={**self.meta, "skeleton_version": version})

    def cable_length(self) -> float:
        """Length of all edges together, nm.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> round(skeleton.cable_length() / 1000)  # micrometres
        55
        """
        ends = self.vertices[self.edges]
        return float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum())

    def parents(self) -> IdArray:
        """(n,) int64: the next vertex towards the root; -1 for the root, and for what is not connected to it.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> skeleton.parents()
        array([ 1, -1,  3,  1,  3,  3])
        """
        n = len(self.vertices)
        tail, head = np.concatenate([self.edges, self.edges[:, ::-1]]).T
        order = np.argsort(tail, kind="stable")
        near, first = head[order].tolist(), np.searchsorted(tail[order], np.arange(n + 1)).tolist()
        parent, seen, waiting = np.full(n, -1, np.int64), np.zeros(n, np.bool_), [self.root]
        seen[self.root] = True
        while waiting:
            vertex = waiting.pop()
            for other in near[first[vertex] : first[vertex + 1]]:
                if not seen[other]:
                    seen[other] = True
                    parent[other] = vertex
                    waiting.append(other)
        return parent

    def to_swc(self) -> str:
        """SWC text: one line ``id type x y z radius parent`` for each vertex, micrometres, parents first.

        Vertices that are not connected to the root begin trees of their own.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> print(skeleton.to_swc().splitlines()[0])
        0 1 1471.472 1245.536 938.440 0.160 -1
        """
        parent = self.parents()
        order = _parents_first(parent)
        number = np.empty_like(order)
        number[order] = np.arange(len(order))
        kind = self.compartment[order] if len(self.compartment) else np.zeros(len(order), np.int64)
        above = np.where(parent[order] < 0, -1, number[parent[order]])
        numbers = np.column_stack([self.vertices[order] / 1000, self.radius[order] / 1000]).tolist()
        return "".join(
            f"{row} {code} {x:.3f} {y:.3f} {z:.3f} {r:.3f} {up}\n"
            for row, (code, (x, y, z, r), up) in enumerate(zip(kind.tolist(), numbers, above.tolist(), strict=True))
        )

    def to_meshwork(self, points: Floats | None = None, link_edges: IdArray | None = None) -> Any:
        """A meshparty ``Meshwork``, equal to what ``pcg_skel.get_meshwork_from_client`` makes of it without synapses.

        Its mesh stands for the level-2 graph: one point for each level-2 chunk. Annotations: ``lvl2_ids``, and where
        the service knows them ``compartment`` and ``is_axon``.

        Parameters
        ----------
        points
            (m, 3) nm, of the level-2 chunks. Default: the skeleton vertex of each.
        link_edges
            (k, 2) pairs of level-2 chunks that touch, by their place in ``lvl2_ids``. Default: none are known.

        Raises
        ------
        MissingDependency
            meshparty is not installed.

        Examples
        --------
        >>> skeleton = await client.skeleton.get_skeleton(864691134885645050)
        >>> round(skeleton.to_meshwork().skeleton.path_length() / 1000)
        55
        """
        if not len(self.lvl2_ids):
            raise CortexUsageError("this skeleton names no level-2 chunks, which a Meshwork is made of")
        try:
            from meshparty import meshwork, skeleton, trimesh_io
        except ImportError as error:
            raise MissingDependency("meshparty", "skeleton", "Skeleton.to_meshwork") from error
        import pandas as pd

        tree = skeleton.Skeleton(
            vertices=self.vertices.copy(),
            edges=self.edges.copy(),
            root=self.root,
            mesh_to_skel_map=self.mesh_to_skel_map.copy(),
            radius=self.radius.copy(),
            meta=dict(self.meta),
        )
        points = self.vertices[self.mesh_to_skel_map] if points is None else points
        edges: Any = [] if link_edges is None else link_edges
        mesh = trimesh_io.Mesh(vertices=points, faces=[[0, 0, 0]], link_edges=edges)  # it wants one face at least
        neuron = meshwork.Meshwork(mesh=mesh, skeleton=tree, seg_id=self.root_id)
        index = np.arange(len(self.lvl2_ids))
        chunks = pd.DataFrame({"lvl2_id": self.lvl2_ids, "mesh_ind": index})
        neuron.anno.add_annotations("lvl2_ids", chunks, index_column="mesh_ind")
        axon = np.empty(0, np.int64)
        if len(self.compartment):
            kinds = self.compartment[self.mesh_to_skel_map]
            frame = pd.DataFrame({"compartment": kinds, "mesh_ind": index})
            neuron.anno.add_annotations("compartment", frame, index_column="mesh_ind")
            axon = np.flatnonzero(kinds == AXON)
        neuron.anno.add_annotations("is_axon", axon if len(axon) else [], mask=True)
        return neuron

    def __repr__(self) -> str:
        micrometres = self.cable_length() / 1000
        return f"Skeleton({self.root_id}: {len(self.vertices):,} vertices, {micrometres:,.0f} um)"


def _parents_first(parent: IdArray) -> IdArray:
    children: list[list[int]] = [[] for _ in range(len(parent))]
    for vertex, above in enumerate(parent.tolist()):
        if above >= 0:
            children[above].append(vertex)
    order: list[int] = []
    waiting = np.flatnonzero(parent < 0).tolist()[::-1]
    while waiting:
        vertex = waiting.pop()
        order.append(vertex)
        waiting += reversed(children[vertex])
    return np.array(order, np.int64)
