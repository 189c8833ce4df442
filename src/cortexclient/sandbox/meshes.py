"""The meshes of a graph, as a mesh bucket holds them: made when they are asked for.

Every node up to the highest meshed layer has one fragment, a Draco file. Nodes of the initial graph lie in shards, one
file for each chunk of each layer; those that edits made are objects of their own (``dynamic``).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from .graph import NEVER, Graph
from .layout import Ids, as_ids
from .surfaces import Points, Surface, portals, surface

FOLDER: Final = "graphene_meshes"
PRESHIFT_BITS: Final = 4
MINISHARD_BITS: Final = 1
KEPT_BYTES: Final = 512 << 20
"""Fragments and shards that are kept; the longest unused leave first."""

SHARDING: Final = {
    "@type": "neuroglancer_uint64_sharded_v1",
    "preshift_bits": PRESHIFT_BITS,
    "hash": "identity",
    "minishard_bits": MINISHARD_BITS,
    "shard_bits": 0,
    "minishard_index_encoding": "raw",
    "data_encoding": "raw",
}


def lattice_pitch(resolution: Ids, chunk: Ids) -> int:
    """The pitch, nm, of the lattice that all vertices lie on (PyChunkedGraph's rule for the quantization of layer 2).

    Parameters
    ----------
    resolution
        Nanometres per voxel of the mip that is meshed, (3,).
    chunk
        Its voxels in a chunk of layer 2, (3,).
    """
    extent = int(((chunk + 1) * resolution).max())
    widest = int(resolution.min() / np.sqrt(2))
    bits = int(np.ceil(np.log2(extent / widest + 1)))
    pitch = -(-extent // (2**bits - 1))
    if pitch * (2**bits - 1) < extent + pitch:
        pitch = pitch + 1 if pitch < widest else -(-extent // (2 ** (bits + 1) - 1))
    return int(pitch)


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of the bucket, and where in it the fragment of each node is: offset and size."""

    data: bytes
    places: dict[int, tuple[int, int]]

    @classmethod
    def write(cls, fragments: Mapping[int, bytes], ahead: Mapping[int, bytes] | None = None) -> Shard:
        """Lay out fragments, by node, as ``neuroglancer_uint64_sharded_v1`` wants it.

        ``ahead`` is what lies in front of some of them, told by no index.
        """
        head, ahead = 16 << MINISHARD_BITS, ahead or {}
        places: dict[int, tuple[int, int]] = {}
        pieces, indices, at = [], [], 0
        for minishard in range(1 << MINISHARD_BITS):
            nodes = sorted(n for n in fragments if (n >> PRESHIFT_BITS) & ((1 << MINISHARD_BITS) - 1) == minishard)
            start = at
            for node in nodes:
                gap, data = ahead.get(node, b""), fragments[node]
                places[node] = head + at + len(gap), len(data)
                pieces += [gap, data]
                at += len(gap) + len(data)
            # keys as differences, offsets as gaps after the fragment before (the first from the end of the head), sizes
            sizes = [len(fragments[node]) for node in nodes]
            gaps = np.array([len(ahead.get(node, b"")) for node in nodes], np.int64)
            gaps[:1] += start
            indices.append(np.array([np.diff(nodes, prepend=0), gaps, sizes]))
        bounds = at + np.cumsum([0, *(index.size * 8 for index in indices)])
        table = np.stack([bounds[:-1], bounds[1:]], axis=1).astype("<u8")
        written = [index.astype("<u8").tobytes() for index in indices]
        return cls(b"".join([table.tobytes(), *pieces, *written]), places)


class Meshes:
    """All fragments of a graph.

    Parameters
    ----------
    graph
        Whose nodes are meshed. ``graph.info["mesh_metadata"]["max_meshed_layer"]`` is the highest layer with fragments,
        2 by default; a graph whose info names a ``data_dir`` of its own has no meshes here.
    points
        Gives the representative points, (n, 3) nm, of level-2 nodes: their surfaces lie around these.

    Attributes
    ----------
    omitted
        Nodes without a fragment, for tests: manifests do not list them.
    """

    def __init__(self, graph: Graph, points: Callable[[Ids], Points]) -> None:
        self.graph = graph
        self._points = points
        self.top_layer = int(graph.info.get("mesh_metadata", {}).get("max_meshed_layer", 2))
        self.omitted: set[int] = set()
        self._kept: OrderedDict[int, Shard] = OrderedDict()  # by node, or by chunk (segment 0)
        self._bytes = 0

    @cached_property
    def pitch(self) -> int:
        """Of the lattice, nm."""
        layout = self.graph.layout
        return lattice_pitch(as_ids(layout.resolution), as_ids(layout.chunk_size))

    def table_info(self, data_dir: str) -> dict[str, Any]:
        """What the segmentation's info says about meshes."""
        metadata = dict(self.graph.info.get("mesh_metadata", {})) | {
            "uniform_draco_grid_size": self.pitch,
            "unsharded_mesh_dir": "dynamic",
            "max_meshed_layer": self.top_layer,
        }
        return {"data_dir": data_dir, "mesh": FOLDER, "mesh_dir": FOLDER, "mesh_metadata": metadata}

    def folder_info(self) -> dict[str, Any]:
        """The ``info`` of the mesh folder."""
        return {
            "@type": "neuroglancer_legacy_mesh",
            "mip": 0,
            "chunk_size": self.graph.layout.chunk_size,
            "spatial_index": None,
            "sharding": {str(layer): SHARDING for layer in range(2, self.top_layer + 1)},
        }

    # -- nodes and names ---------------------------------------------------------------------------------------------

    def pieces(self, node: int, start_layer: int) -> Ids:
        """The nodes whose fragments together are the mesh of ``node``; none for supervoxels and unknown ids."""
        layout, top = self.graph.layout, min(start_layer, self.top_layer)
        front, found = as_ids([node] if self.graph.exists([node])[0] else []), []
        while len(front):
            layers = layout.layer(front)
            found.append(front[(layers <= top) & (layers >= 2)])
            front = self.graph.children_of(front[layers > top])[0]
        pieces = np.concatenate(found) if found else as_ids([])
        return pieces[~np.isin(pieces, list(self.omitted))] if self.omitted else pieces

    def is_initial(self, nodes: Ids) -> list[bool]:
        """Whether each node lies in a shard."""
        flags: list[bool] = (self.graph.created(nodes) == self.graph.created_ms).tolist()
        return flags

    def dynamic_name(self, node: int) -> str:
        """``id:0:x0-x1_y0-y1_z0-z1``, in voxels without the volume's offset."""
        layout = self.graph.layout
        span = layout.chunk_voxels(int(layout.layer(node)))
        low = layout.chunk(node) * span
        return f"{node}:0:" + "_".join(f"{a}-{b}" for a, b in zip(low.tolist(), (low + span).tolist(), strict=True))

    def shard_name(self, node: int) -> str:
        """``{layer}/{number of the chunk}-{number of the shard}.shard``, below ``initial/``."""
        layout = self.graph.layout
        layer = int(layout.layer(node))
        number = (node & ((1 << layout.layer_shift) - 1)) // layout.segments(node)
        return f"{layer}/{number}-0.shard"

    def place(self, node: int) -> tuple[int, int]:
        """Offset and size of an initial node's fragment in its shard."""
        return self._shard(node - int(self.graph.layout.segment(node))).places[node]

    # -- objects -----------------------------------------------------------------------------------------------------

    def read(self, path: str) -> bytes | None:
        """An object of the mesh folder by its path; None if there is none."""
        kind, _, name = path.partition("/")
        if kind == "dynamic":
            node = int(name.partition(":")[0]) if name.partition(":")[0].isdecimal() else 0
            known = 0 < node < 2**63 and name == self.dynamic_name(node) and self._is_dynamic(node)
            return self.fragment(node) if known else None
        if kind == "initial" and (chunk := self._chunk_of_shard(name)):
            shard = self._shard(chunk)
            return shard.data if shard.places else None
        return None

    def _is_dynamic(self, node: int) -> bool:
        layer = self.graph.layout.layer(node)
        created = self.graph.created([node])[0]
        return bool(
            2 <= layer <= self.top_layer and self.graph.created_ms < created < NEVER and node not in self.omitted
        )

    def _chunk_of_shard(self, name: str) -> int | None:
        layer, _, file = name.partition("/")
        number = file.removesuffix("-0.shard")
        if not (layer.isdecimal() and number.isdecimal() and 2 <= int(layer) <= self.top_layer):
            return None
        base = int(layer) << self.graph.layout.layer_shift
        chunk = base + int(number) * self.graph.layout.segments(base)
        return chunk if self.shard_name(chunk) == name else None

    def fragment(self, node: int) -> bytes:
        """The Draco file of a node."""
        return self._cached(node, lambda: Shard(self._encode(node), {})).data

    def _shard(self, chunk: int) -> Shard:
        """The shard of a chunk, which is the id of its segment 0."""

        def write() -> Shard:
            nodes = self.graph.nodes_in_chunk(chunk)
            there = nodes[self.is_initial(nodes)].tolist()
            return Shard.write({node: self._encode(node) for node in there if node not in self.omitted})

        return self._cached(chunk, write)

    def _cached(self, key: int, make: Callable[[], Shard]) -> Shard:
        if key not in self._kept:
            self._kept[key] = make()
            self._bytes += len(self._kept[key].data)
            while self._bytes > KEPT_BYTES and len(self._kept) > 1:
                self._bytes -= len(self._kept.popitem(last=False)[1].data)
        self._kept.move_to_end(key)
        return self._kept[key]

    # -- geometry ----------------------------------------------------------------------------------------------------

    def _box(self, nodes: Ids) -> tuple[Points, Points]:
        """Lowest corners, (n, 3) nm, and size, (3,) nm, of the chunks of nodes of one layer."""
        layout = self.graph.layout
        resolution = np.array(layout.resolution, np.float64)
        span = layout.chunk_voxels(int(layout.layer(nodes[0])) if len(nodes) else 2)
        return (layout.voxel_offset + layout.chunk(nodes) * span) * resolution, span * resolution

    def _surface(self, node: int) -> Surface:
        if self.graph.layout.layer(node) > 2:
            return Surface.join([self._surface(child) for child in self.graph.leaves(node, 2).tolist()])
        graph, layout = self.graph, self.graph.layout
        supervoxels, born_ms = graph.children(node), int(graph.created([node])[0])
        edges = graph.edges_touching(supervoxels, born_ms)
        ours = np.isin(edges.a, supervoxels)
        pairs = np.stack([np.where(ours, edges.a, edges.b), np.where(ours, edges.b, edges.a)], axis=1)
        pairs = np.unique(pairs, axis=0)  # a recorded edge may be there twice
        # an edge may be recorded that only a later merge makes count: until then the other end is another object
        roots = graph.roots(pairs.reshape(-1), born_ms).reshape(-1, 2)
        pairs = pairs[roots[:, 0] == roots[:, 1]]
        step = layout.chunk(pairs[:, 1]) - layout.chunk(pairs[:, 0])
        across = np.abs(step).sum(axis=1) == 1  # an edge that a merge made may join chunks that do not touch
        low, size = self._box(as_ids([node]))
        openings = portals(pairs[across], step[across], low[0], size, self.pitch)
        return surface(self._points(as_ids([node]))[0], low[0], size, openings, self.pitch)

    def _encode(self, node: int) -> bytes:
        import DracoPy

        made = self._surface(node)
        low, size = self._box(as_ids([node]))
        origin = np.floor(low[0] / self.pitch - 1) * self.pitch
        bits = int(np.ceil(np.log2((size.max() + 4 * self.pitch) / self.pitch + 1)))
        encoded: bytes = DracoPy.encode(
            (made.vertices * self.pitch).astype(np.float32),
            made.faces.astype(np.uint32),
            quantization_bits=bits,
            compression_level=1,
            quantization_range=self.pitch * (2**bits - 1),
            quantization_origin=origin,
            create_metadata=True,
        )
        return encoded
