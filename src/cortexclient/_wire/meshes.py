"""Meshes of the chunkedgraph: manifests, names of fragments, Draco, and how fragments become one mesh.

A mesh is made of fragments, one for each node of a low layer. All vertices of a dataset lie on one lattice, so that the
vertices on the face between two chunks are the same numbers in the fragments of both sides. The manifest's grammar is
that of PyChunkedGraph 2.21; the welding rule is cloud-volume's (12.15), whose vertices and triangles it gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import DecodeError, MissingDependency
from ..ids import LAYER_SHIFT
from . import json

Vertices = npt.NDArray[np.float32]
Faces = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]
Part = tuple[Vertices, Faces]
"""Vertices in nm, (n, 3), and triangles, (m, 3)."""

_INITIAL: Final = re.compile(r"~(\d+)/([\w\-]+\.shard):(\d+):(\d+)")
_DYNAMIC: Final = re.compile(r"(\d+):\d+:[\d_\-]+")
_LATTICE_BITS: Final = 21
"""Bits for each axis of a packed vertex: enough for 6 mm at a pitch of 3 nm."""


class Fragment(NamedTuple):
    """A fragment as a manifest names it.

    ``node`` is the id that it is the mesh of; ``path`` the object below the mesh folder, of which it is the bytes
    ``[start, stop)``, or all if ``stop`` is 0. Both together never change their meaning.
    """

    node: int
    path: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class ChunkGrid:
    """Which layer-2 chunk of the graph an id or a place is in, as one number.

    ``size`` (3,) and ``offset`` (3,) are in nm, ``bits`` is how many bits of an id each coordinate of its chunk takes,
    ``pitch`` the lattice of the meshes, nm.
    """

    size: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    bits: int
    pitch: float

    def chunks_of(self, nodes: npt.NDArray[np.int64]) -> Numbers:
        """Chunk of each level-2 node."""
        return (nodes & ((1 << LAYER_SHIFT) - 1)) >> (LAYER_SHIFT - 3 * self.bits)

    def chunks_at(self, vertices: Vertices) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """Chunk of each vertex, and whether it lies on a wall between chunks, to within half a step of the lattice."""
        found, wall = np.zeros(len(vertices), np.int64), np.zeros(len(vertices), bool)
        for axis in range(3):
            exact = (vertices[:, axis].astype(np.float64) - self.offset[axis]) / self.size[axis]
            number = np.floor(exact)
            wall |= np.abs(exact - np.rint(exact)) * self.size[axis] <= self.pitch / 2
            found = (found << self.bits) | (number.astype(np.int64) & ((1 << self.bits) - 1))
        return found, wall


@dataclass(frozen=True, slots=True)
class MeshSource:
    """Where the fragments of a segmentation lie, and the lattice that they are made on.

    ``chunk`` (3,) and ``offset`` (3,) in nm say where faces of layer-2 chunks may be; ``grids`` is the lattice's pitch,
    nm, by layer; ``graph`` are the chunks of the graph itself.
    """

    folder: str
    dynamic: str
    sharded: bool
    top_layer: int
    chunk: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]
    grids: Mapping[int, float]
    graph: ChunkGrid

    @classmethod
    def read(cls, table: Mapping[str, Any], folder: str, info: Mapping[str, Any]) -> MeshSource:
        """Combine the segmentation's info and that of the mesh folder at ``folder``."""
        try:
            scale, first = table["scales"][int(info.get("mip") or 0)], table["scales"][0]
            metadata = table.get("mesh_metadata") or {}
            top = int(metadata.get("max_meshed_layer", table["graph"]["n_layers"]))
            uniform = metadata.get("uniform_draco_grid_size")
            sizes = metadata.get("draco_grid_sizes", {})
            offset = np.multiply(scale.get("voxel_offset", (0, 0, 0)), scale["resolution"], dtype=np.float64)
            offset = offset if table.get("chunks_start_at_voxel_offset") else np.zeros(3)
            grids = {layer: float(uniform) for layer in range(2, top + 1)} if uniform else _by_layer(sizes)
            return cls(
                folder=folder,
                dynamic=str(metadata.get("unsharded_mesh_dir", "dynamic")),
                sharded="sharding" in info,
                top_layer=top,
                # the storage chunk, not the graph's: cloud-volume looks for seams on its faces
                chunk=np.multiply(scale["chunk_sizes"][0], first["resolution"], dtype=np.float64),
                offset=offset,
                grids=grids,
                graph=ChunkGrid(
                    np.multiply(table["graph"]["chunk_size"], first["resolution"], dtype=np.float64),
                    offset,
                    int(table["graph"]["spatial_bit_masks"]["2"]),
                    grids.get(2, 1.0),
                ),
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DecodeError(f"the segmentation's info does not describe its meshes: {error!r}") from error


def _by_layer(sizes: Mapping[str, Any]) -> dict[int, float]:
    return {int(layer): float(size) for layer, size in sizes.items()}


def parse_manifest(body: bytes, source: MeshSource) -> list[Fragment]:
    """The fragments that a manifest lists, in its order; empty names are skipped."""
    document = json.decode(body)
    names = document.get("fragments") if isinstance(document, Mapping) else None
    if not isinstance(names, list):
        raise DecodeError(f"the manifest lists no fragments: {body[:60]!r}")
    nodes = document.get("seg_ids") or [None] * len(names)
    if len(nodes) != len(names):
        raise DecodeError(f"the manifest names {len(names)} fragments of {len(nodes)} nodes")
    return [_parse(str(name), node, source) for name, node in zip(names, nodes, strict=True) if name]


def _parse(name: str, node: int | None, source: MeshSource) -> Fragment:
    if found := _INITIAL.fullmatch(name):
        layer, file, offset, size = found.groups()
        start = int(offset)
        return Fragment(int(node or 0), f"initial/{layer}/{file}", start, start + int(size))
    if found := _DYNAMIC.fullmatch(name):
        path = f"{source.dynamic}/{name}" if source.sharded else name
        return Fragment(int(found[1]), path, 0, 0)
    raise DecodeError(f"the manifest names a fragment in an unknown way: {name!r}")


class Run(NamedTuple):
    """Fragments that one request fetches: bytes ``[start, stop)`` of one object, or all of it if ``stop`` is 0."""

    path: str
    start: int
    stop: int
    fragments: tuple[Fragment, ...]

    def cut(self, body: bytes) -> Iterator[tuple[Fragment, bytes]]:
        """Each fragment with its bytes."""
        for fragment in self.fragments:
            yield fragment, body[fragment.start - self.start : fragment.stop - self.start] if self.stop else body


def runs(fragments: Iterable[Fragment], most: int) -> list[Run]:
    """Join fragments that lie side by side in one object, up to ``most`` bytes a run."""
    found: list[Run] = []
    for fragment in sorted(fragments, key=lambda f: (f.path, f.start)):
        path, start, stop = fragment[1:]
        last = found[-1] if found else Run("", 0, 0, ())
        if stop and (last.path, last.stop) == (path, start) and stop - last.start <= most:
            found[-1] = Run(path, last.start, stop, (*last.fragments, fragment))
        else:
            found.append(Run(path, start, stop, (fragment,)))
    return found


def decode(data: bytes) -> Part:
    """A Draco file: (n, 3) vertices in nm, and (m, 3) triangles."""
    try:
        import DracoPy
    except ImportError as error:
        raise MissingDependency("DracoPy", "mesh", "decoding meshes") from error
    try:
        mesh = DracoPy.decode(data)
        points, faces = mesh.points, mesh.faces
    except (DracoPy.FileTypeException, ValueError, AttributeError, RuntimeError) as error:
        raise DecodeError(f"not a Draco mesh ({error}): {data[:20]!r}") from error
    return np.asarray(points, np.float32).reshape(-1, 3), np.asarray(faces, np.uint32).reshape(-1, 3)


class Joined(NamedTuple):
    """Fragments one behind the other: vertices (n, 3), triangles (m, 3), and where the vertices of each begin."""

    vertices: Vertices
    faces: Faces
    starts: Numbers


def join(parts: Sequence[Part]) -> Joined:
    """Put vertices and triangles of all fragments into one array each; whoever has the parts may let them go then."""
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces, end = np.concatenate([part for _, part in parts]), 0
    for (_, part), start in zip(parts, starts.tolist(), strict=False):
        faces[end : end + len(part)] += np.uint32(start)
        end += len(part)
    return Joined(np.concatenate([vertices for vertices, _ in parts]), faces, starts)


def weld(joined: Joined, nodes: Sequence[int], source: MeshSource) -> Part:
    """Join fragments into one mesh: (n, 3) float32 vertices in nm, (m, 3) uint32 triangles.

    Two vertices at the same place become one if there are just two there and both lie on a face of a chunk of their own
    layer; those at edges and corners of chunks, of which there are more, stay apart. Vertices that no triangle uses are
    dropped. The order of what remains is that of the parts.

    Parameters
    ----------
    joined
        Vertices and triangles of all fragments.
    nodes
        The node of each.
    """
    vertices, faces, starts = joined
    layers = np.array(nodes, np.int64) >> LAYER_SHIFT
    grid = source.grids.get(int(layers[0]), 1.0)
    first, second = _pairs(vertices, np.repeat(layers, np.diff(starts)), source, grid)
    number = np.arange(len(vertices), dtype=np.uint32)
    number[second] = number[first]
    kept = np.zeros(len(vertices), bool)
    kept[faces.reshape(-1)] = True
    kept[first] |= kept[second]
    kept[second] = False
    renumbered = (np.cumsum(kept, dtype=np.uint32) - np.uint32(1))[number]
    # compress is four times as fast as brackets; take would be too, but copies its index into 64 bits
    return np.compress(kept, vertices, axis=0), renumbered[faces]


def _on_seam(
    vertices: Vertices, chunk: npt.NDArray[np.float64], offset: npt.NDArray[np.float64], grid: float
) -> npt.NDArray[np.bool_]:
    """Whether each vertex lies within half a step of the lattice of a face of its chunk."""
    found = np.zeros(len(vertices), bool)
    for axis in range(3):
        place = vertices[:, axis].astype(np.float64) - offset[axis]
        behind = place - np.floor(place * (1 / chunk[axis])) * chunk[axis]
        found |= (behind < grid / 2) | (chunk[axis] - behind <= grid / 2)
    return found


def _pairs(vertices: Vertices, layers: Numbers, source: MeshSource, grid: float) -> tuple[Numbers, Numbers]:
    """Numbers of vertices to merge: places with just two vertices, each on a seam of its layer.

    Only places on a seam of any layer are looked at: all vertices at one place are, or none of them.
    """
    near, seams = np.zeros(len(vertices), bool), np.zeros(len(vertices), bool)
    for layer in set(layers.tolist()):
        found = _on_seam(vertices, source.chunk * 2.0 ** (layer - 2), source.offset, grid)
        near |= found
        seams |= found & (layers == layer)
    candidates = np.flatnonzero(near)
    keys = packed(vertices[candidates], grid)
    order = np.argsort(keys, kind="stable")
    candidates, ordered = candidates[order], keys[order]
    begins = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] + np.uint64(1)))
    twice = begins[np.diff(begins, append=len(ordered)) == 2]
    first, second = candidates[twice], candidates[twice + 1]
    both = seams[first] & seams[second]
    return first[both], second[both]


def packed(vertices: Vertices, grid: float) -> npt.NDArray[np.uint64]:
    """One number for each place: its steps on the lattice, or its rank where the vertices lie on none."""
    low = vertices.min(axis=0, initial=np.inf)
    keys = np.zeros(len(vertices), np.uint64)
    for axis in range(3):
        exact = (vertices[:, axis].astype(np.float64) - low[axis]) / grid
        steps = np.rint(exact)
        if np.abs(exact - steps).max(initial=0) > 1e-3 or steps.max(initial=0) >= 1 << _LATTICE_BITS:
            return _ranked(vertices)
        keys = (keys << np.uint64(_LATTICE_BITS)) | steps.astype(np.uint64)
    return keys


def _ranked(vertices: Vertices) -> npt.NDArray[np.uint64]:
    return np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1).astype(np.uint64)
