"""The formats in which the skeleton service hands out a skeleton."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import orjson
from isal import igzip

from .layout import Ids
from .skeletons import Skeleton

COMPARTMENT_IS_FLOAT: Final = 2
"""The version for Neuroglancer, which shows no integers."""


def flatdict(skeleton: Skeleton, datastack: str, version: int) -> bytes:
    """All arrays in one JSON object. Level-2 ids came with version 4; nothing else separates it from 3 and 1."""
    members = {"lvl2_ids": skeleton.level2} if version == 4 else {}
    value = {
        "meta": skeleton.meta(datastack, version),
        "edges": skeleton.edges,
        "mesh_to_skel_map": skeleton.vertex_of,
        "root": skeleton.root,
        "vertices": skeleton.vertices,
        **_properties(skeleton, version),
        **members,
    }
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def swc(skeleton: Skeleton) -> bytes:
    """SWC text in micrometres, depth first from the root, so that parents come before their children."""
    parent = skeleton.parents()
    order = depth_first(parent)
    number = np.empty(len(order), np.int64)
    number[order] = np.arange(len(order))
    above = np.where(parent[order] < 0, -1, number[parent[order]])
    rows = zip(
        range(len(order)),
        skeleton.compartment[order].tolist(),
        (skeleton.vertices[order] / 1000).tolist(),
        (skeleton.radius[order] / 1000).tolist(),
        above.tolist(),
        strict=True,
    )
    return "".join(f"{i} {kind} {x:.3f} {y:.3f} {z:.3f} {r:.3f} {up}\n" for i, kind, (x, y, z), r, up in rows).encode()


def precomputed(skeleton: Skeleton, version: int) -> bytes:
    """Neuroglancer's binary: counts, vertices, edges, radius, and the compartments twice (0.23.11)."""
    counts = np.array([len(skeleton.vertices), len(skeleton.edges)], "<u4")
    kind = "<f4" if version == COMPARTMENT_IS_FLOAT else "u1"
    arrays = (
        (counts, "<u4"),
        (skeleton.vertices, "<f4"),
        (skeleton.edges, "<u4"),
        (skeleton.radius, "<f4"),
        (skeleton.compartment, kind),
        (skeleton.compartment, kind),
    )
    return b"".join(np.ascontiguousarray(array, dtype).tobytes() for array, dtype in arrays)


def h5(skeleton: Skeleton, datastack: str) -> bytes:
    """The file that the service's bucket holds: meshparty's (``skeleton_io``, version 2), with the level-2 ids.

    Arrays are packed inside; the properties are JSON text; the description lacks the version, which is always 4.
    """
    import h5py

    about = skeleton.meta(datastack, 4)
    del about["skeleton_version"]
    packed_arrays = {
        "vertices": skeleton.vertices,
        "edges": skeleton.edges,
        "mesh_to_skel_map": skeleton.vertex_of,
        "lvl2_ids": skeleton.level2,
    }
    target = io.BytesIO()
    with h5py.File(target, "w") as file:
        file.attrs["file_version"] = 2
        for name, values in packed_arrays.items():
            # there is nothing to pack in an empty array, and h5py refuses to
            file.create_dataset(name, data=values, compression="gzip" if values.size else None)
        file["meta"] = np.bytes_(orjson.dumps(about))
        for name, numbers in _lists(skeleton, 4).items():
            file[f"vertex_properties/{name}"] = json.dumps(numbers)
        file["root"] = skeleton.root
    return target.getvalue()


def arrays(skeleton: Skeleton, version: int) -> bytes:
    """Vertices, edges and properties."""
    return _sorted_json(
        {
            "edges": skeleton.edges.tolist(),
            "vertex_properties": _lists(skeleton, version),
            "vertices": skeleton.vertices.tolist(),
        }
    )


def full_json(skeleton: Skeleton, datastack: str, version: int) -> bytes:
    """All that meshparty knows about a skeleton, its derived quantities included."""
    parent, n = skeleton.parents(), len(skeleton.vertices)
    order = depth_first(parent)
    children = np.bincount(parent[parent >= 0], minlength=n)
    distance, hops, segment = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
    for vertex in order[1:]:
        above = parent[vertex]
        distance[vertex] = distance[above] + np.linalg.norm(skeleton.vertices[vertex] - skeleton.vertices[above])
        hops[vertex] = hops[above] + 1
        segment[vertex] = segment[above] if children[above] == 1 else segment.max() + 1
    ends, branches = np.flatnonzero(children == 0).tolist(), np.flatnonzero(children > 1).tolist()
    alone = [skeleton.root] if children[skeleton.root] == 1 else []
    meta = skeleton.meta(datastack, version)
    del meta["skeleton_version"]
    return _sorted_json(
        {
            "branch_points": branches,
            "branch_points_undirected": branches,
            "distance_to_root": distance.tolist(),
            "edges": skeleton.edges.tolist(),
            "end_points": ends,
            "end_points_undirected": sorted({*ends, *alone}),
            "hops_to_root": hops.tolist(),
            "indices_unmasked": list(range(n)),
            "jsonification_version": "1.0",
            "mesh_to_skel_map": skeleton.vertex_of.tolist(),
            "mesh_to_skel_map_base": skeleton.vertex_of.tolist(),
            "meta": meta,
            "node_mask": [True] * n,
            "root": skeleton.root,
            "root_position": skeleton.vertices[skeleton.root].tolist(),
            "segment_map": segment.tolist(),
            "topo_points": [*ends, *branches, skeleton.root],
            "unmasked_size": n,
            "vertex_properties": _lists(skeleton, version),
            "vertices": skeleton.vertices.tolist(),
        }
    )


def depth_first(parent: Ids) -> Ids:
    """All vertices, parents before children, each branch to its end before the next."""
    children: list[list[int]] = [[] for _ in parent]
    for vertex, above in enumerate(parent.tolist()):
        if above >= 0:
            children[above].append(vertex)
    found, waiting = [], np.flatnonzero(parent < 0).tolist()
    while waiting:
        vertex = waiting.pop()
        found.append(vertex)
        waiting += reversed(children[vertex])
    return np.array(found, np.int64)


def _properties(skeleton: Skeleton, version: int) -> dict[str, Any]:
    exact = skeleton.compartment.astype(np.float64) if version == COMPARTMENT_IS_FLOAT else skeleton.compartment
    return {"compartment": exact, "radius": skeleton.radius}


def _lists(skeleton: Skeleton, version: int) -> dict[str, Any]:
    return {name: values.tolist() for name, values in _properties(skeleton, version).items()}


def _sorted_json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True).encode() + b"\n"


def packed(body: bytes) -> bytes:
    """The body in gzip, as the service stores it."""
    return igzip.compress(body, 1, mtime=0)


BINARY: Final = "application/octet-stream"
JSON: Final = "application/json"

Formats = dict[str, tuple[Callable[[Skeleton, str, int], bytes], str, bool]]
FORMATS: Final[Formats] = {
    "flatdict": (lambda s, d, v: packed(flatdict(s, d, v)), BINARY, False),
    "json": (full_json, JSON, True),
    "jsoncompressed": (lambda s, d, v: packed(full_json(s, d, v)), BINARY, False),
    "arrays": (lambda s, _, v: arrays(s, v), JSON, True),
    "arrayscompressed": (lambda s, _, v: packed(arrays(s, v)), BINARY, False),
    "h5": (lambda s, d, _: h5(s, d), "application/x-hdf5", True),
    "precomputed": (lambda s, _, v: precomputed(s, v), BINARY, True),
    "swc": (lambda s, _, __: swc(s), BINARY, True),
    "swccompressed": (lambda s, _, __: packed(swc(s)), BINARY, False),
}
"""Format: how to make it, its content type, and whether the transport compresses it (others are gzip themselves)."""
